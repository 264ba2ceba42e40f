"""The package as a whole: what importing it brings along, what ``?`` shows, and that every module can be reached by its name."""

import inspect
import json
import pkgutil
import re
import subprocess
import sys
from importlib import import_module

import pytest

import interp_lab

MODULES = [
    found.name
    for found in pkgutil.walk_packages(interp_lab.__path__, "interp_lab.")
    if not found.name.endswith("__main__")  # which runs when it is imported
]


def test_importing_the_package_brings_no_heavy_library_but_torch():
    heavy = ("matplotlib", "networkx", "pandas", "scipy", "sklearn", "torchvision")
    code = f"import interp_lab, json, sys; print(json.dumps([name for name in {heavy} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("name", MODULES)
def test_no_function_hides_a_module_of_the_same_name(name):
    module = import_module(name)
    package, _, short = name.rpartition(".")
    assert getattr(import_module(package), short) is module


PLACES = {"interp_lab": interp_lab, "plot": interp_lab.plot, "data": interp_lab.data, "antehoc": interp_lab.antehoc}
FUNCTIONS = {
    f"{place}.{name}": getattr(module, name)
    for place, module in PLACES.items()
    for name in module.__all__
    if inspect.isfunction(getattr(module, name))
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_a_notebook_shows_for_a_function_is_complete(name):
    """Every argument is told and typed, and there is an example, which ``pytest --doctest-modules`` runs."""
    text, signature = inspect.getdoc(FUNCTIONS[name]), inspect.signature(FUNCTIONS[name])
    told = {word for line in re.findall(r"^    ([\w, ]+): ", text, re.M) for word in line.split(", ")}
    assert set(signature.parameters) - told == set() or len(signature.parameters) < 2
    assert [p.name for p in signature.parameters.values() if p.annotation is p.empty and p.kind < p.VAR_KEYWORD] == []
    assert signature.return_annotation is not signature.empty
    assert ">>> " in text


def test_the_same_seed_everywhere():
    """What a reader gets without options is what the pages show."""
    functions = FUNCTIONS | {"networks.train": interp_lab.networks.train}
    parameters = {name: inspect.signature(function).parameters for name, function in functions.items()}
    seeds = {name: each["seed"].default for name, each in parameters.items() if "seed" in each}
    assert set(seeds.values()) == {0}, seeds
