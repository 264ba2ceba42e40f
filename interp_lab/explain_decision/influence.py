r"""Influence functions: which training example moved this decision most?

A network that minimises :math:`L(\theta) = \frac1n \sum_i \ell_i(\theta) + \frac\lambda2 \lVert\theta\rVert^2` answers the
removal of example i, to first order, by the step :math:`\frac1n H^{-1} g_i` with the gradient
:math:`g_i = \nabla\ell_i` and the Hessian :math:`H = \nabla^2 L`. The loss of a test example t then rises by

.. math:: \Delta\ell_t = \tfrac1n\, g_t^\top H^{-1} g_i .

Solving :math:`H s_t = g_t` once per test example leaves one inner product per pair. The four solvers differ in how they
solve; none holds more of the training set than a batch.
"""

import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jvp, vmap
from torch.nn import functional as F

from .contract import UnsupportedModelError, check_input, explaining, logits_of

Pair = tuple[Tensor, Tensor]
Solve = Callable[[Tensor], Tensor]

SOLVERS = ("exact", "cg", "lissa", "kfac")
BUDGET = 2**25  # numbers that one step may hold; sets how many rows go together
EXACT_LIMIT = 20_000  # parameters; their Hessian takes 1.6 GB in single precision
CG_ITERATIONS = 1000
SAMPLE = 64  # rows of one step of LiSSA
LISSA_RESIDUAL = 0.1
PROBES = 8  # training examples whose step is measured
BENT = 0.2  # the prediction may be off by this factor before a warning


@dataclass(frozen=True, eq=False)
class TopInfluence:
    """The ends of every row of the influences, for k examples at each end.

    Attributes:
        helpful: ``(n_test, k)``, the largest influences, in falling order: without these the test loss rises most.
        helpful_indices: LongTensor ``(n_test, k)``, their places in the training set.
        harmful: ``(n_test, k)``, the smallest influences, in rising order: without these the test loss falls most.
        harmful_indices: LongTensor ``(n_test, k)``.
    """

    helpful: Tensor
    helpful_indices: Tensor
    harmful: Tensor
    harmful_indices: Tensor


def influence(
    model: nn.Module,
    train: Pair | Iterable[Pair],
    test: Pair,
    *,
    weight_decay: float = 0.0,
    damping: float = 0.0,
    solver: str = "exact",
    parameters: str | Sequence[str] | None = None,
    top: int | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    scale: float | None = None,
    depth: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
) -> Tensor | TopInfluence:
    r"""Predicted rise of every test loss when one training example is removed: :math:`\frac1n g_t^\top H^{-1} g_i`."""
    if solver not in SOLVERS:
        raise ValueError(f"solver must be one of {', '.join(SOLVERS)}, got {solver!r}")
    for name, value in (("weight_decay", weight_decay), ("damping", damping)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a number of at least 0, got {value}")
    x, y = _pair(test, "test")
    with explaining(model, x) as x:
        problem = _Problem(model, train, parameters, loss, weight_decay + damping, batch_size, (x, y))
        raise NotImplementedError
