r"""Parts: does a part's relevance tell what happens when that part is really not there?

Selectivity removes pixels by painting over them, and then asks a network about pictures unlike any that it was trained on.
Where a scene can be drawn again without one of its parts, removal stays inside the distribution, and the truth about a
part is known: how much the logit falls without it (FunnyBirds: Hesse, Schaub-Meyer & Roth 2023, arXiv:2308.06248).

Let :math:`R_p` be an attribution with its channels summed, :math:`r_k = \sum_{p \in M_k} R_p` the relevance of part k of
K, :math:`v(S)` the target's logit for the scene without the parts S, and :math:`d_k = v(\emptyset) - v(\{k\})` the effect of
part k. :math:`T_m` are the m parts with the largest :math:`r_k`, and :math:`B_m` all the others.

=====================  =============================================================================================
``single_deletion``    :math:`(1 + \rho)/2`, with Spearman's :math:`\rho` of :math:`r` and :math:`d` over the parts
``deletion``           :math:`-\sum_{m=1}^{K-1} v(T_m)`: do the parts matter, the most relevant first?
``preservation``       :math:`\sum_{m=1}^{K-1} v(B_m)`: do the most relevant parts suffice, without the others?
``shares``             :math:`\sum_k \min(p_k, q_k)` with :math:`p_k = \sum_{p \in M_k} |R_p| \,/\, \sum_j \sum_{p \in M_j}
                       |R_p|` and :math:`q_k = |d_k| \,/\, \sum_j |d_j|`
=====================  =============================================================================================

``deletion`` and ``preservation`` are then scaled for each image, so that the worst of all K! orders of its parts scores 0
and the best 1. All four lie in [0, 1]. A map that lays every effect evenly on its part scores 1 in all of them; in
``deletion`` and ``preservation`` that is so where the effects add up, and otherwise where no other order does better. A map
that knows nothing scores 1/2 on average in the first three (exactly, where the effects add up and R and -R are equally likely),
and its parts' shares of the area in the last. An even map ranks the parts by their area, which can be right or wrong: put it
beside the methods as a control.

What each of them can and cannot tell:

- ``single_deletion`` of three parts has few values, and the order of two parts that do nothing counts as much as any
  other: a perfect map that leaves both at zero gets .93. Means over many images tell methods apart, single images do not.
- ``deletion`` and ``preservation`` weigh each mistake by what it costs. They see the order alone.
- ``shares`` sees the size and not the sign. One less it is the relevance that parts have beyond their share of the effect,
  so that it holds FunnyBirds' distractors, parts that change nothing and should have nothing, without a threshold. A method
  that promises no proportions, such as the gradient, is held to them all the same.

The background is a part as well: with the parts ``object`` and ``background``, the one removed and the other exchanged,
``shares`` is FunnyBirds' background independence, again without a threshold. Relevance outside of all parts is seen
by none of the scores.
"""

import itertools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..contract import (
    Model,
    Target,
    check_batch_size,
    check_target,
    explaining,
    logits_in_passes,
    output_of,
    rows_per_pass,
    scores_of_replaced,
)
from .coherence import check_mask
from .relevance import relevance_map
from .similarity import spearman

MOST_PARTS = 6  # 64 scenes and 720 orders for every image


@dataclass(frozen=True, eq=False)
class PartScores:
    """How well the relevance of the parts tells their effects; see :func:`part_scores`.

    Attributes:
        parts: the names of the K parts.
        relevance: ``(N, K)``, the sum of the relevance in every part.
        effects: ``(N, K)``, by how much the target's logit falls without each part alone.
        single_deletion: ``(N,)``, the rank correlation of the two, from 0 to 1.
        deletion: ``(N,)``, how far the logit falls when parts go, the most relevant first: 1 for the best order.
        preservation: ``(N,)``, how far it stays when they go, the least relevant first: 1 for the best order.
        shares: ``(N,)``, what the shares of the relevance and those of the effect have in common.
    """

    parts: tuple[str, ...]
    relevance: Tensor
    effects: Tensor
    single_deletion: Tensor
    deletion: Tensor
    preservation: Tensor
    shares: Tensor


