"""Points that a person gives: a page to mark from, and a table of marks that later runs read.

The page ``by_hand.html`` shows every answer to a question that no program can mark, beside the solution's mark scheme.
The table ``by_hand.csv`` has a row per student and a column per such question, empty at first. Marks that are filled in
enter the gradebook and the feedback when the submissions are graded again, which takes seconds; rows are never dropped.

Its last column holds fingerprints of the texts that the page showed. A mark whose text was handed in anew since does not
count until somebody has looked again, and has emptied that cell.
"""

import csv
import hashlib
import io
import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from unicodedata import normalize

from interp_lab.notebook import CODE_STUB, TEXT_STUB, is_by_hand

from .collect import read_table
from .untrusted import printable

STUBS = ("", "\n".join(TEXT_STUB), "\n".join(CODE_STUB))  # what stands in a cell that was never answered
COMMENT = "comment"  # for the student to read
TEXTS = "texts"  # a table made by hand may lack it


@dataclass(frozen=True)
class Item:
    """A cell that a person marks: a written answer, or a task whose answer stands in the cells that follow it."""

    name: str
    title: str  # the heading that it stands under, without stars, points and minutes
    points: float
    scheme: str


@dataclass
class Marks:
    """What a person gave one student."""

    points: dict[str, str] = field(default_factory=dict)  # as typed; "" until marked
    comment: str = ""
    texts: dict[str, str] = field(default_factory=dict)  # fingerprints of the texts that the marks were given for
    stale: tuple[str, ...] = ()  # names of the marks that were given for another text

    def typed(self, item: Item) -> str:
        return self.points.get(item.name, "").strip().replace(",", ".")

    def earned(self, item: Item) -> float | None:
        """The points, None until marked, or where the mark is of another text."""
        typed = self.typed(item)
        return float(typed) if typed and item.name not in self.stale else None

    def compare(self, written: dict[str, str], asked: tuple[Item, ...]) -> None:
        """Tell which marks are stale, given what the student wrote, and take the fingerprints of all others."""
        now = {item.name: hashlib.sha256(written.get(item.name, "").encode()).hexdigest()[:12] for item in asked}
        marked = [item.name for item in asked if self.typed(item)]
        self.stale = tuple(name for name in marked if self.texts.get(name, now[name]) != now[name])
        self.texts = {name: self.texts[name] if name in self.stale else now[name] for name in now}


@cache
def items(solution: bytes) -> tuple[Item, ...]:
    """The cells of the solution notebook that a person marks, with their mark schemes and model answers."""
    found, title, model = [], "", written(solution)
    for cell in json.loads(solution)["cells"]:
        grader, text = _grader(cell), _text(cell)
        title = next(
            (line.strip("# ").partition(" (")[0] for line in text.splitlines() if line.startswith("## ")), title
        )
        if is_by_hand(grader):
            name = grader["grade_id"]
            scheme = f"{text}\n\n{model.get(name, '')}" if grader.get("task") else text
            found.append(Item(name, title, grader["points"], scheme))
    return tuple(found)


def title(notebook: bytes) -> str:
    """The first heading of a notebook; "" where there is none."""
    for cell in _cells(notebook):
        for line in _text(cell).splitlines() if cell.get("cell_type") == "markdown" else ():
            if line.startswith("# "):
                return printable(line[2:].strip(), 100)
    return ""


def written(notebook: bytes) -> dict[str, str]:
    """What stands in the cells that a person marks, by their names; none for bytes that are no notebook.

    Printable, and no longer than a page can show.
    """
    answers: dict[str, list[str]] = {}
    task = ""
    for cell in _cells(notebook):
        grader = _grader(cell)
        if is_by_hand(grader) or grader.get("grade"):
            name = grader.get("grade_id")
            name = name if isinstance(name, str) else ""
            task = name if grader.get("task") else ""
            if not task:
                answers[name] = [_text(cell)]
        elif task:
            answers.setdefault(task, []).append(_text(cell))
    texts = {name: "\n\n".join(parts) for name, parts in answers.items()}
    return {name: printable(text) for name, text in texts.items() if text.strip() not in STUBS}


def read(path: Path, asked: tuple[Item, ...]) -> dict[str, Marks]:
    """The marks of every student in the table; none where there is no table yet.

    Raises:
        ValueError: other columns, a student twice, or a mark that is no number from 0 to the points of its question.
    """
    if not path.exists():
        return {}
    found, rows = read_table(path)
    columns = _columns(asked)
    if found not in (columns, columns[:-1]):
        raise ValueError(f"{path} must have the columns {', '.join(columns)}; it has {', '.join(found)}")
    everyone: dict[str, Marks] = {}
    for row in rows:
        student = normalize("NFC", row["student"] or "")
        if None in row or student in everyone:
            why = "has more cells than columns; quote its comment" if None in row else "stands there twice"
            raise ValueError(f"{path}: {student} {why}")
        texts = (row.get(TEXTS) or "").split()
        if not all(re.fullmatch(r"[\w-]+:[0-9a-f]{12}", text) for text in texts):
            raise ValueError(f"{path}: {student} has {row[TEXTS]!r} for {TEXTS}; leave that column as it is, or empty")
        marks = Marks(
            {item.name: row[item.name] or "" for item in asked},
            row[COMMENT] or "",
            dict(text.split(":") for text in texts),
        )
        for item in asked:
            try:
                right = 0 <= (marks.earned(item) or 0) <= item.points
            except ValueError:
                right = False
            if not right:
                raise ValueError(
                    f"{path}: {student} has {marks.points[item.name]!r} for {item.name}; give 0 to {item.points:g}, "
                    "or leave it empty"
                )
        everyone[student] = marks
    return everyone


def table(everyone: dict[str, Marks], asked: tuple[Item, ...]) -> str:
    """The table as :func:`read` reads it."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_columns(asked))
    for student, marks in everyone.items():
        texts = " ".join(f"{name}:{mark}" for name, mark in marks.texts.items())
        rows.writerow([student, *(marks.points.get(item.name, "") for item in asked), marks.comment, texts])
    return text.getvalue()


def _columns(asked: tuple[Item, ...]) -> list[str]:
    return ["student", *(item.name for item in asked), COMMENT, TEXTS]


def _cells(notebook: bytes) -> list[dict]:
    try:
        return [cell for cell in json.loads(notebook.decode("utf-8-sig"))["cells"] if isinstance(cell, dict)]
    except (ValueError, RecursionError, KeyError, TypeError):
        return []


def _grader(cell: dict) -> dict:
    metadata = cell.get("metadata")
    grader = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    return grader if isinstance(grader, dict) else {}


def _text(cell: dict) -> str:
    source = cell.get("source")
    lines = source if isinstance(source, list) else [source]
    return "".join(line for line in lines if isinstance(line, str))
