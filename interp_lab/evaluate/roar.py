r"""ROAR and KAR: replace the most (or least) relevant pixels, retrain, and see what the networks still know.

An attribution method orders the pixels of every image. The first (ROAR) or last (KAR) fraction t of them is replaced
by the mean colour of the training images, in the training and in the test part, and new networks are trained from
nothing on what is left. Without retraining, a drop of the accuracy could be due to images unlike any seen before; a
retrained network that fails has really lost the evidence.

The replaced pixels can tell the class by their *shape*, whatever stood in them: so next to every accuracy stands that
of a network trained on the masks alone. Where it is high, ROAR says little about the evidence.

Source: Hooker, Erhan, Kindermans, Kim (2019), A benchmark for interpretability methods in deep neural networks,
arXiv:1806.10758; for the leak through the masks Rong, Leemann, Borisov, Kasneci, Kasneci (2022), A consistent and
efficient evaluation strategy for attribution methods, arXiv:2202.00449.
"""

import copy
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from .. import networks
from ..contract import logits_of
from ..data.dataset import Dataset, third
from ..explain_decision.methods import METHODS
from ..reproducible import reproducibly
from .retraining import Network, Task, retrain

Method = Callable[..., Tensor]
Key = tuple[str, float, int]  # of a cell: method, fraction, seed

BATCH = 256  # images attributed at a time
TOGETHER = 64  # cells trained together on a GPU
WHOLE, RANDOM, EDGES = "none", "random", "edges"

NETWORKS: dict[str, Callable[[int, int, int, int], nn.Module]] = {
    "small_cnn": networks.small_cnn,
    "softmax_regression": lambda c, h, w, k: networks.softmax_regression(c * h * w, k),
    "mlp": lambda c, h, w, k: networks.mlp(c * h * w, classes=k),
    "digits_cnn": lambda c, h, w, k: networks.digits_cnn(k),
    "scenes_cnn": lambda c, h, w, k: networks.scenes_cnn(k),
}