def part_scores(
    model: Model,
    x: Tensor,
    attribution: Tensor,
    without: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    target: Target = None,
    *,
    batch_size: int | None = None,
) -> PartScores:
    r"""Single deletion, deletion and preservation check and shares of an attribution, with every part really removed.

    Where parts do not overlap, the scenes without several of them are put together from those without one. Parts of equal
    relevance count as if their order were drawn at random: the result is the expectation over all orders. A map that is zero
    on all parts says nothing of them: it gets 1/2 in ``single_deletion``, the mean over all orders, and the shares of the area,
    with a warning. Where the truth makes no difference between the parts, a score is NaN, with a warning; differences of the
    logit that are no larger than rounding errors count as none.

    Args:
        model: a module or function from ``(N, ...)`` to logits ``(N, K)``.
        x: float images ``(N, C, H, W)``.
        attribution: ``(N, C, H, W)``, whose channels are summed, or ``(N, H, W)``.
        without: name of a part -> the same images without it, equal to x outside its mask; 2 to 6 parts.
        masks: name of a part -> bool ``(N, H, W)``, its pixels; other names, such as those in ``scenes(...).masks``, are ignored.
        target: None (the class predicted for x), an int, or a LongTensor ``(N,)``.
        batch_size: rows per pass, to bound memory; any value gives the same numbers. None chooses by device.

    Raises:
        ValueError: an argument is not as above; two parts overlap; NaN in the attribution or in the logits.

    >>> model = lambda x: torch.stack([x[:, 0, 0, 0] + 3 * x[:, 0, 0, 1], 0 * x[:, 0, 0, 2]], 1)
    >>> x, place = torch.ones(1, 1, 1, 3), torch.eye(3).bool().view(3, 1, 1, 3)
    >>> masks = dict(zip("abc", place, strict=True))
    >>> without = {name: x * ~mask for name, mask in masks.items()}
    >>> found = part_scores(model, x, torch.tensor([[[1.0, 2.0, 1.0]]]), without, masks, 0)
    >>> found.effects, found.shares
    (tensor([[1., 3., 0.]]), tensor([0.7500]))
    """
    check_batch_size(batch_size)
    with explaining(model, x) as x, torch.no_grad():
        relevance = relevance_map(attribution).to(x.device)
        if x.dim() != 4 or relevance.shape != (len(x), *x.shape[2:]):
            raise ValueError(
                f"x must be images (N, C, H, W) and the attribution fit it, got {tuple(x.shape)} and {tuple(attribution.shape)}"
            )
        inside, empty = _checked(x, without, masks)
        count = inside.shape[1]
        rows = batch_size or rows_per_pass(x, lambda rows: output_of(model, rows))
        logits = logits_in_passes(model, x, rows)
        target = logits.argmax(1) if target is None else check_target(target, len(x)).to(x.device)

        def removed(images: slice, sets: Tensor) -> Tensor:
            """The pixels of sets of parts, which the bits of the numbers name: ``(sets, images, 1, H, W)``."""
            chosen = (sets[:, None] >> torch.arange(count, device=x.device)) & 1
            return torch.einsum("sk,nkhw->snhw", chosen.to(x), inside[images].to(x))[:, :, None]

        values = scores_of_replaced(model, x, empty, removed, 2**count, target, rows).double()
        rounding = 16 * torch.finfo(x.dtype).eps * values.abs().amax(1, keepdim=True)
        values = torch.where((values - values[:, :1]).abs() > rounding, values, values[:, :1])

        by_part = relevance[:, None] * inside
        sums, masses = by_part.sum((2, 3)), by_part.abs().sum((2, 3))
        effects = values[:, :1] - values[:, [1 << k for k in range(count)]]
        orders = torch.tensor(list(itertools.permutations(range(count))), device=x.device)
        first = (1 << orders).cumsum(1)[:, :-1]  # the first 1 .. K - 1 parts of every order, as sets
        others = 2**count - 1 - first
        scale = sums.abs().amax(1, keepdim=True).clamp(min=torch.finfo(sums.dtype).tiny)
        compared = (sums / scale).float()  # equal to the digits of single precision is equal
        likely = (compared[:, orders].diff(dim=2) <= 0).all(2).double()
        likely /= likely.sum(1, keepdim=True)
        effect = effects.abs() / effects.abs().sum(1, keepdim=True)
        scores = {
            "single_deletion": _rank_agreement(compared, effects),
            "deletion": _from_worst_to_best(-values[:, first].mean(2), likely),
            "preservation": _from_worst_to_best(values[:, others].mean(2), likely),
            "shares": torch.minimum(_share(masses, inside), effect).sum(1),
        }
    if blank := int((masses == 0).all(1).sum()):
        warnings.warn(f"{blank} of {len(x)} maps are zero on all parts; they score as if drawn at random", stacklevel=2)
    if unknown := int(torch.stack(list(scores.values())).isnan().any(0).sum()):
        warnings.warn(f"in {unknown} of {len(x)} images the parts do not differ, so that a score is NaN", stacklevel=2)
    return PartScores(tuple(without), *(values.to(x.dtype) for values in (sums, effects, *scores.values())))


