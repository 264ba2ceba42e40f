"""Segments: colours that are known."""

import pytest
import torch

from interp_lab import segment


def test_segments_follow_the_colours_and_cover_the_image():
    image = torch.zeros(3, 32, 32)
    image[0, :, 11:] = 1.0
    image[2, 20:] = 1.0
    numbers = segment(image, 16, compactness=0.1)
    assert numbers.shape == (32, 32)
    assert torch.equal(numbers.unique(), torch.arange(int(numbers.max()) + 1))
    for s in numbers.unique():  # no segment spans two colours
        assert image[:, numbers == s].std(1).max() == 0
    assert torch.equal(numbers, segment(image, 16, compactness=0.1))
    assert len(segment(torch.rand(1, 20, 30), 24).unique()) == 24
    assert (segment(image, 1) == 0).all()


def test_compactness_weighs_place_against_colour():
    stripes = torch.zeros(1, 16, 16)
    stripes[:, ::2] = 1.0
    quadrants = torch.arange(16)[:, None] // 8 * 2 + torch.arange(16) // 8
    assert torch.equal(segment(stripes, 4, compactness=100.0), quadrants)
    by_colour = segment(stripes, 4, compactness=0.01)
    assert all(stripes[0, by_colour == number].unique().numel() == 1 for number in by_colour.unique())


def test_a_number_of_segments_out_of_range_is_refused():
    with pytest.raises(ValueError, match="1 to H x W segments"):
        segment(torch.rand(1, 28, 28), 0)
