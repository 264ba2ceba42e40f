"""What every solver solves: the Hessian of the objective over the whole training set."""

import os
from collections.abc import Iterator
from concurrent.futures import Executor

import torch
from torch import Tensor
from torch.func import grad, grad_and_value, vmap

from .objective import Loss, Objective
from .passes import Passes
from .training_set import Pair, TrainingSet

PROBES = 8  # training examples whose predicted step is tried


class Problem:
    r""":math:`H + \delta I` of :math:`\frac1n \sum_i \ell_i + \frac\lambda2 \lVert\theta\rVert^2`; making it is a first pass.

    Attributes:
        n: the number of training examples.
        loss_gradient: ``(P,)``, the mean gradient of their losses.
        hardest: the examples of largest loss, as a pair.
        passes: those over chunks of the training set, for the solvers that need no Hessian and for the influences.
        ridge: weight decay and damping, :math:`\lambda + \delta`.
    """

    def __init__(
        self,
        objective: Objective,
        train: TrainingSet,
        weight_decay: float,
        damping: float,
        folder: str | os.PathLike | None,
        executor: Executor | None,
        progress: bool,
    ) -> None:
        self.objective, self.train = objective, train
        self.weight_decay, self.ridge = weight_decay, weight_decay + damping
        self.n, loss, total = 0, 0.0, torch.zeros_like(objective.theta)
        hardest: tuple[Tensor, ...] = ()  # x, y, losses and outputs
        for x, y in self.batches():
            gradient, (value, (losses, z)) = grad_and_value(self._summed, has_aux=True)(objective.theta, x, y)
            total += gradient
            loss += float(value)
            self.n += len(x)
            if hardest:
                x, y, losses, z = (torch.cat(pair) for pair in zip(hardest, (x, y, losses, z), strict=True))
            _check_mean(objective.loss, z, y)  # with rows of earlier batches, whose labels may be others
            index = losses.topk(min(PROBES, len(x))).indices
            hardest = x[index], y[index], losses[index], z[index]
        self.loss_gradient, self.hardest = total / self.n, (hardest[0], hardest[1])
        # Another loss has the same text as this one, where both are lambdas, but other values.
        self.passes = Passes(objective, train, folder, executor, progress, f"{loss:.6g}")

    def batches(self) -> Iterator[Pair]:
        return self.train.batches(self.objective, self.objective.rows)

    def hessian(self, vectors: Tensor) -> Tensor:
        """The Hessian of the objective, with damping, times every vector ``(m, P)``: a pass over the training set."""
        total = sum(self.objective.hessian_of(*batch)(vectors) for batch in self.batches())
        return total / self.n + self.ridge * vectors

    def _summed(self, theta: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The sum of the examples' losses; every loss, and the outputs that it was taken of."""

        def one(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            z = self.objective.outputs(theta, x[None])
            return self.objective.loss(z, y[None]), z[0]

        losses, z = vmap(one)(x, y)
        return losses.sum(), (losses, z)


def _check_mean(loss: Loss, z: Tensor, y: Tensor) -> None:
    """Refuse a loss of a batch that is not the mean of its rows': weights of classes cancel in a row alone."""
    alone = vmap(grad(lambda z, y: loss(z[None], y[None])))(z, y)
    leaf = z.clone().requires_grad_()
    (together,) = torch.autograd.grad(loss(leaf, y), leaf)
    size, off = (t.flatten(1).abs().amax(1) for t in (alone[:, None], (len(z) * together - alone)[:, None]))
    rounding = 16 * torch.finfo(z.dtype).eps * (1 + z.abs().max())
    if not (off <= 1e-3 * size + rounding).all():
        row = int((off / (size + rounding)).nan_to_num(torch.inf).argmax())
        raise ValueError(
            "loss must give the mean of its rows' losses, each with the same weight, since influence takes the rows one by "
            f"one; of {len(z)} rows it gives another gradient, as for the label {y[row].flatten()[:3].tolist()}. A sum "
            "(reduction='sum'), weights of classes (weight=), rows left out (ignore_index=) and labels of another shape "
            f"than the outputs (here {tuple(y.shape)} and {tuple(z.shape)}) do so. For a sum divide by the number of rows "
            "(and weight_decay as well); leave the rows out of train; for weights w give loss=lambda z, y: (w[y] * "
            "F.cross_entropy(z, y, reduction='none')).mean() with w / w[y].mean() over the training labels"
        )
