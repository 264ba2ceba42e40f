r"""Ways back through a ReLU: the gradient passes the signal :math:`g` where the output :math:`a > 0`, a rule another one."""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from ..contract import Model, Target, UnsupportedModelError, explaining, pick
from ..contract.interception import Replacement, operations, works_in_place
from .decompositions import written_out
from .modified_backprop import (
    BATCH_NORM,
    CHOICES,
    LAYERS,
    MAX_POOLS,
    PASSED,
    PRODUCTS,
    modified_gradient,
)

ALLOWED = PASSED | BATCH_NORM | LAYERS | PRODUCTS | MAX_POOLS | CHOICES
ReluRule = Callable[[Tensor, Tensor], Tensor]  # (output a, signal g) -> signal below


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


def relu_gradient(model: Model, x: Tensor, target: Target, rule: ReluRule) -> Tensor:
    """The gradient of the chosen logits with this rule at every ReLU.

    Raises:
        UnsupportedModelError: the model has no ReLU, or an operation without a rule.
    """
    seen: list = []
    with explaining(model, x) as x:
        table = written_out(relu_table(rule, seen))
        (grad,) = modified_gradient(model, x, partial(pick, target=target), table, allowed=ALLOWED)
    if not seen:
        raise UnsupportedModelError("the model has no ReLU, so that this method would be the plain gradient")
    return grad
