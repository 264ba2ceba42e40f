"""Measure every claim of the book at every setting, with the kernels of this processor and of an old one.

    python -m book.claims [--executor processes] [NAMES OF CLAIMS]

Values that are there already, measured with the same code, are kept, also those of a run that was interrupted. The
results, ``book/data/claims.json``, are what the pages print.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

from tqdm import tqdm

from . import RESULTS, ROOT, all_claims

KERNELS = {
    "native": {},
    "default": {"ATEN_CPU_CAPABILITY": "default", "DNNL_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"},
}
Row = tuple[str, str, str, float]  # claim, fingerprint, setting, value


def journal(kernel: str) -> Path:
    """What was measured so far with a kind of kernel, a row a line."""
    return ROOT / "_build" / "claims" / f"{kernel}.jsonl"


def measure(tasks: list[tuple[str, str, dict[str, Any]]]) -> list[Row]:
    """The values of some claims at some settings, which share what takes long."""
    claims = all_claims()
    return [
        (name, fingerprint, json.dumps(setting), float(claims[name].measure(**setting)))
        for name, fingerprint, setting in tasks
    ]


def measure_missing(kernel: str, names: list[str], executor: str) -> None:
    """Add to the journal what it lacks, in units of one network and one seed."""
    from interp_lab.executors import open_executor

    path, claims = journal(kernel), all_claims()
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {tuple(json.loads(line)[:3]) for line in path.read_text().splitlines()} if path.exists() else set()
    units = defaultdict(list)
    for name in names:
        claim = claims[name]
        for setting in claim.settings():
            if (name, claim.fingerprint, json.dumps(setting)) not in known:
                shared = claim.measure.__module__, setting.get("network"), setting.get("seed"), setting.get("training")
                units[shared].append((name, claim.fingerprint, setting))
    work = [units[shared] for shared in sorted(units, key=lambda shared: shared[-1] is not None)]  # trainings last
    bar = tqdm(total=sum(map(len, units.values())), desc=f"claims, {kernel} kernels", unit="setting")
    with open_executor(executor) as pool, path.open("a") as file:
        futures = [pool.submit(measure, tasks) for tasks in work] if pool else []
        for rows in (f.result() for f in as_completed(futures)) if pool else map(measure, work):
            file.writelines(json.dumps(row) + "\n" for row in rows)
            file.flush()
            bar.update(len(rows))
    bar.close()


def write_results() -> None:
    """The claims with their values, in the order of their settings."""
    values = {}
    for kernel in KERNELS:
        for line in journal(kernel).read_text().splitlines():
            name, fingerprint, setting, value = json.loads(line)
            values[kernel, name, fingerprint, setting] = value
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
                    float(f"{values[kernel, name, claim.fingerprint, json.dumps(setting)]:.4g}")
                    for setting in claim.settings()
                ]
                for kernel in KERNELS
            },
        }
        for name, claim in all_claims().items()
    }
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(result)}" for name, result in results.items())
    RESULTS.write_text("{\n" + lines + "\n}\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="of claims; all by default")
    parser.add_argument("--executor", choices=("none", "processes"), default="processes")
    parser.add_argument("--kernel", choices=KERNELS, help=argparse.SUPPRESS)  # of a process for one kind
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(all_claims()):
        parser.error(f"no claims {', '.join(sorted(unknown))}; there are {', '.join(all_claims())}")
    names = arguments.names or list(all_claims())
    if arguments.kernel:
        return measure_missing(arguments.kernel, names, arguments.executor)
    for kernel, variables in KERNELS.items():
        command = [sys.executable, "-m", "book.claims", "--kernel", kernel, "--executor", arguments.executor]
        subprocess.run([*command, *names], check=True, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"} | variables)
    write_results()
    print(f"wrote {RESULTS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
