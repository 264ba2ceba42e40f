"""An exercise as the grader has it: a folder ``solutions/NN_topic/``, read into one object."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from interp_lab import extract

from .collect import stems_by_student
from .question import Question


@dataclass(frozen=True)
class Exercise:
    """Name, solution notebook and source of the graded questions: all that another machine needs to grade a student."""

    name: str
    solution: bytes
    source: str

    @classmethod
    def read(cls, folder: Path) -> "Exercise":
        """The exercise of a folder that holds ``solution.ipynb`` and ``questions.py``; its name is that of the folder.

        Raises:
            FileNotFoundError: one of the two files is missing.
        """
        source = (folder / "questions.py").read_text(encoding="utf-8")
        return cls(folder.resolve().name, (folder / "solution.ipynb").read_bytes(), source)

    @property
    def questions(self) -> tuple[Question, ...]:
        """The graded questions: ``QUESTIONS`` of the source, which is executed once in a process."""
        return _execute(self)["QUESTIONS"]

    def agree(self) -> None:
        """Compare the points of the solution's check cells with those of the graded questions.

        Raises:
            ValueError: a check cell has points and no question grades it, a question has no check cell, or the points
                differ, or two questions have one name; the sentence says what is missing where.
        """
        asked = {question.name: question.points for question in self.questions}
        if len(asked) < len(self.questions):
            raise ValueError(f"QUESTIONS of {self.name} in questions.py must have names of their own")
        visible: dict[str, float] = dict.fromkeys(asked, 0.0)
        cells: dict[str, list[str]] = {name: [] for name in asked}
        for cell in json.loads(self.solution)["cells"]:
            grader = cell.get("metadata", {}).get("nbgrader", {})
            if not grader.get("grade") or grader.get("solution"):
                continue
            name = grader["grade_id"].removeprefix("q").removesuffix("-check")
            name = name if name in asked else name[:-1]
            if name not in asked:
                raise ValueError(
                    f"the check {grader['grade_id']} of {self.name} has {grader['points']:g} points in solution.ipynb, "
                    "and no question in questions.py that it belongs to: add one, or take the points away"
                )
            visible[name] += grader["points"]
            cells[name].append(f"{grader['grade_id']}: {grader['points']:g}")
        for name, points in asked.items():
            if visible[name] != points:
                raise ValueError(
                    f"question {name} of {self.name} has {points:g} points in questions.py and {visible[name]:g} in "
                    f"solution.ipynb ({', '.join(cells[name]) or f'no check cell q{name}-check'}): make them equal"
                )


@cache
def _execute(exercise: Exercise) -> dict:
    namespace = {"__name__": f"questions of {exercise.name}"}
    exec(compile(exercise.source, f"solutions/{exercise.name}/questions.py", "exec"), namespace)
    return namespace


@cache
def references(exercise: Exercise) -> tuple[dict[str, str], dict[str, Callable]]:
    """The cells that every student is given, and the solution's functions, by name.

    Raises:
        ValueError: the solution lacks a function that a question asks for, or its points are not those of the questions.
    """
    exercise.agree()
    answers: dict[str, Callable] = {}
    given = extract.code_cells(exercise.solution, given=True)
    statements, _ = extract.parse(given | extract.code_cells(exercise.solution))
    for question in exercise.questions:
        for part in question.parts:
            for call in question.draw(part, torch.Generator().manual_seed(0)):
                if call.function not in answers:
                    namespace, problems = extract.prepare(statements, call.function, question.name)
                    if call.function not in namespace or problems:
                        why = "; ".join(problems) or f"no cell before the check of question {question.name} defines it"
                        raise ValueError(f"the solution of {exercise.name} gives no {call.function}: {why}")
                    answers[call.function] = namespace[call.function]
    return given, answers


def called(known: Iterable[str], name: str) -> list[str]:
    """Those of the exercises that are meant by a name, with its number or without, or by the number alone.

    >>> called(["01_saliency", "02_surrogates"], "02")
    ['02_surrogates']
    """
    return [each for each in known if name in (each, *each.split("_", 1))]


def find(folder: Path, submitted: Path, name: str | None) -> Exercise:
    """The exercise of this name or number in the folder of all, or the one that the files of more than half of the students are named after.

    Raises:
        ValueError: there is none, or more than one could be meant.
    """
    known = {path.parent.name: path.parent for path in sorted(folder.glob("*/solution.ipynb"))}
    if name is not None:
        named = [known[each] for each in called(known, name)]
    else:
        stems = stems_by_student(submitted)
        named = [known[each] for each in known if 2 * sum(each in theirs for theirs in stems) > len(stems)]
    if len(named) != 1:
        raise ValueError(f"name the exercise: --exercise, one of {', '.join(known) or f'(no solutions in {folder})'}")
    return Exercise.read(named[0])
