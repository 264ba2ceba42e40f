"""No silent failure: an operation is seen however it is called, and what cannot be seen is refused by name."""

import copy
import threading
import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.testing import assert_close

from interp_lab import UnsupportedModelError, gradient_x_input
from interp_lab.explain_decision.deconvnet_and_guided_backprop import deconvnet, guided_backprop
from interp_lab.explain_decision.deep_taylor import deep_taylor
from interp_lab.explain_decision.deeplift import deeplift
from interp_lab.explain_decision.lrp import lrp
from interp_lab.explain_decision.rectgrad import rectgrad

pytestmark = pytest.mark.usefixtures("double")

METHODS = {
    "deconvnet": deconvnet,
    "guided_backprop": guided_backprop,
    "rectgrad": partial(rectgrad, q=0.7),
    "lrp epsilon": partial(lrp, rule="epsilon"),
    "lrp composite": lrp,
    "lrp alpha2_beta1": partial(lrp, rule="alpha2_beta1"),
    "deep_taylor": deep_taylor,
    "deeplift": deeplift,
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
relu_rules = pytest.mark.parametrize("method", [deconvnet, guided_backprop, METHODS["rectgrad"]])
X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class MyReLU(nn.ReLU):
    pass


class Layers(nn.Module):
    """The same weights for every way of calling them."""

    def __init__(self, body) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, 4)
        self.relu, self.relu_, self.mine, self.dropout = nn.ReLU(), nn.ReLU(inplace=True), MyReLU(), nn.Dropout(0.5)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self, x).mean((2, 3)))


def two_layers(relu):
    return lambda m, x: relu(m, m.second(relu(m, m.first(x))))


plain = two_layers(lambda m, z: F.relu(z))


def return_value_unused(m, x):
    z = m.first(x)
    F.relu_(z)
    z = m.second(z)
    z.relu_()
    return z


def on_a_view(m, z):
    F.relu(z.flatten(2), inplace=True)
    return z


def x_in_place(m, x):
    x.mul_(2).div_(2)
    return plain(m, x)


WAYS = {
    "F.relu in place": two_layers(lambda m, z: F.relu(z, inplace=True)),
    "F.relu in place, positional": two_layers(lambda m, z: F.relu(z, True)),
    "keyword": two_layers(lambda m, z: F.relu(input=z)),
    "F.relu_": two_layers(lambda m, z: F.relu_(z)),
    "torch.relu": two_layers(lambda m, z: torch.relu(z)),
    "torch.relu_": two_layers(lambda m, z: torch.relu_(z)),
    "method": two_layers(lambda m, z: z.relu()),
    "method in place": two_layers(lambda m, z: z.relu_()),
    "module used twice": two_layers(lambda m, z: m.relu(z)),
    "module in place used twice": two_layers(lambda m, z: m.relu_(z)),
    "subclass": two_layers(lambda m, z: m.mine(z)),
    "made while running": two_layers(lambda m, z: nn.ReLU()(z)),
    "return value unused": return_value_unused,
    "in place on a view": two_layers(on_a_view),
    "x changed in place": x_in_place,
    "dropout in eval mode": two_layers(lambda m, z: m.dropout(F.dropout2d(F.relu(z), 0.5, m.training))),
    "functional layers": lambda m, x: F.relu(
        F.conv2d(
            F.relu(F.conv2d(x, m.first.weight, m.first.bias, 1, 1)), m.second.weight, m.second.bias, padding="same"
        )
    ),
}


@every_method
@pytest.mark.parametrize("body", WAYS.values(), ids=WAYS.keys())
def test_an_operation_is_seen_however_it_is_called(method, body):
    x = X.clone()
    assert_close(method(Layers(body), x, 1), method(Layers(plain), X, 1), rtol=1e-9, atol=1e-14)
    assert torch.equal(x, X)  # the caller's, also where the model works in place


def residual(m, x):
    h = F.relu(m.first(x))
    return F.relu(m.second(h) + h)


def residual_in_place(m, x):
    h = F.relu(m.first(x))
    z = m.second(h)
    z += h
    return F.relu_(z)


