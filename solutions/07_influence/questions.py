"""Influence of training examples: the graded questions."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor

from grader.calls import Call
from grader.drawing import F64, nothing, randn, targets, uniform
from grader.judges import by_hand, shape_only
from grader.question import Part, Question

F32 = torch.float32


def strong(g: Generator, rows: int, inputs: int, dtype: torch.dtype) -> Tensor:
    """Rows of which the last pulls hard."""
    x = randn(g, rows, inputs, dtype=dtype)
    x[-1] *= 3
    return x


def ridge(function: str, rows: int, inputs: int, dtype: torch.dtype = F64) -> Callable:
    def calls(g: Generator) -> list[Call]:
        x, y = strong(g, rows, inputs, dtype), randn(g, rows, dtype=dtype)
        return [Call(function, [x, y, uniform(g, 0.2, 0.7)])]

    return calls


def gradient_calls(rows: int, classes: int, inputs: int, dtype: torch.dtype = F64) -> Callable:
    def calls(g: Generator) -> list[Call]:
        args = [randn(g, classes, inputs, dtype=dtype), randn(g, rows, inputs, dtype=dtype), targets(g, rows, classes)]
        return [Call("gradients", args)]

    return calls


def hvp_calls(rows: int, classes: int, inputs: int, dtype: torch.dtype = F64, **options) -> Callable:
    def calls(g: Generator) -> list[Call]:
        weight, x, v = (randn(g, n, inputs, dtype=dtype) for n in (classes, rows, classes))
        return [Call("hvp", [weight, x, v, uniform(g, 0.1, 0.5)], **options)]

    return calls


def harm_calls(rows: int, tests: int, classes: int, inputs: int, dtype: torch.dtype = F64) -> Callable:
    def calls(g: Generator) -> list[Call]:
        weight, x, x_test = (randn(g, n, inputs, dtype=dtype) for n in (classes, rows, tests))
        y, y_test = targets(g, rows, classes), targets(g, tests, classes)
        return [Call("harm", [weight, x, y, x_test, y_test, uniform(g, 0.1, 0.5)])]

    return calls


ON_DEVICE = "Tensors on another device than the CPU."
QUESTIONS = (
    Question(
        "1a",
        "Steps without one example",
        (
            Part("easy", 1, "The step that influence predicts.", nothing("steps_without_6"), partial(by_hand, only=[0])),
            Part("general", 1, "The true step.", nothing("steps_without_6"), partial(by_hand, only=[1])),
        ),
    ),
    Question(
        "1b",
        "Predicted rises",
        (Part("easy", 1, "Four examples.", nothing("predicted_rises"), partial(by_hand, only=[0, 1, 2, 3])),),
    ),
    Question(
        "2a",
        "Ridge regression",
        (
            Part("easy", 0.5, "Three examples, one parameter.", ridge("fit_ridge", 3, 1)),
            Part("shape", 0.25, "Seven examples, four parameters, float32.", ridge("fit_ridge", 7, 4, F32), shape_only, "easy"),
            Part("general", 1, "Nine examples, four parameters.", ridge("fit_ridge", 9, 4)),
            Part("device", 0.25, ON_DEVICE, ridge("fit_ridge", 5, 2, F32)),
        ),
    ),
    Question(
        "2b",
        "Leave one out",
        (
            Part("easy", 1, "Four examples, one parameter.", ridge("leave_one_out", 4, 1)),
            Part("shape", 0.5, "Six examples, three parameters, float32.", ridge("leave_one_out", 6, 3, F32), shape_only, "easy"),
            Part("general", 2, "Eight examples, three parameters.", ridge("leave_one_out", 8, 3)),
            Part("device", 0.5, ON_DEVICE, ridge("leave_one_out", 5, 2, F32)),
        ),
    ),
    Question(
        "3a",
        "Gradients of single examples",
        (
            Part("easy", 0.5, "One example, two classes, one input.", gradient_calls(1, 2, 1)),
            Part("general", 1, "Six examples, four classes, three inputs.", gradient_calls(6, 4, 3)),
            Part("shape", 0.25, "Two examples, five classes, float32.", gradient_calls(2, 5, 3, F32), shape_only, "easy"),
            Part("device", 0.25, ON_DEVICE, gradient_calls(3, 3, 2, F32)),
        ),
    ),
    Question(
        "3b",
        "Hessian-vector product",
        (
            Part("easy", 1, "One example, two classes, one input.", hvp_calls(1, 2, 1)),
            Part("general", 1.5, "Six examples, four classes, three inputs.", hvp_calls(6, 4, 3)),
            Part("side effects", 1, "Float32; nothing may be left behind.", hvp_calls(4, 3, 2, F32, inspect=True)),
            Part("device", 0.5, ON_DEVICE, hvp_calls(3, 3, 2, F32)),
        ),
    ),
    Question(
        "4a",
        "Harm to a test set",
        (
            Part("easy", 1, "Three training examples, one test example, one input.", harm_calls(3, 1, 2, 1)),
            Part("shape", 0.5, "Five training examples in float32.", harm_calls(5, 2, 3, 2, F32), shape_only, "easy"),
            Part("general", 1.5, "Seven training examples, one test example.", harm_calls(7, 1, 3, 3)),
            Part("batch", 1.5, "Six training and four test examples.", harm_calls(6, 4, 3, 2)),
            Part("device", 0.5, ON_DEVICE, harm_calls(4, 2, 3, 2, F32)),
        ),
    ),
)  # fmt: skip
