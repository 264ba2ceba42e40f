"""For all tests, notebooks and examples: one thread, so that sums come in one order and they can run side by side."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported; subprocesses and kernels inherit it

import pytest

collect_ignore_glob = [
    "solutions/*/*.py"
]  # questions and corpora hold no example; nbval collects the notebooks beside them


@pytest.fixture(autouse=True)
def _names_of_examples(doctest_namespace):
    """What an example in a docstring need not import, as every notebook begins with it."""
    import torch

    doctest_namespace |= {"torch": torch, "nn": torch.nn}
