"""The sweep over all settings of all claims: resumable, over processes, with two kinds of kernel."""

import itertools
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks import verdicts

from ..sweep import rows, sweep
from . import RESULTS, ROOT, Claim, all_claims

# In the order in which they are measured: the first judges what a change of code changes, as it gives every processor the
# same digits, and what was measured on another processor is kept.
KERNELS = {name: verdicts.KERNELS[name] for name in ("default", "native")}
JUDGE = "default"
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
    """Add to the journal what it lacks; first the samples of claims whose code has changed, which may be all that it takes."""
    claims = [(name, all_claims()[name]) for name in names]
    stored = json.loads(RESULTS.read_text(encoding="utf-8"))
    stale = [
        (name, claim, stored[name]["fingerprint"])
        for name, claim in claims
        if name in stored
        and claim.fingerprint != stored[name]["fingerprint"]
        and json.loads(json.dumps(claim.options)) == stored[name]["options"]
    ]
    if kernel == JUDGE:
        samples = [(name, claim.fingerprint, setting) for name, claim, _ in stale for setting in sample(claim)]
        _sweep(kernel, samples, executor, f"samples of changed claims, {kernel} kernels")
    _carry_over(kernel, stale)
    settings = [(name, claim.fingerprint, setting) for name, claim in claims for setting in claim.settings()]
    _sweep(kernel, settings, executor, f"claims, {kernel} kernels")


def sample(claim: Claim) -> list[dict[str, Any]]:
    """Settings in which each option takes each of its values, and three drawn by the fingerprint; the page's own comes first."""
    most = max(map(len, claim.options.values()), default=1)
    turns = [{name: values[i % len(values)] for name, values in claim.options.items()} for i in range(most)]
    drawn = random.Random(claim.fingerprint)
    turns += [{name: drawn.choice(values) for name, values in claim.options.items()} for _ in range(3)]
    return list({json.dumps(setting): setting for setting in turns}.values())


def _carry_over(kernel: str, stale: list[tuple[str, Claim, str]]) -> None:
    """Where the whole sample has the values of before, to the digits of the results, so have the other settings."""
    judged, there = known(JUDGE), known(kernel)
    with journal(kernel).open("a", encoding="utf-8") as file:
        for name, claim, before in stale:
            settings = [json.dumps(setting) for setting in claim.settings()]
            old, new = ({s: there.get((name, code, s)) for s in settings} for code in (before, claim.fingerprint))
            pairs = [[judged[name, code, json.dumps(s)] for code in (before, claim.fingerprint)] for s in sample(claim)]
            if None not in old.values() and all(_rounded(was) == _rounded(now) for was, now in pairs):
                kept = [setting for setting in settings if new[setting] is None]
                file.writelines(json.dumps([name, claim.fingerprint, s, old[s]]) + "\n" for s in kept)


def _sweep(kernel: str, tasks: list[tuple[str, str, dict[str, Any]]], executor: str, desc: str) -> None:
    """Measure those that are not known, in units of one network and one seed, or of one training."""
    there, claims, units = known(kernel), all_claims(), defaultdict(list)
    for name, fingerprint, setting in tasks:
        if (name, fingerprint, json.dumps(setting)) not in there:
            module = claims[name].measure.__module__
            if "training" in setting:  # takes minutes, so that one process does all that share it
                units[module, setting["training"]].append((name, fingerprint, setting))
            else:
                units[module, setting.get("network"), setting.get("seed")].append((name, fingerprint, setting))
    work = sorted(units.values(), key=lambda tasks: "training" in tasks[0][2])  # trainings last
    sweep(journal(kernel), measure, work, executor, total=sum(map(len, work)), desc=desc, unit="setting")


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
