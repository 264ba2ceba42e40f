"""What every evaluation reads of an attribution: one number per pixel."""

import torch
from torch import Tensor

from ..contract import is_finite


def relevance_map(attribution: Tensor, name: str = "attribution") -> Tensor:
    """The relevance of every pixel, ``(N, H, W)`` in float64: channels are summed. Vectors ``(N, D)`` stay as they are.

    Raises:
        ValueError: not ``(N, C, H, W)``, ``(N, H, W)`` or ``(N, D)``, or NaN or infinite values in it.
    """
    if not isinstance(attribution, Tensor) or attribution.dim() not in (2, 3, 4) or attribution.numel() == 0:
        got = tuple(attribution.shape) if isinstance(attribution, Tensor) else type(attribution).__name__
        raise ValueError(f"{name} must be a tensor (N, C, H, W), (N, H, W) or (N, D) that is not empty, got {got}")
    if not is_finite(attribution):
        bad = (~torch.isfinite(attribution)).flatten(1).any(1).nonzero()[:, 0].tolist()
        raise ValueError(f"{name} holds NaN or infinite values in rows {bad}")
    values = attribution.detach().double()
    return values.sum(1) if values.dim() == 4 else values
