r"""Occlusion: hide one window of the input after another, and see how far the logit falls."""

import torch
from torch import Tensor

from ..contract import Model, Target, explaining
from .removal import Removal


def occlusion(
    model: Model,
    x: Tensor,
    target: Target = None,
    *,
    window: int | None = None,
    stride: int | None = None,
    baseline: float | Tensor = 0.0,
    batch_size: int | None = None,
) -> Tensor:
    r"""Occlusion: the fall of the logit when a window is hidden, averaged over the windows that hide a pixel.

    .. math:: R_p(x) = \frac{1}{|\{W : p \in W\}|} \sum_{W \ni p} \bigl( f_c(x) - f_c(x_{W \to x_0}) \bigr)

    :math:`x_{W \to x_0}` is x with the baseline :math:`x_0` inside the window W, in all channels. Windows start at every
    multiple of the stride, and at the far borders, so that every pixel is hidden at some time. The model is asked for
    outputs only. With windows of one pixel a linear model gets its exact terms, :math:`w \odot (x - x_0)`; where either of two
    pixels is enough, both get nothing. Zeiler & Fergus 2014, arXiv:1311.2901.

    Args:
        model: a module or function from ``(N, ...)`` to logits ``(N, K)``.
        x: float batch: images ``(N, C, H, W)``, or any other number of axes behind the channels; vectors ``(N, D)``.
        target: None (the class predicted for x), an int, or a LongTensor ``(N,)``.
        window: side of the window in pixels; None is an eighth of the shortest side, rounded up, and 1 for vectors.
        stride: step from one window to the next, at most the window; None is half the window, rounded up.
        baseline: :math:`x_0`, a number or a tensor that broadcasts to the shape of x.
        batch_size: rows per pass, to bound memory; any value gives the same numbers. None chooses by device.

    Returns:
        The attribution, of the shape, dtype and device of x. The channels have equal parts of :math:`R_p`.

    Raises:
        ValueError: x, target, the logits or an option are not as above, or the baseline does not broadcast to x.
        UnsupportedModelError: the model is random, or its rows depend on each other.

    >>> model = lambda x: 1 - torch.relu(1 - x.sum(1, keepdim=True))
    >>> occlusion(model, torch.tensor([[1.0, 0.5]]))  # the first alone is enough, the second is not
    tensor([[0.5000, 0.0000]])
    """
    with explaining(model, x) as x:
        removal = Removal(model, x, target, baseline, batch_size)
        places = removal.places
        if window is None:
            window = 1 if x.dim() == 2 else -(-min(places) // 8)
        if not isinstance(window, int) or not 1 <= window <= min(places):
            raise ValueError(f"window must be an integer in 1..{min(places)}, the shortest side of x, got {window!r}")
        stride = -(-window // 2) if stride is None else stride
        if not isinstance(stride, int) or not 1 <= stride <= window:
            raise ValueError(
                f"stride must be an integer in 1..{window}, so that windows leave nothing out, got {stride!r}"
            )
        starts = [torch.tensor([*range(0, size - window, stride), size - window]).to(x.device) for size in places]
        counts = torch.Size(len(start) for start in starts)

        def hidden(numbers: Tensor) -> Tensor:
            masks = x.new_ones(len(numbers))
            for start, size, chosen in zip(starts, places, torch.unravel_index(numbers, counts), strict=True):
                after = torch.arange(size, device=x.device) - start[chosen][:, None]
                inside = ((after >= 0) & (after < window)).to(x)
                masks = masks[..., None] * inside.view(len(numbers), *[1] * (masks.dim() - 1), size)
            return masks

        falls = removal.value[:, None] - removal.scores_under(hidden, counts.numel())
        falls = falls.to(torch.promote_types(x.dtype, torch.float32))
        cover = removal.laid_over(torch.ones_like(falls[:1]), hidden)
        return removal.shared_by_channels(removal.laid_over(falls, hidden) / cover)
