"""What a feature map responds to: the image patches that activate it most."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..backprop.feature_maps import Axes, Layer, Reshape, reading
from ..backprop.receptive_field import ReceptiveField, receptive_field
from ..contract import explaining, inputs_of, output_of


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
    fields: tuple[ReceptiveField, ReceptiveField]


def top_activations(
    model: nn.Module,
    batches: Iterable[Tensor | tuple[Tensor, ...]],
    layer: Layer,
    *,
    k: int = 9,
    reshape: Reshape | None = None,
) -> TopActivations:
    r"""The k image patches that activate each feature map of a layer most, in one pass over the data.

    For feature map c they are those of the k images with the largest :math:`\max_p a_{cp}(x_n)`: of every image only its
    strongest place p counts. A batch is one pass, and memory is bounded by one batch and k patches per feature map.
    Zeiler & Fergus 2014, arXiv:1311.2901 (k = 9).

    Args:
        model: a network.
        batches: float batches ``(N, C, H, W)`` of one size, or tuples whose first entry is one (a data loader).
        layer: the module, or its name, that gives the feature maps ``(N, K, h, w)``.
        k: number of patches, at least 1.
        reshape: from the layer's output to the maps ``(N, K, h, w)``, such as :func:`~interp_lab.tokens_to_maps`; None
            where the output is maps, with the channels on any axis.

    Raises:
        ValueError: no batch, a batch that is not as above, k < 1, or there is no such module.
        UnsupportedModelError: the module is not called once, gives no feature maps, or its places do not see equal patches
            at equal steps, as after upsampling.

    Example:
        >>> from interp_lab import networks, top_activations
        >>> from interp_lab.data import digits
        >>> top = top_activations(networks.load("digits_cnn"), digits("test").images[:60].split(20), "0", k=3)
        >>> top.values.shape, top.patches.shape, top.fields[0].size
        (torch.Size([16, 3]), torch.Size([16, 3, 1, 5, 5]), 5)
    """
    if not isinstance(k, int) or k < 1:
        raise ValueError(f"k must be at least 1, got {k!r}")
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
        with explaining(model, inputs_of(batch)) as images, torch.no_grad():
            if images.dim() != 4:
                raise ValueError(f"top_activations needs images (N, C, H, W), got {tuple(images.shape)}")
            if best is None:
                fields = receptive_field(model, layer, images[:1], reshape)
                copy = images.clone()  # reused: the model may change it in place, and new memory costs time
            copy = copy.copy_(images) if len(copy) == len(images) else images.clone()
            with reading(model, Axes(copy), {layer: take}, reshape):
                output_of(model, copy)
            seen += len(images)
    if best is None:
        raise ValueError("top_activations needs at least one batch")
    order = best.values.argsort(dim=1, descending=True, stable=True)
    channel = torch.arange(len(order), device=order.device)[:, None]
    tables = (best.values, best.images, best.places, best.patches)
    values, images, places, patches = (kept[channel, order] for kept in tables)
    return TopActivations(values, images, places, patches, best.fields)


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
    best.patches[channel, rank] = cut_patches(x, row, place, best.fields)


def cut_patches(x: Tensor, row: Tensor, place: Tensor, fields: tuple[ReceptiveField, ReceptiveField]) -> Tensor:
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
