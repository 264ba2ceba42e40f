"""The two wheels, built from this checkout and installed into an empty folder: they need nothing else of it."""

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

pytestmark = pytest.mark.slow
pytest.importorskip("setuptools", minversion="77", reason="the wheels are built here without a network")
ROOT = Path(__file__).parents[1]
STUDENT, TEACHER = "interp_lab-", "interp_lab_grader-"


def pip(*arguments):
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        *arguments,
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run(command, check=True, timeout=120)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """Both, by the beginning of their names; built from a copy, since building writes beside the sources."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    listed = ["git", "ls-files", "-z", "pyproject.toml", "README.md", "LICENSE", "interp_lab", "grader"]
    for name in subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")[:-1]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    pip("wheel", "--no-build-isolation", "--wheel-dir", out, source, source / "grader")
    return {name: next(out.glob(f"{name}*.whl")) for name in (STUDENT, TEACHER)}


@pytest.fixture(scope="module")
def command(wheels, tmp_path_factory):
    """``command("check", ...)`` runs the installed program in a folder far from the checkout, and gives what it prints."""
    target, folder = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("away")
    pip("install", "--target", target, *wheels.values())
    environment = os.environ | {"PYTHONPATH": str(target), "PYTHONSAFEPATH": "1"}

    def run(*arguments, program=(sys.executable, target / "bin" / "interp-lab")):
        done = subprocess.run(
            [*program, *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True, timeout=200
        )
        return done.stdout

    run.target, run.folder = target, folder
    return run


def test_the_students_wheel_holds_the_package_and_nothing_of_the_teachers(wheels):
    names = {Path(name) for name in ZipFile(wheels[STUDENT]).namelist()}
    tracked = subprocess.run(["git", "ls-files", "interp_lab"], cwd=ROOT, check=True, capture_output=True, text=True)
    package = {name for name in names if name.parts[0] == "interp_lab"}
    assert package == {Path(name) for name in tracked.stdout.splitlines()}  # weights, scripts and styles among them
    assert {name.parts[0].partition("-")[0] for name in names} == {"interp_lab"}
    inner = {part for name in package for part in name.parts}
    assert not inner & {"tests", "solutions", "grader", "judges.py", "questions.py", "corpus.py"}


def test_the_teachers_wheel_holds_its_data_and_no_solution_of_the_course(wheels):
    names = set(ZipFile(wheels[TEACHER]).namelist())
    assert {"grader/exam_questions.yml", "grader/template/solution.ipynb", "grader/template/questions.py"} <= names
    assert [name for name in names if name.endswith(".ipynb")] == ["grader/template/solution.ipynb"]


def test_the_installed_package_loads_every_network(command):
    told = command(program=[sys.executable, "-c", LOAD]).splitlines()
    assert Path(told[0]).is_relative_to(command.target)
    assert len(told) - 1 == len(list((ROOT / "interp_lab" / "weights").glob("*.safetensors")))


LOAD = """
import interp_lab
from interp_lab.weights import FOLDER
from safetensors.torch import load_file
print(interp_lab.__file__)
for path in FOLDER.glob("*.safetensors"):
    assert load_file(path)
    print(path.stem)
"""


def test_a_notebook_alone_is_checked(command):
    pytest.importorskip("nbclient")
    name = "12_coherence_and_class_sensitivity"  # its cells load networks of the course
    (command.folder / f"{name}.ipynb").write_bytes((ROOT / "solutions" / name / "solution.ipynb").read_bytes())
    assert "Visible score: 24 of 24 points" in command("check", f"{name}.ipynb")


def test_the_teachers_commands_are_there(command):
    (command.folder / "solutions").mkdir()
    assert "01_how_far" in command("new-exercise", "how_far")
    assert "**Answer.**" in command("questions", "lrp-1", "--answers")
