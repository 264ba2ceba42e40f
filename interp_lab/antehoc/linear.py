"""Linear models: a few weights per class, shown as a template."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from .features import Features, check_labels, read_features


@dataclass(frozen=True, eq=False)
class LinearModel:
    r"""Scores :math:`W \phi(x) + b` that are linear in the features.

    Attributes:
        features: :math:`\phi`.
        weight: ``(K, D)``, per unit of each feature.
        bias: ``(K,)``.
        scale: ``(D,)``, standard deviation of each feature over the examples it was fitted on.
        queried: see :func:`~interp_lab.fidelity`; empty unless the model is a surrogate.
    """

    features: Features
    weight: Tensor
    bias: Tensor
    scale: Tensor
    queried: frozenset[int] = field(default=frozenset(), repr=False)

    def __call__(self, x: Tensor) -> Tensor:
        return self.features(x) @ self.weight.T + self.bias

    @property
    def importance(self) -> Tensor:
        """``(K, D)``: weight times standard deviation; unlike the weight it does not depend on the feature's unit."""
        return self.weight * self.scale

    @property
    def templates(self) -> Tensor:
        """The weights of each class laid out as its features are, ``(K, *shape)``."""
        return self.weight.unflatten(1, self.features.shape)

    @property
    def nonzeros(self) -> int:
        return int((self.weight != 0).sum())


def standardised(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Features ``(N, D)`` with mean 0 and variance 1 in float64, their mean and deviation; constant ones become 0."""
    rounding = torch.finfo(values.dtype).eps if values.is_floating_point() else 0
    values = values.detach().double()
    mean, scale = values.mean(0), values.std(0, correction=0)
    scale[scale < 4 * rounding * mean.abs()] = 0  # equal, but for how they were computed
    return torch.where(scale > 0, (values - mean) / scale.where(scale > 0, 1), 0), mean, scale


def linear_in_units(
    features: Features, weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor, like: Tensor
) -> LinearModel:
    """The :class:`LinearModel` whose weights for standardised features are ``weight (K, D)``."""
    weight = torch.where(scale > 0, weight / scale.where(scale > 0, 1), 0)
    return LinearModel(features, weight.to(like), (bias - weight @ mean).to(like), scale.to(like))


def sparse_softmax(
    x: Tensor,
    y: Tensor,
    *,
    l1: float = 0.01,
    features: Callable[[Tensor], Tensor] | None = None,
    names: Sequence[str] | None = None,
    max_steps: int = 2000,
) -> LinearModel:
    r"""Softmax regression with an L1 penalty, which sets most of the weights to zero.

    .. math:: & \min_{W, b} \; -\frac1N \sum_n \log p(y_n | x_n) + \lambda \sum_{ci} |w_{ci}|, \\
        & p(c | x) = \mathrm{softmax}_c (W \phi(x) + b)

    The features are standardised for the fit, so that the penalty does not depend on their units; the weights that
    are returned are in those units. The problem is convex; it is solved by accelerated proximal gradient steps
    (Beck & Teboulle 2009, doi:10.1137/080716542). The penalty: Tibshirani 1996.

    Args:
        x: float batch ``(N, ...)``.
        y: labels, LongTensor ``(N,)``, every class present.
        l1: :math:`\lambda \ge 0`.
        features: a function from a batch to the features ``(N, *shape)``; None reads the pixels.
        names: one name per feature; None calls them by their place.
        max_steps: at most so many steps; a warning if the solution is not reached by then.

    Raises:
        ValueError: x, y, the features or ``l1`` are not as above.

    Example:
        >>> import torch
        >>> from interp_lab import sparse_softmax
        >>> x = torch.tensor([[0.0, 3.0], [0.0, 1.0], [1.0, 3.0], [1.0, 1.0]])
        >>> model = sparse_softmax(x, torch.tensor([0, 0, 1, 1]), names=["width", "height"])
        >>> model.importance[1].sign()  # the height says nothing
        tensor([1., 0.])
    """
    if not l1 >= 0:
        raise ValueError(f"l1 must be at least 0, got {l1}")
    reader = read_features(x, features, names)
    classes, y = check_labels(y, len(x)), y.to(x.device)
    z, mean, scale = standardised(reader(x))
    z = torch.cat([z, torch.ones_like(z[:, :1])], 1)  # the last weight is the bias
    onehot = F.one_hot(y, classes).to(z)
    penalty = torch.full_like(z[0], l1)
    penalty[-1] = 0
    largest = torch.linalg.eigvalsh(z @ z.T if len(z) < z.shape[1] else z.T @ z)[-1]
    step = 2 * len(z) / largest  # the Hessian of softmax is at most 1/2

    w = ahead = z.new_zeros(classes, z.shape[1])
    momentum = 1.0
    for _ in range(max_steps):
        gradient = (torch.softmax(ahead @ z.T, 0) - onehot.T) @ z / len(z)
        new = F.relu((ahead - step * gradient).abs() - step * penalty) * (ahead - step * gradient).sign()
        if ((ahead - new) * (new - w)).sum() > 0:
            momentum = 1.0  # the momentum points uphill: start it anew
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        moved = (new - ahead).abs().max() / step
        ahead, w, momentum = new + (momentum - 1) / following * (new - w), new, following
        if moved < 1e-4:
            break
    else:
        warnings.warn(
            f"sparse_softmax is not yet at its solution after {max_steps} steps; raise max_steps", stacklevel=2
        )
    return linear_in_units(reader, w[:, :-1], w[:, -1], mean, scale, x)
