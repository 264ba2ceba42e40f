"""What a model reads from a batch: its pixels, or numbers with names that a function computes from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..contract import check_input, in_eval_mode, is_finite, output_of


@dataclass(frozen=True, eq=False)
class Features:
    """The numbers with names that a model reads from a batch.

    Attributes:
        function: from a batch ``(N, ...)`` to ``(N, *shape)``; None reads the batch itself.
        names: one per feature.
        shape: shape of one example's features; ``(C, H, W)`` can be shown as a picture.
    """

    function: Callable[[Tensor], Tensor] | None
    names: tuple[str, ...]
    shape: tuple[int, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """Features ``(N, D)``. Raises ValueError if they are not finite or not of the shape that was fitted."""
        values = _values(self.function, x)
        if tuple(values.shape) != (len(x), *self.shape):
            raise ValueError(f"features must have shape {(len(x), *self.shape)}, got {tuple(values.shape)}")
        if not is_finite(values):
            raise ValueError("features must be finite, got NaN or infinite values")
        return values.flatten(1)


def _values(function: Callable[[Tensor], Tensor] | None, x: Tensor) -> Tensor:
    """What the function gives for x, with its modules in eval mode."""
    if function is None:
        return x
    with in_eval_mode(function):
        return output_of(function, x)


def read_features(
    x: Tensor, function: Callable[[Tensor], Tensor] | None = None, names: Sequence[str] | None = None
) -> Features:
    """The features of a checked batch; without ``names`` they are called by their place.

    Raises:
        ValueError: x is not a finite float batch with at least one example, or there is another number of names.
    """
    check_input(None, x)
    if len(x) == 0:
        raise ValueError("x must hold at least one example, got an empty batch")
    shape = tuple(_values(function, x[:1]).shape[1:])
    if names is None:
        names = [_place(index, shape) for index in np.ndindex(shape)]
    if len(names) != np.prod(shape):
        raise ValueError(f"names must be one per feature, {np.prod(shape)}, got {len(names)}")
    return Features(function, tuple(names), shape)


def _place(index: tuple[int, ...], shape: tuple[int, ...]) -> str:
    if len(index) == 1:
        return f"x{index[0]}"
    *channel, row, column = index
    return f"({row}, {column})" + (f" of channel {channel[0]}" if channel and shape[0] > 1 else "")


def check_labels(y: Tensor, count: int) -> int:
    """Number of classes of labels ``(count,)`` in which none is empty."""
    if not isinstance(y, Tensor) or y.dtype != torch.int64 or y.shape != (count,):
        got = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"y must be a LongTensor of labels ({count},), got {got}")
    if y.min() < 0:
        raise ValueError(f"labels must be at least 0, got {y.min().item()}")
    counts = y.bincount()
    if len(counts) < 2 or (counts == 0).any():
        empty = (counts == 0).nonzero().flatten().tolist()
        raise ValueError(f"every class 0..{len(counts) - 1}, at least two, needs an example; without one: {empty}")
    return len(counts)


def fit_head(head: nn.Linear, values: Tensor, y: Tensor) -> None:
    """Fit a last layer alone, by cross-entropy with a small L2 penalty of its weights, which is convex."""
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(head(values), y) + 1e-3 / 2 * head.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)


def to_numpy(values: Tensor) -> np.ndarray:
    values = values.float() if values.dtype == torch.bfloat16 else values  # which numpy does not know
    return values.detach().cpu().numpy()
