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
import difflib
import hashlib
import io
import os
import platform
import re
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
    wait,
)
from itertools import islice
from pathlib import Path

from interp_lab import extract

from . import by_hand, report, sandbox
from .collect import NOTHING, TABLE, Submission, guarded, read, submissions, told
from .course import Rules
from .exercise import Exercise, references
from .journal import Journal, alone, header, write
from .question import Question, mark
from .result import Result
from .untrusted import bounded, printable

IN_FLIGHT = 128  # submissions that an executor holds, each with the whole exercise: some megabytes
_TRUSTED = threading.Lock()
FAILED = "the grader failed"  # which is no fault of the student


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
    faults = _mark(lane, extract.code_cells(exercise.solution), exercise, b"", "", "")
    if lost := [
        f"question {name}: {' '.join(fault.split())}" for name, parts in faults.items() for fault in parts if fault
    ]:
        raise Unfit(
            f"nobody was graded: in the sandbox of {platform.node() or 'this machine'} the solution of {exercise.name} "
            f"itself loses {len(lost)} parts. The first: {lost[0]} (limits: {limits})"
        )
    lane.proven.add(exercise)


def _mark(
    lane: sandbox.Lane, cells: dict[str, str], exercise: Exercise, key: bytes, student: str, sha256: str
) -> dict[str, list[str]]:
    given, answers = references(exercise)
    names = (exercise.name, student, sha256)  # a file that is handed in again meets other inputs
    return mark(exercise.questions, key, names, lambda c: lane.run(given | cells, c), answers, _TRUSTED)


def grade_one(
    submission: Submission, data: bytes, exercise: Exercise, key: bytes, limits: sandbox.Limits, unsafe: bool = False
) -> Result:
    """Grade one student, who handed in these bytes, in the sandbox lane of this thread.

    This is the only place that looks into a notebook; what it gives is printable, whatever was handed in. It opens no
    file, which the machines of a cluster may not have.
    """
    result = Result(submission.student, hashlib.sha256(data).hexdigest())
    try:
        notebook = bounded(data)
        cells = extract.code_cells(notebook)
    except ValueError as error:
        result.problem = printable(str(error))
        return result
    asked = {item.name for item in by_hand.items(exercise.solution)}
    result.written = {name: text for name, text in by_hand.written(notebook).items() if name in asked}
    prove(exercise, limits, unsafe)
    lane = sandbox.lane(unsafe, limits)
    faults = _mark(lane, cells, exercise, key, submission.student, result.sha256)
    result.faults = {name: [printable(fault) for fault in parts] for name, parts in faults.items()}
    if all(map(all, faults.values())) and (title := _other_title(notebook, cells, exercise)):
        result.problem = f'this is the notebook of another exercise: it begins with "{title}"'
    return result


def _other_title(notebook: bytes, cells: dict[str, str], exercise: Exercise) -> str:
    """The title of a notebook that has another one than the exercise and hardly a cell of it, or ""."""
    title, (given, _) = by_hand.title(notebook), references(exercise)
    mine = set(cells.values())
    kept = sum(source in mine for source in given.values())
    return "" if title == by_hand.title(exercise.solution) or kept > len(given) / 2 else title


