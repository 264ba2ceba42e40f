"""The package as a whole: what importing it brings along, and that every module can be reached by its name."""

import json
import pkgutil
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
