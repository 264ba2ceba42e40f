"""The teacher's commands of ``interp-lab``, where this package is installed beside interp_lab.

``python -m grader`` is ``interp-lab grade`` in any case.
"""

import argparse
import contextlib
import sys
from pathlib import Path

from interp_lab import executors

SYSTEMS = ("moodle", "canvas", "gradescope", "nbgrader", "github", "google", "plain")


def add_teaching(commands: argparse._SubParsersAction) -> None:
    """``interp-lab collect``, ``grade``, ``similarity``, ``export`` and ``questions``; for authors ``new-exercise`` and ``check-exercise``."""
    add_collect(commands)
    add_grade(commands)
    add_similarity(commands)
    add_export(commands)
    add_questions(commands)
    add_new_exercise(commands)
    add_check_exercise(commands)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--exercise", metavar="NN", help="by default the one whose name most notebooks carry")
    parser.add_argument(
        "--roster", type=Path, metavar="CSV", help="all students: a column student, or what your system exports"
    )
    parser.add_argument("--course", type=Path, metavar="YML", help="deadlines, late rules, attempts and points")
    parser.add_argument("--solutions", type=Path, default=Path("solutions"), help="folder with a folder per exercise")


def _known(options: argparse.Namespace) -> list[str]:
    return [path.parent.name for path in sorted(options.solutions.glob("*/solution.ipynb"))]


def _named(options: argparse.Namespace, name: str, what: str) -> str:
    from .exercise import called

    if not (known := _known(options)):
        raise ValueError(f"no exercises in {options.solutions}: go to the course's root, or name them with --solutions")
    if len(named := called(known, name)) != 1:
        raise ValueError(f"{what} must be one of {', '.join(known)}, not {name}")
    return named[0]


def _rules(options: argparse.Namespace, exercise: str, students: list[str] | None):
    from . import course

    return course.read(options.course, exercise, _known(options), students) if options.course else None


def add_collect(commands: argparse._SubParsersAction) -> None:
    """``interp-lab collect``."""
    parser = commands.add_parser(
        "collect", help="one notebook of each student, from a folder or zip as your classroom system gave it out"
    )
    parser.add_argument("download", type=Path, metavar="DOWNLOAD", help="folder or zip")
    parser.add_argument("--into", type=Path, required=True, metavar="SUBMISSIONS", help="made if missing")
    parser.add_argument("--from", dest="form", choices=SYSTEMS, help="where the names are not enough to tell")
    _common(parser)
    parser.set_defaults(run=run_collect)


def run_collect(options: argparse.Namespace) -> None:
    from .collect import told

    found = _collect(options, options.download, options.into, options.form)
    for line in told(options.into):
        print(f"Look: {line}.")
    print(f"{found.exercise}, {found.counts()}")
    print(f"Written to {options.into}: a folder for each, and collected.csv, which says how everybody was found")


def _collect(options: argparse.Namespace, download: Path, into: Path, form: str | None):
    from . import classroom, roster

    people = roster.read(options.roster) if options.roster else None
    students = [person.student for person in people] if people else None
    exercise = _named(options, options.exercise, "--exercise") if options.exercise else None
    return classroom.collect(
        download,
        into,
        _known(options),
        exercise=exercise,
        people=people,
        rules=lambda exercise: _rules(options, exercise, students),
        form=form,
    )


def add_grade(commands: argparse._SubParsersAction) -> None:
    """``interp-lab grade``."""
    parser = commands.add_parser("grade", help="grade a folder of submissions of one exercise in a sandbox (Linux)")
    parser.add_argument(
        "submissions",
        type=Path,
        help="folder with STUDENT.ipynb or STUDENT/EXERCISE.ipynb, or what interp-lab collect takes",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="GRADES",
        help="made if missing; give it again to go on or to regrade",
    )
    _common(parser)
    parser.add_argument("--workers", type=int, help="sandboxes side by side; one per core by default")
    parser.add_argument("--executor", choices=executors.NAMES, default="none", help="in place of --workers")
    parser.add_argument("--seconds", type=float, default=10.0, help="time limit for a question of a student")
    parser.add_argument("--unsafe", action="store_true", help="run the students' code without a sandbox")
    parser.set_defaults(run=run_grade)


