"""The rules of a linear layer: the signal above becomes the signal below, through a surrogate of the pre-activation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...backprop.layers import Layer
from ...contract.interception import Replacement


@dataclass
class Options:
    """What the rules share; the lists collect the relevance that a layer could hand to nothing, or a softmax absorbed."""

    epsilon: float
    gamma: float
    bias: str
    attention: str = "attn_lrp"
    lost: list[Tensor] | None = None
    softmax: list[Tensor] | None = None
    where: Callable[[str], str] = lambda operation: ""  # names the module of an operation


# The rules: signal above -> signal below (and at the bounds). Surrogates stand for z, each with a signal of its own.


def _send(
    layer: Layer,
    g: Tensor,
    surrogates: Sequence[Tensor],
    signals: Sequence[Tensor],
    inputs: Sequence[Tensor],
    o: Options,
) -> Sequence[Tensor]:
    if o.lost is not None:
        handed_on = sum((s.detach() * signal).sum() for s, signal in zip(surrogates, signals, strict=True))
        o.lost.append((layer.z.detach() * g).sum() - handed_on)
    # The graph of z is kept: where a BatchNorm was folded in, the layer before it may share it.
    return torch.autograd.grad(surrogates, inputs, signals, retain_graph=True)


def _share(layer: Layer, g: Tensor, s: Tensor, inputs: Sequence[Tensor], o: Options) -> Sequence[Tensor]:
    return _send(layer, g, [s], [ratio(layer.z, s, o.epsilon).mul_(g)], inputs, o)


def _without_bias(layer: Layer, o: Options) -> Tensor:
    """z, or the sum of its contributions alone where the bias keeps no share."""
    if layer.bias is None or o.bias == "share":
        return layer.z
    return layer.z - layer.at_z(layer.bias)


def _epsilon(layer: Layer, g: Tensor, o: Options) -> Sequence[Tensor]:
    s = _without_bias(layer, o)
    if s is not layer.z:
        return _share(layer, g, s, [layer.a], o)
    size = layer.z.detach().abs()
    return _send(layer, g, [layer.z], [g * size / (size + o.epsilon) if o.epsilon else g], [layer.a], o)


def _gamma(layer: Layer, g: Tensor, o: Options) -> Sequence[Tensor]:
    z, p = _without_bias(layer, o), _contributions(layer, o, positive=True)
    n = z - p
    above = (layer.z > 0).to(z)
    return _share(layer, g, z + o.gamma * (above * p + (1 - above) * n), [layer.a], o)


def z_plus(layer: Layer, g: Tensor, o: Options) -> Sequence[Tensor]:
    p = _contributions(layer, o, positive=True)
    relevance = layer.z.detach() * g
    shared = relevance * p.detach().sign()
    # A unit with no positive contribution hands on through its negative ones, which are then all of z.
    left = relevance.sub_(shared)
    signal = shared.div_(p.detach() + max(o.epsilon, torch.finfo(p.dtype).tiny))
    if left.numel() == 0 or left.min() == left.max() == 0:
        return _send(layer, g, [p], [signal], [layer.a], o)
    s = _without_bias(layer, o)
    return _send(layer, g, [p, s], [signal, ratio(left, s, o.epsilon)], [layer.a], o)


def _alpha2_beta1(layer: Layer, g: Tensor, o: Options) -> Sequence[Tensor]:
    p, n = (_contributions(layer, o, positive) for positive in (True, False))
    signals = [ratio(2 * layer.z, p, o.epsilon).mul_(g), ratio(-layer.z, n, o.epsilon).mul_(g)]
    return _send(layer, g, [p, n], signals, [layer.a], o)


def _z_b(layer: Layer, g: Tensor, o: Options) -> Sequence[Tensor]:
    low, high = (bound.detach().requires_grad_() for bound in layer.bounds)
    w = layer.weight
    s = layer.apply(layer.a, w, None) - layer.apply(low, w.clamp(min=0), None) - layer.apply(high, w.clamp(max=0), None)
    return _share(layer, g, s, [layer.a, low, high], o)


def _w_squared(layer: Layer, g: Tensor, o: Options) -> Sequence[Tensor]:
    return _constant_share(layer, g, layer.weight**2, o)


def _flat(layer: Layer, g: Tensor, o: Options) -> Sequence[Tensor]:
    return _constant_share(layer, g, torch.ones_like(layer.weight), o)


def _constant_share(layer: Layer, g: Tensor, weight: Tensor, o: Options) -> Sequence[Tensor]:
    ones = layer.bounds[0].detach().requires_grad_()
    return torch.zeros_like(layer.a), *_share(layer, g, layer.apply(ones, weight, None), [ones], o)


RULES: dict[str, Callable[..., Sequence[Tensor]]] = {
    "epsilon": _epsilon,
    "gamma": _gamma,
    "z_plus": z_plus,
    "alpha2_beta1": _alpha2_beta1,
    "z_b": _z_b,
    "w_squared": _w_squared,
    "flat": _flat,
}


INPUT_RULES = {"z_b", "w_squared", "flat"}


def _contributions(layer: Layer, o: Options, positive: bool) -> Tensor:
    """The sum of the positive (negative) contributions to z, differentiable to ``layer.a``."""
    a, w, b = layer.a, layer.weight, layer.bias
    same, other = (w.clamp(min=0), w.clamp(max=0)) if positive else (w.clamp(max=0), w.clamp(min=0))
    bias = None if b is None or o.bias == "inputs" else (b.clamp(min=0) if positive else b.clamp(max=0))
    if (a >= 0).all():  # after a ReLU: no second pass for negative inputs
        return layer.apply(a, same, bias)
    return layer.apply(a.clamp(min=0), same, bias) + layer.apply(a.clamp(max=0), other, None)


def ratio(z: Tensor, s: Tensor, epsilon: float) -> Tensor:
    """z / (s + epsilon sign s), and 0 where s is 0: nothing contributed, so nothing is shared."""
    z, s = z.detach(), s.detach()
    stabilised = torch.copysign(s.new_tensor(epsilon), s).add_(s)
    return torch.div(z, stabilised, out=stabilised).masked_fill_(s == 0, 0)


class PositiveSum(Replacement):
    """A sum of two terms under z+: the positive term takes all, each of them its share where both are."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a + b

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        p = a.clamp(min=0) + b.clamp(min=0)
        signal = g * torch.where(p == 0, 1, (a + b) / p)
        return (
            torch.where((a > 0) | (p == 0), signal, 0).sum_to_size(a.shape),
            torch.where((b > 0) | (p == 0), signal, 0).sum_to_size(b.shape),
        )
