r"""DeepLIFT: multipliers in place of derivatives.

The network runs on the baseline first, and every nonlinearity's values are kept in the order of the calls. On x, the
backward pass then multiplies by :math:`\Delta y / \Delta z` at each nonlinearity where backpropagation has
:math:`dy / dz`. Linear operations keep their gradient, so the contributions add up to :math:`f_c(x) - f_c(x_0)`. What is
neither linear nor elementwise is written in operations that are, or takes the mean of its Jacobian on the way from the
baseline.
"""

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..backprop.decompositions import FUSED, MAXIMA, written_out
from ..backprop.layers import Layer, LinearLayer, layer_of, layer_table, to_layer
from ..backprop.modified_backprop import (
    BATCH_NORM,
    LAYERS,
    MATRIX_PRODUCT,
    PASSED,
    PRODUCT,
    PRODUCTS,
    QUOTIENT,
    elementwise,
    in_place,
    modified_gradient,
    nodes,
    operation_of,
    passes_between,
    product_table,
    softmax_of,
)
from ..contract import (
    Model,
    Target,
    UnsupportedModelError,
    check_baseline,
    differentiated,
    explaining,
    logits_of,
    pick,
    rounding,
)
from ..contract.interception import (
    BATCH_NORMS,
    BATCH_STATISTICS,
    Interception,
    Replacement,
    Rule,
    every_other,
    name_of,
    operations,
    origin,
    running,
    without_statistics,
    works_in_place,
)

ELEMENTWISE = operations(
    "relu", "relu6", "leaky_relu", "prelu", "rrelu", "threshold", "hardtanh", "hardsigmoid", "hardswish", "sigmoid", "tanh",
    "gelu", "silu", "mish", "elu", "selu", "celu", "softplus", "softsign", "logsigmoid", "tanhshrink", "hardshrink",
    "softshrink", "clamp", "clip", "clamp_min", "clamp_max", "abs", "exp", "log", "log1p", "expm1", "sqrt", "rsqrt", "square",
    "reciprocal", "sin", "cos", "erf", "pow", "__pow__", "__rpow__",
)  # fmt: skip
# Of two values on one piece their difference is exact, so that the quotient is too.
LINEAR_PIECES = operations(
    "relu", "relu6", "leaky_relu", "prelu", "rrelu", "threshold", "hardtanh", "clamp", "clip", "clamp_min", "clamp_max",
    "abs",
)  # fmt: skip
MAX_POOLS = {
    **dict.fromkeys(operations("max_pool1d"), F.max_pool1d),
    **dict.fromkeys(operations("max_pool2d"), F.max_pool2d),
    **dict.fromkeys(operations("max_pool3d"), F.max_pool3d),
    **dict.fromkeys(operations("adaptive_max_pool1d"), F.adaptive_max_pool1d),
    **dict.fromkeys(operations("adaptive_max_pool2d"), F.adaptive_max_pool2d),
    **dict.fromkeys(operations("adaptive_max_pool3d"), F.adaptive_max_pool3d),
}


# Times 1 / b is over b: the rule of a quotient loses no digits where b is near 0 for the baseline, as norms are at 0.
INVERSE = "inverse"  # marks the node of a reciprocal
RECIPROCAL, POWERS = operations("reciprocal"), operations("rsqrt", "pow", "__pow__")
# Of a complex value, along a line of which it has a kink at 0.
MODULUS: dict[Callable, Callable] = dict.fromkeys(
    (torch.abs, Tensor.abs, Tensor.__abs__),
    lambda func, z: torch.view_as_real(z).square().sum(-1).sqrt() if z.is_complex() else NotImplemented,
)
# Of the functions of torch itself, these give the places of the maxima too.
GIVE_PLACES = (torch.adaptive_max_pool1d, torch._C._nn.adaptive_max_pool2d, torch._C._nn.adaptive_max_pool3d)


