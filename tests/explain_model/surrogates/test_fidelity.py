"""Fidelity must be earned on held-out inputs."""

import warnings

import pytest
import torch
import torch.nn.functional as F

from interp_lab import additive_model, fidelity, networks, surrogate_linear, surrogate_tree
from interp_lab.data import digits

MODEL, X = networks.load("digits_cnn"), digits("test").images[:8]
NAN = X.clone()
NAN[0, 0, 0, 0] = torch.nan


def normal(n: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_hot(labels, classes: int):
    return F.one_hot(labels, classes).double()


def test_fidelity_is_the_share_of_equal_labels_whatever_the_scores():
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0], [0.3, 0.4]])
    assert fidelity(lambda x: 10 * x - 7, lambda x: x, x) == 1.0
    assert fidelity(lambda x: torch.tensor([1.0, 0.0]).expand(len(x), 2), lambda x: x, x) == 0.5


def test_fidelity_on_the_inputs_of_the_fit_is_flattered_and_says_so():
    x, held_out = normal(200, 10), normal(200, 10, seed=1)
    weight = normal(3, 10, seed=2)

    def model(x):
        return x @ weight.T

    tree = surrogate_tree(model, x, depth=None)
    with pytest.warns(UserWarning, match="200 of these 200 inputs were used to fit"):
        assert fidelity(tree, model, x) == 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fidelity(tree, model, held_out) < 0.9


def test_a_surrogate_follows_the_network_where_it_is_wrong():
    x = normal(400, 2)
    truth = (x[:, 0] > 0).long()

    def inverted(x):
        return one_hot((x[:, 0] <= 0).long(), 2)

    tree = surrogate_tree(inverted, x)
    held_out = normal(400, 2, seed=1)
    assert fidelity(tree, inverted, held_out) > 0.98
    assert (tree(x).argmax(1) == truth).double().mean() < 0.02


def test_an_additive_model_of_the_logits_is_a_surrogate_too():
    x, held_out = normal(1000, 3), normal(500, 3, seed=1)

    def model(x):
        return torch.stack([torch.sin(2 * x[:, 0]), x[:, 1].abs(), 0.3 * x[:, 2]], 1)

    assert fidelity(additive_model(x, model(x), knots=10), model, held_out) > 0.97
    assert fidelity(surrogate_linear(model, x), model, held_out) < 0.85


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fidelity(MODEL, MODEL, X[:0]), "at least one input"),
        (lambda: fidelity(MODEL, MODEL, NAN), "x must be finite, got 1 NaN"),
        (lambda: fidelity(lambda x: x.flatten(1).argmax(1), MODEL, X), "logits of shape"),
    ],
)
def test_inputs_without_a_label_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
