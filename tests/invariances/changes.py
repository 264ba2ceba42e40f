"""The changes that must not change an answer: one line each, in ``CHANGES``."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils._pytree import tree_map
from torchvision.ops import FrozenBatchNorm2d

import interp_lab as il
from interp_lab import simulated_device

from .functions import FUNCTIONS, REMOVAL, Answer, Function, tensors
from .networks import CLASSES, NETWORKS, NORMS, Apply, Case, Cell, Concatenated, Gated, Network, head, stack

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
Edit = Callable[[Case], Case | None]


def call(function: Function, case: Case) -> Answer:
    return function(case)


def unchanged(case: Case) -> Case:
    return case


def everything(name: str, function: Function) -> bool:
    return True


def nothing(name: str, function: Function) -> bool:
    return False


@dataclass(frozen=True)
class Change:
    """Two forms of one case, whose answers must be equal.

    Attributes:
        change: the changed form of a network's case, which it may work in; None where there is none.
        reference: the other form; by default the case as it is.
        run, run_reference: how the function is called on either form.
        functions: which functions the change leaves as they are.
        may_refuse: which of them may refuse the changed form where they answer the other.
        tolerance: largest difference, as a share of the largest entry.
        networks: names of the networks, where the change is not for all that it applies to.
        shown_on: the network of the fast tests, where another one would hide what goes wrong.
    """

    change: Edit
    reference: Edit = unchanged
    run: Callable[[Function, Case], Answer] = call
    run_reference: Callable[[Function, Case], Answer] = call
    functions: Callable[[str, Function], bool] = everything
    may_refuse: Callable[[str, Function], bool] = nothing
    tolerance: float = 1e-8
    networks: tuple[str, ...] = ()
    shown_on: str = ""


def named(*names: str) -> Callable[[str, Function], bool]:
    return lambda name, _: any(name == n or name.startswith(n + " ") or name.startswith(n + ",") for n in names)


def either(*conditions: Callable[[str, Function], bool]) -> Callable[[str, Function], bool]:
    return lambda name, function: any(condition(name, function) for condition in conditions)


def excluding(*conditions: Callable[[str, Function], bool]) -> Callable[[str, Function], bool]:
    return lambda name, function: not any(condition(name, function) for condition in conditions)


def of_layers(name: str, function: Function) -> bool:
    return function.layers


def of_parameters(name: str, function: Function) -> bool:
    return function.parameters


def by_rows(name: str, function: Function) -> bool:
    return function.rows


def of_maps(name: str, function: Function) -> bool:
    return function.differentiates == "maps"


FILTERS, PATTERNS, INFLUENCE = (
    named("filters"),
    named("fit_patterns", "pattern_net", "pattern_attribution"),
    named("influence", "trak"),
)
COMPOSITE = (
    named("lrp composite")
    if "lrp composite" in FUNCTIONS
    else (lambda name, _: name in ("lrp", "lrp composite, bounds"))
)
CLASS = named("counterfactual")  # whose target is a class of the two, not the logit: its own tests compare
GRAPHS = named("surrogate_graph")
RELEVANCE = named("lrp", "deep_taylor")


# A function around the network. The modules inside are in train mode, which no function may take over.


def wrapped(wrap: Callable[[nn.Module], Any], train: bool = True) -> Edit:
    def change(case: Case) -> Case:
        layer = case.model.get_submodule(case.layer)
        return replace(case, model=wrap(case.model.train(train)), layer=layer)

    return change


class Caller:
    """An object that is no module and calls one."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, x: Tensor) -> Tensor:
        return self.model(x)


class Hidden(nn.Module):
    """A module that torch does not know the parts of."""

    def __init__(self, holder: Any, take: Callable[[Any], nn.Module]) -> None:
        super().__init__()
        self.holder, self.take = holder, take

    def forward(self, x: Tensor) -> Tensor:
        return self.take(self.holder)(x)


class Mean(nn.Module):
    def __init__(self, *models: nn.Module) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, x: Tensor) -> Tensor:
        return sum(model(x) for model in self.models) / len(self.models)


