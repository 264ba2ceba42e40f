r"""Gradient-based attribution: perturb the input to :math:`x^*` and use the ordinary gradient there.

One line of mathematics each, over :func:`~interp_lab.contract.gradient`. SmoothGrad and integrated
gradients are both a weighted sum of gradients at n points per image; ``_sum_of_gradients`` runs those n passes
in batches.
"""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..contract import (
    Model,
    Target,
    check_baseline,
    check_batch_size,
    check_target,
    explaining,
    gradient,
    logits_in_passes,
    pick,
    resolve,
    rows_per_pass,
    with_rows_that_fit,
)


def saliency(model: Model, x: Tensor, target: Target = None) -> Tensor:
    r"""Saliency map: the gradient of the logit, :math:`R_i(x) = \partial f_c(x) / \partial x_i` (signed).

    Simonyan, Vedaldi & Zisserman 2013, arXiv:1312.6034 (they show the largest magnitude over the channels:
    ``saliency(...).abs().amax(1)``).

    Args:
        model: a module or function from ``(N, ...)`` to logits ``(N, K)``.
        x: float batch ``(N, ...)``.
        target: None (the predicted class), an int, or a LongTensor ``(N,)``.

    Returns:
        The attribution, of the shape, dtype and device of x. A linear model's is its weight row.

    Raises:
        ValueError: x, target or the logits are not as above (see :mod:`~interp_lab.contract`).
        UnsupportedModelError: the logits do not depend on x through differentiable operations.

    >>> model = lambda x: x @ torch.tensor([[1.0], [-2.0]])
    >>> saliency(model, torch.tensor([[3.0, 1.0]]))
    tensor([[ 1., -2.]])
    """
    with explaining(model, x) as x:
        return gradient(model, x, target)


def gradient_x_input(model: Model, x: Tensor, target: Target = None) -> Tensor:
    r"""Gradient times input, :math:`R_i(x) = x_i\,\partial f_c(x) / \partial x_i`.

    Shrikumar et al. 2016, arXiv:1605.01713. It sums to :math:`f_c(x)` on a ReLU network without
    biases.

    Args:
        model: a module or function from ``(N, ...)`` to logits ``(N, K)``.
        x: float batch ``(N, ...)``.
        target: None (the predicted class), an int, or a LongTensor ``(N,)``.

    Returns:
        The attribution, of the shape, dtype and device of x.

    Raises:
        ValueError: x, target or the logits are not as above.
        UnsupportedModelError: the logits do not depend on x through differentiable operations, or the model is random.

    >>> model = lambda x: x @ torch.tensor([[1.0], [-2.0]])
    >>> gradient_x_input(model, torch.tensor([[3.0, 1.0]]))  # sums to the logit, 1
    tensor([[ 3., -2.]])
    """
    return saliency(model, x, target) * x.detach()


