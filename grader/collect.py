"""Collecting what students handed in.

A folder of submissions holds ``STUDENT.ipynb``, ``STUDENT/EXERCISE.ipynb`` or, as nbgrader collects them,
``STUDENT/ASSIGNMENT/EXERCISE.ipynb``; or it was written by `classroom.collect`, with a table of who they are.
"""

import csv
import io
import os
import stat
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from unicodedata import category, normalize

from .untrusted import MAX_FILE, printable_name

ENDING = ".ipynb"
TABLE = "collected.csv"
NOTHING = "nothing was handed in"
COLUMNS = ("student", "number", "email", "source", "matched", "handed in", "late", "remark", "refused", "folder")
BOTH = "name and number"
FOUND = ("", "name", "number", BOTH)  # how somebody was found, where the way was clear
# In names beside letters, marks and digits: also dashes and apostrophes of typographers, the dots of Catalan, the
# geresh of Hebrew, and the joiners that Persian and Hindi write inside a word.
_IN_NAMES = " .,@+_'`\u2018\u2019\u02bc()[]{}-\u2010\u2011\u2012\u2013\u2014\u00b7\u05f3\u05f4\u200c\u200d"


@dataclass(frozen=True)
class Submission:
    """One student's notebook, or why there is none."""

    student: str
    path: Path | None
    refused: str = ""
    handed_in: datetime | None = None
    late: str = ""


def is_name(text: str) -> bool:
    """Whether this is a student's name: 1 to 100 letters of any script with their marks, digits and some punctuation."""
    return (
        0 < len(text) <= 100
        and text == text.strip() == normalize("NFC", text)
        and (text[0] == "_" or category(text[0])[0] in "LN")
        and all(character in _IN_NAMES or category(character)[0] in "LMN" for character in text)
    )


def submissions(folder: Path, exercise: str, roster: list[str] | None = None) -> list[Submission]:
    """What is in the folder, and who is on the roster, by student.

    Links, odd names, missing and unreadable notebooks are refused one by one.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    table = _table(folder)
    by_name = {row["student"]: _collected(folder, row, exercise) for row in table if row["student"]}
    listed = {held.name for held in held_folders(folder)}
    for entry in _entries(folder):
        if _is_submission(entry) and entry.name not in listed:
            found = _submission(entry, exercise)
            if table:
                found = Submission(found.student, None, f"{TABLE} in this folder does not list it: collect again")
            elif found.student in by_name:
                found = Submission(found.student, None, "handed in twice, as a folder and as a file")
            by_name[found.student] = found
    for student in roster or []:
        like = [name for name in passed_over(folder) if name.startswith(student + ".")]
        why = NOTHING + (f", but there is {like[0]}" if like else "")
        by_name.setdefault(student, Submission(student, None, why))
    return sorted(by_name.values(), key=lambda submission: submission.student)


def passed_over(folder: Path) -> list[str]:
    """Entries of the folder that are nobody's submission, as ``report.pdf``."""
    if table := _table(folder):
        return [row["source"] for row in table if not row["student"]]
    return [printable_name(entry.name) for entry in _entries(folder) if not _is_submission(entry)]


def told(folder: Path) -> list[str]:
    """What somebody should look at, a sentence each: whom it was not clear, who was late, and what is nobody's."""
    lines = []
    for row in _table(folder):
        late = f"late {row['late']}" if row["late"] else ""
        matched = row["matched"] if row["matched"] not in FOUND else ""
        if not row["student"]:
            lines.append(f"{row['source']} is nobody's submission: {row['remark']}")
        elif words := "; ".join(filter(None, (row["refused"], row["remark"], late, matched))):
            lines.append(f"{row['student']}: {words}")
    return lines or [f"{name} is no notebook, so it is nobody's submission" for name in passed_over(folder)]


def _table(folder: Path) -> list[dict[str, str]]:
    """The rows of the table of a collected folder; none where it is another one."""
    if not (folder / TABLE).is_file():
        return []
    columns, rows = read_table(folder / TABLE)
    if tuple(columns) != COLUMNS:
        raise ValueError(f"{folder / TABLE} is not what interp-lab collect writes: collect again, or rename it")
    return [{key: unguarded(row[key] or "") for key in COLUMNS} for row in rows]


def _collected(folder: Path, row: dict[str, str], exercise: str) -> Submission:
    held = Path(row["folder"]).name  # never another folder's
    path = folder / held / f"{exercise}{ENDING}" if held else None
    if path is not None and not path.exists():
        path, row["refused"] = None, row["refused"] or f"{exercise}{ENDING} was not collected"
    try:
        time = datetime.fromisoformat(row["handed in"]) if row["handed in"] else None
    except ValueError as error:
        raise ValueError(f"{folder / TABLE}: {error}") from None
    return Submission(row["student"], path, row["refused"], time, row["late"])


