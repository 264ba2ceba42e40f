"""Counterfactuals: the closed form, two other solvers, bounds, and a network whose boundary is known."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from torch import nn
from torch.testing import assert_close

from interp_lab import counterfactual

pytestmark = pytest.mark.usefixtures("double")


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear(inputs: int, classes: int) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, classes)


@pytest.mark.parametrize("margin", [0.0, 0.1, 2.0])
@pytest.mark.parametrize("steps", [1, 20])
def test_on_a_linear_model_the_distance_is_what_is_missing_over_the_length_of_the_weight(margin, steps):
    model, x = linear(6, 2), drawn(9, 6)
    logits = model(x)
    target = logits.argmin(1)
    found = counterfactual(model, x, margin=margin, bounds=None, steps=steps)
    weight = model.weight[target] - model.weight[1 - target]
    missing = margin + (logits[:, 0] - logits[:, 1]).abs()
    assert torch.equal(found.target, target)
    assert_close(found.distance, missing / weight.norm(dim=1))
    assert_close(found.x, x + (missing / weight.square().sum(1))[:, None] * weight)


def test_a_single_logit_decides_by_its_sign():
    model, x = linear(4, 1), drawn(6, 4)
    found = counterfactual(model, x, margin=0.5, bounds=None)
    logit = model(x)[:, 0]
    assert torch.equal(found.target, (logit <= 0).long())
    assert_close(found.distance, (logit.abs() + 0.5) / model.weight.norm())
    assert_close(model(found.x)[:, 0], torch.where(logit > 0, -0.5, 0.5))


def test_bounds_and_several_classes_as_by_a_quadratic_program():
    """Solved by scipy, which knows the constraint of every other class."""
    model, x = linear(8, 4), drawn(6, 8).sigmoid()
    target = model(x).topk(2).indices[:, 1]
    found = counterfactual(model, x, target, margin=0.05, steps=200)
    weight, bias = model.weight.detach().numpy(), model.bias.detach().numpy()
    for i in range(6):
        t, others = int(target[i]), [c for c in range(4) if c != target[i]]

        def lead(z, t=t, others=others):
            return (weight[t] - weight[others]) @ z + bias[t] - bias[others] - 0.05

        start = x[i].numpy()
        feasible = linprog(
            np.zeros(8), A_ub=weight[others] - weight[t], b_ub=bias[t] - bias[others] - 0.05, bounds=[(0, 1)] * 8
        )
        assert feasible.success == bool(found.distance[i] < torch.inf)
        if feasible.success:
            other = minimize(
                lambda z, start=start: ((z - start) ** 2).sum(),
                feasible.x,
                jac=lambda z, start=start: 2 * (z - start),
                bounds=[(0, 1)] * 8,
                constraints={"type": "ineq", "fun": lead},
                method="SLSQP",
                options={"ftol": 1e-14, "maxiter": 500},
            )
            assert other.success
            assert found.distance[i].item() == pytest.approx(other.fun**0.5, rel=1e-3)
    assert ((found.x >= 0) & (found.x <= 1)).all()


def test_the_closest_point_of_a_sphere():
    """The class changes at distance 2 of the origin: the closest point lies on the ray through x."""

    def model(x):
        return torch.stack([x.square().sum(1), torch.full_like(x[:, 0], 4.0)], 1)

    x = drawn(7, 5)
    x = x / x.norm(dim=1, keepdim=True) * torch.tensor([0.5, 1.0, 1.5, 1.9, 2.5, 3.0, 5.0])[:, None]
    found = counterfactual(model, x, margin=0.0, bounds=None)
    assert_close(found.distance, (x.norm(dim=1) - 2).abs(), atol=1e-3, rtol=1e-3)
    assert_close(found.x, 2 * x / x.norm(dim=1, keepdim=True), atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_on_a_network_it_is_the_closest_point_that_a_search_finds(seed):
    """Of many points in all directions, each as near as its direction allows; two inputs, so that these cover the plane."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, 12), nn.Tanh(), nn.Linear(12, 3))
    model[0].weight.data *= 2
    x = torch.randn(8, 2)
    found = counterfactual(model, x, margin=1e-3, bounds=None, steps=100)
    there = found.distance < torch.inf
    assert there.sum() >= 7
    assert torch.equal(model(found.x[there]).argmax(1), found.target[there])
    angle, radius = torch.linspace(0, 2 * torch.pi, 361)[:-1], torch.linspace(0, 4, 801)[1:]
    points = x[:, None, None] + radius[:, None, None] * torch.stack([angle.cos(), angle.sin()], 1)  # (8, 800, 360, 2)
    inside = (model(points).argmax(-1) == found.target[:, None, None]).any(2)
    nearest = radius[inside.double().argmax(1)]
    assert_close(found.distance[there], nearest[there], atol=0.006, rtol=0)


def test_what_is_there_already_stays_and_what_cannot_be_reached_says_so():
    model, x = linear(5, 3), drawn(4, 5)
    own = model(x).argmax(1)
    found = counterfactual(model, x, own, margin=0.0, bounds=None)
    assert_close(found.x, x)
    assert_close(found.distance, torch.zeros(4))

    def constant(x):
        return torch.stack([x.sum(1) * 0 + 1, x.sum(1) * 0], 1)

    nothing = counterfactual(constant, x, 1, bounds=None)
    assert_close(nothing.x, x)
    assert torch.isinf(nothing.distance).all()


def test_rows_do_not_interact():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)), drawn(5, 3, 2, 2).sigmoid()
    both = counterfactual(model, x)
    one = counterfactual(model, x[2:3])
    assert_close(both.x[2:3], one.x)
    assert_close(both.distance, (both.x - x).flatten(1).norm(dim=1).where(both.distance < torch.inf, torch.inf))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": -1.0}, "margin must be at least 0 and steps at least 1, got -1.0 and 50"),
        ({"steps": 0}, "margin must be at least 0 and steps at least 1, got 0.1 and 0"),
        ({"bounds": (0.0, 1.0)}, r"x must lie within the bounds \(0.0, 1.0\)"),
        ({"target": 3, "bounds": None}, r"target must lie in 0..2, got 3..3"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        counterfactual(linear(5, 3), drawn(4, 5), options.pop("target", None), **options)