def deeplift(
    model: Model,
    x: Tensor,
    target: Target = None,
    *,
    baseline: float | Tensor = 0.0,
    rule: str = "rescale",
) -> Tensor:
    r"""DeepLIFT: each input's contribution to the difference of the logit from its value at a baseline.

    .. math:: R_i = (x_i - x_{0,i})\, m_i, \qquad \sum_i R_i = f_c(x) - f_c(x_0),

    with the multipliers :math:`m` chained like derivatives. The multiplier of every operation is a mean of its derivative on
    the way from the baseline, such that its own sum is exact, :math:`\sum_i m_i \Delta z_i = \Delta y`:

    ================== =====================================================================================================
    nonlinearity       :math:`m = \Delta y / \Delta z` (as the mean derivative, where the quotient would lose digits)
    product            the mean of its two orders, :math:`\Delta(ab) = \bar b\,\Delta a + \bar a\,\Delta b`; matrix products too
    quotient y = a / b that of a = yb: :math:`\Delta y = (\Delta a - y_0 \Delta b) / b = (\Delta a - y \Delta b) / b_0`, weighted
                       by :math:`b^2` and :math:`b_0^2`; a times an inverse of b, as 1 / b or rsqrt, too
    maximum            the difference goes to the two places of the maximum; max-pools and minima too
    softmax            :math:`\exp(s - \log\sum\exp s)`, every step by its quotient of differences
    norm               LayerNorm, RMSNorm, GroupNorm, InstanceNorm, vector norms: squares, means, roots and a quotient
    anything else      :math:`\int_0^1 \partial y/\partial z\,(z_0 + t \Delta z)\,dt` by Gauss-Legendre quadrature, with as many
                       points (at most 128) as make its sum right to 1e-9
    ================== =====================================================================================================

    Attention and recurrent layers are written out in these. A function written in another way may have other contributions,
    of the same sum: the rule is one of each operation, unlike :func:`integrated_gradients`, which is one of the network.
    ``"reveal_cancel"`` is ``"rescale"``, but right after a dense layer (with what scales and shifts its values by constants,
    as BatchNorm does) a nonlinearity splits :math:`\Delta z` into its positive and negative contributions and averages both
    orders of adding them.

    Shrikumar, Greenside & Kundaje 2017, arXiv:1704.02685; the mean of the derivative: Aumann & Shapley 1974 (Values of
    Non-Atomic Games), Sundararajan et al. 2017, arXiv:1703.01365.

    Args:
        model: a module or function from ``(N, ...)`` to logits ``(N, K)`` that calls the same operations for any input.
        x: float batch ``(N, ...)``.
        target: None (the class predicted for x), an int, or a LongTensor ``(N,)``.
        baseline: :math:`x_0`, a number or a tensor that broadcasts to the shape of x.
        rule: ``"rescale"`` or ``"reveal_cancel"``.

    Returns:
        The contributions, of the shape, dtype and device of x.

    Raises:
        ValueError: x, target, the logits or an option are not as above.
        UnsupportedModelError: by name, an operation that the interception cannot see (compiled code, a user's
            ``autograd.Function``), one that gives several tensors (sort, topk), one that jumps or has a kink between the baseline and x (rounding, ``grid_sample`` at places from x) or has no
            gradient (a mask or an index from x); a softmax as the last operation; a model that takes another way for
            the baseline than for x.

    >>> model = lambda x: torch.relu(x.sum(1, keepdim=True) - 1)
    >>> deeplift(model, torch.tensor([[1.0, 2.0]]))  # f(x) - f(0) = 2, in proportion to the differences 1 and 2
    tensor([[0.6667, 1.3333]])
    """
    if rule not in ("rescale", "reveal_cancel"):
        raise ValueError(f"rule must be 'rescale' or 'reveal_cancel', got {rule!r}")
    with explaining(model, x) as x:
        reference = check_baseline(baseline, x)
        found = None
        # One row's values serve all, unless the model moves the batch dimension: a quarter of the time less.
        if (reference == reference[:1]).all():
            with contextlib.suppress(ValueError, RuntimeError):
                found = _multiplier(model, x, target, reference[:1], rule)
        if found is None:
            found = _multiplier(model, x, target, reference, rule)
        multiplier, value, start = found
        attribution = (x.detach() - reference) * multiplier
        eps = rounding()
    _check_sum(attribution, value.detach(), start, eps)
    return attribution


