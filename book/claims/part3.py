"""The conclusions of part 3: coherence, class sensitivity, selectivity, ROAR."""

import copy
import warnings
from functools import cache

import torch
from torch import Tensor, nn

from interp_lab import (
    METHODS,
    coherence,
    integrated_gradients,
    roar,
    selectivity,
    similarity,
)
from interp_lab.data import digits, scenes
from interp_lab.evaluate.roar import random_order
from interp_lab.networks import load

from . import claim
from .scenes import (
    BASELINES,
    EXPLAIN,
    FROM_BASELINE,
    NETWORKS,
    SCORES,
    SEEDS,
    SIGNS,
    asked_of_two,
    drawn,
    object_mask,
    score_of,
    surely,
    trained,
    two_objects,
)

METHOD_NAMES = tuple(name for name in METHODS if name not in ("rise", "shapley"))  # which take hundreds of passes
REDISTRIBUTING, GRADIENTS = ("lrp", "deep_taylor", "rectgrad"), ("saliency", "gradient_x_input", "integrated_gradients")


# Coherence


@claim(
    "part3/coherence",
    above=0,
    method=METHOD_NAMES,
    score=("mass", "rank"),
    margin=(0, 2),
    sign=SIGNS,
    network=NETWORKS,
    seed=SEEDS,
)
def maps_beat_chance(method: str, score: str, margin: int, sign: str, network: str, seed: int) -> float:
    """A method's map lies on the object more than a map that knows nothing."""
    area = object_mask(seed, margin).flatten(1).float().mean(1)
    return surely(score_of(method, network, seed, score=score, margin=margin, sign=sign) - area)


@claim(
    "part3/coherence",
    above=0,
    baseline=BASELINES,
    margin=(0, 2),
    score=("mass", "rank"),
    sign=SIGNS,
    network=NETWORKS,
    seed=SEEDS,
)
def redistribution_leads(
    baseline: str,
    margin: int,
    score: str,
    sign: str,
    network: str,
    seed: int,
) -> float:
    """LRP, deep Taylor and RectGrad all lie on the object more
    than saliency, gradient x input and integrated gradients.
    """
    how = {"score": score, "margin": margin, "sign": sign}

    def mean(method: str) -> float:
        return score_of(method, network, seed, baseline, **how).mean().item()

    return min(map(mean, REDISTRIBUTING)) - max(map(mean, GRADIENTS))


@claim("part3/coherence", above=0, margin=(0, 1, 2), score=("mass", "rank"), sign=SIGNS, network=NETWORKS, seed=SEEDS)
def deep_taylor_beats_lrp(margin: int, score: str, sign: str, network: str, seed: int) -> float:
    """Deep Taylor lies on the object more than LRP, and these scenes show it."""
    options = {"score": score, "margin": margin, "sign": sign}
    return surely(score_of("deep_taylor", network, seed, **options) - score_of("lrp", network, seed, **options))


@claim("part3/coherence", above=0.9, margin=(2, 1, 0), sign=SIGNS, network=NETWORKS, seed=SEEDS)
def lrp_points_at_the_object(margin: int, sign: str, network: str, seed: int) -> float:
    """In more than nine scenes of ten, the strongest pixel of LRP is one of the object's."""
    return score_of("lrp", network, seed, score="pointing", margin=margin, sign=sign).mean().item()


@claim(
    "part3/coherence", above=0.5, score=tuple(SCORES), margin=(0, 2), baseline=BASELINES, network=NETWORKS, seed=SEEDS
)
def colour_beats_most_methods(score: str, margin: int, baseline: str, network: str, seed: int) -> float:
    """A map of colours that asks no network lies on the object more than most methods do (share of the methods that it beats)."""

    def mean(method: str) -> float:
        return score_of(method, network, seed, baseline, score=score, margin=margin).mean().item()

    return sum(mean("colour") > mean(method) for method in METHOD_NAMES) / len(METHOD_NAMES)


@claim(
    "part3/coherence",
    below=0,
    method=("guided_backprop", "rectgrad", "guided_grad_cam"),
    score=("mass", "rank"),
    margin=(0, 2),
    network=NETWORKS,
    seed=SEEDS,
)
def positive_relevance_alone_scores_lower(method: str, score: str, margin: int, network: str, seed: int) -> float:
    """Guided backpropagation and its relatives lie on the object less if only their positive relevance counts."""
    by_sign, by_size = (
        score_of(method, network, seed, score=score, margin=margin, sign=s).mean() for s in ("signed", "magnitude")
    )
    return (by_sign - by_size).item()


