"""The identities on torchvision's families at float64, with BatchNorm statistics far from the identity."""

import copy
from collections.abc import Callable

import captum.attr
import naive
import pytest
import torch
import zennit.attribution
import zennit.composites
import zennit.layer
import zennit.rules
import zennit.torchvision
import zennit.types
from naive import always, is_dense, is_input
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.testing import assert_close
from torchvision import models

from interp_lab import UnsupportedModelError, gradient_x_input
from interp_lab.explain_decision.deconvnet_and_guided_backprop import deconvnet, guided_backprop
from interp_lab.explain_decision.deep_taylor import deep_taylor
from interp_lab.explain_decision.deeplift import deeplift
from interp_lab.explain_decision.lrp import lrp
from interp_lab.explain_decision.rectgrad import rectgrad

pytestmark = pytest.mark.usefixtures("double")


def vgg11() -> nn.Module:
    """With a head of 64 units in place of 4096: the same operations in a hundredth of the memory."""
    features = models.vgg.make_layers(models.vgg.cfgs["A"], batch_norm=False)
    head = (nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(2048, 64), nn.ReLU(True), nn.Dropout(), nn.Linear(64, 10))
    return nn.Sequential(features, *head)


def alexnet() -> nn.Module:
    return nn.Sequential(models.alexnet().features, nn.Flatten(), nn.Linear(256, 64), nn.ReLU(True), nn.Linear(64, 10))


RELU: dict[str, Callable[[], nn.Module]] = {
    "squeezenet1_1": lambda: models.squeezenet1_1(num_classes=10),
    "alexnet": alexnet,
    "vgg11": vgg11,
    "resnet18": lambda: models.resnet18(num_classes=10),
    "resnet50": lambda: models.resnet50(num_classes=10),
    "densenet121": lambda: models.densenet121(num_classes=10),
    "googlenet": lambda: models.googlenet(num_classes=10, aux_logits=False, init_weights=False),
    "inception_v3": lambda: models.inception_v3(num_classes=10, aux_logits=False, init_weights=False),
    "shufflenet_v2": lambda: models.shufflenet_v2_x0_5(num_classes=10),
    "mnasnet": lambda: models.mnasnet0_5(num_classes=10),
    "regnet_x": lambda: models.regnet_x_400mf(num_classes=10),
}
OTHERS: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v2": lambda: models.mobilenet_v2(num_classes=10),
    "mobilenet_v3": lambda: models.mobilenet_v3_small(num_classes=10),
    "regnet_y": lambda: models.regnet_y_400mf(num_classes=10),
    "efficientnet_b0": lambda: models.efficientnet_b0(num_classes=10),
    "efficientnet_v2": lambda: models.efficientnet_v2_s(num_classes=10),
}
# With blocks of a few channels: the same operations in a thousandth of the memory.
TRANSFORMERS: dict[str, Callable[[], nn.Module]] = {
    "vit": lambda: models.VisionTransformer(64, 16, 2, 2, 16, 32, num_classes=10),
    "swin": lambda: models.SwinTransformer([4, 4], 8, [2, 2], [2, 2], [4, 4], num_classes=10),
    "swin_v2": lambda: models.SwinTransformer(
        [4, 4], 8, [2, 2], [2, 2], [4, 4], num_classes=10, block=models.swin_transformer.SwinTransformerBlockV2,
        downsample_layer=models.swin_transformer.PatchMergingV2,
    ),
    "maxvit": lambda: models.MaxVit((64, 64), 8, 4, [8, 16], [1, 1], 4, 0.0, num_classes=10),
    "convnext": lambda: models.ConvNeXt(
        [models.convnext.CNBlockConfig(8, 16, 1), models.convnext.CNBlockConfig(16, None, 1)], num_classes=10
    ),
}  # fmt: skip
QUICK = ("squeezenet1_1", "resnet18", "mobilenet_v2", *TRANSFORMERS)