def run_grade(options: argparse.Namespace) -> None:
    from . import classroom, gradebook, journal, report, sandbox
    from . import roster as rosters
    from .collect import TABLE
    from .exercise import find

    folder, name, notes = options.submissions, options.exercise, list[str]()
    roster = [person.student for person in rosters.read(options.roster)] if options.roster else None
    students = roster
    if folder.is_file() or (not (folder / TABLE).exists() and classroom.form_of(folder) != "plain"):
        options.out.mkdir(parents=True, exist_ok=True)
        folder = options.out / "submissions"
        with journal.alone(options.out):
            found = _collect(options, options.submissions, folder, None)
        name, roster = found.exercise, None  # whom the roster names has a row in the table now
        print(found.counts())
    exercise = find(options.solutions, folder, name)
    try:
        with executors.open_executor(options.executor) as executor:
            results = gradebook.grade(
                folder,
                options.out,
                exercise,
                roster=roster,
                rules=_rules(options, exercise.name, students),
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


def add_similarity(commands: argparse._SubParsersAction) -> None:
    """``interp-lab similarity``."""
    parser = commands.add_parser("similarity", help="whose programs are alike: a hint for the instructor, no verdict")
    parser.add_argument("submissions", type=Path, help="the folder that interp-lab grade took, or collect wrote")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="GRADES", help="gets similarity.html; made if missing"
    )
    parser.add_argument("--exercise", metavar="NN", help="by default the one whose name most notebooks carry")
    parser.add_argument("--solutions", type=Path, default=Path("solutions"), help="folder with a folder per exercise")
    parser.add_argument("--unsafe", action="store_true", help="read the students' code without a sandbox")
    parser.set_defaults(run=run_similarity)


def run_similarity(options: argparse.Namespace) -> None:
    from . import journal, report, sandbox, similarity
    from .collect import submissions
    from .exercise import find

    exercise = find(options.solutions, options.submissions, options.exercise)
    everyone = [s for s in submissions(options.submissions, exercise.name) if s.path is not None]
    try:
        with contextlib.closing(sandbox.Lane(unsafe=options.unsafe)) as lane:
            pairs, notes = similarity.alike(everyone, exercise, lane)
    except sandbox.SandboxError as error:
        raise ValueError(str(error)) from None
    page = report.similarity(pairs, notes, len(everyone) - len(notes), exercise.name, similarity.ALIKE)
    journal.write(options.out / "similarity.html", page)
    for line in notes:
        print(f"Look: {line}.")
    for pair in pairs:
        print(f"{100 * pair.share:3.0f} %  {' and '.join(pair.students)}: {pair.parts} expressions and statements")
    print(
        f"Written to {options.out}: similarity.html, side by side. A hint where to look, no verdict; not for students"
    )


def add_export(commands: argparse._SubParsersAction) -> None:
    """``interp-lab export``."""
    parser = commands.add_parser("export", help="grades and feedback as your classroom system takes them")
    parser.add_argument("grades", type=Path, metavar="GRADES", help="the folder that interp-lab grade wrote")
    parser.add_argument("--to", required=True, choices=("canvas", "moodle", "gradescope", "nbgrader"))
    parser.add_argument(
        "--table",
        type=Path,
        help="what the system exported: the gradebook of Canvas, the grading worksheet of Moodle, gradebook.db of nbgrader",
    )
    parser.add_argument(
        "--column", help="of the table; by default the one called after the exercise, in Moodle's, Grade"
    )
    parser.add_argument("--assignment", help="of nbgrader; by default called as the exercise")
    parser.add_argument("--solutions", type=Path, default=Path("solutions"), help="folder with a folder per exercise")
    parser.set_defaults(run=run_export)


