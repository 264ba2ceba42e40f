"""The pictures: what colour means, what is refused, and that every figure carries its alt text."""

import base64
import html
import io
import re

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image
from torch import nn
from torch.testing import assert_close

from interp_lab import antehoc, maximize_activation, mmd_critic, plot, surrogate_graph, surrogate_local
from interp_lab.backprop.receptive_field import ReceptiveField
from interp_lab.explain_model.top_activations import TopActivations


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


IMAGE = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(0))
RANGES = {
    "0..255": 255 * IMAGE,
    "bytes": (255 * IMAGE).to(torch.uint8),
    "normalised": (IMAGE - 0.45) / 0.225,
    "[-1, 1]": 2 * IMAGE - 1,
    "constant": torch.full((3, 6, 6), 7.0),
    "half": (10 * IMAGE).half(),
    "rows first": (255 * IMAGE).permute(1, 2, 0).numpy().astype(np.uint8),
}


def every_figure_of_images(image) -> dict[str, plot.Figure]:
    """Every function that draws images, each with two of the image."""
    batch = np.stack([image] * 2) if isinstance(image, np.ndarray) else torch.stack([image] * 2)
    chosen = mmd_critic(torch.rand(2, 4), 2)
    return {
        "heatmap": plot.heatmap(torch.randn(6, 6), image),
        "panel": plot.panel(batch, {"a": torch.randn(2, 6, 6)}),
        "images": plot.images(batch),
        "prototypes": plot.prototypes(chosen, batch),
        "influential": plot.influential(image, batch, torch.rand(1, 2)),
    }


@pytest.mark.parametrize("name", RANGES)
def test_images_of_any_range_are_shown_by_one_linear_scaling_that_is_told(name):
    image = RANGES[name]
    values = torch.as_tensor(image).double()
    values = values.permute(2, 0, 1) if name == "rows first" else values
    is_bytes = "uint8" in str(image.dtype)
    low, high = (0.0, 255.0) if is_bytes else (min(0.0, float(values.min())), max(1.0, float(values.max())))
    expected = ((values - low) / (high - low)).permute(1, 2, 0).float()
    told = f"images: black is {low:.3g}, white is {high:.3g}"
    for function, figure in every_figure_of_images(image).items():
        shown = torch.tensor(np.asarray(figure.axes[0].images[0].get_array()))
        assert_close(shown, expected, msg=lambda m, f=function: f"{f}: {m}")
        assert told in " ".join(figure.get_supxlabel().split()), function
        assert told in figure.alt, function


def test_images_in_0_to_1_are_shown_as_they_are_and_nothing_is_told():
    for image in (IMAGE, IMAGE.numpy(), IMAGE * 0.01, IMAGE > 0.5, (1.003 * IMAGE - 0.001)):
        for function, figure in every_figure_of_images(image).items():
            shown = torch.tensor(np.asarray(figure.axes[0].images[0].get_array()))
            assert_close(shown, torch.as_tensor(image).float().permute(1, 2, 0), atol=0.002, rtol=0)
            assert "black is" not in figure.alt + figure.get_supxlabel(), function


def test_the_images_of_a_figure_share_their_scaling():
    figure = plot.influential(IMAGE, torch.stack([4 * IMAGE, 2 * IMAGE]), torch.tensor([[1.0, 0.0]]))
    first, second, third = (np.asarray(figure.axes[i].images[0].get_array()) for i in (0, 1, 2))
    np.testing.assert_allclose(second, 4 * first, rtol=1e-5)
    np.testing.assert_allclose(third, 2 * first, rtol=1e-5)


def test_an_image_that_has_no_colour_is_refused_by_every_function():
    for bad, message in (
        (IMAGE * torch.nan, "holds NaN or infinite"),
        (IMAGE[:2], r"must be \(1, H, W\) or \(3, H, W\)"),
    ):
        for draw in (
            lambda x: plot.heatmap(torch.randn(6, 6), x),
            lambda x: plot.images(x[None]),
            lambda x: plot.prototypes(mmd_critic(torch.rand(2, 4), 1), torch.stack([x, x])),
            lambda x: plot.influential(IMAGE, torch.stack([x, x]), torch.rand(1, 2)),
        ):
            with pytest.raises(ValueError, match=message):
                draw(bad)


