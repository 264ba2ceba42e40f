"""The networks of a sweep before they are trained: by name, and one start for every seed."""

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from ... import networks
from ...contract import logits_of
from .images import Part, Source, batch

NETWORKS: dict[str, Callable[[int, int, int, int], nn.Module]] = {
    "small_cnn": networks.small_cnn,
    "softmax_regression": lambda c, h, w, k: networks.softmax_regression(c * h * w, k),
    "mlp": lambda c, h, w, k: networks.mlp(c * h * w, classes=k),
    "digits_cnn": lambda c, h, w, k: networks.digits_cnn(k),
    "scenes_cnn": lambda c, h, w, k: networks.scenes_cnn(k),
    "digits_vit": lambda c, h, w, k: networks.digits_vit(k),
    "scenes_vit": lambda c, h, w, k: networks.scenes_vit(k),
}


def check_name(network: str | Callable[[], nn.Module]) -> None:
    """Refuse an unknown name."""
    if isinstance(network, str) and network not in NETWORKS:
        raise ValueError(f"no network {network!r}; there are {', '.join(NETWORKS)}, or pass a function that makes one")


def factory(network: str | Callable[[], nn.Module], data: Source, part: Part) -> Callable[[], nn.Module]:
    """What makes a new network for such images."""
    if not isinstance(network, str):
        return network
    images, labels = part.load()
    classes = len(getattr(data, "classes", ())) or int(labels.max()) + 1
    channels, height, width = images.shape[1:]
    return partial(NETWORKS[network], channels, height, width, classes)


def start(new: Callable[[], nn.Module], seed: int) -> nn.Module:
    """The network that this seed draws, on the CPU; the global random state is not touched."""
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(seed)
        return new().cpu()


def check_logits(network: nn.Module, parts: tuple[Part, Part]) -> None:
    """Refuse a network without a logit for every class, before anything is trained."""
    with torch.no_grad():  # of two rows, also where there is a single image
        logits = logits_of(copy.deepcopy(network).eval(), batch(parts[0].load()[0], torch.tensor([0, -1])))
    classes = max(2, 1 + max(int(part.load()[1].max()) for part in parts))
    if logits.shape[1] < classes:
        raise ValueError(
            f"the network must give logits (N, K) of two classes or more, here K = {classes} for labels up to {classes - 1}, "
            f"since it is trained by the cross-entropy; it gives K = {logits.shape[1]}"
        )
