"""The hint at programs that are alike: copies are found however they are dressed up, independent right answers are not."""

import ast
import json
import runpy
from itertools import combinations
from pathlib import Path

import pytest

from grader import report, sandbox, similarity
from grader.cli import add_teaching
from grader.collect import submissions
from grader.exercise import Exercise
from interp_lab.cli import run

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(path.parent for path in ROOT.glob("solutions/*/corpus.py"))
SALIENCY = next(folder for folder in FOLDERS if folder.name.startswith("01_"))


def right_answers(folder):
    """By question the sources of its right answers, each written in another way."""
    answers = {}
    for question, _, source in runpy.run_path(str(folder / "corpus.py"))["RIGHT"]:
        answers.setdefault(question, []).append(source)
    return answers


def hand_in(folder, name, exercise, answers):
    """The released notebook with these answers, by question."""
    notebook = json.loads((ROOT / "exercises" / f"{exercise}.ipynb").read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        question = cell["id"].removeprefix("q").removesuffix("-answer")
        if cell["id"].endswith("-answer") and question in answers:
            cell["source"] = answers[question]
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")


def class_of_three(folder, exercise):
    answers = right_answers(exercise)
    for number, name in enumerate(("anna", "ben", "cem")):
        hand_in(folder, name, exercise.name, {q: sources[number] for q, sources in answers.items()})
    return answers


def compare(folder, exercise, lane):
    return similarity.alike(submissions(folder, exercise.name), Exercise.read(exercise), lane)


def renamed(source):
    """Other names for all variables and arguments, and no comments."""
    tree = ast.parse(source)
    bound = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    bound |= {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in bound:
            node.id = f"my_{node.id}"
        elif isinstance(node, ast.arg):
            node.arg = f"my_{node.arg}"
    return ast.unparse(tree)


def commented(source):
    """A remark behind every line, and docstrings."""
    told = "\n".join(f"{line}  # {number}" if line else "" for number, line in enumerate(source.splitlines()))
    tree = ast.parse(told)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.body.insert(0, ast.Expr(ast.Constant("What I thought of myself.")))
    return ast.unparse(tree)


@pytest.mark.parametrize("exercise", FOLDERS, ids=lambda folder: folder.name)
def test_independent_right_answers_are_not_flagged(exercise, lane, tmp_path, monkeypatch):
    class_of_three(tmp_path / "in", exercise)
    assert compare(tmp_path / "in", exercise, lane) == ([], [])
    monkeypatch.setattr(similarity, "ALIKE", 0)
    monkeypatch.setattr(similarity, "PARTS", 0)
    shares = [pair.share for pair in compare(tmp_path / "in", exercise, lane)[0]]
    assert len(shares) == 3  # they were compared
    assert max(shares) < 0.1


@pytest.mark.parametrize("dress", [renamed, commented], ids=["other names", "other comments"])
def test_a_copy_is_found(dress, lane, tmp_path):
    answers = class_of_three(tmp_path / "in", SALIENCY)
    hand_in(tmp_path / "in", "dora", SALIENCY.name, {q: dress(sources[1]) for q, sources in answers.items()})
    (pair,), untold = compare(tmp_path / "in", SALIENCY, lane)
    assert (pair.students, untold) == (("ben", "dora"), [])
    assert pair.share > 0.9


def test_reordered_and_mixed_copies_are_found(lane, tmp_path):
    """All functions in one cell, the last one first; and half of the answers of one student, half of another's."""
    answers = class_of_three(tmp_path / "in", SALIENCY)
    backwards = "\n".join(renamed(sources[1]) for sources in reversed(list(answers.values())))
    hand_in(tmp_path / "in", "dora", SALIENCY.name, {"1a": backwards} | dict.fromkeys(list(answers)[1:], ""))
    halves = {q: sources[0 if n < len(answers) / 2 else 2] for n, (q, sources) in enumerate(answers.items())}
    hand_in(tmp_path / "in", "eve", SALIENCY.name, halves)
    pairs, _ = compare(tmp_path / "in", SALIENCY, lane)
    found = {pair.students: pair.share for pair in pairs}
    assert found[("ben", "dora")] > 0.9
    assert max(found[pair] for pair in (("anna", "eve"), ("cem", "eve")) if pair in found) > 0.5
    assert not set(found) & set(combinations(("anna", "ben", "cem"), 2))


def test_what_was_given_or_stands_in_the_solution_or_in_most_notebooks_says_nothing(lane, tmp_path):
    solution = {
        cell["id"].removeprefix("q").removesuffix("-answer"): cell["source"]
        for cell in json.loads((SALIENCY / "solution.ipynb").read_text(encoding="utf-8"))["cells"]
        if cell["id"].endswith("-answer")
    }
    for name in ("anna", "ben"):
        hand_in(tmp_path / "canonical", name, SALIENCY.name, solution)
        hand_in(tmp_path / "empty", name, SALIENCY.name, {})
    assert compare(tmp_path / "canonical", SALIENCY, lane) == ([], [])
    assert compare(tmp_path / "empty", SALIENCY, lane) == ([], [])
    answers = right_answers(SALIENCY)
    for number in range(12):  # nine write the same answers, three others; each has functions of its own
        own = "".join(
            f"\ndef own_{i}(x): return x.roll({number}, {i}) @ (x + {number}.{i}).abs().exp()" for i in range(9)
        )
        mine = {q: sources[number > 8] for q, sources in answers.items()}
        hand_in(tmp_path / "most", f"student {number:02}", SALIENCY.name, mine | {"1a": mine["1a"] + own})
    pairs, _ = compare(tmp_path / "most", SALIENCY, lane)
    assert sorted(pair.students for pair in pairs) == list(combinations(["student 09", "student 10", "student 11"], 2))


def test_a_notebook_that_cannot_be_read_costs_nobody_else(lane, tmp_path):
    class_of_three(tmp_path / "in", SALIENCY)
    (tmp_path / "in" / "mallory.ipynb").write_text("{}")
    hand_in(tmp_path / "in", "nested", SALIENCY.name, {"2": "x = " + "-" * 200_000 + "1"})
    pairs, untold = compare(tmp_path / "in", SALIENCY, lane)
    assert pairs == []
    assert untold == ["mallory is not compared: the file is not a notebook of format 4: it has no list of cells"]


def test_the_command_writes_a_page_for_the_instructor(lane, tmp_path, monkeypatch, capsys):
    answers = class_of_three(tmp_path / "in", SALIENCY)
    hostile = {q: renamed(sources[2]) for q, sources in answers.items()}
    hostile["2"] = hostile["2"].replace(":\n", ":  # <script>alert(1)</script>\n", 1)
    hand_in(tmp_path / "in", "dora", SALIENCY.name, hostile)
    monkeypatch.setattr(sandbox, "Lane", lambda **_: type("Kept", (), {"run": lane.run, "close": lambda self: None})())
    command = [
        "similarity",
        tmp_path / "in",
        "--out",
        tmp_path / "out",
        "--exercise",
        "01",
        "--solutions",
        ROOT / "solutions",
    ]
    assert run([add_teaching], list(map(str, command))) == 0
    said = capsys.readouterr().out
    assert "cem and dora" in said
    assert "no verdict" in said
    (page,) = (tmp_path / "out").iterdir()
    text = page.read_text(encoding="utf-8")
    assert page.name == "similarity.html"
    for word in (
        "A hint where to look, and no verdict",
        "Not for students",
        "speak with both people",
        "cem and dora: 100 %",
    ):
        assert word in text
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert text.count("def smoothgrad") == 2


def test_a_page_about_nobody():
    assert "No two are alike in at least 40 %" in report.similarity([], [], 0, SALIENCY.name, similarity.ALIKE)