def _check_sum(attribution: Tensor, value: Tensor, start: Tensor, eps: float) -> None:
    """Refuse contributions that do not sum to the difference of the logits, beyond rounding."""
    parts = attribution.flatten(1)
    off = (parts.sum(1) - (value - start)).abs() / (value.abs() + start.abs() + parts.abs().sum(1)).clamp(
        min=torch.finfo(value.dtype).tiny
    )
    if not (off <= eps**0.5).all():
        row = int(off.argmax())
        raise UnsupportedModelError(
            f"the contributions of row {row} sum to {parts[row].sum():.4g}, and not to the difference "
            f"{value[row] - start[row]:.4g} from the baseline: does the model take another way for it, as a branch on values "
            "of x, or is it random?"
        )


def _multiplier(model: Model, x: Tensor, target: Target, reference: Tensor, rule: str) -> tuple[Tensor, Tensor, Tensor]:
    """The model runs on the reference, of x's shape or one row for all rows of x, and then on x; its logits ``(N,)`` for both."""
    leaf = reference.clone().requires_grad_()
    kept: list[tuple[Callable, list[Tensor]]] = []

    def record(func: Callable, *operands: Tensor) -> None:
        kept.append((func, [operand.detach().clone() for operand in operands]))

    with Interception(_table(model, record, rule), [leaf]):
        start = logits_of(model, leaf).detach()
    calls = iter(kept)

    def recall(func: Callable, *operands: Tensor) -> list[Tensor]:
        recorded, references = next(calls, (None, []))
        if recorded is not func or [_rows(r, len(reference)) for r in references] != [
            _rows(o, len(x)) for o in operands
        ]:
            raise UnsupportedModelError(OTHER_WAY)
        return references

    ends: list[Tensor] = []

    def choose(logits: Tensor) -> Tensor:
        classes = logits.argmax(1) if target is None else target
        ends.extend(pick(each.expand_as(logits), classes) for each in (logits, start))
        return ends[0]

    (multiplier,) = modified_gradient(model, x, choose, _table(model, recall, rule), allowed=ALLOWED)
    if next(calls, None) is not None:
        raise UnsupportedModelError(OTHER_WAY)
    return multiplier, ends[0], ends[1]


def _rows(value: Tensor, batch: int) -> tuple[bool, ...]:
    """The shape of a value, with whether its first dimension is the batch in place of that dimension's size."""
    return bool(value.dim() > 0 and len(value) == batch), *value.shape[1:]


ALLOWED = PASSED | BATCH_NORM | LAYERS | PRODUCTS
SOFTMAX = (torch.softmax, Tensor.softmax, torch.special.softmax, torch.log_softmax, Tensor.log_softmax)
OTHER_WAY = "the model calls other operations for the baseline than for x, so that their values cannot be paired"


