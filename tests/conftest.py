"""For all tests. Verdicts that rest on a training: a test gives them for one seed, `benchmarks.verdicts` for many."""

import math
import random
from collections.abc import Iterator
from contextlib import ExitStack

import affected
import pytest
import torch

import interp_lab  # noqa: F401  # before tests, or Zennit, import torchvision, which it may have to mend
from book.chromium import chromium


def fix_seeds() -> None:
    """What a test or a fixture draws does not depend on the tests before it."""
    random.seed(0)
    torch.manual_seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_make_collect_report() -> None:
    fix_seeds()  # for networks among the parameters of tests


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    fix_seeds()  # before the fixtures of a module


@pytest.fixture(autouse=True)
def _seeded():
    fix_seeds()  # and after them


@pytest.fixture
def double():
    """Networks and tensors made in a test are float64."""
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


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """Headless Chromium: the system's, else the one that Playwright downloaded, else a skip."""
    pytest.importorskip("playwright.sync_api", reason="needs the package playwright (extra `test`)")
    with ExitStack() as stack:
        try:
            yield stack.enter_context(chromium())
        except FileNotFoundError as error:
            pytest.skip(str(error))


def pytest_addoption(parser):
    parser.addoption(
        "--affected",
        nargs="?",
        const="",
        metavar="COMMIT",
        help="only tests of files that differ from the commit and of what imports them; by default, of what is not "
        "committed, else of the last commit",
    )


def pytest_collection_modifyitems(config, items):
    if (base := config.getoption("--affected")) is not None:
        reached = affected.reached(affected.changed(base or None))
        by_choice: dict[bool, list] = {True: [], False: []}
        for item in items:
            by_choice[item.path.relative_to(affected.ROOT).as_posix() in reached].append(item)
        items[:] = by_choice[True]
        config.hook.pytest_deselected(items=by_choice[False])
    for item in items:
        if "verdict" in getattr(item, "fixturenames", ()):
            item.add_marker("trains")
