"""Random small networks from a grammar: each method keeps its identity or refuses the network; no third outcome."""

import naive
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from interp_lab import UnsupportedModelError, gradient_x_input
from interp_lab.explain_decision.deconvnet_and_guided_backprop import deconvnet, guided_backprop
from interp_lab.explain_decision.deeplift import deeplift
from interp_lab.explain_decision.lrp import lrp

pytestmark = pytest.mark.usefixtures("double")

RELU = {
    "module": lambda m, z: m.relu(z),
    "module in place": lambda m, z: m.relu_(z),
    "functional": lambda m, z: F.relu(z),
    "functional in place": lambda m, z: F.relu(z, inplace=True),
    "torch": lambda m, z: torch.relu(z),
    "method": lambda m, z: z.relu(),
    "method in place": lambda m, z: z.relu_(),
}
KINKED = {
    "relu6": lambda m, z: F.relu6(z),
    "leaky_relu": lambda m, z: F.leaky_relu(z, 0.1),
    "hardtanh": lambda m, z: F.hardtanh(z, inplace=True),
    "abs": lambda m, z: z.abs(),
    "power": lambda m, z: z**2,
}
NOT_HOMOGENEOUS = {"relu6", "hardtanh", "power"}  # LRP hands relevance on in proportion, which is not the gradient
SMOOTH = {"silu": lambda m, z: F.silu(z, inplace=True), "gelu": lambda m, z: F.gelu(z), "tanh": lambda m, z: z.tanh()}
# LRP and DeepLIFT alone have rules for them.
NORMALISED = {
    "softmax": lambda m, z: z.softmax(1),
    "layer_norm": lambda m, z: F.layer_norm(z, z.shape[1:]),
    "attention": lambda m, z: F.scaled_dot_product_attention(*3 * (z.flatten(2),)).view_as(z),
}
NO_RULE = {
    "mask": lambda m, z: z * (z > 0),
    "detached gate": lambda m, z: z * z.detach().sigmoid(),
    "in place on a part": lambda m, z: (F.relu_(z[:, :2]), z)[1],
}
ACTIVATIONS = RELU | KINKED | SMOOTH | NORMALISED | NO_RULE


class Network(nn.Module):
    """Blocks as (kind, activation); every kind keeps 6 channels."""

    def __init__(self, blocks: list[tuple[str, str]], seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.blocks, self.relu, self.relu_ = blocks, nn.ReLU(), nn.ReLU(inplace=True)
        self.stem, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 3)
        for k, (kind, _) in enumerate(blocks):
            self.add_module(f"conv{k}", nn.Conv2d(6, 3 if kind == "cat" else 6, 3, padding=1))
            self.add_module(f"norm{k}", nn.BatchNorm2d(6))
        self.rule: str | None = None
        naive.randomise_batch_norm(self, torch.randn(8, 3, 8, 8), seed)

    def activate(self, name: str, z: Tensor) -> Tensor:
        """With ``rule`` set, every ReLU has that backward pass written in."""
        if self.rule and name in RELU:
            return naive.rectified(z, self.rule)
        return ACTIVATIONS[name](self, z)

    def block(self, k: int, kind: str, name: str, h: Tensor) -> Tensor:
        conv, norm = getattr(self, f"conv{k}"), getattr(self, f"norm{k}")
        if kind == "conv":
            return self.activate(name, conv(h))
        if kind == "conv, norm":
            return self.activate(name, norm(conv(h)))
        if kind == "norm alone":
            return self.activate(name, norm(h))
        if kind == "residual":
            z = self.activate(name, norm(conv(h))).clone()
            z += h
            return z
        if kind == "residual, then activation":
            z = conv(h)
            z += h
            return self.activate(name, z)
        if kind == "reuse":
            return self.activate(name, conv(self.activate(name, conv(h))))
        if kind == "cat":
            return torch.cat([h[:, ::2], self.activate(name, conv(h))], 1)
        if kind == "max pool":
            return self.activate(name, F.max_pool2d(conv(h), 3, 2, 1))
        if kind == "average pool":
            return F.avg_pool2d(self.activate(name, conv(h)), 3, 1, 1)
        if kind == "gate":
            return h * torch.sigmoid(self.activate(name, conv(h)).mean((2, 3), keepdim=True))
        raise AssertionError(kind)

    def forward(self, x: Tensor) -> Tensor:
        h = self.activate("functional", self.stem(x))
        for k, (kind, name) in enumerate(self.blocks):
            h = self.block(k, kind, name, h)
        return self.head(h.mean((2, 3)))

    def has(self, names) -> bool:
        return any(name in names for _, name in self.blocks)


