"""How often a surrogate decides as its network does."""

import warnings

from torch import Tensor

from ...contract import Model, decisions
from .queries import answers, fingerprints


def fidelity(surrogate: Model, model: Model, x: Tensor) -> float:
    r"""Share of inputs for which surrogate and model predict the same class.

    .. math:: \frac1N \sum_n \bigl[ \arg\max_c g_c(x_n) = \arg\max_c f_c(x_n) \bigr]

    Where one of them has a single logit, its class is 1 if the logit is positive, else 0.

    It compares with the model's labels, not with the true ones, and belongs on inputs that the surrogate has not
    seen: a deep tree has fidelity 1 on those it was fitted to. A warning says so where x holds some of them.

    Args:
        surrogate: any function from a batch ``(N, ...)`` to scores ``(N, K)``, such as the result of
            :func:`~interp_lab.surrogate_linear`, :func:`~interp_lab.surrogate_tree` or :func:`~interp_lab.surrogate_graph`,
            which runs the network with everything else ablated.
        model: the module or function that is explained, from ``(N, ...)`` to logits ``(N, K)``.
        x: float batch ``(N, ...)``, N at least 1.

    Raises:
        ValueError: x is not as above, or one of the two gives no ``(N, K)`` or NaN.

    Example:
        >>> import torch
        >>> from interp_lab import fidelity
        >>> x = torch.tensor([[2.0, 1.0], [0.0, 1.0], [1.0, 3.0], [4.0, 3.0]])
        >>> fidelity(lambda x: x - torch.tensor([2.0, 0.0]), lambda x: x, x)
        0.5
    """
    known: frozenset[int] = getattr(surrogate, "queried", frozenset())
    if known and (seen := len(known.intersection(fingerprints(x)))):
        warnings.warn(
            f"{seen} of these {len(x)} inputs were used to fit the surrogate, so its fidelity is flattered; use inputs "
            "that were held out",
            stacklevel=2,
        )
    return (_labels(surrogate, x) == _labels(model, x)).float().mean().item()


def _labels(model: Model, x: Tensor) -> Tensor:
    return decisions(answers(model, x))
