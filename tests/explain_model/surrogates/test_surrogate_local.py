"""The local surrogate: models that are additive in the segments, or known not to be."""

import pytest
import torch
from torch.testing import assert_close

from interp_lab import networks, surrogate_local
from interp_lab.data import digits

MODEL, X = networks.load("digits_cnn"), digits("test").images[:8]
SEGMENTS = (torch.arange(8)[:, None] // 4 * 2 + torch.arange(12) // 6).long()


def test_the_local_surrogate_of_a_model_additive_in_segments_finds_the_effects():
    effects = torch.tensor([3.0, -1.0, 0.5, 0.0])
    x = torch.rand(1, 1, 8, 12) + 0.5
    area = 24

    def model(x):
        sums = torch.stack([x[:, 0, SEGMENTS == s].sum(1) for s in range(4)], 1)
        return torch.stack([sums @ effects / area + 2, sums[:, 0]], 1)

    means = torch.stack([x[0, 0][SEGMENTS == s].mean() for s in range(4)])
    for width in (0.1, 1.0):  # additive: the width of the kernel plays no role
        local = surrogate_local(model, x, 0, segments=SEGMENTS, n=200, width=width, fill=0.0)
        assert_close(local.effects, effects * means, atol=1e-3, rtol=0)
        assert local.bias == pytest.approx(2, abs=1e-3)
        assert local.r2 > 0.999
    assert_close(local.attribution, local.effects[SEGMENTS])
    # Against the mean colour of each segment, this model sees no difference at all.
    assert surrogate_local(model, x, 0, segments=SEGMENTS, n=200).effects.abs().max() < 1e-4


def test_where_segments_interact_the_width_decides_the_answer():
    def model(x):  # both of the first two segments are needed
        a, b = (x[:, 0, SEGMENTS == s].mean(1) for s in (0, 1))
        return torch.stack([a * b, 0 * a], 1)

    near, far = (
        surrogate_local(model, torch.ones(1, 1, 8, 12), 0, segments=SEGMENTS, n=4000, width=width, fill=0.0)
        for width in (0.05, 10.0)
    )
    assert far.effects[0] == pytest.approx(0.5, abs=0.03)  # over all maskings, 1/2 each
    assert near.effects[0] > 0.6
    assert far.r2 < 0.9


def test_r2_is_that_of_maskings_which_were_not_fitted():
    """Nearly as many effects as maskings follow anything; but of the parity no linear model knows the next value."""
    cells = torch.arange(16)[:, None] // 2 * 8 + torch.arange(16) // 2

    def parity(x):
        shown = x[:, 0, ::2, ::2].flatten(1).sum(1)
        return torch.stack([(-1.0) ** shown, 0 * shown], 1)

    local = surrogate_local(parity, torch.ones(1, 1, 16, 16), 0, segments=cells, n=70, width=10.0, fill=0.0)
    assert local.r2 < 0


def test_what_no_segment_changes_is_in_the_bias_whatever_the_ridge():
    def constant(x):
        return torch.stack([0 * x.sum((1, 2, 3)) + 5, x.sum((1, 2, 3))], 1)

    local = surrogate_local(constant, torch.ones(1, 1, 8, 12), 0, segments=SEGMENTS, n=50, ridge=1e6, fill=0.0)
    assert local.bias == pytest.approx(5)
    assert local.effects.abs().max() < 1e-5


def test_a_local_surrogate_repeats_and_draws_no_global_random_numbers():
    model, x = networks.load("digits_cnn"), digits("test").images[:1]
    before = torch.get_rng_state()
    one, two = (surrogate_local(model, x, segments=20, n=100) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one.effects, two.effects)
    assert one.target == model(x).argmax().item()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: surrogate_local(MODEL, X), r"one image \(1, C, H, W\), got shape \(8, 1, 28, 28\)"),
        (lambda: surrogate_local(MODEL, X[:1], 10), r"target must lie in 0\.\.9, got 10"),
        (lambda: surrogate_local(MODEL, X[:1], width=0), "width must be above 0"),
        (lambda: surrogate_local(MODEL, X[:1], n=5), "n must exceed the number of segments"),
        (lambda: surrogate_local(MODEL, X[:1], segments=SEGMENTS), r"LongTensor \(28, 28\), got torch.int64 \(8, 12\)"),
        (lambda: surrogate_local(MODEL, X[:1], segments=torch.full((28, 28), 2)), "without a gap"),
    ],
)
def test_what_cannot_be_right_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
