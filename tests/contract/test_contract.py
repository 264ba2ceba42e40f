"""The contract of an attribution, held by every method: design section 'the contract of an attribution'."""

import copy
import inspect
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from interp_lab import METHODS, UnsupportedModelError, integrated_gradients, interior_gradient, saliency, smoothgrad
from interp_lab.contract import is_finite

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))]
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


def make_network() -> nn.Module:
    """BatchNorm, dropout, a residual, an in-place and a reused ReLU: what a careless method disturbs."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.relu = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True)
            self.second, self.dropout = nn.Conv2d(6, 6, 3, padding=1), nn.Dropout(0.5)
            self.pool, self.head = nn.MaxPool2d(2), nn.Linear(6, 4)

        def forward(self, x):
            x = self.relu(self.norm(self.first(x)))
            x = self.relu(self.second(x) + x)
            return self.head(self.dropout(self.pool(x).mean((2, 3))))

    torch.manual_seed(0)
    network = Network()
    network.norm.running_mean.normal_()
    network.norm.running_var.uniform_(0.5, 2)
    return network


def make_x(n: int = 3) -> torch.Tensor:
    return torch.rand(n, 3, 12, 12, generator=torch.Generator().manual_seed(1))


@every_method
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_dtype_device_and_detached(method, device, dtype):
    x = make_x().to(device, dtype)
    attribution = method(make_network().to(device, dtype), x)
    assert (attribution.shape, attribution.dtype, attribution.device) == (x.shape, x.dtype, x.device)
    assert not attribution.requires_grad
    assert torch.isfinite(attribution).all()
    assert attribution.abs().max() > 0


@every_method
@pytest.mark.parametrize("device", DEVICES)
def test_a_batch_gives_what_its_rows_give_one_by_one(method, device):
    network, x = make_network().to(device).double(), make_x().to(device).double()
    assert_close(method(network, x), torch.cat([method(network, row[None]) for row in x]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@every_method
def test_the_gpu_gives_what_the_cpu_gives(method):
    network, x = make_network().double(), make_x().double()
    assert_close(method(copy.deepcopy(network).cuda(), x.cuda()).cpu(), method(network, x))


@every_method
def test_the_target_is_the_predicted_class_an_int_or_one_class_per_row(method):
    network, x = make_network().eval().double(), make_x().double()
    predicted = network(x).argmax(1)
    assert_close(method(network, x), method(network, x, predicted))
    assert_close(method(network, x, 2), method(network, x, torch.tensor([2, 2, 2])))
    mixed = method(network, x, torch.tensor([0, 1, 2]))
    assert_close(mixed, torch.cat([method(network, x[i : i + 1], i) for i in range(3)]))


@every_method
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_and_the_random_state_come_back_as_they_were(method, fails):
    network, x = make_network().train(), make_x().requires_grad_()
    network.second.eval()  # mixed modes must come back mixed
    network.first.weight.grad = torch.ones_like(network.first.weight)
    calls = []
    network.head.register_forward_hook(lambda *_: calls.append(1))
    state = copy.deepcopy(network.state_dict())
    modes = [module.training for module in network.modules()]
    random_state = torch.get_rng_state()
    if fails:
        with pytest.raises(ValueError, match="target must lie in"):
            method(network, x, 99)
    else:
        method(network, x)
    assert calls
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random_state)
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert torch.equal(network.first.weight.grad, torch.ones_like(network.first.weight))
    assert all(p.grad is None for name, p in network.named_parameters() if name != "first.weight")
    assert all(p.requires_grad for p in network.parameters())
    assert not any(module._backward_hooks or module._forward_pre_hooks for module in network.modules())
    assert len(network.head._forward_hooks) == 1
    assert x.requires_grad
    assert x.grad is None


@every_method
def test_eval_mode_is_used_whatever_mode_the_model_is_in(method):
    network, x = make_network(), make_x()
    assert_close(method(network.train(), x), method(network.eval(), x))


@every_method
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_where_the_caller_has_gradients_off(method, mode):
    network, x = make_network(), make_x()
    expected = method(network, x)
    with mode():
        assert_close(method(network, x * 1.0), expected)


@every_method
def test_frozen_parameters_and_channels_last_inputs_change_nothing(method):
    network, x = make_network().double(), make_x().double()
    expected = method(network, x)
    frozen = copy.deepcopy(network).requires_grad_(False)
    assert_close(method(frozen, x.to(memory_format=torch.channels_last)), expected)


@every_method
def test_two_threads_do_not_disturb_each_other(method):
    jobs = [(make_network().double(), make_x().double() * scale) for scale in (1.0, 2.0)]
    alone = [method(*job) for job in jobs]
    results: dict[int, torch.Tensor] = {}

    def work(k: int) -> None:
        for _ in range(5):
            results[k] = method(*jobs[k])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(2):
        assert_close(results[k], alone[k])


@pytest.mark.parametrize("method", [smoothgrad, integrated_gradients])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 1000])
def test_any_batch_size_gives_the_same_numbers(method, batch_size):
    network, x = make_network().double(), make_x().double()
    assert_close(method(network, x, batch_size=batch_size), method(network, x))


@pytest.mark.parametrize(("method", "passes"), [(smoothgrad, 50), (integrated_gradients, 52)])  # x and the baseline
def test_batch_size_bounds_the_rows_of_every_pass(method, passes):
    rows = []

    def model(x):
        rows.append(len(x))
        return x.flatten(1) ** 2

    method(model, torch.rand(6, 4), 0, batch_size=4)
    assert max(rows) == 4
    assert sum(rows) == 6 * passes + 1  # the first row once more, alone


@every_method
def test_an_empty_batch_gives_an_empty_attribution(method):
    assert method(make_network(), make_x()[:0]).shape == (0, 3, 12, 12)


X = make_x()
BAD_INPUT = {
    "list": ([[1.0]], None, "x must be a torch.Tensor batch .* got list"),
    "integers": (torch.zeros(2, 3, 12, 12, dtype=torch.uint8), None, "floating-point batch, got dtype torch.uint8"),
    "no batch axis": (torch.rand(5), None, r"batch \(N, ...\), got shape \(5,\)"),
    "NaN": (X.clone().index_fill_(0, torch.tensor(0), float("nan")), None, "finite, got 432 NaN or infinite"),
    "infinite": (X / 0, None, "finite"),
    "dtype": (X.double(), None, "x is torch.float64 on cpu, but parameter 'first.weight' is torch.float32"),
    "channels": (X[:, :1], None, r"could not be run on x of shape \(3, 1, 12, 12\)"),
    "target too large": (X, 4, r"target must lie in 0\.\.3, got 4\.\.4"),
    "target negative": (X, torch.tensor([0, -1, 2]), r"target must lie in 0\.\.3, got -1\.\.2"),
    "target shape": (X, torch.tensor([0, 1]), r"target must have shape \(3,\), got \(2,\)"),
    "target one-hot": (X, torch.eye(4)[:3], "target must be None, an int or a LongTensor"),
    "target float": (X, 1.0, r"target must be None, an int or a LongTensor \(3,\), got 1.0"),
    "target bool": (X, True, "got True"),
}


@every_method
@pytest.mark.parametrize(("x", "target", "message"), BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_is_refused_by_name(method, x, target, message):
    with pytest.raises(ValueError, match=message):
        method(make_network(), x, target)


BAD_MODEL = {
    "feature maps": (
        nn.Conv2d(3, 4, 1),
        r"logits of shape \(3, K\) for x .*, got shape \(3, 4, 12, 12\)",
    ),
    "tuple": (lambda x: (x.flatten(1), x), "got tuple"),
    "scores for the batch": (lambda x: x.sum(0, keepdim=True).flatten(1), "logits of shape"),
    "NaN logits": (lambda x: x.flatten(1) * float("nan"), "NaN logits"),
}


@every_method
@pytest.mark.parametrize(("model", "message"), BAD_MODEL.values(), ids=BAD_MODEL.keys())
def test_a_model_without_usable_logits_is_refused_by_name(method, model, message):
    with pytest.raises(ValueError, match=message):
        method(model, X)


OUTPUTS_ALONE = ("occlusion", "rise", "shapley")  # which ask for no gradient


@pytest.mark.parametrize("method", [method for name, method in METHODS.items() if name not in OUTPUTS_ALONE])
def test_a_model_cut_from_its_input_is_refused(method):
    with pytest.raises(UnsupportedModelError, match=r"do not depend on x|calls no convolution"):
        method(lambda x: x.detach().flatten(1), X)


class Full(torch.autograd.Function):
    """The identity, for whose gradient there is no memory."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        raise torch.OutOfMemoryError("no memory left")