def smoothgrad(
    model: Model,
    x: Tensor,
    target: Target = None,
    *,
    n: int = 50,
    noise: float = 0.15,
    seed: int = 0,
    batch_size: int | None = None,
) -> Tensor:
    r"""SmoothGrad: the mean gradient over noisy copies of the input.

    .. math:: & R(x) = \frac1n \sum_{k=1}^n \nabla f_c(x + \sigma \varepsilon_k), \\
        & \varepsilon_k \sim \mathcal N(0, I), \quad \sigma = \mathrm{noise} \cdot (\max x - \min x)

    Smilkov et al. 2017, arXiv:1706.03825. The mean is signed and :math:`\sigma` is each image's own. All images
    share the draws :math:`\varepsilon_k` of the seed, so an image's map does not depend on its batch.

    Args:
        model: a module or function from ``(N, ...)`` to logits ``(N, K)``.
        x: float batch ``(N, ...)``.
        target: None (the class predicted for the clean x), an int, or a LongTensor ``(N,)``.
        n: number of noisy copies, at least 1.
        noise: standard deviation of the noise as a fraction of the range of each image, at least 0.
        seed: seed of the noise; the global random state is not used.
        batch_size: rows per pass, to bound memory; any value gives the same numbers. None chooses by device.

    Returns:
        The attribution, of the shape, dtype and device of x.

    Raises:
        ValueError: x, target, the logits or an option are not as above.
        UnsupportedModelError: the logits do not depend on x through differentiable operations, or the model is random.

    >>> model = lambda x: x.abs().sum(1, keepdim=True)  # a kink at 0, where the gradient jumps from -1 to 1
    >>> smoothgrad(model, torch.tensor([[0.1, 1.0]]), n=1000, noise=0.5, seed=0).round(decimals=1)
    tensor([[0.2000, 1.0000]])
    """
    if not noise >= 0:
        raise ValueError(f"noise must be a fraction of the range of x, at least 0, got {noise}")
    weights = _uniform(n, "n", batch_size)
    with explaining(model, x) as x:
        low, high = x.flatten(1).aminmax(dim=1)
        sigma = (noise * (high - low)).view(-1, *[1] * (x.dim() - 1))

        def noisy(rows: slice) -> Callable[[int], Tensor]:
            generator = torch.Generator().manual_seed(seed)

            def point(_: int) -> Tensor:
                draw = torch.randn(x.shape[1:], generator=generator, dtype=torch.float32)
                return x[rows] + sigma[rows] * draw.to(x)

            return point

        if target is None:
            target = logits_in_passes(model, x, batch_size).argmax(1)
        target = check_target(target, len(x)).to(x.device)
        return _sum_of_gradients(model, x, target, noisy, weights, batch_size)


