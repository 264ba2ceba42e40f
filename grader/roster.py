"""The class: who is in it, and whose a submission is.

A roster is any table that a classroom system exports, or one's own with the column ``student``.
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from unicodedata import category, normalize

from .collect import NO_NAME, is_name, read_table

# Columns of the tables that Canvas, Moodle, Gradescope, GitHub Classroom and nbgrader export, in small letters.
NAMES = ("student", "full name", "roster_identifier")
FIRST, LAST = ("first name", "firstname", "first_name"), ("last name", "lastname", "surname", "last_name")
NUMBERS = (
    "id", "sis user id", "sis login id", "integration id",  # Canvas
    "identifier", "id number", "username",  # Moodle; "identifier" is also GitHub Classroom's
    "sid", "student id", "student_id", "email", "email address", "e-mail",
    "github_username", "roster_identifier", "login",
)  # fmt: skip
TIMES = ("last modified (submission)", "submission_timestamp")
_TIME_FORMATS = ("%A, %d %B %Y, %I:%M %p", "%A, %B %d, %Y, %I:%M %p", "%d %B %Y, %I:%M %p")  # Moodle's, in English


@dataclass(frozen=True)
class Person:
    """Somebody of the class.

    Attributes:
        student: the name as all tables of the grader show it; no two persons have the same.
        name: as the roster writes it.
        numbers: numbers, logins and addresses by which systems know the person, in small letters.
        handed_in: without a zone where the table tells none.
        line: of the table, 0 for the first below the header.
    """

    student: str
    name: str
    numbers: frozenset[str] = frozenset()
    email: str = ""
    handed_in: datetime | None = None
    line: int = field(default=0, compare=False)


def read(path: Path) -> list[Person]:
    """Everybody in a table, in its order.

    Raises:
        ValueError: no column holds names, or a name is none, or a person stands there twice.
    """
    columns, rows = read_table(path)
    people = persons(columns, [[row.get(column) or "" for column in columns] for row in rows])
    if not people:
        raise ValueError(
            f"{path} must be a table with the column student, or one that Canvas, Moodle, Gradescope or GitHub Classroom "
            f"exports, and a line for each; its columns are {', '.join(columns) or '(none)'}"
        )
    for person in people:
        if not is_name(person.student):
            raise ValueError(f"{path}: {person.student!r} {NO_NAME}")
    twice = [name for name, count in Counter(person.student for person in people).items() if count > 1]
    if twice:
        raise ValueError(f"{path}: {twice[0]!r} stands there twice, with nothing that tells the two apart")
    return people


def persons(columns: list[str], rows: list[list[str]]) -> list[Person]:
    """Those rows of a table that are of a person; two of one name are told apart by a number."""
    keys = [column.strip().lower() for column in columns]
    found = []
    for line, row in enumerate(rows):
        cells = {key: normalize("NFC", cell).strip() for key, cell in zip(keys, row, strict=False)}
        numbers = [cells[key] for key in NUMBERS if cells.get(key)]
        first, last = (next((cells[key] for key in part if cells.get(key)), "") for part in (FIRST, LAST))
        names = [cells.get(key) for key in NAMES] + [" ".join(filter(None, (first, last)))]
        if cells.get("github_username"):
            names += [cells.get("identifier")]  # which a teacher chose, the name its owner
        if numbers:
            names += [cells.get("name")]
        if participant := re.fullmatch(r"\D+ ?(\d+)", cells.get("identifier", "")):  # "Participant 4711" of Moodle
            numbers.append(participant[1])
            names += [cells["identifier"]]  # where nobody is to know the names
        name = next(filter(None, names), "")
        if not name or name.startswith(("Points Possible", "Student, Test")):  # rows of Canvas that are nobody's
            continue
        student = name if is_name(name) or not numbers else _clean(name)  # who may choose a name may choose any
        email = next((number for number in numbers if "@" in number), "")
        time = next((parsed for key in TIMES if (parsed := parse_time(cells.get(key, "")))), None)
        found.append(Person(student, name, frozenset(n.lower() for n in numbers), email, time, line))
    return _told_apart(
        found, [next((c for k, c in zip(keys, row, strict=False) if k in NUMBERS and c), "") for row in rows]
    )


def _clean(name: str) -> str:
    kept = "".join(c for c in name if is_name("a" + c + "a"))[:80].strip(" .,@+-()[]{}")
    return kept if is_name(kept) else "unnamed"


def _told_apart(people: list[Person], numbers: list[str]) -> list[Person]:
    count = Counter(person.student for person in people)
    return [
        Person(f"{p.student} ({numbers[p.line].strip()})", p.name, p.numbers, p.email, p.handed_in, p.line)
        if count[p.student] > 1 and numbers[p.line].strip() not in ("", p.student)
        else p
        for p in people
    ]


def parse_time(text: str) -> datetime | None:
    """A time as one of the systems writes it, without a zone where it has none; None for anything else.

    >>> parse_time("2026-12-04 20:15:00.549484000 Z").isoformat()
    '2026-12-04T20:15:00.549484+00:00'
    >>> parse_time("Friday, 4 December 2026, 8:15 PM").isoformat()
    '2026-12-04T20:15:00'
    """
    text = re.sub(r"(\.\d{6})\d+", r"\1", re.sub(r" ?(UTC|Z)$", "+00:00", text.strip()))
    with suppress(ValueError):
        return datetime.fromisoformat(text)
    for form in _TIME_FORMATS:
        with suppress(ValueError):
            return datetime.strptime(text, form)
    return None


class Roster:
    """Finds people by what a download tells of them; never guesses."""

    def __init__(self, people: Iterable[Person]) -> None:
        self.people = list(people)
        self._numbers: dict[str, set[int]] = {}
        for i, person in enumerate(self.people):
            for number in person.numbers:
                self._numbers.setdefault(number, set()).add(i)
        self._names: list[dict[str, set[int]]] = []
        for plain in _PLAINER:
            index: dict[str, set[int]] = {}
            for i, person in enumerate(self.people):
                for key in {*_keys(person.name, plain), *_keys(person.student, plain)}:
                    index.setdefault(key, set()).add(i)
            self._names.append(index)

    def find(self, name: str, numbers: Iterable[str] = ()) -> tuple[Person | None, str]:
        """The person and how they were found, or None and why there is nobody.

        Where there is a name, a number alone is not enough: in some systems a name can be made to look like a number.
        """
        by_number = set().union(*(self._numbers.get(number.lower(), set()) for number in numbers if number))
        by_name: set[int] = set()
        for plain, index in zip(_PLAINER, self._names, strict=True):
            by_name = by_name or set().union(*(index.get(key, set()) for key in _keys(name, plain)))
        both = by_number & by_name
        for found, how in ((both, "name and number"), (by_number, "number"), (by_name, "name")):
            if name and by_number and not both:
                one, other = (self.people[min(each)].student if each else "nobody" for each in (by_number, by_name))
                return None, f"the number is that of {one}, the name that of {other}"
            if len(found) == 1:
                return self.people[found.pop()], how
            if len(found) > 1:
                return None, "may be " + " or ".join(sorted(self.people[i].student for i in found))
        like = difflib.get_close_matches(name, [person.student for person in self.people], 1) if name else []
        return None, "not on the roster" + (f"; is {like[0]} meant?" if like else "")


def _kept(text: str) -> str:
    return "".join(c for c in normalize("NFC", text).casefold() if category(c)[0] in "LMN")


def _without_marks(text: str) -> str:
    return "".join(c for c in normalize("NFD", text).casefold() if category(c)[0] in "LN")


def _german(text: str) -> str:
    text = normalize("NFC", text).casefold()
    return _without_marks(text.replace("ä", "ae").replace("ö", "oe").replace("ü", "ue"))  # codespell:ignore ue


_PLAINER = (_kept, _without_marks, _german)  # tried in this order: as it is, without accents, as Germans write without


def _keys(name: str, plain) -> set[str]:
    """Doe, Jane; Jane Doe; doejane: the words joined, beginning with any of them."""
    words = [word for part in re.split(r"[\s,_]+", name) if (word := plain(part))][:10]
    return {"".join(words[i:] + words[:i]) for i in range(len(words))}
