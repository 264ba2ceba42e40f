r"""Layer-wise relevance propagation and deep Taylor decomposition.

The relevance :math:`R_j` of a unit is shared out among the units below it in proportion to what they contributed.
With :math:`R = a \odot c` every rule is a backward pass for the signal :math:`c`, which starts as 1 at the logit:
at a linear layer it goes back through a surrogate :math:`s` of the pre-activation :math:`z`, scaled by :math:`z / s`;
at everything piecewise linear (ReLU, residual additions, pooling) it is the gradient. The relevance of x is
:math:`x \odot c`. A rule of two lines differs from another in its surrogate alone.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from .contract import Model, Target, UnsupportedModelError, explaining, pick
from .interception import Replacement, operations
from .layers import Layer, LayerRule, LinearLayer, first_layer, layer_table
from .modified_backprop import (
    BATCH_NORM,
    MAX_POOLS,
    PASSED,
    elementwise,
    in_place,
    modified_gradient,
    nodes,
    product_table,
)

Predicate = Callable[[Layer], bool]

PIECEWISE_LINEAR = nodes(
    "Relu", "LeakyRelu", "PreluKernel", "Hardtanh", "Hardsigmoid", "Threshold", "Clamp", "ClampMin", "ClampMax", "Abs"
)  # fmt: skip
SMOOTH = operations(
    "sigmoid", "tanh", "gelu", "silu", "hardswish", "mish", "elu", "selu", "celu", "softplus", "softsign", "logsigmoid",
    "tanhshrink",
)  # fmt: skip


def lrp(
    model: Model,
    x: Tensor,
    target: Target = None,
    *,
    rule: str | Sequence[tuple[Predicate, str | LayerRule]] = "composite",
    epsilon: float = 1e-6,
    gamma: float = 0.25,
    low: float | Tensor | None = None,
    high: float | Tensor | None = None,
) -> Tensor:
    r"""Layer-wise relevance propagation: the logit, shared out layer by layer.

    With the contributions :math:`z_{ij} = a_i w_{ij}` and :math:`z^\pm` their positive and negative parts:

    ==================== =====================================================================================
    ``"epsilon"``        :math:`R_i = \sum_j z_{ij} / (z_j + \epsilon\,\mathrm{sign}\,z_j) R_j`
    ``"gamma"``          :math:`z_{ij} + \gamma z_{ij}^+` in place of :math:`z_{ij}` (:math:`z_{ij}^-` if :math:`z_j<0`)
    ``"z_plus"``         :math:`R_i = \sum_j z_{ij}^+ / z_j^+ R_j`
    ``"alpha2_beta1"``   :math:`R_i = \sum_j (2 z_{ij}^+ / z_j^+ - z_{ij}^- / z_j^-) R_j`
    ``"z_b"``            :math:`x_i w_{ij} - l_i w_{ij}^+ - h_i w_{ij}^-` in place of :math:`z_{ij}`; input layer only
    ``"w_squared"``      :math:`w_{ij}^2` in place of :math:`z_{ij}`; input layer only
    ``"flat"``           1 in place of :math:`z_{ij}`; input layer only
    ``"composite"``      ``"epsilon"`` in dense layers, ``"z_plus"`` in convolutions; the default for images
    ==================== =====================================================================================

    With ``low`` and ``high`` a named rule uses ``"z_b"`` in the input layer. BatchNorm is folded into the layer before
    it; a bias takes its share of the relevance; a smooth nonlinearity passes its relevance unchanged; a product of
    two activations gives each half. With epsilon -> 0 ``"epsilon"`` is gradient times input on a piecewise
    linear network.

    Bach et al. 2015, doi:10.1371/journal.pone.0130140; gamma and composites: Montavon et al. 2019,
    doi:10.1007/978-3-030-28954-6_10; halves: Achtibat et al. 2024, arXiv:2402.05602.

    Args:
        model: a module or function from ``(N, ...)`` to logits ``(N, K)``.
        x: float batch ``(N, ...)``.
        target: None (the predicted class), an int, or a LongTensor ``(N,)``.
        rule: a name, or an ordered list of (predicate of a :class:`~interp_lab.explain_decision.layers.Layer`, rule);
            the first predicate that holds decides, and a rule may be a function (layer, signal) -> (signal below,).
        epsilon: stabiliser added to every denominator with its sign, at least 0.
        gamma: weight of the favoured contributions in ``"gamma"``, at least 0.
        low, high: bounds of x for ``"z_b"``, numbers or tensors that broadcast to x.

    Returns:
        The relevance, of the shape, dtype and device of x.

    Raises:
        ValueError: x, target, the logits or an option are not as above.
        UnsupportedModelError: an operation without a rule (softmax, LayerNorm, attention, compiled code ...), by name.
    """
    rules = _rules(rule, epsilon, gamma, bounded=low is not None or high is not None)
    return _relevance(model, x, target, rules, low, high, torch.ones_like)


def deep_taylor(
    model: Model,
    x: Tensor,
    target: Target = None,
    *,
    low: float | Tensor | None = None,
    high: float | Tensor | None = None,
) -> Tensor:
    r"""Deep Taylor decomposition: each unit's relevance, expanded at a root point of the unit.

    The root points give ``"z_plus"`` in the hidden layers, and in the input layer ``"z_b"`` where x lies in a box
    :math:`[l, h]`, else ``"w_squared"`` (see :func:`lrp`). It starts at :math:`\max(f_c, 0)`: where the logit is not
    positive, the map is zero. The relevance is non-negative and sums to :math:`\max(f_c, 0)` if no bias is positive.

    Montavon et al. 2017, doi:10.1016/j.patcog.2016.11.008.

    Args:
        model, x, target: as for :func:`lrp`.
        low, high: bounds of x, numbers or tensors that broadcast to x; both or neither.

    Raises:
        ValueError: also for one bound without the other.
    """
    if (low is None) != (high is None):
        raise ValueError("deep_taylor needs both low and high, or neither")
    first = "w_squared" if low is None else "z_b"
    rules = _rules([(_is_input, first), (_always, "z_plus")], 1e-9, 0.0, bounded=False)
    return _relevance(model, x, target, rules, low, high, lambda logit: (logit > 0).to(logit))


def _is_input(layer: Layer) -> bool:
    return layer.is_input


def _always(layer: Layer) -> bool:
    return True


def _is_dense(layer: Layer) -> bool:
    return layer.kind == "dense"


# The rules: signal above -> signal below (and at the bounds). s is the surrogate that stands for z.


def _share(layer: Layer, g: Tensor, s: Tensor, inputs: Sequence[Tensor], epsilon: float) -> Sequence[Tensor]:
    # The graph of z is kept: where a BatchNorm was folded in, the layer before it may share it.
    return torch.autograd.grad(s, inputs, _ratio(layer.z, s, epsilon).mul_(g), retain_graph=True)


def _epsilon(layer: Layer, g: Tensor, *, epsilon: float, gamma: float) -> Sequence[Tensor]:
    size = layer.z.detach().abs()
    return torch.autograd.grad(layer.z, [layer.a], g * size / (size + epsilon) if epsilon else g, retain_graph=True)


def _gamma(layer: Layer, g: Tensor, *, epsilon: float, gamma: float) -> Sequence[Tensor]:
    z, p = layer.z, _contributions(layer, positive=True)
    n = z - p
    above = (z > 0).to(z)
    return _share(layer, g, z + gamma * (above * p + (1 - above) * n), [layer.a], epsilon)


def _alpha_beta(
    layer: Layer, g: Tensor, *, epsilon: float, gamma: float, alpha: float, beta: float
) -> Sequence[Tensor]:
    p = _contributions(layer, positive=True)
    if not beta:
        return _share(layer, alpha * g, p, [layer.a], epsilon)
    n = _contributions(layer, positive=False)
    signals = [_ratio(alpha * layer.z, p, epsilon).mul_(g), _ratio(-beta * layer.z, n, epsilon).mul_(g)]
    return torch.autograd.grad([p, n], [layer.a], signals)


def _z_b(layer: Layer, g: Tensor, *, epsilon: float, gamma: float) -> Sequence[Tensor]:
    low, high = (bound.detach().requires_grad_() for bound in layer.bounds)
    w = layer.weight
    s = layer.apply(layer.a, w, None) - layer.apply(low, w.clamp(min=0), None) - layer.apply(high, w.clamp(max=0), None)
    return _share(layer, g, s, [layer.a, low, high], epsilon)


def _w_squared(layer: Layer, g: Tensor, *, epsilon: float, gamma: float) -> Sequence[Tensor]:
    return _constant_share(layer, g, layer.weight**2, epsilon)


def _flat(layer: Layer, g: Tensor, *, epsilon: float, gamma: float) -> Sequence[Tensor]:
    return _constant_share(layer, g, torch.ones_like(layer.weight), epsilon)


def _constant_share(layer: Layer, g: Tensor, weight: Tensor, epsilon: float) -> Sequence[Tensor]:
    ones = layer.bounds[0].detach().requires_grad_()
    return torch.zeros_like(layer.a), *_share(layer, g, layer.apply(ones, weight, None), [ones], epsilon)


RULES: dict[str, Callable[..., Sequence[Tensor]]] = {
    "epsilon": _epsilon,
    "gamma": _gamma,
    "z_plus": partial(_alpha_beta, alpha=1.0, beta=0.0),
    "alpha2_beta1": partial(_alpha_beta, alpha=2.0, beta=1.0),
    "z_b": _z_b,
    "w_squared": _w_squared,
    "flat": _flat,
}
INPUT_RULES = {"z_b", "w_squared", "flat"}


def _contributions(layer: Layer, positive: bool) -> Tensor:
    """The sum of the positive (negative) contributions to z, differentiable to ``layer.a``."""
    a, w, b = layer.a, layer.weight, layer.bias
    same, other = (w.clamp(min=0), w.clamp(max=0)) if positive else (w.clamp(max=0), w.clamp(min=0))
    bias = None if b is None else (b.clamp(min=0) if positive else b.clamp(max=0))
    if (a >= 0).all():  # after a ReLU: no second pass for negative inputs
        return layer.apply(a, same, bias)
    return layer.apply(a.clamp(min=0), same, bias) + layer.apply(a.clamp(max=0), other, None)


def _ratio(z: Tensor, s: Tensor, epsilon: float) -> Tensor:
    """z / (s + epsilon sign s), and 0 where s is 0: nothing contributed, so nothing is shared."""
    z, s = z.detach(), s.detach()
    stabilised = torch.copysign(s.new_tensor(epsilon), s).add_(s)
    return torch.div(z, stabilised, out=stabilised).masked_fill_(s == 0, 0)


def _rules(
    rule: str | Sequence[tuple[Predicate, str | LayerRule]], epsilon: float, gamma: float, bounded: bool
) -> list[tuple[Predicate, str, LayerRule]]:
    """The composite as (predicate, name of the rule, rule); the name of a user's own rule is ""."""
    if not (epsilon >= 0 and gamma >= 0):
        raise ValueError(f"epsilon and gamma must be at least 0, got {epsilon} and {gamma}")
    if rule == "composite":
        composite = [(_is_dense, "epsilon"), (_always, "z_plus")]
    elif isinstance(rule, str):
        composite = [(_always, rule)]
    else:
        composite = list(rule)
    if bounded and isinstance(rule, str):
        composite.insert(0, (_is_input, "z_b"))
    rules = []
    for predicate, entry in composite:
        if callable(entry):
            rules.append((predicate, "", entry))
        elif entry in RULES:
            rules.append((predicate, entry, partial(RULES[entry], epsilon=epsilon, gamma=gamma)))
        else:
            raise ValueError(f"unknown rule {entry!r}; the rules are 'composite', {', '.join(map(repr, RULES))}")
    return rules


