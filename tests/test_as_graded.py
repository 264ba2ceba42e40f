"""The visible checks on functions that were taken out of the notebook as the grader takes them."""

import json

import pytest

from interp_lab import as_graded, cli, visible_score

CHECK = """from interp_lab import check
with check.question("1"):
    x = torch.tensor([[1.0, 2.0]])
    check.close(double(x), torch.tensor([[2.0, 4.0]]), "Twice.")"""
HEAD = ["import torch\nfrom interp_lab import networks", CHECK, "print('done')"]


def notebook(*answers, behind=(), metadata=True):
    cells = [*HEAD[:1], *answers, *HEAD[1:], *behind]
    flags = {"nbgrader": {"solution": True, "grade": False, "grade_id": "q1-answer"}} if metadata else {}
    made = [{"cell_type": "code", "source": source, "metadata": {} if source in HEAD else flags} for source in cells]
    return json.dumps({"cells": made, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}).encode()


RIGHT = "def double(x):\n    return 2 * x"
CASES = {
    "wrong": (["def double(x):\n    return x"], [], "as graded: AssertionError: Question 1: Twice."),
    "on the CPU": (["def double(x):\n    return x * torch.tensor([2.0])"], [], "on another device than the CPU: RuntimeError"),
    "returned on the CPU": (["def double(x):\n    return torch.tensor([[2.0, 4.0]])"], [], "the result lies on the CPU"),
    "behind the check": ([], [RIGHT], "double is not defined"),
    "helper changed behind": (["N = 2", "def double(x): return N * x"], ["N = 3"],
                              "code cell 6, line 1: `N` changes behind the check of question 1"),
    "shell": (["N = !echo 2", "M = float(N[0])", "def double(x): return M * x"], [],
              "code cell 3, line 1: RuntimeError: !echo 2 is not run while grading"),
    "does not parse": (["N = = 2", RIGHT], [], "code cell 2, line 1 does not parse"),
    "the course's own": (["def double(x):\n    networks.load('digits_cnn')\n    return 2 * x"], [],
                         "interp_lab.networks.load is not there while grading"),
    "imported inside": (["def double(x):\n    from interp_lab import saliency\n    saliency(x, x)\n    return 2 * x"], [],
                        "interp_lab.saliency is not there while grading"),
}  # fmt: skip


@pytest.mark.parametrize("metadata", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_each_line_that_would_not_count_is_named(name, metadata):
    answers, behind, words = CASES[name]
    told = as_graded.findings(notebook(*answers, behind=behind, metadata=metadata))
    assert words in "\n".join(told)
    assert not [line for line in told if line.startswith("passed")] or name == "does not parse"


@pytest.mark.parametrize("behind", [[], ["x = 3", "maps = [x]"], ["def other(x): return 3"]])
def test_a_notebook_that_would_count_passes(behind):
    assert as_graded.findings(notebook("N = [2]", "def double(x): return N[0] * x", behind=behind)) == ["passed  1"]


def test_what_fails_on_the_device_in_the_check_itself_is_not_blamed_on_the_answer():
    answer = "def double(x):\n    return given(x)"
    cells = json.loads(notebook(answer))
    cells["cells"].insert(
        0, {"cell_type": "code", "metadata": {}, "source": "def given(x): return x + torch.tensor([1.0, 2.0])"}
    )
    assert as_graded.findings(json.dumps(cells).encode()) == ["passed  1"]


def test_the_command_line_shows_it(tmp_path, capsys, monkeypatch):
    path = tmp_path / "01_x.ipynb"
    path.write_bytes(notebook(*CASES["on the CPU"][0]))
    monkeypatch.setattr(
        visible_score, "visible_score", lambda path, seconds: visible_score.Score(path.stem, [("q1", 1, 1, "")], 0)
    )
    assert cli.main(["check", "--as-graded", str(path)]) == 0
    assert "on another device than the CPU" in capsys.readouterr().out
    path.write_text("[]")
    assert cli.main(["check", "--as-graded", str(path)]) == 2
    assert "not a notebook" in capsys.readouterr().err