def two_branches(m, x):
    h = F.relu(m.first(x))
    return torch.cat([h, h], 1)[:, ::2] + F.relu(torch.cat([m.second(h)[:, :3], m.second(h)[:, 3:]], 1))


def two_branches_in_place(m, x):
    h = m.relu(m.first(x))
    return h.repeat(1, 2, 1, 1)[:, ::2].clone().add_(m.relu(m.second(h)))


def used_twice(m, x):
    return m.second(F.relu(m.second(F.relu(m.first(x))))).relu()


def used_twice_copied(m, x):
    return copy.deepcopy(m.second)(F.relu(m.second(F.relu(m.first(x))))).relu()


def in_a_part(m, x):
    z = m.first(x)
    z[:, :4].relu_()
    z[:, 4:] += z[:, :4]
    return F.relu(m.second(z))


def part_and_rest(m, x):
    z = m.first(x)
    part = F.relu(z[:, :4])
    return F.relu(m.second(torch.cat([part, z[:, 4:] + part], 1)))


SAME = {
    "change of a part": (in_a_part, part_and_rest),
    "residual": (residual_in_place, residual),
    "concatenation": (two_branches_in_place, two_branches),
    "layer used twice": (used_twice, used_twice_copied),
}


@every_method
@pytest.mark.parametrize(("body", "other"), SAME.values(), ids=SAME.keys())
def test_sums_concatenations_and_reuse_are_seen(method, body, other):
    assert_close(method(Layers(body), X, 1), method(Layers(other), X, 1), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("body", [body for body, _ in SAME.values()], ids=SAME.keys())
def test_their_identities_hold(body):
    model = Layers(body)
    epsilon = lrp(model, X, 1, rule="epsilon", epsilon=1e-15)
    assert_close(epsilon, gradient_x_input(model, X, 1), rtol=1e-8, atol=1e-12)
    difference = (model(X) - model(torch.zeros_like(X)))[:, 1].detach()
    assert_close(deeplift(model, X, 1).sum((1, 2, 3)), difference, rtol=1e-9, atol=1e-12)


class UserReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return z.clamp(min=0)

    @staticmethod
    def backward(ctx, g: Tensor) -> Tensor:
        return g * (ctx.saved_tensors[0] > 0)


def after_relu(function):
    return lambda m, x: F.relu(m.second(function(F.relu(m.first(x)))))


def set_negative_to_zero(z: Tensor) -> Tensor:
    z = z - 0.5
    z[z < 0] = 0
    return z


def under_no_grad(z: Tensor) -> Tensor:
    with torch.no_grad():
        gate = torch.sigmoid(z)
    return z * gate


def checkpointed(reentrant: bool):
    return lambda z: torch.utils.checkpoint.checkpoint(F.relu, z, use_reentrant=reentrant)


ATTENTION = nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
LSTM = nn.LSTM(8, 8, batch_first=True, dtype=torch.float64)
ENCODER = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True, dtype=torch.float64).eval()


def on_sequence(module):
    def function(z: Tensor) -> Tensor:
        sequence = z.flatten(2).transpose(1, 2)
        out = module(sequence, sequence, sequence) if module is ATTENTION else module(sequence)
        return (out[0] if isinstance(out, tuple) else out).transpose(1, 2).view_as(z)

    return function