def _choose(rules: list[tuple[Predicate, str, LayerRule]], layer: Layer) -> tuple[str, LayerRule]:
    for holds, name, rule in rules:
        if holds(layer):
            return name, rule
    raise UnsupportedModelError(f"no predicate of the rule holds for the {layer.kind} layer {layer.name!r}")


def _relevance(
    model: Model,
    x: Tensor,
    target: Target,
    rules: list[tuple[Predicate, str, LayerRule]],
    low: float | Tensor | None,
    high: float | Tensor | None,
    start: Callable[[Tensor], Tensor],
) -> Tensor:
    with explaining(model, x) as x:
        bounds, at_layer = _bounds(model, x, rules, low, high)
        leaves = [x, *bounds]

        def replace(layer: Layer, read: Tensor) -> Tensor:
            name, rule = _choose(rules, layer)
            if name not in INPUT_RULES:
                return LinearLayer.apply(layer, rule, read)
            if not (layer.is_input and layer.index == 0):
                raise UnsupportedModelError(f"rule {name!r} is for the one layer that reads x, not for {layer.name!r}")
            layer.bounds = at_layer
            return LinearLayer.apply(layer, rule, read, *at_layer)

        table = layer_table(model, leaves, replace)
        table |= dict.fromkeys(SMOOTH, _proportional) | product_table(leaves, Halves.apply)
        allowed = PASSED | BATCH_NORM | PIECEWISE_LINEAR | MAX_POOLS | nodes("Mul", "Div")
        signals = modified_gradient(
            model, x, partial(pick, target=target), table, allowed=allowed, leaves=bounds, start=start
        )
        return sum(leaf.detach() * signal for leaf, signal in zip(leaves, signals, strict=True))


