"""The small networks: one line each. Every one has a module ``maps``, whose output is its last feature maps."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from interp_lab.networks import ClassToken, Tokens

CLASSES = 3
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass
class Case:
    """What a function is called with."""

    model: Any
    x: Tensor
    target: Any
    layer: Any  # the feature maps, as a name or a module; the networks' own is "maps"
    beside: Tensor  # another input for every row of x
    labels: Tensor  # a class for every row of x
    train: Tensor  # more inputs, for what is fitted to several
    options: dict[str, Any] = field(default_factory=dict)  # of the functions that have them
    batches: int = 1  # in which ``train`` is given

    def to(self, dtype: torch.dtype) -> Case:
        inputs = {name: getattr(self, name).to(dtype) for name in ("x", "beside", "train")}
        return replace(self, model=self.model.to(dtype), **inputs)

    def rows(self, index: Any) -> Case:
        return replace(self, x=self.x[index], beside=self.beside[index], labels=self.labels[index])


@dataclass(frozen=True)
class Network:
    """How to make a network, the shape of one input, and the class that is explained."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]

    def case(self) -> Case:
        """The network in eval mode, with weights and BatchNorm statistics that are far from the identity."""
        torch.manual_seed(0)
        model = self.build().double()
        for module in model.modules():
            if isinstance(module, (*NORMS, FrozenBatchNorm2d)) and module.running_mean is not None:
                for name, (low, high) in {
                    "weight": (0.5, 2.0), "bias": (-0.5, 0.5), "running_mean": (-0.5, 0.5), "running_var": (0.5, 2.0)
                }.items():  # fmt: skip
                    getattr(module, name).data.uniform_(low, high)
        inputs = 2 * torch.rand(12, *self.shape, dtype=torch.float64) - 1
        return Case(model.eval(), inputs[:3], 1, "maps", inputs[3:6], torch.arange(3), inputs[6:])


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


class Residual(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, h: Tensor) -> Tensor:
        z = self.body(h)
        z += h
        return z


class Concatenated(nn.Module):
    """Branches side by side, run in the order given; ``parts`` cuts the channels so that each branch has its own."""

    def __init__(self, *branches: nn.Module, parts: bool = False) -> None:
        super().__init__()
        self.branches, self.parts, self.backwards = nn.ModuleList(branches), parts, False

    def forward(self, h: Tensor) -> Tensor:
        read = h.chunk(len(self.branches), 1) if self.parts else [h] * len(self.branches)
        pairs = list(zip(self.branches, read, strict=True))
        if self.backwards:
            return torch.cat([branch(part) for branch, part in pairs[::-1]][::-1], 1)
        return torch.cat([branch(part) for branch, part in pairs], 1)


class Gated(nn.Module):
    """Squeeze and excitation: every channel times a gate that depends on all of them."""

    def __init__(self, channels: int, gate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weight, self.gate = nn.Linear(channels, channels), Apply(gate)

    def forward(self, h: Tensor) -> Tensor:
        return h * self.gate(self.weight(h.mean((2, 3))))[:, :, None, None]


class Cell(nn.Module):
    """An LSTM written with dense layers, sigmoids and tanh; the weights are those of ``nn.LSTM``."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.read, self.keep, self.hidden = nn.Linear(width, 4 * hidden), nn.Linear(hidden, 4 * hidden), hidden

    def forward(self, x: Tensor) -> Tensor:
        h = c = torch.zeros(len(x), self.hidden, dtype=x.dtype, device=x.device)
        for t in range(x.shape[1]):
            i, f, g, o = (self.read(x[:, t]) + self.keep(h)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return h


class Fused(nn.Module):
    """The last state of ``nn.LSTM``."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.cell = nn.LSTM(width, hidden, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x)[0][:, -1]


class Attention(nn.Module):
    """Tokens ``(N, T, D)`` that look at one another, with a residual addition."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))

    def forward(self, t: Tensor) -> Tensor:
        return t + torch.softmax(self.q(t) @ self.k(t).transpose(1, 2) / t.shape[2] ** 0.5, -1) @ self.v(t)


class Branch(nn.Module):
    """A residual branch behind a norm, as a transformer's blocks have two."""

    def __init__(self, width: int, body: nn.Module) -> None:
        super().__init__()
        self.norm, self.body = nn.LayerNorm(width), body

    def forward(self, t: Tensor) -> Tensor:
        return t + self.body(self.norm(t))


def stack(**modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))


def head(width: int, mean: Callable[[Tensor], Tensor] = lambda h: h.flatten(2).mean(2)) -> nn.Module:
    return stack(mean=Apply(mean), dropout=nn.Dropout(0.5), linear=nn.Linear(width, CLASSES))


