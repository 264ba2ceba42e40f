"""Heatmaps, and the training images behind a decision."""

import numpy as np
import pytest
import torch
from pictures import caption, colours, hue, pixels
from torch.testing import assert_close

from interp_lab import TopInfluence, plot


def test_an_overlay_lies_over_the_whole_image_and_lets_it_through_where_there_is_nothing():
    attribution, image = torch.tensor([[2.0, 0.0], [-1.0, 0.5]]), torch.rand(3, 6, 6)
    figure = plot.heatmap(attribution, image, overlay=True, percentile=100)
    under, over = figure.axes[1].images
    assert_close(pixels(figure, 1), image.mean(0))
    assert list(under.get_extent()) == list(over.get_extent()) == [-0.5, 1.5, 1.5, -0.5]
    np.testing.assert_allclose(over.get_alpha(), [[0.8, 0.0], [0.4, 0.2]], rtol=1e-6)
    assert "over their images" in figure.alt
    with pytest.raises(ValueError, match="an overlay needs images"):
        plot.heatmap(attribution, overlay=True)


def test_influential_images_stand_beside_the_test_image_in_their_order():
    pictures, scores = torch.rand(6, 1, 4, 4), torch.tensor([[0.0] * 6, [0.001, -0.002, 0.03, -0.004, 0.0, 0.005]])
    top = TopInfluence(*scores.topk(2), *scores.topk(2, largest=False))
    figures = [plot.influential(pictures[0], pictures, r, row=1, count=2, labels="abcdef") for r in (scores, top)]
    for figure in figures:
        assert [axis.get_title() for axis in figure.axes] == ["test image", "+30", "+5", "", "-4", "-2"]
        assert [axis.get_xlabel() for axis in figure.axes] == ["", "c", "f", "", "d", "b"]
        assert [figure.axes[k].get_ylabel() for k in (1, 4)] == ["helpful", "harmful"]
        assert "rise of the test loss without it, x 1000" in caption(figure)
        for axis, index in ((1, 2), (2, 5), (4, 3), (5, 1)):
            assert_close(pixels(figure, axis), pictures[index, 0])
        assert "helpful c +30, f +5; harmful d -4, b -2" in figure.alt
    with pytest.raises(ValueError, match="there are 6 influences, but 5 pictures"):
        plot.influential(pictures[0], pictures[:5], scores)
    assert plot.influential(pictures[0], pictures, scores, alt="what it shows").alt == "what it shows"


def test_every_map_of_a_panel_stands_in_the_row_of_its_image_and_under_the_title_of_its_method():
    images, first, second = torch.rand(2, 3, 4, 4), torch.randn(2, 4, 4), torch.randn(2, 4, 4)
    figure = plot.panel(images, {"first": first, "second": second}, rows=["cat", "dog"])
    assert [axis.get_title() for axis in figure.axes] == ["image", "first", "second", "", "", ""]
    assert [axis.get_ylabel() for axis in figure.axes] == ["cat", "", "", "dog", "", ""]
    for row in (0, 1):
        assert_close(pixels(figure, 3 * row), images[row].permute(1, 2, 0))
        assert_close(pixels(figure, 3 * row + 1), first[row])
        assert_close(pixels(figure, 3 * row + 2), second[row])
    assert figure.alt == "Heatmaps. Rows: cat, dog. Columns: image, first, second."


def test_the_caption_of_a_panel_tells_the_colours_that_are_there():
    signed, magnitude = torch.tensor([[[1.0, -2.0]]]), torch.tensor([[[1.0, 2.0]]])
    for maps, red, dark in (
        ({"a": signed}, True, False),
        ({"a": magnitude}, False, True),
        ({"a": signed, "b": magnitude}, True, True),
    ):
        told = caption(plot.panel(None, maps, percentile=100))
        assert ("red positive, blue negative, white zero" in told, "dark zero, bright large" in told) == (red, dark)
        assert told.endswith("each map has its own scale")