def _bounds(
    model: Model, x: Tensor, rules: list[tuple[Predicate, str, LayerRule]], low, high
) -> tuple[list[Tensor], list[Tensor]]:
    """The leaves that the input layer's rule needs besides x, and what the input layer reads when it is given them."""
    if low is None and high is None and not any(name in INPUT_RULES for _, name, _ in rules):
        return [], []
    first = first_layer(model, x.detach().requires_grad_())
    name = _choose(rules, first[0])[0] if first and first[0].is_input else None
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
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    read = [first_layer(model, leaf)[1] for leaf in leaves]
    if name == "z_b" and not ((read[0] <= first[1]) & (first[1] <= read[1])).all():
        raise UnsupportedModelError("what the first layer reads does not lie between what it reads for low and high")
    if name in ("w_squared", "flat") and not (read[0] == 1).all():
        raise UnsupportedModelError(f"rule {name!r} needs the first layer to read x itself, not a function of x")
    return leaves, read


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


class Proportional(Replacement):
    """A nonlinearity y = phi(z) that hands its relevance down unchanged: z c_z = y c_y."""

    @staticmethod
    def forward(ctx, z: Tensor, phi: Callable[[Tensor], Tensor]) -> Tensor:
        y = phi(z)
        ctx.save_for_backward(_ratio(y, z, torch.finfo(z.dtype).tiny))
        return y

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor, None]:
        return g * ctx.saved_tensors[0], None


def _proportional(func: Callable, args: tuple, kwargs: dict) -> Tensor:
    z, phi, inplace = elementwise(func, args, kwargs)
    out = Proportional.apply(z, phi)
    return in_place(args[0], out) if inplace else out


class Halves(Replacement):
    """A product of two activations, each of which gets half of its relevance."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        return (g * b / 2).sum_to_size(a.shape), (g * a / 2).sum_to_size(b.shape)
