"""What the rules of the input layer need besides x: bounds of it, or ones in its place."""

import torch
from torch import Tensor

from ...backprop.layers import first_layer, moved_from
from ...contract import Model, UnsupportedModelError
from .composite import Composite, choose
from .rules import INPUT_RULES


def bounds_of(model: Model, x: Tensor, rules: Composite, low, high) -> tuple[list[Tensor], list[Tensor]]:
    """The leaves that the input layer's rule needs besides x, and what the input layer reads when it is given them."""
    if low is None and high is None and not any(name in INPUT_RULES for _, name, _ in rules):
        return [], []
    leaf = x.detach().requires_grad_()
    first = first_layer(model, leaf)
    name = choose(rules, first)[0] if first and first.is_input else None
    if name != "z_b" and not (low is None and high is None):
        raise ValueError("low and high bound x for rule 'z_b', but no layer that reads x has that rule")
    if name == "z_b":
        if low is None or high is None:
            raise ValueError("rule 'z_b' needs both low and high")
        leaves = [check_bound(value, x, side) for value, side in ((low, "low"), (high, "high"))]
    elif name in INPUT_RULES:
        leaves = [torch.ones_like(x)]
    else:
        leaves = []
    if not leaves or first is None:
        return [], []
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    read = [_first_read(model, leaf) for leaf in leaves]
    if name == "z_b" and not ((read[0] <= first.read) & (first.read <= read[1])).all():
        raise UnsupportedModelError("what the first layer reads does not lie between what it reads for low and high")
    if name in ("w_squared", "flat"):
        # Zeros that x is padded with get nothing, as those of a convolution's own padding.
        ones, x_alone = read[0], torch.ones((), dtype=torch.bool)
        if ones.numel() != x.numel() or (ones == 0).any():
            moved = moved_from(first.read, lambda node: getattr(node, "variable", None) is leaf)
            zeros = _first_read(model, torch.zeros_like(x).requires_grad_())
            x_alone = (zeros == 0) & ((ones == 1) | bool(moved))
        if not (x_alone & ((ones == 1) | (ones == 0))).all():
            raise UnsupportedModelError(
                f"rule {name!r} needs the first layer to read x itself, not a function of x; 'epsilon' is for any"
            )
    return leaves, read


def _first_read(model: Model, leaf: Tensor) -> Tensor:
    layer = first_layer(model, leaf)
    if layer is None:
        raise UnsupportedModelError("the model calls other layers for the bounds of x than for x")
    return layer.read


def check_bound(bound: float | Tensor, x: Tensor, side: str) -> Tensor:
    """A bound of x as a tensor of its shape.

    Raises:
        ValueError: it does not broadcast to x, or x crosses it.
    """
    value = torch.as_tensor(bound, dtype=x.dtype, device=x.device).detach()
    try:
        value = value.expand_as(x)
    except RuntimeError:
        raise ValueError(
            f"{side} must be a number or broadcast to x {tuple(x.shape)}, got {tuple(value.shape)}"
        ) from None
    if (x < value if side == "low" else x > value).any():
        raise ValueError(f"{side} must bound x, but x reaches from {x.min().item():.3g} to {x.max().item():.3g}")
    return value
