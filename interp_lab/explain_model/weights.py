"""Weights made visible: first-layer filters as pictures, and what deeper feature maps respond to."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from ..backprop.feature_maps import Axes, Layer, Reshape, captured, reading
from ..backprop.modified_backprop import modified_gradient
from ..backprop.relu_rules import ALLOWED, relu_table
from ..contract import UnsupportedModelError, explaining, output_of


def filters(model: nn.Module, layer: Layer | None = None) -> Tensor:
    r"""The filters of a convolution as pictures, each scaled by its own largest magnitude: 0 is mid-grey.

    A filter w becomes :math:`\tfrac12 + \tfrac{w}{2 \max |w|}`, so that sign and relative size can be read off; a filter
    of zeros is grey.

    Args:
        model: a network.
        layer: a convolution over one or three channels, or its name; None takes the first convolution of the model.

    Returns:
        Pictures in [0, 1], ``(K, 1 or 3, h, w)``.

    Raises:
        ValueError: the model is no module, there is no such convolution, or its input has no colours (see :func:`top_activations` then).
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"only a torch.nn.Module has filters, got {type(model).__name__}")
    modules = dict(model.named_modules())
    if layer is None:
        layer = next((m for m in modules.values() if isinstance(m, nn.Conv2d)), None)
    module = modules.get(layer) if isinstance(layer, str) else layer
    if not isinstance(module, nn.Conv2d):
        raise ValueError(f"filters needs a Conv2d of the model, got {layer!r}")
    weight = module.weight.detach()
    if weight.shape[1] not in (1, 3):
        raise ValueError(
            f"a filter over {weight.shape[1]} feature maps is no picture; top_activations shows what it responds to"
        )
    largest = weight.abs().flatten(1).amax(1).clamp(min=torch.finfo(weight.dtype).tiny)
    return 0.5 + weight / largest.view(-1, 1, 1, 1) / 2


@dataclass(frozen=True, eq=False)
class TopActivations:
    """The inputs that activate each of K feature maps most, at most one per image, the strongest first.

    Attributes:
        values: ``(K, k)``, the activations; minus infinity where there were fewer than k images.
        images: LongTensor ``(K, k)``, positions of the images in the order of the batches.
        places: LongTensor ``(K, k, 2)``, row and column of the activation in the feature map.
        patches: ``(K, k, C, h, w)``, what the activation's receptive field holds, zero beyond the image.
        fields: the receptive field along the rows and along the columns of the image.
    """

    values: Tensor
    images: Tensor
    places: Tensor
    patches: Tensor
    fields: tuple["Field", "Field"]