class Family:
    """A network, images that it takes, and the network without biases."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        self.name = name
        self.images = torch.randn(6, 3, *[80 if name == "inception_v3" else 64] * 2)
        self.model = naive.randomise_batch_norm((RELU | OTHERS | TRANSFORMERS)[name]().double(), self.images)
        for module in self.model.modules():
            if hasattr(module, "layer_scale"):
                module.layer_scale.data.fill_(0.5)  # else the branch adds nothing
        if name == "vit":
            nn.init.normal_(self.model.heads.head.weight)
        self.bias_free = naive.without_bias(copy.deepcopy(self.model))


@pytest.fixture(scope="module")
def family(request):
    """Made once for all the tests of a family, which pytest runs one after the other."""
    torch.set_default_dtype(torch.float64)
    made = Family(request.param)
    torch.set_default_dtype(torch.float32)
    return made


def families(*names: str):
    values = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.exhaustive) for name in names]
    return pytest.mark.parametrize("family", values, indirect=True)


def relative(ours: Tensor, theirs: Tensor) -> float:
    assert theirs.norm() > 0
    return ((ours - theirs).norm() / theirs.norm()).item()


@families(*RELU)
def test_lrp_epsilon_to_zero_is_gradient_times_input(family):
    x = family.images[:1]
    ours = lrp(family.model, x, rule="epsilon", epsilon=1e-15)
    assert relative(ours, gradient_x_input(family.model, x)) < 1e-9


@families(*RELU)
@pytest.mark.parametrize("method", [guided_backprop, deconvnet])
def test_relu_rules_equal_a_network_with_that_backward_pass_written_in(family, method):
    x = family.images[:1]
    target = family.model(x).argmax(1).item()
    with naive.every_relu(method.__name__):
        expected = naive.gradient(family.model, x, target)
    assert relative(method(family.model, x), expected) < 1e-9
    assert relative(naive.gradient(family.model, x, target), expected) > 0.1


@families(*RELU, *OTHERS, *TRANSFORMERS)
def test_deeplift_sums_to_the_difference(family):
    x, baseline = family.images[:2], 0.1 * family.images[2:3]
    relevance = deeplift(family.model, x, baseline=baseline)
    with torch.no_grad():
        logits = family.model(x)
        target = logits.argmax(1, keepdim=True)
        difference = (logits - family.model(baseline)).gather(1, target)[:, 0]
    assert (difference.abs() > 1e-4 * logits.abs().max()).all()  # the signal lives
    assert_close(relevance.sum((1, 2, 3)), difference, rtol=1e-9, atol=0)


# A unit without a negative contribution keeps beta of its relevance by alpha-beta: rare where many inputs meet, not rare
# where a depthwise convolution has a linear output.
WIDE = [name for name in RELU if name not in ("shufflenet_v2", "mnasnet", "regnet_x")]


@families(*RELU, *OTHERS)
@pytest.mark.parametrize("rule", ["epsilon", "gamma", "z_plus", "composite", "alpha2_beta1"])
def test_relevance_is_conserved_without_biases(family, rule):
    if rule == "alpha2_beta1" and (family.name not in WIDE or family.name == "squeezenet1_1"):
        pytest.skip("units without a contribution of the sign that this rule shares by")
    x = family.images[:1]
    logit, target = family.bias_free(x).max(1)
    assert (logit > 0).all()
    relevance = lrp(family.bias_free, x, target, rule=rule, epsilon=0)
    assert_close(relevance.sum((1, 2, 3)), logit.detach(), rtol=1e-9, atol=0)


@families("regnet_y", "efficientnet_b0")
def test_the_map_of_a_gated_network_is_of_the_size_of_its_logit(family):
    x = family.images[:1]
    logit = family.model(x).max(1).values.abs()
    assert lrp(family.model, x, rule="epsilon").abs().sum() < 1000 * logit


@families("mobilenet_v2", "mobilenet_v3", "regnet_y", "shufflenet_v2", "mnasnet", "regnet_x")
def test_deep_taylor_is_not_negative_and_conserves_without_biases(family):
    x = family.images[:1]
    relevance = deep_taylor(family.bias_free, x)
    assert (relevance >= 0).all()
    assert_close(relevance.sum(), family.bias_free(x).max().detach(), rtol=1e-5, atol=0)
    assert (deep_taylor(family.model, x) >= 0).all()


@families("squeezenet1_1", "vgg11", "resnet18", "densenet121")
def test_deep_taylor_is_not_negative(family):
    x = family.images[:1]
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    for box in ({}, {"low": low, "high": high}):
        relevance = deep_taylor(family.model, x, **box)
        assert relevance.min() >= -1e-12 * relevance.max()
        assert relevance.max() > 0


# Captum and Zennit, where they are right: every operation of these three is a module, none is used in two ways.


@families("squeezenet1_1", "vgg11", "resnet18")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equal_to_captum(family, dtype):
    model, x = copy.deepcopy(family.model).to(dtype), family.images[:1].to(dtype)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    target = model(x).argmax(1)
    for method, theirs in ((guided_backprop, captum.attr.GuidedBackprop), (deconvnet, captum.attr.Deconvolution)):
        with pytest.warns(UserWarning, match="backward hooks"):
            expected = theirs(model).attribute(x.clone(), target=target).detach()
        assert relative(method(model, x), expected) < tolerance
    if family.name != "resnet18":  # its residual sums and BatchNorm have no rule there
        if family.name == "vgg11":
            model = WithoutFlatten(model)
        expected = captum.attr.LRP(model).attribute(x.clone(), target=target).detach()
        assert relative(lrp(model, x, rule="epsilon", epsilon=1e-9), expected) < max(tolerance, 1e-5)


class WithoutFlatten(nn.Module):
    """The same network with a functional flatten, since Captum has no rule for the module."""

    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        index = next(k for k, module in enumerate(model) if isinstance(module, nn.Flatten))
        self.below, self.above = model[:index], model[index + 1 :]

    def forward(self, x: Tensor) -> Tensor:
        return self.above(self.below(x).flatten(1))


@families("squeezenet1_1", "vgg11", "resnet18")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("rule", ["composite", "alpha2_beta1", "gamma"])
def test_equal_to_zennit(family, dtype, rule):
    model, x = copy.deepcopy(family.model).to(dtype), family.images[:1].to(dtype)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-20  # Zennit adds it once more after merging
    e, proportional = 1e-6, zennit.rules.Norm(stabilizer=1e-20)
    pools = [(zennit.types.AvgPool, proportional), (zennit.layer.Sum, proportional)]
    canonizers = [zennit.torchvision.ResNetCanonizer()] if family.name == "resnet18" else None
    low, high = -6.0, 6.0
    rules, bounds, composite = {
        "composite": ("composite", {}, zennit.composites.EpsilonPlus(e, e, pools, canonizers=canonizers)),
        "alpha2_beta1": (
            [(is_dense, "epsilon"), (always, "alpha2_beta1")],
            {},
            zennit.composites.EpsilonAlpha2Beta1(e, e, pools, canonizers=canonizers),
        ),
        "gamma": (
            [(is_input, "z_b"), (is_dense, "epsilon"), (always, "gamma")],
            {"low": low, "high": high},
            zennit.composites.EpsilonGammaBox(low, high, e, 0.25, e, pools, canonizers=canonizers),
        ),
    }[rule]
    target = model(x).argmax(1)
    with zennit.attribution.Gradient(model, composite) as attribute:
        expected = attribute(x.clone(), lambda output: output * one_hot(target, output.shape[1]))[1].detach()
    ours = lrp(model, x, target, rule=rules, epsilon=e, **bounds)
    assert relative(ours, expected) < (1e-9 if dtype == torch.float64 else 1e-4)


# Refusals.


@pytest.mark.parametrize("method", [deconvnet, guided_backprop, rectgrad, deep_taylor])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_and_layer_norm_are_refused_by_name(method, name):
    named = "operation '(mm|bmm|addmm|gelu|softmax|native_layer_norm|pow|scaled_dot_product.*)'|'w_squared'"
    with pytest.raises(UnsupportedModelError, match=named):
        method(TRANSFORMERS[name]().double(), torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize("method", [deconvnet, guided_backprop, rectgrad])
@families("mobilenet_v2", "mobilenet_v3", "regnet_y", "efficientnet_b0")
def test_relu_rules_refuse_other_activations_by_name(family, method):
    activations = {"mobilenet_v2": "hardtanh", "mobilenet_v3": "hard", "regnet_y": "sigmoid", "efficientnet_b0": "s"}
    with pytest.raises(UnsupportedModelError, match=rf"operation '{activations[family.name]}|operation 'mul'"):
        method(family.model, family.images[:1])
