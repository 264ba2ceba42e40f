"""Interior and integrated gradients: the graded questions."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor

from grader.calls import Call, Net
from grader.drawing import F64, conv, integer, linear, nothing, powers, rand, randn, targets, uniform
from grader.judges import ENTRY, by_hand, shape_only
from grader.question import Part, Question


def colour(g: Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """A baseline for pictures with two channels that has to be broadcast."""
    return randn(g, 1, 2, 1, 1, dtype=dtype)


def busy(g: Generator) -> Net:
    """A network with gradients in use."""
    return Net.draw([("Linear", 4, 6), ("Tanh",), ("Linear", 6, 3)], g, dtype=F64, grads=True)


# Question 2: interior gradients


def interior_easy(g: Generator) -> list[Call]:
    inputs = integer(g, 4, 8)
    args = [linear(g, inputs, 3), randn(g, 1, inputs), targets(g, 1, 3), randn(g, 1, inputs)]
    return [Call("interior_gradients", [*args, [1.0, uniform(g, 0.2, 0.8)]])]


def interior_shape(g: Generator) -> list[Call]:
    args = [linear(g, 60, 4, F64), randn(g, 2, 3, 5, 4, dtype=F64), targets(g, 2, 4), randn(g, 1, 3, 1, 1, dtype=F64)]
    return [Call("interior_gradients", [*args, [0.0, 0.5, 1.0]])]


def interior_general(g: Generator) -> list[Call]:
    x, baseline = randn(g, 2, 1, 2, 7, 7, dtype=F64)
    alphas = [uniform(g, 0, 0.4), uniform(g, 0.6, 1)]
    return [Call("interior_gradients", [conv(g, 2, F64), x, targets(g, 1, 4), baseline, alphas])]


def interior_batch(g: Generator) -> list[Call]:
    args = [conv(g, 2), randn(g, 4, 2, 7, 7), targets(g, 4, 4), colour(g)]
    return [Call("interior_gradients", [*args, [uniform(g, 0.1, 0.5), uniform(g, 0.5, 0.9)]])]


def interior_side_effects(g: Generator) -> list[Call]:
    args = [busy(g), randn(g, 3, 4, dtype=F64), targets(g, 3, 3), randn(g, 1, 4, dtype=F64)]
    return [Call("interior_gradients", [*args, [0.3, 0.8]], inspect=True)]


def interior_device(g: Generator) -> list[Call]:
    args = [conv(g, 2), randn(g, 2, 2, 7, 7), targets(g, 2, 4), colour(g)]
    return [Call("interior_gradients", [*args, [uniform(g, 0.2, 0.8)]])]


# Question 3: integrated gradients


def integrated_easy(g: Generator) -> list[Call]:
    """One midpoint is exact for x^2 / 2, and any number for a linear network."""
    inputs = integer(g, 4, 8)
    straight = [linear(g, inputs, 3), randn(g, 1, inputs), targets(g, 1, 3), randn(g, 1, inputs)]
    square = [powers(g, 2, 6, 3), randn(g, 1, 6, dtype=F64), targets(g, 1, 3), randn(g, 1, 6, dtype=F64)]
    return [Call("integrated_gradients", args, {"steps": n}) for args, n in ((straight, 3), (square, 1))]


def integrated_shape(g: Generator) -> list[Call]:
    args = [linear(g, 60, 4, F64), randn(g, 2, 3, 5, 4, dtype=F64), targets(g, 2, 4), randn(g, 1, 3, 1, 1, dtype=F64)]
    return [Call("integrated_gradients", args, {"steps": 2})]


def integrated_general(g: Generator) -> list[Call]:
    x, baseline = randn(g, 2, 1, 2, 7, 7, dtype=F64)
    return [Call("integrated_gradients", [conv(g, 2, F64), x, targets(g, 1, 4), baseline], {"steps": integer(g, 2, 5)})]


def integrated_batch(g: Generator) -> list[Call]:
    args = [conv(g, 2), randn(g, 3, 2, 7, 7), targets(g, 3, 4), colour(g)]
    return [Call("integrated_gradients", args, {"steps": integer(g, 2, 5)})]


def integrated_side_effects(g: Generator) -> list[Call]:
    args = [busy(g), randn(g, 3, 4, dtype=F64), targets(g, 3, 3), randn(g, 1, 4, dtype=F64)]
    return [Call("integrated_gradients", args, {"steps": 2}, inspect=True)]


def integrated_device(g: Generator) -> list[Call]:
    args = [conv(g, 2), randn(g, 2, 2, 7, 7), targets(g, 2, 4), colour(g)]
    return [Call("integrated_gradients", args, {"steps": 2})]


# Question 4: completeness


def gap_easy(g: Generator) -> list[Call]:
    args = [powers(g, 1, 5, 1), 1 + rand(g, 1, 5, dtype=F64), torch.tensor([0])]
    return [Call("completeness_gap", [*args, torch.zeros(1, 5, dtype=F64), randn(g, 1, 5, dtype=F64)])]


def gap_on_pictures(rows: int) -> Callable[[Generator], list[Call]]:
    def calls(g: Generator) -> list[Call]:
        x, attribution = randn(g, 2, rows, 2, 7, 7, dtype=F64)
        args = [conv(g, 2, F64), x, targets(g, rows, 4), colour(g, F64), attribution]
        return [Call("completeness_gap", args)]

    return calls


def steps_easy(g: Generator) -> list[Call]:
    """For x^3 from zero the relative gap of m midpoints is 1 / (4 m^2)."""
    args = [powers(g, 3, 4, 1), 0.5 + rand(g, 1, 4, dtype=F64), torch.tensor([0])]
    return [Call("enough_steps", [*args, torch.zeros(1, 4, dtype=F64), t]) for t in (0.3, uniform(g, 0.005, 0.05))]


def steps_of_rows(rows: int) -> Callable[[Generator], list[Call]]:
    """Of 16 random pairs those whose score rises or falls most, so that the relative gap is well defined."""

    def calls(g: Generator) -> list[Call]:
        net = Net.draw([("Linear", 4, 8), ("Tanh",), ("Linear", 8, 3)], g, dtype=F64)
        x, baseline = 2 * randn(g, 2, 16, 4, dtype=F64)
        target, model = targets(g, 16, 3), net.build()
        rise = (model(x) - model(baseline)).detach().gather(1, target[:, None])[:, 0]
        best = rise.abs().argsort(descending=True)[:rows]
        return [Call("enough_steps", [net, x[best], target[best], baseline[best], uniform(g, 2e-4, 6e-4)])]

    return calls


# Question 5: another path


def detour_easy(g: Generator) -> list[Call]:
    x, baseline, via = randn(g, 3, 1, 6)
    return [Call("detour", [linear(g, 6, 3), x, targets(g, 1, 3), baseline, via], {"steps": 2})]


def detour_of(rows: int, steps: int) -> Callable[[Generator], list[Call]]:
    def calls(g: Generator) -> list[Call]:
        x, via = randn(g, 2, rows, 2, 7, 7, dtype=F64)
        args = [conv(g, 2, F64), x, targets(g, rows, 4), colour(g, F64), via]
        return [Call("detour", args, {"steps": steps})]

    return calls


QUESTIONS = (
    Question(
        "1a",
        "Interior gradients of a plateau",
        (
            Part("easy", 1, "Function A at (1, 1), alpha = 1 and 1/2.", nothing("interior_by_hand"),
                 partial(by_hand, only=[0, 1], name=ENTRY, tolerance=2e-3), "general"),  # zeros
            Part("general", 1, "Function A at (1, 1), alpha = 1/4.", nothing("interior_by_hand"), partial(by_hand, only=[2], name=ENTRY, tolerance=2e-3)),
        ),
    ),
    Question(
        "1b",
        "Integrated gradients by hand",
        (
            Part("easy", 1, "Function A from (0, 0).", nothing("integrated_by_hand"), partial(by_hand, only=[0], name=ENTRY, tolerance=2e-3)),
            Part("general", 1, "Function B from two baselines.", nothing("integrated_by_hand"),
                 partial(by_hand, only=[1, 2], name=ENTRY, tolerance=2e-3)),
        ),
    ),
    Question(
        "2",
        "Interior gradients",
        (
            Part("easy", 1, "A linear network, one row, two points: the weights of the target at both.", interior_easy),
            Part("shape", 0.5, "Two rows of shape (3, 5, 4) in float64, three points.", interior_shape, shape_only, "easy"),
            Part("general", 1, "A network with convolution, batch normalisation and tanh, one picture, two points of the "
                 "path from a random baseline.", interior_general),
            Part("batch", 1, "The same kind of network, four pictures with their own targets, a baseline of shape "
                 "(1, 2, 1, 1).", interior_batch),
            Part("side effects", 1, "A network with gradients in use: they, x and the baseline must stay as they were.",
                 interior_side_effects),
            Part("device", 0.5, "Network and pictures on another device than the CPU.", interior_device),
        ),
    ),
    Question(
        "3",
        "Integrated gradients",
        (
            Part("easy", 1.5, "A linear network with three steps; f = sum w x^2 / 2 with one step.", integrated_easy),
            Part("shape", 0.5, "Two rows of shape (3, 5, 4) in float64.", integrated_shape, shape_only, "easy"),
            Part("general", 1.5, "A network with convolution, batch normalisation and tanh, one picture, a random baseline, "
                 "a few midpoints.", integrated_general),
            Part("batch", 1.5, "The same kind of network, three pictures with their own targets, a baseline of shape "
                 "(1, 2, 1, 1).", integrated_batch),
            Part("side effects", 0.5, "A network with gradients in use: they, x and the baseline must stay as they were.",
                 integrated_side_effects),
            Part("device", 0.5, "Network and pictures on another device than the CPU.", integrated_device),
        ),
    ),
    Question(
        "4a",
        "Relative gap of completeness",
        (
            Part("easy", 0.5, "A linear network, one row, the baseline zero.", gap_easy),
            Part("general", 0.5, "A curved network, one picture, a baseline of shape (1, 2, 1, 1).", gap_on_pictures(1)),
            Part("batch", 0.5, "The same kind of network, four pictures with their own targets.", gap_on_pictures(4)),
            Part("device", 0.5, "The same on another device than the CPU.", gap_on_pictures(2)),
        ),
    ),
    Question(
        "4b",
        "Enough steps",
        (
            Part("easy", 1, "f = sum x^3 / 3 from zero, a loose and a tight tolerance.", steps_easy),
            Part("general", 0.5, "A curved network, one row.", steps_of_rows(1)),
            Part("batch", 0.5, "A curved network, four rows with their own targets.", steps_of_rows(4)),
        ),
    ),
    Question(
        "5",
        "Another path",
        (
            Part("easy", 0.5, "A linear network: the path does not matter.", detour_easy),
            Part("general", 1.5, "A curved network, one picture, two steps on each leg.", detour_of(1, 2)),
            Part("batch", 0.5, "The same kind of network, three pictures with their own targets.", detour_of(3, 3)),
            Part("device", 0.5, "The same on another device than the CPU.", detour_of(2, 2)),
        ),
    ),
)  # fmt: skip
