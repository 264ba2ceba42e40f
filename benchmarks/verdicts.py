"""Every verdict of the tests that rests on a training, over seeds and kinds of kernel, with its margin.

The tests marked ``trains`` run in a process for each kind of kernel, once for each seed, and tell every number that they
compare with a bound (the fixture `verdict`). The margin is the distance from the mean over the seeds to the nearest bound, in
standard deviations over the seeds, for the kernels where it is smallest; a verdict holds with 3 or more. Without any
deviation the margin is infinite.

    python -m benchmarks.verdicts [--seeds 8] [--kernel native] [OPTIONS OF PYTEST, as tests/evaluate]
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

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


def measure(seeds: int, options: list[str], out: str) -> None:
    """Run the tests once per seed with the kernels of this process, and write what they tell."""
    import pytest

    told = []
    for seed in range(seeds):
        teller = Teller(seed)
        code = pytest.main(["-m", "trains", "-p", "no:cacheprovider", *options], [teller])
        assert code == 0, f"the tests ended with {code}"
        told += teller.verdicts
        Path(out).write_text(json.dumps(told))


def margin(values: list[float], above: float, below: float) -> float:
    """Distance of the mean to the nearest bound in standard deviations; negative beyond the bound."""
    distance, spread = min(statistics.mean(values) - above, below - statistics.mean(values)), statistics.stdev(values)
    return distance / spread if spread else math.copysign(math.inf, distance)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--kernel", action="append", choices=KERNELS, help="may be repeated; all by default")
    parser.add_argument("--out", help=argparse.SUPPRESS)  # of a process for one kind
    arguments, options = parser.parse_known_args()
    if arguments.out:
        return measure(arguments.seeds, options, arguments.out)

    kernels = arguments.kernel or list(KERNELS)
    table: dict[tuple, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as folder:
        for kind in kernels:
            out = Path(folder, kind)
            command = [sys.executable, "-m", "benchmarks.verdicts", "--seeds", str(arguments.seeds), "--out", str(out)]
            subprocess.run(
                [*command, *options],
                env=os.environ | {"OMP_NUM_THREADS": "1"} | KERNELS[kind],
                check=True,
                stdout=sys.stderr,
            )
            for test, what, value, above, below in json.loads(out.read_text()):
                table[test, what, above, below][kind].append(value)
    print(f"| test | verdict | bounds | {' | '.join(kernels)} | margin |")
    print("|---" * (4 + len(kernels)) + "|")
    for (test, what, above, below), kinds in table.items():
        bounds = " and ".join(
            f"{sign} {bound:.4g}" for sign, bound in ((">", above), ("<", below)) if math.isfinite(bound)
        )
        shown = [f"{statistics.mean(v):.4g} ± {statistics.stdev(v):.2g}" for v in kinds.values()]
        least = min(margin(values, above, below) for values in kinds.values())
        print(f"| {test.split('/')[-1]} | {what} | {bounds} | {' | '.join(shown)} | {least:.1f} |", flush=True)
    return None


if __name__ == "__main__":
    main()
