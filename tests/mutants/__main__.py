"""Run the rows: ``python -m tests.mutants``."""

import argparse
import hashlib
import importlib
import json
import os
import resource
import shlex
import shutil
import signal
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch

from .rows import Row, found, read

ROOT = Path(__file__).parents[2]
IMPORTED = (  # once, before a process is forked for every mutant
    "captum.attr", "distributed", "hypothesis", "matplotlib.figure", "nbformat", "nbgrader", "networkx", "numpy", "PIL.Image",
    "quantus", "safetensors.torch", "scipy.ndimage", "scipy.stats", "skimage.metrics", "sklearn.cluster", "sklearn.datasets",
    "sklearn.linear_model", "sklearn.mixture", "sklearn.tree", "torch.func", "torchvision", "tqdm.auto",
    "zennit.attribution", "zennit.canonizers", "zennit.composites", "zennit.rules", "zennit.torchvision",
)  # fmt: skip
VERDICTS = "killed", "explained", "survived", "refuted", "stale", "broken"
GOOD = VERDICTS[:2]
SECONDS = 300  # of CPU for the tests of a mutant
ENDED = "ended by signal "  # the limit, a crash, or too little memory


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Does a test notice a mistake?")
    parser.add_argument("--only", default="", metavar="ID,..", help="these rows, also where they have a result")
    parser.add_argument("--stale", action="store_true", help="only say which rows do not fit the code")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "mutants.json", help="the file of the results")
    options = parser.parse_args()
    rows, only = read(), set(filter(None, options.only.split(",")))
    if unknown := only - {row.id for row in rows}:
        parser.error(f"no rows {', '.join(sorted(unknown))}")
    rows = [row for row in rows if not only or row.id in only]
    if options.stale:
        stale = [row.id for row in rows if found(ROOT, row) is None]
        print(f"{len(rows)} rows, stale: {', '.join(stale) or 'none'}")
        return bool(stale)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        root = Path(scratch) / "course"
        shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(".*", "_build", "__pycache__", "*.egg-info"))
        _import()
        for row in rows:
            state = _state(root, row)
            if only or results.get(row.id, {}).get("state") != state:
                verdict, seconds, by = outcome(root, row)
                results[row.id] = {"verdict": verdict, "seconds": seconds, "by": by, "state": state}
                options.out.write_text(json.dumps(results, indent=1))
                print(f"{verdict:9} {seconds:4.0f} s  {row.id}: {row.why} | {by}", flush=True)
    print(_table(rows, results))
    return any(results[row.id]["verdict"] not in GOOD for row in rows)


def outcome(root: Path, row: Row) -> tuple[str, float, str]:
    """The verdict, the seconds of the tests on one core, and the test that noticed the mistake or why none can.

    ``survived`` asks for a test, ``refuted`` for a row without its explanation, ``stale`` for a row that fits the code;
    ``broken`` is a row without tests, or whose test fails without the mistake too.
    """
    path = found(root, row)
    if path is None:
        return "stale", 0.0, ""
    text = path.read_text(encoding="utf-8")
    mutant = text.replace(row.old, row.new)
    compile(mutant, path, "exec")
    path.write_text(mutant, encoding="utf-8")
    try:
        passed, seconds, test = _run(root, *shlex.split(row.tests))
    finally:
        path.write_text(text, encoding="utf-8")
    if passed:
        return ("explained", seconds, row.survives) if row.survives else ("survived", seconds, "")
    if not test:
        return "broken", seconds, "no test was run"
    if not test.startswith(ENDED) and not _passes(root, test):
        return "broken", seconds, test
    return "refuted" if row.survives else "killed", seconds, test


@cache
def _passes(root: Path, test: str) -> bool:
    return _run(root, test)[0]


def _run(root: Path, *tests: str) -> tuple[bool, float, str]:
    """pytest until a test fails, in a process of its own: whether all passed, its CPU seconds, the test that failed."""
    log = root.with_name("failed")
    log.write_text("")
    child = os.fork()
    if child == 0:
        _test(root, tests, log)
    _, status, usage = os.wait4(child, 0)
    with suppress(ProcessLookupError):  # what it has started
        os.killpg(child, signal.SIGKILL)
    failed = f"{ENDED}{os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else log.read_text()
    return status == 0, usage.ru_utime + usage.ru_stime, failed


def _test(root: Path, tests: Sequence[str], log: Path) -> None:
    """In the forked process, which this ends; an endless loop ends at the limit, of CPU seconds or 20 by the clock."""
    code = 1
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        signal.alarm(20 * SECONDS)
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        os.chdir(root)
        sys.path.insert(0, str(root))
        os.environ["PYTHONPATH"] = str(root)
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # a mutant may be as long and as old as the one before
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # half a second each
        code = int(pytest.main(["-x", "-p", "no:cacheprovider", *tests], [_Failed(log)]))
    finally:
        os._exit(code)


@dataclass(eq=False)
class _Failed:
    """A plugin of pytest that writes down which test failed."""

    log: Path

    def pytest_runtest_logreport(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.failed:
            self.log.write_text(report.nodeid)

    pytest_collectreport = pytest_runtest_logreport


def _import() -> None:
    torch.set_num_threads(1)  # as conftest.py asks for, which a forked process reads too late
    for name in IMPORTED:
        with suppress(ImportError):  # the test that needs it skips
            importlib.import_module(name)
    for name in list(sys.modules):  # those of the mutant are imported in its own process
        if name.split(".")[0] in ("interp_lab", "grader", "tests"):
            del sys.modules[name]


def _state(root: Path, row: Row) -> str:
    """Changes with the row, the mutated file and the files of its tests."""
    tests = [root / word.partition("::")[0] for word in shlex.split(row.tests)]
    files = [path for test in tests for path in ([test] if test.is_file() else sorted(test.glob("*.py")))]
    text = repr(row) + "".join(path.read_text(encoding="utf-8") for path in [found(root, row), *files] if path)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _table(rows: list[Row], results: dict[str, dict]) -> str:
    """Verdicts by the module that is changed, and the rows without a good one."""
    counts: dict[str, Counter] = defaultdict(Counter)
    for row in rows:
        for place in (row.place, "all"):
            counts[place][results[row.id]["verdict"]] += 1
    width = max(map(len, counts))
    lines = [f"{'':{width}}" + "".join(f"{verdict:>11}" for verdict in VERDICTS)]
    for place in [*sorted(counts.keys() - {"all"}), "all"]:
        lines.append(f"{place:{width}}" + "".join(f"{counts[place][verdict] or '':>11}" for verdict in VERDICTS))
    bad = [row for row in rows if results[row.id]["verdict"] not in GOOD]
    lines += [f"{results[row.id]['verdict']}: {row.id}, {row.place}: {row.why}" for row in bad]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
