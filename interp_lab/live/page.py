"""A live figure as HTML that needs no server, no library and no request: :func:`laboratory`, and a page around it."""

import base64
import gzip
import html
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from ..plot.base import Figure
from .graphs import Live

FOLDER = Path(__file__).parent
# The loops over the gradient: name in the page, and the choices for its option.
OPTIONS: dict[str, tuple[str, str, Sequence[float]]] = {
    "noise": ("SmoothGrad: noise", "smoothgrad", (0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1)),
    "samples": ("samples", "smoothgrad", (50, 1, 4, 16, 200)),
    "steps": ("integrated gradients: steps", "integrated_gradients", (16, 1, 4, 50)),
    "alpha": ("interior gradient: α", "interior_gradient", (0.5, 0.05, 0.1, 0.2, 0.75, 1)),
}
NEEDS_SALIENCY = ("smoothgrad", "integrated_gradients", "interior_gradient")
START = {"noise": 0.15}
NAMES = {
    "gradient_x_input": "gradient × input",
    "smoothgrad": "SmoothGrad",
    "deconvnet": "DeconvNet",
    "rectgrad": "RectGrad",
    "lrp": "LRP",
    "deep_taylor": "deep Taylor",
    "deeplift": "DeepLIFT",
    "grad_cam": "Grad-CAM",
    "guided_grad_cam": "guided Grad-CAM",
}


@dataclass(frozen=True)
class Laboratory:
    """A live figure, and the still picture that stands for it where no script runs."""

    html: str
    still: Figure

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        pictures, metadata = self.still._repr_mimebundle_()
        return {"text/html": self.html, **pictures}, metadata


def laboratory(
    live: Live,
    inputs: Mapping[str, Tensor],
    *,
    name: str,
    label: str,
    still: Figure,
    maps: Sequence[str],
    rules: Mapping[str, str] | None = None,
    drawing: bool = False,
    trained_form: bool = False,
    truth: Mapping[str, Tensor] | None = None,
    scripts: bool = True,
) -> Laboratory:
    """A live figure: an input that the reader chooses, draws or erases, and the maps of it side by side.

    Args:
        live: from :func:`~interp_lab.live.export`, for images ``(1, C, H, W)`` with one or three channels.
        inputs: label -> image ``(C, H, W)`` in [0, 1], shown in 256 levels.
        name: of the figure, unique in its page.
        label: what the figure is, for a screen reader.
        still: the picture where no script runs, and on paper.
        maps: the methods to show, in this order; with a recording of ``"saliency"`` also ``"smoothgrad"``,
            ``"integrated_gradients"`` and ``"interior_gradient"``, which average its maps; and ``"lrp"`` with ``rules``.
        rules: label -> recorded method, the choices for ``"lrp"``.
        drawing: give the reader a pen, on black.
        trained_form: bring what is drawn to the form of scikit-learn's digits; with a switch.
        truth: label -> mask ``(H, W)`` of the true evidence in that input, shown beside the maps.
        scripts: with the scripts and the style, which one figure of a page brings for all.

    Raises:
        ValueError: an input is no image of the network's shape in [0, 1], or a method has no recording.
    """
    shape, shown = live.shape[1:], list[dict[str, str]]()
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ValueError(f"a live figure shows images (C, H, W) with one or three channels, got inputs {shape}")
    for title, image in inputs.items():
        if tuple(image.shape) != tuple(shape) or not (0 <= image.min() and image.max() <= 1):
            raise ValueError(f"input {title!r} must be an image {tuple(shape)} in [0, 1], got {tuple(image.shape)}")
        shown.append({"label": title, "source": _lossless(image)})
        if truth:
            shown[-1]["truth"] = _lossless(truth[title][None].float())
    for method in [*maps, *(rules or {}).values()]:
        recorded = "saliency" if method in NEEDS_SALIENCY else method
        if recorded not in live.methods and not (method == "lrp" and rules):
            raise ValueError(f"there is no recording of {recorded!r}, which the map {method!r} needs")
    average = (
        [0.0] * shape[0]
        if drawing
        else [float(np.mean([i[c].mean() for i in inputs.values()])) for c in range(shape[0])]
    )
    facts = {
        "shape": shape,
        "classes": live.classes,
        "methods": [
            {"key": m, "label": NAMES.get(m, m.replace("_", " ")), "method": m, "rules": bool(rules) and m == "lrp"}
            for m in maps
        ],
        "inputs": shown,
        "drawing": drawing,
        "mean": average,
    }
    controls = ['<label>explain the class <select data-part="target"></select></label>']
    for option, (title, method, choices) in OPTIONS.items():
        if method in maps:
            listed = [(f"{value:g}", f"{value:g}") for value in sorted(choices)]
            controls.append(_select(option, title, listed, f"{START.get(option, choices[0]):g}"))
    if rules:
        controls.append(_select("rule", "LRP rule", list(rules.items()), next(iter(rules.values()))))
    tools = ["pen", "eraser"] if drawing else ["eraser"]
    buttons = "".join(
        f'<button type="button" data-tool="{tool}" aria-pressed="{str(tool == tools[0]).lower()}">{tool}</button> '
        for tool in tools
    )
    clear = "clear" if drawing else "restore"
    width, height = shape[2], shape[1]
    act = "draws" if drawing else "erases"
    trained = (
        '<label><input type="checkbox" data-part="form" checked> bring it to the form of the training digits</label>'
        f'<p class="hint">What the network sees:</p><canvas data-part="seen" width="{width}" height="{height}" role="img" '
        'aria-label="the input as the network sees it"></canvas>'
        if trained_form
        else ""
    )
    body = f"""<div class="live" id="{html.escape(name)}" role="group" aria-label="{html.escape(label)}">
<div class="live-still">{_image(still)}</div>
<div data-part="panel" hidden>
<fieldset><legend>Ready inputs</legend><div data-part="inputs"></div></fieldset>
<div class="bench"><div><canvas data-part="pad" width="{width}" height="{height}" tabindex="0" role="application"
 aria-label="Input. Arrow keys move the {tools[0]}, space lowers or lifts it, delete: {clear}."></canvas>
<p>{buttons}<button type="button" data-part="clear">{clear}</button></p>
<p class="hint">A finger or the mouse {act}; so do the arrow keys after the space bar.
<span data-part="cursor" aria-live="polite"></span></p></div><div>{trained}
<table><caption class="hint">What the network says</caption><thead><tr><th scope="col">class</th><th scope="col">logit</th>
<th scope="col">softmax</th></tr></thead><tbody data-part="logits"></tbody></table></div></div>
<p class="answer" data-part="answer" role="status" aria-live="polite"></p>
<div class="controls">{"".join(controls)}</div>
<div data-part="maps"></div>
<p class="hint wide">Red is positive, blue negative; each map has its own scale. <span data-part="time"></span></p>
<details><summary>The maps in numbers</summary><div class="scroll" tabindex="0" role="region" aria-label="The maps in numbers"><table>
<thead><tr><th scope="col">method</th><th scope="col">positive</th><th scope="col">negative</th><th scope="col">sum</th>
<th scope="col">strongest pixel</th></tr></thead><tbody data-part="numbers"></tbody></table></div></details>
</div>
<script type="application/json" data-part="facts">{_in_script(json.dumps(facts))}</script>
<script type="text/plain" data-part="network">{base64.b64encode(gzip.compress(live.to_json().encode(), 9, mtime=0)).decode()}</script>
</div>"""
    return Laboratory((_scripts() if scripts else "") + body, still)


