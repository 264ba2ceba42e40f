"""The pictures: what colour means, what is refused, and that every figure carries its alt text."""

import io

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image
from torch import nn
from torch.testing import assert_close

from interp_lab import antehoc, maximize_activation, plot
from interp_lab.explain_model import surrogates


def drawn(figure: plot.Figure, cell: int) -> np.ndarray:
    """The RGB colours of the picture in one cell."""
    shown = figure.axes[cell].images[0]
    values = np.asarray(shown.get_array())
    return shown.cmap(shown.norm(values))[..., :3]


def test_signed_maps_are_white_at_zero_red_above_and_blue_below():
    red, white, blue = drawn(plot.heatmap(torch.tensor([[2.0, 0.0, -1.0]])), 0)[0]
    assert_close(torch.tensor(white), torch.ones(3, dtype=torch.float64), atol=0.04, rtol=0)
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    # The scale is symmetric: -1 lies half way to the end that 2 reaches.
    assert_close(torch.tensor(blue), torch.tensor(colormaps[plot.DIVERGING](0.25)[:3]), atol=0.02, rtol=0)


def test_magnitudes_use_the_sequential_map_from_zero():
    dark, bright = drawn(plot.heatmap(torch.tensor([[0.0, 3.0]])), 0)[0]
    assert dark.sum() < 0.1
    assert bright.sum() > 2


def test_channels_are_summed():
    attribution = torch.tensor([[[1.0, -1.0]], [[2.0, 1.0]]])
    assert_close(torch.tensor(np.asarray(plot.heatmap(attribution).axes[0].images[0].get_array())), attribution.sum(0))


def test_colours_clip_at_the_percentile_and_the_caption_says_so():
    values = torch.cat([torch.full((999,), 1.0), torch.tensor([100.0])]).view(20, 50)
    figure = plot.heatmap(values, percentile=90)
    assert figure.axes[0].images[0].norm.vmax == 1.0
    assert "90th percentile" in " ".join(figure.get_supxlabel().split())


def test_a_sparse_map_and_a_zero_map_are_shown_for_what_they_are():
    sparse = torch.zeros(40, 40)
    sparse[3, 4] = -2.0
    assert plot.heatmap(sparse).axes[0].images[0].norm.vmin == -2.0
    assert [text.get_text() for text in plot.heatmap(torch.zeros(4, 4)).axes[0].texts] == ["all zero"]


