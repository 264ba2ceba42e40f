"""Decision trees: a rule for every decision."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..contract import check_input
from .features import Features, check_labels, read_features, to_numpy

if TYPE_CHECKING:
    from sklearn.tree import DecisionTreeClassifier


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
        scores[:, known] = torch.from_numpy(self.tree.predict_proba(to_numpy(self.features(x)))).to(x)
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
        return [self._rule(leaf) for leaf in self.tree.apply(to_numpy(self.features(x)))]

    def _rule(self, leaf: int) -> str:
        """All tests on the way to a leaf; of several on one feature, the tightest."""
        nodes, node = self.tree.tree_, leaf
        bounds: dict[tuple[int, bool], float] = {}
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
        values, labels = to_numpy(self.features(x)), y.cpu().numpy()
        right = (self.tree.predict(values) == labels).mean()
        order = np.random.default_rng(seed).permutation(len(values))
        lost = np.zeros(values.shape[1])
        for j in np.unique(self.tree.tree_.feature[self.tree.tree_.feature >= 0]):
            shuffled = values.copy()
            shuffled[:, j] = values[order, j]
            lost[j] = right - (self.tree.predict(shuffled) == labels).mean()
        return torch.from_numpy(lost).to(x)


def decision_tree(
    x: Tensor,
    y: Tensor,
    *,
    depth: int | None = None,
    features: Callable[[Tensor], Tensor] | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> TreeModel:
    r"""A classification tree of tests "feature <= threshold", grown greedily by Gini impurity (scikit-learn).

    .. math:: \min_{j, t} \; N_\le G_\le + N_> G_> , \qquad G = 1 - \sum_c p_c^2

    at every node: the two sides of the test :math:`\phi_j(x) \le t` hold :math:`N_\le` and :math:`N_>` examples, of class
    frequencies :math:`p_c`. Breiman, Friedman, Olshen & Stone 1984, Classification and regression trees.

    Args:
        x: float batch ``(N, ...)``.
        y: labels, LongTensor ``(N,)``, every class present.
        depth: at most so many tests on the way to a leaf, at least 1; None grows until the leaves are pure.
        features: a function from a batch to the features ``(N, *shape)``; None reads the pixels.
        names: one name per feature; None calls them by their place.
        seed: breaks ties between equally good tests.

    Raises:
        ValueError: x, y, the features or ``depth`` are not as above.

    Example:
        >>> import torch
        >>> from interp_lab import decision_tree
        >>> x = torch.tensor([[1.0], [2.0], [4.0], [5.0]])
        >>> decision_tree(x, torch.tensor([0, 0, 1, 1]), names=["width"]).rules()
        ['if width <= 3: class 0 (100% of 2)', 'if width > 3: class 1 (100% of 2)']
    """
    reader = read_features(x, features, names)
    return fit_tree(reader, x, y, check_labels(y, len(x)), depth, seed)


def fit_tree(reader: Features, x: Tensor, y: Tensor, classes: int, depth: int | None, seed: int) -> TreeModel:
    """The tree of :func:`decision_tree` for features ``reader`` and labels ``y (N,)`` in which a class may be missing."""
    if depth is not None and (not isinstance(depth, int) or depth < 1):
        raise ValueError(f"depth must be None or an integer of at least 1, got {depth!r}")
    from sklearn.tree import DecisionTreeClassifier  # here: it takes a second to import

    tree = DecisionTreeClassifier(max_depth=depth, random_state=seed)
    return TreeModel(reader, tree.fit(to_numpy(reader(x)), y.cpu().numpy()), classes)
