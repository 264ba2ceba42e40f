"""What an exercise is tried on: its solution, right answers written differently, and wrong ones that students write.

``interp-lab check-exercise`` and the tests make the same trials. The answers are data, in
``solutions/NN_topic/corpus.py``:

- ``SETTING``: names of the given code cells that the visible checks need besides the answers.
- ``EMPTY``: of each question the signature, and an expression of a plausible kind that is wrong.
- ``RIGHT``: question, name, source of the answer cell.
- ``WRONG``: question, name, text of the model answer and what stands in its place; the visible check that catches it
  and words of its message; the graded parts that it loses and words of their feedback. Either may be empty: some
  mistakes only the student sees before handing in, some only the grader sees.
"""

import ast
import contextlib
import io
import json
import re
import runpy
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from interp_lab import extract
from interp_lab.notebook import source

from . import release
from .calls import perform
from .exercise import Exercise, references
from .question import Question, mark
from .sandbox import Lane, SandboxError

# What the trials of a kind say of an exercise where nothing is off, and what to do where something is.
KINDS = {
    "solution": (
        "the solution passes its visible checks, and gets all points in the sandbox",
        "mend the solution, or the check or part that refuses it",
    ),
    "right": (
        "other right answers pass, and get all points",
        "if the answer is right, the check or part asks for more than the task; if not, take it out of RIGHT",
    ),
    "wrong": (
        "wrong answers are caught where the corpus says, with the words that it says",
        "let the check cell, or a part in questions.py, tell the answer from a right one; or correct its row of WRONG",
    ),
    "contained": (
        "what a visible check refuses loses points; what passes all of them gets some",
        "let a part in questions.py try what the check tries, or the reverse",
    ),
    "empty": (
        "empty answers fail every check, and get no points",
        "let the check or part ask for more, or put an expression into EMPTY that is wrong",
    ),
    "untouched": (
        "in the released notebook every check fails, and says what to do",
        'let each check call the answer first, under `with check.question("1a"):`',
    ),
    "enough": (
        "three right and five wrong answers to each question",
        "add answers to corpus.py",
    ),
    "title": (
        "the points and minutes of the table in the title add up",
        "correct the table in the first cell, or the points of the cells",
    ),
    "leaks": (
        "no answer, no number found by hand and no output is in a released notebook",
        "put it between the marks BEGIN SOLUTION and END SOLUTION or say it otherwise, and release again",
    ),
}
BODIES = ["raise NotImplementedError()", "return 0 * {0}", "return {0}", "return None"]
ROWS = {
    "RIGHT": ("question", "name", "source"),
    "WRONG": ("question", "name", "old", "new", "check", "words", "parts", "feedback"),
}


@dataclass(frozen=True)
class Trial:
    """One thing that has to hold for an exercise; ``kind`` is one of `KINDS`, ``question`` empty for all together."""

    kind: str
    question: str
    name: str
    look: Callable[[Lane], Iterator[str]]

    def faults(self, lane: Lane) -> list[str]:
        """What is off, in sentences; nothing where it holds."""
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # what answers print
                return list(dict.fromkeys(self.look(lane)))
        except SandboxError:
            raise
        except Exception as error:  # of an answer or a check, which may raise anything
            return [f"raised {type(error).__name__}: {error}{_place(error)}"]

    def __str__(self) -> str:
        return ", ".join(filter(None, [self.kind, self.question and f"question {self.question}", self.name]))


