"""Layer-wise relevance propagation: the graded questions."""

from functools import partial

import torch
from torch import Generator

from grader.calls import Call, Net
from grader.drawing import F64, integer, nothing, rand, randn, targets, uniform
from grader.judges import by_hand, shape_only
from grader.question import Part, Question

# Question 2: the steps. Sums and totals stay away from zero, so that rounding does not matter, or are exactly zero.


def epsilon_call(
    g: Generator, n: int, i: int, j: int, dtype: torch.dtype = torch.float32, on_simulated_device=False
) -> Call:
    args = [randn(g, *shape, dtype=dtype) for shape in ((n, i), (j, i), (j,), (n, j))]
    return Call("epsilon_step", [*args, uniform(g, 0.5, 1)], on_simulated_device=on_simulated_device)


def epsilon_easy(g: Generator) -> list[Call]:
    a, weight = 0.5 + rand(g, 1, 4), 0.5 + rand(g, 1, 4)
    return [Call("epsilon_step", [a, weight, torch.zeros(1), 1 + rand(g, 1, 1), 0.0])]


def epsilon_general(g: Generator) -> list[Call]:
    call = epsilon_call(g, 1, 6, 8, F64)
    _, weight, bias, *_ = call.args
    weight[0], bias[0] = 0, 0  # a unit whose sum is 0
    return [call]


def z_plus_call(
    g: Generator, n: int, i: int, j: int, dtype: torch.dtype = torch.float32, on_simulated_device=False
) -> Call:
    args = [randn(g, *shape, dtype=dtype) for shape in ((n, i), (j, i), (n, j))]
    return Call("z_plus_step", args, on_simulated_device=on_simulated_device)


def z_plus_easy(g: Generator) -> list[Call]:
    weight = torch.cat([0.5 + rand(g, 1, 3), -0.5 - rand(g, 1, 2)], 1)
    return [Call("z_plus_step", [0.5 + rand(g, 1, 5), weight, 1 + rand(g, 1, 1)])]


def z_plus_general(g: Generator) -> list[Call]:
    call = z_plus_call(g, 1, 8, 6, F64)
    a, weight, _ = call.args
    weight[0] = -weight[0].abs() * a[0].sign()  # nothing speaks for this unit
    return [call]


# Question 3: the stack

RULES = ["epsilon", "z_plus"]


def stack(g: Generator, inputs: int, dtype: torch.dtype = torch.float32, **options) -> Net:
    layers = [("Flatten",), ("Linear", inputs, 9), ("ReLU",), ("Linear", 9, 8), ("ReLU",), ("Linear", 8, 4)]
    return Net.draw(layers, g, dtype=dtype, **options)


def stack_call(g: Generator, rows: int, *shape: int, rules: list[str], dtype=torch.float32, **options) -> Call:
    net = stack(g, torch.Size(shape).numel(), dtype, grads=options.get("inspect", False))
    args = [net, rand(g, rows, *shape, dtype=dtype), targets(g, rows, 4), rules]
    return Call("propagate", args, {"epsilon": uniform(g, 0.3, 0.6)}, **options)


def propagate_easy(g: Generator) -> list[Call]:
    inputs = integer(g, 4, 8)
    net = Net.draw([("Flatten",), ("Linear", inputs, 3, False)], g)
    return [Call("propagate", [net, 0.5 + rand(g, 1, inputs), targets(g, 1, 3), ["epsilon"]], {"epsilon": 0.0})]


def propagate_shape(g: Generator) -> list[Call]:
    return [stack_call(g, 2, 3, 5, 4, rules=["z_plus", "epsilon", "epsilon"], dtype=F64)]


def propagate_general(g: Generator) -> list[Call]:
    orders = (["z_plus", "z_plus", "epsilon"], ["epsilon", "z_plus", "z_plus"], ["z_plus", "epsilon", "z_plus"])
    return [stack_call(g, 1, 2, 4, rules=rules, dtype=F64) for rules in orders]


def propagate_batch(g: Generator) -> list[Call]:
    return [stack_call(g, 5, 12, rules=["z_plus", "epsilon", "epsilon"], dtype=F64)]


def propagate_side_effects(g: Generator) -> list[Call]:
    return [stack_call(g, 2, 6, rules=["epsilon", "z_plus", "epsilon"], dtype=F64, inspect=True)]


def propagate_device(g: Generator) -> list[Call]:
    return [stack_call(g, 2, 6, rules=["z_plus", "epsilon", "epsilon"], on_simulated_device=True)]


# Question 4: the biases


def kept_call(g: Generator, rows: int, *shape: int, dtype: torch.dtype = F64, **options) -> Call:
    layers = [("Flatten",), ("Linear", torch.Size(shape).numel(), 9), ("ReLU",), ("Linear", 9, 8, False), ("ReLU",)]
    layers += [("Linear", 8, 7), ("ReLU",), ("Linear", 7, 4)]
    net = Net.draw(layers, g, dtype=dtype, grads=options.get("inspect", False))
    return Call("kept_by_biases", [net, rand(g, rows, *shape, dtype=dtype), targets(g, rows, 4)], **options)