def full(x):
    raise torch.OutOfMemoryError("no memory left")


@pytest.mark.parametrize("model", [full, Full.apply])
def test_too_little_memory_is_no_fault_of_the_model(model):
    with pytest.raises(torch.OutOfMemoryError, match="no memory left"):
        saliency(lambda x: model(x).flatten(1), X, 0)


# What the lecture and the papers state, and the pages rely on.
DEFAULTS = {
    "saliency": {},
    "gradient_x_input": {},
    "smoothgrad": {"n": 50, "noise": 0.15, "seed": 0, "batch_size": None},
    "interior_gradient": {"alpha": 0.5},
    "integrated_gradients": {"baseline": 0.0, "steps": 50, "batch_size": None},
    "deconvnet": {},
    "guided_backprop": {},
    "rectgrad": {"q": 0.98},
    "lrp": {"rule": "composite", "epsilon": 1e-6, "gamma": 0.25, "low": None, "high": None, "bias": "share",
            "attention": "attn_lrp", "custom": None, "balance": False},
    "deep_taylor": {"low": None, "high": None, "bias": "share", "balance": False},
    "deeplift": {"baseline": 0.0, "rule": "rescale"},
    "grad_cam": {"layer": None, "reshape": None, "relu": True, "upsample": True},
    "guided_grad_cam": {"layer": None, "reshape": None},
    "occlusion": {"window": None, "stride": None, "baseline": 0.0, "batch_size": None},
    "rise": {"samples": 1000, "cells": 7, "keep": 0.5, "centred": True, "baseline": 0.0, "seed": 0, "batch_size": None},
    "shapley": {"players": None, "baseline": 0.0, "permutations": None, "seed": 0, "batch_size": None},
}  # fmt: skip


