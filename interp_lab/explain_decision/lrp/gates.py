"""What is no linear layer: a nonlinearity hands its relevance down, of a product the signal takes all or half.

A softmax has its gradient, and what is divided by a deviation takes all: with the halves of a product these are the rules
of AttnLRP. In CP-LRP the softmax's weights are constants.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...backprop.modified_backprop import (
    CHOICES,
    CONVOLUTION,
    MATRIX_PRODUCT,
    MAX_POOLS,
    PASSED,
    PRODUCT,
    QUOTIENT,
    elementwise,
    in_place,
    nodes,
    operation_of,
    product_table,
    softmax_of,
)
from ...contract import UnsupportedModelError
from ...contract.interception import Replacement, Rule, operations, origin, running
from .rules import Options, PositiveSum, ratio

# Their gradient is y / z: what they pass on is what the rule for any other nonlinearity gives.
PROPORTIONAL = nodes("Relu", "LeakyRelu", "PreluKernel", "Abs")


NONLINEAR = operations(
    "sigmoid", "tanh", "gelu", "silu", "hardswish", "mish", "elu", "selu", "celu", "softplus", "softsign", "logsigmoid",
    "tanhshrink", "hardshrink", "softshrink", "relu6", "hardtanh", "hardsigmoid", "threshold", "rrelu", "clamp", "clip",
    "clamp_min", "clamp_max", "pow", "__pow__", "square", "sqrt", "rsqrt", "reciprocal", "sin", "cos", "erf", "expm1",
    "log", "log1p", "atan", "sinh", "asinh",
)  # fmt: skip


class Proportional(Replacement):
    """A nonlinearity y = phi(z) that hands its relevance down unchanged: z c_z = y c_y."""

    @staticmethod
    def forward(ctx, z: Tensor, phi: Callable[[Tensor], Tensor], gate: int, lost: list[Tensor] | None) -> Tensor:
        y = phi(z)
        ctx.save_for_backward(ratio(y, z, torch.finfo(z.dtype).tiny))
        ctx.gate, ctx.lost, ctx.stuck = gate, lost, None if lost is None else torch.where(z == 0, y, 0)
        return y

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.lost is not None:
            ctx.lost.append((ctx.stuck * g).sum())  # z = 0 can hold no relevance
        return g * ctx.saved_tensors[0], None, None, None


def proportional(func: Callable, args: tuple, kwargs: dict, *, o: Options) -> Tensor:
    if any(origin(value) for value in (*args[1:], *kwargs.values())) or args[0].is_complex():
        return NotImplemented  # of two activations: the graph search decides
    z, phi, inplace = elementwise(func, args, kwargs)
    gate = _gate(func.__name__.strip("_"), args, kwargs) or _gate_of(z)  # what is clamped stays a gate
    out = Proportional.apply(z, phi, gate, o.lost)
    return in_place(args[0], out) if inplace else out


def _gate(name: str, args: tuple, kwargs: dict) -> int:
    """How much a nonlinearity is a gate's: 2 made for it, or a divisor; 1 bounded and not negative, 0 neither."""
    if name in ("sigmoid", "hardsigmoid", "rsqrt", "reciprocal"):
        return 2
    if name == "hardtanh":
        return int((args[1] if len(args) > 1 else kwargs.get("min_val", -1)) >= 0)
    if name in ("clamp", "clip"):
        low, high = (*args[1:], kwargs.get("min"), kwargs.get("max"), None)[:2] if len(args) < 3 else args[1:3]
        return int(isinstance(low, (int, float)) and isinstance(high, (int, float)) and low >= 0)
    return int(name == "relu6")


def _gate_of(tensor: Tensor) -> int:
    """The weakest gate of those that the values come from by linear operations with constants; 0 if not all do."""
    weakest, seen, stack = 2, set(), [tensor.grad_fn]
    while stack and weakest:
        node = stack.pop()
        if node is None or node in seen or (operation_of(node) == "AccumulateGrad" and not running().is_leaf(node)):
            continue  # a constant
        seen.add(node)
        parents = [parent for parent, _ in node.next_functions]
        if isinstance(gate := getattr(node, "gate", None), int):
            weakest = min(weakest, gate)
        elif operation_of(node) == "CopyBackwards":
            stack.append(parents[-1])  # the source
        elif operation_of(node) in MOVED_AND_SCALED or getattr(node, "_forward_cls", None) is PositiveSum:
            stack += parents
        else:
            weakest = 0
    return weakest


MOVED_AND_SCALED = PASSED | MAX_POOLS | CHOICES | nodes("Mul", "Div")


class Product(Replacement):
    """A product of two activations, of which the first gets this share of the relevance; of two gates it is one."""

    @staticmethod
    def forward(ctx, multiply: Callable, a: Tensor, b: Tensor, share: float, gate: int) -> Tensor:
        with torch.enable_grad():
            ctx.factors = [factor.detach().requires_grad_() for factor in (a, b)]
            ctx.value = multiply(*ctx.factors)
        ctx.share, ctx.gate = share, gate
        return ctx.value.detach()

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        a, b = torch.autograd.grad(ctx.value, ctx.factors, g, retain_graph=True)
        return None, a * ctx.share, b * (1 - ctx.share), None, None


