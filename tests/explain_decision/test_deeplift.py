"""DeepLIFT: the paper's toys, an implementation unit by unit, Captum where it is right, the sum to the difference."""

import captum.attr
import naive
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from interp_lab import UnsupportedModelError, gradient_x_input, integrated_gradients
from interp_lab.explain_decision.deeplift import deeplift

pytestmark = pytest.mark.usefixtures("double")

X = torch.randn(3, 3, 9, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def assert_sums_to_the_difference(model, x: Tensor, baseline: float | Tensor = 0.0, **options) -> None:
    relevance = deeplift(model, x, 1, baseline=baseline, **options)
    with torch.no_grad():
        x0 = torch.as_tensor(baseline).expand_as(x)
        difference = (model(x.clone()) - model(x0.clone()))[:, 1]
    total = relevance.flatten(1).sum(1)
    assert_close(total, difference, rtol=0, atol=1e-12 * relevance.flatten(1).abs().sum(1).max().item())
    assert relevance.abs().max() > 0


def saturated(x: Tensor) -> Tensor:
    return 1 - F.relu(1 - x.sum(1, keepdim=True))


class Minimum(nn.Module):
    """min(x1, x2) = x1 - relu(x1 - x2)."""

    def __init__(self) -> None:
        super().__init__()
        self.difference = nn.Linear(2, 1, bias=False)
        self.difference.weight.data = torch.tensor([[1.0, -1.0]])

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :1] - F.relu(self.difference(x))


def test_a_saturated_unit_is_shared():
    x = torch.ones(1, 2)
    assert_close(deeplift(saturated, x), torch.tensor([[0.5, 0.5]]))
    assert_close(gradient_x_input(saturated, x), torch.zeros(1, 2))


def test_the_minimum_tells_rescale_from_reveal_cancel():
    x = torch.tensor([[2.0, 1.0]])
    assert_close(deeplift(Minimum(), x), torch.tensor([[0.0, 1.0]]))
    assert_close(deeplift(Minimum(), x, rule="reveal_cancel"), torch.tensor([[0.5, 0.5]]))


def test_a_threshold_makes_no_jump():
    x = torch.tensor([[9.9], [10.1]])
    assert_close(deeplift(lambda x: F.relu(x - 10), x), torch.tensor([[0.0], [0.1]]))
    assert_close(gradient_x_input(lambda x: F.relu(x - 10), x), torch.tensor([[0.0], [10.1]]))


@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
def test_equal_to_multipliers_written_unit_by_unit(rule):
    layers = [nn.Linear(6, 7), nn.Linear(7, 5), nn.Linear(5, 3)]
    model = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    x, baseline = torch.randn(4, 6), torch.randn(6)
    x[0, :3] = baseline[:3]  # contributions of zero
    cancel = rule == "reveal_cancel"
    expected = torch.stack([naive.deeplift(layers, row, baseline, 1, cancel) for row in x])
    ours = deeplift(model, x, 1, baseline=baseline, rule=rule)
    assert_close(ours, expected, rtol=1e-9, atol=1e-12)
    assert_sums_to_the_difference(model, x, baseline, rule=rule)


@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
def test_where_input_and_baseline_agree_the_rule_is_finite(rule):
    model = nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 3))
    x = torch.randn(2, 6)
    assert_close(deeplift(model, x, 1, baseline=x, rule=rule), torch.zeros(2, 6))


@pytest.mark.parametrize("function", [F.leaky_relu, torch.tanh, F.silu])
@pytest.mark.parametrize("x", [0.7, -0.7])
def test_one_digit_from_the_baseline_the_multiplier_is_the_derivative(function, x):
    z = torch.tensor([[x]], requires_grad=True)
    (derivative,) = torch.autograd.grad(function(z).sum(), z)
    baseline = torch.nextafter(z.detach(), torch.ones(1, 1))
    ours = deeplift(function, z.detach(), 0, baseline=baseline) / (z.detach() - baseline)
    assert_close(ours, derivative, rtol=1e-12, atol=0)


