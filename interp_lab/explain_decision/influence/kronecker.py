"""Solutions with the Kronecker factors of the curvature, one block per layer."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import hessian, vmap
from torch.nn import functional as F

from ...contract import UnsupportedModelError
from .objective import Objective
from .problem import Problem
from .solvers import Solve


def kfac(problem: Problem) -> Solve:
    objective = problem.objective
    blocks = _blocks(objective)
    _check_blocks(problem, blocks)
    moments, far = {name: [0, 0] for name in blocks}, {}
    for x, y in problem.train.batches():
        z, seen = _watched(objective, blocks, x)
        for name, (inputs, _) in seen.items():
            a = _columns(objective, blocks, name, inputs).flatten(0, 1)
            if name not in far:  # from 0, where the squares of single precision lose the spread
                far[name] = not a.mean(0).square().sum() <= 100 * a.var(0).sum()
            a = a.double() if far[name] else a
            moments[name][0] += a.T @ a / problem.n
        roots = _curvature_roots(objective, z.detach(), y)
        for part in roots.split(objective.vectors):
            pulled = _pulled(z, seen, part, batched=True)
            for name, signals in pulled.items():
                d = _signals(objective, name, signals.flatten(0, 1))
                positions = d.shape[1]
                d = d.flatten(0, 1)
                moments[name][1] += d.T @ d / (problem.n * positions)
    inverses = {}
    for name, (second_a, second_g) in moments.items():
        (a, basis_a), (g, basis_g) = torch.linalg.eigh(second_a), torch.linalg.eigh(second_g.to(second_a))
        values = g.clamp(min=0)[:, None] * a.clamp(min=0)
        if values.min() + problem.ridge <= len(a) * torch.finfo(objective.theta.dtype).eps * values.max():
            raise ValueError(f"the Kronecker factors of {name!r} are singular: add damping")
        inverses[name] = basis_g, basis_a, 1 / (values + problem.ridge)

    def solve(v: Tensor) -> Tensor:
        parts, solved = objective.split(v), {}
        for name, owned in blocks.items():
            basis_g, basis_a, inverse = inverses[name]
            matrix = _matrix(parts, owned).to(inverse)
            matrix = (basis_g @ ((basis_g.T @ matrix @ basis_a) * inverse) @ basis_a.T).to(v.dtype)
            widths = [objective.shapes[p][1:].numel() for p in owned]
            solved |= dict(zip(owned, matrix.split(widths, 2), strict=True))
        return torch.cat([solved[p].flatten(1) for p in objective.shapes], 1)

    return solve


def _blocks(objective: Objective) -> dict[str, list[str]]:
    """Layer -> its chosen parameters, the weight before the bias."""
    blocks: dict[str, list[str]] = {}
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
                f"solver 'kfac' knows Linear and Conv2d (one group, padding by zeros, given as a number), but {parameter!r} "
                f"belongs to {layer}; name other parameters, fold BatchNorm into the convolution, or use solver 'cg'"
            )
        blocks.setdefault(name, []).append(parameter)
    return blocks


def _matrix(parts: dict[str, Tensor], owned: list[str]) -> Tensor:
    """A layer's weight ``(..., out, in)``, its bias as the last column, of vectors split by parameter."""
    return torch.cat([parts[p].flatten(2) if p.endswith("weight") else parts[p][..., None] for p in owned], 2)


def _check_blocks(problem: Problem, blocks: dict[str, list[str]]) -> None:
    """Refuse a weight that acts anywhere but in the one call of its layer: that call does not give its gradient then."""
    objective, (x, y) = problem.objective, problem.hardest
    _watched(objective, blocks, x[:1])  # where an axis of as many steps as there are rows does not pass for theirs
    z, seen = _watched(objective, blocks, x)
    loss = vmap(lambda z, y: objective.loss(z[None], y[None]))(z, y).sum()
    pulled = _pulled(loss, seen, None)
    whole = objective.split(objective.gradients(x, y).sum(0, keepdim=True))
    for name, signals in pulled.items():
        inputs = _columns(objective, blocks, name, seen[name][0]).flatten(0, 1)
        own, true = _signals(objective, name, signals).flatten(0, 1).T @ inputs, _matrix(whole, blocks[name])[0]
        if not (own - true).abs().max() <= 1e-2 * true.abs().max().clamp(min=torch.finfo(true.dtype).eps):
            raise UnsupportedModelError(
                f"solver 'kfac' needs layers whose weights act in one call of the layer alone, but those of {name!r} act "
                "elsewhere too (tied to another layer, or used by a function); use solver 'cg'"
            )


def _watched(
    objective: Objective, blocks: dict[str, list[str]], x: Tensor
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

    hooks = [
        objective.model.get_submodule(name).register_forward_hook(watch(name), with_kwargs=True) for name in blocks
    ]
    try:
        z = objective.outputs(objective.theta, x)
    finally:
        for hook in hooks:
            hook.remove()
    if len(seen) < len(blocks):
        raise UnsupportedModelError(f"the layers {', '.join(sorted(set(blocks) - set(seen)))} do not run")
    return z, seen


def _curvature_roots(objective: Objective, z: Tensor, y: Tensor) -> Tensor:
    """Columns ``(K, N, ...)`` of a square root of the loss's Hessian in the outputs ``(N, ...)`` with K numbers a row.

    Pulled back to a layer's output, their outer products sum to the Gauss-Newton matrix there.
    """

    def curvature(z: Tensor, y: Tensor) -> Tensor:
        return hessian(lambda flat: objective.loss(flat.view(1, *z.shape), y[None]))(z.flatten())

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


def _columns(objective: Objective, blocks: dict[str, list[str]], name: str, inputs: Tensor) -> Tensor:
    """A layer's inputs at every position, ``(N, positions, in)``, and a one for its bias."""
    layer = objective.model.get_submodule(name)
    if isinstance(layer, nn.Conv2d):
        inputs = F.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride).transpose(1, 2)
    else:
        inputs = inputs.reshape(len(inputs), -1, inputs.shape[-1])
    ones = inputs.new_ones(*inputs.shape[:2], 1)
    return torch.cat([inputs if p.endswith("weight") else ones for p in blocks[name]], 2)


def _signals(objective: Objective, name: str, d: Tensor) -> Tensor:
    """Gradients at a layer's output, ``(N, positions, out)``; of a convolution ``(N, out, height, width)``."""
    if isinstance(objective.model.get_submodule(name), nn.Conv2d):
        return d.flatten(2).transpose(1, 2)
    return d.reshape(len(d), -1, d.shape[-1])
