"""The surrogate tree: a tree whose thresholds can be found comes back."""

import pytest
import torch
import torch.nn.functional as F

from interp_lab import fidelity, networks, surrogate_tree
from interp_lab.data import digits

MODEL, X = networks.load("digits_cnn"), digits("test").images[:8]


def one_hot(labels, classes: int):
    return F.one_hot(labels, classes).double()


def test_the_surrogate_of_a_tree_is_that_tree():
    def tree(x):  # depth 3, on inputs of a grid, so that every threshold can be found exactly
        left = torch.where(x[:, 1] <= 0.35, torch.where(x[:, 2] <= 0.55, 0, 1), torch.where(x[:, 2] <= 0.15, 2, 0))
        right = torch.where(x[:, 3] <= 0.75, torch.where(x[:, 1] <= 0.25, 3, 2), torch.where(x[:, 2] <= 0.5, 1, 3))
        return one_hot(torch.where(x[:, 0] <= 0.45, left, right), 5)  # a fifth class never occurs

    x, held_out = (torch.randint(11, (5000, 4), generator=torch.Generator().manual_seed(k)) / 10.0 for k in (0, 1))
    surrogate = surrogate_tree(tree, x, depth=None)
    assert surrogate(held_out).shape == (5000, 5)
    with pytest.warns(UserWarning, match="were used to fit"):  # a grid repeats itself
        assert fidelity(surrogate, tree, held_out) == 1.0
    new = ~(held_out[:, None] == x).all(2).any(1)
    assert new.sum() > 1000
    assert fidelity(surrogate, tree, held_out[new]) == 1.0


def test_named_features_and_fresh_queries():
    x = torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def brightness(x):
        return torch.stack([x.mean((1, 2, 3)), x[:, 0, 0, 0]], 1)

    def model(x):
        return one_hot((x.mean((1, 2, 3)) > 0.5).long(), 2)

    for queries in (0, 200):
        tree = surrogate_tree(
            model, x, depth=1, features=brightness, names=["mean", "corner"], queries=queries, noise=0.05
        )
        assert len(tree.queried) == 300 + queries
        assert tree.rules()[0].startswith("if mean <= 0.")
        assert fidelity(tree, model, torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(1))) > 0.95


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: surrogate_tree(MODEL, X[:0]), "at least one example"),
        (lambda: surrogate_tree(MODEL, X, depth=0), "depth must be None or"),
        (lambda: surrogate_tree(MODEL, X, names=["a", "b"]), "one per feature, 784, got 2"),
    ],
)
def test_what_cannot_be_right_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_batch_in_bfloat16_is_taken():
    x = torch.tensor([[1.0], [2.0], [4.0], [5.0]])
    tree = surrogate_tree(lambda x: torch.cat([3 - x, x - 3], 1), x.bfloat16())
    assert tree.rules() == surrogate_tree(lambda x: torch.cat([3 - x, x - 3], 1), x).rules()
    assert fidelity(lambda x: x, lambda x: x, x.bfloat16()) == 1