def test_an_ascent_tells_what_it_clips():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    result = maximize_activation(model, 0, torch.full((1, 1, 4, 4), 0.5), steps=20, lr=1.0)
    moments = torch.stack([result.trajectory[i] for i in (0, 1, 3, 10)])
    share = ((moments < 0) | (moments > 1)).float().mean()
    told = f"{share:.1%} of the values lie outside [0, 1] and are clipped"
    figure = plot.ascent(result)
    assert share > 0.2
    assert told in figure.alt
    assert told in " ".join(figure.get_supxlabel().split())


def test_maps_of_numpy_and_of_any_size_are_drawn():
    values = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32)
    for array in (
        values,
        values[:, ::-1][:, ::-1],
        np.moveaxis(values, 0, 2).astype(np.float64),
        torch.tensor(values).half(),
    ):
        shown = np.asarray(plot.heatmap(array).axes[0].images[0].get_array())
        np.testing.assert_allclose(shown, values.sum(0), atol=0.01)
    large = torch.arange(4200.0 * 4200).view(4200, 4200)
    assert plot.heatmap(large, percentile=50).axes[0].images[0].norm.vmax == pytest.approx(4200**2 / 2)


def png(figure: plot.Figure) -> bytes:
    return figure._repr_mimebundle_()[0]["image/png"]


@pytest.mark.parametrize("size", [1e-300, 1e-60, 1e39, 1e300])
def test_float64_is_drawn_beyond_the_range_of_float32(size):
    values = torch.randn(3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert png(plot.heatmap(values * size)) == png(plot.heatmap(values))
    if size > 1:
        shown, right = (np.asarray(plot.images(v[None]).axes[0].images[0].get_array()) for v in (values * size, values))
        np.testing.assert_allclose(shown.max() - shown.min(), 1, rtol=1e-6)
        np.testing.assert_allclose(shown, right, atol=1e-6)
        assert plot.numbers({"a": values[0] * size}).axes[0].texts[0].get_text() == f"{values[0, 0, 0] * size:.3g}"


def test_float32_at_the_end_of_its_range_is_drawn():
    values = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    large = plot.heatmap(values * 3e38)  # whose channels sum to more
    np.testing.assert_allclose(drawn(large, 0), drawn(plot.heatmap(values), 0), atol=0.02)
    assert "black is -3e+38, white is 3e+38" in plot.images(torch.tensor([-3e38, 3e38]).view(1, 1, 1, 2)).alt


def test_tensors_of_a_graph_of_half_precision_and_sparse_ones_are_drawn():
    line, picture = torch.rand(3), torch.rand(1, 3, 8, 8)
    names = {"xlabel": "x", "ylabel": "y"}
    for other in (line.clone().requires_grad_(), line.bfloat16(), line.tolist()):
        (shown,) = plot.curves([1, 2, 3], {"a": other}, bands={"a": other}, **names).axes[0].lines
        np.testing.assert_allclose(shown.get_ydata(), line.numpy(), atol=0.01)
    assert (
        plot.bars({"a": line[0].clone().requires_grad_()}, xlabel="x").alt == plot.bars({"a": line[0]}, xlabel="x").alt
    )
    for other in (picture.to_sparse(), picture.numpy().astype(np.longdouble), picture.clone().requires_grad_()):
        assert png(plot.images(other)) == png(plot.images(picture))


def test_an_overlay_lies_over_the_whole_image_and_lets_it_through_where_there_is_nothing():
    attribution = torch.tensor([[2.0, 0.0], [-1.0, 0.5]])
    figure = plot.heatmap(attribution, IMAGE, overlay=True, percentile=100)
    under, over = figure.axes[1].images
    np.testing.assert_allclose(np.asarray(under.get_array()), IMAGE.mean(0).numpy(), rtol=1e-6)
    assert list(under.get_extent()) == list(over.get_extent()) == [-0.5, 1.5, 1.5, -0.5]
    np.testing.assert_allclose(over.get_alpha(), [[0.8, 0.0], [0.4, 0.2]], rtol=1e-6)
    assert "over their images" in figure.alt
    with pytest.raises(ValueError, match="an overlay needs images"):
        plot.heatmap(attribution, overlay=True)


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
        (lambda: plot.heatmap(torch.zeros(3, 0, 5)), r"\(N, H, W\), got \(1, 3, 0, 5\)"),
        (lambda: plot.images(torch.rand(2, 3, 0, 5)), r"an image must have pixels, got shape \(3, 0, 5\)"),
        (lambda: plot.images([[1]]), r"tensors or numpy arrays, got list; give torch\.stack"),
        (lambda: plot.heatmap([[1.0]]), "tensors or numpy arrays, got list"),
        (lambda: plot.numbers({"a": [[1.0]]}), "tensors or numpy arrays, got list"),
        (lambda: plot.images(torch.rand(2, 3, 5, 5) + 0j), r"real numbers, got torch\.complex64; give their \.real"),
        (lambda: plot.heatmap(np.array([["a"]])), "real numbers, got <U1"),
        (lambda: plot.heatmap(torch.full((3, 5, 5), 1e308, dtype=torch.float64)), "is too large for colours"),
        (
            lambda: plot.heatmap(torch.full((5, 5), 1e308, dtype=torch.float64)),
            "too large for colours, 1e[+]308; divide",
        ),
        (
            lambda: plot.images(torch.tensor([-1e308, 1e308], dtype=torch.float64).view(1, 1, 1, 2)),
            r"from -1e\+308 to 1e\+308 are too far apart",
        ),
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
        "local": surrogate_local(network, x[:1], segments=4, maskings=50),
        "graph": surrogate_graph(network, x),
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


def three_frames() -> dict[float, plot.Figure]:
    return {n: plot.heatmap(torch.eye(8).roll(n, 1), alt=f'a "diagonal", {n} to the right') for n in range(3)}


def test_a_slider_holds_every_frame_with_its_alt_text_and_nothing_from_elsewhere():
    frames = three_frames()
    slider = plot.slider(frames, label="shift", start=1)
    pictures = re.findall(r'<img src="data:image/webp;base64,([^"]+)" alt="([^"]+)"', slider.html)
    assert [html.unescape(alt) for _, alt in pictures] == [figure.alt for figure in frames.values()]
    assert re.findall(r'data-value="([^"]+)"( hidden)?', slider.html) == [
        ("shift = 0", " hidden"), ("shift = 1", ""), ("shift = 2", " hidden"),
    ]  # fmt: skip
    for (webp, _), figure in zip(pictures, three_frames().values(), strict=True):
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(webp))).convert("RGB")).astype(float)
        drawn_png = Image.open(io.BytesIO(figure._repr_mimebundle_()[0]["image/png"])).convert("RGB")
        assert np.abs(shown - np.asarray(drawn_png)).mean() < 1
    assert "//" not in re.sub(r"base64,[^\"]+", "", slider.html)
    assert "<button" not in slider.html
    assert "<button" in plot.slider(frames, label="shift", play=True).html


