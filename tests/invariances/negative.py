"""Networks that break what explanations rest on: to be refused, or to be answered row by row all the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cells import EQUAL, FAILED, REFUSED, Outcome, attempt, difference
from .changes import call, row_by_row
from .functions import FUNCTIONS
from .networks import CLASSES, Apply, Case, Network, conv, head, stack

GENERATOR = torch.Generator()
TABLE = torch.linspace(-1, 1, 5, dtype=torch.float64)


def without_gradient(h: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.sigmoid(h)


class Step(torch.autograd.Function):
    """A step, whose backward says otherwise (straight-through)."""

    @staticmethod
    def forward(ctx, h: Tensor) -> Tensor:
        return (h > 0).to(h)

    @staticmethod
    def backward(ctx, g: Tensor) -> Tensor:
        return g


RANDOM: dict[str, Callable[[Tensor], Tensor]] = {
    "F.dropout without training": lambda h: F.dropout(h),
    "dropout2d": lambda h: F.dropout2d(h, 0.5, True),
    "rrelu in training": lambda h: F.rrelu(h, training=True),
    "rand": lambda h: h * torch.rand(h.shape, dtype=h.dtype),
    "randn_like": lambda h: h + torch.randn_like(h),
    "bernoulli gate": lambda h: h * torch.bernoulli(torch.full_like(h, 0.5)),
    "bernoulli_ in place": lambda h: h * torch.empty_like(h).bernoulli_(0.5),
    "normal_ in place": lambda h: h + torch.zeros_like(h).normal_(),
    "randperm of the channels": lambda h: h[:, torch.randperm(h.shape[1])],
    "a generator of its own": lambda h: h + torch.randn(h.shape, generator=GENERATOR, dtype=h.dtype),
    "numpy's noise": lambda h: h + torch.from_numpy(np.random.rand(*h.shape)),  # noqa: NPY002
    "Python's noise": lambda h: h * random.random(),
}
BATCH: dict[str, Callable[[Tensor], Tensor] | nn.Module] = {
    "BatchNorm without statistics": nn.BatchNorm2d(4, track_running_stats=False).double(),
    "F.batch_norm in training": lambda h: F.batch_norm(h, None, None, training=True),
    "minus the mean of the batch": lambda h: h - h.mean(0),
    "over the deviation of the batch": lambda h: h / h.std(0, correction=0).add(1),
    "softmax over the batch": lambda h: h.softmax(0),
    "F.normalize over the batch": lambda h: F.normalize(h, dim=0),
    "minus the first row": lambda h: h - h[:1],
    "the batch rolled": lambda h: h + h.roll(1, 0),
    "the batch flipped": lambda h: h + h.flip(0),
    "cumulated over the batch": lambda h: h.cumsum(0),
    "over the largest value": lambda h: h / h.max(),
    "attention over the batch": lambda h: ((h.flatten(1) @ h.flatten(1).T) @ h.flatten(1)).view(h.shape) / 100,
}
CUT: dict[str, Callable[[Tensor], Tensor]] = {
    "an index": lambda h: h + TABLE[(4 * h).long().clamp(0, 4)],
    "an embedding": lambda h: h + F.embedding((4 * h).long().clamp(0, 4), TABLE[:, None])[..., 0],
    "a detached gate": lambda h: h * h.detach().sigmoid(),
    "a gate of .data": lambda h: h * h.data.sigmoid(),
    "a gate under no_grad": lambda h: h * without_gradient(h),
    "item": lambda h: torch.stack([row * row.sum().item() for row in h]),
    "tolist": lambda h: h + torch.tensor((h**2).tolist(), dtype=h.dtype),
    "through numpy": lambda h: h + torch.from_numpy(np.tanh(h.detach().numpy())),
    "detach_ in place": lambda h: h * torch.sigmoid(h).clone().detach_(),
}


def images(below: Callable[[Tensor], Tensor], above: Callable[[Tensor], Tensor]) -> Network:
    """A network that has one function below its last maps and one above."""
    as_module = [f if isinstance(f, nn.Module) else Apply(f) for f in (below, above)]
    return Network(
        lambda: stack(
            stem=conv(3, 4), act=nn.ReLU(), below=as_module[0], maps=stack(conv=conv(4, 4), act=nn.ReLU()),
            above=as_module[1], head=head(4),
        ),
        (3, 8, 8),
    )  # fmt: skip


class Table(nn.Module):
    """Rows of a table: the first column is a category."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.maps, self.out = nn.Embedding(3, 4), nn.Linear(7, 6), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.maps(torch.cat([self.embed(x[:, 0].abs().long()), x[:, 1:]], 1))))


def same(h: Tensor) -> Tensor:
    return h


@dataclass(frozen=True)
class Negative:
    """A network and which derivatives it breaks: those to "x", to the "maps", "below" them; "" where it is the rows."""

    network: Network
    broken: tuple[str, ...]
    edit: Callable[[Case], Case] = lambda case: case