def run_export(options: argparse.Namespace) -> None:
    from . import export, journal

    given = export.grades(options.grades)
    exercise = journal.exercise(options.grades / "journal.jsonl")
    if options.to == "gradescope":
        written = {"gradescope_autograder.zip": export.autograder(options.grades, given)}
        told = [f"{grade.student}: {grade.why}" for grade in given if grade.why]
    elif options.table is None:
        raise ValueError(f"--to {options.to} needs --table, the file that {options.to} exported")
    elif options.to == "nbgrader":
        solution = (options.solutions / exercise / "solution.ipynb").read_bytes()
        told, written = (
            export.to_nbgrader(options.grades, options.table, options.assignment or exercise, exercise, solution),
            {},
        )
    else:
        column = options.column or ("Grade" if options.to == "moodle" else exercise)
        try:
            filled, told = export.fill(options.table.read_bytes(), options.to, given, column)
        except ValueError as error:
            raise ValueError(f"{options.table}: {error}") from None
        pages, without = export.feedback(options.grades, options.to, given)
        written = {f"{options.to}.csv": filled, f"{options.to}_feedback.zip": pages}
        told += without
    told += [f"{grade.student} gets {grade.value}: {grade.remark}" for grade in given if grade.remark]
    for name, data in written.items():
        (options.grades / name).write_bytes(data)
    for line in told:
        print(f"Look: {line}.")
    print(f"Written to {options.grades}: {', '.join(written)}" if written else f"Written to {options.table}")


def add_questions(commands: argparse._SubParsersAction) -> None:
    """``interp-lab questions``."""
    from .exam_questions import KINDS

    parser = commands.add_parser("questions", help="questions for an exam or a seminar, with or without model answers")
    parser.add_argument("names", nargs="*", metavar="NAME", help="lrp-1, a page (lrp) or a part (part2); none: all")
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=KINDS, dest="kinds")
    parser.add_argument("--answers", action="store_true", help="model answers, and what students get wrong")
    parser.add_argument("--out", type=Path, metavar="FILE", help="Markdown; by default it is printed")
    parser.set_defaults(run=run_questions)


def run_questions(options: argparse.Namespace) -> None:
    from . import exam_questions

    text = exam_questions.sheet(options.names, kinds=options.kinds, answers=options.answers)
    if options.out is None:
        print(text, end="")
    else:
        options.out.write_text(text, encoding="utf-8")
        print(f"Written to {options.out}")


def add_new_exercise(commands: argparse._SubParsersAction) -> None:
    """``interp-lab new-exercise``."""
    parser = commands.add_parser("new-exercise", help="a folder with a worked question, its hidden checks and a corpus")
    parser.add_argument("name", metavar="NAME", help="such as grad_cam; 18_grad_cam chooses the number")
    parser.add_argument("--solutions", type=Path, default=Path("solutions"), help="folder with a folder per exercise")
    parser.set_defaults(run=run_new_exercise)


def run_new_exercise(options: argparse.Namespace) -> None:
    from . import authoring

    folder = authoring.create(options.solutions, options.name)
    where = "" if options.solutions == Path("solutions") else f" --solutions {options.solutions}"
    print(f"Written to {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    print(f"Next: interp-lab check-exercise {folder.name}{where}; then change one thing at a time, and check again")


def add_check_exercise(commands: argparse._SubParsersAction) -> None:
    """``interp-lab check-exercise``."""
    parser = commands.add_parser(
        "check-exercise", help="whether an exercise tells right answers from wrong ones, and leaks none"
    )
    parser.add_argument("name", metavar="NAME", help="name or number of the exercise")
    parser.add_argument("--solutions", type=Path, default=Path("solutions"), help="folder with a folder per exercise")
    parser.add_argument("--unsafe", action="store_true", help="try the answers without a sandbox")
    parser.set_defaults(run=run_check_exercise)


def run_check_exercise(options: argparse.Namespace) -> int:
    """1 if anything is off."""
    from tqdm import tqdm

    from . import authoring, sandbox
    from .corpus import Corpus, Trial

    folder = options.solutions / _named(options, options.name, "NAME")
    try:
        corpus = Corpus(folder)
    except (ValueError, FileNotFoundError) as error:
        print(f"Off: {error}")
        return 1
    try:
        with contextlib.closing(sandbox.Lane(unsafe=options.unsafe)) as lane:
            found: dict[Trial, list[str]] = {}
            for trial in tqdm(corpus.trials(), folder.name, disable=None):
                if trial.kind != "solution" and any(found[other] for other in found if other.kind == "solution"):
                    break  # what follows from it is no help
                found[trial] = trial.faults(lane)
    except sandbox.SandboxError as error:
        raise ValueError(str(error)) from None
    print(authoring.table(found))
    return int(any(found.values()))
