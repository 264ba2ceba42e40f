"""Tables: what stands in which cell, and how it is written."""

import re

import pytest
import torch

from interp_lab import bootstrap, plot


def cells(html: str) -> list[list[str]]:
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr.*?</tr>", html, re.S)]


def test_every_value_stands_in_its_row_and_column_in_the_order_given():
    frame = plot.table({"b": {"y": 0.125, "x": 1.0}, "a": {"x": -2.0, "z": 3.0}}, ".3f", label="name")
    assert cells(frame.to_html()) == [
        ["name", "y", "x", "z"],
        ["b", "0.125", "1.000", ""],
        ["a", "", "-2.000", "3.000"],
    ]


def test_texts_and_counts_stay_as_they_are_and_all_else_is_written_by_the_spec():
    interval = bootstrap(torch.tensor([0.0, 1.0, 1.0, 1.0] * 25))
    values = {
        "text": "0.5 ± 0.1",
        "count": 7,
        "flag": True,
        "number": 0.756,
        "tensor": torch.tensor([0.756]),
        "several": torch.tensor([1, 2, 6]),
        "tensor of a count": torch.tensor(7),
        "interval": interval,
    }
    assert cells(plot.table({4: values}, ".0%").to_html())[1] == [
        "4", "0.5 ± 0.1", "7", "True", "76%", "76%", "300% ± 265%", "7", "75% [66%, 83%]",
    ]  # fmt: skip


def test_an_interval_has_three_digits_unless_told():
    interval = bootstrap(torch.tensor([0.0, 1.0, 1.0, 1.0] * 25))
    assert f"{interval}" == str(interval) == "0.750 [0.660, 0.830]"
    assert f"{interval:.1f}" == "0.8 [0.7, 0.8]"


def test_a_number_that_names_a_row_is_written_as_it_is():
    assert [row[0] for row in cells(plot.table({0.01: {"a": 1}, 1: {"a": 1}}).to_html())] == ["", "0.01", "1"]


def test_markup_in_a_name_is_text():
    assert "&lt;b&gt;|x|" in plot.table({"<b>|x|": {"a": 1}}).to_html()


@pytest.mark.parametrize("shape", [(0,), (1, 3)])
def test_a_tensor_that_no_cell_can_hold_is_refused_by_its_place(shape):
    with pytest.raises(ValueError, match=rf"'share' of 'lrp' has shape {re.escape(str(shape))}; give numbers"):
        plot.table({"lrp": {"share": torch.ones(shape)}})
