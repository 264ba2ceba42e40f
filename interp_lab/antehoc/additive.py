"""Additive models: one curve per feature."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..contract import is_finite
from .features import Features, check_labels, read_features, to_numpy

if TYPE_CHECKING:
    from sklearn.preprocessing import SplineTransformer


@dataclass(frozen=True, eq=False)
class AdditiveModel:
    r"""Scores :math:`b_c + \sum_j f_{cj}(\phi_j(x))`, each :math:`f_{cj}` a cubic spline with mean zero over the data.

    Attributes:
        features: :math:`\phi`.
        bias: ``(K,)``, the mean scores.
        low: ``(D,)``, smallest value of each feature; beyond its range a curve is constant.
        high: ``(D,)``, largest value.
        importance: ``(K, D)``, standard deviation of each curve over the data.
    """

    features: Features
    bias: Tensor
    low: Tensor
    high: Tensor
    importance: Tensor
    _splines: "SplineTransformer"
    _varies: np.ndarray  # indices of the features that are not constant
    _centre: np.ndarray  # (D', B) mean of each basis function
    _coefficients: np.ndarray  # (D', B, K)

    def __call__(self, x: Tensor) -> Tensor:
        return self.bias.to(x) + self.terms(x).sum(2)

    def terms(self, x: Tensor) -> Tensor:
        r""":math:`f_{cj}(\phi_j(x))` as ``(N, K, D)``: they and the bias sum to the scores."""
        return self._terms(self.features(x)).to(x)

    def curves(self, points: int = 50) -> tuple[Tensor, Tensor]:
        """Places ``(points, D)`` evenly over each feature's range, and the curves there, ``(points, K, D)``."""
        places = torch.lerp(self.low, self.high, torch.linspace(0, 1, points).to(self.low)[:, None])
        return places, self._terms(places).to(places)

    def _terms(self, values: Tensor) -> Tensor:
        terms = np.zeros((len(values), len(self.bias), values.shape[1]))
        basis = _basis(self._splines, values, self._varies) - self._centre
        terms[:, :, self._varies] = np.einsum("njb,jbk->nkj", basis, self._coefficients)
        return torch.from_numpy(terms)


def additive_model(
    x: Tensor,
    y: Tensor,
    *,
    knots: int = 5,
    l2: float = 1e-3,
    features: Callable[[Tensor], Tensor] | None = None,
    names: Sequence[str] | None = None,
) -> AdditiveModel:
    r"""Generalised additive model: one curve per feature and class, and no interaction between features.

    .. math:: f_c(x) = b_c + \sum_j f_{cj}(\phi_j(x)), \qquad \frac1N \sum_n f_{cj}(\phi_j(x_n)) = 0

    The curves are cubic B-splines with evenly spaced knots. Without the second condition a constant could move from
    one curve to another. Labels are fitted by cross-entropy of the softmax of :math:`f`; real targets ``(N, K)``, such
    as the logits of a network, by least squares. Either loss is a mean over the examples, plus
    :math:`\lambda/2` times the squared norm of the spline coefficients (for two classes, of their difference).
    Hastie & Tibshirani 1986, doi:10.1214/ss/1177013604.

    Args:
        x: float batch ``(N, ...)``.
        y: labels, LongTensor ``(N,)``, every class present, or real targets ``(N, K)``.
        knots: knots of each curve, at least 2.
        l2: :math:`\lambda`; above 0 for labels, at least 0 for real targets.
        features: a function from a batch to the features ``(N, *shape)``; None reads the pixels.
        names: one name per feature; None calls them by their place.

    Raises:
        ValueError: x, y, the features, ``knots`` or ``l2`` are not as above, or all features are constant.

    Example:
        >>> import torch
        >>> from interp_lab import additive_model
        >>> x = torch.rand(100, 2, generator=torch.Generator().manual_seed(0))
        >>> model = additive_model(x, x[:, :1] ** 2, l2=0.0)  # the second feature plays no role
        >>> places, curves = model.curves(points=3)
        >>> places.shape, curves.shape
        (torch.Size([3, 2]), torch.Size([3, 1, 2]))
        >>> bool(model.importance[0, 1] < 1e-6 < model.importance[0, 0])
        True
    """
    labels = not (isinstance(y, Tensor) and y.is_floating_point())
    if not isinstance(knots, int) or knots < 2:
        raise ValueError(f"knots must be an integer of at least 2, got {knots!r}")
    if not (l2 > 0 if labels else l2 >= 0):
        raise ValueError(f"l2 must be above 0 for labels and at least 0 for real targets, got {l2}")
    reader = read_features(x, features, names)
    if labels:
        check_labels(y, len(x))
    elif y.dim() != 2 or len(y) != len(x) or not is_finite(y):
        raise ValueError(f"real targets must be finite and of shape ({len(x)}, K), got {tuple(y.shape)}")
    values = reader(x).detach()
    low, high = values.aminmax(dim=0)
    varies = (high > low).nonzero().flatten().cpu().numpy()
    if len(varies) == 0:
        raise ValueError("all features are constant: there is nothing to fit")
    from sklearn.linear_model import LogisticRegression  # here: it takes a second to import
    from sklearn.preprocessing import SplineTransformer

    splines = SplineTransformer(knots, extrapolation="constant").fit(to_numpy(values)[:, varies].astype(np.float64))
    basis = _basis(splines, values, varies)
    centre = basis.mean(0)
    design = (basis - centre).reshape(len(x), -1)
    if labels:
        fit = LogisticRegression(C=1 / (l2 * len(x)), max_iter=1000).fit(design, y.cpu().numpy())
        weight, bias = fit.coef_.T, fit.intercept_
        if len(bias) == 1:  # of two classes scikit-learn gives the difference
            weight, bias = np.hstack([-weight, weight]) / 2, np.hstack([-bias, bias]) / 2
    else:
        target, bias = to_numpy(y.double() - y.double().mean(0)), to_numpy(y.double().mean(0))
        if l2:
            gram = design.T @ design + l2 * len(x) / 2 * np.eye(design.shape[1])
            weight = np.linalg.solve(gram, design.T @ target)
        else:  # each feature's basis sums to one, so the centred one is singular; the curves are not
            weight = np.linalg.lstsq(design, target, rcond=None)[0]  # None: NumPy 2's default everywhere
    weight = weight.reshape(*centre.shape, -1)
    spread = np.zeros((len(bias), values.shape[1]))
    spread[:, varies] = np.einsum("njb,jbk->nkj", basis - centre, weight).std(0)
    bias, importance = (torch.from_numpy(a).to(x) for a in (bias, spread))
    return AdditiveModel(reader, bias, low, high, importance, splines, varies, centre, weight)


def _basis(splines: "SplineTransformer", values: Tensor, varies: np.ndarray) -> np.ndarray:
    """The B-splines of every feature that is not constant, ``(N, D', B)``."""
    flat = splines.transform(to_numpy(values)[:, varies].astype(np.float64))
    return flat.reshape(len(values), len(varies), -1)
