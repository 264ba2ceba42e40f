"""What all models fitted to examples refuse, and that their fits repeat."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from interp_lab import additive_model, decision_tree, prototype_network, sparse_softmax
from interp_lab.data import digits

X, Y = digits("train").images[:40], digits("train").labels[:40]


def pooled(x):
    return F.interpolate(x, size=(8, 8), mode="area")


@pytest.mark.parametrize("fit", [sparse_softmax, decision_tree, additive_model])
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X.long(), Y, "floating-point batch"),
        (X.log() * 0, Y, "NaN or infinite"),
        (X[:0], Y[:0], "at least one example"),
        (X, Y.int(), r"LongTensor of labels \(40,\), got torch.int32"),
        (X, Y[:3], r"LongTensor of labels \(40,\), got torch.int64 \(3,\)"),
        (X, Y - 1, "at least 0, got -1"),
        (X, Y.where(Y != 4, 5), r"needs an example; without one: \[4\]"),
    ],
)
def test_bad_examples_are_refused_by_name(fit, x, y, message):
    with pytest.raises(ValueError, match=message):
        fit(x, y)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sparse_softmax(X, Y, l1=-1), "l1 must be at least 0, got -1"),
        (lambda: decision_tree(X, Y, depth=0), "depth must be None or an integer of at least 1, got 0"),
        (lambda: decision_tree(X, Y, names=["a"]), "one per feature, 784, got 1"),
        (lambda: decision_tree(X, Y)(X[..., :7]), r"must have shape \(40, 1, 28, 28\), got \(40, 1, 28, 7\)"),
        (lambda: decision_tree(X, Y, features=lambda x: x.mean((1, 2)) / 0), "features must be finite"),
        (lambda: additive_model(X, Y, knots=1), "knots must be an integer of at least 2, got 1"),
        (lambda: additive_model(X, Y, l2=0.0), "above 0 for labels"),
        (lambda: additive_model(X, torch.zeros(3, 2)), r"of shape \(40, K\), got \(3, 2\)"),
        (lambda: additive_model(X * 0, Y), "all features are constant"),
        (lambda: prototype_network(X, Y, nn.Sequential(nn.Conv2d(1, 2, 3)), per_class=0), "at least 1, got 0"),
    ],
)
def test_bad_options_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_fits_repeat_exactly_and_follow_the_device():
    one, two = (decision_tree(X, Y, seed=3)(X) for _ in range(2))
    assert_close(one, two, rtol=0, atol=0)
    assert np.isfinite(one.numpy()).all()
    if torch.cuda.is_available():
        for fit in (sparse_softmax, decision_tree, additive_model):
            cpu, gpu = fit(X, Y, features=pooled)(X), fit(X.cuda(), Y.cuda(), features=pooled)(X.cuda())
            assert gpu.is_cuda
            assert_close(cpu, gpu.cpu(), atol=1e-2, rtol=1e-2)
