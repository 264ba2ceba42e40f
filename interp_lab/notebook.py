"""The format of the exercises' cells: nbgrader's metadata, as the visible score and those who grade both read it.

nbgrader marks a cell by flags under ``metadata.nbgrader`` (schema version 3): ``solution`` is for the student to
write, ``grade`` has points, ``task`` is a question that a person marks. The format is described in nbgrader's own
documentation (Project Jupyter et al. 2019, nbgrader, JOSE 2(11), 32).
"""

import hashlib

# What stands in a cell that was not answered yet.
CODE_STUB = ["# YOUR CODE HERE", "raise NotImplementedError()"]
TEXT_STUB = ["YOUR ANSWER HERE"]


def source(cell: dict) -> str:
    """A cell's text, which JSON holds as one string or as a list of lines."""
    return cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])


def is_by_hand(grader: dict) -> bool:
    """Whether nbgrader's metadata are those of a task or of a written answer with points."""
    return bool(grader.get("task") or (grader.get("grade") and grader.get("solution")))


def checksum(cell: dict) -> str:
    """nbgrader's fingerprint of a cell: md5 of source, type, kind, grade_id and points."""
    grader = cell["metadata"]["nbgrader"]
    grade, solution = grader["grade"], grader["solution"]
    locked = not solution and (grade or grader["locked"])
    parts = [source(cell), cell["cell_type"], str(grade), str(solution), str(locked), grader["grade_id"]]
    if grade:
        parts.append(str(float(grader["points"])))
    return hashlib.md5("".join(parts).encode()).hexdigest()