def interior_gradient(model: Model, x: Tensor, target: Target = None, *, alpha: float = 0.5) -> Tensor:
    r"""Interior gradient: the gradient at a scaled-down copy of the input, :math:`R(x) = \nabla f_c(\alpha x)`.

    Sundararajan, Taly & Yan 2016, arXiv:1611.02639. A feature that saturates the network at x may still act at
    :math:`\alpha x`: of :math:`1 - \mathrm{relu}(1 - x_1 - x_2)` at (1, 1) it shows (1, 1) for
    :math:`\alpha = 1/4` and (0, 0) for :math:`\alpha = 3/4`.

    Args:
        model: a module or function from ``(N, ...)`` to logits ``(N, K)``.
        x: float batch ``(N, ...)``.
        target: None (the class predicted for x itself), an int, or a LongTensor ``(N,)``.
        alpha: the scale, :math:`0 < \alpha \le 1`; 1 is the saliency map.

    Returns:
        The attribution, of the shape, dtype and device of x.

    Raises:
        ValueError: x, target or the logits are not as above, or alpha lies outside (0, 1].
        UnsupportedModelError: the logits do not depend on x through differentiable operations, or the model is random.

    >>> model = lambda x: 1 - torch.relu(1 - x.sum(1, keepdim=True))
    >>> interior_gradient(model, torch.ones(1, 2), alpha=0.25)  # with alpha = 0.75 it is 0
    tensor([[1., 1.]])
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha must lie in (0, 1], got {alpha}")
    with explaining(model, x) as x:
        return gradient(model, alpha * x, resolve(model, x, target))


def integrated_gradients(
    model: Model,
    x: Tensor,
    target: Target = None,
    *,
    baseline: float | Tensor = 0.0,
    steps: int = 50,
    batch_size: int | None = None,
) -> Tensor:
    r"""Integrated gradients: the gradient averaged along the line from a baseline, times the difference.

    .. math:: R(x) = (x - x_0) \odot \int_0^1 \nabla f_c\bigl(x_0 + \alpha (x - x_0)\bigr)\,d\alpha

    Sundararajan, Taly & Yan 2017, arXiv:1703.01365. The integral is Gauss-Legendre quadrature, exact where the
    gradient is a polynomial of degree at most ``2 * steps - 1`` along the line. The attribution sums to
    :math:`f_c(x) - f_c(x_0)` up to the error of the quadrature, and warns where that exceeds one percent
    of :math:`|f_c(x)| + |f_c(x_0)|`.

    Args:
        model: a module or function from ``(N, ...)`` to logits ``(N, K)``.
        x: float batch ``(N, ...)``.
        target: None (the class predicted for x), an int, or a LongTensor ``(N,)``.
        baseline: :math:`x_0`, a number or a tensor that broadcasts to the shape of x.
        steps: number of points on the line, at least 1.
        batch_size: rows per pass, to bound memory; any value gives the same numbers. None chooses by device.

    Returns:
        The attribution, of the shape, dtype and device of x.

    Raises:
        ValueError: x, target, the logits or an option are not as above, or the baseline does not broadcast to x.
        UnsupportedModelError: the logits do not depend on x through differentiable operations, or the model is random.

    >>> model = lambda x: (x**2).sum(1, keepdim=True)
    >>> integrated_gradients(model, torch.tensor([[1.0, 2.0]]))  # sums to f(x) - f(0) = 5
    tensor([[1., 4.]])
    """
    _uniform(steps, "steps", batch_size)
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    with explaining(model, x) as x:
        reference = check_baseline(baseline, x)
        difference = x - reference

        def on_the_line(rows: slice) -> Callable[[int], Tensor]:
            return lambda k: x[rows] - (1 - nodes[k]) / 2 * difference[rows]

        logits = logits_in_passes(model, x, batch_size)
        target = check_target(logits.argmax(1) if target is None else target, len(x)).to(x.device)
        value, start = pick(logits, target), pick(logits_in_passes(model, reference, batch_size), target)
        attribution = difference * _sum_of_gradients(model, x, target, on_the_line, weights / 2, batch_size)
        _warn_of_a_gap(attribution, value, start, steps)
        return attribution


def _warn_of_a_gap(attribution: Tensor, value: Tensor, start: Tensor, steps: int) -> None:
    """Warn where an attribution misses the change of the logit that it shares out by over one percent of the logits."""
    total, change = attribution.flatten(1).double().sum(1), (value - start).double()
    allowed = max(0.01, torch.finfo(attribution.dtype).eps ** 0.5) * (value.abs() + start.abs()).double()
    excess = (total - change).abs() - allowed
    if (excess > 0).any():
        row = int(excess.argmax())
        warnings.warn(
            f"integrated gradients miss f(x) - f(baseline) by more than 1 % of the logits in {int((excess > 0).sum())} of "
            f"{len(excess)} rows with {steps} steps; row {row} sums to {total[row]:.4g} in place of {change[row]:.4g}. Raise "
            "steps",
            stacklevel=3,
        )


def _uniform(n: int, name: str, batch_size: int | None) -> np.ndarray:
    check_batch_size(batch_size)
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {n!r}")
    return np.full(n, 1 / n)


def _sum_of_gradients(
    model: Model,
    x: Tensor,
    target: Tensor,
    points: Callable[[slice], Callable[[int], Tensor]],
    weights: np.ndarray,
    batch_size: int | None,
) -> Tensor:
    """``sum_k weights[k] * gradient(point_k)`` per row, with about ``batch_size`` rows in each pass.

    ``points(rows)`` gives a function from k to the k-th point of those rows; it is called with k = 0, 1, 2, ...
    """

    def summed(most: int) -> Tensor:
        total = torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32))
        for start in range(0, len(x), most):
            rows = slice(start, min(start + most, len(x)))
            point, count = points(rows), rows.stop - rows.start
            together = max(1, most // count)
            for first in range(0, len(weights), together):
                ks = range(first, min(first + together, len(weights)))
                batch = torch.cat([point(k) for k in ks])
                grad = gradient(model, batch, target[rows].repeat(len(ks))).to(total)
                weight = torch.as_tensor(weights[ks.start : ks.stop], dtype=total.dtype, device=x.device)
                total[rows] += torch.einsum("k,k...->...", weight, grad.view(len(ks), count, *x.shape[1:]))
        return total.to(x)

    rows = batch_size or max(1, len(x), rows_per_pass(x, lambda rows: gradient(model, rows, target)))
    return with_rows_that_fit(summed, rows)