def grade(
    folder: Path,
    out: Path,
    exercise: Exercise,
    *,
    roster: list[str] | None = None,
    rules: Rules | None = None,
    executor: Executor | None = None,
    workers: int | None = None,
    limits: sandbox.Limits | None = None,
    unsafe: bool = False,
    progress: Callable[[str], None] = lambda line: None,
    note: Callable[[str], None] = lambda line: None,
) -> list[Result]:
    """Grade every submission and write the output folder.

    Args:
        roster: names of all students, also of those who handed in nothing.
        rules: of the course, which make a grade of the points; without them the gradebook has the points alone.
        executor: runs `grade_one`, for example on a cluster; each of its threads or processes opens a lane.
        workers: number of lanes without an executor, by default one per core.
        note: is told what somebody should look at; the summary holds it too.

    Raises:
        ValueError: another run writes to the folder; the key is none; the journal belongs to another exercise, key or
            solution; or the table of marks by hand cannot be understood.
        SandboxError: there is no sandbox, and not ``unsafe``; the solution itself does not get all points in it; or the
            executor's workers are gone.
    """
    asked = exercise.questions
    references(exercise)
    by_person, table = by_hand.items(exercise.solution), out / "by_hand.csv"
    unknown = set(rules.questions or () if rules else ()) - {q.name for q in asked} - {item.name for item in by_person}
    if unknown:
        names = ", ".join([*(q.name for q in asked), *(item.name for item in by_person)])
        raise ValueError(
            f"{exercise.name} has no question {', '.join(sorted(unknown))} that could count; it has {names}"
        )
    by_hand.read(table, by_person)  # a slip in it is told before hours of grading
    everyone = submissions(folder, exercise.name, roster)
    out.mkdir(parents=True, exist_ok=True)
    with alone(out):
        key = _key(out / "course.key")
        journal = Journal(out / "journal.jsonl", header(exercise, key))
        try:
            _grade_all(
                everyone, exercise, key, journal, executor, workers, limits or sandbox.Limits(), unsafe, progress
            )
        finally:
            journal.close()
        results = [journal.results[s.student] for s in everyone]
        marks = {guarded(s.student): by_hand.Marks() for s in everyone} | by_hand.read(table, by_person)
        for result in results:
            marks[guarded(result.student)].compare(result.written, by_person)
        notes = _notes(folder, out, results, marks, roster, journal.damaged)
        if rules and rules.deadline and (unknown_time := [s.student for s in everyone if s.path and not s.handed_in]):
            notes.append(
                f"it is not known when {len(unknown_time)} students handed in ({', '.join(unknown_time[:3])}{', ...' * (len(unknown_time) > 3)}), so they "
                "count as in time, unless the system marked them as late"
            )
        notes += [
            f"course.yml has an extension for {name}, who is not in the class{_meant(name, [r.student for r in results])}"
            for name in sorted((rules.extensions if rules else {}).keys() - {result.student for result in results})
        ]
        for line in notes:
            note(line)
        if by_person:
            write(table, by_hand.table(marks, by_person))
            write(out / "by_hand.html", report.to_mark(results, by_person, exercise.name))
        grades = _grades(everyone, results, asked, by_person, marks, rules) if rules else {}
        write(out / "gradebook.csv", _csv(results, asked, by_person, marks, grades))
        if (folder / TABLE).exists():
            write(out / TABLE, (folder / TABLE).read_text(encoding="utf-8-sig"))
        write(out / "summary.html", report.summary(results, asked, exercise.name, notes))
        for result in results:
            name, given = report.file_name(result.student), marks[guarded(result.student)]
            page = report.feedback(
                result, asked, exercise.name, by_person, given, _in_words(grades.get(result.student))
            )
            write(out / "feedback" / f"{name}.html", page)
            write(out / "gradescope" / name / "results.json", report.gradescope(result, asked, by_person, given))
    return results


def _grade_all(
    everyone: list[Submission],
    exercise: Exercise,
    key: bytes,
    journal: Journal,
    executor: Executor | None,
    workers: int | None,
    limits: sandbox.Limits,
    unsafe: bool,
    progress: Callable[[str], None],
) -> None:
    """Grade everybody whose file is not in the journal."""
    journal.results |= {s.student: Result(s.student, "", problem=s.refused) for s in everyone if s.path is None}
    waiting = [s for s in everyone if s.path is not None and not journal.has(s)]
    progress(f"{len(everyone)} submissions, {len(everyone) - len(waiting)} graded before")
    pool = executor or ThreadPoolExecutor(workers or os.cpu_count() or 1)
    try:
        if waiting:
            pool.submit(prove, exercise, limits, unsafe).result()  # refuses before anything is graded
        queue, futures, count = _opened(waiting, journal), dict[Future, Submission](), 0
        while True:
            for s, data in islice(queue, IN_FLIGHT - len(futures)):
                futures[pool.submit(grade_one, s, data, exercise, key, limits, unsafe)] = s
            if not futures:
                break
            for future in sorted(wait(futures, return_when=FIRST_COMPLETED).done, key=Future.cancelled):
                # Forgotten at once: of what is remembered a cluster keeps the result, and makes it again if it is lost.
                student, count = futures.pop(future).student, count + 1
                try:
                    journal.add(future.result())
                except Unfit:  # one machine of a cluster
                    for other in futures:
                        other.cancel()
                    raise
                except (BrokenExecutor, CancelledError) as error:
                    # A pool without processes, a cluster without scheduler.
                    raise sandbox.SandboxError(
                        f"the workers are gone ({type(error).__name__}) after {count - 1} of {len(waiting)} submissions; "
                        "these are in the journal: call again, and the others are graded"
                    ) from None
                except Exception as error:  # one student must not stop the others; not in the journal, so tried again
                    problem = printable(f"{FAILED} ({type(error).__name__}: {error})")
                    journal.results[student] = Result(student, "", {}, problem)
                progress(f"{count}/{len(waiting)} {student}")
    finally:
        if executor is None:
            pool.shutdown(cancel_futures=True)
            sandbox.close_lanes()


def _opened(waiting: list[Submission], journal: Journal) -> Iterator[tuple[Submission, bytes]]:
    for submission in waiting:
        try:
            yield submission, read(submission)
        except ValueError as error:
            journal.add(Result(submission.student, "", problem=printable(str(error))))


