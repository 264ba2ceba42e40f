"""A live figure as HTML that needs no server, no library and no request: :func:`laboratory`, and a page around it."""

import base64
import gzip
import html
import io
import json
import re
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ..explain_model.top_activations import TopActivations
from ..plot.base import Figure
from .attack import DIRECTION
from .channels import ACTIVATIONS, INTACT
from .graphs import Live
from .pairs import AT_BASELINE

FOLDER = Path(__file__).parent
# The options of the loops over the gradient: name in the page, the method, the choices, and the first of them.
OPTIONS: dict[str, tuple[str, str, Sequence[float], float]] = {
    "noise": ("SmoothGrad: noise", "smoothgrad", (0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1), 0.15),
    "samples": ("samples", "smoothgrad", (1, 4, 16, 50, 200), 50),
    "steps": ("integrated gradients: steps", "integrated_gradients", (1, 4, 16, 50), 16),
    "alpha": ("interior gradient: α", "interior_gradient", (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 1), 0.5),
    "levels": ("attack: grey levels", "attack", (1, 2, 4, 8), 4),
    "l2": ("weight of ‖x‖²", "ascent", (0, 0.02, 0.05, 0.1, 0.2, 0.5), 0),
    "variation": ("weight of the total variation", "ascent", (0, 0.02, 0.05, 0.1, 0.2, 0.5), 0),
}
PAINTS: tuple[tuple[str, str, Sequence[float]], ...] = (
    ("hue", "its hue", (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)),
    ("clutter", "more clutter", (0, 3, 6, 12, 24)),
)
NEEDS_SALIENCY = ("smoothgrad", "integrated_gradients", "interior_gradient", "ascent")
COURSES = {
    "smoothgrad": "the copy it is asked about",
    "integrated_gradients": "where it is on the way",
    "interior_gradient": "what it is asked about",
    "ascent": "the picture that climbs",
    "attack": "the attacked picture",
}
NAMES = {
    "gradient_x_input": "gradient × input",
    "smoothgrad": "SmoothGrad",
    "deconvnet": "DeconvNet",
    "rectgrad": "RectGrad",
    "lrp": "LRP",
    "deep_taylor": "deep Taylor",
    "pattern_net": "PatternNet",
    "pattern_attribution": "PatternAttribution",
    "deeplift": "DeepLIFT",
    "grad_cam": "Grad-CAM",
    "guided_grad_cam": "guided Grad-CAM",
    "ascent": "the gradient there",
    "attack": "saliency there",
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
    live: Live | Mapping[str, Live],
    inputs: Mapping[str, Tensor],
    *,
    name: str,
    label: str,
    still: Figure,
    maps: Sequence[str],
    variants: Mapping[str, tuple[Sequence[str], Sequence[str]]] | None = None,
    drawing: bool = False,
    trained_form: bool = False,
    by_hand: Collection[str] = (),
    truth: Mapping[str, Tensor] | None = None,
    truth_name: str = "true evidence",
    switch: tuple[str, Tensor] | None = None,
    baselines: Mapping[str, Tensor] | None = None,
    course: str | None = None,
    removal: int | None = None,
    channels: Mapping[str, TopActivations] | None = None,
    groups: Mapping[str, Tensor] | None = None,
    attack: int | None = None,
    shapes: Sequence[str] = (),
    photographs: bool = False,
    start: Mapping[str, float] | None = None,
    scripts: bool = True,
) -> Laboratory:
    """A live figure: an input that the reader chooses, draws or erases, and the maps of it side by side.

    Args:
        live: from :func:`~interp_lab.live.export`, for images ``(1, C, H, W)`` with one or three channels; or several by name,
            with the same shape and classes, whose answers and maps stand side by side. From
            :func:`~interp_lab.live.randomisable`, its layers have buttons, and each map stands above that of the network with
            random layers. From :func:`~interp_lab.live.export_pairs`, the reader draws the baseline, which begins as the first of
            ``baselines``, and reads the sums of the maps beside the rise of the logit. From
            :func:`~interp_lab.live.export_channels`, the channels have switches.
        inputs: label -> image ``(C, H, W)`` in [0, 1], shown in 256 levels.
        name: of the figure, unique in its page.
        label: what the figure is, for a screen reader.
        still: the picture where no script runs, and on paper.
        maps: the methods to show, in this order; with a recording of ``"saliency"`` also ``"smoothgrad"``,
            ``"integrated_gradients"`` and ``"interior_gradient"``, which average its maps, and ``"ascent"``, which follows it as
            :func:`~interp_lab.maximize_activation` does, from the input.
        variants: label of a choice -> the maps that it is for, and what can be chosen; the recording of each is called after both,
            such as ``"lrp gamma"``.
        drawing: give the reader a pen, on black.
        trained_form: bring what is drawn to the form of scikit-learn's digits; with a switch.
        by_hand: labels of inputs that are such drawings, so that the switch is for them too.
        truth: label -> mask ``(H, W)`` of the true evidence in that input, shown beside the maps, each with its pointing game
            and its share of the magnitude inside.
        truth_name: what the mask shows.
        switch: label of a check mark, and what every input is with it ``(N, C, H, W)``: the pixels that differ are put on.
        baselines: label -> a baseline for every input, ``(N, C, H, W)``: of integrated gradients, or to start drawing from.
        course: one of the loops over the gradient, whose course is drawn pass by pass: of ``"smoothgrad"`` the error of the
            mean, of the others the logit along the way.
        removal: side of the patches that the reader removes in an order of his own, with the curve of the probability beside
            those of the orders by the maps and of a random one, as :func:`~interp_lab.selectivity` has them.
        channels: layer -> the patches that excite each of its channels most, shown where the reader looks at its switch.
        groups: label of a button -> the channels that it switches off, bool ``(K,)`` over the layers in their order.
        attack: k, the number of strongest pixels from which the map ``"attack"`` turns the saliency map away, as
            :func:`~interp_lab.attack_attribution` does in ten steps; with recordings of ``"saliency"`` and
            ``"attack direction"`` from ``export_pairs``.
        shapes: objects of :func:`~interp_lab.data.scenes` that the reader can put onto an input, with their hue, their place and
            clutter.
        photographs: the reader can open a photograph of his own; and the network, which is large, is read when he asks for it.
            The site of the book keeps it in a file of its own.
        start: options with another first value: ``"noise"``, ``"samples"``, ``"steps"``, ``"alpha"``, ``"levels"``, ``"l2"``,
            ``"variation"``, and ``"form"``, 0 for the switch of ``trained_form`` off.
        scripts: with the scripts and the style, which one figure of a page brings for all.

    Raises:
        ValueError: an input is no image of the network's shape in [0, 1], or a method has no recording.
    """
    networks = {"The network": live} if isinstance(live, Live) else dict(live)
    (first, *others), start = networks.values(), dict(start or {})
    shape, shown = first.image or first.shape[1:], list[dict[str, Any]]()
    with_baseline = first.pairs and attack is None  # that the reader draws
    chosen = {m: k for k, (named, _) in enumerate((variants or {}).values()) for m in named}
    if any((other.shape, other.classes) != (first.shape, first.classes) for other in others):
        raise ValueError("the networks of a live figure must have the same shape of input and the same classes")
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ValueError(f"a live figure shows images (C, H, W) with one or three channels, got inputs {shape}")

    def encoded(title: str, image: Tensor) -> str:
        if tuple(image.shape) != tuple(shape) or not (0 <= image.min() and image.max() <= 1):
            raise ValueError(f"input {title!r} must be an image {tuple(shape)} in [0, 1], got {tuple(image.shape)}")
        return _lossless(image)

    for number, (title, image) in enumerate(inputs.items()):
        shown.append({"label": title, "source": encoded(title, image), "hand": title in by_hand})
        if truth:
            shown[-1]["truth"] = _lossless(truth[title][None].float())
        if switch:
            encoded(f"{title}, {switch[0]}", switch[1][number])
            other = switch[1][number].expand(3, -1, -1)
            shown[-1]["switched"] = _lossless(torch.cat([other, _differs(image, other)]))
        if baselines:
            shown[-1]["baselines"] = [encoded(f"{title}, {b}", images[number]) for b, images in baselines.items()]
    varied = [f"{method} {v}" for named, choices in (variants or {}).values() for method in named for v in choices]
    for method in [*(m for m in maps if m not in chosen), *varied]:
        recorded = "saliency" if method in NEEDS_SALIENCY else DIRECTION if method == "attack" else method
        if any(recorded not in network.methods for network in networks.values()):
            raise ValueError(f"there is no recording of {recorded!r}, which the map {method!r} needs")
    if course and (course not in COURSES or course not in maps):
        raise ValueError(f"course must be one of {', '.join(COURSES)} that is among the maps, got {course!r}")
    for wrong, message in (
        (bool(others) and bool(course or removal), "a course or a removal is drawn of one network"),
        (bool(drawing and removal), "a removal is of ready inputs, without a pen"),
        (
            bool(baselines) and not with_baseline and "integrated_gradients" not in maps,
            "baselines are for the map 'integrated_gradients'",
        ),
        (
            with_baseline
            and (not (drawing and baselines) or bool(others or truth or switch or removal or trained_form)),
            "a baseline of the reader's needs a pen, baselines to start from, and nothing else",
        ),
        (
            bool(first.layers) and bool(others or course or removal),
            "random layers are of one network, without a course or a removal",
        ),
        (
            bool(shapes) and (shape[0] != 3 or shape[1] != shape[2] or bool(drawing or removal or attack)),
            "objects are put onto square images in colour, without a pen, a removal or an attack",
        ),
        (
            (attack is not None) != ("attack" in maps) or bool(attack and (not first.pairs or drawing)),
            "an attack needs the map 'attack', pairs of a picture and the one where it began, and no pen",
        ),
        (
            {layer: len(top.values) for layer, top in (channels or {}).items()} != dict(first.channels),
            "a figure of switches needs the patches of the channels that are recorded, layer by layer",
        ),
        (
            bool(first.channels) and bool(others or course or removal or first.layers or baselines),
            "switches are of one network, without a course, a removal or baselines",
        ),
        (
            photographs
            and bool(others or drawing or truth or switch or baselines or removal or channels or attack or shapes),
            "photographs are the inputs of one network that the reader only looks at or erases",
        ),
        (bool(set(by_hand) - set(inputs)), f"by_hand names no inputs: {', '.join(set(by_hand) - set(inputs))}"),
    ):
        if wrong:
            raise ValueError(message)
    average = (
        [0.0] * shape[0]
        if drawing
        else [float(np.mean([i[c].mean() for i in inputs.values()])) for c in range(shape[0])]
    )
    facts = {
        "shape": shape,
        "classes": first.classes,
        "networks": list(networks),
        "methods": [
            {"key": m, "label": NAMES.get(m, m.replace("_", " ")), "method": m, "variant": chosen.get(m)} for m in maps
        ],
        "inputs": shown,
        "drawing": drawing,
        "mean": average,
        "truth": truth_name if truth else None,
        "course": course and {"key": course, "label": COURSES[course]},
        "layers": len(first.layers),
        "baseline": AT_BASELINE if with_baseline else None,
        "attack": attack,
        "shapes": list(shapes),
        "removal": removal and {"patch": removal, "ties": _order_of_ties(shape, removal)},
        "switches": {
            "intact": INTACT,
            "layers": [
                _patches(top)
                | {"name": layer, "key": ACTIVATIONS + layer, "map": first.shape_of(ACTIVATIONS + layer)[2:]}
                for layer, top in channels.items()
            ],
            "groups": [[label, off.nonzero().flatten().tolist()] for label, off in (groups or {}).items()],
        }
        if channels
        else None,
    }
    controls = ['<label>explain the class <select data-part="target"></select></label>']
    if switch:
        controls.append(f'<label><input type="checkbox" data-part="switch"> {html.escape(switch[0])}</label>')
    for option, (title, method, choices, usual) in OPTIONS.items():
        if method in maps:
            controls.append(_slider(option, title, choices, start.pop(option, usual)))
    for number, (title, (_, named)) in enumerate((variants or {}).items()):
        controls.append(_select(f"variant {number}", title, [(choice, choice) for choice in named]))
    if baselines and not with_baseline:
        controls.append(_select("baseline", "baseline", [(title, str(k)) for k, title in enumerate(baselines)]))
    tools = ["pen", "eraser"] if drawing else ["eraser", "object"] if shapes else ["eraser"]
    if shapes:
        listed = [("no object", ""), *((name, name) for name in shapes)]
        controls = [_select("shape", "put on", listed), *(_slider(*each, 0) for each in PAINTS), *controls]
    buttons = "".join(
        f'<button type="button" data-tool="{tool}" aria-pressed="{str(tool == tools[0]).lower()}">{tool}</button> '
        for tool in tools[: None if len(tools) > 1 else 0]
    )
    clear = "clear" if drawing else "restore"
    starts = "".join(
        f'<button type="button" data-start="{k}">{html.escape(b)}</button> ' for k, b in enumerate(baselines or ())
    )
    own = (
        f'<p><label>or a photograph of your own: <input type="file" accept="image/*" data-part="file"></label></p>'
        f'<p class="hint wide">It is cropped to a square and scaled to {shape[2]} x {shape[1]} pixels in your browser, and stays there: the page '
        "sends nothing anywhere.</p>"
        if photographs
        else ""
    )
    starts = f"<p>The baseline begins as {starts}</p>" if with_baseline else ""
    width, height = shape[2], shape[1]
    act = "draws" if drawing else "removes" if removal else "erases"
    form = "checked" if start.pop("form", 1) else ""
    if start:
        raise ValueError(f"no options of this figure: {', '.join(start)}")
    trained = (
        f'<label><input type="checkbox" data-part="form" {form}> bring it to the form of the training digits</label>'
        f'<p class="hint">What the network sees:</p><canvas data-part="seen" width="{width}" height="{height}" role="img" '
        'aria-label="the input as the network sees it"></canvas>'
        if trained_form
        else ""
    )
    layers = "".join(
        f'<button type="button" data-layer="{k}" aria-pressed="false">{html.escape(layer.label)}</button>'
        for k, layer in enumerate(first.layers)
    )
    destroy = (
        f'<fieldset><legend>Randomise</legend><div data-part="layers">{layers}</div>'
        '<label><input type="checkbox" data-part="cascade" checked> and all layers above it</label>'
        '<p><button type="button" data-part="intact">give all weights back</button> '
        '<button type="button" data-part="redraw">draw others</button></p></fieldset>'
        '<p data-part="told" aria-live="polite"></p>'
        if layers
        else '<fieldset><legend>Switch off</legend><div data-part="groups"></div></fieldset>'
        if channels
        else '<p data-part="told" aria-live="polite"></p>'
        if with_baseline
        else ""
    )
    heads = '<th scope="col">logit</th><th scope="col">softmax</th>' * len(networks)
    over = "".join(f'<th scope="colgroup" colspan="2">{html.escape(n)}</th>' for n in networks)
    above = f"<tr><td></td>{over}</tr>" if others else ""
    inside = '<th scope="col">pointing game</th><th scope="col">magnitude inside</th>' if truth else ""
    alike = '<th scope="col">rank correlation</th><th scope="col">of magnitudes</th>' if layers else ""
    place = html.escape(truth_name)
    scored = (
        f"A hit: the largest value lies in the {place}; inside: the share of the magnitude there. " if truth else ""
    )
    chart = (
        f'<div data-part="course"><p data-part="told"{" aria-live=polite" * bool(removal)}></p><div class="legend"></div>'
        '<svg viewBox="0 0 380 210" role="img"></svg></div>'
        if course or removal
        else ""
    )
    table = f"""<table><caption class="hint">What the network says</caption><thead>{above}<tr><th scope="col">class</th>{heads}</tr></thead>
<tbody data-part="logits"></tbody></table>"""
    instead = chart or destroy  # of the table of classes
    logits = "<details><summary>All classes</summary>" + table + "</details>" if instead else ""
    beside = trained + (instead or table)
    packed, load = [_packed(network, name * photographs) for network in networks.values()], ""
    if photographs:
        load = (
            f'<p data-part="load" hidden><button type="button">Load the network ({len(packed[0]) / 1e6:.0f} MB)</button> '
            '<span role="status" aria-live="polite"></span></p>'
        )
    body = f"""<div class="live" id="{html.escape(name)}" role="group" aria-label="{html.escape(label)}">
<div class="live-still">{_image(still)}</div>{load}
<div data-part="panel" hidden>
<fieldset><legend>Ready inputs</legend><div data-part="inputs"></div>{own}</fieldset>
<div class="bench"><div><canvas data-part="pad" width="{width}" height="{height}" tabindex="0" role="application"
 aria-label="{"Baseline" if with_baseline else "Input"}. Arrow keys move the {tools[0]}, space lowers or lifts it, delete: {clear}."></canvas>
<p>{buttons}<button type="button" data-part="clear">{clear}</button></p>{starts}
<p class="hint">A finger or the mouse {act}; so do the arrow keys after the space bar.
<span data-part="cursor" aria-live="polite"></span></p></div><div class="beside">{beside}</div></div>
<p class="answer" data-part="answer" role="status" aria-live="polite"></p>{_SWITCHES * bool(channels)}
<div class="controls">{"".join(controls)}</div>
<div data-part="maps"></div>
<p class="hint wide">Red is positive, blue negative; each map has its own scale. {scored}<span data-part="time"></span></p>
{logits}<details><summary>The maps in numbers</summary><div class="scroll" tabindex="0" role="region" aria-label="The maps in numbers"><table>
<thead><tr><th scope="col">method</th><th scope="col">positive</th><th scope="col">negative</th><th scope="col">sum</th>
<th scope="col">strongest pixel</th>{inside}{alike}</tr></thead><tbody data-part="numbers"></tbody></table></div></details>
</div>
<script type="application/json" data-part="facts">{_in_script(json.dumps(facts))}</script>
{"".join(packed)}
</div>"""
    return Laboratory((_scripts() if scripts else "") + body, still)


