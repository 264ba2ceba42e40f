"""Every public function that takes a model, as a function from a case to its answer: tensors, in a fixed order."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import networkx as nx
import numpy as np
import torch
from torch import Tensor

import interp_lab as il

from .networks import CLASSES, Case

Answer = list[Tensor]


@dataclass(frozen=True)
class Function:
    """How a function is called and what may be said of its answer.

    Attributes:
        call: from a case to its answer.
        rows: whether the first axis of every tensor of the answer is the batch, with rows that do not interact.
        layers: whether it needs a module whose layers it can name.
        parameters: whether the answer is about the parameters as they are stored, not about the weights in use.
        differentiates: "x", "maps" (from the logits to the last maps), "below" (from there to x), "parameters" or "".
        batch_size: whether it has this option.
        tolerance: the least one that a change may ask for; ranks jump where values are nearly equal.
        networks: the networks that it is tried on, where all would take too long; not in the fast tests then.
        shown_on: as of a change, for every change that names none.
    """

    call: Callable[[Case], Any]
    rows: bool = True
    layers: bool = False
    parameters: bool = False
    differentiates: str = "x"
    batch_size: bool = False
    tolerance: float = 0.0
    networks: tuple[str, ...] = ()
    shown_on: str = ""

    def __call__(self, case: Case) -> Answer:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return tensors(self.call(case))


def tensors(answer: Any) -> Answer:
    """The tensors of an answer; numbers are tensors without axes."""
    if isinstance(answer, Tensor):
        return [answer]
    if isinstance(answer, dict):
        return tensors(list(answer.values()))
    if isinstance(answer, list | tuple):
        return [tensor for part in answer for tensor in tensors(part)]
    return [torch.as_tensor(answer)]


def batches(c: Case) -> Sequence[Tensor]:
    return c.train.split(-(-len(c.train) // c.batches))


def attribution(method: Callable, **options: Any) -> Callable[[Case], Any]:
    return lambda c: method(c.model, c.x, c.target, **options, **c.options)


def per_row_baseline(c: Case) -> Tensor:
    return il.deeplift(c.model, c.x, c.target, baseline=c.beside / 2)


def near_its_baseline(c: Case) -> Tensor:
    """In units of the difference, which float32 holds beside x, but few digits of it beside the values of a layer."""
    x = (c.x.detach() * 2**7).round() / 2**7
    return il.deeplift(c.model, x, c.target, baseline=x + 2.0**-16 * c.beside.sign()) * 2.0**16


def exact_shares(c: Case) -> Answer:
    """Of three players, whose values and standard errors are given as well."""
    players = torch.arange(c.x[0].numel()).view(1, *c.x.shape[1:]) % 3
    found = il.shapley_values(c.model, c.x, c.target, players=players, baseline=0.5, **c.options)
    return [found.attribution, found.values, found.standard_error]


def patterned(method: Callable) -> Callable[[Case], Any]:
    return lambda c: method(c.model, c.x, c.target, patterns=il.fit_patterns(c.model, batches(c)))


def labelled(c: Case) -> tuple[Tensor, Tensor] | list[tuple[Tensor, Tensor]]:
    labels = torch.arange(len(c.train)) % CLASSES
    if c.batches == 1:
        return c.train, labels
    return [(rows, labels[i * len(rows) :][: len(rows)]) for i, rows in enumerate(batches(c))]


def influence(c: Case, **options: Any) -> Tensor:
    if options.get("solver") == "lissa":
        c = replace(c, train=c.train.repeat(11, *[1] * (c.x.dim() - 1)))  # it takes 64 rows
    return il.influence(c.model, labelled(c), (c.x, c.labels), **{"damping": 2.0, **c.options, **options})


def trak(c: Case) -> Tensor:
    return il.trak(c.model, labelled(c), (c.x, c.labels), dimension=3, **c.options)


def weighted_sum(x: Tensor) -> Tensor:
    """A fixed linear model with logits ``(N, CLASSES)``."""
    x = x.flatten(1)
    return torch.stack([x[:, k::CLASSES].sum(1) for k in range(CLASSES)], 1)


def linear(c: Case) -> Answer:
    found = il.surrogate_linear(c.model, c.train, queries=24, ridge=0.1)
    return [found.weight, found.bias]


def tree(c: Case) -> Answer:
    tests = il.surrogate_tree(c.model, c.train, queries=24, depth=3).tree.tree_
    return [torch.from_numpy(tests.feature.copy()), torch.from_numpy(tests.threshold.copy())]


def graph(c: Case, layers: Sequence[str] | None) -> Answer:
    found = il.surrogate_graph(c.model, c.train, layers=layers and [c.layer], threshold=0.8)
    nodes = [found.graph.nodes[node]["relevance"] for node in found.graph if node[0] != "logit"]
    edges = list(nx.get_edge_attributes(found.graph, "weight").values())
    return [*found.kept.values(), *found.means.values(), torch.tensor(nodes), torch.tensor(edges), found(c.x)]


def local(c: Case) -> Answer:
    target = c.target
    if isinstance(target, list | np.ndarray) or (isinstance(target, Tensor) and target.dim()):
        target = target[:1]
    segments = (torch.arange(c.x[0, 0].numel()) % 4).view(c.x.shape[2:])
    found = il.surrogate_local(c.model, c.x[:1], target, segments=segments, n=20)
    return [found.effects, torch.tensor(found.bias), torch.tensor(found.r2)]


def maximum(found: Any) -> Answer:
    return [found.x, found.trace.T, found.gradient_norm]


def ascent(c: Case, target: Any = None, model: Any = None, **options: Any) -> Answer:
    return maximum(il.maximize_activation(c.model if model is None else model, target, c.x, steps=3, **options))


def selectivity(c: Case, score: str) -> Answer:
    options = {"steps": 4, "score": score, "beside": ("random", "optimal"), **c.options}
    found = il.selectivity(c.model, c.x, c.x, c.target, **options)
    return [found.curve, found.area, found.random.curve, found.optimal.curve]


def part_scores(c: Case) -> Answer:
    """Of three parts, every third pixel each, without which another input is seen."""
    number = (
        (torch.arange(c.x[0, 0].numel(), device=c.x.device) % 3).view(c.x.shape[2:]).expand(len(c.x), *c.x.shape[2:])
    )
    masks = {str(k): number == k for k in range(3)}
    without = {name: torch.where(mask[:, None], c.beside, c.x.detach()) for name, mask in masks.items()}
    return tensors(list(vars(il.part_scores(c.model, c.x, c.x, without, masks, c.target, **c.options)).values())[1:])


def class_sensitivity(c: Case) -> Answer:
    found = il.class_sensitivity(il.saliency, c.model, c.x, 1, 0)
    return [found.spearman, found.ssim_abs, found.maps]


def randomisation(c: Case) -> Tensor:
    return il.model_randomisation(il.gradient_x_input, c.model, c.x, c.target).spearman_abs.T


def randomised(c: Case) -> Answer:
    """Whether every layer's turn changes the map, which is what the test is for."""
    found = torch.cat([torch.ones(len(c.x), 1), randomisation(c)], 1)
    return [(found.diff(dim=1).abs() > 1e-6).any(0).all()]


