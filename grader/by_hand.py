"""Points that a person gives: a page to mark from, and a table of marks that later runs read.

The page ``by_hand.html`` shows every answer to a question that no program can mark, beside the solution's mark scheme.
The table ``by_hand.csv`` has a row per student and a column per such question, empty at first. Marks that are filled in
enter the gradebook and the feedback when the submissions are graded again, which takes seconds; rows are never dropped.
"""

import csv
import io
import json
from dataclasses import dataclass, field
from pathlib import Path

from interp_lab.notebook import CODE_STUB, TEXT_STUB, is_by_hand

STUBS = ("", "\n".join(TEXT_STUB), "\n".join(CODE_STUB))  # what stands in a cell that was never answered
COMMENT = "comment"  # the last column, for the student to read


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

    def earned(self, item: Item) -> float | None:
        """The points, None until marked."""
        typed = self.points.get(item.name, "").strip().replace(",", ".")
        return float(typed) if typed else None


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


def written(notebook: bytes) -> dict[str, str]:
    """What stands in the cells that a person marks, by their names; empty for bytes that are no notebook."""
    try:
        cells = [cell for cell in json.loads(notebook.decode("utf-8-sig"))["cells"] if isinstance(cell, dict)]
    except (ValueError, RecursionError, KeyError, TypeError):
        return {}
    answers: dict[str, str] = {}
    task = ""
    for cell in cells:
        grader = _grader(cell)
        if is_by_hand(grader) or grader.get("grade"):
            name = str(grader.get("grade_id"))
            task = name if grader.get("task") else ""
            if not task:
                answers[name] = _text(cell)
        elif task:
            answers[task] = f"{answers[task]}\n\n{_text(cell)}" if task in answers else _text(cell)
    return {name: text for name, text in answers.items() if text.strip() not in STUBS}


def read(path: Path, asked: tuple[Item, ...]) -> dict[str, Marks]:
    """The marks of every student in the table; none where there is no table yet.

    Raises:
        ValueError: other columns, a student twice, or a mark that is no number from 0 to the points of its question.
    """
    if not path.exists():
        return {}
    text = path.read_text(encoding="utf-8-sig")
    head = text.partition("\n")[0]
    table = csv.DictReader(io.StringIO(text), delimiter=";" if ";" in head else ",")  # as spreadsheets save it
    columns = ["student", *(item.name for item in asked), COMMENT]
    if table.fieldnames != columns:
        raise ValueError(
            f"{path} must have the columns {', '.join(columns)}; it has {', '.join(table.fieldnames or [])}"
        )
    everyone: dict[str, Marks] = {}
    for row in table:
        if None in row or row["student"] in everyone:
            why = "has more cells than columns; quote its comment" if None in row else "stands there twice"
            raise ValueError(f"{path}: {row['student']} {why}")
        marks = Marks({item.name: row[item.name] or "" for item in asked}, row[COMMENT] or "")
        for item in asked:
            try:
                right = 0 <= (marks.earned(item) or 0) <= item.points
            except ValueError:
                right = False
            if not right:
                raise ValueError(
                    f"{path}: {row['student']} has {marks.points[item.name]!r} for {item.name}; give 0 to {item.points:g}, "
                    "or leave it empty"
                )
        everyone[row["student"]] = marks
    return everyone


def table(everyone: dict[str, Marks], asked: tuple[Item, ...]) -> str:
    """The table as :func:`read` reads it."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["student", *(item.name for item in asked), COMMENT])
    for student, marks in everyone.items():
        rows.writerow([student, *(marks.points.get(item.name, "") for item in asked), marks.comment])
    return text.getvalue()


def _grader(cell: dict) -> dict:
    metadata = cell.get("metadata")
    grader = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    return grader if isinstance(grader, dict) else {}


def _text(cell: dict) -> str:
    source = cell.get("source")
    return "".join(map(str, source)) if isinstance(source, list) else str(source)
