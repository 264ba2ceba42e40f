"""The one result type of every data source: its rows, its device, and what it refuses."""

import pytest
import torch

from interp_lab.data import Dataset

IMAGES, LABELS, MASK = torch.rand(4, 1, 3, 2), torch.tensor([0, 1, 0, 1]), torch.rand(4, 3, 2) < 0.5
WHOLE = Dataset(IMAGES, LABELS, ("a", "b"), {"object": MASK}, 1 - LABELS)


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (slice(1, 3), [1, 2]),
        ([3, 0], [3, 0]),
        (torch.tensor([2, 2]), [2, 2]),
        (LABELS == 1, [1, 3]),
        (-1, [3]),
    ],
)
def test_rows_keep_what_belongs_to_them(index, rows):
    part = WHOLE[index]
    assert len(part) == len(rows)
    assert torch.equal(part.images, IMAGES[rows])
    assert torch.equal(part.labels, LABELS[rows])
    assert torch.equal(part.masks["object"], MASK[rows])
    assert torch.equal(part.second_labels, 1 - LABELS[rows])
    assert part.classes == ("a", "b")
    assert Dataset(IMAGES, LABELS, ("a", "b"))[index].second_labels is None


def test_everything_goes_to_the_device():
    there = WHOLE.to("meta")
    assert {t.device.type for t in (there.images, there.labels, there.masks["object"], there.second_labels)} == {"meta"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": IMAGES[:, 0]}, r"images must be a float tensor \(N, C, H, W\), got \(4, 3, 2\)"),
        ({"images": (9 * IMAGES).long()}, "images must be a float tensor"),
        ({"labels": LABELS[:3]}, r"labels must be a LongTensor \(4,\), got torch.int64 \(3,\)"),
        ({"labels": LABELS.int()}, r"labels must be a LongTensor \(4,\), got torch.int32"),
        ({"second_labels": LABELS.double()}, "second_labels must be a LongTensor"),
        ({"masks": {"hat": MASK[:, :2]}}, r"mask 'hat' must be bool \(4, 3, 2\), got torch.bool \(4, 2, 2\)"),
        ({"masks": {"hat": MASK.float()}}, "mask 'hat' must be bool"),
    ],
)
def test_what_does_not_fit_together_is_refused_by_name(changed, message):
    with pytest.raises(ValueError, match=message):
        Dataset(**{"images": IMAGES, "labels": LABELS, "classes": ("a", "b")} | changed)
