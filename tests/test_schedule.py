"""The one schedule of all trainings, from its definition, and trainings of a few steps."""

import doctest
import math

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from interp_lab import antehoc, networks, schedule
from interp_lab.data import Dataset
from interp_lab.schedule import one_cycle


def rates(make, steps: int) -> tuple[list[float], list[float]]:
    """Learning rate and first beta of every step."""
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))])
    plan, lr, beta = make(optimizer), [], []
    for _ in range(steps):
        lr.append(optimizer.param_groups[0]["lr"])
        beta.append(optimizer.param_groups[0]["betas"][0])
        optimizer.step()
        plan.step()
    return lr, beta


def wave(start: float, end: float, share: float) -> float:
    """From start to end on half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


@pytest.mark.parametrize("steps", [*range(2, 32), 100])
def test_the_rate_rises_over_a_fifth_of_the_steps_and_falls_over_the_rest(steps):
    top, last = steps / 5 - 1, steps - 1
    got = rates(lambda optimizer: one_cycle(optimizer, 0.3, steps), steps)
    rises = [0 < top and step <= top for step in range(steps)]
    for values, (low, high, end) in zip(got, [(0.3 / 25, 0.3, 0.3 / 250_000), (0.95, 0.85, 0.95)], strict=True):
        expected = [
            wave(low, high, step / top) if rise else wave(high, end, (step - top) / (last - top))
            for step, rise in enumerate(rises)
        ]
        assert values == pytest.approx(expected, rel=1e-6)


def test_a_single_step_has_the_full_rate():
    assert rates(lambda optimizer: one_cycle(optimizer, 0.3, 1), 1) == ([0.3], [pytest.approx(0.85)])


@pytest.mark.parametrize("steps", [2, 3, 4, 6, 7, 10, 25, 500])
def test_trainings_of_other_lengths_have_the_very_numbers_of_torch(steps):
    torchs = rates(lambda optimizer: OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.2), steps)
    assert rates(lambda optimizer: one_cycle(optimizer, 3e-3, steps), steps) == torchs


def separable(n: int) -> Dataset:
    """Images of ones and of zeros."""
    labels = torch.arange(n) % 2
    return Dataset(labels.float().view(-1, 1, 1, 1).expand(n, 1, 4, 4).contiguous(), labels, ("dark", "bright"))


@pytest.mark.parametrize(("epochs", "batches"), [(1, 1), (5, 1), (1, 5)])
def test_a_network_learns_in_one_step_and_in_five(epochs, batches):
    data, model = separable(8 * batches), nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
    nn.init.zeros_(model[1].weight)
    networks.train(model, data, epochs=epochs, batch_size=8, lr=0.1, progress=False)
    assert networks.accuracy(model, data) == 1.0


@pytest.mark.parametrize(("epochs", "batches"), [(1, 1), (5, 1), (1, 5)])
def test_a_prototype_network_takes_one_step_and_five(epochs, batches):
    data, body = separable(8 * batches), nn.Sequential(nn.Conv2d(1, 4, 2), nn.ReLU())
    before = body[0].weight.clone()
    antehoc.prototype_network(data.images, data.labels, body, per_class=1, epochs=epochs, batch_size=8, lr=0.1)
    assert (body[0].weight - before).abs().max() > 0.01


def test_the_example_runs():
    assert doctest.testmod(schedule) == (0, 5)
