"""Where and how the networks of a sweep are trained."""

import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn

from .table import Key
from .training import Task, retrain

TOGETHER = 64  # cells trained together on a GPU


@dataclass(frozen=True)
class Workers:
    """Where and how the networks of a sweep are trained: by default one after another, in this process.

    Attributes:
        executor: spreads the cells. Any ``concurrent.futures.Executor``: a ``ProcessPoolExecutor`` (not one that
            forks after torch has started threads), a Dask cluster by ``Client.get_executor()``, or, on SLURM,
            ``submitit.AutoExecutor``, whose jobs see the same folder. On the CPU the numbers do not depend on it, nor
            on the number of threads: every process computes on one.
        device: where networks are trained and explained.
        together: cells trained as one ensemble: by default 64 on a GPU and 1 on the CPU, where it makes small
            convolutional networks no faster (MLPs take two thirds of the time). The way makes no difference but
            rounding. Networks with dropout, which draws other numbers in an ensemble, are trained one by one.
        in_flight: tasks handed to the executor at a time; by default, twice the processors of this machine. Set it
            for a cluster.
    """

    executor: Executor | None = None
    device: torch.device | str = "cpu"
    together: int | None = None
    in_flight: int | None = None

    def group(self, network: nn.Module) -> int:
        """How many cells are trained together.

        Raises:
            ValueError: ``together`` is below 1, or above with a network that has a dropout.
        """
        dropout = [
            name for name, module in network.named_modules() if isinstance(module, nn.modules.dropout._DropoutNd)
        ]
        if self.together is None:
            return TOGETHER if torch.device(self.device).type == "cuda" and not dropout else 1
        if self.together < 1 or (self.together > 1 and dropout):
            why = (
                f"module {dropout[0]!r} is a dropout, which draws other numbers in an ensemble"
                if dropout
                else "too small"
            )
            raise ValueError(
                f"together must be a number of cells from 1 on, and 1 with dropout; got {self.together}: {why}"
            )
        return self.together

    def retrained(self, tasks: Iterable[tuple[list[Key], Task]]) -> Iterator[tuple[list[Key], list[float | str]]]:
        """The results of every task, as they come."""
        if self.executor is None:
            yield from ((cells, retrain(task)) for cells, task in tasks)
            return
        tasks, pending = iter(tasks), {}
        in_flight = self.in_flight or 2 * (os.cpu_count() or 1)
        try:
            while True:
                for cells, task in islice(tasks, in_flight - len(pending)):
                    pending[self.executor.submit(retrain, task)] = cells
                if not pending:
                    return
                finished = [future for future in pending if future.done()]  # polled: submitit jobs have no callbacks
                for future in finished:
                    yield pending.pop(future), future.result()
                if not finished:
                    time.sleep(0.02)
        finally:
            for future in pending:
                future.cancel()
