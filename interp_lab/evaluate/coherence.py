r"""Coherence: does the relevance lie on the object, where it is known which pixels are the object?

Let :math:`R_p` be an attribution with its channels summed, M the pixels of the object and A = \|M\| / \|image\| its
share of the area.

========================  ==========================================================================================
:func:`pointing_game`     is the most relevant pixel in M? (Zhang et al. 2016, arXiv:1608.00507; no tolerance margin)
:func:`relevance_mass`    :math:`\sum_{p \in M} R_p^+ / \sum_p R_p^+` (Arras, Osman & Samek 2022, arXiv:2003.07258)
:func:`relevance_rank`    share of the \|M\| most relevant pixels that lie in M (same source)
========================  ==========================================================================================

All three lie in [0, 1]; the mask itself scores 1; a map that knows nothing scores A on average, so A is their common
:func:`chance` level. Pixels of equal relevance are counted as if their order were drawn at random: the result is the
expectation over all orders, and a uniform map scores exactly A.

A coherent map need not be a faithful one: an edge detector scores well wherever objects have edges.
"""

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .relevance import relevance_map


@dataclass(frozen=True, eq=False)
class Coherence:
    """The three scores of every image, and the chance level that they have in common; each ``(N,)``."""

    pointing_game: Tensor
    relevance_mass: Tensor
    relevance_rank: Tensor
    chance: Tensor


class Interval(NamedTuple):
    """A mean and its bootstrap confidence interval; ``f"{interval:.2f}"`` gives all three two digits."""

    mean: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        mean, low, high = (format(value, spec or ".3f") for value in self)
        return f"{mean} [{low}, {high}]"

    def __str__(self) -> str:
        return format(self, "")


def coherence(attribution: Tensor, mask: Tensor) -> Coherence:
    """All three scores with the chance level beside them.

    Args:
        attribution: ``(N, C, H, W)``, whose channels are summed, or ``(N, H, W)``.
        mask: bool ``(N, H, W)``, the pixels of the object; of boxes, :func:`box_masks`.

    Returns:
        The scores and the chance level of every image, ``(N,)`` each.

    Raises:
        ValueError: another shape or type, NaN in the attribution, or a mask that is empty or the whole image.

    >>> coherence(torch.tensor([[[[1.0, 3.0], [0.0, 0.0]]]]), torch.tensor([[[False, True], [False, False]]])).relevance_mass
    tensor([0.7500])
    """
    return Coherence(
        pointing_game(attribution, mask),
        relevance_mass(attribution, mask),
        relevance_rank(attribution, mask),
        chance(mask).to(attribution.device),
    )


def pointing_game(attribution: Tensor, mask: Tensor) -> Tensor:
    """Whether the most relevant pixel lies in the mask; with several maxima, the share of them that does.

    Args:
        attribution: ``(N, C, H, W)``, whose channels are summed, or ``(N, H, W)``.
        mask: bool ``(N, H, W)``, the pixels of the object; of boxes, :func:`box_masks`.

    Returns:
        ``(N,)`` in [0, 1].

    Raises:
        ValueError: another shape or type, NaN in the attribution, or a mask that is empty or the whole image.

    >>> pointing_game(torch.tensor([[[[1.0, 3.0], [0.0, 0.0]]]]), torch.tensor([[[False, True], [False, False]]]))
    tensor([1.])
    """
    relevance, inside = _checked(attribution, mask)
    top = relevance == relevance.amax(1, keepdim=True)
    return _in_its_dtype((top & inside).sum(1) / top.sum(1).double(), attribution)


def relevance_mass(attribution: Tensor, mask: Tensor) -> Tensor:
    """Share of the positive relevance that lies in the mask.

    For the share of the magnitude, give ``attribution.sum(1).abs()``. A map without any positive relevance says
    nothing about where: it gets its chance level, with a warning.

    Args:
        attribution: ``(N, C, H, W)``, whose channels are summed, or ``(N, H, W)``.
        mask: bool ``(N, H, W)``, the pixels of the object; of boxes, :func:`box_masks`.

    Returns:
        ``(N,)`` in [0, 1].

    Raises:
        ValueError: another shape or type, NaN in the attribution, or a mask that is empty or the whole image.

    >>> relevance_mass(torch.tensor([[[[1.0, 3.0], [0.0, -9.0]]]]), torch.tensor([[[False, True], [False, False]]]))
    tensor([0.7500])
    """
    relevance, inside = _checked(attribution, mask)
    return _in_its_dtype(positive_share(relevance, inside, torch.ones_like(inside)), attribution)


def relevance_rank(attribution: Tensor, mask: Tensor) -> Tensor:
    """Share of the k most relevant pixels that lie in the mask, where k is the number of pixels of the mask.

    Args:
        attribution: ``(N, C, H, W)``, whose channels are summed, or ``(N, H, W)``.
        mask: bool ``(N, H, W)``, the pixels of the object; of boxes, :func:`box_masks`.

    Returns:
        ``(N,)`` in [0, 1].

    Raises:
        ValueError: another shape or type, NaN in the attribution, or a mask that is empty or the whole image.

    >>> relevance_rank(torch.tensor([[[[1.0, 3.0], [0.0, 2.0]]]]), torch.tensor([[[True, True], [False, False]]]))
    tensor([0.5000])
    """
    relevance, inside = _checked(attribution, mask)
    k = inside.sum(1, keepdim=True)
    last = relevance.sort(dim=1, descending=True).values.gather(1, k - 1)  # the k-th largest value
    above, tied = relevance > last, relevance == last
    free = (k - above.sum(1, keepdim=True)).double() / tied.sum(1, keepdim=True)  # chance of a tied pixel to be taken
    return _in_its_dtype((inside * (above + free * tied)).sum(1) / k.squeeze(1), attribution)


