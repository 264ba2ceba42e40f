"""The gradient of one logit per row, or a refusal where a part of it would be missing."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import Node

from .guard import at_end, refuse_cuts
from .inputs import Model, Target, is_finite
from .interception import CHOICES, ORDINARY_GRADIENT, Interception, Rule, UnsupportedModelError, own_function
from .logits import logits_of, pick


def chosen_logit(model: Model, x: Tensor, target: Target, table: Mapping[Callable, Rule] = ORDINARY_GRADIENT) -> Tensor:
    r""":math:`f_c(x)` of every row, ``(N,)``, differentiable to x; with the ordinary gradient of every operation.

    A ``table`` that contains :data:`ORDINARY_GRADIENT` may have more rules, which see the operations that they are for.

    Raises:
        UnsupportedModelError: a value is computed from x without a gradient and used, by the name of the operation, or
            the logits do not depend on x through differentiable operations, or a user's ``autograd.Function`` gives another
            gradient than its derivative.
    """
    with Interception(table, [x], CHOICES):
        logits = logits_of(model, x)
        target = logits.argmax(1) if target is None else target
        chosen = pick(logits, target)
    refuse_cuts()
    if not chosen.requires_grad:
        raise UnsupportedModelError(
            "the logits do not depend on x through differentiable operations (is there a detach(), a no_grad or "
            "an integer operation between x and the logits?)"
        )
    check_functions(lambda x: pick(logits_of(model, x), target), x, chosen)
    return chosen


def gradient(model: Model, x: Tensor, target: Target) -> Tensor:
    r""":math:`\partial f_c / \partial x` for every row of a checked batch, by one forward and one backward pass.

    Rows are independent in eval mode, so the gradient of the sum of the chosen logits holds each row's own.

    Raises:
        UnsupportedModelError: as for :func:`chosen_logit`, an operation has no gradient, or it is not finite.
    """
    x = x.detach().requires_grad_()
    (slope,) = differentiated(chosen_logit(model, x, target).sum(), [x])
    if not is_finite(slope):
        raise UnsupportedModelError(
            "the gradient of the logit is NaN or infinite (a root, a logarithm or a quotient at 0, or an overflow?): add a "
            f"small number there, or use a wider dtype than {x.dtype}"
        )
    return slope


def check_functions(score: Callable[[Tensor], Tensor], x: Tensor, value: Tensor) -> None:
    """Refuse a score ``(N,)`` whose gradient a user's ``autograd.Function`` replaces, as one that reverses it does.

    Only where there is such a function, and at the end of the block of :func:`explaining`, the score is taken twice more, one
    step along the gradient either way.
    """
    name = next(filter(None, map(own_function, _nodes(value))), "")
    if not name or not len(x):
        return
    (slope,) = differentiated(value.sum(), [x], retain_graph=True)
    x, value = x.detach(), value.detach()
    size, eps = slope.flatten(1).norm(dim=1), torch.finfo(x.dtype).eps
    step = 4 * eps**0.5 * x.abs().max().clamp(min=eps)
    move = step * slope / size.where(size > 0, 1).view(-1, *[1] * (x.dim() - 1))

    def check() -> None:
        with torch.no_grad():
            rise = (score(x + move) - score(x - move)) / (2 * step)
        if not ((rise - size).abs() <= 0.05 * size + 10 * eps * (1 + value.abs()) / step).all():
            raise UnsupportedModelError(
                f"the backward of the function {name!r} is not its derivative (a reversed gradient or a straight-through "
                "estimator?): explain a model without it, or use a method that asks for outputs only, such as occlusion"
            )

    at_end(check)


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
    for node in _nodes(output):
        if type(node).__name__ == "CppFunction" and "NotImplemented" in node.name():
            raise UnsupportedModelError(
                "the model calls an operation in C++ that has no gradient (none is registered with autograd)"
            )


def _nodes(output: Tensor) -> Iterator[Node]:
    seen, stack = set(), [output.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            stack.extend(parent for parent, _ in node.next_functions)
