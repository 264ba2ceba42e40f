r"""Many small networks, each trained from nothing on images with some pixels replaced, one by one or together.

Network e sees :math:`\tilde x = m \odot \mu + (1 - m) \odot x`, where the mask :math:`m` marks the replaced pixels of
each image and :math:`\mu` is the mean colour of the training images; a *mask-only* network sees :math:`m` itself.
Together, the weights of E networks of one architecture are stacked, and one vectorised pass trains all of them
(``torch.func.stack_module_state`` and ``vmap``); every network keeps its own start and its own order of the data, so
that both ways give the same accuracies up to rounding.
"""

import copy
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from ... import networks
from ...reproducible import reproducibly
from ...schedule import one_cycle
from .images import Part, batch, mapped
from .ranks import SHIFT, Ranks, among


class Training(NamedTuple):
    """The options of a training, as they are by default."""

    epochs: int = 10
    lr: float = 1e-2
    batch_size: int = 64
    weight_decay: float = 0.0


class Network(NamedTuple):
    """One network to train: its start, the seed of its data order, and what it sees."""

    start: nn.Module
    seed: int
    order: int  # which of the task's ranks
    places: range  # of the pixels that are replaced
    mask_only: bool


@dataclass
class Task:
    """What a worker needs to train some networks: some kilobytes beside their starts, since the data are in files."""

    parts: tuple[Part, Part]  # training and test part
    ranks: list[Ranks]
    mean: np.ndarray  # (C,); an array, as torch would share the memory of a tensor with local processes
    networks: list[Network]
    together: bool
    training: Training
    device: str
    processes: int = 1  # that share the training of one network


@dataclass
class Replaced:
    """The images ``(N, C, H, W)`` as a network sees them, made batch by batch."""

    images: Tensor
    ranks: Tensor | None
    places: range
    mean: Tensor  # (C, 1, 1)
    mask_only: bool

    def __len__(self) -> int:
        return len(self.images)

    @property
    def device(self) -> torch.device:
        return self.images.device

    def __getitem__(self, rows: Tensor) -> Tensor:
        if self.ranks is None:
            return batch(self.images, rows)
        mask = among(self.ranks[rows], self.places)[:, None]
        if self.mask_only:
            return mask.to(self.mean.dtype).expand(-1, len(self.mean), -1, -1)
        return torch.where(mask, self.mean, batch(self.images, rows))

    def split(self, size: int) -> Iterator[Tensor]:
        return (self[rows] for rows in torch.arange(len(self)).split(size))


class Examples(NamedTuple):
    """What :func:`~interp_lab.networks.train` reads."""

    images: Replaced
    labels: Tensor


def training_options(given: Mapping[str, Any]) -> Training:
    """All options of a training, the given ones among them.

    Raises:
        ValueError: one that there is not.

    Example:
        >>> training_options({"epochs": 3})
        Training(epochs=3, lr=0.01, batch_size=64, weight_decay=0.0)
    """
    unknown = [name for name in given if name not in Training._fields]
    if unknown:
        raise ValueError(f"training has no option {unknown[0]!r}; there are {', '.join(Training._fields)}")
    return Training(**given)


def retrain(task: Task) -> list[float | str]:
    """Test accuracy of every network of the task, or what went wrong with it, as text."""
    if task.processes > 1:
        with TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(_share, (task, Path(folder)), nprocs=task.processes)
            return json.loads(Path(folder, "results").read_text())
    with reproducibly():
        return (_together if task.together else _one_by_one)(task)


def _share(rank: int, task: Task, folder: Path) -> None:
    """What one of several processes does, each on a GPU of its own where there are GPUs."""
    backend, device = ("nccl", f"cuda:{rank}") if task.device.startswith("cuda") else ("gloo", task.device)
    group = Path(folder, "group").as_uri()
    distributed.init_process_group(backend, init_method=group, rank=rank, world_size=task.processes)
    with reproducibly():
        results = _one_by_one(replace(task, device=device))
    if rank == 0:
        Path(folder, "results").write_text(json.dumps(results))
    distributed.destroy_process_group()


