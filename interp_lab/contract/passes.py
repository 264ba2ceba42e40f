"""How many rows go through a model at a time."""

from collections.abc import Callable

import torch
from torch import Tensor


def rows_per_pass(x: Tensor, run: Callable[[Tensor], object]) -> int:
    """How many rows like those of x a pass of ``run`` takes by default.

    On a processor as many as fit its cache, and few enough that the feature maps of a large network are fetched in time;
    on a GPU as many as fill half of the memory that is free, if each takes what it takes in ``run(x)``.
    """
    if x.device.type != "cuda":
        return max(1, min(2**20 // max(1, x[:1].numel()), 128))
    held = torch.cuda.memory_allocated(x.device)
    torch.cuda.reset_peak_memory_stats(x.device)
    try:
        run(x)
    except torch.OutOfMemoryError:
        return max(1, len(x) // 2)
    taken = max(1, torch.cuda.max_memory_allocated(x.device) - held)
    kept = torch.cuda.memory_reserved(x.device) - held  # by torch, for what comes next
    free = torch.cuda.mem_get_info(x.device)[0] + kept
    return max(1, min(free * len(x) // (2 * taken), 2**16))


def with_rows_that_fit(call: Callable[[int], Tensor], rows: int) -> Tensor:
    """``call(rows)``, tried again with half the rows a pass as long as the memory is too small for so many."""
    while True:
        try:
            return call(rows)
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
        rows //= 2  # behind the handler, so that what the failed pass held is free
