r"""Solutions of :math:`(H + \delta I) s = v` with the Hessian itself: exact, conjugate gradients, LiSSA."""

import math
from collections.abc import Callable
from itertools import islice

import torch
from torch import Tensor

from .objective import Objective
from .problem import Problem

Solve = Callable[[Tensor], Tensor]  # of every row of (m, P)

EXACT_LIMIT = 20_000  # parameters: their Hessian takes 1.6 GB in single precision
CG_ITERATIONS = 1000
ASYMMETRY = 3e-3  # largest relative asymmetry of the influences by CG
SAMPLE = 64  # rows of one step of LiSSA
RESIDUAL = 0.1  # largest relative residual of LiSSA's average


def exact(problem: Problem) -> Solve:
    theta = problem.objective.theta
    if len(theta) > EXACT_LIMIT:
        raise ValueError(
            f"solver 'exact' holds the Hessian of at most {EXACT_LIMIT} parameters, got {len(theta)}; name a layer "
            "with parameters=, or use solver 'cg' or 'ekfac'"
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


def conjugate_gradients(problem: Problem) -> Solve:
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


def lissa(problem: Problem, scale: float | None, depth: int | None, seed: int) -> Solve:
    objective, ridge = problem.objective, problem.ridge
    samples = problem.train.samples(objective, SAMPLE, torch.Generator().manual_seed(seed))
    largest = ridge + max(_largest_curvature(objective, *sample) for sample in islice(samples, 8))
    scale = largest if scale is None else scale
    if not scale >= largest:
        raise ValueError(
            f"scale {scale:g} is below the largest eigenvalue {largest:.4g} of a sample's Hessian, so the series may "
            "diverge; give at least that, or None"
        )
    if depth is None and ridge == 0:
        raise ValueError("LiSSA converges at the rate (weight_decay + damping) / scale: add damping, or give depth")
    needed = math.ceil(scale / ridge * math.log(100)) if ridge else math.inf
    depth = max(500, int(needed)) if depth is None else depth  # the mean over few steps is noisy
    if depth < 2:
        raise ValueError(f"depth must be at least 2, got {depth}")

    def solve(v: Tensor) -> Tensor:
        u, mean = v / scale, torch.zeros_like(v)
        for step, (x, y) in enumerate(islice(samples, depth)):
            u = u + (v - objective.hessian_of(x, y)(u) / len(x) - ridge * u) / scale
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


def _largest_curvature(objective: Objective, x: Tensor, y: Tensor) -> float:
    """The magnitude of the largest eigenvalue of these examples' mean Hessian, by power iteration."""
    v = torch.randn(1, len(objective.theta), generator=torch.Generator().manual_seed(0)).to(objective.theta)
    product = objective.hessian_of(x, y)
    for _ in range(30):
        v = product(v / v.norm().clamp(min=1e-30)) / len(x)
    return float(v.norm())