def top_activations(
    model: nn.Module,
    batches: Iterable[Tensor | tuple[Tensor, ...]],
    layer: Layer,
    *,
    k: int = 9,
    reshape: Reshape | None = None,
) -> TopActivations:
    """The k image patches that activate each feature map of a layer most, in one pass over the data.

    Of every image only its strongest place counts. A batch is one pass, and memory is bounded by one batch and k patches
    per feature map.
    Zeiler & Fergus 2014, arXiv:1311.2901 (k = 9).

    Args:
        model: a network.
        batches: float batches ``(N, C, H, W)`` of one size, or tuples whose first entry is one (a data loader).
        layer: the module, or its name, that gives the feature maps ``(N, K, h, w)``.
        k: number of patches, at least 1.
        reshape: from the layer's output to the maps, as for :func:`~interp_lab.grad_cam`.

    Raises:
        ValueError: no batch, a batch that is not as above, k < 1, or there is no such module.
        UnsupportedModelError: the module is not called once, gives no feature maps, or its places do not see equal patches
            at equal steps, as after upsampling.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    best: TopActivations | None = None
    seen = 0

    def take(maps: Tensor) -> None:
        nonlocal best
        if best is None:
            size, channels = [field.size for field in fields], maps.shape[1]
            best = TopActivations(
                maps.new_full((channels, k), -torch.inf),
                torch.full((channels, k), -1, device=maps.device),
                torch.zeros(channels, k, 2, dtype=torch.long, device=maps.device),
                images.new_zeros(channels, k, images.shape[1], *size),
                fields,
            )
        _merge(best, maps, images, seen)

    for batch in batches:
        with explaining(model, batch if isinstance(batch, Tensor) else batch[0]) as images, torch.no_grad():
            if images.dim() != 4:
                raise ValueError(f"top_activations needs images (N, C, H, W), got {tuple(images.shape)}")
            if best is None:
                fields = receptive_field(model, layer, images[:1], reshape)
                copy = images.clone()  # which a model may work in; one for all batches, as new memory costs time
            copy = copy.copy_(images) if len(copy) == len(images) else images.clone()
            with reading(model, Axes(copy), {layer: take}, reshape):
                output_of(model, copy)
            seen += len(images)
    if best is None:
        raise ValueError("top_activations needs at least one batch")
    order = best.values.argsort(dim=1, descending=True, stable=True)
    channel = torch.arange(len(order), device=order.device)[:, None]
    tables = (best.values, best.images, best.places, best.patches)
    return TopActivations(*(kept[channel, order] for kept in tables), best.fields)


def _merge(best: TopActivations, maps: Tensor, x: Tensor, seen: int) -> None:
    """Take a batch in: what enters the tables, unsorted here, replaces what leaves them; only that is cut out."""
    k, incoming = best.values.shape[1], maps.flatten(2).amax(2).T
    (changed,) = (incoming.amax(1) > best.values.amin(1)).nonzero(as_tuple=True)
    if not len(changed):
        return
    both = torch.cat([best.values[changed], incoming[changed]], 1)
    stays = torch.zeros_like(both, dtype=torch.bool).scatter_(1, both.topk(k, dim=1).indices, True)
    channel, rank = (~stays[:, :k]).nonzero(as_tuple=True)
    row = stays[:, k:].nonzero(as_tuple=True)[1]  # as many of each channel, and the channels in the same order
    channel = changed[channel]
    at = maps[row, channel].flatten(1).argmax(1)
    place = torch.stack([at // maps.shape[3], at % maps.shape[3]], 1)
    best.values[channel, rank] = incoming[channel, row]
    best.images[channel, rank] = seen + row
    best.places[channel, rank] = place
    best.patches[channel, rank] = _cut(x, row, place, best.fields)


def _cut(x: Tensor, row: Tensor, place: Tensor, fields: tuple["Field", "Field"]) -> Tensor:
    """The patches ``(M, C, h, w)`` of x that the places of a feature map see, zero beyond the image."""
    index, inside = [], []
    for axis, field in enumerate(fields):
        start = place[:, axis] * field.stride + field.start
        pixels = start[:, None] + torch.arange(field.size, device=x.device)
        index.append(pixels.clamp(0, x.shape[2 + axis] - 1))
        inside.append(pixels == index[-1])
    rows, columns = index[0][:, :, None], index[1][:, None, :]
    seen = (inside[0][:, :, None] & inside[1][:, None, :])[:, None]
    return x[row[:, None, None], :, rows, columns].movedim(-1, 1) * seen


@dataclass(frozen=True)
class Field:
    """Receptive fields along one axis: place p sees the pixels start + stride p ... + size - 1."""

    size: int
    stride: int
    start: int


def receptive_field(model: nn.Module, layer: Layer, x: Tensor, reshape: Reshape | None = None) -> tuple[Field, Field]:
    """The receptive fields of the layer's places along the rows and the columns of an image, found by how NaN spreads.

    A place that becomes NaN when pixels do depends on one of them, whatever the weights. Bisection finds the first and
    the last pixel that the outer and the middle places see; one field along each axis must explain them all.

    Args:
        x: one image ``(1, C, H, W)``.

    Raises:
        UnsupportedModelError: the layer's places are not those of a grid over the image, such as after upsampling or where
            the model moves the axes of x.
    """

    def maps_of(x: Tensor) -> Tensor:
        with captured(model, Axes(x), [layer], reshape) as kept:
            output_of(model, x)
        return kept[layer]

    shape = maps_of(x.clone()).shape
    if len(shape) != x.dim():
        raise UnsupportedModelError(
            f"the layer gives maps {tuple(shape)} for x {tuple(x.shape)}: no map over its pixels"
        )

    def along(dim: int) -> Field:
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

    return along(2), along(3)


def _field(edges: list[tuple[int, int, int]], extent: int) -> Field | None:
    """The field that gives each place its first and last pixel ``(place, first, last)``, cut off at the border of the image.

    Of several, as where every field reaches both borders, it is the one of the smallest step; None where there is none.
    """
    for stride in sorted(range(-extent, extent + 1), key=abs):
        start = min((first - stride * place for place, first, _ in edges), default=0)
        end = max((last - stride * place for place, _, last in edges), default=-1)
        cut = [(p, max(0, start + stride * p), min(extent - 1, end + stride * p)) for p, _, _ in edges]
        if edges and cut == edges:
            return Field(end - start + 1, stride, start)
    return None


def _bisect(extent: int, holds) -> int:
    """The largest i in 0 .. extent - 1 for which ``holds(i)``; it holds at 0 and, once false, stays so."""
    low, high = 0, extent
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def project_activation(
    model: nn.Module, x: Tensor, layer: Layer, channel: int | Tensor, *, reshape: Reshape | None = None
) -> Tensor:
    r"""The strongest activation of one feature map in each image, projected back to pixels by a deconvnet.

    All other activations of the layer are set to zero. On the way down the signal, which starts as the activation
    itself, is rectified at every ReLU, passes max-pools to the place of the maximum (their switches) and
    convolutions transposed. It lies inside the receptive field of the activation. Zeiler & Fergus 2014,
    arXiv:1311.2901.

    Args:
        model: a network whose operations up to the layer are convolution, BatchNorm, ReLU, pooling and the like.
        x: float batch ``(N, C, ...)``.
        layer: the module, or its name, that gives the feature maps ``(N, K, ...)``.
        channel: index of the feature map, 0 .. K - 1, or a LongTensor ``(N,)`` with one for each image.
        reshape: from the layer's output to the maps, as for :func:`~interp_lab.grad_cam`.

    Returns:
        The projection, of the shape, dtype and device of x; zero for an image that does not activate the channel.

    Raises:
        ValueError: x is not as above, or there is no such module or channel.
        UnsupportedModelError: an operation without a rule, by name, or a layer that is not called once.
    """

    def run(model: nn.Module, x: Tensor) -> Tensor:
        copy = x.clone()
        with captured(model, Axes(copy), [layer], reshape) as kept:
            output_of(model, copy)
        return kept[layer]

    def strongest(maps: Tensor) -> Tensor:
        channels = torch.as_tensor(channel, device=maps.device)
        if channels.dtype != torch.long or not ((channels >= 0) & (channels < maps.shape[1])).all():
            raise ValueError(f"channel must lie in 0..{maps.shape[1] - 1}, got {channel!r}")
        return maps[torch.arange(len(maps), device=maps.device), channels].flatten(1).max(1).values

    with explaining(model, x) as x:
        table = relu_table(lambda a, g: g.clamp(min=0), [])
        (projection,) = modified_gradient(
            model, x, strongest, table, allowed=ALLOWED, start=lambda activation: activation.clamp(min=0), run=run
        )
        return projection


@torch.inference_mode(False)
def project_top(
    model: nn.Module, images: Tensor, layer: Layer, top: TopActivations, *, reshape: Reshape | None = None
) -> Tensor:
    """What in each patch of ``top`` made the activation: :func:`project_activation`, cut like the patches.

    Args:
        model, layer, reshape: as they were given to :func:`top_activations`.
        images: float ``(N, C, H, W)``, the images that ``top.images`` counts.
        top: the strongest activations.

    Returns:
        Signed projections of the shape of ``top.patches``; zero where there were fewer than k images.

    Raises:
        ValueError: fewer images than ``top`` speaks of, or as for :func:`project_activation`.
    """
    if top.images.max() >= len(images):
        raise ValueError(f"top speaks of image {top.images.max().item()}, but there are {len(images)} images")
    channel, rank = (top.images >= 0).nonzero(as_tuple=True)
    projections = torch.zeros_like(top.patches)
    for part in torch.arange(len(channel), device=channel.device).split(64):
        c, r = channel[part], rank[part]
        x = images[top.images[c, r].to(images.device)].to(top.patches)
        down = project_activation(model, x, layer, c, reshape=reshape)
        projections[c, r] = _cut(down, torch.arange(len(down), device=down.device), top.places[c, r], top.fields)
    return projections
