"""The conclusions beside and after the lecture: sanity checks."""

from functools import cache

from torch import Tensor

from interp_lab import similarity

from . import claim
from .scenes import EXPLAIN, SEEDS, answers, drawn, network


@cache
def _map(method: str, name: str, seed: int) -> Tensor:
    """Of the class that ``scenes_cnn`` gives, whichever network is asked."""
    return EXPLAIN[method](network(name), drawn(seed).images, answers("scenes_cnn", seed)).sum(1)


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
