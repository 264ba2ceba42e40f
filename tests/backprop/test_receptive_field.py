"""Receptive fields: arithmetic by hand, and where the gradient is."""

import pytest
import torch
from torch import nn

from interp_lab import UnsupportedModelError
from interp_lab.backprop.receptive_field import ReceptiveField, receptive_field


@pytest.mark.parametrize(
    ("layers", "field"),
    [
        ([nn.Conv2d(1, 2, 3)], ReceptiveField(3, 1, 0)),
        ([nn.Conv2d(1, 2, 5, stride=2, padding=2)], ReceptiveField(5, 2, -2)),
        ([nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Conv2d(2, 2, 3)], ReceptiveField(8, 2, 0)),
        ([nn.Conv2d(1, 2, 3, dilation=2), nn.BatchNorm2d(2), nn.ReLU(), nn.AvgPool2d(3, 3)], ReceptiveField(7, 3, 0)),
        ([nn.Conv2d(1, 2, 3, padding=1), nn.AdaptiveAvgPool2d(1)], ReceptiveField(24, 0, 0)),
        ([nn.Conv2d(1, 2, 3, stride=12, padding=1)], ReceptiveField(3, 12, -1)),  # two places
        (
            [nn.Conv2d(1, 2, 9, padding=4), nn.MaxPool2d(6), nn.Conv2d(2, 2, 3, padding=1)],
            ReceptiveField(26, 6, -10),
        ),  # cut everywhere
        ([nn.Conv2d(1, 2, 3, stride=2), nn.Conv2d(2, 2, 3, padding=1)], ReceptiveField(7, 2, -2)),  # none sees the last
        ([nn.Conv2d(1, 2, 1, padding=1)], ReceptiveField(1, 1, -1)),  # the outer places see padding alone
    ],
)
def test_receptive_fields_by_arithmetic(layers, field):
    network = nn.Sequential(*layers).eval()
    for weight in network.parameters():
        nn.init.zeros_(weight)  # the field does not depend on the weights
    x = torch.rand(1, 1, 24, 24)
    assert receptive_field(network, str(len(layers) - 1), x) == (field, field)


def rows_seen(body: nn.Sequential, x: torch.Tensor) -> list[list[int]]:
    """For each place along the diagonal, first and last row on which it depends, by the gradient of random weights."""
    windows, maps = [], body(x.requires_grad_())
    for i in range(maps.shape[2]):
        (gradient,) = torch.autograd.grad(maps[0, :, i, i].sum(), x, retain_graph=True)
        rows = gradient[0, 0].abs().sum(1).nonzero()
        windows.append([rows.min().item(), rows.max().item() + 1])
    return windows


def dilated(padding: int) -> nn.Sequential:
    """Average pooling and no ReLU: the gradient reaches every pixel of the window."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 5, padding=2, stride=2), nn.AvgPool2d(2), nn.Conv2d(2, 2, 3, dilation=2, padding=padding)
    ).double()


def test_receptive_fields_agree_with_where_the_gradient_is():
    body, x = dilated(0), torch.rand(1, 1, 40, 40, dtype=torch.float64)
    field, _ = receptive_field(body, body, x)
    assert [field.windows(torch.tensor(i), 40).tolist() for i in range(6)] == rows_seen(body, x)


def test_where_padding_between_dilated_taps_hides_pixels_from_outer_places_no_field_fits_all():
    body, x = dilated(1), torch.rand(1, 1, 40, 40, dtype=torch.float64)
    assert [window[0] for window in rows_seen(body, x)[:3]] == [2, 0, 2]  # equal steps of 4 give 0, 0, 2
    with pytest.raises(UnsupportedModelError, match="do not see equal patches"):
        receptive_field(body, body, x)


def test_a_field_is_found_in_eval_mode_and_leaves_the_network_as_it_was():
    body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5))
    assert receptive_field(body, body, torch.rand(1, 1, 9, 9)) == (ReceptiveField(3, 1, 0),) * 2
    assert body.training
    assert (body[1].running_mean == 0).all()


def test_anything_but_one_image_is_refused():
    body = nn.Conv2d(1, 2, 3)
    for shape in ((2, 1, 9, 9), (1, 9, 9)):
        with pytest.raises(ValueError, match=r"needs one image \(1, C, H, W\)"):
            receptive_field(body, body, torch.rand(shape))
