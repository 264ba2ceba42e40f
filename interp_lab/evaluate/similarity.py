r"""How alike are two maps of the same image? Rank correlation and structural similarity, signed and absolute.

Signed similarity sees whether relevance changed its sign, absolute similarity only where it lies. The two can differ
much: of a map :math:`R = x \odot g` the absolute values keep the picture x whatever g is.
"""

import math
import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .relevance import relevance_map

WINDOW = 7  # of the SSIM, in pixels


@dataclass(frozen=True, eq=False)
class Similarity:
    """Similarity of pairs of maps: 1 for equal maps, about 0 for unrelated ones; ``(N,)`` or with more axes before.

    Attributes:
        spearman: rank correlation of the signed values, in [-1, 1].
        spearman_abs: of their magnitudes.
        ssim: structural similarity of the signed maps, in [-1, 1].
        ssim_abs: of their magnitudes.
    """

    spearman: Tensor
    spearman_abs: Tensor
    ssim: Tensor
    ssim_abs: Tensor

    def mean(self) -> "Similarity":
        """The means over the images, without the pairs whose value is NaN, such as a map that is zero everywhere."""
        return Similarity(*(getattr(self, field).nanmean(-1) for field in Similarity.__annotations__))


def similarity(a: Tensor, b: Tensor) -> Similarity:
    """Spearman's correlation and SSIM of two batches of maps, row by row, once signed and once of the magnitudes.

    Channels are summed first.

    Args:
        a, b: ``(N, C, H, W)``, whose channels are summed, ``(N, H, W)`` or ``(N, D)``, of the same shape.

    Raises:
        ValueError: the shapes differ or are not as above, or a map is not finite.

    >>> a = torch.rand(2, 1, 8, 8)
    >>> similarity(a, -a).spearman
    tensor([-1., -1.])
    """
    a, b = relevance_map(a, "a"), relevance_map(b, "b")
    return Similarity(spearman(a, b), spearman(a.abs(), b.abs()), ssim(a, b), ssim(a.abs(), b.abs()))


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation of each row of a with the same row of b, ``(N,)``; equal values share their mean rank.

    It is NaN, with a warning, where a map is constant and so has no order.

    Args:
        a, b: ``(N, C, H, W)``, whose channels are summed, ``(N, H, W)`` or ``(N, D)``, of the same shape.

    Raises:
        ValueError: other shapes, or NaN.

    >>> spearman(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[10.0, 100.0, 1000.0]]))  # ranks alone count
    tensor([1.])
    """
    ranks = []
    for values in _pair(a, b):
        rank = _ranks(values.flatten(1))
        centred = rank - rank.mean(1, keepdim=True)
        ranks.append(centred / torch.linalg.vector_norm(centred, dim=1, keepdim=True))  # 0 / 0: no order
    result = torch.linalg.vecdot(*ranks)
    if undefined := int(result.isnan().sum()):
        warnings.warn(f"{undefined} of {len(result)} pairs have a constant map: their correlation is NaN", stacklevel=2)
    return result.to(a.device, torch.get_default_dtype())


def _ranks(values: Tensor) -> Tensor:
    """The rank of every value in its row ``(N, P)``, in float64 on its device; equal values share the mean of theirs."""
    ordered, order = values.sort(1)
    places = torch.arange(values.shape[1], device=values.device).expand_as(order)
    new = F.pad(ordered[:, 1:] != ordered[:, :-1], (1, 0), value=True)  # the first of equal values
    first = torch.where(new, places, 0).cummax(1).values
    after = F.pad(torch.where(new, places, values.shape[1])[:, 1:], (0, 1), value=values.shape[1])
    last = after.flip(1).cummin(1).values.flip(1) - 1
    return torch.empty_like(values).scatter_(1, order, (first + last).to(values) / 2)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    r"""Mean structural similarity of each map of a with the same of b, ``(N,)``.

    .. math:: \mathrm{SSIM} = \frac{(2 \mu_a \mu_b + C_1)(2 \sigma_{ab} + C_2)}
        {(\mu_a^2 + \mu_b^2 + C_1)(\sigma_a^2 + \sigma_b^2 + C_2)}, \qquad C_1 = 0.01^2, \quad C_2 = 0.03^2,

    in 7 x 7 windows of maps in [0, 1]: each is divided by its largest magnitude, and if one of the pair has negative
    values, both are moved from [-1, 1] to [0, 1], since the formula takes maps of opposite sign for alike
    (:math:`\mu_a \mu_b < 0` and :math:`\sigma_{ab} < 0`). Wang, Bovik, Sheikh & Simoncelli 2004, IEEE Transactions on
    Image Processing 13(4). It is NaN for vectors ``(N, D)`` and for pictures smaller than the window.

    Args:
        a, b: ``(N, C, H, W)``, whose channels are summed, ``(N, H, W)`` or ``(N, D)``, of the same shape.

    Raises:
        ValueError: the shapes differ or are not as above, or a map is not finite.

    >>> a = torch.rand(1, 1, 8, 8)
    >>> ssim(a, a)
    tensor([1.])
    """
    a, b = _pair(a, b)
    if a.dim() != 3 or min(a.shape[1:]) < WINDOW:
        return torch.full((len(a),), math.nan, device=a.device)
    a, b = (m / m.abs().amax((1, 2), keepdim=True).clamp(min=torch.finfo(m.dtype).tiny) for m in (a, b))
    signed = ((a < 0) | (b < 0)).flatten(1).any(1)[:, None, None]
    a, b = (torch.where(signed, (1 + m) / 2, m) for m in (a, b))
    c1, c2 = 0.01**2, 0.03**2

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(values[:, None], WINDOW, stride=1)[:, 0]

    unbiased = WINDOW**2 / (WINDOW**2 - 1)
    mu_a, mu_b = mean(a), mean(b)
    var_a, var_b, cov = (
        unbiased * (mean(u * v) - mu_u * mu_v)
        for u, v, mu_u, mu_v in ((a, a, mu_a, mu_a), (b, b, mu_b, mu_b), (a, b, mu_a, mu_b))
    )
    value = (2 * mu_a * mu_b + c1) * (2 * cov + c2) / ((mu_a**2 + mu_b**2 + c1) * (var_a + var_b + c2))
    return value.mean((1, 2)).to(torch.get_default_dtype())


def _pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    a, b = relevance_map(a, "a"), relevance_map(b, "b")
    if a.shape != b.shape:
        raise ValueError(f"the maps must have one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    return a, b