def _notes(
    folder: Path,
    out: Path,
    results: list[Result],
    marks: dict[str, by_hand.Marks],
    roster: list[str] | None,
    damaged: int,
) -> list[str]:
    """What somebody should look at, a sentence each."""
    students = {result.student for result in results}
    rows, files = {guarded(student) for student in students}, {report.file_name(student) for student in students}
    notes = told(folder)
    if roster is not None:
        notes += [f"{student} is not on the roster" for student in sorted(students - set(roster))]
    for student, given in marks.items():
        if student not in rows:
            notes.append(f"by_hand.csv has a row for {student}, who handed in nothing{_meant(student, rows)}")
        elif given.stale:
            notes.append(_stale(given, student))
    for path in sorted([*out.glob("feedback/*.html"), *out.glob("gradescope/*/results.json")]):
        student = path.parent.name if path.name == "results.json" else path.stem
        if student not in files:
            notes.append(
                f"{path.relative_to(out).as_posix()} is left from an earlier run: {student} is not in the class"
            )
    if damaged:
        notes.append(f"{damaged} damaged lines of the journal were left out, and their students graded again")
    return notes


def _meant(name: str, known: Iterable[str]) -> str:
    like = difflib.get_close_matches(name, known, 1)
    return f"; is {like[0]} meant?" if like else ""


def _stale(marks: by_hand.Marks, student: str) -> str:
    return (
        f"{student} has handed in another text for {', '.join(marks.stale)} since it was marked: look again, then empty "
        "the cell texts of that row in by_hand.csv; until then these marks do not count"
    )


def _grades(
    everyone: list[Submission],
    results: list[Result],
    asked: tuple[Question, ...],
    by_person: tuple[by_hand.Item, ...],
    marks: dict[str, by_hand.Marks],
    rules: Rules,
) -> dict[str, tuple[float | None, float, str]]:
    """By student the grade, None where marks are missing or nothing was handed in, out of what, and why less."""
    count_asked = [question for question in asked if rules.counts(question.name)]
    count_marked = [item for item in by_person if rules.counts(item.name)]
    of = sum(question.points for question in count_asked) + sum(item.points for item in count_marked)
    grades: dict[str, tuple[float | None, float, str]] = {}
    for submission, result in zip(everyone, results, strict=True):
        given = marks[guarded(result.student)]
        by_hands = [given.earned(item) for item in count_marked]
        earned = sum(map(result.earned, count_asked)) + sum(points or 0 for points in by_hands)
        grade, out_of, words = rules.grade(earned, of, result.student, submission.handed_in, submission.late)
        nothing = submission.path is None and submission.refused.startswith(NOTHING)
        open_ = rules.missing == "empty" if nothing else None in by_hands
        grades[result.student] = (None if open_ else grade, out_of, words)
    return grades


def _in_words(grade: tuple[float | None, float, str] | None) -> str:
    if grade is None or grade[0] is None:
        return ""
    return f"Grade: {grade[0]:g} of {grade[1]:g}" + (f" ({grade[2]})" if grade[2] else "")


def _key(path: Path) -> bytes:
    if not path.exists():
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
    text = path.read_bytes().strip()
    if not re.fullmatch(rb"[0-9a-f]{64}", text):
        raise ValueError(
            f"{path} is no key: it must hold 64 hexadecimal digits. Copy the course's key there again, or delete it and "
            "the journal: then a new key is made, and everybody is graded on other inputs"
        )
    return bytes.fromhex(text.decode())


def _csv(
    results: list[Result],
    asked: tuple[Question, ...],
    by_person: tuple[by_hand.Item, ...],
    marks: dict[str, by_hand.Marks],
    grades: dict[str, tuple[float | None, float, str]],
) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    columns = ["total", "of", *(("grade", "out of") if grades else ()), "remark"]
    table.writerow(["student", *(q.name for q in asked), *(item.name for item in by_person), *columns])
    of = sum(q.points for q in asked) + sum(item.points for item in by_person)
    for result in results:
        student = guarded(result.student)
        earned = [result.earned(q) for q in asked] + [marks[student].earned(item) for item in by_person]
        known = [points for points in earned if points is not None]
        remarks = [result.problem] if result.problem else []
        if marks[student].stale:
            remarks.append(f"marked for an older text: {', '.join(marks[student].stale)}")
        whole = grades.get(result.student, (None,))[0] is not None  # what lacks does not count
        if not whole and len(known) + len(marks[student].stale) < len(earned):
            remarks.append("by_hand.csv lacks marks")
        points = ["" if e is None else f"{e:g}" for e in earned]
        graded = []
        if grades:
            grade, out_of, words = grades[result.student]
            graded = ["" if grade is None else f"{grade:g}", f"{out_of:g}"]
            remarks += [words] if words else []
        table.writerow([student, *points, f"{sum(known):g}", f"{of:g}", *graded, guarded("; ".join(remarks))])
    return text.getvalue()