@dataclass(frozen=True)
class Cell:
    """One row of the table: test accuracies in [0, 1], or what went wrong."""

    method: str
    fraction: float
    seed: int
    accuracy: float | None = None
    mask_only: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation over the seeds; NaN where there is nothing to average."""

    method: str
    fraction: float
    accuracy: float
    spread: float
    mask_only: float
    mask_only_spread: float
    seeds: int


@dataclass(frozen=True)
class Retraining:
    """What :func:`roar` and :func:`kar` return; ``print`` it, or make a data frame of ``cells`` or of ``summary()``.

    Attributes:
        replaced: ``"most relevant"`` (ROAR) or ``"least relevant"`` (KAR).
        cells: one per method, fraction and seed. The method ``"none"`` at fraction 0 is the network on whole images;
            ``"random"`` and ``"edges"`` are the baselines.
    """

    replaced: str
    cells: tuple[Cell, ...]

    def summary(self) -> list[Summary]:
        groups: dict[tuple[str, float], list[Cell]] = {}
        for cell in self.cells:
            groups.setdefault((cell.method, cell.fraction), []).append(cell)
        rows = []
        for (method, fraction), cells in groups.items():
            both = [
                [v for v in column if v is not None]
                for column in zip(*((c.accuracy, c.mask_only) for c in cells), strict=True)
            ]
            rows.append(Summary(method, fraction, *_moments(both[0]), *_moments(both[1]), len(both[0])))
        return rows

    @property
    def errors(self) -> dict[str, str]:
        """Method -> the first thing that went wrong with it."""
        return {cell.method: cell.error for cell in reversed(self.cells) if cell.error}

    def __str__(self) -> str:
        by_method: dict[str, dict[float, Summary]] = {}
        for row in self.summary():
            by_method.setdefault(row.method, {})[row.fraction] = row
        whole = by_method.pop(WHOLE)[0.0]
        fractions = list(dict.fromkeys(c.fraction for c in self.cells if c.method != WHOLE))
        order = sorted(by_method, key=lambda name: mean(row.accuracy for row in by_method[name].values()))
        order.sort(key=lambda name: math.isnan(mean(row.accuracy for row in by_method[name].values())))
        width = max(map(len, [*order, "whole images"]))
        lines = [
            f"Test accuracy in % after retraining without the {self.replaced} pixels,",
            f"mean +- standard deviation over {whole.seeds} seeds; in brackets, of networks trained on the masks alone.",
            f"{'replaced':{width}}" + "".join(f"{f'{100 * f:g} %':>20}" for f in fractions),
        ]
        for name in order:
            row = "".join(f"{_percent(by_method[name][f]):>20}" for f in fractions)
            lines.append(f"{name:{width}}{row}")
        lines.append(f"{'whole images':{width}}{_percent(whole):>20}")
        return "\n".join(lines + [f"{name}: {error}" for name, error in self.errors.items()])


def _moments(values: list[float]) -> tuple[float, float]:
    return mean(values) if values else math.nan, stdev(values) if len(values) > 1 else math.nan


def _percent(row: Summary) -> str:
    if row.seeds == 0:
        return "failed"
    spread = f" +-{100 * row.spread:4.1f}" if row.seeds > 1 else ""
    alone = "" if math.isnan(row.mask_only) else f" ({100 * row.mask_only:.1f})"
    return f"{100 * row.accuracy:.1f}{spread}{alone}"


def roar(
    methods: Sequence[str] | Mapping[str, Method],
    dataset: Dataset | tuple[Dataset, Dataset],
    network: str | Callable[[], nn.Module] = "small_cnn",
    *,
    fractions: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    results: str | os.PathLike | None = None,
    executor: Executor | None = None,
    device: torch.device | str | None = None,
    model: nn.Module | None = None,
    epochs: int = 10,
    lr: float = 1e-2,
    batch_size: int = 64,
    weight_decay: float = 0.0,
    together: int | None = None,
    in_flight: int | None = None,
    progress: bool = True,
    replaced: str = "most relevant",
) -> Retraining:
    """Test accuracy after retraining without the most relevant pixels: the lower, the better the method found them.

    The attributions are computed once per method, of one network and for the class that it predicts, so that no label
    of a test image is used. Exactly ``round(fraction * H * W)`` pixels of every image are replaced, in all
    channels, by the mean colour of the training images; equally relevant pixels come in a random order. Every seed
    gives one start and one order of the data, the same for all methods and fractions. Nothing is chosen by the test
    part. A random order and the Sobel edge detector always run beside the methods.

    A method that raises, or gives NaN for one image, has its error in its cells and does not end the sweep.

    Args:
        methods: names in ``METHODS``, or name -> ``method(model, x, target)``.
        dataset: (training part, test part); of one Dataset, a fixed third of every class is the test part.
        network: makes a new network, or its name: ``small_cnn``, ``softmax_regression``, ``mlp``, ``digits_cnn``,
            ``scenes_cnn``.
        fractions: of pixels to replace, in (0, 1).
        results: a file of JSON lines. Every finished cell is appended, and a sweep that finds cells there goes on
            after them; further methods, fractions and seeds can be added in the same way. Cells with an error are
            tried again. A method is known by its name and its plain options.
        executor: spreads the cells. Any ``concurrent.futures.Executor``: a ``ProcessPoolExecutor`` (not one that
            forks after torch has started threads), a Dask cluster by ``Client.get_executor()``, or, on SLURM,
            ``submitit.AutoExecutor``, whose jobs see the same folder. On the CPU the numbers do not depend on it, nor
            on the number of threads: every process computes on one.
        device: where networks are trained and explained; the CPU by default.
        model: the network to explain; by default, one is trained with seed 0 on the whole images.
        together: cells trained as one ensemble: by default 64 on a GPU and 1 on the CPU, where it makes small
            convolutional networks no faster (MLPs take two thirds of the time). The way makes no difference but
            rounding. Networks with dropout, which draws other numbers in an ensemble, are trained one by one.
        in_flight: tasks handed to the executor at a time, which bounds the memory; by default, twice the
            processors of this machine. Set it for a cluster.
        progress: show a bar with the time left.
        replaced: ``"least relevant"`` makes it KAR.

    Raises:
        ValueError: an unknown name, a network without a logit ``(N, K)`` for every class, a fraction that replaces no pixel or all of them, a results file of another sweep
            (the message names what differs).
    """
    training = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "weight_decay": weight_decay}
    if replaced not in ("most relevant", "least relevant"):
        raise ValueError(f"replaced must be 'most relevant' or 'least relevant', got {replaced!r}")
    device = torch.device(device or "cpu")
    functions = _functions(methods)
    train, test = _split(dataset)
    _check(train, test, fractions, seeds)
    new = _factory(network, train)
    starts = {seed: _start(new, seed) for seed in seeds}
    _check_logits(starts[seeds[0]], train, test)
    together = _group(together, device, starts[seeds[0]])
    keys: list[Key] = [(WHOLE, 0.0, seed) for seed in seeds]
    keys += [(name, fraction, seed) for name in functions for fraction in fractions for seed in seeds]
    header = {
        "replaced": replaced,
        "training images": _digest(train.images, train.labels),
        "test images": _digest(test.images, test.labels),
        "network": _digest(*_start(new, 0).state_dict().values(), text=repr(_start(new, 0))),
        "explained model": "trained" if model is None else _digest(*model.state_dict().values(), text=repr(model)),
        **training,
    }

    @cache
    def explained() -> nn.Module:
        if model is not None:
            return copy.deepcopy(model).to(device).eval()
        trained = _start(new, 0)
        with reproducibly():
            networks.train(trained, train, seed=0, device=device, progress=False, **training)
        return trained

    images, labels = (train.images.numpy(), test.images.numpy()), (train.labels.numpy(), test.labels.numpy())
    pixels = train.images[0, 0].numel()

    def masks(name: str, fraction: float, ranks: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Bool masks ``(N, H, W)`` of the replaced pixels of both parts."""
        if ranks is None:
            return tuple(torch.zeros(len(part), *part.images.shape[2:], dtype=torch.bool) for part in (train, test))
        count = round(fraction * pixels)
        if replaced == "most relevant":
            return tuple(part < count for part in ranks)
        return tuple(part >= pixels - count for part in ranks)

    def tasks() -> Iterator[tuple[list[Key], Task]]:
        """The chunks of cells with something to do; an interrupted sweep cuts the same chunks when it resumes."""
        ranks: dict[str, tuple[Tensor, Tensor] | str | None] = {}
        for start in range(0, len(keys), together):
            chunk = keys[start : start + together]
            if all(key in records for key in chunk):
                continue
            names = dict.fromkeys(name for name, *_ in chunk)
            ranks = {
                name: ranks[name] if name in ranks else _ranks(functions.get(name), explained(), train, test)
                for name in names
            }
            record({key: {"error": ranks[key[0]]} for key in chunk if isinstance(ranks[key[0]], str)})
            chunk = [key for key in chunk if not isinstance(ranks[key[0]], str)]
            if not chunk:
                continue
            kinds = list(dict.fromkeys(key[:2] for key in chunk))
            both = [
                torch.stack(part).numpy()
                for part in zip(*(masks(*kind, ranks[kind[0]]) for kind in kinds), strict=True)
            ]
            todo = [
                Network(starts[seed], seed, kinds.index((name, fraction)), mask_only)
                for name, fraction, seed in chunk
                for mask_only in ((False, True) if name != WHOLE else (False,))
            ]
            fill = train.images.mean((0, 2, 3)).numpy()
            yield chunk, Task(images, labels, tuple(both), fill, todo, together > 1, training, str(device))

    with _Results(results, header, functions) as file:
        records = file.read(keys)
        bar = tqdm(total=len(keys), initial=len(records), desc="retraining", unit="cell", disable=not progress)

        def record(found: dict[Key, dict]) -> None:
            fresh = {key: value for key, value in found.items() if key not in records}
            file.append(fresh)
            records.update(fresh)
            bar.update(len(fresh))

        with bar:
            for chunk, outcomes in _executed(tasks(), executor, in_flight or 2 * (os.cpu_count() or 1)):
                outcome = iter(outcomes)
                record({key: _record(next(outcome), None if key[0] == WHOLE else next(outcome)) for key in chunk})
    return Retraining(replaced, tuple(Cell(*key, **records[key]) for key in keys))


