"""What every picture is made of: the figure with its alt text, colours, cells, captions, and arrays of any kind."""

import io
import math
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib.figure
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

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

    def levels(self) -> np.ndarray:
        """The picture as it is shown, red, green and blue in bytes ``(H, W, 3)``; ``savefig`` would draw it twice."""
        own = {"dpi": self.get_dpi(), "facecolor": self.get_facecolor()}
        self.set(dpi=DPI, facecolor="white")
        canvas = FigureCanvasAgg(self)
        canvas.draw()
        self.set(**own)
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        return {"image/png": as_png(self.levels(), self.alt), "text/plain": self.alt}, {"image/png": {"alt": self.alt}}


def as_png(levels: np.ndarray, alt: str) -> bytes:
    png, described = io.BytesIO(), PngInfo()
    described.add_text("Description", alt)
    Image.fromarray(levels).save(png, format="PNG", dpi=(DPI, DPI), pnginfo=described)
    return png.getvalue()


def grid(rows: int, columns: int, size: float, text: float = 0.6) -> tuple[Figure, list[list[Axes]]]:
    """Cells of ``size`` inches, or what the page's column has for them, and ``text`` inches of height for the words."""
    size = min(size, WIDTH / columns)
    figure = Figure(figsize=(size * columns, size * rows + text), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for cell in axes.flat:
        cell.set(xticks=[], yticks=[])
        for spine in cell.spines.values():
            spine.set_color("#bbbbbb")
    return figure, axes.tolist()


def add_legend(figure: Figure, lines: int) -> None:
    """One legend above the axes, in place of what was there; a single line needs none."""
    figure.legends.clear()
    if lines > 1:
        figure.legend(loc="outside upper center", ncols=min(3, lines), fontsize=8, frameon=False)


def wrap(titles: Sequence[str], columns: int, size: float) -> list[str]:
    """The titles in lines that are no longer than a cell is wide."""
    length = max(6, int(12.5 * min(size, WIDTH / columns)))
    return ["\n".join(textwrap.fill(line, length) for line in title.split("\n")) for title in titles]


def count_lines(titles: Sequence[str]) -> int:
    return max(title.count("\n") + bool(title) for title in titles)


def label_axes(axis: Axes, xlabel: str, ylabel: str) -> None:
    axis.set_xlabel(xlabel, fontsize=9)
    axis.set_ylabel(ylabel, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def write_caption(figure: Figure, text: str) -> None:
    figure.supxlabel(textwrap.fill(text, int(16 * figure.get_figwidth())), fontsize=7.5, color="#444444")


def describe(figure: Figure, alt: str, caption: str, note: str) -> Figure:
    """The figure with its alt text and what stands under it; the note on its images comes into both."""
    if caption or note:
        write_caption(figure, "; ".join(filter(None, (caption, note))))
    figure.alt = f"{alt} ({note})" if note else alt
    return figure


def as_numpy(values: Sequence[float] | Tensor) -> np.ndarray:
    values = torch.as_tensor(values).detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()  # numpy has no bfloat16


def as_array(values: Array) -> Array:
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


def as_tensor(values: Array) -> Tensor:
    """A detached tensor on the CPU; channels that a batch of numpy arrays has last come first."""
    values = as_array(values)
    if isinstance(values, np.ndarray):
        if values.ndim == 4 and values.shape[3] in (1, 3, 4) and values.shape[1] not in (1, 3):
            values = np.moveaxis(values, 3, 1)
        values = torch.from_numpy(np.ascontiguousarray(values))
    return values.detach().cpu()


def as_images(*batches: Array) -> tuple:
    """Every batch as images ``(N, C, H, W)`` in [0, 1], all by one linear scaling, and a note that tells of it."""
    tensors = [as_tensor(batch) for batch in batches]
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


def show_image(cell: Axes, image: Tensor) -> None:
    picture = image.permute(1, 2, 0).squeeze(2).numpy()
    cell.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation=_interpolation(image))


def as_maps(attribution: Array, title: str) -> Tensor:
    """The attributions ``(N, H, W)`` with the channels summed, on the CPU."""
    values = as_tensor(attribution)
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


def show_map(cell: Axes, values: Tensor, *, signed: bool, percentile: float = 100, under: Tensor | None = None) -> None:
    magnitude = values.abs()
    # A sparse map has its percentile at zero: then the maximum sets the scale.
    scale = float(np.quantile(magnitude.numpy(), percentile / 100)) or float(magnitude.max())
    if scale == 0:
        cell.text(0.5, 0.5, "all zero", ha="center", va="center", transform=cell.transAxes, fontsize=8)
    style: dict[str, Any] = {}
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
        interpolation_stage="data",  # of colours, the mean of red and blue would be one that is not on the scale
        **style,
    )


def _interpolation(picture: Tensor) -> str:
    """Small pictures show their pixels; large ones, drawn smaller than they are, would lose some of them."""
    return "nearest" if picture.shape[-1] <= 128 else "antialiased"


def as_indices(indices: Tensor, pictures: Array) -> Array:
    """Indices that the pictures take: where they are, or of numpy."""
    return indices.to(pictures.device) if isinstance(pictures, Tensor) else indices.cpu().numpy()
