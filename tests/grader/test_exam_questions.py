"""The questions: enough of them, on every page, and answers by hand that the package computes."""

import re
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import interp_lab as il
from grader import exam_questions
from grader.exam_questions import pages, sheet
from interp_lab import cli

ROOT = Path(__file__).parents[2]
QUESTIONS = {question.name: question for page in pages() for question in page.questions}
NUMBER = re.compile(r"(?<![\w.,/])\d+\.\d+|\d+(?= ?%)")


def test_every_page_with_a_claim_has_questions_and_a_misconception():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"] if "file" in chapter]
    others = ("summary", "appendix", "bibliography")
    asked = [c.removeprefix("book/") for c in chapters if not any(word in c for word in others)]
    assert [page.name for page in pages()] == asked  # in the book's order
    assert all(page.questions and page.wrong.endswith(".") and page.shown for page in pages())


def test_there_are_enough_of_every_kind():
    assert len(QUESTIONS) == sum(len(page.questions) for page in pages()) >= 60
    count = Counter(question.kind for question in QUESTIONS.values())
    assert min(count.values()) >= 20
    assert set(count) == {"recall", "reasoning", "transfer"}
    after = [question for page in pages() if page.name.startswith("since/") for question in page.questions]
    assert len(after) >= 20


@pytest.mark.parametrize("page", [page.name for page in pages()])
def test_no_answer_holds_a_number_that_a_run_printed(page):
    """What a decimal or a percentage says stands in the question, or in the page's own text or code."""
    text = (ROOT / "book" / f"{page}.md").read_text(encoding="utf-8")
    (entry,) = (each for each in pages() if each.name == page)
    for question in entry.questions:
        assert set(NUMBER.findall(question.answer)) <= set(NUMBER.findall(question.text + text)), question.name


def unit(weight: list[float]) -> nn.Sequential:
    """One linear unit."""
    layer = nn.Linear(len(weight), 1, bias=False)
    layer.weight.data = torch.tensor([weight], dtype=torch.float32)
    return nn.Sequential(layer)


def relu(signal: list[float]) -> nn.Sequential:
    """A ReLU at which this signal arrives."""
    return nn.Sequential(nn.ReLU(), *unit(signal))


def cut_off(v):
    return (v.sum(1, keepdim=True) - 1).relu()


def first_minimum(v):
    return v[:, :1] - nn.functional.linear(v, torch.tensor([[1.0, -1.0]])).relu()


def second_minimum(v):
    return v[:, 1:] - nn.functional.linear(v, torch.tensor([[-1.0, 1.0]])).relu()


def minimum(v):
    return v.amin(1, keepdim=True)


def maximum(v):
    return v.amax(1, keepdim=True)


def ramp(v):
    return (2 * v - 6).relu()


