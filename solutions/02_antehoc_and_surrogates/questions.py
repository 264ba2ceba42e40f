"""Ante-hoc models and surrogates: the graded questions."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor

from grader.calls import Call, Net
from grader.drawing import F64, integer, linear, nothing, randn, targets, uniform
from grader.judges import by_hand, shape_only
from grader.question import Part, Question

# Question 1: reading weights


# Question 2: sparse softmax regression


def shrink_easy(g: Generator) -> list[Call]:
    a = uniform(g, 0.5, 1)
    return [Call("shrink", [torch.tensor([-2 * a, -a, -a / 3, 0.0, a / 3, a, 2 * a]), a])]


def shrink_general(g: Generator) -> list[Call]:
    return [Call("shrink", [randn(g, 4, 30, dtype=F64), a]) for a in (0.0, uniform(g, 0.2, 1))]


def shrink_shape(g: Generator) -> list[Call]:
    return [Call("shrink", [randn(g, 2, 3, 1, dtype=F64), 0.5])]


def shrink_device(g: Generator) -> list[Call]:
    return [Call("shrink", [randn(g, 7), uniform(g, 0.2, 1)])]


def labelled(g: Generator, rows: int, features: int, classes: int, dtype: torch.dtype = F64) -> list:
    """Examples that a linear rule and some noise have given labels."""
    x = randn(g, rows, features, dtype=dtype)
    y = (x.double() @ randn(g, features, classes, dtype=F64) + randn(g, rows, classes, dtype=F64)).argmax(1)
    return [x, y, classes]


def fit_easy(g: Generator) -> list[Call]:
    args = labelled(g, integer(g, 6, 9), 3, 3)
    return [Call("sparse_softmax", args, {"l1": l1, "lr": uniform(g, 0.5, 1), "steps": 1}) for l1 in (0.0, 0.1)]


def fit_shape(g: Generator) -> list[Call]:
    return [Call("sparse_softmax", labelled(g, 8, 5, 3), {"steps": 2})]


def fit_general(g: Generator) -> list[Call]:
    options = {"lr": uniform(g, 0.3, 0.6), "steps": integer(g, 150, 200)}
    return [Call("sparse_softmax", labelled(g, 50, 6, 4), options | {"l1": l1}) for l1 in (0.0, uniform(g, 0.02, 0.06))]


def fit_side_effects(g: Generator) -> list[Call]:
    return [Call("sparse_softmax", labelled(g, 12, 4, 3), {"steps": 3}, inspect=True)]


def fit_device(g: Generator) -> list[Call]:
    return [Call("sparse_softmax", labelled(g, 12, 4, 3, torch.float32), {"steps": 3})]


# Question 3: terms of an additive model


def terms(
    rows: int, classes: int, features: int, dtype: torch.dtype = F64, *, curved: bool = True
) -> Callable[[Generator], list[Call]]:
    def calls(g: Generator) -> list[Call]:
        u, v = randn(g, classes, features, dtype=dtype), randn(g, classes, features, dtype=dtype)
        data = 1 + randn(g, 12, features, dtype=dtype)
        bias, x = randn(g, classes, dtype=dtype), randn(g, rows, features, dtype=dtype)
        return [Call("additive_terms", [u, v * curved, bias, x, data])]

    return calls


# Question 4: linear surrogate


def curved(g: Generator, inputs: int) -> Net:
    net = Net.draw([("Flatten",), ("Linear", inputs, 8), ("Tanh",), ("Linear", 8, 3)], g, dtype=F64)
    net.state["1.weight"] *= 3
    return net


def surrogate_easy(g: Generator) -> list[Call]:
    inputs = integer(g, 3, 6)
    return [Call("linear_surrogate", [linear(g, inputs, 3, F64), randn(g, 30, inputs, dtype=F64)])]


def surrogate_shape(g: Generator) -> list[Call]:
    return [Call("linear_surrogate", [linear(g, 12, 4, F64), randn(g, 20, 3, 2, 2, dtype=F64)], {"ridge": 0.1})]


def surrogate_general(g: Generator) -> list[Call]:
    x = 1 + torch.arange(1, 7) * randn(g, 60, 6, dtype=F64) / 3
    return [Call("linear_surrogate", [curved(g, 6), x], {"ridge": r}) for r in (0.0, uniform(g, 0.3, 1))]


def surrogate_side_effects(g: Generator) -> list[Call]:
    layers = [("Linear", 4, 6), ("BatchNorm1d", 6), ("Tanh",), ("Dropout", 0.5), ("Linear", 6, 3)]
    moody = Net.draw(layers, g, dtype=F64, training=["", "0", "2", "3"], grads=True)
    return [Call("linear_surrogate", [moody, randn(g, 20, 4, dtype=F64)], {"ridge": 0.1}, inspect=True)]


def surrogate_device(g: Generator) -> list[Call]:
    return [Call("linear_surrogate", [linear(g, 5, 3), randn(g, 20, 5)], {"ridge": 0.1})]


# Question 5: fidelity


def partly_agreed(g: Generator, rows: int, classes: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Scores of two models that agree on about two thirds of the inputs; class 0 is named most, the last one never."""
    network = randn(g, rows, classes, dtype=F64)
    network[:, 0] += 1
    network[:, -1] -= 100
    surrogate = torch.where(torch.rand(rows, 1, generator=g) < 0.5, network, network[torch.randperm(rows, generator=g)])
    return [(3 * surrogate).to(dtype), network.to(dtype)]


