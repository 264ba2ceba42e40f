"""The ``interp-lab`` command: one subcommand per job, each a parser and a function side by side.

A new subcommand is a function ``add_NAME(commands)`` that adds its parser, sets ``run`` on it to a function of the
parsed arguments, which may return an exit status, and stands in ``COMMANDS``, or is an entry point of another package
in the group ``interp_lab.commands``. argparse, since the package itself depends on no other parser.
"""

import argparse
import io
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from . import executors

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
            choices=executors.NAMES,
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
    with executors.open_executor(options.executor) as executor:
        table = getattr(interp_lab, options.sweep)(
            options.methods or list(interp_lab.METHODS),
            dataset,
            options.network or ("scenes_cnn" if options.data == "scenes" else "small_cnn"),
            fractions=options.fractions,
            seeds=options.seeds,
            results=options.results or f"{options.sweep}-{options.data}.jsonl",
            epochs=options.epochs,
            workers=Workers(executor, options.device, folder=options.folder),
        )
    print(table)


def add_check(commands: argparse._SubParsersAction) -> None:
    """``interp-lab check``."""
    parser = commands.add_parser("check", help="the visible score of your notebooks, and your progress over all")
    parser.add_argument("notebooks", nargs="*", type=Path, help="none: only show the progress")
    parser.add_argument("--seconds", type=int, default=120, help="time limit for a cell")
    parser.add_argument(
        "--as-graded",
        action="store_true",
        help="also take the functions out as the grader does, and name each line that would not count",
    )
    parser.set_defaults(run=run_check)


def run_check(options: argparse.Namespace) -> None:
    from . import visible_score

    for path in options.notebooks:
        score = visible_score.visible_score(path, seconds=options.seconds)
        visible_score.remember(score, path.parent)
        print(f"{score}\n")
        if options.as_graded:
            print(f"{visible_score.as_graded(path, seconds=options.seconds)}\n")
    here = Path("exercises") if Path("exercises").is_dir() else Path()
    full, empty = "█", "░"
    try:
        (full + empty).encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # a pipe of Windows
        full, empty = "#", "-"
    for folder in dict.fromkeys(path.parent for path in options.notebooks) or [here]:
        print(visible_score.bars(folder, full=full, empty=empty))


def add_live(commands: argparse._SubParsersAction) -> None:
    """``interp-lab live``."""
    parser = commands.add_parser(
        "live", help="a page of one file that runs the methods on the reader's own input, without a server"
    )
    parser.add_argument(
        "network", help="FILE.py:FUNCTION, your function that makes the network, or a network of the book, digits_cnn"
    )
    parser.add_argument("--weights", type=Path, metavar="FILE", help="the network's state, safetensors")
    parser.add_argument(
        "--images",
        required=True,
        metavar="FILE",
        help="safetensors with images (N, C, H, W) in [0, 1], and perhaps labels",
    )
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="their names; numbers by default")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="of interp_lab.live.SHOWN; all of them by default")
    parser.add_argument("--draw", action="store_true", help="a pen, for white strokes on black")
    parser.add_argument("--title", default="Laboratory")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the page, HTML")
    parser.set_defaults(run=run_live)


def run_live(options: argparse.Namespace) -> None:
    from .live.command import write_page

    size = write_page(**{name: value for name, value in vars(options).items() if name != "run"})
    print(f"{options.out}: {size / 1000:.0f} kB")


COMMANDS = (add_retraining, add_check, add_live)


def main(arguments: Sequence[str] | None = None) -> int:
    """``interp-lab``: the subcommands of the package, and those that installed packages add to it."""
    added = (point.load() for point in entry_points(group="interp_lab.commands"))
    return run((*COMMANDS, *added), arguments)


def run(commands: Iterable[Callable[[argparse._SubParsersAction], None]], arguments: Sequence[str] | None) -> int:
    """Run one of these subcommands; a mistake of the user is one line on stderr. The exit status."""
    parser = argparse.ArgumentParser(prog="interp-lab", description="Interpretable deep learning from the shell.")
    parsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in commands:
        add(parsers)
    options = parser.parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a name that the terminal cannot write must not end the run
    try:
        return options.run(options) or 0
    except (ValueError, FileNotFoundError) as error:
        print(f"interp-lab: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