def test_a_slider_is_a_png_with_alt_text_where_html_is_not_shown():
    frames = three_frames()
    data, metadata = plot.slider(frames, label="shift", start=2)._repr_mimebundle_()
    assert data["image/png"] == three_frames()[2]._repr_mimebundle_()[0]["image/png"]
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
    monkeypatch.setattr(plot, "SLIDER_BYTES", 5000)
    with pytest.raises(ValueError, match=r"3 frames take .* draw fewer or smaller"):
        plot.slider(frames, label="shift")


def test_top_patches_and_their_projections_are_mosaics_in_one_call():
    patches = torch.rand(3, 4, 1, 5, 5)
    images = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, -1]])
    values = torch.ones(3, 4).masked_fill(images < 0, -torch.inf)
    top = TopActivations(
        values, images, torch.zeros(3, 4, 2, dtype=torch.long), patches, (ReceptiveField(5, 1, 0),) * 2
    )
    figure = plot.top_patches(top, patches - 0.5, channels=[2, 0])
    above, below = (torch.tensor(np.asarray(figure.axes[i].images[0].get_array())) for i in (0, 2))
    assert above.shape == below.shape == (11, 11)  # two by two tiles of five pixels and a gap
    assert_close(above[:5, 6:], patches[2, 1, 0])
    assert_close(above[6:, :5], patches[2, 2, 0])
    assert (above[6:, 6:] == 1).all()  # there was no fourth image
    assert_close(below[:5, :5], (patches - 0.5)[2, 0, 0] / (patches - 0.5)[2, 0, 0].abs().max())
    assert [axis.get_title() for axis in figure.axes[:2]] == ["channel 2", "channel 0"]
    assert "channels 2, 0" in figure.alt
    assert len(plot.top_patches(top).axes) == 3
    with pytest.raises(ValueError, match=r"channels must lie in 0\.\.2, got \[3\]"):
        plot.top_patches(top, channels=[3])
    with pytest.raises(ValueError, match="projections must be"):
        plot.top_patches(top, patches[:2])


