"""Passes over a training set in chunks: spread over an executor, kept in a folder, resumed from there after a kill."""

import hashlib
import os
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from itertools import islice
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ...progress import tqdm
from .objective import Objective, differentiating
from .training_set import Pair, TrainingSet

Part = dict[str, Tensor]  # what is computed of some examples: sums over them, or a row for each
Work = Callable[..., Part]  # of (objective, x, y, *state)
Merge = Callable[[Iterable[Part]], Part]

SECONDS = 60.0  # between two states of a sum on disk


class Passes:
    """Passes that compute ``work(objective, x, y, *state)`` of every chunk of the training set.

    Args:
        folder: where results are kept. A file is named by a digest of all that it was computed from, so that no result of
            another model, other data or another state is taken.
        executor: computes the chunks.
        known_by: what the text, the parameters and the buffers of the model do not tell of the objective.
    """

    def __init__(
        self,
        objective: Objective,
        train: TrainingSet,
        folder: str | os.PathLike | None,
        executor: Executor | None,
        progress: bool,
        known_by: str,
    ) -> None:
        self.objective, self.train, self.executor, self.progress = objective, train, executor, progress
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            state = objective.model.state_dict()
            text = f"{known_by} {objective.model!r} {list(objective.shapes)} {list(state)}"
            self.known_by = _digest(text, *state.values())

    def total(self, work: Work, *state: object) -> Part:
        """The sums over the training set; the folder keeps how far they have come."""
        path = None if self.folder is None else self.folder / f"{self._key(work, state)}.safetensors"
        chunks, device = self._chunks(), self.objective.theta.device
        sums, count, seen = {}, 0, ""
        with self._bar(work) as bar:
            if path is not None and path.exists():
                with safe_open(path, "pt", device=str(device)) as file:
                    sums, kept = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118  no dict
                count = int(kept["chunks"])
                for chunk in islice(chunks, count):
                    seen = _digest(seen, *chunk)
                    bar.update(len(chunk[0]))
                if seen != kept["seen"]:  # other data
                    bar.reset()
                    sums, count, seen, chunks = {}, 0, "", self._chunks()
            saved = time.monotonic()
            for x, y, part in self._run(work, added, state, chunks, bar):
                sums, count = added([sums, part]), count + 1
                if path is not None:
                    seen = _digest(seen, x, y)
                    if time.monotonic() - saved >= SECONDS:
                        _save(path, sums, chunks=str(count), seen=seen)
                        saved = time.monotonic()
            if path is not None:
                _save(path, sums, chunks=str(count), seen=seen)
        return sums

    def rows(self, work: Work, *state: object) -> Iterator[Part]:
        """Of every chunk, in order, the rows that belong to its examples."""
        if self.folder is None:
            with self._bar(work) as bar:
                yield from (part for *_, part in self._run(work, joined, state, self._chunks(), bar))
        else:
            yield from map(self.read, self.stored(work, *state))

    def stored(self, work: Work, *state: object) -> list[Path]:
        """The files with the rows of every chunk, in order."""
        paths: list[Path] = []
        todo: deque[Path] = deque()
        assert self.folder is not None  # trak always has one, and rows does not come here without one
        folder, key = self.folder, self._key(work, state)

        def missing() -> Iterator[Pair]:
            for chunk in self._chunks():
                paths.append(folder / f"{_digest(key, *chunk)}.safetensors")
                if paths[-1].exists():
                    bar.update(len(chunk[0]))
                else:
                    todo.append(paths[-1])
                    yield chunk

        with self._bar(work) as bar:
            for *_, part in self._run(work, joined, state, missing(), bar):
                _save(todo.popleft(), part)
        return paths

    def read(self, path: Path) -> Part:
        return load_file(path, device=str(self.objective.theta.device))

    def _chunks(self) -> Iterator[Pair]:
        return self.train.batches(self.objective, self.objective.chunk)

    def _bar(self, work: Work) -> tqdm:
        name = work.__name__.replace("_", " ")
        return tqdm(total=self.train.count, desc=name, unit="example", disable=not self.progress)

    def _key(self, work: Work, state: tuple) -> str:
        tensors = [leaf for leaf in tree_leaves(state) if isinstance(leaf, Tensor)]
        others = [leaf for leaf in tree_leaves(state) if not isinstance(leaf, Tensor)]
        return _digest(f"{self.known_by} {work.__name__} {others}", *tensors)

    def _run(
        self, work: Work, merge: Merge, state: tuple, chunks: Iterable[Pair], bar: tqdm
    ) -> Iterator[tuple[Tensor, Tensor, Part]]:
        """Every chunk with its part, in order; the executor has a few more of them than processors."""
        if self.executor is None:
            for x, y in chunks:
                yield x, y, _computed(work, merge, state, self.objective, x, y)
                bar.update(len(x))
            return
        shared = _pickled((work, merge, state, self.objective))
        waiting: deque[tuple[Tensor, Tensor, Future]] = deque()

        def first() -> tuple[Tensor, Tensor, Part]:
            x, y, future = waiting.popleft()
            part = pickle.loads(future.result())
            bar.update(len(x))
            return x, y, part

        try:
            for x, y in chunks:
                waiting.append((x, y, self.executor.submit(_computed_elsewhere, shared, _pickled((x, y)))))
                if len(waiting) > 2 * (os.cpu_count() or 1):
                    yield first()
            while waiting:
                yield first()
        finally:
            for *_, future in waiting:
                future.cancel()


def added(parts: Iterable[Part]) -> Part:
    total: Part = {}
    for part in parts:
        total = {name: total[name] + value if name in total else value for name, value in part.items()}
    return total


def joined(parts: Iterable[Part]) -> Part:
    parts = list(parts)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _computed(work: Work, merge: Merge, state: tuple, objective: Objective, x: Tensor, y: Tensor) -> Part:
    return merge(work(objective, *rows, *state) for rows in objective.split_rows(x, y))


def _computed_elsewhere(shared: bytes, chunk: bytes) -> bytes:
    """By value, so that no thread works on the caller's model and no process on its memory."""
    (work, merge, state, objective), (x, y) = pickle.loads(shared), pickle.loads(chunk)
    with differentiating(objective.model, x):
        return pickle.dumps(_computed(work, merge, state, objective, x, y))


def _pickled(sent: object) -> bytes:
    try:
        return pickle.dumps(sent)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"an executor needs a model and a loss that can be pickled, of classes and functions that a module defines: {error}"
        ) from error


def _digest(text: str, *tensors: Tensor) -> str:
    digest = hashlib.sha256(text.encode())
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _save(path: Path, tensors: Part, **told: str) -> None:
    """At once or not at all: a killed process leaves whole files."""
    unfinished = path.with_suffix(f".{os.getpid()}")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, unfinished, told)
    unfinished.replace(path)
