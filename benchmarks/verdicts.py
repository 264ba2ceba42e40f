"""Every verdict of the tests that rests on a training, over seeds and kinds of kernel, with its margin.

The tests marked ``trains`` run in a process for each kind of kernel and each seed, and tell every number that they
compare with a bound (the fixture `verdict`). The margin is the distance from the mean over the seeds to the nearest bound, in
standard deviations over the seeds, for the kernels where it is smallest; a verdict holds with 3 or more. Without any
deviation the margin is infinite. What was measured stays in ``_build/verdicts`` until the code changes: start the same
command again after an interruption.

    python -m benchmarks.verdicts [--seeds 8] [--kernel native] [OPTIONS OF PYTEST, as tests/evaluate]
"""

import argparse
import hashlib
import json
import math
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).parents[1]
KERNELS = {
    "native": {},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "DNNL_MAX_CPU_ISA": "AVX2"},
    "default": {"ATEN_CPU_CAPABILITY": "default", "DNNL_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"},
}


class Teller:
    """Plug-in of pytest: gives the seed to the tests and takes their verdicts."""

    def __init__(self, seed: int) -> None:
        self.seed, self.verdicts = seed, []

    def pytest_configure(self, config) -> None:
        config.training_seed, config.verdicts = self.seed, self.verdicts

    def pytest_collection_modifyitems(self, items) -> None:
        items[:] = [item for item in items if "verdict" in getattr(item, "fixturenames", ())]


def measure(seed: int, options: list[str], out: Path) -> None:
    """Run the tests once with the kernels of this process, and write what they tell."""
    import pytest

    teller = Teller(seed)
    code = pytest.main(["-m", "trains", "-p", "no:cacheprovider", *options], [teller])
    assert code == 0, f"the tests ended with {code}"
    out.write_text(json.dumps(teller.verdicts))


def fingerprint(options: list[str]) -> str:
    """Of the code and data that the tests can reach, and of their choice."""
    files = (p for folder in ("interp_lab", "grader", "solutions", "tests") for p in (ROOT / folder).rglob("*"))
    read = [p for p in files if p.suffix in (".py", ".ipynb", ".safetensors")]
    hashed = hashlib.sha256(json.dumps(options).encode())
    for path in sorted(read):
        hashed.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return hashed.hexdigest()[:12]


def margin(values: list[float], above: float, below: float) -> float:
    """Distance of the mean to the nearest bound in standard deviations; negative beyond the bound."""
    distance, spread = min(statistics.mean(values) - above, below - statistics.mean(values)), statistics.stdev(values)
    return distance / spread if spread else math.copysign(math.inf, distance)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--kernel", action="append", choices=KERNELS, help="may be repeated; all by default")
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)  # of a process for one kind and seed
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    arguments, options = parser.parse_known_args()
    if arguments.out:
        return measure(arguments.seed, options, arguments.out)

    kernels = arguments.kernel or list(KERNELS)
    folder = ROOT / "_build" / "verdicts" / fingerprint(options)
    folder.mkdir(parents=True, exist_ok=True)

    def run(seed: int, kind: str) -> None:
        out = folder / f"{kind}-{seed}.json"
        if not out.exists():
            command = [sys.executable, "-m", "benchmarks.verdicts", "--seed", str(seed), "--out", str(out), *options]
            environment = os.environ | {"OMP_NUM_THREADS": "1"} | KERNELS[kind]
            with out.with_suffix(".log").open("w") as log:
                subprocess.run(command, env=environment, check=True, stdout=log, stderr=log)
        bar.update()

    cells = [(seed, kind) for seed in range(arguments.seeds) for kind in kernels]
    with tqdm(total=len(cells), desc="verdicts", unit="run") as bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in [pool.submit(run, *cell) for cell in cells]:
            done.result()  # an error says which command failed; its log lies in the folder
    table: dict[tuple, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for seed, kind in cells:
        for test, what, value, above, below in json.loads((folder / f"{kind}-{seed}.json").read_text()):
            table[test, what, above, below][kind].append(value)
    print(f"| test | verdict | bounds | {' | '.join(kernels)} | margin |")
    print("|---" * (4 + len(kernels)) + "|")
    for (test, what, above, below), kinds in table.items():
        bounds = " and ".join(
            f"{sign} {bound:.4g}" for sign, bound in ((">", above), ("<", below)) if math.isfinite(bound)
        )
        shown = [f"{statistics.mean(v):.4g} ± {statistics.stdev(v):.2g}" for v in kinds.values()]
        least = min(margin(values, above, below) for values in kinds.values())
        print(f"| {test.split('/')[-1]} | {what} | {bounds} | {' | '.join(shown)} | {least:.1f} |")
    return None


if __name__ == "__main__":
    main()