def _table(model: Model, pair: Callable[..., list[Tensor] | None], rule: str) -> dict[Callable, Rule]:
    """The table of both passes: ``pair`` keeps a call's operands (baseline) or gives those kept (x)."""

    def nonlinearity(func, args, kwargs):
        rest = args[1:]
        if any(origin(value) for value in (*rest, *kwargs.values())) or args[0].is_complex():
            return NotImplemented  # of two activations
        if func in POWERS and _exponent(func, *args[1:], **kwargs) is not None:
            return NotImplemented  # written as a reciprocal
        z, phi, inplace = elementwise(func, args, kwargs)
        layer = layer_of(z) if rule == "reveal_cancel" else None
        way = to_layer(layer, z) if layer and layer.kind == "dense" else None
        if way and way[0] and any(isinstance(value, Tensor) and value.dim() for value in (*rest, *kwargs.values())):
            raise UnsupportedModelError(
                f"{func.__name__!r} has parameters, and a dense layer's values are moved before it"
            )
        references = pair(func, layer.z, layer.a) if way else pair(func, z)
        smooth = func not in LINEAR_PIECES
        if references is None:
            out, inplace = func(*args, **kwargs), False
        elif way:
            out = RevealCancel.apply(phi, smooth, z, layer.read, layer, way[0], *references)
        else:
            out = Rescale.apply(phi, smooth, z, *references)
        if func in RECIPROCAL:
            out.grad_fn.metadata[INVERSE] = True
        return in_place(args[0], out) if inplace else out

    def max_pool(func, args, kwargs):
        y, at = MAX_POOLS[func](*args, **{**kwargs, "return_indices": True})
        references = pair(func, args[0], y, at)
        y = y if references is None else MaxPool.apply(args[0], [y.detach(), at], *references)
        return (y, at) if func in GIVE_PLACES else y

    def product(multiply, a, b):
        references = pair(multiply, a, b)
        if references is None:
            return multiply(a, b)
        a0, b0 = references
        if multiply is torch.mul and _is_inverse(a) != _is_inverse(b):
            return InverseFactor.apply(b, a, b0, a0) if _is_inverse(a) else InverseFactor.apply(a, b, a0, b0)
        return MeanOrder.apply(multiply, a, b, a0, b0)

    def quotient(a, b):
        references = pair(torch.div, a, b)
        return a / b if references is None else MeanQuotient.apply(a, b, *references)

    def softmax(func, args, kwargs):
        s, dim = softmax_of(*args, **kwargs)
        references = pair(func, s)
        if references is None:
            return func(*args, **kwargs)
        return (LogSoftmax if "log" in func.__name__ else Softmax).apply(s, *references, dim)

    def other(func, args, kwargs):
        """What is not linear and has no rule of its own takes the mean of its Jacobian."""
        if func in BATCH_NORMS and without_statistics(func, args, kwargs):
            raise UnsupportedModelError(BATCH_STATISTICS)
        if works_in_place(func, args, kwargs):
            return NotImplemented
        values, structure = tree_flatten((args, kwargs))
        places = [k for k, value in enumerate(values) if origin(value)]
        out = func(*args, **kwargs)
        operands = [values[k] for k in places]
        if not isinstance(out, Tensor) or passes_between(out, operands, ALLOWED):
            return out
        references = pair(func, *operands)
        if references is None:
            return out

        def call(*given: Tensor) -> Tensor:
            at_place = dict(zip(places, given, strict=True))
            now = [at_place.get(k, _wide(value)) for k, value in enumerate(values)]
            args, kwargs = tree_unflatten(now, structure)
            return func(*args, **kwargs)

        return MeanJacobian.apply(name_of(func), call, [out.detach()], *operands, *references)

    table: dict[Callable, Rule] = {
        **dict.fromkeys(ELEMENTWISE, nonlinearity),
        **dict.fromkeys(MAX_POOLS, max_pool),
        **product_table(partial(product, torch.mul), *PRODUCT),
        **product_table(quotient, *QUOTIENT),
        **{func: product_table(partial(product, func), func.__name__)[func] for func in operations(*MATRIX_PRODUCT)},
        **dict.fromkeys(SOFTMAX, softmax),
        every_other: other,
    }
    if rule == "reveal_cancel":
        table = layer_table(model, lambda layer: LinearLayer.apply(layer, _gradient, layer.read), table)
    more: dict[Callable, Callable] = {**MAXIMA, **FUSED, **dict.fromkeys(POWERS, _reciprocal), **MODULUS}
    return written_out(table, more)


def _exponent(func: Callable, exponent: object = -0.5) -> float | None:
    """The power of the reciprocal as which a negative power is written, and None for any other exponent."""
    return -exponent if isinstance(exponent, int | float) and exponent < 0 else None


def _reciprocal(func: Callable, z: Tensor, *exponent: object, **named: object) -> Tensor:
    power, inplace = _exponent(func, *exponent, **named), works_in_place(func, (z,), {})
    if power is None:
        return NotImplemented
    base = z.clone() if inplace else z
    value = (torch.sqrt(base) if power == 0.5 else base if power == 1 else base**power).reciprocal()
    return in_place(z, value) if inplace else value


