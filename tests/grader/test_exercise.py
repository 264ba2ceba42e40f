"""A folder of an exercise as one object: found by name, complete without its folder."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from grader.exercise import Exercise, find, references


def folder_of(path, questions="QUESTIONS = (object(),)"):
    path.mkdir()
    (path / "solution.ipynb").write_bytes(b"{}")
    (path / "questions.py").write_text(questions)
    return path


def test_the_object_needs_no_folder_and_executes_the_source_once(tmp_path):
    exercise = Exercise.read(folder_of(tmp_path / "01_a"))
    shutil.rmtree(tmp_path / "01_a")
    copy = pickle.loads(pickle.dumps(exercise))
    assert (copy.name, copy.solution) == ("01_a", b"{}")
    assert copy.questions is exercise.questions
    assert copy.questions is not Exercise("01_a", b"{}", copy.source + "# changed").questions


def test_a_folder_without_one_of_the_files_is_no_exercise(tmp_path):
    (folder_of(tmp_path / "01_a") / "questions.py").unlink()
    with pytest.raises(FileNotFoundError, match=r"questions\.py"):
        Exercise.read(tmp_path / "01_a")


def test_the_exercise_is_found_by_the_names_of_the_files(tmp_path):
    for name in ("01_a", "02_b"):
        folder_of(tmp_path / name)
    submitted = tmp_path / "in"
    (submitted / "anna").mkdir(parents=True)
    with pytest.raises(ValueError, match="--exercise, one of 01_a, 02_b"):
        find(tmp_path, submitted, None)
    (submitted / "anna" / "02_b.ipynb").write_text("{}")
    assert find(tmp_path, submitted, None).name == "02_b"
    assert find(tmp_path, submitted, "01").name == "01_a"


ROOT = Path(__file__).parents[2]
WHOLE = Exercise.read(ROOT / "solutions" / "01_saliency_and_smoothgrad")


def altered(**points):
    """The exercise with other points in these check cells; a cell that it lacks is added."""
    notebook = json.loads(WHOLE.solution)
    graders = {cell["id"]: cell["metadata"].get("nbgrader", {}) for cell in notebook["cells"]}
    for name, value in points.items():
        if f"{name}-check" in graders:
            graders[f"{name}-check"]["points"] = value
        else:
            flags = {"grade": True, "solution": False, "grade_id": f"{name}-check", "points": value}
            notebook["cells"].append({"cell_type": "code", "source": "", "metadata": {"nbgrader": flags}})
    return replace(WHOLE, solution=json.dumps(notebook).encode())


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ({"q7": 2}, "the check q7-check of 01_saliency_and_smoothgrad has 2 points in solution.ipynb, and no question"),
        ({"q1a": 5}, r"question 1a of 01_saliency_and_smoothgrad has 1 points in questions.py and 5 in solution.ipynb"),
        ({"q2b": 0}, r"\(q2a: 3|q2a-check: "),
    ],
)
def test_points_of_the_notebook_that_no_question_has_are_refused(points, words):
    WHOLE.agree()
    with pytest.raises(ValueError, match=words):
        altered(**points).agree()
    with pytest.raises(ValueError, match=words):
        references(altered(**points))


def test_a_question_without_a_check_cell_is_refused():
    more = "QUESTIONS += (Question('9', 'More', (Part('easy', 3, 'x', nothing('f'), same_kind),)),)"
    with pytest.raises(ValueError, match=r"question 9 .* has 3 points in questions.py and 0 .*no check cell q9-check"):
        replace(WHOLE, source=f"{WHOLE.source}\n{more}\n").agree()
