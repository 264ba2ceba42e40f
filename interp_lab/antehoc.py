r"""Models that are interpretable by design: what they compute is what they show.

========================================= ==========================================================================
:func:`sparse_softmax`                    a few weights per class, shown as a template
:func:`decision_tree`                     rules
:func:`additive_model`                    one curve per feature
:func:`prototype_network`                 similarity to pieces of training images
:class:`BagOfLocalFeatures`               a map of evidence that sums to the logit
========================================= ==========================================================================

All of them are functions from a batch ``(N, ...)`` to scores ``(N, K)``. The first three read the pixels, or the
numbers that a function ``features`` computes from the batch.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .contract import UnsupportedModelError, check_input, explaining, in_eval_mode, is_finite, output_of
from .schedule import one_cycle

if TYPE_CHECKING:
    from sklearn.preprocessing import SplineTransformer
    from sklearn.tree import DecisionTreeClassifier


@dataclass(frozen=True, eq=False)
class Features:
    """The numbers with names that a model reads from a batch.

    Attributes:
        function: from a batch ``(N, ...)`` to ``(N, *shape)``; None reads the batch itself.
        names: one per feature.
        shape: shape of one example's features; ``(C, H, W)`` can be shown as a picture.
    """

    function: Callable[[Tensor], Tensor] | None
    names: tuple[str, ...]
    shape: tuple[int, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """Features ``(N, D)``. Raises ValueError if they are not finite or not of the shape that was fitted."""
        values = _values(self.function, x)
        if tuple(values.shape) != (len(x), *self.shape):
            raise ValueError(f"features must have shape {(len(x), *self.shape)}, got {tuple(values.shape)}")
        if not is_finite(values):
            raise ValueError("features must be finite, got NaN or infinite values")
        return values.flatten(1)


def _values(function: Callable[[Tensor], Tensor] | None, x: Tensor) -> Tensor:
    """What the function gives for x, with its modules in eval mode."""
    if function is None:
        return x
    with in_eval_mode(function):
        return output_of(function, x)


def read_features(
    x: Tensor, function: Callable[[Tensor], Tensor] | None = None, names: Sequence[str] | None = None
) -> Features:
    """The features of a checked batch; without ``names`` they are called by their place.

    Raises:
        ValueError: x is not a finite float batch with at least one example, or there is another number of names.
    """
    check_input(None, x)
    if len(x) == 0:
        raise ValueError("x must hold at least one example, got an empty batch")
    shape = tuple(_values(function, x[:1]).shape[1:])
    if names is None:
        names = [_place(index, shape) for index in np.ndindex(shape)]
    if len(names) != np.prod(shape):
        raise ValueError(f"names must be one per feature, {np.prod(shape)}, got {len(names)}")
    return Features(function, tuple(names), shape)


def _place(index: tuple[int, ...], shape: tuple[int, ...]) -> str:
    if len(index) == 1:
        return f"x{index[0]}"
    *channel, row, column = index
    return f"({row}, {column})" + (f" of channel {channel[0]}" if channel and shape[0] > 1 else "")


def _check_labels(y: Tensor, count: int) -> int:
    """Number of classes of labels ``(count,)`` in which none is empty."""
    if not isinstance(y, Tensor) or y.dtype != torch.int64 or y.shape != (count,):
        got = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"y must be a LongTensor of labels ({count},), got {got}")
    if y.min() < 0:
        raise ValueError(f"labels must be at least 0, got {y.min().item()}")
    counts = y.bincount()
    if len(counts) < 2 or (counts == 0).any():
        empty = (counts == 0).nonzero().flatten().tolist()
        raise ValueError(f"every class 0..{len(counts) - 1}, at least two, needs an example; without one: {empty}")
    return len(counts)


# Linear


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
    values = values.detach().double()
    mean, scale = values.mean(0), values.std(0, correction=0)
    scale[scale < 1e-9 * (1 + mean.abs())] = 0
    return torch.where(scale > 0, (values - mean) / scale.where(scale > 0, 1), 0), mean, scale


def linear_in_units(
    features: Features, weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor, like: Tensor
) -> LinearModel:
    """The :class:`LinearModel` whose weights for standardised features are ``weight (K, D)``."""
    weight = torch.where(scale > 0, weight / scale.where(scale > 0, 1), 0)
    return LinearModel(features, *(t.to(like) for t in (weight, bias - weight @ mean, scale)))


def sparse_softmax(
    x: Tensor,
    y: Tensor,
    *,
    l1: float = 0.01,
    features: Callable[[Tensor], Tensor] | None = None,
    names: Sequence[str] | None = None,
    steps: int = 2000,
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
        features, names: a function from a batch to the features ``(N, *shape)`` and their names; by default pixels.
        steps: at most so many steps; a warning if the solution is not reached by then.

    Raises:
        ValueError: x, y, the features or ``l1`` are not as above.
    """
    if not l1 >= 0:
        raise ValueError(f"l1 must be at least 0, got {l1}")
    reader = read_features(x, features, names)
    classes, y = _check_labels(y, len(x)), y.to(x.device)
    z, mean, scale = standardised(reader(x))
    z = torch.cat([z, torch.ones_like(z[:, :1])], 1)  # the last weight is the bias
    onehot = F.one_hot(y, classes).to(z)
    penalty = torch.full_like(z[0], l1)
    penalty[-1] = 0
    step = (
        2 / torch.linalg.eigvalsh(z @ z.T if len(z) < z.shape[1] else z.T @ z)[-1] * len(z)
    )  # softmax' Hessian <= 1/2

    w = ahead = z.new_zeros(classes, z.shape[1])
    momentum = 1.0
    for _ in range(steps):
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
        warnings.warn(f"sparse_softmax is not yet at its solution after {steps} steps; raise steps", stacklevel=2)
    return linear_in_units(reader, w[:, :-1], w[:, -1], mean, scale, x)


