"""Priors of the data: the graded questions."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor

from grader.calls import Call, Net, Outcome
from grader.drawing import F64, integer, linear, nothing, randn, targets, uniform
from grader.judges import Reference, by_hand, same_kind, shape_only
from grader.question import Part, Question
from interp_lab import check


def spread(g: Generator, size: int, dtype: torch.dtype = F64) -> Tensor:
    """A covariance with correlations and eigenvalues from 1/2."""
    root = randn(g, size, size, dtype=F64)
    return (root @ root.T / size + torch.eye(size) / 2).to(dtype)


def curved(g: Generator, inputs: int, classes: int, dtype: torch.dtype = F64, **options) -> Net:
    """Tanh units on rows or pictures with so many numbers."""
    return Net.draw([("Flatten",), ("Linear", inputs, 6), ("Tanh",), ("Linear", 6, classes)], g, dtype=dtype, **options)


# Question 1: maxima by hand


# Question 2: log density


def density_easy(g: Generator) -> list[Call]:
    variances = 0.3 + 3 * torch.rand(3, generator=g, dtype=F64)
    return [Call("log_density", [randn(g, 1, 3, dtype=F64), randn(g, 3, dtype=F64), torch.diag(variances)])]


def density_shape(g: Generator) -> list[Call]:
    return [Call("log_density", [randn(g, 3, 2, 1, 3), randn(g, 2, 1, 3), spread(g, 6, torch.float32)])]


def density_general(g: Generator) -> list[Call]:
    size = integer(g, 4, 7)
    return [
        Call("log_density", [randn(g, 1, size, dtype=F64), randn(g, size, dtype=F64), spread(g, size)], gradients=True)
    ]


def density_batch(g: Generator) -> list[Call]:
    """Standard deviations of about 0.01, so that the determinant is zero in floating point."""
    x, mean = randn(g, 5, 1, 15, 15, dtype=F64), randn(g, 1, 15, 15, dtype=F64)
    return [Call("log_density", [x / 100, mean / 100, spread(g, 225) * 1e-4])]


def density_device(g: Generator) -> list[Call]:
    return [Call("log_density", [randn(g, 2, 4), randn(g, 4), spread(g, 4, torch.float32)])]


# Question 3: ascent and closed form


def ascent_easy(g: Generator) -> list[Call]:
    net, x0, prior = linear(g, 3, 3, F64), randn(g, 1, 3, dtype=F64), [randn(g, 3, dtype=F64), torch.eye(3).double()]
    return [
        Call("maximise", [net, targets(g, 1, 3), x0, *prior], {"steps": steps, "lr": uniform(g, 0.1, 0.4)})
        for steps in (0, 1)
    ]


def ascent_general(g: Generator) -> list[Call]:
    args = [curved(g, 4, 3), targets(g, 1, 3), randn(g, 1, 4, dtype=F64), randn(g, 4, dtype=F64), spread(g, 4)]
    return [Call("maximise", args, {"steps": integer(g, 5, 9), "lr": uniform(g, 0.1, 0.3)})]


def ascent_batch(g: Generator) -> list[Call]:
    prior = [randn(g, 1, 2, 3, dtype=F64), spread(g, 6)]
    args = [curved(g, 6, 4), targets(g, 4, 4), randn(g, 4, 1, 2, 3, dtype=F64), *prior]
    return [Call("maximise", args, {"steps": 6, "lr": uniform(g, 0.1, 0.3)})]


def ascent_side_effects(g: Generator) -> list[Call]:
    args = [curved(g, 4, 3, grads=True), targets(g, 2, 3), randn(g, 2, 4, dtype=F64), randn(g, 4, dtype=F64)]
    return [Call("maximise", [*args, spread(g, 4)], {"steps": 4, "lr": 0.2}, inspect=True)]


def ascent_device(g: Generator) -> list[Call]:
    args = [curved(g, 4, 3, torch.float32), targets(g, 2, 3), randn(g, 2, 4), randn(g, 4), spread(g, 4, torch.float32)]
    return [Call("maximise", args, {"steps": 3, "lr": 0.2})]


def closed(classes: int, inputs: int, diagonal: bool = False) -> Callable[[Generator], list[Call]]:
    def calls(g: Generator) -> list[Call]:
        covariance = spread(g, inputs)
        covariance = torch.diag(covariance.diagonal()) if diagonal else covariance
        return [Call("most_likely", [randn(g, classes, inputs, dtype=F64), randn(g, inputs, dtype=F64), covariance])]

    return calls


# Question 4: codes


def mixed(g: Generator, rows: int, *shape: int, dtype: torch.dtype = F64) -> Tensor:
    """Correlated rows around a mean that is not zero."""
    size = int(torch.tensor(shape).prod())
    return (randn(g, rows, size, dtype=F64) @ randn(g, size, size, dtype=F64) + 3).view(rows, *shape).to(dtype)


def generator(rows: int, shape: tuple[int, ...], k: int, dtype: torch.dtype = F64):
    return lambda g: [Call("fit_generator", [mixed(g, rows, *shape, dtype=dtype), k])]


def same_covariance(what: str, calls: list[Call], got: list[Outcome], reference: Reference) -> None:
    """The same A A^T: the order, the signs and any rotation of the columns are free."""
    for call, outcome in zip(calls, got, strict=True):
        expected = reference(call)
        same_kind(what, outcome, expected)
        ours, theirs = (matrix @ matrix.T for matrix in (outcome.result, expected.result))
        check.close(ours, theirs, f"{what}\nA A^T is compared.")


def code_calls(
    rows: int,
    shape: tuple[int, ...],
    k: int,
    steps: int,
    *,
    net=curved,
    dtype: torch.dtype = F64,
    grads=False,
    **options,
) -> Callable[[Generator], list[Call]]:
    def calls(g: Generator) -> list[Call]:
        size = int(torch.tensor(shape).prod())
        model = net(g, size, 3, dtype)
        model.grads = grads
        args = [model, targets(g, rows, 3), randn(g, rows, k, dtype=dtype), randn(g, *shape, dtype=dtype)]
        settings = {"lam": uniform(g, 0.2, 0.7), "steps": steps, "lr": uniform(g, 0.1, 0.3)}
        return [Call("maximise_code", [*args, randn(g, size, k, dtype=dtype)], settings, **options)]

    return calls


QUESTIONS = (
    Question(
        "1a",
        "Maximum under a penalty",
        (Part("easy", 1, "Penalty 1/4 on the squared length.", nothing("maximum_l2"), partial(by_hand, name="x[{i}]")),),
    ),
    Question(
        "1b",
        "Maxima under Gaussian priors",
        (
            Part("easy", 1, "Independent inputs.", nothing("maxima_gaussian"), partial(by_hand, only=[0], name="x[{i}]")),
            Part("general", 1, "Correlated inputs.", nothing("maxima_gaussian"), partial(by_hand, only=[1], name="x[{i}]")),
        ),
    ),
    Question(
        "2",
        "Log density of a Gaussian",
        (
            Part("easy", 1, "Three independent inputs, one row.", density_easy),
            Part("shape", 0.5, "Three rows of shape (2, 1, 3) in float32.", density_shape, shape_only, "easy"),
            Part("general", 1.5, "A covariance with correlations, one row, with the gradient.", density_general),
            Part("batch", 1.5, "Five pictures of 225 pixels with standard deviations of about 1/100.", density_batch),
            Part("device", 0.5, "All tensors on another device than the CPU.", density_device),
        ),
    ),
    Question(
        "3a",
        "Gradient ascent with a prior",
        (
            Part("easy", 1, "A linear network, no step and one step.", ascent_easy),
            Part("general", 1, "A network with tanh units, several steps from one row.", ascent_general),
            Part("batch", 0.5, "The same kind of network, four pictures with their own targets.", ascent_batch),
            Part("side effects", 1, "A network whose gradients are in use: nothing may be left behind.", ascent_side_effects),
            Part("device", 0.5, "Network and tensors on another device than the CPU.", ascent_device),
        ),
    ),
    Question(
        "3b",
        "Most likely input of a linear network",
        (
            Part("easy", 0.5, "One class, independent inputs.", closed(1, 4, diagonal=True)),
            Part("shape", 0.25, "Five classes, two inputs.", closed(5, 2), shape_only, "easy"),
            Part("general", 1, "Three classes, six correlated inputs.", closed(3, 6)),
            Part("device", 0.25, "Tensors on another device than the CPU.", closed(2, 3)),
        ),
    ),
    Question(
        "4a",
        "Linear generator",
        (
            Part("easy", 1, "30 rows of 4 numbers, all 4 columns.", generator(30, (4,), 4), same_covariance),
            Part("general", 1, "30 rows of 6 numbers, 2 columns.", generator(30, (6,), 2), same_covariance),
            Part("batch", 0.5, "8 pictures of shape (2, 3, 4), 5 columns.", generator(8, (2, 3, 4), 5), same_covariance),
            Part(
                "device",
                0.5,
                "Pictures on another device than the CPU.",
                generator(9, (1, 2, 2), 2, torch.float32),
                same_covariance,
            ),
        ),
    ),
    Question(
        "4b",
        "Ascent in code space",
        (
            Part("easy", 1, "A linear network, one step from one code.", code_calls(1, (5,), 2, 1, net=linear)),
            Part("general", 1, "A network with tanh units, seven steps from one code.", code_calls(1, (5,), 3, 7)),
            Part("batch", 0.5, "Four codes of pictures with their own targets.", code_calls(4, (1, 2, 3), 2, 5)),
            Part(
                "side effects",
                1,
                "A network whose gradients are in use: nothing may be left behind.",
                code_calls(2, (5,), 2, 3, grads=True, inspect=True),
            ),
            Part(
                "device",
                0.5,
                "Network and tensors on another device than the CPU.",
                code_calls(2, (1, 2, 2), 2, 3, dtype=torch.float32),
            ),
        ),
    ),
)  # fmt: skip
