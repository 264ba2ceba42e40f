"""Every method and every evaluation on a small vision transformer: it runs, or it refuses and says what to do instead."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import interp_lab as il
from interp_lab.data import Dataset
from interp_lab.networks import vision_transformer

REMEDIES = {
    **dict.fromkeys(
        ("deconvnet", "guided_backprop", "rectgrad", "deep_taylor", "guided_grad_cam"),
        r"no rule for the operation 'native_layer_norm' \(module '4.norm1'\).*lrp and deeplift.*integrated_gradients",
    ),
    "grad_cam": r"'multi_head_attention_forward' .* acts on tokens.*pass layer=.*reshape=tokens_to_maps",
}
OPTIONS = {
    "smoothgrad": {"n": 3},
    "integrated_gradients": {"steps": 64},
    "occlusion": {"window": 4, "stride": 4},
    "rise": {"samples": 16, "cells": 4},
    "shapley": {"players": 4, "permutations": 2},
}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    stem = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, padding=1)
    return vision_transformer(*stem, width=8, places=16, depth=2, classes=3).eval()


@pytest.fixture(scope="module")
def data():
    images = torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(12, 16, 16, dtype=torch.bool)
    mask[:, 4:9, 6:13] = True
    return Dataset(images, torch.arange(12) % 3, ("a", "b", "c"), {"object": mask})


def explain(name: str):
    return lambda model, x, target=None: il.METHODS[name](model, x, target, **OPTIONS.get(name, {}))


def on_tokens(model, x, target=None):
    return il.grad_cam(model, x, target, layer=model[5].norm1, reshape=il.tokens_to_maps(), relu=False)


RUNS = {name: explain(name) for name in il.METHODS if name not in REMEDIES} | {"grad_cam, on tokens": on_tokens}


@pytest.mark.parametrize("method", RUNS.values(), ids=RUNS.keys())
def test_every_other_method_runs_row_by_row(method, network, data):
    x = data.images[:3]
    maps = method(network, x, 1)
    assert maps.shape == x.shape
    assert maps.flatten(1).std(1).min() > 0
    assert_close(method(network, x[1:2], 1), maps[1:2], rtol=1e-3, atol=1e-4 * maps.abs().max().item())
    assert not torch.equal(method(network, x, 2), maps)


@pytest.mark.parametrize("name", REMEDIES)
def test_a_refusal_names_the_operation_and_the_remedy(name, network, data):
    with pytest.raises(il.UnsupportedModelError, match=REMEDIES[name]):
        il.METHODS[name](network, data.images[:2], 1)


def test_sums_on_a_transformer(network, data):
    x, model, target = data.images[:3].double(), network.double(), torch.tensor([0, 1, 2])
    try:
        baseline = x.mean((2, 3), keepdim=True).expand_as(x)
        with torch.no_grad():
            change = (model(x) - model(baseline)).gather(1, target[:, None])[:, 0]
        assert_close(il.deeplift(model, x, target, baseline=baseline).sum((1, 2, 3)), change, rtol=1e-9, atol=1e-12)
        relevance, balance = il.lrp(model, x, target, balance=True)
        parts = relevance.sum((1, 2, 3)) + balance.biases + balance.lost + balance.softmax
        assert_close(parts, model(x).gather(1, target[:, None])[:, 0].detach())
        assert (balance.softmax.abs() > 1e-6).all()
    finally:
        network.float()


def test_every_evaluation_runs(network, data):
    x, mask = data.images[:4], data.masks["object"][:4]
    relevance = on_tokens(network, x, 1).sum(1)
    found = il.coherence(relevance.abs(), mask)
    assert all(values.isfinite().all() for values in (found.pointing_game, found.relevance_mass, found.relevance_rank))
    masks = mask, mask.flip(2) & ~mask
    asked = il.class_sensitivity(il.lrp, network, x, 0, 1, masks=masks)
    assert asked.spearman.max() < 0.99
    assert asked.moved.isfinite().all()
    curves = il.selectivity(network, x, relevance, 1, patch=4, beside=("random", "optimal"))
    assert_close(curves.curve[:, 0], network(x)[:, 1].detach())
    assert_close(curves.curve[:, -1], curves.random.curve[:, -1])
    changed = il.model_randomisation(il.saliency, network, x, 1)
    assert changed.spearman_abs[:, -1].max() < 0.9
    attacked = il.attack_attribution(network, x, k=20, steps=2)
    assert torch.equal(network(attacked).argmax(1), network(x).argmax(1))
    assert (attacked - x).abs().max() > 0.01


def test_the_network_learns_what_activates_it(network, data):
    start = data.images[:2]
    found = il.maximize_activation(network, 2, start, objective="logit", steps=20, lr=0.1)
    assert (network(found.x)[:, 2] > network(start)[:, 2] + 0.1).all()


def test_roar_and_kar(network, data):
    def new():
        stem = nn.Conv2d(3, 8, 4, stride=4)
        return vision_transformer(stem, width=8, places=16, depth=1, classes=3)

    for sweep in (il.roar, il.kar):
        table = sweep({"lrp": il.lrp}, (data, data), new, fractions=(0.5,), seeds=(0,), epochs=1, progress=False)
        assert not table.errors
        assert {cell.method for cell in table.cells} >= {"lrp", "random", "edges"}
