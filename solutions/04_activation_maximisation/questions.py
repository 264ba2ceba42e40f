"""Activation maximisation: the graded questions."""

from functools import partial

import torch
from torch import Generator, Tensor

from grader.calls import Call, Net
from grader.drawing import F64, conv, integer, linear, nothing, randn, targets, uniform
from grader.judges import by_hand, shape_only
from grader.question import Part, Question

# Question 2: linear favourite


def favourite_easy(g: Generator) -> list[Call]:
    return [Call("linear_favourite", [randn(g, 3, 4), targets(g, 1, 3), uniform(g, 1, 3), -99.0, 99.0])]


def favourite_shape(g: Generator) -> list[Call]:
    return [Call("linear_favourite", [randn(g, 3, 5, dtype=F64), targets(g, 4, 3), 0.5, 0.0, 1.0])]


def favourite_general(g: Generator) -> list[Call]:
    low = uniform(g, -0.5, -0.1)
    return [
        Call("linear_favourite", [randn(g, 4, 20, dtype=F64), targets(g, 1, 4), l2, low, 0.4])
        for l2 in (uniform(g, 0.2, 0.5), uniform(g, 0.6, 2))
    ]


def favourite_batch(g: Generator) -> list[Call]:
    return [Call("linear_favourite", [randn(g, 4, 6, dtype=F64), targets(g, 7, 4), 0.7, -0.3, 0.5])]


def favourite_device(g: Generator) -> list[Call]:
    return [Call("linear_favourite", [randn(g, 3, 4), targets(g, 2, 3), 0.7, 0.0, 1.0])]


# Question 3: roughness


def variation_easy(g: Generator) -> list[Call]:
    return [Call("variation", [randn(g, 1, 1, 3, 4)])]


def variation_general(g: Generator) -> list[Call]:
    shapes = ((3, 5, 4), (2, 1, 6), (1, 4, 1))
    return [Call("variation", [randn(g, 1, *shape, dtype=F64)], gradients=shape[1] > 1) for shape in shapes]


def variation_batch(g: Generator) -> list[Call]:
    return [Call("variation", [randn(g, 5, 2, 3, 3, dtype=F64)])]


def variation_device(g: Generator) -> list[Call]:
    return [Call("variation", [randn(g, 2, 1, 3, 3)])]


# Question 4: ascent


def pictures(g: Generator, *shape: int, dtype: torch.dtype = F64) -> Tensor:
    return torch.rand(shape, generator=g, dtype=F64).to(dtype)


def ascent_easy(g: Generator) -> list[Call]:
    """One step, and many of them towards the closed form, on a linear network."""
    net, options = linear(g, 6, 3), {"l2": uniform(g, 0.5, 1), "low": -99.0, "high": 99.0}
    return [
        Call("maximise", [net, pictures(g, 1, 1, 2, 3, dtype=torch.float32), targets(g, 1, 3)], options | o)
        for o in ({"steps": 1, "lr": 0.1}, {"steps": 60, "lr": 0.2})
    ]


def ascent_shape(g: Generator) -> list[Call]:
    return [Call("maximise", [linear(g, 60, 4, F64), pictures(g, 2, 3, 5, 4), targets(g, 2, 4)], {"steps": 2})]


def ascent_general(g: Generator) -> list[Call]:
    """Steps that lead out of the box, where clipping at the end gives another picture."""
    options = {"l2": uniform(g, 0.1, 0.3), "tv": uniform(g, 0.3, 0.6), "steps": 12, "lr": 0.2, "low": -0.1}
    return [
        Call("maximise", [conv(g, 2, F64), pictures(g, 1, 2, 7, 7), targets(g, 1, 4)], options | {"high": high})
        for high in (1.0, 0.8 + uniform(g, 0.2, 0.4))
    ]


def ascent_batch(g: Generator) -> list[Call]:
    args = [conv(g, 1, F64), pictures(g, 4, 1, 7, 7), targets(g, 4, 4)]
    return [Call("maximise", args, {"l2": 0.1, "steps": 4, "lr": 0.05})]


