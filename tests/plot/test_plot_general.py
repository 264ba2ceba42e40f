"""Images, curves, bars and small matrices."""

import pytest
import torch
from matplotlib.colors import to_hex
from pictures import colours, hue, pixels
from torch.testing import assert_close

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


def test_every_image_stands_in_its_place_under_its_title():
    pictures = torch.rand(5, 1, 2, 2)
    figure = plot.images(pictures, list("abcde"), columns=3)
    for k, (axis, title) in enumerate(zip(figure.axes, "abcde", strict=False)):
        assert axis.get_title() == title
        assert_close(pixels(figure, k), pictures[k, 0])
    assert not figure.axes[5].axison  # the sixth place is empty


def test_numbers_are_written_into_their_cells_and_nan_stays_empty():
    figure = plot.numbers({"a": torch.tensor([[1.0, -0.0], [float("nan"), -2.5]]), "b": torch.ones(1, 3)})
    written = {tuple(int(i) for i in text.get_position()): text.get_text() for text in figure.axes[0].texts}
    assert written == {(0, 0): "1", (1, 0): "0", (0, 1): "", (1, 1): "-2.5"}
    assert [hue(colours(figure)[i, i]) for i in (0, 1)] == ["red", "blue"]
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


def test_curves_stand_over_the_x_that_is_named_each_in_the_colour_of_its_name():
    lines = {"a": [5, 6, 7], "b": [8, 8, 9]}
    figure = plot.curves([0, 1, 4], lines, xlabel="epoch", ylabel="loss")
    (axis,), (legend,) = figure.axes, figure.legends
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("epoch", "loss")
    names = {
        line.get_color(): text.get_text() for line, text in zip(legend.get_lines(), legend.get_texts(), strict=True)
    }
    drawn = {names[line.get_color()]: [axis.tolist() for axis in line.get_data()] for line in axis.lines}
    assert drawn == {"a": [[0, 1, 4], [5, 6, 7]], "b": [[0, 1, 4], [8, 8, 9]]}
    assert figure.alt == "Curves of a, b: loss against epoch."
    own = {"b": [2, 3, 5], "a": [0.5, 1, 4]}
    (axis,) = plot.curves(own, lines, bands=lines, xlabel="epoch", ylabel="loss").axes
    assert [line.get_xdata().tolist() for line in axis.lines] == [own["a"], own["b"]]
    for band, x in zip(axis.collections, (own["a"], own["b"]), strict=True):
        assert set(band.get_paths()[0].vertices[:, 0]) == set(x)


def test_bars_stand_from_top_to_bottom_with_their_numbers_and_the_reference_where_it_is():
    figure = plot.bars({"first": 0.5, "second": -2.0}, xlabel="share", reference=("chance", 0.25))
    (axis,), (legend,) = figure.axes, figure.legends
    height = {
        name.get_text(): axis.transData.transform((0, y))[1]
        for y, name in zip(axis.get_yticks(), axis.get_yticklabels(), strict=True)
    }
    assert height["first"] > height["second"]
    assert [bar.get_width() for bar in axis.patches] == [0.5, -2.0]
    assert [(text.xy[0], text.get_text()) for text in axis.texts] == [(0.5, "0.5"), (-2.0, "-2")]
    assert axis.lines[0].get_xdata() == [0.25, 0.25]
    assert [text.get_text() for text in legend.get_texts()] == ["chance"]
    assert figure.get_supxlabel() == "share"
    assert figure.alt == "share: first 0.5, second -2."


def test_what_the_bars_are_is_not_cut_where_long_names_leave_little_room():
    figure = plot.bars(
        {"a name that is as long as half of the figure": 1.0}, xlabel="share of the settings that are true"
    )
    figure.canvas.draw()
    box = figure._supxlabel.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.x1


def test_arrows_go_from_the_start_to_their_ends_and_the_dashed_line_is_where_the_score_is_zero():
    w, b = torch.tensor([2.0, -1.0]), -0.5
    ends = {"right": torch.tensor([0.9, 0.25]), "up": (0.25, 0.75)}
    figure = plot.arrows(ends, start=(0.25, 0.25), zero=(w, b), limits=(0, 1))
    (axis,) = figure.axes
    drawn = [text for text in axis.texts if text.arrow_patch]
    assert [text.xy for text in drawn] == [pytest.approx((0.9, 0.25)), (0.25, 0.75)]
    assert all(text.xyann == (0.25, 0.25) for text in drawn)
    named = {text.get_text(): text for text in axis.texts if not text.arrow_patch}
    assert {name: text.xy for name, text in named.items()} == {
        "right": pytest.approx((0.9, 0.25)),
        "up": (0.25, 0.75),
    }
    assert named["right"].xyann == pytest.approx((9, 0))  # points further on, beyond the head of the arrow
    (line,) = (line for line in axis.lines if line.get_linestyle() == "--")
    assert [2 * x - y - 0.5 for x, y in (line.get_xy1(), line.get_xy2())] == pytest.approx([0, 0], abs=1e-6)
    assert tuple(line.get_xy1()) != tuple(line.get_xy2())
    assert axis.get_xlim() == axis.get_ylim() == (0, 1)


@pytest.mark.parametrize(("ends", "start"), [({}, (0, 0)), ({"a": (1, 2, 3)}, (0, 0)), ({"a": (1, 2)}, (0,))])
def test_arrows_outside_the_plane_are_refused(ends, start):
    with pytest.raises(ValueError, match=r"of shape \(2,\)"):
        plot.arrows(ends, start=start)