def kar(
    methods: Sequence[str] | Mapping[str, Method],
    dataset: Dataset | tuple[Dataset, Dataset],
    network: str | Callable[[], nn.Module] = "small_cnn",
    **options: Any,
) -> Retraining:
    """Test accuracy after retraining without the least relevant pixels: the higher, the better the method kept them.

    As :func:`roar`, with the same options. ``fractions`` are those replaced: 0.9 keeps the most relevant tenth.
    """
    return roar(methods, dataset, network, replaced="least relevant", **options)


def _record(accuracy: float | str, mask_only: float | str | None) -> dict:
    for value in (accuracy, mask_only):
        if isinstance(value, str):
            return {"error": value}
    return {"accuracy": accuracy, "mask_only": mask_only}


def _executed(
    tasks: Iterable[tuple[list[Key], Task]], executor: Executor | None, in_flight: int
) -> Iterator[tuple[list[Key], list[float | str]]]:
    """Every chunk with its results, as they come."""
    if executor is None:
        yield from ((chunk, retrain(task)) for chunk, task in tasks)
        return
    tasks, pending = iter(tasks), {}
    try:
        while True:
            for chunk, task in islice(tasks, in_flight - len(pending)):
                pending[executor.submit(retrain, task)] = chunk
            if not pending:
                return
            finished = [future for future in pending if future.done()]  # asked for, since submitit's jobs do not call
            for future in finished:
                yield pending.pop(future), future.result()
            if not finished:
                time.sleep(0.02)
    finally:
        for future in pending:
            future.cancel()


