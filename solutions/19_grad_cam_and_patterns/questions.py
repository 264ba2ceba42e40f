"""Grad-CAM and patterns. Every function has one right answer; drawn heads are curved, so that a gradient is not its mean."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from grader.calls import Call, Net
from grader.drawing import F64, integer, nothing, rand, randn, targets
from grader.judges import by_hand, shape_only
from grader.question import Part, Question

# Question 2: Grad-CAM


def body(g: Generator, channels: int, dtype: torch.dtype = torch.float32, **more) -> Net:
    """From (channels, 8, 7) to 5 maps of 6 x 5 places."""
    return Net.draw([("Conv2d", channels, 5, 3), ("Tanh",)], g, dtype=dtype, **more)


def dense_head(g: Generator, classes: int, dtype: torch.dtype = torch.float32, **more) -> Net:
    """No mean over places, so gradients differ from place to place."""
    layers = [("Flatten",), ("Linear", 150, 8), ("Tanh",), ("Linear", 8, classes)]
    net = Net.draw(layers, g, dtype=dtype, **more)
    net.state["3.weight"] *= 20
    return net


def cam_of(g: Generator, rows: int, channels: int, dtype: torch.dtype = torch.float32, **more) -> Call:
    args = [
        body(g, channels, dtype),
        dense_head(g, 4, dtype),
        randn(g, rows, channels, 8, 7, dtype=dtype),
        targets(g, rows, 4),
    ]
    return Call("grad_cam", args, **more)


def cam_easy(g: Generator) -> list[Call]:
    """A mean and a linear head, two classes of one image."""
    head = Net.draw([("AvgPool2d", 4), ("Flatten",), ("Linear", 5, 2)], g)
    net = Net.draw([("Conv2d", 1, 5, 3), ("Tanh",)], g)
    return [Call("grad_cam", [net, head, randn(g, 1, 1, 6, 6), torch.tensor([c])]) for c in (0, 1)]


def cam_side_effects(g: Generator) -> list[Call]:
    nets = [body(g, 1, F64, grads=True), dense_head(g, 3, F64, grads=True)]
    return [Call("grad_cam", [*nets, randn(g, 2, 1, 8, 7, dtype=F64), targets(g, 2, 3)], inspect=True)]


# Question 3: the ceiling


def discs(g: Generator, rows: int, height: int, width: int) -> Tensor:
    """Masks of random discs, cut by the edge of the picture."""
    i, j = torch.arange(height, dtype=F64)[:, None], torch.arange(width, dtype=F64)
    size = torch.tensor([height, width], dtype=F64)
    centre = size * (0.2 + 0.6 * rand(g, rows, 2, dtype=F64))
    radius = min(height, width) * (0.2 + 0.2 * rand(g, rows, dtype=F64))
    distance = (i - centre[:, 0, None, None]) ** 2 + (j - centre[:, 1, None, None]) ** 2
    return distance < radius[:, None, None] ** 2


def ceilings(rows: int, *sizes: int) -> Callable[[Generator], list[Call]]:
    return lambda g: [Call("ceiling", [discs(g, rows, 24, 36), places]) for places in sizes]


# Question 4: the pattern


def pattern_of(
    g: Generator, n: int, d: int, dtype: torch.dtype = torch.float32, rectified: bool | None = None, **more
) -> Call:
    """Inputs with a mean, a value that is not centred either."""
    x = randn(g, n, d, dtype=dtype) + 2 * randn(g, d, dtype=dtype)
    y = (x - x.mean(0)) @ randn(g, d, dtype=dtype) + 0.5 + randn(g, n, dtype=dtype)
    return Call("pattern", [x, y], {} if rectified is None else {"rectified": rectified}, **more)


def pattern_general(g: Generator) -> list[Call]:
    """Rectified; one that is never positive; one that never varies."""
    silent, constant = pattern_of(g, 9, 4, rectified=True), pattern_of(g, 9, 4)
    silent.args[1] = -silent.args[1].abs() - 0.1
    constant.args[1] = torch.full((9,), float(integer(g, 1, 9)))
    return [pattern_of(g, 40, 5, rectified=True), silent, constant]


# Question 5: PatternAttribution


def attribution_of(g: Generator, rows: int, d: int, h: int, k: int, dtype: torch.dtype = torch.float32, **more) -> Call:
    w1, a1, w2, a2 = (randn(g, *size, dtype=dtype) for size in ((h, d), (h, d), (k, h), (k, h)))
    return Call("pattern_attribution", [w1, a1, w2, a2, randn(g, rows, d, dtype=dtype), targets(g, rows, k)], **more)


def attribution_easy(g: Generator) -> list[Call]:
    """All units open."""
    call = attribution_of(g, 1, 4, 5, 3)
    call.args[0], call.args[4] = call.args[0].abs(), call.args[4].abs()
    return [call]


QUESTIONS = (
    Question("1a", "Grad-CAM by hand", (Part("easy", 2, "The four numbers of the map.", nothing("cam_by_hand"), by_hand),)),
    Question("1b", "Weights and pattern",
             (Part("easy", 2, "Two weights and two entries of the pattern.", nothing("weights_and_pattern"), by_hand),)),
    Question("1c", "Two attributions",
             (Part("easy", 2, "Gradient times input and PatternAttribution.", nothing("two_attributions"), by_hand),)),
    Question(
        "2",
        "Grad-CAM",
        (
            Part("easy", 1.5, "One image, a mean and a linear head, each of two classes.", cam_easy),
            Part("shape", 0.5, "Two images in float64, maps of 6 x 5 places.", lambda g: [cam_of(g, 2, 3, F64)], shape_only, "easy"),
            Part("general", 1.5, "One image, a head without a mean over places.", lambda g: [cam_of(g, 1, 2, F64)]),
            Part("batch", 1, "The same kind of head, five images with their own classes.", lambda g: [cam_of(g, 5, 2)]),
            Part("side effects", 1, "Two images, and gradients in use.", cam_side_effects),
            Part("device", 0.5, "Networks and images on another device than the CPU.", lambda g: [cam_of(g, 2, 2)]),
        ),
    ),
    Question(
        "3",
        "A perfect map",
        (
            Part("easy", 1, "One mask of 24 x 36 pixels, 4 x 4 places.", ceilings(1, 4)),
            Part("general", 1.5, "One mask, from one place to 12 x 12.", ceilings(1, 1, 2, 3, 6, 12)),
            Part("batch", 1, "Six masks.", ceilings(6, 4)),
            Part("device", 0.5, "Masks on another device than the CPU.", ceilings(2, 4)),
        ),
    ),
    Question(
        "4",
        "Pattern",
        (
            Part("easy", 1, "Twenty observations of three inputs.", lambda g: [pattern_of(g, 20, 3)]),
            Part("shape", 0.5, "Six inputs in float64.", lambda g: [pattern_of(g, 12, 6, F64)], shape_only, "easy"),
            Part("general", 2, "Behind a ReLU; a unit that is never positive; one that never varies.", pattern_general),
            Part("batch", 0.5, "Four hundred observations of thirty inputs.", lambda g: [pattern_of(g, 400, 30, F64)]),
            Part("side effects", 0.5, "Observations, which must come back unchanged.",
                 lambda g: [pattern_of(g, 20, 4, rectified=True, inspect=True)]),
            Part("device", 0.5, "Observations on another device than the CPU.", lambda g: [pattern_of(g, 20, 4, rectified=True)]),
        ),
    ),
    Question(
        "5",
        "PatternAttribution",
        (
            Part("easy", 1.5, "One input, all units open.", attribution_easy),
            Part("shape", 0.5, "Two inputs in float64.", lambda g: [attribution_of(g, 2, 6, 4, 3, F64)], shape_only, "easy"),
            Part("general", 1.5, "One input, some of twelve units closed.", lambda g: [attribution_of(g, 1, 5, 12, 4, F64)]),
            Part("batch", 1, "Six inputs with their own classes.", lambda g: [attribution_of(g, 6, 5, 7, 4)]),
            Part("device", 0.5, "All on another device than the CPU.", lambda g: [attribution_of(g, 3, 4, 6, 3)]),
        ),
    ),
)  # fmt: skip
