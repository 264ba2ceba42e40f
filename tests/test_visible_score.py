"""The student's own score: what the checks of a notebook say, and the progress over all notebooks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from interp_lab.cli import main
from interp_lab.notebook import checksum
from interp_lab.visible_score import PROGRESS, bars, progress, remember, visible_score

ROOT = Path(__file__).parents[1]


def graded(source, name, points, *, solution=False, task=False):
    kind = new_markdown_cell if task else new_code_cell
    cell = kind(source)
    cell.metadata["nbgrader"] = {
        "schema_version": 3,
        "grade_id": name,
        "grade": not task,
        "solution": solution,
        "locked": True,
        "task": task,
        "points": points,
    }
    if not solution and not task:
        cell.metadata["nbgrader"]["checksum"] = checksum(cell)
    return cell


def written(folder, *cells, name="01_topic"):
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path = folder / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=list(cells), metadata=metadata), path)
    return path


def test_every_check_counts_its_points_and_the_file_stays_as_it_is(tmp_path):
    edited = graded("assert True", "q4-check", 8)
    edited.source = "pass"
    path = written(
        tmp_path,
        new_code_cell("from interp_lab import check\ndef f(): return 2\ndef g(): raise NotImplementedError()"),
        new_code_cell("1 / 0"),
        graded("assert f() == 2", "q1-check", 1),
        graded("assert f() == 3, 'Question 2: f must be 3\\nsecond line'", "q2-check", 2),
        graded("with check.question('3'):\n    g()", "q3-check", 4),
        edited,
        graded("f()", "by-hand", 16, solution=True),
        graded("Discuss.", "task", 32, task=True),
    )
    before = path.read_bytes()
    score = visible_score(path)
    assert [(name, earned, points) for name, earned, points, _ in score.checks] == [
        ("q1-check", 1, 1),
        ("q2-check", 0, 2),
        ("q3-check", 0, 4),
        ("q4-check", 0, 8),
    ]
    assert (score.earned, score.points, score.by_hand) == (1, 15, 48)
    text = str(score)
    assert "Question 2: f must be 3\n          second line" in text
    assert "open    q3-check" in text
    assert "This check was edited" in text
    assert path.read_bytes() == before


def test_an_endless_cell_is_interrupted_and_the_rest_still_runs(tmp_path):
    path = written(tmp_path, new_code_cell("while True: pass"), graded("pass", "q1-check", 1))
    assert visible_score(path, seconds=1).earned == 1


def test_a_kernel_that_dies_is_named(tmp_path):
    path = written(tmp_path, new_code_cell("import os; os._exit(1)"), graded("pass", "q1-check", 1))
    with pytest.raises(ValueError, match=r"kernel of .*01_topic.ipynb died"):
        visible_score(path)


@pytest.mark.parametrize(("text", "words"), [("no json", "not a notebook"), ("{}", "not a notebook")])
def test_what_is_no_notebook_is_refused(tmp_path, text, words):
    path = tmp_path / "a.ipynb"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        visible_score(path)


def test_a_notebook_without_checks_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no check cells"):
        visible_score(written(tmp_path, new_code_cell("1")))


def test_progress_is_kept_for_all_exercises_and_shown_as_bars(tmp_path, capsys, monkeypatch):
    path = written(tmp_path, graded("pass", "q1-check", 3), graded("assert 0", "q2-check", 1))
    written(tmp_path, name="02_later")
    (tmp_path / PROGRESS).write_text(json.dumps({"00_before": {"earned": 1, "points": 2}}))
    assert main(["check", str(path)]) == 0
    assert progress(tmp_path) == {"00_before": {"earned": 1, "points": 2}, "01_topic": {"earned": 3, "points": 4}}
    assert bars(tmp_path, width=4).splitlines() == [
        "00_before  ██░░  1 of 2 points",
        "01_topic   ███░  3 of 4 points",
        "02_later   ░░░░  not checked yet",
    ]
    assert "Visible score: 3 of 4 points.\n" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    assert main(["check"]) == 0
    assert "01_topic" in capsys.readouterr().out


def test_a_broken_progress_file_is_named_and_kept(tmp_path, capsys):
    path = written(tmp_path, graded("pass", "q1-check", 1))
    (tmp_path / PROGRESS).write_text("[1")
    assert main(["check", str(path)]) == 2
    assert f"{PROGRESS} cannot be read" in capsys.readouterr().err
    assert (tmp_path / PROGRESS).read_text() == "[1"
    with pytest.raises(ValueError, match="cannot be read"):
        remember(None, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        '{"01_a": {"earned": NaN, "points": 2}}',
        '{"01_a": {"earned": 0, "points": 0}}',
        '{"01_a": {"earned": 1e308, "points": 1e-308}}',
        '{"01_a": {"earned": 1, "points": 1e308}}',
        '{"01_a": {"earned": -1, "points": 2}}',
        '{"01_a": {"earned": 3, "points": 2}}',
        '{"01_a": {"earned": 1' + "0" * 400 + ', "points": 2}}',
        '{"\\ud800": {"earned": 1, "points": 2}}',
        '{"\\u001b[2J": {"earned": 1, "points": 2}}',
        "[" * 100_000,
        '{"01_a": [1, 2]}',
        "\0",
    ],
)
def test_a_damaged_progress_file_is_named_whatever_it_holds(tmp_path, monkeypatch, capsys, text):
    written(tmp_path)
    (tmp_path / PROGRESS).write_text(text)
    monkeypatch.chdir(tmp_path)
    assert main(["check"]) == 2
    assert f"{PROGRESS} cannot be read; delete it" in capsys.readouterr().err


def test_the_bars_are_drawn_where_the_output_has_no_blocks(tmp_path):
    """As in a pipe on Windows."""
    (tmp_path / PROGRESS).write_text(
        json.dumps({"01_ü": {"earned": 1, "points": 2}, "02_数": {"earned": 2, "points": 2}})
    )
    command = [sys.executable, "-m", "interp_lab.cli", "check"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=120, check=True)
    assert run.stdout.decode("cp1252").splitlines() == [
        "01_ü  " + "#" * 15 + "-" * 15 + "  1 of 2 points",
        "02_?  " + "#" * 30 + "  2 of 2 points",
    ]


def test_no_exercises_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no exercises in"):
        bars(tmp_path)