def _functions(methods: Sequence[str] | Mapping[str, Method]) -> dict[str, Method]:
    if isinstance(methods, str):
        raise ValueError(f"methods must be a list of names or a dictionary, got {methods!r}; write [{methods!r}]")
    if not isinstance(methods, Mapping):
        unknown = [name for name in methods if name not in METHODS]
        if unknown:
            raise ValueError(f"no method {unknown[0]!r}; METHODS has {', '.join(METHODS)}")
        methods = {name: METHODS[name] for name in methods}
    taken = {WHOLE, RANDOM, EDGES} & set(methods)
    if taken:
        raise ValueError(f"the name {taken.pop()!r} is taken: both baselines and the whole images run always")
    return {**methods, RANDOM: random_order, EDGES: edges}


def _split(dataset: Dataset | tuple[Dataset, Dataset]) -> tuple[Dataset, Dataset]:
    if isinstance(dataset, Dataset):
        dataset = dataset[third(dataset.labels, test=False)], dataset[third(dataset.labels, test=True)]
    train, test = (part.to("cpu") for part in dataset)
    return train, test


def _check(train: Dataset, test: Dataset, fractions: Sequence[float], seeds: Sequence[int]) -> None:
    pixels = train.images[0, 0].numel()
    if train.images.shape[1:] != test.images.shape[1:]:
        raise ValueError(
            f"both parts need images of one shape, got {tuple(train.images.shape)} and {tuple(test.images.shape)}"
        )
    for fraction in fractions:
        if not 0 < round(fraction * pixels) < pixels:
            raise ValueError(f"a fraction must replace some of the {pixels} pixels, not all or none; got {fraction}")
    for name, values in (("fractions", fractions), ("seeds", seeds)):
        if not values or len(set(values)) < len(values):
            raise ValueError(f"{name} must be different from each other, and one at least; got {list(values)}")


def _check_logits(start: nn.Module, train: Dataset, test: Dataset) -> None:
    with torch.no_grad():
        logits = logits_of(copy.deepcopy(start).eval(), train.images[:2])
    classes = max(2, 1 + max(int(part.labels.max()) for part in (train, test)))
    if logits.shape[1] < classes:
        raise ValueError(
            f"the network must give logits (N, K) of two classes or more, here K = {classes} for labels up to {classes - 1}, "
            f"since it is trained by the cross-entropy; it gives K = {logits.shape[1]}"
        )


