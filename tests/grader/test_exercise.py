"""A folder of an exercise as one object: found by name, complete without its folder."""

import pickle
import shutil

import pytest

from grader.exercise import Exercise, find


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
