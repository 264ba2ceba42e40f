r"""Influence functions: which training example moved this decision most?

A network at a minimum of :math:`L(\theta) = \frac1n \sum_i \ell_i(\theta) + \frac\lambda2 \lVert\theta\rVert^2` answers the
removal of example i, to first order, by the step :math:`\frac1n H^{-1} g_i`, with the gradient
:math:`g_i = \nabla\ell_i` and the Hessian :math:`H = \nabla^2 L`. The loss of a test example t then rises by

.. math:: \Delta\ell_t = \tfrac1n\, g_t^\top H^{-1} g_i .

Solving :math:`H s_t = g_t` once per test example leaves one inner product per pair. The training set passes by in
batches, and no more than a batch of its gradients is ever held.
"""

import math
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...contract import check_batch_size
from .kronecker import ekfac, kfac
from .objective import Loss, Objective, check_classes, check_x, differentiating
from .problem import Problem
from .solvers import Solve, conjugate_gradients, exact, lissa
from .training_set import Pair, TrainingSet, check_pair
from .trust import warn_if_not_at_minimum, warn_if_not_linear

Solver = Callable[..., Solve]  # of (problem), for LiSSA of (problem, scale, depth, seed)

SOLVERS: dict[str, Solver] = {"exact": exact, "cg": conjugate_gradients, "lissa": lissa, "kfac": kfac, "ekfac": ekfac}


@dataclass(frozen=True, eq=False)
class TopInfluence:
    """The largest and the smallest influences of every row, as ``influence(..., top=k)`` gives them.

    Attributes:
        helpful: ``(n_test, k)``, the largest influences, falling: without these examples the test loss rises most.
        helpful_indices: LongTensor ``(n_test, k)``, their places in the training set.
        harmful: ``(n_test, k)``, the smallest influences, rising: without these examples the test loss falls most.
        harmful_indices: LongTensor ``(n_test, k)``.

    Example:
        >>> import torch
        >>> from interp_lab import influence
        >>> x = torch.tensor([[1.0], [1.0], [2.0]]).repeat(10, 1)
        >>> y = torch.tensor([[0.0], [2.0], [2.0]]).repeat(10, 1)
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> _ = model.weight.data.fill_(1.0)
        >>> top = influence(model, (x, y), (x[:1], y[:1]), loss=torch.nn.functional.mse_loss, top=10)
        >>> (top.helpful_indices % 3).unique(), (top.harmful_indices % 3).unique()
        (tensor([0]), tensor([1]))
    """

    helpful: Tensor
    helpful_indices: Tensor
    harmful: Tensor
    harmful_indices: Tensor


@overload
def influence(
    model: nn.Module,
    train: Pair | Iterable[Pair],
    test: Pair,
    *,
    weight_decay: float = ...,
    damping: float = ...,
    solver: str = ...,
    parameters: str | Sequence[str] | None = ...,
    top: None = None,
    loss: Loss = ...,
    scale: float | None = ...,
    depth: int | None = ...,
    batch_size: int | None = ...,
    seed: int = ...,
    folder: str | os.PathLike | None = ...,
    executor: Executor | None = ...,
    progress: bool = ...,
) -> Tensor: ...