KINDS = [
    "conv", "conv, norm", "norm alone", "residual", "residual, then activation", "reuse", "cat", "max pool",
    "average pool", "gate",
]  # fmt: skip


def networks(kinds=tuple(KINDS), activations=tuple(ACTIVATIONS)):
    # ReLU as often as all others together, so that a network of ReLU alone is no rarity.
    activation = st.sampled_from(tuple(RELU) * (1 + len(activations) // len(RELU)) + tuple(activations))
    blocks = st.lists(st.tuples(st.sampled_from(kinds), activation), min_size=1, max_size=5)
    return st.builds(Network, blocks, st.integers(0, 2**16))


examples = settings(
    max_examples=50, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


def images(seed: int = 0) -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def attempt(method, network: Network, **options) -> Tensor | None:
    """The map, or None where the network is refused; any other error fails the test."""
    try:
        return method(network, images(), 1, **options)
    except UnsupportedModelError as error:
        assert str(error)  # noqa: PT017
        return None


def assert_same(ours: Tensor, theirs: Tensor, scale: Tensor) -> None:
    assert_close(ours, theirs, rtol=0, atol=1e-9 * scale.item() + 1e-15)


@examples
@given(networks())
def test_relu_rules_are_the_written_in_backward_pass_or_refuse(network):
    for method in (guided_backprop, deconvnet):
        ours = attempt(method, network)
        if network.has(KINKED | SMOOTH | NORMALISED | NO_RULE) or any(kind == "gate" for kind, _ in network.blocks):
            assert ours is None
            continue
        network.rule = method.__name__
        expected = naive.gradient(network, images(), 1)
        network.rule = None
        assert ours is not None
        assert_same(ours, expected, expected.abs().max())


@examples
@given(networks())
def test_lrp_epsilon_to_zero_is_gradient_times_input_or_refused(network):
    ours = attempt(lrp, network, rule="epsilon", epsilon=1e-15)
    assert (ours is None) == network.has(NO_RULE)
    if (
        ours is None
        or network.has(NOT_HOMOGENEOUS | SMOOTH.keys() | NORMALISED.keys())
        or any(kind == "gate" for kind, _ in network.blocks)
    ):
        return  # not piecewise linear: another identity holds
    expected = gradient_x_input(network, images(), 1)
    assert_same(ours, expected, expected.abs().max())


@examples
@given(networks())
def test_deeplift_sums_to_the_difference_or_refuses(network):
    ours = attempt(deeplift, network, baseline=0.3)
    assert (ours is None) == network.has(NO_RULE)
    if ours is None:
        return
    x = images()
    with torch.no_grad():
        difference = (network(x) - network(torch.full_like(x, 0.3)))[:, 1]
    assert_same(ours.sum((1, 2, 3)), difference, ours.abs().sum())


# Every unit that keeps relevance is positive here, so that it has a positive contribution to share it by.
RECTIFIED = ["conv", "conv, norm", "residual", "reuse", "cat", "max pool", "average pool"]


@examples
@given(networks(RECTIFIED, tuple(RELU)), st.sampled_from(["z_plus", "gamma", "composite"]))
def test_relevance_is_conserved_without_biases(network, rule):
    naive.without_bias(network)
    x = images()
    logit, target = network(x).max(1)
    assume((logit > 1e-6).all())
    relevance = lrp(network, x, target, rule=rule, epsilon=1e-15)
    assert_close(relevance.sum((1, 2, 3)), logit.detach(), rtol=1e-6, atol=0)
