"""Concepts and counterfactuals: the graded questions."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Generator

from grader.calls import Call, Net
from grader.drawing import F64, linear, nothing, rand, randn, targets, uniform
from grader.judges import by_hand, shape_only
from grader.question import Part, Question

# Question 2: the derivative along a direction


def sensitivity_easy(g: Generator) -> list[Call]:
    return [Call("sensitivity", [linear(g, 5, 3), randn(g, 1, 5), targets(g, 1, 3), randn(g, 5)])]


def along(rows: int, dtype: torch.dtype = F64, *, inspect: bool = False) -> Callable[[Generator], list[Call]]:
    """A curved network on feature maps."""

    def draw(g: Generator) -> list[Call]:
        layers = [("Conv2d", 2, 3, 2), ("Tanh",), ("Flatten",), ("Linear", 27, 5)]
        net = Net.draw(layers, g, dtype=dtype, grads=inspect)
        net.state["3.weight"] *= 5
        args = [net, randn(g, rows, 2, 4, 4, dtype=dtype), targets(g, rows, 5), 3 * randn(g, 2, 4, 4, dtype=dtype)]
        return [Call("sensitivity", args, inspect=inspect)]

    return draw


# Question 3: a direction from examples


def vector(
    n: int, m: int, entries: int, *, mixed: bool = True, dtype: torch.dtype = torch.float32
) -> Callable[[Generator], list[Call]]:
    """Two sets whose entries vary together, or are the corners of a square."""

    def draw(g: Generator) -> list[Call]:
        mix = torch.eye(entries, dtype=F64) + randn(g, entries, entries, dtype=F64)
        concept, random = (randn(g, rows, entries, dtype=F64) @ mix * scale for rows, scale in ((n, 2), (m, 1)))
        return [Call("concept_vector", [(concept + randn(g, entries, dtype=F64)).to(dtype), random.to(dtype)])]

    def square(g: Generator) -> list[Call]:
        corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 2)
        return [Call("concept_vector", [corners + randn(g, 2), corners])]

    return draw if mixed else square


# Question 4: random directions


def ranked(*counts: tuple[int, int], dtype: torch.dtype = torch.float32) -> Callable[[Generator], list[Call]]:
    def draw(g: Generator) -> list[Call]:
        calls = []
        for concepts, others in counts:
            random = randn(g, others, dtype=dtype)
            values = 2 * randn(g, concepts, dtype=dtype)
            values[0] = -random[0]  # a tie on the other side
            calls.append(Call("p_values", [values, random]))
        return calls

    return draw


def far_out(g: Generator) -> list[Call]:
    return [Call("p_values", [5 + rand(g, 1), rand(g, 19)])]


# Question 5: a test that finds too much


def alarms(
    rows: int, splits: int, others: int, *, dtype: torch.dtype = torch.float32
) -> Callable[[Generator], list[Call]]:
    """Means of either sign whose |t| runs from 0 to 4; those of the others go as far as |t| = 3."""

    def centred(g: Generator, count: int) -> torch.Tensor:
        noise = randn(g, count, splits, dtype=F64)
        noise = noise - noise.mean(1, keepdim=True)
        return noise / noise.std(1, keepdim=True)

    def draw(g: Generator) -> list[Call]:
        t = 4 * (torch.arange(rows, dtype=F64) + 0.55) / rows * torch.tensor([1, -1] * rows)[:rows]
        far = 3 * torch.linspace(-1, 1, others, dtype=F64)
        sets = [centred(g, len(each)) + each[:, None] / splits**0.5 for each in (t, far)]
        return [Call("false_alarms", [each.to(dtype) for each in sets])]

    return draw


# Question 6: the closest input of another class


def border(x: torch.Tensor, weight: torch.Tensor, share: float) -> float:
    """A bias for which the share of the way from the largest g of a row to the largest of all has to be gone."""
    now, most = (x @ weight).max(), weight.clamp(min=0).sum()
    return -(now + share * (most - now)).item()


def near(rows: int, entries: int, *shares: float, dtype: torch.dtype = F64) -> Callable[[Generator], list[Call]]:
    """Rows within the bounds, a model with weights of both signs and one that is 0, and how far the border is."""

    def draw(g: Generator) -> list[Call]:
        calls = []
        for share in shares:
            x, weight = rand(g, rows, entries, dtype=F64), randn(g, entries, dtype=F64)
            weight = weight + 0.2 * weight.sign()
            weight[entries // 2] = 0
            bias = border(x, weight, share)
            calls.append(Call("closest", [x.to(dtype), weight.to(dtype), bias, 0.05 * uniform(g, 0.5, 1)]))
        return calls

    return draw


def near_easy(g: Generator) -> list[Call]:
    """The border is so close that no bound is met."""
    x, weight = 0.4 + 0.2 * rand(g, 1, 3, dtype=F64), 1 + rand(g, 3, dtype=F64)
    bias = -(x @ weight).item() - 0.2
    return [Call("closest", [x, weight, bias, 0.1])]


def near_batch(g: Generator) -> list[Call]:
    """Some rows have the margin, some reach it, and some do not."""
    x, weight = rand(g, 6, 5, dtype=F64), 1 + rand(g, 5, dtype=F64)
    weight[2] = 0
    x[:2], x[4:, 2] = 0.8 + 0.2 * x[:2], 0.5
    middle = -0.75 * weight.sum().item()
    return [Call("closest", [x, weight, middle, 0.0]), Call("closest", [x, weight, -1.1 * weight.sum().item(), 0.0])]


QUESTIONS = (
    Question(
        "1a",
        "A concept by hand",
        (
            Part("easy", 1.5, "Three sensitivities.", nothing("concept_by_hand"), partial(by_hand, only=range(3))),
            Part("general", 0.5, "The score.", nothing("concept_by_hand"), partial(by_hand, only=[3]), "easy"),
        ),
    ),
    Question(
        "1b",
        "A counterfactual by hand",
        (
            Part("easy", 1, "Without bounds.", nothing("counterfactuals_by_hand"),
                 partial(by_hand, only=[0], name="number {n}", tolerance=1e-3)),
            Part("general", 1, "With bounds.", nothing("counterfactuals_by_hand"),
                 partial(by_hand, only=[1], name="number {n}", tolerance=1e-3)),
        ),
    ),
    Question(
        "2",
        "The derivative along a direction",
        (
            Part("easy", 1, "A linear network, one row.", sensitivity_easy),
            Part("shape", 0.5, "Two rows of shape (2, 4, 4) in float64.", along(2), shape_only, "easy"),
            Part("general", 1.5, "A curved network, one row of shape (2, 4, 4).", along(1)),
            Part("batch", 1, "The same, four rows with their own targets.", along(4)),
            Part("side effects", 0.5, "A network with gradients in use, which must come back as it was.", along(2, inspect=True)),
            Part("device", 0.5, "Network and tensors on another device than the CPU.", along(2, torch.float32)),
        ),
    ),
    Question(
        "3",
        "A direction from examples",
        (
            Part("easy", 1, "The corners of two squares.", vector(4, 4, 2, mixed=False)),
            Part("shape", 0.5, "12 and 15 rows with four entries in float64.", vector(12, 15, 4, dtype=F64), shape_only, "easy"),
            Part("general", 2, "6 and 11 rows with four entries that vary together.", vector(6, 11, 4)),
            Part("device", 0.5, "Tensors on another device than the CPU.", vector(9, 8, 3)),
        ),
    ),
    Question(
        "4",
        "Random directions",
        (
            Part("easy", 1, "One concept beyond all of 19 random collections.", far_out),
            Part("shape", 0.5, "Three concepts, ten random collections, float64.", ranked((3, 10), dtype=F64), shape_only, "easy"),
            Part("general", 2, "One concept, three, and eight, with ties.", ranked((1, 30), (3, 30), (8, 12))),
            Part("device", 0.5, "Values on another device than the CPU.", ranked((3, 20))),
        ),
    ),
    Question(
        "5",
        "A test that finds too much",
        (
            Part("easy", 1, "Twenty collections, four splits.", alarms(20, 4, 60)),
            Part("shape", 0.5, "Five collections in float64.", alarms(5, 4, 30, dtype=F64), shape_only, "easy"),
            Part("general", 2, "Thirty collections, twelve splits.", alarms(30, 12, 60)),
            Part("device", 0.5, "Values on another device than the CPU.", alarms(9, 6, 40)),
        ),
    ),
    Question(
        "6",
        "The closest input of another class",
        (
            Part("easy", 1, "Three entries, none of which meets its bound.", near_easy),
            Part("shape", 0.5, "Four rows of six entries in float64.", near(4, 6, 0.3), shape_only, "easy"),
            Part("general", 2, "One row of 15 entries; few of them meet their bounds, or most.", near(1, 15, 0.1, 0.5, 0.9)),
            Part("batch", 1, "Six rows: some have the margin, some reach it, and some cannot.", near_batch),
            Part("device", 0.5, "Tensors on another device than the CPU.", near(2, 7, 0.4, dtype=torch.float32)),
        ),
    ),
)  # fmt: skip
