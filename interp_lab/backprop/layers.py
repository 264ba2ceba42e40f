r"""The linear layers of a running network, each with the backward pass that a rule gives it.

Layer-wise relevance propagation, deep Taylor decomposition and the pattern methods rewrite the backward pass of
every linear layer :math:`z = L(a; w) + b` (convolution, dense layer, product with a constant matrix). What scales and
shifts its values by constants afterwards - BatchNorm in eval mode, however it is written - is part of the layer: the
map is that of the network with both merged. Between the two may lie what only moves values (a view, a transposition,
a copy, a crop), and a concatenation of several layers side by side, each of which takes its places. Anything else -
pooling, upsampling, padding, a sum - is not looked through: as one with no layer before it, an affine operation after it is left
to its gradient.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node

from ..contract import Model, UnsupportedModelError, logits_of
from ..contract.interception import Interception, Replacement, Rule, operations, origin, works_in_place
from .decompositions import written_out
from .modified_backprop import CONVOLUTION, PASSED, in_place, operation_of


@dataclass(eq=False)
class Layer:
    """One call of a linear layer.

    Attributes:
        name: the module's name in the model, "" where the weight is no parameter of it.
        kind: "convolution" or "dense".
        index: position among the linear layers in the order of their calls.
        is_input: whether it reads the input x, directly or through operations without weights.
        a, weight, bias: what it reads; ``bias`` may be None.
        z: its value, differentiable to ``a``; what scales and shifts it afterwards included.
        bounds: further inputs of the same layer, made from bounds of x (see ``lrp``).
        rows: whether the units are dimension 0 of the weight (not so in a transposed convolution).
    """

    name: str
    kind: str
    index: int
    is_input: bool
    apply: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    read: Tensor
    a: Tensor
    weight: Tensor
    bias: Tensor | None
    z: Tensor
    rows: bool
    per_weight: Callable[[Tensor], Tensor]  # a value for every unit, laid out to multiply the weight
    axis: int | None  # the dimension of z that counts the units
    bounds: Sequence[Tensor] = ()
    value: Tensor | None = None  # z as the model has it, where it was moved between the layer and what scales it
    to_z: Callable[[Tensor], Tensor] | None = None  # takes a signal at ``value`` to one at z
    version: int = field(init=False)

    def __post_init__(self) -> None:
        self.version = self.a._version

    def at_z(self, bias: Tensor) -> Tensor:
        """A value for every unit, laid out to be added to z; one for every place stays."""
        if bias.dim() != 1 or self.axis is None:
            return bias
        return bias.view(-1, *[1] * (-1 - self.axis if self.axis < 0 else self.z.dim() - 1 - self.axis))


LayerRule = Callable[[Layer, Tensor], Sequence[Tensor]]  # (layer, signal at z) -> signal at a and at each bound


class LinearLayer(Replacement):
    """A linear layer whose backward pass is a rule of the layer and the signal above."""

    @staticmethod
    def forward(ctx, layer: Layer, rule: LayerRule, *inputs: Tensor) -> Tensor:
        ctx.layer, ctx.rule = layer, rule
        value = layer.z if layer.value is None else layer.value
        return value.detach().clone()  # the model may change what it gets in place; the rule needs z

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        layer = ctx.layer
        if layer.a._version != layer.version:
            raise UnsupportedModelError(f"the input of layer {layer.name!r} is changed in place after it is read")
        with torch.enable_grad():
            return None, None, *ctx.rule(layer, g if layer.to_z is None else layer.to_z(g))


def layer_at(node: Node | None) -> Layer | None:
    """The layer whose rule this node of the graph runs, if it is one's."""
    return getattr(node, "layer", None) if getattr(node, "_forward_cls", None) is LinearLayer else None


