"""Where and how the networks of a sweep are trained."""

import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from .images import RESIDENT, Part, uploaded
from .table import Key
from .training import Task, retrain

TOGETHER = 64  # cells trained together on a GPU


@dataclass(frozen=True)
class Workers:
    """Where and how the networks of a sweep are trained: by default one after another, in this process.

    The images and the ranks of the pixels lie in files. A task that goes to a worker carries the names of these, some
    fractions and seeds, and the untrained network, so that it takes kilobytes however large the data are.

    Attributes:
        executor: spreads the cells; see the examples. On the CPU the numbers do not depend on it, nor on the number of
            threads: every process computes on one.
        device: where networks are trained and explained.
        together: cells trained as one ensemble, with the whole data on the device: by default 64 on a GPU and images of
            4 GiB at most, and 1 elsewhere. On the CPU it makes small convolutional networks no faster (MLPs take two
            thirds of the time). The way makes no difference but rounding. Networks with dropout, which draws other
            numbers in an ensemble, are trained one by one.
        processes: that share the training of one network, each on a GPU of its own: for networks that are too slow for
            one (``torch.nn.parallel.DistributedDataParallel``; see :func:`~interp_lab.networks.train`). Above 1, cells are
            trained one by one, and batches need an image for each. Workers must be allowed to start processes: for Dask's, set
            ``{"distributed.worker.daemon": False}``.
        in_flight: tasks handed to the executor at a time; by default, twice the processors of this machine. Set it
            for a cluster.
        folder: where these files lie while a sweep runs: the images once, and two bytes per pixel for every method. By
            default the system's folder for temporary files; workers on other machines need one that all machines see.

    Example:
        Processes of this machine; not such that fork after torch has started threads::

            with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
                roar(methods, data, workers=Workers(pool))

        A Dask cluster. Its workers give memory back after every operation, which takes half of the time of a training on
        the CPU; the first line ends that, where the workers are started::

            dask.config.set({"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None})
            with distributed.LocalCluster(threads_per_worker=1) as cluster, distributed.Client(cluster) as client:
                roar(methods, data, workers=Workers(client.get_executor()))

        Jobs on SLURM; ``cluster="local"`` runs the same jobs on this machine::

            executor = submitit.AutoExecutor("/shared/logs", cluster="slurm")
            executor.update_parameters(timeout_min=600, gpus_per_node=4)
            workers = Workers(executor, "cuda", processes=4, in_flight=100, folder="/shared/scratch")
            roar(methods, data, network, results="roar.jsonl", workers=workers)
    """

    executor: Executor | None = None
    device: torch.device | str = "cpu"
    together: int | None = None
    processes: int = 1
    in_flight: int | None = None
    folder: str | os.PathLike | None = None

    @contextmanager
    def files(self) -> Iterator[Path]:
        """A new folder in ``folder`` for the files of one sweep, which are deleted after it."""
        try:
            with TemporaryDirectory(prefix="roar-", dir=self.folder, ignore_cleanup_errors=True) as name:
                yield Path(name).resolve()
        finally:
            uploaded.cache_clear()

    def group(self, network: nn.Module, part: Part) -> int:
        """How many cells are trained together.

        Raises:
            ValueError: ``together`` or ``processes`` is below 1, or ``together`` above with a dropout or several processes.
        """
        reasons = [
            f"module {name!r} is a dropout, which draws other numbers in an ensemble"
            for name, module in network.named_modules()
            if isinstance(module, nn.modules.dropout._DropoutNd)
        ]
        if self.processes < 1:
            raise ValueError(f"processes must be at least 1, got {self.processes}")
        if self.processes > 1:
            reasons.append("several processes share each training")
        if self.together is None:
            on_gpu = torch.device(self.device).type == "cuda" and part.images.stat().st_size <= RESIDENT
            return TOGETHER if on_gpu and not reasons else 1
        if self.together < 1:
            raise ValueError(f"together must be a number of cells from 1 on, got {self.together}")
        if self.together > 1 and reasons:
            raise ValueError(f"together must be 1, got {self.together}: {reasons[0]}")
        return self.together

    def retrained(self, tasks: Iterable[tuple[list[Key], Task]]) -> Iterator[tuple[list[Key], list[float | str]]]:
        """The results of every task, as they come."""
        if self.executor is None:
            yield from ((cells, retrain(task)) for cells, task in tasks)
            return
        pending: dict[Future[list[float | str]], list[Key]] = {}
        tasks, in_flight = iter(tasks), self.in_flight or 2 * (os.cpu_count() or 1)
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
