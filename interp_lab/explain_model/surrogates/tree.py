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
    """A decision tree fitted to the labels that a network gives. Craven & Shavlik 1996, NIPS 8.

    Args:
        model, x, features, names, queries, noise, seed: as for :func:`surrogate_linear`.
        depth: at most so many tests on the way to a leaf; None grows until the leaves are pure.

    Raises:
        ValueError: x, the logits, the features or an option are not as above.
    """
    reader = read_features(x, features, names)
    x = with_fresh_queries(x, queries, noise, seed)
    logits = answers(model, x)
    tree = fit_tree(reader, x, decisions(logits), max(2, logits.shape[1]), depth, seed)
    return replace(tree, queried=frozenset(fingerprints(x)))
