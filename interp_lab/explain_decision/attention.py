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

# Which axis of the first two operands, queries and keys, holds the tokens.
ATTENTION: dict[Callable, int] = {F.multi_head_attention_forward: 0, F.scaled_dot_product_attention: -2}


def attention_rollout(model: Model, x: Tensor) -> Tensor:
    r"""Attention rollout: the attention of all layers, multiplied.

    .. math:: R = \tilde A_L \cdots \tilde A_1, \qquad \tilde A_l = \tfrac12 \bigl(\operatorname{mean}_h A_l + I\bigr)

    Half of a token stays its own, since every block adds to what it reads. It asks no class: every logit has the same
    rollout. Abnar & Zuidema 2020, arXiv:2005.00928.

    Args:
        model: a transformer from ``(N, ...)`` to logits ``(N, K)``, whose layers, one after the other, all attend among the same T tokens.
        x: float batch ``(N, ...)``.

    Returns:
        ``(N, T, T)``: how much each token of the last layer, a row, has of each token of the first. Rows sum to 1.

    Raises:
        ValueError: x or the logits are not as above.
        UnsupportedModelError: no attention among the tokens of each row, or not among the same number in every layer, or
            attention to others besides (a decoder's).

    >>> from interp_lab.networks import load
    >>> rollout = attention_rollout(load("digits_vit"), torch.rand(2, 1, 28, 28))
    >>> rollout.shape  # a class token and 49 patches
    torch.Size([2, 50, 50])
    """
    with explaining(model, x) as x:
        _, weights = _attention_weights(model, x, None)
        means = [heads(a.detach()).mean(1) for heads, a in zip(_layouts(model, x, weights), weights, strict=True)]
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
        layouts = _layouts(model, x, weights)
        slopes = differentiated(chosen.sum(), weights)
        steps = [heads((a.detach() * g).relu()).mean(1) for heads, a, g in zip(layouts, weights, slopes, strict=True)]
        rolled = torch.eye(steps[0].shape[-1], dtype=x.dtype, device=x.device)
        for step in steps:
            rolled = rolled + step @ rolled
        return rolled


def _attention_weights(model: Model, x: Tensor, target: Target) -> tuple[Tensor, list[Tensor]]:
    """The chosen logit of every row, and every softmax ``(..., T, T)`` on the way there."""
    found: list[Tensor] = []
    lengths: list[tuple[int, int]] = []  # of the queries and the keys of every fused attention

    def written(attend: Callable, axis: int) -> Callable:
        def run(func: Callable, query: Tensor, key: Tensor, *args, **kwargs):
            lengths.append((query.shape[axis], key.shape[axis]))
            return attend(func, query, key, *args, **kwargs)

        return run

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
    attention: dict[Callable, Callable] = {func: written(FUSED[func], axis) for func, axis in ATTENTION.items()}
    chosen = chosen_logit(model, x.requires_grad_(), target, written_out(table, attention))
    if not found:
        raise UnsupportedModelError("no attention: the model takes no softmax of scores (..., T, T) among tokens")
    across = [pair for pair in lengths if pair[0] == found[0].shape[-1] != pair[1]]
    if across:
        raise UnsupportedModelError(
            f"the tokens also attend to {across[0][1]} others (cross-attention, as in a decoder), which a product of the weights "
            "among themselves leaves out: explain the encoder alone, or use lrp"
        )
    return chosen, found


Layout = Callable[[Tensor], Tensor]  # from what lies as attention weights do to ``(N, heads, T, T)``


def _layouts(model: Model, x: Tensor, weights: Sequence[Tensor]) -> list[Layout]:
    """How the weights of every layer lie: rows and heads come in either order, and may share an axis.

    Which is which shows where the first input is another: the weights of all other rows stay. A window of tokens is no head:
    two windows of the first layer have no number of x in common.
    """
    other = x.detach().clone()
    other[:1] = torch.rand(other[:1].shape, generator=torch.Generator().manual_seed(200500928)).to(other)
    changed = _attention_weights(model, other, None)[1] if len(x) > 1 else weights
    found = [_layout(p.detach(), q.detach(), len(x)) for p, q in zip(weights, changed, strict=True)]
    layouts = [layout for layout in found if layout is not None]
    same = all(p.shape[-1] == weights[0].shape[-1] for p in weights)
    if len(layouts) < len(weights) or not same or _are_windows(layouts[0](weights[0]), x):
        raise UnsupportedModelError(
            f"attention weights {', '.join(str(tuple(p.shape)) for p in weights)} are not among the same tokens of each of "
            f"{len(x)} inputs in every layer (windows, or tokens that are merged), so that they cannot be multiplied"
        )
    return layouts


def _layout(p: Tensor, q: Tensor, rows: int) -> Layout | None:
    """The one under which only the first row of two weights differs; None if there is none, or several that differ."""

    def first_axis(p: Tensor) -> Tensor:
        return p if p.dim() == 4 else p.unflatten(0, (rows, -1 if rows else 1))

    def second_axis(p: Tensor) -> Tensor:
        return (p if p.dim() == 4 else p.unflatten(0, (-1 if rows else 1, rows))).transpose(0, 1)

    def stays(layout: Layout) -> bool:
        if len(layout(p)) != rows or rows < 2:
            return len(layout(p)) == rows
        change = (layout(p) - layout(q)).abs()
        if not change.any():  # the weights do not depend on x, and so are the same in all rows
            return torch.allclose(layout(p), layout(p)[:1])
        return bool(change[1:].max() <= 1e-3 * change[0].max())

    if p.dim() not in (3, 4) or (p.dim() == 3 and len(p) % max(rows, 1)):
        return None
    fitting = [layout for layout in (first_axis, second_axis) if stays(layout)]
    means = [layout(p).mean(1) for layout in fitting]
    return fitting[0] if fitting and torch.allclose(means[0], means[-1]) else None


def _are_windows(heads: Tensor, x: Tensor) -> bool:
    """Whether the first and the last of ``(N, heads, T, T)`` come from different numbers of x."""
    order = torch.arange(heads.shape[-1], dtype=x.dtype, device=x.device)  # as every row of weights sums to 1
    first, last = (differentiated((heads[:, k] * order).sum(), [x], retain_graph=True)[0] != 0 for k in (0, -1))
    return bool(first.any() and last.any() and not (first & last).any())
