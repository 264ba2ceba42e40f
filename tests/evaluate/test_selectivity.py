"""Selectivity: closed forms on linear models, Quantus's curves, ties, fills, and what is refused."""

import itertools
import warnings

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import nn
from torch.testing import assert_close

from interp_lab import METHODS, gradient_x_input, networks, selectivity
from interp_lab.data import digits, scenes


@pytest.fixture
def linear():
    """A linear model of colour images, x, and the exact effect of every pixel's removal with fill 0.3."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 6, 5)).double(), torch.rand(7, 3, 4, 6).double()
    target = model(x).argmax(1)
    weights = model[1].weight.detach()[target].view_as(x)
    return model, x, (weights * (x - 0.3)), target


def test_a_curve_by_hand():
    model = nn.Linear(3, 2, bias=False)
    model.weight.data = torch.tensor([[3.0, -1.0, 2.0], [0.0, 0.0, 0.0]])
    x = torch.tensor([[1.0, 1.0, 1.0]])
    result = selectivity(model, x, torch.tensor([[1.0, 3.0, 2.0]]), 0, fill=0.0)
    assert_close(result.curve, torch.tensor([[4.0, 5.0, 3.0, 0.0]]))
    assert_close(result.removed, torch.tensor([0.0, 1 / 3, 2 / 3, 1.0]))
    assert_close(result.area, torch.tensor([(4.5 + 4 + 1.5) / 3]))
    assert (result.order, result.score, result.random, result.optimal) == ("most_relevant_first", "logit", None, None)
    result = selectivity(model, x, torch.tensor([[1.0, 3.0, 2.0]]), 0, fill=0.0, order="least_relevant_first")
    assert_close(result.curve, torch.tensor([[4.0, 1.0, -1.0, 0.0]]))
    result = selectivity(model, x, torch.tensor([[1.0, 3.0, 2.0]]), 0, fill=1.0, steps=1, score="probability")
    assert_close(result.curve, torch.full((1, 2), 4.0).sigmoid())


def test_on_a_linear_model_the_exact_effect_is_the_optimal_order(linear):
    model, x, effect, _ = linear
    result = selectivity(model, x, effect, fill=0.3, beside=("random", "optimal"))
    start = model(x).amax(1, keepdim=True)
    falls = effect.sum(1).flatten(1).sort(1, descending=True).values
    assert_close(result.curve, torch.cat([start, start - falls.cumsum(1)], 1).detach())
    assert_close(result.optimal.curve, result.curve)
    assert_close(result.curve[:, -1:], model(torch.full_like(x, 0.3)).gather(1, model(x).argmax(1)[:, None]).detach())
    others = [selectivity(model, x, torch.randn_like(x), fill=0.3) for _ in range(20)] + [result.random]
    for other in others:
        assert (result.curve <= other.curve + 1e-12).all()
        assert (result.area < other.area).all()
    least = selectivity(model, x, effect, fill=0.3, order="least_relevant_first", beside=["optimal"])
    assert_close(least.curve, least.optimal.curve)
    assert all((least.curve >= other.curve - 1e-12).all() for other in others)


def test_no_order_at_all_beats_the_exact_effect():
    torch.manual_seed(1)
    model, x = nn.Linear(5, 2).double(), torch.randn(1, 5).double()
    best = selectivity(model, x, model.weight.detach()[:1] * x, 0, fill=0.0)
    for order in itertools.permutations(range(5)):
        attribution = torch.empty(1, 5)
        attribution[0, list(order)] = torch.arange(5.0, 0.0, -1.0)
        assert (best.curve <= selectivity(model, x, attribution, 0, fill=0.0).curve + 1e-12).all()


def test_patches_go_as_a_whole_by_the_sum_of_their_pixels(linear):
    model, x, effect, target = linear
    result = selectivity(model, x, effect, patch=4, fill=0.3, beside=("optimal",))  # 4 x 4 and, cut off, 4 x 2
    by_patch = torch.stack([effect[..., :4].sum((1, 2, 3)), effect[..., 4:].sum((1, 2, 3))], 1)
    start = model(x).gather(1, target[:, None])
    falls = by_patch.sort(1, descending=True).values.cumsum(1)
    assert_close(result.curve, torch.cat([start, start - falls], 1).detach())
    assert_close(result.optimal.curve, result.curve)


def test_a_patch_cut_off_by_the_border_counts_by_its_sum_and_not_by_its_mean():
    model, weight = nn.Sequential(nn.Flatten(), nn.Linear(6, 1, bias=False)), torch.tensor([[1.0, 1, 1, 1, 1.5, 1.5]])
    model[1].weight.data = weight
    result = selectivity(model, torch.ones(1, 1, 1, 6), weight.view(1, 1, 1, 6), 0, patch=4, fill=0.0)
    assert_close(result.curve, torch.tensor([[7.0, 3.0, 0.0]]))  # sums 4 and 3, means 1 and 1.5


def test_steps_take_equal_shares(linear):
    model, x, effect, _ = linear
    fine, coarse = selectivity(model, x, effect, fill=0.3), selectivity(model, x, effect, fill=0.3, steps=7)
    gone = [k * 24 // 7 for k in range(8)]
    assert_close(coarse.curve, fine.curve[:, gone])
    assert_close(coarse.removed, torch.tensor(gone).double() / 24)


@pytest.mark.parametrize("score", ["logit", "probability"])
def test_curves_are_quantuss_on_the_same_maps(score):
    import quantus

    network, x = networks.load("digits_cnn"), digits("test").images[:20]
    with torch.no_grad():
        target = network(x).argmax(1)
    attribution = gradient_x_input(network, x)
    flipping = quantus.PixelFlipping(
        features_in_step=28, normalise=False, perturb_baseline="black", disable_warnings=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = flipping(
            network, x.numpy(), target.numpy(), attribution.numpy(), softmax=score == "probability", device="cpu"
        )
    ours = selectivity(network, x, attribution, target, steps=28, fill=0.0, score=score)
    # Its curve starts after the first step. Equal relevances: both maps have zeros on the black ground only, where
    # the fill changes nothing.
    assert_close(ours.curve[:, 1:], torch.tensor(np.array(theirs)).float(), atol=1e-5, rtol=1e-5)


def test_a_row_does_not_depend_on_its_batch_nor_on_the_batch_size():
    network, x = networks.load("scenes_cnn"), scenes(5, seed=3).images
    attribution = gradient_x_input(network, x).relu()  # with ties
    for fill in ("mean", "blur", "noise", torch.rand(3, 1, 1)):
        options = {"steps": 6, "patch": 8, "fill": fill, "beside": ("random",)}
        whole = selectivity(network, x, attribution, **options)
        small = selectivity(network, x, attribution, **options, batch_size=3)
        single = [selectivity(network, x[i : i + 1], attribution[i : i + 1], **options) for i in range(5)]
        for result, alone in ((whole, single), (whole.random, [s.random for s in single])):
            assert_close(result.curve, torch.cat([s.curve for s in alone]), atol=1e-4, rtol=1e-4)
        assert_close(whole.curve, small.curve, atol=1e-4, rtol=1e-4)


def test_fills_are_what_they_say():
    """The identity as a model shows the picture that is left when all is removed."""
    x = torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(0)) + torch.tensor([0.0, 5.0])[:, None, None]

    def left(fill):
        rows = [selectivity(nn.Flatten(), x, x, c, steps=1, fill=fill).curve[:, 1] for c in range(128)]
        return torch.stack(rows, 1).view_as(x)

    assert_close(left("mean"), x.mean((2, 3), keepdim=True).expand_as(x))
    assert_close(left(0.5), torch.full_like(x, 0.5))
    assert_close(left(x.mean(0)), x.mean(0).expand_as(x))
    noise = left("noise")
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    assert ((noise >= low) & (noise <= high)).all()
    assert (noise.std((2, 3)) > 0.2).all()
    unit = (noise - low) / (high - low)
    assert_close(unit[0], unit[1], atol=1e-5, rtol=0)


def test_the_blur_is_a_gaussian_of_a_twentieth_of_the_shorter_side():
    x = torch.rand(1, 1, 20, 24, generator=torch.Generator().manual_seed(0))
    pixels = x.numel()
    result = selectivity(nn.Flatten(), x.expand(pixels, -1, -1, -1), x.expand(pixels, -1, -1, -1), torch.arange(pixels),
                         steps=1, fill="blur")  # fmt: skip
    blurred = scipy.ndimage.gaussian_filter(x[0, 0].numpy(), sigma=1.0, truncate=3, mode="mirror")
    assert_close(result.curve[:, 1].view(20, 24), torch.tensor(blurred), atol=1e-5, rtol=0)


def test_equal_relevances_come_in_a_random_order_that_the_seed_decides():
    """A map of zeros on a model that reads one pixel: the pixel goes at a step that the seed draws evenly."""
    x, zeros = torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)

    def moment(seed):
        curve = selectivity(nn.Flatten(), x, zeros, 0, fill=0.0, seed=seed).curve
        return int(curve.sum())

    moments = [moment(seed) for seed in range(200)]
    assert moments == [moment(seed) for seed in range(200)]
    assert set(moments) == set(range(1, 17))
    assert abs(np.mean(moments) - 8.5) < 1
    result = selectivity(nn.Flatten(), x, zeros, 0, fill=0.0, beside=("random",))
    assert_close(result.curve, result.random.curve)


def test_minus_zero_is_no_less_relevant_than_zero():
    x, zeros = torch.arange(16.0).view(1, 1, 4, 4), torch.zeros(1, 4, 4)
    signed = zeros.clone()
    signed[:, ::2] = -0.0
    curves = [selectivity(nn.Flatten(), x, relevance, 15, fill=0.0).curve for relevance in (zeros, signed)]
    assert torch.equal(*curves)


def test_a_network_is_left_as_it_was_and_explained_in_eval_mode():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.ReLU(inplace=True), nn.Linear(48, 3)).train()
    x = torch.randn(4, 3, 4, 4)
    before, random_state = x.clone(), torch.get_rng_state()
    first, again = (selectivity(network, x, x).curve for _ in range(2))
    assert_close(first, again)
    assert not first.requires_grad
    assert network.training
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), random_state)


def test_on_scenes_lrp_and_grad_cam_beat_a_random_order():
    network, data = networks.load("scenes_cnn"), scenes(24, seed=3)
    for name in ("lrp", "grad_cam", "integrated_gradients"):
        attribution = METHODS[name](network, data.images, data.labels)
        result = selectivity(network, data.images, attribution, data.labels, steps=8, patch=8, beside=("random",))
        assert result.area.mean() < result.random.area.mean()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("fill", ["mean", "blur", "noise"])
def test_a_gpu_removes_the_same_pixels(fill):
    network, x = networks.load("scenes_cnn"), scenes(4, seed=3).images
    attribution = gradient_x_input(network, x).relu()
    here = selectivity(network, x, attribution, 1, steps=6, fill=fill, beside=("random",))
    there = selectivity(network.cuda(), x.cuda(), attribution.cuda(), 1, steps=6, fill=fill, beside=("random",))
    for a, b in ((here, there), (here.random, there.random)):
        assert_close(a.curve, b.curve.cpu(), atol=1e-2, rtol=1e-3)


class Brittle(nn.Module):
    """NaN for a picture without any light."""

    def forward(self, x):
        total = x.flatten(1).sum(1, keepdim=True)
        return torch.cat([total / total, total], 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attribution": torch.zeros(2, 1, 4, 3)}, r"must fit x \(2, 1, 4, 4\), got shape \(2, 1, 4, 3\)"),
        (
            {"attribution": torch.full((2, 4, 4), torch.nan)},
            r"attribution holds NaN or infinite values in rows \[0, 1\]",
        ),
        ({"steps": 17}, r"steps must lie in 1\.\.16, the number of patches, got 17"),
        ({"steps": 0}, "got 0"),
        ({"patch": 2.0}, "patch must be an integer of at least 1, got 2.0"),
        ({"patch": 0}, "patch must be an integer of at least 1, got 0"),
        ({"fill": "zero"}, "fill must be mean, blur, noise .* got 'zero'"),
        ({"fill": torch.ones(3)}, "fill must be a number or broadcast"),
        ({"fill": float("nan")}, "fill must be finite"),
        ({"order": "random"}, "order must be one of most_relevant_first, least_relevant_first, got 'random'"),
        ({"score": "p"}, "score must be one of logit, probability"),
        ({"beside": ("best",)}, "beside may hold .* got 'best'"),
        ({"beside": "random"}, "beside may hold"),
        ({"batch_size": 0}, "batch_size must be None or at least 1"),
        ({"target": 9}, r"target must lie in 0\.\.1"),
        ({"x": torch.rand(2, 1, 40, 40), "attribution": torch.rand(2, 40, 40)}, "1600 patches would take 1600 passes"),
        ({"x": torch.rand(2, 4, 4), "attribution": torch.rand(2, 4, 4)}, r"x must be images \(N, C, H, W\)"),
        ({"x": torch.rand(2, 4), "attribution": torch.rand(2, 4), "patch": 2}, "with patch=1"),
        ({"fill": 0.0, "target": 0}, "NaN or infinite logits for some x with removed pixels"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(options, message):
    call = {"x": torch.rand(2, 1, 4, 4) + 0.1, "attribution": torch.rand(2, 1, 4, 4)} | options
    with pytest.raises(ValueError, match=message):
        selectivity(Brittle(), call.pop("x"), call.pop("attribution"), **call)


@pytest.mark.parametrize("scale", [1e-300, 1e-60, 1e-46, 1e39, 1e300])
def test_the_scale_of_a_map_is_of_no_effect(linear, scale):
    model, x, effect, target = linear
    right = selectivity(model, x, effect, target, fill=0.3)
    assert_close(selectivity(model, x, scale * effect, target, fill=0.3).curve, right.curve, rtol=0, atol=0)