def chance(mask: Tensor) -> Tensor:
    """The mask's share of the area, ``(N,)``: what each of the three scores is on average for a map drawn at random.

    Raises:
        ValueError: the mask is not bool ``(N, H, W)``, or one is empty or the whole image.

    >>> chance(torch.tensor([[[False, True], [False, False]]]))
    tensor([0.2500])
    """
    return check_mask(mask).flatten(1).double().mean(1).to(torch.get_default_dtype())


def box_masks(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Bool masks ``(N, H, W)`` of boxes ``(N, 4)``: the pixels whose centres lie inside ``xmin, ymin, xmax, ymax``.

    Args:
        boxes: in pixels of the image, whose left and upper borders are 0.
        size: height and width of the images.

    Raises:
        ValueError: another shape, or a box whose xmax (ymax) is not above its xmin (ymin).

    >>> box_masks(torch.tensor([[0.0, 0.0, 2.0, 1.0]]), (2, 3))
    tensor([[[ True,  True, False],
             [False, False, False]]])
    """
    boxes = torch.as_tensor(boxes)
    if boxes.dim() != 2 or boxes.shape[1] != 4 or not (boxes[:, 2:] > boxes[:, :2]).all():
        raise ValueError(f"boxes must be (N, 4) with xmin < xmax and ymin < ymax, got {boxes.tolist()}")
    (height, width), (xmin, ymin, xmax, ymax) = size, boxes[:, :, None].unbind(1)
    y, x = (torch.arange(n, device=boxes.device) + 0.5 for n in (height, width))
    return ((ymin <= y) & (y <= ymax))[:, :, None] & ((xmin <= x) & (x <= xmax))[:, None, :]


def bootstrap(values: Tensor, *, confidence: float = 0.95, resamples: int = 5000, seed: int = 0) -> Interval:
    """Mean over the images with its bootstrap interval (percentile method).

    Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.

    Args:
        values: one number per image, ``(N,)`` with N >= 2.
        confidence: of the interval.
        resamples: how often N images are drawn with replacement.
        seed: of the draws.

    Raises:
        ValueError: fewer than two values, or complex ones or NaN among them; a confidence that is no share between 0 and 1; fewer
            than two resamples.

    >>> print(bootstrap(torch.tensor([0.0, 1.0, 1.0, 1.0] * 25)))
    0.750 [0.660, 0.830]
    """
    if not 0 < confidence < 1 or resamples < 2:
        raise ValueError(
            f"confidence must lie between 0 and 1 and resamples be at least 2, got {confidence}, {resamples}"
        )
    values = torch.as_tensor(values)
    if values.is_complex():
        raise ValueError(f"values must be real, got {values.dtype}")
    sample = values.detach().double().cpu().numpy()
    if sample.ndim != 1 or len(sample) < 2:
        raise ValueError(f"values must be one number per image (N,) with N >= 2, got shape {sample.shape}")
    if not np.isfinite(sample).all():
        raise ValueError(f"{(~np.isfinite(sample)).sum()} of {len(sample)} values are NaN or infinite: leave them out")
    rng = np.random.default_rng(seed)
    import scipy.stats  # here: it takes half a second to import

    low, high = scipy.stats.bootstrap(
        (sample,), np.mean, confidence_level=confidence, n_resamples=resamples, method="percentile", rng=rng
    ).confidence_interval
    return Interval(float(sample.mean()), float(low), float(high))


def positive_share(relevance: Tensor, inside: Tensor, within: Tensor) -> Tensor:
    """Of the positive relevance ``(N, P)`` within some pixels, the share inside others, ``(N,)``.

    Where there is none, it is what an even map would give, with a warning.
    """
    inside = inside & within
    positive = relevance.clamp(min=0) * within
    positive = positive / positive.amax(1, keepdim=True).clamp(
        min=torch.finfo(positive.dtype).tiny
    )  # sums of any scale
    total, area = positive.sum(1), inside.sum(1) / within.sum(1).double()
    if nothing := int((total == 0).sum()):
        warnings.warn(
            f"{nothing} of {len(total)} maps have no positive relevance; they get their chance level", stacklevel=3
        )
    return torch.where(total > 0, (positive * inside).sum(1) / total, area)


def check_mask(mask: Tensor) -> Tensor:
    """The mask, if it is one; see :func:`chance`."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.dim() != 3:
        got = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"mask must be a bool tensor (N, H, W), got {got}; of boxes, make masks by box_masks")
    for wrong, rows in (("empty", ~mask.flatten(1).any(1)), ("the whole image", mask.flatten(1).all(1))):
        if rows.any():
            raise ValueError(
                f"a mask must be a part of its image, but is {wrong} in rows {rows.nonzero()[:, 0].tolist()}"
            )
    return mask


def _checked(attribution: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Relevance and mask, both ``(N, H * W)``."""
    relevance = relevance_map(attribution)
    if check_mask(mask).shape != relevance.shape:
        raise ValueError(
            f"the mask must have the attribution's shape without channels {tuple(relevance.shape)}, "
            f"got {tuple(mask.shape)}"
        )
    return relevance.flatten(1), mask.to(relevance.device).flatten(1)


def _in_its_dtype(scores: Tensor, attribution: Tensor) -> Tensor:
    return scores.to(attribution.dtype if attribution.is_floating_point() else torch.get_default_dtype())
