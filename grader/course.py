"""The rules of a course, from one file ``course.yml``: deadlines, late work, attempts, points and which questions count.

    timezone: Europe/Berlin
    attempts: newest                 # which counts: newest, oldest, or refuse to choose
    missing: empty                   # what stands in the grade of who handed in nothing: empty or zero
    late: {grace_minutes: 15, percent_per_day: 10, at_most_days: 5}
    exercises:
      01_saliency_and_smoothgrad:
        deadline: 2026-12-04 23:59
        points: 10                   # what all points of the questions that count are worth
        questions: [1a, 2, 3a, 4, q6]
        extensions: {Jane Doe: 2026-12-06 23:59}

Whatever stands under an exercise holds for it in place of what stands at the top.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from unicodedata import normalize
from zoneinfo import ZoneInfo

import yaml


@dataclass(frozen=True)
class Rules:
    """Those of one exercise.

    Attributes:
        percent_per_day: of the points of the exercise, for each day begun after the deadline and its grace.
        at_most_days: later counts nothing.
        points: the worth of all points together; None: they are worth themselves.
        questions: names of those that count; None: all.
        zone: of times that tell none; None: that of this machine.
    """

    attempts: str = "newest"
    missing: str = "empty"
    deadline: datetime | None = None
    extensions: dict[str, datetime] = field(default_factory=dict)
    grace_minutes: float = 0.0
    percent_per_day: float = 0.0
    at_most_days: float = math.inf
    points: float | None = None
    questions: tuple[str, ...] | None = None
    zone: ZoneInfo | None = None

    def deadline_of(self, student: str) -> datetime | None:
        """The deadline of one student, extension included."""
        return self.extensions.get(student, self.deadline)

    def counts(self, question: str) -> bool:
        """Whether a question, by its name or that of its cell, counts."""
        return self.questions is None or question in self.questions

    def grade(
        self, earned: float, of: float, student: str = "", handed_in: datetime | None = None, late: str = ""
    ) -> tuple[float, float, str]:
        """The grade, out of what, and what was taken off, in words.

        >>> from datetime import datetime
        >>> rules = Rules(deadline=datetime(2026, 12, 4, 23, 59), percent_per_day=10, points=10)
        >>> rules.grade(21, 28, handed_in=datetime(2026, 12, 5, 8, 0))
        (6.5, 10, '1 day late: 1 of 10 points taken off')
        """
        out_of = of if self.points is None else self.points
        grade = earned * out_of / of if of else 0.0
        deadline = self.deadline_of(student)
        if handed_in is None or deadline is None:
            unknown = late and (self.percent_per_day or self.at_most_days < math.inf)
            return round(grade, 2), out_of, "late, but not known by how much: nothing was taken off" if unknown else ""
        over = late_by(handed_in, deadline) - timedelta(minutes=self.grace_minutes)
        days = max(0, math.ceil(over / timedelta(days=1)))
        if days > self.at_most_days:
            return 0.0, out_of, f"{days} days late: more than {self.at_most_days:g} count nothing"
        off = min(grade, out_of * days * self.percent_per_day / 100)
        words = f"{days} day{'s' * (days > 1)} late: {off:.4g} of {out_of:g} points taken off" if off else ""
        return round(grade - off, 2), out_of, words


def late_by(handed_in: datetime, deadline: datetime) -> timedelta:
    """The time between the two, in hours that passed; clocks of one zone may have been put back."""
    return handed_in.astimezone(timezone.utc) - deadline.astimezone(timezone.utc)


def read(path: Path, exercise: str, known: list[str], students: list[str] | None = None) -> Rules:
    """The rules of an exercise; those at the top where the file does not name it.

    Args:
        known: names of all exercises.
        students: names of the class, among which those of extensions must be.

    Raises:
        ValueError: the file cannot be understood; the message has the line, the key and what was expected there.
    """
    try:
        node = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
        lines: dict[str, int] = {}
        _lines(path, node, "", lines)
        data = yaml.SafeLoader("").construct_document(node) if node else {}
    except (yaml.YAMLError, UnicodeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None

    def wrong(key: str, expected: str, got: object) -> ValueError:
        place = f"{path}, line {lines[key]}, " if key in lines else f"{path}: "
        return ValueError(f"{place}{key or 'the file'} must be {expected}, not {got!r}")

    top = _checked(data, "", _TOP, wrong)
    exercises = top.pop("exercises", {})
    own: dict = {}
    for name, rules in exercises.items():
        if not any(name in (each, each.split("_")[0]) for each in known):
            raise wrong(f"exercises.{name}", f"one of {', '.join(known)}, or its number", name)
        checked = _checked(rules, f"exercises.{name}", _RULES, wrong)
        if name in (exercise, exercise.split("_")[0]):
            own = checked
            here = f"exercises.{name}"
    found = top | own
    zone = found.pop("timezone", None)
    late = found.pop("late", {})
    extensions = {normalize("NFC", name): aware(time, zone) for name, time in found.pop("extensions", {}).items()}
    for name in extensions:
        if students is not None and name not in students:
            raise wrong(f"{here}.extensions", "names of students as the grader shows them, each with a time", name)
    deadline = found.pop("deadline", None)
    return Rules(**found, **late, extensions=extensions, deadline=deadline and aware(deadline, zone), zone=zone)


def aware(time: datetime, zone: ZoneInfo | None) -> datetime:
    """A time with its zone, or with this one, or with that of the machine."""
    return time if time.tzinfo else time.replace(tzinfo=zone) if zone else time.astimezone()


def _lines(path: Path, node: yaml.Node | None, key: str, lines: dict[str, int]) -> None:
    """The line of every key; YAML itself takes the last of two without a word."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            inner = f"{key}.{name.value}" if key else str(name.value)
            if inner in lines:
                raise ValueError(f"{path}, line {name.start_mark.line + 1}: {inner} stands there twice")
            lines[inner] = name.start_mark.line + 1
            _lines(path, value, inner, lines)


