"""Images, curves, bars and small matrices."""

import pytest
import torch
from matplotlib.colors import to_hex

from interp_lab import plot


def test_images_fit_the_column_with_titles_in_lines_and_labels_of_rows():
    pictures = torch.rand(24, 1, 8, 8)
    figure = plot.images(pictures, ["a rather long title"] * 24, rows=["above", "below"], columns=12)
    assert figure.get_figwidth() == pytest.approx(plot.WIDTH)
    assert figure.axes[0].get_title() == "a\nrather\nlong\ntitle"
    assert [figure.axes[i].get_ylabel() for i in (0, 12)] == ["above", "below"]
    assert figure.alt.startswith("Images: above, below, a rather long title")
    assert plot.images(pictures[:2], ["one\ntwo", ""]).axes[0].get_title() == "one\ntwo"
    with pytest.raises(ValueError, match="24 pictures in 12 columns need 2 rows, got 1"):
        plot.images(pictures, rows=["above"], columns=12)


def test_numbers_are_written_into_their_cells_and_nan_stays_empty():
    figure = plot.numbers({"a": torch.tensor([[1.0, -0.0], [float("nan"), -2.5]]), "b": torch.ones(1, 3)})
    assert [text.get_text() for text in figure.axes[0].texts] == ["1", "0", "", "-2.5"]
    assert [text.get_text() for text in figure.axes[1].texts] == ["1", "1", "1"]
    assert [axis.get_title() for axis in figure.axes] == ["a", "b"]
    assert "-2.5" in figure.alt
    with pytest.raises(ValueError, match=r"matrices \(H, W\), at least one, got shapes \[\(3,\)\]"):
        plot.numbers({"a": torch.ones(3)})
    with pytest.raises(ValueError, match="at least one"):
        plot.numbers({})


def test_a_band_reaches_its_half_width_above_and_below_its_own_line():
    lines, half = {"a": [1.0, 2.0, 4.0], "b": [0.0, 0.0, 0.0]}, [0.5, 0.25, 1.0]
    (axis,) = plot.curves([0, 1, 2], lines, xlabel="x", ylabel="y", bands={"a": half}).axes
    (band,) = axis.collections
    drawn = band.get_paths()[0].vertices
    for x, (y, width) in enumerate(zip(lines["a"], half, strict=True)):
        assert set(drawn[drawn[:, 0] == x][:, 1]) == {y - width, y + width}
    assert to_hex(band.get_facecolor()) == axis.lines[0].get_color().lower()
