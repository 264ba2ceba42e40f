r"""Deconvnet, guided backpropagation and RectGrad: three ways back through a ReLU.

With the backward signal :math:`g` above a ReLU and its output :math:`a`, the gradient passes :math:`g` where
:math:`a > 0`. The three methods change that line and nothing else.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from .contract import Model, Target, UnsupportedModelError, explaining, pick
from .decompositions import written_out
from .interception import Replacement, operations
from .modified_backprop import (
    BATCH_NORM,
    CHOICES,
    LAYERS,
    MAX_POOLS,
    PASSED,
    PRODUCTS,
    modified_gradient,
    works_in_place,
)

ALLOWED = PASSED | BATCH_NORM | LAYERS | PRODUCTS | MAX_POOLS | CHOICES
ReluRule = Callable[[Tensor, Tensor], Tensor]  # (output a, signal g) -> signal below


def deconvnet(model: Model, x: Tensor, target: Target = None) -> Tensor:
    r"""Deconvnet: at every ReLU the backward signal is rectified, :math:`g \to \max(g, 0)`.

    Zeiler & Fergus 2014, arXiv:1311.2901; started at the logit of the target. Max-pools pass the signal to the place
    of the maximum.

    Args:
        model: a module or function from ``(N, ...)`` to logits ``(N, K)`` whose only nonlinearities are ReLU and
            max-pooling.
        x: float batch ``(N, ...)``.
        target: None (the predicted class), an int, or a LongTensor ``(N,)``.

    Returns:
        The attribution, of the shape, dtype and device of x.

    Raises:
        ValueError: x, target or the logits are not as above.
        UnsupportedModelError: the model has no ReLU, or an operation without a rule, which the message names.
    """
    return _relu_gradient(model, x, target, lambda a, g: g.clamp(min=0))


def guided_backprop(model: Model, x: Tensor, target: Target = None) -> Tensor:
    r"""Guided backpropagation: at every ReLU, :math:`g \to \max(g, 0)` where :math:`a > 0`, else 0.

    Springenberg et al. 2014, arXiv:1412.6806. It equals the gradient if every weight above the first layer is
    non-negative. Arguments, shapes and errors as for :func:`deconvnet`.
    """
    return _relu_gradient(model, x, target, lambda a, g: torch.ops.aten.threshold_backward(g, a, 0).clamp_(min=0))


def rectgrad(model: Model, x: Tensor, target: Target = None, *, q: float = 0.98) -> Tensor:
    r"""Rectified gradient: at every ReLU, :math:`g \to g` where :math:`a\,g > \tau`, else 0.

    :math:`\tau` is the q-quantile of :math:`a\,g` over the units of the layer, for each image, and at least 0, so that
    q = 0 is guided backpropagation. Kim et al. 2019, arXiv:1902.04893 (they display its product with x).

    Args:
        model, x, target: as for :func:`deconvnet`.
        q: share of each layer's units whose signal is removed, in [0, 1).

    Raises:
        ValueError: also for q outside [0, 1).
    """
    if not 0 <= q < 1:
        raise ValueError(f"q must lie in [0, 1), got {q}")

    def rule(a: Tensor, g: Tensor) -> Tensor:
        product = (a * g).flatten(1)
        # With q = 0 nothing lies below the quantile, so that only the floor of 0 acts.
        rank = max(1, int(q * product.shape[1]))
        tau = product.kthvalue(rank, dim=1).values.clamp(min=0)
        return g * (product > tau[:, None]).view_as(g)

    return _relu_gradient(model, x, target, rule)


class Rectifier(Replacement):
    """ReLU whose backward pass is a given rule of its output and the signal above."""

    @staticmethod
    def forward(ctx, z: Tensor, rule: ReluRule, inplace: bool) -> Tensor:
        if inplace:
            ctx.mark_dirty(z)
        a = z.clamp_(min=0) if inplace else z.clamp(min=0)
        ctx.save_for_backward(a)
        ctx.rule = rule
        return a

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor, None, None]:
        return ctx.rule(ctx.saved_tensors[0], g), None, None


def relu_table(rule: ReluRule, seen: list) -> dict[Callable, Callable]:
    """The table that gives every ReLU this rule; ``seen`` grows with each ReLU met."""

    def replaced(func: Callable, args: tuple, kwargs: dict) -> Tensor:
        seen.append(func)
        return Rectifier.apply(args[0], rule, works_in_place(func, args, kwargs))

    return dict.fromkeys(operations("relu"), replaced)


def _relu_gradient(model: Model, x: Tensor, target: Target, rule: ReluRule) -> Tensor:
    seen: list = []
    with explaining(model, x) as x:
        table = written_out(relu_table(rule, seen), [x])
        (grad,) = modified_gradient(model, x, partial(pick, target=target), table, allowed=ALLOWED)
    if not seen:
        raise UnsupportedModelError("the model has no ReLU, so that this method would be the plain gradient")
    return grad
