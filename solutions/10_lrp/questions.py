"""Layer-wise relevance propagation: the graded questions."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Generator

from grader.calls import Call, Net
from grader.drawing import F64, integer, nothing, rand, randn, targets, uniform
from grader.judges import by_hand, shape_only
from grader.question import Part, Question

# Question 2: the steps. Sums and totals stay away from zero, so that rounding does not matter, or are exactly zero.


def epsilon_call(g: Generator, n: int, i: int, j: int, dtype: torch.dtype = torch.float32) -> Call:
    args = [randn(g, *shape, dtype=dtype) for shape in ((n, i), (j, i), (j,), (n, j))]
    return Call("epsilon_step", [*args, uniform(g, 0.5, 1)])


def epsilon_easy(g: Generator) -> list[Call]:
    a, weight = 0.5 + rand(g, 1, 4), 0.5 + rand(g, 1, 4)
    return [Call("epsilon_step", [a, weight, torch.zeros(1), 1 + rand(g, 1, 1), 0.0])]


def epsilon_general(g: Generator) -> list[Call]:
    call = epsilon_call(g, 1, 6, 8, F64)
    _, weight, bias, *_ = call.args
    weight[0], bias[0] = 0, 0  # a unit whose sum is 0
    return [call]


def z_plus_call(g: Generator, n: int, i: int, j: int, dtype: torch.dtype = torch.float32) -> Call:
    args = [randn(g, *shape, dtype=dtype) for shape in ((n, i), (j, i), (n, j))]
    return Call("z_plus_step", args)


def z_plus_easy(g: Generator) -> list[Call]:
    weight = torch.cat([0.5 + rand(g, 1, 3), -0.5 - rand(g, 1, 2)], 1)
    return [Call("z_plus_step", [0.5 + rand(g, 1, 5), weight, 1 + rand(g, 1, 1)])]


def z_plus_general(g: Generator) -> list[Call]:
    call = z_plus_call(g, 1, 8, 6, F64)
    a, weight, _ = call.args
    weight[0] = -weight[0].abs() * a[0].sign()  # nothing speaks for this unit
    return [call]


# Question 3: the stack

RULES = ["z_plus", "epsilon", "epsilon"]


def stacked(
    rows: int, *shape: int, rules: list[str], dtype: torch.dtype = F64, inspect: bool = False
) -> Callable[[Generator], list[Call]]:
    def calls(g: Generator) -> list[Call]:
        layers = [("Flatten",), ("Linear", torch.Size(shape).numel(), 9), ("ReLU",), ("Linear", 9, 8), ("ReLU",)]
        net = Net.draw([*layers, ("Linear", 8, 4)], g, dtype=dtype, grads=inspect)
        args = [net, rand(g, rows, *shape, dtype=dtype), targets(g, rows, 4), rules]
        return [Call("propagate", args, {"epsilon": uniform(g, 0.3, 0.6)}, inspect)]

    return calls


def propagate_easy(g: Generator) -> list[Call]:
    inputs = integer(g, 4, 8)
    net = Net.draw([("Flatten",), ("Linear", inputs, 3, False)], g)
    return [Call("propagate", [net, 0.5 + rand(g, 1, inputs), targets(g, 1, 3), ["epsilon"]], {"epsilon": 0.0})]


def propagate_general(g: Generator) -> list[Call]:
    orders = (["z_plus", "z_plus", "epsilon"], ["epsilon", "z_plus", "z_plus"], ["z_plus", "epsilon", "z_plus"])
    return [call for rules in orders for call in stacked(1, 2, 4, rules=rules)(g)]


# Question 4: the biases


def kept(
    rows: int, *shape: int, times: int = 1, dtype: torch.dtype = F64, inspect: bool = False
) -> Callable[[Generator], list[Call]]:
    def call(g: Generator) -> Call:
        layers = [("Flatten",), ("Linear", torch.Size(shape).numel(), 9), ("ReLU",), ("Linear", 9, 8, False), ("ReLU",)]
        layers += [("Linear", 8, 7), ("ReLU",), ("Linear", 7, 4)]
        args = [
            Net.draw(layers, g, dtype=dtype, grads=inspect),
            rand(g, rows, *shape, dtype=dtype),
            targets(g, rows, 4),
        ]
        return Call("kept_by_biases", args, inspect=inspect)

    return lambda g: [call(g) for _ in range(times)]


def kept_easy(g: Generator) -> list[Call]:
    layers = [("Flatten",), ("Linear", 5, 4), ("ReLU",), ("Linear", 4, 3)]
    return [Call("kept_by_biases", [Net.draw(layers, g, dtype=F64), rand(g, 1, 5, dtype=F64), targets(g, 1, 3)])]


# Question 5: convolutions


def speaks(net: Net, x: torch.Tensor, target: torch.Tensor) -> bool:
    """Whether every row has relevance to distribute, more than the bias of the last layer."""
    last = net.build()[-1]
    inside = (net.build()(x) - last.bias).gather(1, target[:, None])
    return bool(inside.abs().min() > 1)


def composite(
    rows: int, *, frames: tuple[int, ...] = (0,), dtype: torch.dtype = F64, inspect: bool = False
) -> Callable[[Generator], list[Call]]:
    """Two convolutions; one call for every width of a black frame around the pictures."""

    def call(g: Generator, frame: int) -> Call:
        layers = [("Conv2d", 2, 4, 3, 2, 1), ("ReLU",), ("MaxPool2d", 2), ("Conv2d", 4, 6, 2), ("ReLU",), ("Flatten",)]
        while True:
            net = Net.draw([*layers, ("Dropout", 0.5), ("Linear", 24, 4)], g, dtype=dtype, grads=inspect)
            net.state["0.bias"].abs_()  # so that a black patch does not close all units
            net.state["7.weight"] *= 10
            x = rand(g, rows, 2, 12, 12, dtype=dtype)
            if frame:
                x[:, :, :frame] = x[:, :, :, -frame:] = 0
            if speaks(net, x, target := targets(g, rows, 4)):
                return Call("composite", [net, x, target], {"epsilon": uniform(g, 0.2, 0.4)}, inspect)

    return lambda g: [call(g, frame) for frame in frames]


def composite_easy(g: Generator) -> list[Call]:
    layers = [("Conv2d", 1, 3, 2), ("ReLU",), ("Flatten",), ("Linear", 12, 3)]
    while True:
        net = Net.draw(layers, g)
        net.state["0.bias"].abs_()
        net.state["0.weight"][:, :, 0, 0].abs_()  # some pixel speaks for every unit
        net.state["3.weight"] *= 3
        x = 0.2 + rand(g, 1, 1, 3, 3)
        if speaks(net, x, target := targets(g, 1, 3)):
            return [Call("composite", [net, x, target], {"epsilon": 0.3})]


QUESTIONS = (
    Question(
        "1a",
        "What one unit pays",
        (
            Part("easy", 1, "One unit, the rule epsilon.", nothing("payments"), partial(by_hand, only=[0], name="your payment to x[{i}]")),
            Part("general", 1, "One unit, the rule z+.", nothing("payments"), partial(by_hand, only=[1], name="your payment to x[{i}]")),
        ),
    ),
    Question(
        "1b",
        "Relevance through two layers",
        (
            Part("easy", 1, "Two layers, the rule epsilon.", nothing("through_two_layers"), partial(by_hand, only=[0], name="your payment to x[{i}]")),
            Part("general", 1, "Two layers, the rule z+.", nothing("through_two_layers"), partial(by_hand, only=[1], name="your payment to x[{i}]")),
        ),
    ),
    Question(
        "2a",
        "The rule epsilon",
        (
            Part("easy", 0.5, "One unit, positive contributions, epsilon = 0.", epsilon_easy),
            Part("shape", 0.5, "Two rows, five inputs, three units in float64.",
                 lambda g: [epsilon_call(g, 2, 5, 3, F64)], shape_only, "easy"),
            Part("general", 1, "One row, eight units with biases and sums of either sign, one of them 0.", epsilon_general),
            Part("batch", 0.5, "Five rows.", lambda g: [epsilon_call(g, 5, 4, 3, F64)]),
            Part("device", 0.5, "Tensors on another device than the CPU.",
                 lambda g: [epsilon_call(g, 2, 4, 3)]),
        ),
    ),
    Question(
        "2b",
        "The rule z+",
        (
            Part("easy", 0.5, "One unit, positive inputs, weights of either sign.", z_plus_easy),
            Part("shape", 0.5, "Two rows, five inputs, three units in float64.",
                 lambda g: [z_plus_call(g, 2, 5, 3, F64)], shape_only, "easy"),
            Part("general", 1, "One row, inputs of either sign, and a unit for which nothing speaks.", z_plus_general),
            Part("batch", 0.5, "Five rows.", lambda g: [z_plus_call(g, 5, 8, 3, F64)]),
            Part("device", 0.5, "Tensors on another device than the CPU.",
                 lambda g: [z_plus_call(g, 2, 8, 3)]),
        ),
    ),
    Question(
        "3",
        "A stack of layers",
        (
            Part("easy", 1, "One dense layer without bias, epsilon = 0, one row.", propagate_easy),
            Part("shape", 0.5, "Two rows of shape (3, 5, 4) in float64.", stacked(2, 3, 5, 4, rules=RULES), shape_only, "easy"),
            Part("general", 1.5, "Three dense layers, each choice of two rules in another order.", propagate_general),
            Part("batch", 1, "The same kind of network, five rows with their own targets.", stacked(5, 12, rules=RULES)),
            Part("side effects", 0.5, "A network with gradients in use, which must come back as it was.", stacked(2, 6, rules=["epsilon", "z_plus", "epsilon"], inspect=True)),
            Part("device", 0.5, "Network and rows on another device than the CPU.", stacked(2, 6, rules=RULES, dtype=torch.float32)),
        ),
    ),
    Question(
        "4",
        "What the biases keep",
        (
            Part("easy", 1, "Two dense layers, one row.", kept_easy),
            Part("shape", 0.5, "Two rows of shape (3, 2, 2), four dense layers.", kept(2, 3, 2, 2), shape_only, "easy"),
            Part("general", 1, "Four dense layers, the second without bias.", kept(1, 6, times=3)),
            Part("batch", 0.5, "The same kind of network, five rows with their own targets.", kept(5, 6)),
            Part("side effects", 0.5, "A network with gradients in use, which must come back as it was.", kept(2, 6, inspect=True)),
            Part("device", 0.5, "Network and rows on another device than the CPU.", kept(2, 6, dtype=torch.float32)),
        ),
    ),
    Question(
        "5",
        "A composite for convolutions",
        (
            Part("easy", 1, "One convolution and one dense layer, one picture.", composite_easy),
            Part("shape", 0.5, "Two pictures in float64.", composite(2), shape_only, "easy"),
            Part("general", 1.5, "Two convolutions with stride, padding and max-pool; and a picture with black patches.",
                 composite(1, frames=(0, 5))),
            Part("batch", 1, "The same kind of network, four pictures with their own targets.", composite(4)),
            Part("side effects", 0.5, "A network with gradients in use, which must come back as it was.", composite(2, inspect=True)),
            Part("device", 0.5, "Network and pictures on another device than the CPU.", composite(2, dtype=torch.float32)),
        ),
    ),
)  # fmt: skip