def ascent_side_effects(g: Generator) -> list[Call]:
    layers = [("Flatten",), ("Linear", 4, 6), ("BatchNorm1d", 6), ("Tanh",), ("Dropout", 0.5), ("Linear", 6, 3)]
    moody = Net.draw(layers, g, dtype=F64, training=["", "1", "3", "4"], grads=True)
    return [Call("maximise", [moody, pictures(g, 3, 1, 2, 2), targets(g, 3, 3)], {"steps": 3}, inspect=True)]


def ascent_device(g: Generator) -> list[Call]:
    args = [linear(g, 12, 4), pictures(g, 2, 3, 2, 2, dtype=torch.float32), targets(g, 2, 4)]
    return [Call("maximise", args, {"l2": 0.1, "tv": 0.1, "steps": 2})]


# Question 5: largest step


def step_easy(g: Generator) -> list[Call]:
    return [Call("largest_step", [uniform(g, 0.2, 2), 0.0, integer(g, 2, 5), integer(g, 2, 5)])]


def step_general(g: Generator) -> list[Call]:
    def one(height: int, width: int) -> Call:
        return Call("largest_step", [uniform(g, 0, 0.5), uniform(g, 0.5, 2), height, width])

    return [one(2, 2), one(1, integer(g, 3, 5)), one(integer(g, 3, 5), 6), one(28, integer(g, 8, 20))]


QUESTIONS = (
    Question(
        "1a",
        "Favourites by hand",
        (
            Part("easy", 1, "The maximum among all inputs.", nothing("favourites"), partial(by_hand, only=[0], name="x[{i}]")),
            Part("general", 1, "The maximum in the box.", nothing("favourites"), partial(by_hand, only=[1], name="x[{i}]")),
        ),
    ),
    Question(
        "1b",
        "Slopes by hand",
        (
            Part("easy", 0.5, "Slopes of p.", nothing("slopes"), partial(by_hand, only=[0], name="place {i}")),
            Part("general", 0.5, "Slopes of log p.", nothing("slopes"), partial(by_hand, only=[1], name="place {i}")),
        ),
    ),
    Question(
        "2",
        "Favourite of a linear network",
        (
            Part("easy", 1, "One target, a wide box.", favourite_easy),
            Part("shape", 0.5, "Three classes, five inputs, four targets in float64.", favourite_shape, shape_only, "easy"),
            Part("general", 1, "One target, 20 inputs of which some end at a bound.", favourite_general),
            Part("batch", 1, "Seven targets.", favourite_batch),
            Part("device", 0.5, "Weights and targets on another device than the CPU.", favourite_device),
        ),
    ),
    Question(
        "3",
        "Roughness",
        (
            Part("easy", 1, "One picture of 3 x 4 pixels.", variation_easy),
            Part("general", 1, "Three channels, with the gradient; and pictures of one row or one column.", variation_general),
            Part("batch", 0.5, "Five pictures with two channels.", variation_batch),
            Part("device", 0.5, "A picture on another device than the CPU.", variation_device),
        ),
    ),
    Question(
        "4",
        "Ascent",
        (
            Part("easy", 2, "A linear network with L2 in a wide box: one step, and 60.", ascent_easy),
            Part("shape", 0.5, "Two pictures of shape (3, 5, 4) in float64.", ascent_shape, shape_only, "easy"),
            Part("general", 3, "A curved network with both penalties in a box, one picture, 12 steps.", ascent_general),
            Part("batch", 1.5, "A curved network with L2, four pictures with their own targets.", ascent_batch),
            Part(
                "side effects",
                2,
                "A network in train mode with dropout, a batch normalisation that is frozen in eval mode, and "
                "gradients in use: it must be climbed in eval mode and come back as it was.",
                ascent_side_effects,
            ),
            Part("device", 1, "Network and pictures on another device than the CPU.", ascent_device),
        ),
    ),
    Question(
        "5",
        "Largest step",
        (
            Part("easy", 1, "L2 alone (tv = 0).", step_easy),
            Part("general", 3, "Both penalties, pictures of several sizes.", step_general),
        ),
    ),
)  # fmt: skip
