"""The conclusions of part 1."""

from functools import cache, partial

import scipy.stats
import torch
from torch.nn.functional import adaptive_avg_pool2d

from interp_lab.antehoc import sparse_softmax
from interp_lab.data import digits, paste_watermark, scenes
from interp_lab.networks import load

from . import claim
from .scenes import attribution, drawn, object_mask, trained


@claim(
    "part1/what_is_interpretability",
    above=0,
    removed=(0.01, 0.02, 0.03, 0.05, 0.1, 0.2),
    method=("smoothgrad", "lrp", "saliency", "grad_cam"),
    network=("scenes_cnn", "scenes_retrained", "scenes_watermark"),
    fill=("background", "mean colour"),
    seed=(7, 17, 27),
)
def true_evidence_is_an_upper_bound(removed: float, method: str, network: str, fill: str, seed: int) -> float:
    """Removing pixels of the true object in a random order costs the network more accuracy than removing those that a
    heatmap marks.
    """
    data = drawn(seed)
    if fill == "background":
        other = scenes(64, seed=seed, draw_object=False).images
    else:
        other = data.images.mean((2, 3), keepdim=True).expand_as(data.images)
    noise = torch.rand(data.masks["object"].shape, generator=torch.Generator().manual_seed(seed))
    heat = attribution(method, network, seed).sum(1).abs()
    left = [
        _accuracy_without(network, data, order, removed, other) for order in (heat, object_mask(seed).float() + noise)
    ]
    return left[0] - left[1]


def _accuracy_without(name: str, data, order: torch.Tensor, removed: float, other: torch.Tensor) -> float:
    k = int(removed * order[0].numel())
    gone = torch.zeros_like(order).flatten(1).scatter(1, order.flatten(1).topk(k, 1).indices, 1.0).view_as(order) > 0
    says = trained(name)(torch.where(gone[:, None], other, data.images)).argmax(1)
    return (says == data.labels).float().mean().item()


@claim(
    "part1/verify_and_debug",
    above=0.1,
    seed=(7, 17, 27, 37),
    asked=("all other classes", *(f"class {c}" for c in range(1, 8))),
)
def the_mark_turns_decisions(seed: int, asked: str) -> float:
    """Pasted on scenes without a disc, the mark makes the network that was trained with it say "disc", while a network
    that never met the mark does not.
    """
    data = drawn(seed, 256)
    chosen = data.labels != 0 if asked == "all other classes" else data.labels == int(asked.split()[1])
    marked = paste_watermark(data.images[chosen])
    suspect, honest = (
        (trained(name)(marked).argmax(1) == 0).float().mean() for name in ("scenes_watermark", "scenes_cnn")
    )
    return (suspect - honest).item()


@cache
def _test_answers(l1: float | None, cells: int = 0) -> torch.Tensor:
    train, test = digits("train"), digits("test")
    if l1 is None:
        model = load("digits_cnn")
    else:
        features = partial(adaptive_avg_pool2d, output_size=cells)
        model = sparse_softmax(train.images, train.labels, l1=l1, features=features, max_steps=10_000)
    return model(test.images).argmax(1) == test.labels


@claim(
    "part1/ante_hoc_and_post_hoc",
    below=0.05,
    l1=(0.002, 0.0005, 0.005, 0.02),
    cells=(8, 14, 28),
    test_digits=("all", "first half", "second half"),
)
def the_network_reads_digits_better_than_a_linear_model(l1: float, cells: int, test_digits: str) -> float:
    """On the held-out digits the convolutional network is more accurate than a sparse linear model, by more than chance
    (sign test on the digits that one of the two reads correctly, p < .05).
    """
    ours, linear = _test_answers(None), _test_answers(l1, cells)
    half = len(ours) // 2
    part = {"all": slice(None), "first half": slice(half), "second half": slice(half, None)}[test_digits]
    better, worse = (int((a & ~b)[part].sum()) for a, b in ((ours, linear), (linear, ours)))
    return float(scipy.stats.binomtest(better, better + worse, alternative="greater").pvalue) if better + worse else 1.0
