r"""DeepLIFT: multipliers in place of derivatives.

The network runs on the baseline first, and every nonlinearity's values are kept in the order of the calls. On x, the
backward pass then multiplies by :math:`\Delta y / \Delta z` at each nonlinearity where backpropagation has
:math:`dy / dz`. Linear operations keep their gradient, so the contributions add up to :math:`f_c(x) - f_c(x_0)`.
"""

import contextlib
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .contract import Model, Target, UnsupportedModelError, explaining, logits_of, pick
from .gradient_based import check_baseline
from .interception import Interception, Replacement, Rule, operations, origin
from .modified_backprop import (
    BATCH_NORM,
    LAYERS,
    PASSED,
    PRODUCTS,
    elementwise,
    in_place,
    modified_gradient,
    product_table,
)

ELEMENTWISE = operations(
    "relu", "relu6", "leaky_relu", "prelu", "rrelu", "threshold", "hardtanh", "hardsigmoid", "hardswish", "sigmoid", "tanh",
    "gelu", "silu", "mish", "elu", "selu", "celu", "softplus", "softsign", "logsigmoid", "tanhshrink", "hardshrink",
    "softshrink", "clamp", "clip", "clamp_min", "clamp_max", "abs", "exp", "log", "log1p", "expm1", "sqrt", "rsqrt", "square",
    "reciprocal", "sin", "cos", "erf",
)  # fmt: skip
MAX_POOLS = {
    **dict.fromkeys(operations("max_pool1d"), F.max_pool1d),
    **dict.fromkeys(operations("max_pool2d"), F.max_pool2d),
    **dict.fromkeys(operations("max_pool3d"), F.max_pool3d),
    **dict.fromkeys(operations("adaptive_max_pool1d"), F.adaptive_max_pool1d),
    **dict.fromkeys(operations("adaptive_max_pool2d"), F.adaptive_max_pool2d),
    **dict.fromkeys(operations("adaptive_max_pool3d"), F.adaptive_max_pool3d),
}


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

    with the multipliers :math:`m` chained like derivatives. At a nonlinearity ``"rescale"`` takes
    :math:`m = \Delta y / \Delta z` (the derivative where :math:`\Delta z` vanishes); ``"reveal_cancel"`` does so too, but
    right after a dense layer it splits :math:`\Delta z` into its positive and negative contributions and averages
    both orders of adding them. A max-pool sends the difference to the two places of the maximum; a product of two
    activations takes the mean of its two orders, :math:`\Delta(ab) = \bar b\,\Delta a + \bar a\,\Delta b`.

    Shrikumar, Greenside & Kundaje 2017, arXiv:1704.02685.

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
        UnsupportedModelError: an operation without a rule (softmax, LayerNorm, attention, compiled code ...), by name,
            or a model that takes another way for the baseline than for x.
    """
    if rule not in ("rescale", "reveal_cancel"):
        raise ValueError(f"rule must be 'rescale' or 'reveal_cancel', got {rule!r}")
    with explaining(model, x) as x:
        reference = check_baseline(baseline, x)
        multiplier = None
        if (reference == reference[:1]).all():  # one row's values serve all, unless the model moves the batch dimension
            with contextlib.suppress(ValueError, RuntimeError):
                multiplier = _multiplier(model, x, target, reference[:1], rule)
        if multiplier is None:
            multiplier = _multiplier(model, x, target, reference, rule)
        return (x.detach() - reference) * multiplier


def _multiplier(model: Model, x: Tensor, target: Target, reference: Tensor, rule: str) -> Tensor:
    """The model runs on the reference, of x's shape or one row for all rows of x, and then on x."""
    leaf = reference.clone().requires_grad_()
    kept: list[tuple[Callable, list[Tensor]]] = []

    def record(func: Callable, *operands: Tensor) -> None:
        kept.append((func, [operand.detach().clone() for operand in operands]))

    with Interception(_table([leaf], record, rule), [leaf]):
        logits_of(model, leaf)
    calls = iter(kept)

    def recall(func: Callable, *operands: Tensor) -> list[Tensor]:
        recorded, references = next(calls, (None, []))
        if recorded is not func or [_rows(r, len(reference)) for r in references] != [
            _rows(o, len(x)) for o in operands
        ]:
            raise UnsupportedModelError(OTHER_WAY)
        return references

    choose = partial(pick, target=target)
    allowed = PASSED | BATCH_NORM | LAYERS | PRODUCTS
    (multiplier,) = modified_gradient(model, x, choose, _table([x], recall, rule), allowed=allowed)
    if next(calls, None) is not None:
        raise UnsupportedModelError(OTHER_WAY)
    return multiplier


def _rows(value: Tensor, batch: int) -> tuple[bool, ...]:
    """The shape of a value, with whether its first dimension is the batch in place of that dimension's size."""
    return bool(value.dim() > 0 and len(value) == batch), *value.shape[1:]


