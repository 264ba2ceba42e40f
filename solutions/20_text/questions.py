"""Text: the graded questions."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Generator

from grader.calls import Call, Net, Outcome
from grader.drawing import F64, linear, nothing, rand, randn, targets
from grader.judges import Reference, by_hand, same_kind, shape_only
from grader.question import Part, Question
from interp_lab.data import sentences

# Question 1a: everybody's own sentences. These are those of the notebook's cell `language`, as a test of the exercises demands.

GROUPS = (
    (0, 10, 36, 39, 44, 46, 60, 79),
    (6, 11, 13, 15, 17, 31, 37, 42),
    (9, 20, 22, 23, 29, 38, 40, 43),
    (51, 67, 72, 102, 104, 120, 136, 139),
    (3, 16, 32, 57, 116, 61, 165, 154),
)
DECIDES = sentences(300, seed=3).masks["evidence"]


def marked(*rows: int) -> Callable:
    """A judge of some of the rows: a sentence of the row's group, and its own marks."""

    def judge(what: str, calls: list[Call], got: list[Outcome], reference: Reference) -> None:
        same_kind(what, got[0], reference(calls[0]))
        table = got[0].result.tolist()
        for row in rows:
            number, *marks = table[row]
            if number not in GROUPS[row]:
                raise AssertionError(f"{what}\nRow {row + 1} is of no sentence that is printed in this row.")
            if marks != DECIDES[int(number)].tolist():
                raise AssertionError(f"{what}\nWrong: sentence {number:.0f}.")

    return judge


# Questions 2 and 3: words of a network


def asked(
    function: str, rows: int, words: int, *steps: int, dtype: torch.dtype = F64, **inspect: bool
) -> Callable[[Generator], list[Call]]:
    """A curved network on words of three numbers; with steps, a call for each number of steps."""

    def draw(g: Generator) -> list[Call]:
        layers = [("Flatten",), ("Linear", 3 * words, 7), ("Tanh",), ("Linear", 7, 4)]
        net = Net.draw(layers, g, dtype=dtype, grads=bool(inspect))
        net.state["3.weight"] *= 10
        args = [net, randn(g, rows, 3, 1, words, dtype=dtype), targets(g, rows, 4), 1 + rand(g, 3, dtype=dtype)]
        return [Call(function, [*args, *more], **inspect) for more in ([[n] for n in steps] or [[]])]

    return draw


def asked_easy(function: str, *steps: int) -> Callable[[Generator], list[Call]]:
    return lambda g: [Call(function, [linear(g, 8, 3), randn(g, 1, 2, 1, 4), targets(g, 1, 3), 1 + rand(g, 2), *steps])]


# Question 4: words that decide, found


# One sentence a call, and eight calls: a wrong order of the words is right by luck in every third.


def found_easy(g: Generator) -> list[Call]:
    """The largest of six is below 0, and it is the only word that decides."""
    values = 0.5 * rand(g, 8, 1, 6)
    decides = torch.rand(8, 1, 6, generator=g).argsort(2) == 0
    values[decides] -= 2
    return [Call("found_words", [*sentence]) for sentence in zip(values, decides, strict=True)]


def found_general(g: Generator) -> list[Call]:
    """By size the first, the third and the sixth of seven words decide; by sign, or with another number, others are found."""
    size = 7 - torch.arange(7) + 0.5 * rand(g, 8, 1, 7)
    values = size * torch.tensor([-1, 1, 1, 1, -1, 1, -1])
    decides = torch.tensor([1, 0, 1, 0, 0, 1, 0]).bool()
    orders = torch.rand(8, 7, generator=g).argsort(1)
    return [
        Call("found_words", [one[:, order], decides[None, order]]) for one, order in zip(values, orders, strict=True)
    ]


def found_many(rows: int, words: int, dtype: torch.dtype = torch.float32) -> Callable[[Generator], list[Call]]:
    def draw(g: Generator) -> list[Call]:
        number = torch.randint(1, words, (rows, 1), generator=g)
        decides = torch.rand(rows, words, generator=g).argsort(1) < number
        return [Call("found_words", [randn(g, rows, words, dtype=dtype) + decides, decides])]

    return draw


QUESTIONS = (
    Question(
        "1a",
        "Which words decide",
        (
            Part("easy", 1, "The first two sentences.", nothing("my_sentences"), marked(0, 1)),
            Part("general", 1, "The last three sentences.", nothing("my_sentences"), marked(2, 3, 4)),
        ),
    ),
    Question(
        "1b",
        "An interaction by hand",
        (
            Part("easy", 1, "One word at a time.", nothing("not_awful"), partial(by_hand, only=[0, 1])),
            Part("general", 1, "Sum, both words together, interaction.", nothing("not_awful"), partial(by_hand, only=[2, 3, 4])),
        ),
    ),
    Question(
        "2",
        "Leave one word out",
        (
            Part("easy", 1, "A linear network, one sentence of four words with two numbers each.", asked_easy("left_out")),
            Part("shape", 0.5, "Two sentences of five words with three numbers each in float64.", asked("left_out", 2, 5), shape_only, "easy"),
            Part("general", 1.5, "A curved network, one sentence of six words.", asked("left_out", 1, 6)),
            Part("batch", 1.5, "The same, four sentences with their own targets.", asked("left_out", 4, 5)),
            Part("device", 0.5, "Network and tensors on another device than the CPU.", asked("left_out", 2, 4, dtype=torch.float32)),
        ),
    ),
    Question(
        "3",
        "Integrated gradients of embeddings",
        (
            Part("easy", 1, "A linear network, one sentence of four words with two numbers each, one step.", asked_easy("integrated", 1)),
            Part("shape", 0.5, "Two sentences of five words with three numbers each in float64.", asked("integrated", 2, 5, 4), shape_only, "easy"),
            Part("general", 1.5, "A curved network, one sentence of six words, with one, three and twenty steps.", asked("integrated", 1, 6, 1, 3, 20)),
            Part("batch", 1, "The same, four sentences with their own targets, five steps.", asked("integrated", 4, 5, 5)),
            Part("side effects", 0.5, "A network with gradients in use, which must come back as it was.", asked("integrated", 2, 4, 3, inspect=True)),
            Part("device", 0.5, "Network and tensors on another device than the CPU.", asked("integrated", 2, 4, 3, dtype=torch.float32)),
        ),
    ),
    Question(
        "4",
        "Are the deciding words found",
        (
            Part("easy", 1, "Single sentences of six words; one word decides, and it has the largest size.", found_easy),
            Part("shape", 0.5, "Three sentences of five words in float64.", found_many(3, 5, F64), shape_only, "easy"),
            Part("general", 1, "Single sentences of seven words of both signs; three words decide.", found_general),
            Part("batch", 1, "Forty sentences of nine words, in which one to eight words decide.", found_many(40, 9)),
            Part("device", 0.5, "Tensors on another device than the CPU.", found_many(20, 6)),
        ),
    ),
)  # fmt: skip
