"""Projections: closed forms, and a deconvnet written out by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from interp_lab import UnsupportedModelError, project_activation, project_top, top_activations

X = torch.rand(3, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def make_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(125, 3)
    ).double()


def test_a_first_layer_unit_projects_to_its_filter_at_its_place_times_its_activation():
    network = make_network()
    maps = network[:2](X).detach()
    projection = project_activation(network, X, "1", 2)
    for image, projected in zip(maps[:, 2], projection, strict=True):
        row, column = divmod(image.argmax().item(), image.shape[1])
        expected = torch.zeros(1, 16, 16, dtype=torch.float64)
        expected[0, row : row + 3, column : column + 3] = image.max() * network[0].weight[2, 0].detach()
        assert_close(projected, expected)


def test_it_equals_a_deconvnet_of_unpooling_and_transposed_convolution():
    network = make_network()
    first = network[:2](X).detach()
    pooled, switches = F.max_pool2d(first, 2, return_indices=True)
    maps = network[3:5](pooled).detach()
    flat = maps[:, 1].flatten(1)
    signal = torch.zeros_like(maps)
    signal[:, 1] = (
        torch.zeros_like(flat).scatter(1, flat.argmax(1, keepdim=True), flat.amax(1, keepdim=True)).view_as(maps[:, 1])
    )
    down = F.conv_transpose2d(signal.relu(), network[3].weight.detach())
    down = F.max_unpool2d(down, switches, 2, output_size=first.shape)
    down = F.conv_transpose2d(down.relu(), network[0].weight.detach())
    assert_close(project_activation(network, X, "4", 1), down)


def test_it_lies_in_the_receptive_field_and_scales_with_the_image_without_biases():
    network = make_network()
    for module in (network[0], network[3]):
        nn.init.zeros_(module.bias)
    projection = project_activation(network, X, network[4], 0)
    for projected in projection[:, 0]:
        rows, columns = projected.nonzero(as_tuple=True)
        assert rows.max() - rows.min() < 8  # 3 -> pool 2 -> 3: 3 * 2 + 2 pixels
        assert columns.max() - columns.min() < 8
    assert_close(project_activation(network, 2 * X, "4", 0), 2 * projection)


def test_an_image_that_does_not_activate_the_channel_projects_to_zero():
    network = make_network()
    with torch.no_grad():
        network[0].bias[1] = -100
    assert_close(project_activation(network, X, "0", 1), torch.zeros_like(X))


def test_what_cannot_be_projected_is_refused_by_name():
    network = make_network()
    with pytest.raises(ValueError, match=r"channel must lie in 0\.\.4, got 5"):
        project_activation(network, X, "4", 5)
    with pytest.raises(ValueError, match="no module 'conv9'"):
        project_activation(network, X, "conv9", 0)
    with pytest.raises(UnsupportedModelError, match="feature maps"):
        project_activation(network, X, "6", 0)
    smooth = nn.Sequential(nn.Conv2d(1, 4, 3), nn.SiLU(), nn.Conv2d(4, 4, 3)).double()
    with pytest.raises(UnsupportedModelError, match=r"'silu' \(module '1'\)"):
        project_activation(smooth, X, "2", 0)


def test_projections_of_the_top_patches_are_those_of_each_image_cut_alike():
    network = make_network()
    x = torch.rand(12, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    top = top_activations(network, x.split(5), "3", k=4)
    projections = project_top(network, x, "3", top)
    for channel in range(5):
        whole = project_activation(network, x[top.images[channel]], "3", channel)
        for projected, down, (row, column) in zip(projections[channel], whole, top.places[channel], strict=True):
            assert_close(projected, down[:, 2 * row : 2 * row + 8, 2 * column : 2 * column + 8])
            assert_close(projected.abs().sum(), down.abs().sum())  # nothing lies outside the patch
    few = top_activations(network, [x[:2]], "3", k=4)
    assert (project_top(network, x, "3", few)[:, 2:] == 0).all()
    with pytest.raises(ValueError, match=r"speaks of image .*, but there are 3 images"):
        project_top(network, x[:3], "3", top)
    with pytest.raises(ValueError, match="channel must lie in"):
        project_activation(network, X, "3", torch.tensor([0, 1, 5]))
    with pytest.raises(ValueError, match="channel must lie in"):
        project_activation(network, X, "3", 1.0)