# Tree


@dataclass(frozen=True, eq=False)
class TreeModel:
    """A decision tree: scores are the class frequencies of the leaf that an example falls into.

    Attributes:
        features: what the tests are about.
        tree: the fitted scikit-learn tree.
        classes: number of classes.
        queried: see :func:`~interp_lab.fidelity`; empty unless the model is a surrogate.
    """

    features: Features
    tree: "DecisionTreeClassifier"
    classes: int
    queried: frozenset[int] = field(default=frozenset(), repr=False)

    def __call__(self, x: Tensor) -> Tensor:
        """Class frequencies ``(N, K)`` of the dtype and device of x."""
        scores = x.new_zeros(len(x), self.classes)
        known = torch.from_numpy(self.tree.classes_).to(x.device)
        scores[:, known] = torch.from_numpy(self.tree.predict_proba(_numpy(self.features(x)))).to(x)
        return scores

    @property
    def leaves(self) -> int:
        return int(self.tree.get_n_leaves())

    def rules(self) -> list[str]:
        """One sentence per leaf, from the left of the tree to its right."""
        nodes = self.tree.tree_
        return [self._rule(leaf) for leaf in range(nodes.node_count) if nodes.children_left[leaf] < 0]

    def explain(self, x: Tensor) -> list[str]:
        """The rule that decided each example."""
        check_input(None, x)
        return [self._rule(leaf) for leaf in self.tree.apply(_numpy(self.features(x)))]

    def _rule(self, leaf: int) -> str:
        """All tests on the way to a leaf; of several on one feature, the tightest."""
        nodes, bounds, node = self.tree.tree_, {}, leaf
        while node:
            left = node in nodes.children_left
            node = int(np.flatnonzero((nodes.children_left if left else nodes.children_right) == node)[0])
            bounds.setdefault((nodes.feature[node], left), nodes.threshold[node])  # the last test is the tightest
        tests = [
            f"{self.features.names[feature]} {'<=' if left else '>'} {threshold:.3g}"
            for (feature, left), threshold in reversed(bounds.items())
        ]
        share = nodes.value[leaf, 0] / nodes.value[leaf, 0].sum()
        winner = self.tree.classes_[share.argmax()]
        then = f"class {winner} ({share.max():.0%} of {nodes.n_node_samples[leaf]})"
        return f"if {' and '.join(tests)}: {then}" if tests else f"always: {then}"

    def importance(self, x: Tensor, y: Tensor, *, seed: int = 0) -> Tensor:
        """The share of correct answers lost when one feature is shuffled among the examples, ``(D,)``.

        Use examples that the tree was not fitted on. The usual sum of impurity decreases is not offered: on the
        training examples it credits features that have many values with having fitted noise. Breiman 2001,
        doi:10.1023/A:1010933404324; Strobl et al. 2007, doi:10.1186/1471-2105-8-25.
        """
        check_input(None, x)
        values, y = _numpy(self.features(x)), y.cpu().numpy()
        right = (self.tree.predict(values) == y).mean()
        order = np.random.default_rng(seed).permutation(len(values))
        lost = np.zeros(values.shape[1])
        for j in np.unique(self.tree.tree_.feature[self.tree.tree_.feature >= 0]):
            shuffled = values.copy()
            shuffled[:, j] = values[order, j]
            lost[j] = right - (self.tree.predict(shuffled) == y).mean()
        return torch.from_numpy(lost).to(x)


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()