@overload
def influence(
    model: nn.Module,
    train: Pair | Iterable[Pair],
    test: Pair,
    *,
    weight_decay: float = ...,
    damping: float = ...,
    solver: str = ...,
    parameters: str | Sequence[str] | None = ...,
    top: int,
    loss: Loss = ...,
    scale: float | None = ...,
    depth: int | None = ...,
    batch_size: int | None = ...,
    seed: int = ...,
    folder: str | os.PathLike | None = ...,
    executor: Executor | None = ...,
    progress: bool = ...,
) -> TopInfluence: ...


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
    loss: Loss = F.cross_entropy,
    scale: float | None = None,
    depth: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    folder: str | os.PathLike | None = None,
    executor: Executor | None = None,
    progress: bool = False,
) -> Tensor | TopInfluence:
    r"""The predicted rise of every test loss when one training example is removed: positive for a helpful example.

    .. math:: \Delta\ell_t = \tfrac1n\, g_t^\top (H + \delta I)^{-1} g_i, \qquad
        H = \nabla^2 \Bigl(\tfrac1n \sum_i \ell_i + \tfrac\lambda2 \lVert\theta\rVert^2\Bigr)

    Removed means retrained with the other weights kept at :math:`1/n` and the regulariser as it was, so :math:`g_i` is the
    gradient of the example's loss alone. Koh and Liang 2017, arXiv:1703.04730.

    The solvers, with P parameters:

    * ``"exact"``: a Cholesky factor of the P x P Hessian, which P Hessian-vector products build; P up to 20,000.
    * ``"cg"``: conjugate gradient to a relative residual of 1e-5 (1e-11 in float64); every iteration is a pass over
      the training set.
    * ``"lissa"``: the series :math:`u \leftarrow u + (g_t - \hat H u) / s` with the Hessian :math:`\hat H` of 64 rows at a
      time (Agarwal, Bullins and Hazan 2017, arXiv:1602.03943). The scale s must bound the eigenvalues of those Hessians, and the
      first part of the series dies out like :math:`(1 - (\lambda + \delta) / s)^\mathrm{depth}`. The mean of the second half of the iterates
      is taken: on digits its residual was .02 where that of the last iterate was .45.
    * ``"kfac"``: one block :math:`A \otimes G` per ``Linear`` or ``Conv2d``, with the second moments A of the layer's
      inputs and G of the gradients at its outputs (Martens and Grosse 2015, arXiv:1503.05671; Grosse and Martens 2016,
      arXiv:1602.01407). It is the Gauss-Newton matrix that is so approximated, which for the cross-entropy is the true
      Fisher matrix: the expectation over labels is exact, by one backward pass per class, not sampled and not taken at
      the training labels. Never indefinite, and cheap; the order of the examples is good, the size may be off by a
      factor of two.
    * ``"ekfac"``: as ``"kfac"``, but in the basis of the eigenvectors of :math:`A \otimes G` the eigenvalues are replaced by the
      second moments of the gradients there, which is the best diagonal in that basis (George, Laurent, Bouthillier, Ballas
      and Vincent 2018, arXiv:1806.03884; for influence Grosse et al. 2023, arXiv:2308.03296); one more pass.

    When the linear approximation fails. Two things are measured, and a warning tells when they fail:

    * *The model is not at a minimum.* Training on would then move the test loss by :math:`-s_t^\top \nabla L`, whatever is
      removed. The warning comes where this exceeds the root mean square of the influences on a test loss.
    * *The step is not small.* For the 8 training examples of the largest loss, the slope of the objective without
      the example is taken at both ends of the predicted step; the secant through the two slopes tells how long the true
      step is. The warning comes where it is not within a factor of 1.1 (not for ``"kfac"`` and ``"ekfac"``, whose own
      error is larger). Softmax regression on 1,200 digits of 8 x 8, against retraining:

      ============ ===== ==== ========= =========
      weight decay 0.1   0.01 0.001     0.0001
      measured     1.01  1.05 1.24      2.92
      slope, truth 1.01  1.05 1.20-1.36 1.99-2.94
      correlation  1.000 1.00 0.998     0.974
      ============ ===== ==== ========= =========

    For the last layers of an ``nn.Sequential``, give its tail and the features that enter it: then the layers in front
    run once, not in every pass.

    Args:
        model: a module from x to outputs ``(N, ...)`` that the loss takes; explained in eval mode.
        train: a pair (x, y) with x ``(N, ...)`` of any type that the model takes (token ids need no gradient), or batches of
            such pairs that come again, the same, in every pass (a list, a ``DataLoader`` without shuffling); columns of the
            result are in their order.
        test: a pair (x, y).
        weight_decay: :math:`\lambda` of the objective that the model was trained on.
        damping: :math:`\delta`, added to the Hessian; it shrinks the predictions.
        parameters: names of parameters or of modules. A module, or None for the whole model, stands for its parameters
            with ``requires_grad``: a frozen layer keeps its weights when the rest is trained again. Where all are frozen,
            which tells nothing of their training, all are taken. A parameter that is named itself is taken in any case.
        solver: one of the above.
        top: give the k largest and smallest of every row only.
        loss: the mean loss of a batch from (outputs, y), in which every row has the same weight. One logit needs
            ``F.binary_cross_entropy_with_logits`` and float labels of the outputs' shape.
        scale: s of LiSSA; None takes the largest eigenvalue met in 8 samples, by power iteration.
        depth: steps of LiSSA; None takes :math:`s / (\lambda + \delta) \cdot \ln 100`, at least 500.
        batch_size: rows that go together, which bounds the memory; None lets memory decide. It does not change the result.
        seed: of LiSSA's samples. Batches that are no pair are taken in their own order.
        folder: where the passes of ``"kfac"`` and ``"ekfac"`` and the influences are kept as they come, as safetensors. A call
            that was killed, made again, goes on where it was (at most a minute before); a call with another model or other
            data takes nothing of it.
        executor: computes the chunks of these passes. Any ``concurrent.futures.Executor``: a ``ProcessPoolExecutor`` (not one
            that forks after torch has started threads) or a cluster; model and loss must be such as can be pickled.
        progress: show a bar for each of these passes, with the time left.

    Returns:
        ``(n_test, n_train)``, or a :class:`TopInfluence`.

    Raises:
        ValueError: an argument is not as above; the Hessian is not positive definite (it needs damping); a solver did
            not converge; the training set changed between passes; the loss is a sum, weights the rows, leaves some out or
            does not take the outputs and labels.
        UnsupportedModelError: an operation without per-example gradients (``torch.func.vmap``); a parameter that is also
            reached through another object than its module, such as a ``partial`` of its weight; for ``"kfac"`` and
            ``"ekfac"``, a parameter of another layer or of several, or a layer that does not read one row per example; by name.

    Example:
        A line through the origin, at its minimum; the three training examples are there ten times.

        >>> import torch
        >>> from interp_lab import influence
        >>> x = torch.tensor([[1.0], [1.0], [2.0]]).repeat(10, 1)
        >>> y = torch.tensor([[0.0], [2.0], [2.0]]).repeat(10, 1)
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> _ = model.weight.data.fill_(1.0)
        >>> scores = influence(model, (x, y), (x[:1], y[:1]), loss=torch.nn.functional.mse_loss)
        >>> scores[:, :3]  # like the test example: helpful; with the other label: harmful; on the line: nothing
        tensor([[ 0.0333, -0.0333,  0.0000]])
    """
    if solver not in SOLVERS:
        raise ValueError(f"solver must be one of {', '.join(SOLVERS)}, got {solver!r}")
    for name, value in (("weight_decay", weight_decay), ("damping", damping)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a finite number of at least 0, got {value}")
    check_batch_size(batch_size)
    x, y = check_pair(test, "test")
    if not isinstance(model, nn.Module) or next(model.parameters(), None) is None:
        raise ValueError(f"model must be an nn.Module with parameters, got {type(model).__name__}")
    check_x(model, x)
    with differentiating(model, x):
        x, y = x.detach().clone(), y.to(x.device)
        objective = Objective(model, parameters, loss, x, y, batch_size, partial(_check_labels, loss))
        problem = Problem(objective, TrainingSet(train), weight_decay, damping, folder, executor, progress)
        if top is not None and not 1 <= top <= problem.n:
            raise ValueError(f"top must lie in 1..{problem.n}, the number of training examples, got {top}")
        solve = lissa(problem, scale, depth, seed) if solver == "lissa" else SOLVERS[solver](problem)
        gradients = objective.gradients(x, y)
        if solver in ("kfac", "ekfac"):
            solutions = solve(gradients)
        else:  # the trial steps are solved along with the rest
            trials = objective.gradients(*problem.hardest)
            solutions, steps = solve(torch.cat([gradients, trials])).split([len(x), len(trials)])
            warn_if_not_linear(problem, steps / problem.n)
        result, size = _scores(problem, solutions / problem.n, top)
        if not size.any():
            warnings.warn("every influence is 0: the losses do not change with the chosen parameters", stacklevel=2)
        warn_if_not_at_minimum(problem, solutions, size)
        return result


def _scores(problem: Problem, solutions: Tensor, top: int | None) -> tuple[Tensor | TopInfluence, Tensor]:
    """Inner products of the solutions with every training gradient, and their root mean square in each row."""
    whole = solutions.new_empty(len(solutions), problem.n if top is None else 0)  # preallocated: avoids fragmentation
    ends = [(solutions[:, :0], solutions[:, :0].long())] * 2
    square, start = torch.zeros_like(solutions[:, 0]), 0
    for chunk in problem.passes.rows(inner_products, solutions):
        part = chunk["scores"].T
        square += (part**2).sum(1)
        index = torch.arange(start, start + part.shape[1], device=part.device).expand_as(part)
        start += part.shape[1]
        if top is None:
            whole[:, start - part.shape[1] : start] = part
            continue
        for end, sign in enumerate((1, -1)):
            values, places = (torch.cat(pair, 1) for pair in zip(ends[end], (sign * part, index), strict=True))
            values, order = values.topk(min(top, values.shape[1]))
            ends[end] = values, places.gather(1, order)
    size = (square / problem.n).sqrt()
    if top is None:
        return whole, size
    (helpful, helpful_indices), (harmful, harmful_indices) = ends
    return TopInfluence(helpful, helpful_indices, -harmful, harmful_indices), size


def inner_products(objective: Objective, x: Tensor, y: Tensor, solutions: Tensor) -> dict[str, Tensor]:
    return {"scores": objective.gradients(x, y) @ solutions.T}


def _check_labels(loss: Loss, shape: torch.Size, y: Tensor) -> None:
    """Refuse labels that are no classes of outputs ``(N, *shape)``, for the cross-entropy."""
    if getattr(loss, "func", loss) is not F.cross_entropy and not isinstance(loss, nn.CrossEntropyLoss):
        return
    if not shape or shape[0] == 1:
        raise ValueError(
            f"the cross-entropy needs logits (N, K) of two classes or more, and is 0 for one; the model gives {('N', *shape)}: "
            "give loss=F.binary_cross_entropy_with_logits, and labels y.float() of the shape of its outputs"
        )
    if not (y.is_floating_point() and y.shape[1:] == shape):  # else probabilities
        check_classes(shape, y)
