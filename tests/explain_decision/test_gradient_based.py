"""The gradient-based methods against closed forms and against Captum."""

import captum.attr
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from interp_lab import gradient_x_input, integrated_gradients, interior_gradient, saliency, smoothgrad


@pytest.fixture
def network() -> nn.Module:
    """A small convolutional network with biases, max-pooling and random BatchNorm statistics, in float64."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 25, 5),
    ).double()  # fmt: skip
    network[1].running_mean.normal_()
    network[1].running_var.uniform_(0.5, 2)
    return network.eval()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(4, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def saturating(x: torch.Tensor) -> torch.Tensor:
    """y = 1 - relu(1 - x1 - x2): flat once x1 + x2 reaches 1."""
    return 1 - torch.relu(1 - x.sum(1, keepdim=True))


def cubic(x: torch.Tensor) -> torch.Tensor:
    return (x**3).sum(1, keepdim=True)


ONES = torch.ones(1, 2, dtype=torch.float64)


def test_linear_model_has_its_weights_as_saliency_and_its_terms_as_gradient_x_input():
    torch.manual_seed(0)
    linear, x = nn.Linear(6, 3).double(), torch.randn(5, 6, dtype=torch.float64)
    target = torch.tensor([0, 1, 2, 1, 0])
    w = linear.weight.detach()[target]
    assert_close(saliency(linear, x, target), w)
    assert_close(gradient_x_input(linear, x, target), w * x)
    assert_close(interior_gradient(linear, x, target, alpha=0.1), w)
    assert_close(smoothgrad(linear, x, target, n=3), w)
    assert_close(integrated_gradients(linear, x, target, baseline=1.0, steps=1), w * (x - 1))


def test_gradient_x_input_sums_to_the_logit_without_biases():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(6, 9, bias=False), nn.ReLU(), nn.Linear(9, 9, bias=False), nn.ReLU(), nn.Linear(9, 3, bias=False)
    ).double()
    x = torch.randn(5, 6, dtype=torch.float64)
    assert_close(gradient_x_input(network, x, 2).sum(1), network(x)[:, 2].detach())


@pytest.mark.parametrize(("alpha", "expected"), [(0.25, 1.0), (0.75, 0.0), (1.0, 0.0)])
def test_interior_gradient_sees_through_saturation(alpha, expected):
    assert_close(interior_gradient(saturating, ONES, 0, alpha=alpha), torch.full_like(ONES, expected))


def against(level: float):
    """Logits of x1 and of a constant: class 0 where x1 is above the level, and the constant has no gradient."""
    return lambda x: torch.stack([x[:, 0], torch.full_like(x[:, 0], level)], 1)


def test_without_a_target_the_class_is_that_of_x_itself():
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    first = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert_close(interior_gradient(against(0.5), x, alpha=0.25), first)  # at x / 4 it would be class 1
    assert_close(integrated_gradients(against(0.5), x, baseline=-1.0), first * 2)
    for seed in range(10):  # half of the noisy copies are of class 1
        assert_close(smoothgrad(against(0.9), x, n=1, noise=0.5, seed=seed), first)


def test_integrated_gradients_of_the_saturating_function_are_one_half_each():
    # The gradient jumps at alpha = 1/2, between two nodes, so an even number of steps is exact.
    assert_close(integrated_gradients(saturating, ONES, 0, steps=50), torch.full_like(ONES, 0.5))


def test_integrated_gradients_are_exact_for_a_cubic_with_two_steps():
    x = torch.tensor([[2.0, -1.0, 3.0]], dtype=torch.float64)
    baseline = torch.tensor([0.5, 1.0, -1.0], dtype=torch.float64)
    assert_close(integrated_gradients(cubic, x, 0, baseline=baseline, steps=2), x**3 - baseline**3)


@pytest.mark.parametrize("baseline", [0.0, 0.5, "image"])
def test_integrated_gradients_sum_to_the_difference_of_the_logits(network, x, baseline):
    if baseline == "image":
        baseline = 3 * torch.rand(3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    total = integrated_gradients(network, x, 1, baseline=baseline, steps=500).flatten(1).sum(1)
    with torch.no_grad():
        difference = (network(x) - network(torch.zeros_like(x) + baseline))[:, 1]
    assert_close(total, difference, rtol=0.01, atol=0.0)


def test_smoothgrad_of_the_absolute_value_is_twice_the_normal_distribution_minus_one():
    # Columns 0 and 1 fix the range at 2, so sigma = noise * 2; the share of n draws has error < 4 sqrt(1 / 4n).
    x = torch.tensor([[1.0, -1.0, 0.1, 0.3]], dtype=torch.float64)
    n, noise = 20_000, 0.2
    expected = 2 * torch.distributions.Normal(0, 1).cdf(x / (2 * noise)) - 1
    assert_close(
        smoothgrad(lambda x: x.abs().sum(1, keepdim=True), x, 0, n=n, noise=noise), expected, rtol=0, atol=0.03
    )


def test_smoothgrad_without_noise_is_the_saliency_map(network, x):
    assert_close(smoothgrad(network, x, n=3, noise=0.0), saliency(network, x))


def test_smoothgrad_scales_its_noise_with_each_image_and_repeats_with_its_seed(network, x):
    together = torch.cat([x[:1], 10 * x[:1]])
    assert_close(smoothgrad(network, together, 0)[1:], smoothgrad(network, 10 * x[:1], 0))
    assert torch.equal(smoothgrad(network, x, seed=3), smoothgrad(network, x, seed=3))
    assert not torch.equal(smoothgrad(network, x, seed=3), smoothgrad(network, x, seed=4))


def test_agreement_with_captum(network, x):
    target = torch.tensor([0, 1, 2, 3])
    leaf = x.requires_grad_()  # Captum warns otherwise
    assert_close(saliency(network, x, target), captum.attr.Saliency(network).attribute(leaf, target, abs=False))
    assert_close(
        gradient_x_input(network, x, target), captum.attr.InputXGradient(network).attribute(leaf, target).detach()
    )
    theirs = captum.attr.IntegratedGradients(network).attribute(x, 0.2, target, n_steps=30, method="gausslegendre")
    # Captum casts its quadrature nodes to float32.
    assert_close(integrated_gradients(network, x, target, baseline=0.2, steps=30), theirs, rtol=1e-5, atol=1e-7)


def test_agreement_with_captum_noise_tunnel_in_distribution(network, x):
    torch.manual_seed(0)
    sigma = 0.1 * float(x[0].max() - x[0].min())
    tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(network))
    theirs = tunnel.attribute(x[:1], nt_type="smoothgrad", nt_samples=4000, nt_samples_batch_size=500, stdevs=sigma,
                              target=0, abs=False)  # fmt: skip
    ours = smoothgrad(network, x[:1], 0, n=4000, noise=0.1, seed=1)  # with 0, both would draw the same
    # The squared distance of two means of 4000 draws is about 2 / 4000 of the variance of one draw, which lies in few
    # directions; with a noise of 0.12 it is 16 times that.
    draws = saliency(network, x[:1] + sigma * torch.randn(400, 3, 16, 16, dtype=torch.float64), 0)
    expected = 2 / 4000 * draws.var(0).sum()
    assert expected / 8 < (ours - theirs).square().sum() < 4 * expected