def decision_tree(
    x: Tensor,
    y: Tensor,
    *,
    depth: int | None = None,
    features: Callable[[Tensor], Tensor] | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> TreeModel:
    """A classification tree of tests "feature <= threshold", grown greedily by Gini impurity (scikit-learn).

    Breiman, Friedman, Olshen & Stone 1984, Classification and regression trees.

    Args:
        x, y, features, names: as for :func:`sparse_softmax`.
        depth: at most so many tests on the way to a leaf; None grows until the leaves are pure.
        seed: breaks ties between equally good tests.

    Raises:
        ValueError: x, y, the features or ``depth`` are not as above.
    """
    reader = read_features(x, features, names)
    return fit_tree(reader, x, y, _check_labels(y, len(x)), depth, seed)


def fit_tree(reader: Features, x: Tensor, y: Tensor, classes: int, depth: int | None, seed: int) -> TreeModel:
    """As :func:`decision_tree`, with labels in which a class may be missing."""
    if depth is not None and (not isinstance(depth, int) or depth < 1):
        raise ValueError(f"depth must be None or an integer of at least 1, got {depth!r}")
    from sklearn.tree import DecisionTreeClassifier  # here: it takes a second to import

    tree = DecisionTreeClassifier(max_depth=depth, random_state=seed)
    return TreeModel(reader, tree.fit(_numpy(reader(x)), y.cpu().numpy()), classes)


# Additive


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
    :math:`\lambda/2` times the squared norm of the spline coefficients (for two classes, of their difference). Hastie & Tibshirani 1986,
    doi:10.1214/ss/1177013604.

    Args:
        x, features, names: as for :func:`sparse_softmax`.
        y: labels, LongTensor ``(N,)``, or real targets ``(N, K)``.
        knots: knots of each curve, at least 2.
        l2: :math:`\lambda`; above 0 for labels, at least 0 for real targets.

    Raises:
        ValueError: x, y, the features, ``knots`` or ``l2`` are not as above, or all features are constant.
    """
    labels = not (isinstance(y, Tensor) and y.is_floating_point())
    if not isinstance(knots, int) or knots < 2:
        raise ValueError(f"knots must be an integer of at least 2, got {knots!r}")
    if not (l2 > 0 if labels else l2 >= 0):
        raise ValueError(f"l2 must be above 0 for labels and at least 0 for real targets, got {l2}")
    reader = read_features(x, features, names)
    if labels:
        _check_labels(y, len(x))
    elif y.dim() != 2 or len(y) != len(x) or not is_finite(y):
        raise ValueError(f"real targets must be finite and of shape ({len(x)}, K), got {tuple(y.shape)}")
    values = reader(x).detach()
    low, high = values.aminmax(dim=0)
    varies = (high > low).nonzero().flatten().cpu().numpy()
    if len(varies) == 0:
        raise ValueError("all features are constant: there is nothing to fit")
    from sklearn.linear_model import LogisticRegression  # here: it takes a second to import
    from sklearn.preprocessing import SplineTransformer

    splines = SplineTransformer(knots, extrapolation="constant").fit(_numpy(values)[:, varies].astype(np.float64))
    basis = _basis(splines, values, varies)
    centre = basis.mean(0)
    design = (basis - centre).reshape(len(x), -1)
    if labels:
        fit = LogisticRegression(C=1 / (l2 * len(x)), max_iter=1000).fit(design, y.cpu().numpy())
        weight, bias = fit.coef_.T, fit.intercept_
        if len(bias) == 1:  # of two classes scikit-learn gives the difference
            weight, bias = np.hstack([-weight, weight]) / 2, np.hstack([-bias, bias]) / 2
    else:
        target, bias = _numpy(y.double() - y.double().mean(0)), _numpy(y.double().mean(0))
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
    flat = splines.transform(_numpy(values)[:, varies].astype(np.float64))
    return flat.reshape(len(values), len(varies), -1)


# Networks


@dataclass(frozen=True)
class ReceptiveField:
    """Which pixels one place of a map depends on: place i sees ``start + i * stride`` and ``size - 1`` pixels more."""

    size: int
    stride: int
    start: int

    def windows(self, places: Tensor, length: int) -> Tensor:
        """First pixel that each place sees, and first pixel that it no longer sees, along an axis of so many pixels."""
        first = self.start + places * self.stride
        return torch.stack([first, first + self.size]).clamp(0, length)


def receptive_field(body: nn.Sequential) -> ReceptiveField:
    """The receptive field of a stack of convolutions, poolings and pointwise layers with square kernels.

    Raises:
        UnsupportedModelError: another layer, by name.
    """
    size, stride, start = 1, 1, 0
    for name, layer in body.named_children():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            settings = (getattr(layer, key) for key in ("kernel_size", "stride", "padding"))
            dilation = getattr(layer, "dilation", 1)
            kernel, step, pad, gap = (s if isinstance(s, int) else s[0] for s in (*settings, dilation))
            size, start, stride = size + (kernel - 1) * gap * stride, start - pad * stride, stride * step
        elif not isinstance(layer, nn.ReLU | nn.BatchNorm2d | nn.Dropout | nn.Sigmoid | nn.Identity):
            raise UnsupportedModelError(
                f"the receptive field of layer {name!r}, a {type(layer).__name__}, is not known"
            )
    return ReceptiveField(size, stride, start)


class BagOfLocalFeatures(nn.Module):
    r"""A network that adds up local evidence: logits are the mean of the logits of all patches.

    .. math:: f_c(x) = \frac{1}{|P|} \sum_{p \in P} \bigl( w_c \cdot h_p(x) + b_c \bigr)

    :math:`h_p` sees the pixels of its receptive field alone, and the order of the patches plays no role. Brendel &
    Bethge 2019, arXiv:1904.00760. Train it with :func:`interp_lab.networks.train`.

    Args:
        body: a stack of convolutions, poolings and pointwise layers from ``(N, C, H, W)`` to ``(N, width, h, w)``.
        width: channels that the body gives.
        classes: number of classes.

    Raises:
        UnsupportedModelError: a layer in the body whose receptive field is not known.
    """

    def __init__(self, body: nn.Sequential, width: int, classes: int) -> None:
        super().__init__()
        self.field = receptive_field(body)
        self.body, self.head = body, nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)).mean((2, 3))

    def evidence(self, x: Tensor) -> Tensor:
        """What each place contributes to each logit, ``(N, K, h, w)``; over the places it sums to the logits."""
        with explaining(self, x) as x, torch.no_grad():
            local = self.head(self.body(x))
            return local / local[0, 0].numel()


@dataclass(frozen=True, eq=False)
class PrototypeEvidence:
    """Why a prototype network gave N images their logits.

    Attributes:
        images: the images ``(N, C, H, W)``.
        similarity: ``(N, M)``, to each prototype at the place where it is largest.
        contribution: ``(N, M)``, what each prototype adds to the logit of the target; they sum to that logit.
        target: ``(N,)``.
        windows: LongTensor ``(N, M, 4)``: top, bottom, left, right of the piece of the image compared.
        sources: ``(M, C, H, W)``, the training image that holds each prototype.
        source_windows: LongTensor ``(M, 4)``, the piece of it that is the prototype.
        classes: LongTensor ``(M,)``, the class each prototype was taken from.
    """

    images: Tensor
    similarity: Tensor
    contribution: Tensor
    target: Tensor
    windows: Tensor
    sources: Tensor
    source_windows: Tensor
    classes: Tensor


class PrototypeNetwork(nn.Module):
    r"""A network that decides by similarity to pieces of training images; made by :func:`prototype_network`.

    .. math:: f_c(x) = \sum_j w_{cj} s_j(x), \qquad s_j(x) = \max_p \log \frac{d_{jp} + 1}{d_{jp} + 10^{-4}},
        \qquad d_{jp} = \lVert h_p(x) - h_{p_j}(x_j) \rVert^2
    """

    def __init__(self, body: nn.Sequential, width: int, image: Tensor, classes: int, per_class: int) -> None:
        super().__init__()
        self.field = receptive_field(body)
        self.body = nn.Sequential(body, nn.Conv2d(width, 32, 1), nn.Sigmoid())
        self.prototypes = nn.Parameter(torch.rand(classes * per_class, 32))
        self.head = nn.Linear(classes * per_class, classes, bias=False)
        self.register_buffer("classes", torch.arange(classes).repeat_interleave(per_class))
        self.register_buffer("sources", torch.zeros(classes * per_class, *image.shape))
        self.register_buffer("source_windows", torch.zeros(classes * per_class, 4, dtype=torch.int64))
        with torch.no_grad():  # for its own class, and half as much against the others
            self.head.weight.copy_(1.5 * F.one_hot(self.classes).T - 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(_similarity(self.distances(x).flatten(2).amin(2)))

    def distances(self, x: Tensor) -> Tensor:
        """Squared distance of every place to every prototype, ``(N, M, h, w)``."""
        h = self.body(x)
        cross = F.conv2d(h, self.prototypes[..., None, None])
        norms = self.prototypes.square().sum(1)[:, None, None]
        return F.relu(h.square().sum(1, keepdim=True) - 2 * cross + norms)  # rounding may go below zero

    def explain(self, x: Tensor, target: int | Tensor | None = None) -> PrototypeEvidence:
        """Each prototype's part in the logit of the target, by default the predicted class.

        Raises:
            ValueError: x is not a finite float batch, or the target is not a class.
        """
        with explaining(self, x) as x, torch.no_grad():
            distance = self.distances(x)
            similarity = _similarity(distance.flatten(2).amin(2))
            logits = self.head(similarity)
            chosen = logits.argmax(1) if target is None else torch.as_tensor(target, device=x.device).expand(len(x))
            if chosen.min() < 0 or chosen.max() >= logits.shape[1]:
                raise ValueError(f"target must lie in 0..{logits.shape[1] - 1}, got {target}")
            windows = self._windows(distance, x.shape[-2:])
            contribution = similarity * self.head.weight[chosen]
            own = (self.sources, self.source_windows, self.classes)
            return PrototypeEvidence(x, similarity, contribution, chosen, windows, *own)

    def _windows(self, distance: Tensor, size: torch.Size) -> Tensor:
        """The piece of the image at the smallest distance, ``(N, M, 4)``."""
        best, columns = distance.flatten(2).argmin(2), distance.shape[3]
        places = (best // columns, best % columns)
        sides = [self.field.windows(place, length) for place, length in zip(places, size, strict=True)]
        return torch.cat(sides).permute(1, 2, 0)


def _similarity(distance: Tensor) -> Tensor:
    return torch.log((distance + 1) / (distance + 1e-4))


def prototype_network(
    x: Tensor,
    y: Tensor,
    body: nn.Sequential,
    *,
    per_class: int = 3,
    epochs: int = 20,
    lr: float = 3e-3,
    batch_size: int = 64,
    seed: int = 0,
) -> PrototypeNetwork:
    """Fit a prototype network: "this looks like that".

    The network learns by cross-entropy, while each image is drawn to a prototype of its class and pushed from those
    of the others. Then every prototype is replaced by the nearest piece of a training image of its class, so that it
    *is* that piece, and the weights of the last layer are fitted again. Chen et al. 2019, arXiv:1806.10574; weights
    of the two extra terms as there.

    Args:
        x, y: images ``(N, C, H, W)`` and labels, LongTensor ``(N,)``, every class present, on the body's device.
        body: a stack of convolutions, poolings and pointwise layers; trained in place. On hard data start from the
            body of a trained network.
        per_class: prototypes of each class.
        epochs, lr, batch_size, seed: of the training (AdamW); the global random state is not touched.

    Raises:
        ValueError: x or y are not as above, per_class or epochs below 1.
        UnsupportedModelError: a layer in the body whose receptive field is not known.
    """
    check_input(body, x)
    classes, y = _check_labels(y, len(x)), y.to(x.device)
    if per_class < 1 or epochs < 1:
        raise ValueError(f"per_class and epochs must be at least 1, got {per_class} and {epochs}")
    with explaining(body, x[:1]), torch.no_grad():
        width = body(x[:1]).shape[1]
    order = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
        torch.manual_seed(seed)
        network = PrototypeNetwork(body, width, x[0], classes, per_class).to(x).train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=0.0)
        schedule = one_cycle(optimizer, lr, epochs * -(-len(x) // batch_size))
        for _ in range(epochs):
            for index in torch.randperm(len(x), generator=order).split(batch_size):
                index = index.to(x.device)
                nearest = network.distances(x[index]).flatten(2).amin(2)
                own = network.classes == y[index][:, None]
                pull = nearest.where(own, torch.inf).amin(1).mean()
                push = nearest.where(~own, torch.inf).amin(1).mean()
                fit = F.cross_entropy(network.head(_similarity(nearest)), y[index])
                optimizer.zero_grad()
                (fit + 0.8 * pull - 0.08 * push).backward()
                optimizer.step()
                schedule.step()
    network.eval()
    _project(network, x, y, batch_size)
    _refit_head(network, x, y, batch_size)
    return network


@torch.no_grad()
def _project(network: PrototypeNetwork, x: Tensor, y: Tensor, batch_size: int) -> None:
    """Replace each prototype by the nearest piece of a training image of its class."""
    distance = torch.cat([network.distances(rows).flatten(2).amin(2) for rows in x.split(batch_size)])
    rows = distance.where(y[:, None] == network.classes, torch.inf).argmin(0)
    each = torch.arange(len(rows), device=x.device)
    maps, near = network.body(x[rows]), network.distances(x[rows])
    network.sources.copy_(x[rows])
    network.source_windows.copy_(network._windows(near, x.shape[-2:])[each, each])
    network.prototypes.copy_(maps.flatten(2)[each, :, near.flatten(2)[each, each].argmin(1)])


def _refit_head(network: PrototypeNetwork, x: Tensor, y: Tensor, batch_size: int) -> None:
    """Cross-entropy with a small L2 penalty in the last layer alone, which is convex."""
    with torch.no_grad():
        nearest = torch.cat([network.distances(rows).flatten(2).amin(2) for rows in x.split(batch_size)])
        similarity = _similarity(nearest)
    weight = network.head.weight
    optimizer = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(similarity @ weight.T, y) + 1e-3 / 2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    network.zero_grad()
