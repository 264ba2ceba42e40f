"""Deconvnet, guided backpropagation, RectGrad: the lecture's example, toys, and independent implementations."""

import captum.attr
import naive
import pytest
import torch
import torch.nn.functional as F
import zennit.attribution
import zennit.composites
from torch import Tensor, nn
from torch.testing import assert_close

from interp_lab import UnsupportedModelError, gradient_x_input
from interp_lab.explain_decision.deconvnet_and_guided_backprop import deconvnet, guided_backprop
from interp_lab.explain_decision.rectgrad import rectgrad

pytestmark = pytest.mark.usefixtures("double")

METHODS = {"deconvnet": deconvnet, "guided_backprop": guided_backprop}
Z = torch.tensor([[1.0, -1, 5], [2, -5, -7], [-3, 2, 4]], dtype=torch.float64)
SIGNAL = torch.tensor([[-2.0, 3, -1], [6, -3, 1], [2, -1, 3]], dtype=torch.float64)


def scored(x: Tensor) -> Tensor:
    """One ReLU below a fixed backward signal: f = sum of signal * relu(x)."""
    return (SIGNAL * F.relu(x)).sum((1, 2))[:, None]


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(6, 8, 3),
        nn.ReLU(),
        nn.AvgPool2d(2, 1),
        nn.Flatten(),
        nn.Linear(8, 5),
        nn.ReLU(),
        nn.Linear(5, 4),
    )


X = torch.randn(3, 3, 10, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_the_lecture_s_example():
    assert_close(F.relu(Z), torch.tensor([[1.0, 0, 5], [2, 0, 0], [0, 2, 4]]))
    expected = {
        gradient_x_input: Z * torch.tensor([[-2.0, 0, -1], [6, 0, 0], [0, -1, 3]]),
        deconvnet: torch.tensor([[0.0, 3, 0], [6, 0, 1], [2, 0, 3]]),
        guided_backprop: torch.tensor([[0.0, 0, 0], [6, 0, 0], [0, 0, 3]]),
    }
    for method, map_ in expected.items():
        assert_close(method(scored, Z[None])[0], map_, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("x", "deconv", "guided"),
    [
        ((1.0, 1.0), (1.0, 0.0), (1.0, 0.0)),
        ((-1.0, 1.0), (1.0, 0.0), (0.0, 0.0)),
        ((1.0, -1.0), (1.0, 0.0), (1.0, 0.0)),
    ],
)
def test_a_difference_of_two_rectified_inputs(x, deconv, guided):
    def model(x):
        return F.relu(x[:, :1]) - F.relu(x[:, 1:])

    x = torch.tensor([x])
    assert_close(deconvnet(model, x), torch.tensor([deconv]))
    assert_close(guided_backprop(model, x), torch.tensor([guided]))


@pytest.mark.parametrize("rule", METHODS)
def test_equal_to_a_network_with_that_backward_pass_written_in(rule):
    model = naive.randomise_batch_norm(network(), X)
    with naive.every_relu(rule):
        expected = naive.gradient(model, X, 2)
    assert_close(METHODS[rule](model, X, 2), expected, rtol=1e-9, atol=1e-12)
    assert (expected - naive.gradient(model, X, 2)).norm() > 0.1 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_to_captum_and_zennit_on_relu_modules(dtype):
    model, x = naive.randomise_batch_norm(network(), X).to(dtype), X.to(dtype)
    tolerance = {"rtol": 0, "atol": 1e-9 if dtype == torch.float64 else 1e-4}
    output = torch.eye(4, dtype=dtype)[torch.tensor([2, 2, 2])]
    pairs = {
        guided_backprop: (captum.attr.GuidedBackprop, zennit.composites.GuidedBackprop),
        deconvnet: (captum.attr.Deconvolution, zennit.composites.DeconvNet),
    }
    for method, (of_captum, of_zennit) in pairs.items():
        ours = method(model, x, 2)
        scale = ours.abs().max()
        with pytest.warns(UserWarning, match="backward hooks"):
            theirs = of_captum(model).attribute(x.clone().requires_grad_(), target=2).detach()
        assert_close(ours / scale, theirs / scale, **tolerance)
        with zennit.attribution.Gradient(model, of_zennit()) as attribute:
            theirs = attribute(x.clone(), output)[1].detach()
        assert_close(ours / scale, theirs / scale, **tolerance)


def test_guided_backprop_is_the_gradient_where_no_weight_above_the_first_layer_is_negative():
    model = naive.randomise_batch_norm(network(), X)
    with torch.no_grad():
        for parameter in [model[1].weight, *(p for module in model[2:] for p in module.parameters())]:
            parameter.abs_()
    assert_close(guided_backprop(model, X, 1), naive.gradient(model, X, 1), rtol=1e-12, atol=1e-14)


def test_rectgrad_with_q_zero_is_guided_backprop():
    model = naive.randomise_batch_norm(network(), X)
    assert_close(rectgrad(model, X, 1, q=0), guided_backprop(model, X, 1), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("q", "kept"),
    [(0.0, [2, 3, 4, 5]), (0.5, [3, 4, 5]), (0.7, [4, 5]), (0.9, [5])],  # of six units, int(6 q) are removed
)
def test_rectgrad_keeps_the_units_above_the_quantile_of_a_times_g(q, kept):
    signal = torch.tensor([3.0, -1, 1, 2, 3, 4])
    x = torch.tensor([[-1.0, 2, 1, 1, 1, 1]])  # a * g = 0, -2, 1, 2, 3, 4
    expected = torch.zeros(1, 6)
    expected[0, kept] = signal[kept]
    assert_close(rectgrad(lambda x: (signal * F.relu(x)).sum(1, keepdim=True), x, q=q), expected)


def test_rectgrad_takes_the_quantile_per_image():
    model = naive.randomise_batch_norm(network(), X)
    rows = torch.cat([rectgrad(model, row[None], 1, q=0.8) for row in X])
    assert_close(rectgrad(model, X, 1, q=0.8), rows)
    assert (rows == 0).double().mean() < 1


@pytest.mark.parametrize("q", [-0.1, 1.0, float("nan")])
def test_rectgrad_refuses_a_q_outside_its_range(q):
    with pytest.raises(ValueError, match=r"q must lie in \[0, 1\)"):
        rectgrad(network(), X, q=q)


NO_RULE = {
    "no ReLU": (nn.Identity(), "has no ReLU"),
    "ReLU6": (nn.ReLU6(), "'hardtanh'"),
    "LeakyReLU": (nn.LeakyReLU(), "'leaky_relu'"),
    "PReLU": (nn.PReLU(dtype=torch.float64), "'prelu_kernel'"),
    "GELU": (nn.GELU(), r"'gelu' \(module '1'\)"),
    "SiLU": (nn.SiLU(), r"'silu' \(module '1'\)"),
    "Hardswish": (nn.Hardswish(), "'hardswish'"),
    "Sigmoid": (nn.Sigmoid(), "'sigmoid'"),
    "Softmax": (nn.Softmax(1), "'softmax'"),
}


@pytest.mark.parametrize("method", [deconvnet, guided_backprop, rectgrad])
@pytest.mark.parametrize(("activation", "message"), NO_RULE.values(), ids=NO_RULE.keys())
def test_other_nonlinearities_are_refused_by_name(method, activation, message):
    with pytest.raises(UnsupportedModelError, match=message):
        method(nn.Sequential(nn.Linear(4, 5), activation, nn.Linear(5, 3)), torch.randn(2, 4))