def fidelity_easy(g: Generator) -> list[Call]:
    network = randn(g, 12, 3)
    network[torch.arange(12), targets(g, 12, 3)] += 10
    return [Call("fidelity", [network.roll(integer(g, 1, 2), 1), network])]


def fidelity_general(g: Generator) -> list[Call]:
    return [Call("fidelity", partly_agreed(g, integer(g, 150, 250), 5, F64))]


def fidelity_batch(g: Generator) -> list[Call]:
    constant = randn(g, 9, 4)
    constant[:, integer(g, 0, 3)] += 100
    return [Call("fidelity", [2 * constant, constant])]


def fidelity_device(g: Generator) -> list[Call]:
    return [Call("fidelity", partly_agreed(g, 40, 4))]


QUESTIONS = (
    Question(
        "1a",
        "Weights for a pair of classes",
        (Part("easy", 1, "Change of log(p_0 / p_2) per unit.", nothing("log_odds_slopes"), partial(by_hand, name="x[{i}]")),),
    ),
    Question(
        "1b",
        "Weights and contributions in another unit",
        (
            Part("easy", 1, "Weights of class 1 in centimetres.", nothing("in_centimetres"), partial(by_hand, only=[0], name="x[{i}]")),
            Part("general", 1, "Contributions to class 1.", nothing("in_centimetres"), partial(by_hand, only=[1], name="x[{i}]")),
        ),
    ),
    Question(
        "2a",
        "Shrinking",
        (
            Part("easy", 0.5, "Seven weights from -2 a to 2 a.", shrink_easy),
            Part("shape", 0.25, "w of shape (2, 3, 1) in float64.", shrink_shape, shape_only, "easy"),
            Part("general", 1, "120 weights with a = 0 and with another a.", shrink_general),
            Part("device", 0.25, "w on another device than the CPU.", shrink_device),
        ),
    ),
    Question(
        "2b",
        "Sparse softmax regression",
        (
            Part("easy", 1, "One step from zero, without and with a penalty.", fit_easy),
            Part("shape", 0.5, "Eight examples with five features in float64, three classes.", fit_shape, shape_only, "easy"),
            Part("general", 2, "50 examples, some hundred steps, without and with a penalty.", fit_general),
            Part("side effects", 0.5, "Examples, labels and random state must stay as they are.", fit_side_effects),
            Part("device", 1, "Examples and labels on another device than the CPU.", fit_device),
        ),
    ),
    Question(
        "3",
        "Terms of an additive model",
        (
            Part("easy", 1, "One example, one class, straight lines (v = 0).", terms(1, 1, 2, torch.float32, curved=False)),
            Part("shape", 0.5, "Two examples, four classes, three features in float64.", terms(2, 4, 3), shape_only, "easy"),
            Part("general", 1, "One example, three classes, curves.", terms(1, 3, 4)),
            Part("batch", 1, "Five examples, three classes, curves.", terms(5, 3, 4)),
            Part("device", 0.5, "All tensors on another device than the CPU.", terms(2, 3, 4, torch.float32)),
        ),
    ),
    Question(
        "4",
        "Linear surrogate",
        (
            Part("easy", 1.5, "A linear network without a penalty: the surrogate is the network.", surrogate_easy),
            Part("shape", 0.5, "20 inputs of shape (3, 2, 2) in float64, four classes.", surrogate_shape, shape_only, "easy"),
            Part("general", 2, "A curved network, features of unequal spread, without and with a penalty.", surrogate_general),
            Part(
                "side effects",
                1,
                "A network in train mode with dropout, a batch normalisation that is frozen in eval mode, and "
                "gradients in use: it must be asked in eval mode and come back as it was.",
                surrogate_side_effects,
            ),
            Part("device", 1, "Network and inputs on another device than the CPU.", surrogate_device),
        ),
    ),
    Question(
        "5",
        "Fidelity beyond chance",
        (
            Part("easy", 1, "Two models that never agree.", fidelity_easy),
            Part("general", 2, "Some 200 inputs, five classes of which one is never named.", fidelity_general),
            Part("batch", 0.5, "All inputs in one class for both models.", fidelity_batch, needs="general"),
            Part("device", 0.5, "Scores on another device than the CPU.", fidelity_device),
        ),
    ),
)  # fmt: skip
