"""The sweep over all settings of all claims: resumable, over processes, with two kinds of kernel."""

import itertools
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks import verdicts

from ..sweep import rows, sweep
from . import RESULTS, ROOT, all_claims

KERNELS = {name: verdicts.KERNELS[name] for name in ("native", "default")}
Row = tuple[str, str, str, float]  # claim, fingerprint, setting, value


def journal(kernel: str) -> Path:
    """What was measured so far with a kind of kernel, a row a line."""
    return ROOT / "_build" / "claims" / f"{kernel}.jsonl"


def known(kernel: str) -> dict[tuple[str, str, str], float]:
    """All values by claim, fingerprint and setting: those of the results, and those measured since."""
    stored = json.loads(RESULTS.read_text(encoding="utf-8"))
    values = {
        (name, result["fingerprint"], json.dumps(dict(zip(result["options"], setting, strict=True)))): value
        for name, result in stored.items()
        for setting, value in zip(itertools.product(*result["options"].values()), result["values"][kernel], strict=True)
    }
    return values | {(name, fingerprint, setting): value for name, fingerprint, setting, value in rows(journal(kernel))}


def measure(tasks: list[tuple[str, str, dict[str, Any]]]) -> list[Row]:
    """The values of some claims at some settings, which share what takes long."""
    claims = all_claims()
    return [
        (name, fingerprint, json.dumps(setting), float(claims[name].measure(**setting)))
        for name, fingerprint, setting in tasks
    ]


def measure_missing(kernel: str, names: list[str], executor: str) -> None:
    """Add to the journal what it lacks, in units of one network and one seed, or of one training."""
    claims, there = all_claims(), known(kernel)
    units = defaultdict(list)
    for name in names:
        claim = claims[name]
        for setting in claim.settings():
            if (name, claim.fingerprint, json.dumps(setting)) not in there:
                if "training" in setting:  # takes minutes, so that one process does all that share it
                    shared = (claim.measure.__module__, setting["training"])
                else:
                    shared = (claim.measure.__module__, setting.get("network"), setting.get("seed"))
                units[shared].append((name, claim.fingerprint, setting))
    work = sorted(units.values(), key=lambda tasks: "training" in tasks[0][2])  # trainings last
    total = sum(map(len, work))
    sweep(journal(kernel), measure, work, executor, total=total, desc=f"claims, {kernel} kernels", unit="setting")


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
                    float(f"{values[kernel][name, claim.fingerprint, json.dumps(setting)]:.4g}")
                    for setting in claim.settings()
                ]
                for kernel in KERNELS
            },
        }
        for name, claim in all_claims().items()
    }
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(result)}" for name, result in results.items())
    RESULTS.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
