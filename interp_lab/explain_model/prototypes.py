r"""Prototypes and criticisms: examples that stand for the data, and examples that the prototypes leave out.

With the kernel :math:`k(x, x') = \exp(-\gamma \lVert x - x' \rVert^2)`, prototypes S are chosen so that their mean
embedding is near that of the data: they minimise the maximum mean discrepancy

.. math:: \mathrm{MMD}^2(S) = \frac1{n^2} \sum_{i,j} k_{ij} - \frac2{n|S|} \sum_{i, j \in S} k_{ij}
    + \frac1{|S|^2} \sum_{i,j \in S} k_{ij}.

The greedy algorithm needs the mean of every column of the kernel once and one column per choice, so the n x n matrix
is never held.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 2048  # rows of the kernel in memory at a time
EXPONENT_ERROR = 3e-6  # largest rounding of gamma times a squared distance


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
    labels: Tensor | None = None,
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
        x: float ``(N, ...)``, flattened; on any device. The kernel of half-precision data is of single precision.
        n_prototypes: 1 .. N.
        n_criticisms: 0 .. N - n_prototypes.
        gamma: the kernel's parameter; None takes 1 / (median squared distance of 1,000 examples).
        labels: LongTensor ``(N,)``: the kernel between classes is then 0 (the paper's local kernel).
        diversity: the weight :math:`\lambda` of the log-determinant, at least 0.

    Time is O(N^2 D), memory O(N (D + n_criticisms)).

    Raises:
        ValueError: an argument is not as above, or x is not finite.
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
    return Prototypes(torch.stack(prototypes), criticisms, witness, torch.tensor(mmd2), kernel.gamma)


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
    :math:`|x|^2`. So the origin moves to the middle of the data, and where some example is still too far from it, double
    precision or the differences themselves are taken.
    """

    def __init__(self, x: Tensor, centre: Tensor, gamma: float, labels: Tensor | None) -> None:
        def scaled(dtype: torch.dtype) -> tuple[Tensor, Tensor, float]:
            values = (x.to(dtype) - centre.to(dtype)) * math.sqrt(gamma)
            squares = values.square().sum(1)
            return values, squares, torch.finfo(dtype).eps * float(squares.max())

        dtype = torch.promote_types(x.dtype, torch.float32)
        self.x, self.squares, error = scaled(dtype)
        if not error <= EXPONENT_ERROR and dtype != torch.float64:
            self.x, self.squares, error = scaled(torch.float64)
        self.by_differences, self.gamma, self.labels, self.dtype = not error <= EXPONENT_ERROR, gamma, labels, dtype

    def block(self, rows: Tensor, columns: Tensor) -> Tensor:
        a, b = self.x[rows], self.x[columns]
        if self.by_differences:
            squared = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square_()
        else:
            squared = torch.addmm(self.squares[rows, None] + self.squares[columns], a, b.T, alpha=-2).clamp_(min=0)
        return squared.neg_().exp_()

    def column(self, j: Tensor) -> Tensor:
        k = self.block(slice(None), j[None])[:, 0].to(self.dtype)
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
        return (total / len(total)).to(self.dtype)


def _checked(
    x: Tensor, n_prototypes: int, n_criticisms: int, gamma: float | None, labels: Tensor | None, diversity: float
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
    if not 1 <= n_prototypes <= len(x):
        raise ValueError(f"n_prototypes must lie in 1..{len(x)} (the number of examples), got {n_prototypes}")
    if not 0 <= n_criticisms <= len(x) - n_prototypes:
        raise ValueError(f"n_criticisms must lie in 0..{len(x) - n_prototypes}, got {n_criticisms}")
    if not diversity >= 0:
        raise ValueError(f"diversity must be at least 0, got {diversity}")
    if labels is not None:
        if labels.shape != (len(x),) or labels.is_floating_point():
            raise ValueError(f"labels must be a LongTensor ({len(x)},), got {labels.dtype} {tuple(labels.shape)}")
        labels = labels.to(x.device)
    some = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:1000].to(x.device)].double()
    if gamma is None:
        median = float(torch.pdist(some).square().median()) if len(some) > 1 else 0.0
        gamma = 1 / median if median > 0 else 1.0
    if not 0 < gamma < math.inf:
        raise ValueError(f"gamma must be positive, got {gamma}")
    return _Kernel(x, some.median(0).values, float(gamma), labels)
