"""LRP and deep Taylor: closed forms of one layer, a naive implementation on matrices, Zennit, Captum, identities."""

import itertools

import captum.attr
import naive
import pytest
import torch
import torch.nn.functional as F
import zennit.attribution
import zennit.canonizers
import zennit.composites
import zennit.rules
import zennit.types
from naive import always, is_dense, is_input
from torch import Tensor, nn
from torch.testing import assert_close

from interp_lab import UnsupportedModelError, gradient_x_input
from interp_lab.explain_decision.deep_taylor import deep_taylor
from interp_lab.explain_decision.lrp import lrp

pytestmark = pytest.mark.usefixtures("double")

LOW, HIGH = -4.0, 5.0
X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64).clamp(LOW, HIGH)


def mlp() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(7, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 4))


def cnn(bias: bool = True) -> nn.Sequential:
    """Every kind of layer that the naive implementation knows; every convolution is followed by a ReLU."""
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(6, 8, 3, groups=2),
        nn.ReLU(),
        nn.AvgPool2d(2, 1, 1),
        nn.ConvTranspose2d(8, 5, 2, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(20, 6),
        nn.BatchNorm1d(6),
        nn.ReLU(),
        nn.Linear(6, 4),
    )
    naive.randomise_batch_norm(network, torch.randn(16, 3, 8, 8))
    return network if bias else naive.without_bias(network)


def assert_same_map(ours: Tensor, theirs: Tensor, tolerance: float = 1e-9) -> None:
    assert_close(ours / theirs.abs().max(), theirs / theirs.abs().max(), rtol=0, atol=tolerance)


# One unit with w = (1, -2, 3), b = 4 on x = (2, 1, -1): contributions 2, -2, -3, so z = 1; stabiliser 1/2, gamma 1,
# bounds -2 and 3. Contributions over their stabilised sum, by hand.
ONE_UNIT = {
    "epsilon": [2 / 1.5, -2 / 1.5, -3 / 1.5],
    "gamma": [4 / 7.5, -2 / 7.5, -3 / 7.5],  # z + z+ = 1 + (2 + 4)
    "z_plus": [2 / 6.5, 0, 0],
    "alpha2_beta1": [4 / 6.5, -2 / 5.5, -3 / 5.5],
    "z_b": [4 / 11.5, 4 / 11.5, 3 / 11.5],  # 2 + 2, -2 + 6, -3 + 6
    "w_squared": [1 / 14.5, 4 / 14.5, 9 / 14.5],
    "flat": [1 / 3.5, 1 / 3.5, 1 / 3.5],
}


@pytest.mark.parametrize(("rule", "expected"), ONE_UNIT.items())
def test_one_unit_by_hand(rule, expected):
    layer = nn.Linear(3, 1)
    layer.load_state_dict({"weight": torch.tensor([[1.0, -2, 3]]), "bias": torch.tensor([4.0])})
    bounds = {"low": -2, "high": 3} if rule == "z_b" else {}
    relevance = lrp(layer, torch.tensor([[2.0, 1, -1]]), rule=[(always, rule)], epsilon=0.5, gamma=1, **bounds)
    assert_close(relevance, torch.tensor([expected]), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(("z", "gamma"), [(-1.0, 3.0), (1.0, 3.0)])
def test_gamma_favours_the_contributions_of_the_sign_of_z(z, gamma):
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[2.0, 1.0]]) * z
    x = torch.tensor([[1.0, -1.0]])  # contributions 2 z and -z: the first is favoured whatever the sign
    expected = torch.tensor([[2 * z * (1 + gamma), -z]]) / (2 * (1 + gamma) - 1)
    assert_close(lrp(model, x, rule="gamma", gamma=gamma, epsilon=0), expected)


HIDDEN = ["epsilon", "gamma", "z_plus", "alpha2_beta1"]
INPUT = ["z_b", "w_squared", "flat"]


@pytest.mark.parametrize("bias", [None, -0.5, 0.5])
@pytest.mark.parametrize("rule", [*HIDDEN, "z_b", "w_squared"])
def test_zero_contributions_share_nothing(rule, bias):
    layer = nn.Linear(3, 1, bias=bias is not None)
    layer.weight.data *= rule in HIDDEN  # of the others, zero weights are what contributes nothing
    if bias:
        layer.bias.data.fill_(bias)
    bounds = {"low": -1, "high": 1} if rule == "z_b" else {}
    for share in ("share", "inputs"):
        relevance = lrp(layer, torch.zeros(1, 3), rule=rule, epsilon=0, bias=share, **bounds)
        assert_close(relevance, torch.zeros(1, 3))


@pytest.mark.parametrize("first", [None, *INPUT])
@pytest.mark.parametrize("rule", HIDDEN)
@pytest.mark.parametrize("network", [mlp, cnn])
def test_equal_to_shares_on_explicit_matrices(network, rule, first):
    model = network().eval()
    x = X if network is cnn else X.flatten(1)[:, :7]
    count = sum(isinstance(module, naive.LINEAR) for module in model)
    bounds = {"low": LOW, "high": HIGH} if first == "z_b" else {}
    options = {"epsilon": 1e-3, "gamma": 0.7, **bounds}
    ours = lrp(model, x, 1, rule=[(is_input, first), (always, rule)] if first else rule, **options)
    rules = [first or rule] + [rule] * (count - 1)
    theirs = torch.cat([naive.lrp(model, row[None], 1, rules, **options)[0] for row in x])
    assert_same_map(ours, theirs)


