"""All pictures: what colour means, arrays of any kind, what is refused, and that every figure carries its alt text."""

import io

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from pictures import assert_is_shown_with_alt_text, caption, colours, pixels, png
from PIL import Image
from torch.testing import assert_close

from interp_lab import mmd_critic, plot


def test_signed_maps_are_white_at_zero_red_above_and_blue_below():
    red, white, blue = colours(plot.heatmap(torch.tensor([[2.0, 0.0, -1.0]])))[0]
    assert_close(torch.tensor(white), torch.ones(3, dtype=torch.float64), atol=0.04, rtol=0)
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    # The scale is symmetric: -1 lies half way to the end that 2 reaches.
    assert_close(torch.tensor(blue), torch.tensor(colormaps[plot.DIVERGING](0.25)[:3]), atol=0.02, rtol=0)


@pytest.mark.parametrize("shape", [(1, 300, 300), (1, 3, 300, 300)])
def test_a_large_map_has_no_colour_that_is_not_on_its_scale(shape):
    """Every cell of the picture stands for many pixels of either sign: their mean is drawn, not that of their colours."""
    figure = plot.panel(None, {"": torch.randn(shape) + 0.2})
    picture = np.asarray(Image.open(io.BytesIO(png(figure))).convert("RGB")).astype(float)
    rows, columns = np.nonzero(np.ptp(picture, axis=2) > 40)
    inside = picture[rows.min() + 3 : rows.max() - 2, columns.min() + 3 : columns.max() - 2]  # not its frame
    coloured = np.unique(inside.reshape(-1, 3), axis=0)
    scale = 255 * colormaps[plot.DIVERGING](np.linspace(0, 1, 1024))[:, :3]
    assert len(coloured) > 50
    assert np.abs(coloured[:, None] - scale).max(2).min(1).max() < 6


def test_magnitudes_use_the_sequential_map_from_zero():
    dark, bright = colours(plot.heatmap(torch.tensor([[0.0, 3.0]])))[0]
    assert dark.sum() < 0.1
    assert bright.sum() > 2


def test_channels_are_summed():
    attribution = torch.tensor([[[1.0, -1.0]], [[2.0, 1.0]]])
    assert_close(pixels(plot.heatmap(attribution)), attribution.sum(0))


def test_colours_clip_at_the_percentile_and_the_caption_says_so():
    values = torch.cat([torch.full((999,), 1.0), torch.tensor([100.0])]).view(20, 50)
    figure = plot.heatmap(values, percentile=90)
    assert figure.axes[0].images[0].norm.vmax == 1.0
    assert "90th percentile" in caption(figure)


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
        shown = pixels(figure)
        assert_close(shown, expected, msg=lambda m, f=function: f"{f}: {m}")
        assert told in caption(figure), function
        assert told in figure.alt, function


def test_images_in_0_to_1_are_shown_as_they_are_and_nothing_is_told():
    for image in (IMAGE, IMAGE.numpy(), IMAGE * 0.01, IMAGE > 0.5, (1.003 * IMAGE - 0.001)):
        for function, figure in every_figure_of_images(image).items():
            shown = pixels(figure)
            assert_close(shown, torch.as_tensor(image).float().permute(1, 2, 0), atol=0.002, rtol=0)
            assert "black is" not in figure.alt + figure.get_supxlabel(), function


def test_the_images_of_a_figure_share_their_scaling():
    figure = plot.influential(IMAGE, torch.stack([4 * IMAGE, 2 * IMAGE]), torch.tensor([[1.0, 0.0]]))
    first, second, third = (pixels(figure, i) for i in (0, 1, 2))
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


def test_maps_of_numpy_and_of_any_size_are_drawn():
    values = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32)
    for array in (
        values,
        values[:, ::-1][:, ::-1],
        np.moveaxis(values, 0, 2).astype(np.float64),
        torch.tensor(values).half(),
    ):
        np.testing.assert_allclose(pixels(plot.heatmap(array)), values.sum(0), atol=0.01)
    large = torch.arange(4200.0 * 4200).view(4200, 4200)
    assert plot.heatmap(large, percentile=50).axes[0].images[0].norm.vmax == pytest.approx(4200**2 / 2)


@pytest.mark.parametrize("size", [1e-300, 1e-60, 1e39, 1e300])
def test_float64_is_drawn_beyond_the_range_of_float32(size):
    values = torch.randn(3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert png(plot.heatmap(values * size)) == png(plot.heatmap(values))
    if size > 1:
        shown, right = (pixels(plot.images(v[None])) for v in (values * size, values))
        np.testing.assert_allclose(shown.max() - shown.min(), 1, rtol=1e-6)
        np.testing.assert_allclose(shown, right, atol=1e-6)
        assert plot.numbers({"a": values[0] * size}).axes[0].texts[0].get_text() == f"{values[0, 0, 0] * size:.3g}"


def test_float32_at_the_end_of_its_range_is_drawn():
    values = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    large = plot.heatmap(values * 3e38)  # whose channels sum to more
    np.testing.assert_allclose(colours(large), colours(plot.heatmap(values)), atol=0.02)
    assert "black is -3e+38, white is 3e+38" in plot.images(torch.tensor([-3e38, 3e38]).view(1, 1, 1, 2)).alt


@pytest.mark.filterwarnings("error")
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


@pytest.mark.parametrize(
    "figure",
    [
        lambda alt: plot.heatmap(torch.randn(3, 8, 8), torch.rand(3, 8, 8), alt=alt),
        lambda alt: plot.panel(torch.rand(2, 1, 8, 8), {"a": torch.randn(2, 8, 8)}, alt=alt),
        lambda alt: plot.tokens([["not", "good"]], torch.tensor([[2.0, 1.0]]), alt=alt),
        lambda alt: plot.images(torch.rand(3, 3, 8, 8), ["a", "b", "c"], columns=2, alt=alt),
        lambda alt: plot.curves(
            [0, 1], {"a": [0, 1], "b": [1, 0]}, xlabel="x", ylabel="y", bands={"a": [1, 1]}, alt=alt
        ),
        lambda alt: plot.bars({"a": 1.0, "b": 2.0}, xlabel="share", reference=("chance", 0.5), alt=alt),
    ],
)
def test_every_figure_shows_itself_as_a_png_with_alt_text(figure):
    assert_is_shown_with_alt_text(figure)


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


def test_a_figure_is_shown_as_savefig_draws_it_and_stays_as_it_was():
    pictures, saved = torch.rand(6, 3, 8, 8), io.BytesIO()
    figure = plot.images(pictures, list("abcdef"), columns=3)
    figure.set(dpi=72, facecolor="#eeeeee")
    shown = np.asarray(Image.open(io.BytesIO(png(figure))))
    plot.images(pictures, list("abcdef"), columns=3).savefig(saved, dpi=plot.DPI, facecolor="white")
    np.testing.assert_array_equal(shown, np.asarray(Image.open(saved).convert("RGB")))
    assert (figure.get_dpi(), figure.get_facecolor()[0]) == (72, 0xEE / 255)
