"""For all tests. Verdicts that rest on a training: a test gives them for one seed, `benchmarks.verdicts` for many."""

import math

import pytest
import torch

import interp_lab  # noqa: F401  # before tests, or Zennit, import torchvision, which it may have to mend


@pytest.fixture
def double():
    """Networks and tensors made in a test are float64, from a fixed seed."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def seed(pytestconfig) -> int:
    """Of all that a test trains, and of the data that it draws for that."""
    return getattr(pytestconfig, "training_seed", 0)


@pytest.fixture
def verdict(request):
    """``verdict(what, value, above=low, below=high)``: a value with three standard deviations to its bounds, at least."""

    def judge(what: str, value: float, *, above: float = -math.inf, below: float = math.inf) -> None:
        if (told := getattr(request.config, "verdicts", None)) is not None:
            told.append((request.node.nodeid, what, float(value), above, below))
        else:
            assert above < value < below, what

    return judge


def pytest_collection_modifyitems(items):
    for item in items:
        if "verdict" in getattr(item, "fixturenames", ()):
            item.add_marker("trains")
