"""The gradient of one logit per row, or a refusal where a part of it would be missing."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from .guard import scripts_that_ran
from .inputs import Model, Target
from .interception import CHOICES, ORDINARY_GRADIENT, Interception, Rule, UnsupportedModelError
from .logits import logits_of, pick
from .scripts import refuse_cuts


def chosen_logit(model: Model, x: Tensor, target: Target, table: Mapping[Callable, Rule] = ORDINARY_GRADIENT) -> Tensor:
    r""":math:`f_c(x)` of every row, ``(N,)``, differentiable to x; with the ordinary gradient of every operation.

    A ``table`` that contains :data:`ORDINARY_GRADIENT` may have more rules, which see the operations that they are for.

    Raises:
        UnsupportedModelError: a value is computed from x without a gradient and used, by the name of the operation, or
            the logits do not depend on x through differentiable operations.
    """
    with Interception(table, [x], CHOICES):
        chosen = pick(logits_of(model, x), target)
    for script in scripts_that_ran():
        refuse_cuts(script)
    if not chosen.requires_grad:
        raise UnsupportedModelError(
            "the logits do not depend on x through differentiable operations (is there a detach(), a no_grad or "
            "an integer operation between x and the logits?)"
        )
    return chosen


def gradient(model: Model, x: Tensor, target: Target) -> Tensor:
    r""":math:`\partial f_c / \partial x` for every row of a checked batch, by one forward and one backward pass.

    Rows are independent in eval mode, so the gradient of the sum of the chosen logits holds each row's own.

    Raises:
        UnsupportedModelError: as for :func:`chosen_logit`, or an operation has no gradient.
    """
    x = x.detach().requires_grad_()
    return differentiated(chosen_logit(model, x, target).sum(), [x])[0]


def differentiated(
    output: Tensor, inputs: Sequence[Tensor], signal: Tensor | None = None, **options: bool
) -> tuple[Tensor, ...]:
    """``torch.autograd.grad``, by default zero for an input that the output does not depend on.

    Raises:
        UnsupportedModelError: torch cannot run the graph; in its own words, such as on a tensor that is changed in place
            after it was used, or an operation without a derivative.
    """
    _check_gradients(output)
    try:
        return torch.autograd.grad(output, inputs, signal, allow_unused=True, **{"materialize_grads": True, **options})
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise UnsupportedModelError(f"the model cannot be differentiated: {error}") from error


def _check_gradients(output: Tensor) -> None:
    """Refuse a graph with an operation in C++ for which torch has no gradient and would take zero."""
    seen, stack = set(), [output.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if type(node).__name__ == "CppFunction" and "NotImplemented" in node.name():
            raise UnsupportedModelError(
                "the model calls an operation in C++ that has no gradient (none is registered with autograd)"
            )
        stack.extend(parent for parent, _ in node.next_functions)
