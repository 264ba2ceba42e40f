"""Graded questions as data: fresh inputs, calls that travel unchanged, functions found by name."""

import threading
from pathlib import Path

import pytest
import torch

import interp_lab
from grader import calls, judges
from grader.exercise import Exercise, references
from grader.question import Part, Question, generator, mark
from interp_lab import extract

EXERCISE = Exercise.read(Path(__file__).parents[2] / "solutions" / "01_saliency_and_smoothgrad")
QUESTIONS = {question.name: question for question in EXERCISE.questions}


def test_the_reference_is_the_method_of_the_package():
    """The solution notebook and `interp_lab` were written apart; where both are exact they must agree."""
    _, answers = references(EXERCISE)
    g = torch.Generator().manual_seed(0)
    for part in QUESTIONS["2"].parts:
        for call in part.draw(g):
            net, x, target = call.args
            expected = interp_lab.saliency(net.build(), x, target)
            torch.testing.assert_close(answers["saliency"](net.build(), x, target), expected)


def test_inputs_are_fresh_for_each_student_question_and_key_and_come_again():
    part = QUESTIONS["2"].parts[2]

    def x(*names, key=b"key"):
        return part.draw(generator(key, *names))[0].args[1]

    assert torch.equal(x("01", "anna", "2", "general"), x("01", "anna", "2", "general"))
    others = [x("01", "ben", "2", "general"), x("01", "anna", "2", "batch"), x("01", "anna", "2", "general", key=b"k")]
    for other in others:
        assert not torch.equal(x("01", "anna", "2", "general"), other)


@pytest.mark.parametrize(("kind", "seed"), [("easy", 3932795322809948755), ("side effects", 4257748304553052849)])
def test_a_key_gives_the_same_inputs_in_later_versions(kind, seed):
    assert generator(b"key", "01", "anna", "2", kind).initial_seed() == seed


def test_the_reference_runs_with_one_thread_as_the_sandbox_does():
    def threads():
        return [torch.get_num_threads()]

    part = Part("easy", 1, "The threads.", lambda g: [calls.Call("threads", [])])

    def run(plans):
        return [[calls.Outcome({"result": torch.tensor([1.0]).double()}, "list") for _ in plan] for plan in plans]

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        asked = (Question("1", "Threads", (part,)),)
        assert mark(asked, b"", ("01", "anna"), run, {"threads": threads}, threading.Lock()) == {"1": [""]}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("judge", [judges.same, judges.repeatable])
@pytest.mark.parametrize("answer", [0.0, 1e3, -1e-3])
def test_feedback_on_hidden_inputs_tells_no_expected_value(judge, answer):
    """Nor a difference from which, with the answer, it could be worked out."""
    times = 3 if judge is judges.repeatable else 1

    def calls_of(g):
        return [calls.Call("f", [torch.rand(2, generator=g).double()])] * times

    asked = (Question("1", "Hidden", (Part("easy", 1, "A hidden input.", calls_of, judge),)),)

    def run(plans):
        wrong = [calls.Outcome({"result": torch.full((2,), answer + i).double()}, "Tensor") for i in range(3)]
        return [wrong[: len(plan)] for plan in plans]

    faults = {
        mark(asked, key, ("01", "anna"), run, {"f": lambda x: x + 0.1}, threading.Lock())["1"][0].split("\n", 1)[1]
        for key in (b"a", b"b", b"c", b"d")
    }
    assert all(faults)
    assert len({fault.replace("(0,)", "(1,)") for fault in faults}) == 1  # right values do not show


def test_calls_travel_unchanged():
    for question in QUESTIONS.values():
        sent = [call for part in question.parts for call in part.draw(torch.Generator().manual_seed(0))]
        cells, got = calls.unpack_calls(calls.pack_calls({"code cell 1": "x = 1"}, sent))
        assert cells == {"code cell 1": "x = 1"}
        for a, b in zip(sent, got, strict=True):
            assert vars(a) | {"args": []} == vars(b) | {"args": []}
            for one, other in zip(a.args, b.args, strict=True):
                if isinstance(one, calls.Net):
                    one, other = one.build(), other.build()
                    assert repr(one) == repr(other)
                    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)
                    assert [m.training for m in one.modules()] == [m.training for m in other.modules()]
                elif isinstance(one, torch.Tensor):
                    torch.testing.assert_close(one, other, rtol=0, atol=0)
                else:
                    assert one == other


def test_a_function_is_found_by_name_with_what_it_needs_and_nothing_else():
    cells = [
        "import os, math as m\nfrom torch import nn, Tensor\nprint('never run')\nunused = open('x')",
        "%matplotlib inline\ndef helper(x):\n    return m.sqrt(x) * SCALE",
        "this does not parse",
        "SCALE = 1\nSCALE += 1\ndef f(x):\n    return 'first'",
        "class Table:\n    def look(self): return f(1)\nfor i in range(4): SCALE = i",
        "def f(x):\n    return helper(x)",
    ]
    statements, problems = extract.parse({f"code cell {i}": source for i, source in enumerate(cells, 1)})
    namespace = {}
    assert extract.execute(extract.select(statements, "f"), namespace) == []
    assert namespace["f"](4) == 6
    assert not {"unused", "Table", "nn", "Tensor"} & namespace.keys()
    assert problems == ["code cell 3, line 1 does not parse: SyntaxError: invalid syntax (<unknown>, line 1)"]