class Corpus:
    """The answers of a folder ``solutions/NN_topic/``, and the trials that they make.

    Raises:
        FileNotFoundError: the folder lacks solution.ipynb, questions.py or corpus.py.
        ValueError: one of them cannot be used as it is; the message says what stands where.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.exercise = folder, Exercise.read(folder)
        try:
            self.notebook = json.loads(self.exercise.solution)
            self.released = release.release(self.notebook)
        except (ValueError, KeyError) as error:
            raise ValueError(f"{folder / 'solution.ipynb'}: {error}") from None
        try:
            self.exercise.agree()
        except ValueError as error:
            raise ValueError(f"{folder}: {error}{_place(error)}") from None
        except Exception as error:  # questions.py is code, and may raise anything
            raise _unusable(folder / "questions.py", error) from None
        self.cells = _code(self.notebook)
        self.places = {cell: f"code cell {number}, {cell}" for number, cell in enumerate(self.cells, 1)}
        if faults := self._unreadable():
            raise ValueError(f"{folder}: {'; '.join(faults)}")
        self._read(folder / "corpus.py")

    def _unreadable(self) -> list[str]:
        """What stands in the way of trying the solution: cells that do not parse or are missing, names defined twice."""
        _, faults = extract.parse({self.places[cell]: text for cell, text in self.cells.items()})
        needed = {f"q{question}-answer" for question in self.questions}
        faults += [f"solution.ipynb lacks a code cell {cell}" for cell in sorted(needed.difference(self.answers))]
        answers = {self.places[cell]: self.cells[cell] for cell in self.answers}
        for cells in (answers, {"questions.py": self.exercise.source}):
            places: dict[str, list[str]] = {}
            for statement in extract.parse(cells)[0]:
                if isinstance(statement.node, ast.FunctionDef):
                    places.setdefault(statement.node.name, []).append(statement.place)
            faults += [
                f"{name} is defined more than once ({'; '.join(each)}): every question needs function names of its own"
                for name, each in places.items()
                if len(each) > 1
            ]
        return faults

    def _read(self, path: Path) -> None:
        if not path.exists():
            raise FileNotFoundError(f"there is no {path}; interp-lab new-exercise makes one to begin with")
        try:
            names = runpy.run_path(str(path))
        except Exception as error:
            raise _unusable(path, error) from None
        if lacking := {"SETTING", "EMPTY", *ROWS} - names.keys():
            raise ValueError(f"{path} lacks {', '.join(sorted(lacking))}")
        for table, columns in ROWS.items():
            for number, row in enumerate(names[table], 1):
                if len(row) != len(columns) or not all(isinstance(each, str) for each in row):
                    raise ValueError(
                        f"{path}: row {number} of {table} must be {len(columns)} texts: {', '.join(columns)}"
                    )
                if row[0] not in self.questions:
                    raise ValueError(
                        f"{path}: row {number} of {table} is for question {row[0]!r}, which needs an entry in questions.py"
                    )
                if table == "WRONG" and row[4] and f"{row[4]}-check" not in self.cells:
                    raise ValueError(
                        f"{path}: row {number} of WRONG names a check cell that is missing: {row[4]}-check"
                    )
        self.setting, self.empty = names["SETTING"], names["EMPTY"]
        self.right, self.wrong = names["RIGHT"], names["WRONG"]
        if unknown := set(self.setting) - self.cells.keys():
            raise ValueError(f"{path}: SETTING names code cells that are missing: {', '.join(sorted(unknown))}")
        if self.empty.keys() != self.questions.keys():
            raise ValueError(f"{path}: EMPTY must have an entry for each of the questions {', '.join(self.questions)}")

    @cached_property
    def questions(self) -> dict[str, Question]:
        return {question.name: question for question in self.exercise.questions}

    @property
    def answers(self) -> list[str]:
        """The names of the answer cells."""
        return [cell for cell in self.cells if cell.endswith("-answer")]

    def checks(self, question: str = "") -> list[str]:
        """The names of the visible checks of a question, or of all."""
        return [cell for cell in self.cells if re.fullmatch(rf"q{question or '.*'}[a-z]?-check", cell)]

    def said(self, check: str, **changed: str) -> str:
        """What the check cell says and where, "" if it passes, with the given sources in place of the model answers."""
        namespace: dict[str, Any] = {}
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            for cell in self.setting + self.answers:
                self._run(cell, changed.get(cell.replace("-", "_"), self.cells[cell]), namespace)
            try:
                self._run(check, self.cells[check], namespace)
            except (AssertionError, NotImplementedError) as error:
                return (str(error) or "nothing") + _place(error)
        name = check.removeprefix("q").removesuffix("-check")
        if f"Question {name}: passed." not in printed.getvalue():
            raise ValueError(f'the checks of {check} must stand under `with check.question("{name}"):`')
        return ""

    def _run(self, cell: str, text: str, namespace: dict[str, Any]) -> None:
        """Execute a text as that of a cell; errors name the cell and the line."""
        place = self.places[cell] if text == self.cells[cell] else f"in place of {self.places[cell]}"
        exec(compile(text, place, "exec"), namespace)

    def lost(
        self, lane: Lane, question: str, source: str | None = None, *, student: str = "anna", **changed: str
    ) -> dict[str, str]:
        """The parts of a question that are wrong with these sources in place of the solution's, with what is wrong."""
        changed |= {} if source is None else {f"q{question}_answer": source}
        return self._lost(lane, (self.questions[question],), student, changed)[question]

    def _lost(
        self, lane: Lane, asked: tuple[Question, ...], student: str, changed: dict[str, str]
    ) -> dict[str, dict[str, str]]:
        given, functions = references(self.exercise)
        solution = {cell: changed.get(cell.replace("-", "_"), own) for cell, own in self.cells.items()}
        cells = given | {f"code cell {i}": text for i, text in enumerate(solution.values(), 1)}
        names = self.exercise.name, student
        faults = mark(asked, b"key", names, lambda c: lane.run(cells, c), functions, threading.Lock())
        return {
            question.name: {
                part.kind: fault for part, fault in zip(question.parts, faults[question.name], strict=True) if fault
            }
            for question in asked
        }

    def trials(self) -> list[Trial]:
        """All trials, in the order of `KINDS`."""
        made = [Trial("solution", "", "visible checks", lambda lane: self._passes("", {}))]
        made += [Trial("solution", "", "graded", self._gets_all)]
        made += [Trial("right", q, name, partial(self._right, q, text)) for q, name, text in self.right]
        made += [Trial("wrong", row[0], row[1], partial(self._wrong, *row)) for row in self.wrong]
        made += [
            Trial("contained", row[0], row[1], partial(self._contained, *row))
            for row in self.wrong
            if not (row[4] and row[6])
        ]
        made += [Trial("empty", q, body, partial(self._empty, q, body)) for q in self.questions for body in BODIES]
        made += [Trial("untouched", "", "", lambda lane: self._untouched())]
        made += [Trial("enough", q, "", partial(self._enough, q)) for q in self.questions]
        made += [Trial("title", "", "", lambda lane: self._title())]
        made += [Trial("leaks", "", "", lambda lane: self._leaks())]
        return made

    def _passes(self, question: str, changed: dict[str, str]) -> Iterator[str]:
        for check in self.checks(question):
            if message := self.said(check, **changed):
                yield f"is refused by {check}: {message}"

    def _gets_all(self, lane: Lane) -> Iterator[str]:
        for student in ("anna", "ben", "cem"):
            for question, lost in self._lost(lane, self.exercise.questions, student, {}).items():
                for part, fault in lost.items():
                    yield f"loses the part {part!r} of question {question}: {fault}"

    def _right(self, question: str, text: str, lane: Lane) -> Iterator[str]:
        yield from self._passes(question, {f"q{question}_answer": text})
        for part, fault in self.lost(lane, question, text).items():
            yield f"loses the part {part!r}: {fault}"

    def _wrong(
        self,
        question: str,
        _: str,
        old: str,
        new: str,
        check: str,
        words: str,
        parts: str,
        feedback: str,
        lane: Lane,
    ) -> Iterator[str]:
        model = self.cells[f"q{question}-answer"]
        if old not in model:
            yield f"replaces {old!r}, which does not stand in the cell q{question}-answer"
            return
        if not check and not parts:
            yield "must name the visible check that catches it, or the parts that it loses"
        wrong = model.replace(old, new)
        if check:
            message = self.said(f"{check}-check", **{f"q{question}_answer": wrong})
            if not message:
                yield f"passes {check}-check"
            elif not message.startswith(f"Question {check.removeprefix('q')}:") or words not in message:
                yield f"is refused by {check}-check without the words {words!r}: {message}"
        if parts:
            lost, expected = self.lost(lane, question, wrong), kinds(parts)
            if not lost:
                yield "passes: it gets all points"
            elif lost.keys() != expected:
                yield f"loses the parts {_in_order(lost)}; the corpus says {_in_order(expected)}"
            elif not any(feedback in fault for fault in lost.values()):
                yield f"gets no feedback with the words {feedback!r}: {next(iter(lost.values()))}"

    def _contained(
        self, question: str, _: str, old: str, new: str, check: str, words: str, parts: str, feedback: str, lane: Lane
    ) -> Iterator[str]:
        wrong = self.cells[f"q{question}-answer"].replace(old, new)
        if check and not self.lost(lane, question, wrong):
            yield f"passes: it gets all points, though {check}-check refuses it"
        everything = kinds(parts) == {part.kind for part in self.questions[question].parts}
        if not check and everything and not any(self._refuses(each, question, wrong) for each in self.checks(question)):
            yield "gets no points, though it passes every visible check"

    def _refuses(self, check: str, question: str, answer: str) -> bool:
        """Whether a check refuses an answer, be it by a crash of the answer in it."""
        try:
            return self.said(check, **{f"q{question}_answer": answer}) != ""
        except Exception:
            return True

    def _empty(self, question: str, body: str, lane: Lane) -> Iterator[str]:
        signature, value = self.empty[question]
        empty = f"def {signature}:\n    {body.format(value)}"
        for check in self.checks(question):
            message = self.said(check, **{f"q{question}_answer": empty})
            if not message:
                yield f"passes {check}"
            elif not message.startswith("Question") or ("is not written yet" in message) != ("raise" in body):
                yield f"is told by {check}: {message}"
        lost = self.lost(lane, question, empty)
        if kept := [part.kind for part in self.questions[question].parts if part.kind not in lost]:
            yield f"gets the points of {_in_order(kept)}"
        for fault in lost.values():
            if "raise" in body and "There is no answer yet (code cell" not in fault:
                yield f"is told: {fault}"

    def _untouched(self) -> Iterator[str]:
        cells = _code(self.released)
        namespace: dict[str, Any] = {}
        heard: dict[str, str] = {}
        for cell in self.setting + self.answers + self.checks():
            try:
                self._run(cell, cells[cell], namespace)
            except (AssertionError, NotImplementedError) as error:
                heard[cell] = str(error)
        for check in self.checks():
            if "is not written yet" not in heard.get(check, ""):
                yield f"{check} does not say that nothing is written yet, but {heard.get(check, 'passed')!r}"
        statements, _ = extract.parse({cell: self.cells[cell] for cell in self.answers})
        first, graded = self.checks()[0], {bound for statement in statements for bound in statement.binds}
        try:
            exec(cells[first], {key: value for key, value in namespace.items() if key not in graded})
            message = "passed"
        except AssertionError as error:
            message = str(error)
        if not re.match(rf"Question {first[1:-6]}: .* is not defined", message):
            yield f"{first} does not say that the answer's cell was not run, but {message!r}"

    def _enough(self, question: str, lane: Lane) -> Iterator[str]:
        right = sum(row[0] == question for row in self.right)
        wrong = sum(row[0] == question and bool(row[6]) for row in self.wrong)
        if right < 3:
            yield f"RIGHT has {right} of at least 3 answers"
        if wrong < 5:
            yield f"WRONG has {wrong} of at least 5 answers that lose points"

    def _title(self) -> Iterator[str]:
        rows = [row.split("|") for row in source(self.notebook["cells"][0]).splitlines() if row.count("|") == 5]
        total = [row for row in rows if "together" in row[2]]
        parts = [row for row in rows if "★" in row[1]]
        points = sum(cell["metadata"].get("nbgrader", {}).get("points", 0) for cell in self.notebook["cells"])
        if len(total) != 1 or not parts:
            yield "the first cell must have a table | question ★ | task | points | minutes | that ends with a row 'together'"
            return
        for column, what in ((3, "points"), (4, "minutes")):
            if (rows_have := sum(float(row[column]) for row in parts)) != float(total[0][column]):
                yield f"the {what} of its rows are {rows_have:g}, not {total[0][column].strip()}"
        if float(total[0][3]) != points:
            yield f"the cells have {points:g} points, the table {total[0][3].strip()}"

    def _leaks(self) -> Iterator[str]:
        name, folder = f"{self.exercise.name}.ipynb", self.folder.resolve().parents[1] / "exercises"
        found = dict.fromkeys(release.leaks(self.notebook, self.released, self.by_hand()))
        for path in sorted(folder.glob("*.ipynb")):
            text = path.read_text(encoding="utf-8")
            if path.name != name:
                others = release.leaks(self.notebook, json.loads(text), longer_than=36)
                found |= dict.fromkeys(f"exercises/{path.name}: {leak}" for leak in others)
            elif text != release.dumps(self.released):
                yield f"exercises/{name} is not what this solution releases: run `python -m grader.release`"
                found |= dict.fromkeys(release.leaks(self.notebook, json.loads(text), self.by_hand()))
        yield from found

    def by_hand(self) -> dict[tuple[str, str], list[float]]:
        """The numbers that functions without arguments have to give, by question and name: the same for everybody."""
        _, functions = references(self.exercise)
        drawn = torch.Generator().manual_seed(0)
        calls = [c for q in self.questions.values() for part in q.parts for c in q.draw(part, drawn)]
        fixed = {(c.question, c.function): c for c in calls if not c.args and not c.options}
        return {names: perform(functions[names[1]], c).result.flatten().tolist() for names, c in fixed.items()}


def kinds(parts: str) -> set[str]:
    """The parts that a row of ``WRONG`` names."""
    return set(re.findall(r"side effects|\w+", parts))


def _code(notebook: dict) -> dict[str, str]:
    return {release.cell_name(cell): source(cell) for cell in notebook["cells"] if cell["cell_type"] == "code"}


def _in_order(parts: Any) -> str:
    return ", ".join(sorted(parts)) or "none"


def _unusable(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: {type(error).__name__}: {error}{_place(error)}")


def _place(error: Exception) -> str:
    """Where in the exercise an error arose, that of a check where it did before the check told it."""
    frames = [f for each in (error, error.__context__) if each for f in traceback.extract_tb(each.__traceback__)]
    places = [(Path(frame.filename).name.strip("<>"), frame.lineno) for frame in frames if frame.filename != __file__]
    own = [f" ({name}, line {line})" for name, line in places if re.search(r"^(questions|corpus)\.py$|code cell", name)]
    return own[-1] if own else ""
