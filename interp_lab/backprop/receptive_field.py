"""Which pixels a place of a feature map sees, found by running the network."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ..contract import Model, UnsupportedModelError, explaining, output_of
from .feature_maps import Axes, Layer, Reshape, captured


@dataclass(frozen=True)
class ReceptiveField:
    """Receptive fields along one axis: place p sees the pixel ``start + stride * p`` and ``size - 1`` more after it."""

    size: int
    stride: int
    start: int

    def windows(self, places: Tensor, length: int) -> Tensor:
        """First pixel that each place sees, and first pixel that it no longer sees, along an axis of so many pixels."""
        first = self.start + places * self.stride
        return torch.stack([first, first + self.size]).clamp(0, length)


def receptive_field(
    model: Model, layer: Layer, x: Tensor, reshape: Reshape | None = None
) -> tuple[ReceptiveField, ReceptiveField]:
    """The receptive fields of the layer's places along the rows and the columns of an image, found by how NaN spreads.

    A place that becomes NaN when pixels do depends on one of them, whatever the weights. Bisection finds the first and
    the last pixel that the outer and the middle places see; one field along each axis must explain them all.

    Args:
        model: a network.
        layer: the module, or its name, that gives the feature maps ``(1, K, h, w)``.
        x: one image ``(1, C, H, W)``; its pixels play no role.
        reshape: from the layer's output to the maps, such as :func:`~interp_lab.tokens_to_maps`; None where the output
            is maps, with the channels on any axis.

    Raises:
        ValueError: x is not as above, or there is no such module.
        UnsupportedModelError: the layer is not called once, gives no feature maps, or its places are not those of a grid
            over the image, such as after upsampling or where the model moves the axes of x.

    Example:
        >>> from torch import nn
        >>> body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Conv2d(2, 2, 3))
        >>> receptive_field(body, "2", torch.zeros(1, 1, 16, 16))[0]
        ReceptiveField(size=8, stride=2, start=0)
    """

    def maps_of(x: Tensor) -> Tensor:
        with captured(model, Axes(x), [layer], reshape) as kept:
            output_of(model, x)
        return kept[layer]

    def along(dim: int) -> ReceptiveField:
        extent, count = x.shape[dim], shape[dim]
        across = torch.linspace(0, shape[5 - dim] - 1, 5, device=x.device).long()

        @cache
        def seen(start: int, stop: int) -> Tensor:
            """Which places ``(count, 5)``, five of the other axis, see one of these pixels."""
            probe = torch.zeros_like(x)
            probe.narrow(dim, start, stop - start).fill_(torch.nan)
            return maps_of(probe)[0].isnan().any(0).movedim(dim - 2, 0)[:, across]

        def edges(place: int, side: int) -> tuple[int, int, int]:
            # The first pixel is the largest i for which pixels before i do not touch the place, and so for the last.
            first = _bisect(extent, lambda i: not seen(0, i)[place, side])
            return place, first, extent - 1 - _bisect(extent, lambda i: not seen(extent - i, extent)[place, side])

        places = {0, 1, count // 2, count // 2 + 1, count - 2, count - 1} & set(range(count))
        found = [edges(place, side) for place in places for side in range(5)]
        found = [each for each in found if each[1] <= each[2]]  # else the place sees nothing but padding
        field = _field(found, extent)
        if field is None:
            name = f"layer {layer!r}" if isinstance(layer, str) else "the layer"
            raise UnsupportedModelError(
                f"the places {tuple(shape[2:])} of {name} do not see equal patches of x {tuple(x.shape)} at equal steps along "
                f"its axis {dim}, as after upsampling, or where the model swaps or moves the axes of x: pass a layer before "
                "the upsampling, and images (N, C, H, W) to a module that leaves their axes in this order"
            )
        return field

    with explaining(model, x) as x, torch.no_grad():
        if x.dim() != 4 or len(x) != 1:
            raise ValueError(f"receptive_field needs one image (1, C, H, W), got {tuple(x.shape)}")
        shape = maps_of(x.clone()).shape
        if len(shape) != x.dim():
            raise UnsupportedModelError(
                f"the layer gives maps {tuple(shape)} for x {tuple(x.shape)}: no map over its pixels"
            )
        return along(2), along(3)


def _field(edges: list[tuple[int, int, int]], extent: int) -> ReceptiveField | None:
    """The field that gives each place its first and last pixel ``(place, first, last)``, cut off where no place sees more.

    That is at the border of the image, or before it where a strided convolution leaves out the last pixels. Of several, as
    where every field reaches both borders, it is the one of the smallest step; None where there is none.
    """
    if not edges:
        return None
    low, high = min(first for _, first, _ in edges), max(last for *_, last in edges)
    for stride in sorted(range(-extent, extent + 1), key=abs):
        start = min(first - stride * place for place, first, _ in edges)
        end = max(last - stride * place for place, _, last in edges)
        if edges == [(p, max(low, start + stride * p), min(high, end + stride * p)) for p, *_ in edges]:
            return ReceptiveField(end - start + 1, stride, start)
    return None


def _bisect(extent: int, holds) -> int:
    """The largest i in 0 .. extent - 1 for which ``holds(i)``; it holds at 0 and, once false, stays so."""
    low, high = 0, extent
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
