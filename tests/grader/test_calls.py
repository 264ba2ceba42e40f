"""Messages between the judge and the student's process, which may send anything."""

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
