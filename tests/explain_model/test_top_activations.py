"""The strongest patches: exhaustive search."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from interp_lab import UnsupportedModelError, top_activations

X = torch.rand(3, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def make_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(125, 3)
    ).double()


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


@pytest.mark.parametrize(
    "kind", ["two places along an axis", "fields cut off on both sides", "a last row that no place sees"]
)
def test_patches_of_a_small_map_hold_what_the_activation_depends_on(kind):
    torch.manual_seed(0)
    conv = lambda i, o: nn.Conv2d(i, o, 3, padding=1)  # noqa: E731
    size, layers = {
        "two places along an axis": (8, [nn.Conv2d(1, 3, 3, stride=4, padding=1)]),
        "fields cut off on both sides": (16, [conv(1, 3), nn.MaxPool2d(2), conv(3, 3)]),
        "a last row that no place sees": (16, [nn.Conv2d(1, 3, 3, stride=2), conv(3, 3)]),
    }[kind]
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
