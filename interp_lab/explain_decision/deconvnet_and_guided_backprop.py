r"""Deconvnet and guided backpropagation: two ways back through a ReLU.

With the backward signal :math:`g` above a ReLU and its output :math:`a`, the gradient passes :math:`g` where
:math:`a > 0`. Both methods change that line and nothing else.
"""

import torch
from torch import Tensor

from ..backprop.relu_rules import relu_gradient
from ..contract import Model, Target


def deconvnet(model: Model, x: Tensor, target: Target = None) -> Tensor:
    r"""Deconvnet: at every ReLU the backward signal is rectified, :math:`g \to \max(g, 0)`.

    Zeiler & Fergus 2014, arXiv:1311.2901; started at the logit of the target. Max-pools pass the signal to the place
    of the maximum.

    Args:
        model: a module or function from ``(N, ...)`` to logits ``(N, K)`` whose only nonlinearities are ReLU and
            max-pooling.
        x: float batch ``(N, ...)``.
        target: None (the predicted class), an int, or a LongTensor ``(N,)``.

    Returns:
        The attribution, of the shape, dtype and device of x.

    Raises:
        ValueError: x, target or the logits are not as above.
        UnsupportedModelError: the model has no ReLU, or an operation without a rule, which the message names.

    >>> model = lambda x: torch.relu(x @ torch.tensor([[1.0, -1.0], [1.0, 1.0]])) @ torch.tensor([[1.0], [-1.0]])
    >>> deconvnet(model, torch.tensor([[1.0, 2.0]]))  # both units are active; the signal -1 of the second is removed
    tensor([[1., 1.]])
    """
    return relu_gradient(model, x, target, lambda a, g: g.clamp(min=0))


def guided_backprop(model: Model, x: Tensor, target: Target = None) -> Tensor:
    r"""Guided backpropagation: at every ReLU, :math:`g \to \max(g, 0)` where :math:`a > 0`, else 0.

    Springenberg et al. 2014, arXiv:1412.6806. It equals the gradient if every weight above the first layer is
    non-negative.

    Args:
        model: a module or function from ``(N, ...)`` to logits ``(N, K)`` whose only nonlinearities are ReLU and
            max-pooling.
        x: float batch ``(N, ...)``.
        target: None (the predicted class), an int, or a LongTensor ``(N,)``.

    Returns:
        The attribution, of the shape, dtype and device of x.

    Raises:
        ValueError: x, target or the logits are not as above.
        UnsupportedModelError: the model has no ReLU, or an operation without a rule, which the message names.

    >>> model = lambda x: torch.relu(x @ torch.tensor([[1.0, -1.0], [1.0, 1.0]])) @ torch.tensor([[1.0], [-1.0]])
    >>> guided_backprop(model, torch.tensor([[1.0, 2.0], [-2.0, 1.0]]))  # in the second row the first unit is silent
    tensor([[1., 1.],
            [0., 0.]])
    """
    return relu_gradient(model, x, target, lambda a, g: torch.ops.aten.threshold_backward(g, a, 0).clamp_(min=0))
