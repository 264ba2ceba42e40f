"""Measure every claim of the book at every setting, with the kernels of this processor and of an old one.

    python -m book.claims [--executor processes] [NAMES OF CLAIMS]

Values that are there already, measured with the same code, are kept, also those of a run that was interrupted. The
results, ``book/data/claims.json``, are what the pages print.
"""

import argparse
import os
import subprocess
import sys

from . import RESULTS, ROOT, all_claims
from .sweep import KERNELS, measure_missing, write_results


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
