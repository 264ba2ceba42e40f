"""Every picture of the book: images, heatmaps, curves and bars, colour-blind safe and with alt text.

Each function returns a :class:`Figure`, a matplotlib figure that a notebook shows as a PNG with its alt text.
Signed attributions use a diverging map with white at zero (red positive, blue negative), magnitudes a
sequential one; what the colours clip is written under the picture.

Images may have any finite values: what leaves [0, 1] (normalised pictures, 0 .. 255) is shown by one linear scaling of all
images of the figure, and what is black and what is white in it is written under the picture and into its alt text.
Tensors have their channels first; batches of numpy arrays may have them last.
"""

import base64
import html
import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib.figure
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from .antehoc import AdditiveModel, LinearModel, PrototypeEvidence, TreeModel
    from .evaluate.class_sensitivity import ClassSensitivity
    from .evaluate.coherence import Coherence
    from .evaluate.randomisation import ModelRandomisation
    from .evaluate.roar import Retraining
    from .evaluate.selectivity import Selectivity
    from .explain_decision.influence import TopInfluence
    from .explain_model.activation_maximisation import Maximum
    from .explain_model.prototypes import Prototypes
    from .explain_model.surrogates.graph import SurrogateGraph
    from .explain_model.surrogates.local import LocalSurrogate
    from .explain_model.top_activations import TopActivations

Array = Tensor | np.ndarray

DIVERGING, SEQUENTIAL = "RdBu_r", "magma"
# Okabe & Ito's palette, told apart under every common colour-vision deficiency.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DPI = 110
GREY = 1 / 255  # the least difference of a colour
WIDTH = 7.0  # inches of a page's column: a wider picture would be shrunk, and its letters with it


