"""Run the tables: ``python -m tests.invariances [--some] [change ...]``."""

import sys
import time

import torch

from .cells import FAILED, outcome, some, tally, whole
from .changes import CHANGES


def main() -> None:
    torch.set_num_threads(1)
    chosen = [name for name in sys.argv[1:] if not name.startswith("-")] or list(CHANGES)
    cells = some if "--some" in sys.argv else whole
    start, outcomes = time.perf_counter(), []
    for change in chosen:
        mine = [outcome(*cell) for cell in cells(change)]
        outcomes += mine
        for each in mine:
            if each.kind == FAILED:
                print(each, flush=True)
    print(f"{tally(outcomes)}; {time.perf_counter() - start:.0f} s")


main()
