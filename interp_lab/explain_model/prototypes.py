r"""Prototypes and criticisms: examples that stand for the data, and examples that the prototypes leave out.

With the kernel :math:`k(x, x') = \exp(-\gamma \lVert x - x' \rVert^2)`, prototypes S are chosen so that their mean
embedding is near that of the data: they minimise the maximum mean discrepancy

.. math:: \mathrm{MMD}^2(S) = \frac1{n^2} \sum_{i,j} k_{ij} - \frac2{n|S|} \sum_{i, j \in S} k_{ij}
    + \frac1{|S|^2} \sum_{i,j \in S} k_{ij}.

The greedy algorithm needs the mean of every column of the kernel once and one column per choice, so the n x n matrix
is never held.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

BLOCK = 2048  # rows of the kernel in memory at a time
EXPONENT_ERROR = 3e-6  # largest rounding of gamma times a squared distance, and a tenth of its largest share
FLAT = 1e-13  # of 1 less the kernel of most pairs, where even double precision loses it


@dataclass(frozen=True, eq=False)
class Prototypes:
    """What :func:`mmd_critic` chose.

    Attributes:
        prototypes: LongTensor ``(n_prototypes,)``, indices in the order of choice.
        criticisms: LongTensor ``(n_criticisms,)``, indices in the order of choice.
        witness: ``(N,)``, the mean kernel to the data less the mean kernel to the prototypes: positive where the
            prototypes leave data out, negative where they crowd.
        mmd2: ``(n_prototypes,)``, the squared maximum mean discrepancy after each choice.
        gamma: the kernel's parameter.
    """

    prototypes: Tensor
    criticisms: Tensor
    witness: Tensor
    mmd2: Tensor
    gamma: float


def mmd_critic(
    x: Tensor,
    n_prototypes: int,
    n_criticisms: int = 0,
    *,
    gamma: float | None = None,
    labels: Tensor | np.ndarray | Sequence[int] | None = None,
    diversity: float = 1.0,
) -> Prototypes:
    r"""Greedy prototypes by maximum mean discrepancy, and criticisms by its witness function.

    Each prototype is the example j that lowers :math:`\mathrm{MMD}^2` most, which is the largest
    :math:`\frac2n \sum_i k_{ij} - \bigl(2 \sum_{l \in S} k_{lj} + k_{jj}\bigr) / (|S| + 1)`. Criticisms are then chosen,
    greedily and outside S, to maximise :math:`\sum_{l \in C} |w(x_l)| + \lambda \log\det K_{CC}` with the witness
    :math:`w(x) = \frac1n \sum_i k(x, x_i) - \frac1{|S|} \sum_{j \in S} k(x, x_j)`.

    The witness is of the order 1e-3 and the log-determinant of the order 1, so that with :math:`\lambda = 1` it is the
    log-determinant that decides: it asks for examples unlike each other. :math:`\lambda = 0` follows the witness alone.
    Kim, Khanna & Koyejo 2016, "Examples are not enough, learn to criticize!" (NIPS).

    Args:
        x: float ``(N, ...)``, flattened; on any device. The kernel of half-precision data is of single precision, and of double where
            it is so near 1 or some examples are so far off that single does not tell the others apart.
        n_prototypes: 1 .. N.
        n_criticisms: 0 .. N - n_prototypes.
        gamma: the kernel's parameter; None takes 1 / (median squared distance of 1,000 examples).
        labels: ``(N,)`` integers: the kernel between classes is then 0 (the paper's local kernel).
        diversity: the weight :math:`\lambda` of the log-determinant, at least 0.

    Time is O(N^2 D), memory O(N (D + n_criticisms)).

    Raises:
        ValueError: an argument is not as above, x is not finite, its squared distances are not, or gamma is so small that
            the kernel is 1 everywhere.

    >>> x = torch.tensor([[0.0], [0.1], [-0.1], [5.0], [5.1], [4.9]])
    >>> mmd_critic(x, 2, gamma=1.0).prototypes.sort().values  # the middle of each cluster
    tensor([0, 3])
    """
    kernel = _checked(x, n_prototypes, n_criticisms, gamma, labels, diversity)
    mean = kernel.mean()
    near = torch.zeros_like(mean)  # sum of the kernel to the prototypes chosen
    free = torch.ones_like(mean, dtype=torch.bool)
    within = between = 0.0  # sums of the kernel over S x S, and of the mean over S
    prototypes, mmd2 = [], []
    for count in range(1, n_prototypes + 1):
        gain = 2 * mean - (2 * near + 1) / count
        j = gain.masked_fill(~free, -math.inf).argmax()
        free[j] = False
        prototypes.append(j)
        within += float(2 * near[j]) + 1
        between += float(mean[j])
        near += kernel.column(j)
        mmd2.append(float(mean.mean()) - 2 * between / count + within / count**2)
    witness = mean - near / n_prototypes
    criticisms = _criticisms(witness, free, kernel.column, n_criticisms, diversity)
    shown = witness.to(torch.promote_types(x.dtype, torch.float32))
    return Prototypes(torch.stack(prototypes), criticisms, shown, torch.tensor(mmd2), kernel.gamma)


def _criticisms(witness: Tensor, free: Tensor, column, count: int, diversity: float) -> Tensor:
    """Greedy over the witness and the log-determinant; a pivoted Cholesky factor gives each candidate's gain."""
    rest = torch.ones_like(witness)  # k_jj - K_jC K_CC^-1 K_Cj
    factors = witness.new_zeros(count, len(witness))
    chosen = []
    for step in range(count):
        gain = witness.abs() + (diversity * rest.clamp(min=1e-30).log() if diversity else 0)
        j = gain.masked_fill(~free, -math.inf).argmax()
        free[j] = False
        chosen.append(j)
        factors[step] = (column(j) - factors[:step, j] @ factors[:step]) / rest[j].clamp(min=1e-30).sqrt()
        rest = rest - factors[step] ** 2
    return torch.stack(chosen) if chosen else torch.empty(0, dtype=torch.long, device=witness.device)


class _Kernel:
    r"""Columns of the kernel, without the whole of it.

    A squared distance by :math:`|x|^2 + |y|^2 - 2 x \cdot y`, one fast product of matrices, is off by the rounding of
    :math:`|x|^2`, and a kernel near 1 by that of 1. So the origin moves to the middle of the data, and where an example
    is still too far from it, or the examples are too near to each other, double precision or the differences themselves
    are taken. ``near`` is the squared distance of near examples, to which the rounding is compared.
    """

    def __init__(self, x: Tensor, centre: Tensor, near: float, gamma: float, labels: Tensor | None) -> None:
        allowed = EXPONENT_ERROR * min(1, 10 * gamma * near)
        for dtype in (torch.promote_types(x.dtype, torch.float32), torch.float64):
            self.x = (x.to(dtype) - centre.to(dtype)) * math.sqrt(gamma)
            self.squares = self.x.square().sum(1)
            farthest, rounding = float(self.squares.max()), torch.finfo(dtype).eps
            if rounding * max(1, farthest) <= allowed:
                break
        self.by_differences = not rounding * farthest <= allowed
        self.gamma, self.labels = gamma, labels

    def block(self, rows: Tensor | slice, columns: Tensor | slice) -> Tensor:
        a, b = self.x[rows], self.x[columns]
        if self.by_differences:
            squared = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square_()
        else:
            squared = torch.addmm(self.squares[rows, None] + self.squares[columns], a, b.T, alpha=-2).clamp_(min=0)
        return squared.neg_().exp_()

    def column(self, j: Tensor) -> Tensor:
        k = self.block(slice(None), j[None])[:, 0]
        k[j] = 1
        return k if self.labels is None else k * (self.labels == self.labels[j])

    def mean(self) -> Tensor:
        """The mean of every column, block by block; blocks below the diagonal are those above it."""
        total = torch.zeros_like(self.squares)
        groups = [torch.arange(len(total), device=total.device)]
        if self.labels is not None:
            groups = [torch.nonzero(self.labels == label).squeeze(1) for label in self.labels.unique()]
        for group in groups:
            blocks = group.split(BLOCK)
            for i, rows in enumerate(blocks):
                for k, columns in enumerate(blocks[i:]):
                    block = self.block(rows, columns)
                    if k:
                        total[columns] += block.sum(0)
                    else:
                        block.fill_diagonal_(1)
                    total[rows] += block.sum(1)
        return total / len(total)


def _checked(
    x: Tensor,
    n_prototypes: int,
    n_criticisms: int,
    gamma: float | None,
    labels: Tensor | np.ndarray | Sequence[int] | None,
    diversity: float,
) -> _Kernel:
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.dim() < 2:
        got = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(
            f"x must be a floating-point tensor (N, ...), got {got}; of numbers, give x.float(); of token ids, which "
            "have no distances, give their embeddings"
        )
    x = x.detach().flatten(1)
    if not torch.isfinite(x).all():
        raise ValueError("x must be finite, got NaN or infinite values")
    for name, count in (("n_prototypes", n_prototypes), ("n_criticisms", n_criticisms)):
        if not isinstance(count, Integral):
            raise ValueError(f"{name} must be a whole number, got {count!r}; give int({name})")
    if not 1 <= n_prototypes <= len(x):
        raise ValueError(f"n_prototypes must lie in 1..{len(x)} (the number of examples), got {n_prototypes}")
    if not 0 <= n_criticisms <= len(x) - n_prototypes:
        raise ValueError(f"n_criticisms must lie in 0..{len(x) - n_prototypes}, got {n_criticisms}")
    if not diversity >= 0:
        raise ValueError(f"diversity must be at least 0, got {diversity}")
    if labels is not None:
        given = np.asarray(labels.tolist() if isinstance(labels, Tensor) else labels)
        if given.shape != (len(x),) or given.dtype.kind not in "iub":
            raise ValueError(f"labels must be {len(x)} integers, got {given.dtype} {given.shape}")
        labels = torch.from_numpy(given.astype(np.int64)).to(x.device)
    some = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:1000].to(x.device)].double()
    squared = torch.pdist(some).square() if len(some) > 1 else some.new_zeros(1)
    largest = float(squared.max())
    if largest == math.inf or (largest == 0 and (some != some[0]).any()):
        raise ValueError(
            f"the squared distances in x {'over' if largest else 'under'}flow double precision; give x in another unit, "
            "such as x / x.abs().max()"
        )
    median = float(squared.median())
    if gamma is None:
        gamma = 1 / median if median > 0 else 1.0
    if not 0 < gamma < math.inf:
        raise ValueError(f"gamma must be positive, got {gamma}")
    if 0 < gamma * median < FLAT:
        raise ValueError(
            f"with gamma {gamma:g} the kernel of most pairs is 1 to the last digit, since their squared distance is about "
            f"{median:.2g}; give a gamma near {1 / median:.2g}, or None"
        )
    apart = squared[squared > 0]
    near = float(apart.quantile(0.01)) if len(apart) else math.inf
    return _Kernel(x, some.median(0).values, near, float(gamma), labels)