# LRP and DeepLIFT have rules for them.
REFUSED_BY_OTHERS = {
    "softmax": (after_relu(lambda z: F.softmax(z, 1)), "softmax"),
    "softmax on the logits": (lambda m, x: plain(m, x).softmax(1), "softmax"),
    "attention": (after_relu(on_sequence(ATTENTION)), "mm'"),
    "fused attention": (after_relu(lambda z: F.scaled_dot_product_attention(z, z, z)), "bmm|scaled_dot_product"),
    "transformer layer": (after_relu(on_sequence(ENCODER)), "mm|scaled_dot_product|layer_norm"),
    "layer norm": (after_relu(lambda z: F.layer_norm(z, z.shape[1:])), "native_layer_norm"),
    "group norm": (after_relu(lambda z: F.group_norm(z, 2)), "native_group_norm"),
    "instance norm": (after_relu(lambda z: F.instance_norm(z)), "'instance_norm'"),
    "local response norm": (after_relu(lambda z: F.local_response_norm(z, 2)), "'mul'|'div'|'pow'"),
    "lp pooling": (after_relu(lambda z: F.lp_pool2d(z, 2, 1)), "'pow'"),
    "division": (after_relu(lambda z: z / (1 + z.sum(1, keepdim=True))), "'div'"),
    "division of a constant": (after_relu(lambda z: torch.ones_like(z) / (1 + z)), "'div'"),
}
REFUSED = {
    "batch norm": (after_relu(lambda z: F.batch_norm(z, None, None, training=True)), "statistics of the batch"),
    "user's function": (after_relu(UserReLU.apply), "'UserReLU'"),
    "where": (after_relu(lambda z: torch.where(z > 0.5, z, 0)), "where"),
    "mask": (after_relu(lambda z: z * (z > 0.5)), "'mul' uses a value that 'gt' computes from x without a gradient"),
    "masked_fill": (after_relu(lambda z: z.masked_fill(z < 0.5, 0)), "'masked_fill' uses a value that 'lt'"),
    "detached gate": (after_relu(lambda z: z * torch.sigmoid(z.detach())), "'mul' uses a value that 'detach'"),
    "gate under no_grad": (after_relu(under_no_grad), "'mul' uses a value that 'sigmoid'"),
    "index from x": (after_relu(lambda z: z.gather(2, z.argsort(2))), "'gather' uses a value that 'argsort'"),
    "assignment by mask": (after_relu(set_negative_to_zero), "index_put|'__setitem__'"),
    "unpooling": (after_relu(lambda z: F.max_unpool2d(*F.max_pool2d(z, 2, return_indices=True), 2)), "max_unpool2"),
    "weight from x": (
        lambda m, x: F.relu(F.conv2d(F.relu(m.first(x)), m.second.weight * x.mean())),
        "convolution|depends on the other",
    ),
    "dropout left on": (after_relu(lambda z: F.dropout(z, 0.5, True)), "'dropout' is active in eval mode"),
    "reentrant checkpoint": (after_relu(checkpointed(True)), "checkpoint"),
}


@every_method
@pytest.mark.parametrize(("body", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_has_no_rule_is_refused_by_name(method, body, message):
    model = Layers(body)
    with pytest.raises(UnsupportedModelError, match=message):
        method(model, X, 1)
    assert not any(module._forward_hooks for module in model.modules())


OTHERS = ("deconvnet", "guided_backprop", "rectgrad", "deep_taylor")


@pytest.mark.parametrize("method", [METHODS[name] for name in OTHERS], ids=OTHERS)
@pytest.mark.parametrize(("body", "message"), REFUSED_BY_OTHERS.values(), ids=REFUSED_BY_OTHERS.keys())
def test_what_only_lrp_and_deeplift_have_rules_for_is_refused_by_name(method, body, message):
    with pytest.raises(UnsupportedModelError, match=message):
        method(Layers(body), X, 1)


@pytest.mark.parametrize("body", [body for body, _ in REFUSED_BY_OTHERS.values()], ids=REFUSED_BY_OTHERS.keys())
def test_lrp_and_deeplift_take_it(body):
    model, x0 = Layers(body), X.flip(0) / 2
    difference = (model(X) - model(x0))[:, 1].detach()
    assert_close(deeplift(model, X, 1, baseline=x0).sum((1, 2, 3)), difference, rtol=1e-9, atol=1e-12)
    for p in (model.first.bias, model.second.bias, model.head.bias):
        p.data.zero_()
    relevance, balance = lrp(model, X, 1, rule="epsilon", epsilon=0, balance=True)
    assert relevance.abs().max() > 0
    constants = ("transformer layer", "attention", "division of a constant")
    if body not in [REFUSED_BY_OTHERS[name][0] for name in constants]:
        kept = relevance.sum((1, 2, 3)) + balance.softmax + balance.lost
        assert_close(kept, model(X)[:, 1].detach(), rtol=1e-9, atol=1e-12)


REFUSED_BY_RELU_RULES = {
    "LSTM": (after_relu(on_sequence(LSTM)), "'tanh'|'sigmoid'"),
    "power": (after_relu(lambda z: z**2), "'pow'"),
}


@pytest.mark.parametrize("method", [METHODS[name] for name in ("deconvnet", "guided_backprop", "rectgrad")])
@pytest.mark.parametrize(("body", "message"), REFUSED_BY_RELU_RULES.values(), ids=REFUSED_BY_RELU_RULES.keys())
def test_relu_rules_refuse_other_nonlinearities_by_name(method, body, message):
    with pytest.raises(UnsupportedModelError, match=message):
        method(Layers(body), X)


@every_method
def test_a_model_that_is_run_again_in_the_backward_pass_is_refused(method):
    with pytest.raises(ValueError, match=r"no rule for torch.utils.checkpoint"):
        method(Layers(after_relu(checkpointed(False))), X, 1)


@every_method
def test_a_model_that_autograd_cannot_differentiate_is_refused(method):
    def body(m, x):
        h = F.relu(m.first(x))
        z = m.second(h)
        h += 1  # after second has read it
        return F.relu(z + h)

    with pytest.raises(UnsupportedModelError, match=r"in place|inplace"):
        method(Layers(body), X, 1)


@relu_rules
def test_the_message_names_the_module(method):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(144, 3))
    with pytest.raises(UnsupportedModelError, match=r"'native_group_norm' \(module '2'\)"):
        method(model, X)


def sequential() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 6, 2), nn.ReLU(), nn.Flatten(), nn.Linear(24, 4)
    ).eval()


