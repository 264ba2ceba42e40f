"""Grading a folder of submissions, and what is written from it.

The output folder holds

==================== ==========================================================================================
course.key           32 secret bytes, made on first use: the seed of all inputs. Same key, same grades
journal.jsonl        one line per graded student, written as soon as it is known; see `journal`
gradebook.csv        one line per student
by_hand.html         the answers that a person marks, and their mark schemes
by_hand.csv          the table for these marks, which the next run reads; see `by_hand`
feedback/            one HTML page per student
gradescope/          one folder per student with Gradescope's ``results.json``
summary.html         the success rate of every question
==================== ==========================================================================================
"""

import csv
import hashlib
import io
import os
import platform
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from pathlib import Path

from interp_lab import extract

from . import by_hand, report, sandbox
from .collect import Submission, read, submissions
from .exercise import Exercise, references
from .journal import Journal, header
from .question import Question, mark
from .result import Result

_TRUSTED = threading.Lock()


class Unfit(sandbox.SandboxError):
    """On this machine the solution itself would lose points, so nobody is graded on it."""


def prove(exercise: Exercise, limits: sandbox.Limits, unsafe: bool = False) -> None:
    """Grade the solution itself, once per exercise and lane.

    Raises:
        Unfit: it does not get all points.
    """
    lane = sandbox.lane(unsafe, limits)
    if exercise in lane.proven:
        return
    faults = _mark(lane, extract.code_cells(exercise.solution), exercise, "", b"")
    if lost := [
        f"question {name}: {' '.join(fault.split())}" for name, parts in faults.items() for fault in parts if fault
    ]:
        raise Unfit(
            f"nobody was graded: in the sandbox of {platform.node() or 'this machine'} the solution of {exercise.name} "
            f"itself loses {len(lost)} parts. The first: {lost[0]} (limits: {limits})"
        )
    lane.proven.add(exercise)


def _mark(
    lane: sandbox.Lane, cells: dict[str, str], exercise: Exercise, student: str, key: bytes
) -> dict[str, list[str]]:
    given, answers = references(exercise)
    names = (exercise.name, student)
    return mark(exercise.questions, key, names, lambda c: lane.run(given | cells, c), answers, _TRUSTED)


def grade_one(
    submission: Submission, exercise: Exercise, key: bytes, limits: sandbox.Limits, unsafe: bool = False
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
    prove(exercise, limits, unsafe)
    lane = sandbox.lane(unsafe, limits)
    result.faults = _mark(lane, cells, exercise, submission.student, key)
    return result


def grade(
    folder: Path,
    out: Path,
    exercise: Exercise,
    *,
    executor: Executor | None = None,
    workers: int | None = None,
    limits: sandbox.Limits | None = None,
    unsafe: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> list[Result]:
    """Grade every submission and write the output folder.

    Args:
        executor: runs `grade_one`, for example on a cluster; each of its threads or processes opens a lane.
        workers: number of lanes without an executor, by default one per core.

    Raises:
        ValueError: the journal belongs to another exercise, key or solution, or the table of marks by hand cannot be
            understood.
        SandboxError: there is no sandbox, and not ``unsafe``; or the solution itself does not get all points in it.
    """
    asked = exercise.questions
    references(exercise)
    by_person, table = by_hand.items(exercise.solution), out / "by_hand.csv"
    by_hand.read(table, by_person)  # a slip in it is told before hours of grading
    out.mkdir(parents=True, exist_ok=True)
    key = _key(out / "course.key")
    journal = Journal(out / "journal.jsonl", header(exercise, key))
    everyone = submissions(folder, exercise.name)
    waiting = [s for s in everyone if not journal.has(s)]
    progress(f"{len(everyone)} submissions, {len(everyone) - len(waiting)} graded before")
    limits, own = limits or sandbox.Limits(), executor is None
    pool = executor or ThreadPoolExecutor(workers or os.cpu_count() or 1)
    try:
        if waiting:
            pool.submit(prove, exercise, limits, unsafe).result()  # refuses before anything is graded
        futures = {pool.submit(grade_one, s, exercise, key, limits, unsafe): s for s in waiting}
        for count, future in enumerate(as_completed(futures), 1):
            student = futures[future].student
            try:
                journal.add(future.result())
            except Unfit:  # one machine of a cluster
                for other in futures:
                    other.cancel()
                raise
            except Exception as error:  # one student must not stop the others; not in the journal, so tried again
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
        _write(out / "by_hand.html", report.to_mark(texts, by_person, exercise.name))
    _write(out / "gradebook.csv", _csv(results, asked, by_person, marks))
    _write(out / "summary.html", report.summary(results, asked, exercise.name))
    for result in results:
        name, given = report.file_name(result.student), marks[shown(result.student)]
        page = report.feedback(result, asked, exercise.name, by_person, given)
        _write(out / "feedback" / f"{name}.html", page)
        _write(out / "gradescope" / name / "results.json", report.gradescope(result, asked, by_person, given))
    return results


def shown(student: str) -> str:
    """The name as tables show it: never a formula of a spreadsheet."""
    return student if student[:1].isalnum() else "'" + student


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
