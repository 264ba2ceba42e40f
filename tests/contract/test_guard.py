"""One guard for every call: answers that do not change when nothing changed, or a refusal that says why."""

import copy
import itertools
import random
import threading
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

import interp_lab as il
from interp_lab.contract import explaining, rows_per_pass

X = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(1))
every_method = pytest.mark.parametrize("method", il.METHODS.values(), ids=il.METHODS.keys())
# All that takes a model and no layer of it, each as a function of (model, x) alone.
FUNCTIONS = {
    **{name: partial(lambda method, model, x: method(model, x, 0), method) for name, method in il.METHODS.items()},
    "selectivity": lambda model, x: il.selectivity(model, x, x, 0, steps=4).curve,
    "selectivity, probability": lambda model, x: il.selectivity(model, x, x, 0, steps=4, score="probability").curve,
    "class_sensitivity": lambda model, x: il.class_sensitivity(il.saliency, model, x, 0, 1).spearman,
    "attack_attribution": lambda model, x: il.attack_attribution(model, x, 0, k=3, steps=2),
    "surrogate_linear": lambda model, x: il.surrogate_linear(model, x, ridge=0.1).weight,
    "surrogate_tree": lambda model, x: il.surrogate_tree(model, x)(x),
    "surrogate_local": lambda model, x: il.surrogate_local(model, x[:1], 0, segments=3, n=20).effects,
    "fidelity": lambda model, x: torch.tensor(il.fidelity(lambda z: z.flatten(1)[:, :3], model, x)),
    "maximize_activation": lambda model, x: il.maximize_activation(model, 0, x, steps=2).trace,
}
LABELS = torch.tensor([0, 1, 2, 0])
every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(64, 3),
    )
    net = nn.Sequential(*layers)
    net[1].running_mean.normal_()
    return net


class Holder:
    def __init__(self, net: nn.Module) -> None:
        self.parts = [net]

    def __call__(self, x: Tensor) -> Tensor:
        return self.parts[0](x)

    def answer(self, x: Tensor) -> Tensor:
        return self.parts[0](x)