def test_the_composite_is_epsilon_in_dense_layers_and_z_plus_in_convolutions_with_z_b_for_bounds():
    model = cnn()
    for bounds in ({}, {"low": LOW, "high": HIGH}):
        first = "z_b" if bounds else "z_plus"
        rules = [first, "z_plus", "z_plus", "epsilon", "epsilon"]
        assert_same_map(lrp(model, X[:1], 1, **bounds), naive.lrp(model, X[:1], 1, rules, **bounds)[0])


def test_a_residual_sum_shares_in_proportion():
    torch.manual_seed(0)
    first, second, last = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def model(x: Tensor) -> Tensor:
        h = F.relu(first(x))
        y = second(h)
        y += h
        return last(y)

    x = torch.randn(1, 6)
    with torch.no_grad():
        h = F.relu(first(x))[0]
        branch = second(h)
    total, options = branch + h, {"epsilon": 1e-6, "gamma": 0.0, "low": None, "high": None}
    for rule in ("epsilon", "z_plus"):
        r = torch.zeros(3)
        r[1] = last(total)[1].detach()
        r = naive.lrp_step(rule, last.weight.detach(), last.bias.detach(), total, r, **options)
        down = naive.lrp_step(rule, second.weight.detach(), second.bias.detach(), h, r * branch / total, **options)
        r = down + r * h / total
        r = naive.lrp_step(rule, first.weight.detach(), first.bias.detach(), x[0], r, **options)
        assert_same_map(lrp(model, x, 1, rule=rule)[0], r)


# Zennit, with its stabilisers equal to ours: ours adds none where a pooling shares in proportion.

TINY = 1e-20
POOL = [(zennit.types.AvgPool, zennit.rules.Norm(stabilizer=TINY))]


def zennit_lrp(model: nn.Module, x: Tensor, target: int, composite) -> Tensor:
    def only_the_target(output: Tensor) -> Tensor:
        return output * F.one_hot(torch.tensor(target), output.shape[1])

    with zennit.attribution.Gradient(model, composite) as attribute:
        return attribute(x.clone(), only_the_target)[1].detach()


def first_and_rest(first, rest, canonizers):
    layers = [
        *POOL,
        *zennit.composites.layer_map_base(TINY),
        (zennit.types.Linear, rest),
        (zennit.types.Convolution, rest),
    ]
    first_layer = [(zennit.types.Convolution, first)]
    return zennit.composites.SpecialFirstLayerMapComposite(layers, first_layer, canonizers=canonizers)


def plain_cnn() -> nn.Sequential:
    """Without BatchNorm1d and ConvTranspose2d, which Zennit's canonizer merges in another way."""
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6, eps=TINY),  # Zennit adds eps once more after merging
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 20),
        nn.ReLU(),
        nn.Linear(20, 4),
    )
    return naive.randomise_batch_norm(network, torch.randn(16, 3, 8, 8))


E, S = 1e-6, {"stabilizer": 1e-6}
ZENNIT = {
    "EpsilonPlus": ("composite", {}, lambda c: zennit.composites.EpsilonPlus(E, E, POOL, canonizers=c)),
    "EpsilonAlpha2Beta1": (
        [(is_dense, "epsilon"), (always, "alpha2_beta1")],
        {},
        lambda c: zennit.composites.EpsilonAlpha2Beta1(E, E, POOL, canonizers=c),
    ),
    "EpsilonGammaBox": (
        [(is_input, "z_b"), (is_dense, "epsilon"), (always, "gamma")],
        {"low": LOW, "high": HIGH},
        lambda c: zennit.composites.EpsilonGammaBox(LOW, HIGH, E, 0.25, E, POOL, canonizers=c),
    ),
    "EpsilonPlusFlat": (
        [(is_input, "flat"), (is_dense, "epsilon"), (always, "z_plus")],
        {},
        lambda c: zennit.composites.EpsilonPlusFlat(E, E, POOL, canonizers=c),
    ),
    "Epsilon": ("epsilon", {}, lambda c: first_and_rest(*[zennit.rules.Epsilon(E)] * 2, c)),
    "ZPlus": ("z_plus", {}, lambda c: first_and_rest(*[zennit.rules.ZPlus(**S)] * 2, c)),
    "Gamma": ("gamma", {}, lambda c: first_and_rest(*[zennit.rules.Gamma(0.25, **S)] * 2, c)),
    "AlphaBeta": ("alpha2_beta1", {}, lambda c: first_and_rest(*[zennit.rules.AlphaBeta(2, 1, **S)] * 2, c)),
    "WSquare": (
        [(is_input, "w_squared"), (always, "z_plus")],
        {},
        lambda c: first_and_rest(zennit.rules.WSquare(**S, zero_params="bias"), zennit.rules.ZPlus(**S), c),
    ),
    "ZBox": (
        "z_plus",
        {"low": LOW, "high": HIGH},
        lambda c: first_and_rest(zennit.rules.ZBox(LOW, HIGH, **S), zennit.rules.ZPlus(**S), c),
    ),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("rule", "bounds", "composite"), ZENNIT.values(), ids=ZENNIT.keys())
