"""The grade of one student."""

from dataclasses import dataclass, field

from .question import Question


@dataclass
class Result:
    """The grade of one student: per question the faults of its parts, ``""`` for a right one.

    ``problem`` says why there is nothing to grade, ``written`` holds what a person marks; see `by_hand.written`.
    """

    student: str
    sha256: str
    faults: dict[str, list[str]] = field(default_factory=dict)
    problem: str = ""
    written: dict[str, str] = field(default_factory=dict)

    def earned(self, question: Question) -> float:
        faults = self.faults.get(question.name, ["-"] * len(question.parts))
        return sum(part.points for part, fault in zip(question.parts, faults, strict=True) if not fault)
