"""Pictures of what a network has learned: surrogates, preferred inputs, strongest patches, prototypes."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import (
    COLORS,
    GREY,
    Array,
    Figure,
    as_images,
    as_indices,
    as_maps,
    as_tensor,
    describe,
    grid,
    show_image,
    show_map,
    write_caption,
)

if TYPE_CHECKING:
    from ..explain_model.activation_maximisation import Maximum
    from ..explain_model.prototypes import Prototypes
    from ..explain_model.surrogates.graph import SurrogateGraph
    from ..explain_model.surrogates.local import LocalSurrogate
    from ..explain_model.top_activations import TopActivations


def segments(local: "LocalSurrogate", *, alt: str | None = None) -> Figure:
    """A local surrogate: the image with the borders of its segments, and the effect of each.

    Args:
        local: from :func:`~interp_lab.surrogate_local`.
        alt: the alt text; None tells the number of segments, the class and the R2 of the linear model.

    Raises:
        ValueError: an image without one or three channels.

    Example:
        >>> import torch
        >>> from interp_lab import plot, surrogate_local
        >>> model = lambda x: torch.stack([x.sum((1, 2, 3)), x[:, 0, 0, 0]], 1)
        >>> halves = torch.tensor([[0, 1], [0, 1]])
        >>> local = surrogate_local(model, torch.ones(1, 1, 2, 2), 0, segments=halves, fill=0.0, n=20)
        >>> plot.segments(local).alt.partition(",")[0]
        'An image cut into 2 segments'
    """
    figure, ((left, right),) = grid(1, 2, 2.4)
    (image,), note = as_images(local.image[None])
    show_image(left, image)
    numbers = local.segments.cpu()
    border = torch.zeros_like(numbers, dtype=torch.bool)
    border[1:] |= numbers[1:] != numbers[:-1]
    border[:, 1:] |= numbers[:, 1:] != numbers[:, :-1]
    ink = torch.zeros(*numbers.shape, 4)
    ink[border] = torch.tensor([1.0, 0.9, 0.0, 0.6])
    left.imshow(ink.numpy(), interpolation="nearest")
    show_map(right, local.attribution.detach().cpu(), signed=True)
    count = len(local.effects)
    left.set_title(f"{count} segments", fontsize=9)
    right.set_title(f"effect on class {local.target}", fontsize=9)
    caption = f"red: the segment speaks for the class, blue: against it; R2 of the linear model {local.r2:.2f}"
    alt = alt or (
        f"An image cut into {count} segments, and the effect of each on class {local.target} in a linear model whose R2 "
        f"is {local.r2:.2f}."
    )
    return describe(figure, alt, caption, note)


def channel_graph(
    surrogate: "SurrogateGraph",
    classes: Sequence[str] | None = None,
    *,
    patches: Mapping[str, "TopActivations"] | None = None,
    alt: str | None = None,
) -> Figure:
    """A graph of channels, one column per layer, from input to classes.

    Lines are as strong as the relevance that flows along them, with one scale for each pair of layers; orange and solid
    where it is positive, blue and dashed where it is negative.

    Args:
        surrogate: from :func:`~interp_lab.surrogate_graph`.
        classes: a name for each class that the network has.
        patches: layer -> what :func:`~interp_lab.top_activations` gave for it: each channel is drawn as its patches.
        alt: the alt text; None tells how many channels of each layer were kept.

    Example:
        >>> import torch
        >>> from interp_lab import plot, surrogate_graph
        >>> layers = torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 3)
        >>> graph = surrogate_graph(torch.nn.Sequential(*layers), torch.rand(8, 1, 6, 6), threshold=1.0)
        >>> plot.channel_graph(graph, ["a", "b", "c"]).alt.partition(":")[0]
        'Graph of the channels that a network needs for its decisions'
    """
    graph, layers = surrogate.graph, list(surrogate.kept)
    columns = [[node for node in graph if node[0] == layer] for layer in (*layers, "logit")]
    tallest = max(map(len, columns))
    high, wide = (0.24, 1.3) if patches is None else (0.62, 2.0)
    figure = Figure(figsize=(wide * len(columns) + 1.2, max(2.4, high * tallest + 1)), layout="constrained")
    axis = figure.subplots()
    axis.set_axis_off()
    place = {
        node: (depth, (i + 0.5) * tallest / len(column))
        for depth, column in enumerate(columns)
        for i, node in enumerate(sorted(column, key=lambda node: node[1], reverse=True))
    }
    for depth in range(len(layers)):
        edges = [edge for edge in graph.edges(data="weight") if graph.nodes[edge[0]]["depth"] == depth]
        most = max((abs(weight) for *_, weight in edges), default=0) or 1
        for below, above, weight in edges:
            ends = zip(place[below], place[above], strict=True)
            axis.plot(
                *ends,
                color=COLORS[1 if weight > 0 else 0],
                linestyle="-" if weight > 0 else "--",
                linewidth=3 * abs(weight) / most,
                alpha=min(1.0, 0.1 + abs(weight) / most),
                zorder=0,
            )
    for (layer, channel), (x, y) in place.items():
        name = classes[channel] if layer == "logit" and classes is not None else str(channel)
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "#888888"}
        top = (patches or {}).get(layer)
        axis.text(x - 0.2 * (top is not None), y, name, fontsize=8, ha="center", va="center", bbox=box)
        if top is not None:
            tiles, _ = as_images(top.patches[channel, top.images[channel] >= 0])
            cell = axis.inset_axes((x - 0.15, y - 0.42, 0.3, 0.84), transform=axis.transData)
            show_image(cell, _mosaic(tiles, 1.0))
            cell.set_axis_off()
    for depth, layer in enumerate(layers):
        total = len(surrogate.kept[layer])
        axis.text(depth, tallest + 0.7, f"layer {layer}\n{len(columns[depth])} of {total}", fontsize=8, ha="center")
    axis.text(len(layers), tallest + 0.7, "class", fontsize=8, ha="center")
    axis.set(xlim=(-0.4, len(layers) + 0.4), ylim=(0, tallest + 2.2))
    write_caption(
        figure, "channels kept, and the relevance between them; orange, solid: positive; blue, dashed: negative"
    )
    sizes = ", ".join(f"{len(column)} channels of {layer}" for layer, column in zip(layers, columns, strict=False))
    figure.alt = alt or f"Graph of the channels that a network needs for its decisions: {sizes}."
    return figure


def ascent(
    result: "Maximum", titles: Sequence[str] | None = None, *, size: float = 1.0, alt: str | None = None
) -> Figure:
    """What activation maximisation drew: one column per picture, from its start (top) to its end (bottom).

    One scaling would wash out all pictures for one that grows large, so that values outside [0, 1] are clipped, and the
    share of them is told; under each column stands by how much the objective rose.

    Args:
        result: from :func:`~interp_lab.maximize_activation`, with pictures ``(N, C, H, W)``.
        titles: one for each picture.
        size: inches of one picture; a table wider than the page's column shrinks to it.
        alt: the alt text; None tells the titles and the last step.

    Raises:
        ValueError: the result holds no pictures ``(N, C, H, W)``, or another number of titles.

    Example:
        >>> import torch
        >>> from interp_lab import maximize_activation, plot
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
        >>> grey = torch.full((2, 1, 4, 4), 0.5)
        >>> result = maximize_activation(model, torch.tensor([0, 2]), grey, bounds=(0, 1), steps=9)
        >>> plot.ascent(result, ["zero", "two"]).alt
        'Pictures of zero, two found by activation maximisation, one column each, from step 0 (top) to step 9 (bottom).'
    """
    steps, count = len(result.at), len(result.x)
    if result.x.dim() != 4:
        raise ValueError(f"the result must hold pictures (N, C, H, W), got shape {tuple(result.x.shape)}")
    if titles is not None and len(titles) != count:
        raise ValueError(f"{count} pictures need as many titles, got {len(titles)}")
    shown = sorted({0, steps // 10, steps // 3, steps - 1})
    figure, axes = grid(len(shown), count, size)
    frames = torch.stack([as_tensor(result.trajectory[moment]) for moment in shown])
    outside = float(((frames < -GREY / 2) | (frames > 1 + GREY / 2)).float().mean())
    note = f"{outside:.1%} of the values lie outside [0, 1] and are clipped" if outside else ""
    for row, moment, pictures in zip(axes, shown, frames.clamp(0, 1), strict=True):
        row[0].set_ylabel(f"step {result.at[moment]}", fontsize=8)
        for cell, picture in zip(row, as_images(pictures)[0], strict=True):
            show_image(cell, picture)
    rise = (result.trace[-1] - result.trace[0]).tolist()
    for k, (top, bottom) in enumerate(zip(axes[0], axes[-1], strict=True)):
        top.set_title(titles[k] if titles is not None else "", fontsize=9)
        bottom.set_xlabel(f"{rise[k]:+.3g}", fontsize=8)
    norm = result.gradient_norm.max().item()
    caption = f"below: rise of the objective; largest norm of the gradient at the end {norm:.2g}"
    names = f" of {', '.join(titles)}" if titles is not None else ""
    alt = alt or (
        f"Pictures{names} found by activation maximisation, one column each, from step 0 (top) to step "
        f"{result.at[-1]} (bottom)."
    )
    return describe(figure, alt, caption, note)


def top_patches(
    top: "TopActivations",
    projections: Tensor | None = None,
    *,
    channels: Sequence[int] | None = None,
    size: float = 1.7,
    alt: str | None = None,
) -> Figure:
    """The patches that activate each feature map most, the strongest first, above their projections if given.

    Args:
        top: from :func:`~interp_lab.top_activations`.
        projections: of the shape of ``top.patches``, from :func:`~interp_lab.project_top`.
        channels: the feature maps to draw; None draws the first eight.
        size: inches of one mosaic of patches; a table wider than the page's column shrinks to it.
        alt: the alt text; None tells how many patches of which channels.

    Raises:
        ValueError: no such channel, or projections of another shape.

    Example:
        >>> import torch
        >>> from interp_lab import plot, top_activations
        >>> layers = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU())
        >>> plot.top_patches(top_activations(layers, [torch.rand(9, 1, 8, 8)], "1", k=4), channels=[0, 2]).alt
        'The 4 patches that activate channels 0, 2 most'
    """
    channels = list(range(min(8, len(top.values)))) if channels is None else list(channels)
    if not channels or not all(0 <= c < len(top.values) for c in channels):
        raise ValueError(f"channels must lie in 0..{len(top.values) - 1}, got {channels}")
    if projections is not None and projections.shape != top.patches.shape:
        raise ValueError(f"projections must be {tuple(top.patches.shape)}, got {tuple(projections.shape)}")
    rows = 1 if projections is None else 2
    figure, axes = grid(rows, len(channels), size)
    *patches, note = as_images(*(top.patches[channel, top.images[channel] >= 0] for channel in channels))
    for column, channel in enumerate(channels):
        found = top.images[channel] >= 0
        show_image(axes[0][column], _mosaic(patches[column], 1.0))
        axes[0][column].set_title(f"channel {channel}", fontsize=9)
        if projections is not None:
            maps = as_maps(projections[channel, found], f"channel {channel}")
            # Each patch has its own scale, as each was projected from its own activation.
            scaled = maps / maps.abs().amax((1, 2), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
            show_map(axes[1][column], _mosaic(scaled[:, None], 0.0)[0], signed=True)
    axes[0][0].set_ylabel("patches", fontsize=9)
    names = ", ".join(map(str, channels))
    told, caption = f"The {top.values.shape[1]} patches that activate channels {names} most", ""
    if projections is not None:
        axes[1][0].set_ylabel("projections", fontsize=9)
        caption = "below: what the deconvnet sends back to each patch, each with its own scale; red adds, blue lowers"
        told += ", above their projections to pixels."
    return describe(figure, alt or told, caption, note)


def _mosaic(tiles: Tensor, gap: float) -> Tensor:
    """Tiles ``(k, C, h, w)`` in a square, one pixel apart."""
    side = math.ceil(math.sqrt(len(tiles)))
    blank = tiles.new_full((side * side - len(tiles), *tiles.shape[1:]), gap)
    framed = F.pad(torch.cat([tiles, blank]), (0, 1, 0, 1), value=gap)
    rows = [torch.cat(list(row), 2) for row in framed.split(side)]
    return torch.cat(rows, 1)[:, :-1, :-1]


def prototypes(chosen: "Prototypes", pictures: Array, *, columns: int = 10, alt: str | None = None) -> Figure:
    """Prototypes in the order of their choice, and below them the criticisms with their witness.

    Args:
        chosen: from :func:`~interp_lab.mmd_critic`.
        pictures: ``(N, C, H, W)`` with one or three channels, the examples that were chosen from.
        columns: pictures in a row.
        alt: the alt text; None tells how many of both there are.

    Raises:
        ValueError: other pictures than those chosen from.

    Example:
        >>> import torch
        >>> from interp_lab import mmd_critic, plot
        >>> pictures = torch.rand(20, 1, 4, 4)
        >>> plot.prototypes(mmd_critic(pictures, 3, 2), pictures).alt
        '3 prototypes in the order of their choice, and 2 criticisms with their witness.'
    """
    if len(pictures) != len(chosen.witness):
        raise ValueError(f"the choice was among {len(chosen.witness)} examples, got {len(pictures)} pictures")
    groups = [("prototypes", chosen.prototypes), ("criticisms", chosen.criticisms)]
    lines = [(name, part) for name, group in groups if len(group) for part in group.split(columns)]
    drawn, note = as_images(pictures[as_indices(torch.cat([part for _, part in lines]), pictures)])
    drawn = iter(drawn)
    figure, axes = grid(len(lines), max(len(part) for _, part in lines), 0.7)
    for row, (name, part) in zip(axes, lines, strict=True):
        row[0].set_ylabel(name, fontsize=8)
        for cell in row[len(part) :]:
            cell.set_axis_off()
        for cell, index in zip(row, part.tolist(), strict=False):
            show_image(cell, next(drawn))
            if name == "criticisms":
                cell.set_title(f"{1000 * chosen.witness[index]:+.1f}", fontsize=8)
    count = len(chosen.criticisms)
    caption = "over a criticism: witness x 1000, positive where the prototypes leave data out" if count else ""
    alt = alt or (
        f"{len(chosen.prototypes)} prototypes in the order of their choice"
        + (f", and {count} criticisms with their witness." if count else ".")
    )
    return describe(figure, alt, caption, note)
