"""DeepLIFT: the graded questions."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Generator

from grader.calls import Call, Net
from grader.drawing import F64, linear, nothing, rand, randn, targets, uniform
from grader.judges import by_hand, shape_only
from grader.question import Part, Question

# Question 2: the multiplier. ReLUs stay away from the kink, where the derivative is a matter of taste.


def multiplier_easy(g: Generator) -> list[Call]:
    size = 0.5 + rand(g, 2, 12)
    signs = torch.tensor([[1, 1, -1, -1] * 3, [1, -1, 1, -1] * 3])
    z, z0 = size * signs
    return [Call("multiplier", [Net.draw([("ReLU",)], g), z, z0 + 0.5 * z0.sign()])]


def multiplier_shape(g: Generator) -> list[Call]:
    return [Call("multiplier", [Net.draw([("ReLU",)], g), *(randn(g, 2, 3, 4, 5, dtype=F64) for _ in range(2))])]


def multiplier_general(g: Generator) -> list[Call]:
    calls = []
    for name in ("Tanh", "Sigmoid", "Softplus"):
        z, z0 = randn(g, 30), 2 * randn(g, 30)
        z0[:5], z0[5:10] = z[:5], z[5:10] * (1 + 2e-7)
        calls.append(Call("multiplier", [Net.draw([(name,)], g), z, z0]))
    z = (0.5 + rand(g, 6)) * torch.tensor([1, -1] * 3)
    return [*calls, Call("multiplier", [Net.draw([("ReLU",)], g), z, z.clone()])]


def multiplier_tanh(*, inspect: bool = False) -> Callable[[Generator], list[Call]]:
    return lambda g: [Call("multiplier", [Net.draw([("Tanh",)], g), randn(g, 5), randn(g, 5)], inspect=inspect)]


# Question 3: the chain


def lift(
    rows: int, *baselines: int, function: str = "deeplift", dtype: torch.dtype = F64, inspect: bool = False
) -> Callable[[Generator], list[Call]]:
    """A deep network; one call for every number of baselines."""

    def call(g: Generator, count: int) -> Call:
        layers = [("Conv2d", 2, 4, 3), ("Tanh",), ("AvgPool2d", 2), ("Conv2d", 4, 6, 2), ("ReLU",), ("Flatten",)]
        layers += [("Linear", 24, 8), ("Softplus",), ("Linear", 8, 7), ("ReLU",), ("Linear", 7, 4)]
        net = Net.draw(layers, g, dtype=dtype, grads=inspect)
        net.state["10.weight"] *= 10
        args = [net, randn(g, rows, 2, 8, 8, dtype=dtype), targets(g, rows, 4), randn(g, count, 2, 8, 8, dtype=dtype)]
        if function == "shortfall":
            args.insert(0, randn(g, rows, 2, 8, 8, dtype=dtype))
        return Call(function, args, inspect=inspect)

    return lambda g: [call(g, count) for count in baselines]


def lift_easy(g: Generator) -> list[Call]:
    return [Call("deeplift", [linear(g, 5, 3), randn(g, 1, 5), targets(g, 1, 3), randn(g, 2, 5)])]


# Question 4: the sum, and saturation


def shortfall_easy(g: Generator) -> list[Call]:
    return [Call("shortfall", [randn(g, 1, 5), linear(g, 5, 3), randn(g, 1, 5), targets(g, 1, 3), randn(g, 1, 5)])]


def inputs(g: Generator, *, dtype: torch.dtype = F64) -> torch.Tensor:
    """Five numbers below 0, between 0 and 1, and above 1, away from the kinks."""
    return (torch.tensor([-1.2, 0.1, 0.5, 1.2, 2.5]) + 0.3 * rand(g, 5)).to(dtype)


def one_easy(g: Generator) -> list[Call]:
    return [Call("one_input", [inputs(g), 0.0])]


def one_shape(g: Generator) -> list[Call]:
    return [Call("one_input", [randn(g, 2, 3, 1, dtype=F64), 0.5])]


def one_general(g: Generator) -> list[Call]:
    return [Call("one_input", [inputs(g), t0]) for t0 in (uniform(g, 0.2, 0.8), uniform(g, -2, -1), uniform(g, 1.5, 2))]


def one_device(g: Generator) -> list[Call]:
    return [Call("one_input", [inputs(g, dtype=torch.float32), 0.0])]


# Question 5: the maximum. Quarters, so that a - b is exact.


def maximum_easy(g: Generator) -> list[Call]:
    b, b0, lead, lead0 = 0.5 + rand(g, 4, 6)
    sign = torch.tensor([1, -1] * 3)
    return [Call("share_maximum", [b + sign * lead, b, b0 + sign * lead0, b0])]


def maximum_shape(g: Generator) -> list[Call]:
    return [Call("share_maximum", [randn(g, 2, 3, 5, dtype=F64) for _ in range(4)])]


def maximum_general(g: Generator) -> list[Call]:
    a, b, a0, b0 = torch.randint(-8, 9, (4, 40), generator=g) / 4
    a0[:10], b0[:10] = a[:10] - 1, b[:10] - 1  # the same a - b
    a[5:10], a0[5:10] = b[5:10], b0[5:10]  # and a tie
    return [Call("share_maximum", [a, b, a0, b0])]


def maximum_device(g: Generator) -> list[Call]:
    return [Call("share_maximum", list(randn(g, 4, 7)))]


QUESTIONS = (
    Question(
        "1a",
        "Multipliers of a ReLU",
        (
            Part("easy", 1, "Multipliers of the four pairs.", nothing("relu_by_hand"),
                 partial(by_hand, only=[0], name="your number for pair[{i}]")),
            Part("general", 1, "Derivatives at the four values of z.", nothing("relu_by_hand"),
                 partial(by_hand, only=[1], name="your number for pair[{i}]")),
        ),
    ),
    Question(
        "1b",
        "A saturated network",
        (
            Part("easy", 1, "DeepLIFT at (2, 1).", nothing("contributions_by_hand"),
                 partial(by_hand, only=[0], name="your contribution of x[{i}]")),
            Part("general", 1, "Gradient times input at (2, 1).", nothing("contributions_by_hand"),
                 partial(by_hand, only=[1], name="your contribution of x[{i}]"), "easy"),  # zeros
        ),
    ),
    Question(
        "2",
        "The rule Rescale",
        (
            Part("easy", 1.5, "A ReLU, open or closed before and after.", multiplier_easy),
            Part("shape", 0.5, "z of shape (2, 3, 4, 5) in float64.", multiplier_shape, shape_only, "easy"),
            Part("general", 2, "Tanh, sigmoid, softplus and ReLU, with z and z0 equal or nearly equal at some places.",
                 multiplier_general),
            Part("side effects", 0.5, "A call must leave z, z0 and the random state as they were.", multiplier_tanh(inspect=True)),
            Part("device", 0.5, "z and z0 on another device than the CPU.", multiplier_tanh()),
        ),
    ),
    Question(
        "3",
        "DeepLIFT",
        (
            Part("easy", 1, "A linear network, one row, two baselines.", lift_easy),
            Part("shape", 0.5, "Two pictures of shape (2, 8, 8) in float64, three baselines.", lift(2, 3), shape_only, "easy"),
            Part("general", 2.5, "Convolutions, tanh, ReLU, softplus and a mean; one picture, one baseline and three.",
                 lift(1, 1, 3)),
            Part("batch", 1.5, "The same kind of network, four pictures with their own targets, two baselines.", lift(4, 2)),
            Part("side effects", 1, "A network with gradients in use, which must come back as it was.", lift(2, 2, inspect=True)),
            Part("device", 0.5, "Network, pictures and baselines on another device than the CPU.", lift(2, 2, dtype=torch.float32)),
        ),
    ),
    Question(
        "4a",
        "The shortfall",
        (
            Part("easy", 0.5, "A linear network, one row, one baseline.", shortfall_easy),
            Part("general", 0.5, "A deep network, one picture, three baselines.", lift(1, 3, function="shortfall")),
            Part("batch", 0.5, "A deep network, four pictures with their own targets, three baselines.", lift(4, 3, function="shortfall")),
            Part("device", 0.5, "Network and tensors on another device than the CPU.", lift(2, 3, function="shortfall", dtype=torch.float32)),
        ),
    ),
    Question(
        "4b",
        "One input and one ceiling",
        (
            Part("easy", 0.5, "Five numbers, baseline 0.", one_easy),
            Part("shape", 0.25, "t of shape (2, 3, 1) in float64.", one_shape, shape_only, "easy"),
            Part("general", 1, "Baselines below 0, between 0 and 1, and above 1.", one_general),
            Part("device", 0.25, "t on another device than the CPU.", one_device),
        ),
    ),
    Question(
        "5",
        "A rule for the maximum",
        (
            Part("easy", 1, "The same one of a and b is larger before and after.", maximum_easy),
            Part("shape", 0.5, "Tensors of shape (2, 3, 5) in float64.", maximum_shape, shape_only, "easy"),
            Part("general", 2, "The larger one changes; the difference a - b does not; a tie.", maximum_general),
            Part("device", 0.5, "Tensors on another device than the CPU.", maximum_device),
        ),
    ),
)  # fmt: skip