OTHER_WAY = "the model calls other operations for the baseline than for x, so that their values cannot be paired"


def _table(leaves: Sequence[Tensor], pair: Callable[..., list[Tensor] | None], rule: str) -> dict[Callable, Rule]:
    """The table of both passes: ``pair`` keeps a call's operands (baseline) or gives those kept (x)."""

    def nonlinearity(func, args, kwargs):
        z, *rest = args
        if any(origin(value, leaves) for value in (*rest, *kwargs.values())):
            return func(*args, **kwargs)  # of two activations: the graph search decides
        version, *dense = getattr(z, "dense", (None, None, None))
        cancel = rule == "reveal_cancel" and version == z._version
        references = pair(func, z, *dense[:1]) if cancel else pair(func, z)
        if references is None:
            return func(*args, **kwargs)

        z, phi, inplace = elementwise(func, args, kwargs)
        out = RevealCancel.apply(phi, z, *dense, *references) if cancel else Rescale.apply(phi, z, *references)
        return in_place(args[0], out) if inplace else out

    def max_pool(func, args, kwargs):
        if kwargs.get("return_indices") or any(a is True for a in args):
            raise UnsupportedModelError("this method has no rule for max-pooling that returns its indices")
        y, at = MAX_POOLS[func](*args, **{**kwargs, "return_indices": True})
        references = pair(func, args[0], y, at)
        return y if references is None else MaxPool.apply(args[0], [y.detach(), at], *references)

    def product(a, b):
        references = pair(torch.mul, a, b)
        return a * b if references is None else MeanOrder.apply(a, b, *references)

    def linear(func, args, kwargs):
        out = func(*args, **kwargs)
        weight = args[1] if len(args) > 1 else kwargs["weight"]
        out.dense = (out._version, args[0], weight.detach())
        return out

    return {
        **dict.fromkeys(ELEMENTWISE, nonlinearity),
        **dict.fromkeys(MAX_POOLS, max_pool),
        **product_table(leaves, product),
        **(dict.fromkeys(operations("linear"), linear) if rule == "reveal_cancel" else {}),
    }


class Rescale(Replacement):
    """An elementwise nonlinearity whose multiplier is (phi(z) - phi(z0)) / (z - z0)."""

    @staticmethod
    def forward(ctx, phi: Callable, z: Tensor, z0: Tensor) -> Tensor:
        y = phi(z.detach())
        ctx.save_for_backward(_slope(phi, z.detach(), z0, y, phi(z0)))
        return y

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        return None, g * ctx.saved_tensors[0], None


def _slope(phi: Callable, z: Tensor, z0: Tensor, y: Tensor, y0: Tensor) -> Tensor:
    """The difference quotient; the derivative where z and z0 agree up to rounding."""
    difference = z - z0
    same = difference.abs() <= 10 * torch.finfo(z.dtype).eps * z.abs()
    slope = (y - y0).div_(difference)
    if not same.any():
        return slope
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        (derivative,) = torch.autograd.grad(phi(leaf).sum(), leaf)
    return torch.where(same, derivative, slope)


class RevealCancel(Replacement):
    """A nonlinearity after a dense layer: positive and negative contributions each have their multiplier."""

    @staticmethod
    def forward(ctx, phi: Callable, z: Tensor, a: Tensor, weight: Tensor, z0: Tensor, a0: Tensor) -> Tensor:
        y, y0 = phi(z.detach()), phi(z0)
        difference = (a - a0).detach()
        up, down = difference.clamp(min=0), difference.clamp(max=0)
        w_up, w_down = weight.clamp(min=0), weight.clamp(max=0)
        positive = F.linear(up, w_up) + F.linear(down, w_down)
        negative = F.linear(up, w_down) + F.linear(down, w_up)
        after_positive, after_negative = phi(z0 + positive), phi(z0 + negative)
        m_positive = _quotient((after_positive - y0 + y - after_negative) / 2, positive)
        m_negative = _quotient((after_negative - y0 + y - after_positive) / 2, negative)
        ctx.save_for_backward(difference, w_up, w_down, m_positive, m_negative)
        return y

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        difference, w_up, w_down, m_positive, m_negative = ctx.saved_tensors
        g_positive, g_negative = g * m_positive, g * m_negative
        rising = g_positive @ w_up + g_negative @ w_down
        falling = g_positive @ w_down + g_negative @ w_up
        signal = torch.where(difference > 0, rising, torch.where(difference < 0, falling, (rising + falling) / 2))
        return None, None, signal, None, None, None


def _quotient(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b == 0, 0, a / b)


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
    def forward(ctx, a: Tensor, b: Tensor, a0: Tensor, b0: Tensor) -> Tensor:
        ctx.save_for_backward((a + a0) / 2, (b + b0) / 2)
        return a * b

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        a, b = ctx.saved_tensors
        return (g * b).sum_to_size(a.shape), (g * a).sum_to_size(b.shape), None, None