def page(figure: Laboratory, title: str) -> str:
    """A whole page with one live figure."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<title>{html.escape(title)}</title><link rel="icon" href="data:,"><style>body {{font-family: sans-serif; '
        "max-width: 60em; margin: 1em auto; padding: 0 .6em; background: #fff; color: #222}</style></head>"
        f"<body><main><h1>{html.escape(title)}</h1>{figure.html}</main></body></html>\n"
    )


def _scripts() -> str:
    """Style and scripts, without the comments that stand alone in a line and the indentation."""
    parts = {
        name: (FOLDER / name).read_text(encoding="utf-8") for name in ("laboratory.css", "live.js", "laboratory.js")
    }
    lines = {
        name: "\n".join(s for line in text.splitlines() if (s := line.strip()) and not s.startswith("//"))
        for name, text in parts.items()
    }
    return (
        f"<style>{lines['laboratory.css']}</style><script>{_in_script(lines['live.js'])}</script>"
        f"<script>{_in_script(lines['laboratory.js'])}</script>"
    )


def _in_script(text: str) -> str:
    return text.replace("</", "<\\/")


def _select(option: str, title: str, choices: Sequence[tuple[str, str]], start: str) -> str:
    listed = "".join(
        f'<option value="{html.escape(value)}"{" selected" * (value == start)}>{html.escape(text)}</option>'
        for text, value in choices
    )
    return f'<label>{html.escape(title)} <select data-option="{option}">{listed}</select></label>'


def _lossless(image: Tensor) -> str:
    levels = (image * 255).round().byte().movedim(0, -1).numpy()
    file = io.BytesIO()
    Image.fromarray(levels.repeat(3, 2) if levels.shape[2] == 1 else levels).save(
        file, "WEBP", lossless=True, quality=100, method=6
    )
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def _image(still: Figure) -> str:
    png = still._repr_mimebundle_()[0]["image/png"]
    picture, file = Image.open(io.BytesIO(png)).convert("RGB"), io.BytesIO()
    picture.save(file, "WEBP", quality=70, method=6)
    source = base64.b64encode(file.getvalue()).decode()
    return (
        f'<img src="data:image/webp;base64,{source}" alt="{html.escape(still.alt)}" width="{picture.width}" '
        f'height="{picture.height}">'
    )
