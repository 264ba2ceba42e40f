"""Kronecker factors against explicit matrices, and the layers that have none."""

import pytest
import torch
from influence_by_hand import (
    TEST,
    TRAIN,
    cloud,
    gradients_by_loop,
    half_square,
    influence_by_hand,
    small_digits,
    two_layers,
)
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from interp_lab import UnsupportedModelError, influence, networks

pytestmark = pytest.mark.filterwarnings("ignore:the model is not at a minimum", "ignore:influence is a first-order")


@pytest.mark.parametrize("solver", ["kfac", "ekfac"])
def test_it_is_exact_where_the_curvature_is_one_kronecker_product(solver):
    # The Hessian of the squared error in the outputs is I, so that of the layer is the inputs' second moment times I;
    # a convolution whose kernel is the image is a linear layer.
    x, _ = cloud(50, shape=(2, 3, 3))
    y = torch.randn(50, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    convolution = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten()).double()
    linear = nn.Sequential(nn.Flatten(), nn.Linear(18, 3)).double()
    linear[1].weight.data, linear[1].bias.data = convolution[0].weight.data.flatten(1), convolution[0].bias.data
    options = {"weight_decay": 0.1, "loss": half_square}
    exact = influence(linear, (x, y), (x[:4], y[:4]), **options)
    for model in (linear, convolution):
        assert_close(influence(model, (x, y), (x[:4], y[:4]), solver=solver, **options), exact)


def test_ekfac_is_exact_where_the_curvature_is_diagonal_in_the_basis_though_no_kronecker_product():
    """One input at a time and logits that do not interact: every weight has a curvature of its own."""
    generator = torch.Generator().manual_seed(0)
    place = torch.arange(60) % 4
    x = F.one_hot(place, 4).double() * (1 + place[:, None])
    y = torch.randint(2, (60, 3), generator=generator).double()
    model = nn.Linear(4, 3, bias=False).double()
    model.weight.data = torch.randn(3, 4, generator=generator, dtype=torch.float64) / 2
    options = {"weight_decay": 0.01, "loss": F.binary_cross_entropy_with_logits}
    exact = influence(model, (x, y), (x[:4], y[:4]), **options)
    assert_close(influence(model, (x, y), (x[:4], y[:4]), solver="ekfac", **options), exact)
    kfac = influence(model, (x, y), (x[:4], y[:4]), solver="kfac", **options)
    assert (kfac - exact).norm() > 0.05 * exact.norm()


@pytest.mark.parametrize("solver", ["kfac", "ekfac"])
def test_the_factors_of_a_convolution_are_those_of_their_definition(solver):
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 2, stride=2, padding=1, dilation=1)
    model = nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.Linear(27, 4)).double()
    train, ridge = cloud(30, shape=(2, 4, 4), classes=4), 0.05

    def matrices(x, y):
        """The gradients in the weights, the bias as the last column, by plain loops."""
        g = gradients_by_loop(model, x, y)
        return torch.cat([g[:, :24].view(-1, 3, 8), g[:, 24:27, None]], 2)

    second_a = second_g = 0
    by_label = []  # (p, gradient): the Fisher matrix takes every label with its probability
    for x in train[0]:
        padded = F.pad(x, (1, 1, 1, 1))
        for i in range(3):
            for j in range(3):
                patch = torch.cat([padded[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].flatten(), torch.ones(1).double()])
                second_a = second_a + torch.outer(patch, patch) / 30
        read = layer(x[None]).detach().requires_grad_()
        logits = model[1:](read)[0]
        for k, p in enumerate(logits.softmax(0).detach()):
            (d,) = torch.autograd.grad(-logits.log_softmax(0)[k], read, retain_graph=True)
            d = d.flatten(2)[0]
            second_g = second_g + p * (d @ d.T) / (30 * 9)
            by_label.append((p, matrices(x[None], torch.tensor([k]))[0]))
    if solver == "kfac":
        matrix = torch.kron(second_g, second_a)
    else:
        (_, basis_a), (_, basis_g) = torch.linalg.eigh(second_a), torch.linalg.eigh(second_g)
        values = sum(p * (basis_g.T @ g @ basis_a) ** 2 for p, g in by_label) / 30
        basis = torch.kron(basis_g, basis_a)
        matrix = basis @ values.flatten().diag() @ basis.T
    matrix = matrix + ridge * torch.eye(27, dtype=torch.float64)
    test = train[0][:5], train[1][:5]
    expected = matrices(*test).flatten(1) @ torch.linalg.solve(matrix, matrices(*train).flatten(1).T) / 30
    for batch_size in (None, 7):
        result = influence(model, train, test, weight_decay=ridge, solver=solver, parameters="0", batch_size=batch_size)
        assert_close(result, expected, rtol=1e-8, atol=1e-12)


