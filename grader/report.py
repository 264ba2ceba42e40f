"""What students and instructors read: feedback pages, the summary of the class, Gradescope's results.

Whatever a student wrote, error messages of the student's code included, is escaped.
"""

import hashlib
import json

import jinja2

from .by_hand import Item, Marks
from .collect import is_name
from .question import Question
from .result import Result
from .similarity import Pair

PAIRS = 100  # of programs that are alike on one page

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .3rem .6rem;
border-bottom: 1px solid #ccc; vertical-align: top; } td.n, th.n { text-align: right; white-space: nowrap; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f4f4f4; padding: .6rem; margin: .3rem 0; }
.right { color: #00563f; } .wrong { color: #9b2500; }
"""

_ENVIRONMENT = jinja2.Environment(
    autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_ENVIRONMENT.filters["points"] = lambda value: f"{value:g}"

_HEAD = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{{{ title }}}}</title><style>{_STYLE}</style></head><body>
<h1>{{{{ title }}}}</h1>
"""

_FEEDBACK = _ENVIRONMENT.from_string(
    _HEAD
    + """<p>{{ result.student }}: <strong>{{ earned | points }} of {{ of | points }} points</strong>, graded by program.
{% if waiting %}
Another {{ waiting | points }} points are marked by hand and not counted here.
{% endif %}
</p>
{% if grade %}
<p>{{ grade }}.</p>
{% endif %}
{% if result.problem %}
<p class="wrong">Nothing could be graded: {{ result.problem }}.</p>
{% else %}
{% for question, got, parts in questions %}
<h2>{{ question.name }}. {{ question.title }}: {{ got | points }} of {{ question.points | points }}</h2>
<table><thead><tr><th>part</th><th>tried on</th><th class="n">points</th></tr></thead><tbody>
{% for part, fault in parts %}
<tr><td>{{ part.kind }}</td><td>{{ part.what }}
{% if fault %}
<pre class="wrong">{{ fault | replace(part.what ~ "\\n", "") }}</pre>
{% else %}
<span class="right">Right.</span>
{% endif %}
</td><td class="n">{{ (0 if fault else part.points) | points }} of {{ part.points | points }}</td></tr>
{% endfor %}
</tbody></table>
{% endfor %}
<p>Inputs are drawn anew for each file that is handed in; a function that is right on all inputs gets all points. An error in one function
also costs the questions whose functions call it.</p>
{% endif %}
{% if marked or comment %}
<h2>Marked by hand</h2>
{% if marked %}
<table><thead><tr><th>answer</th><th class="n">points</th></tr></thead><tbody>
{% for item, points in marked %}
<tr><td>{{ item.title }}: {{ item.name }}</td><td class="n">{{ points | points }} of {{ item.points | points }}</td></tr>
{% endfor %}
</tbody></table>
{% endif %}
{% if comment %}
<p>{{ comment }}</p>
{% endif %}
{% endif %}
</body></html>
"""
)

_TO_MARK = _ENVIRONMENT.from_string(
    _HEAD
    + """<p>Not for students: this page holds the solution. Put the points, and a comment if you like, into
<code>by_hand.csv</code> beside it, and grade again with the same output folder; that takes seconds.</p>
{% for item in asked %}
<h2>{{ item.title }}</h2>
<p>{{ item.points | points }} points, column <code>{{ item.name }}</code>.</p>
<details><summary>Mark scheme and model answer</summary><pre>{{ item.scheme }}</pre></details>
{% for result in results %}
<h3>{{ result.student }}</h3>
{% if item.name in result.written %}
<pre>{{ result.written[item.name] }}</pre>
{% else %}
<p class="wrong">Not answered, or not in the cell that was meant for it.</p>
{% endif %}
{% endfor %}
{% endfor %}
</body></html>
"""
)

_SUMMARY = _ENVIRONMENT.from_string(
    _HEAD
    + """<p>{{ students }} students. Mean {{ "%.1f" | format(mean) }} of {{ of | points }} points that are graded by program.
{% if unread %}
Nothing could be graded for {{ unread }} of them; the gradebook says why.
{% endif %}
</p>
{% if notes %}
<p>To look at:</p>
<ul>
{% for note in notes %}
<li>{{ note }}</li>
{% endfor %}
</ul>
{% endif %}
<table><thead><tr><th>question</th><th>part</th><th class="n">points</th><th class="n">students who got it</th></tr></thead>
<tbody>
{% for question, part, points, rate in rows %}
<tr><td>{{ question }}</td><td>{{ part }}</td><td class="n">{{ points | points }}</td>
<td class="n">{{ "%.0f" | format(100 * rate) }} %</td></tr>
{% endfor %}
</tbody></table></body></html>
"""
)

_SIMILARITY = _ENVIRONMENT.from_string(
    _HEAD
    + """<p>Not for students. <strong>A hint where to look, and no verdict:</strong> a share of common code says that two programs are
alike, not why. People who learn together, read the same page or get the same help write alike; short answers leave little
choice; and who copied from whom cannot be seen here. Read both notebooks, and speak with both people, before you think of
anything else. No points depend on this page.</p>
<p>Compared were the programs of {{ students }} students without names, comments, layout and order, without what the exercise and its
solution hold, and with little weight on what many share.
{% if pairs %}
Alike in at least {{ "%.0f" | format(100 * alike) }} % of what is their own are {{ pairs | length }} pairs.
{% else %}
No two are alike in at least {{ "%.0f" | format(100 * alike) }} % of what is their own. Copied text is not looked for.
{% endif %}
</p>
{% for note in notes %}
<p>{{ note }}.</p>
{% endfor %}
{% for pair in pairs[:shown] %}
<h2>{{ pair.students[0] }} and {{ pair.students[1] }}: {{ "%.0f" | format(100 * pair.share) }} %, {{ pair.parts }} expressions and statements</h2>
<table><thead><tr><th>{{ pair.students[0] }}</th><th>{{ pair.students[1] }}</th></tr></thead><tbody>
{% for one, other in pair.places %}
<tr><td><pre>{{ one }}</pre></td><td><pre>{{ other }}</pre></td></tr>
{% endfor %}
</tbody></table>
{% endfor %}
</body></html>
"""
)


def feedback(
    result: Result,
    asked: tuple[Question, ...],
    exercise: str,
    by_person: tuple[Item, ...],
    marks: Marks,
    grade: str = "",
) -> str:
    """A page that says, per part of each question, on which input it was tried and what was wrong, and the grade in words."""
    rows = [
        (question, result.earned(question), list(zip(question.parts, result.faults[question.name], strict=True)))
        for question in asked
        if not result.problem
    ]
    marked = [(item, points) for item in by_person if (points := marks.earned(item)) is not None]
    return _FEEDBACK.render(
        title=exercise.replace("_", " "),
        result=result,
        questions=rows,
        earned=sum(result.earned(q) for q in asked),
        of=sum(q.points for q in asked),
        waiting=sum(item.points for item in by_person) - sum(item.points for item, _ in marked),
        marked=marked,
        comment=marks.comment,
        grade=grade,
    )


def to_mark(results: list[Result], by_person: tuple[Item, ...], exercise: str) -> str:
    """For the instructor: every student's answers to what a person marks, by question."""
    return _TO_MARK.render(title=f"{exercise.replace('_', ' ')}: to mark by hand", results=results, asked=by_person)


def rates(results: list[Result], asked: tuple[Question, ...]) -> list[tuple[str, str, float, float]]:
    """Question, part, points, and the share of students: of the points for a question, with the part for a part."""
    rows, count = [], max(1, len(results))
    for q in asked:
        share = sum(result.earned(q) for result in results) / count / q.points
        rows.append((f"{q.name}. {q.title}", "all, share of the points", q.points, share))
        for i, part in enumerate(q.parts):
            right = sum(not result.faults.get(q.name, ["-"] * len(q.parts))[i] for result in results)
            rows.append(("", part.kind, part.points, right / count))
    return rows


def summary(results: list[Result], asked: tuple[Question, ...], exercise: str, notes: list[str]) -> str:
    """A page with the success rate of each question and part, and with what somebody should look at."""
    mean = sum(result.earned(q) for result in results for q in asked) / max(1, len(results))
    return _SUMMARY.render(
        title=f"{exercise.replace('_', ' ')}: the class",
        students=len(results),
        mean=mean,
        of=sum(q.points for q in asked),
        unread=sum(bool(result.problem) for result in results),
        rows=rates(results, asked),
        notes=notes,
    )


def table(results: list[Result], asked: tuple[Question, ...]) -> str:
    """The success rates of the questions, for a terminal."""
    rows = [(name, points, rate) for name, _, points, rate in rates(results, asked) if name]
    return "\n".join(f"{name:50} {points:4g} points  {100 * rate:3.0f} %" for name, points, rate in rows)


def gradescope(result: Result, asked: tuple[Question, ...], by_person: tuple[Item, ...], marks: Marks) -> str:
    """Gradescope's ``results.json``: one test per part, and one per answer that was marked by hand."""
    tests = []

    def add(number: str, name: str, score: float, points: float, output: str, passed: bool) -> None:
        status = "passed" if passed else "failed"
        test = {"number": number, "name": name, "score": score, "max_score": points, "status": status, "output": output}
        tests.append(test | {"output_format": "text", "visibility": "visible"})

    for q in asked:
        faults = result.faults.get(q.name, [f"Nothing could be graded: {result.problem}"] * len(q.parts))
        for part, fault in zip(q.parts, faults, strict=True):
            score = 0 if fault else part.points
            add(q.name, f"{q.title}: {part.kind}", score, part.points, fault or part.what, not fault)
    for item in by_person:
        if (points := marks.earned(item)) is not None:
            add(item.name, "marked by hand", points, item.points, marks.comment, points == item.points)
    return json.dumps({"score": sum(t["score"] for t in tests), "tests": tests}, indent=1) + "\n"


def similarity(pairs: list[Pair], notes: list[str], students: int, exercise: str, alike: float) -> str:
    """For the instructor: pairs of programs that are alike, side by side."""
    if len(pairs) > PAIRS:
        notes = [*notes, f"The {PAIRS} pairs that are most alike are shown"]
    return _SIMILARITY.render(
        title=f"{exercise.replace('_', ' ')}: programs that are alike",
        pairs=pairs,
        notes=notes,
        students=students,
        alike=alike,
        shown=PAIRS,
    )


def file_name(student: str) -> str:
    """A safe file name: the student's, or its beginning and a fingerprint where it is too long for a file system.

    Where it holds anything that a path could mind, the fingerprint alone.
    """
    if is_name(student) and len(student.encode()) <= 200:
        return student
    start = student.encode()[:180].decode(errors="ignore") if is_name(student) else "refused-"
    return f"{start}~{hashlib.sha256(student.encode(errors='surrogateescape')).hexdigest()[:16]}"