def _factory(network: str | Callable[[], nn.Module], data: Dataset) -> Callable[[], nn.Module]:
    if not isinstance(network, str):
        return network
    if network not in NETWORKS:
        raise ValueError(f"no network {network!r}; there are {', '.join(NETWORKS)}, or pass a function that makes one")
    classes = len(data.classes) or int(data.labels.max()) + 1
    return partial(NETWORKS[network], *data.images.shape[1:], classes)


def _start(new: Callable[[], nn.Module], seed: int) -> nn.Module:
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(seed)
        return new().cpu()


def _group(together: int | None, device: torch.device, start: nn.Module) -> int:
    dropout = [name for name, module in start.named_modules() if isinstance(module, nn.modules.dropout._DropoutNd)]
    if together is None:
        return TOGETHER if device.type == "cuda" and not dropout else 1
    if together < 1 or (together > 1 and dropout):
        why = (
            f"module {dropout[0]!r} is a dropout, which draws other numbers in an ensemble" if dropout else "too small"
        )
        raise ValueError(f"together must be a number of cells from 1 on, and 1 with dropout; got {together}: {why}")
    return together


def _digest(*tensors: Tensor, text: str = "") -> str:
    digest = hashlib.sha256(text.encode())
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy())
    return digest.hexdigest()[:16]


def random_order(model: nn.Module, x: Tensor, target: Tensor | None = None) -> Tensor:
    """No relevance at all: the ties are then broken at random."""
    return torch.zeros_like(x)


def edges(model: nn.Module, x: Tensor, target: Tensor | None = None) -> Tensor:
    r"""Magnitude of the Sobel gradient of the summed channels, ``(N, 1, H, W)``: it knows nothing of the model."""
    smooth, slope = torch.tensor([1.0, 2.0, 1.0]), torch.tensor([-1.0, 0.0, 1.0])
    kernels = torch.stack([torch.outer(smooth, slope), torch.outer(slope, smooth)])[:, None].to(x)
    return F.conv2d(F.pad(x.sum(1, keepdim=True), (1, 1, 1, 1), mode="replicate"), kernels).norm(dim=1, keepdim=True)


def _ranks(
    method: Method | None, model: nn.Module, train: Dataset, test: Dataset
) -> tuple[Tensor, Tensor] | str | None:
    """Place of every pixel ``(N, H, W)``, 0 for the most relevant, of both parts; or what went wrong.

    None, for the whole images, stands for itself.
    """
    if method is None:
        return None
    generator, parts = torch.Generator().manual_seed(0), []
    try:
        with reproducibly():
            for part, data in (("training", train), ("test", test)):
                batches = ((start, data.images[start : start + BATCH]) for start in range(0, len(data), BATCH))
                ranks = [rank_pixels(_attributed(method, model, x, start, part), generator) for start, x in batches]
                parts.append(torch.cat(ranks))
    except _MethodError as error:
        return str(error)
    return tuple(parts)


class _MethodError(Exception):
    """A method failed; the message names the image."""


