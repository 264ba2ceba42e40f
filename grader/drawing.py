"""What the graded questions of several exercises draw their inputs with, and the judge of answers found by hand."""

from collections.abc import Callable, Collection

import torch
from torch import Generator, Tensor

from ... import check
from ..calls import Call, Net, Outcome
from ..question import Reference, same_kind, same_state

F64 = torch.float64
ENTRY = "row {row}, entry {n}"  # of a table found by hand


def uniform(g: Generator, low: float, high: float) -> float:
    return low + (high - low) * torch.rand((), generator=g, dtype=F64).item()


def integer(g: Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, (), generator=g))


def randn(g: Generator, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=g, dtype=F64).to(dtype)


def rand(g: Generator, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(shape, generator=g, dtype=F64).to(dtype)


def targets(g: Generator, rows: int, classes: int) -> Tensor:
    """A class for each row, no two neighbours with the same one."""
    return (integer(g, 0, classes - 1) + torch.arange(rows)) % classes


def linear(g: Generator, inputs: int, classes: int, dtype: torch.dtype = torch.float32) -> Net:
    net = Net.draw([("Flatten",), ("Linear", inputs, classes)], g, dtype=dtype)
    net.state["1.weight"] *= inputs**0.5  # entries of order 1
    return net


def powers(g: Generator, p: int, pixels: int, classes: int) -> Net:
    """f_c(x) = sum_i w_ci x_i^p / p with abs(w) in [0.5, 1.5]; one class has w = 1."""
    weights = torch.ones(1, pixels, dtype=F64)
    if classes > 1:
        weights = 0.5 + rand(g, classes, pixels, dtype=F64)
        weights *= torch.randint(0, 2, weights.shape, generator=g) * 2 - 1
    layers = [("Power", p), ("Flatten",), ("Linear", pixels, classes)]
    return Net(layers, {"2.weight": weights, "2.bias": torch.zeros(classes, dtype=F64)})


def conv(g: Generator, channels: int, dtype: torch.dtype = torch.float32) -> Net:
    """A curved network for ``(N, channels, 7, 7)`` with four classes."""
    layers = [("Conv2d", channels, 4, 3), ("BatchNorm2d", 4), ("Tanh",), ("Flatten",), ("Linear", 100, 4)]
    net = Net.draw(layers, g, dtype=dtype)
    net.state["4.weight"] *= 10
    return net


def nothing(function: str) -> Callable[[Generator], list[Call]]:
    return lambda g: [Call(function, [])]


def by_hand(
    what: str,
    calls: list[Call],
    got: list[Outcome],
    reference: Reference,
    *,
    only: Collection[int] | None = None,
    name: str = "number {n}",
    tolerance: float = 1e-4,
) -> None:
    """Right numbers in a list, or in a table's rows; the feedback names the wrong ones and not what they should be.

    Args:
        only: places of the list, or rows of the table, that count; None for all.
        name: of an entry; i and n are its place in the list or row, counted from 0 and from 1, row that of its row from 1.
    """
    expected = reference(calls[0])
    same_kind(what, got[0], expected)
    check.same_kind(got[0].result, expected.result, what)
    wrong = (got[0].result - expected.result).abs() > tolerance
    if wrong.dim() > 1:
        wrong = wrong.flatten(1)
    places = [place for place in wrong.nonzero().tolist() if only is None or place[0] in only]
    if names := dict.fromkeys(name.format(row=p[0] + 1, i=p[-1], n=p[-1] + 1) for p in places):
        raise AssertionError(f"{what}\nWrong: {'; '.join(names)}.")


def repeatable(what: str, calls: list[Call], got: list[Outcome], reference: Reference) -> None:
    """Three calls, the first two with the same seed: same result; the third with another: another; nothing else changed."""
    for call, outcome in zip(calls, got, strict=True):
        expected = reference(call)
        same_kind(what, outcome, expected)
        check.same_kind(outcome.result, expected.result, what)
        same_state(what, outcome, expected)
    first, again, other = (outcome.result for outcome in got)
    check.close(again, first, f"{what}\nTwo calls with the same seed gave two results.", tolerance=1e-6)
    if (other - first).abs().max() < 1e-5:
        raise AssertionError(f"{what}\nTwo seeds gave the same result: it does not depend on the seed.")
