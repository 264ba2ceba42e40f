"""Every picture of the book: images, heatmaps, curves and bars, colour-blind safe and with alt text.

Each function returns a :class:`Figure`, a matplotlib figure that a notebook shows as a PNG with its alt text.
Signed attributions use a diverging map with white at zero (red positive, blue negative), magnitudes a
sequential one; what the colours clip is written under the picture.
"""

import io
import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.figure
import torch
from matplotlib.axes import Axes
from torch import Tensor

DIVERGING, SEQUENTIAL = "RdBu_r", "magma"
# Okabe & Ito's palette, told apart under every common colour-vision deficiency.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DPI = 110


class Figure(matplotlib.figure.Figure):
    """A matplotlib figure that carries its alt text; ``savefig`` and all else work as usual."""

    alt = ""

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        png = io.BytesIO()
        self.savefig(png, format="png", dpi=DPI, facecolor="white", metadata={"Description": self.alt})
        return {"image/png": png.getvalue(), "text/plain": self.alt}, {"image/png": {"alt": self.alt}}


def heatmap(
    attribution: Tensor,
    image: Tensor | None = None,
    *,
    title: str = "attribution",
    percentile: float = 99.5,
    alt: str | None = None,
) -> Figure:
    """One attribution as a heatmap, beside its image if there is one.

    Args:
        attribution: ``(C, H, W)`` or ``(H, W)``; channels are summed.
        image: ``(C, H, W)`` in [0, 1] with one or three channels.
        percentile: colours clip at this percentile of the map's magnitude.
        alt: the alt text; None describes the layout.

    Raises:
        ValueError: a shape other than the above, NaN, or a percentile outside (0, 100].
    """
    images = None if image is None else image[None]
    return panel(images, {title: attribution[None]}, percentile=percentile, alt=alt)


def panel(
    images: Tensor | None,
    attributions: Mapping[str, Tensor],
    *,
    rows: Sequence[str] | None = None,
    percentile: float = 99.5,
    size: float = 1.7,
    alt: str | None = None,
) -> Figure:
    """A table of heatmaps: one row per image, one column per attribution, each map with its own scale.

    Args:
        images: ``(N, C, H, W)`` in [0, 1], the first column; None leaves it out.
        attributions: title -> ``(N, C, H, W)`` or ``(N, H, W)``; channels are summed.
        rows: a label for each row.
        percentile: colours clip at this percentile of each map's magnitude.
        size: inches of one cell.
        alt: the alt text; None describes the layout.

    Raises:
        ValueError: batches of different lengths, NaN, a percentile outside (0, 100], or nothing to draw.
    """
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile must lie in (0, 100], got {percentile}")
    maps = {title: _map(a, title) for title, a in attributions.items()}
    count = {len(a) for a in maps.values()} | ({len(images)} if images is not None else set())
    if len(count) != 1 or 0 in count or (rows is not None and len(rows) not in count):
        raise ValueError(f"images, attributions and rows must have one common length above 0, got {sorted(count)}")
    titles = (["image"] if images is not None else []) + list(maps)
    figure, axes = _grid(count.pop(), len(titles), size)
    for i, row in enumerate(axes):
        cells = list(row)
        if images is not None:
            _show_image(cells.pop(0), images[i])
        for cell, values in zip(cells, maps.values(), strict=True):
            _show_map(cell, values[i], percentile)
        if rows is not None:
            row[0].set_ylabel(rows[i], fontsize=9)
    for cell, title in zip(axes[0], titles, strict=True):
        cell.set_title(title, fontsize=9)
    signed = {_signed(a[i]) for a in maps.values() for i in range(len(axes))}
    keys = ["red positive, blue negative, white zero"] * (True in signed) + ["dark zero, bright large"] * (
        False in signed
    )
    _caption(figure, f"{'; '.join(keys)}; each map's colours clip at its {percentile:g}th percentile")
    names = rows if rows is not None else [f"image {i + 1}" for i in range(len(axes))]
    figure.alt = alt or f"Heatmaps. Rows: {', '.join(names)}. Columns: {', '.join(titles)}."
    return figure


