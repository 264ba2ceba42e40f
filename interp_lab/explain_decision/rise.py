r"""RISE: hide random parts of the input, and average the masks by the scores of what they left."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..contract import Model, Target, explaining
from .grad_cam import INTERPOLATION
from .removal import Masks, Removal


def rise(
    model: Model,
    x: Tensor,
    target: Target = None,
    *,
    samples: int = 1000,
    cells: int = 7,
    keep: float = 0.5,
    centred: bool = True,
    baseline: float | Tensor = 0.0,
    seed: int = 0,
    batch_size: int | None = None,
) -> Tensor:
    r"""RISE: random masks, averaged with the logits of the inputs that they let through as weights.

    .. math:: & R_p(x) = \frac{1}{\E[M_p]\, n} \sum_{k=1}^n \bigl( f_k - \bar f \bigr) M_{kp}, \\
        & f_k = f_c\bigl(x_0 + M_k \odot (x - x_0)\bigr)

    A mask is a coarse grid of zeros and ones, each 1 with probability :math:`\E[M_p]`, magnified by linear interpolation and
    moved by a random part of a cell. For many samples :math:`R_p` is how much higher than on average the logit is where
    pixel p is kept; its error falls as :math:`1 / \sqrt n`. Petsiuk, Das & Saenko 2018, arXiv:1806.07421, who do not
    subtract the mean :math:`\bar f` and use probabilities. Any constant may be added to all logits of a
    row, and it would be added to every pixel of the map.

    Args:
        model: a module or function from ``(N, ...)`` to logits ``(N, K)``.
        x: float batch: images ``(N, C, H, W)``, or one to three axes behind the channels; vectors ``(N, D)``.
        target: None (the class predicted for x), an int, or a LongTensor ``(N,)``.
        samples: n, the number of masks, at least 1.
        cells: of the grid along each axis, at most its size in pixels. Every entry of a vector is a cell.
        keep: :math:`\E[M_p]`, above 0 and below 1.
        centred: whether the mean over the masks is subtracted; without it, the map is the paper's.
        baseline: :math:`x_0`, a number or a tensor that broadcasts to the shape of x.
        seed: of the masks, which all images share, so that an image's map does not depend on its batch; the global random
            state is not used. Drawn on the CPU: every device gets the same.
        batch_size: rows per pass, to bound memory; any value gives the same numbers. None chooses by device.

    Returns:
        The attribution, of the shape, dtype and device of x. The channels have equal parts of :math:`R_p`.

    Raises:
        ValueError: x, target, the logits or an option are not as above, or the baseline does not broadcast to x.
        UnsupportedModelError: the model is random, or its rows depend on each other.

    >>> model = lambda x: x @ torch.tensor([[1.0], [-2.0]])
    >>> rise(model, torch.tensor([[3.0, 1.0]]), samples=100_000).round(decimals=1)  # (1 - keep) times w x
    tensor([[ 1.5000, -1.0000]])
    """
    if not isinstance(samples, int) or samples < 1:
        raise ValueError(f"samples must be an integer of at least 1, got {samples!r}")
    if not isinstance(cells, int) or cells < 1:
        raise ValueError(f"cells must be an integer of at least 1, got {cells!r}")
    if not 0 < keep < 1:
        raise ValueError(f"keep is a probability and must lie in (0, 1), got {keep}")
    with explaining(model, x) as x:
        removal = Removal(model, x, target, baseline, batch_size)
        if len(removal.places) > len(INTERPOLATION):
            raise ValueError(f"x may have at most {len(INTERPOLATION)} axes behind its channels, got {tuple(x.shape)}")
        kept = _masks(x, removal.places, samples, cells, keep, seed)
        scores = removal.scores_under(lambda numbers: 1 - kept(numbers), samples)
        scores = scores.to(torch.promote_types(x.dtype, torch.float32))
        if centred:
            scores = scores - scores.mean(1, keepdim=True)
        return removal.shared_by_channels(removal.laid_over(scores / (keep * samples), kept))


def _masks(x: Tensor, places: torch.Size, samples: int, cells: int, keep: float, seed: int) -> Masks:
    """Random masks with values from 0 to 1, magnified only when they are asked for."""
    generator = torch.Generator().manual_seed(seed)
    grid = [size if x.dim() == 2 else min(cells, size) for size in places]
    coarse = (torch.rand(samples, *grid, generator=generator, dtype=torch.float32) < keep).to(x)
    if x.dim() == 2:
        return lambda numbers: coarse[numbers]
    sides = [-(-size // count) for size, count in zip(places, grid, strict=True)]
    shifts = torch.stack([torch.randint(side, (samples,), generator=generator) for side in sides], 1).tolist()
    magnified = [(count + 1) * side for count, side in zip(grid, sides, strict=True)]

    def masks(numbers: Tensor) -> Tensor:
        large = F.interpolate(coarse[numbers][:, None], magnified, mode=INTERPOLATION[len(places)])[:, 0]
        windows = [
            tuple(slice(start, start + size) for start, size in zip(shifts[k], places, strict=True))
            for k in numbers.tolist()
        ]
        return torch.stack([mask[window] for mask, window in zip(large, windows, strict=True)])

    return masks
