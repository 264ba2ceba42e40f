"""Pictures of anything: images, curves, bars, small matrices."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .base import (
    COLORS,
    DIVERGING,
    Array,
    Figure,
    add_legend,
    as_array,
    as_images,
    as_numpy,
    as_tensor,
    count_lines,
    describe,
    grid,
    label_axes,
    show_image,
    wrap,
)


def images(
    pictures: Array,
    titles: Sequence[str] | None = None,
    *,
    rows: Sequence[str] | None = None,
    columns: int = 8,
    size: float = 1.4,
    alt: str | None = None,
) -> Figure:
    """A grid of images, each with its title, or each row with its label.

    Args:
        pictures: ``(N, C, H, W)`` with one or three channels, any finite values; what leaves [0, 1] is shown by one
            linear scaling of all images, and the caption says what is black and what is white.
        titles: one for each image.
        rows: one label for each row.
        columns: images in a row.
        size: inches of one image; a grid wider than the page's column shrinks to it.
        alt: the alt text; None lists the labels and titles.

    Raises:
        ValueError: not a batch of finite images with one or three channels, or another number of titles or rows.

    Example:
        >>> import torch
        >>> from interp_lab import plot
        >>> plot.images(torch.rand(4, 3, 8, 8), ["a", "b", "c", "d"], columns=2).alt
        'Images: a, b, c, d.'
    """
    pictures = as_array(pictures)
    if len(pictures.shape) != 4 or len(pictures) == 0:
        raise ValueError(f"pictures must be a batch (N, C, H, W), got shape {tuple(pictures.shape)}")
    pictures, note = as_images(pictures)
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"{len(pictures)} pictures need as many titles, got {len(titles)}")
    columns = min(columns, len(pictures))
    height = -(-len(pictures) // columns)
    if rows is not None and len(rows) != height:
        raise ValueError(f"{len(pictures)} pictures in {columns} columns need {height} rows, got {len(rows)}")
    named = ", ".join([*(rows or ()), *(titles or ())])
    shown = wrap(titles or [""] * len(pictures), columns, size)
    lines = sum(count_lines(shown[i : i + columns]) for i in range(0, len(shown), columns))
    figure, axes = grid(height, columns, size, text=0.1 + 0.17 * lines)
    cells = [cell for row in axes for cell in row]
    for i, cell in enumerate(cells):
        if i < len(pictures):
            show_image(cell, pictures[i])
            cell.set_title(shown[i], fontsize=9)
        else:
            cell.set_axis_off()
    for row, label in zip(axes, rows or (), strict=False):
        row[0].set_ylabel(label, fontsize=9, rotation=0, ha="right", va="center")
    return describe(figure, alt or (f"Images: {named}." if named else "Images."), "", note)


def curves(
    x: Sequence[float] | Tensor | Mapping[str, Sequence[float] | Tensor],
    lines: Mapping[str, Sequence[float] | Tensor],
    *,
    xlabel: str,
    ylabel: str,
    bands: Mapping[str, Sequence[float] | Tensor] | None = None,
    alt: str | None = None,
) -> Figure:
    """Named lines, told apart by colour, marker and dash.

    Args:
        x: n numbers, or name -> n numbers where every line has its own.
        lines: name -> n numbers.
        xlabel: what x is.
        ylabel: what the lines are.
        bands: name -> n half-widths of a band around the line of that name, e.g. its standard deviation.
        alt: the alt text; None names the lines and both axes.

    Raises:
        ValueError: a line or a band that is not as long as its x.

    Example:
        >>> from interp_lab import plot
        >>> accuracies = {"train": [0.5, 0.8, 0.9], "test": [0.5, 0.7, 0.7]}
        >>> plot.curves([0, 1, 2], accuracies, xlabel="epoch", ylabel="accuracy").alt
        'Curves of train, test: accuracy against epoch.'
    """
    figure = Figure(figsize=(5.4, 3 + 0.2 * math.ceil(len(lines) / 3)), layout="constrained")
    axis = figure.subplots()
    styles = ("-", "--", "-.", ":")
    places = {name: as_numpy(x[name] if isinstance(x, Mapping) else x) for name in lines}
    for k, (name, line) in enumerate(lines.items()):
        y = as_numpy(line)
        color, marker = COLORS[k % len(COLORS)], "os^Dvx*"[k % 7] if len(y) <= 30 else None
        axis.plot(places[name], y, label=name, color=color, marker=marker, markersize=4, linestyle=styles[k % 4])
        if bands and name in bands:
            half = as_numpy(bands[name])
            axis.fill_between(places[name], y - half, y + half, color=color, alpha=0.2, linewidth=0)
    if all((each == each.round()).all() for each in places.values()):
        locator: Any = axis.xaxis.get_major_locator()
        locator.set_params(integer=True)
    label_axes(axis, xlabel, ylabel)
    add_legend(figure, len(lines))
    figure.alt = alt or f"Curves of {', '.join(lines)}: {ylabel} against {xlabel}."
    return figure


def bars(
    values: Mapping[str, float], *, xlabel: str, reference: tuple[str, float] | None = None, alt: str | None = None
) -> Figure:
    """Named horizontal bars with their values, from top to bottom.

    Args:
        values: name -> length of the bar.
        xlabel: what the values are.
        reference: name and value of a dashed line, e.g. ``("chance", 0.1)``.
        alt: the alt text; None lists the names and values.

    Example:
        >>> from interp_lab import plot
        >>> plot.bars({"saliency": 0.61, "lrp": 0.82}, xlabel="relevance mass", reference=("chance", 0.25)).alt
        'relevance mass: saliency 0.61, lrp 0.82.'
    """
    figure = Figure(figsize=(5.4, 0.6 + 0.32 * len(values)), layout="constrained")
    axis = figure.subplots()
    values = {name: value.item() if isinstance(value, Tensor) else float(value) for name, value in values.items()}
    drawn = axis.barh(list(values), list(values.values()), color=COLORS[0])
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # the reference may run behind a number
    axis.bar_label(drawn, fmt="%.3g", padding=3, fontsize=8, bbox=ground)
    axis.invert_yaxis()
    axis.margins(x=0.12, y=0.5 / len(values))
    if reference is not None:
        axis.axvline(reference[1], color=COLORS[1], linestyle="--", label=reference[0], zorder=1.5)
        figure.legend(loc="outside upper center", fontsize=8, frameon=False)
    label_axes(axis, "", "")
    figure.supxlabel(
        xlabel, fontsize=9
    )  # in the middle of the figure, which long names can leave much wider than the axis
    figure.alt = alt or f"{xlabel}: " + ", ".join(f"{name} {value:.3g}" for name, value in values.items()) + "."
    return figure


def numbers(tables: Mapping[str, Array], *, columns: int = 3, alt: str | None = None) -> Figure:
    """Small matrices with their numbers written in, red positive, blue negative; NaN stays an empty grey cell.

    Args:
        tables: title -> ``(H, W)``; every matrix has its own scale of colours.
        columns: matrices in a row.
        alt: the alt text; None lists the titles and numbers.

    Raises:
        ValueError: nothing to draw, a table that is no matrix, or no real numbers.

    Example:
        >>> import torch
        >>> from interp_lab import plot
        >>> plot.numbers({"weight": torch.tensor([[1.0, -0.5]]), "input": torch.tensor([[2.0, 4.0]])}).alt
        'Matrices: weight [[1.0, -0.5]]; input [[2.0, 4.0]].'
    """
    tables = {title: as_tensor(table) for title, table in tables.items()}
    shapes = {tuple(table.shape) for table in tables.values()}
    if not tables or any(len(shape) != 2 for shape in shapes):
        raise ValueError(f"tables must be matrices (H, W), at least one, got shapes {sorted(shapes)}")
    columns = min(columns, len(tables))
    figure, axes = grid(-(-len(tables) // columns), columns, 1.6)
    cells = [cell for row in axes for cell in row]
    for cell, (title, table) in zip(cells, tables.items(), strict=False):
        values = torch.as_tensor(table).double()
        scale = 2 * float(values.nan_to_num().abs().max()) or 1  # half of the colours: the numbers stay legible
        cell.set_facecolor("#dddddd")
        cell.imshow(values.numpy(), cmap=DIVERGING, vmin=-scale, vmax=scale, interpolation_stage="data")
        for (i, j), value in zip(torch.cartesian_prod(*map(torch.arange, values.shape)), values.flatten(), strict=True):
            cell.text(j, i, "" if value.isnan() else f"{value + 0.0:.3g}", ha="center", va="center", fontsize=10)
        cell.set_title(title, fontsize=9)
    for cell in cells[len(tables) :]:
        cell.set_axis_off()
    figure.alt = alt or "Matrices: " + "; ".join(f"{title} {table.tolist()}" for title, table in tables.items()) + "."
    return figure


def arrows(
    ends: Mapping[str, Sequence[float] | Tensor],
    *,
    start: Sequence[float] | Tensor = (0.0, 0.0),
    zero: tuple[Sequence[float] | Tensor, float] | None = None,
    limits: tuple[float, float] = (-1.0, 1.0),
    size: float = 3.2,
    alt: str | None = None,
) -> Figure:
    """Arrows in the plane from one point, each with its name at its end.

    Args:
        ends: name -> where the arrow ends, ``(2,)``.
        start: where all arrows begin, ``(2,)``.
        zero: w and b: where :math:`w \\cdot x + b = 0` is drawn as a dashed line.
        limits: the ends of both axes.
        size: inches of the figure's sides.
        alt: the alt text; None lists the ends.

    Raises:
        ValueError: no arrow, or a point that is not in the plane.

    Example:
        >>> from interp_lab import plot
        >>> plot.arrows({"first": (1.0, 0.0), "second": (0.0, 0.5)}).alt
        'Arrows from (0, 0) to (1, 0): first; (0, 0.5): second.'
    """
    begin, points = as_numpy(start), {name: as_numpy(end) for name, end in ends.items()}
    if not points or any(point.shape != (2,) for point in (begin, *points.values())):
        raise ValueError(f"arrows need a start and one end or more of shape (2,), got {begin.shape}, {list(points)}")
    figure = Figure(figsize=(size, size), layout="constrained")
    axis = figure.subplots()
    for place in (axis.axhline, axis.axvline):
        place(0, color="#dddddd", linewidth=1, zorder=0)
    if zero is not None:
        w, b = as_numpy(zero[0]), float(zero[1])
        foot, along = -b * w / (w @ w), (-w[1], w[0])
        axis.axline(foot, foot + along, color="#777777", linestyle="--", linewidth=1.2)
    for i, (name, end) in enumerate(points.items()):
        color = COLORS[i % len(COLORS)]
        axis.annotate(
            "", tuple(end), tuple(begin), arrowprops={"arrowstyle": "-|>", "color": color, "shrinkA": 0, "shrinkB": 0}
        )
        away = (end - begin) / (((end - begin) ** 2).sum() ** 0.5 or 1)
        axis.annotate(
            name,
            tuple(end),
            tuple(9 * away),
            textcoords="offset points",
            color=color,
            fontsize=9,
            ha="center",
            va="center",
        )
    axis.set(xlim=limits, ylim=limits, aspect="equal")
    label_axes(axis, "", "")
    told = "; ".join(f"({end[0]:.3g}, {end[1]:.3g}): {name}" for name, end in points.items())
    figure.alt = alt or f"Arrows from ({begin[0]:.3g}, {begin[1]:.3g}) to {told}."
    return figure
