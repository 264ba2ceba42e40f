r"""Class sensitivity: does the map of one class differ from the map of another?

A method that explains a decision must answer differently when asked about another class. Deconvnet and guided
backprop hardly do: their maps show what is in the picture, not what speaks for the class (Nie, Zhang & Patel 2018,
arXiv:1805.07039).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..contract import Model, Target, check_target, explaining, logits_of
from .coherence import check_mask, positive_share
from .relevance import relevance_map
from .similarity import Similarity, similarity

Method = Callable[[Model, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class ClassSensitivity(Similarity):
    """Similarity of the maps of two classes, ``(N,)`` each: 1 is a method that ignores the class. Besides:

    Attributes:
        target_a: the one class, LongTensor ``(N,)``.
        target_b: the other.
        maps: both attributions, of the shape of x.
        moved: with masks, the share of relevance that moves to the right object, else None; see
            :func:`class_sensitivity`.
    """

    target_a: Tensor
    target_b: Tensor
    maps: tuple[Tensor, Tensor]
    moved: Tensor | None


def class_sensitivity(
    method: Method,
    model: Model,
    x: Tensor,
    target_a: Target = None,
    target_b: Target = None,
    *,
    masks: tuple[Tensor, Tensor] | None = None,
) -> ClassSensitivity:
    r"""Similarity of a method's maps for two classes of one input; lower is more sensitive.

    With the masks A, B of two objects, of class a and b, and :math:`s(R)` the share on A of the positive relevance
    that R puts on either of them, ``moved`` is :math:`s(R_a) - s(R_b)`: 1 if all relevance is on the object that was
    asked for, 0 if the class makes no difference, negative if relevance moves to the wrong one.

    Args:
        method: ``method(model, x, target)``, such as ``METHODS["lrp"]``.
        model: a module or function from ``(N, ...)`` to logits ``(N, K)``.
        x: float batch ``(N, ...)``.
        target_a, target_b: an int or a LongTensor ``(N,)``; None is the most likely class for a, the least likely
            for b.
        masks: two bool masks ``(N, H, W)``, of the object of class a and of the object of class b.

    Raises:
        ValueError: the classes are equal in some row; the method gives NaN; a mask is not as above.

    >>> from interp_lab import saliency
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2, bias=False))
    >>> _ = model[1].weight.data[1].copy_(-model[1].weight.data[0])  # what speaks for one class speaks against the other
    >>> class_sensitivity(saliency, model, torch.rand(1, 1, 8, 8)).spearman
    tensor([-1.])
    """
    with explaining(model, x) as x:
        if target_a is None or target_b is None:
            with torch.no_grad():
                logits = logits_of(model, x)
            if logits.shape[1] == 1:
                raise ValueError("class_sensitivity compares two classes, but the model has a single logit")
            target_a = logits.argmax(1) if target_a is None else target_a
            target_b = logits.argmin(1) if target_b is None else target_b
        a, b = (check_target(target, len(x)).to(x.device) for target in (target_a, target_b))
        if (a == b).any():
            raise ValueError(f"the two classes must differ, but are equal in rows {(a == b).nonzero()[:, 0].tolist()}")
        maps = method(model, x, a), method(model, x, b)
    relevance = [relevance_map(m, f"the map of target_{name}") for m, name in zip(maps, "ab", strict=True)]
    moved = None
    if masks is not None:
        inside = [check_mask(mask).to(x.device).flatten(1) for mask in masks]
        if any(mask.shape != r.shape for mask, r in zip(masks, relevance, strict=True)):
            raise ValueError(f"masks must be two of shape {tuple(relevance[0].shape)}, got {[m.shape for m in masks]}")
        on_a, instead = (positive_share(r.flatten(1), inside[0], inside[0] | inside[1]) for r in relevance)
        moved = (on_a - instead).to(x.dtype)
    return ClassSensitivity(**vars(similarity(*relevance)), target_a=a, target_b=b, maps=maps, moved=moved)