def test_kfac_keeps_the_order_on_a_network():
    train, test = small_digits(400, 5)
    model = networks.mlp(64, hidden=16).double()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(model(train[0]), train[1]).backward()
        optimizer.step()
    options = {"parameters": "5", "weight_decay": 0.0, "damping": 0.05}
    exact = influence(model, train, test, **options)
    kfac = influence(model, train, test, solver="kfac", **options)
    for a, b in zip(exact, kfac, strict=True):
        assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.8


class OverSteps(nn.Module):
    """A dense layer over (N, ..., 4), laid out in one way or another."""

    def __init__(self, layout):
        torch.manual_seed(1)
        super().__init__()
        self.layout, self.a, self.head = layout, nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        if self.layout == "steps first":
            h = self.a(x.transpose(0, 1)).transpose(0, 1)
        elif self.layout == "one axis":
            h = self.a(x.flatten(0, 1)).view(*x.shape[:-1], 5)
        else:
            h = self.a(input=x)
        return self.head(torch.tanh(h).flatten(1, -2).mean(1))


@pytest.mark.parametrize("steps", [1, 3, 8, 12])
@pytest.mark.parametrize("layout", ["steps first", "one axis"])
def test_kfac_refuses_a_layer_that_does_not_read_one_row_per_example(layout, steps):
    train, test = cloud(12, shape=(steps, 4)), cloud(2, seed=2, shape=(steps, 4))
    model = OverSteps(layout).double()
    if layout == "one axis" and steps == 1:  # then an example is a row
        expected = influence(OverSteps("").double(), train, test, damping=0.1, solver="kfac")
        assert_close(influence(model, train, test, damping=0.1, solver="kfac"), expected)
        return
    for batch_size in (None, 2, 1):
        with pytest.raises(UnsupportedModelError, match=r"one row per example, .* but 'a' reads .* or use solver 'cg'"):
            influence(model, train, test, damping=0.1, solver="kfac", batch_size=batch_size)


def test_kfac_of_a_dense_layer_over_a_plane():
    train, test = cloud(12, shape=(3, 2, 4)), cloud(2, seed=2, shape=(3, 2, 4))
    model = OverSteps("").double()
    came, flat = (
        influence(model, *((x.flatten(1, -2) if line else x, y) for x, y in (train, test)), damping=0.1, solver="kfac")
        for line in (False, True)
    )
    assert_close(came, flat)


def test_kfac_refuses_weights_that_act_elsewhere_too():
    class Tied(nn.Module):
        def __init__(self, how):
            super().__init__()
            self.how, self.a, self.b, self.head = how, nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
            if how == "tied":
                self.b.weight = self.a.weight

        def forward(self, x):
            h = torch.tanh(self.a(x))
            if self.how == "function":
                h = F.linear(h, self.a.weight)
            return self.head(torch.tanh(self.b(h)))

    torch.manual_seed(0)
    for how in ("tied", "function"):
        model = Tied(how).double()
        with pytest.raises(UnsupportedModelError, match="those of 'a' act elsewhere too"):
            influence(model, TRAIN, TEST, damping=1.0, solver="kfac")
        assert_close(influence(model, TRAIN, TEST, damping=9.0), influence_by_hand(model, TRAIN, TEST, 9.0))
        influence(model, TRAIN, TEST, damping=1.0, solver="kfac", parameters="head")
    by_other_name = influence(Tied("tied").double(), TRAIN, TEST, damping=9.0, parameters="b")
    assert by_other_name.abs().max() > 0


def test_kfac_refuses_a_loss_that_is_not_convex():
    """The curvature of the negative cross-entropy in the outputs is that of the cross-entropy with the other sign."""
    with pytest.raises(ValueError, match="convex in the outputs"):
        influence(two_layers(), TRAIN, TEST, damping=1.0, solver="kfac", loss=lambda z, y: -F.cross_entropy(z, y))
