"""Lets torchvision be imported beside a torch that it was not built for, once its own import has failed.

A torchvision wheel built for another torch cannot load its compiled operators, and its import then stops at the first
that it names in Python ("operator torchvision::nms does not exist"). Declaring these names is enough for the rest of
torchvision, which is Python; calling such an operator still fails. Nothing is declared before an import has failed: a
library that loads declares its operators itself, and a second declaration ends the process.
"""

import re
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

import torch


class _Mending(Loader):
    """A loader that declares the operator for want of which loading fails, and loads again."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __getattr__(self, name: str):
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        while True:
            try:
                return self.loader.exec_module(module)
            except RuntimeError as error:
                missing = re.search(r"operator (torchvision::\w+) does not exist", str(error))
                if missing is None:
                    raise
                for name in [name for name in sys.modules if name.startswith("torchvision.")]:
                    del sys.modules[name]  # what the failed import left behind
                torch.library.define(missing[1], "() -> ()")


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name == "torchvision" else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Mending(spec.loader)
        return spec


sys.meta_path.insert(0, _Finder())