class Figure(matplotlib.figure.Figure):
    """A matplotlib figure that carries its alt text; ``savefig`` and all else work as usual."""

    alt = ""

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        png = io.BytesIO()
        self.savefig(png, format="png", dpi=DPI, facecolor="white", metadata={"Description": self.alt})
        return {"image/png": png.getvalue(), "text/plain": self.alt}, {"image/png": {"alt": self.alt}}


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
        percentile: colours clip at this percentile of the map's magnitude.
        overlay: lay the heatmap over the image.
        alt: the alt text; None describes the layout.

    Raises:
        ValueError: a shape other than the above, no real numbers, NaN, or a percentile outside (0, 100].
    """
    images = None if image is None else _array(image)[None]
    return panel(images, {title: _array(attribution)[None]}, percentile=percentile, overlay=overlay, alt=alt)


def panel(
    images: Array | None,
    attributions: Mapping[str, Array],
    *,
    rows: Sequence[str] | None = None,
    percentile: float = 99.5,
    overlay: bool = False,
    size: float = 1.7,
    alt: str | None = None,
) -> Figure:
    """A table of heatmaps: one row per image, one column per attribution, each map with its own scale.

    Args:
        images: ``(N, C, H, W)``, the first column; None leaves it out.
        attributions: title -> ``(N, C, H, W)`` or ``(N, H, W)``; channels are summed.
        rows: a label for each row.
        percentile: colours clip at this percentile of each map's magnitude.
        overlay: lay each map over its image, in grey; the larger a value, the less of the image shines through.
        size: inches of one cell.
        alt: the alt text; None describes the layout.

    Raises:
        ValueError: batches of different lengths, NaN, a percentile outside (0, 100], an overlay without images, or
            nothing to draw.
    """
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile must lie in (0, 100], got {percentile}")
    if overlay and images is None:
        raise ValueError("an overlay needs images")
    maps = {title: _map(a, title) for title, a in attributions.items()}
    count = {len(a) for a in maps.values()} | ({len(images)} if images is not None else set())
    if len(count) != 1 or 0 in count or (rows is not None and len(rows) not in count):
        raise ValueError(f"images, attributions and rows must have one common length above 0, got {sorted(count)}")
    titles = (["image"] if images is not None else []) + list(maps)
    shown = _wrapped(titles, len(titles), size)
    pictures, note = _pictures(images) if images is not None else (None, "")
    figure, axes = _grid(count.pop(), len(titles), size, text=0.45 + 0.15 * _lines(shown))
    for i, row in enumerate(axes):
        cells = list(row)
        if pictures is not None:
            _show_image(cells.pop(0), pictures[i])
        for cell, values in zip(cells, maps.values(), strict=True):
            _show_map(cell, values[i], percentile, under=pictures[i] if overlay else None)
        if rows is not None:
            row[0].set_ylabel(rows[i], fontsize=9)
    for cell, title in zip(axes[0], shown, strict=True):
        cell.set_title(title, fontsize=9)
    signed = {_signed(a[i]) for a in maps.values() for i in range(len(axes))}
    keys = ["red positive, blue negative, white zero"] * (True in signed) + ["dark zero, bright large"] * (
        False in signed
    )
    clip = "each map has its own scale" if percentile == 100 else f"each map clips at its {percentile:g}th percentile"
    if overlay:
        keys.append("the image shines through where values are small")
    names = rows if rows is not None else [f"image {i + 1}" for i in range(len(axes))]
    alt = alt or f"Heatmaps{' over their images' * overlay}. Rows: {', '.join(names)}. Columns: {', '.join(titles)}."
    return _told(figure, alt, f"{'; '.join(keys)}; {clip}", note)


def images(
    pictures: Array,
    titles: Sequence[str] | None = None,
    *,
    rows: Sequence[str] | None = None,
    columns: int = 8,
    size: float = 1.4,
    alt: str | None = None,
) -> Figure:
    """A grid of images ``(N, C, H, W)``, each with its title, or each row with its label.

    Raises:
        ValueError: not a batch of finite images with one or three channels, or another number of titles or rows.
    """
    pictures = _array(pictures)
    if len(pictures.shape) != 4 or len(pictures) == 0:
        raise ValueError(f"pictures must be a batch (N, C, H, W), got shape {tuple(pictures.shape)}")
    pictures, note = _pictures(pictures)
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"{len(pictures)} pictures need as many titles, got {len(titles)}")
    columns = min(columns, len(pictures))
    height = -(-len(pictures) // columns)
    if rows is not None and len(rows) != height:
        raise ValueError(f"{len(pictures)} pictures in {columns} columns need {height} rows, got {len(rows)}")
    named = ", ".join([*(rows or ()), *(titles or ())])
    shown = _wrapped(titles or [""] * len(pictures), columns, size)
    lines = sum(_lines(shown[i : i + columns]) for i in range(0, len(shown), columns))
    figure, axes = _grid(height, columns, size, text=0.1 + 0.17 * lines)
    cells = [cell for row in axes for cell in row]
    for i, cell in enumerate(cells):
        if i < len(pictures):
            _show_image(cell, pictures[i])
            cell.set_title(shown[i], fontsize=9)
        else:
            cell.set_axis_off()
    for row, label in zip(axes, rows or (), strict=False):
        row[0].set_ylabel(label, fontsize=9, rotation=0, ha="right", va="center")
    return _told(figure, alt or (f"Images: {named}." if named else "Images."), "", note)


def curves(
    x: Sequence[float] | Tensor,
    lines: Mapping[str, Sequence[float] | Tensor],
    *,
    xlabel: str,
    ylabel: str,
    bands: Mapping[str, Sequence[float] | Tensor] | None = None,
    alt: str | None = None,
) -> Figure:
    """Named lines over a common x, told apart by colour, marker and dash; ``bands`` gives half-widths by name."""
    figure = Figure(figsize=(5.4, 3 + 0.2 * math.ceil(len(lines) / 3)), layout="constrained")
    axis = figure.subplots()
    styles = ("-", "--", "-.", ":")
    x = _numbers(x)
    for k, (name, y) in enumerate(lines.items()):
        y = _numbers(y)
        color, marker = COLORS[k % len(COLORS)], "os^Dvx*"[k % 7] if len(y) <= 30 else None
        axis.plot(x, y, label=name, color=color, marker=marker, markersize=4, linestyle=styles[k % 4])
        if bands and name in bands:
            half = _numbers(bands[name])
            axis.fill_between(x, y - half, y + half, color=color, alpha=0.2, linewidth=0)
    if (x == x.round()).all():
        axis.xaxis.get_major_locator().set_params(integer=True)
    _label(axis, xlabel, ylabel)
    _legend(figure, len(lines))
    figure.alt = alt or f"Curves of {', '.join(lines)}: {ylabel} against {xlabel}."
    return figure


def bars(
    values: Mapping[str, float], *, xlabel: str, reference: tuple[str, float] | None = None, alt: str | None = None
) -> Figure:
    """Named horizontal bars with their values; ``reference`` is a dashed line with its name, e.g. chance."""
    figure = Figure(figsize=(5.4, 0.6 + 0.32 * len(values)), layout="constrained")
    axis = figure.subplots()
    values = {name: float(value) for name, value in values.items()}
    drawn = axis.barh(list(values), list(values.values()), color=COLORS[0])
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # the reference may run behind a number
    axis.bar_label(drawn, fmt="%.3g", padding=3, fontsize=8, bbox=ground)
    axis.invert_yaxis()
    axis.margins(x=0.12)
    if reference is not None:
        axis.axvline(reference[1], color=COLORS[1], linestyle="--", label=reference[0], zorder=1.5)
        figure.legend(loc="outside upper center", fontsize=8, frameon=False)
    _label(axis, xlabel, "")
    figure.alt = alt or f"{xlabel}: " + ", ".join(f"{name} {value:.3g}" for name, value in values.items()) + "."
    return figure


def _grid(rows: int, columns: int, size: float, text: float = 0.6) -> tuple[Figure, list[list[Axes]]]:
    """Cells of ``size`` inches, or what the page's column has for them, and ``text`` inches of height for the words."""
    size = min(size, WIDTH / columns)
    figure = Figure(figsize=(size * columns, size * rows + text), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for cell in axes.flat:
        cell.set(xticks=[], yticks=[])
        for spine in cell.spines.values():
            spine.set_color("#bbbbbb")
    return figure, axes.tolist()


def _legend(figure: Figure, lines: int) -> None:
    """One legend above the axes, in place of what was there; a single line needs none."""
    figure.legends.clear()
    if lines > 1:
        figure.legend(loc="outside upper center", ncols=min(3, lines), fontsize=8, frameon=False)


def _wrapped(titles: Sequence[str], columns: int, size: float) -> list[str]:
    """The titles in lines that are no longer than a cell is wide."""
    length = max(6, int(12.5 * min(size, WIDTH / columns)))
    return ["\n".join(textwrap.fill(line, length) for line in title.split("\n")) for title in titles]


def _lines(titles: Sequence[str]) -> int:
    return max(title.count("\n") + bool(title) for title in titles)


def _label(axis: Axes, xlabel: str, ylabel: str) -> None:
    axis.set_xlabel(xlabel, fontsize=9)
    axis.set_ylabel(ylabel, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _caption(figure: Figure, text: str) -> None:
    figure.supxlabel(textwrap.fill(text, int(16 * figure.get_figwidth())), fontsize=7.5, color="#444444")


def _told(figure: Figure, alt: str, caption: str, note: str) -> Figure:
    """The figure with its alt text and what stands under it; the note on its images comes into both."""
    if caption or note:
        _caption(figure, "; ".join(filter(None, (caption, note))))
    figure.alt = f"{alt} ({note})" if note else alt
    return figure


def _numbers(values: Sequence[float] | Tensor) -> np.ndarray:
    values = torch.as_tensor(values).detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()  # numpy has no bfloat16


def _array(values: Array) -> Array:
    """Values of a type that torch draws."""
    if not isinstance(values, Tensor | np.ndarray):
        raise ValueError(
            f"pictures and maps must be tensors or numpy arrays, got {type(values).__name__}; give torch.stack(...) or "
            "np.asarray(...) of it"
        )
    if values.dtype.is_complex if isinstance(values, Tensor) else values.dtype.kind not in "biuf":
        raise ValueError(f"pictures and maps must hold real numbers, got {values.dtype}; give their .real or .abs()")
    if isinstance(values, np.ndarray):
        return values.astype(np.float64) if values.dtype.itemsize > 8 else values
    return values if values.layout == torch.strided else values.to_dense()


def _tensor(values: Array) -> Tensor:
    """A detached tensor on the CPU; channels that a batch of numpy arrays has last come first."""
    values = _array(values)
    if isinstance(values, np.ndarray):
        if values.ndim == 4 and values.shape[3] in (1, 3, 4) and values.shape[1] not in (1, 3):
            values = np.moveaxis(values, 3, 1)
        values = torch.from_numpy(np.ascontiguousarray(values))
    return values.detach().cpu()


def _pictures(*batches: Array) -> tuple:
    """Every batch as images ``(N, C, H, W)`` in [0, 1], all by one linear scaling, and a note that tells of it."""
    tensors = [_tensor(batch) for batch in batches]
    for images in tensors:
        if images.dim() != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"an image must be (1, H, W) or (3, H, W), got shape {tuple(images.shape[1:])}")
        if 0 in images.shape[1:]:
            raise ValueError(f"an image must have pixels, got shape {tuple(images.shape[1:])}")
        if not torch.isfinite(images).all():
            raise ValueError("an image holds NaN or infinite values, which have no colour")
    low, high = 0.0, 1.0
    if all(images.dtype == torch.uint8 for images in tensors):
        high = 255.0
    else:
        ends = [float(end) for images in tensors for end in images.double().aminmax()]
        if min(ends) < -GREY / 2 or max(ends) > 1 + GREY / 2:  # what no one could see is none
            low, high = min(0.0, *ends), max(1.0, *ends)
    if high - low == math.inf:
        raise ValueError(
            f"images from {low:.3g} to {high:.3g} are too far apart for colours; divide them by their largest"
        )
    note = "" if (low, high) == (0, 1) else f"images: black is {low:.3g}, white is {high:.3g}"
    return *(((images.double() - low) / (high - low)).clamp(0, 1).float() for images in tensors), note


def _show_image(cell: Axes, image: Tensor) -> None:
    picture = image.permute(1, 2, 0).squeeze(2).numpy()
    cell.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation=_interpolation(image))


