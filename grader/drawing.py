"""What the graded questions of several exercises draw their inputs with."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from .calls import Call, Net

F64 = torch.float64


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
