"""Notebooks as students write them, right in Jupyter: each gets all points of its question in the sandbox."""

import json
import threading
from pathlib import Path

import pytest

from grader.exercise import Exercise, references
from grader.question import mark

FOLDER = Path(__file__).parents[2] / "solutions" / "01_saliency_and_smoothgrad"
EXERCISE = Exercise.read(FOLDER)
(QUESTION,) = [question for question in EXERCISE.questions if question.name == "5a"]
LIMIT = "def smoothed_sign(x, sigma):\n    return {}"
SIMPLE = LIMIT.format("2 * torch.special.ndtr(x / sigma) - 1")
TWICE = LIMIT.format("TWICE * torch.special.ndtr(x / sigma) - 1")
# Cells before the check of the question, and cells at the end of the notebook.
ORDINARY = {
    "import under try": (["try:\n    from math import tau\nexcept ImportError:\n    tau = 6.28", LIMIT.format("torch.erf(x / sigma / 2**0.5) + 0 * tau")], []),
    "from __future__": (["from __future__ import annotations", SIMPLE.replace("(x, sigma)", "(x: Tensor, sigma: Number) -> Tensor")], []),
    "device by if and else": (['if torch.cuda.is_available():\n    device = "cuda"\nelse:\n    device = "cpu"', LIMIT.format("2 * torch.special.ndtr(x / sigma) - torch.ones(1).to(device).to(x.dtype).to(x.device)")], []),
    "constant under with": (["with torch.no_grad():\n    TWICE = 2 * torch.ones(()).item()", TWICE], []),
    "list by a loop": (["STEPS = []\nfor k in range(2):\n    STEPS.append(1.0)", LIMIT.format("sum(STEPS) * torch.special.ndtr(x / sigma) - 1")], []),
    "dictionary by a loop": (["TABLE = {}\nfor k in range(3):\n    TABLE[k] = k", LIMIT.format("TABLE[2] * torch.special.ndtr(x / sigma) - TABLE[1]")], []),
    "tensor in place": (["STEP = torch.zeros(1).double()\nSTEP.fill_(2.0)", LIMIT.format("STEP.item() * torch.special.ndtr(x / sigma) - 1")], []),
    "decorator from a loop": (["WRAP = []\nfor k in (1, 2):\n    WRAP.append(lambda g: lambda *a: g(*a))", f"@WRAP[1]\n{SIMPLE}"], []),
    "definition under if": (["if True:\n    def cdf(z): return torch.special.ndtr(z)", LIMIT.format("2 * cdf(x / sigma) - 1")], []),
    "continuation with %": (["def smoothed_sign(x, sigma):\n    w = 4\n    n = (6\n    % w)\n    return n * torch.special.ndtr(x / sigma) - 1"], []),
    "help": ([f"torch.gather?\n{SIMPLE}\nsmoothed_sign?"], []),
    "install": ([f"!pip install einops\n%pip install einops\n{SIMPLE}"], []),
    "timing into a variable": ([f"{SIMPLE}\nt = %timeit -o smoothed_sign(torch.zeros(1), 1.0)"], []),
    "output of a command": ([f"here = !pwd\n{SIMPLE}"], []),
    "scipy": (["from scipy.special import erf", "def smoothed_sign(x, sigma):\n    return torch.as_tensor(erf((x.cpu() / sigma / 2**0.5).numpy())).to(x)"], []),
    "helper redefined in the investigation": (["def pick(z): return torch.special.ndtr(z)", LIMIT.format("2 * pick(x / sigma) - 1")], ["def pick(maps): return maps[0]"]),
    "given name redefined in the investigation": ([SIMPLE], ["torch = None\npoints = 3"]),
    "older version at the end": ([SIMPLE], [LIMIT.format("x")]),
    "a cell that does not parse": (["def broken(:", SIMPLE], []),
}  # fmt: skip


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_notebook_gets_all_points(lane, name):
    own, behind = ORDINARY[name]
    sources = []
    for cell in json.loads(EXERCISE.solution)["cells"]:
        if cell["cell_type"] == "code":
            sources += own if cell["id"] == "q5a-answer" else ["".join(cell["source"])]
    cells = {f"code cell {i}": source for i, source in enumerate([*sources, *behind], 1)}
    given, answers = references(EXERCISE)
    names = (EXERCISE.name, "anna")
    faults = mark((QUESTION,), b"key", names, lambda c: lane.run(given | cells, c), answers, threading.Lock())
    assert faults == {"5a": [""] * len(QUESTION.parts)}