MOVED = nodes(
    "Clone", "ToCopy", "Alias", "View", "UnsafeView", "ReshapeAlias", "AsStrided", "T", "Transpose", "Permute", "Expand",
    "Repeat", "Squeeze", "Unsqueeze", "Select", "Slice", "Narrow", "Index", "IndexSelect", "Gather", "Flip", "Movedim",
) | {"CopyBackwards"}  # fmt: skip
SCALED = nodes("Mul", "Div", "Neg")


def _is_inverse(factor: Tensor) -> bool:
    """Whether the values are reciprocals, moved and times constants."""
    node: Any = factor.grad_fn
    while node and INVERSE not in node.metadata:
        parents = [parent for parent, _ in node.next_functions if parent and running().origin_of(parent)]
        if operation_of(node) == "CopyBackwards":
            parents = parents[-1:]  # the source
        node = parents[0] if operation_of(node) in MOVED | SCALED and len(parents) == 1 else None
    return node is not None


def _gradient(layer: Layer, g: Tensor) -> Sequence[Tensor]:
    return torch.autograd.grad(layer.z, [layer.a], g, retain_graph=True)


class Rescale(Replacement):
    """An elementwise nonlinearity whose multiplier is (phi(z) - phi(z0)) / (z - z0)."""

    @staticmethod
    def forward(ctx, phi: Callable, smooth: bool, z: Tensor, z0: Tensor) -> Tensor:
        ctx.save_for_backward(_slope(phi, smooth, z.detach(), z0, _difference(z.detach(), z0)))
        return phi(z.detach())

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, g * ctx.saved_tensors[0], None


def _slope(phi: Callable, smooth: bool, z: Tensor, z0: Tensor, difference: Tensor) -> Tensor:
    """The difference quotient; where its rounding error covers the mean derivative between z0 and z, that one."""
    eps = torch.finfo(z.dtype).eps
    same, exact = difference.abs() <= 10 * eps * z.abs(), not smooth
    if smooth and z.dtype != torch.float64 and z.device.type != "mps":  # which has no float64
        # In single precision phi itself may lose digits, as tanhshrink does.
        y, y0, exact = phi(z.double()), phi(z0.double()), True
    else:
        y, y0 = phi(z), phi(z0)
    slope = (y - y0).div_(difference).to(z.dtype)
    if exact and not same.any():
        return slope
    nodes = (0.5 - 0.5 / 3**0.5, 0.5 + 0.5 / 3**0.5)  # Gauss-Legendre
    places = [z] if exact else [z0 + node * difference for node in nodes]
    with torch.enable_grad():
        leaves = [place.detach().requires_grad_() for place in places]
        slopes = torch.stack([torch.autograd.grad(phi(leaf).sum(), leaf)[0] for leaf in leaves])
    derivative = slopes.mean(0).nan_to_num(0, 0, 0)  # the root of 0 is upright, but what stays 0 needs no multiplier
    if not exact:
        rounding = 16 * eps * (y.abs() + y0.abs())
        same = same | (((slope - derivative) * difference).abs() <= rounding)
    return torch.where(same, derivative, slope)


class RevealCancel(Replacement):
    """A nonlinearity after a dense layer: positive and negative contributions each have their multiplier."""

    @staticmethod
    def forward(
        ctx, phi: Callable, smooth: bool, z: Tensor, read: Tensor, layer: Layer, to_z, z0: Tensor, a0: Tensor
    ) -> Tensor:
        ctx.layer, ctx.to_z, z_here, change = layer, to_z, layer.z.detach(), (layer.a - a0).detach()
        up, down = change.clamp(min=0), change.clamp(max=0)
        w_up, w_down = layer.weight.clamp(min=0), layer.weight.clamp(max=0)
        positive = layer.apply(up, w_up, None) + layer.apply(down, w_down, None)
        negative = layer.apply(up, w_down, None) + layer.apply(down, w_up, None)

        def mean(first: Tensor, other: Tensor) -> Tensor:
            """The mean slope of adding ``first`` before and after ``other``."""
            before, after = (
                _slope(phi, smooth, end, start, first) for start, end in ((z0, z0 + first), (z0 + other, z_here))
            )
            return (before + after) / 2

        ctx.save_for_backward(change, w_up, w_down, mean(positive, negative), mean(negative, positive))
        return phi(z.detach())

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        change, w_up, w_down, m_positive, m_negative = ctx.saved_tensors
        layer = ctx.layer
        g = g if ctx.to_z is None else ctx.to_z(g)
        signals = [g * m_positive, g * m_negative]
        with torch.enable_grad():
            leaf = change.detach().requires_grad_()
            through_up, through_down = layer.apply(leaf, w_up, None), layer.apply(leaf, w_down, None)
        (rising,) = torch.autograd.grad([through_up, through_down], leaf, signals, retain_graph=True)
        (falling,) = torch.autograd.grad([through_down, through_up], leaf, signals)
        signal = torch.where(change > 0, rising, torch.where(change < 0, falling, (rising + falling) / 2))
        return None, None, None, signal, None, None, None, None


