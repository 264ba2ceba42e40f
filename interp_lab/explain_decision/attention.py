r"""What a transformer's attention weights make of the whole network: baselines that tests of explanations start from.

With :math:`A_l`, ``(N, heads, T, T)``, the attention weights of layer l, both follow how much each token reads from each
token of the input, through all layers. Neither looks at values, at MLPs or at the signs of weights.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..backprop.decompositions import FUSED, written_out
from ..contract import Model, Target, UnsupportedModelError, chosen_logit, differentiated, explaining
from ..contract.interception import ORDINARY_GRADIENT, operations

ATTENTION = {func: FUSED[func] for func in (F.multi_head_attention_forward, F.scaled_dot_product_attention)}


def attention_rollout(model: Model, x: Tensor) -> Tensor:
    r"""Attention rollout: the attention of all layers, multiplied.

    .. math:: R = \tilde A_L \cdots \tilde A_1, \qquad \tilde A_l = \tfrac12 \bigl(\operatorname{mean}_h A_l + I\bigr)

    Half of a token stays its own, since every block adds to what it reads. It asks no class: every logit has the same
    rollout. Abnar & Zuidema 2020, arXiv:2005.00928.

    Args:
        model: a transformer from ``(N, ...)`` to logits ``(N, K)``, whose layers all attend among the same T tokens.
        x: float batch ``(N, ...)``.

    Returns:
        ``(N, T, T)``: how much each token of the last layer, a row, has of each token of the first. Rows sum to 1.

    Raises:
        ValueError: x or the logits are not as above.
        UnsupportedModelError: no attention among the tokens of each row, or not among the same number in every layer.

    >>> from interp_lab.networks import load
    >>> rollout = attention_rollout(load("digits_vit"), torch.rand(2, 1, 28, 28))
    >>> rollout.shape  # a class token and 49 patches
    torch.Size([2, 50, 50])
    """
    with explaining(model, x) as x:
        _, weights = _attention_weights(model, x, None)
        means = [heads.mean(1) for heads in _heads(model, x, weights, weights)]
        rolled = one = torch.eye(means[0].shape[-1], dtype=x.dtype, device=x.device)
        for a in means:
            rolled = (a + one) / 2 @ rolled
        return rolled


def gradient_x_attention(model: Model, x: Tensor, target: Target = None) -> Tensor:
    r"""Gradient times attention: of each layer's attention what raises the logit of the class, followed through the layers.

    .. math:: R \leftarrow R + \bar A_l R \quad (l = 1 \dots L, \; R = I), \qquad
        \bar A_l = \operatorname{mean}_h \Bigl(A_l \odot \frac{\partial f_c}{\partial A_l}\Bigr)^+

    Chefer, Gur & Wolf 2021, Generic Attention-model Explainability, arXiv:2103.15679.

    Args:
        model, x: as for :func:`attention_rollout`.
        target: None (the predicted class), an int, or a LongTensor ``(N,)``.

    Returns:
        ``(N, T, T)``: a row for each token of the last layer, a column for each token of the first; at least 0.

    Raises:
        ValueError: x, the target or the logits are not as above.
        UnsupportedModelError: as for :func:`attention_rollout`.

    >>> from interp_lab.networks import load
    >>> relevance = gradient_x_attention(load("digits_vit"), torch.rand(2, 1, 28, 28), 3)
    >>> relevance[:, 0, 1:].shape  # what the class token has of the patches
    torch.Size([2, 49])
    """
    with explaining(model, x) as x:
        chosen, weights = _attention_weights(model, x, target)
        slopes = differentiated(chosen.sum(), weights)
        raising = [(a.detach() * g).relu() for a, g in zip(weights, slopes, strict=True)]
        steps = [heads.mean(1) for heads in _heads(model, x, weights, raising)]
        rolled = torch.eye(steps[0].shape[-1], dtype=x.dtype, device=x.device)
        for step in steps:
            rolled = rolled + step @ rolled
        return rolled


def _attention_weights(model: Model, x: Tensor, target: Target) -> tuple[Tensor, list[Tensor]]:
    """The chosen logit of every row, and every softmax ``(..., T, T)`` on the way there."""
    found: list[Tensor] = []

    def softmax(func: Callable, args: tuple, kwargs: dict) -> Tensor:
        p = func(*args, **kwargs)
        if p.dim() > 2 and p.shape[-1] == p.shape[-2]:
            if kwargs.get("dim", args[1] if len(args) > 1 else None) not in (-1, p.dim() - 1):
                raise UnsupportedModelError(
                    f"the softmax of scores {tuple(p.shape)} is not over their last axis, the tokens that are read: write it so"
                )
            found.append(p)
        return p

    table = {**ORDINARY_GRADIENT, **dict.fromkeys(operations("softmax"), softmax)}
    chosen = chosen_logit(model, x.requires_grad_(), target, written_out(table, ATTENTION))
    if not found:
        raise UnsupportedModelError("no attention: the model takes no softmax of scores (..., T, T) among tokens")
    return chosen, found


def _heads(model: Model, x: Tensor, weights: Sequence[Tensor], values: Sequence[Tensor]) -> list[Tensor]:
    """The values of every layer, which lie as its weights do, as ``(N, heads, T, T)``.

    Rows and heads may come in either order and share an axis: the first row, run alone, tells which is which.
    """
    _, alone = _attention_weights(model, x[:1].detach(), None)
    result = []
    for p, one, value in zip(weights, alone, values, strict=True):
        forms = [form for form in FORMS if _fits(form, p, one, len(x))]
        if not forms or p.shape[-1] != weights[0].shape[-1]:
            raise UnsupportedModelError(
                f"attention weights {', '.join(str(tuple(p.shape)) for p in weights)} are not among the same tokens of each of "
                f"{len(x)} inputs in every layer (windows, or tokens that are merged), so that they cannot be multiplied"
            )
        nearest = min(forms, key=lambda form: (form(p, len(x))[0] - form(one, 1)[0]).abs().max().item())
        result.append(nearest(value.detach(), len(x)))
    return result


FORMS: tuple[Callable[[Tensor, int], Tensor], ...] = (
    lambda p, rows: p if p.dim() == 4 else p.unflatten(0, (rows, -1)),
    lambda p, rows: (p if p.dim() == 4 else p.unflatten(0, (-1, rows))).transpose(0, 1),
)


def _fits(form: Callable[[Tensor, int], Tensor], p: Tensor, one: Tensor, rows: int) -> bool:
    if p.dim() not in (3, 4) or p.dim() != one.dim() or (p.dim() == 3 and len(p) != rows * len(one)):
        return False
    return len(form(p, rows)) == rows and len(form(one, 1)) == 1