def test_equal_to_zennit(rule, bounds, composite, dtype):
    model, x = plain_cnn().to(dtype), X.to(dtype)
    ours = lrp(model, x, 1, rule=rule, epsilon=E, **bounds)
    theirs = zennit_lrp(model, x, 1, composite([zennit.canonizers.SequentialMergeBatchNorm()]))
    assert_same_map(ours, theirs, 1e-9 if dtype == torch.float64 else 1e-4)


class Captums(nn.Module):
    """Captum has a rule for these modules; for nn.Flatten and BatchNorm it has none."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu1, self.pool1 = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        self.second, self.relu2, self.pool2 = nn.Conv2d(6, 8, 3), nn.ReLU(), nn.AvgPool2d(2)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(self.relu1(self.first(x)))
        return self.head(self.pool2(self.relu2(self.second(x))).flatten(1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_epsilon_is_equal_to_captum(dtype):
    model, x = Captums().to(dtype), X.to(dtype)
    theirs = captum.attr.LRP(model).attribute(x.clone(), target=1).detach()
    assert_same_map(lrp(model, x, 1, rule="epsilon", epsilon=1e-9), theirs, 1e-7 if dtype == torch.float64 else 1e-4)


# Identities.


@pytest.mark.parametrize("network", [mlp, cnn])
def test_epsilon_to_zero_is_gradient_times_input(network):
    model = network()
    x = X if network is cnn else X.flatten(1)[:, :7]
    assert_same_map(lrp(model, x, rule="epsilon", epsilon=1e-15), gradient_x_input(model, x))


@pytest.mark.parametrize("rule", ["z_plus", "composite", "gamma", "alpha2_beta1", "epsilon"])
def test_relevance_is_conserved_layer_by_layer_without_biases(rule):
    # alpha 2, beta 1 conserves where a unit has contributions of both signs, as in a wide dense layer.
    dense = rule == "alpha2_beta1"
    model, value = (naive.without_bias(mlp()), X.flatten(1)[:, :7]) if dense else (cnn(bias=False), X)
    logit, target = model(value).max(1)
    value, logit, target = (each[logit > 0] for each in (value, logit, target))
    assert len(value)
    for k, module in enumerate(model):
        relevance = lrp(model[k:], value, target, rule=rule, epsilon=1e-12)
        assert_close(relevance.flatten(1).sum(1), logit.detach(), rtol=1e-6, atol=0)
        value = module(value).detach()
        if not any(isinstance(m, naive.LINEAR) for m in model[k + 1 :]):
            break


def test_gamma_zero_is_epsilon_and_large_gamma_tends_to_z_plus():
    model, x = cnn(bias=False), X.abs()
    assert_same_map(lrp(model, x, 1, rule="gamma", gamma=0), lrp(model, x, 1, rule="epsilon"))
    target = model(x).argmax(1)
    limit = lrp(model, x, target, rule="gamma", gamma=1e9, epsilon=1e-15)
    assert_same_map(limit, lrp(model, x, target, rule="z_plus", epsilon=1e-15), 1e-7)


def test_a_bias_takes_its_share():
    model = nn.Linear(2, 1)
    model.weight.data, model.bias.data = torch.tensor([[1.0, 1.0]]), torch.tensor([2.0])
    assert_close(lrp(model, torch.ones(1, 2), rule="epsilon", epsilon=0), torch.ones(1, 2))  # 4 less 2 for the bias


@pytest.mark.parametrize("rule", [*HIDDEN, "composite", "flat", "w_squared"])
def test_batch_norm_is_folded_into_the_layer_before_it(rule):
    model = cnn()
    merged = nn.Sequential(
        torch.nn.utils.fusion.fuse_conv_bn_eval(model[0], model[1]),
        *model[2:12],
        torch.nn.utils.fusion.fuse_linear_bn_eval(model[12], model[13]),
        *model[14:],
    )
    rules = [(is_input, rule), (always, "z_plus")] if rule in INPUT else rule
    assert_same_map(lrp(model, X, 1, rule=rules), lrp(merged, X, 1, rule=rules))


@pytest.mark.parametrize("rule", ["z_plus", "alpha2_beta1"])
def test_batch_norm_with_no_layer_before_it_is_a_linear_layer_of_its_own(rule):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3)
    )
    naive.randomise_batch_norm(model, torch.randn(9, 3, 8, 8))
    theirs = torch.cat([naive.lrp(model, row[None], 1, [rule] * 2)[0] for row in X])
    assert_same_map(lrp(model, X, 1, rule=rule), theirs)


def test_a_convolution_read_both_with_and_without_its_batch_norm():
    torch.manual_seed(0)
    conv, norm, head = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Linear(5, 4)
    naive.randomise_batch_norm(nn.Sequential(conv, norm), torch.randn(9, 3, 8, 8))

    def model(x: Tensor) -> Tensor:
        y = conv(x)
        return head(F.relu(norm(y) + y).mean((2, 3)))

    assert_same_map(lrp(model, X, rule="epsilon", epsilon=1e-15), gradient_x_input(model, X))


def linear(weight, bias=None) -> nn.Linear:
    weight = torch.tensor(weight)
    layer = nn.Linear(weight.shape[1], len(weight), bias=bias is not None)
    layer.weight.data = weight
    if bias is not None:
        layer.bias.data = torch.tensor(bias)
    return layer


NONLINEAR = {
    **{f.__name__: f for f in (F.silu, F.gelu, F.hardswish, torch.tanh, F.mish, F.elu, torch.sigmoid)},
    **{f.__name__: f for f in (F.relu6, F.hardtanh, F.hardsigmoid, F.softshrink, F.hardshrink, torch.square)},
    "clamp": lambda z: z.clamp(-0.3, 0.4),
    "clamp with tensors": lambda z: z.clamp(torch.tensor(-0.3), torch.tensor(0.4)),
    "clip in place": lambda z: z.clip_(-0.3, 0.4),
    "threshold": lambda z: F.threshold(z, 0.2, 0.2),
    "power": lambda z: z**3,
    "hardsigmoid by hand": lambda z: F.relu6(z + 3) / 6,
}


@pytest.mark.parametrize("nonlinear", NONLINEAR.values(), ids=NONLINEAR.keys())
def test_every_nonlinearity_hands_its_relevance_on_in_proportion(nonlinear):
    torch.manual_seed(0)
    first, head = nn.Linear(4, 6, bias=False), nn.Linear(6, 3, bias=False)
    x = torch.randn(2, 4)
    with torch.no_grad():
        z = first(x)
        r = head.weight[1] * nonlinear(z.clone())
        if nonlinear is NONLINEAR["hardsigmoid by hand"]:
            r = r * z / (z + 3)  # the constant takes its share
    expected = torch.einsum("nj,nji->ni", r / z, first.weight.detach() * x[:, None])
    assert_close(lrp(nn.Sequential(first, Apply(nonlinear), head), x, 1, rule="epsilon", epsilon=0), expected)


def test_a_saturated_gate_loses_nothing():
    x = torch.full((1, 2), 2.1)
    network = nn.Sequential(linear([[2.0, 1.0]]), nn.ReLU6(), linear([[1.0]]))
    assert_close(lrp(network, x, 0, rule="epsilon", epsilon=0), torch.tensor([[4.0, 2.0]]))


# (signal, gate) -> product; the signal takes all.
GATED = {
    "sigmoid": lambda s, g: s * torch.sigmoid(g),
    "gate first": lambda s, g: torch.sigmoid(g) * s,
    "in place": lambda s, g: s.clone().mul_(torch.sigmoid(g)),
    "hardsigmoid": lambda s, g: s * F.hardsigmoid(g),
    "hardsigmoid by hand": lambda s, g: s * (F.relu6(g + 3) / 6),
    "hardtanh to [0, 1]": lambda s, g: s * F.hardtanh(g, 0.0, 1.0),
    "clamp to [0, 1]": lambda s, g: s * g.clamp(0, 1),
    "complement": lambda s, g: s * (1 - torch.sigmoid(g)),
    "moved and scaled": lambda s, g: s * (2 * torch.sigmoid(g.flip(1)))[:, :, None].squeeze(2),
    "of a clipped signal": lambda s, g: F.relu6(s) * torch.sigmoid(g),
    "of a bounded signal": lambda s, g: torch.tanh(s) * torch.sigmoid(g),
    "broadcast sigmoid": lambda s, g: s * torch.sigmoid(g[:, :1]),
    "broadcast": lambda s, g: s * g[:, :1].tanh(),
    "sigmoid of a broadcast signal": lambda s, g: s[:, :1] * torch.sigmoid(g),
    "glu": lambda s, g: F.glu(torch.cat([s, g], 1), 1),
    "gate in place": lambda s, g: s * g.clone().sigmoid_(),
    "hardsigmoid in place": lambda s, g: s * F.hardsigmoid(g.clone(), inplace=True),
    "hardsigmoid by hand in place": lambda s, g: s * (F.relu6(g + 3, inplace=True) / 6),
    "clamped gate": lambda s, g: s * torch.sigmoid(g).clamp(min=1e-9),
    "gate by chunks": lambda s, g: s * torch.cat([torch.sigmoid(part) for part in g.chunk(2, 1)], 1),
    "stacked gates": lambda s, g: s * torch.stack([torch.sigmoid(part) for part in g.unbind(1)], 1),
    "product of gates": lambda s, g: s * (torch.sigmoid(g) * torch.sigmoid(g.flip(1))),
    "products of gates": lambda s, g: (
        s * (torch.sigmoid(g) * torch.sigmoid(g[:, :1]) * torch.sigmoid(g.flip(1))).sqrt()
    ),
    "mean of gates": lambda s, g: s * ((torch.sigmoid(g) + torch.sigmoid(g.flip(1))) / 2),
    "larger gate": lambda s, g: s * torch.maximum(torch.sigmoid(g), torch.sigmoid(g.flip(1))),
}


@pytest.mark.parametrize("product", GATED.values(), ids=GATED.keys())
def test_the_signal_takes_all_of_a_gated_product(product):
    torch.manual_seed(0)
    signal, gate, head = (nn.Linear(4, 6, bias=False), nn.Linear(4, 6, bias=False), nn.Linear(6, 3, bias=False))
    x = torch.randn(2, 4)
    fixed = gate(x).detach()  # as if the gate were a constant
    ours = lrp(lambda x: head(product(signal(x), gate(x))), x, 1, rule="epsilon", epsilon=0)
    expected = lrp(lambda x: head(product(signal(x), fixed)), x, 1, rule="epsilon", epsilon=0)
    assert_close(ours, expected)
    assert_close(ours.sum(1), head(product(signal(x), fixed))[:, 1].detach())


@pytest.mark.parametrize(
    "activation",
    [lambda z: z, torch.sigmoid, F.silu, lambda z: z + torch.sigmoid(z), lambda z: torch.cat([z[:, :1], torch.sigmoid(z[:, 1:])], 1)],
    ids=["none", "sigmoid", "silu", "sigmoid added", "sigmoid in part"],
)  # fmt: skip
def test_a_product_without_a_gate_gives_each_half(activation):
    torch.manual_seed(0)
    first, second, head = (nn.Linear(4, 6, bias=False), nn.Linear(4, 6, bias=False), nn.Linear(6, 3, bias=False))
    x = torch.randn(2, 4)
    a, b = activation(first(x)).detach(), activation(second(x)).detach()

    def product(f, g):
        return lambda x: head(f(x) * g(x))

    ours = lrp(
        product(lambda x: activation(first(x)), lambda x: activation(second(x))), x, 1, rule="epsilon", epsilon=0
    )
    left = lrp(product(lambda x: activation(first(x)), lambda x: b), x, 1, rule="epsilon", epsilon=0)
    right = lrp(product(lambda x: a, lambda x: activation(second(x))), x, 1, rule="epsilon", epsilon=0)
    assert_close(ours, (left + right) / 2)


def test_a_unit_without_a_positive_contribution_hands_on_through_its_negative_ones():
    model = nn.Sequential(linear([[-1.0, -3.0], [1.0, -1.0]]), linear([[-1.0, 2.0]]))
    x = torch.tensor([[2.0, 1.0]])  # z = (-5, 1): the contributions of the first are -2 and -3
    expected = torch.tensor([[5 * 2 / 5 + 2.0, 5 * 3 / 5]])
    rules = [(is_input, "z_plus"), (always, "epsilon")]
    assert_close(lrp(model, x, 0, rule=rules, epsilon=0), expected)


def test_bias_to_the_inputs_leaves_it_out_of_the_denominator():
    model = nn.Sequential(linear([[2.0, -1.0]], [3.0]), nn.ReLU(), linear([[1.0]], [1.0]))
    x = torch.tensor([[2.0, 1.0]])  # contributions 4 and -1, z = 6, f = 7
    assert_close(lrp(model, x, 0, rule="epsilon", epsilon=0, bias="inputs"), torch.tensor([[7 * 4 / 3, -7 / 3]]))
    assert_close(lrp(model, x, 0, rule="z_plus", epsilon=0, bias="inputs"), torch.tensor([[7.0, 0.0]]))
    assert_close(lrp(model, x, 0, rule="z_plus", epsilon=0), torch.tensor([[6 * 4 / 7, 0.0]]))


@pytest.mark.parametrize("rule", ["z_plus", "composite", "gamma"])
def test_with_bias_to_the_inputs_the_map_sums_to_the_logit(rule):
    model = cnn()
    relevance, balance = lrp(model, X, 1, rule=rule, epsilon=1e-15, bias="inputs", balance=True)
    assert_close(relevance.sum((1, 2, 3)) + balance.lost, model(X)[:, 1].detach(), rtol=1e-6, atol=1e-9)
    assert (balance.biases.abs() < 1e-6 * balance.score.abs()).all()


@pytest.mark.parametrize("rule", HIDDEN)
def test_equal_to_zennit_without_the_bias(rule):
    model = plain_cnn()
    rules = {
        "epsilon": zennit.rules.Epsilon(E, zero_params="bias"),
        "gamma": zennit.rules.Gamma(0.25, **S, zero_params="bias"),
        "z_plus": zennit.rules.ZPlus(**S, zero_params="bias"),
        "alpha2_beta1": zennit.rules.AlphaBeta(2, 1, **S, zero_params="bias"),
    }
    canonizers = [zennit.canonizers.SequentialMergeBatchNorm()]
    theirs = zennit_lrp(model, X, 1, first_and_rest(rules[rule], rules[rule], canonizers))
    assert_same_map(lrp(model, X, 1, rule=rule, epsilon=E, bias="inputs"), theirs)


def test_the_balance_tells_where_the_relevance_went():
    model = nn.Sequential(linear([[2.0, -1.0]], [3.0]), nn.ReLU(), linear([[1.0]], [1.0]))
    x = torch.tensor([[2.0, 1.0]])  # f = 7: 1 stays at the upper bias, 6 * 3 / 7 at the lower one
    relevance, balance = lrp(model, x, 0, rule="z_plus", epsilon=0, balance=True)
    assert_close(balance.score, torch.tensor([7.0]))
    assert_close(balance.inputs, relevance.sum(1))
    assert_close(balance.biases, torch.tensor([1 + 6 * 3 / 7]))
    assert_close(balance.lost, torch.tensor([0.0]))
    _, balance = lrp(nn.Sequential(linear([[2.0, 2.0]])), torch.ones(1, 2), 0, rule="epsilon", epsilon=1, balance=True)
    assert_close(balance.lost, torch.tensor([4 / 5]))  # 4 in, 4 * 4 / 5 out


def test_the_balance_of_a_batch_is_that_of_its_rows():
    model = cnn()
    relevance, balance = lrp(model, X, balance=True)
    assert_close(relevance, lrp(model, X))
    for k in range(len(X)):
        _, row = lrp(model, X[k : k + 1], balance=True)
        assert_close([each[k : k + 1] for each in balance], list(row))
    assert_close(balance.inputs + balance.biases + balance.lost, balance.score)


def test_a_custom_rule_for_a_module_or_a_function():
    torch.manual_seed(0)
    x = torch.randn(2, 4)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.odd, self.head = nn.Linear(4, 6, bias=False), Apply(torch.exp), nn.Linear(6, 3, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.odd(self.first(x)))

    model = Network()
    before = dict(vars(model.odd))
    with pytest.raises(UnsupportedModelError, match=r"'exp' \(module 'odd'\)"):
        lrp(model, x, 1)

    def pass_on(z, y, signal):
        return signal * y / z

    def twice(z, y, signal):
        return 2 * signal * y / z

    for name in ("odd", "exp"):
        relevance = lrp(model, x, 1, rule="epsilon", epsilon=0, custom={name: pass_on})
        assert_close(relevance.sum(1), model(x)[:, 1].detach())
        with pytest.raises(
            ValueError, match=f"the rule for '{name}' does not conserve relevance: .* comes in, .* goes out"
        ):
            lrp(model, x, 1, custom={name: twice})
    assert vars(model.odd) == before
    with pytest.raises(ValueError, match="custom has a rule for 'nothing', which is neither a module nor a function"):
        lrp(model, x, 1, custom={"nothing": pass_on})


def test_a_custom_rule_of_two_inputs():
    torch.manual_seed(0)
    a, b, head, x = (
        nn.Linear(4, 6, bias=False),
        nn.Linear(4, 6, bias=False),
        nn.Linear(6, 3, bias=False),
        torch.randn(2, 4),
    )

    def model(x: Tensor) -> Tensor:
        return head(torch.hypot(a(x), b(x)))

    def halves(a, b, y, signal):
        return signal * y / a / 2, signal * y / b / 2

    relevance = lrp(model, x, 1, rule="epsilon", epsilon=0, custom={"hypot": halves})
    assert_close(relevance.sum(1), model(x)[:, 1].detach())


class Apply(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


# Deep Taylor decomposition.


def never_positive_biases(model: nn.Sequential) -> nn.Sequential:
    for module in model:
        if isinstance(module, naive.LINEAR):
            module.bias.data.abs_().mul_(-0.1)
    return model


BOXES = pytest.mark.parametrize("box", [{}, {"low": LOW, "high": HIGH}], ids=["unbounded", "box"])


@BOXES
def test_deep_taylor_is_z_plus_above_the_input_rule_and_starts_at_the_rectified_logit(box):
    model = cnn()
    rules = ["z_b" if box else "w_squared"] + ["z_plus"] * 4
    for target in range(4):
        options = {"epsilon": 0.0, "start": lambda logit: logit.clamp(min=0), **box}
        theirs = torch.cat([naive.lrp(model, row[None], target, rules, **options)[0] for row in X])
        assert_close(deep_taylor(model, X, target, **box), theirs, rtol=1e-9, atol=1e-12)


def signed_branches(x: Tensor, m: nn.ModuleList, add) -> Tensor:
    return m[2](add(m[0](x), m[1](x)).relu())


ADDITIONS = {
    "sum": lambda a, b: a + b,
    "difference": lambda a, b: a - b,
    "sub": lambda a, b: torch.sub(a, b, alpha=0.5),
    "rsub": lambda a, b: torch.rsub(a, b),
    "in place": lambda a, b: a.clone().add_(b, alpha=2),
    "with a constant": lambda a, b: (a + b) - 0.3,
    "scaled": lambda a, b: -0.5 * a + b / -3,
    "mean": lambda a, b: torch.stack([a, b], 2).mean(2),
    "BatchNorm of its own": lambda a, b: F.batch_norm(
        torch.cat([a, b], 1).view(-1, 2, 6).transpose(1, 2), torch.full((6,), 0.3), torch.ones(6), -torch.ones(6), torch.ones(6)
    ).amax(2),
    "average pooling": lambda a, b: F.avg_pool1d(torch.cat([a, b], 1)[:, None], 2)[:, 0],
    "a saturated sigmoid gate": lambda a, b: a * torch.sigmoid(5 * b) + torch.tanh(b),
}  # fmt: skip


@BOXES
@pytest.mark.parametrize("add", ADDITIONS.values(), ids=ADDITIONS.keys())
def test_deep_taylor_is_not_negative_where_signed_branches_meet(add, box):
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Linear(7, 8), nn.ReLU())
    parts, x = nn.ModuleList([nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(6, 3)]), torch.randn(30, 7).clamp(-4, 4)
    naive.without_bias(nn.Sequential(stem, parts))

    def model(x: Tensor) -> Tensor:
        return signed_branches(stem(x), parts, add)

    relevance = deep_taylor(model, x, 2, bias="inputs", **box)
    assert (relevance >= 0).all()
    shared = deep_taylor(model, x, 2, **box)
    assert (shared >= 0).all()
    if add not in (ADDITIONS["with a constant"], ADDITIONS["BatchNorm of its own"]):
        assert_close(shared.sum(1), model(x)[:, 2].detach().clamp(min=0), rtol=1e-5, atol=1e-9)


def test_deep_taylor_shares_a_sum_among_its_positive_terms():
    first = linear([[2.0, 0.0], [0.0, -1.0], [1.0, 1.0]])

    def model(x: Tensor) -> Tensor:
        a, b, c = first(x).unbind(1)
        return (a + b + c)[:, None]

    # Terms 2, -1, 2: of the sum 3, 2 go to the third and 1 to the sum of the first two, where the first takes it.
    relevance = deep_taylor(model, torch.ones(1, 2), 0, low=0.0, high=2.0)
    assert_close(relevance, torch.tensor([[1.0 + 1.0, 1.0]]))


def test_deep_taylor_refuses_what_would_make_it_negative():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Apply(lambda z: F.interpolate(z, size=9, mode="bicubic")), nn.Flatten())
    with pytest.raises(UnsupportedModelError, match="relevance would be negative"):
        deep_taylor(model, X, model(X).argmax(1))


@pytest.mark.parametrize("pad", [nn.ZeroPad2d((0, 1, 0, 1)), Apply(lambda x: F.pad(x.flip(3), (1, 1)))])
def test_a_stem_that_pads_with_zeros_reads_x_itself(pad):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, stride=2)
    model = nn.Sequential(pad, conv, nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    target = model(X).argmax(1)
    relevance = deep_taylor(model, X, target, bias="inputs")
    assert_close(
        relevance.sum((1, 2, 3)), model(X).gather(1, target[:, None])[:, 0].detach().clamp(min=0), rtol=1e-5, atol=0
    )
    pixels = torch.ones(1, 3, 8, 8).requires_grad_()
    read = F.conv2d(pad(pixels), conv.weight.detach() ** 2, stride=2)
    assert torch.autograd.grad(read.sum(), pixels)[0].shape == relevance[:1].shape


def test_a_padding_with_another_value_is_refused():
    with pytest.raises(UnsupportedModelError, match="to read x itself"):
        deep_taylor(nn.Sequential(nn.ConstantPad2d(1, 1.0), nn.Conv2d(3, 4, 3), nn.Flatten()), X)


@BOXES
def test_deep_taylor_is_not_negative_and_sums_to_the_rectified_logit_if_no_bias_is_positive(box):
    torch.manual_seed(0)
    model = never_positive_biases(mlp())
    x = torch.rand(40, 7) * 8 - 4
    logits = model(x).detach()
    assert (logits[:, 2] < 0).any()
    assert (logits[:, 2] > 0).any()
    relevance = deep_taylor(model, x, 2, **box)
    assert (relevance >= 0).all()
    assert_close(relevance.sum(1), logits[:, 2].clamp(min=0), rtol=1e-5, atol=0)
    assert (relevance[logits[:, 2] < 0] == 0).all()


def test_bounds_pass_through_what_precedes_the_first_layer():
    model = cnn()

    def normalised(x: Tensor) -> Tensor:
        return model((x - 0.4) / 0.5)

    x = torch.rand(2, 3, 8, 8)
    expected = lrp(model, (x - 0.4) / 0.5, 1, rule="z_plus", low=-0.8, high=1.2)
    assert_same_map(lrp(normalised, x, 1, rule="z_plus", low=torch.zeros(3, 1, 1), high=1), expected)


def test_bounds_that_the_network_turns_round_bound_nothing():
    layer = nn.Linear(3, 2)
    with pytest.raises(UnsupportedModelError, match="does not lie between what it reads for low and high"):
        lrp(lambda x: layer(-x), torch.rand(1, 3), rule="z_plus", low=0.0, high=1.0)


# Options and refusals.

BAD_OPTIONS = {
    "rule": ({"rule": "zplus"}, "unknown rule 'zplus'; the rules are 'composite', 'epsilon'"),
    "epsilon": ({"epsilon": -1.0}, "epsilon and gamma must be at least 0, got -1.0"),
    "gamma": ({"gamma": float("nan")}, "epsilon and gamma must be at least 0"),
    "one bound": ({"low": -9.0}, "needs both low and high"),
    "no bounds": ({"rule": "z_b"}, "needs both low and high"),
    "bounds of no use": ({"rule": [(always, "epsilon")], "low": -9, "high": 9}, "no layer that reads x has that rule"),
    "crossed": ({"low": 0.0, "high": 9.0}, "low must bound x, but x reaches from"),
    "bound's shape": ({"low": torch.zeros(5), "high": 9.0}, r"low must be a number or broadcast to x \(2, 3, 8, 8\)"),
}


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS.keys())
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        lrp(cnn(), X, **options)


def test_deep_taylor_needs_both_bounds_or_none():
    with pytest.raises(ValueError, match="deep_taylor needs both low and high, or neither"):
        deep_taylor(cnn(), X, low=-9)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ([(is_input, "epsilon")], "no predicate of the rule holds for the convolution layer '4'"),
        ([(always, "flat")], "'flat' is for the one layer that reads x, not for '4'"),
    ],
)
def test_rules_that_do_not_fit_the_network_are_refused(rule, message):
    with pytest.raises(UnsupportedModelError, match=message):
        lrp(cnn(), X, rule=rule)


def test_an_input_rule_needs_one_layer_that_reads_x():
    layer = nn.Linear(4, 4)
    with pytest.raises(UnsupportedModelError, match="the one layer that reads x"):
        deep_taylor(lambda x: F.relu(layer(x)) + layer(x), torch.randn(2, 4))
    with pytest.raises(UnsupportedModelError, match="to read x itself"):
        deep_taylor(lambda x: layer(2 * x), torch.randn(2, 4))


def test_a_layer_that_reads_x_beside_hidden_units_is_no_input_layer():
    first, second, seen = nn.Linear(3, 3), nn.Linear(6, 2), []

    def note(layer) -> bool:
        seen.append(layer.is_input)
        return True

    for order in (1, -1):
        lrp(lambda x: second(torch.cat([x, F.relu(first(x))][::order], 1)), torch.rand(1, 3), rule=[(note, "epsilon")])  # noqa: B023
    assert seen == [True, False] * 2


def test_a_rule_may_be_a_function_of_the_layer_and_the_signal():
    model = mlp()
    x = X.flatten(1)[:, :7]

    def gradient(layer, g):
        return torch.autograd.grad(layer.z, [layer.a], g)

    assert_same_map(lrp(model, x, rule=[(always, gradient)]), gradient_x_input(model, x))


def test_a_custom_rule_conserves_row_by_row():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 3, bias=False)), torch.randn(3, 4)

    def to_row_0(a, y, signal):
        return torch.zeros_like(a).index_fill(0, torch.tensor([0]), 1) * (y * signal).sum() / a[0].sum()

    with pytest.raises(ValueError, match="the rule for '1' does not conserve relevance"):
        lrp(model, x, 1, custom={"1": to_row_0})

    def cyclic(a, y, signal):  # along the axis of the rows it conserves, which need not be the first
        return (y * signal).sum((0, 2), keepdim=True) / a.numel() * len(x) / a

    recurrent = nn.LSTM(4, 5)
    head = nn.Linear(5, 3, bias=False)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent, self.head = recurrent, head

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.recurrent(x.transpose(0, 1))[0][-1])

    x = torch.randn(3, 3, 4)
    relevance = lrp(Net(), x, 1, rule="epsilon", epsilon=0, custom={"recurrent": cyclic})
    assert_close(relevance.sum((1, 2)), Net()(x)[:, 1].detach())


def test_a_custom_rule_is_for_one_output():
    torch.manual_seed(0)
    recurrent, head, x = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3), torch.randn(2, 6, 4)

    class Net(nn.Module):
        def __init__(self, reads: bool) -> None:
            super().__init__()
            self.recurrent, self.head, self.reads = recurrent, head, reads

        def forward(self, x: Tensor) -> Tensor:
            y, (h, _) = self.recurrent(x)
            h += 1
            return self.head(y[:, -1] + h[0] if self.reads else y[:, -1])

    def evenly(a, y, signal):
        return (y * signal).sum((1, 2), keepdim=True) / a[0].numel() / a

    with pytest.raises(UnsupportedModelError, match="the rule for 'recurrent' is for its first output"):
        lrp(Net(True), x, 1, custom={"recurrent": evenly})
    relevance = lrp(Net(False), x, 1, custom={"recurrent": evenly}, bias="inputs", epsilon=0)
    assert_close(relevance.sum((1, 2)), Net(False)(x)[:, 1].detach())


@pytest.mark.parametrize("name", ["1", "gelu"])
def test_a_custom_rule_for_what_never_runs_is_refused(name):
    class Net(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[2](F.relu(self[0](x)))

    model = Net(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    with pytest.raises(ValueError, match=f"custom has a rule for '{name}', which the model never calls"):
        lrp(model, torch.randn(2, 4), 1, custom={name: lambda a, y, signal: 1 / 0})


@pytest.mark.parametrize("scale", [1, 1e-5, 1e-9, 1e-30])
def test_deep_taylor_of_a_small_logit_loses_nothing(scale):
    torch.manual_seed(0)
    widths = (6, 8, 8, 3)
    layers = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b, bias=False), nn.ReLU())]
    model, x = nn.Sequential(*layers[:-1]), torch.randn(4, 6) * scale
    for box in ({}, {"low": -9 * scale, "high": 9 * scale}):
        shared = deep_taylor(model, x, **box).sum(1)
        assert_close(shared / scale, model(x).max(1).values.detach().clamp(min=0) / scale)