def moved_from(tensor: Tensor, found: Callable[[Node], bool]) -> set[Node]:
    """The nodes below the tensor for which ``found`` holds, if only linear operations on them lie between."""
    ends: set[Node] = set()
    seen: set[Node] = set()
    stack = [tensor.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or (not found(node) and operation_of(node) not in PASSED):
            return set()
        if found(node):
            ends.add(node)
        elif node not in seen:
            seen.add(node)
            parents = [parent for parent, _ in node.next_functions if parent is not None]
            # Of a copy, the source is the last.
            stack.extend(parents[-1:] if operation_of(node) == "CopyBackwards" else parents)
    return ends


def layers_of(tensor: Tensor) -> list[Layer]:
    """The layers whose values the tensor holds, if no more than linear operations lie between."""
    found = (layer_at(node) for node in moved_from(tensor, lambda node: layer_at(node) is not None))
    return sorted((layer for layer in found if layer), key=lambda layer: layer.index)


def layer_of(tensor: Tensor) -> Layer | None:
    """The one such layer."""
    layers = layers_of(tensor)
    return layers[0] if len(layers) == 1 else None


def layer_table(
    model: Model,
    replace: Callable[[Layer], Tensor],
    others: Mapping[Callable, Rule] | None = None,
) -> dict[Callable, Rule]:
    """The table that hands every linear layer to ``replace``; ``others`` takes what is part of no layer."""
    others = others or {}

    def otherwise(func, args, kwargs):
        return others[func](func, args, kwargs) if func in others else NotImplemented

    parameters = model.named_parameters() if isinstance(model, nn.Module) else ()
    # A module with several weights, as nn.LSTM has, names each of them.
    names = {id(p): "" if name == "weight" else name.removesuffix(".weight") for name, p in parameters}
    count = 0

    def build(
        kind: str,
        apply: Callable,
        read: Tensor,
        parameter: Tensor,
        bias: Tensor | None,
        axis: int | None,
        per_weight: Callable[[Tensor], Tensor],
        rows: bool = False,
        takes_bias: bool = True,
    ) -> Tensor:
        nonlocal count
        name = names.get(id(parameter), "")
        if origin(bias):
            raise UnsupportedModelError(f"the bias of a {kind} layer depends on x")
        weight, bias = parameter.detach(), None if bias is None else bias.detach()
        a = read.detach().requires_grad_()

        def whole(a: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
            taken = takes_bias and (b is None or b.dim() == 1)
            z = apply(a, w, b) if taken else apply(a, w)
            return z if taken or b is None else z + layer.at_z(b)

        z = apply(a, weight, bias) if takes_bias else apply(a, weight)
        is_input = origin(read) == "input"
        layer = Layer(name, kind, count, is_input, whole, read, a, weight, bias, z, rows, per_weight, axis)
        count += 1
        return replace(layer)

    def first(v: Tensor, weight: Tensor) -> Tensor:
        return v.view(-1, *[1] * (weight.dim() - 1))

    def dense(func, args, kwargs):
        def call(input, weight, bias=None):
            if origin(weight):
                return NotImplemented  # a product of two activations
            axis = -1 if weight.dim() == 2 else None
            return build("dense", func, input, weight, bias, axis, lambda v: first(v, weight), weight.dim() == 2)

        return call(*args, **kwargs)

    def convolution(func, args, kwargs):
        def call(input, weight, bias=None, *rest, **options):
            def apply(a, w, b=None):
                return func(a, w, b, *rest, **options)

            if origin(weight):
                return otherwise(func, args, kwargs)  # a product of two activations
            axis = input.dim() - weight.dim() + 1  # 0 for an input without a batch dimension
            if "transpose" not in func.__name__:
                return build("convolution", apply, input, weight, bias, axis, lambda v: first(v, weight), True)
            groups = rest[3] if len(rest) > 3 else options.get("groups", 1)

            def per_weight(v: Tensor) -> Tensor:  # the weight is (inputs, outputs of a group, ...)
                v = v.view(groups, 1, -1).expand(-1, len(weight) // groups, -1)
                return v.reshape(*weight.shape[:2], *[1] * (weight.dim() - 2))

            return build("convolution", apply, input, weight, bias, axis, per_weight)

        return call(*args, **kwargs)

    def product(func, args, kwargs):
        left, right = args if len(args) == 2 else (args[0], *kwargs.values())
        if not origin(right):
            axis = -1 if right.dim() > 1 else None
            return build("dense", func, left, right, None, axis, lambda v: v, takes_bias=False)
        if not origin(left):
            axis = -2 if left.dim() > 1 and right.dim() > 1 else -1 if left.dim() > 1 else None
            return build(
                "dense", lambda a, w: func(w, a), right, left, None, axis, lambda v: v[:, None], takes_bias=False
            )
        return otherwise(func, args, kwargs)

    def einsum(func, args, kwargs):
        equation, *operands = args
        operands = operands[0] if len(operands) == 1 and not isinstance(operands[0], Tensor) else operands
        from_x = [bool(origin(operand)) for operand in operands]
        if sum(from_x) != 1 or len(operands) > 2:
            return otherwise(func, args, kwargs)
        at = from_x.index(True)
        weight = operands[1 - at] if len(operands) == 2 else operands[0].new_ones(())

        def apply(a, w):
            return func(equation, *((a, w)[:: 1 - 2 * at] if len(operands) == 2 else (a * w,)))

        return build("dense", apply, operands[at], weight, None, None, lambda v: v, takes_bias=False)

    def affine(func, args, kwargs):
        parts = affine_parts(func, args, kwargs)
        if parts is None or not (layers := layers_of(parts[0])):
            return otherwise(func, args, kwargs)
        t, scale, shift = parts
        changes = works_in_place(func, args, kwargs)
        folded = _fold(layers, t, scale, shift, changes)
        if not folded:
            return otherwise(func, args, kwargs)
        out = sum(map(replace, folded[1:]), replace(folded[0]))
        return in_place(args[0], out) if changes else out

    return {
        **others,
        **dict.fromkeys(operations(*CONVOLUTION), convolution),
        **dict.fromkeys(operations("linear"), dense),
        **dict.fromkeys(operations("matmul", "mm", "bmm", "mv", "__matmul__"), product),
        torch.einsum: einsum,
        **dict.fromkeys(AFFINE, affine),
    }


AFFINE = operations(
    "mul", "multiply", "__mul__", "__rmul__", "__imul__", "div", "divide", "true_divide", "__truediv__", "__itruediv__",
    "add", "__add__", "__radd__", "__iadd__", "sub", "subtract", "rsub", "__sub__", "__rsub__", "__isub__", "neg",
    "negative", "batch_norm", "instance_norm",
)  # fmt: skip


def affine_parts(func: Callable, args: tuple, kwargs: dict) -> tuple[Tensor, Tensor, Tensor] | None:
    """A call as ``scale * t + shift`` of the one activation t; None where it is no such operation with constants."""
    name = func.__name__.strip("_")
    if name in ("batch_norm", "instance_norm"):
        if func not in (F.batch_norm, F.instance_norm):  # torch's own order of the arguments
            if name == "instance_norm" or len(args) != 9:
                return None
            x, weight, bias, *statistics = args[:5]
            args = (x, *statistics, weight, bias, *args[5:8])
        batch = {"use_input_stats": True} if name == "instance_norm" and len(args) < 6 else {}
        return _normalisation(*args, **{**batch, **kwargs})
    if name in ("neg", "negative"):
        return args[0], args[0].new_tensor(-1.0), args[0].new_tensor(0.0)
    kwargs = dict(kwargs)
    alpha = kwargs.pop("alpha", 1)
    a, b, *more = (*args, *kwargs.values())
    from_x = bool(origin(a)), bool(origin(b))
    if more or "out" in kwargs or all(from_x) or isinstance(b, str):
        return None
    t, constant = (a, b) if from_x[0] else (b, a)
    if not t.is_floating_point():
        return None
    if torch.result_type(t, constant) != t.dtype:
        return None
    constant = torch.as_tensor(constant, device=t.device, dtype=t.dtype).detach()
    sizes = zip(reversed(constant.shape), reversed(t.shape), strict=False)
    if constant.dim() > t.dim() or any(c not in (1, n) for c, n in sizes):
        return None
    one, zero = torch.ones_like(constant), torch.zeros_like(constant)
    if name in ("mul", "multiply", "rmul", "imul"):
        return t, constant, zero
    if name in ("div", "divide", "true_divide", "truediv", "itruediv"):
        return (t, 1 / constant, zero) if from_x[0] else None
    if name in ("add", "radd", "iadd"):
        return (t, one, alpha * constant) if from_x[0] else (t, alpha * one, constant)
    if name == "rsub":
        a, b, from_x = b, a, from_x[::-1]  # b - alpha a
    return (t, one, -alpha * constant) if from_x[0] else (t, -alpha * one, constant)


def _normalisation(
    input: Tensor,
    running_mean=None,
    running_var=None,
    weight=None,
    bias=None,
    batch=None,
    momentum=0.1,
    eps=1e-5,
    **named,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """``F.batch_norm`` and ``F.instance_norm`` with running statistics; None with those of the batch or of x."""
    if running_mean is None or named.get("training", named.get("use_input_stats", bool(batch))):
        return None
    scale = (running_var + eps).rsqrt() * (1 if weight is None else weight.detach())
    shift = (0 if bias is None else bias.detach()) - running_mean * scale
    shape = (-1, *[1] * (input.dim() - 2))
    return input, scale.to(input.dtype).view(shape), shift.to(input.dtype).view(shape)


def _plus(z: Tensor, bias: Tensor | None) -> Tensor:
    return z if bias is None else z + bias


Way = tuple[Callable[[Tensor], Tensor] | None, Tensor]


def to_layer(layer: Layer, t: Tensor) -> Way | None:
    """What takes a signal at t to one at the layer's z (None for the identity), and the places of z that t holds.

    None where t repeats values of the layer or holds others.
    """
    way = _moved(layer, t)
    return way if way and (way[0] is None or torch.count_nonzero(way[1]) == t.numel()) else None


def _moved(layer: Layer, t: Tensor) -> Way | None:
    """As :func:`to_layer`, where t may hold other values as well."""
    moved = layer_at(t.grad_fn) is not layer
    if not moved and layer.to_z is None:
        return None, torch.ones((), dtype=torch.bool, device=t.device)
    (node,) = (n for n in moved_from(t, lambda n: layer_at(n) is not None) if layer_at(n) is layer)
    edge = GradientEdge(node, 0)

    def to_z(signal: Tensor) -> Tensor:
        if moved:
            (signal,) = torch.autograd.grad(t, edge, signal, create_graph=True)
        return signal if layer.to_z is None else layer.to_z(signal)

    # Every value of t is one of z's: then the transpose takes ones to ones and zeros, and squares to squares.
    marks = torch.linspace(1, 2, t.numel(), dtype=t.dtype, device=t.device).view_as(t)
    whole = to_z(torch.ones_like(t))
    chosen = ((whole == 0) | (whole == 1)).all() and torch.equal(to_z(marks**2), to_z(marks) ** 2)
    return (to_z, whole == 1) if chosen else None


def _places(way: Way, t: Tensor) -> Tensor:
    """Ones where t holds the layer's values: the transpose of the transpose."""
    signal = torch.zeros_like(t, requires_grad=True)
    z = signal if way[0] is None else way[0](signal)
    return torch.autograd.grad(z, signal, torch.ones_like(z))[0]


def _side_by_side(layers: Sequence[Layer]) -> bool:
    """Whether none of the layers reads another; else a signal at one would go on to the other."""
    seen: set[Node] = set()
    queue = [layer.read.grad_fn for layer in layers]
    for node in queue:
        below = layer_at(node)
        if below in layers:
            return False
        if node is not None and node not in seen and not (below and below.index < layers[0].index):
            seen.add(node)
            queue += [parent for parent, _ in node.next_functions]
    return True


def _shares(layers: Sequence[Layer], t: Tensor) -> list[tuple[Way, Tensor]]:
    """For each of several layers the way to it and its places, if every value of t is a value of one; else none."""
    ways: list[Way] = []
    for layer in layers if _side_by_side(layers) else ():
        if (way := _moved(layer, t)) is None:
            return []
        ways.append(way)
    places = [_places(way, t) for way in ways]
    return list(zip(ways, places, strict=True)) if places and (torch.stack(places).sum(0) == 1).all() else []


def moved_layers(t: Tensor) -> list[Layer]:
    """The layers that the tensor holds values of, if no more than linear operations on one, or moves, lie between."""
    layers = layers_of(t)
    return layers if len(layers) == 1 or _shares(layers, t) else []


def _fold(layers: Sequence[Layer], t: Tensor, scale: Tensor, shift: Tensor, changes: bool) -> list[Layer]:
    """The layers whose values add up to ``scale * t + shift``, where t holds values of these layers, moved only."""
    changes_moved = changes and (layers[0].to_z is not None or layer_at(t.grad_fn) is not layers[0])
    t = t.clone() if changes_moved else t
    if len(layers) == 1:
        way = to_layer(layers[0], t)
        return [] if way is None else [_folded(layers[0], t, scale, shift, way)]
    return [_folded(layer, t, scale, shift, *share) for layer, share in zip(layers, _shares(layers, t), strict=False)]


def _folded(layer: Layer, t: Tensor, scale: Tensor, shift: Tensor, way: Way, places: Tensor | None = None) -> Layer:
    (to_z, whole), value = way, None
    if to_z is not None:
        value = torch.addcmul(shift, t.detach(), scale)
        value = value if places is None else value * places
        scale, shift = (to_z(each.expand_as(t).contiguous()) for each in (scale, shift))
    units, offsets = _per_unit(layer, scale, whole, 1), _per_unit(layer, shift, whole, 0)
    same = partial(dataclasses.replace, layer, to_z=to_z)
    if units is not None and offsets is not None and (layer.bias is None or layer.bias.dim() == 1):
        scale, shift = layer.at_z(units), layer.at_z(offsets)
        bias = offsets if layer.bias is None else layer.bias * units + offsets
        z = torch.addcmul(shift, layer.z, scale)
        return same(weight=layer.weight * layer.per_weight(units), bias=bias, z=z, value=value)
    scale = torch.where(whole, scale, 1) if units is None else layer.at_z(units)
    bias = torch.where(whole, shift, 0) + (0 if layer.bias is None else scale * layer.at_z(layer.bias))
    if units is not None:
        weight, z = layer.weight * layer.per_weight(units), layer.z * scale + torch.where(whole, shift, 0)
        return same(weight=weight, bias=bias.expand_as(z), z=z, value=value)
    # A unit whose places have scales of both signs has its weight in both signs, each for its places.
    up, down = scale.clamp(min=0), (-scale).clamp(min=0)

    def apply(a: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return _plus(up * layer.apply(a, w[0], None) + down * layer.apply(a, w[1], None), b)

    weight, bias = torch.stack([layer.weight, -layer.weight]), bias.expand_as(layer.z)
    return same(apply=apply, weight=weight, bias=bias, z=apply(layer.a, weight, bias), value=value, rows=False)


def _per_unit(layer: Layer, values: Tensor, whole: Tensor, default: float) -> Tensor | None:
    """The one value of every unit, or None if its places have several; ``default`` for a unit that is left out."""
    if layer.axis is None:
        return None
    axis = layer.axis - layer.z.dim() if layer.axis >= 0 else layer.axis
    count = layer.z.shape[axis]
    if values.numel() == 1:
        return values.reshape(1).expand(count)
    if values.dim() >= -axis and values.shape[axis] == count == values.numel():
        return values.reshape(-1)

    def rows(tensor: Tensor) -> Tensor:
        return tensor.expand_as(layer.z).movedim(axis, 0).flatten(1)

    values, whole = rows(values), rows(whole)
    low, high = torch.where(whole, values, torch.inf).amin(1), torch.where(whole, values, -torch.inf).amax(1)
    met = whole.any(1)
    return torch.where(met, low, default) if (low == high)[met].all() else None


def first_layer(model: Model, leaf: Tensor) -> Layer | None:
    """The first linear layer that the model calls on this input; the model runs no further."""

    class Reached(Exception):
        pass

    reached: list[Layer] = []

    def stop(layer: Layer) -> Tensor:
        reached.append(layer)
        raise Reached

    try:
        with Interception(written_out(layer_table(model, stop)), [leaf]):
            logits_of(model, leaf)
    except Reached:
        return reached[0]
    return None
