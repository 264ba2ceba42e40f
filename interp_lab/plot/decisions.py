"""Pictures of one decision: heatmaps beside or over their images, coloured words, and the training images behind it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.patches import Rectangle
from torch import Tensor

from .base import (
    DIVERGING,
    WIDTH,
    Array,
    Figure,
    as_array,
    as_images,
    as_indices,
    as_maps,
    as_tensor,
    count_lines,
    describe,
    grid,
    show_image,
    show_map,
    wrap,
)

if TYPE_CHECKING:
    from ..explain_decision.influence import TopInfluence


def heatmap(
    attribution: Array,
    image: Array | None = None,
    *,
    title: str = "attribution",
    percentile: float = 99.5,
    overlay: bool = False,
    alt: str | None = None,
) -> Figure:
    """One attribution as a heatmap, beside its image if there is one.

    Args:
        attribution: ``(C, H, W)`` or ``(H, W)``; channels are summed.
        image: ``(C, H, W)`` with one or three channels.
        title: stands above the map.
        percentile: colours clip at this percentile of the map's magnitude, in (0, 100].
        overlay: lay the heatmap over the image, in grey; the larger a value, the less of the image shines through.
        alt: the alt text; None describes the layout.

    Raises:
        ValueError: a shape other than the above, no real numbers, NaN, a percentile outside (0, 100], or an overlay
            without an image.

    Example:
        >>> import torch
        >>> from interp_lab import plot
        >>> plot.heatmap(torch.tensor([[2.0, 0.0], [-1.0, 0.0]]), torch.rand(3, 2, 2), title="saliency").alt
        'Heatmaps. Rows: image 1. Columns: image, saliency.'
    """
    images = None if image is None else as_array(image)[None]
    return panel(images, {title: as_array(attribution)[None]}, percentile=percentile, overlay=overlay, alt=alt)


def panel(
    images: Array | Mapping[str, Array] | None,
    attributions: Mapping[str, Array],
    *,
    rows: Sequence[str] | None = None,
    percentile: float = 99.5,
    overlay: bool = False,
    signed: bool = False,
    size: float = 1.7,
    alt: str | None = None,
) -> Figure:
    """A table of heatmaps: one row per image, one column per attribution, each map with its own scale.

    A column with a negative value anywhere has diverging colours, any other one sequential ones.

    Args:
        images: ``(N, C, H, W)`` with one or three channels, the first column; or title -> images, a column each; None
            leaves them out.
        attributions: title -> ``(N, C, H, W)`` or ``(N, H, W)``; channels are summed.
        rows: a label for each row.
        percentile: colours clip at this percentile of each map's magnitude, in (0, 100].
        overlay: lay each map over its image (the first of them), in grey; the larger a value, the less of the image
            shines through.
        signed: give every column diverging colours, so that the frames of a slider speak one language.
        size: inches of one cell; a table wider than the page's column shrinks to it.
        alt: the alt text; None describes the layout.

    Raises:
        ValueError: another shape, batches of different lengths, no real numbers, NaN, a percentile outside (0, 100], an
            overlay without images, or nothing to draw.

    Example:
        >>> import torch
        >>> from interp_lab import METHODS, plot
        >>> model, x = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)), torch.rand(2, 1, 4, 4)
        >>> maps = {name: METHODS[name](model, x) for name in ("saliency", "gradient_x_input")}
        >>> plot.panel(x, maps, rows=["first", "second"]).alt
        'Heatmaps. Rows: first, second. Columns: image, saliency, gradient_x_input.'
    """
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile must lie in (0, 100], got {percentile}")
    if overlay and images is None:
        raise ValueError("an overlay needs images")
    maps = {title: as_maps(a, title) for title, a in attributions.items()}
    pictures = dict(images if isinstance(images, Mapping) else {"image": images} if images is not None else {})
    titles = [*pictures, *maps]
    count = {len(a) for a in (*maps.values(), *pictures.values())}
    if len(count) != 1 or 0 in count or (rows is not None and len(rows) not in count):
        raise ValueError(f"images, attributions and rows must have one common length above 0, got {sorted(count)}")
    shown = wrap(titles, len(titles), size)
    *drawn, note = as_images(*pictures.values()) if pictures else ("",)
    figure, axes = grid(count.pop(), len(titles), size, text=0.45 + 0.15 * count_lines(shown))
    diverging = {title: signed or _signed(a) for title, a in maps.items()}  # one language of colours a column
    for i, row in enumerate(axes):
        for cell, batch in zip(row, drawn, strict=False):
            show_image(cell, batch[i])
        for cell, (title, values) in zip(row[len(drawn) :], maps.items(), strict=True):
            under = drawn[0][i] if overlay else None
            show_map(cell, values[i], signed=diverging[title], percentile=percentile, under=under)
        if rows is not None:
            row[0].set_ylabel(rows[i], fontsize=9)
    for cell, title in zip(axes[0], shown, strict=True):
        cell.set_title(title, fontsize=9)
    keys = ["red positive, blue negative, white zero"] * any(diverging.values())
    keys += ["dark zero, bright large"] * (not all(diverging.values()))
    clip = "each map has its own scale" if percentile == 100 else f"each map clips at its {percentile:g}th percentile"
    if overlay:
        keys.append("the image shines through where values are small")
    names = rows if rows is not None else [f"image {i + 1}" for i in range(len(axes))]
    alt = alt or f"Heatmaps{' over their images' * overlay}. Rows: {', '.join(names)}. Columns: {', '.join(titles)}."
    return describe(figure, alt, f"{'; '.join(keys)}; {clip}", note)


def tokens(
    words: Sequence[Sequence[str]],
    values: Array,
    *,
    rows: Sequence[str] | None = None,
    evidence: Array | None = None,
    alt: str | None = None,
) -> Figure:
    """Sentences, one a row, each word on the colour of its value: red speaks for the class, blue against it.

    Args:
        words: N sentences of T words; the same one several times for several explanations of it.
        values: ``(N, T)``, the attribution of every word; each row has its own scale.
        rows: a label for each row.
        evidence: bool ``(N, T)``, words that stand in bold and in a frame.
        alt: the alt text; None names the strongest word of every row.

    Raises:
        ValueError: values, evidence or rows of another number than the words; no real numbers, NaN or infinite values.

    Example:
        >>> import torch
        >>> from interp_lab import plot
        >>> plot.tokens([["not", "good"]], torch.tensor([[-2.0, 1.0]]), rows=["saliency"]).alt
        'Words on the colours of their values. The strongest: saliency: not -2.'
    """
    labels = [f"row {i + 1}" for i in range(len(words))] if rows is None else list(rows)
    map_, framed = (as_tensor(v) for v in (values, np.zeros(np.shape(values), bool) if evidence is None else evidence))
    lengths = {len(row) for row in words}
    if not map_.shape == framed.shape == (len(words), *lengths) or 0 in map_.shape or len(labels) != len(words):
        raise ValueError(
            f"{len(words)} sentences of {sorted(lengths)} words need as many values, got values {tuple(map_.shape)}, evidence "
            f"{tuple(framed.shape)} and {len(labels)} rows; let all sentences be of one length above 0"
        )
    map_ = as_maps(map_[:, None], "values")[:, 0]
    shades = map_ / map_.abs().amax(1, keepdim=True).clamp(min=torch.finfo(map_.dtype).tiny)
    figure, ((axis,),) = grid(1, 1, WIDTH)
    figure.set_figheight(0.3 * len(words) + 0.35)
    axis.imshow(shades.numpy(), cmap=DIVERGING, vmin=-1, vmax=1, aspect="auto")
    for i, row in enumerate(words):
        for j, word in enumerate(row):
            text = axis.text(j, i, word, ha="center", va="center", fontsize=8)
            text.set_color("white" if shades[i, j].abs() > 0.65 else "black")
            if framed[i, j]:
                text.set_fontweight("bold")
                axis.add_patch(Rectangle((j - 0.48, i - 0.44), 0.96, 0.88, fill=False, linewidth=1.5))
    if rows is not None:
        axis.set_yticks(range(len(rows)), rows, fontsize=8)
    best = map_.abs().argmax(1).tolist()
    strongest = [
        f"{label}: {words[i][j]} {map_[i, j]:+.2g}" for i, (label, j) in enumerate(zip(labels, best, strict=True))
    ]
    alt = alt or f"Words on the colours of their values. The strongest: {', '.join(strongest)}."
    key = "red for, blue against; each row has its own scale" + "; in a frame: the evidence" * bool(framed.any())
    return describe(figure, alt, key, "")


def _signed(values: Tensor) -> bool:
    """Whether maps take the diverging colours: they have negative values, or nothing at all to show."""
    return bool((values < 0).any() or (values == 0).all())


def influential(
    image: Array,
    pictures: Array,
    result: "Tensor | TopInfluence",
    *,
    row: int = 0,
    count: int = 5,
    labels: Sequence[str] | None = None,
    alt: str | None = None,
) -> Figure:
    """A test image beside the training images that help it most (above) and harm it most (below).

    Over each training image stands its influence, the rise of the test loss without it, times 1000.

    Args:
        image: ``(C, H, W)`` with one or three channels, the test image.
        pictures: ``(N, C, H, W)``, the training images.
        result: from :func:`~interp_lab.influence`, whole, ``(n_test, N)``, or its ends only.
        row: the test image's row in the result.
        count: training images at each end, at most as many as the result has.
        labels: a label for each training image.
        alt: the alt text; None lists the influences drawn, with their labels.

    Raises:
        ValueError: another number of pictures or labels than influences.

    Example:
        >>> import torch
        >>> from interp_lab import plot
        >>> scores = torch.tensor([[0.003, -0.002, 0.001]])
        >>> plot.influential(torch.rand(1, 8, 8), torch.rand(3, 1, 8, 8), scores, count=1, labels="abc").alt
        'A test image and its most influential training images (x 1000): helpful a +3; harmful b -2.'
    """
    if isinstance(result, Tensor):
        count = min(count, result.shape[1])
        ends = [tuple(result[row].topk(count, largest=largest)) for largest in (True, False)]
        size = result.shape[1]
    else:
        count, size = min(count, result.helpful.shape[1]), len(pictures)
        ends = [(result.helpful[row], result.helpful_indices[row]), (result.harmful[row], result.harmful_indices[row])]
    if len(pictures) != size or (labels is not None and len(labels) != size):
        given = f"{len(pictures)} pictures" + (f" and {len(labels)} labels" if labels is not None else "")
        raise ValueError(f"there are {size} influences, but {given}")
    drawn = pictures[as_indices(torch.cat([indices[:count] for _, indices in ends]), pictures)]
    (test,), drawn, note = as_images(image[None], drawn)
    figure, axes = grid(2, count + 1, 1.1, text=1.2)
    show_image(axes[0][0], test)
    axes[0][0].set_title("test image", fontsize=8)
    axes[1][0].set_axis_off()
    shown = []
    for name, cells, (values, indices), group in zip(
        ("helpful", "harmful"), axes, ends, drawn.split(count), strict=True
    ):
        named = []
        for cell, picture, value, index in zip(cells[1:], group, values.tolist(), indices.tolist(), strict=False):
            show_image(cell, picture)
            cell.set_title(f"{1000 * value:+.3g}", fontsize=8)
            if labels is not None:
                cell.set_xlabel(labels[index], fontsize=8)
                named.append(f"{labels[index]} {1000 * value:+.3g}")
            else:
                named.append(f"{1000 * value:+.3g}")
        cells[1].set_ylabel(name, fontsize=8)
        shown.append(f"{name} {', '.join(named)}")
    alt = alt or f"A test image and its most influential training images (x 1000): {'; '.join(shown)}."
    return describe(figure, alt, "over a training image: rise of the test loss without it, x 1000", note)
