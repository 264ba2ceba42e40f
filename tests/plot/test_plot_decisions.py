"""Heatmaps, and the training images behind a decision."""

import numpy as np
import pytest
import torch
from pictures import pixels
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
        for axis, index in ((1, 2), (2, 5), (4, 3), (5, 1)):
            assert_close(pixels(figure, axis), pictures[index, 0])
        assert "helpful c +30, f +5; harmful d -4, b -2" in figure.alt
    with pytest.raises(ValueError, match="there are 6 influences, but 5 pictures"):
        plot.influential(pictures[0], pictures[:5], scores)
    assert plot.influential(pictures[0], pictures, scores, alt="what it shows").alt == "what it shows"