def _product(a: Tensor, b: Tensor) -> Tensor:
    """The signal takes all and the gate is its weight: what a gate's nonlinearity gives, else the broadcast factor."""
    gates = _gate_of(a), _gate_of(b)
    difference = gates[0] - gates[1] or b.numel() - a.numel()
    return Product.apply(torch.mul, a, b, 0.5 if difference == 0 else float(difference < 0), min(gates))


def _sum_of_products(multiply: Callable, a: Tensor, b: Tensor, *, o: Options) -> Tensor:
    """Each factor of a matrix product gets half; in CP-LRP attention weights are constants, and the values take all."""
    difference = _gate_of(a) - _gate_of(b) if o.attention == "cp_lrp" else 0
    return Product.apply(multiply, a, b, 0.5 if difference == 0 else float(difference < 0), 0)


def _einsum(func: Callable, args: tuple, kwargs: dict, *, o: Options):
    equation, *operands = args
    operands = list(operands[0]) if isinstance(operands[0], list | tuple) else operands
    places = [k for k, operand in enumerate(operands) if origin(operand)]
    if len(places) != 2:
        return NotImplemented

    def multiply(a: Tensor, b: Tensor) -> Tensor:
        factors = dict(zip(places, (a, b), strict=True))
        return func(equation, *(factors.get(k, operand) for k, operand in enumerate(operands)))

    return _sum_of_products(multiply, *(operands[k] for k in places), o=o)


def _filtered(func: Callable, args: tuple, kwargs: dict, *, o: Options) -> Tensor:
    """A convolution with filters that depend on x is a matrix product of two activations."""

    def call(input: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **options: Any) -> Tensor:
        if not origin(input):
            return NotImplemented
        z = _sum_of_products(lambda a, w: func(a, w, None, *rest, **options), input, weight, o=o)
        return z if bias is None else z + bias.view(-1, *[1] * (weight.dim() - 2))

    return call(*args, **kwargs)


class Softmax(Replacement):
    """A softmax with its gradient, which absorbs the relevance that its exponential has at 0, or with none (CP-LRP)."""

    @staticmethod
    def forward(ctx, s: Tensor, dim: int, o: Options) -> Tensor:
        p = s.softmax(dim)
        ctx.save_for_backward(s, p)
        ctx.dim, ctx.o, ctx.gate = dim, o, 2
        return p

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        s, p = ctx.saved_tensors
        r = p * g
        signal = r - p * r.sum(ctx.dim, keepdim=True) if ctx.o.attention == "attn_lrp" else torch.zeros_like(s)
        if ctx.o.softmax is not None:
            ctx.o.softmax.append((r - torch.where(p == 0, 0, s * signal)).sum())  # a masked score is infinite
        return signal, None, None


def _softmax(func: Callable, args: tuple, kwargs: dict, *, o: Options) -> Tensor:
    return Softmax.apply(*softmax_of(*args, **kwargs), o)


class Exponential(Replacement):
    """A weight of a signal, as the decay of a state is, or part of a softmax; no rule is known for any other."""

    @staticmethod
    def forward(ctx, z: Tensor, o: Options) -> Tensor:
        ctx.gate, ctx.exponent, ctx.o = 2, z, o
        return z.exp()

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor, None]:
        if g.any():
            with torch.enable_grad():
                where = ctx.o.where("ExpBackward")
            raise UnsupportedModelError(
                f"no rule for the operation 'exp'{where} that is neither the weight of a signal nor over its sum, a softmax: pass custom= with "
                "a rule for it or for its module, or use deeplift"
            )
        return g, None


def _exponential(func: Callable, args: tuple, kwargs: dict, *, o: Options) -> Tensor:
    return NotImplemented if args[0].is_complex() else Exponential.apply(args[0], o)


def _exponent(node: Any) -> Tensor | None:
    return getattr(node, "exponent", None)


def _quotient(a: Tensor, b: Tensor, *, o: Options) -> Tensor:
    """What is divided takes all; an exponential over its sum along a dimension is a softmax."""
    total = b.grad_fn
    if total is not None and operation_of(total) == "SumBackward" and a.dim() == b.dim():
        s, summed = (_exponent(node) for node in (a.grad_fn, total.next_functions[0][0]))
        dims = [d for d, n in enumerate(a.shape) if n != b.shape[d]]
        if s is not None and s is summed and len(dims) == 1:
            return Softmax.apply(s, dims[0], o)
    return a / b.detach()


def product_rules(o: Options, attention: bool) -> dict[Callable, Rule]:
    """The rules of products of two activations; with ``attention`` those of quotients, matrix products and softmax too."""
    table = product_table(_product, *PRODUCT)
    if attention:
        table |= product_table(partial(_quotient, o=o), *QUOTIENT)
        table |= dict.fromkeys((torch.exp, Tensor.exp), partial(_exponential, o=o))
        for func in operations(*MATRIX_PRODUCT):
            table |= dict.fromkeys([func], product_table(partial(_sum_of_products, func, o=o), func.__name__)[func])
        table[torch.einsum] = partial(_einsum, o=o)
        table |= dict.fromkeys(operations(*CONVOLUTION), partial(_filtered, o=o))
        table |= dict.fromkeys((torch.softmax, Tensor.softmax, torch.special.softmax), partial(_softmax, o=o))
    return table
