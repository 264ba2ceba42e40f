"""Whose programs are alike: a hint for the instructor, where to look, and never a verdict.

Code is compared as syntax trees (`shapes`): without comments, layout, docstrings and the names of variables and
functions, in any order. What the exercise gave out and what its solution holds does not count. Any other part weighs

    log((n + 1) / students who have it),

so that what most of n students share weighs next to nothing. Two notebooks are as alike as the parts that both have
weigh, as a share of what all parts of the lighter one weigh.
"""

import inspect
import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import torch

from interp_lab import extract

from . import shapes
from .calls import Call
from .collect import Submission, read
from .exercise import Exercise
from .release import release
from .sandbox import Lane
from .untrusted import bounded, printable

ALIKE = 0.4  # the right answers in solutions/*/corpus.py, of one hand but made to differ, reach 0.03
PARTS = 10  # that two notebooks share, at least: below, there is hardly a choice


@dataclass(frozen=True)
class Pair:
    """Two students, the share of the lighter notebook that is alike, how many parts are, and the statements that hold them."""

    students: tuple[str, str]
    share: float
    parts: int
    places: list[tuple[str, str]]


@dataclass
class _Program:
    cells: dict[str, str]
    parts: dict[int, tuple[int, int, int]]  # a fingerprint, and where the statement stands

    def source(self, place: tuple[int, int, int]) -> str:
        cell, first, last = place
        return printable("\n".join(list(self.cells.values())[cell].splitlines()[first - 1 : last]))


def alike(everyone: Iterable[Submission], exercise: Exercise, lane: Lane) -> tuple[list[Pair], list[str]]:
    """The pairs that are alike, the most alike first, and a sentence for each notebook that could not be compared."""
    programs: dict[str, _Program] = {}
    untold: list[str] = []
    solution = json.loads(exercise.solution)
    known = {
        part
        for notebook in (solution, release(solution))
        for part in _program(json.dumps(notebook).encode(), lane).parts
    }
    for submission in everyone:
        try:
            programs[submission.student] = _program(bounded(read(submission)), lane)
        except ValueError as error:
            untold.append(f"{submission.student} is not compared: {printable(str(error))}")
    own = {student: program.parts.keys() - known for student, program in programs.items()}
    having = Counter(part for parts in own.values() for part in parts)
    weight = {part: math.log((len(own) + 1) / count) for part, count in having.items()}
    whole = {student: sum(map(weight.__getitem__, parts)) for student, parts in own.items()}
    pairs: list[Pair] = []
    for a, b in combinations(own, 2):
        shared = own[a] & own[b]
        if len(shared) >= PARTS:
            share = sum(map(weight.__getitem__, shared)) / min(whole[a], whole[b])
            if share >= ALIKE:
                pairs.append(Pair((a, b), share, len(shared), _places(programs[a], programs[b], shared)))
    return sorted(pairs, key=lambda pair: (-pair.share, pair.students)), untold


def _program(notebook: bytes, lane: Lane) -> _Program:
    """The parts of a notebook, which is parsed in the sandbox.

    Raises:
        ValueError: it is no notebook, or parsing it took more than a student may take.
    """
    cells = extract.code_cells(notebook)
    text = torch.frombuffer(bytearray(json.dumps(cells).encode()), dtype=torch.uint8)
    ((outcome,),) = lane.run({"": inspect.getsource(shapes)}, [[Call("shapes", [text])]])
    if outcome.error:
        raise ValueError(outcome.error)
    return _Program(cells, {part: (cell, first, last) for part, cell, first, last in outcome.result.tolist()})


def _places(a: _Program, b: _Program, shared: set[int]) -> list[tuple[str, str]]:
    """Sources of the statements that hold most of what is shared, each beside its counterpart."""
    held = Counter((a.parts[part], b.parts[part]) for part in shared)
    both: dict[tuple[int, int, int], tuple[int, int, int]] = {}
    for (mine, theirs), _ in held.most_common():
        both.setdefault(mine, theirs)
    return [(a.source(mine), b.source(theirs)) for mine, theirs in sorted(both.items())]