@claim("part3/coherence", above=0, method=METHOD_NAMES, sign=SIGNS, seed=(31, 41))
def relevance_moves_to_the_mark(method: str, sign: str, seed: int) -> float:
    """On marked discs, the network that relies on the mark gets more relevance on the mark than the one that does not."""
    marked = scenes(384, seed=seed, watermark=1.0)
    marked = marked[marked.labels == 0]
    masses = []
    for name in ("scenes_watermark", "scenes_cnn"):
        map_ = EXPLAIN[method](trained(name), marked.images, 0).sum(1)
        masses.append(coherence(map_.abs() if sign == "magnitude" else map_, marked.masks["watermark"]).relevance_mass)
    return surely(masses[0] - masses[1])


@claim(
    "part2/attribution_methods",
    above=0,
    method=FROM_BASELINE,
    baseline=("mean colour", "blurred"),
    score=tuple(SCORES),
    margin=(0, 2),
    sign=SIGNS,
    network=NETWORKS,
    seed=SEEDS,
)
def black_is_the_worse_baseline(
    method: str, baseline: str, score: str, margin: int, sign: str, network: str, seed: int
) -> float:
    """Integrated gradients, DeepLIFT and occlusion lie on the object more from the picture's mean colour than from black."""
    options = {"score": score, "margin": margin, "sign": sign}
    better, black = (score_of(method, network, seed, b, **options) for b in (baseline, "black"))
    return surely(better - black)


@claim(
    "part2/attribution_methods",
    below=0.05,
    method=METHOD_NAMES,
    baseline=("black", "mean colour"),
    score=("mass", "rank"),
    weights=tuple(f"untrained {k}" for k in range(5)),
    seed=SEEDS,
)
def untrained_maps_are_at_chance(method: str, baseline: str, score: str, weights: str, seed: int) -> float:
    """With random weights, no method's map lies on the object more than chance by .05."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # maps of zeros, which count as chance
        return (
            (score_of(method, weights, seed, baseline, score=score) - object_mask(seed).flatten(1).float().mean(1))
            .mean()
            .item()
        )


# Class sensitivity


@claim(
    "part3/class_sensitivity",
    above=0.4,
    method=("lrp", "grad_cam", "guided_grad_cam"),
    network=NETWORKS,
    seed=(9, 19, 29),
)
def relevance_follows_the_question(method: str, network: str, seed: int) -> float:
    """LRP, Grad-CAM and guided Grad-CAM move most of their relevance to the object that was asked for (share that moves > .4)."""
    return asked_of_two(method, network, seed).moved.nanmean().item()


@claim(
    "part3/class_sensitivity",
    below=0.15,
    method=("saliency", "smoothgrad", "gradient_x_input", "integrated_gradients"),
    baseline=("black", "mean colour"),
    network=NETWORKS,
    seed=(9, 19, 29),
)
def gradients_do_not_move(method: str, baseline: str, network: str, seed: int) -> float:
    """The gradient and the methods made from it move hardly any relevance to the object that was asked for (share below .15)."""
    return asked_of_two(method, network, seed, baseline).moved.nanmean().item()


@claim("part3/class_sensitivity", above=0, method=("lrp, only z+", "deep_taylor"), network=NETWORKS, seed=(9, 19, 29))
def z_plus_moves_more_than_guided(method: str, network: str, seed: int) -> float:
    """With z+ in every layer more relevance moves to the object that was asked for than with guided backpropagation."""
    gap = asked_of_two(method, network, seed).moved - asked_of_two("guided_backprop", network, seed).moved
    return surely(gap[torch.isfinite(gap)])


@claim(
    "part3/class_sensitivity",
    above=0.8,
    pixels=("whole map", "in the objects"),
    method=("lrp, only z+", "guided_backprop"),
    network=NETWORKS,
    seed=(9, 19, 29),
)
def the_same_pattern_for_both_classes(pixels: str, method: str, network: str, seed: int) -> float:
    """With z+ everywhere, as with guided backpropagation, the maps of the two classes are the same pattern (Spearman > .8)."""
    asked, two = asked_of_two(method, network, seed), two_objects(network, seed)
    if pixels == "whole map":
        return asked.spearman.nanmean().item()
    inside = two.masks["object"] | two.masks["second_object"]
    pairs = zip(*(m.sum(1) for m in asked.maps), inside, strict=True)
    return torch.cat([similarity(a[i][None], b[i][None]).spearman for a, b, i in pairs]).nanmean().item()


# Selectivity


@cache
def _area(method: str, fill: str, name: str, score: str, part: int) -> Tensor:
    """Areas of pixel flipping on 48 digits; the methods of digits, and ``random``."""
    images = digits("test")[48 * part : 48 * part + 48].images
    model = load(name)
    target = model(images).argmax(1)
    grey = digits("train").images.mean().item()
    if method == "random":
        map_ = random_order(model, images, target)
    elif method.startswith("IG"):
        map_ = integrated_gradients(model, images, target, steps=20, baseline=0.0 if method.endswith("black") else grey)
    else:
        map_ = METHODS[method](model, images, target)
    value: str | float = {"black": 0.0, "grey": grey}.get(fill, fill)
    return selectivity(model, images, map_, target, steps=14, patch=2, fill=value, score=score).area


FILLS = ("mean", "black", "grey", "noise", "blur")


@claim(
    "part3/selectivity",
    above=0,
    method=("lrp", "gradient_x_input", "saliency", "guided_backprop"),
    fill=FILLS,
    network=("digits_cnn", "digits_mlp"),
    score=("probability", "logit"),
    part=(0, 1, 2),
)
def removal_beats_a_random_order(method: str, fill: str, network: str, score: str, part: int) -> float:
    """Removing the pixels that a method ranks first lowers the score faster than removing random ones."""
    return surely(_area("random", fill, network, score, part) - _area(method, fill, network, score, part))


@claim(
    "part3/selectivity",
    above=0,
    fill=FILLS,
    network=("digits_cnn", "digits_mlp"),
    score=("probability", "logit"),
    part=(0, 1, 2),
)
def lrp_beats_gradient_x_input(fill: str, network: str, score: str, part: int) -> float:
    """LRP ranks pixels better than gradient x input: its curve falls faster."""
    return surely(_area("gradient_x_input", fill, network, score, part) - _area("lrp", fill, network, score, part))


@claim(
    "part3/selectivity",
    above=0,
    fill=("black", "grey"),
    network=("digits_cnn", "digits_mlp"),
    score=("probability", "logit"),
    part=(0, 1, 2),
)
def a_baseline_wins_where_it_is_the_fill(fill: str, network: str, score: str, part: int) -> float:
    """Integrated gradients rank pixels better if they start from the value that replaces the removed pixels."""
    own, other = ("IG black", "IG grey") if fill == "black" else ("IG grey", "IG black")
    return surely(_area(other, fill, network, score, part) - _area(own, fill, network, score, part))


# Weights of the last layer


@cache
def _kept(method: str, name: str, head: int, seed: int, sign: str) -> float:
    """Rank correlation of a method's maps before and after the last layer got random weights."""
    forgetful = copy.deepcopy(trained(name))
    with torch.random.fork_rng([]):
        torch.manual_seed(head)
        forgetful[-1].reset_parameters()
    images = drawn(seed).images[:24]
    target = trained(name)(images).argmax(1)
    maps = [METHODS[method](model, images, target).sum(1) for model in (trained(name), forgetful)]
    maps = [m.abs() for m in maps] if sign == "magnitude" else maps
    return similarity(*maps).spearman.nanmean().item()


