"""Starting in one click: VS Code's and Codespaces' container, and Binder, install what the README says."""

import importlib.metadata
import json
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTAINER = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
BINDER = (ROOT / ".binder" / "requirements.txt").read_text(encoding="utf-8").splitlines()
CPU = "https://download.pytorch.org/whl/cpu"  # these machines have no GPU


def without_make():
    """The commands of the README's section, without their remarks."""
    block = README.split("## Without make")[1].split("On Windows")[0]
    return [line.split("#")[0].strip() for line in block.splitlines() if line.startswith("    ")]


def test_the_container_is_made_by_the_first_commands_of_the_readme():
    commands = CONTAINER["postCreateCommand"].split(" && ")
    assert commands == without_make()[: len(commands)]
    assert commands[-1].startswith("pip install")
    assert CONTAINER["containerEnv"] == {"PIP_EXTRA_INDEX_URL": CPU}
    folder = commands[0].split()[-1]
    interpreter = CONTAINER["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert interpreter == "${containerWorkspaceFolder}/" + f"{folder}/bin/python"


def test_binder_installs_the_same_but_for_the_teachers_side():
    install = next(line for line in without_make() if line.startswith("pip install"))
    asked = re.findall(r"-[re] \S+", install.replace("-r ", "-r ../"))  # beside the file; -e: in the course's root
    assert BINDER[1:] == [f"--extra-index-url {CPU}", *(each for each in asked if "grader" not in each)]
    assert (ROOT / ".binder" / BINDER[2].split()[1]).resolve() == ROOT / "requirements.txt"


@pytest.mark.parametrize("said", [CONTAINER["image"], (ROOT / ".binder" / "runtime.txt").read_text().strip()])
def test_python_is_the_one_that_the_pins_were_tested_on(said):
    (version,) = re.findall(r"Tested on Python (\d+\.\d+)\.", (ROOT / "requirements.txt").read_text())
    assert re.search(r"python[:-](.*)$", said)[1] == version


def test_the_pins_are_all_that_the_pins_need():
    """Make installs them without a resolver; what torch brings beside itself depends on the machine's index."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]
    versions = {}
    for pin in pinned:
        if pin.marker is None or pin.marker.evaluate():
            (versions[canonicalize_name(pin.name)],) = (specifier.version for specifier in pin.specifier)
    installed = {canonicalize_name(d.name): d.version.split("+")[0] for d in importlib.metadata.distributions()}
    if {name: installed.get(name) for name in versions} != versions:
        pytest.skip("this environment is not that of the pins")
    for name in versions:
        for need in map(Requirement, importlib.metadata.requires(name) or ()):
            if name != "torch" and (need.marker is None or need.marker.evaluate({"extra": ""})):
                found = versions.get(canonicalize_name(need.name))
                assert found is not None, f"{name} needs {need}"
                assert need.specifier.contains(found, prereleases=True), f"{name} needs {need}"
