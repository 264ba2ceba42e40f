"""Counterfactuals: the closest input of another class."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..contract import Model, Target, check_target, differentiated, explaining, gradient, is_finite, logits_of, pick

HALVINGS = 60  # of an interval, to the last digit of a double
BACK = 0.2  # of the way to x in the first step, less in each later one
SHARES = 12  # of the way back to x


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """The closest inputs of another class that were found.

    Attributes:
        x: of the shape, dtype and device of x; where none was found, x itself.
        target: LongTensor ``(N,)``, the class that each is of.
        distance: ``(N,)``, the Euclidean length of the change; infinite where none was found.
    """

    x: Tensor
    target: Tensor
    distance: Tensor


def counterfactual(
    model: Model,
    x: Tensor,
    target: Target = None,
    *,
    margin: float = 0.1,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    steps: int = 50,
) -> Counterfactual:
    r"""The closest input of another class: what would have to be different for the network to decide otherwise?

    .. math:: \min_{x'} \lVert x' - x \rVert_2 \quad \text{with} \quad
        g(x') = f_t(x') - \max_{c \ne t} f_c(x') \ge m, \quad x' \text{ within the bounds}

    Each step takes g as linear at the current point, and goes from there, drawn a little back to x, the shortest way to where it then
    has the margin; the last steps are not drawn back, so that they arrive.
    On a linear model of two classes without bounds this is the answer after one step,

    .. math:: x' = x + \frac{m - g(x)}{\lVert w \rVert^2} \, w, \quad w = \nabla g.

    Of all points on the way with the margin, each drawn back towards x as far as it keeps it, the closest is returned: a point of
    the other class, but not always the closest one that there is. Closest is meant in the space of x, where for a picture it is
    most often a noise that nobody sees. The question: Wachter, Mittelstadt & Russell 2018, arXiv:1711.00399. The steps: Moosavi-Dezfooli,
    Fawzi & Frossard 2016, DeepFool, arXiv:1511.04599, which are not drawn back.

    Args:
        model: a module or function from ``(N, ...)`` to logits ``(N, K)``; a single logit decides between class 0 and, if positive, 1.
        x: float batch ``(N, ...)`` within the bounds.
        target: t, an int or a LongTensor ``(N,)``; None is the class with the second largest logit.
        margin: m, by how much the target's logit has to exceed all others, at least 0.
        bounds: least and largest value of an input, or None.
        steps: at least 1.

    Raises:
        ValueError: an argument is not as above.
        UnsupportedModelError: as for :func:`~interp_lab.saliency`.

    >>> model = torch.nn.Linear(2, 2)
    >>> _ = model.weight.data.copy_(torch.tensor([[3.0, 4.0], [0.0, 0.0]])), model.bias.data.zero_()
    >>> found = counterfactual(model, torch.tensor([[3.0, 4.0]]), margin=0, bounds=None)
    >>> found.distance  # the logits are 25 and 0, and the weights differ by 5
    tensor([5.])
    """
    if not margin >= 0 or steps < 1:
        raise ValueError(f"margin must be at least 0 and steps at least 1, got {margin} and {steps}")
    with explaining(model, x) as x:
        low, high = bounds or (-torch.inf, torch.inf)
        if len(x) and not (low <= x.min() and x.max() <= high):
            raise ValueError(f"x must lie within the bounds {bounds}, got {x.min():g} to {x.max():g}: give its bounds")
        gradient(model, x, None)  # refuses a model whose derivative is cut
        with torch.no_grad():
            logits = _of_two(logits_of(model, x))
        target = logits.topk(2).indices[:, 1] if target is None else check_target(target, len(x)).to(x.device)
        enough = margin - torch.finfo(x.dtype).eps ** 0.5 * (1 + logits.abs().amax(1))  # up to rounding
        best, least, point = x.clone(), x.new_full((len(x),), torch.inf), x
        for step in range(steps + 1):
            lead, slope = _lead(model, point, target)
            distance = (point - x).flatten(1).norm(dim=1)
            better = (lead >= enough) & (distance < least)
            best[better], least[better] = point[better], distance[better]
            if step < steps:
                anchor = torch.lerp(point, x, BACK * (1 - step / steps))
                rise = margin - lead + ((point - anchor) * slope).flatten(1).sum(1)
                point = _moved(anchor, slope, rise, low, high)
        best = _drawn_back(model, x, best, target, margin)
        distance = (best - x).flatten(1).norm(dim=1).where(least < torch.inf, torch.inf)
    return Counterfactual(best, target, distance)


def _of_two(logits: Tensor) -> Tensor:
    """Logits of at least two classes; of a single one, those of class 0 and class 1."""
    return torch.cat([torch.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits


def _lead(model: Model, point: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """By how much the target's logit exceeds the largest other one, ``(N,)``, and the gradient of that."""
    point = point.detach().requires_grad_()
    logits = _of_two(logits_of(model, point))
    chosen = pick(logits, target)
    lead = chosen - logits.scatter(1, target[:, None], -torch.inf).amax(1)
    (slope,) = differentiated(lead.sum(), [point])
    if not is_finite(slope):
        raise ValueError("the gradient of the logits is not finite on the way to a counterfactual")
    return lead.detach(), slope


def _moved(x: Tensor, slope: Tensor, rise: Tensor, low: float, high: float) -> Tensor:
    """The closest point to x within the bounds at which a linear function of this slope has risen so far, or as far as it can."""

    def per_row(values: Tensor) -> Tensor:
        return values.view(-1, *[1] * (x.dim() - 1))

    square = slope.flatten(1).square().sum(1)
    factor = (rise / square.where(square > 0, 1)).clamp(min=0)
    if low == -torch.inf:
        return x + per_row(factor) * slope
    # Where bounds cut the change, the rest has to make up for it: the rise grows with the factor, up to its limit.
    least, most = factor, factor * 2**20
    for _ in range(HALVINGS):
        middle = (least + most) / 2
        at = (x + per_row(middle) * slope).clamp(low, high)
        short = ((at - x) * slope).flatten(1).sum(1) < rise
        least, most = middle.where(short, least), most.where(short, middle)
    return (x + per_row(most) * slope).clamp(low, high)


def _drawn_back(model: Model, x: Tensor, far: Tensor, target: Tensor, margin: float) -> Tensor:
    """The point on the way from x to ``far`` from which on, by halving, the margin is kept, or what ``far`` has of it."""

    def at(share: Tensor) -> Tensor:
        return torch.lerp(x, far, share.view(-1, *[1] * (x.dim() - 1)))

    needed = _lead(model, far, target)[0].clamp(max=margin)
    without, kept = x.new_zeros(len(x)), x.new_ones(len(x))
    for _ in range(SHARES):
        middle = (without + kept) / 2
        enough = _lead(model, at(middle), target)[0] >= needed
        kept, without = middle.where(enough, kept), without.where(enough, middle)
    return at(kept)