@pytest.mark.parametrize(
    "figure",
    [
        lambda alt: plot.heatmap(torch.randn(3, 8, 8), torch.rand(3, 8, 8), alt=alt),
        lambda alt: plot.panel(torch.rand(2, 1, 8, 8), {"a": torch.randn(2, 8, 8)}, alt=alt),
        lambda alt: plot.images(torch.rand(3, 3, 8, 8), ["a", "b", "c"], columns=2, alt=alt),
        lambda alt: plot.curves(
            [0, 1], {"a": [0, 1], "b": [1, 0]}, xlabel="x", ylabel="y", bands={"a": [1, 1]}, alt=alt
        ),
        lambda alt: plot.bars({"a": 1.0, "b": 2.0}, xlabel="share", reference=("chance", 0.5), alt=alt),
    ],
)
def test_every_figure_shows_itself_as_a_png_with_alt_text(figure):
    data, metadata = figure("what it shows")._repr_mimebundle_()
    pixels = np.asarray(Image.open(io.BytesIO(data["image/png"])).convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10
    assert metadata["image/png"]["alt"] == data["text/plain"] == "what it shows"
    assert len(figure(None).alt) > 10


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plot.heatmap(torch.tensor([[float("nan")]])), "'attribution' holds NaN"),
        (lambda: plot.heatmap(torch.zeros(5)), r"must be \(N, C, H, W\) or \(N, H, W\)"),
        (lambda: plot.heatmap(torch.zeros(5, 5), percentile=0), r"percentile must lie in \(0, 100\], got 0"),
        (lambda: plot.heatmap(torch.zeros(5, 5), torch.rand(2, 5, 5)), r"an image must be \(1, H, W\) or \(3, H, W\)"),
        (
            lambda: plot.panel(torch.rand(2, 3, 5, 5), {"a": torch.zeros(3, 5, 5)}),
            r"common length above 0, got \[2, 3\]",
        ),
        (lambda: plot.panel(None, {}), "common length"),
        (lambda: plot.panel(torch.rand(2, 3, 5, 5), {}, rows=["a"]), "common length"),
        (lambda: plot.images(torch.rand(3, 5, 5)), r"batch \(N, C, H, W\), got shape \(3, 5, 5\)"),
        (lambda: plot.images(torch.rand(2, 3, 5, 5), ["a"]), "2 pictures need as many titles, got 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def pictured_models() -> dict:
    """One small result of every class that has its own figure."""
    torch.manual_seed(0)
    x, y = torch.rand(60, 1, 6, 6), torch.arange(60) % 3
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    return {
        "linear": antehoc.sparse_softmax(x, y, l1=0.02),
        "tree": antehoc.decision_tree(x, y, depth=4),
        "additive": antehoc.additive_model(x, y),
        "prototype": antehoc.prototype_network(x, y, body, per_class=1, epochs=1).explain(x[:2]),
        "local": surrogates.surrogate_local(network, x[:1], segments=4, n=50),
        "graph": surrogates.surrogate_graph(network, x),
    }


FIGURES = {
    "linear": plot.templates,
    "tree": plot.tree,
    "additive": lambda result, alt=None: plot.shape_functions(result, 1, alt=alt),
    "prototype": plot.prototype_evidence,
    "local": plot.segments,
    "graph": plot.channel_graph,
}


def test_interpretable_models_and_surrogates_are_drawn_in_one_call_with_alt_text():
    models = pictured_models()
    for name, draw in FIGURES.items():
        data, metadata = draw(models[name], alt="what it shows")._repr_mimebundle_()
        pixels = np.asarray(Image.open(io.BytesIO(data["image/png"])).convert("RGB"))
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10
        assert metadata["image/png"]["alt"] == "what it shows"
        assert len(draw(models[name]).alt) > 30
    texts = [text.get_text() for text in plot.tree(models["tree"], depth=2).axes[0].texts]
    assert texts.count("yes") == texts.count("no") == 3
    assert sum(text.endswith("...") for text in texts) > 0
    drawn_channels = {text.get_text() for text in plot.channel_graph(models["graph"]).axes[0].texts}
    assert {str(channel) for _, channel in models["graph"].graph} <= drawn_channels
    for call, message in (
        (lambda: plot.templates(models["linear"], ["a"]), "3 classes need as many names, got 1"),
        (lambda: plot.tree(models["tree"], ["a"]), "3 classes need as many names, got 1"),
        (lambda: plot.shape_functions(models["additive"], 3), r"target must lie in 0\.\.2, got 3"),
        (lambda: plot.prototype_evidence(models["prototype"], row=2), r"row must lie in 0\.\.1, got 2"),
        (lambda: plot.templates(antehoc.sparse_softmax(torch.rand(9, 2), torch.arange(9) % 3)), "are no picture"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_an_ascent_is_drawn_from_start_to_end_in_one_call():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    result = maximize_activation(model, torch.arange(3), torch.full((3, 1, 4, 4), 0.5), bounds=(0, 1), steps=20)
    figure = plot.ascent(result, ["a", "b", "c"])
    assert [axis.get_ylabel() for axis in figure.axes[::3]] == ["step 0", "step 2", "step 6", "step 20"]
    assert_close(torch.tensor(np.asarray(figure.axes[-1].images[0].get_array())), result.x[2, 0])
    assert figure.axes[-1].get_xlabel() == f"{result.trace[-1, 2] - result.trace[0, 2]:+.3g}"
    assert "a, b, c" in figure.alt
    with pytest.raises(ValueError, match="3 pictures need as many titles, got 1"):
        plot.ascent(result, ["a"])
    flat = maximize_activation(model, 0, torch.zeros(1, 16), steps=1)
    with pytest.raises(ValueError, match=r"pictures \(N, C, H, W\), got shape \(1, 16\)"):
        plot.ascent(flat)
