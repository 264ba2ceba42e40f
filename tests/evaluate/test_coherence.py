"""Coherence: values by hand, the two maps with a known score, chance on average, and what is refused."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from interp_lab import bootstrap, box_masks, chance, coherence, pointing_game, relevance_mass, relevance_rank
from interp_lab.data import scenes

SCORES = [pointing_game, relevance_mass, relevance_rank]
MASK = torch.tensor([[[True, True, False], [False, False, False]]])


@pytest.mark.parametrize(
    ("values", "pointing", "mass", "rank"),
    [
        ([[3.0, 1.0, 2.0], [0.0, -5.0, 0.0]], 1.0, 4 / 6, 1 / 2),
        ([[1.0, 1.0, 4.0], [0.0, 0.0, 2.0]], 0.0, 2 / 8, 0.0),
        ([[-1.0, -2.0, -3.0], [-4.0, -5.0, -6.0]], 1.0, 1 / 3, 1.0),  # no positive relevance: the mass is chance
        ([[2.0, 0.0, 2.0], [2.0, 0.0, 0.0]], 1 / 3, 2 / 6, 1 / 3),  # three share the two first places
        ([[5.0, 1.0, 1.0], [1.0, 0.0, 0.0]], 1.0, 6 / 8, (1 + 1 / 3) / 2),  # three share the second place
        ([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], 1 / 3, 1 / 3, 1 / 3),
    ],
)
@pytest.mark.filterwarnings("ignore:1 of 1 maps have no positive relevance")
def test_values_by_hand(values, pointing, mass, rank):
    attribution = torch.tensor([values])
    for score, expected in zip(SCORES, (pointing, mass, rank), strict=True):
        assert_close(score(attribution, MASK), torch.tensor([expected]))
        channels = torch.stack([attribution + 1, -torch.ones_like(attribution)], 1)  # they sum to the map
        assert_close(score(channels, MASK), torch.tensor([expected]))


def test_ties_score_the_mean_over_all_ways_to_break_them():
    generator = torch.Generator().manual_seed(0)
    attribution = torch.randint(0, 3, (5, 6, 6), generator=generator).double()
    mask = torch.rand(5, 6, 6, generator=generator) < 0.3
    # Noise far below the gaps breaks the ties; the mean over many draws is the expectation.
    draws = 1e-6 * torch.rand(4000, 5, 6, 6, generator=generator, dtype=torch.float64)
    for score in (pointing_game, relevance_rank):
        broken = score((attribution + draws).flatten(0, 1), mask.repeat(4000, 1, 1)).view(4000, 5)
        assert_close(score(attribution, mask), broken.mean(0), atol=0.03, rtol=0)


def test_the_mask_scores_one_and_a_uniform_map_its_area():
    data = scenes(64, seed=4)
    mask, area = data.masks["object"], data.masks["object"].float().mean((1, 2))
    for score in SCORES:
        assert_close(score(mask, mask), torch.ones(64), atol=0, rtol=0)
        assert_close(score(torch.full((64, 3, 64, 64), 0.1), mask), area)
    result = coherence(mask.float(), mask)
    assert_close(result.chance, area)
    assert_close(result.pointing_game, torch.ones(64))


def test_a_random_map_scores_chance_on_average():
    mask = scenes(400, seed=5).masks["object"]
    noise = torch.randn(400, 64, 64, generator=torch.Generator().manual_seed(0))
    for score in SCORES:
        low, high = bootstrap(score(noise, mask) - chance(mask), confidence=0.999)[1:]
        assert low < 0 < high


def test_scores_do_not_depend_on_the_scale_or_the_batch():
    data = scenes(6, seed=6)
    attribution = torch.randn(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for score in SCORES:
        together = score(attribution, data.masks["object"])
        single = [score(attribution[i : i + 1], data.masks["object"][i : i + 1]) for i in range(6)]
        assert_close(together, torch.cat(single))
        assert_close(together, score(attribution * 2.0**-100, data.masks["object"]))


def test_a_map_without_positive_relevance_is_reported():
    attribution = torch.stack([-torch.rand(2, 3), torch.rand(2, 3), torch.zeros(2, 3)])
    with pytest.warns(UserWarning, match="2 of 3 maps have no positive relevance"):
        result = relevance_mass(attribution, MASK.expand(3, 2, 3))
    assert_close(result[[0, 2]], torch.full((2,), 1 / 3))


def test_boxes_become_the_pixels_whose_centres_they_hold():
    masks = box_masks(torch.tensor([[1.0, 0.0, 3.0, 2.0], [0.6, 0.4, 1.5, 3.0]]), (3, 4))
    assert masks.int().tolist() == [
        [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]],
        [[0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]],
    ]
    with pytest.raises(ValueError, match="xmin < xmax"):
        box_masks(torch.tensor([[3.0, 0.0, 1.0, 2.0]]), (3, 4))


def test_the_interval_holds_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    samples = rng.exponential(size=(200, 60))
    hits = sum(low <= 1 <= high for _, low, high in (bootstrap(torch.tensor(s), resamples=500) for s in samples))
    assert 0.88 <= hits / 200 <= 0.98
    values = torch.tensor(samples[0])
    mean, low, high = bootstrap(values)
    half = 1.96 * float(stats.sem(samples[0]))
    assert_close(torch.tensor([mean, low, high]), torch.tensor([mean, mean - half, mean + half]), atol=0.03, rtol=0)
    assert bootstrap(values) == bootstrap(values) != bootstrap(values, seed=1)
    assert str(bootstrap(torch.full((4,), 0.25))) == "0.250 [0.250, 0.250]"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, m: pointing_game(a, m.float()), r"mask must be a bool tensor \(N, H, W\), got torch.float32"),
        (lambda a, m: relevance_mass(a, m[0]), r"got torch.bool \(2, 3\)"),
        (lambda a, m: relevance_rank(a, m[:, :1]), r"without channels \(1, 2, 3\), got \(1, 1, 3\)"),
        (lambda a, m: pointing_game(a / 0, m), r"attribution holds NaN or infinite values in rows \[0\]"),
        (lambda a, m: pointing_game(a[None], m), r"must be a tensor \(N, C, H, W\)"),
        (lambda a, m: chance(m & False), r"is empty in rows \[0\]"),
        (lambda a, m: relevance_rank(a, m | True), r"is the whole image in rows \[0\]"),
        (lambda a, m: bootstrap(torch.tensor([1.0])), "N >= 2"),
        (lambda a, m: bootstrap(torch.rand(3), confidence=95), "confidence must lie between 0 and 1 .*, got 95"),
        (lambda a, m: bootstrap(torch.rand(3), confidence=-0.5), "confidence must lie"),
        (lambda a, m: bootstrap(torch.rand(3), resamples=1), "resamples be at least 2"),
        (lambda a, m: bootstrap(torch.rand(3) + 1j), "values must be real"),
        (lambda a, m: bootstrap(torch.tensor([1.0, float("nan")])), "1 of 2 values are NaN"),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(1, 3, 2, 3), MASK)