@claim("part3/class_sensitivity", above=0, sign=("signed", "magnitude"), network=NETWORKS, head=(0, 1, 2), seed=SEEDS)
def guided_outlives_the_last_layer(sign: str, network: str, head: int, seed: int) -> float:
    """With random weights in the last layer, guided backpropagation keeps its map more than the gradient does."""
    return _kept("guided_backprop", network, head, seed, sign) - _kept("saliency", network, head, seed, sign)


@claim(
    "part2/deconvnet_and_guided_backprop",
    below=0.2,
    sign=("signed", "magnitude"),
    network=NETWORKS,
    head=(0, 1, 2),
    seed=SEEDS,
)
def a_random_head_leaves_nothing_of_the_gradient(sign: str, network: str, head: int, seed: int) -> float:
    """The gradient of a network with a random last layer has nothing in common with that of the network itself (Spearman < .2)."""
    return _kept("saliency", network, head, seed, sign)


# ROAR

FRACTIONS = (0.5, 0.9, 0.3)


@cache
def _retrained(sign: str, training: int) -> dict[tuple[str, float], float]:
    """Accuracy after retraining on half of the digits, for the page's two orders and fractions."""
    halves = digits("train")[::2], digits("test")[::2]
    deviation = halves[0].images.std(0)

    def by_saliency(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        map_ = METHODS["saliency"](model, x, target)
        return map_.abs() if sign == "magnitude" else map_

    orders = {"saliency": by_saliency, "fixed": lambda model, x, target: deviation.expand_as(x)}
    table = roar(orders, halves, fractions=FRACTIONS, seeds=(training,), epochs=6, progress=False)
    return {(cell.method, cell.fraction): cell.accuracy for cell in table.cells}


@claim("part3/roar_and_kar", above=0, fraction=FRACTIONS, sign=("signed", "magnitude"), training=(0, 1, 2, 3))
def a_fixed_order_beats_saliency(fraction: float, sign: str, training: int) -> float:
    """By ROAR, an order that is the same for every picture and asks no network explains digits better than saliency does."""
    accuracy = _retrained(sign, training)
    return accuracy["saliency", fraction] - accuracy["fixed", fraction]
