"""Grades and feedback in the form in which a classroom system takes them.

Of a table that Canvas or Moodle exported, the cells of one column are filled in; every other byte stays what it was.
Nothing is overwritten that the system would not let change, and whoever has no line there is told.
"""

import codecs
import io
import json
import re
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path

from . import journal
from .classroom import FORMS
from .collect import NOTHING, TABLE, read_table, unguarded
from .gradebook import FAILED
from .report import file_name
from .roster import Roster, persons
from .untrusted import printable_name

MARKS = "marks by hand are missing"
_ENCODINGS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


@dataclass(frozen=True)
class Grade:
    """What is known of a student for a table: ``value`` is empty where there is no grade, and ``why`` says why."""

    student: str
    value: str
    out_of: float
    why: str
    number: str = ""
    email: str = ""
    source: str = ""
    remark: str = ""  # of the gradebook, about a grade that there is


def grades(folder: Path) -> list[Grade]:
    """The grades of an output folder of `gradebook.grade`: those of the rules of the course, else the points.

    Raises:
        FileNotFoundError: nothing was graded there.
    """
    if not (folder / "gradebook.csv").exists():
        raise FileNotFoundError(f"no gradebook.csv in {folder}: give the folder that interp-lab grade wrote")
    columns, rows = read_table(folder / "gradebook.csv")
    collected = {}
    if (folder / TABLE).exists():
        collected = {unguarded(row["student"]): row for row in read_table(folder / TABLE)[1]}
    questions = columns[1 : columns.index("total")]
    found = []
    for row in rows:
        student = unguarded(row["student"])
        remark = unguarded(row["remark"])
        if remark.startswith(NOTHING):
            value, why = row.get("grade", ""), NOTHING
        elif remark.startswith(FAILED):
            value, why = "", remark
        elif "grade" not in columns and "" in [row[question] for question in questions]:
            value, why = "", MARKS
        else:
            value, why = row.get("grade", row["total"]), MARKS
        why = "" if value else why
        known = {key: unguarded(cell or "") for key, cell in collected.get(student, {}).items() if key}
        where = (known.get("number", ""), known.get("email", ""), known.get("source", ""))
        found.append(
            Grade(student, value, float(row.get("out of", row["of"])), why, *where, remark="" if why else remark)
        )
    return found


_KEPT = ("EX", "N/A")  # Canvas: excused, and not assigned
_NO = ("no", "nein", "non", "nee", "não")  # Moodle: may the grade be changed


def fill(data: bytes, system: str, given: list[Grade], column: str) -> tuple[bytes, list[str]]:
    """The table of a system with the grades in one column, and what somebody should look at.

    Args:
        data: the file that Canvas or Moodle exported.
        system: "canvas" or "moodle".
        column: its name, or a part of it that no other column has.

    Raises:
        ValueError: this is no such table, the column is not there, or it is out of other points than the grades.
    """
    mark, text, encoding = _decoded(data)
    cells = _cells(text)
    names, *rows = [[_plain(text[start:end]) for start, end in row] for row in cells] or [[]]
    keys = [name.strip().lower() for name in names]
    people = persons(names, rows)
    if not people or {"canvas": "student", "moodle": "identifier"}[system] not in keys:
        raise ValueError(
            f"this is no table of {system}: its columns are {printable_name(', '.join(names)) or '(none)'}"
        )
    at = _column(names, keys, column)
    kept = {person.line: _kept(system, keys, rows, person.line, at, given) for person in people}
    lines, told, filled = Roster(people), [], dict[int, Grade]()
    for grade in given:
        person, how = lines.find(grade.student, (grade.number, grade.email))
        if person is None:
            told.append(f"{grade.student} has no line in the table: {how}")
        elif person.line in filled:
            told.append(
                f"{grade.student} and {filled[person.line].student} have the same line in the table: look at both"
            )
        else:
            filled[person.line] = grade
            if why := grade.why or kept[person.line]:
                told.append(f"the cell of {grade.student} was left as it was: {why}")
    told += [f"{p.student} is in the table, but not in the gradebook" for p in people if p.line not in filled]
    parts, done = [], 0
    for line, grade in sorted(filled.items()):
        if not grade.why and not kept[line]:
            start, end = cells[line + 1][at]
            quote = '"' if text[start:end].startswith('"') else ""
            parts += [text[done:start], quote + grade.value + quote]
            done = end
    return mark + "".join([*parts, text[done:]]).encode(encoding), told


