r"""Many small networks, each trained from nothing on images with some pixels replaced, one by one or together.

Network e sees :math:`\tilde x = m \odot \mu + (1 - m) \odot x`, where the mask :math:`m` marks the replaced pixels of
each image and :math:`\mu` is the mean colour of the training images; a *mask-only* network sees :math:`m` itself.
Together, the weights of E networks of one architecture are stacked, and one vectorised pass trains all of them
(``torch.func.stack_module_state`` and ``vmap``); every network keeps its own start and its own order of the data, so
that both ways give the same accuracies up to rounding.
"""

import copy
import math
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from ... import networks
from ...data.dataset import Dataset
from ...reproducible import reproducibly
from ...schedule import one_cycle

TRAINING = {
    "epochs": 10,
    "lr": 1e-2,
    "batch_size": 64,
    "weight_decay": 0.0,
}  # the options, and what they are by default

_UPLOADED: dict[tuple[int, str], Tensor] = {}


class Network(NamedTuple):
    """One network to train: its start, the seed of its data order, and what it sees."""

    start: nn.Module
    seed: int
    mask: int  # which of the task's masks
    mask_only: bool


@dataclass
class Task:
    """What a worker needs to train some networks; arrays, since these are sent by value in every executor."""

    images: tuple[np.ndarray, np.ndarray]  # (N, C, H, W): training and test part, as all pairs here
    labels: tuple[np.ndarray, np.ndarray]
    masks: tuple[np.ndarray, np.ndarray]  # bool (M, N, H, W)
    mean: np.ndarray  # (C,)
    networks: list[Network]
    together: bool
    training: dict[str, float]
    device: str


def training_options(given: Mapping[str, float] | None) -> dict[str, float]:
    """All options of a training, the given ones among them.

    Raises:
        ValueError: one that there is not.

    Example:
        >>> training_options({"epochs": 3})
        {'epochs': 3, 'lr': 0.01, 'batch_size': 64, 'weight_decay': 0.0}
    """
    unknown = [name for name in given or {} if name not in TRAINING]
    if unknown:
        raise ValueError(f"training has no option {unknown[0]!r}; there are {', '.join(TRAINING)}")
    return {**TRAINING, **(given or {})}


def retrain(task: Task) -> list[float | str]:
    """Test accuracy of every network of the task, or what went wrong with it, as text."""
    with reproducibly():
        return (_together if task.together else _one_by_one)(task)


def _one_by_one(task: Task) -> list[float | str]:
    results: list[float | str] = []
    for network in task.networks:
        train, test = (_seen(task, part, network) for part in (0, 1))
        model = copy.deepcopy(network.start)
        try:
            networks.train(model, train, seed=network.seed, device=task.device, progress=False, **task.training)
            results.append(networks.accuracy(model, test))
        except ValueError as error:  # a loss that is no longer finite
            results.append(f"training: {error}")
    return results


def _seen(task: Task, part: int, network: Network) -> Dataset:
    """The images as the network sees them, with their labels."""
    images, labels = (_uploaded(pair[part], task.device) for pair in (task.images, task.labels))
    mask = torch.from_numpy(task.masks[part][network.mask]).to(task.device)[:, None]
    if network.mask_only:
        images = mask.to(images.dtype).expand_as(images)
    else:
        images = torch.where(mask, torch.from_numpy(task.mean).to(images)[:, None, None], images)
    return Dataset(images, labels, ())


def _uploaded(array: np.ndarray, device: str) -> Tensor:
    """The array on the device, uploaded once for all tasks of a process that share it, and kept as long as it lives."""
    if torch.device(device).type == "cpu":
        return torch.from_numpy(array)
    key = id(array), device
    if key not in _UPLOADED:
        _UPLOADED[key] = torch.from_numpy(array).to(device)
        weakref.finalize(array, _UPLOADED.pop, key)
    return _UPLOADED[key]


def _together(task: Task) -> list[float | str]:
    """The same as one by one, by one ensemble; AdamW works weight by weight, so stacking changes nothing."""
    device, count, options = task.device, len(task.networks), task.training
    starts = [copy.deepcopy(network.start).to(device) for network in task.networks]
    parameters, buffers = stack_module_state(starts)
    skeleton = copy.deepcopy(starts[0]).to("meta")
    which = torch.tensor([network.mask for network in task.networks], device=device)
    alone = torch.tensor([network.mask_only for network in task.networks], device=device).view(-1, 1, 1, 1, 1)
    images, labels = ([_uploaded(array, device) for array in pair] for pair in (task.images, task.labels))
    masks = [torch.from_numpy(array).to(device) for array in task.masks]
    mean = torch.from_numpy(task.mean).to(images[0])[:, None, None]

    def logits(part: int, rows: Tensor) -> Tensor:
        """Logits ``(E, B, K)`` of the rows ``(E, B)``, other ones for every network."""
        x, mask = images[part][rows], masks[part][which[:, None], rows].unsqueeze(2)
        x = torch.where(alone, mask.to(x.dtype), torch.where(mask, mean, x))
        return vmap(lambda p, b, x: functional_call(skeleton, (p, b), (x,)))(parameters, buffers, x)

    size, batch = len(labels[0]), options["batch_size"]
    optimizer = torch.optim.AdamW(parameters.values(), lr=options["lr"], weight_decay=options["weight_decay"])
    steps = options["epochs"] * math.ceil(size / batch)
    schedule = one_cycle(optimizer, options["lr"], steps)
    orders = [torch.Generator().manual_seed(network.seed) for network in task.networks]
    skeleton.train()
    loss_sum = torch.zeros(count, device=device)
    for _ in range(options["epochs"]):
        order = torch.stack([torch.randperm(size, generator=generator) for generator in orders]).to(device)
        for rows in order.split(batch, dim=1):
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
