"""The order of the pixels: from an attribution to the place of every pixel, and which of them are replaced."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...reproducible import reproducibly
from .images import BATCH, Part, batch, written

Method = Callable[..., Tensor]
Ranks = tuple[Path, Path] | None  # files of both parts; None for the whole images, where nothing is ordered
Orders = Ranks | str  # or what went wrong

SHIFT = 2**15  # files hold the places from -SHIFT on, so that int16 is enough for images below 256 x 256 pixels


def random_order(model: nn.Module, x: Tensor, target: Tensor | None = None) -> Tensor:
    """No relevance at all, zeros of the shape of x: the ties are then broken at random."""
    return torch.zeros_like(x)


def edges(model: nn.Module, x: Tensor, target: Tensor | None = None) -> Tensor:
    r"""Magnitude of the Sobel gradient of the summed channels, ``(N, 1, H, W)``: it knows nothing of the model.

    Args:
        model, target: not used; they are there so that it can stand beside the methods.
        x: images ``(N, C, H, W)``, continued beyond the border by their outermost pixels.

    Example:
        >>> step = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1, 1, 4, 4)  # dark on the left, bright on the right
        >>> edges(nn.Identity(), step)[0, 0, 0].tolist()
        [0.0, 4.0, 4.0, 0.0]
    """
    smooth, slope = torch.tensor([1.0, 2.0, 1.0]), torch.tensor([-1.0, 0.0, 1.0])
    kernels = torch.stack([torch.outer(smooth, slope), torch.outer(slope, smooth)])[:, None].to(x)
    return F.conv2d(F.pad(x.sum(1, keepdim=True), (1, 1, 1, 1), mode="replicate"), kernels).norm(dim=1, keepdim=True)


BASELINES: dict[str, Method] = {"random": random_order, "edges": edges}


def rank_pixels(attribution: Tensor, generator: torch.Generator) -> Tensor:
    """Place of every pixel in the order of relevance, int32 ``(N, H, W)`` on the CPU: 0 is the most relevant.

    Channels are summed; equally relevant pixels come in an order that the generator draws for every image.

    Args:
        attribution: ``(N, C, H, W)`` or ``(N, H, W)``, without NaN.
        generator: of the CPU.

    Example:
        >>> rank_pixels(torch.tensor([[[0.1, 0.9], [-0.5, 0.3]]]), torch.Generator()).tolist()
        [[[2, 0], [3, 1]]]
    """
    values = attribution.cpu() if attribution.dim() == 3 else attribution.sum(1).cpu()
    shuffled = torch.rand(len(values), values[0].numel(), generator=generator).argsort(1)
    order = values.flatten(1).gather(1, shuffled).argsort(dim=1, descending=True, stable=True)
    places = torch.empty_like(order, dtype=torch.int32)
    places.scatter_(1, shuffled.gather(1, order), torch.arange(order.shape[1], dtype=torch.int32).expand_as(places))
    return places.view(values.shape)


def replaced_places(fraction: float, pixels: int, replaced: str) -> range:
    """The places of the pixels to replace: the first ``round(fraction * pixels)``, or as many last ones.

    Example:
        >>> replaced_places(0.3, 10, "most relevant"), replaced_places(0.3, 10, "least relevant")
        (range(0, 3), range(7, 10))
    """
    count = round(fraction * pixels)
    return range(count) if replaced == "most relevant" else range(pixels - count, pixels)


def among(ranks: Tensor, places: range) -> Tensor:
    """Bool mask of the pixels whose place is one of these; ranks as the files of :func:`orders` hold them."""
    return (ranks >= places.start - SHIFT) & (ranks < places.stop - SHIFT)


def orders(
    functions: Mapping[str, Method],
    explained: Callable[[], nn.Module],
    parts: tuple[Part, Part],
    folder: Path,
    name: str,
) -> Orders:
    """Files of the ranks ``(N, H, W)`` of both parts by the attributions of one method; or what went wrong, as text.

    The attributions are of the explained network, for the class that it predicts. None for the whole images, where
    nothing is ordered.
    """
    if name not in functions:
        return None
    generator, model = torch.Generator().manual_seed(0), explained()
    training, test = (folder / f"ranks-{list(functions).index(name)}-{part}.npy" for part in ("training", "test"))
    try:
        with reproducibly():
            for part, file, kind in zip(parts, (training, test), ("training", "test"), strict=True):
                images, _ = part.load()
                shape = (len(images), *images.shape[2:])
                dtype = torch.int16 if shape[1] * shape[2] < 2**16 else torch.int32
                with written(file, dtype, shape) as write:
                    for rows in torch.arange(len(images)).split(BATCH):
                        attribution = _attributed(functions[name], model, batch(images, rows), int(rows[0]), kind)
                        write((rank_pixels(attribution, generator) - SHIFT).to(dtype))
    except _MethodError as error:
        return str(error)
    return training, test


class _MethodError(Exception):
    """A method failed; the message names the image."""


def _attributed(method: Method, model: nn.Module, x: Tensor, start: int, part: str) -> Tensor:
    x = x.to(next(model.parameters()).device)
    with torch.no_grad():
        target = model(x).argmax(1)
    try:
        attribution = method(model, x, target)
    except Exception as error:  # whatever a method may raise
        row, error = _first_failure(method, model, x, target) or (None, error)
        where = f"{part} images {start} to {start + len(x) - 1}" if row is None else f"{part} image {start + row}"
        raise _MethodError(f"{type(error).__name__} for {where}: {error}") from error
    if attribution.dim() not in (3, 4) or len(attribution) != len(x) or attribution.shape[-2:] != x.shape[-2:]:
        raise _MethodError(f"gives shape {tuple(attribution.shape)} for images {tuple(x.shape)}")
    bad = (~attribution.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        raise _MethodError(f"gives NaN or infinite values for {part} image {start + bad[0]}")
    return attribution.detach()


def _first_failure(method: Method, model: nn.Module, x: Tensor, target: Tensor) -> tuple[int, Exception] | None:
    for row in range(len(x)):
        try:
            method(model, x[row : row + 1], target[row : row + 1])
        except Exception as error:
            return row, error
    return None