def with_twin(model: nn.Module) -> list[nn.Module]:
    """The network and another of its kind."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.1)
    return [model, twin]


def ensemble(case: Case) -> Case:
    return replace(case, model=Mean(*with_twin(case.model)), layer="models.0.maps")


def ensemble_closure(case: Case) -> Case:
    models = with_twin(case.model.train())
    return replace(case, model=lambda x: sum(m(x) for m in models) / 2, layer=case.model.get_submodule("maps"))


def train_mode(case: Case) -> Case:
    case.model.train()
    return case


# An identity after every module, and in front of the first.


def insert(model: nn.Module, identity: Callable[[Tensor], Tensor], only: str | None = None) -> None:
    """In place; with ``only``, after the modules of this name alone."""
    lifted = partial(tree_map, lambda value: identity(value) if isinstance(value, Tensor) else value)
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if not list(child.children()) and (only is None or name == only):
                parent._modules[name] = stack(inner=child, then=Apply(lifted))
    if only is None:
        first = next(iter(model._modules))
        model._modules[first] = stack(front=Apply(identity), inner=model._modules[first])


def inserted(identity: Callable[[Tensor], Tensor], pictures: bool = False, only: str | None = None) -> Edit:
    def change(case: Case) -> Case | None:
        if pictures and case.x.dim() != 4:
            return None
        insert(case.model, identity, only)
        return case

    return change


IDENTITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "view": lambda h: h.view(h.shape),
    "view_as": lambda h: h.view_as(h),
    "clone": lambda h: h.clone(),
    "+ 0": lambda h: h + 0,
    "+ zeros": lambda h: h + torch.zeros_like(h),
    "* 1": lambda h: h * 1,
    "contiguous": lambda h: h.contiguous(),
    "flattened and back": lambda h: h.flatten(1).unflatten(1, h.shape[1:]) if h.dim() > 2 else h.reshape(h.shape),
    "transposed twice": lambda h: h.transpose(1, -1).contiguous().transpose(1, -1),
    "unsqueezed and squeezed": lambda h: h.unsqueeze(1).squeeze(1),
    "slice": lambda h: h[:, :],
    "cat of one": lambda h: torch.cat([h], 1),
    "to its dtype": lambda h: h.to(h.dtype),
    "padding of zero": lambda h: F.pad(h, (0, 0)),
    "dropout in eval": nn.Dropout(0.5).eval(),
    "F.dropout in eval": lambda h: F.dropout(h, training=False),
    "nn.Identity": nn.Identity(),
}


# Hooks that change gradients on their way back, as other methods leave them on a model.


def hooked(case: Case) -> Case:
    def half(module: nn.Module, *gradients: tuple) -> tuple:
        return tuple(None if g is None else g / 2 for g in gradients[0])

    def watch(module: nn.Module, args: tuple, out: Any) -> None:
        if isinstance(out, Tensor) and out.requires_grad:
            out.register_hook(lambda gradient: gradient / 2)

    for module in case.model.modules():
        if not list(module.children()):
            module.register_full_backward_hook(half)
            module.register_full_backward_pre_hook(half)
            module.register_forward_hook(watch)
    return case


# BatchNorm merged into the layer before it, or not.


def blocks(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if {"layer", "between", "norm"} <= set(m._modules)]


def merged(case: Case) -> Case | None:
    found = blocks(case.model)
    for block in found:
        layer, norm = block.layer, block.norm
        scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
        bias = 0 if layer.bias is None else layer.bias.detach()
        shape = [-1, *[1] * (layer.weight.dim() - 1)]
        if isinstance(layer, nn.ConvTranspose2d):  # weight (in, out / groups, ...)
            per_input = scale.view(layer.groups, -1).repeat_interleave(layer.weight.shape[0] // layer.groups, 0)
            layer.weight.data *= per_input[:, :, None, None]
        else:
            layer.weight.data *= scale.view(shape)
        layer.bias = nn.Parameter((bias - norm.running_mean) * scale + norm.bias.detach())
        block.norm = nn.Identity()
    return case if found else None


def norm_of_branches(case: Case) -> Case | None:
    """Every branch a layer, and one BatchNorm and one ReLU for what they give together."""
    found = [m for m in case.model.modules() if isinstance(m, Concatenated) and not m.parts]
    for module in found:
        layers = [branch.conv for branch in module.branches]
        norm = nn.BatchNorm2d(sum(layer.out_channels for layer in layers)).double().eval()
        for k, values in enumerate((norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var)):
            values.copy_(torch.linspace(0.5, 2, len(values)).roll(k))
        module.branches = nn.ModuleList(layers)
        case.model.maps = stack(cat=module, norm=norm, act=nn.ReLU())
    return case if found else None


def merged_into_branches(case: Case) -> Case | None:
    """The same with the BatchNorm merged into the branches."""
    if (case := norm_of_branches(case)) is None:
        return None
    norm, layers = case.model.maps.norm, case.model.maps.cat.branches
    scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias.detach() - norm.running_mean * scale
    sizes = [layer.out_channels for layer in layers]
    for layer, times, plus in zip(layers, scale.split(sizes), shift.split(sizes), strict=True):
        layer.weight.data *= times[:, None, None, None]
        layer.bias.data = layer.bias.data * times + plus
    case.model.maps.norm = nn.Identity()
    return case


def before_norm(identity: Callable[[Tensor], Tensor]) -> Edit:
    def change(case: Case) -> Case | None:
        for block in blocks(case.model):
            block.between = stack(between=block.between, identity=Apply(identity))
        return case if blocks(case.model) else None

    return change


def frozen_norm(case: Case) -> Case | None:
    found = [block for block in blocks(case.model) if isinstance(block.norm, nn.BatchNorm2d)]
    for block in found:
        old, block.norm = block.norm, FrozenBatchNorm2d(block.norm.num_features, block.norm.eps).double()
        block.norm.load_state_dict({k: v for k, v in old.state_dict().items() if k != "num_batches_tracked"})
    return case if found else None


def double_norm(case: Case) -> Case | None:
    """Not merged at all, and merged but for a second BatchNorm that does nothing."""
    found = [block for block in blocks(case.model) if isinstance(block.norm, NORMS)]
    for block in found:
        idle = type(block.norm)(block.norm.num_features, eps=1e-30).double().eval()  # torch 2.11 refuses 0
        block.norm = stack(norm=block.norm, idle=idle)
    return case if found else None


# Other ways to hold the same weights.


def weighted(wrap: Callable[[nn.Module], Any]) -> Edit:
    def change(case: Case) -> Case | None:
        layers = [m for m in case.model.modules() if isinstance(m, LAYERS)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for layer in layers:
                wrap(layer)
        with torch.no_grad():
            case.model.eval()(case.x)
        return case if layers else None

    return change


def effective(wrap: Callable[[nn.Module], Any]) -> Edit:
    """The network with the weights that the wrapped one uses, as plain parameters."""

    def change(case: Case) -> Case | None:
        other = weighted(wrap)(replace(case, model=copy.deepcopy(case.model)))
        if other is None:
            return None
        plain = [m for m in case.model.modules() if isinstance(m, LAYERS)]
        used = [m for m in other.model.modules() if isinstance(m, LAYERS)]
        for layer, wrapped_layer in zip(plain, used, strict=True):
            layer.weight.data = wrapped_layer.weight.detach().clone()
        return case

    return change


class Halved(nn.Module):
    def forward(self, stored: Tensor) -> Tensor:
        return stored / 2

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight * 2


def pruned(layer: nn.Module) -> None:
    prune.custom_from_mask(layer, "weight", (torch.arange(layer.weight.numel()) % 3 > 0).view_as(layer.weight))


WEIGHTS: dict[str, Callable[[nn.Module], Any]] = {
    "weight_norm": parametrizations.weight_norm,
    "weight_norm, old": nn.utils.weight_norm,
    "spectral_norm": partial(parametrizations.spectral_norm, n_power_iterations=3),
    "spectral_norm, old": partial(nn.utils.spectral_norm, n_power_iterations=3),
    "parametrize": lambda m: parametrize.register_parametrization(m, "weight", Halved()),
    "prune": pruned,
    "prune, nothing": lambda m: prune.identity(m, "weight"),
}


# Other ways to write the same network.


def copied(case: Case) -> Case | None:
    """Every module that occurs twice by a copy of its own; the one of the lowest name stays."""
    seen: set[nn.Module] = set()
    found = False
    for parent in list(case.model.modules()):
        for name, child in parent._modules.items():
            if child in seen:
                parent._modules[name] = copy.deepcopy(child)
                found = True
            seen.add(child)
    return case if found else None


def branches_backwards(case: Case) -> Case | None:
    found = [m for m in case.model.modules() if isinstance(m, Concatenated)]
    for module in found:
        module.backwards = True
    return case if found else None


def relu_as(function: Callable[[Tensor], Tensor]) -> Edit:
    def change(case: Case) -> Case | None:
        found = False
        for parent in list(case.model.modules()):
            for name, child in parent._modules.items():
                if isinstance(child, nn.ReLU):
                    parent._modules[name] = Apply(function)
                    found = True
        return case if found else None

    return change


def padded_apart(case: Case) -> Case | None:
    found: set[nn.Module] = set()
    for parent in list(case.model.modules()):
        for name, child in parent._modules.items():
            if isinstance(child, nn.Conv2d) and (child in found or child.padding == (1, 1)):
                child.padding = (0, 0)
                parent._modules[name] = stack(pad=nn.ZeroPad2d(1), conv=child)
                found.add(child)
    return case if found else None


def pooled(pool: Callable[[Tensor], Tensor]) -> Edit:
    def change(case: Case) -> Case:
        case.model.head.mean = Apply(pool)
        return case

    return change


class Factor(nn.Module):
    """A product with constants: what an activation does to these very inputs."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value)

    def forward(self, h: Tensor) -> Tensor:
        return h * self.value