Z, G = [2.0, -1, 3, -4], [-1.0, 2, 4, -3]
OUT, SIGNAL = [2.0, 3, 0, 1, 4, 0], [3.0, -1, 5, 4, 1, -2]
BY_HAND = {  # question: what its answer says, and the package's own
    "deconvnet_and_guided_backprop-1": [
        ("$(-1, 0, 4, 0)$", il.saliency, relu(G), Z, {}),
        ("$(0, 2, 4, 0)$", il.deconvnet, relu(G), Z, {}),
        ("$(0, 0, 4, 0)$", il.guided_backprop, relu(G), Z, {}),
    ],
    "gradient_x_input-1": [("$4 \\cdot 2 = 8$", il.gradient_x_input, ramp, [4.0], {})],
    "integrated_gradients-1": [
        ("$(1, 0)$", il.integrated_gradients, minimum, [1.0, 3], {"steps": 200}),
        ("$(\\frac12, \\frac12)$", il.shapley, minimum, [1.0, 3], {}),
    ],
    "lrp-1": [
        ("$(3, -2)$", il.lrp, unit([3, -1]), [1.0, 2], {"rule": "epsilon"}),
        ("$(1, 0)$", il.lrp, unit([3, -1]), [1.0, 2], {"rule": "z_plus"}),
        ("$(2, -1)$", il.lrp, unit([3, -1]), [1.0, 2], {"rule": "alpha2_beta1"}),
    ],
    "deeplift-1": [
        ("$(\\frac12, \\frac12)$", il.deeplift, cut_off, [1.0, 1], {}),
        ("$(1, 1)$", il.gradient_x_input, cut_off, [1.0, 1], {}),
    ],
    "deeplift-2": [
        ("$(0, 1)$", il.deeplift, second_minimum, [1.0, 1], {}),
        ("$(\\frac12, \\frac12)$", il.deeplift, first_minimum, [1.0, 1], {"rule": "reveal_cancel"}),
        ("$(\\frac12, \\frac12)$", il.deeplift, second_minimum, [1.0, 1], {"rule": "reveal_cancel"}),
    ],
    "rectgrad-1": [
        ("$(3, 0, 0, 4, 1, 0)$", il.rectgrad, relu(SIGNAL), OUT, {"q": 0}),
        ("$(3, 0, 0, 4, 1, 0)$", il.guided_backprop, relu(SIGNAL), OUT, {}),
        ("$(3, 0, 0, 0, 0, 0)$", il.rectgrad, relu(SIGNAL), OUT, {"q": 0.8}),
    ],
    "shapley_values-1": [
        ("$(\\frac12, \\frac52)$", il.shapley, maximum, [1.0, 3], {}),
        ("$(0, 3)$", il.integrated_gradients, maximum, [1.0, 3], {"steps": 200}),
        ("$(0, 2)$", il.occlusion, maximum, [1.0, 3], {}),
    ],
}


