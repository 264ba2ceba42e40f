"""The journal of a run: each student's result as soon as it is known, so that a killed run goes on from there.

A student who is in the journal with the same file is not graded again; delete the line, or the journal, to do so.
"""

import hashlib
import json
import os
from pathlib import Path

from .collect import Submission, read
from .exercise import Exercise
from .result import Result

VERSION = 1  # of the journal


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
