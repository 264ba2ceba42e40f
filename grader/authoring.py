"""A new exercise from a template, and the verdict on one: `interp-lab new-exercise` and `interp-lab check-exercise`."""

import re
from pathlib import Path

from .corpus import KINDS, Trial

TEMPLATE = Path(__file__).parent / "template"
TITLE = "Title of the exercise"  # what stands in the template for the title
SHOWN = 5  # faults of a kind


def create(solutions: Path, name: str) -> Path:
    """Make the folder ``NN_name`` with a solution, its hidden checks and its corpus, all of which hold at once.

    Args:
        name: small letters, digits and ``_``; with a number of two digits in front, or the next one is taken.

    Raises:
        ValueError: there is no such folder of solutions, or the name is none or taken.
    """
    if not solutions.is_dir():
        raise ValueError(f"there is no folder {solutions}: go to the root of the course, or name it with --solutions")
    if not (parts := re.fullmatch(r"(?:(\d\d)_)?([a-z][a-z0-9_]*)", name)):
        raise ValueError(f"{name!r} is no name for an exercise: take small letters, digits and _, such as grad_cam")
    numbers = {path.name: int(path.name[:2]) for path in solutions.iterdir() if re.match(r"\d\d_", path.name)}
    number, topic = int(parts[1] or max(numbers.values(), default=0) + 1), parts[2]
    for other in numbers:
        if numbers[other] == number or other[3:] == topic:
            raise ValueError(f"{solutions / other} has this name or number already: choose another")
    folder = solutions / f"{number:02}_{topic}"
    folder.mkdir()
    for path in TEMPLATE.glob("*.*"):
        text = path.read_text(encoding="utf-8").replace(TITLE, topic.replace("_", " ").capitalize())
        (folder / path.name).write_text(text, encoding="utf-8", newline="\n")
    return folder


def table(found: dict[Trial, list[str]]) -> str:
    """How many trials of each kind hold, and below it what is off and what to do about it."""
    lines, off = [], []
    for kind, (holds, remedy) in KINDS.items():
        mine = {trial: faults for trial, faults in found.items() if trial.kind == kind}
        wrong = [f"{trial}: {' '.join(fault.split())}" for trial, faults in mine.items() for fault in faults]
        good = sum(not faults for faults in mine.values())
        lines.append(f"{'OFF' if wrong else 'ok':4}{kind:10}{good:4} of {len(mine):<4} {holds}")
        off += [""] * bool(wrong) + [f"Off: {fault}" for fault in wrong[:SHOWN]]
        off += [f"... and {len(wrong) - SHOWN} more of these"] * (len(wrong) > SHOWN)
        off += [f"What to do: {remedy}."] * bool(wrong)
        if all(trial.kind == "solution" for trial in found):
            lines.append("--  all other trials wait for the solution")
            break
    return "\n".join(lines + off)
