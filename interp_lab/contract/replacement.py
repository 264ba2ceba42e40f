"""The score of every row while parts of it are replaced, with several replacements and rows in a pass."""

from collections.abc import Callable

import torch
from torch import Tensor

from .guard import output_of
from .inputs import Model, is_finite
from .logits import logits_of, pick
from .passes import with_rows_that_fit


def logits_in_passes(model: Model, x: Tensor, rows: int | None) -> Tensor:
    """:func:`logits_of` all rows without a graph, at most ``rows`` at a time; None takes all at once."""
    with torch.no_grad():
        return torch.cat([logits_of(model, part) for part in x.split(rows or max(1, len(x)))])


def scores_of_replaced(
    model: Model,
    x: Tensor,
    by: Tensor,
    amount: Callable[[slice, Tensor], Tensor],
    count: int,
    target: Tensor,
    rows: int,
    read: Callable[[Tensor, Tensor], Tensor] = pick,
) -> Tensor:
    """``(N, count)``: the score of ``x + amount * (by - x)`` for each of ``count`` amounts.

    Args:
        model: whose logits for x itself have been checked by :func:`logits_of`.
        x: the inputs, ``(N, ...)``.
        by: what replaces them, of the same shape.
        amount: from images and the numbers ``(K,)`` of some amounts to these, in [0, 1] and exact at both ends. They broadcast
            to ``(K, images, ...)``.
        count: the number of amounts.
        target: ``(N,)``.
        rows: at most in a pass; half as many are tried where the memory is too small.
        read: from logits and targets to scores.

    Raises:
        ValueError: a score is NaN or infinite.
    """

    def in_passes(rows: int) -> Tensor:
        result = [x.new_zeros(0, count)]
        for first in range(0, len(x), rows):
            part = slice(first, min(first + rows, len(x)))
            size, values = part.stop - first, []
            for ks in torch.arange(count, device=x.device).split(max(1, rows // size)):
                # lerp is exact at 0 and 1, and faster than where
                batch = torch.lerp(x[part], by[part], amount(part, ks)).flatten(0, 1)
                scores = read(output_of(model, batch), target[part].repeat(len(ks)))
                values.append(scores.view(len(ks), size))
            result.append(torch.cat(values).T)
        return torch.cat(result)

    with torch.no_grad():
        scores = with_rows_that_fit(in_passes, rows)
    if not is_finite(scores):
        raise ValueError(
            "the model gives NaN or infinite logits for some x with removed pixels; try another fill or baseline"
        )
    return scores
