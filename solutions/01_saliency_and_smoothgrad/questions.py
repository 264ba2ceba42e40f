"""Saliency maps and SmoothGrad: the graded questions."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Generator

from grader.calls import Call, Net, Outcome
from grader.drawing import F64, conv, integer, linear, nothing, powers, randn, targets, uniform
from grader.judges import Reference, by_hand, repeatable, same_kind, shape_only
from grader.question import Part, Question
from interp_lab import check


def on_rows(function: str) -> Callable[[Generator], list[Call]]:
    """Two rows with 60 numbers."""
    return lambda g: [Call(function, [linear(g, 60, 4, F64), randn(g, 2, 3, 5, 4, dtype=F64), targets(g, 2, 4)])]


def on_pictures(function: str, rows: int, dtype: torch.dtype = torch.float32) -> Callable[[Generator], list[Call]]:
    """Pictures of two channels and a curved network."""
    return lambda g: [Call(function, [conv(g, 2, dtype), randn(g, rows, 2, 7, 7, dtype=dtype), targets(g, rows, 4)])]


# Question 2: saliency


def saliency_easy(g: Generator) -> list[Call]:
    inputs = integer(g, 4, 8)
    straight = Call("saliency", [linear(g, inputs, 3), randn(g, 1, inputs), targets(g, 1, 3)])
    # ReLUs that are on or off by 2^-40, too little for a difference quotient; all numbers are binary fractions, so that
    # every order of summation gives them.
    x = torch.randint(-16, 17, (1, 3), generator=g).double() / 8
    weight = (
        torch.randint(1, 9, (6, 3), generator=g) * (2 * torch.randint(0, 2, (6, 3), generator=g) - 1)
    ).double() / 4
    above = torch.tensor([1.0, -1.0]).repeat(3).double() * 2.0**-40
    state = {"0.weight": weight, "0.bias": above - (weight * x).sum(1)}
    state |= {"2.weight": 1 + torch.arange(12).double().view(2, 6) / 4, "2.bias": torch.zeros(2).double()}
    edge = Net([("Linear", 3, 6), ("ReLU",), ("Linear", 6, 2)], state)
    return [straight, Call("saliency", [edge, x, targets(g, 1, 2)])]


def saliency_side_effects(g: Generator) -> list[Call]:
    layers = [("Linear", 4, 6), ("BatchNorm1d", 6), ("Tanh",), ("Dropout", 0.5), ("Linear", 6, 3)]
    moody = Net.draw(layers, g, dtype=F64, training=["", "0", "2", "3"], grads=True)
    return [Call("saliency", [moody, randn(g, 4, 4, dtype=F64), targets(g, 4, 3)], inspect=True)]


# Question 3: saliency_image


def image_easy(g: Generator) -> list[Call]:
    return [Call("saliency_image", [linear(g, 16, 3), randn(g, 1, 1, 4, 4), targets(g, 1, 3)])]


def image_general(g: Generator) -> list[Call]:
    flat = linear(g, 12, 2)
    flat.state["1.weight"] *= 0
    zero = Call("saliency_image", [flat, randn(g, 1, 3, 2, 2), targets(g, 1, 2)])
    return [Call("saliency_image", [conv(g, 3), randn(g, 1, 3, 7, 7), targets(g, 1, 4)]), zero]


def image_batch(g: Generator) -> list[Call]:
    x = 1 + torch.rand(3, 2, 4, 4, generator=g, dtype=F64)
    x *= torch.tensor([1.0, 10.0, 0.1]).view(3, 1, 1, 1)
    return [Call("saliency_image", [powers(g, 3, 32, 3), x, targets(g, 3, 3)])]


# Question 4: SmoothGrad


def smooth_easy(g: Generator) -> list[Call]:
    inputs = integer(g, 4, 8)
    straight = Call("smoothgrad", [linear(g, inputs, 3), randn(g, 1, inputs), targets(g, 1, 3)], {"n": 3, "noise": 0.3})
    quiet = Call(
        "smoothgrad", [powers(g, 3, 6, 3), randn(g, 1, 6, dtype=F64), targets(g, 1, 3)], {"n": 2, "noise": 0.0}
    )
    return [straight, quiet]


def smooth_shape(g: Generator) -> list[Call]:
    x = randn(g, 2, 3, 5, 4, dtype=F64)
    return [Call("smoothgrad", [linear(g, 60, 4, F64), x, targets(g, 2, 4)], {"n": 2, "noise": 0.1})]


def smooth_general(g: Generator) -> list[Call]:
    """f = sum x^2 / 2 shows the noise itself, f_c = sum w x^3 / 3 the mean of a curved gradient."""
    low, width = uniform(g, -1, 1), uniform(g, 0.5, 3)
    x = low + width * torch.rand(1, 1, 64, 64, generator=g, dtype=F64)
    options = {"noise": uniform(g, 0.1, 0.3), "seed": integer(g, 0, 10**6)}
    square, cube, target = powers(g, 2, 4096, 1), powers(g, 3, 4096, 2), targets(g, 1, 2)
    return [Call("smoothgrad", [square, x, torch.tensor([0])], options | {"n": n}) for n in (1, 25)] + [
        Call("smoothgrad", [cube, x, target], options | {"n": 40})
    ]


def smooth_batch(g: Generator) -> list[Call]:
    x = torch.rand(3, 1, 48, 48, generator=g, dtype=F64)
    x = torch.tensor([0.0, 2.0, -1.0], dtype=F64).view(3, 1, 1, 1) + x * torch.tensor([1.0, 0.2, 4.0]).view(3, 1, 1, 1)
    options = {"n": 20, "noise": uniform(g, 0.1, 0.3), "seed": integer(g, 0, 10**6)}
    return [Call("smoothgrad", [powers(g, 3, 2304, 2), x, targets(g, 3, 2)], options)]


def as_chance_allows(what: str, calls: list[Call], got: list[Outcome], reference: Reference) -> None:
    r"""The result against its distribution, for `powers`, whose gradient is :math:`w x^{p-1}`.

    For noise of variance s^2 the gradient has the mean w x and the variance w^2 s^2 for p = 2, the mean
    w (x^2 + s^2) and the variance w^2 (4 x^2 s^2 + 2 s^4) for p = 3. The mean of n has 1/n of the variance. The
    ranges are six standard deviations or more of what they bound, for at least 2304 pixels.
    """
    for call, outcome in zip(calls, got, strict=True):
        net, x, target = call.args
        n, noise = call.options["n"], call.options["noise"]
        same_kind(what, outcome, Outcome({"result": x}, "Tensor"))
        p = net.layers[0][1]
        for i, (row, result) in enumerate(zip(x, outcome.result, strict=True)):
            s, w = noise * (row.max() - row.min()), net.state["2.weight"][target[i]].view_as(row)
            mean = w * row if p == 2 else w * (row**2 + s**2)
            variance = w**2 * (s**2 if p == 2 else 4 * row**2 * s**2 + 2 * s**4)
            z = (result - mean) / (variance / n).sqrt()
            given = f"{what}\nf = sum w x^{p} / {p}, n={n}, noise={noise:.3g}, image {i}: "
            given += "(your map - its expectation) / its standard deviation over all pixels:"
            check.within((z * w.sign()).mean().item(), -0.14, 0.14, f"{given} the mean, which should be 0.")
            check.within(z.square().mean().sqrt().item(), 0.9, 1.1, f"{given} the root mean square, which should be 1.")
            if n == 1 and p == 2:
                inside = (z.abs() < 1).double().mean().item()
                check.within(inside, 0.635, 0.73, f"{given} the share within 1. Is the noise normal?")


def smooth_side_effects(g: Generator) -> list[Call]:
    layers = [("Linear", 5, 6), ("Tanh",), ("Dropout", 0.5), ("Linear", 6, 3)]
    net = Net.draw(layers, g, training=["", "2"])
    args, seed = [net, randn(g, 2, 5), targets(g, 2, 3)], integer(g, 1, 10**6)
    return [Call("smoothgrad", args, {"n": 2, "noise": 0.2, "seed": s}, inspect=True) for s in (seed, seed, seed + 1)]


def smooth_device(g: Generator) -> list[Call]:
    args = [linear(g, 12, 4), randn(g, 2, 3, 2, 2), targets(g, 2, 4)]
    return [Call("smoothgrad", args, {"n": 2, "noise": 0.1})]


# Question 5: the limit of SmoothGrad


def sign_easy(g: Generator) -> list[Call]:
    return [Call("smoothed_sign", [torch.tensor([-uniform(g, 0.3, 0.8), 0.0, uniform(g, 0.3, 0.8)]), 1.0])]


def sign_general(g: Generator) -> list[Call]:
    return [Call("smoothed_sign", [randn(g, 20, dtype=F64), s]) for s in (uniform(g, 0.3, 0.7), uniform(g, 1.5, 3))]


def sign_shape(g: Generator) -> list[Call]:
    return [Call("smoothed_sign", [randn(g, 2, 3, 1, dtype=F64), 0.5])]


def sign_device(g: Generator) -> list[Call]:
    return [Call("smoothed_sign", [randn(g, 7), uniform(g, 0.5, 2)])]


def error_of(low: int, high: int) -> Callable[[Generator], list[Call]]:
    return lambda g: [Call("measured_error", [times * integer(g, low, high)]) for times in (1, 2, 4, 8)]


def standard_error(what: str, calls: list[Call], got: list[Outcome], reference: Reference) -> None:
    """The mean of n independent signs with expectation s has the variance (1 - s^2) / n.

    A measured error scatters around the square root of its mean by 2 % for 2001 points; a formula does not.
    """
    points = torch.linspace(-2, 2, 2001, dtype=F64)
    variance = (1 - torch.erf(points / 2**0.5) ** 2).mean().item()
    ratios = []
    for call, outcome in zip(calls, got, strict=True):
        same_kind(what, outcome, Outcome({"result": torch.zeros((), dtype=F64)}, "float"))
        ratio = outcome.result.item() / (variance / call.args[0]) ** 0.5
        check.within(ratio, 0.88, 1.12, f"{what}\nn={call.args[0]}: your error over the standard error of a mean of n.")
        ratios.append(ratio)
    if max(ratios) - min(ratios) < 1e-3:
        raise AssertionError(f"{what}\nA measurement scatters, and yours falls exactly as a formula says. Measure it.")


QUESTIONS = (
    Question(
        "1a",
        "Gradient of a linear network",
        (Part("easy", 1, "Network A at (1, 2, 3), class 1.", nothing("gradient_a"), partial(by_hand, name="x[{i}]")),),
    ),
    Question(
        "1b",
        "Gradients at both sides of a kink",
        (
            Part("easy", 1, "Network B at (1, 0.5).", nothing("gradients_b"), partial(by_hand, only=[0], name="x[{i}]")),
            Part(
                "general",
                1,
                "Network B at (0.5, 1) and (0.2, 0.5), where some ReLU is off.",
                nothing("gradients_b"),
                partial(by_hand, only=[1, 2], name="x[{i}]"),
            ),
        ),
    ),
    Question(
        "2",
        "Saliency map",
        (
            Part("easy", 1, "A linear network, one row: the map is the weights of the target. And a network at the edge of its "
                 "kinks, where the gradient is that of the ReLUs that are on.", saliency_easy),
            Part("shape", 0.5, "Two rows of shape (3, 5, 4) in float64.", on_rows("saliency"), shape_only, "easy"),
            Part("general", 1, "A network with convolution, batch normalisation and tanh, one picture.", on_pictures("saliency", 1, F64),
                 needs="easy"),
            Part("batch", 1, "The same kind of network, five pictures with their own targets.", on_pictures("saliency", 5), needs="easy"),
            Part(
                "side effects",
                1,
                "A network in train mode with dropout, a batch normalisation that is frozen in eval mode, and "
                "gradients in use: it must be explained in eval mode and come back as it was.",
                saliency_side_effects,
            ),
            Part("device", 0.5, "Network and pictures on another device than the CPU.", on_pictures("saliency", 2)),
        ),
    ),
    Question(
        "3a",
        "Largest magnitude over the channels",
        (
            Part("easy", 1, "A linear network, one picture with one channel.", image_easy),
            Part("shape", 0.25, "Two pictures of shape (3, 5, 4) in float64.", on_rows("saliency_image"), shape_only, "easy"),
            Part("general", 1, "Three channels of either sign; and a picture whose gradient is zero.", image_general),
            Part("batch", 0.5, "Three pictures whose gradients differ by factors of 100.", image_batch),
            Part("device", 0.25, "Network and pictures on another device than the CPU.", on_pictures("saliency_image", 2)),
        ),
    ),
    Question(
        "4",
        "SmoothGrad",
        (
            Part("easy", 1.5, "A linear network with noise; a curved one without noise.", smooth_easy),
            Part("shape", 0.5, "Two rows of shape (3, 5, 4) in float64.", smooth_shape, shape_only, "easy"),
            Part("general", 2, "One picture of 64 x 64 pixels.", smooth_general, as_chance_allows, "easy"),
            Part("batch", 1.5, "Three pictures with ranges of their own.", smooth_batch, as_chance_allows, "easy"),
            Part("side effects", 1, "A network in train mode, two calls with one seed and one with another.", smooth_side_effects,
                 repeatable, "easy"),
            Part("device", 0.5, "A linear network and its inputs on another device than the CPU.", smooth_device),
        ),
    ),
    Question(
        "5a",
        "Limit of SmoothGrad for the absolute value",
        (
            Part("easy", 0.5, "Three points, sigma = 1.", sign_easy),
            Part("shape", 0.25, "x of shape (2, 3, 1) in float64.", sign_shape, shape_only, "easy"),
            Part("general", 1, "Twenty points, a small and a large sigma.", sign_general),
            Part("device", 0.25, "x on another device than the CPU.", sign_device),
        ),
    ),
    Question(
        "5b",
        "Distance from the limit",
        (
            Part("easy", 1, "A few dozen to a few hundred samples.", error_of(10, 20), standard_error),
            Part("general", 1, "Up to a thousand samples.", error_of(60, 120), standard_error),
        ),
    ),
)  # fmt: skip