def _decoded(data: bytes) -> tuple[bytes, str, str]:
    """The mark at the beginning, the text behind it, and its encoding."""
    for mark, encoding in _ENCODINGS:
        if data.startswith(mark):
            return mark, data[len(mark) :].decode(encoding), encoding
    try:
        return b"", data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return b"", data.decode("latin-1"), "latin-1"  # any byte comes back as it was


def _cells(text: str) -> list[list[tuple[int, int]]]:
    """Where each cell of each line stands, quotes included.

    Raises:
        ValueError: a quote is not closed, or is followed by something else than the end of the cell.
    """
    head = re.sub(r'"[^"]*"', "", text[: text.find("\n") % (len(text) + 1)])
    delimiter = max(",;\t", key=head.count)
    cell = re.compile(rf'("(?:[^"]|"")*"|(?!")[^{delimiter}\r\n]*)({delimiter}|\r\n|\n|\r|\Z)')
    lines: list[list[tuple[int, int]]] = [[]]
    place = 0
    while place < len(text) or lines[-1]:
        match = cell.match(text, place)
        if match is None:
            raise ValueError(f"line {len(lines)} of the table is damaged: a quote is not closed, or is inside a cell")
        lines[-1].append(match.span(1))
        place = match.end()
        if match[2] != delimiter:
            lines.append([])
    return lines[:-1]