def as_factors(case: Case) -> Case | None:
    """Smooth and clipped activations, and the gates of a product, as constants: relevance passes both unchanged."""
    ratios: dict[nn.Module, Tensor] = {}
    kinds = (Gated, nn.Hardtanh, nn.Hardswish, nn.SiLU, nn.Tanh, nn.Sigmoid)
    found = [module for module in case.model.modules() if isinstance(module, kinds)]
    handles = [
        module.register_forward_hook(
            lambda module, args, out: ratios.update({module: torch.where(args[0] == 0, 0, out / args[0])})
        )
        for module in found
    ]
    with torch.no_grad():
        case.model(case.x)
    for handle in handles:
        handle.remove()
    for parent in list(case.model.modules()):
        for name, child in parent._modules.items():
            if child in ratios:
                parent._modules[name] = Factor(ratios[child])
    return case if found else None


IN_PLACE = {torch.sigmoid: torch.sigmoid_, F.hardsigmoid: partial(F.hardsigmoid, inplace=True)}


def gates_as(form: Callable[[Callable], Callable[[Tensor], Tensor]]) -> Edit:
    def change(case: Case) -> Case | None:
        found = [module for module in case.model.modules() if isinstance(module, Gated)]
        for module in found:
            module.gate = Apply(form(module.gate.function))
        return case if found else None

    return change


class Norm(nn.LayerNorm):
    """LayerNorm written out, which divides by the deviation in the way given."""

    divide: Callable[[Tensor, Tensor], Tensor]

    def forward(self, t: Tensor) -> Tensor:
        centred = t - t.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + self.eps).sqrt()
        return self.divide(centred, deviation) * self.weight + self.bias