def _map(attribution: Array, title: str) -> Tensor:
    """The attributions ``(N, H, W)`` with the channels summed, on the CPU."""
    values = _tensor(attribution)
    if values.dim() not in (3, 4) or 0 in values.shape[1:]:
        raise ValueError(f"attribution {title!r} must be (N, C, H, W) or (N, H, W), got {tuple(values.shape)}")
    if not torch.isfinite(values).all():
        raise ValueError(f"attribution {title!r} holds NaN or infinite values")
    wide = values.double().sum(1) if values.dim() == 4 else values.double()
    if not torch.isfinite(4 * wide).all():  # twice the largest value is the span of the colours
        raise ValueError(
            f"attribution {title!r} is too large for colours, {float(wide.abs().max()):.2g}; divide it by that"
        )
    narrow = wide.float()
    return wide if values.dtype == torch.float64 or not torch.isfinite(4 * narrow).all() else narrow


def _signed(values: Tensor) -> bool:
    """Whether a map takes the diverging colours: it has negative values, or nothing at all to show."""
    return bool((values < 0).any() or (values == 0).all())


def _show_map(cell: Axes, values: Tensor, percentile: float, under: Tensor | None = None) -> None:
    magnitude = values.abs()
    # A sparse map has its percentile at zero: then the maximum sets the scale.
    scale = float(np.quantile(magnitude.numpy(), percentile / 100)) or float(magnitude.max())
    if scale == 0:
        cell.text(0.5, 0.5, "all zero", ha="center", va="center", transform=cell.transAxes, fontsize=8)
    signed = _signed(values)
    style = {}
    if under is not None:  # in the map's own pixels, which may be fewer
        style["extent"] = (-0.5, values.shape[1] - 0.5, values.shape[0] - 0.5, -0.5)
        cell.imshow(under.mean(0).numpy(), cmap="gray", vmin=0, vmax=1, **style)
        style["alpha"] = (0.8 * (magnitude / (scale or 1)).clamp(max=1)).numpy()
    cell.imshow(
        values.numpy(),
        cmap=DIVERGING if signed else SEQUENTIAL,
        vmin=-(scale or 1) if signed else 0,
        vmax=scale or 1,
        interpolation=_interpolation(values),
        **style,
    )


def _interpolation(picture: Tensor) -> str:
    """Small pictures show their pixels; large ones, drawn smaller than they are, would lose some of them."""
    return "nearest" if picture.shape[-1] <= 128 else "auto"