class Hidden(nn.Module):
    """Holds its network where `modules()` does not find it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.parts = [net]

    def forward(self, x: Tensor) -> Tensor:
        return self.parts[0](x)


HELD: list[nn.Module] = []  # what a function reaches as a global


def held(net: nn.Module):
    HELD[:] = [net]
    return lambda x: HELD[0].forward(x)


class Parts:
    """Calls its network by a method that no hook sees, and so the modules in it."""

    def __init__(self, net: nn.Module) -> None:
        self.parts = {"net": net}

    def __call__(self, x: Tensor) -> Tensor:
        for part in self.parts["net"]:
            x = part.forward(x)
        return x


FORMS = {
    "lambda": lambda net: lambda x: net(x),
    "forward": lambda net: net.forward,
    "partial": lambda net: partial(lambda model, x: model(x), net),
    "object": Holder,
    "bound method": lambda net: Holder(net).answer,
    "hidden in a module": Hidden,
    "a global, by its method": held,
    "a default argument": lambda net: lambda x, net=net: net.forward(x),
    "a closure in a closure": lambda net: (lambda f: lambda x: f(x))(lambda x: net.forward(x)),
    "an object, by methods": Parts,
    "partial of an object": lambda net: partial(Parts.__call__, Parts(net)),
}


@every_function
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_a_function_around_a_module_runs_it_in_eval_mode_and_leaves_it_as_it_was(function, form):
    net = network()
    expected = function(copy.deepcopy(net).eval(), X)
    net.train()[2].eval()
    state, modes = copy.deepcopy(net.state_dict()), [module.training for module in net.modules()]
    assert_close(function(form(net), X), expected, rtol=1e-4, atol=1e-6)
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


@every_method
def test_the_model_comes_back_after_an_error_in_its_midst(method):
    net = network().train()
    state = copy.deepcopy(net.state_dict())

    def model(x: Tensor) -> Tensor:
        net(x)
        raise RuntimeError("out of paper")

    with pytest.raises(ValueError, match="out of paper"):
        method(model, X, 0)
    assert all(module.training for module in net.modules())
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_another_thread_is_left_alone():
    other, entered, done = network().train(), threading.Event(), threading.Event()

    def model(x: Tensor) -> Tensor:
        entered.set()
        assert done.wait(10)
        return x.flatten(1)

    thread = threading.Thread(target=il.saliency, args=(model, X, 0))
    thread.start()
    assert entered.wait(10)
    other(X)
    assert all(module.training for module in other.modules())
    done.set()
    thread.join()


class Random(nn.Module):
    def __init__(self, draw) -> None:
        super().__init__()
        self.head, self.draw = nn.Linear(16, 3), draw

    def forward(self, x: Tensor) -> Tensor:
        return self.draw(self.head(F.relu(x.flatten(1))))


RANDOM = {
    "dropout left on": lambda z: F.dropout(z),
    "noise": lambda z: z + torch.randn_like(z),
    "gate": lambda z: z * torch.rand(len(z), 1).round(),
    "own generator": partial(lambda g, z: z + torch.rand(z.shape, generator=g), torch.Generator()),
    "numpy": lambda z: z * float(np.random.rand()),  # noqa: NPY002
    "python": lambda z: z * random.random(),
    "a generator of numpy's": partial(lambda g, z: z * g.random(), np.random.default_rng(0)),
    "a generator of Python's": partial(lambda g, z: z * g.random(), random.Random(0)),
    "a counter": partial(lambda c, z: z * next(c), itertools.count(1)),
    "fractional pooling": lambda z: F.fractional_max_pool2d(z.repeat(1, 6).view(-1, 1, 3, 6), 1, (1, 3)).flatten(1),
}


@every_function
@pytest.mark.parametrize("draw", RANDOM.values(), ids=RANDOM.keys())
def test_a_model_that_is_random_in_eval_mode_is_refused(function, draw):
    with pytest.raises(il.UnsupportedModelError, match=r"random|no feature maps|calls no convolution"):
        function(Random(draw), X)


@pytest.mark.parametrize("draw", RANDOM.values(), ids=RANDOM.keys())
def test_influence_refuses_a_random_model(draw):
    with pytest.raises(il.UnsupportedModelError, match=r"random|not symmetric"):
        il.influence(Random(draw), (X, LABELS), (X, LABELS), damping=5.0)


MIXING = {
    "batch norm": nn.BatchNorm1d(16, track_running_stats=False),
    "functional batch norm": lambda x: F.batch_norm(x, torch.zeros(16), torch.ones(16), training=True),
    "centred": lambda x: x - x.mean(0),
    "softmax over the batch": lambda x: x.softmax(0),
    "norm of the batch": lambda x: x / x.norm(),
    "attention over the batch": partial(lambda m, x: m(*[x[:, None]] * 3)[0][:, 0], nn.MultiheadAttention(16, 2)),
    "sorted": lambda x: x.sort(0).values,
    "divided by their number": lambda x: x / len(x),
    "centred, small": lambda x: 1e-3 * (x - x.mean(0)),
}


@pytest.mark.parametrize("function", [f for name, f in FUNCTIONS.items() if name != "surrogate_local"])
@pytest.mark.parametrize("mix", MIXING.values(), ids=MIXING.keys())
def test_rows_that_depend_on_their_batch_are_refused(function, mix):
    torch.manual_seed(0)
    head = nn.Linear(16, 3)

    # Methods that need a ReLU, a convolution or a rule may refuse for that reason.
    reasons = (
        "other rows|statistics of the batch|no rule|no ReLU|no convolution|to read x|reads x|overflow|uses a value|NaN"
    )
    with pytest.raises(ValueError, match=reasons):
        function(lambda x: head(mix(x.flatten(1))), X)


@pytest.mark.parametrize("norm", [MIXING["batch norm"], MIXING["functional batch norm"]])
def test_statistics_of_the_batch_are_refused_of_a_single_row_too(norm):
    head = nn.Linear(16, 3)  # nothing else would see them: a row is alone, of four places
    with pytest.raises(il.UnsupportedModelError, match="batch_norm uses the statistics of the batch"):
        il.saliency(lambda x: head(norm(x.reshape(1, 16, 4)).mean(2)), torch.rand(1, 64), 0)


class Standardised(nn.Conv2d):
    """A convolution whose filters have mean 0 and variance 1 (Qiao et al. 2019), by BatchNorm as many write it."""

    def forward(self, x: Tensor) -> Tensor:
        weight = F.batch_norm(self.weight.reshape(1, len(self.weight), -1), None, None, training=True)
        return F.conv2d(x, weight.view_as(self.weight), self.bias)


@pytest.mark.parametrize("rows", [1, 4])
@every_method
def test_statistics_of_weights_are_constants(method, rows):
    torch.manual_seed(0)
    own, plain = Standardised(1, 8, 2), nn.Conv2d(1, 8, 2)
    var, mean = torch.var_mean(own.weight, (1, 2, 3), correction=0, keepdim=True)
    plain.weight.data, plain.bias.data = ((own.weight - mean) / (var + 1e-5).sqrt()).detach(), own.bias.detach()
    head = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))
    maps = [method(nn.Sequential(conv, head), X[:rows], 0) for conv in (own, plain)]
    assert_close(*maps, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", [il.saliency, il.integrated_gradients, il.lrp, il.deeplift])
def test_a_row_of_its_own_is_no_reason_to_refuse_what_may_mix(method):
    """Softmax over the features, a norm of every row, a transposition and back: rows are independent."""
    head = nn.Linear(16, 3)

    def model(x: Tensor) -> Tensor:
        x = x.flatten(1).T.contiguous().T
        return head(x)

    assert_close(method(model, X, 0), torch.cat([method(model, row[None], 0) for row in X]))


@pytest.mark.parametrize("method", [il.saliency, il.gradient_x_input, il.deeplift])
def test_a_row_alone_has_the_gradient_that_it_has_in_a_batch(method):
    """torch misreads the gradient of one row at a BatchNorm that tokens come from."""
    torch.manual_seed(0)
    convolution, norm = nn.Conv2d(1, 8, 2), nn.BatchNorm2d(8).eval()
    norm.running_var.uniform_(0.5, 2)

    def model(x: Tensor) -> Tensor:
        tokens = norm(convolution(x)).flatten(2).transpose(1, 2)
        return (F.layer_norm(tokens, (8,)) ** 3).sum(1)

    assert_close(method(model, X[:1], 0), method(model, X, 0)[:1], rtol=1e-4, atol=1e-5)


def test_a_model_that_computes_in_a_narrower_type_is_held_to_that_type():
    x, weight = X.double().flatten(1), torch.linspace(-1, 1, 48).view(16, 3)

    def model(x: Tensor) -> Tensor:
        h = (x.float() @ weight + 1) ** 3
        return (h * torch.rsqrt(h.square().mean(1, keepdim=True) + 1e-6)).double()

    difference = (model(x) - model(torch.zeros_like(x)))[:, 0]
    assert_close(il.deeplift(model, x, 0).sum(1), difference, rtol=1e-4, atol=0)


def test_a_second_input_held_by_a_function_is_no_reason_to_refuse():
    second, head = torch.rand(4, 16), nn.Linear(32, 3)
    model = lambda x: head(torch.cat([x.flatten(1).softmax(1), second], 1))  # noqa: E731
    expected = torch.cat([il.saliency(lambda x, s=s: head(torch.cat([x.flatten(1).softmax(1), s[None]], 1)), r[None], 0)
                          for r, s in zip(X, second, strict=True)])  # fmt: skip
    assert_close(il.saliency(model, X, 0), expected)
    for call in (il.smoothgrad, il.integrated_gradients):
        with pytest.raises(ValueError, match="batch_size=N"):
            call(model, X, 0)
        assert call(model, X, 0, batch_size=4).shape == X.shape
    with pytest.raises(ValueError, match="batch_size=N"):
        il.selectivity(model, X, X, 0)
    assert il.selectivity(model, X, X, 0, batch_size=4).curve.shape == (4, 17)


class Cut(nn.Module):
    def __init__(self, cut) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head, self.cut = nn.Embedding(4, 16), nn.Linear(16, 3), cut

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.head(x + self.cut(self, x))


LIBRARY = torch.library.Library("interp_lab_tests", "DEF")
LIBRARY.define("doubled(Tensor x) -> Tensor")
LIBRARY.impl("doubled", lambda x: torch.from_numpy(2 * x.detach().numpy()), "CPU")


def written(write):
    """A table that is filled in place."""

    def fill(m, x: Tensor) -> Tensor:
        table = torch.zeros_like(x)
        write(table, x)
        return table

    return fill


def one_hot_by_assignment(table: Tensor, x: Tensor) -> None:
    table[torch.arange(len(x)), x.argmax(1)] = 1


def gate_by_assignment(table: Tensor, x: Tensor) -> None:
    table[x > 0.5] = 1


def half_filled(m, x: Tensor) -> Tensor:
    y = x.clone()
    with torch.no_grad():
        y[:, 0] = 3 * x[:, 1]
    return y


class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return (x > 0).to(x)

    @staticmethod
    def backward(ctx, g: Tensor) -> Tensor:
        return g


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx, g: Tensor) -> Tensor:
        return -2 * g


class Doubled(Reversed):
    """The same with the right gradient."""

    @staticmethod
    def backward(ctx, g: Tensor) -> Tensor:
        return 2 * g


CUT = {
    "one-hot by assignment": written(one_hot_by_assignment),
    "a gate by assignment": written(gate_by_assignment),
    "assigned": written(lambda table, x: table.__setitem__(slice(None), x.detach())),
    "copied into a view": written(lambda table, x: table[:, :4].copy_(x.detach()[:, :4])),
    "assigned without gradient": half_filled,
    "a leaf again": lambda m, x: torch.tanh(x.detach()).requires_grad_(),
    "special.round": lambda m, x: torch.special.round(8 * x),
    "floor by division": lambda m, x: torch.div(8 * x, 1, rounding_mode="floor"),
    "fake quantisation": lambda m, x: torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -128, 127),
    "category": lambda m, x: m.table((3 * x[:, 0]).long()),
    "nearest category": lambda m, x: m.table((3 * x[:, 0]).round().int()),
    "one-hot": lambda m, x: F.one_hot(x.argmax(1), 16).to(x.dtype),
    "step": lambda m, x: (x > 0.5).to(x.dtype),
    "rounded": lambda m, x: x.round(),
    "rounded by torch.ops": lambda m, x: torch.ops.aten.round.default(x),
    "straight through": lambda m, x: Step.apply(x - 0.5),
    "reversed": lambda m, x: Reversed.apply(x),
    "detached": lambda m, x: torch.tanh(x.detach()),
    "data": lambda m, x: torch.tanh(x.data),
    "no_grad": lambda m, x: torch.no_grad()(torch.tanh)(x),
    "a number": lambda m, x: x * x.max().item(),
    "a list": lambda m, x: torch.tensor(x.tolist()),
    "numpy": lambda m, x: torch.from_numpy(np.tanh(x.detach().numpy())),
    "C++": lambda m, x: torch.ops.interp_lab_tests.doubled(x),
    "quantised": lambda m, x: torch.quantize_per_tensor(x, 0.1, 0, torch.quint8).dequantize(),
}


@pytest.mark.parametrize("cut", CUT.values(), ids=CUT.keys())
@pytest.mark.parametrize("method", [il.saliency, il.smoothgrad, il.integrated_gradients, il.gradient_x_input])
def test_a_value_cut_off_from_its_gradient_is_refused(method, cut):
    reasons = (
        r"without a gradient|zero everywhere|no gradient|cannot be differentiated|out of torch|could not be run|"
        r"not its derivative"
    )
    with pytest.raises(ValueError, match=reasons):
        method(Cut(cut), X, 0)


def test_a_function_of_the_user_with_its_true_gradient_is_answered():
    doubled, plain = Cut(lambda m, x: Doubled.apply(x)), Cut(lambda m, x: 2 * x)
    assert_close(il.saliency(doubled, X, 0), il.saliency(plain, X, 0))
    body = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU())
    maps = [il.grad_cam(lambda x, top=top: top(body(x).mean((2, 3))), X, 0, layer=body) for top in (doubled, plain)]
    assert_close(*maps)


@pytest.mark.parametrize("name", ["C++", "one-hot by assignment", "a leaf again", "reversed"])
def test_a_cut_value_is_refused_where_only_the_maps_are_differentiated(name):
    body = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU())
    rest = Cut(CUT[name])

    def model(x: Tensor) -> Tensor:
        return rest(body(x).mean((2, 3)))

    with pytest.raises(il.UnsupportedModelError, match="gradient"):
        il.grad_cam(model, X, 0)
    with pytest.raises(il.UnsupportedModelError, match="gradient"):
        il.maximize_activation(model, 0, X, steps=1)


@pytest.mark.parametrize("script", [torch.jit.script, partial(torch.jit.trace, example_inputs=torch.rand(4, 6))])
def test_what_torchscript_hides_is_refused(script):
    class Detached(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.weight) * x.mean(1, keepdim=True).detach()

    class Centred(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x - x.mean(0), self.weight)

    x = torch.rand(4, 6)
    with pytest.raises(il.UnsupportedModelError, match="detach"):
        il.saliency(script(Detached(6, 3)), x, 0)
    with pytest.raises(il.UnsupportedModelError, match="depends on the other rows"):
        il.integrated_gradients(script(Centred(6, 3)), x, 0)
    with pytest.raises(il.UnsupportedModelError, match="detach"):
        il.deeplift(script(Detached(6, 3)), x, 0)
    plain = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)).eval()
    assert_close(il.saliency(script(plain), x, 0), il.saliency(plain, x, 0))


def test_a_trace_in_train_mode_is_refused_and_a_frozen_script_is_answered():
    x, net = torch.rand(4, 6), nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3))
    traced = torch.jit.trace(net.train(), x, check_trace=False)
    with pytest.raises(il.UnsupportedModelError, match="holds aten::batch_norm in train mode: trace it after"):
        il.saliency(traced, x, 0)
    dropping = torch.jit.trace(nn.Sequential(nn.Linear(6, 3), nn.Dropout()), x, check_trace=False)
    with pytest.raises(il.UnsupportedModelError, match="holds aten::dropout in train mode: trace it after"):
        il.saliency(dropping, x, 0)
    assert_close(il.saliency(torch.jit.freeze(torch.jit.script(net.eval())), x, 0), il.saliency(net, x, 0))


@pytest.mark.parametrize("method", [il.saliency, il.lrp, il.deeplift, il.grad_cam])
def test_an_exported_program_is_answered_as_the_module_it_was_made_from(method):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(4, 3),
    ).eval()
    assert_close(method(torch.export.export(net, (X,)).module(), X, 1), method(net, X, 1))


def test_a_backward_hook_that_comes_too_late_to_be_set_aside_is_refused():
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    net.register_full_backward_hook(lambda *_: None)
    holder = iter(lambda: net, None)  # a function that cannot be looked into
    with pytest.raises(il.UnsupportedModelError, match=r"Sequential has a backward hook.*remove it"):
        il.saliency(lambda x: next(holder)(x), X, 0)


def test_a_gradient_that_is_not_finite_is_refused_and_an_infinite_logit_of_another_class_is_not():
    with pytest.raises(il.UnsupportedModelError, match=r"NaN or infinite .* add a small number"):
        il.saliency(lambda x: (x - X).abs().sqrt().flatten(1)[:, :3], X, 0)

    def masked(x: Tensor) -> Tensor:
        return F.pad(x.flatten(1)[:, :2], (0, 1), value=-torch.inf)

    assert_close(il.saliency(masked, X, 0).flatten(1).sum(1), torch.ones(len(X)))


def test_a_packed_sequence_has_its_gradient():
    torch.manual_seed(0)
    cell, lengths = nn.LSTM(4, 3, batch_first=True), torch.tensor([4, 4, 4, 4])

    def packed(x: Tensor) -> Tensor:
        return cell(nn.utils.rnn.pack_padded_sequence(x[:, 0], lengths, batch_first=True))[1][0][0]

    assert_close(il.saliency(packed, X, 0), il.saliency(lambda x: cell(x[:, 0])[1][0][0], X, 0))


CHOICES = {
    "where": (lambda x: torch.where(x > 0.5, x, 0.1 * x), lambda x: 0.1 * x + 0.9 * x * (x > 0.5)),
    "masked_fill": (lambda x: x.masked_fill(x < 0.5, 0.0), lambda x: x * (x >= 0.5)),
    "sorted by its own index": (lambda x: x.gather(1, x.argsort(1)), lambda x: x.sort(1).values),
    "unpooled": (
        lambda x: F.max_unpool2d(*F.max_pool2d(x.view(-1, 1, 4, 4), 2, return_indices=True), 2).flatten(1),
        lambda x: x * (x == F.interpolate(F.max_pool2d(x.view(-1, 1, 4, 4), 2), (4, 4)).flatten(1)),
    ),
}


@pytest.mark.parametrize(("choice", "same"), CHOICES.values(), ids=CHOICES.keys())
def test_a_choice_by_a_mask_or_an_index_keeps_its_gradient(choice, same):
    torch.manual_seed(0)
    head = nn.Linear(16, 3)
    x = X.clone().requires_grad_()
    (expected,) = torch.autograd.grad(head(same(x.flatten(1)))[:, 1].sum(), x)
    assert_close(il.saliency(lambda x: head(choice(x.flatten(1))), X, 1), expected)


@every_method
def test_a_caller_under_autocast_or_low_precision_gets_the_same(method):
    net, seen = network().eval(), set()
    expected = method(net, X, 0)
    net.register_forward_hook(lambda *_: seen.add(torch.get_float32_matmul_precision()))
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert_close(method(net, X, 0), expected, rtol=0, atol=0)
            assert torch.is_autocast_enabled("cpu")
        assert torch.get_float32_matmul_precision() == "medium"
        assert seen == {"highest"}
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_single_logit_decides_by_its_sign():
    torch.manual_seed(0)
    one = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 1)).eval()
    x = torch.randn(64, 1, 4, 4)
    one[3].bias.data -= one(x).median() + 1e-4
    two = lambda x: torch.cat([torch.zeros(len(x), 1), one(x)], 1)  # noqa: E731
    positive = (one(x) > 0).float().mean().item()
    assert 0.3 < positive < 0.7
    assert il.fidelity(lambda z: -one(z), one, x) == 0
    assert il.fidelity(two, one, x) == il.fidelity(one, two, x) == 1
    assert_close(il.surrogate_tree(one, x)(x), il.surrogate_tree(two, x)(x))
    relevance = il.gradient_x_input(one, x)
    ours = il.selectivity(one, x, relevance, score="probability", steps=4)
    assert_close(ours.curve[:, 0], one(x).sigmoid().squeeze(1).detach())
    assert_close(ours.curve, il.selectivity(two, x, relevance, 1, score="probability", steps=4).curve)
    bounds = (x.min().item(), x.max().item())
    moved = il.attack_attribution(one, x, k=4, radius=1.0, steps=3, bounds=bounds)
    assert torch.equal(one(moved) > 0, one(x) > 0)
    with pytest.raises(ValueError, match="single logit"):
        il.class_sensitivity(il.saliency, one, x)


@pytest.mark.parametrize("target", [np.int64(1), [1, 1, 1, 1], np.full(4, 1), torch.full((4,), 1, dtype=torch.int32)])
def test_targets_of_any_integer_form_are_the_same(target):
    net = network().eval()
    assert_close(il.saliency(net, X, target), il.saliency(net, X, 1), rtol=0, atol=0)


OUTPUTS = {
    "tuple": (lambda z: (z, z), r"lambda x: model\(x\)\[0\]"),
    "dict": (lambda z: {"logits": z}, r"lambda x: model\(x\)\['logits'\]"),
    "decisions": (lambda z: z.argmax(1, keepdim=True), "give the logits that these are made of"),
    "no class": (lambda z: z[:, :0], r"logits of shape \(4, K\)"),
    "one number a row": (lambda z: z[:, 0], r"lambda x: model\(x\)\[:, None\]"),
}


@pytest.mark.parametrize(("output", "remedy"), OUTPUTS.values(), ids=OUTPUTS.keys())
def test_a_refusal_of_an_output_carries_the_remedy(output, remedy):
    head = nn.Linear(16, 3)
    with pytest.raises(ValueError, match=remedy):
        il.occlusion(lambda x: output(head(x.flatten(1))), X, 0)
    with pytest.raises(ValueError, match=r"lambda x: model\(name=x\)"):
        il.saliency(lambda *, pixels: head(pixels), X, 0)
    with pytest.raises(ValueError, match="token ids explain their embeddings"):
        il.saliency(head, torch.zeros(2, 5, dtype=torch.long), 0)


def test_integrated_gradients_warn_where_they_miss_the_difference():
    model = lambda x: torch.tanh(20 * x.flatten(1)[:, :2])  # noqa: E731
    with pytest.warns(UserWarning, match=r"integrated gradients miss .* in 4 of 4 rows with 2 steps; .* Raise steps"):
        il.integrated_gradients(model, X + 0.5, 0, steps=2)
    il.integrated_gradients(model, X + 0.5, 0, steps=200)  # a warning is an error in these tests


def test_recurrent_networks_run_without_cudnn_which_gives_them_no_gradient_in_eval_mode():
    lstm, seen = nn.LSTM(3, 4, batch_first=True), []
    lstm.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.enabled))
    il.saliency(lambda x: lstm(x)[0][:, -1], torch.rand(2, 5, 3), 0)
    assert seen
    assert not any(seen)
    assert torch.backends.cudnn.enabled


@pytest.mark.parametrize("method", [il.smoothgrad, il.integrated_gradients])
def test_a_pass_too_large_for_the_memory_is_tried_with_fewer_rows(method):
    net, rows = network().double().eval(), []

    def model(x: Tensor) -> Tensor:
        rows.append(len(x))
        if len(x) > 13:
            raise torch.OutOfMemoryError("no memory")
        return net(x)

    x = X.double()
    assert_close(method(model, x, 0), method(net, x, 0))
    assert max(rows[rows.index(next(r for r in rows if 4 < r <= 13)) :]) <= 13


def test_the_rows_of_a_pass_follow_the_memory_of_the_device(monkeypatch):
    class Elsewhere:
        device = torch.device("cuda", 1)

        def __len__(self):
            return 4

    def on_a_gpu(per_row: int, free: int) -> int:
        """The rows of a pass where each takes per_row bytes, and torch keeps 1 GiB for itself, half of it in use."""
        used = []
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2**29)
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2**30)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: used.clear())
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 2**29 + max(used))
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: {1: (free, 2**40)}[device.index])

        def run(x: Elsewhere) -> None:
            if len(x) * per_row > free + 2**29:
                raise torch.OutOfMemoryError("no memory")
            used.append(len(x) * per_row)

        return rows_per_pass(Elsewhere(), run)

    gib = 2**30
    assert on_a_gpu(per_row=gib // 8, free=16 * gib) == 66  # half of 16.5 GiB
    assert on_a_gpu(per_row=gib // 8, free=80 * gib) == 322
    assert on_a_gpu(per_row=3 * gib, free=12 * gib) == 2
    assert on_a_gpu(per_row=8 * gib, free=16 * gib) == 2  # the batch does not fit
    assert on_a_gpu(per_row=1, free=80 * gib) == 2**16
    assert rows_per_pass(torch.zeros(1, 3, 224, 224), None) == 6
    assert rows_per_pass(torch.zeros(0, 4), None) == 128


def test_explaining_nests_and_gives_everything_back_in_order():
    outer, inner = network().train(), network().train()
    with explaining(outer, X) as x:
        with explaining(inner, x):
            assert not any(module.training for net in (outer, inner) for module in net.modules())
        assert all(module.training for module in inner.modules())
        assert not any(module.training for module in outer.modules())
    assert all(module.training for module in outer.modules())


def test_every_model_of_a_block_is_looked_at_not_the_first_alone():
    head = nn.Linear(4, 3)
    mixed, codes = lambda x: head(x - x.mean(0)), torch.rand(3, 4)
    for _ in range(2):  # a generator that nothing is known of, and one that has been looked at
        with pytest.raises(il.UnsupportedModelError, match="depends on the other rows"):
            il.am_code(mixed, 1, codes, generator=torch.sin, steps=1)
    with pytest.raises(il.UnsupportedModelError, match="depends on the other rows"):
        il.am_code(head, 1, codes, generator=lambda z: z - z.mean(0), steps=1)