class MaxPool(Replacement):
    """Max-pooling: the difference of the maxima goes to the two places of the maximum."""

    @staticmethod
    def forward(ctx, z: Tensor, value: list[Tensor], z0: Tensor, y0: Tensor, at0: Tensor) -> Tensor:
        y, at = value  # in a list: the result must not be an input
        top = torch.maximum(y, y0)
        ctx.save_for_backward(z - z0, top - y0, y - top, at, at0)
        return y

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        difference, rise, fall, at, at0 = ctx.saved_tensors
        dims = difference.dim() - 2

        def unpool(values: Tensor, places: Tensor) -> Tensor:
            # Windows may overlap: add, do not assign.
            flat = torch.zeros_like(difference).flatten(-dims)
            return flat.scatter_add_(-1, places.flatten(-dims), values.flatten(-dims)).view_as(difference)

        share = unpool(g * rise, at) + unpool(g * fall, at0.expand_as(at))
        return torch.where(difference == 0, unpool(g, at), share / difference), None, None, None, None


class MeanOrder(Replacement):
    """A product of two activations: the mean of changing one factor first and the other first."""

    @staticmethod
    def forward(ctx, multiply: Callable, a: Tensor, b: Tensor, a0: Tensor, b0: Tensor) -> Tensor:
        with torch.enable_grad():
            ctx.means = [((value + start) / 2).requires_grad_() for value, start in ((a, a0), (b, b0))]
            ctx.product = multiply(*ctx.means)
        return multiply(a, b)

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        return None, *torch.autograd.grad(ctx.product, ctx.means, g, retain_graph=True), None, None


class MeanQuotient(Replacement):
    r"""y = a / b of two activations, which is the product a = y b read backwards, in both of its orders.

    dy = (da - y0 db) / b = (da - y db) / b0, weighted by the squares of what they divide by: neither a divisor near 0 at
    one end makes terms that are large and cancel, nor one that changes its sign.
    """

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, a0: Tensor, b0: Tensor) -> Tensor:
        y, squares = a / b, b.square() + b0.square()
        ctx.save_for_backward((b + b0) / squares, -(b * (a0 / b0) + b0 * y) / squares)
        ctx.shapes = a.shape, b.shape
        return y

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        of_a, of_b = ctx.saved_tensors
        return (g * of_a).sum_to_size(ctx.shapes[0]), (g * of_b).sum_to_size(ctx.shapes[1]), None, None


class InverseFactor(MeanQuotient):
    r"""y = a v, where v is an inverse: the same rule, whose weights :math:`b^2` and :math:`b_0^2` are those of 1 / v."""

    @staticmethod
    def forward(ctx, a: Tensor, v: Tensor, a0: Tensor, v0: Tensor) -> Tensor:
        first, last = 1 / (1 + (v / v0).square()), 1 / (1 + (v0 / v).square())
        ctx.save_for_backward(first * v + last * v0, first * a0 + last * a)
        ctx.shapes = a.shape, v.shape
        return a * v


