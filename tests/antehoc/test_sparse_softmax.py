"""The sparse softmax: optimality conditions, units, templates."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from interp_lab import sparse_softmax, surrogate_linear
from interp_lab.data import digits

TRAIN, TEST = digits("train"), digits("test")


def pooled(x):
    return F.interpolate(x, size=(8, 8), mode="area")


def test_sparse_softmax_meets_the_optimality_conditions_of_its_penalty():
    x, l1 = pooled(TRAIN.images[:400]), 0.02
    y = TRAIN.labels[:400]
    model = sparse_softmax(x, y, l1=l1)
    # Written from the problem: at the solution the gradient of the loss to each standardised weight is -l1 sign(w), or
    # within [-l1, l1] where w = 0; to the bias it is 0.
    z = x.flatten(1).double()
    z = (z - z.mean(0)) / z.std(0, correction=0).clamp(min=1e-9)
    error = torch.softmax(model(x).double(), 1) - F.one_hot(y)
    gradient, weight = error.T @ z / len(x), model.importance.double()
    active = weight != 0
    assert_close(gradient[active], -l1 * weight[active].sign(), atol=3e-4, rtol=0)
    assert gradient[~active].abs().max() < l1 + 3e-4
    assert error.mean(0).abs().max() < 3e-4
    assert 20 < model.nonzeros < 200


def test_more_penalty_leaves_fewer_weights_and_all_penalty_none():
    few = [sparse_softmax(TRAIN.images, TRAIN.labels, l1=l1, features=pooled) for l1 in (0.01, 0.05, 10.0)]
    assert few[0].nonzeros > few[1].nonzeros > few[2].nonzeros == 0
    assert (few[0](TEST.images).argmax(1) == TEST.labels).float().mean() > 0.93
    shares = TRAIN.labels.bincount() / len(TRAIN)
    assert_close(torch.softmax(few[2](TEST.images[:1]), 1)[0], shares, atol=1e-3, rtol=0)


def test_the_unit_of_a_feature_changes_its_weight_but_not_its_importance():
    x = torch.rand(300, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    y = (x[:, 0] + x[:, 1] > 0).long()
    for unit in (1000.0, 1e-12):
        scale = torch.tensor([1.0, unit, 1.0]).double()
        metres, others = (sparse_softmax(v, y, l1=0.02) for v in (x, x * scale))
        assert_close(metres.importance, others.importance)
        assert_close(metres.weight, others.weight * scale)
    assert (metres.importance[:, 2] == 0).all()  # the third is noise


def test_templates_have_the_shape_of_the_features_and_constant_pixels_no_weight():
    framed = lambda x: F.pad(pooled(x), (1, 1, 1, 1))  # noqa: E731
    model = sparse_softmax(TRAIN.images, TRAIN.labels, l1=0.03, features=framed)
    assert model.templates.shape == (10, 1, 10, 10)
    assert (model.templates[..., 0] == 0).all()
    logits = torch.einsum("nchw,kchw->nk", framed(TEST.images), model.templates) + model.bias
    assert_close(model(TEST.images), logits)


def test_a_sparse_softmax_that_is_not_solved_says_so():
    with pytest.warns(UserWarning, match="not yet at its solution after 2 steps"):
        sparse_softmax(TRAIN.images, TRAIN.labels, features=pooled, max_steps=2)


def test_where_the_features_say_nothing_of_the_class_the_solution_is_reached_all_the_same(recwarn):
    """There the Hessian of softmax is largest, 1/2 for two classes, and too long a step would never settle."""
    x = torch.randn(40, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.arange(40) % 2
    error = torch.softmax(sparse_softmax(x, y, l1=0.0)(x), 1) - F.one_hot(y)
    assert (error.T @ x / 40).abs().max() < 2e-4
    assert error.mean(0).abs().max() < 2e-4
    assert not recwarn.list


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_feature_that_varies_by_its_rounding_alone_counts_as_constant(dtype):
    x = torch.randn(200, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    total = lambda x: torch.cat([x, x.softmax(1).sum(1, keepdim=True)], 1)  # noqa: E731
    assert total(x)[:, 5].unique().numel() > 1
    for model in (
        sparse_softmax(x, (x[:, 0] > 0).long(), features=total),
        surrogate_linear(lambda x: x, x, features=total),
    ):
        assert (model.weight[:, 5] == 0).all()
        assert (model.importance[:, :5] != 0).any(0).sum() > 0