def kept_easy(g: Generator) -> list[Call]:
    layers = [("Flatten",), ("Linear", 5, 4), ("ReLU",), ("Linear", 4, 3)]
    return [Call("kept_by_biases", [Net.draw(layers, g, dtype=F64), rand(g, 1, 5, dtype=F64), targets(g, 1, 3)])]


def kept_shape(g: Generator) -> list[Call]:
    return [kept_call(g, 2, 3, 2, 2)]


def kept_general(g: Generator) -> list[Call]:
    return [kept_call(g, 1, 6) for _ in range(3)]


def kept_batch(g: Generator) -> list[Call]:
    return [kept_call(g, 5, 6)]


def kept_side_effects(g: Generator) -> list[Call]:
    return [kept_call(g, 2, 6, inspect=True)]


def kept_device(g: Generator) -> list[Call]:
    return [kept_call(g, 2, 6, dtype=torch.float32, on_simulated_device=True)]


# Question 5: convolutions


def composite_call(g: Generator, rows: int, *, dtype: torch.dtype = F64, frame: int = 0, **options) -> Call:
    layers = [("Conv2d", 2, 4, 3, 2, 1), ("ReLU",), ("MaxPool2d", 2), ("Conv2d", 4, 6, 2), ("ReLU",), ("Flatten",)]
    layers += [("Dropout", 0.5), ("Linear", 24, 4)]
    net = Net.draw(layers, g, dtype=dtype, grads=options.get("inspect", False))
    net.state["0.bias"].abs_()  # so that a black patch does not close all units
    x = rand(g, rows, 2, 12, 12, dtype=dtype)
    if frame:
        x[:, :, :frame] = x[:, :, :, -frame:] = 0
    return Call("composite", [net, x, targets(g, rows, 4)], {"epsilon": uniform(g, 0.2, 0.4)}, **options)


def composite_easy(g: Generator) -> list[Call]:
    layers = [("Conv2d", 1, 3, 2), ("ReLU",), ("Flatten",), ("Linear", 12, 3)]
    net = Net.draw(layers, g)
    net.state["0.bias"].abs_()
    net.state["0.weight"][:, :, 0, 0].abs_()  # some pixel speaks for every unit
    return [Call("composite", [net, 0.2 + rand(g, 1, 1, 3, 3), targets(g, 1, 3)], {"epsilon": 0.3})]


def composite_shape(g: Generator) -> list[Call]:
    return [composite_call(g, 2)]


def composite_general(g: Generator) -> list[Call]:
    return [composite_call(g, 1), composite_call(g, 1, frame=5)]


def composite_batch(g: Generator) -> list[Call]:
    return [composite_call(g, 4)]


def composite_side_effects(g: Generator) -> list[Call]:
    return [composite_call(g, 2, inspect=True)]


def composite_device(g: Generator) -> list[Call]:
    return [composite_call(g, 2, dtype=torch.float32, on_simulated_device=True)]


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
                 lambda g: [epsilon_call(g, 2, 4, 3, on_simulated_device=True)]),
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
                 lambda g: [z_plus_call(g, 2, 8, 3, on_simulated_device=True)]),
        ),
    ),
    Question(
        "3",
        "A stack of layers",
        (
            Part("easy", 1, "One dense layer without bias, epsilon = 0, one row.", propagate_easy),
            Part("shape", 0.5, "Two rows of shape (3, 5, 4) in float64.", propagate_shape, shape_only, "easy"),
            Part("general", 1.5, "Three dense layers, each choice of two rules in another order.", propagate_general),
            Part("batch", 1, "The same kind of network, five rows with their own targets.", propagate_batch),
            Part("side effects", 0.5, "A network with gradients in use, which must come back as it was.", propagate_side_effects),
            Part("device", 0.5, "Network and rows on another device than the CPU.", propagate_device),
        ),
    ),
    Question(
        "4",
        "What the biases keep",
        (
            Part("easy", 1, "Two dense layers, one row.", kept_easy),
            Part("shape", 0.5, "Two rows of shape (3, 2, 2), four dense layers.", kept_shape, shape_only, "easy"),
            Part("general", 1, "Four dense layers, the second without bias.", kept_general),
            Part("batch", 0.5, "The same kind of network, five rows with their own targets.", kept_batch),
            Part("side effects", 0.5, "A network with gradients in use, which must come back as it was.", kept_side_effects),
            Part("device", 0.5, "Network and rows on another device than the CPU.", kept_device),
        ),
    ),
    Question(
        "5",
        "A composite for convolutions",
        (
            Part("easy", 1, "One convolution and one dense layer, one picture.", composite_easy),
            Part("shape", 0.5, "Two pictures in float64.", composite_shape, shape_only, "easy"),
            Part("general", 1.5, "Two convolutions with stride, padding and max-pool; and a picture with black patches.",
                 composite_general),
            Part("batch", 1, "The same kind of network, four pictures with their own targets.", composite_batch),
            Part("side effects", 0.5, "A network with gradients in use, which must come back as it was.", composite_side_effects),
            Part("device", 0.5, "Network and pictures on another device than the CPU.", composite_device),
        ),
    ),
)  # fmt: skip
