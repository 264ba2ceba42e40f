"""Training examples as they pass by: in batches, in the same order in every pass."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeGuard

import torch
from torch import Tensor

from .objective import Objective

Pair = tuple[Tensor, Tensor]

CHANGED = (
    "train gave other batches than in its first pass, so no column would stand for one example; turn off its shuffling "
    "and its random augmentation"
)


class TrainingSet:
    """A pair in memory or a stream of batches.

    Attributes:
        count: the number of examples; of a stream None before the first pass.
    """

    def __init__(self, train: Pair | Iterable[Pair]) -> None:
        if not isinstance(train, Iterable) or isinstance(train, Iterator):
            raise ValueError(
                "train must be a pair (x, y) or batches that come again in every pass, such as a list or a DataLoader, "
                f"got {type(train).__name__}"
            )
        self.train, self.count = train, len(check_pair(train, "train")[0]) if _is_pair(train) else None
        self.marks: list[tuple[int, float]] | None = None  # size and content of every batch of the first pass

    def batches(self, objective: Objective, rows: int, order: torch.Generator | None = None) -> Iterator[Pair]:
        """One pass, in batches of at most ``rows``, checked and on the device; with ``order``, a pair is shuffled."""
        marks: list[tuple[int, float]] = []
        for x, y in self._incoming(rows, order):
            if not _is_pair(self.train):
                marks.append(_mark(x))
                if self.marks is not None and marks[-1:] != self.marks[len(marks) - 1 : len(marks)]:
                    raise ValueError(CHANGED)
            for part in zip(x.split(rows), y.split(rows), strict=True):
                x_rows, y_rows = (t.detach().to(objective.theta.device) for t in part)
                objective.check(x_rows, y_rows)
                yield x_rows, y_rows
        if self.marks is not None and len(marks) < len(self.marks):
            raise ValueError(CHANGED)
        if self.count is None:
            if not marks:
                raise ValueError("train gave no batch")
            self.marks, self.count = marks, sum(size for size, _ in marks)
            if [_mark(x) for x, _ in islice(self._incoming(rows, None), 1)] != marks[:1]:  # for those who take one pass
                raise ValueError(CHANGED)

    def samples(self, objective: Objective, count: int, order: torch.Generator) -> Iterator[Pair]:
        """Samples of ``count`` examples, without end."""
        left: Pair | None = None
        while True:
            for batch in self.batches(objective, objective.rows, order):
                x, y = batch if left is None else (torch.cat(pair) for pair in zip(left, batch, strict=True))
                while len(x) >= count:
                    yield x[:count], y[:count]
                    x, y = x[count:], y[count:]
                left = x, y

    def _incoming(self, rows: int, order: torch.Generator | None) -> Iterator[Pair]:
        if _is_pair(self.train):
            x, y = self.train
            index = torch.arange(len(x)) if order is None else torch.randperm(len(x), generator=order)
            yield from ((x[i], y[i]) for i in index.split(rows))
        else:
            yield from (check_pair(batch, "every batch of train") for batch in self.train)


def _mark(x: Tensor) -> tuple[int, float]:
    """Size and content of a batch."""
    places = torch.arange(1, len(x) + 1, device=x.device)
    return len(x), float((x.reshape(len(x), -1).sum(1) * places).sum())


def check_pair(data: object, name: str) -> Pair:
    if not _is_pair(data) or len(data[0]) != len(data[1]) or not len(data[0]):
        got = [tuple(part.shape) for part in data] if _is_pair(data) else type(data).__name__
        raise ValueError(f"{name} must be a pair (x, y) of tensors of one length above 0, got {got}")
    return data[0], data[1]


def _is_pair(data: object) -> TypeGuard[Sequence[Tensor]]:
    return isinstance(data, tuple | list) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)