def images(
    pictures: Tensor,
    titles: Sequence[str] | None = None,
    *,
    columns: int = 8,
    size: float = 1.4,
    alt: str | None = None,
) -> Figure:
    """A grid of images ``(N, C, H, W)`` in [0, 1], each with its title.

    Raises:
        ValueError: not a batch of images with one or three channels, or another number of titles.
    """
    if pictures.dim() != 4 or len(pictures) == 0:
        raise ValueError(f"pictures must be a batch (N, C, H, W), got shape {tuple(pictures.shape)}")
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"{len(pictures)} pictures need as many titles, got {len(titles)}")
    columns = min(columns, len(pictures))
    figure, axes = _grid(-(-len(pictures) // columns), columns, size)
    cells = [cell for row in axes for cell in row]
    for i, cell in enumerate(cells):
        if i < len(pictures):
            _show_image(cell, pictures[i])
            cell.set_title(titles[i] if titles is not None else "", fontsize=9)
        else:
            cell.set_axis_off()
    figure.alt = alt or "Images" + (f": {', '.join(titles)}." if titles is not None else ".")
    return figure


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
    figure = Figure(figsize=(5.4, 3.2), layout="constrained")
    axis = figure.subplots()
    styles = ("-", "--", "-.", ":")
    x = torch.as_tensor(x).cpu().numpy()
    for k, (name, y) in enumerate(lines.items()):
        y = torch.as_tensor(y).cpu().numpy()
        color, marker = COLORS[k % len(COLORS)], "os^Dvx*"[k % 7] if len(y) <= 30 else None
        axis.plot(x, y, label=name, color=color, marker=marker, markersize=4, linestyle=styles[k % 4])
        if bands and name in bands:
            half = torch.as_tensor(bands[name]).cpu().numpy()
            axis.fill_between(x, y - half, y + half, color=color, alpha=0.2, linewidth=0)
    _label(axis, xlabel, ylabel)
    if len(lines) > 1:
        axis.legend(fontsize=8, frameon=False)
    figure.alt = alt or f"Curves of {', '.join(lines)}: {ylabel} against {xlabel}."
    return figure


def bars(
    values: Mapping[str, float], *, xlabel: str, reference: tuple[str, float] | None = None, alt: str | None = None
) -> Figure:
    """Named horizontal bars with their values; ``reference`` is a dashed line with its name, e.g. chance."""
    figure = Figure(figsize=(5.4, 0.6 + 0.32 * len(values)), layout="constrained")
    axis = figure.subplots()
    drawn = axis.barh(list(values), list(values.values()), color=COLORS[0])
    axis.bar_label(drawn, fmt="%.3g", padding=3, fontsize=8)
    axis.invert_yaxis()
    axis.margins(x=0.12)
    if reference is not None:
        axis.axvline(reference[1], color=COLORS[1], linestyle="--", label=reference[0])
        axis.legend(fontsize=8, frameon=False)
    _label(axis, xlabel, "")
    figure.alt = alt or f"{xlabel}: " + ", ".join(f"{name} {value:.3g}" for name, value in values.items()) + "."
    return figure


def _grid(rows: int, columns: int, size: float) -> tuple[Figure, list[list[Axes]]]:
    figure = Figure(figsize=(size * columns, size * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for cell in axes.flat:
        cell.set(xticks=[], yticks=[])
        for spine in cell.spines.values():
            spine.set_color("#bbbbbb")
    return figure, axes.tolist()


def _label(axis: Axes, xlabel: str, ylabel: str) -> None:
    axis.set_xlabel(xlabel, fontsize=9)
    axis.set_ylabel(ylabel, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _caption(figure: Figure, text: str) -> None:
    figure.supxlabel(textwrap.fill(text, int(16 * figure.get_figwidth())), fontsize=7.5, color="#444444")


def _show_image(cell: Axes, image: Tensor) -> None:
    image = image.detach().cpu().clamp(0, 1)
    if image.dim() != 3 or len(image) not in (1, 3):
        raise ValueError(f"an image must be (1, H, W) or (3, H, W), got shape {tuple(image.shape)}")
    cell.imshow(image.permute(1, 2, 0).squeeze(2).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def _map(attribution: Tensor, title: str) -> Tensor:
    """The attributions ``(N, H, W)`` with the channels summed, on the CPU."""
    values = attribution.detach().float().cpu()
    if values.dim() not in (3, 4):
        raise ValueError(f"attribution {title!r} must be (N, C, H, W) or (N, H, W), got {tuple(values.shape)}")
    if not torch.isfinite(values).all():
        raise ValueError(f"attribution {title!r} holds NaN or infinite values")
    return values.sum(1) if values.dim() == 4 else values


def _signed(values: Tensor) -> bool:
    """Whether a map takes the diverging colours: it has negative values, or nothing at all to show."""
    return bool((values < 0).any() or (values == 0).all())


def _show_map(cell: Axes, values: Tensor, percentile: float) -> None:
    magnitude = values.abs().flatten()
    # A sparse map has its percentile at zero: then the maximum sets the scale.
    scale = float(torch.quantile(magnitude, percentile / 100)) or float(magnitude.max())
    if scale == 0:
        cell.text(0.5, 0.5, "all zero", ha="center", va="center", transform=cell.transAxes, fontsize=8)
    signed = _signed(values)
    cell.imshow(
        values.numpy(),
        cmap=DIVERGING if signed else SEQUENTIAL,
        vmin=-(scale or 1) if signed else 0,
        vmax=scale or 1,
        interpolation="nearest",
    )
