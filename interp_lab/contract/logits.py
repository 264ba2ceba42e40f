"""Logits of every row, and what is read off them: the decision, probabilities, the logit of one class."""

import torch
from torch import Tensor

from .guard import output_of
from .inputs import Model, Target, check_target


def logits_of(model: Model, x: Tensor) -> Tensor:
    """``model(x)``, checked to be logits ``(N, K)``.

    Raises:
        ValueError: the model cannot take x's shape, gives no ``(N, K)`` tensor, or gives NaN.
        UnsupportedModelError: as for :func:`output_of`.
    """
    logits = output_of(model, x.clone())  # a model that works in place must not change the caller's x
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(x) or not logits.shape[1]:
        raise ValueError(
            f"the model must give logits of shape ({len(x)}, K) for x {tuple(x.shape)}, got {_got(logits)}"
        )
    if not logits.is_floating_point():
        raise ValueError(
            f"the model gives {logits.dtype} (numbers of classes, a decision?): give the logits that these are made of"
        )
    if torch.isnan(logits).any():
        raise ValueError("the model gives NaN logits for this x")
    return logits


def _got(output: object) -> str:
    """What a model gave in place of logits, and the function around it that would give them."""
    if isinstance(output, Tensor):
        remedy = ": wrap it, lambda x: model(x)[:, None]" if output.dim() == 1 else ""
        return f"shape {tuple(output.shape)}{remedy}"
    if not isinstance(output, tuple | list | dict):
        return f"{type(output).__name__}: let it return a tensor"
    keys = list(output) if isinstance(output, dict) else getattr(output, "_fields", ())
    part = f"[{keys[0]!r}]" if isinstance(output, dict) and keys else f".{keys[0]}" if keys else "[0]"
    return f"{type(output).__name__}: wrap it, lambda x: model(x){part}, or whichever part holds the logits"


def decisions(logits: Tensor) -> Tensor:
    """The class decided for, ``(N,)``: that of the largest logit; of a single logit, whether it is positive."""
    return (logits > 0).long().squeeze(1) if logits.shape[1] == 1 else logits.argmax(1)


def probabilities(logits: Tensor) -> Tensor:
    """Softmax over the classes, ``(N, K)``; of a single logit its sigmoid, the probability of the class it stands for."""
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)


def resolve(model: Model, x: Tensor, target: Target) -> Tensor:
    """Target classes ``(N,)`` of a checked batch; only None takes a forward pass (without a graph).

    Whether a class that is given lies in the range of the logits is checked where they are computed.
    """
    if target is None:
        with torch.no_grad():
            return logits_of(model, x).argmax(1)
    return check_target(target, len(x)).to(x.device)


def pick(logits: Tensor, target: Target) -> Tensor:
    """The target's logit of every row, ``(N,)``; None is the predicted class.

    Raises:
        ValueError: also for a class outside ``0 .. K - 1``.
    """
    count, classes = logits.shape
    target = logits.argmax(1) if target is None else check_target(target, count).to(logits.device)
    if count and not (0 <= target.min() and target.max() < classes):
        raise ValueError(f"target must lie in 0..{classes - 1}, got {target.min().item()}..{target.max().item()}")
    return logits.gather(1, target[:, None]).squeeze(1)
