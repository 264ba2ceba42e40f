"""Whether a prediction can be trusted: is the model at a minimum, and is the step short enough to be linear?"""

import math
import warnings

import torch
from torch import Tensor
from torch.func import grad, vmap

from .problem import Problem

MAX_STEP_RATIO = 1.1  # of the true step to the predicted one, or the reverse, before a warning


def warn_if_not_linear(problem: Problem, steps: Tensor) -> None:
    """Steps ``(m, P)`` that are predicted where one of the hardest examples is removed."""
    step_ratio = _step_ratio(problem, steps)
    ratio = torch.maximum(step_ratio, 1 / step_ratio)
    if not ratio.max() <= MAX_STEP_RATIO:
        worst = float(step_ratio[ratio.argmax()])
        warnings.warn(
            f"influence is a first-order prediction, and the steps are too long for it here: the true step is {worst:.2g} times "
            f"the predicted one for a training example of large loss (median of {len(steps)}: {float(step_ratio.median()):.2g}). "
            "Sizes are off by about that factor; more weight_decay in training, or damping, makes the steps smaller",
            stacklevel=3,
        )


def _step_ratio(problem: Problem, steps: Tensor) -> Tensor:
    """Length of the true step over that of the predicted one, for the hardest examples, by the secant of the slopes."""
    objective, (x, y) = problem.objective, problem.hardest

    def slope(step: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Of the summed loss along the step, at its end."""
        return grad(lambda theta: objective.losses(theta, x, y).sum())(objective.theta + step) @ step

    slopes = vmap(slope, (0, None, None), chunk_size=objective.vectors)
    total = sum(slopes(steps, *batch) for batch in problem.batches()) - vmap(slope)(steps, x[:, None], y[:, None])
    start = -(objective.gradients(x, y) * steps).sum(1) / problem.n
    # The slope that the whole objective has at the start does not follow from the removal.
    end = total / problem.n - steps @ problem.loss_gradient + problem.ridge * (steps**2).sum(1)
    return torch.where(end > start, start / (start - end), math.inf)


def warn_if_not_at_minimum(problem: Problem, solutions: Tensor, size: Tensor) -> None:
    """Solutions ``(n_test, P)``; size: the root mean square of the influences on each test loss."""
    gradient = problem.loss_gradient + problem.weight_decay * problem.objective.theta
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