def norms_as(divide: Callable[[Tensor, Tensor], Tensor]) -> Edit:
    def change(case: Case) -> Case | None:
        found = [module for module in case.model.modules() if isinstance(module, nn.LayerNorm)]
        for module in found:
            module.__class__, module.divide = Norm, divide
        return case if found else None

    return change


class Product(nn.Linear):
    """A dense layer, written as a product with its matrix."""

    def forward(self, h: Tensor) -> Tensor:
        z = h @ self.weight.T
        return z if self.bias is None else z + self.bias


def dense(case: Case, bias: bool, kind: type[nn.Linear] = nn.Linear) -> Case:
    """Every dense layer by one of this kind, with its bias or without."""
    for parent in list(case.model.modules()):
        for name, child in parent._modules.items():
            if isinstance(child, nn.Linear):
                parent._modules[name] = kind(child.in_features, child.out_features, bias).to(child.weight.dtype)
                parent._modules[name].weight = child.weight
                if bias:
                    parent._modules[name].bias = child.bias
    return case


def written_out(case: Case) -> Case:
    """The network "LSTM" with its cell written with dense layers."""
    fused = case.model.maps.cell
    cell = Cell(fused.input_size, fused.hidden_size).double()
    cell.read.weight, cell.read.bias = fused.weight_ih_l0, fused.bias_ih_l0
    cell.keep.weight, cell.keep.bias = fused.weight_hh_l0, fused.bias_hh_l0
    case.model.maps = cell
    return case


def weighted_mean(z: Tensor, y: Tensor) -> Tensor:
    """The cross-entropy with the weight k + 1 of class k, for as many examples of each."""
    return 2 / (CLASSES + 1) * ((y + 1) * F.cross_entropy(z, y, reduction="none")).mean()


def captured(case: Case) -> Case:
    """Every dense layer computes with its weight as it was captured, past the attribute of the layer."""
    for layer in case.model.modules():
        if isinstance(layer, nn.Linear):
            layer.forward = partial(F.linear, weight=layer.weight, bias=layer.bias)
    return case


def over_steps(case: Case, to: Callable[[Tensor], Tensor], back: Callable[[Tensor, Tensor], Tensor]) -> Case:
    """The dense layer "embed" reads its steps in another layout."""
    layer = case.model.embed
    case.model.embed = stack(layer=layer, apart=nn.Identity())
    case.model.embed.forward = lambda h: back(layer(to(h)), h)
    return case


