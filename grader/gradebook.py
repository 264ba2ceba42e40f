"""Grading a folder of submissions: who handed in what, the journal, and what is written from it.

A folder of submissions holds ``STUDENT.ipynb``, ``STUDENT/EXERCISE.ipynb`` or, as nbgrader collects them,
``STUDENT/ASSIGNMENT/EXERCISE.ipynb``. The output folder holds

==================== ==========================================================================================
course.key           32 secret bytes, made on first use: the seed of all inputs. Same key, same grades
journal.jsonl        one line per graded student, written as soon as it is known; a killed run goes on from here
gradebook.csv        one line per student
by_hand.html         the answers that a person marks, and their mark schemes
by_hand.csv          the table for these marks, which the next run reads; see `by_hand`
feedback/            one HTML page per student
gradescope/          one folder per student with Gradescope's ``results.json``
summary.html         the success rate of every question
==================== ==========================================================================================

A student who is in the journal with the same file is not graded again; delete the line, or the journal, to do so.
"""

import csv
import hashlib
import io
import json
import os
import platform
import re
import secrets
import stat
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from . import by_hand, extract, report, sandbox
from .question import Question, mark
from .questions import questions

MAX_BYTES = 10 * 2**20  # a notebook with many pictures has 1 or 2 MB
NAME = re.compile(r"\w[\w .,@+()'-]{0,99}")
VERSION = 1  # of the journal


@dataclass(frozen=True)
class Submission:
    """One student's notebook, or why there is none."""

    student: str
    path: Path | None
    refused: str = ""


@dataclass
class Result:
    """The grade of one student: per question the faults of its parts, ``""`` for a right one.

    ``problem`` says why there is nothing to grade.
    """

    student: str
    sha256: str
    faults: dict[str, list[str]] = field(default_factory=dict)
    problem: str = ""

    def earned(self, question: Question) -> float:
        faults = self.faults.get(question.name, ["-"] * len(question.parts))
        return sum(part.points for part, fault in zip(question.parts, faults, strict=True) if not fault)


