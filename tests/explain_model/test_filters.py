"""Filters as pictures: closed forms."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from interp_lab import filters


def test_filters_keep_sign_and_relative_size_with_zero_as_grey():
    conv = nn.Conv2d(1, 3, 2)
    with torch.no_grad():
        conv.weight[:] = torch.tensor(
            [[[[1.0, -2.0], [0.0, 0.5]]], [[[0.0, 0.0], [0.0, 0.0]]], [[[3.0, 3.0], [3.0, -3.0]]]]
        )
    expected = torch.tensor([[[[0.75, 0.0], [0.5, 0.625]]], [[[0.5, 0.5], [0.5, 0.5]]], [[[1.0, 1.0], [1.0, 0.0]]]])
    assert_close(filters(nn.Sequential(nn.Identity(), conv)), expected)


def test_filters_without_a_picture_are_refused():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.ReLU())
    assert filters(network, "0").shape == (4, 3, 1, 1)
    with pytest.raises(ValueError, match="over 4 feature maps is no picture"):
        filters(network, "1")
    with pytest.raises(ValueError, match="needs a Conv2d of the model, got '2'"):
        filters(network, "2")
    with pytest.raises(ValueError, match="needs a Conv2d of the model, got None"):
        filters(nn.Linear(2, 2))