@every_method
@pytest.mark.parametrize(
    "compile", [torch.jit.script, partial(torch.jit.trace, example_inputs=X)], ids=["script", "trace"]
)
def test_scripted_models_and_parts_are_refused(method, compile):
    model = sequential()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        scripted = compile(model)
        part = compile(model[:3])
    for compiled in (scripted, nn.Sequential(part, *model[3:])):
        with pytest.raises(UnsupportedModelError, match=r"'(relu|convolution|cpp_function)'|to read x itself"):
            method(compiled, X, 1)


@pytest.mark.exhaustive
@every_method
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_models_are_right_or_refused(method, backend):
    model = sequential()
    torch._dynamo.reset()
    try:
        ours = method(torch.compile(copy.deepcopy(model), backend=backend), X, 1)
    except UnsupportedModelError as error:
        assert "no rule for the operation" in str(error)  # noqa: PT017
    else:
        assert_close(ours, method(model, X, 1), rtol=1e-9, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("method", [lrp, deeplift])
def test_a_compiled_model_is_right_or_refused(method):
    """Of all methods and backends, which take long, two that replace different functions."""
    test_compiled_models_are_right_or_refused(method, "aot_eager")


@every_method
def test_data_parallel_models_are_right(method):
    device = "cuda" if torch.cuda.is_available() else "cpu"  # where there is a GPU, it wants its model there
    model, x = sequential().to(device), X.to(device)
    assert_close(method(nn.DataParallel(model), x, 1), method(model, x, 1), rtol=0, atol=0)


@every_method
def test_channels_last_changes_nothing(method):
    model = Layers(residual_in_place)
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    x = X.to(memory_format=torch.channels_last)
    assert_close(method(other, x, 1), method(model, X, 1), rtol=1e-9, atol=1e-13)


@every_method
def test_weights_with_a_parametrization_and_frozen_weights_change_nothing(method):
    model = sequential()
    expected = method(model, X, 1)
    assert_close(method(copy.deepcopy(model).requires_grad_(False), X, 1), expected, rtol=0, atol=0)
    nn.utils.parametrizations.weight_norm(model[3])
    assert_close(method(model, X, 1), expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 4e-3), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", [name for name in METHODS if name != "rectgrad"])
def test_low_precision_gives_the_float64_map_of_the_same_weights(name, dtype, tolerance):
    # A few units of rounding (2^-8, 2^-11) per layer. RectGrad's threshold makes rounding choose other units.
    model, x = sequential().to(dtype), X.to(dtype)
    target = sequential()(X).argmax(1)
    ours = METHODS[name](model, x, target)
    expected = METHODS[name](model.double(), x.double(), target)
    assert ours.dtype == dtype
    assert (ours.double() - expected).norm() <= tolerance * expected.norm()


@every_method
def test_a_backward_signal_that_overflows_is_refused(method):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).half()
    for layer in (model[0], model[2], model[4]):  # the logit is about 1300, its derivative 4e8
        layer.weight.data.uniform_(290, 310)
        layer.bias.data.zero_()
    with pytest.raises(UnsupportedModelError, match=r"overflows torch.float16"):
        method(model, torch.full((1, 3), 1e-6, dtype=torch.float16), 0)
    with pytest.raises(UnsupportedModelError, match=r"overflows torch.float16"):
        method(model, torch.full((1, 3), 1e3, dtype=torch.float16), 0)


