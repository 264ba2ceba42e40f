"""What the methods share that take parts of the input away: the scores of what is left, and masks laid over x."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..contract import (
    Model,
    Target,
    check_baseline,
    check_batch_size,
    check_target,
    logits_in_passes,
    output_of,
    pick,
    rows_per_pass,
    scores_of_replaced,
)

Masks = Callable[[Tensor], Tensor]
"""From the numbers ``(K,)`` of some masks to these, ``(K, *places)``, with values from 0 to 1."""


class Removal:
    """The target's logit of a checked x, and of x with parts of it at the baseline.

    Attributes:
        places: the axes of x that masks have: those behind the channels; of a vector its only one.
        value: ``(N,)``, the logit of x itself.
        target: ``(N,)``, the explained class.
    """

    def __init__(
        self, model: Model, x: Tensor, target: Target, baseline: float | Tensor, batch_size: int | None
    ) -> None:
        check_batch_size(batch_size)
        self.model, self.x, self.reference = model, x, check_baseline(baseline, x)
        self.places = x.shape[min(2, x.dim() - 1) :]
        self.rows = batch_size or rows_per_pass(x, lambda rows: output_of(model, rows))
        logits = logits_in_passes(model, x, self.rows)
        self.target = check_target(logits.argmax(1) if target is None else target, len(x)).to(x.device)
        self.value = pick(logits, self.target)

    def scores(self, amount: Callable[[slice, Tensor], Tensor], count: int) -> Tensor:
        """``(N, count)``: the logit of x with as much of the baseline as each amount says."""
        return scores_of_replaced(self.model, self.x, self.reference, amount, count, self.target, self.rows)

    def scores_under(self, hidden: Masks, count: int) -> Tensor:
        """``(N, count)``: the logit of x with the baseline where each of ``count`` masks is 1, the same for all images."""
        ones = [1] * (self.x.dim() - len(self.places))
        return self.scores(lambda _, numbers: hidden(numbers).view(-1, *ones, *self.places), count)

    def laid_over(self, weights: Tensor, masks: Masks) -> Tensor:
        """The sum of the masks of each row, times its weights ``(N, K)``: ``(N, *places)``."""
        total = weights.new_zeros(len(weights), *self.places)
        numbers = torch.arange(weights.shape[1], device=weights.device)
        for some, part in zip(numbers.split(self.rows), weights.split(self.rows, 1), strict=True):
            total += torch.einsum("nk,k...->n...", part, masks(some).to(weights))
        return total

    def shared_by_channels(self, relevance: Tensor) -> Tensor:
        """A map ``(N, *places)`` as an attribution of x, whose channels have equal parts of it."""
        if self.x.dim() == 2:
            return relevance.to(self.x)
        return (relevance / self.x.shape[1]).to(self.x)[:, None].expand_as(self.x).contiguous()
