"""Filters, strongest patches and projections: closed forms, exhaustive search, a deconvnet written out by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from interp_lab import UnsupportedModelError, filters, project_activation, project_top, top_activations
from interp_lab.explain_model.weights import Field, receptive_field


def make_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(125, 3)
    ).double()


X = torch.rand(3, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


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


@pytest.mark.parametrize(
    ("layers", "field"),
    [
        ([nn.Conv2d(1, 2, 3)], Field(3, 1, 0)),
        ([nn.Conv2d(1, 2, 5, stride=2, padding=2)], Field(5, 2, -2)),
        ([nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Conv2d(2, 2, 3)], Field(8, 2, 0)),
        ([nn.Conv2d(1, 2, 3, dilation=2), nn.BatchNorm2d(2), nn.ReLU(), nn.AvgPool2d(3, 3)], Field(7, 3, 0)),
        ([nn.Conv2d(1, 2, 3, padding=1), nn.AdaptiveAvgPool2d(1)], Field(24, 0, 0)),
        ([nn.Conv2d(1, 2, 3, stride=12, padding=1)], Field(3, 12, -1)),  # two places
        (
            [nn.Conv2d(1, 2, 9, padding=4), nn.MaxPool2d(6), nn.Conv2d(2, 2, 3, padding=1)],
            Field(26, 6, -10),
        ),  # cut everywhere
        ([nn.Conv2d(1, 2, 1, padding=1)], Field(1, 1, -1)),  # the outer places see padding alone
    ],
)
def test_receptive_fields_by_arithmetic(layers, field):
    network = nn.Sequential(*layers).eval()
    for weight in network.parameters():
        nn.init.zeros_(weight)  # the field does not depend on the weights
    x = torch.rand(1, 1, 24, 24)
    assert receptive_field(network, str(len(layers) - 1), x) == (field, field)


class First(nn.Module):
    """A network that does something to x first."""

    def __init__(self, function, *layers) -> None:
        super().__init__()
        self.function, self.layers, self.head = function, nn.Sequential(*layers), nn.Linear(layers[-1].out_channels, 2)

    def forward(self, x):
        return self.head(self.layers(self.function(x)).relu().mean((2, 3)))


@pytest.mark.parametrize(
    "network",
    [
        First(lambda x: x.mT, nn.Conv2d(3, 2, 3)),  # rows are columns
        First(
            lambda x: x.flatten(1).unflatten(1, (12, 10, 3)).permute(0, 3, 1, 2), nn.Conv2d(3, 2, 3)
        ),  # channels last
        First(lambda x: x, nn.Conv2d(3, 2, 1), nn.Upsample(scale_factor=2), nn.Conv2d(2, 2, 3)),
        First(lambda x: x, nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.PixelShuffle(2), nn.Conv2d(2, 2, 1)),
        First(lambda x: x, nn.Conv2d(3, 2, 3, stride=2), nn.ConvTranspose2d(2, 2, 2, stride=2)),
        First(lambda x: x, nn.AdaptiveAvgPool2d(5), nn.Conv2d(3, 2, 1)),
    ],
)
def test_places_that_are_no_grid_over_the_image_have_no_patches(network):
    layer = f"layers.{len(network.layers) - 1}"
    with pytest.raises(UnsupportedModelError, match=r"do not see equal patches .* at equal steps along its axis"):
        top_activations(network, [torch.rand(2, 3, 12, 10)], layer)


@pytest.mark.parametrize("sizes", [[40], [1, 7, 32], [13, 13, 14]])
def test_top_activations_equal_exhaustive_search_however_the_data_are_cut(sizes):
    network = make_network()  # before the ReLU, since ties at 0 have no order
    x = torch.rand(40, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    result = top_activations(network, [(part, None) for part in x.split(sizes)], "3", k=5)
    maps = network[:4](x).detach()
    for channel in range(5):
        per_image = maps[:, channel].flatten(1).amax(1)
        values, images = per_image.topk(5)
        assert_close(result.values[channel], values)
        assert result.images[channel].tolist() == images.tolist()
        for rank, image in enumerate(images):
            row, column = result.places[channel, rank]
            assert maps[image, channel, row, column] == values[rank]
            # The field of place p is 8 pixels from 2 p on; it holds all that the activation depends on.
            patch = x[image, :, 2 * row : 2 * row + 8, 2 * column : 2 * column + 8]
            assert_close(result.patches[channel, rank], patch)
            assert_close(network[:4](patch[None])[0, channel, 0, 0].detach(), values[rank])


def test_patches_are_zero_beyond_the_image():
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.ones_(conv.weight)
    network = nn.Sequential(conv, nn.Flatten(), nn.Linear(25, 2))
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 0, 0] = 1.0
    result = top_activations(network, [x], "0", k=2)
    patch = torch.zeros(3, 3)
    row, column = result.places[0, 0]
    patch[1 - row, 1 - column] = 1.0
    assert_close(result.patches[0, 0, 0], patch)
    assert result.values[0, 1] == -torch.inf
    assert result.images[0, 1] == -1


@pytest.mark.parametrize("size", [8, 16])
def test_patches_of_a_small_map_hold_what_the_activation_depends_on(size):
    """Two places along an axis, and fields cut off on both sides."""
    torch.manual_seed(0)
    conv = lambda i, o: nn.Conv2d(i, o, 3, padding=1)  # noqa: E731
    layers = [nn.Conv2d(1, 3, 3, stride=4, padding=1)] if size == 8 else [conv(1, 3), nn.MaxPool2d(2), conv(3, 3)]
    network = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(3, 2)).double().eval()
    x, layer = torch.rand(6, 1, size, size, dtype=torch.float64), str(len(layers) - 1)
    top = top_activations(network, [x], layer, k=6)
    for channel in range(3):
        for rank, image in enumerate(top.images[channel]):
            row, column = top.places[channel, rank]
            pixels = x[image].clone().requires_grad_()
            seen = torch.autograd.grad(network[: len(layers)](pixels[None])[0, channel, row, column], pixels)[0][0] != 0
            rows, columns = (seen.any(axis).nonzero().flatten() for axis in (1, 0))
            start = [
                int(place * field.stride + field.start) for place, field in zip((row, column), top.fields, strict=True)
            ]
            assert start[0] <= rows[0] <= rows[-1] < start[0] + top.fields[0].size
            assert start[1] <= columns[0] <= columns[-1] < start[1] + top.fields[1].size
            padded = torch.nn.functional.pad(x[image], (size,) * 4)[:, size + start[0] :, size + start[1] :][
                :, : top.fields[0].size, : top.fields[1].size
            ]
            assert_close(top.patches[channel, rank], padded)


def test_top_activations_refuse_by_name():
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        top_activations(make_network(), [X], "4", k=0)
    with pytest.raises(ValueError, match="at least one batch"):
        top_activations(make_network(), [], "4")
    with pytest.raises(ValueError, match="no module 'conv9'"):
        top_activations(make_network(), [X], "conv9")
    with pytest.raises(ValueError, match="needs images"):
        top_activations(nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(16, 2)), [torch.rand(2, 1, 10)], "0")


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