def _plain(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if cell.startswith('"') else cell


def _column(names: list[str], keys: list[str], column: str) -> int:
    wanted = column.strip().lower()
    for found in (
        [i for i, key in enumerate(keys) if key == wanted],
        [i for i, key in enumerate(keys) if wanted in key],
    ):
        if len(found) == 1:
            return found[0]
    raise ValueError(
        f"{'no' if not found else 'more than one'} column of the table is called {column!r}: name it with --column, one of "
        + printable_name(", ".join(names))
    )


def _kept(system: str, keys: list[str], rows: list[list[str]], line: int, at: int, given: list[Grade]) -> str:
    """Why the cell of a line stays as it is, "" if it does not.

    Raises:
        ValueError: the column takes no grades, or is out of other points.
    """
    row = rows[line]
    if len(row) <= at:
        return "the line has fewer cells than columns"
    if system == "canvas":
        most = next((each[at] for each in rows if each[0].strip() == "Points Possible" and len(each) > at), "")
        if "read only" in most:
            raise ValueError("Canvas takes no grades in this column: it is read only")
    else:
        cells = dict(zip(keys, row, strict=False))
        most = cells.get("maximum grade", "")
        if cells.get("grade can be changed", "").lower() in _NO:
            return "Moodle does not let it change"
    number = re.fullmatch(r"\d+([.,]\d+)?", most.strip())
    if given and number and float(number[0].replace(",", ".")) != given[0].out_of:
        raise ValueError(
            f"the column is out of {most.strip()} points, the grades are out of {given[0].out_of:g}: make them equal there, or "
            f"with points: {float(number[0].replace(',', '.')):g} in course.yml"
        )
    return f"it holds {row[at].strip()}" if system == "canvas" and row[at].strip() in _KEPT else ""


def feedback(folder: Path, system: str, given: list[Grade]) -> tuple[bytes, list[str]]:
    """The feedback pages in a zip with the names by which Canvas or Moodle knows whose they are, and who is not in it.

    Moodle looks for NAME_NUMBER_TYPE_PLUGIN_FILE (assignfeedback_file's importer), Canvas for the first two numbers.
    """
    data, told = io.BytesIO(), []
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for grade in given:
            page = folder / "feedback" / f"{file_name(grade.student)}.html"
            match = FORMS[system].pattern.fullmatch(grade.source if "/" in grade.source else grade.source + "/-")
            match = FORMS[system].pattern.fullmatch(grade.source) or match
            if match and system == "moodle":
                name = f"{match['name']}_{match['id']}_assignsubmission_file_feedback.html"
            elif match:
                name = grade.source[: match.start("file")] + "feedback.html"
            if not match or not page.exists():
                if grade.why != NOTHING:
                    told.append(f"{grade.student} gets no page: it was not collected from a download of {system}")
                continue
            archive.writestr(zipfile.ZipInfo(name), page.read_bytes())
    return data.getvalue(), told


SETUP = "#!/usr/bin/env bash\n# Nothing to install: the submissions were graded elsewhere.\n"
RUN = '''#!/usr/bin/env python3
"""Hands out what interp-lab graded before; no code of a student runs here."""

import hashlib
import json
import os
from pathlib import Path

here = Path(os.environ.get("AUTOGRADER", "/autograder"))
graded = json.loads((here / "source" / "graded.json").read_text(encoding="utf-8"))
users = json.loads((here / "submission_metadata.json").read_text(encoding="utf-8")).get("users", [])
who = {str(user.get(key) or "").casefold() for user in users for key in ("name", "email", "sid")}
found = []
for path in sorted((here / "submission").rglob("*.ipynb")):
    if path.is_file() and not path.is_symlink():
        found += graded.get(hashlib.sha256(path.read_bytes()).hexdigest(), [])
own = [each for each in found if who & {name.casefold() for name in each["who"]}] or found
results = {json.dumps(each["results"], sort_keys=True) for each in own}
told = {"score": 0, "output": "This file has not been graded yet: ask your instructor." if not results else "Ask your instructor."}
answer = json.loads(results.pop()) if len(results) == 1 else told
(here / "results").mkdir(exist_ok=True)
(here / "results" / "results.json").write_text(json.dumps(answer), encoding="utf-8")
'''


def autograder(folder: Path, given: list[Grade]) -> bytes:
    """A zip to upload to Gradescope as the autograder of the assignment, which hands out the results of these files."""
    graded: dict[str, list[dict]] = {}
    known = {grade.student: grade for grade in given}
    for result in journal.results(folder / "journal.jsonl"):
        path = folder / "gradescope" / file_name(result.student) / "results.json"
        if result.sha256 and result.student in known and path.exists():
            who = [result.student, *filter(None, (known[result.student].email, known[result.student].number))]
            entry = {"who": who, "results": json.loads(path.read_text(encoding="utf-8"))}
            graded.setdefault(result.sha256, []).append(entry)
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in (("setup.sh", SETUP), ("run_autograder", RUN), ("graded.json", json.dumps(graded))):
            member = zipfile.ZipInfo(name)
            member.external_attr = (stat.S_IFREG | 0o755) << 16
            archive.writestr(member, text)
    return data.getvalue()


def to_nbgrader(folder: Path, database: Path, assignment: str, exercise: str, solution: bytes) -> list[str]:
    """Write the points into nbgrader's database through its own API; who is not in it is added.

    Raises:
        ValueError: nbgrader is not installed.
    """
    try:
        from nbgrader.api import Gradebook
    except ImportError:
        raise ValueError("this needs nbgrader: pip install nbgrader") from None
    cells: dict[str, dict[str, float]] = {}
    columns, rows = read_table(folder / "gradebook.csv")
    questions = columns[1 : columns.index("total")]
    for cell in json.loads(solution)["cells"]:
        marks = cell.get("metadata", {}).get("nbgrader", {})
        if name := marks.get("points") and marks["grade_id"]:
            short = name.removeprefix("q").removesuffix("-check")
            question = next(each for each in (name, short, short[:-1]) if each in questions)
            cells.setdefault(question, {})[name] = marks["points"]
    collected = {grade.student: grade for grade in grades(folder)}
    try:
        book = Gradebook(f"sqlite:///{database.resolve()}")
    except FileNotFoundError as error:
        raise ValueError(
            f"nbgrader starts {error.filename}, which is not on the PATH: activate its environment"
        ) from None
    with book:
        book.update_or_create_assignment(assignment)
        book.update_or_create_notebook(exercise, assignment)
        for question in questions:
            for name, points in cells[question].items():
                by_hand = question == name
                book.update_or_create_grade_cell(
                    name, exercise, assignment, max_score=points, cell_type="markdown" if by_hand else "code"
                )
        for row in rows:
            student = unguarded(row["student"])
            if collected[student].why == NOTHING:
                continue
            login = collected[student].number or student
            book.update_or_create_student(login)
            book.update_or_create_submission(assignment, login)
            for question in questions:
                for name, points in cells[question].items():
                    grade = book.find_grade(name, exercise, assignment, login)
                    if row[question] != "":
                        score = float(row[question]) * points / sum(cells[question].values())
                        setattr(grade, "manual_score" if question == name else "auto_score", score)
                        grade.needs_manual_grade = False
            book.db.commit()
    return [f"{grade.student}: {grade.why}" for grade in collected.values() if grade.why]