def strongest(c: Case) -> Answer:
    found = il.top_activations(c.model, batches(c), c.layer, k=2)
    return [found.values, found.images, found.places, found.patches]


def projected(c: Case) -> Tensor:
    return il.project_top(c.model, c.train, c.layer, il.top_activations(c.model, [c.train], c.layer, k=2))


def closest(c: Case) -> Answer:
    found = il.counterfactual(c.model, c.x, c.target, bounds=(-2, 2), steps=3)
    return [found.x, found.distance, found.target]


def along_concepts(c: Case) -> Tensor:
    """The derivatives of every row along two concepts."""
    concepts = {"first": c.train[:3], "second": c.train[3:] / 2}
    random = torch.cat([c.train, -c.train])
    options = {"layer": c.layer, "concepts": concepts, "random": random, "splits": 2, "random_sets": 2}
    return il.tcav(c.model, c.x, c.target, **options, **c.options).derivatives.movedim(2, 0)


QUICK = {
    "smoothgrad": {"n": 4},
    "integrated_gradients": {"steps": 4},
    "rectgrad": {"q": 0.5},
    "occlusion": {"window": 2},
    "rise": {"samples": 8, "cells": 2},
    "shapley": {"permutations": 2},
}
REMOVAL = ("occlusion", "rise", "shapley", "shapley_values")
PASSES = ("smoothgrad", "integrated_gradients", *REMOVAL)
FUNCTIONS: dict[str, Function] = {
    **{
        name: Function(
            attribution(method, **QUICK.get(name, {})),
            batch_size=name in PASSES,
            differentiates="" if name in REMOVAL else "maps" if name == "grad_cam" else "x",
        )
        for name, method in il.METHODS.items()
    },
    "lrp epsilon": Function(attribution(il.lrp, rule="epsilon")),
    "lrp gamma": Function(attribution(il.lrp, rule="gamma")),
    "lrp z_plus": Function(attribution(il.lrp, rule="z_plus")),
    "lrp alpha2_beta1": Function(attribution(il.lrp, rule="alpha2_beta1")),
    "lrp composite, bounds": Function(attribution(il.lrp, low=-1.0, high=1.0)),
    "deep_taylor, bounds": Function(attribution(il.deep_taylor, low=-1.0, high=1.0)),
    "deeplift, baseline per row": Function(per_row_baseline),
    "deeplift near its baseline": Function(near_its_baseline, shown_on="smooth"),
    "deeplift reveal_cancel": Function(attribution(il.deeplift, rule="reveal_cancel")),
    "grad_cam, layer": Function(lambda c: il.grad_cam(c.model, c.x, c.target, layer=c.layer), layers=True, differentiates="maps"),
    "grad_cam, own size": Function(attribution(il.grad_cam, upsample=False), differentiates="maps"),
    "attention_rollout": Function(lambda c: il.attention_rollout(c.model, c.x)),
    "gradient_x_attention": Function(attribution(il.gradient_x_attention)),
    "shapley_values": Function(exact_shares, differentiates="", batch_size=True),
    "guided_grad_cam, layer": Function(lambda c: il.guided_grad_cam(c.model, c.x, c.target, layer=c.layer), layers=True),
    "fit_patterns": Function(lambda c: il.fit_patterns(c.model, batches(c)), rows=False, layers=True, differentiates="below"),
    "pattern_net": Function(patterned(il.pattern_net), layers=True),
    "pattern_attribution": Function(patterned(il.pattern_attribution), layers=True),
    "influence exact": Function(influence, layers=True, parameters=True, differentiates="parameters", batch_size=True),
    "influence cg": Function(partial(influence, solver="cg"), layers=True, parameters=True, differentiates="parameters", batch_size=True, networks=("smooth", "squeeze-excitation")),
    "influence lissa": Function(partial(influence, solver="lissa", damping=50.0, scale=60.0, depth=12), layers=True, parameters=True, differentiates="parameters", networks=("smooth",)),
    "influence kfac": Function(partial(influence, solver="kfac"), layers=True, parameters=True, differentiates="parameters", batch_size=True),
    "influence kfac, corrected": Function(partial(influence, solver="ekfac"), layers=True, parameters=True, differentiates="parameters", batch_size=True),
    "trak": Function(trak, layers=True, parameters=True, differentiates="parameters", batch_size=True),
    "class_sensitivity": Function(class_sensitivity, tolerance=1e-3),
    "model_randomisation": Function(randomisation, layers=True, parameters=True, tolerance=1e-3),
    "model_randomisation moves": Function(randomised, rows=False, layers=True),
    "attack_attribution": Function(lambda c: il.attack_attribution(c.model, c.x, c.target, k=3, radius=0.1, steps=2, bounds=(-2, 2))),
    "counterfactual": Function(closest),
    "selectivity": Function(partial(selectivity, score="logit"), differentiates="", batch_size=True),
    "selectivity, probability": Function(partial(selectivity, score="probability"), differentiates="", batch_size=True),
    "part_scores": Function(part_scores, differentiates="", batch_size=True),
    "fidelity": Function(lambda c: il.fidelity(weighted_sum, c.model, c.train), rows=False, differentiates=""),
    "fidelity of the surrogate": Function(lambda c: il.fidelity(c.model, weighted_sum, c.train), rows=False, differentiates=""),
    "surrogate_linear": Function(linear, rows=False, differentiates=""),
    "surrogate_tree": Function(tree, rows=False, differentiates=""),
    "surrogate_graph": Function(partial(graph, layers=["maps"]), rows=False, layers=True, differentiates="maps"),
    "surrogate_graph, every ReLU": Function(partial(graph, layers=None), rows=False, layers=True, differentiates="maps"),
    "surrogate_local": Function(local, rows=False, differentiates=""),
    "maximize_activation, logit": Function(lambda c: ascent(c, c.target, objective="logit")),
    "maximize_activation, log_prob": Function(lambda c: ascent(c, c.target)),
    "maximize_activation, layer": Function(lambda c: ascent(c, objective=(c.layer, 1)), layers=True, differentiates="below"),
    "maximize_activation, generator": Function(lambda c: ascent(c, 1, weighted_sum, generator=c.model)),
    "maximize_activation, density": Function(lambda c: ascent(c, 1, weighted_sum, density=lambda x: c.model(x)[:, 0])),
    "am_density": Function(lambda c: maximum(il.am_density(c.model, c.target, c.x, density=lambda x: -x.flatten(1).square().sum(1), steps=2))),
    "am_code": Function(lambda c: maximum(il.am_code(c.model, c.target, c.x, generator=torch.tanh, steps=2))),
    "top_activations": Function(strongest, rows=False, layers=True, differentiates=""),
    "tcav": Function(along_concepts, layers=True, differentiates="maps", batch_size=True),
    "project_activation": Function(lambda c: il.project_activation(c.model, c.x, c.layer, 1), layers=True, differentiates="below"),
    "project_top": Function(projected, rows=False, layers=True, differentiates="below"),
    "filters": Function(lambda c: il.filters(c.model), rows=False, layers=True, differentiates=""),
}  # fmt: skip

WITHOUT = {
    "roar": "trains its own networks",
    "kar": "trains its own networks",
}
"""Public functions with a parameter ``model`` that have no row, and why."""
