"""course.yml: what it makes of points and times, and what it says of a slip."""

import re
import textwrap
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from pathlib import Path

import pytest
from downloads import EXERCISE

from grader import course
from grader.by_hand import items
from grader.exercise import Exercise

ROOT = Path(__file__).parents[2]

KNOWN = [EXERCISE, "02_antehoc_and_surrogates"]
WHOLE = """\
timezone: Europe/Berlin
attempts: oldest
late: {grace_minutes: 15, percent_per_day: 10, at_most_days: 2}
exercises:
  01:
    deadline: 2026-12-04 23:59
    points: 10
    questions: [1a, 2, q6]
    extensions: {Mu\u0308ller: 2026-12-06 23:59:00}
  02_antehoc_and_surrogates:
    deadline: 2026-12-11T23:59:00+00:00
    attempts: newest
    missing: zero
"""


@pytest.fixture
def read(tmp_path):
    def read(text, exercise=EXERCISE, **more):
        (tmp_path / "course.yml").write_text(text, encoding="utf-8")
        return course.read(tmp_path / "course.yml", exercise, KNOWN, **more)

    return read


def test_what_stands_under_an_exercise_holds_in_place_of_the_top(read):
    first, second = (read(WHOLE, exercise) for exercise in KNOWN)
    assert first.deadline == datetime(2026, 12, 4, 22, 59, tzinfo=timezone.utc)
    assert first.deadline_of("Müller") - first.deadline == timedelta(days=2)
    assert (first.attempts, second.attempts, second.missing) == ("oldest", "newest", "zero")
    assert [first.counts(name) for name in ("1a", "1b", "2", "q6")] == [True, False, True, True]
    assert second.counts("1b")
    assert second.percent_per_day == 10
    assert second.points is None
    assert read("") == course.Rules()