def _checked(data: object, key: str, schema: dict, wrong: Callable[..., ValueError]) -> dict[str, Any]:
    """The values under a key, each as its schema makes it."""
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise wrong(key, f"a list of keys with values ({', '.join(schema)})", data)
    found = {}
    for name, value in data.items():
        inner = f"{key}.{name}" if key else str(name)
        if name not in schema:
            raise wrong(inner, f"one of {', '.join(schema)}", name)
        taken, expected = schema[name]
        if isinstance(taken, dict):
            found[name] = _checked(value, inner, taken, wrong)
            continue
        try:
            found[name] = taken(value)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, OSError):
            raise wrong(inner, expected, value) from None
    return found


def _number(low: float, high: float = math.inf, *, above: bool = False) -> Callable[[object], float]:
    def taken(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError
        if not (low < value if above else low <= value) or not value <= high or math.isinf(value):
            raise ValueError
        return value

    return taken


def _one_of(*words: str) -> Callable[[object], str]:
    return lambda value: {word: word for word in words}[value]  # type: ignore[index]


def _time(value: object) -> datetime:
    if isinstance(value, str):
        value = datetime.fromisoformat(value.strip())
    if not isinstance(value, datetime):
        raise TypeError
    return value


def _extensions(value: object) -> dict[str, datetime]:
    return {str(name): _time(time) for name, time in value.items()}  # type: ignore[attr-defined]


def _questions(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(each, (str, int)) for each in value):
        raise TypeError
    return tuple(map(str, value))


def _zone(value: object) -> ZoneInfo:
    return ZoneInfo(value)  # type: ignore[arg-type]


def _exercises(value: object) -> dict[str, object]:
    return {f"{name:02}" if isinstance(name, int) else str(name): rules for name, rules in value.items()}  # type: ignore[attr-defined]


_DATE = "a date and a time of day, such as 2026-12-04 23:59"
_EVERYWHERE = {
    "attempts": (_one_of("newest", "oldest", "refuse"), "newest, oldest or refuse"),
    "missing": (_one_of("empty", "zero"), "empty or zero"),
    "points": (_number(0, above=True), "a number above 0"),
    "late": (
        {
            "grace_minutes": (_number(0), "a number of minutes, 0 or more"),
            "percent_per_day": (_number(0, 100), "a number from 0 to 100"),
            "at_most_days": (_number(0), "a number of days, 0 or more"),
        },
        "",
    ),
}
_RULES = _EVERYWHERE | {
    "deadline": (_time, _DATE),
    "extensions": (_extensions, f"names of students, each with {_DATE}"),
    "questions": (_questions, "a list of the questions that count, such as [1a, 2, q6]"),
}
_TOP = _EVERYWHERE | {
    "timezone": (_zone, "the name of a time zone, such as Europe/Berlin"),
    "exercises": (_exercises, "a list of exercises, each with its rules"),
}
