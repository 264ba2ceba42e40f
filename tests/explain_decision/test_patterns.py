"""PatternNet and PatternAttribution: the linear problem of the paper, and estimates written out by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from interp_lab import UnsupportedModelError, fit_patterns, pattern_attribution, pattern_net, saliency

SIGNAL, DISTRACTOR, FILTER = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0]), torch.tensor([1.0, -1.0])


def problem(n: int, mean: float = 0.0) -> torch.Tensor:
    """x = y s + e d with y, e independent: the filter (1, -1) reads y and cancels e."""
    generator = torch.Generator().manual_seed(0)
    y, e = torch.randn(2, n, 1, generator=generator)
    return y * SIGNAL + (e + mean) * DISTRACTOR


def network(*above: nn.Module) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(2, 1, bias=False), *above)
    with torch.no_grad():
        model[0].weight[:] = FILTER
        for module in above:
            if isinstance(module, nn.Linear):
                module.weight.fill_(1.0)
                module.bias.zero_()
    return model


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return F.cosine_similarity(a.flatten(), b.flatten(), dim=0).item()


def test_a_linear_unit_has_the_signal_as_its_pattern_where_the_gradient_shows_the_distractor():
    model, x = network(), problem(100_000, mean=3.0)
    patterns = fit_patterns(model, x.split(1000))
    # An estimate of a covariance of size 1 from n samples is off by about 1 / sqrt(n).
    assert_close(patterns["0"][0], SIGNAL, rtol=0, atol=4 / 100_000**0.5 * 3)
    assert_close((patterns["0"] * model[0].weight).sum().detach(), torch.tensor(1.0))
    assert abs(cosine(pattern_net(model, x[:1], 0, patterns=patterns), SIGNAL)) > 0.99
    assert abs(cosine(saliency(model, x[:1], 0), SIGNAL)) < 0.75


@pytest.mark.parametrize("mean", [0.0, 1.0, 3.0])
def test_with_a_relu_the_centred_pattern_is_the_signal_whatever_the_mean_of_the_distractor(mean):
    model, x = network(nn.ReLU(), nn.Linear(1, 1)), problem(100_000, mean)
    patterns = fit_patterns(model, x.split(1000))
    assert cosine(patterns["0"], SIGNAL) > 0.999
    active = x[model[0](x)[:, 0] > 0][:1]
    assert cosine(pattern_net(model, active, 0, patterns=patterns), SIGNAL) > 0.99


@pytest.mark.parametrize(("mean", "expected"), [(0.0, (1.0, 0.0)), (1.0, (1.8, 0.8)), (3.0, (3.4, 2.4))])
def test_the_form_of_the_paper_depends_on_the_mean_of_the_distractor(mean, expected):
    # E+[y] - E[y] = sqrt(2 / pi) =: m, E+[y^2] = 1, so a = (1 + mean m, mean m).
    patterns = fit_patterns(network(nn.ReLU(), nn.Linear(1, 1)), problem(200_000, mean).split(1000), centred=False)
    m = (2 / torch.pi) ** 0.5
    assert_close(patterns["0"][0], torch.tensor([1 + mean * m, mean * m]), rtol=0, atol=0.03)
    assert_close(patterns["0"][0], torch.tensor(expected), rtol=0, atol=0.05)


def test_pattern_attribution_of_a_linear_unit_sums_to_the_unit():
    model, x = network(), problem(5000)
    attribution = pattern_attribution(model, x, 0, patterns=fit_patterns(model, [x]))
    assert_close(attribution.sum(1), model(x)[:, 0].detach(), rtol=1e-4, atol=1e-5)


def by_hand(patches: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, rectified: bool) -> torch.Tensor:
    """Patterns ``(units, inputs)`` from all the patches ``(n, inputs)`` that a unit reads, centred within y > 0."""
    patterns = torch.zeros_like(weight)
    for unit, (w, b) in enumerate(zip(weight, bias, strict=True)):
        y = patches @ w + b
        taken = y > 0 if rectified else torch.ones_like(y, dtype=torch.bool)
        x, y = patches[taken], y[taken]
        covariance = (x * y[:, None]).mean(0) - x.mean(0) * y.mean()
        patterns[unit] = covariance / (w @ covariance)
    return patterns


@pytest.mark.parametrize("options", [{}, {"padding": 1, "stride": 2}, {"dilation": 2}])
def test_convolution_patterns_equal_those_of_unfolded_patches(options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, **options), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)).double()
    x = torch.rand(60, 2, 8, 8, dtype=torch.float64)
    model(x)
    patterns = fit_patterns(model, [(part, None) for part in x.split(25)])
    conv, dense = model[0], model[3]
    patches = F.unfold(x, 3, **options).transpose(1, 2).flatten(0, 1)
    expected = by_hand(patches, conv.weight.detach().flatten(1), conv.bias.detach(), rectified=True)
    assert_close(patterns["0"].flatten(1), expected, rtol=1e-5, atol=1e-6)
    hidden = model[:3](x).detach()
    expected = by_hand(hidden, dense.weight.detach(), dense.bias.detach(), rectified=False)
    assert_close(patterns["3"], expected, rtol=1e-5, atol=1e-6)


def test_batch_norm_is_folded_into_the_layer_before_it():
    torch.manual_seed(0)
    conv, norm, tail = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    nn.init.normal_(norm.weight)
    merged = torch.nn.utils.fuse_conv_bn_eval(conv.eval(), norm.eval())
    x = torch.rand(50, 2, 8, 8)
    one, two = fit_patterns(nn.Sequential(conv, norm, tail), [x]), fit_patterns(nn.Sequential(merged, tail), [x])
    assert_close(one["0"], two["0"], rtol=1e-3, atol=1e-4)
    ours = pattern_attribution(nn.Sequential(conv, norm, tail), x, 0, patterns=one)
    theirs = pattern_attribution(nn.Sequential(merged, tail), x, 0, patterns={"0": one["0"], "1.2": one["2.2"]})
    assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_unit_that_is_never_positive_has_the_pattern_zero():
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].bias[:] = torch.tensor([-100.0, 1.0])
    patterns = fit_patterns(model, [torch.rand(50, 3)])
    assert_close(patterns["0"][0], torch.zeros(3))
    assert patterns["0"][1].abs().max() > 0
    assert all(torch.isfinite(p).all() for p in patterns.values())


def test_a_unit_that_never_varies_has_the_pattern_zero():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    patterns = fit_patterns(model, torch.full((1000, 3), 0.1).split(100))  # sums that float32 rounds
    assert_close(patterns["0"], torch.zeros(4, 3))


def test_the_batches_may_be_cut_anywhere():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double(), torch.rand(90, 5).double()
    one, many = fit_patterns(model, [x]), fit_patterns(model, x.split(7))
    for name in one:
        assert_close(one[name], many[name])


def test_what_has_no_pattern_is_refused_by_name():
    x = torch.rand(4, 6)
    plain = nn.Sequential(nn.Linear(6, 3))
    with pytest.raises(ValueError, match="at least one batch"):
        fit_patterns(plain, [])
    with pytest.raises(ValueError, match=r"none of shape \(3, 6\) for the layer '0'"):
        pattern_net(plain, x, 0, patterns={})
    with pytest.raises(ValueError, match="none of shape"):
        pattern_net(plain, x, 0, patterns={"0": torch.zeros(3, 5)})
    weight = torch.rand(3, 6)
    with pytest.raises(UnsupportedModelError, match="named weights"):
        fit_patterns(lambda x: F.linear(x, weight), [x])
    with pytest.raises(UnsupportedModelError, match=r"named weights.* give the module itself"):
        fit_patterns(lambda x: plain(x), [x])
    gated = nn.Sequential(nn.Linear(6, 3), nn.Sigmoid())
    normed = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 3))
    for model, name in ((gated, "'sigmoid'"), (normed, "'native_batch_norm'")):
        patterns = fit_patterns(model, [x])
        with pytest.raises(UnsupportedModelError, match=name):
            pattern_net(model, x, 0, patterns=patterns)


def normed(features: int) -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(features).eval()
    norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2), norm.weight.data.normal_()
    return norm


class Two(nn.Module):
    """Two layers and two BatchNorms; ``forms`` says what a head reads of them."""

    def __init__(self, forms) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.forms = forms
        self.a, self.b, self.p, self.q = nn.Linear(5, 4), nn.Linear(5, 4), normed(4), normed(4)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.forms(self, x).flatten(1))


@pytest.mark.parametrize("join", [torch.cat, torch.stack])
def test_the_relu_behind_joined_layers_is_each_layers_own(join):
    ours = Two(lambda m, x: join([m.a(x), m.b(x)], 1).relu())
    theirs = Two(lambda m, x: join([m.a(x).relu(), m.b(x).relu()], 1))
    x = torch.randn(40, 5)
    assert_close(fit_patterns(ours, [x]), fit_patterns(theirs, [x]))


def test_the_relu_of_a_sum_of_layers_is_none_of_theirs():
    network, x = Two(lambda m, x: (m.a(x) + m.b(x)).relu().repeat(1, 2)).double(), torch.randn(40, 5).double()
    patterns = fit_patterns(network, [x])
    for name in "ab":
        layer = network.get_submodule(name)
        expected = by_hand(x, layer.weight.detach(), layer.bias.detach(), rectified=False)
        assert_close(patterns[name], expected)


@pytest.mark.parametrize(
    "forms",
    [
        lambda m, x: (lambda z: torch.cat([m.p(z).relu(), m.q(z).relu()], 1))(m.a(x)),
        lambda m, x: (lambda z: torch.cat([m.p(z).relu(), z.relu()], 1))(m.a(x)),
        lambda m, x: torch.cat([m.p(m.a(x)).relu(), m.q(m.a(x)).relu()], 1),
    ],
    ids=["two BatchNorms", "with and without", "called twice"],
)
def test_a_layer_that_is_read_in_two_forms_has_no_one_pattern(forms):
    network, x = Two(forms), torch.randn(40, 5)
    with pytest.raises(UnsupportedModelError, match="'a' is read with and without a BatchNorm"):
        fit_patterns(network, [x])
    patterns = {"a": network.a.weight.detach(), "head": network.head.weight.detach()}
    with pytest.raises(UnsupportedModelError, match="'a' is read with and without a BatchNorm"):
        pattern_net(network, x, 0, patterns=patterns)


def test_a_layer_may_be_called_twice_in_one_form():
    network, x = Two(lambda m, x: torch.cat([m.p(m.a(x)).relu(), m.p(m.a(-x)).relu()], 1)), torch.randn(40, 5)
    assert fit_patterns(network, [x])["a"].shape == (4, 5)


def test_layers_may_be_called_on_single_examples():
    torch.manual_seed(0)
    conv, dense, head = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(64, 5), nn.Linear(5, 3)

    class Net(nn.Module):
        def __init__(self, single: bool) -> None:
            super().__init__()
            self.single, self.conv, self.dense, self.head = single, conv, dense, head

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = x if self.single else [x]
            out = [self.head(self.dense(self.conv(row).relu().flatten(0 if self.single else 1)).relu()) for row in rows]
            return torch.stack(out) if self.single else out[0]

    x = torch.randn(6, 2, 4, 4)
    assert_close(fit_patterns(Net(True), [x]), fit_patterns(Net(False), [x]), rtol=1e-4, atol=1e-5)