@every_method
def test_threads_do_not_disturb_each_other(method):
    models = [Layers(residual_in_place), sequential()]
    alone = [method(model, X, 1) for model in models]
    together: dict[int, Tensor] = {}

    def work(k: int) -> None:
        for _ in range(5):
            together[k] = method(models[k], X, 1)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(2):
        assert_close(together[k], alone[k], rtol=0, atol=0)


@every_method
def test_constants_shaped_like_x_and_selections_by_constants_are_no_obstacle(method):
    def body(m, x):
        scale = torch.ones(1).type_as(x).expand_as(x) + torch.zeros_like(x) + x.new_zeros(1)
        return plain(m, x * scale)[:, torch.arange(8) >= 0].masked_fill(torch.zeros(8, 8, dtype=torch.bool), 1.0)

    assert_close(method(Layers(body), X, 1), method(Layers(plain), X, 1), rtol=1e-9, atol=1e-14)


@every_method
@pytest.mark.parametrize("end", [nn.Softmax(1), nn.LogSoftmax(1)])
def test_a_final_softmax_is_refused_with_the_remedy(method, end):
    model = nn.Sequential(nn.Flatten(), nn.Linear(X[0].numel(), 6), nn.ReLU(), nn.Linear(6, 4), end)
    with pytest.raises(UnsupportedModelError, match=r"ends in a '.*softmax' \(module '4'\): give the logits"):
        method(model, X)


class OwnReLU(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return UserReLU.apply(z)


INNER = {
    "group norm": (nn.GroupNorm(2, 8), "native_group_norm"),
    "instance norm": (nn.InstanceNorm2d(8), "instance_norm"),
    "user's function": (OwnReLU(), "UserReLU"),
}


@relu_rules
@pytest.mark.parametrize(("module", "name"), INNER.values(), ids=INNER.keys())
def test_the_message_names_the_innermost_module(method, module, name):
    inner = nn.Sequential(nn.Identity(), module.double(), nn.Dropout())
    model = nn.Sequential(nn.Conv2d(X.shape[1], 8, 3), nn.ReLU(), inner, nn.Flatten(), nn.LazyLinear(3))
    model(X)
    with pytest.raises(UnsupportedModelError, match=rf"'{name}' \(module '2.1'\)"):
        method(model, X)


def test_attention_is_refused_by_the_name_of_its_module():
    model = nn.Sequential(
        nn.Flatten(2), nn.TransformerEncoderLayer(64, 2, 8, batch_first=True), nn.Flatten(), nn.LazyLinear(3)
    )
    model(X)
    with pytest.raises(UnsupportedModelError, match=r"module '1.self_attn'"):
        guided_backprop(model, X)


@every_method
def test_a_users_function_is_refused_by_the_name_of_its_module(method):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Sequential(nn.Identity(), OwnReLU()), nn.Flatten(), nn.Linear(144, 3)
    )
    with pytest.raises(UnsupportedModelError, match=r"'UserReLU' \(module '2.1'\)"):
        method(model, X)
