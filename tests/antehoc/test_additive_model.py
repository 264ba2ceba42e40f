"""Additive models: terms that are known come back."""

import torch
import torch.nn.functional as F
from torch.testing import assert_close

from interp_lab import additive_model
from interp_lab.data import digits

TRAIN, TEST = digits("train"), digits("test")


def pooled(x):
    return F.interpolate(x, size=(8, 8), mode="area")


def accuracy(model) -> float:
    return (model(TEST.images).argmax(1) == TEST.labels).float().mean().item()


def uniform(n: int, d: int, seed: int = 0):
    return torch.rand(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def test_an_additive_function_comes_apart_into_its_terms():
    x = uniform(800, 3)
    parts = [torch.sin(3 * x[:, 0]), x[:, 1].square(), torch.zeros(800).double()]
    model = additive_model(x, torch.stack([sum(parts) + 5, -parts[0]], 1), knots=12, l2=0.0)
    terms = model.terms(x)
    for j, part in enumerate(parts):
        assert_close(terms[:, 0, j], part - part.mean(), atol=2e-3, rtol=0)
    assert_close(terms[:, 1, 0], -parts[0] + parts[0].mean(), atol=2e-3, rtol=0)
    assert_close(terms.mean(0), torch.zeros(2, 3).double(), atol=1e-9, rtol=0)  # centred: identified
    assert_close(model.bias[0], (sum(parts) + 5).mean())
    assert_close(model.importance[0], torch.stack(parts).std(1, correction=0), atol=2e-3, rtol=0)
    places, curves = model.curves(30)
    assert_close(curves[:, 0, 1], places[:, 1].square() - parts[1].mean(), atol=3e-3, rtol=0)


def test_a_pure_interaction_has_no_terms():
    grid = torch.linspace(-1, 1, 21, dtype=torch.float64)
    x = torch.cartesian_prod(grid, grid)
    model = additive_model(x, (x[:, 0] * x[:, 1])[:, None], l2=0.0)
    assert model.terms(x).abs().max() < 1e-9


def test_the_terms_of_a_classifier_sum_to_its_scores_and_two_classes_mirror_each_other():
    model = additive_model(TRAIN.images, TRAIN.labels, features=pooled)
    assert_close(model(TEST.images), model.bias + model.terms(TEST.images).sum(2))
    assert accuracy(model) > 0.95
    x = uniform(400, 2)
    two = additive_model(x, (x[:, 0].abs() > 0.5).long())
    assert ((two(x).argmax(1) == 1) == (x[:, 0].abs() > 0.5)).double().mean() > 0.95
    assert_close(two(x)[:, 0], -two(x)[:, 1])
    assert two.importance[0, 0] > 10 * two.importance[0, 1]