_SWITCHES = """<div class="looked"><canvas data-part="patches" role="img"></canvas><div><p data-part="told" aria-live="polite"></p>
<p class="hint" data-part="channel"></p></div></div><div data-part="channels"></div>"""
PATCH = 24  # the most pixels along a side of a patch


def _patches(top: TopActivations) -> dict[str, Any]:
    """The patches of every channel in a row of one picture, and their number and size."""
    size = min(PATCH, top.patches.shape[3]), min(PATCH, top.patches.shape[4])
    small = adaptive_avg_pool2d(top.patches.flatten(0, 1), size).unflatten(0, top.patches.shape[:2])
    sheet = torch.cat(torch.cat([*small.unbind(1)], 3).unbind(0), 1)
    return {"patches": _webp(sheet, quality=60), "count": len(small), "each": small.shape[1], "size": size}


def _packed(live: Live, file: str = "") -> str:
    """A network as text for the page: the steps and the weights, whose lower and upper bytes stand apart, compressed.

    With the name of a file, the site of the book moves it there.
    """
    facts = json.loads(live.to_json())
    weights = np.frombuffer(base64.b64decode(facts.pop("weights")), np.uint8).reshape(-1, 2)  # halves: two bytes each
    steps = json.dumps(facts, separators=(",", ":")).encode()
    packed = gzip.compress(struct.pack("<I", len(steps)) + steps + weights.T.tobytes(), 9, mtime=0)
    apart = f' data-file="{html.escape(file)}"' if file else ""
    return f'<script type="text/plain" data-part="network"{apart}>{dense_text(packed)}</script>'