def conv(*widths: int, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(*widths, 3, padding=1, **options)


def normed(layer: nn.Module, norm: nn.Module, between: nn.Module | None = None, act: bool = True) -> nn.Sequential:
    """A layer and its BatchNorm (``layer`` and ``norm`` are the names that a change looks for), and a ReLU."""
    parts = {"layer": layer, "between": between or nn.Identity(), "norm": norm}
    return stack(**parts, act=nn.ReLU()) if act else stack(**parts)


def reused() -> nn.Module:
    shared, act = conv(4, 4), nn.ReLU()
    return stack(stem=conv(3, 4), act=act, once=shared, act_once=act, twice=shared, act_twice=act, maps=conv(4, 5),
                 out=Apply(F.relu), head=head(5))  # fmt: skip


def siamese() -> nn.Module:
    encoder = stack(conv=conv(2, 4), act=nn.ReLU(), mean=Apply(lambda h: h.mean((2, 3))))
    return stack(pair=Concatenated(encoder, encoder, parts=True), maps=nn.Linear(8, CLASSES))


def tokens(h: Tensor) -> Tensor:
    return h.flatten(2).transpose(1, 2)


def last(h: Tensor) -> Tensor:
    return h.mean(1)


NETWORKS: dict[str, Network] = {
    "functional ReLU": Network(lambda: stack(stem=conv(3, 4), act=Apply(F.relu), pool=Apply(lambda h: F.max_pool2d(h, 2)), maps=conv(4, 5), out=Apply(F.relu), head=head(5)), (3, 8, 8)),
    "in-place ReLU": Network(lambda: stack(stem=conv(3, 4), act=nn.ReLU(True), maps=conv(4, 5), out=nn.ReLU(True), pool=nn.AvgPool2d(2), head=head(5)), (3, 8, 7)),
    "reused": Network(reused, (3, 8, 8)),
    "residual": Network(lambda: stack(stem=normed(conv(3, 4), nn.BatchNorm2d(4)), first=Residual(conv(4, 4)), act=nn.ReLU(True), maps=Residual(normed(conv(4, 4), nn.BatchNorm2d(4), act=False)), out=nn.ReLU(), head=head(4)), (3, 8, 8)),
    "concatenated": Network(lambda: stack(maps=Concatenated(stack(conv=conv(3, 4), act=nn.ReLU()), stack(conv=nn.Conv2d(3, 3, 1), act=nn.ReLU())), head=head(7)), (3, 8, 8)),
    "grouped": Network(lambda: stack(stem=normed(conv(4, 4, groups=2), nn.BatchNorm2d(4)), maps=normed(conv(4, 6, groups=2, bias=False), nn.BatchNorm2d(6)), head=head(6)), (4, 8, 8)),
    "transposed": Network(lambda: stack(stem=normed(nn.ConvTranspose2d(3, 4, 2, stride=2), nn.BatchNorm2d(4)), maps=normed(nn.ConvTranspose2d(4, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4)), head=head(4)), (3, 5, 4)),
    "1-D": Network(lambda: stack(stem=nn.Conv1d(2, 4, 3), act=nn.ReLU(), maps=normed(nn.Conv1d(4, 4, 3), nn.BatchNorm1d(4)), head=head(4)), (2, 11)),
    "3-D": Network(lambda: stack(stem=nn.Conv3d(1, 3, 2), act=nn.ReLU(), maps=normed(nn.Conv3d(3, 4, 2), nn.BatchNorm3d(4)), head=head(4)), (1, 5, 4, 4)),
    "recurrent": Network(lambda: stack(maps=Cell(3, 4), out=nn.Linear(4, CLASSES)), (4, 3)),
    "LSTM": Network(lambda: stack(maps=Fused(3, 4), out=nn.Linear(4, CLASSES)), (4, 3)),
    "attention": Network(lambda: stack(embed=nn.Linear(4, 6), maps=Attention(6), out=nn.ReLU(), head=head(6, last)), (5, 4)),
    "convolution and attention": Network(lambda: stack(maps=stack(conv=nn.Conv1d(2, 6, 3, padding=1), act=nn.ReLU()), tokens=Apply(tokens), mix=Attention(6), head=head(6, last)), (2, 6)),
    "vision transformer": Network(lambda: stack(maps=nn.Conv2d(2, 8, 3, stride=3), tokens=Tokens(8, 4), attend=Branch(8, Attention(8)), mlp=Branch(8, stack(up=nn.Linear(8, 12), act=nn.GELU(), down=nn.Linear(12, 8))), head=stack(read=ClassToken(), linear=nn.Linear(8, CLASSES))), (2, 6, 6)),
    "normed tokens": Network(lambda: stack(maps=normed(nn.Linear(4, 6), nn.BatchNorm1d(6), Apply(lambda h: h.transpose(1, 2))), head=head(6)), (5, 4)),
    "squeeze-excitation": Network(lambda: stack(stem=conv(3, 4), act=nn.SiLU(), maps=Gated(4, torch.sigmoid), out=conv(4, 4), head=head(4)), (3, 8, 8)),
    "hard gates": Network(lambda: stack(stem=conv(3, 4), act=nn.Hardtanh(0.0, 0.3), gate=Gated(4, F.hardsigmoid), maps=conv(4, 4), out=nn.Hardswish(), head=head(4)), (3, 8, 8)),
    "frozen BatchNorm": Network(lambda: stack(maps=normed(conv(3, 4), FrozenBatchNorm2d(4)), out=conv(4, 4), head=head(4)), (3, 8, 8)),
    "siamese": Network(siamese, (4, 8, 8)),
    "upsampled": Network(lambda: stack(stem=conv(3, 4), act=nn.ReLU(), up=nn.Upsample(scale_factor=2, mode="bilinear"), maps=conv(4, 4), out=nn.ReLU(), head=head(4)), (3, 4, 4)),
    "smooth": Network(lambda: stack(first=nn.Linear(6, 8), act=nn.Tanh(), maps=nn.Linear(8, 6), out=nn.Sigmoid(), dropout=nn.Dropout(0.5), head=nn.Linear(6, CLASSES)), (6,)),
    "dense": Network(lambda: stack(first=normed(nn.Linear(6, 8), nn.BatchNorm1d(8)), dropout=nn.Dropout(0.5), maps=nn.Linear(8, 6), out=nn.ReLU(), head=nn.Linear(6, CLASSES)), (6,)),
}  # fmt: skip