def templates(model: "LinearModel", classes: Sequence[str] | None = None, *, alt: str | None = None) -> Figure:
    """The weights of every class of a linear model as pictures, each weight times the deviation of its feature.

    Channels are summed. Without the deviation, a pixel that hardly ever varies would look important.

    Raises:
        ValueError: the features are no picture (show ``bars`` of ``model.importance`` then), or another number of names.
    """
    weights = model.importance.unflatten(1, model.features.shape)
    if weights.dim() not in (3, 4):
        raise ValueError(f"features of shape {model.features.shape} are no picture; draw bars of model.importance")
    names = classes if classes is not None else [f"class {c}" for c in range(len(weights))]
    if len(names) != len(weights):
        raise ValueError(f"{len(weights)} classes need as many names, got {len(names)}")
    columns = min(5, len(weights))
    figure, axes = _grid(-(-len(weights) // columns), columns, 1.5)
    cells = [cell for row in axes for cell in row]
    for cell, values, name in zip(cells, _map(weights, "weights"), names, strict=False):
        _show_map(cell, values, 100)
        cell.set_title(name, fontsize=9)
    for cell in cells[len(weights) :]:
        cell.set_axis_off()
    share = f"{model.nonzeros} of {weights.numel()} weights are not zero"
    told = f"; {share}" if model.nonzeros < weights.numel() else ""
    _caption(
        figure, f"weight times deviation; red: for the class, blue: against it; each picture has its own scale{told}"
    )
    figure.alt = alt or f"Weights of a linear model as pictures, one per class: {', '.join(names)}; {share}."
    return figure


def tree(model: "TreeModel", classes: Sequence[str] | None = None, *, depth: int = 3, alt: str | None = None) -> Figure:
    """A decision tree from its root, at most ``depth`` tests deep; to the left where the test holds.

    Raises:
        ValueError: another number of names than classes.
    """
    names = classes if classes is not None else [f"class {c}" for c in range(model.classes)]
    if len(names) != model.classes:
        raise ValueError(f"{model.classes} classes need as many names, got {len(names)}")
    nodes = model.tree.tree_
    figure = Figure(layout="constrained")
    axis = figure.subplots()
    axis.set_axis_off()
    ends, deepest = 0, 0

    def draw(node: int, level: int) -> float:
        """Draws the node below its place among the leaves, which it returns."""
        nonlocal ends, deepest
        deepest = max(deepest, level)
        if level < depth and nodes.children_left[node] >= 0:
            children = [draw(int(kids[node]), level + 1) for kids in (nodes.children_left, nodes.children_right)]
            x = sum(children) / 2
            for child, answer in zip(children, ("yes", "no"), strict=True):
                axis.plot([x, child], [-level, -level - 1], color="#888888", linewidth=1, zorder=0)
                axis.text((x + child) / 2, -level - 0.5, answer, fontsize=7, ha="center", va="center")
            text, color = f"{model.features.names[nodes.feature[node]]}\n<= {nodes.threshold[node]:.3g}", "#ffffff"
        else:
            x, ends = float(ends), ends + 1
            share = nodes.value[node, 0] / nodes.value[node, 0].sum()
            rest = "\n..." if nodes.children_left[node] >= 0 else ""
            name = names[int(model.tree.classes_[share.argmax()])]
            text, color = f"{name}\n{share.max():.0%} of {nodes.n_node_samples[node]}{rest}", "#dceefa"
        box = {"boxstyle": "round", "facecolor": color, "edgecolor": "#888888"}
        axis.text(x, -level, text, fontsize=7, ha="center", va="center", bbox=box)
        return x

    draw(0, 0)
    axis.set(xlim=(-0.7, ends - 0.3), ylim=(-deepest - 0.5, 0.5))
    figure.set_size_inches(max(3.0, 0.95 * ends), 1.1 + 0.9 * deepest)
    size = f"{model.leaves} leaves, depth {model.tree.get_depth()}"
    _caption(figure, f"decision tree with {size}; left where the test holds; three dots: the tree goes on")
    figure.alt = alt or f"Decision tree with {size}; its first test is {_first_test(model)}."
    return figure


def _first_test(model: "TreeModel") -> str:
    nodes = model.tree.tree_
    if nodes.feature[0] < 0:
        return "none: it always gives one class"
    return f"{model.features.names[nodes.feature[0]]} <= {nodes.threshold[0]:.3g}"


def shape_functions(model: "AdditiveModel", target: int, *, count: int = 6, alt: str | None = None) -> Figure:
    """The most important curves of an additive model for one class, on one common scale.

    Raises:
        ValueError: no such class.
    """
    if not 0 <= target < len(model.importance):
        raise ValueError(f"target must lie in 0..{len(model.importance) - 1}, got {target}")
    chosen = model.importance[target].topk(min(count, model.importance.shape[1])).indices.tolist()
    places, values = (t.detach().cpu() for t in model.curves())
    columns = min(3, len(chosen))
    figure = Figure(figsize=(2.1 * columns, 1.9 * -(-len(chosen) // columns) + 0.4), layout="constrained")
    axes = figure.subplots(-(-len(chosen) // columns), columns, squeeze=False, sharey=True)
    for axis, j in zip(axes.flat, chosen, strict=False):
        axis.axhline(0, color="#bbbbbb", linewidth=0.8)
        axis.plot(places[:, j], values[:, target, j], color=COLORS[0])
        _label(axis, model.features.names[j], "")
    for axis in axes.flat[len(chosen) :]:
        axis.set_axis_off()
    _caption(figure, f"what each feature adds to the score of class {target}, the most important first")
    names = ", ".join(model.features.names[j] for j in chosen)
    figure.alt = alt or f"Curves of an additive model for class {target}, the most important first: {names}."
    return figure


def prototype_evidence(
    evidence: "PrototypeEvidence", *, row: int = 0, count: int = 3, alt: str | None = None
) -> Figure:
    """The prototypes that add most to one image's logit: its piece, the piece of a training image that it resembles.

    Raises:
        ValueError: no such row.
    """
    if not 0 <= row < len(evidence.images):
        raise ValueError(f"row must lie in 0..{len(evidence.images) - 1}, got {row}")
    parts = evidence.contribution[row]
    chosen = parts.topk(min(count, len(parts))).indices.tolist()
    (image,), sources, note = _pictures(evidence.images[row, None], evidence.sources[chosen])
    figure, axes = _grid(2, len(chosen), 1.7)
    for (above, below), j, source in zip(zip(*axes, strict=True), chosen, sources, strict=True):
        _show_image(above, image)
        _show_image(below, source)
        for cell, window in ((above, evidence.windows[row, j]), (below, evidence.source_windows[j])):
            top, bottom, left, right = window.tolist()
            x, y = [left, right, right, left, left], [top, top, bottom, bottom, top]
            cell.plot([v - 0.5 for v in x], [v - 0.5 for v in y], color=COLORS[4], linewidth=1.5, clip_on=False)
        above.set_title(f"{parts[j]:+.2f}", fontsize=9)
        below.set_xlabel(f"class {evidence.classes[j].item()}", fontsize=8)
    axes[0][0].set_ylabel("this", fontsize=9)
    axes[1][0].set_ylabel("looks like that", fontsize=9)
    target, logit = evidence.target[row].item(), parts.sum().item()
    shown = f"logit {logit:.2f} of class {target}; the {len(chosen)} prototypes drawn add {parts[chosen].sum():.2f}"
    alt = alt or f"An image above, pieces of training images that it resembles below; {shown}."
    return _told(figure, alt, shown, note)


def segments(local: "LocalSurrogate", *, alt: str | None = None) -> Figure:
    """A local surrogate: the image with the borders of its segments, and the effect of each."""
    figure, ((left, right),) = _grid(1, 2, 2.4)
    (image,), note = _pictures(local.image[None])
    _show_image(left, image)
    numbers = local.segments.cpu()
    border = torch.zeros_like(numbers, dtype=torch.bool)
    border[1:] |= numbers[1:] != numbers[:-1]
    border[:, 1:] |= numbers[:, 1:] != numbers[:, :-1]
    ink = torch.zeros(*numbers.shape, 4)
    ink[border] = torch.tensor([1.0, 0.9, 0.0, 0.6])
    left.imshow(ink.numpy(), interpolation="nearest")
    _show_map(right, local.attribution.detach().cpu(), 100)
    count = len(local.effects)
    left.set_title(f"{count} segments", fontsize=9)
    right.set_title(f"effect on class {local.target}", fontsize=9)
    caption = f"red: the segment speaks for the class, blue: against it; R2 of the linear model {local.r2:.2f}"
    alt = alt or (
        f"An image cut into {count} segments, and the effect of each on class {local.target} in a linear model whose R2 "
        f"is {local.r2:.2f}."
    )
    return _told(figure, alt, caption, note)


def channel_graph(
    surrogate: "SurrogateGraph", classes: Sequence[str] | None = None, *, alt: str | None = None
) -> Figure:
    """A graph of channels, one column per layer; lines are as strong as the relevance that flows along them."""
    graph, layers = surrogate.graph, list(surrogate.kept)
    columns = [[node for node in graph if node[0] == layer] for layer in (*layers, "logit")]
    tallest = max(map(len, columns))
    figure = Figure(figsize=(1.3 * len(columns) + 1.2, max(2.4, 0.24 * tallest + 1)), layout="constrained")
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
            style = {"color": COLORS[1 if weight > 0 else 0], "linestyle": "-" if weight > 0 else "--"}
            ends = zip(place[below], place[above], strict=True)
            axis.plot(
                *ends, **style, linewidth=3 * abs(weight) / most, alpha=min(1.0, 0.1 + abs(weight) / most), zorder=0
            )
    for (layer, channel), (x, y) in place.items():
        name = classes[channel] if layer == "logit" and classes is not None else str(channel)
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "#888888"}
        axis.text(x, y, name, fontsize=7, ha="center", va="center", bbox=box)
    for depth, layer in enumerate(layers):
        total = len(surrogate.kept[layer])
        axis.text(depth, tallest + 0.7, f"layer {layer}\n{len(columns[depth])} of {total}", fontsize=8, ha="center")
    axis.text(len(layers), tallest + 0.7, "class", fontsize=8, ha="center")
    axis.set(xlim=(-0.4, len(layers) + 0.4), ylim=(0, tallest + 2.2))
    _caption(figure, "channels kept, and the relevance between them; orange, solid: positive; blue, dashed: negative")
    sizes = ", ".join(f"{len(column)} channels of {layer}" for layer, column in zip(layers, columns, strict=False))
    figure.alt = alt or f"Graph of the channels that a network needs for its decisions: {sizes}."
    return figure


def ascent(
    result: "Maximum", titles: Sequence[str] | None = None, *, size: float = 1.0, alt: str | None = None
) -> Figure:
    """What activation maximisation drew: one column per picture, from its start (top) to its end (bottom).

    One scaling would wash out all pictures for one that grows large, so that values outside [0, 1] are clipped, and the
    share of them is told; under each column stands by how much the objective rose.

    Raises:
        ValueError: the result holds no pictures ``(N, C, H, W)``, or another number of titles.
    """
    steps, count = len(result.at), len(result.x)
    if result.x.dim() != 4:
        raise ValueError(f"the result must hold pictures (N, C, H, W), got shape {tuple(result.x.shape)}")
    if titles is not None and len(titles) != count:
        raise ValueError(f"{count} pictures need as many titles, got {len(titles)}")
    shown = sorted({0, steps // 10, steps // 3, steps - 1})
    figure, axes = _grid(len(shown), count, size)
    frames = torch.stack([_tensor(result.trajectory[moment]) for moment in shown])
    outside = float(((frames < -GREY / 2) | (frames > 1 + GREY / 2)).float().mean())
    note = f"{outside:.1%} of the values lie outside [0, 1] and are clipped" if outside else ""
    for row, moment, pictures in zip(axes, shown, frames.clamp(0, 1), strict=True):
        row[0].set_ylabel(f"step {result.at[moment]}", fontsize=8)
        for cell, picture in zip(row, _pictures(pictures)[0], strict=True):
            _show_image(cell, picture)
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
    return _told(figure, alt, caption, note)


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
        projections: of the shape of ``top.patches``, from :func:`interp_lab.project_top`.
        channels: the feature maps to draw; None draws the first eight.

    Raises:
        ValueError: no such channel, or projections of another shape.
    """
    channels = list(range(min(8, len(top.values)))) if channels is None else list(channels)
    if not channels or not all(0 <= c < len(top.values) for c in channels):
        raise ValueError(f"channels must lie in 0..{len(top.values) - 1}, got {channels}")
    if projections is not None and projections.shape != top.patches.shape:
        raise ValueError(f"projections must be {tuple(top.patches.shape)}, got {tuple(projections.shape)}")
    rows = 1 if projections is None else 2
    figure, axes = _grid(rows, len(channels), size)
    *patches, note = _pictures(*(top.patches[channel, top.images[channel] >= 0] for channel in channels))
    for column, channel in enumerate(channels):
        found = top.images[channel] >= 0
        _show_image(axes[0][column], _mosaic(patches[column], 1.0))
        axes[0][column].set_title(f"channel {channel}", fontsize=9)
        if projections is not None:
            maps = _map(projections[channel, found], f"channel {channel}")
            # Each patch has its own scale, as each was projected from its own activation.
            scaled = maps / maps.abs().amax((1, 2), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
            _show_map(axes[1][column], _mosaic(scaled[:, None], 0.0)[0], 100)
    axes[0][0].set_ylabel("patches", fontsize=9)
    names = ", ".join(map(str, channels))
    told, caption = f"The {top.values.shape[1]} patches that activate channels {names} most", ""
    if projections is not None:
        axes[1][0].set_ylabel("projections", fontsize=9)
        caption = "below: what the deconvnet sends back to each patch, each with its own scale; red adds, blue lowers"
        told += ", above their projections to pixels."
    return _told(figure, alt or told, caption, note)


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
        pictures: ``(N, C, H, W)``, the examples that were chosen from.

    Raises:
        ValueError: other pictures than those chosen from.
    """
    if len(pictures) != len(chosen.witness):
        raise ValueError(f"the choice was among {len(chosen.witness)} examples, got {len(pictures)} pictures")
    groups = [("prototypes", chosen.prototypes), ("criticisms", chosen.criticisms)]
    lines = [(name, part) for name, group in groups if len(group) for part in group.split(columns)]
    drawn, note = _pictures(pictures[_places(torch.cat([part for _, part in lines]), pictures)])
    drawn = iter(drawn)
    figure, axes = _grid(len(lines), max(len(part) for _, part in lines), 0.7)
    for row, (name, part) in zip(axes, lines, strict=True):
        row[0].set_ylabel(name, fontsize=8)
        for cell in row[len(part) :]:
            cell.set_axis_off()
        for cell, index in zip(row, part.tolist(), strict=False):
            _show_image(cell, next(drawn))
            if name == "criticisms":
                cell.set_title(f"{1000 * chosen.witness[index]:+.1f}", fontsize=8)
    count = len(chosen.criticisms)
    caption = "over a criticism: witness x 1000, positive where the prototypes leave data out" if count else ""
    alt = alt or (
        f"{len(chosen.prototypes)} prototypes in the order of their choice"
        + (f", and {count} criticisms with their witness." if count else ".")
    )
    return _told(figure, alt, caption, note)


def _places(indices: Tensor, pictures: Array) -> Array:
    """Indices that the pictures take: where they are, or of numpy."""
    return indices.to(pictures.device) if isinstance(pictures, Tensor) else indices.cpu().numpy()


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

    Args:
        image: ``(C, H, W)``, the test image.
        pictures: ``(N, C, H, W)``, the training images.
        result: from ``influence``, whole or its ends only.
        row: the test image's row in the result.
        count: training images at each end, at most as many as the result has.
        labels: a label for each training image.

    Raises:
        ValueError: another number of pictures or labels than influences.
    """
    if isinstance(result, Tensor):
        count = min(count, result.shape[1])
        ends = [result[row].topk(count, largest=largest) for largest in (True, False)]
        size = result.shape[1]
    else:
        count, size = min(count, result.helpful.shape[1]), len(pictures)
        ends = [(result.helpful[row], result.helpful_indices[row]), (result.harmful[row], result.harmful_indices[row])]
    if len(pictures) != size or (labels is not None and len(labels) != size):
        given = f"{len(pictures)} pictures" + (f" and {len(labels)} labels" if labels is not None else "")
        raise ValueError(f"there are {size} influences, but {given}")
    drawn = pictures[_places(torch.cat([indices[:count] for _, indices in ends]), pictures)]
    (test,), drawn, note = _pictures(image[None], drawn)
    figure, axes = _grid(2, count + 1, 1.1, text=1.2)
    _show_image(axes[0][0], test)
    axes[0][0].set_title("test image", fontsize=8)
    axes[1][0].set_axis_off()
    shown = []
    for name, cells, (values, indices), group in zip(
        ("helpful", "harmful"), axes, ends, drawn.split(count), strict=True
    ):
        named = []
        for cell, picture, value, index in zip(cells[1:], group, values.tolist(), indices.tolist(), strict=False):
            _show_image(cell, picture)
            cell.set_title(f"{1000 * value:+.3g}", fontsize=8)
            if labels is not None:
                cell.set_xlabel(labels[index], fontsize=8)
                named.append(f"{labels[index]} {1000 * value:+.3g}")
            else:
                named.append(f"{1000 * value:+.3g}")
        cells[1].set_ylabel(name, fontsize=8)
        shown.append(f"{name} {', '.join(named)}")
    alt = alt or f"A test image and its most influential training images (x 1000): {'; '.join(shown)}."
    return _told(figure, alt, "over a training image: rise of the test loss without it, x 1000", note)


def numbers(tables: Mapping[str, Array], *, columns: int = 3, alt: str | None = None) -> Figure:
    """Small matrices with their numbers written in, red positive, blue negative; NaN stays an empty grey cell.

    Raises:
        ValueError: nothing to draw, or a table that is no matrix.
    """
    tables = {title: _tensor(table) for title, table in tables.items()}
    shapes = {tuple(table.shape) for table in tables.values()}
    if not tables or any(len(shape) != 2 for shape in shapes):
        raise ValueError(f"tables must be matrices (H, W), at least one, got shapes {sorted(shapes)}")
    columns = min(columns, len(tables))
    figure, axes = _grid(-(-len(tables) // columns), columns, 1.6)
    cells = [cell for row in axes for cell in row]
    for cell, (title, table) in zip(cells, tables.items(), strict=False):
        values = table.double()
        scale = 2 * float(values.nan_to_num().abs().max()) or 1  # half of the colours: the numbers stay legible
        cell.set_facecolor("#dddddd")
        cell.imshow(values.numpy(), cmap=DIVERGING, vmin=-scale, vmax=scale)
        for (i, j), value in zip(torch.cartesian_prod(*map(torch.arange, values.shape)), values.flatten(), strict=True):
            cell.text(j, i, "" if value.isnan() else f"{value + 0.0:.3g}", ha="center", va="center", fontsize=10)
        cell.set_title(title, fontsize=9)
    for cell in cells[len(tables) :]:
        cell.set_axis_off()
    figure.alt = alt or "Matrices: " + "; ".join(f"{title} {table.tolist()}" for title, table in tables.items()) + "."
    return figure


@dataclass(frozen=True)
class Slider:
    """Frames under a slider, as HTML that needs no server, no library and no request; a PNG where HTML is not shown."""

    html: str
    png: bytes
    alt: str

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        return {"text/html": self.html, "image/png": self.png, "text/plain": self.alt}, {"image/png": {"alt": self.alt}}


SLIDER_BYTES = 1_000_000
# Without scripts every frame is shown with its value; who asked for less motion gets no play button, only the slider.
SLIDER_STYLE = """<style>
.frames {margin: 0; padding: .5em; background: #fff; color: #222}
.frames img {display: block; max-width: 100%; height: auto}
.frames .controls {display: flex; flex-wrap: wrap; gap: .4em 1em; align-items: center}
.frames input {flex: 1 1 9em; max-width: 20em; min-height: 24px; accent-color: #0072B2}
.frames button {min-width: 4.5em; min-height: 24px; color: #222; background: #eee; border: 1px solid #666}
.frames :is(input, button):focus-visible {outline: 3px solid #0072B2; outline-offset: 2px}
.frames [hidden] {display: none}
@media print {.frames :is(input, button) {display: none}}
@media (prefers-reduced-motion: reduce) {.frames button {display: none}}
</style><noscript><style>
.frames .controls {display: none}
.frames .frame[hidden] {display: block !important}
.frames .frame::before {content: attr(data-value)}
</style></noscript>"""
SLIDER_MOVED = """const all = this.closest('figure').querySelectorAll('.frame'), value = all[this.value].dataset.value;
all.forEach((frame, i) => frame.hidden = i != this.value);
this.setAttribute('aria-valuetext', value);
this.closest('figure').querySelector('output').value = value;"""
SLIDER_PLAYED = """const range = this.closest('figure').querySelector('input');
const stop = () => {clearInterval(this.timer); this.timer = 0; this.textContent = 'Play'};
const show = value => {range.value = value; range.dispatchEvent(new Event('input'))};
if (this.timer) return stop();
if (range.value == range.max) show(0);
this.textContent = 'Stop';
this.timer = setInterval(() => {
  if (this.isConnected && +range.value < +range.max) show(+range.value + 1);
  if (!this.isConnected || range.value == range.max) stop();
}, 1000);"""


def slider(
    frames: Mapping[str | float, Figure],
    *,
    label: str,
    start: str | float | None = None,
    play: bool = False,
    alt: str | None = None,
) -> Slider:
    """Pictures that the reader goes through with a slider, by mouse, by touch or by the arrow keys.

    Args:
        frames: value -> its picture; the values are shown as they are written, in this order.
        label: what the values are, e.g. ``"α"``.
        start: the value shown first, and on paper; None is the first.
        play: add a button that plays the frames, one per second.
        alt: what the frames show together; each frame keeps the alt text of its own.

    Raises:
        ValueError: fewer than two frames, frames of different sizes, no frame ``start``, or more than SLIDER_BYTES.
    """
    pictures = {str(value): figure for value, figure in frames.items()}
    first = next(iter(pictures), "") if start is None else str(start)
    if len(pictures) < 2 or first not in pictures:
        raise ValueError(
            f"slider needs two frames or more, and start among them; got {list(pictures)}, start {start!r}"
        )
    pngs = {value: figure._repr_mimebundle_()[0]["image/png"] for value, figure in pictures.items()}
    sizes = {Image.open(io.BytesIO(png)).size for png in pngs.values()}
    if len(sizes) > 1:
        raise ValueError(f"all frames must have one size in pixels, got {sorted(sizes)}")
    places = list(pictures)
    alt = alt or f"Slider over {label} from {places[0]} to {places[-1]}. At {first}: {pictures[first].alt}"
    (width, height), now = sizes.pop(), html.escape(f"{label} = {first}")
    shown = "".join(
        f'<div class="frame" data-value="{html.escape(f"{label} = {value}")}"{" hidden" * (value != first)}>'
        f'<img src="data:image/webp;base64,{_webp(pngs[value])}" alt="{html.escape(figure.alt)}" '
        f'width="{width}" height="{height}"></div>'
        for value, figure in pictures.items()
    )
    button = f'<button type="button" onclick="{html.escape(SLIDER_PLAYED)}">Play</button>' if play else ""
    text = (
        f'{SLIDER_STYLE}<figure class="frames" role="group" aria-label="{html.escape(alt)}">{shown}'
        f'<div class="controls">{button}<input type="range" min="0" max="{len(places) - 1}" value="{places.index(first)}" '
        f'autocomplete="off" aria-label="{html.escape(label)}" aria-valuetext="{now}" '
        f'oninput="{html.escape(SLIDER_MOVED)}"><output>{now}</output></div></figure>'
    )
    if len(text) > SLIDER_BYTES:
        raise ValueError(
            f"{len(places)} frames take {len(text):,} bytes, more than {SLIDER_BYTES:,}: draw fewer or smaller ones"
        )
    return Slider(text, pngs[first], alt)


def _webp(png: bytes) -> str:
    """The picture in 256 colours, without loss otherwise, a third of its PNG, in base64."""
    small = io.BytesIO()
    colors = Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE).convert("RGB")
    colors.save(small, format="WEBP", lossless=True)
    return base64.b64encode(small.getvalue()).decode()


def retraining(table: "Retraining", *, columns: int = 4, alt: str | None = None) -> Figure:
    """Accuracy after retraining against the fraction replaced, one small plot per method, with one common scale.

    In every plot: the method with its standard deviation over the seeds, the networks that saw the masks alone
    (dashed), and both baselines, the random order and the edge detector, in grey. Methods that failed are left out and
    named below.

    Raises:
        ValueError: no method has a result.
    """
    lines: dict[str, list] = {}
    for row in table.summary():
        lines.setdefault(row.method, []).append(row)
    for rows in lines.values():
        rows.sort(key=lambda row: row.fraction)
    failed = [name for name, rows in lines.items() if not all(row.seeds for row in rows)]
    drawn = [name for name in lines if name not in (*failed, "none", "random", "edges")]
    if not drawn:
        raise ValueError(f"the table has no method to draw beside its baselines; failed: {', '.join(failed) or 'none'}")
    whole = lines["none"]
    columns = min(columns, len(drawn))
    height = -(-len(drawn) // columns)
    figure = Figure(figsize=(1.9 * columns + 0.5, 1.7 * height + 0.9), layout="constrained")
    axes = figure.subplots(height, columns, squeeze=False, sharex=True, sharey=True)

    def draw(axis: Axes, name: str, label: str, **style) -> None:
        rows = whole + lines[name]
        axis.plot([row.fraction for row in rows], [row.accuracy for row in rows], label=label, **style)

    for i, (axis, name) in enumerate(zip(axes.flat, drawn, strict=False)):
        rows = [row for row in whole + lines[name] if row.seeds]
        draw(axis, "random", "random order", color="#777777", linestyle="-", linewidth=1.2)
        draw(axis, "edges", "edge detector", color="#777777", linestyle=":", linewidth=1.6)
        draw(axis, name, "method", color=COLORS[0], marker="o", markersize=3)
        if all(row.seeds > 1 for row in rows):
            axis.fill_between(
                [row.fraction for row in rows],
                [row.accuracy - row.spread for row in rows],
                [row.accuracy + row.spread for row in rows],
                color=COLORS[0], alpha=0.2, linewidth=0,
            )  # fmt: skip
        alone = lines[name]
        axis.plot(
            [row.fraction for row in alone], [row.mask_only for row in alone], label="masks alone", color=COLORS[1],
            linestyle="--", marker="s", markersize=3,
        )  # fmt: skip
        _label(axis, "", "accuracy" if i % columns == 0 else "")
        axis.set_title(name.replace("_", " "), fontsize=8)
    for axis in axes.flat[len(drawn) :]:
        axis.set_axis_off()
    for axis in axes.flat[max(0, len(drawn) - columns) : len(drawn)]:  # the lowest of each column, also in a short row
        axis.tick_params(labelbottom=True)
    axes[0][0].set_ylim(bottom=0)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(4, 2 * columns), fontsize=8, frameon=False)
    _caption(
        figure,
        f"fraction of the pixels replaced, the {table.replaced} first; band: standard deviation over {whole[0].seeds} seeds"
        + (f"; failed: {', '.join(failed)}" if failed else ""),
    )
    parts = ", ".join(f"{name} {100 * lines[name][-1].accuracy:.0f} %" for name in ("random", "edges", *drawn))
    figure.alt = alt or (
        f"Test accuracy after retraining without the {table.replaced} pixels, one plot per method beside a random order, "
        f"an edge detector and networks that saw the masks alone. With {100 * lines['random'][-1].fraction:.0f} % "
        f"replaced: {parts}."
    )
    return figure


def coherence(results: Mapping[str, "Coherence"], *, alt: str | None = None) -> Figure:
    """The three scores of every method, each mean with its 95 % bootstrap interval and the chance level dashed."""
    scores = ("pointing_game", "relevance_mass", "relevance_rank")
    columns = {score: {name: getattr(result, score) for name, result in results.items()} for score in scores}
    chance = torch.cat([torch.zeros(0), *(result.chance.cpu() for result in results.values())]).mean().item()
    return _intervals(columns, dict.fromkeys(scores, ("chance", chance)), "Coherence", alt)


def class_sensitivity(results: Mapping[str, "ClassSensitivity"], *, alt: str | None = None) -> Figure:
    """Similarity of the maps of two classes, signed and absolute, by method; 1 (dashed) is a map that ignores the class.

    Where masks were given, the share of relevance that moves to the right object stands beside; there, 0 is such a map.
    """
    names = ["spearman", "spearman_abs", "ssim", "ssim_abs"]
    blind = dict.fromkeys(names, ("a map that ignores the class", 1.0))
    if all(result.moved is not None for result in results.values()):
        blind["moved"] = ("a map that ignores the class", 0.0)
    columns = {part: {name: getattr(result, part) for name, result in results.items()} for part in blind}
    return _intervals(columns, blind, "Similarity of the maps of two classes", alt)


def _intervals(
    columns: dict[str, dict[str, Tensor]], references: dict[str, tuple[str, float]], title: str, alt: str | None
) -> Figure:
    """One plot per column with one row per method: mean and interval; values that are NaN are left out and counted."""
    from .evaluate.coherence import bootstrap

    methods = list(next(iter(columns.values())))
    if not methods:
        raise ValueError("there is no result to draw")
    figure = Figure(figsize=(1.2 + 1.5 * len(columns), 0.9 + 0.22 * len(methods)), layout="constrained")
    axes = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    texts, undefined = [], []
    for axis, (column, values) in zip(axes, columns.items(), strict=True):
        means = []
        for place, (name, numbers) in enumerate(values.items()):
            defined = numbers[~numbers.isnan()]
            if len(defined) < len(numbers):
                undefined.append(f"{name}, {column}: {len(numbers) - len(defined)} of {len(numbers)}")
            if len(defined) < 2:
                continue
            mean, low, high = bootstrap(defined)
            axis.errorbar(mean, place, xerr=[[mean - low], [high - mean]], fmt="o", color=COLORS[0], markersize=4)
            means.append(f"{name} {mean:.2f}")
        label, level = references[column]
        axis.axvline(level, color=COLORS[1], linestyle="--", linewidth=1)
        _label(axis, column.replace("_", " "), "")
        texts.append(f"{column} ({label} {level:.2f}): {', '.join(means)}")
    axes[0].set_yticks(range(len(methods)), [name.replace("_", " ") for name in methods])
    axes[0].invert_yaxis()
    note = f"mean and 95 % bootstrap interval; dashed: {next(iter(references.values()))[0]}"
    _caption(figure, note + (f"; undefined: {'; '.join(undefined)}" if undefined else ""))
    figure.alt = alt or f"{title}. {'. '.join(texts)}."
    return figure


def model_randomisation(
    results: Mapping[str, "ModelRandomisation"], *, part: str = "spearman", alt: str | None = None
) -> Figure:
    """Similarity to the original map, mean over the images, while layers are randomised from the top.

    ``part`` is ``"spearman"``, ``"spearman_abs"``, ``"ssim"`` or ``"ssim_abs"``.

    Raises:
        ValueError: results of different layers, or none.
    """
    layers = {result.layers for result in results.values()}
    if len(layers) != 1:
        raise ValueError(f"the results must be of one network, got layers {sorted(layers)}")
    lines = {
        name.replace("_", " "): [1.0, *getattr(result, part).nanmean(1).tolist()] for name, result in results.items()
    }
    (names,) = layers
    ends = ", ".join(f"{name} {line[1]:.2f} and {line[-1]:.2f}" for name, line in lines.items())
    figure = curves(
        range(len(names) + 1),
        lines,
        xlabel="layers randomised, from the top",
        ylabel=f"similarity ({part.replace('_', ' ')})",
        alt=alt or f"Similarity to the original map after the first and after all {len(names)} layers: {ends}.",
    )
    figure.axes[0].set_xticks(range(len(names) + 1), ["none", *names])
    return figure


def selectivity(results: Mapping[str, "Selectivity"], *, alt: str | None = None) -> Figure:
    """The score while patches are removed, mean over the images; random (grey) and optimal order where they are known.

    Raises:
        ValueError: results of different steps, orders or scores, or none.
    """
    kinds = {(result.order, result.score, len(result.removed)) for result in results.values()}
    if len(kinds) != 1:
        raise ValueError(f"the results must have one order, score and number of steps, got {sorted(kinds)}")
    ((order, score, _),) = kinds
    drawn = {name.replace("_", " "): result for name, result in results.items()}
    for beside in ("random", "optimal"):
        known = [getattr(result, beside) for result in results.values() if getattr(result, beside) is not None]
        if known:
            drawn[f"{beside} order"] = known[0]
    removed = next(iter(results.values())).removed.cpu()
    areas = ", ".join(f"{name} {result.area.mean():.3g}" for name, result in drawn.items())
    figure = curves(
        100 * removed,
        {name: result.curve.mean(0) for name, result in drawn.items()},
        xlabel=f"patches removed, {order.replace('_', ' ')} (%)",
        ylabel=score,
        alt=alt
        or f"Mean {score} while patches are removed, {order.replace('_', ' ')}. Areas under the curves: {areas}.",
    )
    for line in figure.axes[0].lines:
        if line.get_label() == "random order":
            line.set(color="#888888", linestyle=":")
    _legend(figure, len(drawn))  # again, for the changed line
    return figure
