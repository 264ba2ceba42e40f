"""Shapley values: the graded questions."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor

from grader.calls import Call, Net
from grader.drawing import F64, linear, nothing, rand, randn, targets
from grader.judges import by_hand, shape_only
from grader.question import Part, Question


def inside(players: int) -> Tensor:
    """Who (column) is in which coalition (row)."""
    return ((torch.arange(2**players)[:, None] >> torch.arange(players)) % 2).to(F64)


def orders(g: Generator, count: int, players: int) -> Tensor:
    return torch.rand(count, players, generator=g, dtype=F64).argsort(dim=1)


# Question 2: the exact values


def exact_general(g: Generator) -> list[Call]:
    return [Call("shapley", [randn(g, 2**players)]) for players in (1, 3, 4, 6)]


def exact(*shape: int, dtype: torch.dtype = torch.float32) -> Callable[[Generator], list[Call]]:
    return lambda g: [Call("shapley", [randn(g, *shape, dtype=dtype)])]


def exact_easy(g: Generator) -> list[Call]:
    return [Call("shapley", [inside(2) @ randn(g, 2, dtype=F64) + 1 + rand(g, 1, dtype=F64)])]


# Question 3: a network plays


def play_easy(g: Generator) -> list[Call]:
    masks = torch.eye(5, dtype=torch.bool)[:2]
    return [Call("play", [linear(g, 5, 3), randn(g, 1, 5), targets(g, 1, 3), masks, torch.zeros(5)])]


def played(
    rows: int, players: int, dtype: torch.dtype = F64, *, inspect: bool = False
) -> Callable[[Generator], list[Call]]:
    """A curved network on pictures, whose pixels are drawn for the players or for none."""

    def draw(g: Generator) -> list[Call]:
        net = Net.draw([("Flatten",), ("Linear", 32, 9), ("Tanh",), ("Linear", 9, 5)], g, dtype=dtype, grads=inspect)
        owner = torch.randint(0, players + 1, (1, 1, 4, 4), generator=g).expand(1, 2, 4, 4)
        masks = owner == torch.arange(players).view(-1, 1, 1, 1)
        x, baseline = randn(g, rows, 2, 4, 4, dtype=dtype), randn(g, 2, 4, 4, dtype=dtype)
        return [Call("play", [net, x, targets(g, rows, 5), masks, baseline], inspect=inspect)]

    return draw


# Question 4: orders and their reverses


def orders_easy(g: Generator) -> list[Call]:
    return [Call("by_orders", [inside(3).float() @ randn(g, 3), orders(g, 1, 3)])]


def ordered(*shape: int, count: int, dtype: torch.dtype = torch.float32) -> Callable[[Generator], list[Call]]:
    players = shape[-1].bit_length() - 1
    return lambda g: [Call("by_orders", [randn(g, *shape, dtype=dtype), orders(g, count, players)])]


# Question 5: the axioms. Four players; 0, 1 and 3 in any order are symmetric, and one is a dummy.


def axioms_easy(g: Generator) -> list[Call]:
    return [Call("violations", [randn(g, 16), randn(g, 4)])]


def axioms_general(g: Generator) -> list[Call]:
    calls = []
    for _ in range(2):
        a, b, c, d = inside(4)[:, orders(g, 1, 4)[0]].T
        pull, wage, base = 1 + rand(g, 3, dtype=F64)
        twins = pull * a * b + wage * c * (a + b) + base  # a and b are symmetric
        calls += [
            Call("violations", [values, 2 * randn(g, 4, dtype=F64)]) for values in (twins + wage * d, twins + c * d)
        ]
        calls.append(Call("violations", [pull * a * b * c + base * d + wage, 2 * randn(g, 4, dtype=F64)]))
    return calls


def axioms_batch(g: Generator) -> list[Call]:
    """Other numbers of players, all of them dummies."""
    return [Call("violations", [inside(p) @ randn(g, p, dtype=F64), randn(g, p, dtype=F64)]) for p in (1, 3, 5)]


def axioms_device(g: Generator) -> list[Call]:
    a, b, c = inside(3).float().T
    return [Call("violations", [a * b + 2 * c, randn(g, 3)])]


# Question 6: one function, three divisions. Away from the tie.


def triples(g: Generator, *shape: int, lead: list[bool], dtype: torch.dtype = F64) -> list[Tensor]:
    """a, b and c with the first ahead of the product where it leads."""
    b, c, ahead = 0.5 + rand(g, 3, *shape, dtype=dtype)
    factor = torch.where(torch.tensor(lead).expand(shape), 1.1 + ahead, 0.9 / (0.5 + ahead))
    return [b * c * factor, b, c]


def relatives(*shape: int, lead: list[bool], dtype: torch.dtype = F64) -> Callable[[Generator], list[Call]]:
    return lambda g: [Call("relatives", triples(g, *shape, lead=lead, dtype=dtype))]


QUESTIONS = (
    Question(
        "1",
        "Three divisions by hand",
        (
            Part("easy", 1, "What each player adds first and last.", nothing("divisions_by_hand"),
                 partial(by_hand, only=[0, 1], name="row {row}, player {i}")),
            Part("general", 2, "The mean over all orders.", nothing("divisions_by_hand"),
                 partial(by_hand, only=[2], name="the Shapley value of player {i}")),
        ),
    ),
    Question(
        "2",
        "The exact values",
        (
            Part("easy", 0.5, "Two players who add the same to every coalition.", exact_easy),
            Part("shape", 0.5, "Values of shape (2, 1, 16) in float64.", exact(2, 1, 16, dtype=F64), shape_only, "easy"),
            Part("general", 2, "One, three, four and six players who interact.", exact_general),
            Part("batch", 1.5, "Six games for five players at once.", exact(2, 3, 32)),
            Part("device", 0.5, "Values on another device than the CPU.", exact(2, 8)),
        ),
    ),
    Question(
        "3",
        "A network plays",
        (
            Part("easy", 1, "A linear network, one row, two players with a pixel each, baseline 0.", play_easy),
            Part("shape", 0.5, "Two pictures of shape (2, 4, 4) in float64.", played(2, 3), shape_only, "easy"),
            Part("general", 1.5, "A curved network, one picture, four players and pixels that belong to nobody.", played(1, 4)),
            Part("batch", 1, "The same, three pictures with their own targets.", played(3, 3)),
            Part("side effects", 0.5, "A network with gradients in use, which must come back as it was.", played(2, 2, inspect=True)),
            Part("device", 0.5, "Network and tensors on another device than the CPU.", played(2, 3, torch.float32)),
        ),
    ),
    Question(
        "4",
        "Orders and their reverses",
        (
            Part("easy", 1, "Three players who add the same to every coalition, one order.", orders_easy),
            Part("shape", 0.5, "Values of shape (2, 1, 8) in float64, two orders.", ordered(2, 1, 8, count=2, dtype=F64), shape_only, "easy"),
            Part("general", 2, "Five players who interact, three orders.", ordered(32, count=3)),
            Part("batch", 1, "Six games for four players, two orders.", ordered(2, 3, 16, count=2)),
            Part("device", 0.5, "Values and orders on another device than the CPU.", ordered(3, 8, count=2)),
        ),
    ),
    Question(
        "5",
        "The axioms as a test",
        (
            Part("easy", 0.5, "Four players, random values: only the sum can be violated.", axioms_easy),
            Part("general", 2, "Four players, some of them symmetric or dummies, and a division that violates everything.", axioms_general),
            Part("batch", 1, "One, three and five players, all of them dummies.", axioms_batch),
            Part("device", 0.5, "Values and division on another device than the CPU.", axioms_device),
        ),
    ),
    Question(
        "6",
        "Three relatives of one function",
        (
            Part("easy", 1, "The number a is larger than the product.", relatives(4, lead=[True])),
            Part("shape", 0.5, "Tensors of shape (2, 3, 2) in float64.", relatives(2, 3, 2, lead=[False, True]), shape_only, "general"),
            Part("general", 2, "The product is larger for some of the numbers.", relatives(6, lead=[False, True] * 3)),
            Part("device", 0.5, "Tensors on another device than the CPU.", relatives(2, lead=[False, True], dtype=torch.float32)),
        ),
    ),
)  # fmt: skip