def test_what_every_method_does_without_options():
    options = {
        name: {p.name: p.default for p in inspect.signature(method).parameters.values() if p.kind == p.KEYWORD_ONLY}
        for name, method in METHODS.items()
    }
    assert options == DEFAULTS


def test_a_finite_tensor_may_have_a_sum_that_is_not():
    large = torch.full((2,), 60_000, dtype=torch.float16)
    assert large.sum().isinf()
    assert is_finite(large)
    for value in (torch.inf, -torch.inf, torch.nan):
        assert not is_finite(torch.tensor([1.0, value]))
    assert not is_finite(torch.tensor([torch.inf, -torch.inf]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: smoothgrad(make_network(), X, n=0), "n must be an integer of at least 1, got 0"),
        (lambda: smoothgrad(make_network(), X, n=2.5), "n must be an integer of at least 1, got 2.5"),
        (lambda: smoothgrad(make_network(), X, noise=-0.1), "noise must be a fraction"),
        (lambda: smoothgrad(make_network(), X, batch_size=0), "batch_size must be None or at least 1, got 0"),
        (lambda: smoothgrad(make_network(), X, batch_size=2.5), "batch_size .* got 2.5: give an int"),
        (lambda: integrated_gradients(make_network(), X, batch_size="8"), "batch_size .* got '8': give an int"),
        (lambda: integrated_gradients(make_network(), X, baseline="black"), "baseline must be a number or a tensor"),
        (lambda: smoothgrad(make_network(), X.to_sparse()), r"x must be dense .* x.to_dense\(\)"),
        (lambda: smoothgrad(make_network(), X, np.array([0, 1, None])), "target must be None, an int or a LongTensor"),
        (lambda: interior_gradient(make_network(), X, alpha=0.0), r"alpha must lie in \(0, 1\], got 0.0"),
        (lambda: interior_gradient(make_network(), X, alpha=1.5), r"alpha must lie in \(0, 1\], got 1.5"),
        (lambda: integrated_gradients(make_network(), X, steps=0), "steps must be an integer of at least 1, got 0"),
        (lambda: integrated_gradients(make_network(), X, baseline=X[:, :2]), r"baseline must be .* got shape \(3, 2,"),
        (lambda: integrated_gradients(make_network(), X, baseline=float("nan")), "baseline must be finite"),
    ],
)
def test_bad_options_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