def _attributed(method: Method, model: nn.Module, x: Tensor, start: int, part: str) -> Tensor:
    x = x.to(next(model.parameters()).device)
    with torch.no_grad():
        target = model(x).argmax(1)
    try:
        attribution = method(model, x, target)
    except Exception as error:  # whatever a method may raise
        row, error = _first_failure(method, model, x, target) or (None, error)
        where = f"{part} images {start} to {start + len(x) - 1}" if row is None else f"{part} image {start + row}"
        raise _MethodError(f"{type(error).__name__} for {where}: {error}") from error
    if attribution.dim() not in (3, 4) or len(attribution) != len(x) or attribution.shape[-2:] != x.shape[-2:]:
        raise _MethodError(f"gives shape {tuple(attribution.shape)} for images {tuple(x.shape)}")
    bad = (~attribution.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        raise _MethodError(f"gives NaN or infinite values for {part} image {start + bad[0]}")
    return attribution.detach()


def _first_failure(method: Method, model: nn.Module, x: Tensor, target: Tensor) -> tuple[int, Exception] | None:
    for row in range(len(x)):
        try:
            method(model, x[row : row + 1], target[row : row + 1])
        except Exception as error:
            return row, error
    return None


def rank_pixels(attribution: Tensor, generator: torch.Generator) -> Tensor:
    """Place of every pixel in the order of relevance, int32 ``(N, H, W)`` on the CPU: 0 is the most relevant.

    Channels are summed; equally relevant pixels come in an order that the generator draws for every image.
    """
    values = attribution.cpu() if attribution.dim() == 3 else attribution.sum(1).cpu()
    shuffled = torch.rand(len(values), values[0].numel(), generator=generator).argsort(1)
    order = values.flatten(1).gather(1, shuffled).argsort(dim=1, descending=True, stable=True)
    places = torch.empty_like(order, dtype=torch.int32)
    places.scatter_(1, shuffled.gather(1, order), torch.arange(order.shape[1], dtype=torch.int32).expand_as(places))
    return places.view(values.shape)


class _Results:
    """The file of finished cells: a header that names the sweep, then one JSON object per cell.

    Each is written at once, so a killed sweep leaves whole lines, or one torn line at the end, which is dropped.
    """

    def __init__(self, path: str | os.PathLike | None, header: dict, functions: Mapping[str, Method]) -> None:
        self.path, self.header = None if path is None else Path(path), header
        self.described = {name: _describe(function) for name, function in functions.items()}

    def __enter__(self) -> "_Results":
        if self.path is not None:
            self.file = open(self.path, "a+b", buffering=0)
        return self

    def __exit__(self, *error: object) -> None:
        if self.path is not None:
            self.file.close()

    def read(self, keys: list[Key]) -> dict[Key, dict]:
        """The finished cells among the keys."""
        if self.path is None:
            return {}
        self.file.seek(0)
        content = self.file.read()
        whole = content.rfind(b"\n") + 1
        self.file.truncate(whole)
        lines = content[:whole].splitlines()
        if not lines:
            self._write([self.header])
            return {}
        rows = []
        for number, line in enumerate(lines, 1):
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise ValueError(f"line {number} of {self.path} is no JSON; give the sweep another file") from error
        other = [f"{name} {rows[0].get(name)!r}, not {value!r}" for name, value in self.header.items() if rows[0].get(name) != value]  # fmt: skip
        if other:
            raise ValueError(f"{self.path} holds another sweep, with {'; '.join(other)}; give this one another file")
        wanted, found = set(keys), {}
        for row in rows[1:]:
            key = (row.pop("method"), row.pop("fraction"), row.pop("seed"))
            function = row.pop("function", None)
            if key not in wanted or "error" in row:
                continue
            if function != self.described.get(key[0]):
                raise ValueError(
                    f"in {self.path}, {key[0]!r} is {function}, here it is {self.described[key[0]]}; "
                    "give it another name, or this sweep another file"
                )
            found[key] = row
        return found

    def append(self, cells: dict[Key, dict]) -> None:
        if self.path is not None and cells:
            self._write(
                [
                    {"method": name, "fraction": fraction, "seed": seed, "function": self.described.get(name), **cell}
                    for (name, fraction, seed), cell in cells.items()
                ]
            )

    def _write(self, rows: list[dict]) -> None:
        self.file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
        os.fsync(self.file.fileno())


def _describe(function: Method) -> str:
    """Name of a function and its plain options, to tell ``smoothgrad(n=10)`` from ``smoothgrad(n=50)``."""
    if isinstance(function, partial):
        plain = {k: v for k, v in sorted(function.keywords.items()) if isinstance(v, bool | int | float | str)}
        return f"{_describe(function.func)}({', '.join(f'{k}={v!r}' for k, v in plain.items())})"
    return getattr(function, "__qualname__", type(function).__qualname__)
