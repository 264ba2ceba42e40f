"""An exercise with one graded question, so that a class of many is graded in seconds."""

import json
from dataclasses import replace
from pathlib import Path

from grader.exercise import Exercise

NAME = "01_saliency_and_smoothgrad"
SOLUTION = Path(__file__).parents[2] / "solutions" / NAME / "solution.ipynb"
WHOLE = Exercise.read(SOLUTION.parent)


def _reduced() -> Exercise:
    """The points of the other questions are gone from the notebook as well, or the two would not agree."""
    notebook = json.loads(WHOLE.solution)
    for cell in notebook["cells"]:
        if cell["id"].endswith("-check") and not cell["id"].startswith("q2"):
            del cell["metadata"]["nbgrader"]
    source = f"{WHOLE.source}\nQUESTIONS = QUESTIONS[2:3]\n"
    return replace(WHOLE, source=source, solution=json.dumps(notebook).encode())


EXERCISE = _reduced()
(QUESTION,) = EXERCISE.questions