def test_prototypes_are_drawn_above_criticisms_with_their_witness():
    pictures = torch.rand(30, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    chosen = mmd_critic(pictures, 12, 3)
    figure = plot.prototypes(chosen, pictures)
    assert [axis.get_ylabel() for axis in figure.axes[::10]] == ["prototypes", "prototypes", "criticisms"]
    assert_close(torch.tensor(np.asarray(figure.axes[11].images[0].get_array())), pictures[chosen.prototypes[11], 0])
    first = chosen.criticisms[0]
    assert_close(torch.tensor(np.asarray(figure.axes[20].images[0].get_array())), pictures[first, 0])
    assert figure.axes[20].get_title() == f"{1000 * chosen.witness[first]:+.1f}"
    assert "12 prototypes" in figure.alt
    assert "3 criticisms" in figure.alt
    with pytest.raises(ValueError, match="among 30 examples, got 29 pictures"):
        plot.prototypes(chosen, pictures[1:])


def test_numbers_are_written_into_their_cells_and_nan_stays_empty():
    figure = plot.numbers({"a": torch.tensor([[1.0, -0.0], [float("nan"), -2.5]]), "b": torch.ones(1, 3)})
    assert [text.get_text() for text in figure.axes[0].texts] == ["1", "0", "", "-2.5"]
    assert [text.get_text() for text in figure.axes[1].texts] == ["1", "1", "1"]
    assert [axis.get_title() for axis in figure.axes] == ["a", "b"]
    assert "-2.5" in figure.alt
    with pytest.raises(ValueError, match=r"matrices \(H, W\), at least one, got shapes \[\(3,\)\]"):
        plot.numbers({"a": torch.ones(3)})
    with pytest.raises(ValueError, match="at least one"):
        plot.numbers({})


def test_a_retraining_is_drawn_with_baselines_and_masks_alone():
    from interp_lab.evaluate.roar import Cell, Retraining

    def cells(method: str, accuracy: float, mask_only: float) -> list[Cell]:
        return [
            Cell(method, fraction, seed, accuracy - fraction + 0.1 * seed, mask_only)
            for fraction in (0.1, 0.5)
            for seed in (0, 1)
        ]

    whole, broken = [Cell("none", 0.0, seed, 0.9 + 0.1 * seed) for seed in (0, 1)], Cell("broken", 0.1, 0, error="why")
    rows = [*whole, *cells("ours", 0.8, 0.3), broken, *cells("random", 0.7, 0.1), *cells("edges", 0.6, 0.2)]
    figure = plot.retraining(Retraining("most relevant", tuple(rows)))
    (axis,) = figure.axes
    drawn = {line.get_label(): line for line in axis.lines}
    assert list(drawn) == ["random order", "edge detector", "method", "masks alone"]
    assert drawn["method"].get_xdata().tolist() == [0, 0.1, 0.5]
    assert_close(torch.tensor(drawn["method"].get_ydata()), torch.tensor([0.95, 0.75, 0.35], dtype=torch.float64))
    assert_close(torch.tensor(drawn["masks alone"].get_ydata()), torch.tensor([0.3, 0.3], dtype=torch.float64))
    assert len({(line.get_color(), line.get_linestyle()) for line in drawn.values()}) == 4
    assert drawn["masks alone"].get_linestyle() == "--"
    band = axis.collections[0].get_paths()[0].vertices
    assert band[band[:, 0] == 0.5][:, 1].max() == pytest.approx(0.35 + 0.1 / 2**0.5)  # of two seeds 0.1 apart
    assert "failed: broken" in " ".join(figure.get_supxlabel().split())
    assert "With 50 % replaced: random 25 %, edges 15 %, ours 35 %" in figure.alt
    data, _ = plot.retraining(Retraining("most relevant", tuple(rows)), alt="what it shows")._repr_mimebundle_()
    assert data["text/plain"] == "what it shows"
    with pytest.raises(ValueError, match="no method to draw beside its baselines; failed: broken"):
        plot.retraining(Retraining("most relevant", tuple(row for row in rows if row.method != "ours")))


@pytest.mark.filterwarnings("ignore:.*have no positive relevance")
def test_evaluations_are_drawn_in_one_call_with_their_levels():
    from interp_lab import METHODS, class_sensitivity, coherence, model_randomisation, networks, selectivity
    from interp_lab.data import scenes

    network, data = networks.load("scenes_cnn"), scenes(6, seed=9, objects=2)
    masks = data.masks["object"], data.masks["second_object"]
    names = ("saliency", "lrp")
    maps = {name: METHODS[name](network, data.images) for name in names}
    options = {"steps": 4, "patch": 8, "beside": ("random",)}
    results = {
        plot.coherence: {name: coherence(maps[name], masks[0]) for name in names},
        plot.class_sensitivity: {
            name: class_sensitivity(METHODS[name], network, data.images, 0, 1, masks=masks) for name in names
        },
        plot.model_randomisation: {
            name: model_randomisation(METHODS[name], network, data.images[:2]) for name in names
        },
        plot.selectivity: {name: selectivity(network, data.images, maps[name], **options) for name in names},
    }
    figures = {draw: draw(result) for draw, result in results.items()}
    for draw, result in results.items():
        data, _ = draw(result, alt="what it shows")._repr_mimebundle_()
        assert data["text/plain"] == "what it shows"
        assert all(name in figures[draw].alt for name in names)
        with pytest.raises(ValueError, match=r"no result to draw|must be of one network|must have one order"):
            draw({})
    area = masks[0].float().mean().item()
    assert [axis.lines[-1].get_xdata()[0] for axis in figures[plot.coherence].axes] == pytest.approx([area] * 3)
    mean = results[plot.coherence]["saliency"].relevance_mass.mean().item()
    assert f"relevance_mass (chance {area:.2f}): saliency {mean:.2f}" in figures[plot.coherence].alt
    assert [axis.get_xlabel() for axis in figures[plot.class_sensitivity].axes][-1] == "moved"
    lines = {line.get_label(): line.get_ydata() for line in figures[plot.selectivity].axes[0].lines}
    assert list(lines) == ["saliency", "lrp", "random order"]
    assert_close(torch.tensor(lines["lrp"]), results[plot.selectivity]["lrp"].curve.mean(0))
    legends = [*figures[plot.selectivity].legends, figures[plot.selectivity].axes[0].get_legend()]
    assert [legend and legend.get_lines()[2].get_color() for legend in legends] == ["#888888", None], "one, as drawn"
    steps = figures[plot.model_randomisation].axes[0].lines[0].get_ydata()
    assert_close(torch.tensor(steps[1:]).float(), results[plot.model_randomisation]["saliency"].spearman.mean(1))


def test_influential_images_stand_beside_the_test_image_in_their_order():
    from interp_lab import TopInfluence

    pictures, scores = torch.rand(6, 1, 4, 4), torch.tensor([[0.0] * 6, [0.001, -0.002, 0.03, -0.004, 0.0, 0.005]])
    top = TopInfluence(*scores.topk(2), *scores.topk(2, largest=False))
    figures = [plot.influential(pictures[0], pictures, r, row=1, count=2, labels="abcdef") for r in (scores, top)]
    for figure in figures:
        assert [axis.get_title() for axis in figure.axes] == ["test image", "+30", "+5", "", "-4", "-2"]
        for axis, index in ((1, 2), (2, 5), (4, 3), (5, 1)):
            shown = torch.tensor(np.asarray(figure.axes[axis].images[0].get_array()))
            assert_close(shown, pictures[index, 0])
        assert "helpful c +30, f +5; harmful d -4, b -2" in figure.alt
    with pytest.raises(ValueError, match="there are 6 influences, but 5 pictures"):
        plot.influential(pictures[0], pictures[:5], scores)
    assert plot.influential(pictures[0], pictures, scores, alt="what it shows").alt == "what it shows"


def test_images_fit_the_column_with_titles_in_lines_and_labels_of_rows():
    pictures = torch.rand(24, 1, 8, 8)
    figure = plot.images(pictures, ["a rather long title"] * 24, rows=["above", "below"], columns=12)
    assert figure.get_figwidth() == pytest.approx(plot.WIDTH)
    assert figure.axes[0].get_title() == "a\nrather\nlong\ntitle"
    assert [figure.axes[i].get_ylabel() for i in (0, 12)] == ["above", "below"]
    assert figure.alt.startswith("Images: above, below, a rather long title")
    assert plot.images(pictures[:2], ["one\ntwo", ""]).axes[0].get_title() == "one\ntwo"
    with pytest.raises(ValueError, match="24 pictures in 12 columns need 2 rows, got 1"):
        plot.images(pictures, rows=["above"], columns=12)
