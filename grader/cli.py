"""``interp-lab grade``, where this package is installed beside interp_lab; ``python -m grader`` in any case."""

import argparse
import sys
from pathlib import Path

from interp_lab import executors


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
    parser.add_argument("--exercise", metavar="NN", help="by default the one whose name most notebooks carry")
    parser.add_argument("--roster", type=Path, metavar="CSV", help="all students, in a column student")
    parser.add_argument("--solutions", type=Path, default=Path("solutions"), help="folder with a folder per exercise")
    parser.add_argument("--workers", type=int, help="sandboxes side by side; one per core by default")
    parser.add_argument("--executor", choices=executors.NAMES, default="none", help="in place of --workers")
    parser.add_argument("--seconds", type=float, default=10.0, help="time limit for a question of a student")
    parser.add_argument("--unsafe", action="store_true", help="run the students' code without a sandbox")
    parser.set_defaults(run=run_grade)


def run_grade(options: argparse.Namespace) -> None:
    from . import collect, gradebook, report, sandbox
    from .exercise import find

    exercise = find(options.solutions, options.submissions, options.exercise)
    roster = collect.read_roster(options.roster) if options.roster else None
    notes: list[str] = []
    try:
        with executors.open_executor(options.executor) as executor:
            results = gradebook.grade(
                options.submissions,
                options.out,
                exercise,
                roster=roster,
                executor=executor,
                workers=options.workers,
                limits=sandbox.Limits(seconds=options.seconds),
                unsafe=options.unsafe,
                progress=lambda line: print(f"\r{line:60.60}", end="", file=sys.stderr, flush=True),
                note=notes.append,
            )
    except sandbox.SandboxError as error:
        raise ValueError(str(error)) from None
    finally:
        print(file=sys.stderr)
    print(report.table(results, exercise.questions))
    for note in notes:
        print(f"Look: {note}.")
    print(f"Written to {options.out}: gradebook.csv, summary.html, feedback/, gradescope/")