@pytest.mark.parametrize(
    "minutes", [-60, 0, 14, 15, 16, 24 * 60, 24 * 60 + 15, 24 * 60 + 16, 2 * 24 * 60 + 15, 2 * 24 * 60 + 16, 9999]
)
@pytest.mark.parametrize("earned", [0, 0.5, 14, 28])
def test_late_work_against_the_rule_in_whole_minutes(read, minutes, earned):
    rules = read(WHOLE)
    grade, out_of, words = rules.grade(earned, 28, "x", rules.deadline + timedelta(minutes=minutes))
    days = max(0, -((15 - minutes) // (24 * 60)))  # begun, counted in integers
    right = Fraction(earned) * 10 / 28
    right = 0 if days > 2 else max(Fraction(0), right - days)
    assert (grade, out_of) == (round(float(right), 2), 10)
    assert bool(words) == (days > 2 or (days > 0 and earned > 0))


@pytest.mark.parametrize(
    ("deadline", "late"), [("2026-10-24 12:00", "2026-10-25 11:01"), ("2026-03-28 12:00", "2026-03-29 13:01")]
)
def test_a_day_late_is_24_hours_also_where_the_clock_was_put_back(read, deadline, late):
    rules = read(
        f"timezone: Europe/Berlin\nlate: {{percent_per_day: 10}}\nexercises: {{01: {{deadline: {deadline}}}}}\n"
    )
    handed_in = datetime.fromisoformat(late).replace(tzinfo=rules.deadline.tzinfo)
    assert rules.grade(10, 10, "x", handed_in)[0] == 8
    assert rules.grade(10, 10, "x", handed_in - timedelta(minutes=2))[0] == 9


def test_late_by_nobody_knows_how_much_is_told():
    rules = course.Rules(percent_per_day=10)
    assert rules.grade(5, 10, late="as the system marks it") == (
        5,
        10,
        "late, but not known by how much: nothing was taken off",
    )
    assert course.Rules().grade(5, 10, late="as the system marks it") == (5, 10, "")
    assert course.Rules(points=4).grade(0, 0) == (0, 4, "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("attempts: best", "line 1, attempts must be newest, oldest or refuse, not 'best'"),
        ("late:\n  percent_per_day: 10 %\n", "line 2, late.percent_per_day must be a number from 0 to 100, not '10 %'"),
        ("late: {percent_per_day: 101}", "must be a number from 0 to 100, not 101"),
        ("late: {grace_minutes: -1}", "late.grace_minutes must be a number of minutes, 0 or more, not -1"),
        ("late: {at_most_days: .nan}", "late.at_most_days must be a number of days, 0 or more, not nan"),
        ("late: 5", "line 1, late must be a list of keys with values (grace_minutes, percent_per_day, at_most_days), not 5"),
        ("points: yes", "points must be a number above 0, not True"),
        ("points: 0", "points must be a number above 0, not 0"),
        ("missing: 0", "missing must be empty or zero, not 0"),
        ("timezone: Berlin", "timezone must be the name of a time zone, such as Europe/Berlin, not 'Berlin'"),
        ("timezone: /etc/passwd", "timezone must be the name of a time zone"),
        ("deadline: 2026-12-04 23:59", "deadline must be one of attempts, missing, points, late, timezone, exercises, not 'deadline'"),
        ("exercises:\n  01:\n    deadline: 2026-12-04\n", "line 3, exercises.01.deadline must be a date and a time of day, such as 2026-12-04 23:59"),
        ("exercises:\n  01: {deadline: 4.12.2026 23:59}\n", "line 2, exercises.01.deadline must be a date and a time of day"),
        ("exercises:\n  01: {questions: 2}\n", "exercises.01.questions must be a list of the questions that count"),
        ("exercises:\n  01: {questions: []}\n", "exercises.01.questions must be a list"),
        ("exercises:\n  01: {extensions: [Ann]}\n", "exercises.01.extensions must be names of students, each with a date"),
        ("exercises:\n  01: {dedline: 1}\n", "line 2, exercises.01.dedline must be one of attempts, missing, points, late, deadline"),
        ("exercises:\n  03: {}\n", "line 2, exercises.03 must be one of 01_saliency_and_smoothgrad, 02_antehoc_and_surrogates, or its number"),
        ("exercises: [01]", "line 1, exercises must be a list of exercises, each with its rules"),
        ("exercises:\n  01: {}\n  01: {}\n", "line 3: exercises.01 stands there twice"),
        ("points: 1\npoints: 2\n", "line 2: points stands there twice"),
        ("[1, 2]", "the file must be a list of keys"),
        ("a: [", "cannot be read as YAML"),
        ("!!python/object/apply:os.system ['x']", "cannot be read as YAML"),
    ],
)  # fmt: skip
def test_a_slip_is_told_with_its_line_and_what_was_expected(read, text, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011  # compared below
        read(text)
    assert message in str(error.value)
    assert "course.yml" in str(error.value)


def test_an_extension_of_nobody_is_told(read):
    assert read(WHOLE, students=["Müller"]).extensions
    with pytest.raises(
        ValueError, match=r"line 9, exercises\.01\.extensions must be names of students .* not 'Müller'"
    ):
        read(WHOLE, students=["Muller"])


def test_the_example_of_the_guide_is_read_and_names_questions_of_the_exercise(read):
    guide = (ROOT / "book" / "appendix" / "instructors.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(timezone.*?)```", guide, re.DOTALL)
    rules = read(text)
    exercise = Exercise.read(ROOT / "solutions" / EXERCISE)
    known = {question.name for question in exercise.questions} | {item.name for item in items(exercise.solution)}
    assert set(rules.questions) <= known
    assert (rules.deadline.hour, rules.at_most_days, list(rules.extensions)) == (23, 5, ["Jane Doe"])
    example = course.__doc__.partition("\n\n")[2].partition("\n\nWhatever")[0]
    assert set(read(textwrap.dedent(example)).questions) <= known
