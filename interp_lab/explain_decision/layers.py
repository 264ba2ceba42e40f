r"""The linear layers of a running network, each with the backward pass that a rule gives it.

Layer-wise relevance propagation, deep Taylor decomposition and the pattern methods rewrite the backward pass of
every linear layer :math:`z = L(a; w) + b` (convolution, dense layer, product with a constant matrix). BatchNorm in
eval mode is affine and is folded into the layer before it; where there is none it is left to its gradient.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .contract import Model, UnsupportedModelError, logits_of
from .interception import Interception, Replacement, Rule, operations, origin


@dataclass(eq=False)
class Layer:
    """One call of a linear layer.

    Attributes:
        name: the module's name in the model, "" where the weight is no parameter of it.
        kind: "convolution" or "dense".
        index: position among the linear layers in the order of their calls.
        is_input: whether it reads the input x, directly or through operations without weights.
        a, weight, bias: what it reads; ``bias`` may be None.
        z: its value, differentiable to ``a``; BatchNorm included where it was folded.
        bounds: further inputs of the same layer, made from bounds of x (see ``lrp``).
        rows: whether the units are dimension 0 of the weight (not so in a transposed convolution).
    """

    name: str
    kind: str
    index: int
    is_input: bool
    apply: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    a: Tensor
    weight: Tensor
    bias: Tensor | None
    z: Tensor
    rows: bool
    bounds: Sequence[Tensor] = ()
    version: int = field(init=False)

    def __post_init__(self) -> None:
        self.version = self.a._version


LayerRule = Callable[[Layer, Tensor], Sequence[Tensor]]  # (layer, signal at z) -> signal at a and at each bound


class LinearLayer(Replacement):
    """A linear layer whose backward pass is a rule of the layer and the signal above."""

    @staticmethod
    def forward(ctx, layer: Layer, rule: LayerRule, *inputs: Tensor) -> Tensor:
        ctx.layer, ctx.rule = layer, rule
        return layer.z.detach().clone()  # the model may change what it gets in place; the rule needs z

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.layer.a._version != ctx.layer.version:
            raise UnsupportedModelError(f"the input of layer {ctx.layer.name!r} is changed in place after it is read")
        with torch.enable_grad():
            return None, None, *ctx.rule(ctx.layer, g)


def layer_table(
    model: Model, leaves: Sequence[Tensor], replace: Callable[[Layer, Tensor], Tensor]
) -> dict[Callable, Rule]:
    """The table that hands every linear layer, with the tensor it reads, to ``replace``."""
    parameters = model.named_parameters() if isinstance(model, nn.Module) else ()
    names = {id(p): name.rpartition(".")[0] for name, p in parameters}
    count = 0

    def keep(layer: Layer, read: Tensor) -> Tensor:
        out = replace(layer, read)
        out.made_by = (out._version, layer, read)  # for a BatchNorm that follows
        return out

    def build(kind: str, apply: Callable, read: Tensor, parameter: Tensor, bias: Tensor | None, rows: bool) -> Tensor:
        nonlocal count
        name = names.get(id(parameter), "")
        for constant in (parameter, bias):
            if origin(constant, leaves):
                raise UnsupportedModelError(f"the weight or bias of a {kind} layer depends on x")
        weight, bias = parameter.detach(), None if bias is None else bias.detach()
        a = read.detach().requires_grad_()
        z = apply(a, weight, bias)
        is_input = origin(read, leaves) == "input"
        layer = Layer(name, kind, count, is_input, apply, a, weight, bias, z, rows)
        count += 1
        return keep(layer, read)

    def with_weight(kind: str, rows: bool = True) -> Rule:
        def rule(func, args, kwargs):
            def call(input, weight, bias=None, *rest, **options):
                return build(kind, lambda a, w, b: func(a, w, b, *rest, **options), input, weight, bias, rows)

            return call(*args, **kwargs)

        return rule

    def product(func, args, kwargs):
        left, right = args
        if not origin(right, leaves):
            return build("dense", lambda a, w, b: func(a, w), left, right, None, False)
        if not origin(left, leaves):
            return build("dense", lambda a, w, b: func(w, a), right, left, None, False)
        return func(left, right)  # no layer: the graph search refuses it

    def batch_norm(func, args, kwargs):
        z = args[0]
        version, layer, read = getattr(z, "made_by", (None, None, None))
        affine = _affine(*args, **kwargs)
        foldable = version == z._version and layer.rows and layer.weight.dim() == z.dim()
        if not foldable or affine is None:
            return func(*args, **kwargs)
        scale, shift = affine
        folded = dataclasses.replace(
            layer,
            weight=layer.weight * scale.view(-1, *[1] * (layer.weight.dim() - 1)),
            bias=shift if layer.bias is None else layer.bias * scale + shift,
            z=func(layer.z, *args[1:], **kwargs),
        )
        return keep(folded, read)

    convolutions, transposed = (operations(*[f"{name}{d}d" for d in (1, 2, 3)]) for name in ("conv", "conv_transpose"))
    return {
        **dict.fromkeys(convolutions, with_weight("convolution")),
        **dict.fromkeys(transposed, with_weight("convolution", rows=False)),
        **dict.fromkeys(operations("linear"), with_weight("dense")),
        **dict.fromkeys(operations("matmul", "mm", "__matmul__"), product),
        F.batch_norm: batch_norm,
    }


def _affine(
    input: Tensor, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5
) -> tuple[Tensor, Tensor] | None:
    """Scale and shift of a call of ``F.batch_norm`` in eval mode; None with the statistics of the batch."""
    if training or running_mean is None:
        return None
    scale = (running_var + eps).rsqrt() * (1 if weight is None else weight.detach())
    return scale, (0 if bias is None else bias.detach()) - running_mean * scale


def first_layer(model: Model, leaf: Tensor) -> tuple[Layer, Tensor] | None:
    """The first linear layer that the model calls on this input and what it reads; the model runs no further."""

    class Reached(Exception):
        pass

    reached: list[tuple[Layer, Tensor]] = []

    def stop(layer: Layer, read: Tensor) -> Tensor:
        reached.append((layer, read))
        raise Reached

    try:
        with Interception(layer_table(model, [leaf], stop), [leaf]):
            logits_of(model, leaf)
    except Reached:
        return reached[0]
    return None