class Dense(nn.Module):
    """A 1 x 1 convolution as a dense layer, for maps whose channels come last."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer = nn.Linear(layer.in_channels, layer.out_channels).double()
        self.layer.weight.data, self.layer.bias.data = layer.weight.data.flatten(1), layer.bias.data

    def forward(self, h: Tensor) -> Tensor:
        return self.layer(h)


def grid(case: Case, move: Callable[[Tensor], Tensor] | None = None) -> Case:
    """A convolution and two layers that mix channels; after ``move`` the channels come last."""
    torch.manual_seed(1)
    channels = case.x.shape[1]
    stem, first, second = nn.Conv2d(channels, 4, 2, stride=2), nn.Conv2d(4, 5, 1), nn.Conv2d(5, 4, 1)
    model = stack(
        stem=stem, act=nn.ReLU(), first=first, out=nn.ReLU(), maps=stack(second=second, act=nn.ReLU()), head=head(4)
    ).double()
    if move is not None:
        model.act = stack(act=model.act, move=Apply(move))
        model.first, model.maps.second = Dense(model.first), Dense(model.maps.second)
        model.head.mean = Apply(lambda h: h.flatten(1, -2).mean(1))
    return replace(case, model=model.eval())


# The network takes pictures (N, H, W, C) and moves their channels itself.


def filled(x: Tensor) -> Tensor:
    y = x.new_zeros(len(x), x.shape[3], *x.shape[1:3])
    for channel in range(x.shape[3]):
        y[:, channel] = x[..., channel]
    return y


CHANNELS_FIRST: dict[str, Callable[[Tensor], Tensor]] = {
    "permute": lambda x: x.permute(0, 3, 1, 2),
    "stack": lambda x: torch.stack(x.unbind(-1), 1),
    "einsum": lambda x: torch.einsum("nhwc->nchw", x),
    "tensordot": lambda x: torch.tensordot(torch.eye(x.shape[3]).to(x), x, ([1], [3])).transpose(0, 1),
    "colours": lambda x: torch.stack([x @ colour for colour in torch.eye(x.shape[3]).to(x)], 1),
    "assignment": filled,
}


def pictures_channels_last(front: Callable[[Tensor], Tensor]) -> Edit:
    def change(case: Case) -> Case | None:
        if case.x.dim() != 4:
            return None
        model = stack(front=Apply(front), net=case.model).eval()
        return replace(
            case, model=model, layer="net." + case.layer, x=case.x.movedim(1, -1), train=case.train.movedim(1, -1)
        )

    return change


def channels_back(function: Function, case: Case) -> Answer:
    """The parts of the answer that lie over x, with its channels first."""
    return [part.movedim(-1, 1) if part.shape == case.x.shape else part for part in function(case)]


# One logit: the class is its sign, as with a second logit that is always 0.


class Difference(nn.Module):
    """One logit, or the same beside a zero."""

    def __init__(self, net: nn.Module, shift: Tensor, columns: int) -> None:
        super().__init__()
        self.net, self.columns = net, columns
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        one = logits[:, 1:2] - logits[:, :1] - self.shift
        return one if self.columns == 1 else torch.cat([torch.zeros_like(one), one], 1)


def logits(columns: int, target: int | None) -> Edit:
    def change(case: Case) -> Case:
        with torch.no_grad():
            values = case.model(case.train)
        shift = (values[:, 1] - values[:, 0]).median()
        return replace(case, model=Difference(case.model, shift, columns), layer="net." + case.layer, target=target)

    return change


# The same call in other words.


def row_by_row(function: Function, case: Case) -> Answer:
    answers = [function(case.rows(slice(i, i + 1))) for i in range(len(case.x))]
    return [torch.cat(parts) for parts in zip(*answers, strict=True)]


def reversed_rows(function: Function, case: Case) -> Answer:
    return [part.flip(0) for part in function(case.rows([2, 1, 0]))]


def twice(function: Function, case: Case) -> Answer:
    function(case)
    return function(case)


def inside(*contexts: Callable[[], Any]) -> Callable[[Function, Case], Answer]:
    def run(function: Function, case: Case) -> Answer:
        with contextlib.ExitStack() as opened:
            for context in contexts:
                opened.enter_context(context())
            return function(case)

    return run


@contextlib.contextmanager
def matmul_precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def accelerated(function: Function, case: Case) -> Answer:
    """On CUDA, else on the simulated device, where maps over x lie too."""
    cuda = torch.cuda.is_available()
    move, fetch = (
        (simulated_device.move, simulated_device.fetch) if not cuda else (lambda v: v.cuda(), torch.Tensor.cpu)
    )
    inputs = {name: move(getattr(case, name)) for name in ("x", "beside", "labels", "train")}
    with contextlib.nullcontext() if cuda else simulated_device.DeviceMode():
        answer = function(replace(case, model=move(case.model), **inputs))
        return [fetch(p) if p.device.type != "cpu" or p.shape == case.x.shape else p for p in answer]


def single(case: Case) -> Case:
    return case.to(torch.float32)


def widened(function: Function, case: Case) -> Answer:
    return [part.double() if part.is_floating_point() else part for part in function(case)]


def with_x(edit: Callable[[Tensor], Tensor], pictures: bool = False) -> Edit:
    def change(case: Case) -> Case | None:
        if pictures and case.x.dim() != 4:
            return None
        return replace(case, x=edit(case.x), train=edit(case.train))

    return change


def inference_tensor(x: Tensor) -> Tensor:
    with torch.inference_mode():
        return x.clone()


def equal_rows(x: Tensor) -> Tensor:
    return x[:1].expand_as(x)


def target(value: Callable[[Case], Any]) -> Edit:
    return lambda case: replace(case, target=value(case))


def predicted(case: Case) -> Tensor:
    with torch.no_grad():
        return case.model(case.x).argmax(1)


def frozen(case: Case) -> Case:
    case.model.requires_grad_(False)
    return case


def frozen_but_the_last(case: Case) -> Case:
    layers = [m for m in case.model.modules() if isinstance(m, nn.Linear)]
    case.model.requires_grad_(False)
    layers[-1].requires_grad_(True)
    return case


def last_named(case: Case) -> Case:
    name = [name for name, m in case.model.named_modules() if isinstance(m, nn.Linear)][-1]
    return replace(case, options={"parameters": [name]})


class Second(nn.Module):
    """A network of x and of a second input, which has as many rows."""

    def __init__(self, net: nn.Module, extra: Tensor) -> None:
        super().__init__()
        self.net, self.extra = net, extra

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + self.extra)


def second_input(case: Case) -> Case:
    model, extra = case.model, case.train[: len(case.x)]  # not ``beside``, which some functions take themselves
    return replace(case, model=lambda x: model(x + extra), layer=model.get_submodule(case.layer))


def second_input_by_rows(function: Function, case: Case) -> Answer:
    answers = []
    for i in range(len(case.x)):
        model = Second(case.model, case.train[i])
        answers.append(function(replace(case.rows(slice(i, i + 1)), model=model, layer="net." + case.layer)))
    return [torch.cat(parts) for parts in zip(*answers, strict=True)]


# The definition, by plain autograd.


def gradient(model: nn.Module, x: Tensor, chosen: int) -> Tensor:
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(model(x)[:, chosen].sum(), x)[0]


MAPS_OVER_X = tuple(name for name in NETWORKS if name not in ("attention", "normed tokens"))  # these have tokens in x


def cam(case: Case) -> Tensor:
    kept: list[Tensor] = []
    handle = case.model.get_submodule(case.layer).register_forward_hook(
        lambda m, a, out: kept.append(out) or out.clone()
    )
    score = case.model(case.x.clone().requires_grad_())[:, case.target].sum()
    handle.remove()
    if kept[0].dim() != case.x.dim() or case.x.dim() < 3:
        raise il.UnsupportedModelError("no maps over x")
    (grad,) = torch.autograd.grad(score, kept[0])
    weights = grad.flatten(2).mean(2).view(*grad.shape[:2], *[1] * (grad.dim() - 2))
    small = (weights * kept[0]).sum(1, keepdim=True).clamp(min=0).detach()
    mode = {3: "linear", 4: "bilinear", 5: "trilinear"}[case.x.dim()]
    return F.interpolate(small, case.x.shape[2:], mode=mode).expand_as(case.x)


def along_the_line(case: Case) -> Tensor:
    points, weights = np.polynomial.legendre.leggauss(4)
    return case.x * sum(
        w / 2 * gradient(case.model, (1 + p) / 2 * case.x, case.target) for p, w in zip(points, weights, strict=True)
    )


DEFINITIONS: dict[str, Callable[[Case], Any]] = {
    "saliency": lambda c: gradient(c.model, c.x, c.target),
    "gradient_x_input": lambda c: c.x * gradient(c.model, c.x, c.target),
    "interior_gradient": lambda c: gradient(c.model, c.x / 2, c.target),
    "integrated_gradients": along_the_line,
    "grad_cam, layer": cam,
}


def by_definition(function: Function, case: Case) -> Answer:
    (name,) = (name for name, known in FUNCTIONS.items() if known is function)
    return tensors(DEFINITIONS[name](case))


# The table.
# Where the channels are is not known any more; the pattern methods know no product.
IDENTITY_REFUSED = {"flattened and back": either(of_layers, of_maps, named("guided_grad_cam")), "* 1": PATTERNS}


def channels_last(h: Tensor) -> Tensor:
    return h.contiguous(memory_format=torch.channels_last) if h.dim() == 4 else h


ONE_LOGIT = either(
    named("class_sensitivity"), INFLUENCE, named("maximize_activation, log_prob", "am_density", "am_code")
)
NO_HEAD = named(
    "maximize_activation, generator", "maximize_activation, density", "surrogate_linear"
)  # columns, no classes
MORE_ROWS = either(
    of_layers,
    named("smoothgrad", "integrated_gradients", "selectivity", "part_scores", "maximize_activation", *REMOVAL),
)
RANDOMISED = named("model_randomisation")  # the weights of FrozenBatchNorm2d are no parameters
APART = named(
    "trak", "model_randomisation"
)  # trak draws on the device; the other is compared on CUDA by a test of its own
HAS_WEIGHTS = excluding(of_parameters, FILTERS)
NOT_INFLUENCE = excluding(INFLUENCE)

CHANGES: dict[str, Change] = {
    "train mode": Change(train_mode),
    "lambda": Change(wrapped(lambda m: lambda x: m(x), train=False), may_refuse=of_layers),
    "lambda, train mode": Change(wrapped(lambda m: lambda x: m(x)), may_refuse=of_layers),
    "bound method, train mode": Change(wrapped(lambda m: m.forward), may_refuse=of_layers),
    "partial, train mode": Change(wrapped(lambda m: partial(nn.Module.__call__, m)), may_refuse=of_layers),
    "object, train mode": Change(wrapped(Caller), may_refuse=of_layers),
    "modules in a list, train mode": Change(wrapped(lambda m: Hidden([m], lambda held: held[0])), may_refuse=of_layers),
    "modules in a dict, train mode": Change(wrapped(lambda m: Hidden({"net": m}, lambda held: held["net"])), may_refuse=of_layers),
    "ensemble closure, train mode": Change(ensemble_closure, ensemble, may_refuse=of_layers),
    "hooks of gradients": Change(hooked, may_refuse=named("maximize_activation, density")),
    "second input by a closure": Change(second_input, run_reference=second_input_by_rows, functions=by_rows, may_refuse=MORE_ROWS),
    **{
        f"identity: {name}": Change(inserted(identity), may_refuse=IDENTITY_REFUSED.get(name, nothing))
        for name, identity in IDENTITIES.items()
    },
    "identity: channels_last": Change(inserted(channels_last, pictures=True)),
    "BatchNorm not merged": Change(lambda c: c if blocks(c.model) else None, merged, functions=HAS_WEIGHTS, may_refuse=RANDOMISED),
    **{
        f"BatchNorm not merged, {name} before": Change(
            before_norm(IDENTITIES[name]),
            merged,
            functions=HAS_WEIGHTS,
            may_refuse=either(RANDOMISED, IDENTITY_REFUSED.get(name, nothing)),
        )
        for name in ("view", "clone", "+ 0", "* 1", "flattened and back", "transposed twice", "dropout in eval", "to its dtype")
    },
    "BatchNorm not merged, channels_last before": Change(
        lambda c: before_norm(channels_last)(c) if c.x.dim() == 4 else None, merged, functions=HAS_WEIGHTS, may_refuse=RANDOMISED
    ),
    "BatchNorm of a concatenation": Change(norm_of_branches, merged_into_branches, functions=HAS_WEIGHTS, may_refuse=RANDOMISED),
    "FrozenBatchNorm2d": Change(frozen_norm, merged, functions=HAS_WEIGHTS, may_refuse=RANDOMISED),
    "two BatchNorms": Change(double_norm, merged, functions=excluding(of_parameters, FILTERS, named("model_randomisation"))),
    **{
        f"weights: {name}": Change(weighted(wrap), effective(wrap), functions=excluding(of_parameters), may_refuse=PATTERNS)
        for name, wrap in WEIGHTS.items()
    },
    "called twice, not copied": Change(lambda c: c if copied(copy.deepcopy(c)) else None, copied, functions=excluding(of_parameters, PATTERNS, named("model_randomisation moves")), may_refuse=of_layers),
    "branches in the other order": Change(branches_backwards, functions=excluding(PATTERNS, named("model_randomisation"))),
    "ReLU: functional": Change(relu_as(F.relu), functions=excluding(GRAPHS)),
    "ReLU: functional, in place": Change(relu_as(partial(F.relu, inplace=True)), functions=excluding(GRAPHS)),
    "ReLU: torch.relu_": Change(relu_as(torch.relu_), functions=excluding(GRAPHS)),
    "ReLU: torch.ops": Change(relu_as(torch.ops.aten.relu.default), functions=excluding(GRAPHS)),
    "ReLU: method": Change(relu_as(torch.Tensor.relu), functions=excluding(GRAPHS)),
    "ReLU: module, in place": Change(relu_as(nn.ReLU(True)), functions=excluding(GRAPHS)),
    "padding apart": Change(padded_apart),
    **{
        f"maximum: {name}": Change(pooled(pool), pooled(lambda h: F.max_pool2d(h, h.shape[2:]).flatten(1)), networks=("functional ReLU", "in-place ReLU", "residual", "hard gates"))
        for name, pool in {
            "adaptive_max_pool2d": lambda h: F.adaptive_max_pool2d(h, 1).flatten(1),
            "amax": lambda h: h.amax((2, 3)),
            "max(dim)": lambda h: h.flatten(2).max(2).values,
            "torch.max": lambda h: torch.max(h.flatten(2), 2)[0],
            "max_pool1d": lambda h: F.max_pool1d(h.flatten(2), h[0, 0].numel()).squeeze(2),
        }.items()
    },
    "dense layer as a product": Change(partial(dense, bias=True, kind=Product), functions=excluding(RELEVANCE), may_refuse=either(PATTERNS, named("influence kfac"))),
    "dense layer as a product, no bias": Change(partial(dense, bias=False, kind=Product), partial(dense, bias=False), may_refuse=either(PATTERNS, named("influence kfac"))),
    "dense layer over steps first": Change(partial(over_steps, to=lambda h: h.transpose(0, 1), back=lambda z, h: z.transpose(0, 1)), functions=named("influence"), may_refuse=named("influence kfac"), networks=("attention",)),
    "dense layer over rows and steps": Change(partial(over_steps, to=lambda h: h.flatten(0, 1), back=lambda z, h: z.unflatten(0, h.shape[:2])), functions=named("influence"), may_refuse=named("influence kfac"), networks=("attention",)),
    "captured weights": Change(captured, functions=named("influence"), may_refuse=named("influence")),
    "weights of classes": Change(
        lambda c: replace(c, options={"loss": nn.CrossEntropyLoss(weight=torch.arange(1.0, CLASSES + 1).double())}),
        lambda c: replace(c, options={"loss": weighted_mean}),
        functions=named("influence"),
        may_refuse=named("influence"),
    ),
    "activations and gates, not constants": Change(
        unchanged,
        as_factors,
        functions=named("lrp epsilon"),  # of the rules, the one that no constant factor of a layer changes
        networks=("hard gates", "squeeze-excitation", "smooth"),
        tolerance=1e-2,  # epsilon is another share of the values of a layer that a factor is folded into
        shown_on="hard gates",
    ),
    "gates in place": Change(gates_as(IN_PLACE.get)),
    "gates by chunks": Change(gates_as(lambda gate: lambda h: torch.cat([gate(part) for part in h.chunk(2, 1)], 1))),
    "gates clamped": Change(gates_as(lambda gate: lambda h: gate(h).clamp(min=1e-9)), functions=RELEVANCE),
    "gates as their product with themselves": Change(gates_as(lambda gate: lambda h: gate(h).sqrt() * gate(h).sqrt()), functions=RELEVANCE),
    "gates as a mean": Change(gates_as(lambda gate: lambda h: (gate(h) + gate(h)) / 2), functions=RELEVANCE),
    "norms by hand": Change(norms_as(torch.div)),
    "norms by hand, times 1 over": Change(norms_as(lambda t, deviation: t * (1 / deviation))),
    "norms by hand, times a constant over": Change(norms_as(lambda t, deviation: 2 * t * (0.5 / deviation))),
    "norms by hand, power": Change(norms_as(lambda t, deviation: t * deviation**-1)),
    "norms by hand, rsqrt": Change(norms_as(lambda t, deviation: t * deviation.square().rsqrt())),
    "nn.LSTM": Change(unchanged, written_out, functions=excluding(of_parameters, PATTERNS), networks=("LSTM",)),
    "channels last inside": Change(partial(grid, move=lambda h: h.permute(0, 2, 3, 1)), grid, functions=excluding(COMPOSITE, of_parameters, PATTERNS, named("deeplift reveal_cancel")), may_refuse=either(of_maps, of_layers, named("guided_grad_cam")), networks=("functional ReLU", "in-place ReLU")),
    "tokens inside": Change(partial(grid, move=lambda h: h.flatten(2).transpose(1, 2)), grid, functions=excluding(COMPOSITE, of_parameters, PATTERNS, named("deeplift reveal_cancel", "surrogate_graph, every ReLU")), may_refuse=either(of_maps, of_layers, named("guided_grad_cam")), networks=("functional ReLU", "in-place ReLU")),
    **{
        f"pictures channels last: {name}": Change(pictures_channels_last(front), run=channels_back, functions=named("saliency", "grad_cam", "guided_grad_cam", "integrated_gradients"))
        for name, front in CHANNELS_FIRST.items()
    },
    "one logit": Change(logits(1, 0), logits(2, 1), functions=excluding(NO_HEAD, GRAPHS, CLASS), may_refuse=ONE_LOGIT),
    "one logit, no target": Change(logits(1, None), logits(2, 1), functions=excluding(NO_HEAD, GRAPHS, CLASS), may_refuse=either(ONE_LOGIT, named("maximize_activation"))),
    "row by row": Change(unchanged, run=row_by_row, functions=by_rows),
    "rows in the other order": Change(unchanged, run=reversed_rows, functions=by_rows),
    "train in three batches": Change(lambda c: replace(c, batches=3), functions=either(PATTERNS, named("influence exact", "influence cg", "influence kfac", "trak", "top_activations"))),
    **{
        f"batch_size {size}": Change(lambda c, size=size: replace(c, options={"batch_size": size}), functions=lambda name, f: f.batch_size)
        for size in (1, 2, 5, 1000)
    },
    "twice in a row": Change(unchanged, run=twice, tolerance=0.0),
    "x strided": Change(with_x(lambda x: torch.stack([x, x], -1)[..., 0])),
    "x transposed in memory": Change(with_x(lambda x: x.transpose(1, -1).contiguous().transpose(1, -1))),
    "x channels_last": Change(with_x(channels_last, pictures=True)),
    "x expanded": Change(lambda c: replace(c, x=equal_rows(c.x)), lambda c: replace(c, x=equal_rows(c.x).clone())),
    "x requires grad": Change(with_x(lambda x: x.clone().requires_grad_())),
    "x a parameter": Change(with_x(lambda x: nn.Parameter(x.clone()))),
    "x with a graph": Change(with_x(lambda x: x.clone().requires_grad_() * 1)),
    "x an inference tensor": Change(with_x(inference_tensor)),
    "model channels_last": Change(lambda c: replace(c, model=c.model.to(memory_format=torch.channels_last)) if c.x.dim() == 4 else None),
    "on a GPU": Change(unchanged, run=accelerated, functions=excluding(APART), tolerance=1e-6),  # CUDA's hard gates have a float32 1/6
    "on a GPU, in float32": Change(single, single, run=accelerated, functions=excluding(PATTERNS, APART, named("rise", "shapley", "maximize_activation, density")), tolerance=1e-4),  # TF32 keeps 3 digits
    "float32": Change(single, run=widened, run_reference=widened, functions=excluding(named("model_randomisation")), tolerance=1e-3),  # other weights are drawn
    "target: np.int64": Change(target(lambda c: np.int64(1))),
    "target: np.int32": Change(target(lambda c: np.int32(1))),
    "target: list": Change(target(lambda c: [1] * len(c.x)), functions=excluding(named("surrogate_local"))),
    "target: tensor": Change(target(lambda c: torch.tensor([1] * len(c.x)))),
    "target: int32": Change(target(lambda c: torch.tensor([1] * len(c.x), dtype=torch.int32))),
    "target: tensor of no axes": Change(target(lambda c: torch.tensor(1))),
    "target: list of different": Change(target(lambda c: [2, 0, 1]), target(lambda c: torch.tensor([2, 0, 1]))),
    "target: np.array": Change(target(lambda c: np.array([2, 0, 1])), target(lambda c: torch.tensor([2, 0, 1]))),
    "target: none": Change(target(lambda c: None), target(predicted), functions=excluding(named("maximize_activation", "am_density", "am_code"))),
    "frozen": Change(frozen, may_refuse=INFLUENCE, functions=NOT_INFLUENCE),
    "frozen but the last layer": Change(frozen_but_the_last, last_named, functions=INFLUENCE),
    "under no_grad": Change(unchanged, run=inside(torch.no_grad)),
    "under inference_mode": Change(unchanged, run=inside(torch.inference_mode)),
    "under autocast": Change(single, single, run=inside(partial(torch.autocast, "cpu")), tolerance=1e-6),
    "under autocast and no_grad": Change(single, single, run=inside(torch.no_grad, partial(torch.autocast, "cpu", torch.float16)), tolerance=1e-6),
    "under hooks on saved tensors": Change(unchanged, run=inside(partial(torch.autograd.graph.saved_tensors_hooks, torch.neg, torch.clone))),
    "under matmul precision medium": Change(single, single, run=inside(matmul_precision), tolerance=1e-6),
    "by definition": Change(unchanged, run_reference=by_definition, functions=lambda name, _: name in DEFINITIONS and name != "grad_cam, layer"),
    "by definition, maps": Change(unchanged, run_reference=by_definition, functions=named("grad_cam, layer"), networks=MAPS_OVER_X),
}  # fmt: skip


def pair(change: Change, network: Network) -> tuple[Case, Case] | None:
    """The case in its reference form and in its changed form, of networks of their own; None where it does not apply."""
    changed, reference = change.change(network.case()), change.reference(network.case())
    return None if changed is None or reference is None else (reference, changed)