class LogSoftmax(Replacement):
    r"""log p = s - log S, S the sum of exp(s): every step by its difference quotient.

    With L(a, b) = (a - b) / (log a - log b) the multiplier of log S is L(exp(s), exp(s0)) / L(S, S0), at most 1 in sum.
    """

    @staticmethod
    def forward(ctx, s: Tensor, s0: Tensor, dim: int) -> Tensor:
        wide, wide0 = _wide(s), _wide(s0)
        d_log = _difference(wide.logsumexp(dim, keepdim=True), wide0.logsumexp(dim, keepdim=True))
        log, log0 = wide.log_softmax(dim), wide0.log_softmax(dim)
        middle = ((log + log0) / 2).exp()
        weight = middle * _sinhc(_difference(wide, wide0) / 2) / _sinhc(d_log / 2)
        ctx.save_for_backward(weight.to(s), (middle * _sinhc(_difference(log, log0) / 2)).to(s))
        ctx.dim = dim
        return log.to(s)

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        return g - ctx.saved_tensors[0] * g.sum(ctx.dim, keepdim=True), None, None


class Softmax(LogSoftmax):
    """The exponential of that."""

    @staticmethod
    def forward(ctx, s: Tensor, s0: Tensor, dim: int) -> Tensor:
        return LogSoftmax.forward(ctx, s, s0, dim).exp()

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        return LogSoftmax.backward(ctx, g * ctx.saved_tensors[1])


def _sinhc(x: Tensor) -> Tensor:
    return torch.where(x == 0, 1, x.sinh() / x)


class MeanJacobian(Replacement):
    r"""Any operation y(z): its multiplier is the mean of its Jacobian on the straight line from z0 to z.

    By Gauss-Legendre quadrature, with as many points as it takes until the operation's own sum is its difference. This is
    the integrated gradients of one operation (Sundararajan et al. 2017, arXiv:1703.01365).
    """

    @staticmethod
    def forward(ctx, name: str, call: Callable[..., Tensor], value: list[Tensor], *ends: Tensor) -> Tensor:
        ctx.name, ctx.call = name, call
        ctx.save_for_backward(*ends)
        return value[0]

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        saved, call, g = ctx.saved_tensors, ctx.call, _wide(g)
        half = len(saved) // 2
        ends = [_wide(end) for end in saved[:half]]
        steps = [_difference(end, _wide(start)) for end, start in zip(ends, saved[half:], strict=True)]

        def places(back: float) -> list[Tensor]:
            return [(end - back * step).requires_grad_() for end, step in zip(ends, steps, strict=True)]

        difference = [_inner(g, call(*ends)), -_inner(g, call(*places(1.0)))]
        for count in (1, 2, 4, 8, 16, 32, 64, 128):
            means = [torch.zeros_like(step) for step in steps]
            for node, weight in zip(*np.polynomial.legendre.leggauss(count), strict=True):
                with torch.enable_grad():
                    leaves = places((1 - node) / 2)
                    here = differentiated(call(*leaves), leaves, g)
                means = [mean + weight / 2 * part for mean, part in zip(means, here, strict=True)]
            shares = [-_inner(mean, step) for mean, step in zip(means, steps, strict=True)]
            terms = torch.stack([*difference, *shares])
            if terms.sum().abs() <= 1e-9 * terms.abs().sum():
                return (
                    None,
                    None,
                    None,
                    *(mean.to(end) for mean, end in zip(means, saved, strict=False)),
                    *half * (None,),
                )
        raise UnsupportedModelError(
            f"no multiplier for the operation {ctx.name!r}: {count} derivatives between its values for the baseline and for x "
            "do not add up to its difference (does it jump or have a kink there?)"
        )


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a.conj() * b).real.sum() if a.is_complex() or b.is_complex() else (a * b).sum()


def _difference(z: Tensor, z0: Tensor) -> Tensor:
    """z - z0, and 0 where both are infinite as a masked score is."""
    return torch.where(z == z0, 0, z - z0)


def _wide(value):
    """A tensor in double precision, where the device has it; anything else as it is."""
    if not isinstance(value, Tensor) or value.device.type == "mps":
        return value
    wide = {True: torch.float64, False: torch.complex128}
    inexact = value.is_floating_point() or value.is_complex()
    return value.detach().to(wide[value.is_floating_point()]) if inexact else value
