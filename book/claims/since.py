"""The conclusions beside and after the lecture: sanity checks, fragility."""

from functools import cache

import torch
from torch import Tensor

from interp_lab import attack_attribution, saliency, similarity, top_k_overlap

from . import claim
from .scenes import EXPLAIN, NETWORKS, SEEDS, answers, drawn, gradient, trained


@cache
def _map(method: str, name: str, seed: int) -> Tensor:
    """Of the class that ``scenes_cnn`` gives, whichever network is asked."""
    return EXPLAIN[method](trained(name), drawn(seed).images, answers("scenes_cnn", seed)).sum(1)


@claim(
    "since/sanity_checks",
    above=0.1,
    sign=("magnitude", "signed"),
    method=("saliency", "guided_backprop", "rectgrad", "lrp", "grad_cam", "smoothgrad"),
    second=("scenes_retrained", "scenes_watermark"),
    untrained=(0, 1, 2),
    seed=SEEDS,
)
def a_second_training_gives_a_similar_map(sign: str, method: str, second: str, untrained: int, seed: int) -> float:
    """A method's maps of two trained networks resemble each other more than those of a trained and an untrained one (rank
    correlation, by .1 at least).
    """

    def like(name: str) -> float:
        maps = [_map(method, n, seed) for n in ("scenes_cnn", name)]
        return similarity(*(m.abs() if sign == "magnitude" else m for m in maps)).spearman.nanmean().item()

    return like(second) - like(f"untrained {untrained}")


@cache
def _kept(name: str, levels: int, k: int, seed: int) -> dict[str, float]:
    """Of a saliency map's k strongest pixels, the share that outlives a change by so many grey levels: an attack's, a coin's."""
    images, answer = drawn(seed).images[:24], answers(name, seed)[:24]
    coin = torch.rand(images.shape, generator=torch.Generator().manual_seed(seed)).sub(0.5).sign()
    changed = {
        "attack": attack_attribution(trained(name), images, k=k, radius=levels / 255, steps=10),
        "coin": (images + levels / 255 * coin).clamp(0, 1),
    }
    maps = {how: saliency(trained(name), x, answer) for how, x in changed.items()}
    return {how: top_k_overlap(gradient(name, seed)[:24], map_, k).mean().item() for how, map_ in maps.items()}


FRAGILE = {"levels": (4, 1, 2, 8), "k": (200, 50), "seed": SEEDS}


@claim("since/fragility", below=-0.2, **FRAGILE, network=NETWORKS)
def an_attack_moves_the_map(levels: int, k: int, seed: int, network: str) -> float:
    """An attack on the saliency map leaves fewer of its strongest pixels in place than a random change of the same size does
    (by more than .2 of them).
    """
    kept = _kept(network, levels, k, seed)
    return kept["attack"] - kept["coin"]


@claim("since/fragility", above=0.1, **FRAGILE, beside=NETWORKS)
def robust_training_holds_the_map(levels: int, k: int, seed: int, beside: str) -> float:
    """The attack leaves more of the map's strongest pixels in place if the network was trained on adversarial examples (by
    more than .1 of them).
    """
    return _kept("scenes_robust", levels, k, seed)["attack"] - _kept(beside, levels, k, seed)["attack"]
