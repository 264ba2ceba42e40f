"""Numbers that come out the same again: sums in one order."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_ALONE = threading.Lock()


@contextmanager
def one_thread() -> Iterator[None]:
    """A block on one thread: sums come in one order, and short operations do not wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def reproducibly() -> Iterator[None]:
    """A block that gives the same numbers in every executor: on one thread of the CPU, and alone in its process.

    Sums depend on the number of threads; this number and the global random state belong to the whole process.
    """
    with _ALONE, one_thread():
        yield
