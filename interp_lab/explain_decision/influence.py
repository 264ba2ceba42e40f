r"""Influence functions: which training example moved this decision most?

A network at a minimum of :math:`L(\theta) = \frac1n \sum_i \ell_i(\theta) + \frac\lambda2 \lVert\theta\rVert^2` answers the
removal of example i, to first order, by the step :math:`\frac1n H^{-1} g_i`, with the gradient
:math:`g_i = \nabla\ell_i` and the Hessian :math:`H = \nabla^2 L`. The loss of a test example t then rises by

.. math:: \Delta\ell_t = \tfrac1n\, g_t^\top H^{-1} g_i .

Solving :math:`H s_t = g_t` once per test example leaves one inner product per pair. The training set passes by in
batches, and no more than a batch of its gradients is ever held.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, vjp, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from ..backprop.decompositions import DECOMPOSED
from ..contract import UnsupportedModelError, check_input, explaining, output_of

Pair = tuple[Tensor, Tensor]
Solve = Callable[[Tensor], Tensor]

SOLVERS = ("exact", "cg", "lissa", "kfac")
BUDGET = 2**25  # numbers that one step may hold on a processor; decides how many rows go together
EXACT_LIMIT = 20_000  # parameters: their Hessian takes 1.6 GB in single precision
CG_ITERATIONS = 1000
ASYMMETRY = 3e-3  # largest relative asymmetry of the influences by CG
SAMPLE = 64  # rows of one step of LiSSA
RESIDUAL = 0.1  # largest relative residual of LiSSA's average
PROBES = 8  # training examples whose predicted step is tried
BENT = 1.1  # ratio of the true step to the predicted one, or the reverse, before a warning
CHANGED = (
    "train gave other batches than in its first pass, so no column would stand for one example; turn off its shuffling "
    "and its random augmentation"
)


@dataclass(frozen=True, eq=False)
class TopInfluence:
    """Both ends of every row of the influences.

    Attributes:
        helpful: ``(n_test, k)``, the largest influences, falling: without these examples the test loss rises most.
        helpful_indices: LongTensor ``(n_test, k)``, their places in the training set.
        harmful: ``(n_test, k)``, the smallest influences, rising: without these examples the test loss falls most.
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

    Where the theory bends. Two things are measured, and a warning tells when they fail:

    * *The model is not at a minimum.* Training on would then move the test loss by :math:`-s_t^\top \nabla L`, whatever is
      removed. The warning comes where this exceeds the root mean square of the influences on a test loss.
    * *The step is not small.* For the 8 training examples of the largest loss, the slope of the objective without
      the example is taken at both ends of the predicted step; the secant through the two slopes tells how long the true
      step is. The warning comes where it is not within a factor of 1.1 (not for ``"kfac"``, whose own error is larger).
      Softmax regression on 1,200 digits of 8 x 8, against retraining:

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
        train: a pair (x, y) with x ``(N, ...)`` of any type that the model takes (token ids need no gradient), or batches of such pairs that come again, the same, in every pass (a list, a
            ``DataLoader`` without shuffling); columns of the result are in their order.
        test: a pair (x, y).
        weight_decay: :math:`\lambda` of the objective that the model was trained on.
        damping: :math:`\delta`, added to the Hessian; it shrinks the predictions.
        parameters: names of parameters or of modules. A module, or None for the whole model, stands for its parameters
            with ``requires_grad``: a frozen layer keeps its weights when the rest is trained again. Where all are frozen,
            which tells nothing of their training, all are taken. A parameter that is named itself is taken in any case.
        top: give the k largest and smallest of every row only.
        loss: the mean loss of a batch from (outputs, y), in which every row has the same weight. One logit needs ``F.binary_cross_entropy_with_logits`` and float
            labels of the outputs' shape.
        scale: s of LiSSA; None takes the largest eigenvalue met in 8 samples, by power iteration.
        depth: steps of LiSSA; None takes :math:`s / (\lambda + \delta) \cdot \ln 100`, at least 500.
        batch_size: rows that go together; None lets memory decide. It does not change the result.
        seed: of LiSSA's samples. Batches that are no pair are taken in their own order.

    Returns:
        ``(n_test, n_train)``, or a :class:`TopInfluence`.

    Raises:
        ValueError: an argument is not as above; the Hessian is not positive definite (it needs damping); a solver did
            not converge; the training set changed between passes; the loss is a sum, weights the rows, leaves some out or
            does not take the outputs and labels.
        UnsupportedModelError: an operation without per-example gradients (``torch.func.vmap``); a parameter that is also
            reached through another object than its module, such as a ``partial`` of its weight; for ``"kfac"``, a
            parameter of another layer or of several, or a layer that does not read one row per example; by name.
    """
    if solver not in SOLVERS:
        raise ValueError(f"solver must be one of {', '.join(SOLVERS)}, got {solver!r}")
    for name, value in (("weight_decay", weight_decay), ("damping", damping)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a finite number of at least 0, got {value}")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    x, y = _pair(test, "test")
    if not isinstance(model, nn.Module) or next(model.parameters(), None) is None:
        raise ValueError(f"model must be an nn.Module with parameters, got {type(model).__name__}")
    _check_x(model, x)
    # The block looks at what it explains, which ids cannot be. Fused attention has no second derivative.
    stand_in = x if x.is_floating_point() else next(model.parameters()).new_zeros(1, 1)
    with _same_attributes(model), explaining(model, stand_in), sdpa_kernel(SDPBackend.MATH), _WrittenOut():
        x = x.detach().clone()
        problem = _Problem(model, train, (x, y), parameters, loss, weight_decay, damping, batch_size)
        problem.survey()
        if top is not None and not 1 <= top <= problem.n:
            raise ValueError(f"top must lie in 1..{problem.n}, the number of training examples, got {top}")
        if solver == "lissa":
            solve = _lissa(problem, scale, depth, seed)
        else:
            solve = {"exact": _exact, "cg": _cg, "kfac": _kfac}[solver](problem)
        gradients = problem.gradients(x, y.to(x.device))
        if solver == "kfac":
            solutions = solve(gradients)
        else:  # the trial steps are solved along with the rest
            solutions, steps = solve(torch.cat([gradients, problem.gradients(*problem.hardest)])).split(
                [len(x), len(problem.hardest[0])]
            )
            _warn_where_it_bends(_stretch(problem, steps / problem.n))
        result, size = _scores(problem, solutions / problem.n, top)
        if not size.any():
            warnings.warn("every influence is 0: the losses do not change with the chosen parameters", stacklevel=2)
        _warn_off_the_minimum(problem, solutions, size)
        return result


class _Problem:
    """The objective as a function of the chosen parameters, which form one vector; the others stay fixed."""

    def __init__(
        self,
        model: nn.Module,
        train: Pair | Iterable[Pair],
        test: Pair,
        names: str | Sequence[str] | None,
        loss: Callable[[Tensor, Tensor], Tensor],
        weight_decay: float,
        damping: float,
        batch_size: int | None,
    ) -> None:
        self.fixed = {name: p.detach() for name, p in model.named_parameters()}
        for name, p in self.fixed.items():
            if p.dtype not in (torch.float32, torch.float64):
                raise ValueError(
                    f"the parameters must be float32 or float64, got {p.dtype} in {name!r}; use model.float()"
                )
        chosen = {name: self.fixed.pop(name) for name in _chosen(model, names)}
        if len({p.dtype for p in chosen.values()}) > 1:
            raise ValueError("the parameters must have one type; use model.float() or model.double()")
        self.shapes = {name: p.shape for name, p in chosen.items()}
        self.theta = torch.cat([p.flatten() for p in chosen.values()])
        if not isinstance(train, Iterable) or isinstance(train, Iterator):
            raise ValueError(
                "train must be a pair (x, y) or batches that come again in every pass, such as a list or a DataLoader, "
                f"got {type(train).__name__}"
            )
        self.own = {name: p for name, p in model.named_parameters() if name in chosen}
        self.model, self.train, self.given, self.loss = model, train, loss, loss
        self.weight_decay, self.ridge = weight_decay, weight_decay + damping
        self.marks: list[tuple[int, float]] | None = None  # size and content of every batch of the first pass
        x, y = test[0], test[1].to(test[0].device)
        self.shape = _outputs(model, x[:2]).shape[1:]  # two: whether rows depend on each other shows
        self._check_labels(y)
        kept = len(self.theta) + self._kept(x, y)
        budget, most = _budget(self.theta)
        self.rows = batch_size or min(most, max(1, budget // kept))
        self.vectors = max(1, budget // (self.rows * kept))
        self._try(x[:1], y[:1])
        self.loss = _refusing(loss)  # from here on an error of the loss is one of its labels, not of torch.func

    def _kept(self, x: Tensor, y: Tensor) -> int:
        """How many numbers one row keeps for its backward pass."""
        count = 0

        def keep(tensor: Tensor) -> Tensor:
            nonlocal count
            count += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            outputs = self.outputs(self.theta.clone().requires_grad_(), x[:1])
            value = _refusing(self.given)(outputs, y[:1])
        if value.dim():
            raise ValueError(f"loss must give the mean over the batch as one number, got shape {tuple(value.shape)}")
        return count

    def _try(self, x: Tensor, y: Tensor) -> None:
        """One Hessian-vector product of one row: what torch.func cannot do is refused here, with the module's name."""
        inside: list[str] = []

        def leave(*_) -> None:
            inside.pop()

        hooks = []
        for name, module in self.model.named_modules():
            hooks.append(module.register_forward_pre_hook(lambda *_, name=name: inside.append(name)))
            hooks.append(module.register_forward_hook(leave))
        try:
            past = self._reached_otherwise(x[0], y[0])
            self.gradients(x, y)
            pair = torch.randn(2, len(self.theta), generator=torch.Generator().manual_seed(0)).to(self.theta)
            products = self.products(pair, x, y)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            place = f"the module {inside[-1]!r}" if inside and inside[-1] else "the model or the loss"
            raise UnsupportedModelError(
                f"{place} has an operation that torch.func refuses; for the layers behind it, give these as the model and "
                f"what enters them as x. It says: {error}"
            ) from error
        finally:
            for hook in hooks:
                hook.remove()
        if past:
            raise UnsupportedModelError(
                f"the parameter {past[0]!r} is also reached through another object than the attribute of its module (a "
                "partial, a list, a closure, a stored view of it, the loss), where no other value can be put for it: "
                f"read it as self.{past[0].rpartition('.')[2]} in the forward of its module"
            )
        both = products @ pair.T
        if not (both - both.T).abs().max() <= torch.finfo(pair.dtype).eps ** 0.4 * products.norm() * pair.norm():
            raise UnsupportedModelError(
                "the Hessian is not symmetric: an operation of the model has a wrong second derivative"
            )

    def _reached_otherwise(self, x: Tensor, y: Tensor) -> list[str]:
        """The chosen parameters that still have a part in the loss where others stand in their places."""
        frozen = [p for p in self.own.values() if not (p.requires_grad or p.is_inference())]
        try:
            for p in frozen:
                p.requires_grad_()
            value = self.loss_of(self.theta.clone().requires_grad_(), x, y)
            if not value.requires_grad:
                return []
            own = {name: p for name, p in self.own.items() if p.requires_grad}
            found = torch.autograd.grad(value, list(own.values()), allow_unused=True)
        finally:
            for p in frozen:
                p.requires_grad_(False)
        return [name for name, gradient in zip(own, found, strict=True) if gradient is not None]

    def split(self, vectors: Tensor) -> dict[str, Tensor]:
        """Vectors ``(..., P)`` as tensors of the parameters' shapes, by name."""
        parts = vectors.split([shape.numel() for shape in self.shapes.values()], -1)
        pairs = zip(self.shapes.items(), parts, strict=True)
        return {name: part.reshape(*part.shape[:-1], *shape) for (name, shape), part in pairs}

    def outputs(self, theta: Tensor, x: Tensor) -> Tensor:
        # A model that works in place shall not change the caller's x.
        return functional_call(self.model, self.fixed | self.split(theta), (x.clone(),))

    def loss_of(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The loss of one example, which goes through the model as a batch of its own."""
        return self.loss(self.outputs(theta, x[None]), y[None])

    def losses(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return vmap(self.loss_of, (None, 0, 0))(theta, x, y)

    def gradients(self, x: Tensor, y: Tensor) -> Tensor:
        """The gradient of every example's loss, ``(N, P)``."""
        each = vmap(grad(self.loss_of), (None, 0, 0))
        pairs = zip(x.split(self.rows), y.split(self.rows), strict=True)
        return torch.cat([each(self.theta, *rows) for rows in pairs])

    def products(self, vectors: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The Hessian of the sum of these examples' losses, times every vector ``(m, P)``."""

        _, pull = vjp(grad(lambda theta: self.losses(theta, x, y).sum()), self.theta)
        return vmap(lambda v: pull(v)[0], chunk_size=self.vectors)(vectors)

    def hessian(self, vectors: Tensor) -> Tensor:
        """The Hessian of the objective, with damping, times every vector ``(m, P)``."""
        return sum(self.products(vectors, *batch) for batch in self.batches()) / self.n + self.ridge * vectors

    def batches(self, order: torch.Generator | None = None) -> Iterator[Pair]:
        """The training set, in batches of at most ``rows``; with ``order``, a pair in memory is shuffled."""
        marks: list[tuple[int, float]] = []
        for x, y in self._incoming(order):
            if not _is_pair(self.train):
                places = torch.arange(1, len(x) + 1, device=x.device)
                marks.append((len(x), float((x.reshape(len(x), -1).sum(1) * places).sum())))
                if self.marks is not None and marks[-1:] != self.marks[len(marks) - 1 : len(marks)]:
                    raise ValueError(CHANGED)
            for rows in zip(x.split(self.rows), y.split(self.rows), strict=True):
                x_rows, y_rows = (t.detach().to(self.theta.device) for t in rows)
                _check_x(self.model, x_rows)
                self._check_labels(y_rows)
                yield x_rows, y_rows
        if self.marks is not None and len(marks) < len(self.marks):
            raise ValueError(CHANGED)
        self.marks = marks

    def _incoming(self, order: torch.Generator | None) -> Iterator[Pair]:
        if _is_pair(self.train):
            x, y = _pair(self.train, "train")
            index = torch.arange(len(x)) if order is None else torch.randperm(len(x), generator=order)
            yield from ((x[i], y[i]) for i in index.split(self.rows))
        else:
            yield from (_pair(batch, "every batch of train") for batch in self.train)

    def samples(self, order: torch.Generator) -> Iterator[Pair]:
        """Blocks of SAMPLE rows, without end."""
        x = y = None
        while True:
            for batch in self.batches(order):
                x, y = batch if x is None else (torch.cat(pair) for pair in zip((x, y), batch, strict=True))
                while len(x) >= SAMPLE:
                    yield x[:SAMPLE], y[:SAMPLE]
                    x, y = x[SAMPLE:], y[SAMPLE:]

    def survey(self) -> None:
        """The first pass: the number of examples, the mean gradient of their losses, the examples of largest loss."""
        self.n, total, hardest = 0, torch.zeros_like(self.theta), None
        for x, y in self.batches():
            losses, pull, z = vjp(lambda theta: self._with_outputs(theta, x, y), self.theta, has_aux=True)  # noqa: B023  used at once
            total += pull(torch.ones_like(losses))[0]
            self.n += len(x)
            if hardest is not None:
                x, y, losses, z = (torch.cat(pair) for pair in zip(hardest, (x, y, losses, z), strict=True))
            self._check_mean(z, y)  # with rows of earlier batches, whose labels may be others
            index = losses.topk(min(PROBES, len(x))).indices
            hardest = x[index], y[index], losses[index], z[index]
        if hardest is None:
            raise ValueError("train gave no batch")
        self.loss_gradient, self.hardest = total / self.n, hardest[:2]

    def _with_outputs(self, theta: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Every example's loss, and the outputs that it was taken of."""

        def one(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            z = self.outputs(theta, x[None])
            return self.loss(z, y[None]), z[0]

        return vmap(one)(x, y)

    def _check_mean(self, z: Tensor, y: Tensor) -> None:
        """Refuse a loss of a batch that is not the mean of its rows': weights of classes cancel in a row alone."""
        alone = vmap(grad(lambda z, y: self.loss(z[None], y[None])))(z, y)
        leaf = z.clone().requires_grad_()
        (together,) = torch.autograd.grad(self.loss(leaf, y), leaf)
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

    def _check_labels(self, y: Tensor) -> None:
        given = self.given
        if getattr(given, "func", given) is not F.cross_entropy and not isinstance(given, nn.CrossEntropyLoss):
            return
        if not self.shape or self.shape[0] == 1:
            raise ValueError(
                f"the cross-entropy needs logits (N, K) of two classes or more, and is 0 for one; the model gives {('N', *self.shape)}: "
                "give loss=F.binary_cross_entropy_with_logits, and labels y.float() of the shape of its outputs"
            )
        if y.is_floating_point() and y.shape[1:] == self.shape:  # probabilities
            return
        shape = ", ".join(map(str, ("N", *self.shape[1:])))
        if (
            y.dtype != torch.int64
            or y.shape[1:] != self.shape[1:]
            or not 0 <= int(y.min()) <= int(y.max()) < self.shape[0]
        ):
            raise ValueError(
                f"y must be a LongTensor ({shape}) of classes in 0..{self.shape[0] - 1}, got {y.dtype} {tuple(y.shape)} from "
                f"{y.min().item()} to {y.max().item()}"
            )


def _budget(theta: Tensor) -> tuple[int, int]:
    """How many numbers a step may hold, and how many rows: on a GPU what fills a quarter of its free memory."""
    if theta.device.type != "cuda":
        return BUDGET, 256
    free, _ = torch.cuda.mem_get_info(theta.device)
    return free // (4 * theta.element_size()), 4096


def _refusing(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss, whose errors say which outputs and labels it got."""

    def refusing(z: Tensor, y: Tensor) -> Tensor:
        try:
            return loss(z, y)
        except torch.OutOfMemoryError:
            raise
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"the loss takes a batch of outputs {tuple(z.shape)}, {z.dtype}, and of labels {tuple(y.shape)}, {y.dtype}, but "
                f"says: {str(error).rstrip('.')}. Labels must be as the loss wants them, such as y[:, None].float() for one logit (N, 1) "
                "with F.binary_cross_entropy_with_logits; the cross-entropy needs two logits or more"
            ) from error

    return refusing


class _WrittenOut(TorchFunctionMode):
    """Replaces operations whose second derivative torch has not, or has wrong, by others."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        body = WRITTEN_OUT.get(func)
        return func(*args, **(kwargs or {})) if body is None else body(*args, **(kwargs or {}))


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    return v * (g / torch.norm_except_dim(v, 2, dim))


RECURRENT = (
    *(torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu),
    *(torch.lstm_cell, torch.gru_cell, torch.rnn_tanh_cell, torch.rnn_relu_cell),
)
WRITTEN_OUT: dict[Callable, Callable] = {
    torch._weight_norm: _weight_norm,
    **{func: partial(DECOMPOSED[func], func) for func in RECURRENT},
}


@contextmanager
def _same_attributes(model: nn.Module) -> Iterator[None]:
    """Puts tensors back that a module computes from its parameters in every pass, such as a pruned weight."""
    computed = [(m, key, t) for m in model.modules() for key, t in vars(m).items() if isinstance(t, Tensor)]
    try:
        yield
    finally:
        for module, key, tensor in computed:
            setattr(module, key, tensor)


def _check_x(model: nn.Module, x: Tensor) -> None:
    """No gradient to x is taken, so that it may also be of integers."""
    if x.is_floating_point():
        check_input(model, x)
        return
    device = next(model.parameters()).device
    if x.is_complex() or x.device != device:
        raise ValueError(f"x must be real and on the model's {device}, got {x.dtype} on {x.device}")


def _outputs(model: nn.Module, x: Tensor) -> Tensor:
    out = output_of(model, x.clone())  # a model that works in place shall not change the caller's x
    if not isinstance(out, Tensor) or out.dim() == 0 or len(out) != len(x):
        got = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(
            f"the model must give one tensor ({len(x)}, ...) for x {tuple(x.shape)}, got {got}; wrap it in a module whose "
            "forward returns what the loss takes, as model(x).logits or model(x)[0]"
        )
    if out.isnan().any():
        raise ValueError("the model gives NaN for this x")
    return out


def _is_pair(data: object) -> bool:
    return isinstance(data, tuple | list) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)


def _pair(data: object, name: str) -> Pair:
    if not _is_pair(data) or len(data[0]) != len(data[1]) or not len(data[0]):
        got = [tuple(part.shape) for part in data] if _is_pair(data) else type(data).__name__
        raise ValueError(f"{name} must be a pair (x, y) of tensors of one length above 0, got {got}")
    return data[0], data[1]


def _chosen(model: nn.Module, names: str | Sequence[str] | None) -> list[str]:
    """Names of the parameters that are trained, each once; a shared one also answers to its other names."""
    first: dict[Tensor, str] = {}
    places = {name: first.setdefault(p, name) for name, p in model.named_parameters(remove_duplicate=False)}
    trained = {name for p, name in first.items() if p.requires_grad}
    names = [""] if names is None else [names] if isinstance(names, str) else list(names)
    if not names:
        raise ValueError("parameters must name at least one parameter or module, got none")
    found: set[str] = set()
    for name in names:
        group = {first for place, first in places.items() if not name or place == name or place.startswith(f"{name}.")}
        if not group:
            raise ValueError(f"the model has no parameter or module {name!r}; its parameters: {', '.join(places)}")
        found |= group & trained or group
    return [name for name in first.values() if name in found]


def _exact(problem: _Problem) -> Solve:
    theta = problem.theta
    if len(theta) > EXACT_LIMIT:
        raise ValueError(
            f"solver 'exact' holds the Hessian of at most {EXACT_LIMIT} parameters, got {len(theta)}; name a layer "
            "with parameters=, or use solver 'cg' or 'kfac'"
        )
    matrix = problem.hessian(torch.eye(len(theta), dtype=theta.dtype, device=theta.device))
    matrix = (matrix + matrix.T) / 2
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if failed:
        lowest = float(torch.linalg.eigvalsh(matrix)[0])
    else:
        v = torch.randn(len(theta), 1, generator=torch.Generator().manual_seed(0)).to(theta)
        for _ in range(20):  # inverse power iteration
            v = torch.cholesky_solve(v / v.norm(), factor)
        lowest = 1 / float(v.norm())
    if lowest <= len(theta) * torch.finfo(theta.dtype).eps * float(matrix.diagonal().max()):
        raise ValueError(
            f"the Hessian is not positive definite: its smallest eigenvalue is about {lowest:.2g}; add damping above "
            f"{abs(lowest):.2g}, or weight_decay where the model was trained with it"
        )
    return lambda v: torch.cholesky_solve(v.T, factor).T


def _cg(problem: _Problem) -> Solve:
    def solve(v: Tensor) -> Tensor:
        tolerance = torch.finfo(v.dtype).eps ** 0.7
        s, r, p = torch.zeros_like(v), v.clone(), v.clone()
        square = (r * r).sum(1)
        goal = tolerance**2 * square
        for _ in range(CG_ITERATIONS):
            left = (square > goal).nonzero().squeeze(1)
            if not len(left):
                # In exact arithmetic v H^-1 v is symmetric; a small residual says nothing of products that are rounded.
                both = s @ v.T
                if not (both - both.T).abs().max() <= ASYMMETRY * both.abs().max():
                    raise ValueError(
                        f"{v.dtype} is too coarse for this Hessian, as where inputs lie far from 0 against their spread: "
                        "subtract their mean, use model.double(), or add damping"
                    )
                return s
            direction = p[left]
            product = problem.hessian(direction)
            curvature = (direction * product).sum(1)
            if not (curvature > 0).all():
                lowest = float((curvature / (direction * direction).sum(1)).min())
                raise ValueError(
                    f"the Hessian is not positive definite: CG met the curvature {lowest:.2g}; add damping well above "
                    f"{abs(lowest):.2g}"
                )
            length = (square[left] / curvature)[:, None]
            s[left] += length * direction
            r[left] -= length * product
            before, square = square, (r * r).sum(1)
            p[left] = r[left] + (square[left] / before[left])[:, None] * direction
        worst = float((square / goal).max().sqrt()) * tolerance
        raise ValueError(
            f"CG stands at the relative residual {worst:.1e} after {CG_ITERATIONS} iterations, not below "
            f"{tolerance:.0e}: add damping, use a float64 model or solver 'exact'"
        )

    return solve


def _lissa(problem: _Problem, scale: float | None, depth: int | None, seed: int) -> Solve:
    samples = problem.samples(torch.Generator().manual_seed(seed))
    largest = problem.ridge + max(_largest_curvature(problem, *sample) for sample in islice(samples, 8))
    scale = largest if scale is None else scale
    if not scale >= largest:
        raise ValueError(
            f"scale {scale:g} is below the largest eigenvalue {largest:.4g} of a sample's Hessian, so the series may "
            "diverge; give at least that, or None"
        )
    if depth is None and problem.ridge == 0:
        raise ValueError("LiSSA converges at the rate (weight_decay + damping) / scale: add damping, or give depth")
    needed = math.ceil(scale / problem.ridge * math.log(100)) if problem.ridge else math.inf
    depth = max(500, needed) if depth is None else depth  # the mean over few steps is noisy
    if depth < 2:
        raise ValueError(f"depth must be at least 2, got {depth}")

    def solve(v: Tensor) -> Tensor:
        u, mean = v / scale, torch.zeros_like(v)
        for step, (x, y) in enumerate(islice(samples, depth)):
            u = u + (v - problem.products(u, x, y) / len(x) - problem.ridge * u) / scale
            if step >= depth // 2:
                mean += u / (depth - depth // 2)
        residual = float(((v - problem.hessian(mean)).norm(dim=1) / v.norm(dim=1).clamp(min=1e-30)).max())
        if not residual <= RESIDUAL:
            raise ValueError(
                f"LiSSA's relative residual is {residual:.2g} at depth {depth} and scale {scale:.4g}, not below {RESIDUAL}: "
                f"raise depth (the first part of the series takes {needed}) or damping; a residual above 1 tells of a "
                "Hessian that is not positive definite, which needs damping"
            )
        return mean

    return solve


def _largest_curvature(problem: _Problem, x: Tensor, y: Tensor) -> float:
    """The magnitude of the largest eigenvalue of these examples' mean Hessian, by power iteration."""
    v = torch.randn(1, len(problem.theta), generator=torch.Generator().manual_seed(0)).to(problem.theta)
    for _ in range(30):
        v = problem.products(v / v.norm().clamp(min=1e-30), x, y) / len(x)
    return float(v.norm())


def _kfac(problem: _Problem) -> Solve:
    blocks = _blocks(problem)
    _check_blocks(problem, blocks)
    moments, far = {name: [0, 0] for name in blocks}, {}
    for x, y in problem.batches():
        z, seen = _watched(problem, blocks, x)
        for name, (inputs, _) in seen.items():
            a = _columns(problem, blocks, name, inputs).flatten(0, 1)
            if name not in far:  # from 0, where the squares of single precision lose the spread
                far[name] = not a.mean(0).square().sum() <= 100 * a.var(0).sum()
            a = a.double() if far[name] else a
            moments[name][0] += a.T @ a / problem.n
        roots = _curvature_roots(problem, z.detach(), y)
        for part in roots.split(problem.vectors):
            pulled = _pulled(z, seen, part, batched=True)
            for name, signals in pulled.items():
                d = _signals(problem, name, signals.flatten(0, 1))
                positions = d.shape[1]
                d = d.flatten(0, 1)
                moments[name][1] += d.T @ d / (problem.n * positions)
    inverses = {}
    for name, (second_a, second_g) in moments.items():
        (a, basis_a), (g, basis_g) = torch.linalg.eigh(second_a), torch.linalg.eigh(second_g.to(second_a))
        values = g.clamp(min=0)[:, None] * a.clamp(min=0)
        if values.min() + problem.ridge <= len(a) * torch.finfo(problem.theta.dtype).eps * values.max():
            raise ValueError(f"the Kronecker factors of {name!r} are singular: add damping")
        inverses[name] = basis_g, basis_a, 1 / (values + problem.ridge)

    def solve(v: Tensor) -> Tensor:
        parts, solved = problem.split(v), {}
        for name, owned in blocks.items():
            basis_g, basis_a, inverse = inverses[name]
            matrix = _matrix(parts, owned).to(inverse)
            matrix = (basis_g @ ((basis_g.T @ matrix @ basis_a) * inverse) @ basis_a.T).to(v.dtype)
            widths = [problem.shapes[p][1:].numel() for p in owned]
            solved |= dict(zip(owned, matrix.split(widths, 2), strict=True))
        return torch.cat([solved[p].flatten(1) for p in problem.shapes], 1)

    return solve


def _blocks(problem: _Problem) -> dict[str, list[str]]:
    """Layer -> its chosen parameters, the weight before the bias."""
    blocks: dict[str, list[str]] = {}
    for parameter in problem.shapes:
        name, _, kind = parameter.rpartition(".")
        layer = problem.model.get_submodule(name)
        plain = isinstance(layer, nn.Linear) or (
            isinstance(layer, nn.Conv2d)
            and layer.groups == 1
            and layer.padding_mode == "zeros"
            and not isinstance(layer.padding, str)
        )
        if not plain or kind not in ("weight", "bias"):
            raise UnsupportedModelError(
                f"solver 'kfac' knows Linear and Conv2d (one group, padding by zeros, given as a number), but {parameter!r} "
                f"belongs to {layer}; name other parameters, fold BatchNorm into the convolution, or use solver 'cg'"
            )
        blocks.setdefault(name, []).append(parameter)
    return blocks


def _matrix(parts: dict[str, Tensor], owned: list[str]) -> Tensor:
    """A layer's weight ``(..., out, in)``, its bias as the last column, of vectors split by parameter."""
    return torch.cat([parts[p].flatten(2) if p.endswith("weight") else parts[p][..., None] for p in owned], 2)


def _check_blocks(problem: _Problem, blocks: dict[str, list[str]]) -> None:
    """Refuse a weight that acts anywhere but in the one call of its layer: that call does not give its gradient then."""
    x, y = problem.hardest
    _watched(problem, blocks, x[:1])  # where an axis of as many steps as there are rows does not pass for theirs
    z, seen = _watched(problem, blocks, x)
    loss = vmap(lambda z, y: problem.loss(z[None], y[None]))(z, y).sum()
    pulled = _pulled(loss, seen, None)
    whole = problem.split(problem.gradients(x, y).sum(0, keepdim=True))
    for name, signals in pulled.items():
        inputs = _columns(problem, blocks, name, seen[name][0]).flatten(0, 1)
        own, true = _signals(problem, name, signals).flatten(0, 1).T @ inputs, _matrix(whole, blocks[name])[0]
        if not (own - true).abs().max() <= 1e-2 * true.abs().max().clamp(min=torch.finfo(true.dtype).eps):
            raise UnsupportedModelError(
                f"solver 'kfac' needs layers whose weights act in one call of the layer alone, but those of {name!r} act "
                "elsewhere too (tied to another layer, or used by a function); use solver 'cg'"
            )


def _watched(
    problem: _Problem, blocks: dict[str, list[str]], x: Tensor
) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
    """Outputs, and of every layer its input and a zero that is added to its output, to differentiate to."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def watch(name: str) -> Callable:
        def hook(layer: nn.Module, args: tuple[Tensor], named: dict[str, Tensor], out: Tensor) -> Tensor:
            (read,) = (*args, *named.values())
            if name in seen:
                raise UnsupportedModelError(f"solver 'kfac' needs layers that run once, but {name!r} runs again")
            if len(read) != len(x):
                raise UnsupportedModelError(
                    f"solver 'kfac' needs layers that read one row per example, (N, ...), but {name!r} reads "
                    f"{tuple(read.shape)} for {len(x)} of them: put the batch first, apart from steps, crops and the "
                    "like, or use solver 'cg'"
                )
            probe = torch.zeros_like(out, requires_grad=True)
            seen[name] = read.detach(), probe
            return out + probe

        return hook

    hooks = [problem.model.get_submodule(name).register_forward_hook(watch(name), with_kwargs=True) for name in blocks]
    try:
        z = problem.outputs(problem.theta, x)
    finally:
        for hook in hooks:
            hook.remove()
    if len(seen) < len(blocks):
        raise UnsupportedModelError(f"the layers {', '.join(sorted(set(blocks) - set(seen)))} do not run")
    return z, seen


def _curvature_roots(problem: _Problem, z: Tensor, y: Tensor) -> Tensor:
    """Columns ``(K, N, ...)`` of a square root of the loss's Hessian in the outputs ``(N, ...)`` with K numbers a row.

    Pulled back to a layer's output, their outer products sum to the Gauss-Newton matrix there.
    """

    def curvature(z: Tensor, y: Tensor) -> Tensor:
        return hessian(lambda flat: problem.loss(flat.view(1, *z.shape), y[None]))(z.flatten())

    values, vectors = torch.linalg.eigh(vmap(curvature)(z, y))
    if values.min() < -1e-4 * values.abs().max():
        raise ValueError("solver 'kfac' needs a loss that is convex in the outputs; use solver 'cg' with damping")
    roots = vectors * values.clamp(min=0).sqrt()[:, None]
    return roots.movedim(2, 0).reshape(-1, *z.shape)


def _pulled(z: Tensor, seen: dict[str, tuple[Tensor, Tensor]], roots: Tensor | None, batched: bool = False) -> dict:
    """Gradients at the output of every layer, by its name; of a batch of roots in one backward pass."""
    probes = [probe for _, probe in seen.values()]
    pulled = torch.autograd.grad(z, probes, roots, retain_graph=True, is_grads_batched=batched, allow_unused=True)
    shape = roots.shape[:1] if batched else ()
    return {
        name: probe.new_zeros(*shape, *probe.shape) if d is None else d
        for (name, (_, probe)), d in zip(seen.items(), pulled, strict=True)
    }


def _columns(problem: _Problem, blocks: dict[str, list[str]], name: str, inputs: Tensor) -> Tensor:
    """A layer's inputs at every position, ``(N, positions, in)``, and a one for its bias."""
    layer = problem.model.get_submodule(name)
    if isinstance(layer, nn.Conv2d):
        inputs = F.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride).transpose(1, 2)
    else:
        inputs = inputs.reshape(len(inputs), -1, inputs.shape[-1])
    ones = inputs.new_ones(*inputs.shape[:2], 1)
    return torch.cat([inputs if p.endswith("weight") else ones for p in blocks[name]], 2)


def _signals(problem: _Problem, name: str, d: Tensor) -> Tensor:
    """Gradients at a layer's output, ``(N, positions, out)``; of a convolution ``(N, out, height, width)``."""
    if isinstance(problem.model.get_submodule(name), nn.Conv2d):
        return d.flatten(2).transpose(1, 2)
    return d.reshape(len(d), -1, d.shape[-1])


def _scores(problem: _Problem, solutions: Tensor, top: int | None) -> tuple[Tensor | TopInfluence, Tensor]:
    """Inner products of the solutions with every training gradient, and their root mean square in each row."""
    # Filled in place: small results kept between large temporaries would leave the heap full of holes.
    whole = solutions.new_empty(len(solutions), problem.n) if top is None else None
    ends: list[tuple[Tensor, Tensor] | None] = [None, None]
    square, start = torch.zeros_like(solutions[:, 0]), 0
    for batch in problem.batches():
        part = solutions @ problem.gradients(*batch).T
        square += (part**2).sum(1)
        index = torch.arange(start, start + part.shape[1], device=part.device).expand_as(part)
        start += part.shape[1]
        if top is None:
            whole[:, start - part.shape[1] : start] = part
            continue
        for end, sign in enumerate((1, -1)):
            values, places = sign * part, index
            if ends[end] is not None:
                values, places = (torch.cat(pair, 1) for pair in zip(ends[end], (values, places), strict=True))
            values, order = values.topk(min(top, values.shape[1]))
            ends[end] = values, places.gather(1, order)
    if top is None:
        result = whole
    else:
        (helpful, helpful_indices), (harmful, harmful_indices) = ends
        result = TopInfluence(helpful, helpful_indices, -harmful, harmful_indices)
    return result, (square / problem.n).sqrt()


def _stretch(problem: _Problem, steps: Tensor) -> Tensor:
    """Length of the true step over that of the predicted one, for the hardest examples, by the secant of the slopes."""
    x, y = problem.hardest

    def slope(step: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Of the summed loss along the step, at its end."""
        return grad(lambda theta: problem.losses(theta, x, y).sum())(problem.theta + step) @ step

    slopes = vmap(slope, (0, None, None), chunk_size=problem.vectors)
    total = sum(slopes(steps, *batch) for batch in problem.batches()) - vmap(slope)(steps, x[:, None], y[:, None])
    start = -(problem.gradients(x, y) * steps).sum(1) / problem.n
    # The slope that the whole objective has at the start is no consequence of the removal.
    end = total / problem.n - steps @ problem.loss_gradient + problem.ridge * (steps**2).sum(1)
    return torch.where(end > start, start / (start - end), math.inf)


def _warn_where_it_bends(stretch: Tensor) -> None:
    ratio = torch.maximum(stretch, 1 / stretch)
    if not ratio.max() <= BENT:
        worst = float(stretch[ratio.argmax()])
        warnings.warn(
            f"influence is a first-order prediction, and it bends here: the true step is {worst:.2g} times the predicted "
            f"one for a training example of large loss (median of {len(stretch)}: {float(stretch.median()):.2g}). Sizes "
            "are off by about that factor; more weight_decay in training, or damping, makes the steps smaller",
            stacklevel=3,
        )


def _warn_off_the_minimum(problem: _Problem, solutions: Tensor, size: Tensor) -> None:
    gradient = problem.loss_gradient + problem.weight_decay * problem.theta
    offset = (solutions @ gradient).abs()
    off = offset > size
    if off.any():
        worst = float((offset / size.clamp(min=1e-30)).max())
        warnings.warn(
            f"the model is not at a minimum of its objective: the gradient's norm is {float(gradient.norm()):.2g}. "
            f"Training on would move {int(off.sum())} of {len(off)} test losses by more than a typical influence, up to "
            f"{worst:.2g} times. Train to convergence on these data with this weight_decay; else read the influences as "
            "those on one further step of training, not on the model retrained",
            stacklevel=3,
        )
