"""The linear surrogate: closed forms."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from interp_lab import networks, smoothgrad, surrogate_linear
from interp_lab.data import digits

MODEL, X = networks.load("digits_cnn"), digits("test").images[:8]
NAN = X.clone()
NAN[0, 0, 0, 0] = torch.nan


def normal(n: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_surrogate_of_a_linear_model_is_that_model():
    weight, bias = normal(3, 5), normal(3)
    x = normal(100, 5) * torch.tensor([1, 100, 0.01, 1, 1]).double()
    surrogate = surrogate_linear(lambda x: x @ weight.T + bias, x)
    assert_close(surrogate.weight, weight)
    assert_close(surrogate.bias, bias)
    assert_close(surrogate.importance, weight * x.std(0, correction=0))


def test_of_equally_good_linear_models_the_one_of_least_norm_is_taken():
    x = normal(50, 1).expand(50, 2).contiguous()
    surrogate = surrogate_linear(lambda x: torch.stack([x[:, 0], -x[:, 1]], 1), x)
    assert_close(surrogate.weight, torch.tensor([[0.5, 0.5], [-0.5, -0.5]]).double())


def test_ridge_agrees_with_the_normal_equations():
    x = normal(60, 4)
    z = (x - x.mean(0)) / x.std(0, correction=0)
    model = networks.mlp(4, 8, 3).double()
    y = model(x).detach()
    weight = torch.linalg.solve(z.T @ z + 0.3 * 60 * torch.eye(4).double(), z.T @ (y - y.mean(0))).T
    assert_close(surrogate_linear(model, x, ridge=0.3).importance, weight)


def test_a_linear_surrogate_on_gaussian_inputs_is_smoothgrad():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 3)).double()
    x = torch.rand(1, 16).double()
    noise = 0.3
    sigma = noise * (x.max() - x.min())
    surrogate = surrogate_linear(model, x + sigma * normal(20_000, 16))
    smooth = smoothgrad(model, x, 1, n=4000, noise=noise)[0]
    assert F.cosine_similarity(surrogate.weight[1], smooth, dim=0) > 0.999
    assert_close(surrogate.weight[1], smooth, atol=0.02 * smooth.norm().item(), rtol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: surrogate_linear(MODEL, NAN), "x must be finite"),
        (lambda: surrogate_linear(MODEL, X, ridge=-1.0), "ridge must be at least 0, got -1"),
        (lambda: surrogate_linear(MODEL, X, queries=-1), "at least 0, got -1"),
    ],
)
def test_what_cannot_be_right_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