def test_a_column_has_one_language_of_colours():
    mixed = torch.tensor([[[1.0, -2.0]], [[1.0, 2.0]]])
    figure = plot.panel(None, {"mixed": mixed, "magnitude": mixed.abs()}, percentile=100)
    colours = [axis.images[0].get_cmap().name for axis in figure.axes]
    assert colours == [plot.DIVERGING, plot.SEQUENTIAL] * 2


def test_the_frames_of_a_slider_can_speak_one_language_of_colours():
    magnitude = torch.tensor([[[1.0, 2.0]]])
    figure = plot.panel(None, {"magnitude": magnitude}, percentile=100, signed=True)
    assert figure.axes[0].images[0].get_cmap().name == plot.DIVERGING
    assert "dark zero" not in caption(figure)


def test_a_panel_has_a_column_for_each_batch_of_pictures():
    images, baseline, map_ = torch.rand(2, 3, 4, 4), torch.zeros(2, 3, 4, 4), torch.randn(2, 4, 4)
    figure = plot.panel({"scene": images, "baseline": baseline}, {"map": map_})
    assert [axis.get_title() for axis in figure.axes] == ["scene", "baseline", "map", "", "", ""]
    for row in (0, 1):
        assert_close(pixels(figure, 3 * row), images[row].permute(1, 2, 0))
        assert_close(pixels(figure, 3 * row + 1), baseline[row].permute(1, 2, 0))
        assert_close(pixels(figure, 3 * row + 2), map_[row])
    with pytest.raises(ValueError, match="one common length above 0, got \\[1, 2\\]"):
        plot.panel({"scene": images, "baseline": baseline[:1]}, {"map": map_})


def test_every_word_stands_on_the_colour_of_its_value_and_the_evidence_in_a_frame():
    words, values = [["not", "good"], ["so", "bad"]], torch.tensor([[-2.0, 1.0], [0.0, 0.0]])
    framed = torch.tensor([[True, False], [True, True]])
    figure = plot.tokens(words, values, rows=["a", "b"], evidence=framed)
    (axis,) = figure.axes
    assert_close(pixels(figure), torch.tensor([[-1.0, 0.5], [0.0, 0.0]]))
    assert [hue(colour) for colour in colours(figure)[0]] == ["blue", "red"]
    assert {text.get_text(): text.get_position() for text in axis.texts} == {
        word: (j, i) for i, row in enumerate(words) for j, word in enumerate(row)
    }
    assert [text.get_weight() == "bold" for text in axis.texts] == framed.flatten().tolist()
    assert [(round(p.get_y()), round(p.get_x())) for p in axis.patches] == [(0, 0), (1, 0), (1, 1)]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b"]
    assert figure.alt == "Words on the colours of their values. The strongest: a: not -2, b: so +0."
    assert "in a frame: the evidence" in caption(figure)
    assert "frame" not in caption(plot.tokens(words, values))


@pytest.mark.parametrize(
    ("words", "values", "options", "message"),
    [
        ([["a", "b"]], torch.zeros(2, 2), {}, r"1 sentences of \[2\] words need as many values, got values \(2, 2\)"),
        ([["a"], ["a", "b"]], torch.zeros(2, 2), {}, r"sentences of \[1, 2\] words"),
        ([["a"]], torch.zeros(1, 1), {"rows": ["a", "b"]}, "and 2 rows"),
        ([["a"]], torch.zeros(1, 1), {"evidence": torch.ones(2, 1)}, r"evidence \(2, 1\)"),
        ([], torch.zeros(0, 0), {}, "length above 0"),
        ([["a"]], torch.tensor([[torch.nan]]), {}, "'values' holds NaN"),
    ],
)
def test_words_without_a_value_each_are_refused(words, values, options, message):
    with pytest.raises(ValueError, match=message):
        plot.tokens(words, values, **options)
