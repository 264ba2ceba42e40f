"""The sweep over all settings of all claims: resumable, over processes, with two kinds of kernel."""

import itertools
import json
import random
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import verdicts

from ..sweep import rows, sweep
from . import RESULTS, ROOT, Claim, all_claims

# In the order in which they are measured: the first judges what a change of code changes.
KERNELS = {name: verdicts.KERNELS[name] for name in ("default", "native")}
JUDGE = "default"
Task = tuple[str, str, dict[str, Any]]  # claim, fingerprint, setting
Row = tuple[str, str, str, float]  # the same, the setting as JSON, and the value


def journal(kernel: str) -> Path:
    """What was measured so far with a kind of kernel, a row a line."""
    return ROOT / "_build" / "claims" / f"{kernel}.jsonl"


def stored(kernel: str) -> dict[tuple[str, str, str], float]:
    """The values of the results by claim, fingerprint and setting."""
    return {
        (name, result["fingerprint"], json.dumps(dict(zip(result["options"], setting, strict=True)))): value
        for name, result in json.loads(RESULTS.read_text(encoding="utf-8")).items()
        for setting, value in zip(itertools.product(*result["options"].values()), result["values"][kernel], strict=True)
    }


def known(kernel: str) -> dict[tuple[str, str, str], float]:
    """Those, and the values measured since."""
    return stored(kernel) | {tuple(task): value for *task, value in rows(journal(kernel))}


def measure(tasks: list[Task]) -> list[Row]:
    """The values of some claims at some settings, which share what takes long."""
    claims = all_claims()
    return [
        (name, fingerprint, json.dumps(setting), float(claims[name].measure(**setting)))
        for name, fingerprint, setting in tasks
    ]


def measure_missing(kernel: str, names: list[str], executor: str) -> None:
    """Add to the journal what it lacks; first the samples of claims whose code has changed, which may be all that it takes."""
    claims, results = all_claims(), json.loads(RESULTS.read_text(encoding="utf-8"))
    stale = {
        name: results[name]["fingerprint"]
        for name in names
        if name in results
        and claims[name].fingerprint != results[name]["fingerprint"]
        and json.loads(json.dumps(claims[name].options)) == results[name]["options"]
    }
    if kernel == JUDGE:
        samples = [(name, claims[name].fingerprint, setting) for name in stale for setting in sample(claims[name])]
        _sweep(kernel, _missing(kernel, samples), executor, "samples of changed claims")
        same = _unchanged(stale)
        _measure_before(kernel, {name: before for name, before in stale.items() if name not in same}, executor)
    _carry_over(kernel, _unchanged(stale))
    settings = [(name, claims[name].fingerprint, setting) for name in names for setting in claims[name].settings()]
    _sweep(kernel, _missing(kernel, settings), executor, f"claims, {kernel} kernels")


def sample(claim: Claim) -> list[dict[str, Any]]:
    """Settings in which each option takes each of its values, and three drawn by the fingerprint; the page's own comes first."""
    most = max(map(len, claim.options.values()), default=1)
    turns = [{name: values[i % len(values)] for name, values in claim.options.items()} for i in range(most)]
    drawn = random.Random(claim.fingerprint)
    turns += [{name: drawn.choice(values) for name, values in claim.options.items()} for _ in range(3)]
    return list({json.dumps(setting): setting for setting in turns}.values())


def _unchanged(stale: dict[str, str]) -> dict[str, str]:
    """Those whose whole sample has the values of the results, or of the code before, to the digits of the results."""
    values, results, claims = known(JUDGE), stored(JUDGE), all_claims()

    def stays(name: str, before: str) -> bool:
        sampled = [json.dumps(setting) for setting in sample(claims[name])]
        return any(
            all(
                _rounded(there[name, before, s]) == _rounded(values[name, claims[name].fingerprint, s]) for s in sampled
            )
            for there in (results, values)
        )

    return {name: before for name, before in stale.items() if stays(name, before)}


