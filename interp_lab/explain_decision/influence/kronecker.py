r"""Solutions with Kronecker factors of the curvature: K-FAC and EK-FAC, one block for every layer.

The gradient of an example's loss in a layer's weights is :math:`\sum_t d_t a_t^\top`, with the layer's inputs :math:`a_t` and the
gradients :math:`d_t` at its outputs, one pair per position t (one for a dense layer on vectors). K-FAC takes the two as
independent, so that the curvature is :math:`G \otimes A` with their second moments; it is diagonal in the basis
:math:`U_G \otimes U_A` of their eigenvectors, with the products of the eigenvalues on the diagonal. EK-FAC keeps the basis
and measures the diagonal: the second moments of the gradients in that basis.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import grad, jacrev, vmap
from torch.nn import functional as F

from ...contract import UnsupportedModelError
from .objective import Objective
from .problem import Problem
from .solvers import Solve


def kfac(problem: Problem, corrected: bool = False) -> Solve:
    layers = Layers(problem.objective)
    layers.check(*problem.hardest)
    moments, bases, values = problem.passes.total(second_moments, layers.far(problem.hardest[0])), {}, {}
    for name in layers.owned:
        a, basis_a = torch.linalg.eigh(moments[f"{name} inputs"] / problem.n)
        g, basis_g = torch.linalg.eigh((moments[f"{name} signals"] / problem.n).to(a))
        bases[name], values[name] = (basis_g, basis_a), g.clamp(min=0)[:, None] * a.clamp(min=0)
    if corrected:
        values = {name: value / problem.n for name, value in problem.passes.total(squares_in_bases, bases).items()}
    eps = torch.finfo(problem.objective.theta.dtype).eps
    for name, value in values.items():
        if value.min() + problem.ridge <= value.shape[1] * eps * value.max():
            raise ValueError(f"the Kronecker factors of {name!r} are singular: add damping")

    def solve(v: Tensor) -> Tensor:
        matrices = layers.matrices(v)
        for name, (basis_g, basis_a) in bases.items():
            inner = basis_g.T @ matrices[name].to(basis_g) @ basis_a / (values[name] + problem.ridge)
            matrices[name] = (basis_g @ inner @ basis_a.T).to(v)
        return layers.vectors(matrices)

    return solve


ekfac = partial(kfac, corrected=True)


def second_moments(objective: Objective, x: Tensor, y: Tensor, far: list[str]) -> dict[str, Tensor]:
    r"""Sums over the examples of :math:`\sum_t a_t a_t^\top` and of the expected mean over t of :math:`d_t d_t^\top`."""
    layers, sums = Layers(objective), {}
    z, seen = layers.watched(x)
    for name, (read, _) in seen.items():
        a = layers.inputs(name, read).flatten(0, 1)
        a = a.double() if name in far else a
        sums[f"{name} inputs"] = a.T @ a
    for name, d in layers.expected(z, y, seen):
        product = torch.einsum("rnto,rntp->op", d, d) / d.shape[2]
        sums[f"{name} signals"] = sums.get(f"{name} signals", 0) + product
    return sums


def squares_in_bases(
    objective: Objective, x: Tensor, y: Tensor, bases: dict[str, tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    r"""Sums over the examples of the expected squares of :math:`U_G^\top \bigl(\sum_t d_t a_t^\top\bigr) U_A`."""
    layers = Layers(objective)
    sums: dict[str, Tensor] = {}
    z, seen = layers.watched(x)
    for name, d in layers.expected(z, y, seen):
        basis_g, basis_a = bases[name]
        a, d = layers.inputs(name, seen[name][0]).to(basis_a) @ basis_a, d.to(basis_g) @ basis_g
        if d.shape[2] == 1:  # the square of a product of two numbers
            squares = torch.einsum("rnto,nti->oi", d.square(), a.square())
        else:
            squares = torch.einsum("rnto,nti->rnoi", d, a).square().sum((0, 1))
        sums[name] = sums.get(name, 0) + squares
    return sums


class Layers:
    """The layers that own the chosen parameters: what enters them, and what is differentiated to their outputs.

    Attributes:
        owned: layer -> its chosen parameters, the weight before the bias.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.owned: dict[str, list[str]] = {}
        for parameter in objective.shapes:
            name, _, kind = parameter.rpartition(".")
            layer = objective.model.get_submodule(name)
            plain = isinstance(layer, nn.Linear) or (
                isinstance(layer, nn.Conv2d)
                and layer.groups == 1
                and layer.padding_mode == "zeros"
                and not isinstance(layer.padding, str)
            )
            if not plain or kind not in ("weight", "bias"):
                raise UnsupportedModelError(
                    "solvers 'kfac' and 'ekfac' know Linear and Conv2d (one group, padding by zeros, given as a number), but "
                    f"{parameter!r} belongs to {layer}; name other parameters, fold BatchNorm into the convolution, or use "
                    "solver 'cg'"
                )
            self.owned.setdefault(name, []).append(parameter)

    def check(self, x: Tensor, y: Tensor) -> None:
        """Refuse a weight that acts anywhere but in the one call of its layer: that call does not give its gradient then."""
        self.watched(x[:1])  # where an axis of as many steps as there are rows does not pass for theirs
        z, seen = self.watched(x)
        loss = vmap(lambda z, y: self.objective.loss(z[None], y[None]))(z, y).sum()
        whole = self.matrices(self.objective.gradients(x, y).sum(0, keepdim=True))
        for name, d in self._pulled(loss, None, seen):
            own, true = torch.einsum("nto,nti->oi", d, self.inputs(name, seen[name][0])), whole[name][0]
            if not (own - true).abs().max() <= 1e-2 * true.abs().max().clamp(min=torch.finfo(true.dtype).eps):
                raise UnsupportedModelError(
                    "solvers 'kfac' and 'ekfac' need layers whose weights act in one call of the layer alone, but those of "
                    f"{name!r} act elsewhere too (tied to another layer, or used by a function); use solver 'cg'"
                )

    def far(self, x: Tensor) -> list[str]:
        """Layers whose inputs are so far from 0 that their squares in single precision lose the spread."""
        inputs = {name: self.inputs(name, read).flatten(0, 1) for name, (read, _) in self.watched(x)[1].items()}
        return [
            name for name, a in inputs.items() if not a.mean(0).square().sum() <= 100 * a.var(0, correction=0).sum()
        ]

    def watched(self, x: Tensor) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        """Outputs, and of every layer its input and a zero that is added to its output, to differentiate to."""
        seen: dict[str, tuple[Tensor, Tensor]] = {}

        def watch(name: str) -> Callable:
            def hook(layer: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor], out: Tensor) -> Tensor:
                (read,) = (*args, *named.values())
                if name in seen:
                    raise UnsupportedModelError(
                        f"solvers 'kfac' and 'ekfac' need layers that run once, but {name!r} runs again"
                    )
                if len(read) != len(x):
                    raise UnsupportedModelError(
                        f"solvers 'kfac' and 'ekfac' need layers that read one row per example, (N, ...), but {name!r} reads "
                        f"{tuple(read.shape)} for {len(x)} of them: put the batch first, apart from steps, crops and the "
                        "like, or use solver 'cg'"
                    )
                probe = torch.zeros_like(out, requires_grad=True)
                seen[name] = read.detach(), probe
                return out + probe

            return hook

        with ExitStack() as hooks:
            for name in self.owned:
                layer = self.objective.model.get_submodule(name)
                hooks.callback(layer.register_forward_hook(watch(name), with_kwargs=True).remove)
            z = self.objective.outputs(self.objective.theta, x)
        if len(seen) < len(self.owned):
            raise UnsupportedModelError(f"the layers {', '.join(sorted(set(self.owned) - set(seen)))} do not run")
        return z, seen

    def inputs(self, name: str, read: Tensor) -> Tensor:
        """A layer's inputs at every position, ``(N, positions, in)``, and a one for its bias."""
        layer = self.objective.model.get_submodule(name)
        if isinstance(layer, nn.Conv2d):
            assert not isinstance(layer.padding, str)  # __init__ refuses those
            a = F.unfold(read, layer.kernel_size, layer.dilation, layer.padding, layer.stride).transpose(1, 2)
        else:
            a = read.reshape(len(read), -1, read.shape[-1])
        ones = a.new_ones(*a.shape[:2], 1)
        return torch.cat([a if p.endswith("weight") else ones for p in self.owned[name]], 2)

    def expected(self, z: Tensor, y: Tensor, seen: dict) -> Iterator[tuple[str, Tensor]]:
        """Of every layer, ``(R, N, positions, out)`` whose products, summed over R, are expected ones over the labels."""
        for roots in _curvature_roots(self.objective, z.detach(), y).split(self.objective.vectors):
            yield from self._pulled(z, roots, seen)

    def _pulled(self, z: Tensor, roots: Tensor | None, seen: dict) -> Iterator[tuple[str, Tensor]]:
        """Gradients at the outputs of every layer, ``(N, positions, out)``; of roots ``(R, N, ...)`` in one backward pass."""
        probes = {name: probe for name, (_, probe) in seen.items()}
        pulled = torch.autograd.grad(
            z, list(probes.values()), roots, retain_graph=True, is_grads_batched=roots is not None, allow_unused=True
        )
        rows = () if roots is None else (len(roots),)
        for (name, probe), d in zip(probes.items(), pulled, strict=True):
            d = probe.new_zeros(*rows, *probe.shape) if d is None else d
            if isinstance(self.objective.model.get_submodule(name), nn.Conv2d):
                yield name, d.flatten(-2).transpose(-1, -2)
            else:
                yield name, d.reshape(*rows, len(probe), -1, d.shape[-1])

    def matrices(self, vectors: Tensor) -> dict[str, Tensor]:
        """Vectors ``(m, P)`` as a matrix ``(m, out, in)`` of every layer, the bias as the last column."""
        parts = {
            name: part.flatten(2) if part.dim() > 2 else part[..., None]
            for name, part in self.objective.split(vectors).items()
        }
        return {name: torch.cat([parts[p] for p in owned], 2) for name, owned in self.owned.items()}

    def vectors(self, matrices: dict[str, Tensor]) -> Tensor:
        """The reverse of :meth:`matrices`."""
        parts: dict[str, Tensor] = {}
        for name, owned in self.owned.items():
            widths = [self.objective.shapes[p][1:].numel() for p in owned]
            parts |= dict(zip(owned, matrices[name].split(widths, 2), strict=True))
        return torch.cat([parts[p].flatten(1) for p in self.objective.shapes], 1)


def _curvature_roots(objective: Objective, z: Tensor, y: Tensor) -> Tensor:
    """Columns ``(K, N, ...)`` of a square root of the loss's Hessian in the outputs ``(N, ...)`` with K numbers a row.

    Pulled back to a layer's output, their outer products sum to the Gauss-Newton matrix there.
    """

    def curvature(z: Tensor, y: Tensor) -> Tensor:
        slope = grad(lambda flat: objective.loss(flat.view(1, *z.shape), y[None]))
        return jacrev(slope)(z.flatten())  # not torch.func.hessian, whose forward mode is no matter of one thread

    values, vectors = torch.linalg.eigh(vmap(curvature)(z, y))
    if values.min() < -1e-4 * values.abs().max():
        raise ValueError(
            "solvers 'kfac' and 'ekfac' need a loss that is convex in the outputs; use solver 'cg' with damping"
        )
    roots = vectors * values.clamp(min=0).sqrt()[:, None]
    return roots.movedim(2, 0).reshape(-1, *z.shape)
