"""Checked inputs: a finite floating-point batch, a class for every row, a baseline that fits."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

Model = nn.Module | Callable[[Tensor], Tensor]


Target = int | Sequence[int] | Tensor | None


def check_input(model: Model | None, x: Tensor) -> None:
    """Refuse what no method can treat; see :func:`explaining`. Without a model x is looked at alone."""
    if not isinstance(x, Tensor):
        raise ValueError(f"x must be a torch.Tensor batch (N, ...), got {type(x).__name__}")
    if not x.is_floating_point():
        raise ValueError(
            f"x must be a floating-point batch, got dtype {x.dtype}: scale a picture with x / 255; for token ids explain "
            "their embeddings, x = model.embedding(ids).detach(), with a function from embeddings to logits as the model"
        )
    if x.layout != torch.strided or x.is_meta:
        raise ValueError(f"x must be dense and hold numbers, got {x.layout} on {x.device}: give x.to_dense()")
    if x.dim() < 2:
        raise ValueError(f"x must be a batch (N, ...), got shape {tuple(x.shape)}; add a batch axis with x[None]")
    if not is_finite(x):
        raise ValueError(f"x must be finite, got {int((~torch.isfinite(x)).sum())} NaN or infinite values")
    parameters = model.named_parameters() if isinstance(model, nn.Module) else ()
    for name, p in parameters:
        if p.is_floating_point() and (p.dtype, p.device) != (x.dtype, x.device):
            raise ValueError(f"x is {x.dtype} on {x.device}, but parameter {name!r} is {p.dtype} on {p.device}")
        break


def inputs_of(batch: object) -> Tensor:
    """What a data loader gives for the model: a tensor, or the first entry of a tuple or list."""
    x = batch[0] if isinstance(batch, list | tuple) and batch else batch
    if not isinstance(x, Tensor):
        raise ValueError(
            f"a batch must be a tensor (N, ...), or a tuple whose first entry is one, got {type(batch).__name__}: give "
            "(b['image'] for b in batches), or whatever holds it"
        )
    return x


def is_finite(tensor: Tensor) -> bool:
    """Whether every entry is finite; one sum tells in most cases, and is several times faster than a mask."""
    return bool(torch.isfinite(tensor.sum()) or torch.isfinite(tensor).all())


def check_target(target: int | Sequence[int] | Tensor, count: int) -> Tensor:
    """Target classes as a LongTensor ``(count,)``.

    Raises:
        ValueError: neither an int nor ``count`` integers.
    """
    if isinstance(target, list | tuple | np.ndarray | np.generic):
        array = np.asarray(target)
        classes = torch.as_tensor(array) if array.dtype.kind in "biuf" else torch.empty(0)
    elif isinstance(target, Tensor):
        classes = target
    else:  # a bool stays one, which no class is
        classes = torch.as_tensor(target) if isinstance(target, int) else torch.empty(0)
    if classes.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        got = f"a tensor of {target.dtype}" if isinstance(target, Tensor) else repr(target)
        raise ValueError(f"target must be None, an int or a LongTensor ({count},), got {got}")
    if classes.dim() != 0 and classes.shape != (count,):
        raise ValueError(f"target must have shape ({count},), got {tuple(classes.shape)}")
    return classes.long().expand(count)


def check_batch_size(batch_size: int | None) -> None:
    """Refuse a number of rows per pass that is none."""
    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(f"batch_size must be None or at least 1, got {batch_size!r}: give an int")


def check_baseline(baseline: float | Tensor, x: Tensor, name: str = "baseline") -> Tensor:
    """The baseline, called ``name`` in errors, as a tensor of x's shape, dtype and device.

    Raises:
        ValueError: it is not finite or does not broadcast to x.
    """
    try:
        value = torch.as_tensor(baseline, dtype=x.dtype, device=x.device).detach()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a number or a tensor, got {baseline!r}") from error
    if not torch.isfinite(value).all():
        raise ValueError(f"{name} must be finite")
    try:
        return value.expand_as(x)
    except RuntimeError:
        raise ValueError(
            f"{name} must be a number or broadcast to x {tuple(x.shape)}, got shape {tuple(value.shape)}"
        ) from None
