"""Occlusion, RISE and Shapley values against closed forms, naive code of one pixel at a time, and Captum."""

import math
from functools import cache
from itertools import product

import captum.attr
import naive
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import interp_lab as il
from interp_lab import integrated_gradients, occlusion, rise, shapley, shapley_values
from interp_lab.data import scenes
from interp_lab.networks import load

pytestmark = pytest.mark.usefixtures("double")
X = torch.rand(2, 3, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
X0 = torch.rand(2, 3, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
TARGET = torch.tensor([2, 0])


@pytest.fixture
def network() -> nn.Module:
    layers = (nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(180, 4), nn.Dropout(0.5))
    return nn.Sequential(*layers).eval()


def logit(network: nn.Module, target: Tensor):
    return lambda image: network(image[None])[0, target].item()


def vector(*values: float) -> Tensor:
    return torch.tensor([values]).double()


# Functions with known answers


def linear() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A linear model, x, a baseline, and what every entry of x contributes against it."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 5 * 6, 4))
    terms = model[1].weight.detach()[TARGET].view_as(X) * (X - X0)
    return model, X, X0, terms


def test_occlusion_by_single_pixels_has_the_terms_of_a_linear_model():
    model, x, x0, terms = linear()
    shared = terms.mean(1, keepdim=True).expand_as(terms)  # all channels of a pixel are hidden together
    assert_close(occlusion(model, x, TARGET, window=1, baseline=x0), shared)
    model, x = nn.Linear(6, 3), torch.randn(4, 6)
    assert_close(occlusion(model, x, 1), il.gradient_x_input(model, x, 1))


@pytest.mark.parametrize("permutations", [None, 2, 6])
def test_shapley_values_are_the_terms_of_a_linear_model_for_any_number_of_permutations(permutations):
    model, x, x0, terms = linear()
    found = shapley_values(model, x, TARGET, players=1, baseline=x0, permutations=permutations)
    assert_close(found.values, terms.sum(1).flatten(1))
    assert_close(found.attribution, terms.mean(1, keepdim=True).expand_as(terms))
    if permutations != 2:
        assert_close(found.standard_error, torch.zeros(2, 30))


FUNCTIONS = {
    "product": (lambda x: x.prod(1, keepdim=True), (1.0, 1.0), (0.5, 0.5)),
    "maximum": (lambda x: x.amax(1, keepdim=True), (1.0, 2.0), (0.5, 1.5)),
    "minimum": (lambda x: x.amin(1, keepdim=True), (2.0, 1.0), (0.5, 0.5)),
    "saturating": (lambda x: 1 - torch.relu(1 - x.sum(1, keepdim=True)), (1.0, 1.0), (0.5, 0.5)),
    "one without effect": (lambda x: x[:, :1] * x[:, 2:].square(), (3.0, 7.0, 2.0), (6.0, 0.0, 6.0)),
    "three of a kind": (lambda x: x.sum(1, keepdim=True) ** 3, (1.0, 1.0, 1.0), (9.0, 9.0, 9.0)),
}


@pytest.mark.parametrize(("function", "at", "expected"), FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_shapley_values_with_known_answers(function, at, expected):
    found = shapley_values(function, vector(*at))
    assert_close(found.values, vector(*expected))
    assert_close(found.standard_error, torch.zeros(1, len(at)))
    # Of two players, one order and its reverse are all that there is.
    if len(at) == 2:
        assert_close(shapley(function, vector(*at), permutations=2), vector(*expected))


def test_of_a_saturating_function_all_agree_but_occlusion():
    saturating = FUNCTIONS["saturating"][0]
    assert_close(integrated_gradients(saturating, vector(1, 1), steps=200), vector(0.5, 0.5), atol=0.01, rtol=0)
    assert_close(occlusion(saturating, vector(1, 1)), vector(0, 0))


def test_rise_on_average_is_the_covariance_of_a_linear_model_and_its_masks():
    """E[f M_p] / E[M_p] - E[f] = sum_q w_q x_q cov(M_q, M_p) / keep, from the weights of the interpolation."""
    keep, (height, width), cells = 0.3, (5, 6), (2, 2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 5 * 6, 4))
    sides = [math.ceil(size / count) for size, count in zip((height, width), cells, strict=True)]
    down, across = (naive.magnified(count, side) for count, side in zip(cells, sides, strict=True))
    covariance = torch.zeros(30, 30)
    for top, left in product(range(sides[0]), range(sides[1])):
        b = torch.einsum("ia,jb->ijab", down[top : top + height], across[left : left + width]).reshape(30, 4)
        covariance += keep * (1 - keep) * b @ b.T / (sides[0] * sides[1])
    terms = (model[1].weight.detach()[TARGET].view_as(X) * (X - X0)).sum(1).flatten(1)
    expected = (terms @ covariance / keep).view(2, 5, 6)
    runs = [
        rise(model, X, TARGET, samples=500, cells=2, keep=keep, baseline=X0, seed=seed).sum(1) for seed in range(40)
    ]
    mean, error = torch.stack(runs).mean(0), torch.stack(runs).std(0) / 40**0.5
    assert ((mean - expected).abs() < 4 * error + 0.01 * expected.abs()).all()
    assert error.max() < 0.1 * expected.abs().max()


def test_rise_of_a_vector_keeps_every_entry_by_itself():
    model, x = nn.Linear(5, 3), torch.rand(3, 5)
    terms = model.weight.detach()[1] * x
    runs = torch.stack([rise(model, x, 1, samples=1000, keep=0.25, seed=seed) for seed in range(40)])
    mean, error = runs.mean(0), runs.std(0) / 40**0.5
    assert ((mean - 0.75 * terms).abs() < 4 * error + 0.01 * terms.abs()).all()
    assert error.max() < 0.1 * terms.abs().max()
    constant = rise(lambda x: x[:, :1] * 0 + 7, x)
    assert_close(constant, torch.zeros_like(x))
    uncentred = rise(lambda x: x[:, :1] * 0 + 7, x, centred=False, samples=10_000)
    assert_close(uncentred, torch.full_like(x, 7), rtol=0.05, atol=0)


# The naive code


@pytest.mark.parametrize(("window", "stride"), [(1, 1), (2, 1), (2, 2), (3, 2), (5, 3), (None, None)])
def test_occlusion_is_that_of_one_window_at_a_time(network, window, stride):
    ours = occlusion(network, X, TARGET, window=window, stride=stride, baseline=X0)
    for row in range(2):
        f = logit(network, TARGET[row])
        assert_close(ours[row].sum(0), naive.occlusion(f, X[row], X0[row], window or 1, stride or 1))
        assert_close(ours[row, 0], ours[row, 2])


@pytest.mark.parametrize("centred", [True, False])
def test_rise_is_that_of_one_mask_at_a_time(network, centred):
    samples, keep = 20, 0.4
    options = {"samples": samples, "cells": 3, "keep": keep, "centred": centred, "baseline": X0, "seed": 5}
    ours = rise(network, X, TARGET, **options)
    generator = torch.Generator().manual_seed(5)
    coarse = (torch.rand(samples, 3, 3, generator=generator, dtype=torch.float32) < keep).double()
    shifts = zip(*(torch.randint(2, (samples,), generator=generator).tolist() for _ in range(2)), strict=True)
    masks = torch.stack([naive.rise_mask(c, shift, (5, 6)) for c, shift in zip(coarse, shifts, strict=True)])
    assert masks.min() >= 0
    assert masks.max() <= 1
    for row in range(2):
        f = logit(network, TARGET[row])
        scores = torch.tensor([f(mask * X[row] + (1 - mask) * X0[row]) for mask in masks])
        if centred:
            scores -= scores.mean()
        expected = sum(score * mask for score, mask in zip(scores, masks, strict=True)) / (keep * samples)
        assert_close(ours[row].sum(0), expected)
        assert_close(ours[row, 0], ours[row, 2])


def in_three_forms() -> dict[str, Tensor]:
    """Six players of a 5 x 6 image: patches of 2 x 3, and of each image its own, by numbers and by masks."""
    patches = (torch.arange(5)[:, None] // 2) * 2 + torch.arange(6) // 3
    own = torch.stack([patches, patches.flip(0)])[:, None]
    return {"map": patches, "maps": own, "masks": torch.stack([own == p for p in range(6)])}


@pytest.mark.parametrize("form", in_three_forms())
def test_shapley_values_are_those_of_all_orders(network, form):
    players = in_three_forms()[form]
    found = shapley_values(network, X, TARGET, players=players, baseline=X0)
    for row in range(2):
        f = logit(network, TARGET[row])
        numbers = in_three_forms()["map" if form == "map" else "maps"]
        numbers = numbers if form == "map" else numbers[row, 0]
        inside = [[tuple(at) for at in (numbers == p).nonzero().tolist()] for p in range(6)]

        @cache
        def value(shown, f=f, row=row, inside=inside):
            hidden = [pixel for p in range(6) if p not in shown for pixel in inside[p]]
            return f(naive.without(X[row], X0[row], hidden))

        expected = torch.tensor(naive.shapley(value, 6))
        assert_close(found.values[row], expected)
        laid = torch.zeros(3, 5, 6)
        for p, pixels in enumerate(inside):
            for i, j in pixels:
                laid[:, i, j] = expected[p] / (3 * len(pixels))
        assert_close(found.attribution[row], laid)


def test_square_patches_are_numbered_row_by_row(network):
    by_side = shapley_values(network, X, TARGET, players=3)
    by_map = shapley_values(network, X, TARGET, players=torch.arange(5)[:, None] // 3 * 2 + torch.arange(6) // 3)
    assert_close(by_side.values, by_map.values)
    assert_close(by_side.attribution, shapley(network, X, TARGET, players=3))


def test_permutations_approach_the_exact_values_as_their_standard_error_says(network):
    options = {"players": 2, "baseline": X0}  # nine patches
    exact = shapley_values(network, X, TARGET, **options)
    assert_close(exact.standard_error, torch.zeros(2, 9))
    few = [shapley_values(network, X, TARGET, permutations=20, seed=seed, **options) for seed in range(20)]
    z = torch.stack([(f.values - exact.values) / f.standard_error for f in few])
    assert 0.8 < z.square().mean().sqrt() < 1.4  # Student's t with nine degrees of freedom: 1.13
    many = shapley_values(network, X, TARGET, permutations=2000, **options)
    assert_close(many.values, exact.values, rtol=0, atol=0.1 * exact.values.abs().max().item())
    assert many.standard_error.max() < 0.2 * few[0].standard_error.max()


def test_every_permutation_shares_out_the_whole_difference(network):
    change = (network(X) - network(X0)).gather(1, TARGET[:, None])[:, 0].detach()
    for seed in range(5):
        found = shapley_values(network, X, TARGET, players=1, baseline=X0, permutations=2, seed=seed)
        assert_close(found.values.sum(1), change)
        assert_close(found.attribution.sum((1, 2, 3)), change)
        assert found.standard_error.isnan().all()


def test_an_order_comes_with_its_reverse():
    """(x1 + ... + x5)^2: the r-th to come adds 2 r - 1, which with the reverse is five on average for each."""
    found = shapley_values(lambda x: x.sum(1, keepdim=True) ** 2, torch.ones(1, 5), permutations=2)
    assert_close(found.values, torch.full((1, 5), 5.0))


def test_standard_errors_by_hand():
    """x1 x2 with three pairs of the only two orders: no pair differs from the others."""
    found = shapley_values(lambda x: x.prod(1, keepdim=True), torch.ones(1, 2), permutations=6)
    assert_close(found.standard_error, vector(0, 0))
    # x1 x2 x3: the two ends of an order get a half each, so a player's pairs are worth 0 or 1 / 2.
    found = shapley_values(lambda x: x.prod(1, keepdim=True), torch.ones(1, 3), permutations=40)
    share = 2 * found.values
    assert_close(found.standard_error, (share * (1 - share) / 19).sqrt() / 2)


# Peers


def test_occlusion_is_captums(network):
    square = captum.attr.Occlusion(network).attribute(
        X, target=TARGET, baselines=X0, sliding_window_shapes=(3, 3, 3), strides=(3, 1, 1)
    )
    mine = 3 * occlusion(network, X, TARGET, window=3, stride=1, baseline=X0)
    assert_close(mine.to(square.dtype), square)  # old versions of Captum answer in single precision


def test_shapley_values_are_captums(network):
    patches = in_three_forms()["map"]
    sampler = captum.attr.ShapleyValues(network)
    theirs = sampler.attribute(X, target=TARGET, baselines=X0, feature_mask=patches.expand(1, 3, 5, 6).contiguous())
    ours = shapley_values(network, X, TARGET, players=patches, baseline=X0)
    of_players = torch.stack([theirs[:, 0][:, patches == p][:, 0] for p in range(6)], 1)
    assert_close(ours.values.float(), of_players)  # which it gives in single precision


# Inputs of every form, and none


@pytest.mark.parametrize("shape", [(7,), (2, 9), (2, 5, 6), (1, 4, 5, 3)])
def test_one_to_three_axes_of_places(shape):
    model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 3), nn.Tanh(), nn.Linear(3, 3))
    x = torch.randn(2, *shape)
    change = (model(x) - model(torch.zeros_like(x)))[:, 1].detach()
    assert_close(shapley(model, x, 1).flatten(1).sum(1), change)
    for method in (occlusion, rise):
        assert method(model, x, 1).shape == x.shape


def test_tokens_may_be_players():
    """A map with all axes of x: the same number along the width of a token."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    x, tokens = torch.randn(2, 4, 3), torch.arange(4).view(1, 4, 1)
    found = shapley_values(model, x, 1, players=tokens)
    assert_close(found.values, (model[1].weight.detach()[1].view(4, 3) * x).sum(2))


def test_a_player_that_an_image_has_not_is_without_effect(network):
    numbers = torch.zeros(2, 1, 5, 6, dtype=torch.long)
    numbers[0, :, :, :2] = 3
    found = shapley_values(network, X, TARGET, players=numbers, baseline=X0)
    change = (network(X) - network(X0)).gather(1, TARGET[:, None])[:, 0].detach()
    assert_close(found.values[:, 1:3], torch.zeros(2, 2))
    assert_close(found.values[1], torch.stack([change[1], *torch.zeros(3)]))
    assert found.values[0, 3].abs() > 1e-3
    assert_close(found.attribution.sum((1, 2, 3)), change)


def test_a_single_player_gets_everything(network):
    change = (network(X) - network(torch.zeros_like(X))).gather(1, TARGET[:, None]).detach()
    for permutations in (None, 4):
        found = shapley_values(network, X, TARGET, players=6, permutations=permutations)
        assert_close(found.values, change)
        assert_close(found.standard_error, torch.zeros(2, 1))


def test_only_outputs_are_asked_for():
    """A model that torch cannot differentiate."""
    model = lambda x: torch.from_numpy((x.numpy() > 0.5).sum((1, 2, 3)).astype(float))[:, None]  # noqa: E731
    bright = (X > 0.5).double()
    assert_close(occlusion(model, X, 0, window=1).sum(1), bright.sum(1))
    assert_close(shapley(model, X, 0, players=1).sum(1), bright.sum(1))
    assert rise(model, X, 0).abs().max() > 0


METHODS = {
    "occlusion": occlusion,
    "rise": lambda *args, **options: rise(*args, samples=30, **options),
    "shapley": lambda *args, **options: shapley(*args, permutations=4, **options),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


@every_method
@pytest.mark.parametrize("batch_size", [1, 2, 7, 1000])
def test_batch_size_bounds_the_rows_of_a_pass_and_changes_no_number(method, batch_size, network):
    rows = []

    def model(x):
        rows.append(len(x))
        return network(x)

    assert_close(method(model, X, TARGET, batch_size=batch_size), method(network, X, TARGET))
    assert max(rows) <= batch_size
    assert max(rows) >= min(max(1, batch_size - batch_size % 2), 28)  # several parts of both images


@every_method
def test_too_little_memory_takes_fewer_rows(method, network):
    def model(x):
        if len(x) > 5:
            raise torch.OutOfMemoryError("no memory")
        return network(x)

    assert_close(method(model, X, TARGET), method(network, X, TARGET))


@every_method
def test_a_baseline_per_image_is_that_image_s(method, network):
    both = method(network, X, TARGET, baseline=X0)
    alone = [method(network, X[i : i + 1], TARGET[i : i + 1], baseline=X0[i : i + 1]) for i in range(2)]
    assert_close(both, torch.cat(alone))
    assert not torch.allclose(both, method(network, X, TARGET))


@pytest.mark.parametrize("name", ["rise", "shapley"])
def test_a_seed_is_another_draw(name, network):
    method = METHODS[name]
    assert_close(method(network, X, TARGET, seed=1), method(network, X, TARGET, seed=1), rtol=0, atol=0)
    assert not torch.allclose(method(network, X, TARGET, seed=1), method(network, X, TARGET))


MASKS = torch.stack([torch.arange(6) < 3, torch.arange(6) > 3]).view(2, 1, 6).expand(2, 5, 6)
FIVE = torch.rand(1, 1, 2, 2, 2, 2)
REFUSED = {
    "window": (lambda m: occlusion(m, X, window=6), r"window must be an integer in 1\.\.5, the shortest side of x, got 6"),
    "half a window": (lambda m: occlusion(m, X, window=2.5), "window must be an integer in"),
    "half a stride": (lambda m: occlusion(m, X, window=2, stride=1.5), "stride must be an integer in"),
    "gap": (lambda m: shapley(m, X, players=torch.full((5, 6), 10**6)), "numbered from 0 on, at most 29, got 1000000"),
    "no window": (lambda m: occlusion(m, X, window=0), "window must be an integer in"),
    "stride": (lambda m: occlusion(m, X, window=2, stride=3), r"stride must be an integer in 1\.\.2, .* got 3"),
    "no stride": (lambda m: occlusion(m, X, window=2, stride=0), "stride must be an integer in"),
    "samples": (lambda m: rise(m, X, samples=0), "samples must be an integer of at least 1, got 0"),
    "half a sample": (lambda m: rise(m, X, samples=2.5), "samples must be an integer of at least 1, got 2.5"),
    "cells": (lambda m: rise(m, X, cells=0), "cells must be an integer of at least 1, got 0"),
    "keep all": (lambda m: rise(m, X, keep=1.0), r"keep is a probability and must lie in \(0, 1\), got 1.0"),
    "keep none": (lambda m: rise(m, X, keep=0.0), "keep is a probability"),
    "four axes": (lambda m: rise(lambda x: x.flatten(1), FIVE), "at most 3 axes behind its channels"),
    "odd": (lambda m: shapley(m, X, permutations=3), "an even number of at least 2, got 3"),
    "no order": (lambda m: shapley(m, X, permutations=0), "an even number of at least 2, got 0"),
    "no patch": (lambda m: shapley(m, X, players=0), "players must be at least 1"),
    "patches of a vector": (lambda m: shapley(nn.Linear(4, 2), torch.rand(1, 4), players=2), "and 1 for vectors, got 2"),
    "floats": (lambda m: shapley(m, X, players=torch.zeros(5, 6)), "LongTensor of their numbers or bool masks, got torch"),
    "a list": (lambda m: shapley(m, X, players=[1]), "got list"),
    "of another size": (lambda m: shapley(m, X, players=torch.zeros(6, 5).long()), r"the shape \(5, 6\), or all axes"),
    "without channels": (
        lambda m: shapley(m, X, players=torch.zeros(2, 5, 6).long()),
        r"all axes of x \(2, 3, 5, 6\) and broadcast to it, got \(2, 5, 6\)",
    ),
    "negative": (lambda m: shapley(m, X, players=torch.full((5, 6), -1)), "numbered from 0 on, at most 29, got -1 to -1"),
    "a gap": (lambda m: shapley(m, X, players=MASKS), r"5 are in none and 0 in several: add ~masks.any\(0\)"),
    "overlap": (
        lambda m: shapley(m, X, players=torch.ones(2, 5, 6, dtype=torch.bool)),
        "0 are in none and 30 in several",
    ),
    "no mask": (lambda m: shapley(m, X, players=MASKS[:0]), "behind the axis of the masks, got"),
    "baseline": (lambda m: occlusion(m, X, baseline=X[:, :2]), r"baseline must be .* got shape \(2, 2, 5, 6\)"),
    "batch size": (lambda m: rise(m, X, batch_size=0), "batch_size must be None or at least 1, got 0"),
    "infinite": (lambda m: occlusion(lambda x: 1 / x.flatten(1), X, 0), "NaN or infinite logits .* another fill or baseline"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_done_is_refused_by_name(call, message, network):
    with pytest.raises(ValueError, match=message):
        call(network)


def test_on_scenes_the_object_carries_the_logit():
    torch.set_default_dtype(torch.float32)
    data, model = scenes(12, seed=3), load("scenes_cnn")
    x, objects = data.images, data.masks["object"]
    x0 = x.mean((2, 3), keepdim=True)
    found = shapley_values(model, x, data.labels, players=objects.long()[:, None], baseline=x0)
    assert (found.values[:, 1] > found.values[:, 0]).float().mean() > 0.9
    for method in METHODS.values():
        mass = il.relevance_mass(method(model, x, data.labels, baseline=x0), objects)
        assert (mass > 2 * il.chance(objects)).double().mean() > 0.9
