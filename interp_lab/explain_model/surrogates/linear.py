"""The linear model that is nearest to a network."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ...antehoc.features import read_features
from ...antehoc.linear import LinearModel, linear_in_units, standardised
from ...contract import Model, check_input, full_precision
from .queries import answers, fingerprints, with_fresh_queries


def surrogate_linear(
    model: Model,
    x: Tensor,
    *,
    ridge: float = 0.0,
    features: Callable[[Tensor], Tensor] | None = None,
    names: Sequence[str] | None = None,
    queries: int = 0,
    noise: float = 0.1,
    seed: int = 0,
) -> LinearModel:
    r"""The linear model whose scores are nearest to the logits of a network.

    .. math:: \min_{W, b} \; \frac1N \sum_n \lVert W \phi(x_n) + b - f(x_n) \rVert^2 + \lambda \lVert W \rVert^2

    with standardised features :math:`\phi` in the fit; the weights returned are in their units. Among equally good
    weights those of least norm are taken. On inputs :math:`x_n \sim \mathcal N(x, \sigma^2 I)` its weights tend to
    SmoothGrad at x (Stein's identity).

    Args:
        model: a module or function from ``(N, ...)`` to logits ``(N, K)``.
        x: float batch ``(N, ...)``.
        ridge: :math:`\lambda \ge 0`.
        features: a function from a batch to the features ``(N, *shape)``; None reads the pixels.
        names: one name per feature; None calls them by their place.
        queries: so many more inputs are made from x by :func:`~interp_lab.fresh_queries`.
        noise: standard deviation of the noise in them, as a fraction of the range of x, at least 0.
        seed: of these queries.

    Raises:
        ValueError: x, the logits, the features or an option are not as above.

    Example:
        >>> import torch
        >>> from interp_lab import surrogate_linear
        >>> x = torch.rand(50, 2, generator=torch.Generator().manual_seed(0))
        >>> surrogate_linear(lambda x: x @ torch.tensor([[1.0, -1.0], [2.0, 0.0]]).T + 3, x).weight.round(decimals=3)
        tensor([[ 1., -1.],
                [ 2.,  0.]])
    """
    if not ridge >= 0:
        raise ValueError(f"ridge must be at least 0, got {ridge}")
    check_input(model, x)
    with full_precision(x.device.type):
        reader = read_features(x, features, names)
        x = with_fresh_queries(x, queries, noise, seed)
        logits = answers(model, x).double()
        z, mean, scale = standardised(reader(x))
        bias = logits.mean(0)
        u, s, vh = torch.linalg.svd(z, full_matrices=False)
        gain = s / (s.square() + ridge * len(x))
        gain = gain.where(s > s[0] * max(z.shape) * torch.finfo(x.dtype).eps, 0)  # directions without variance
        weight = (vh.T * gain) @ (u.T @ (logits - bias))
        return replace(linear_in_units(reader, weight.T, bias, mean, scale, x), queried=frozenset(fingerprints(x)))
