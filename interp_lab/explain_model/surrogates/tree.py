"""The decision tree that is nearest to a network."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from ...antehoc.features import read_features
from ...antehoc.tree import TreeModel, fit_tree
from ...contract import Model, decisions
from .queries import answers, fingerprints, with_fresh_queries


def surrogate_tree(
    model: Model,
    x: Tensor,
    *,
    depth: int | None = 5,
    features: Callable[[Tensor], Tensor] | None = None,
    names: Sequence[str] | None = None,
    queries: int = 0,
    noise: float = 0.1,
    seed: int = 0,
) -> TreeModel:
    r"""A decision tree fitted to the labels that a network gives, :math:`\arg\max_c f_c(x_n)`, grown by Gini impurity.

    Where the network has a single logit, the label is 1 if it is positive, else 0. Craven & Shavlik 1996, NIPS 8.

    Args:
        model: a module or function from ``(N, ...)`` to logits ``(N, K)``.
        x: float batch ``(N, ...)``.
        depth: at most so many tests on the way to a leaf, at least 1; None grows until the leaves are pure.
        features: a function from a batch to the features ``(N, *shape)``; None reads the pixels.
        names: one name per feature; None calls them by their place.
        queries: so many more inputs are made from x by :func:`~interp_lab.fresh_queries`.
        noise: standard deviation of the noise in them, as a fraction of the range of x, at least 0.
        seed: of these queries, and of the ties between equally good tests.

    Raises:
        ValueError: x, the logits, the features or an option are not as above.

    Example:
        >>> import torch
        >>> from interp_lab import surrogate_tree
        >>> x = torch.tensor([[1.0], [2.0], [4.0], [5.0]])
        >>> surrogate_tree(lambda x: torch.cat([3 - x, x - 3], 1), x).rules()
        ['if x0 <= 3: class 0 (100% of 2)', 'if x0 > 3: class 1 (100% of 2)']
    """
    reader = read_features(x, features, names)
    x = with_fresh_queries(x, queries, noise, seed)
    logits = answers(model, x)
    tree = fit_tree(reader, x, decisions(logits), max(2, logits.shape[1]), depth, seed)
    return replace(tree, queried=frozenset(fingerprints(x)))
