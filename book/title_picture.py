"""The picture on the front page, book/title_picture.svg: what a network saw in a scene (`python book/title_picture.py`)."""

import base64
import io
from pathlib import Path

import matplotlib
import torch
from PIL import Image
from torch import Tensor

from interp_lab import lrp
from interp_lab.data import scenes
from interp_lab.networks import load

FILE = Path(__file__).with_suffix(".svg")
CHOSEN = [4, 16, 12, 25, 11, 18, 13, 9, 8, 20, 19, 7, 2, 23, 27, 6]  # two rows; the fifth, a star, lies under the lens
CLIPS = (
    '<clipPath id="card"><rect width="512" height="128" rx="6"/></clipPath>'
    '<clipPath id="glass"><circle cx="296" cy="52" r="44"/></clipPath>'
)
SEEN = ' transform="translate(296 52) scale(1.7) translate(-292 -22)"'  # the star in the middle of the lens
LENS = '<circle cx="296" cy="52" r="45"/><path d="m329 85 50 50"/>'


def draw() -> str:
    """Sixteen scenes in two rows, and a lens that shows LRP's relevance for the star, 1.7 times as large."""
    images = scenes(28, seed=3).images[CHOSEN]
    relevance = lrp(load("scenes_cnn"), images).abs().sum(1)
    relevance /= relevance.flatten(1).quantile(0.99, 1)[:, None, None]
    colours = torch.from_numpy(matplotlib.colormaps["magma"](relevance.clamp(max=1).numpy())[..., :3])
    under = f'<g clip-path="url(#glass)"><path d="M252 8h88v88h-88z"/>{_mosaic(colours.permute(0, 3, 1, 2), SEEN)}</g>'
    rims = "".join(
        f'<g fill="none" stroke="{colour}" stroke-width="{width}" stroke-linecap="round">{LENS}</g>'
        for colour, width in (("#123c69", 8), ("#fff", 5))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 512 128">{CLIPS}'
        f'<g clip-path="url(#card)">{_mosaic(images)}{under}{rims}</g></svg>\n'
    )


def _mosaic(tiles: Tensor, attributes: str = "") -> str:
    rows = tiles.unflatten(0, (2, 8)).permute(0, 3, 1, 4, 2).reshape(128, 512, 3)
    file = io.BytesIO()
    Image.fromarray((255 * rows).byte().numpy()).save(file, "webp", quality=90)
    source = f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
    return f'<image href="{source}" width="512" height="128" style="image-rendering:pixelated"{attributes}/>'


if __name__ == "__main__":
    FILE.write_text(draw(), encoding="utf-8")
