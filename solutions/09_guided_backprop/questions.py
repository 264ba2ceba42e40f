"""Deconvnet, guided backpropagation and a rule of one's own: the graded questions.

Functions that take a rule are called through those of the notebook's cell ``test-rules``, since calls travel as data:
``pass`` leaves the signal g as it is, ``half`` halves it, and ``weigh`` multiplies it by tanh(z) of the ReLU's input z.
The last map of ``maps_by_test_rules`` is the gradient of the network afterwards, which shows a hook that stayed behind.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Generator

from grader.calls import Call, Net
from grader.drawing import F64, nothing, randn, targets, uniform
from grader.judges import ENTRY, by_hand, shape_only
from grader.question import Part, Question


def flat(g: Generator, dtype: torch.dtype = torch.float32, *, grads: bool = False) -> Net:
    layers = [("Linear", 4, 6), ("ReLU",), ("Linear", 6, 3)]
    return Net.draw(layers, g, dtype=dtype, grads=grads)


def pooled(g: Generator) -> Net:
    """Two convolutions with ReLU and a max-pooling for ``(N, 2, 7, 7)``, four classes."""
    layers = [("Conv2d", 2, 4, 3), ("ReLU",), ("MaxPool2d", 2), ("Conv2d", 4, 6, 2), ("ReLU",), ("Flatten",)]
    return Net.draw([*layers, ("Linear", 6, 4)], g, dtype=F64)


def normalised(g: Generator) -> Net:
    """A convolution with batch normalisation for ``(N, 2, 5, 5)``, four classes."""
    layers = [("Conv2d", 2, 4, 3), ("BatchNorm2d", 4), ("ReLU",), ("Flatten",), ("Linear", 36, 4)]
    return Net.draw(layers, g, dtype=F64)


# Question 2: the rules

RULES = ("backprop", "deconvnet", "guided")


def signals(*shape: int, zeros: bool = False, inspect: bool = False) -> Callable[[Generator], list[Call]]:
    def calls(g: Generator) -> list[Call]:
        z, signal = randn(g, 2, *shape, dtype=F64 if zeros else torch.float32)
        if zeros:
            z[0], signal[1] = 0, 0
        return [Call("signal_below", [z, signal, rule], inspect=inspect) for rule in RULES]

    return calls


def signals_shape(g: Generator) -> list[Call]:
    return [Call("signal_below", [*randn(g, 2, 2, 3, 5, 4, dtype=F64), rule]) for rule in RULES]


# Question 3: the backward pass


def maps_easy(g: Generator) -> list[Call]:
    return [Call("maps_by_test_rules", [flat(g), randn(g, 1, 4), targets(g, 1, 3), ["pass", "half"]])]


def maps_shape(g: Generator) -> list[Call]:
    net = Net.draw([("Flatten",), ("Linear", 60, 5), ("ReLU",), ("Linear", 5, 4)], g, dtype=F64)
    return [Call("maps_by_test_rules", [net, randn(g, 2, 3, 5, 4, dtype=F64), targets(g, 2, 4), ["pass", "weigh"]])]


def maps_general(g: Generator) -> list[Call]:
    args = [pooled(g), randn(g, 1, 2, 7, 7, dtype=F64), targets(g, 1, 4)]
    return [Call("maps_by_test_rules", [*args, ["weigh", "half", "pass"]])]


def maps_batch(g: Generator) -> list[Call]:
    args = [normalised(g), randn(g, 4, 2, 5, 5, dtype=F64), targets(g, 4, 4)]
    return [Call("maps_by_test_rules", [*args, ["half", "weigh"]])]


def maps_side_effects(g: Generator) -> list[Call]:
    layers = [("Linear", 4, 6), ("ReLU",), ("Linear", 6, 5), ("Again", 1), ("Linear", 5, 3)]
    net = Net.draw(layers, g, dtype=F64, grads=True)
    args = [net, randn(g, 3, 4, dtype=F64), targets(g, 3, 3)]
    return [Call("maps_by_test_rules", [*args, ["pass", "weigh", "pass"]], inspect=True)]


def maps_device(g: Generator) -> list[Call]:
    args = [pooled(g), randn(g, 2, 2, 7, 7, dtype=F64), targets(g, 2, 4), ["weigh"]]
    return [Call("maps_by_test_rules", args)]


# Question 4: the dial


def dial_easy(g: Generator) -> list[Call]:
    return [Call("dial", [*randn(g, 2, 3, 4), slope]) for slope in (0.0, 1.0, 0.5)]


def dial_shape(g: Generator) -> list[Call]:
    return [Call("dial", [*randn(g, 2, 2, 3, 5, 4, dtype=F64), 0.5])]


def dial_general(g: Generator) -> list[Call]:
    z, signal = randn(g, 2, 5, 6, dtype=F64)
    z[0], signal[1] = 0, 0
    return [Call("dial", [z, signal, slope]) for slope in (uniform(g, 0.05, 0.4), uniform(g, 0.6, 0.95))]


def dial_device(g: Generator) -> list[Call]:
    return [Call("dial", [*randn(g, 2, 3, 4), uniform(g, 0.2, 0.8)])]


# Question 5: the class


def cosine_of(draw: Callable[[Generator], Net], rows: int, *shape: int) -> Callable[[Generator], list[Call]]:
    def calls(g: Generator) -> list[Call]:
        net, x = draw(g), randn(g, rows, *shape, dtype=F64)
        first, second = torch.arange(rows) % 3, (torch.arange(rows) + 1) % 3
        return [Call("cosine_by_test_rule", [net, x, first, second, rule]) for rule in ("pass", "weigh")]

    return calls


def cosine_general(g: Generator) -> list[Call]:
    """A network with max-pooling, and one with a class that nothing reaches."""
    silent = flat(g, F64)
    silent.state["2.weight"][1] = 0
    args = [silent, randn(g, 1, 4, dtype=F64), torch.tensor([0]), torch.tensor([1]), "pass"]
    return [*cosine_of(pooled, 1, 2, 7, 7)(g), Call("cosine_by_test_rule", args)]


QUESTIONS = (
    Question(
        "1a",
        "Nine units by hand",
        (
            Part("easy", 1, "Backpropagation and deconvnet; a row is a table here, an entry a unit counted by rows.",
                 nothing("nine_units"), partial(by_hand, only=[0, 1], name=ENTRY, tolerance=2e-3)),
            Part("general", 1, "Guided backpropagation; a row is a table here, an entry a unit counted by rows.",
                 nothing("nine_units"), partial(by_hand, only=[2], name=ENTRY, tolerance=2e-3)),
        ),
    ),
    Question(
        "1b",
        "A small network by hand",
        (
            Part("easy", 1, "The gradient.", nothing("small_network"), partial(by_hand, only=[0], name=ENTRY, tolerance=2e-3)),
            Part("general", 1, "Deconvnet and guided backpropagation.", nothing("small_network"),
                 partial(by_hand, only=[1, 2], name=ENTRY, tolerance=2e-3)),
        ),
    ),
    Question(
        "2",
        "Three rules",
        (
            Part("easy", 1, "Random inputs and signals of shape (3, 4), all three rules.", signals(3, 4)),
            Part("shape", 0.25, "Shape (2, 3, 5, 4) in float64, all three rules.", signals_shape, shape_only, "easy"),
            Part("general", 1, "Some z and some g are exactly zero, all three rules.", signals(4, 5, zeros=True)),
            Part("side effects", 0.5, "z and g must stay as they were.", signals(2, 6, inspect=True)),
            Part("device", 0.25, "z and g on another device than the CPU.", signals(3, 4)),
        ),
    ),
    Question(
        "3",
        "A backward pass that takes a rule",
        (
            Part("easy", 1, "Two linear layers and a ReLU, one row; a rule that passes all, then one that halves.", maps_easy),
            Part("shape", 0.5, "Two rows of shape (3, 5, 4) in float64.", maps_shape, shape_only, "easy"),
            Part("general", 1.5, "Two convolutions with ReLU and a max-pooling, one picture; three rules one after the "
                 "other, one of which multiplies by tanh(z).", maps_general),
            Part("batch", 1.5, "A convolution with batch normalisation, four pictures with their own targets.", maps_batch),
            Part("side effects", 1, "A network with one ReLU at two places and gradients in use, three rules one after the other: they, "
                 "x, the layers and the network's own gradient must stay as they were.", maps_side_effects),
            Part("device", 0.5, "Network and pictures on another device than the CPU.", maps_device),
        ),
    ),
    Question(
        "4",
        "A dial between two rules",
        (
            Part("easy", 1, "Slopes 0, 1 and 1/2 on random inputs and signals.", dial_easy),
            Part("shape", 0.25, "Shape (2, 3, 5, 4) in float64.", dial_shape, shape_only, "easy"),
            Part("general", 1.5, "Two random slopes; some z and some g are exactly zero.", dial_general),
            Part("device", 0.25, "z and g on another device than the CPU.", dial_device),
        ),
    ),
    Question(
        "5",
        "Cosine between the maps of two classes",
        (
            Part("easy", 1, "Two linear layers and a ReLU, one row.", cosine_of(partial(flat, dtype=F64), 1, 4)),
            Part("general", 1, "Convolutions with a max-pooling, one picture; and a class whose map is zero.", cosine_general),
            Part("batch", 0.5, "Four pictures with their own pairs of classes.", cosine_of(normalised, 4, 2, 5, 5)),
            Part("device", 0.5, "The same on another device than the CPU.",
                 cosine_of(normalised, 2, 2, 5, 5)),
        ),
    ),
)  # fmt: skip