# The input of each is x1 - x2 + 1, which is 1 at (1, 1) and at 0, though both have moved.
UNMOVED = {
    "relu": (F.relu, 1.0),
    "sigmoid": (torch.sigmoid, 0.19661193324148185),  # e / (1 + e)^2
    "max-pool": (lambda z: F.max_pool1d(torch.cat([z, 0 * z], 1)[:, None], 2)[:, 0], 1.0),
}


@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
@pytest.mark.parametrize(("function", "derivative"), UNMOVED.values(), ids=UNMOVED.keys())
def test_a_unit_that_is_where_it_was_keeps_its_derivative(function, derivative, rule):
    def model(x: Tensor) -> Tensor:
        return function(x[:, :1] - x[:, 1:] + 1)

    assert_close(deeplift(model, torch.ones(1, 2), 0, rule=rule), derivative * torch.tensor([[1.0, -1.0]]))


class Stack(nn.Module):
    """What Captum takes: modules, each used once, no max-pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu1, self.pool = nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AvgPool2d(2)
        self.second, self.norm, self.relu2 = nn.Conv2d(6, 5, 2), nn.BatchNorm2d(5), nn.ReLU()
        self.head = nn.Linear(20, 4)
        naive.randomise_batch_norm(self, torch.randn(16, 3, 9, 9))

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu1(self.first(x)))
        return self.head(self.relu2(self.norm(self.second(x))).flatten(1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equal_to_captum_where_there_is_no_max_pooling(dtype):
    model, x, baseline = Stack().to(dtype), X.to(dtype), torch.full_like(X[:1], 0.3).to(dtype)
    ours = deeplift(model, x, 1, baseline=baseline)
    with pytest.warns(UserWarning, match="backward hooks"):
        theirs = captum.attr.DeepLift(model).attribute(x.clone(), baseline, target=1).detach()
    scale = theirs.abs().max()
    assert_close(ours / scale, theirs / scale, rtol=0, atol=1e-9 if dtype == torch.float64 else 1e-4)


def test_without_biases_and_from_zero_it_is_gradient_times_input():
    model = naive.without_bias(Stack())
    assert_close(deeplift(model, X, 1), gradient_x_input(model, X, 1), rtol=1e-9, atol=1e-12)


def test_with_one_hidden_layer_it_is_integrated_gradients():
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    x, baseline = torch.randn(3, 5), torch.randn(5)
    expected = integrated_gradients(model, x, 1, baseline=baseline, steps=1024)
    assert_close(deeplift(model, x, 1, baseline=baseline), expected, rtol=0, atol=2e-3)


ELEMENTWISE = {
    "relu": F.relu, "relu_": torch.relu_, "relu6": F.relu6, "leaky_relu": F.leaky_relu, "elu": F.elu, "selu": F.selu,
    "celu": F.celu, "gelu": F.gelu, "gelu tanh": lambda z: F.gelu(z, approximate="tanh"), "silu": F.silu, "mish": F.mish,
    "hardswish": F.hardswish, "hardsigmoid": F.hardsigmoid, "hardtanh": F.hardtanh, "sigmoid": torch.sigmoid,
    "Tensor.tanh": Tensor.tanh, "tanh_": Tensor.tanh_, "softplus": F.softplus, "softsign": F.softsign, "abs": torch.abs,
    "clamp": lambda z: z.clamp(-0.2, 0.3), "clamp_min": lambda z: z.clamp_min(0.1), "exp": torch.exp,
    "square": torch.square, "logsigmoid": F.logsigmoid, "threshold": lambda z: F.threshold(z, 0.1, 0.1), "sin": torch.sin,
    "prelu": lambda z: F.prelu(z, torch.full((4,), 0.2)), "hardshrink": F.hardshrink, "tanhshrink": F.tanhshrink,
}  # fmt: skip


@pytest.mark.parametrize("function", ELEMENTWISE.values(), ids=ELEMENTWISE.keys())
def test_every_elementwise_nonlinearity_keeps_the_sum(function):
    first, second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3)

    def model(x: Tensor) -> Tensor:
        return second(function(first(x))).mean((2, 3))

    assert_sums_to_the_difference(model, X)
    assert_sums_to_the_difference(model, X, torch.randn_like(X))


POOLS = {
    "max 2": lambda z: F.max_pool2d(z, 2),
    "max 3 stride 2": nn.MaxPool2d(3, 2),  # windows overlap
    "max padded": nn.MaxPool2d(3, 1, padding=1),
    "max dilated, ceil": nn.MaxPool2d(2, 2, dilation=2, ceil_mode=True),
    "adaptive max": nn.AdaptiveMaxPool2d(2),
    "max 1d": lambda z: F.max_pool1d(z.flatten(2), 5, 3)[..., None],
    "max by position": lambda z: torch.max_pool2d(z, 2, 2, 0, 1, True),  # the last: ceil_mode
    "average": nn.AvgPool2d(3, 2, padding=1),
    "adaptive average": nn.AdaptiveAvgPool2d(3),
}


@pytest.mark.parametrize("order", ["relu, pool", "pool, relu", "pool"])
@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS.keys())
def test_every_pooling_keeps_the_sum_in_any_place(pool, order):
    first, head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def model(x: Tensor) -> Tensor:
        z = first(x)
        z = F.relu(z) if order == "relu, pool" else z
        z = pool(z)
        z = F.relu(z) if order == "pool, relu" else z
        return head(z.mean((2, 3)))

    assert_sums_to_the_difference(model, X)
    assert_sums_to_the_difference(model, X, 0.2 * torch.randn_like(X))


def test_a_max_pool_gives_the_difference_to_the_two_places_of_the_maximum():
    x, baseline = torch.tensor([[[[1.0, 5, 2, 0]]]]), torch.tensor([[[[4.0, 1, 2, 0]]]])

    def model(x: Tensor) -> Tensor:
        return F.max_pool2d(x, (1, 4)).flatten(1)

    assert_close(deeplift(model, x, baseline=baseline), torch.tensor([[[[0.0, 1, 0, 0]]]]))  # up from 4 to 5
    assert_close(deeplift(model, baseline, baseline=x), torch.tensor([[[[0.0, -1, 0, 0]]]]))


def test_a_product_takes_the_mean_of_its_two_orders():
    x, baseline = torch.tensor([[3.0, 5.0]]), torch.tensor([[1.0, 2.0]])
    expected = torch.tensor([[2 * (5 + 2) / 2, 3 * (3 + 1) / 2]])
    assert_close(deeplift(lambda x: x[:, :1] * x[:, 1:], x, baseline=baseline), expected)
    assert expected.sum() == 3 * 5 - 1 * 2

    def gated(x: Tensor) -> Tensor:
        h = F.silu(x)
        h *= torch.sigmoid(x.sum((2, 3), keepdim=True))  # in place, broadcast
        return h.mean((2, 3))

    assert_sums_to_the_difference(gated, X)


def test_rows_are_independent():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten(), nn.Linear(36, 3))
    rows = torch.cat([deeplift(model, row[None], 1) for row in X])
    assert_close(deeplift(model, X, 1), rows, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "linear"}, "rule must be 'rescale' or 'reveal_cancel', got 'linear'"),
        ({"baseline": torch.zeros(2)}, r"baseline must be .* got shape \(2,\)"),
        ({"baseline": float("inf")}, "baseline must be finite"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        deeplift(Stack(), X, **options)


NO_RULE = {
    "maximum over the batch": (lambda z: z - z.amax(0), "depends on the other rows"),
    "indices of max-pooling": (lambda z: F.max_pool2d(z, 2, return_indices=True)[0], "max_pool2"),
    "sorted": (lambda z: z.sort(1)[0], "'sort'"),
    "a jump": (lambda z: z.round(), "no multiplier for the operation 'round': 128 derivatives"),
    "another way for the baseline": (lambda z: F.relu(z) if z.abs().max() > 1e-9 else F.elu(z), "cannot be paired"),
    "fewer operations": (lambda z: F.relu(z) if z.abs().max() > 1e-9 else z, "cannot be paired"),
    "more operations": (lambda z: z if z.abs().max() > 1e-9 else F.relu(z), "cannot be paired"),
}


@pytest.mark.parametrize(("function", "message"), NO_RULE.values(), ids=NO_RULE.keys())
def test_what_has_no_rule_is_refused_by_name(function, message):
    conv = nn.Conv2d(3, 4, 3, bias=False)
    with pytest.raises(UnsupportedModelError, match=message):
        deeplift(lambda x: function(conv(x)).mean((2, 3)), X)


def test_one_row_of_a_shared_baseline_serves_all():
    model, x, rows = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(5, 6), []
    with model.register_forward_pre_hook(lambda module, args: rows.append(len(args[0]))):
        shared = deeplift(model, x, 0, baseline=0.3)
        assert rows == [1, 5, 1]  # the last: is the first row the same again?
    each = torch.full_like(x, 0.3)
    each[0, 0] += 1e-12  # the rows differ, so that the model runs on all of them
    assert_close(deeplift(model, x, 0, baseline=each), shared)


class BatchLast(nn.Module):
    """Moves the batch dimension away, or fixes its size, before a nonlinearity."""

    def __init__(self, fixed: bool):
        super().__init__()
        self.fixed = fixed
        self.linear = nn.Linear(6, 4)

    def forward(self, x):
        z = self.linear(x)
        return z.view(5, 2, 2).sigmoid().flatten(1) if self.fixed else z.t().sigmoid().t()


@pytest.mark.parametrize("fixed", [False, True])
def test_a_model_that_moves_the_batch_dimension_gets_all_rows_of_the_baseline(fixed):
    model, x = BatchLast(fixed), torch.randn(5, 6)
    assert_sums_to_the_difference(model, x, baseline=0.2)


def dense(weight, bias) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight))
    layer.weight.data, layer.bias.data = torch.tensor(weight), torch.tensor(bias)
    return layer


@pytest.mark.parametrize("second", [1.0, 1 - 1e-9])
def test_reveal_cancel_takes_the_limit_where_a_unit_has_contributions_of_one_sign(second):
    # h1 = relu(10 + x1 - x2), h2 = relu(10 + x3), y = relu(10 + h1 + h2): all active, so y = 30 + x1 - x2 + x3.
    model = nn.Sequential(
        dense([[1.0, -1.0, 0.0], [0.0, 0.0, 1.0]], [10.0, 10.0]), nn.ReLU(),
        dense([[1.0, 1.0]], [10.0]), nn.ReLU(), dense([[1.0]], [0.0]),
    )  # fmt: skip
    x = torch.tensor([[1.0, second, 1.0]])
    assert_close(deeplift(model, x, 0, rule="reveal_cancel"), torch.tensor([[1.0, -second, 1.0]]))


SMOOTH = [torch.tanh, torch.sigmoid, F.gelu, F.silu, F.softplus, F.mish, torch.sin, F.hardswish, F.elu, F.tanhshrink]


@pytest.mark.parametrize("distance", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
@pytest.mark.parametrize("activation", SMOOTH)
def test_float32_is_as_good_as_float64_at_any_distance_from_the_baseline(activation, distance):
    torch.manual_seed(0)
    first, second, head = nn.Linear(30, 40), nn.Linear(40, 40), nn.Linear(40, 1)
    modules = nn.ModuleList([first, second, head]).float()
    x = torch.randn(50, 30).float()
    x0 = x + distance * torch.randn(50, 30).float()

    def model(x):
        return head(activation(second(activation(first(x)))))

    ours = deeplift(model, x, 0, baseline=x0).double()
    modules.double()
    exact = deeplift(model, x.double(), 0, baseline=x0.double())
    assert (ours - exact).norm() <= 1e-5 * exact.norm()


def test_near_the_baseline_the_multiplier_is_the_mean_derivative():
    x, x0 = torch.tensor([[0.7]]), torch.tensor([[0.7 + 3e-7]])
    ours = deeplift(lambda x: torch.sigmoid(x), x, 0, baseline=x0) / (x - x0)
    y = torch.sigmoid((x + x0) / 2)
    assert_close(ours, y * (1 - y), rtol=1e-13, atol=0)


def test_a_kink_between_x_and_its_baseline_is_met_by_the_quotient():
    x, x0 = torch.tensor([[3 + 1e-6]]), torch.tensor([[3 - 3e-6]])
    ours = deeplift(F.hardsigmoid, x, 0, baseline=x0)
    assert_close(ours, torch.tensor([[0.5e-6]]), rtol=1e-8, atol=0)


# Operations of several inputs: closed forms.


def contributions(function, x, x0) -> Tensor:
    return deeplift(function, torch.tensor([x]), 0, baseline=torch.tensor([x0]))[0]


def test_a_quotient_is_the_product_read_backwards():
    # y = a / b goes from 1/2 to 2, b from 2 to 3: dy = (5 - 1/2) / 3 = (5 - 2) / 2, weighted 9 to 4.
    for divide in (torch.div, lambda a, b: a / b, lambda a, b: a.clone().div_(b)):
        ours = contributions(lambda x, f=divide: f(x[:, :1], x[:, 1:]), [6.0, 3.0], [1.0, 2.0])
        assert_close(ours, torch.tensor([25 / 13, -(9 * 0.5 / 3 + 4 * 2 / 2) / 13]))


def test_a_divisor_that_changes_its_sign_or_starts_near_zero():
    def quotient(x: Tensor) -> Tensor:
        return x[:, :1] / x[:, 1:]

    assert_close(contributions(quotient, [6.0, 2.0], [1.0, -2.0]), torch.tensor([0.0, 3.5]))  # y from -1/2 to 3
    assert_close(contributions(quotient, [6.0, 2.0], [0.0, 1e-9]), torch.tensor([3.0, 0.0]), rtol=1e-8, atol=1e-8)


def test_a_constant_over_an_activation_is_elementwise():
    for function in (lambda x: torch.full_like(x, 6.0) / x, lambda x: 6 / x, lambda x: 6 * x.reciprocal()):
        assert_close(contributions(function, [3.0], [2.0]), torch.tensor([-1.0]))


def log_mean(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(a == b, a, (a - b) / (a.log() - b.log()))


@pytest.mark.parametrize("log", [False, True])
def test_a_softmax_is_written_in_exponentials_and_the_logarithm_of_their_sum(log):
    torch.manual_seed(0)
    s, s0, w = torch.randn(1, 5), torch.randn(1, 5), torch.randn(5)
    s[0, 2] = s0[0, 2]  # one that does not move

    def model(x: Tensor) -> Tensor:
        return ((F.log_softmax(x, 1) if log else F.softmax(x, 1)) * w).sum(1, keepdim=True)

    e, e0, p, p0 = s[0].exp(), s0[0].exp(), s[0].softmax(0), s0[0].softmax(0)
    of_log_sum = log_mean(e, e0) / log_mean(e.sum(), e0.sum())
    multipliers = torch.eye(5) - of_log_sum  # of log p_j to s_i: row j
    expected = w @ (multipliers if log else log_mean(p, p0)[:, None] * multipliers)
    ours = deeplift(model, s, 0, baseline=s0)
    assert_close(ours, expected * (s - s0), rtol=1e-12, atol=1e-14)
    assert_close(ours.sum(), (model(s) - model(s0)).sum())
    # Under a common shift of all scores, however large, the Jacobian is the same all the way.
    assert_close(deeplift(model, s0 + 300, 0, baseline=s0), 300 * naive.gradient(model, s0, 0), rtol=1e-9, atol=1e-9)


def test_a_norm_is_the_centred_values_over_their_deviation():
    torch.manual_seed(0)
    x, x0, w, d, eps = torch.randn(1, 6), torch.randn(1, 6), torch.randn(6), 6, 1e-5
    ours = deeplift(lambda x: (F.layer_norm(x, (6,), eps=eps) * w).sum(1, keepdim=True), x, 0, baseline=x0)
    a, a0 = (v[0] - v[0].mean() for v in (x, x0))
    s, s0 = ((v.square().mean() + eps).sqrt() for v in (a, a0))
    weights = torch.tensor([s, s0]).square() / (s**2 + s0**2)
    of_values = (weights / torch.tensor([s, s0])).sum()
    of_size = weights[0] * a0 / s0 / s + weights[1] * a / s / s0
    of_deviation = (a + a0) / d / (s + s0)  # ds = d(s^2) / (s + s0)
    multipliers = of_values * (torch.eye(d) - 1 / d) - torch.outer(of_size, of_deviation)
    assert_close(ours, (w @ multipliers) * (x - x0), rtol=1e-12, atol=1e-13)


def test_a_norm_as_a_product_that_is_no_quotient_has_the_multipliers_of_its_product():
    # The closed form of tangermeme's LayerNorm: gamma [(v + v0)/2 (d_ij - 1/D) - v^2 v0^2/(v + v0) (a + a0)(a + a0)/(2 D)].
    torch.manual_seed(0)
    x, x0, w, d, eps = torch.randn(1, 6), torch.randn(1, 6), torch.randn(6), 6, 1e-5

    def model(x: Tensor) -> Tensor:
        a = x - x.mean(1, keepdim=True)
        return (a * torch.exp(-0.5 * torch.log(a.square().mean(1, keepdim=True) + eps)) * w).sum(1, keepdim=True)

    a, a0 = (v[0] - v[0].mean() for v in (x, x0))
    v, v0 = ((each.square().mean() + eps).rsqrt() for each in (a, a0))
    multipliers = (v + v0) / 2 * (torch.eye(d) - 1 / d) - v**2 * v0**2 / (v + v0) * torch.outer(a + a0, a + a0) / (
        2 * d
    )
    assert_close(deeplift(model, x, 0, baseline=x0), (w @ multipliers) * (x - x0), rtol=1e-12, atol=1e-13)


DIVIDED = {
    "times 1 over": lambda a, s: a * (1 / s),
    "times a constant over": lambda a, s: a * (-2 / s) / -2,
    "times reciprocal": lambda a, s: torch.mul(s.reciprocal(), a),
    "times reciprocal_": lambda a, s: a * s.clone().reciprocal_(),
    "in place": lambda a, s: a.clone().mul_(1 / s),
    "power -1": lambda a, s: a * s**-1,
    "power -1/2": lambda a, s: a * s.square().pow(-0.5),
    "power -1/2, in place": lambda a, s: a * s.square().pow_(exponent=-0.5),
    "power -2": lambda a, s: a * s.sqrt() ** -2,
    "rsqrt": lambda a, s: a * torch.rsqrt(s.square()),
    "rsqrt_": lambda a, s: a * s.square().rsqrt_(),
    "moved": lambda a, s: a * (1 / s.squeeze(1))[:, None].expand_as(a).clone(),
}


@pytest.mark.parametrize("divide", DIVIDED.values(), ids=DIVIDED.keys())
def test_every_spelling_of_a_quotient_is_one(divide):
    torch.manual_seed(0)
    x, x0 = torch.randn(3, 6), torch.randn(3, 6)

    def model(x: Tensor, divide=divide) -> Tensor:
        return divide(x, 3 + x[:, 2:].sum(1, keepdim=True).tanh())

    for baseline in (x0, 0.0):
        expected = deeplift(lambda x: model(x, torch.div), x, 1, baseline=baseline)
        assert_close(deeplift(model, x, 1, baseline=baseline), expected, rtol=1e-12, atol=1e-13)


def test_times_an_inverse_near_zero_loses_no_digits():
    def quotient(x: Tensor) -> Tensor:
        return x[:, :1] * (1 / x[:, 1:])

    assert_close(contributions(quotient, [6.0, 2.0], [1.0, -2.0]), torch.tensor([0.0, 3.5]))
    assert_close(contributions(quotient, [6.0, 2.0], [0.0, 1e-9]), torch.tensor([3.0, 0.0]), rtol=1e-8, atol=1e-8)


def test_where_the_baseline_has_no_deviation_a_norm_stays_of_its_size():
    # 1 / deviation is 316 there: a product with it would share out terms 150 times as large, which cancel.
    torch.manual_seed(0)
    x = torch.randn(4, 32)
    ours = deeplift(lambda x: F.layer_norm(x, (32,)), x, 0)
    assert_close(ours.sum(1), F.layer_norm(x, (32,))[:, 0])
    assert (ours.abs().sum(1) < 10).all()

    def as_product(x: Tensor) -> Tensor:
        a = x - x.mean(1, keepdim=True)
        return a * torch.exp(-0.5 * torch.log(a.square().mean(1, keepdim=True) + 1e-5))

    assert deeplift(as_product, x, 0).abs().sum(1).mean() > 100


def test_the_mean_jacobian_of_other_operations_has_a_known_answer():
    x, x0 = [2.0, 5.0, -1.0], [1.0, 3.0, 4.0]
    a, b, c = torch.tensor([x, x0]).T
    da, db, dc = a[0] - a[1], b[0] - b[1], c[0] - c[1]
    first = da * (b[1] * c[1] + (b[1] * dc + c[1] * db) / 2 + db * dc / 3)  # the integral of b c on the way
    ours = contributions(lambda x: x.prod(1, keepdim=True), x, x0)
    assert_close(ours[0], first)
    assert_close(ours.sum(), torch.tensor(-10.0 - 12.0))

    # log(e^a + e^b) = a + softplus(b - a), whose derivative depends on b - a alone.
    ours = contributions(lambda x: x.logsumexp(1, keepdim=True), [2.0, 5.0], [1.0, 0.5])
    slope = (F.softplus(torch.tensor(3.0)) - F.softplus(torch.tensor(-0.5))) / 3.5
    assert_close(ours, torch.stack([(1 - slope) * 1.0, slope * 4.5]), rtol=1e-8, atol=0)


def test_a_matrix_product_is_the_sum_of_its_products():
    torch.manual_seed(0)
    x, x0 = torch.randn(2, 24), torch.randn(24)

    def factors(x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :12].view(-1, 4, 3), x[:, 12:].view(-1, 3, 4)

    def products(a: Tensor, b: Tensor) -> Tensor:
        return (a[:, :, :, None] * b[:, None]).sum(2)

    w = torch.randn(16)
    expected = deeplift(lambda x: products(*factors(x)).flatten(1) @ w[:, None], x, 0, baseline=x0)
    ways = (torch.matmul, torch.bmm, lambda a, b: a @ b, lambda a, b: torch.einsum("nij,njk->nik", a, b))
    for multiply in (*ways, lambda a, b: torch.baddbmm(torch.zeros(1, 4, 4), a, b)):
        ours = deeplift(lambda x, f=multiply: f(*factors(x)).flatten(1) @ w[:, None], x, 0, baseline=x0)
        assert_close(ours, expected, rtol=1e-9, atol=1e-12)


OTHERS = {
    "norm": lambda z: z.norm(dim=1, keepdim=True).expand(-1, 6, -1, -1),
    "vector_norm of 3": lambda z: torch.linalg.vector_norm(z, 3, dim=1, keepdim=True).expand(-1, 6, -1, -1),
    "largest norm": lambda z: torch.linalg.vector_norm(z, torch.inf, (1,), True).expand(-1, 6, -1, -1),
    "normalize": lambda z: F.normalize(z, dim=1),
    "local_response_norm": lambda z: F.local_response_norm(z, 3),
    "lp_pool": lambda z: F.lp_pool2d(z, 2, 3),
    "standard deviation": lambda z: z.std(1, keepdim=True).expand(-1, 6, -1, -1),
    "variance": lambda z: z.var((2, 3), keepdim=True),
    "cosine": lambda z: F.cosine_similarity(z[:, :3], z[:, 3:])[:, None].expand(-1, 6, -1, -1),
    "distance": lambda z: torch.cdist(z.flatten(2), z.flatten(2)[:, :1] + 3),
    "power of two activations": lambda z: (1 + z.abs()) ** z.sigmoid(),
    "atan2": lambda z: torch.atan2(z, 5 + z.flip(1)),
    "Fourier": lambda z: torch.fft.irfft2(torch.fft.rfft2(z) * (1 + 2j)),
    "chosen by a constant": lambda z: torch.where(torch.arange(3) > 0, z[..., :3], -z[..., :3]),
    "bilinear": lambda z: F.bilinear(z.flatten(2), z.flatten(2).flip(2), torch.ones(2, 9, 9)),
    "softmin": lambda z: F.softmin(z, 1),
    "weights from x": lambda z: torch.einsum("nck,nkd->ncd", z.flatten(2), F.softmax(z.flatten(2).mT, 1)),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("function", OTHERS.values(), ids=OTHERS.keys())
def test_every_differentiable_operation_keeps_the_sum(function, dtype):
    torch.manual_seed(0)
    conv, head = nn.Conv2d(3, 6, 3, stride=3).to(dtype), nn.Linear(6, 3).to(dtype)

    def model(x: Tensor) -> Tensor:
        return head(function(conv(x)).flatten(2).mean(2))

    torch.set_default_dtype(dtype)
    x, x0 = X.to(dtype), 0.5 * X.flip(0).to(dtype)
    relevance = deeplift(model, x, 1, baseline=x0)
    difference = (model(x) - model(x0))[:, 1].detach()
    tolerance = 1e-8 if dtype == torch.float64 else 1e-4
    assert_close(relevance.sum((1, 2, 3)), difference, rtol=tolerance, atol=tolerance * relevance.abs().max().item())
    assert relevance.abs().max() > 0
    for k in range(2):  # rows are independent
        row = deeplift(model, x[k : k + 1], 1, baseline=x0[k : k + 1])
        assert_close(row, relevance[k : k + 1], rtol=tolerance, atol=tolerance * relevance.abs().max().item())


def test_a_branch_on_values_of_x_is_refused_where_the_sum_shows_it():
    first, second, x = nn.Linear(4, 2), nn.Linear(4, 2), torch.tensor([[1.0, 2, 3, 4], [-1.0, -2, -3, -4]])

    def branches(x: Tensor) -> Tensor:
        return torch.stack([(first if row.sum() > 0 else second)(row).relu() for row in x])

    with pytest.raises(UnsupportedModelError, match="does the model take another way for it"):
        deeplift(branches, x, 0, baseline=0.5)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_an_adaptive_pool_that_also_gives_the_places_is_the_same(dims):
    pool, x = getattr(F, f"adaptive_max_pool{dims}d"), torch.randn(3, 2, *[4] * dims)
    net = nn.Linear(2 * 2**dims, 2)
    with_places = deeplift(lambda x: net(pool(x, 2, return_indices=True)[0].flatten(1)), x, 0)
    torch.testing.assert_close(with_places, deeplift(lambda x: net(pool(x, 2).flatten(1)), x, 0))