def numbers(told: str) -> list[float]:
    """Those of a tuple in the answer, or the right-hand side of an equation."""
    of = re.sub(r"\\frac(\d)(\d)", lambda m: str(int(m[1]) / int(m[2])), told.split("=")[-1])
    return [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", of)]


@pytest.mark.parametrize("name", BY_HAND)
def test_an_answer_by_hand_is_what_the_package_computes(name):
    for told, method, function, x, options in BY_HAND[name]:
        assert told in QUESTIONS[name].answer
        found = method(function, torch.tensor([x]), 0, **options)[0]
        torch.testing.assert_close(found, torch.tensor(numbers(told)), atol=1e-4, rtol=1e-4)


def test_further_answers_by_hand():
    positive_bias = nn.Sequential(nn.Linear(1, 1), nn.ReLU())  # deep_taylor-1
    positive_bias[0].weight.data.fill_(1.0)
    positive_bias[0].bias.data.fill_(0.5)
    x = torch.tensor([[1.0]])
    assert 0 < il.lrp(positive_bias, x, 0, rule="z_plus").item() < positive_bias(x).item()

    two = nn.Sequential(nn.Linear(4, 2))  # counterfactuals-1
    two[0].weight.data, two[0].bias.data = torch.tensor([[2.0, 1, 2, 0], [0, 0, 0, 0]]), torch.tensor([-3.0, 0])
    near = il.counterfactual(two, torch.zeros(1, 4), 0, margin=0, bounds=None)
    torch.testing.assert_close(near.distance, torch.tensor([1.0]))
    torch.testing.assert_close(near.x, torch.tensor([[2, 1, 2, 0]]) / 3)

    x, parts = torch.ones(1, 1, 1, 4), torch.eye(4).bool()[:3, None, None]  # leaderboard-1
    masks = dict(zip("abc", parts, strict=True))
    without = {name: x * ~mask for name, mask in masks.items()}
    asked = il.part_scores(
        nn.Sequential(nn.Flatten(), *unit([4, 2, 0, 0])), x, torch.tensor([[[2.0, 3, 0, 0]]]), without, masks, 0
    )
    assert (asked.deletion.item(), asked.shares.item()) == (0.75, pytest.approx(11 / 15))

    score = il.coherence(torch.tensor([[[5.0, 1], [2, -6]]]), torch.tensor([[[1, 0], [1, 0]]]).bool())  # coherence-1
    assert [values.item() for values in vars(score).values()] == [1, 7 / 8, 1, 1 / 2]

    w, x = torch.tensor([3.0, 1, -2]), torch.tensor([1.0, 4, 2])  # selectivity-1
    orders = [(w * (x - fill)).argsort(descending=True) + 1 for fill in (0, 2)]
    assert [o.tolist() for o in orders] == [[2, 1, 3], [2, 3, 1]]

    w = torch.linalg.solve(torch.tensor([[1.0, 0], [1, 2]]), torch.tensor([1.0, 0]))  # pattern_net-1
    assert w.tolist() == [1, -0.5]

    x, noise = torch.tensor([[0.0, 1], [0.5, 1.5]]), {"n": 20_000, "noise": 0.5}  # smoothgrad-1: of range 1
    found = il.smoothgrad(lambda v: v[:, :1].relu(), x, 0, **noise)[:, 0]
    expected = torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(found, expected, atol=4 * 0.5 / noise["n"] ** 0.5, rtol=0)  # four standard errors

    x = torch.tensor([[1.0]])  # interior_gradient-2
    slopes = [il.interior_gradient(lambda v: (3 * v).clamp(max=1), x, 0, alpha=a).item() for a in (0.33, 0.34)]
    assert slopes == [3, 0]


def test_a_sheet_has_what_was_asked_for():
    text = sheet(["lrp-2", "part3/coherence", "laboratory"])
    asked = re.findall(r"^\*\*([\w-]+)\*\*", text, re.M)
    assert asked == ["lrp-2", "coherence-1", "coherence-2", "coherence-3", "laboratory-1"]
    assert re.findall(r"^## (.+)", text, re.M) == ["part2/lrp", "part3/coherence", "laboratory"]
    assert "Answer" not in text
    assert "get wrong" not in text
    transfer = sheet(["since"], kinds=["transfer"])
    assert set(re.findall(r"^\*\*[\w-]+\*\* \((\w+)\)", transfer, re.M)) == {"transfer"}


def test_answers_stand_under_their_questions():
    text = sheet(answers=True)
    assert text.count("> **Answer.**") == len(QUESTIONS)
    assert text.count("*What students get wrong:*") == len(pages())
    for question in QUESTIONS.values():
        assert f"{question.text}\n\n> **Answer.** {question.answer}\n" in text


def test_the_command_prints_or_writes_and_names_what_is_unknown(tmp_path, capsys):
    assert cli.main(["questions", "road"]) == 0
    assert capsys.readouterr().out == sheet(["road"])
    file = tmp_path / "exam.md"
    assert cli.main(["questions", "road", "--answers", "--kind", "transfer", "--out", str(file)]) == 0
    assert file.read_text(encoding="utf-8") == sheet(["road"], kinds=["transfer"], answers=True)
    capsys.readouterr()
    assert cli.main(["questions", "roads"]) == 2
    assert capsys.readouterr().err == "interp-lab: no question, page or part is called roads\n"
    assert cli.main(["questions", "limits_of_model_interpretation", "--kind", "transfer"]) == 2
    assert "none of these questions is of that kind" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("answer:", "answers:", "part1/a has no 'answer'"),
        ("shown:", "seen:", "part1/a has no 'shown'"),
        ("recall", "memory", "a-1 must be one of recall, reasoning, transfer, not memory"),
        ("question: q", "question: q\n      hint: h", "part1/a has a part 'hint', which is none"),
        ("wrong: w", "wrong: w\n  right: r", "part1/a has a part 'right', which is none"),
    ],
)
def test_a_mistake_in_the_file_is_named(old, new, message, tmp_path, monkeypatch):
    text = "part1/a:\n  wrong: w\n  shown: s\n  questions:\n    - kind: recall\n      question: q\n      answer: a\n"
    (tmp_path / "some.yml").write_text(text.replace(old, new))
    monkeypatch.setattr(exam_questions, "SOURCE", tmp_path / "some.yml")
    with pytest.raises(ValueError, match=message):
        pages.__wrapped__()
