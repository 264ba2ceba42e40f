r"""Fragility: can the map be changed without changing the decision?

Ghorbani, Abid & Zou 2019, Interpretation of Neural Networks Is Fragile, arXiv:1710.10547.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..contract import Model, Target, decisions, differentiated, explaining, gradient, logits_of, pick, resolve
from ..contract.interception import CHOICES, Interception, operations, works_in_place


def top_k_overlap(a: Tensor, b: Tensor, k: int) -> Tensor:
    r"""Of the k pixels with the largest magnitude in map a, the share that is also among the k largest of b, ``(N,)``.

    A pixel's magnitude is :math:`\sum_c |R_c|` over its channels. Two unrelated maps of P pixels have :math:`k / P` on
    average. Where several pixels are equal at the border of the k largest, a coin would choose among them, for each map
    anew: the result is the mean over these choices, so that a map of zeros has :math:`k / P` with every map, itself too.

    Args:
        a, b: ``(N, C, H, W)``, or ``(N, ...)`` without channels, of one shape.
        k: number of pixels, from 1 to all.

    Raises:
        ValueError: different shapes, NaN, or k out of range.

    >>> top_k_overlap(torch.tensor([[[[9.0, 8.0, 1.0, 0.0]]]]), torch.tensor([[[[9.0, 0.0, -7.0, 1.0]]]]), k=2)
    tensor([0.5000])
    """
    if a.shape != b.shape or not torch.isfinite(a).all() or not torch.isfinite(b).all():
        raise ValueError(f"the maps must be finite and of one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    return (largest(a, k) * largest(b, k)).sum(1) / k


def attack_attribution(
    model: Model,
    x: Tensor,
    target: Target = None,
    *,
    k: int,
    radius: float = 8 / 255,
    steps: int = 20,
    beta: float = 10.0,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    r"""A picture x' near x with the same decision and another saliency map: the top-k attack of Ghorbani et al.

    .. math:: & \min_{x'} \sum_{i \in B} I_i(x') \quad \text{with} \\
        & \lVert x' - x \rVert_\infty \le r, \quad \arg\max f(x') = \arg\max f(x)

    B are the k pixels with the largest magnitude in the map of x, I is the magnitude of the gradient divided by its
    sum. Each step goes along the sign of the objective's gradient, and of all x' on the way with the same decision the
    one with the smallest :func:`top_k_overlap` is returned; where none has it, x.

    The objective's gradient is a second derivative, which is zero for a ReLU. The *direction* of a step is therefore
    taken from the network with softplus :math:`\log(1 + e^{\beta z}) / \beta` in place of its ReLUs; maps and decisions
    are those of the network itself. Other functions with kinks keep their zero. The map of a linear model cannot
    change: x comes back.

    Args:
        model: a module or function from ``(N, ...)`` to logits ``(N, K)``.
        x: float batch ``(N, ...)`` within the bounds; images ``(N, C, H, W)``.
        target: the class whose map is attacked; None (the predicted class), an int, or a LongTensor ``(N,)``.
        k: number of pixels in B.
        radius: r, the largest change of a value, above 0.
        steps: of size 2.5 r / steps.
        beta: sharpness of the softplus; large is close to the ReLU, with a gradient that is zero almost everywhere.
        bounds: least and largest value of a picture.

    Returns:
        x', of the shape, dtype and device of x.

    Raises:
        ValueError: an argument is not as above.
        UnsupportedModelError: as for :func:`~interp_lab.saliency`, or an operation has no second derivative.

    >>> from interp_lab import saliency
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> x = torch.rand(1, 1, 8, 8)
    >>> near = attack_attribution(model, x, k=8, radius=0.05, steps=3)
    >>> bool((near - x).abs().max() <= 0.05 + 1e-6), bool((model(near).argmax(1) == model(x).argmax(1)).all())
    (True, True)
    """
    if not radius > 0 or steps < 1 or not beta > 0:
        raise ValueError(f"radius and beta must be above 0 and steps at least 1, got {radius}, {beta}, {steps}")
    with explaining(model, x) as x:
        if not (bounds[0] <= x.min() and x.max() <= bounds[1]):
            raise ValueError(f"x must lie within the bounds {bounds}, got {x.min():g} to {x.max():g}: give its bounds")
        target, decision = resolve(model, x, target), _decision(model, x)
        original = gradient(model, x, target)
        inside = largest(original, k)
        best, least, moved = x.clone(), x.new_ones(len(x)), x
        for _ in range(steps):
            moved = moved - 2.5 * radius / steps * uphill(model, moved, target, inside, beta).sign()
            moved = moved.clamp(x - radius, x + radius).clamp(*bounds)
            overlap = top_k_overlap(original, gradient(model, moved, target), k)
            better = (overlap < least) & (_decision(model, moved) == decision)
            best[better], least[better] = moved[better], overlap[better]
    return best


def _decision(model: Model, x: Tensor) -> Tensor:
    with torch.no_grad():
        return decisions(logits_of(model, x))


def uphill(model: Model, x: Tensor, target: Tensor, inside: Tensor, beta: float) -> Tensor:
    """The gradient at x of what the attack lowers: the share of the smooth map that lies on the pixels inside."""
    x = x.detach().requires_grad_()
    map_ = _magnitude(_smooth_gradient(model, x, target, beta))
    objective = (map_ * inside).sum(1) / map_.sum(1).clamp(min=torch.finfo(x.dtype).tiny)
    # The second term lets a constant map, that of a linear model, have its gradient of zero.
    return differentiated(objective.sum() + 0 * x.sum(), [x])[0]


def _smooth_gradient(model: Model, x: Tensor, target: Tensor, beta: float) -> Tensor:
    """The gradient of the logit with softplus for ReLU, which can be differentiated once more."""

    def softplus(func, args: tuple, kwargs: dict) -> Tensor:
        out = F.softplus(args[0].clone(), beta)
        return args[0].copy_(out) if works_in_place(func, args, kwargs) else out

    # Fused attention has no second derivative.
    with Interception(dict.fromkeys(operations("relu"), softplus), [x], CHOICES), sdpa_kernel(SDPBackend.MATH):
        chosen = pick(logits_of(model, x), target).sum()
    return differentiated(chosen, [x], create_graph=True)[0]


def _magnitude(map_: Tensor) -> Tensor:
    """Magnitude of each pixel, ``(N, P)``."""
    return (map_.abs().sum(1) if map_.dim() == 4 else map_.abs()).flatten(1)


def largest(map_: Tensor, k: int) -> Tensor:
    """1 at the k pixels of largest magnitude, else 0, ``(N, P)``; equal ones at the border share the places left for them."""
    magnitude = _magnitude(map_)
    if not isinstance(k, int) or not 1 <= k <= magnitude.shape[1]:
        raise ValueError(f"k must be an integer in 1..{magnitude.shape[1]}, the number of pixels, got {k}")
    border = magnitude.topk(k, 1).values[:, -1:]
    above, equal = (magnitude > border).to(magnitude), (magnitude == border).to(magnitude)
    return above + equal * (k - above.sum(1, keepdim=True)) / equal.sum(1, keepdim=True)
