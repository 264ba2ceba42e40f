"""Collecting what students handed in.

A folder of submissions holds ``STUDENT.ipynb``, ``STUDENT/EXERCISE.ipynb`` or, as nbgrader collects them,
``STUDENT/ASSIGNMENT/EXERCISE.ipynb``.
"""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

MAX_BYTES = 10 * 2**20  # a notebook with many pictures has 1 or 2 MB
NAME = re.compile(r"\w[\w .,@+()'-]{0,99}")  # of a student


@dataclass(frozen=True)
class Submission:
    """One student's notebook, or why there is none."""

    student: str
    path: Path | None
    refused: str = ""


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