ALPHABET = "".join(
    chr(c) for c in range(0x21, 0x7F) if chr(c) not in '"<\\'
)  # 91 characters that HTML and JSON leave alone


def dense_text(data: bytes) -> str:
    """Bytes as text, 13 bits in two characters, a twelfth shorter than in base64; one more tells of a byte too many.

    >>> len(dense_text(b"live")), len(dense_text(b"alive"))
    (6, 9)
    """
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    padding = -len(bits) % 13
    numbers = np.pad(bits, (0, padding)).reshape(-1, 13) @ (1 << np.arange(12, -1, -1, dtype=np.uint16))
    characters = np.frombuffer(ALPHABET.encode(), np.uint8)[np.stack([numbers // 91, numbers % 91], 1)]
    return characters.tobytes().decode() + ALPHABET[0] * (padding >= 8)


def _order_of_ties(shape: Sequence[int], patch: int) -> list[int]:
    """The order of patches with the same relevance, as in :func:`~interp_lab.selectivity` with its first seed."""
    count = -(-shape[1] // patch) * -(-shape[2] // patch)
    return torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()


def page(figure: Laboratory, title: str) -> str:
    """A whole page with one live figure."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<title>{html.escape(title)}</title><link rel="icon" href="data:,"><style>body {{font-family: sans-serif; '
        "max-width: 60em; margin: 1em auto; padding: 0 .6em; background: #fff; color: #222}</style></head>"
        f"<body><main><h1>{html.escape(title)}</h1>{figure.html}</main></body></html>\n"
    )


def _scripts() -> str:
    """Style and scripts, without comments and indentation; the site of the book has the scripts of all its pages in one file."""
    parts = {
        name: (FOLDER / name).read_text(encoding="utf-8")
        for name in ("laboratory.css", "live.js", "scenes.js", "laboratory.js")
    }
    lines = {
        name: "\n".join(s for line in text.splitlines() if (s := re.sub(r"(^|\s\s)//.*", "", line.strip())))
        for name, text in parts.items()
    }
    return (
        f"<style>{lines['laboratory.css']}</style>"
        f"<script data-live>{_in_script(chr(10).join(lines[n] for n in lines if n.endswith('.js')))}</script>"
    )


def _in_script(text: str) -> str:
    return text.replace("</", "<\\/")


def _select(option: str, title: str, choices: Sequence[tuple[str, str]]) -> str:
    listed = "".join(f'<option value="{html.escape(value)}">{html.escape(text)}</option>' for text, value in choices)
    return f'<label>{html.escape(title)} <select data-option="{option}">{listed}</select></label>'


def _slider(option: str, title: str, choices: Sequence[float], value: float) -> str:
    if value not in choices:
        raise ValueError(f"{option} must be one of {', '.join(map(str, choices))}, got {value}")
    return (
        f'<label>{html.escape(title)} <input type="range" data-option="{option}" min="0" max="{len(choices) - 1}" '
        f'value="{choices.index(value)}" data-choices="{" ".join(f"{c:g}" for c in choices)}"><span class="value" aria-hidden="true"></span></label>'
    )


def _differs(image: Tensor, other: Tensor) -> Tensor:
    """1 where two images have other levels, else 0, as a last channel that tells what is to be seen."""
    levels, others = ((i * 255).round() for i in (image, other))
    return (levels != others).any(0, keepdim=True).float()


def _lossless(image: Tensor) -> str:
    """An image of one, three or, with what is to be seen of it, four channels."""
    return _webp(image, lossless=True, quality=100)


def _webp(image: Tensor, **options: Any) -> str:
    levels = (image * 255).round().byte().movedim(0, -1).numpy()
    file = io.BytesIO()
    Image.fromarray(levels.repeat(3, 2) if levels.shape[2] == 1 else levels).save(file, "WEBP", method=6, **options)
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
