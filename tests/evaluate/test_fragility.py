"""The attack on saliency maps: closed forms on one kink and on a linear model, and its constraints on a real network."""

import inspect

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from interp_lab import attack_attribution, saliency, top_k_overlap
from interp_lab.data import scenes
from interp_lab.networks import load


def kink(x: Tensor, other: float = -10.0) -> Tensor:
    """Logits relu(3 x1 - 1.5) + x2 and a constant: the gradient is (3, 1) for x1 > 1/2, else (0, 1)."""
    score = torch.relu(3 * x[:, 0] - 1.5) + x[:, 1]
    return torch.stack([score, torch.full_like(score, other)], 1)


X = torch.tensor([[0.55, 0.5]])


def test_overlap_by_hand():
    a = torch.tensor([[[3.0, -4.0], [1.0, 0.0]], [[3.0, 2.0], [1.0, 0.0]]])
    b = torch.tensor([[[0.0, 1.0], [2.0, 0.5]], [[6.0, -4.0], [1.0, 0.0]]])
    assert_close(top_k_overlap(a, b, 2), torch.tensor([0.5, 1.0]))
    assert_close(top_k_overlap(a, b, 1), torch.tensor([0.0, 1.0]))
    assert_close(top_k_overlap(a, b, 4), torch.ones(2))
    colours = torch.tensor([[[[1.0, 2.5]], [[-2.0, 0.0]]]])  # magnitudes 3 and 2.5 over the two channels
    assert_close(top_k_overlap(colours, torch.tensor([[[[3.0, 0.0]], [[0.0, 0.0]]]]), 1), torch.ones(1))


def test_the_attack_stays_by_default_within_eight_grey_levels():
    assert inspect.signature(attack_attribution).parameters["radius"].default == 8 / 255


def test_unrelated_maps_overlap_by_chance():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 2000, 10, 10, generator=generator)
    assert abs(top_k_overlap(a, b, 20).mean() - 0.2) < 0.01


def test_the_kink_is_crossed_where_the_radius_allows_it():
    moved = attack_attribution(kink, X, k=1, radius=0.1)
    assert moved[0, 0] < 0.5
    assert_close(saliency(kink, X), torch.tensor([[3.0, 1.0]]))
    assert_close(saliency(kink, moved), torch.tensor([[0.0, 1.0]]))
    assert_close(attack_attribution(kink, X, k=1, radius=0.04), X)  # 0.05 would be needed
    assert_close(attack_attribution(kink, X, k=1), X)  # 8 / 255


def test_the_decision_is_kept():
    """At x1 < 1/2 the score is x2 = 0.5 at most 0.6: below 0.62 the other class wins, so that no step is allowed."""
    moved = attack_attribution(lambda x: kink(x, other=0.62), X, k=1, radius=0.1)
    assert_close(moved, X)


def test_another_target_than_the_decision():
    moved = attack_attribution(lambda x: kink(x).flip(1), X, 1, k=1, radius=0.1)
    assert moved[0, 0] < 0.5


def test_the_map_of_a_linear_model_cannot_change():
    linear = nn.Linear(6, 3)
    x = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(attack_attribution(linear, x, k=2), x)


@pytest.mark.parametrize("relu", [nn.ReLU(), nn.ReLU(inplace=True)])
def test_relus_in_place(relu):
    torch.manual_seed(1)
    first, last = nn.Linear(8, 16), nn.Linear(16, 3)
    x = torch.rand(5, 8)
    moved = attack_attribution(nn.Sequential(first, relu, last), x, k=2, radius=0.2)
    assert_close(moved, attack_attribution(nn.Sequential(first, nn.ReLU(), last), x, k=2, radius=0.2))
    assert not torch.equal(moved, x)


def test_scenes_network():
    data, network = scenes(6, seed=7), load("scenes_cnn")
    x, before = data.images, {name: p.clone() for name, p in network.named_parameters()}
    state, radius = torch.get_rng_state(), 4 / 255
    moved = attack_attribution(network, x, k=200, radius=radius, steps=6)
    assert (moved - x).abs().max() <= radius + 1e-6
    assert 0 <= moved.min()
    assert moved.max() <= 1
    answers = network(x).argmax(1)
    assert torch.equal(network(moved).argmax(1), answers)
    sign = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)).sub(0.5).sign()
    original = saliency(network, x)
    attacked, control = (
        top_k_overlap(original, saliency(network, y), 200).mean() for y in (moved, (x + radius * sign).clamp(0, 1))
    )
    assert attacked < 0.3 < 0.6 < control
    one = attack_attribution(network, x[2:3], k=200, radius=radius, steps=6)
    assert (one - moved[2:3]).abs().gt(1e-6).float().mean() < 0.01  # signs of nearly zero slopes may differ
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in network.named_parameters())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"k": 0}, r"k must be an integer in 1\.\.2"),
        ({"k": 3}, r"k must be an integer in 1\.\.2"),
        ({"k": 1, "radius": 0}, "radius"),
        ({"k": 1, "steps": 0}, "steps"),
        ({"k": 1, "beta": -1}, "beta"),
        ({"k": 1, "bounds": (0, 0.5)}, "give its bounds"),
    ],
)
def test_refuses(options, words):
    with pytest.raises(ValueError, match=words):
        attack_attribution(kink, X, **options)


def test_refuses_maps():
    with pytest.raises(ValueError, match="one shape"):
        top_k_overlap(torch.rand(2, 4), torch.rand(2, 5), 1)
    with pytest.raises(ValueError, match="finite"):
        top_k_overlap(torch.full((2, 4), torch.nan), torch.rand(2, 4), 1)


def test_equal_pixels_at_the_border_count_as_a_coin_would_choose_them():
    a, b = torch.zeros(1, 1, 10, 10), torch.zeros(1, 1, 10, 10)
    a[..., 0, :5], b[..., 1, :5] = 1, 1
    draws = torch.Generator().manual_seed(0)

    def drawn(map_: Tensor) -> Tensor:
        coin = torch.rand(4000, 100, generator=draws, dtype=torch.float64)
        return torch.zeros(4000, 100).scatter_(1, (map_.flatten() + coin / 2).topk(30).indices, 1)

    assert_close(top_k_overlap(a, b, 30).item(), (drawn(a) * drawn(b)).sum(1).mean().item() / 30, atol=0.005, rtol=0)
    assert_close(top_k_overlap(a, a, 5), torch.ones(1))
    assert_close(top_k_overlap(0 * a, b, 30), torch.tensor([0.3]))