NEGATIVE: dict[str, Negative] = {
    **{f"random: {name}": Negative(images(f, same), ()) for name, f in RANDOM.items()},
    **{f"batch: {name}": Negative(images(f, same), ()) for name, f in BATCH.items()},
    **{f"cut: {name}": Negative(images(f, same), ("x", "below")) for name, f in CUT.items()},
    **{f"cut above the maps: {name}": Negative(images(same, f), ("x", "maps")) for name, f in CUT.items()},
    "cut: straight through": Negative(images(lambda h: h + Step.apply(h - 0.1), same), ("x",)),
    "cut above the maps: straight through": Negative(images(same, lambda h: h + Step.apply(h - 0.1)), ("x", "maps")),
    "cut: a category": Negative(Network(Table, (4,)), ("x",)),
}
STILL = ("filters",)  # runs no model
OTHER_PARTS = ("maximize_activation, generator", "maximize_activation, density")  # where the network is not the model


def outcome(name: str, function: str) -> Outcome:
    """A function on a network that must be refused, or whose rows must not depend on each other and stay as they are."""
    negative, known = NEGATIVE[name], FUNCTIONS[function]
    case = negative.network.case()
    cell = name, function, ""
    answer = attempt(call, function, case)
    if isinstance(answer, Exception):
        return Outcome(*cell, FAILED, f"raised {type(answer).__name__}: {str(answer)[:120]}")
    if isinstance(answer, str):
        return Outcome(*cell, REFUSED, answer)
    if known.differentiates in negative.broken:
        return Outcome(*cell, FAILED, "answered, with a derivative that is cut")
    if negative.broken or function in STILL:
        return Outcome(*cell, EQUAL)
    if not known.rows:
        return Outcome(*cell, FAILED, "answered from rows that are not what they are alone")
    again = attempt(call, function, case, seed=2)
    if off := difference(again, answer, 1e-8) if isinstance(again, list) else "another outcome":
        return Outcome(*cell, FAILED, f"not the same with another random state: {off}")
    rows = attempt(row_by_row, function, case)
    off = difference(answer, rows, 1e-6) if isinstance(rows, list) else f"row by row: {rows}"
    return Outcome(*cell, FAILED if off else EQUAL, off)


def cells(name: str) -> Iterator[tuple[str, str]]:
    yield from (
        (name, function) for function, known in FUNCTIONS.items() if not known.networks and function not in OTHER_PARTS
    )


# Models that no function may take for logits, nor crash on.

NO_LOGITS: dict[str, Callable[[nn.Module], Callable[[Tensor], object]]] = {
    "(N,)": lambda m: lambda x: m(x)[:, 0],
    "a tuple": lambda m: lambda x: (m(x), x),
    "a dict": lambda m: lambda x: {"logits": m(x)},
    "a list": lambda m: lambda x: [m(x)],
    "NaN": lambda m: lambda x: m(x) * torch.nan,
    "one row for all": lambda m: lambda x: m(x).sum(0, keepdim=True),
    "a graph that autograd cannot run": lambda m: lambda x: changed_in_place(m(x)),
}


def changed_in_place(logits: Tensor) -> Tensor:
    z = torch.sigmoid(logits)
    z += 1
    return z


class Around(nn.Module):
    """A network behind a function of its outputs."""

    def __init__(self, net: nn.Module, function: Callable) -> None:
        super().__init__()
        self.net, self.function = net, function

    def forward(self, x: Tensor) -> object:
        return self.function(self.net)(x)


RULES = ("lrp", "deep_taylor", "deeplift")  # whose own backward pass runs where autograd's does not
LOGITS_UNREAD = ("filters", "top_activations", "project", "fit_patterns", "maximize_activation, layer", "maximize_activation, generator", "maximize_activation, density")  # fmt: skip


def no_logits(name: str, function: str) -> Outcome:
    """What comes where the model gives no usable logits: a refusal, unless the function does not read them."""
    case = images(same, same).case()
    case = replace(case, model=Around(case.model, NO_LOGITS[name]), layer="net.maps")
    answer = attempt(call, function, case)
    cell = f"no logits: {name}", function, ""
    if isinstance(answer, Exception):
        return Outcome(*cell, FAILED, f"raised {type(answer).__name__}: {str(answer)[:120]}")
    if isinstance(answer, str):
        return Outcome(*cell, REFUSED, answer)
    if "autograd" in name:
        fine = FUNCTIONS[function].differentiates == "" or function.startswith(RULES)
    else:
        fine = "one row" in name and function.startswith(("influence", "trak"))  # every row is a batch of its own there
    if fine or function.startswith(LOGITS_UNREAD):
        return Outcome(*cell, EQUAL)
    return Outcome(*cell, FAILED, "answered")


def no_logits_cells(name: str) -> Iterator[tuple[str, str]]:
    taken = (
        "maximize_activation, generator",
        "maximize_activation, density",
    )  # are given what the model gives, as it is
    yield from ((name, function) for name, function in cells(name) if function not in taken)
