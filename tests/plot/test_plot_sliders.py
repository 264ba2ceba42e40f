"""The slider: all frames with their alt text, in one piece of HTML; its two controls are tested in a browser."""

import base64
import html
import io
import re

import numpy as np
import pytest
import torch
from pictures import png
from PIL import Image

from interp_lab import plot


def three_frames() -> dict[float, plot.Figure]:
    return {n: plot.heatmap(torch.eye(8).roll(n, 1), alt=f'a "diagonal", {n} to the right') for n in range(3)}


def test_no_colour_of_a_frame_differs_from_its_figure_by_more_than_one_level():
    """Thousands of colours, as a picture with maps has; fewer for a frame would change the picture while it slides."""
    pictures = torch.rand(3, 2, 3, 40, 40)
    slider = plot.slider({n: plot.images(pictures[n]) for n in range(3)}, label="n")
    frames = re.findall(r"data:image/webp;base64,([^\"]+)", slider.html)
    for webp, images in zip(frames, pictures, strict=True):
        shown, drawn = (
            np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
            for content in (base64.b64decode(webp), png(plot.images(images)))
        )
        assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 2000
        assert np.abs(shown - drawn).max() <= 1


def test_a_slider_holds_every_frame_with_its_alt_text_and_nothing_from_elsewhere():
    frames = three_frames()
    slider = plot.slider(frames, label="shift", start=1)
    pictures = re.findall(r'<img src="data:image/webp;base64,([^"]+)" alt="([^"]+)"', slider.html)
    assert [html.unescape(alt) for _, alt in pictures] == [figure.alt for figure in frames.values()]
    assert re.findall(r'data-value="([^"]+)"( hidden)?', slider.html) == [
        ("shift = 0", " hidden"), ("shift = 1", ""), ("shift = 2", " hidden"),
    ]  # fmt: skip
    assert "//" not in re.sub(r"base64,[^\"]+", "", slider.html)
    assert "<button" not in slider.html
    assert "<button" in plot.slider(frames, label="shift", play=True).html


@pytest.mark.parametrize("start", [0, 1, 2])
def test_the_knob_and_the_words_beside_it_stand_at_the_frame_that_is_shown(start):
    text = plot.slider(three_frames(), label="shift", start=start).html
    (shown,) = re.findall(r'data-value="([^"]+)"><img', text)
    (knob,) = re.findall(r'<input type="range" min="0" max="2" value="(\d)"', text)
    assert (shown, int(knob)) == (f"shift = {start}", start)
    assert re.findall(r'aria-valuetext="([^"]+)"', text) == re.findall("<output>(.+)</output>", text) == [shown]


def test_a_slider_is_a_png_with_alt_text_where_html_is_not_shown():
    frames = three_frames()
    data, metadata = plot.slider(frames, label="shift", start=2)._repr_mimebundle_()
    assert data["image/png"] == png(three_frames()[2])
    assert metadata["image/png"]["alt"] == data["text/plain"]
    assert data["text/plain"] == 'Slider over shift from 0 to 2. At 2: a "diagonal", 2 to the right'
    assert plot.slider(frames, label="shift", alt="all").alt == "all"


def test_what_makes_no_slider_is_refused_by_name(monkeypatch):
    frames = three_frames()
    with pytest.raises(ValueError, match="two frames or more"):
        plot.slider({0: frames[0]}, label="shift")
    with pytest.raises(ValueError, match=r"start among them; got .*, start 5"):
        plot.slider(frames, label="shift", start=5)
    with pytest.raises(ValueError, match="one size in pixels"):
        plot.slider(frames | {9: plot.bars({"a": 1}, xlabel="x")}, label="shift")
    monkeypatch.setattr("interp_lab.plot.sliders.MAX_BYTES", 5000)
    with pytest.raises(ValueError, match=r"3 frames take .* draw fewer or smaller"):
        plot.slider(frames, label="shift")
