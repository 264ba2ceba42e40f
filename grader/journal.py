"""The journal of a run: each student's result as soon as it is known, so that a killed run goes on from there.

A student who is in the journal with the same file is not graded again; delete the line, or the journal, to do so.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .collect import Submission, read
from .exercise import Exercise
from .result import Result

VERSION = 2  # of the journal


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """While this run writes to the folder, no other does; the system takes the lock from a process that ends.

    Raises:
        ValueError: another one is at work there.
    """
    import fcntl  # not on Windows, where nothing can be graded

    folder = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another grader is at work in {out}; wait until it ends, or choose another --out"
            ) from None
        yield
    finally:
        os.close(folder)


def write(path: Path, text: str) -> None:
    """Whole or not at all; tables with the mark by which Excel knows UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text, encoding="utf-8-sig" if path.suffix == ".csv" else "utf-8", newline="\n")
    fresh.replace(path)


def header(exercise: Exercise, key: bytes) -> dict:
    """The first line of a journal, which says what its results belong to."""
    parts = [[q.name, p.kind, p.points, p.what] for q in exercise.questions for p in q.parts]
    return {
        "version": VERSION,
        "exercise": exercise.name,
        "solution": hashlib.sha256(exercise.solution).hexdigest(),
        "key": hashlib.sha256(b"fingerprint" + key).hexdigest(),
        "questions": hashlib.sha256(json.dumps(parts).encode()).hexdigest(),
    }


class Journal:
    """JSON lines, each with a fingerprint; read again on start, and appended to.

    Attributes:
        damaged: how many lines were left out, because they are not what was written.
    """

    def __init__(self, path: Path, header: dict) -> None:
        self.results: dict[str, Result] = {}
        text = path.read_bytes() if path.exists() else b""
        lines = [_read(line) for line in text.split(b"\n")[:-1]]  # behind the last end of line a kill has cut one off
        if lines and lines[0] != header:
            raise ValueError(
                f"{path} is the journal of another exercise, key, solution or version of the questions, or is damaged; "
                "choose another folder for --out, or delete the journal to grade all again"
            )
        self.damaged = lines.count(None)
        for line in lines[1:]:
            if line is not None:
                self.results[line["student"]] = Result(**line)
        write(path, "".join(map(_line, [header, *map(vars, self.results.values())])))
        self.file = path.open("ab", buffering=0)

    def has(self, submission: Submission) -> bool:
        old = self.results.get(submission.student)
        try:
            return old is not None and old.sha256 == hashlib.sha256(read(submission)).hexdigest()
        except ValueError:
            return False

    def add(self, result: Result) -> None:
        self.results[result.student] = result
        self.file.write(_line(vars(result)).encode())
        os.fsync(self.file.fileno())

    def close(self) -> None:
        self.file.close()


def exercise(path: Path) -> str:
    """The exercise of a journal.

    Raises:
        ValueError: there is no journal, or its first line is damaged.
    """
    first = _read(path.read_bytes().partition(b"\n")[0]) if path.exists() else None
    if first is None:
        raise ValueError(f"{path} does not say which exercise was graded; grade again")
    return first["exercise"]


def results(path: Path) -> list[Result]:
    """Those in a journal, the last of each student; none where there is no journal."""
    lines = path.read_bytes().split(b"\n")[1:] if path.exists() else []
    return list({line["student"]: Result(**line) for line in map(_read, lines) if line is not None}.values())


def _line(entry: dict) -> str:
    return json.dumps(entry | {"fingerprint": _fingerprint(entry)}) + "\n"


def _read(line: bytes) -> dict | None:
    """What `_line` wrote, or None if this is something else."""
    try:
        entry = json.loads(line)
        return entry if entry.pop("fingerprint") == _fingerprint(entry) else None
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        return None


def _fingerprint(entry: dict) -> str:
    return hashlib.sha256(json.dumps(entry).encode()).hexdigest()[:16]