def submissions(folder: Path, exercise: str) -> list[Submission]:
    """What is in the folder, by student. Links, odd names and missing notebooks are refused one by one.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of submissions at {folder}")
    found: list[Submission] = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if re.match(r"\.(?!\.)", entry.name):  # of the system, such as .DS_Store; ".." is refused below
            continue
        student = entry.name.removesuffix(".ipynb")
        if not NAME.fullmatch(student) or student != student.strip():
            shown = os.fsencode(student).decode(errors="backslashreplace")
            found.append(Submission(shown, None, "the name may hold letters, digits, spaces and .,@+()'_- only"))
        elif entry.is_symlink():
            found.append(Submission(student, None, "a symbolic link is not followed"))
        elif entry.is_dir(follow_symlinks=False):
            found.append(_in_folder(student, Path(entry.path), exercise))
        elif entry.name.endswith(".ipynb"):
            found.append(Submission(student, Path(entry.path)))
    by_name = {submission.student: submission for submission in found}
    for submission in found:
        if by_name[submission.student] is not submission:
            twice = "handed in twice, as a folder and as a file"
            by_name[submission.student] = Submission(submission.student, None, twice)
    return list(by_name.values())


def _in_folder(student: str, folder: Path, exercise: str) -> Submission:
    inner = [Path(e.path) for e in os.scandir(folder) if e.is_dir(follow_symlinks=False)]
    notebooks = [path / f"{exercise}.ipynb" for path in [folder, *sorted(inner)]]
    notebooks = [path for path in notebooks if os.path.lexists(path)]
    if len(notebooks) != 1:
        return Submission(student, None, f"expected one notebook {exercise}.ipynb, found {len(notebooks)}")
    return Submission(student, notebooks[0])


def read(submission: Submission) -> bytes:
    """The bytes of a notebook.

    Raises:
        ValueError: it was refused, is no regular file, or is larger than ``MAX_BYTES``.
    """
    if submission.path is None:
        raise ValueError(submission.refused)
    try:
        handle = os.open(submission.path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise ValueError(f"the notebook cannot be opened, or is a symbolic link ({error.strerror})") from None
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("the notebook is not a regular file")
        if status.st_size > MAX_BYTES:
            raise ValueError(
                f"the notebook has {status.st_size / 2**20:.0f} MiB; at most {MAX_BYTES // 2**20} are read"
            )
        return file.read(MAX_BYTES)


_TRUSTED = threading.Lock()


class Unfit(sandbox.SandboxError):
    """On this machine the solution itself would lose points, so nobody is graded on it."""


def prove(exercise: str, solution: bytes, limits: sandbox.Limits, unsafe: bool = False) -> None:
    """Grade the solution itself, once per exercise and lane.

    Raises:
        Unfit: it does not get all points.
    """
    lane = sandbox.lane(unsafe, limits)
    if (exercise, solution) in lane.proven:
        return
    faults = _mark(lane, extract.code_cells(solution), exercise, "", solution, b"")
    if lost := [
        f"question {name}: {' '.join(fault.split())}" for name, parts in faults.items() for fault in parts if fault
    ]:
        raise Unfit(
            f"nobody was graded: in the sandbox of {platform.node() or 'this machine'} the solution of {exercise} itself "
            f"loses {len(lost)} parts. The first: {lost[0]} (limits: {limits})"
        )
    lane.proven.add((exercise, solution))


def _mark(
    lane: sandbox.Lane, cells: dict[str, str], exercise: str, student: str, solution: bytes, key: bytes
) -> dict[str, list[str]]:
    given, answers = references(exercise, solution)
    names = (exercise, student)
    return mark(questions(exercise), key, names, lambda c: lane.run(given | cells, c), answers, _TRUSTED)


def grade_one(
    submission: Submission, exercise: str, solution: bytes, key: bytes, limits: sandbox.Limits, unsafe: bool = False
) -> Result:
    """Grade one student in the sandbox lane of this thread, which has to be proven first."""
    result = Result(submission.student, "")
    try:
        data = read(submission)
        result.sha256 = hashlib.sha256(data).hexdigest()
        cells = extract.code_cells(data)
    except ValueError as error:
        result.problem = str(error)
        return result
    prove(exercise, solution, limits, unsafe)
    lane = sandbox.lane(unsafe, limits)
    result.faults = _mark(lane, cells, exercise, submission.student, solution, key)
    return result


@cache
def references(exercise: str, solution: bytes) -> tuple[dict[str, str], dict[str, Callable]]:
    """The cells that every student is given, and the solution's functions, by name.

    Raises:
        ValueError: the solution lacks a function that a question asks for.
    """
    import torch

    answers: dict[str, Callable] = {}
    statements, _ = extract.parse(extract.code_cells(solution))
    for question in questions(exercise):
        for part in question.parts:
            for call in part.calls(torch.Generator().manual_seed(0)):
                if call.function not in answers:
                    namespace: dict = {"__name__": "solution"}
                    problems = extract.execute(extract.select(statements, call.function), namespace)
                    if call.function not in namespace or problems:
                        why = "; ".join(problems)
                        raise ValueError(f"the solution of {exercise} gives no {call.function}: {why}")
                    answers[call.function] = namespace[call.function]
    return extract.code_cells(solution, given=True), answers


def grade(
    folder: Path,
    out: Path,
    solution: Path,
    *,
    executor: Executor | None = None,
    workers: int | None = None,
    limits: sandbox.Limits | None = None,
    unsafe: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> list[Result]:
    """Grade every submission and write the output folder.

    Args:
        solution: ``solutions/NN_topic.ipynb``; its name is that of the exercise.
        executor: runs `grade_one`, for example on a cluster; each of its threads or processes opens a lane.
        workers: number of lanes without an executor, by default one per core.

    Raises:
        ValueError: the journal belongs to another exercise, key or solution, the exercise has no graded questions, or
            the table of marks by hand cannot be understood.
        SandboxError: there is no sandbox, and not ``unsafe``; or the solution itself does not get all points in it.
    """
    exercise, data = solution.stem, solution.read_bytes()
    asked = questions(exercise)
    references(exercise, data)
    by_person, table = by_hand.items(data), out / "by_hand.csv"
    by_hand.read(table, by_person)  # a slip in it shall be told before hours of grading
    out.mkdir(parents=True, exist_ok=True)
    key = _key(out / "course.key")
    journal = Journal(out / "journal.jsonl", _header(exercise, data, key, asked))
    everyone = submissions(folder, exercise)
    waiting = [s for s in everyone if not journal.has(s)]
    progress(f"{len(everyone)} submissions, {len(everyone) - len(waiting)} graded before")
    limits, own = limits or sandbox.Limits(), executor is None
    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1) if own else executor
    try:
        if waiting:
            pool.submit(prove, exercise, data, limits, unsafe).result()  # refuses before anything is graded
        futures = {pool.submit(grade_one, s, exercise, data, key, limits, unsafe): s for s in waiting}
        for count, future in enumerate(as_completed(futures), 1):
            student = futures[future].student
            try:
                journal.add(future.result())
            except Unfit:  # one machine of a cluster
                for other in futures:
                    other.cancel()
                raise
            except Exception as error:  # one student shall not stop the others; not in the journal, so tried again
                journal.results[student] = Result(
                    student, "", {}, f"the grader failed ({type(error).__name__}: {error})"
                )
            progress(f"{count}/{len(waiting)} {student}")
    finally:
        if own:
            pool.shutdown(cancel_futures=True)
            sandbox.close_lanes()
        journal.close()
    results = [journal.results[s.student] for s in everyone]
    marks = {shown(s.student): by_hand.Marks() for s in everyone} | by_hand.read(table, by_person)
    if by_person:
        _write(table, by_hand.table(marks, by_person))
        texts = {s.student: by_hand.written(_bytes(s)) for s in everyone}
        _write(out / "by_hand.html", report.to_mark(texts, by_person, exercise))
    _write(out / "gradebook.csv", _csv(results, asked, by_person, marks))
    _write(out / "summary.html", report.summary(results, asked, exercise))
    for result in results:
        name, given = report.file_name(result.student), marks[shown(result.student)]
        page = report.feedback(result, asked, exercise, by_person, given)
        _write(out / "feedback" / f"{name}.html", page)
        _write(out / "gradescope" / name / "results.json", report.gradescope(result, asked, by_person, given))
    return results


def shown(student: str) -> str:
    """The name as tables show it: never a formula of a spreadsheet."""
    return student if student[:1].isalnum() else "'" + student


class Journal:
    """Append-only JSON lines, read again on start; a line that a kill cut off is dropped."""

    def __init__(self, path: Path, header: dict) -> None:
        self.results: dict[str, Result] = {}
        text = path.read_bytes() if path.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        lines = [json.loads(line) for line in whole.splitlines()]
        if lines and lines[0] != header:
            raise ValueError(
                f"{path} is the journal of another exercise, key, solution or version of the questions; choose another "
                "folder for --out, or delete the journal to grade all again"
            )
        for line in lines[1:]:
            self.results[line["student"]] = Result(**line)
        self.file = path.open("r+b" if path.exists() else "x+b")
        self.file.truncate(len(whole))
        self.file.seek(0, os.SEEK_END)
        if not lines:
            self._append(header)

    def has(self, submission: Submission) -> bool:
        old = self.results.get(submission.student)
        try:
            return old is not None and old.sha256 == hashlib.sha256(read(submission)).hexdigest()
        except ValueError:
            return False

    def add(self, result: Result) -> None:
        self.results[result.student] = result
        self._append(vars(result))

    def close(self) -> None:
        self.file.close()

    def _append(self, line: dict) -> None:
        self.file.write(json.dumps(line).encode() + b"\n")
        self.file.flush()
        os.fsync(self.file.fileno())


def _header(exercise: str, solution: bytes, key: bytes, asked: tuple[Question, ...]) -> dict:
    parts = [[q.name, p.kind, p.points, p.what] for q in asked for p in q.parts]
    return {
        "version": VERSION,
        "exercise": exercise,
        "solution": hashlib.sha256(solution).hexdigest(),
        "key": hashlib.sha256(b"fingerprint" + key).hexdigest(),
        "questions": hashlib.sha256(json.dumps(parts).encode()).hexdigest(),
    }


def _key(path: Path) -> bytes:
    if not path.exists():
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
    return bytes.fromhex(path.read_text().strip())


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text, encoding="utf-8", newline="\n")
    fresh.replace(path)


def _csv(
    results: list[Result],
    asked: tuple[Question, ...],
    by_person: tuple[by_hand.Item, ...],
    marks: dict[str, by_hand.Marks],
) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["student", *(q.name for q in asked), *(item.name for item in by_person), "total", "of", "remark"])
    of = sum(q.points for q in asked) + sum(item.points for item in by_person)
    for result in results:
        student = shown(result.student)
        earned = [result.earned(q) for q in asked] + [marks[student].earned(item) for item in by_person]
        known = [points for points in earned if points is not None]
        remarks = [result.problem] if result.problem else []
        if len(known) < len(earned):
            remarks.append("by_hand.csv lacks marks")
        points = ["" if e is None else f"{e:g}" for e in earned]
        table.writerow([student, *points, f"{sum(known):g}", f"{of:g}", "; ".join(remarks)])
    return text.getvalue()


def _bytes(submission: Submission) -> bytes:
    try:
        return read(submission)
    except ValueError:
        return b""


def find_solution(folder: Path, submitted: Path, exercise: str | None) -> Path:
    """The solution notebook of the exercise, or of the one whose name the submitted files carry.

    Raises:
        ValueError: there is none, or more than one could be meant.
    """
    known = {path.stem: path for path in sorted(folder.glob("*.ipynb"))}
    if exercise is not None:
        named = [path for stem, path in known.items() if stem == exercise or stem.split("_")[0] == exercise]
    else:
        files = {path.stem for pattern in ("*/*.ipynb", "*/*/*.ipynb") for path in submitted.glob(pattern)}
        named = [path for stem, path in known.items() if stem in files] or list(known.values())
    if len(named) != 1:
        raise ValueError(f"name the exercise: --exercise, one of {', '.join(known) or f'(no notebooks in {folder})'}")
    return named[0]
