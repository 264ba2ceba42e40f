r"""Selectivity: does the score fall when the pixels that the attribution calls relevant are removed?

Patches are ranked by their relevance and replaced one after another; the score after each step is a curve, and the
area under it a number: the lower, the better did the map find what the score depends on (with the most relevant
first). Bach et al. 2015, PLOS ONE 10(7), section "Pixel-wise decomposition"; Samek et al. 2017, arXiv:1509.06321.

What stands in for a removed pixel decides much. Methods that measure against a black image win when pixels are
removed by blackening them; so compare methods under several fills before you believe an order. And a picture with
half its pixels replaced is unlike any the network was trained on: :func:`~interp_lab.roar` trains it on such pictures.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..contract import (
    Model,
    Target,
    check_baseline,
    check_batch_size,
    check_target,
    explaining,
    logits_in_passes,
    output_of,
    pick,
    probabilities,
    rows_per_pass,
    scores_of_replaced,
)
from .relevance import relevance_map

FILLS, ORDERS, SCORES = (
    ("mean", "blur", "noise"),
    ("most_relevant_first", "least_relevant_first"),
    ("logit", "probability"),
)
MOST_STEPS = 1024  # that are taken without being asked for


@dataclass(frozen=True, eq=False)
class Selectivity:
    """The score while patches are removed.

    Attributes:
        curve: ``(N, steps + 1)``: the score of x itself, then after each step; at the end all patches are removed.
        removed: ``(steps + 1,)``, the share of the patches that are removed, from 0 to 1.
        area: ``(N,)``, the area under the curve over ``removed`` (trapezoids).
        order: the order of removal.
        score: what the curve shows, "logit" or "probability".
        random: the same for a random order where it was asked for, else None.
        optimal: likewise for the order by the effect of each patch alone.
    """

    curve: Tensor
    removed: Tensor
    area: Tensor
    order: str
    score: str
    random: "Selectivity | None" = None
    optimal: "Selectivity | None" = None


def selectivity(
    model: Model,
    x: Tensor,
    attribution: Tensor,
    target: Target = None,
    *,
    steps: int | None = None,
    patch: int = 1,
    fill: str | float | Tensor = "mean",
    order: str = "most_relevant_first",
    score: str = "logit",
    beside: Collection[str] = (),
    seed: int = 0,
    batch_size: int | None = None,
) -> Selectivity:
    r"""The target's score while the patches of x are removed in the order of their relevance.

    After step k of S the first :math:`\lfloor k P / S \rfloor` of the P patches are replaced in all channels; a patch's
    relevance is the sum over its pixels, compared to the digits of single precision. Equal relevances come in a random order, not in
    that of the pixels. The map is not computed again after a removal. On a linear model with patches of equal size, the order of
    :math:`\sum_{p \in \text{patch}} w_p (x_p - \mathrm{fill}_p)` has the lowest possible curve at every step.

    Args:
        model: a module or function from ``(N, ...)`` to logits ``(N, K)``.
        x: float batch, images ``(N, C, H, W)`` or vectors ``(N, D)``.
        attribution: ``(N, C, H, W)``, whose channels are summed, or ``(N, H, W)``; for vectors ``(N, D)``.
        target: None (the class predicted for x), an int, or a LongTensor ``(N,)``.
        steps: at most one per patch; None is one per patch.
        patch: side of the square patches in pixels; those at the right and lower border are cut off by it.
        fill: what replaces a removed pixel: ``"mean"`` (the mean colour of its image), ``"blur"`` (the image under a Gaussian
            of 1/20 of its shorter side), ``"noise"`` (uniform between the least and the largest value of its image and
            channel), a number, or a tensor that broadcasts to x, such as the mean of the training images.
        order: ``"most_relevant_first"`` or ``"least_relevant_first"``, for which a high curve is good.
        score: ``"logit"`` or ``"probability"``, the softmax over the classes or the sigmoid of a single logit.
        beside: ``"random"`` for a random order beside it, which takes as many passes again; ``"optimal"`` for that by the true
            effect of removing each patch alone, which takes one pass more per patch. The latter is the best of all
            orders where the score is a sum over patches, as a linear model's logit; elsewhere it knows nothing of
            what patches do together, and a good map may beat it.
        seed: of the random order, also among equal relevances, and of the noise: all images share them, so that an
            image's curve does not depend on its batch. Drawn on the CPU: every device gets the same.
        batch_size: rows per pass, to bound memory; any value gives the same numbers. None chooses by device.

    Raises:
        ValueError: an argument is not as above; NaN in the attribution or in the logits; more than 1,024 steps
            without being asked for.

    >>> model = lambda x: x.flatten(1).sum(1, keepdim=True)
    >>> x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> selectivity(model, x, x, fill=0.0).curve  # the largest pixel goes first
    tensor([[10.,  6.,  3.,  1.,  0.]])
    """
    for name, value, known in (("order", order, ORDERS), ("score", score, SCORES)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    if unknown := set(beside) - {"random", "optimal"}:
        raise ValueError(f'beside may hold "random" and "optimal", got {", ".join(map(repr, sorted(unknown)))}')
    check_batch_size(batch_size)
    with explaining(model, x) as x, torch.no_grad():
        relevance, cells = _patches(x, attribution, patch)
        count = relevance.shape[1]
        removed = _schedule(steps, count).to(x.device)
        generator = torch.Generator().manual_seed(seed)
        ties = torch.randperm(count, generator=generator).to(x.device)
        step = torch.searchsorted(removed, torch.arange(count, device=x.device), right=True).float()  # of each rank
        fill = _filled(x, fill, generator)
        rows = batch_size or rows_per_pass(x, lambda rows: output_of(model, rows))

        def read(logits: Tensor, target: Tensor) -> Tensor:
            return pick(probabilities(logits) if score == "probability" else logits, target)

        logits = logits_in_passes(model, x, rows)
        target = logits.argmax(1) if target is None else check_target(target, len(x)).to(x.device)
        start = read(logits, target)[:, None]

        def scores(replaced: Callable[[slice, Tensor], Tensor], count: int) -> Tensor:
            """``(N, count)``, with those pixels filled of which ``replaced(images, k)`` is true, k = 0 .. count - 1."""

            def amount(images: slice, ks: Tensor) -> Tensor:
                filled = replaced(images, ks.view(-1, 1, 1, 1, 1)).to(x)
                return filled if x.dim() == 4 else filled[:, :, 0, 0]

            return scores_of_replaced(model, x, fill, amount, count, target, rows, read)

        def curve(relevance: Tensor, order: str) -> Selectivity:
            scale = 2.0 ** relevance.abs().amax(1, keepdim=True).frexp().exponent.double()  # exact, and so of no effect
            shuffled = (relevance / scale).float().index_select(1, ties)
            ranked = shuffled.argsort(stable=True, descending=order != ORDERS[1])
            removed_at = torch.empty_like(relevance, dtype=torch.float32).scatter_(1, ranked, step.expand_as(relevance))
            by_pixel = ties.argsort()[cells].flatten()
            removed_at = removed_at.index_select(1, by_pixel).view(len(x), 1, *cells.shape)
            values = scores(lambda images, k: removed_at[images] <= k + 1, len(removed) - 1)
            values = torch.cat([start, values], 1)
            share = (removed.double() / count).to(values)
            return Selectivity(values, share, torch.trapezoid(values, share), order, score)

        result = vars(curve(relevance, order))
        if "random" in beside:
            result["random"] = curve(torch.zeros_like(relevance), "random")
        if "optimal" in beside:
            effect = start - scores(lambda _, k: cells == k, count)
            result["optimal"] = curve(effect if order == ORDERS[0] else -effect, "optimal")
    return Selectivity(**result)


def _patches(x: Tensor, attribution: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """The relevance of every patch ``(N, P)``, and each pixel's patch ``(H, W)``; a vector is one row of pixels."""
    if x.dim() not in (2, 4) or (x.dim() == 2 and patch != 1):
        raise ValueError(f"x must be images (N, C, H, W), or vectors (N, D) with patch=1, got shape {tuple(x.shape)}")
    if not isinstance(patch, int) or patch < 1:
        raise ValueError(f"patch must be an integer of at least 1, got {patch!r}")
    relevance = relevance_map(attribution).to(x.device)
    if relevance.shape != (x.shape if x.dim() == 2 else (len(x), *x.shape[2:])):
        raise ValueError(f"the attribution must fit x {tuple(x.shape)}, got shape {tuple(attribution.shape)}")
    relevance = relevance[:, None] if x.dim() == 4 else relevance[:, None, None]
    sums = F.avg_pool2d(relevance, patch, ceil_mode=True, divisor_override=1)
    row, column = (torch.arange(n, device=x.device) // patch for n in relevance.shape[2:])
    return sums.flatten(1), row[:, None] * sums.shape[3] + column


def _schedule(steps: int | None, count: int) -> Tensor:
    """How many of the patches are gone after each step, ``(steps + 1,)``."""
    if steps is None and count > MOST_STEPS:
        raise ValueError(f"{count} patches would take {count} passes per image: give steps, or a larger patch")
    steps = count if steps is None else steps
    if not isinstance(steps, int) or not 1 <= steps <= count:
        raise ValueError(f"steps must lie in 1..{count}, the number of patches, got {steps!r}")
    return torch.arange(steps + 1) * count // steps


def _filled(x: Tensor, fill: str | float | Tensor, generator: torch.Generator) -> Tensor:
    """What replaces the pixels of x, of its shape."""
    if not isinstance(fill, str):
        return check_baseline(fill, x, "fill")
    channels = x.flatten(2) if x.dim() == 4 else x[:, None]
    if fill == "mean":
        return channels.mean(2, keepdim=True).expand_as(channels).view(x.shape)
    if fill == "noise":
        low, high = (v.unsqueeze(2) for v in channels.aminmax(dim=2))
        draw = torch.rand(channels.shape[1:], generator=generator, dtype=torch.float32).to(x)
        return (low + (high - low) * draw).view(x.shape)
    if fill == "blur" and x.dim() == 4 and min(x.shape[2:]) >= 4:
        import torchvision

        sigma = min(x.shape[2:]) / 20
        return torchvision.transforms.functional.gaussian_blur(x, 2 * math.ceil(3 * sigma) + 1, sigma)
    raise ValueError(
        f"fill must be {', '.join(FILLS)} (blur: of images of 4 pixels or more), a number or a tensor, got {fill!r}"
    )
