"""A slider over pictures, which needs no server: its HTML, its style and what its two controls do."""

import base64
import html
import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .base import Figure, as_png


@dataclass(frozen=True)
class Slider:
    """Frames under a slider, as HTML that needs no server, no library and no request; a PNG where HTML is not shown."""

    html: str
    png: bytes
    alt: str

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        return {"text/html": self.html, "image/png": self.png, "text/plain": self.alt}, {"image/png": {"alt": self.alt}}


MAX_BYTES = 2_000_000
# Without scripts every frame is shown with its value; who asked for less motion gets no play button, only the slider.
STYLE = """<style>
.frames {margin: 0; padding: .5em; background: #fff; color: #222}
.frames img {display: block; max-width: 100%; height: auto}
.frames .controls {display: flex; flex-wrap: wrap; gap: .4em 1em; align-items: center}
.frames input {flex: 1 1 9em; max-width: 20em; min-height: 24px; accent-color: #0072B2}
.frames .controls button {min-width: 4.5em; min-height: 24px; color: #222; background: #eee; border: 1px solid #666}
.frames :is(input, button):focus-visible {outline: 3px solid #0072B2; outline-offset: 2px}
.frames [hidden] {display: none}
@media print {.frames .controls :is(input, button) {display: none}}
@media (prefers-reduced-motion: reduce) {.frames .controls button {display: none}}
</style><noscript><style>
.frames .controls {display: none}
.frames .frame[hidden] {display: block !important}
.frames .frame::before {content: attr(data-value)}
</style></noscript>"""
ON_MOVE = """const all = this.closest('figure').querySelectorAll('.frame'), value = all[this.value].dataset.value;
all.forEach((frame, i) => frame.hidden = i != this.value);
this.setAttribute('aria-valuetext', value);
this.closest('figure').querySelector('output').value = value;"""
ON_PLAY = """const range = this.closest('figure').querySelector('input');
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
        ValueError: fewer than two frames, frames of different sizes, no frame ``start``, or more than two million bytes.

    Example:
        >>> import torch
        >>> from interp_lab import plot
        >>> frames = {n: plot.heatmap(torch.eye(4).roll(n, 1), alt=f"moved by {n}") for n in range(3)}
        >>> plot.slider(frames, label="shift", start=1).alt
        'Slider over shift from 0 to 2. At 1: moved by 1'
    """
    pictures = {str(value): figure for value, figure in frames.items()}
    first = next(iter(pictures), "") if start is None else str(start)
    if len(pictures) < 2 or first not in pictures:
        raise ValueError(
            f"slider needs two frames or more, and start among them; got {list(pictures)}, start {start!r}"
        )
    levels = {value: figure.levels() for value, figure in pictures.items()}
    sizes = {(picture.shape[1], picture.shape[0]) for picture in levels.values()}
    if len(sizes) > 1:
        raise ValueError(f"all frames must have one size in pixels, got {sorted(sizes)}")
    places = list(pictures)
    alt = alt or f"Slider over {label} from {places[0]} to {places[-1]}. At {first}: {pictures[first].alt}"
    (width, height), now = sizes.pop(), html.escape(f"{label} = {first}")
    shown = "".join(
        f'<div class="frame" data-value="{html.escape(f"{label} = {value}")}"{" hidden" * (value != first)}>'
        f'<img src="data:image/webp;base64,{_webp(levels[value])}" alt="{html.escape(figure.alt)}" '
        f'width="{width}" height="{height}"></div>'
        for value, figure in pictures.items()
    )
    button = f'<button type="button" onclick="{html.escape(ON_PLAY)}">Play</button>' if play else ""
    text = (
        f'{STYLE}<figure class="frames" role="group" aria-label="{html.escape(alt)}">{shown}'
        f'<div class="controls">{button}<input type="range" min="0" max="{len(places) - 1}" value="{places.index(first)}" '
        f'autocomplete="off" aria-label="{html.escape(label)}" aria-valuetext="{now}" '
        f'oninput="{html.escape(ON_MOVE)}"><output>{now}</output></div></figure>'
    )
    if len(text) > MAX_BYTES:
        raise ValueError(
            f"{len(places)} frames take {len(text):,} bytes, more than {MAX_BYTES:,}: draw fewer or smaller ones"
        )
    return Slider(text, as_png(levels[first], pictures[first].alt), alt)


def _webp(levels: np.ndarray) -> str:
    """The picture in base64, half of its PNG: no colour is off by more than one level of 255."""
    small = io.BytesIO()
    coarse = ((levels.astype(np.uint16) + 1) // 3 * 3).astype(np.uint8)
    Image.fromarray(coarse).save(small, format="WEBP", lossless=True, method=1)  # little larger, in half the time
    return base64.b64encode(small.getvalue()).decode()