def _checked(x: Tensor, without: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The parts' pixels ``(N, K, H, W)``, and x without any of them."""
    if not 2 <= len(without) <= MOST_PARTS:
        raise ValueError(f"without must hold 2 to {MOST_PARTS} parts, got {len(without)}")
    if missing := [name for name in without if name not in masks]:
        raise ValueError(f"every part needs its mask, but there is none of {', '.join(missing)}")
    inside = [check_mask(masks[name]).to(x.device) for name in without]
    if any(mask.shape != (len(x), *x.shape[2:]) for mask in inside):
        raise ValueError(f"the masks must fit x {tuple(x.shape)}, got {[tuple(mask.shape) for mask in inside]}")
    empty = x.clone()
    for (name, image), mask in zip(without.items(), inside, strict=True):
        if not isinstance(image, Tensor) or (image.shape, image.dtype) != (x.shape, x.dtype):
            got = f"{image.dtype} {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
            raise ValueError(f"the images without {name} must be like x, {x.dtype} {tuple(x.shape)}, got {got}")
        image = image.to(x.device)
        if (differ := (image != x).any(1) & ~mask).any():
            rows = differ.flatten(1).any(1).nonzero()[:, 0].tolist()
            raise ValueError(f"without {name} the images must equal x outside of its mask, but differ in rows {rows}")
        empty = torch.where(mask[:, None], image, empty)
    together = torch.stack(inside, 1)
    if (overlap := (together.sum(1) > 1).flatten(1).any(1)).any():
        raise ValueError(f"the parts must not overlap, but do in rows {overlap.nonzero()[:, 0].tolist()}")
    return together, empty


def _from_worst_to_best(values: Tensor, likely: Tensor) -> Tensor:
    """The expected value over the orders, ``(N,)``, where the worst of all is worth 0 and the best 1."""
    worst, best = values.aminmax(dim=1)
    return ((values * likely).sum(1) - worst) / (best - worst)


def _rank_agreement(relevance: Tensor, effects: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pairs without an order
        correlation = spearman(relevance, effects)
    flat = (relevance == relevance[:, :1]).all(1) & (effects != effects[:, :1]).any(1)
    return (1 + correlation.masked_fill(flat, 0.0)) / 2


def _share(masses: Tensor, inside: Tensor) -> Tensor:
    """Of the relevance on all parts, that on each; where there is none, of their area."""
    area = inside.sum((2, 3)).to(masses)
    masses = torch.where((masses == 0).all(1, keepdim=True), area, masses)
    return masses / masses.sum(1, keepdim=True)
