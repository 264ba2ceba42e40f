"""The two workflows of GitHub Actions: what starts them, what they may see, and what their scripts run."""

import argparse
import re
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from grader import cli

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "grader" / "workflows"
TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.yml")}
PARSED = {name: yaml.safe_load(text) for name, text in TEXTS.items()}


def steps(name):
    (job,) = PARSED[name]["jobs"].values()
    return job["steps"]


def run(name, step, folder, **environment):
    """A step as the runner calls bash, with stand-ins for the programs; the calls that these saw."""
    (script,) = (each["run"] for each in steps(name) if each.get("name") == step)
    programs = folder / "programs"
    programs.mkdir()
    for program in ("interp-lab", "gh", "pip", "python"):
        path = programs / program
        path.write_text(
            f'#!/bin/bash\nfor word in {program} "$@"; do printf "%s\\t" "$word" >> "$CALLS"; done; echo >> "$CALLS"\n'
            f'[ {program} != python ] || {{ mkdir -p "$3/bin"; : > "$3/bin/activate"; }}\necho "said by {program} <b>"\n'
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    calls = folder / "calls"
    environment |= {"PATH": f"{programs}:/usr/bin:/bin", "CALLS": str(calls), "HOME": str(folder / "home dir")}
    subprocess.run(["bash", "-e", "-c", script], cwd=folder, env=environment, check=True, timeout=60)
    return [line.rstrip("\t").split("\t") for line in calls.read_text().splitlines()]


@pytest.mark.parametrize("name", ["checks", "grading"])
def test_what_somebody_else_wrote_is_never_part_of_a_script(name):
    for step in steps(name):
        assert "${{" not in step.get("run", "")
        assert step.get("with", {}).get("persist-credentials", False) is False
    assert PARSED[name]["permissions"] == {"contents": "read"}


def test_the_checks_of_students_know_no_secret_and_no_hidden_test():
    assert PARSED["checks"][True] == "push"  # "on" is a truth value in YAML 1.1
    assert not re.search(r"secrets|grade |grader|solutions/|self-hosted", re.sub("#.*", "", TEXTS["checks"]))


def test_nothing_that_a_student_does_starts_the_grading():
    assert set(PARSED["grading"][True]) == {"workflow_dispatch"}
    (job,) = PARSED["grading"]["jobs"].values()
    assert "self-hosted" in job["runs-on"]
    assert job["if"] == "github.event.repository.private"
    assert "upload-artifact" not in TEXTS["grading"]


def test_the_visible_checks_run_for_every_notebook(tmp_path):
    (tmp_path / "exercises").mkdir()
    for notebook in ("01_a.ipynb", "02 b.ipynb"):
        (tmp_path / "exercises" / notebook).touch()
    summary = tmp_path / "summary"
    calls = run("checks", "Visible score", tmp_path, GITHUB_STEP_SUMMARY=str(summary))
    assert calls == [["interp-lab", "check", "exercises/01_a.ipynb"], ["interp-lab", "check", "exercises/02 b.ipynb"]]
    assert summary.read_text() == "```\nsaid by interp-lab <b>\nsaid by interp-lab <b>\n```\n"


def test_the_course_is_installed_from_where_the_organisation_says(tmp_path):
    assert run("checks", "Install", tmp_path, COURSE="") == [["pip", "install", ".", "notebook"]]


def test_the_grading_calls_the_command_as_it_is(tmp_path):
    hostile = "01; touch pwned"
    calls = run("grading", "Grade", tmp_path, ASSIGNMENT="4711", EXERCISE=hostile, GH_TOKEN="x")
    assert [call[:4] for call in calls if call[0] == "gh"] == [
        ["gh", "classroom", "clone", "student-repos"],
        ["gh", "classroom", "assignment-grades", "-a"],
    ]
    command = calls[-1]
    assert not (tmp_path / "pwned").exists()
    commands = argparse.ArgumentParser().add_subparsers()
    cli.add_teaching(commands)
    parsed = commands.choices["grade"].parse_args(command[2:])
    assert (parsed.exercise, parsed.out) == (hostile, tmp_path / "home dir" / "grades" / hostile)
    assert parsed.submissions.name == "repositories"
    assert parsed.roster.name == "roster.csv"
    assert not parsed.submissions.parent.exists()  # the clones are gone
