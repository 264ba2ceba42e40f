"""Sums, shifts and averages outside the layers: the gradient, or z+ where relevance must not be negative."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from ...backprop.layers import AFFINE, Layer, LinearLayer, affine_parts
from ...backprop.modified_backprop import elementwise, in_place
from ...contract.interception import Rule, operations, origin, works_in_place
from .gates import Proportional, product_rules
from .rules import Options, PositiveSum, z_plus


def sum_rules(o: Options, positive: bool) -> dict[Callable, Rule]:
    """The rules of products and sums that are no layer's: the gradient, or z+ where relevance must be positive."""
    products = product_rules(o, attention=not positive)

    def rule(func, args, kwargs):
        parts = affine_parts(func, args, kwargs)
        if parts is None:
            both = positive and func in SUMS and all(origin(arg) for arg in args[:2]) and "out" not in kwargs
            return add(func, args, kwargs) if both else products.get(func, _decline)(func, args, kwargs)
        t, scale, shift = parts
        if origin(t) == "input" or not shift.any() or (o.bias == "share" and not positive):
            return NotImplemented
        changes = works_in_place(func, args, kwargs)
        t = t.clone() if changes else t
        if o.bias == "share":
            out = PositiveSum.apply(t * scale, shift)
        else:
            out = Proportional.apply(t, lambda t: t * scale + shift, 0, o.lost)
        return in_place(args[0], out) if changes else out

    def add(func, args, kwargs):
        a, b, *_ = args
        name, alpha = func.__name__.strip("_"), kwargs.get("alpha", 1)
        changes = works_in_place(func, args, kwargs)
        if name.endswith("add"):
            terms = (a.clone() if changes else a), alpha * b
        elif name == "rsub":
            terms = b, -alpha * a
        else:
            terms = (a.clone() if changes else a), -alpha * b
        out = PositiveSum.apply(*terms)
        return in_place(a, out) if changes else out

    def average(func, args, kwargs):
        t, phi, _ = elementwise(func, args, kwargs)
        if origin(t) == "input" or (t >= 0).all() or "bicubic" in (*args, *kwargs.values()):
            return NotImplemented
        out = func(*args, **kwargs)
        if out.numel() == t.numel() and torch.equal(out.flatten(), t.flatten()):
            return out  # of one value each
        a, one = t.detach().requires_grad_(), t.new_ones(())
        layer = Layer("", "average", -1, False, lambda a, w, b: w * phi(a), t, a, one, None, phi(a), False, None, None)
        return LinearLayer.apply(layer, partial(z_plus, o=o), t)

    return products | dict.fromkeys(AFFINE, rule) | (dict.fromkeys(AVERAGES, average) if positive else {})


def _decline(func: Callable, args: tuple, kwargs: dict) -> Any:
    return NotImplemented


SUMS = operations(
    "add", "__add__", "__radd__", "__iadd__", "sub", "subtract", "rsub", "__sub__", "__rsub__", "__isub__"
)


AVERAGES = operations(
    "mean", "sum", "cumsum", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
    "adaptive_avg_pool3d", "interpolate", "upsample", "grid_sample",
)  # fmt: skip
