r"""Rectified gradient: the signal passes a ReLU where it and the activation are large together."""

from torch import Tensor

from ..backprop.relu_rules import relu_gradient
from ..contract import Model, Target


def rectgrad(model: Model, x: Tensor, target: Target = None, *, q: float = 0.98) -> Tensor:
    r"""Rectified gradient: at every ReLU, :math:`g \to g` where :math:`a\,g > \tau`, else 0.

    :math:`\tau` is the q-quantile of :math:`a\,g` over the units of the layer, for each image, and at least 0, so that
    q = 0 is guided backpropagation. Kim et al. 2019, arXiv:1902.04893 (they display its product with x).

    Args:
        model: a module or function from ``(N, ...)`` to logits ``(N, K)`` whose only nonlinearities are ReLU and
            max-pooling.
        x: float batch ``(N, ...)``.
        target: None (the predicted class), an int, or a LongTensor ``(N,)``.
        q: share of each layer's units whose signal is removed, in [0, 1).

    Returns:
        The attribution, of the shape, dtype and device of x.

    Raises:
        ValueError: x, target or the logits are not as above, or q lies outside [0, 1).
        UnsupportedModelError: the model has no ReLU, or an operation without a rule, which the message names.

    >>> model = lambda x: torch.relu(x).sum(1, keepdim=True)
    >>> rectgrad(model, torch.tensor([[1.0, 2.0, 3.0, 4.0]]), q=0.5)  # the half with the largest a g
    tensor([[0., 0., 1., 1.]])
    """
    if not 0 <= q < 1:
        raise ValueError(f"q must lie in [0, 1), got {q}")

    def rule(a: Tensor, g: Tensor) -> Tensor:
        product = (a * g).flatten(1)
        # With q = 0 nothing lies below the quantile, so that only the floor of 0 acts.
        rank = max(1, int(q * product.shape[1]))
        tau = product.kthvalue(rank, dim=1).values.clamp(min=0)
        return g * (product > tau[:, None]).view_as(g)

    return relu_gradient(model, x, target, rule)