def _one_by_one(task: Task) -> list[float | str]:
    results: list[float | str] = []
    options = task.training._asdict()
    for network in task.networks:
        train, test = (seen(task, part, network) for part in (0, 1))
        model = copy.deepcopy(network.start)
        try:
            networks.train(model, train, seed=network.seed, device=task.device, progress=False, **options)
            results.append(networks.accuracy(model, test))
        except ValueError as error:  # a loss that is no longer finite
            results.append(f"training: {error}")
    return results


def seen(task: Task, part: int, network: Network) -> Examples:
    """The images of a part as the network sees them, with their labels."""
    images, labels = task.parts[part].load(task.device)
    files = task.ranks[network.order]
    ranks = None if files is None else mapped(files[part]).to(images.device)
    mean = torch.from_numpy(task.mean).to(images.device)[:, None, None]
    return Examples(Replaced(images, ranks, network.places, mean, network.mask_only), labels)


def _together(task: Task) -> list[float | str]:
    """The same as one by one, by one ensemble; AdamW works weight by weight, so stacking changes nothing."""
    device, count, options = task.device, len(task.networks), task.training
    starts = [copy.deepcopy(network.start).to(device) for network in task.networks]
    parameters, buffers = stack_module_state(starts)
    skeleton = copy.deepcopy(starts[0]).to("meta")
    images, labels = zip(*([tensor.to(device) for tensor in part.load(device)] for part in task.parts), strict=True)
    ranks = [_stacked(task, part, images[part]) for part in (0, 1)]
    mean = torch.from_numpy(task.mean).to(device)[:, None, None]
    which = torch.tensor([[network.order] for network in task.networks], device=device)
    low, high, alone = (
        torch.tensor(values, device=device).view(-1, 1, 1, 1, 1)
        for values in zip(
            *((n.places.start - SHIFT, n.places.stop - SHIFT, n.mask_only) for n in task.networks), strict=True
        )
    )

    def logits(part: int, rows: Tensor) -> Tensor:
        """Logits ``(E, B, K)`` of the rows ``(E, B)``, other ones for every network."""
        x, rank = batch(images[part], rows), ranks[part][which, rows].unsqueeze(2)
        mask = (rank >= low) & (rank < high)
        x = torch.where(alone, mask.to(x.dtype), torch.where(mask, mean, x))
        return vmap(lambda p, b, x: functional_call(skeleton, (p, b), (x,)))(parameters, buffers, x)

    size = len(labels[0])
    optimizer = torch.optim.AdamW(parameters.values(), lr=options.lr, weight_decay=options.weight_decay)
    schedule = one_cycle(optimizer, options.lr, options.epochs * math.ceil(size / options.batch_size))
    orders = [torch.Generator().manual_seed(network.seed) for network in task.networks]
    skeleton.train()
    loss_sum = torch.zeros(count, device=device)
    for _ in range(options.epochs):
        order = torch.stack([torch.randperm(size, generator=generator) for generator in orders]).to(device)
        for rows in order.split(options.batch_size, dim=1):
            losses = F.cross_entropy(logits(0, rows).movedim(2, 1), labels[0][rows], reduction="none").mean(1)
            optimizer.zero_grad()
            losses.sum().backward()
            optimizer.step()
            schedule.step()
            loss_sum = loss_sum + losses.detach()
    skeleton.eval()
    with torch.no_grad():
        everything = torch.arange(len(labels[1]), device=device).expand(count, -1)
        hits = sum((logits(1, rows).argmax(2) == labels[1][rows]).sum(1) for rows in everything.split(256, dim=1))
    return [
        hit / len(labels[1]) if math.isfinite(loss) else f"training: the loss became {loss}; lower lr"
        for hit, loss in zip(hits.tolist(), loss_sum.tolist(), strict=True)
    ]


def _stacked(task: Task, part: int, images: Tensor) -> Tensor:
    """The ranks ``(O, N, H, W)`` of all orders of the task; zeros for the whole images, of which no place is replaced."""
    whole = torch.zeros(len(images), *images.shape[2:], dtype=torch.int16)
    return torch.stack([whole if files is None else mapped(files[part]) for files in task.ranks]).to(images.device)