def _carry_over(kernel: str, stale: dict[str, str]) -> None:
    """Keep the values of these claims, of which the results have all."""
    there = stored(kernel)
    with journal(kernel).open("a", encoding="utf-8") as file:
        for name, before in stale.items():
            claim = all_claims()[name]
            settings = map(json.dumps, claim.settings())
            file.writelines(json.dumps([name, claim.fingerprint, s, there[name, before, s]]) + "\n" for s in settings)


def _measure_before(kernel: str, changed: dict[str, str], executor: str) -> None:
    """The samples of these claims by the code of the results, as another processor trains other networks than theirs."""
    there = {tuple(task) for *task, _ in rows(journal(kernel))}
    tasks = [(name, before, setting) for name, before in changed.items() for setting in sample(all_claims()[name])]
    if left := [task for task in tasks if (*task[:2], json.dumps(task[2])) not in there]:
        with code_of_the_results() as folder:
            _sweep(kernel, left, executor, "the same by the code before", partial(measure_in, folder))


@contextmanager
def code_of_the_results() -> Iterator[Path | None]:
    """A folder with the commit that wrote the results; None outside of git."""
    git = partial(subprocess.run, cwd=ROOT, capture_output=True, text=True)
    commit = git(["git", "log", "-1", "--format=%H", "--", str(RESULTS)]).stdout.strip()
    if not commit:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        git(["git", "worktree", "add", "--detach", "--force", folder, commit], check=True)
        try:
            yield Path(folder)
        finally:
            git(["git", "worktree", "remove", "--force", folder], check=True)


BEFORE = """
import json, sys
from book.claims import all_claims
from book.claims.sweep import measure
tasks, claims = json.load(sys.stdin), all_claims()
print(json.dumps(measure([task for task in tasks if task[0] in claims and claims[task[0]].fingerprint == task[1]])))
"""


def measure_in(folder: Path | None, tasks: list[Task]) -> list[Row]:
    """As :func:`measure`, by the code in this folder; those of another code, or without a folder, have no value."""
    if folder is None:
        return []
    run = partial(subprocess.run, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    found = run([sys.executable, "-W", "ignore", "-c", BEFORE], input=json.dumps(tasks))
    return json.loads(found.stdout.splitlines()[-1])


def _missing(kernel: str, tasks: list[Task]) -> list[Task]:
    there = known(kernel)
    return [task for task in tasks if (*task[:2], json.dumps(task[2])) not in there]


def _sweep(
    kernel: str, tasks: list[Task], executor: str, desc: str, measure: Callable[[list[Task]], list[Row]] = measure
) -> None:
    """Measure them in units of one network and one seed, or of one training."""
    units: dict[tuple, list[Task]] = defaultdict(list)
    for task in tasks:
        name, _, setting = task
        module = all_claims()[name].measure.__module__
        if "training" in setting:  # takes minutes, so that one process does all that share it
            units[module, setting["training"]].append(task)
        else:
            units[module, setting.get("network"), setting.get("seed")].append(task)
    work = sorted(units.values(), key=lambda tasks: "training" in tasks[0][2])  # trainings last
    sweep(journal(kernel), measure, work, executor, total=len(tasks), desc=desc, unit="setting")


def _rounded(value: float) -> float:
    """To the digits of the results."""
    return float(f"{value:.4g}")


def write_results() -> None:
    """The claims with their values, in the order of their settings."""
    values = {kernel: known(kernel) for kernel in KERNELS}
    results = {
        name: {
            "page": claim.page,
            "sentence": claim.sentence,
            "above": claim.above,
            "below": claim.below,
            "options": claim.options,
            "fingerprint": claim.fingerprint,
            "values": {
                kernel: [
                    _rounded(values[kernel][name, claim.fingerprint, json.dumps(setting)])
                    for setting in claim.settings()
                ]
                for kernel in KERNELS
            },
        }
        for name, claim in all_claims().items()
    }
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(result)}" for name, result in results.items())
    RESULTS.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
