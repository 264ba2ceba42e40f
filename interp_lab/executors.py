"""The executors that a command can spread its work over, by name."""

import os
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, nullcontext
from typing import Any

NAMES = ("none", "processes", "dask")


@contextmanager
def open_executor(name: str) -> Iterator[Executor | None]:
    """``with open_executor(name) as executor:`` gives none, one process per core, or a Dask cluster.

    The cluster is that at ``DASK_SCHEDULER_ADDRESS``, or else a local one.

    Raises:
        ValueError: Dask is not installed.
    """
    if name == "processes":
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        # Spawned, since a forked child of a process with threads can hang.
        with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent) as pool:
            yield pool
    elif name == "dask":
        try:
            import dask
            from distributed import Client, LocalCluster
        except ImportError as error:
            raise ValueError("--executor dask needs the package distributed: pip install distributed") from error
        local = dask.config.get("scheduler-address", None) is None
        # Dask has memory given back after every operation, which makes a training take twice its time.
        with dask.config.set({"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None}):
            # One thread per worker: a worker trains one network at a time anyway.
            cluster = LocalCluster(threads_per_worker=1, dashboard_address=None) if local else nullcontext()
            with cluster as address, Client(address) as client:
                yield client.get_executor()
    else:
        yield None


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for ever."""
    import multiprocessing
    import threading

    parent: Any = multiprocessing.parent_process()

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
