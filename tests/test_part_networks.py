"""The networks that decide scenes by one part: what they answer by, and what loading leaves alone."""

import pytest
import torch
from torch import nn

from interp_lab import part_networks
from interp_lab.data import PARTS, scenes
from interp_lab.networks import accuracy


@pytest.mark.parametrize("part", PARTS)
def test_the_shipped_networks_decide_by_their_part(part):
    """On new scenes they are right; without their part they guess, and without another they do not."""
    whole, *bare = (scenes(200, size=48, seed=9, evidence=part, without=without) for without in (None, *PARTS))
    for seed in part_networks.SEEDS:
        model = part_networks.load(part, seed)
        assert not model.training
        assert {type(module) for module in model} == {nn.Conv2d, nn.ReLU, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear}
        assert accuracy(model, whole) > (0.85 if part == "stripe" else 0.98)
        for without, data in zip(PARTS, bare, strict=True):
            right = accuracy(model, data)
            assert right < 0.65 if without == part else right > 0.7, (seed, without)


def test_the_networks_are_nine_and_loading_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    heads = [part_networks.load(part, seed)[-1].weight for part in PARTS for seed in part_networks.SEEDS]
    assert torch.equal(before, torch.get_rng_state())
    assert len({head.sum().item() for head in heads}) == 9
    assert torch.equal(part_networks.load("dot")[-1].weight, heads[0])


def test_training_is_that_of_the_seed_and_leaves_the_random_state_alone():
    data, before = scenes(8, size=48, evidence="dot"), torch.get_rng_state()
    heads = [part_networks.trained(data, seed)[-1].weight for seed in (1, 1, 2)]
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


@pytest.mark.parametrize(("part", "seed"), [("handle", 1), ("dot", 4)])
def test_refuses_what_there_is_not(part, seed):
    with pytest.raises(
        ValueError,
        match=f"no network for the part '{part}' with seed {seed}; there are dot, stripe, rim, each with the",
    ):
        part_networks.load(part, seed)
