"""Graded questions: which calls try a student's function, and how the trusted side judges what comes back.

A `Part` draws fresh inputs from a generator that only the course key can make. Expected values come from the solution
notebook, run in this process; the student's process gets inputs and gives tensors. See ``solutions/*/questions.py``.
"""

import hashlib
import hmac
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch

from interp_lab.reproducible import one_thread

from . import calls as protocol
from .calls import Call, Outcome
from .judges import Judge, same


@dataclass(frozen=True)
class Part:
    """Some points of a question: the calls to make for one student, and the judge of their outcomes.

    Args:
        kind: "easy", "shape", "general", "batch", "side effects", or "device", which is tried on the simulated device.
        what: the input and the property that it must have, in a sentence for the feedback.
        needs: kind of a part without which this one counts nothing, because a wrong answer could pass it.
    """

    kind: str
    points: float
    what: str
    calls: Callable[[torch.Generator], list[Call]]
    judge: Judge = same
    needs: str | None = None

    def draw(self, generator: torch.Generator) -> list[Call]:
        """The calls for one student, those of the part "device" on the simulated device."""
        return [replace(call, on_simulated_device=self.kind == "device") for call in self.calls(generator)]


@dataclass(frozen=True)
class Question:
    name: str
    title: str
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        kinds = [part.kind for part in self.parts]
        if wrong := {k for k in kinds if kinds.count(k) > 1} | {p.needs for p in self.parts if p.needs} - {*kinds}:
            raise ValueError(f"question {self.name} must have one part of the kind {', '.join(sorted(wrong))}")

    @property
    def points(self) -> float:
        return sum(part.points for part in self.parts)

    def draw(self, part: Part, generator: torch.Generator) -> list[Call]:
        """The calls of a part for one student."""
        return [replace(call, question=self.name) for call in part.draw(generator)]


def generator(key: bytes, *names: str) -> torch.Generator:
    """Random numbers that belong to these names and cannot be predicted without the key."""
    # Side effects under their older name, so that a key still gives the inputs that it gave.
    names = tuple("manners" if name == "side effects" else name for name in names)
    digest = hmac.new(key, "\0".join(names).encode(), hashlib.sha256).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def mark(
    asked: tuple[Question, ...],
    key: bytes,
    names: tuple[str, ...],
    run: Callable[[list[list[Call]]], list[list[Outcome]]],
    answers: dict[str, Callable],
    lock: AbstractContextManager,
) -> dict[str, list[str]]:
    """What is wrong with each part of a student's answers, ``""`` where it is right, by question.

    The reference runs with one thread, as the sandbox does, so that both add up in the same order.

    Args:
        names: the exercise and the student, for the seed.
        run: makes the calls of every question in the sandbox.
        answers: the reference functions by name.
        lock: held around whatever uses the global random state, which all threads share.
    """
    with lock, torch.random.fork_rng([]):
        plans = [[q.draw(part, generator(key, *names, q.name, part.kind)) for part in q.parts] for q in asked]
    outcomes = run([[call for part in plan for call in part] for plan in plans])
    with lock, torch.random.fork_rng([]), one_thread():
        return {q.name: _faults(q, plan, got, answers) for q, plan, got in zip(asked, plans, outcomes, strict=True)}


def _faults(
    question: Question, plans: list[list[Call]], outcomes: list[Outcome], answers: dict[str, Callable]
) -> list[str]:
    def reference(call: Call) -> Outcome:
        return protocol.perform(answers[call.function], replace(call, on_simulated_device=False))

    faults: dict[str, str] = {}
    for part, plan in zip(question.parts, plans, strict=True):
        got, outcomes = outcomes[: len(plan)], outcomes[len(plan) :]
        try:
            if errors := [outcome.error for outcome in got if outcome.error]:
                raise AssertionError(f"{part.what}\n{_in_words(errors[0])}")
            part.judge(part.what, plan, got, reference)
            faults[part.kind] = ""
        except AssertionError as fault:
            left_out = {outcome.left_out for outcome in got if outcome.left_out}
            faults[part.kind] = "\n".join(
                [getattr(fault, "untold", str(fault)), *(f"In your notebook: {each}." for each in sorted(left_out))]
            )
    needs = {part.kind: part.needs for part in question.parts if part.needs}
    while without := [kind for kind, other in needs.items() if faults[other] and not faults[kind]]:
        faults |= {kind: f"Counts nothing as long as the {needs[kind]} case is wrong." for kind in without}
    return list(faults.values())


def _in_words(error: str) -> str:
    if error.startswith("NotImplementedError: ") and error[21:].strip().startswith(("(code cell", "YOUR CODE")):
        return f"There is no answer yet {error[21:].strip()}"
    return f"Your function raised {error}" if re.match(r"[A-Z]\w*:", error) else error[:1].upper() + error[1:]
