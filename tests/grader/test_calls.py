"""Messages between the judge and the student's process, which may send anything."""

import numpy as np
import pytest
import torch

from grader import calls, sandbox

ONE = {"result": torch.ones(2)}


def test_answers_are_taken_in_their_order_and_none_before_its_turn():
    first, second = (calls.pack({"call": number, "kind": "Tensor"}, ONE) for number in (0, 1))
    found, wrong = calls.unpack(first + second)
    assert ([header["call"] for header, _ in found], wrong) == ([0, 1], "")
    assert calls.unpack(second + first) == ([], "malformed answer (no header of this call)")
    found, wrong = calls.unpack(first + first)
    assert (len(found), wrong) == (1, "malformed answer (no header of this call)")


def test_no_more_answers_are_parsed_than_calls_were_made():
    small = calls.pack({}, {})
    assert len(calls.unpack(small * 5, answers=3)[0]) == 3
    assert len(calls.unpack(small * 5)[0]) == 5


def test_an_answer_that_says_nothing_of_its_graph_counts_as_attached_to_one():
    assert sandbox._outcome({"kind": "Tensor"}, ONE).attached
    assert not sandbox._outcome({"kind": "Tensor", "attached": False}, ONE).attached


@pytest.mark.parametrize(
    ("result", "kind", "values"),
    [
        (np.float64(1.5), "float", 1.5),
        ([np.float32(1.5), torch.tensor(2.0), np.int64(3), 4], "list", [1.5, 2, 3, 4]),
        (([1, 2], torch.tensor([3.0, 4.0], requires_grad=True)), "tuple", [[1, 2], [3, 4]]),
        ([np.array([1.0, 2.0]), (3, 4)], "list", [[1, 2], [3, 4]]),
        ([torch.tensor([1.0])], "list", [[1]]),
        (3, "int", 3),
    ],
)
def test_numbers_are_numbers(result, kind, values):
    outcome = calls.perform(lambda: result, calls.Call("f", []))
    assert (outcome.kind, outcome.result.dtype) == (kind, torch.float64)
    assert outcome.result.tolist() == values


@pytest.mark.parametrize("result", ["3.0", {"a": 1}, None, ["1"], [None], [[1], [2, 3]], np.float32(1), np.ones(2)])
def test_what_is_no_number_is_refused(result):
    with pytest.raises((TypeError, ValueError)):
        calls.perform(lambda: result, calls.Call("f", []))