def held_folders(folder: Path) -> list[Path]:
    """Those of the students of a collected folder."""
    return [folder / Path(row["folder"]).name for row in _table(folder) if row["folder"]]


def guarded(cell: str) -> str:
    """The cell of a table, never a formula of a spreadsheet."""
    return cell if not cell or cell[0].isalnum() else "'" + cell


def unguarded(cell: str) -> str:
    """What was guarded."""
    return cell.removeprefix("'")


def stems_by_student(folder: Path) -> list[set[str]]:
    """For each submission how the notebooks in its folder are called."""
    found: list[set[str]] = []
    for entry in filter(_is_submission, _entries(folder)):
        try:
            found.append(
                {path.stem for path in _notebooks(Path(entry.path))} if entry.is_dir(follow_symlinks=False) else set()
            )
        except OSError:
            found.append(set())
    return found


def read_table(path: Path) -> tuple[list[str], list[dict]]:
    """Columns and rows of a CSV table, in whatever encoding and with whatever delimiter a spreadsheet saved it.

    Raises:
        ValueError: it is no such table.
    """
    data = path.read_bytes()
    try:
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            text = data.decode("utf-16")
        else:
            try:
                text = data.decode("utf-8-sig")
            except UnicodeDecodeError:
                text = data.decode("cp1252")  # Excel's "CSV" in western Europe
        head = text.splitlines()[0] if text else ""
        delimiter = next((mark for mark in ";\t" if mark in head), ",")
        table = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        return list(table.fieldnames or []), [row for row in table if any(row.values())]
    except (UnicodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a table ({error}); save it as CSV UTF-8") from None


def read(submission: Submission) -> bytes:
    """The bytes of a notebook.

    Raises:
        ValueError: it was refused, is no regular file, or is larger than ``MAX_FILE``.
    """
    if submission.path is None:
        raise ValueError(submission.refused)
    return read_regular(submission.path)


def read_regular(path: Path) -> bytes:
    """The bytes of a file that somebody handed in.

    Raises:
        ValueError: it is a link, no regular file, or larger than ``MAX_FILE``.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("the notebook is not a regular file")
            if status.st_size > MAX_FILE:
                raise ValueError(
                    f"the notebook has {status.st_size / 2**20:.0f} MiB; at most {MAX_FILE // 2**20} are read"
                )
            return file.read(MAX_FILE)
    except OSError as error:
        raise ValueError(f"the notebook cannot be opened, or is a symbolic link ({error.strerror})") from None


NO_NAME = "is no name: it may hold letters, digits, spaces and .,@+_-()[]{} with apostrophes and dashes only"


def _entries(folder: Path) -> list[os.DirEntry]:
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of submissions at {folder}")
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _is_submission(entry: os.DirEntry) -> bool:
    if entry.name.startswith(".") and not entry.name.startswith(".."):  # of the system, such as .DS_Store
        return False
    try:
        return entry.name.lower().endswith(ENDING) or entry.is_symlink() or entry.is_dir(follow_symlinks=False)
    except OSError:
        return True


def _submission(entry: os.DirEntry, exercise: str) -> Submission:
    name = entry.name[: -len(ENDING)] if entry.name.lower().endswith(ENDING) else entry.name
    student = normalize("NFC", name)
    if not is_name(student):
        return Submission(printable_name(name), None, f"the name may hold letters{NO_NAME.partition('letters')[2]}")
    try:
        if entry.is_symlink():
            return Submission(student, None, "a symbolic link is not followed")
        if entry.is_dir(follow_symlinks=False):
            return _in_folder(student, Path(entry.path), exercise)
    except OSError as error:
        return Submission(student, None, f"the folder cannot be read ({error.strerror})")
    return Submission(student, Path(entry.path))


def _in_folder(student: str, folder: Path, exercise: str) -> Submission:
    held = _notebooks(folder)
    notebooks = [path for path in held if path.name == exercise + ENDING]
    if len(notebooks) != 1:
        names = ", ".join(printable_name(path.name) for path in held[:5])
        there = f"; the folder holds {names}" if held else ""
        return Submission(student, None, f"expected one notebook {exercise}{ENDING}, found {len(notebooks)}{there}")
    return Submission(student, notebooks[0])


def _notebooks(folder: Path) -> list[Path]:
    """Those of a folder and of the folders in it."""
    inner = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    held = [path for each in (folder, *inner) for path in each.iterdir()]
    return sorted(path for path in held if path.name.lower().endswith(ENDING))
