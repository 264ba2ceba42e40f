"""The ``interp-lab`` command: one subcommand per job, each a parser and a function side by side.

A new subcommand is a function ``add_NAME(commands)`` that adds its parser, sets ``run`` on it to a function of the
parsed arguments, and stands in ``COMMANDS``. argparse, since the package itself depends on no other parser.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, nullcontext
from pathlib import Path

DATA = ("digits", "mnist", "fashion", "scenes")


def add_retraining(commands: argparse._SubParsersAction) -> None:
    """``interp-lab roar`` and ``interp-lab kar``."""
    for name, removed in (("roar", "most"), ("kar", "least")):
        parser = commands.add_parser(
            name, help=f"retrain networks without the {removed} relevant pixels of every attribution method"
        )
        parser.add_argument("--data", choices=DATA, default="digits", help="mnist and fashion need INTERP_LAB_DATA")
        parser.add_argument("--methods", nargs="+", metavar="NAME", help="names of METHODS; all of them by default")
        parser.add_argument("--fractions", nargs="+", type=float, default=[0.1, 0.3, 0.5, 0.7, 0.9])
        parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
        parser.add_argument("--network", help="small_cnn, or for scenes scenes_cnn, by default")
        parser.add_argument("--epochs", type=int, default=10)
        parser.add_argument("--device", default="cpu", help="cpu by default")
        parser.add_argument(
            "--executor",
            choices=("none", "processes", "dask"),
            default="none",
            help="dask: the cluster at DASK_SCHEDULER_ADDRESS, or a local one",
        )
        parser.add_argument(
            "--folder", help="for the images while the sweep runs; one that all machines of a cluster see"
        )
        parser.add_argument("--results", metavar="FILE", help=f"finished cells are appended here ({name}-DATA.jsonl)")
        parser.set_defaults(run=run_retraining, sweep=name)


def run_retraining(options: argparse.Namespace) -> None:
    import interp_lab
    from interp_lab import data
    from interp_lab.evaluate.roar import Workers

    if options.data == "scenes":
        dataset = (data.scenes(10_000, seed=1), data.scenes(2_000, seed=2))
    else:
        source = "sklearn" if options.data == "digits" else options.data
        dataset = (data.digits("train", source=source), data.digits("test", source=source))
    with _executor(options.executor) as executor:
        table = getattr(interp_lab, options.sweep)(
            options.methods or list(interp_lab.METHODS),
            dataset,
            options.network or ("scenes_cnn" if options.data == "scenes" else "small_cnn"),
            fractions=options.fractions,
            seeds=options.seeds,
            results=options.results or f"{options.sweep}-{options.data}.jsonl",
            training={"epochs": options.epochs},
            workers=Workers(executor, options.device, folder=options.folder),
        )
    print(table)


@contextmanager
def _executor(name: str) -> Iterator[Executor | None]:
    if name == "processes":
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        # Spawned, since a forked child of a process with threads can hang.
        with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent) as pool:
            yield pool
    elif name == "dask":
        try:
            import dask
            from distributed import Client, LocalCluster
        except ImportError as error:
            raise ValueError("--executor dask needs the package distributed: pip install distributed") from error
        local = dask.config.get("scheduler-address", None) is None
        # Dask has memory given back after every operation, which makes a training take twice its time.
        keeping_memory = dask.config.set({"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None})
        with keeping_memory:
            # One thread per worker: a worker trains one network at a time anyway.
            cluster = LocalCluster(threads_per_worker=1, dashboard_address=None) if local else nullcontext()
            with cluster as address, Client(address) as client:
                yield client.get_executor()
    else:
        yield None


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for ever."""
    import multiprocessing
    import threading

    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def add_grade(commands: argparse._SubParsersAction) -> None:
    """``interp-lab grade``."""
    parser = commands.add_parser("grade", help="grade a folder of submissions of one exercise in a sandbox (Linux)")
    parser.add_argument("submissions", type=Path, help="folder with STUDENT.ipynb or STUDENT/EXERCISE.ipynb")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="GRADES",
        help="made if missing; give it again to go on or to regrade",
    )
    parser.add_argument("--exercise", metavar="NN", help="by default the one whose name the notebooks carry")
    parser.add_argument("--solutions", type=Path, default=Path("solutions"), help="folder of the solution notebooks")
    parser.add_argument("--workers", type=int, help="sandboxes side by side; one per core by default")
    parser.add_argument(
        "--executor", choices=("none", "processes", "dask"), default="none", help="in place of --workers"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="time limit for a question of a student")
    parser.add_argument("--unsafe", action="store_true", help="run the students' code without a sandbox")
    parser.set_defaults(run=run_grade)


def run_grade(options: argparse.Namespace) -> None:
    from .grade import gradebook, report, sandbox
    from .grade.questions import questions

    solution = gradebook.find_solution(options.solutions, options.submissions, options.exercise)
    try:
        with _executor(options.executor) as executor:
            results = gradebook.grade(
                options.submissions,
                options.out,
                solution,
                executor=executor,
                workers=options.workers,
                limits=sandbox.Limits(seconds=options.seconds),
                unsafe=options.unsafe,
                progress=lambda line: print(f"\r{line:60.60}", end="", file=sys.stderr, flush=True),
            )
    except sandbox.SandboxError as error:
        raise ValueError(str(error)) from None
    finally:
        print(file=sys.stderr)
    print(report.table(results, questions(solution.stem)))
    print(f"Written to {options.out}: gradebook.csv, summary.html, feedback/, gradescope/")


def add_check(commands: argparse._SubParsersAction) -> None:
    """``interp-lab check``."""
    parser = commands.add_parser("check", help="the visible score of your notebooks, and your progress over all")
    parser.add_argument("notebooks", nargs="*", type=Path, help="none: only show the progress")
    parser.add_argument("--seconds", type=int, default=120, help="time limit for a cell")
    parser.set_defaults(run=run_check)


def run_check(options: argparse.Namespace) -> None:
    from .grade import visible

    for path in options.notebooks:
        score = visible.visible_score(path, seconds=options.seconds)
        visible.remember(score, path.parent)
        print(f"{score}\n")
    here = Path("exercises") if Path("exercises").is_dir() else Path()
    for folder in dict.fromkeys(path.parent for path in options.notebooks) or [here]:
        print(visible.bars(folder))


COMMANDS = (add_retraining, add_check, add_grade)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="interp-lab", description="Interpretable deep learning from the shell.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in COMMANDS:
        add(commands)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, FileNotFoundError) as error:
        print(f"interp-lab: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
