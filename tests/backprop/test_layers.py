"""What scales and shifts a layer's values is part of the layer, however it is written and whatever lies between."""

import copy

import naive
import pytest
import torch
import torch.nn.functional as F
import torchvision.ops
from torch import Tensor, nn
from torch.testing import assert_close

from interp_lab import UnsupportedModelError, deeplift, fit_patterns
from interp_lab.explain_decision.deep_taylor import deep_taylor
from interp_lab.explain_decision.lrp import lrp

pytestmark = pytest.mark.usefixtures("double")

RULES = ["epsilon", "gamma", "z_plus", "alpha2_beta1"]


def randomised(norm: nn.Module) -> nn.Module:
    """Far from the identity, with scales of both signs."""
    norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2)
    norm.weight.data.normal_(), norm.bias.data.normal_()
    return norm.eval()


class Parts:
    """A convolution and a transposed one of 4 units, a BatchNorm, and its scale and shift as plain constants."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1), randomised(nn.BatchNorm2d(4))
        self.transposed = nn.ConvTranspose2d(2, 4, 3, padding=1)
        self.grouped = nn.ConvTranspose2d(2, 4, 3, padding=1, groups=2)
        self.frozen = torchvision.ops.FrozenBatchNorm2d(4, eps=self.norm.eps)
        self.frozen.load_state_dict(self.norm.state_dict() | {"num_batches_tracked": None}, strict=False)
        scale = (self.norm.weight / (self.norm.running_var + self.norm.eps).sqrt()).detach()
        shift = (self.norm.bias - self.norm.running_mean * scale).detach()
        self.scale, self.shift = scale.view(-1, 1, 1), shift.view(-1, 1, 1)
        self.head, self.x = nn.Linear(256, 3), torch.randn(2, 2, 8, 8)

    def logits(self, features: Tensor) -> Tensor:
        return self.head(F.relu(features).flatten(1))


def in_place(m: Parts, z: Tensor) -> Tensor:
    z *= m.scale
    z += m.shift
    return z


def assigned(m: Parts, z: Tensor) -> Tensor:
    buffer = torch.zeros_like(z)
    buffer[:] = z
    return m.norm(buffer)


def assigned_in_parts(m: Parts, z: Tensor) -> Tensor:
    buffer = torch.zeros_like(z)
    buffer[:, :3], buffer[:, 3:] = z[:, :3], z[:, 3:]
    return m.norm(buffer)


# (m, what the convolution gives) -> what BatchNorm gives
BETWEEN = {
    "nothing": lambda m, z: m.norm(z),
    "frozen": lambda m, z: m.frozen(z),
    "view": lambda m, z: m.norm(z.flatten(2).view(2, 4, 8, 8)),
    "clone": lambda m, z: m.norm(z.clone()),
    "channels_last": lambda m, z: m.norm(z.contiguous(memory_format=torch.channels_last)),
    "permuted and back": lambda m, z: m.norm(z.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)),
    "+ 0": lambda m, z: m.norm(0 + (z + 0)),
    "* 1": lambda m, z: m.norm(z * 1.0),
    "there and back": lambda m, z: m.norm(z / 2 * 2),
    "zero padding": lambda m, z: m.norm(F.pad(z, (0, 0, 0, 0))),
    "dropout in eval": lambda m, z: m.norm(F.dropout(z, 0.5, training=False)),
    "split and joined": lambda m, z: m.norm(torch.cat(z.split(1, 1), 1)),
    "stack of one": lambda m, z: m.norm(torch.stack([z], 1)[:, 0]),
    "pooling of one": lambda m, z: m.norm(F.avg_pool2d(z, 1)),
    "index": lambda m, z: m.norm(z[:, torch.arange(4)]),
    "flipped and back": lambda m, z: m.norm(z.flip(3)).flip(3),
    "copied": lambda m, z: m.norm(torch.empty_like(z).copy_(z)),
    "assigned": assigned,
    "assigned in two parts": assigned_in_parts,
    "on two halves": lambda m, z: torch.cat(
        [part * m.scale[k : k + 2] + m.shift[k : k + 2] for part, k in zip(z.chunk(2, 1), (0, 2), strict=True)], 1
    ),
    "arithmetic": lambda m, z: z * m.scale + m.shift,
    "arithmetic in place": in_place,
    "as written in the paper": lambda m, z: (
        (z - m.norm.running_mean.view(-1, 1, 1))
        / (m.norm.running_var + m.norm.eps).sqrt().view(-1, 1, 1)
        * m.norm.weight.view(-1, 1, 1)
        + m.norm.bias.view(-1, 1, 1)
    ),
    "addcmul": lambda m, z: torch.addcmul(m.shift, z, m.scale),
    "difference": lambda m, z: m.shift - z * -m.scale,
    "negative": lambda m, z: -(z * -m.scale) + m.shift,
    "channels last": lambda m, z: (z.movedim(1, -1) * m.scale.flatten() + m.shift.flatten()).movedim(-1, 1),
    "torch.batch_norm": lambda m, z: torch.batch_norm(
        z, m.norm.weight, m.norm.bias, m.norm.running_mean, m.norm.running_var, False, 0.1, m.norm.eps, False
    ),
    "instance norm with statistics": lambda m, z: F.instance_norm(
        z, m.norm.running_mean, m.norm.running_var, m.norm.weight, m.norm.bias, False, 0.1, m.norm.eps
    ),
}


@pytest.mark.parametrize("between", BETWEEN.values(), ids=BETWEEN.keys())
def test_the_map_is_that_of_the_merged_network(between):
    m = Parts()
    merged = copy.deepcopy(m.conv)
    merged.weight.data *= m.scale[:, None]
    merged.bias.data = merged.bias.data * m.scale.flatten() + m.shift.flatten()
    assert_same_maps(lambda x: m.logits(between(m, m.conv(x))), lambda x: m.logits(merged(x)), m.x)


@pytest.mark.parametrize("rule", ["z_plus", "alpha2_beta1", "gamma", "epsilon"])
def test_a_bias_for_every_place_of_a_convolution_is_that_of_a_dense_layer(rule):
    m, places = Parts(), torch.linspace(-1, 1, 4 * 8 * 8).view(4, 8, 8)
    zero = torch.zeros(1, *m.x.shape[1:])
    columns = torch.eye(zero.numel()).view(-1, *zero.shape[1:])
    weight = (m.conv(columns) - m.conv(zero)).flatten(1).T.detach()
    bias = (m.conv(zero) + places).flatten().detach()
    expected = lrp(lambda x: m.logits(F.linear(x.flatten(1), weight, bias).view(-1, *places.shape)), m.x, 0, rule=rule)
    assert_close(lrp(lambda x: m.logits(m.conv(x) + places), m.x, 0, rule=rule), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["transposed", "grouped"])
@pytest.mark.parametrize("between", [BETWEEN[name] for name in ("nothing", "frozen", "clone", "arithmetic")])
def test_the_same_after_a_transposed_convolution(name, between):
    m = Parts()
    layer = getattr(m, name)
    merged = copy.deepcopy(layer)
    scale = m.scale.view(layer.groups, 1, -1, 1, 1)
    merged.weight.data = (layer.weight.data.view(layer.groups, -1, *layer.weight.shape[1:]) * scale).view_as(
        layer.weight
    )
    merged.bias.data = merged.bias.data * m.scale.flatten() + m.shift.flatten()
    assert_same_maps(lambda x: m.logits(between(m, layer(x))), lambda x: m.logits(merged(x)), m.x)


@pytest.mark.parametrize("rule", RULES)
def test_what_a_layer_has_read_may_not_be_changed_afterwards(rule):
    layer, head = nn.Linear(4, 4), nn.Linear(4, 2)

    def network(x: Tensor) -> Tensor:
        h = x * 1.5
        z = layer(h)
        h += 1  # autograd keeps nothing that it would miss
        return head(F.relu(z) + h)

    with pytest.raises(UnsupportedModelError, match="changed in place after it is read"):
        lrp(network, torch.randn(1, 4), rule=rule)


# (parts, their norm, the values of three layers of 1, 1 and 2 units) -> what follows their concatenation
JOINED = {
    "BatchNorm": lambda m, a, b, c: m.norm(torch.cat([a, b, c], 1)),
    "frozen": lambda m, a, b, c: m.frozen(torch.cat([a, b, c], 1)),
    "arithmetic in place": lambda m, a, b, c: in_place(m, torch.cat([a, b, c], 1)),
    "stack of units": lambda m, a, b, c: m.norm(torch.stack([a[:, 0], b[:, 0], *c.unbind(1)], 1)),
    "moved": lambda m, a, b, c: m.norm(torch.cat([c.flip(1), b, a], 1).flip(1)),
    "two concatenations": lambda m, a, b, c: m.frozen(torch.cat([torch.cat([a, b], 1), c], 1)),
}


@pytest.mark.parametrize("joined", JOINED.values(), ids=JOINED.keys())
def test_a_scale_after_a_concatenation_is_part_of_each_layer(joined):
    m, stem = Parts(), nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU())
    layers = [nn.Conv2d(2, n, k, padding=k // 2) for n, k in ((1, 3), (1, 1), (2, 5))]
    merged = copy.deepcopy(layers)
    for layer, scale, shift in zip(merged, m.scale.split([1, 1, 2]), m.shift.split([1, 1, 2]), strict=True):
        layer.weight.data *= scale[:, None]
        layer.bias.data = layer.bias.data * scale.flatten() + shift.flatten()

    def network(x: Tensor) -> Tensor:
        h = stem(x)
        return m.logits(joined(m, *[layer(h) for layer in layers]))

    assert_same_maps(network, lambda x: m.logits(torch.cat([layer(h) for h in [stem(x)] for layer in merged], 1)), m.x)


# Of these values of two layers not every one is a value of one of them.
MIXED = {
    "sum": lambda a, b: a + b,
    "overlapping crops and zeros": lambda a, b: F.pad(a[:, :2], (0, 0, 0, 0, 0, 2)) + F.pad(b[:, :2], (0, 0, 0, 0, 0, 2)),
    "mean of a concatenation": lambda a, b: torch.cat([a, b], 1).unflatten(1, (4, 2)).mean(2),
    "zeros beside": lambda a, b: torch.cat([a[:, :2], b[:, :1], torch.zeros_like(b[:, :1])], 1),
}  # fmt: skip


@pytest.mark.parametrize("mixed", MIXED.values(), ids=MIXED.keys())
def test_a_scale_after_mixed_layers_is_no_part_of_them(mixed):
    m = Parts()
    other = nn.Conv2d(2, 4, 1)

    def values(x: Tensor) -> Tensor:
        return mixed(m.conv(x), other(x))

    def apart(x: Tensor) -> Tensor:
        return m.logits(m.norm(values(x)))

    def unseen(x: Tensor) -> Tensor:
        return m.logits(m.norm(F.avg_pool2d(F.interpolate(values(x), scale_factor=2), 2)))  # the same values

    for rule in RULES:
        assert_close(lrp(apart, m.x, 1, rule=rule), lrp(unseen, m.x, 1, rule=rule))


@pytest.mark.parametrize("rule", RULES)
def test_a_scale_after_layers_that_read_one_another_is_no_part_of_them(rule):
    m = Parts()
    first, second = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3, padding=1)

    def network(between) -> nn.Module:
        def logits(x: Tensor) -> Tensor:
            h = first(x)
            return m.logits(m.norm(between(torch.cat([h, second(F.relu(h))], 1))))

        return logits

    unseen = network(lambda z: F.avg_pool2d(F.interpolate(z, scale_factor=2), 2))  # the same values
    assert_close(lrp(network(lambda z: z), m.x, 1, rule=rule), lrp(unseen, m.x, 1, rule=rule))


def assert_same_maps(network, merged, x: Tensor, rules=(*RULES, "composite")) -> None:
    assert_close(network(x), merged(x))
    target = merged(x).argmax(1)
    for rule in rules:
        assert_close(lrp(network, x, target, rule=rule), lrp(merged, x, target, rule=rule))
    for box in ({}, {"low": -9.0, "high": 9.0}):
        assert_close(
            deep_taylor(network, x, target, **box), deep_taylor(merged, x, target, **box), rtol=1e-5, atol=1e-7
        )


def dense_cases() -> dict:
    """Functions of (N, 6, 5) or (N, 2, 4, 4): one linear layer and what scales and shifts its values, place by place."""
    torch.manual_seed(0)
    dense, conv, transposed = nn.Linear(5, 4), nn.Conv2d(2, 3, 3, padding=1), nn.ConvTranspose1d(5, 4, 3, padding=1)
    norm4, norm5, norm6, norm48 = (randomised(nn.BatchNorm1d(n)) for n in (4, 5, 6, 48))
    w, mix, places, scales = torch.randn(5, 4), torch.randn(6, 6), torch.randn(6, 4), torch.randn(3, 4, 4)
    return {
        "Linear, transposed, BatchNorm1d": lambda x: norm4(dense(x).transpose(1, 2)),
        "BatchNorm over positions": lambda x: norm6(dense(x)),
        "x @ W, transposed, BatchNorm1d": lambda x: norm4((x @ w).transpose(1, 2)),
        "x @ W + b": lambda x: x @ w + norm4.bias,
        "A @ x, BatchNorm1d": lambda x: norm6(mix @ x),
        "A @ x, BatchNorm over features": lambda x: norm5((mix @ x).transpose(1, 2)),
        "einsum, constant first": lambda x: norm6(torch.einsum("ij,bjc->bic", mix, x)),
        "einsum, constant last": lambda x: norm4(torch.einsum("bjc,cd->bdj", x, w)),
        "transposed convolution": lambda x: norm4(transposed(x.transpose(1, 2))),
        "position by position": lambda x: dense(x) + places,
        "addmm": lambda x: norm4(torch.addmm(norm4.bias, x[:, 0], w)),
        "baddbmm": lambda x: torch.baddbmm(places, x, w.expand(len(x), 5, 4)),
        "flattened, BatchNorm1d": lambda x: norm48(conv(x).flatten(1)),
        "flattened, BatchNorm1d, scaled again": lambda x: (norm48(conv(x).flatten(1)).view(-1, 3, 4, 4) * scales).flip(2) - 1,
    }  # fmt: skip


@pytest.mark.parametrize("name", dense_cases())
def test_the_map_is_that_of_one_dense_layer(name):
    features = dense_cases()[name]
    torch.manual_seed(1)
    x = torch.randn(2, 2, 4, 4) if "flattened" in name else torch.randn(2, 6, 5)
    weight, bias = naive.affine(lambda z: features(z).flatten(1), x.shape[1:])
    merged, head = nn.Linear(*weight.shape[::-1]), nn.Linear(len(weight), 3)
    merged.weight.data, merged.bias.data = weight, bias

    def network(x: Tensor) -> Tensor:
        return head(F.relu(features(x)).flatten(1))

    assert_same_maps(network, lambda x: head(F.relu(merged(x.flatten(1)))), x, RULES)  # the composite knows the kind


def test_a_layer_may_be_read_in_several_ways():
    m = Parts()

    def network(x: Tensor) -> Tensor:
        z = m.conv(x)
        return m.logits(m.norm(z.clone()) + F.relu(z) + m.frozen(z[:, :, 1:]).mean(2, keepdim=True))

    x = m.x.requires_grad_()
    (gradient,) = torch.autograd.grad(network(x)[:, 1].sum(), x)
    assert_close(lrp(network, m.x, 1, rule="epsilon", epsilon=1e-15), x.detach() * gradient, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("pool", [lambda z: F.avg_pool2d(z, 2), lambda z: F.interpolate(z, scale_factor=2)])
def test_a_scale_after_a_pooling_or_a_repetition_is_no_part_of_the_layer(pool):
    m = Parts()
    head = nn.Linear(4, 3)

    def network(x: Tensor) -> Tensor:
        return head(m.norm(pool(m.conv(x))).relu().mean((2, 3)))

    x = m.x.requires_grad_()
    (gradient,) = torch.autograd.grad(network(x)[:, 1].sum(), x)
    assert_close(lrp(network, m.x, 1, rule="epsilon", epsilon=1e-15), x.detach() * gradient, rtol=1e-7, atol=1e-9)


SAME_FUNCTION = {
    "BatchNorm": lambda a, norm, merged: lambda x: norm(a(x)),
    "a view between": lambda a, norm, merged: lambda x: merged(x).unflatten(1, (4, 1)).flatten(1),
    "x @ W + b": lambda a, norm, merged: lambda x: x @ merged.weight.T + merged.bias,
    "BatchNorm with a place": lambda a, norm, merged: lambda x: norm(a(x)[..., None])[..., 0],
    "moved there and back": lambda a, norm, merged: lambda x: norm(a(x)).flip(1).flip(1).t().contiguous().t(),
}


@pytest.mark.parametrize("form", SAME_FUNCTION.values(), ids=SAME_FUNCTION.keys())
@pytest.mark.parametrize("activation", [F.relu, torch.sigmoid])
def test_reveal_cancel_sees_the_dense_layer_however_it_is_written(form, activation):
    torch.manual_seed(0)
    a, norm, head = nn.Linear(6, 4), randomised(nn.BatchNorm1d(4)), nn.Linear(4, 3)
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    merged = nn.Linear(6, 4)
    merged.weight.data = a.weight.data * scale[:, None]
    merged.bias.data = (a.bias.data - norm.running_mean) * scale + norm.bias.data
    before, x = form(a, norm, merged), torch.randn(4, 6)
    options = {"rule": "reveal_cancel", "baseline": 0.2}
    ours = deeplift(lambda x: head(activation(before(x))), x, 1, **options)
    expected = deeplift(nn.Sequential(merged, Apply(activation), head), x, 1, **options)
    assert_close(ours, expected)
    assert (deeplift(lambda x: head(activation(before(x))), x, 1, baseline=0.2) - expected).abs().max() > 1e-4


@pytest.mark.parametrize("places", [3, 4])
def test_reveal_cancel_follows_values_that_are_moved_before_the_activation(places):
    torch.manual_seed(0)
    dense, head, x = nn.Linear(6, 4), nn.Linear(4, 3), torch.randn(2, places, 6)
    options = {"rule": "reveal_cancel", "baseline": 0.2}
    expected = deeplift(lambda x: head(F.relu(dense(x)).mean(1)), x, 1, **options)
    ours = deeplift(lambda x: head(F.relu(dense(x).transpose(1, 2)).mean(2)), x, 1, **options)
    assert_close(ours, expected)


class Apply(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def test_patterns_know_the_layer_behind_a_view():
    torch.manual_seed(0)
    conv, norm, head = nn.Conv2d(2, 4, 3), randomised(nn.BatchNorm2d(4)), nn.Linear(4, 3)

    class Network(nn.Module):
        def __init__(self, between) -> None:
            super().__init__()
            self.conv, self.norm, self.head, self.between = conv, norm, head, between

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.norm(self.between(self.conv(x)))).mean((2, 3)))

    x = torch.randn(20, 2, 6, 6)
    expected = fit_patterns(Network(lambda z: z), [x])
    ours = fit_patterns(Network(lambda z: z.flatten(2).view_as(z).clone()), [x])
    assert_close(ours, expected)


def test_patterns_refuse_a_unit_that_is_scaled_place_by_place():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), randomised(nn.BatchNorm1d(12)), nn.ReLU(), nn.Linear(12, 2))
    with pytest.raises(UnsupportedModelError, match="patterns need convolutions and dense layers"):
        fit_patterns(model, [torch.randn(5, 2, 4, 4)])


def test_a_bias_that_depends_on_x_is_no_constant():
    """For a single row, which mixes with no other; a kernel that depends on x is a product of two activations."""
    weight, x = torch.randn(3, 4), torch.rand(1, 4)
    with pytest.raises(UnsupportedModelError, match="the bias of a dense layer depends on x"):
        lrp(lambda x: F.linear(x, weight, x[0, :3].relu()), x, 0)
