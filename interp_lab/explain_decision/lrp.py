r"""Layer-wise relevance propagation and deep Taylor decomposition.

The relevance :math:`R_j` of a unit is shared out among the units below it in proportion to what they contributed.
With :math:`R = a \odot c` every rule is a backward pass for the signal :math:`c`, which starts as 1 at the logit:
at a linear layer it goes back through a surrogate :math:`s` of the pre-activation :math:`z`, scaled by :math:`z / s`;
at everything piecewise linear (ReLU, residual additions, pooling) it is the gradient. The relevance of x is
:math:`x \odot c`. A rule of two lines differs from another in its surrogate alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from ..backprop.decompositions import written_out
from ..backprop.layers import AFFINE, Layer, LayerRule, LinearLayer, affine_parts, first_layer, layer_table, moved_from
from ..backprop.modified_backprop import (
    BATCH_NORM,
    CHOICES,
    MAX_POOLS,
    PASSED,
    elementwise,
    in_place,
    modified_gradient,
    nodes,
    operation_of,
    product_table,
    works_in_place,
)
from ..contract import Model, Target, UnsupportedModelError, explaining, logits_of, pick, resolve
from ..contract.interception import Replacement, Rule, operations, origin, running

Predicate = Callable[[Layer], bool]
CustomRule = Callable[..., Tensor | Sequence[Tensor]]  # (inputs ..., output, signal at it) -> signal at every input


class Balance(NamedTuple):
    """Where the relevance of every row went, ``(N,)`` each; the last three sum to the first."""

    score: Tensor
    """The score that was shared out."""
    inputs: Tensor
    """The sum of the map."""
    biases: Tensor
    """What biases and other constants kept."""
    lost: Tensor
    """What epsilon took, and what no contribution could carry."""


# Their gradient is y / z: what they pass on is what the rule for any other nonlinearity gives.
PROPORTIONAL = nodes("Relu", "LeakyRelu", "PreluKernel", "Abs")
NONLINEAR = operations(
    "sigmoid", "tanh", "gelu", "silu", "hardswish", "mish", "elu", "selu", "celu", "softplus", "softsign", "logsigmoid",
    "tanhshrink", "hardshrink", "softshrink", "relu6", "hardtanh", "hardsigmoid", "threshold", "rrelu", "clamp", "clip",
    "clamp_min", "clamp_max", "pow", "__pow__", "square", "sqrt",
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
    bias: str = "share",
    custom: Mapping[str, CustomRule] | None = None,
    balance: bool = False,
) -> Tensor | tuple[Tensor, Balance]:
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

    A unit that has no positive contribution hands on through its negative ones in ``"z_plus"``; in ``"alpha2_beta1"`` a
    unit whose contributions all have one sign gains or loses (see ``balance``). With ``low`` and ``high`` a named rule
    uses ``"z_b"`` in the input layer. What scales and shifts a layer's values by constants, as BatchNorm does, is part
    of the layer, where the values are no more than moved between, and concatenated side by side (not pooled, upsampled,
    padded or added). A nonlinearity passes its relevance unchanged. Of a product of two activations the signal takes
    all and the gate is its weight: a gate is what sigmoid or hardsigmoid gives (then ReLU6 or a clamp to
    :math:`[\ge 0, h]`), a function of it, or a sum, concatenation or product of gates, all scaled and moved at will; else the factor
    that is broadcast; where neither tells, each gets half. Recurrent layers are written out. With epsilon -> 0
    ``"epsilon"`` is gradient times input on a network of ReLU, pooling and linear layers.

    Bach et al. 2015, doi:10.1371/journal.pone.0130140; gamma and composites: Montavon et al. 2019,
    doi:10.1007/978-3-030-28954-6_10; gates: Arras et al. 2017, doi:10.18653/v1/W17-5221; halves: Achtibat et al. 2024,
    arXiv:2402.05602.

    Args:
        model: a module or function from ``(N, ...)`` to logits ``(N, K)``.
        x: float batch ``(N, ...)``.
        target: None (the predicted class), an int, or a LongTensor ``(N,)``.
        rule: a name, or an ordered list of (predicate of a :class:`~interp_lab.backprop.layers.Layer`, rule);
            the first predicate that holds decides, and a rule may be a function (layer, signal) -> (signal below,).
        epsilon: stabiliser added to every denominator with its sign, at least 0.
        gamma: weight of the favoured contributions in ``"gamma"``, at least 0.
        low, high: bounds of x for ``"z_b"``, numbers or tensors that broadcast to x.
        bias: ``"share"``: a bias keeps its share of the relevance. ``"inputs"``: it keeps nothing; its share goes to the
            layer's inputs in proportion to their contributions (with trained biases most of the map may else be gone).
        custom: a rule of your own for a module or a function of torch, by name. It is called as
            ``rule(a, y, signal)`` with the input, the output and the signal at it (the relevance is ``y * signal``),
            and gives the signal at the input, so that ``a * signal`` is its relevance; with several inputs, as
            ``rule(a, b, ..., y, signal)``, a sequence. It must conserve: both sums of a row agree to one part in a
            thousand. Of several outputs the rule is for the first; the others must not be read.
        balance: also return where the relevance of every row went; takes one pass for each row.

    Returns:
        The relevance, of the shape, dtype and device of x; with ``balance`` the pair of it and a :class:`Balance`.

    Raises:
        ValueError: x, target, the logits or an option are not as above, or a custom rule does not conserve or is for
            what never runs on x.
        UnsupportedModelError: an operation without a rule (softmax, LayerNorm, attention, compiled code ...), by name.
    """
    options = Options(epsilon, gamma, bias)
    return _relevance(model, x, target, rule, options, low, high, custom=custom, balance=balance)


def deep_taylor(
    model: Model,
    x: Tensor,
    target: Target = None,
    *,
    low: float | Tensor | None = None,
    high: float | Tensor | None = None,
    bias: str = "share",
    balance: bool = False,
) -> Tensor | tuple[Tensor, Balance]:
    r"""Deep Taylor decomposition: each unit's relevance, expanded at a root point of the unit.

    The root points give ``"z_plus"`` in the hidden layers, and in the input layer ``"z_b"`` where x lies in a box
    :math:`[l, h]`, else ``"w_squared"`` (see :func:`lrp`). It starts at :math:`\max(f_c, 0)`: where the logit is not
    positive, the map is zero. Sums, differences, averages and shifts outside the layers take ``"z_plus"`` too, so that
    the relevance is non-negative; where an operation breaks that (bicubic upsampling), it is refused. It sums to
    :math:`\max(f_c, 0)` where a ReLU follows every layer and no bias is positive, or with ``bias="inputs"``; but for
    what no contribution can carry (``lost`` in the balance), such as the constant that a BatchNorm adds to a ReLU's 0.

    Montavon et al. 2017, doi:10.1016/j.patcog.2016.11.008.

    Args:
        model, x, target: as for :func:`lrp`.
        low, high: bounds of x, numbers or tensors that broadcast to x; both or neither.
        bias, balance: as for :func:`lrp`.

    Raises:
        ValueError: also for one bound without the other.
    """
    if (low is None) != (high is None):
        raise ValueError("deep_taylor needs both low and high, or neither")
    first = "w_squared" if low is None else "z_b"
    rules, options = (
        [(_is_input, first), (_always, "z_plus")],
        Options(0.0, 0.0, bias),
    )  # sums of one sign need no stabiliser
    return _relevance(model, x, target, rules, options, low, high, positive=True, balance=balance)


def _is_input(layer: Layer) -> bool:
    return layer.is_input


def _always(layer: Layer) -> bool:
    return True


def _is_dense(layer: Layer) -> bool:
    return layer.kind == "dense"


@dataclass
class Options:
    """What the rules share; ``lost`` collects the relevance that a layer could hand to nothing."""

    epsilon: float
    gamma: float
    bias: str
    lost: list[Tensor] | None = None


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
    return _send(layer, g, [s], [_ratio(layer.z, s, o.epsilon).mul_(g)], inputs, o)


def _without_bias(layer: Layer, o: Options) -> Tensor:
    """z, or the sum of its contributions alone where the bias shall keep nothing."""
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


def _z_plus(layer: Layer, g: Tensor, o: Options) -> Sequence[Tensor]:
    p = _contributions(layer, o, positive=True)
    relevance = layer.z.detach() * g
    shared = relevance * p.detach().sign()
    # A unit with no positive contribution hands on through its negative ones, which are then all of z.
    left = relevance.sub_(shared)
    signal = shared.div_(p.detach() + max(o.epsilon, torch.finfo(p.dtype).tiny))
    if left.numel() == 0 or left.min() == left.max() == 0:
        return _send(layer, g, [p], [signal], [layer.a], o)
    s = _without_bias(layer, o)
    return _send(layer, g, [p, s], [signal, _ratio(left, s, o.epsilon)], [layer.a], o)


def _alpha2_beta1(layer: Layer, g: Tensor, o: Options) -> Sequence[Tensor]:
    p, n = (_contributions(layer, o, positive) for positive in (True, False))
    signals = [_ratio(2 * layer.z, p, o.epsilon).mul_(g), _ratio(-layer.z, n, o.epsilon).mul_(g)]
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
    "z_plus": _z_plus,
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


def _ratio(z: Tensor, s: Tensor, epsilon: float) -> Tensor:
    """z / (s + epsilon sign s), and 0 where s is 0: nothing contributed, so nothing is shared."""
    z, s = z.detach(), s.detach()
    stabilised = torch.copysign(s.new_tensor(epsilon), s).add_(s)
    return torch.div(z, stabilised, out=stabilised).masked_fill_(s == 0, 0)


def _rules(
    rule: str | Sequence[tuple[Predicate, str | LayerRule]], o: Options, bounded: bool
) -> list[tuple[Predicate, str, LayerRule]]:
    """The composite as (predicate, name of the rule, rule); the name of a user's own rule is ""."""
    if not (o.epsilon >= 0 and o.gamma >= 0):
        raise ValueError(f"epsilon and gamma must be at least 0, got {o.epsilon} and {o.gamma}")
    if o.bias not in ("share", "inputs"):
        raise ValueError(f"bias must be 'share' or 'inputs', got {o.bias!r}")
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
            rules.append((predicate, entry, partial(RULES[entry], o=o)))
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
    rule: str | Sequence[tuple[Predicate, str | LayerRule]],
    o: Options,
    low: float | Tensor | None,
    high: float | Tensor | None,
    *,
    custom: Mapping[str, CustomRule] | None = None,
    positive: bool = False,
    balance: bool = False,
) -> Tensor | tuple[Tensor, Balance]:
    rules = _rules(rule, o, bounded=not positive and not (low is None and high is None))
    if balance:
        return _balanced(model, x, target, rule, o, low, high, custom=custom, positive=positive)
    functions, modules = _split(model, custom or {})

    def start(logit: Tensor) -> Tensor:
        return (logit > 0).to(logit) if positive else torch.ones_like(logit)

    with explaining(model, x) as x:
        bounds, at_layer = _bounds(model, x, rules, low, high)
        leaves, bounded = [x, *bounds], not bounds

        def replace(layer: Layer) -> Tensor:
            nonlocal bounded
            name, rule = _choose(rules, layer)
            if name not in INPUT_RULES:
                return LinearLayer.apply(layer, rule, layer.read)
            if not (layer.is_input and layer.index == 0):
                raise UnsupportedModelError(f"rule {name!r} is for the one layer that reads x, not for {layer.name!r}")
            layer.bounds, bounded = at_layer, True
            return LinearLayer.apply(layer, rule, layer.read, *at_layer)

        others = dict.fromkeys(NONLINEAR, partial(_proportional, o=o))
        others |= _sums(o, positive)
        ran: set[str] = set()
        own = _custom_functions(functions, ran)
        allowed = PASSED | BATCH_NORM | PROPORTIONAL | MAX_POOLS | CHOICES | nodes("Mul", "Div")
        with _custom_modules(modules, ran):
            signals = modified_gradient(
                model,
                x,
                partial(pick, target=target),
                written_out({**layer_table(model, replace, others), **own}),
                allowed=allowed,
                leaves=bounds,
                start=start,
            )
        for name in set(custom or ()) - ran:
            raise ValueError(f"custom has a rule for {name!r}, which the model never calls on values of x")
        if not bounded:
            raise UnsupportedModelError("the layer that reads x reads it through an operation with a rule of its own")
        relevance = sum(leaf.detach() * signal for leaf, signal in zip(leaves, signals, strict=True))
    if positive and len(relevance):
        smallest, size = (-relevance).flatten(1).amax(1), relevance.flatten(1).abs().amax(1)
        if (smallest > 1e-4 * size).any():
            raise UnsupportedModelError(
                "relevance would be negative: the model sums contributions of both signs in an operation for which "
                "deep_taylor has no rule (bicubic upsampling, say); use lrp"
            )
    return relevance


def _balanced(
    model: Model, x: Tensor, target: Target, rule, o: Options, low, high, **options
) -> tuple[Tensor, Balance]:
    """Row by row: what a layer loses cannot be told apart by rows wherever the batch dimension is moved."""
    with explaining(model, x) as checked:
        target = resolve(model, checked, target)
        with torch.no_grad():
            score = pick(logits_of(model, checked), target)
    score = score.clamp(min=0) if options["positive"] else score
    maps, lost = [], []
    for k in range(len(x)):
        row = slice(k, k + 1)
        ends = [
            bound.expand_as(x)[row] if isinstance(bound, Tensor) and bound.dim() == x.dim() else bound
            for bound in (low, high)
        ]
        here = dataclasses.replace(o, lost=[])
        maps.append(_relevance(model, x[row], target[row], rule, here, *ends, **options))
        lost.append(sum(here.lost, score.new_zeros(())))
    if not maps:
        return x.clone(), Balance(score, score, score, score)
    relevance, lost = torch.cat(maps), torch.stack(lost)
    inputs = relevance.flatten(1).sum(1)
    return relevance, Balance(score, inputs, score - inputs - lost, lost)


def _bounds(
    model: Model, x: Tensor, rules: list[tuple[Predicate, str, LayerRule]], low, high
) -> tuple[list[Tensor], list[Tensor]]:
    """The leaves that the input layer's rule needs besides x, and what the input layer reads when it is given them."""
    if low is None and high is None and not any(name in INPUT_RULES for _, name, _ in rules):
        return [], []
    leaf = x.detach().requires_grad_()
    first = first_layer(model, leaf)
    name = _choose(rules, first)[0] if first and first.is_input else None
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
    read = [first_layer(model, leaf).read for leaf in leaves]
    if name == "z_b" and not ((read[0] <= first.read) & (first.read <= read[1])).all():
        raise UnsupportedModelError("what the first layer reads does not lie between what it reads for low and high")
    if name in ("w_squared", "flat"):
        # Zeros that x is padded with get nothing, as those of a convolution's own padding.
        ones, x_alone = read[0], torch.ones((), dtype=torch.bool)
        if ones.numel() != x.numel() or (ones == 0).any():
            moved = moved_from(first.read, lambda node: getattr(node, "variable", None) is leaf)
            zeros = first_layer(model, torch.zeros_like(x).requires_grad_()).read
            x_alone = (zeros == 0) & ((ones == 1) | bool(moved))
        if not (x_alone & ((ones == 1) | (ones == 0))).all():
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
    def forward(ctx, z: Tensor, phi: Callable[[Tensor], Tensor], gate: int, lost: list[Tensor] | None) -> Tensor:
        y = phi(z)
        ctx.save_for_backward(_ratio(y, z, torch.finfo(z.dtype).tiny))
        ctx.gate, ctx.lost, ctx.stuck = gate, lost, None if lost is None else torch.where(z == 0, y, 0)
        return y

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.lost is not None:
            ctx.lost.append((ctx.stuck * g).sum())  # z = 0 can hold no relevance
        return g * ctx.saved_tensors[0], None, None, None


def _proportional(func: Callable, args: tuple, kwargs: dict, *, o: Options) -> Tensor:
    if any(origin(value) for value in (*args[1:], *kwargs.values())):
        return func(*args, **kwargs)  # of two activations: the graph search decides
    z, phi, inplace = elementwise(func, args, kwargs)
    gate = _gate(func.__name__.strip("_"), args, kwargs) or _gate_of(z)  # what is clamped stays a gate
    out = Proportional.apply(z, phi, gate, o.lost)
    return in_place(args[0], out) if inplace else out


def _gate(name: str, args: tuple, kwargs: dict) -> int:
    """How much a nonlinearity is a gate's: 2 made for it, 1 bounded and not negative, 0 neither."""
    if name in ("sigmoid", "hardsigmoid"):
        return 2
    if name == "hardtanh":
        return int((args[1] if len(args) > 1 else kwargs.get("min_val", -1)) >= 0)
    if name in ("clamp", "clip"):
        low, high = (*args[1:], kwargs.get("min"), kwargs.get("max"), None)[:2] if len(args) < 3 else args[1:3]
        return int(isinstance(low, (int, float)) and isinstance(high, (int, float)) and low >= 0)
    return int(name == "relu6")


def _gate_of(tensor: Tensor) -> int:
    """The weakest gate of those that the values come from by linear operations with constants; 0 if not all do."""
    weakest, seen, stack = 2, set(), [tensor.grad_fn]
    while stack and weakest:
        node = stack.pop()
        if node is None or node in seen or (operation_of(node) == "AccumulateGrad" and not running().is_leaf(node)):
            continue  # a constant
        seen.add(node)
        parents = [parent for parent, _ in node.next_functions]
        if isinstance(getattr(node, "gate", None), int):
            weakest = min(weakest, node.gate)
        elif operation_of(node) == "CopyBackwards":
            stack.append(parents[-1])  # the source
        elif operation_of(node) in MOVED_AND_SCALED or getattr(node, "_forward_cls", None) is PositiveSum:
            stack += parents
        else:
            weakest = 0
    return weakest


MOVED_AND_SCALED = PASSED | MAX_POOLS | CHOICES | nodes("Mul", "Div")


class Product(Replacement):
    """A product of two activations, of which the first gets this share of the relevance; of two gates it is one."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, share: float, gate: int) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.share, ctx.gate = share, gate
        return a * b

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        a, b = ctx.saved_tensors
        return (g * b * ctx.share).sum_to_size(a.shape), (g * a * (1 - ctx.share)).sum_to_size(b.shape), None, None


def _product(a: Tensor, b: Tensor) -> Tensor:
    """The signal takes all and the gate is its weight: what a gate's nonlinearity gives, else the broadcast factor."""
    gates = _gate_of(a), _gate_of(b)
    difference = gates[0] - gates[1] or b.numel() - a.numel()
    return Product.apply(a, b, 0.5 if difference == 0 else float(difference < 0), min(gates))


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
        signals = (torch.where((term > 0) | (p == 0), signal, 0).sum_to_size(term.shape) for term in (a, b))
        return tuple(signals)


def _sums(o: Options, positive: bool) -> dict[Callable, Rule]:
    """The rules of products and sums that are no layer's: the gradient, or z+ where relevance must be positive."""
    products = product_table(_product)

    def rule(func, args, kwargs):
        parts = affine_parts(func, args, kwargs)
        if parts is None:
            both = positive and func in SUMS and all(origin(arg) for arg in args[:2]) and "out" not in kwargs
            return add(func, args, kwargs) if both else products.get(func, _plain)(func, args, kwargs)
        t, scale, shift = parts
        if origin(t) == "input" or not shift.any() or (o.bias == "share" and not positive):
            return func(*args, **kwargs)
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
            return func(*args, **kwargs)
        out = func(*args, **kwargs)
        if out.numel() == t.numel() and torch.equal(out.flatten(), t.flatten()):
            return out  # of one value each
        a, one = t.detach().requires_grad_(), t.new_ones(())
        layer = Layer("", "average", -1, False, lambda a, w, b: w * phi(a), t, a, one, None, phi(a), False, None, None)
        return LinearLayer.apply(layer, partial(_z_plus, o=o), t)

    return dict.fromkeys(AFFINE, rule) | (dict.fromkeys(AVERAGES, average) if positive else {})


def _plain(func: Callable, args: tuple, kwargs: dict) -> Tensor:
    return func(*args, **kwargs)


SUMS = operations(
    "add", "__add__", "__radd__", "__iadd__", "sub", "subtract", "rsub", "__sub__", "__rsub__", "__isub__"
)
AVERAGES = operations(
    "mean", "sum", "cumsum", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
    "adaptive_avg_pool3d", "interpolate", "upsample", "grid_sample",
)  # fmt: skip


# A user's rules for modules and functions.


class Custom(Replacement):
    """A module or function whose backward pass is a user's rule, held to conserving the relevance."""

    @staticmethod
    def forward(ctx, rule: CustomRule, name: str, rows: int, y: Tensor, *inputs: Tensor) -> Tensor:
        ctx.rule, ctx.name, ctx.rows = rule, name, rows
        ctx.save_for_backward(y, *inputs)
        return y.clone()

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        y, *inputs = ctx.saved_tensors
        with torch.enable_grad():
            signals = ctx.rule(*(a.detach().requires_grad_() for a in inputs), y, g)
        signals = [signals] if isinstance(signals, Tensor) else list(signals)
        if [s.shape for s in signals] != [a.shape for a in inputs]:
            raise ValueError(f"the rule for {ctx.name!r} must give a signal of each input's shape")
        parts = [y * g, *(-a * s.detach() for a, s in zip(inputs, signals, strict=True))]
        # The rows lie along an axis that all have, the first or another; where there is none, only the whole is known.
        axes = [d for d in range(min(p.dim() for p in parts)) if all(p.shape[d] == ctx.rows for p in parts)]
        by_row = [[p.movedim(d, 0).reshape(ctx.rows, -1) for p in parts] for d in axes if ctx.rows]
        leaks = [_leak(rows) for rows in by_row or [[p.reshape(1, -1) for p in parts]]]
        if None not in leaks:
            raise ValueError(f"the rule for {ctx.name!r} does not conserve relevance: {leaks[0]}")
        return None, None, None, None, *(s.detach() for s in signals)


def _leak(parts: Sequence[Tensor]) -> str | None:
    """What comes into the row that leaks most and goes out of it, where that is not the same."""
    left, size = sum(part.sum(1) for part in parts), sum(part.abs().sum(1) for part in parts)
    row = (left.abs() - 1e-3 * size).argmax()
    if left[row].abs() <= 1e-3 * size[row]:
        return None
    came = parts[0][row].sum().item()
    return f"{came:.4g} comes in, {came - left[row].item():.4g} goes out"


class Unread(Replacement):
    """A further output of a module or function with a user's rule, which tells nothing about it."""

    @staticmethod
    def forward(ctx, name: str, y: Tensor, *inputs: Tensor) -> Tensor:
        ctx.name = name
        return y.clone()

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        raise UnsupportedModelError(
            f"the rule for {ctx.name!r} is for its first output, but the model reads another: write the rule for a "
            "module that gives one tensor"
        )


def _split(
    model: Model, custom: Mapping[str, CustomRule]
) -> tuple[dict[str, CustomRule], dict[str, tuple[nn.Module, CustomRule]]]:
    """The user's rules for functions of torch and those for modules of the model."""
    modules = dict(model.named_modules()) if isinstance(model, nn.Module) else {}
    for name in custom:
        if name not in modules and not operations(name):
            raise ValueError(f"custom has a rule for {name!r}, which is neither a module nor a function of torch")
    functions = {name: rule for name, rule in custom.items() if name not in modules}
    return functions, {name: (modules[name], rule) for name, rule in custom.items() if name in modules}


def _custom_functions(custom: Mapping[str, CustomRule], ran: set[str]) -> dict[Callable, Rule]:
    def table(name: str, rule: CustomRule) -> dict[Callable, Rule]:
        def call(func, args, kwargs):
            return _run_custom(name, rule, func, args, kwargs, ran)

        return dict.fromkeys(operations(name), call)

    return {func: call for name, rule in custom.items() for func, call in table(name, rule).items()}


@contextmanager
def _custom_modules(modules: Mapping[str, tuple[nn.Module, CustomRule]], ran: set[str]) -> Iterator[None]:
    """The modules run their own rule in this block."""

    def wrapped(name: str, forward: Callable, rule: CustomRule) -> Callable:
        return lambda *args, **kwargs: _run_custom(name, rule, forward, args, kwargs, ran)

    kept = {name: module.__dict__.get("forward") for name, (module, _) in modules.items()}
    try:
        for name, (module, rule) in modules.items():
            module.forward = wrapped(name, module.forward, rule)
        yield
    finally:
        for name, (module, _) in modules.items():
            module.__dict__.pop("forward", None)
            if kept[name] is not None:
                module.forward = kept[name]


def _run_custom(name: str, rule: CustomRule, func: Callable, args: tuple, kwargs: dict, ran: set[str]):
    inputs = [value for value in tree_leaves((args, kwargs)) if origin(value)]
    with torch._C.DisableTorchFunction(), torch.no_grad():  # what happens inside is the rule's affair
        args, kwargs = tree_map_only(
            Tensor, lambda t: t.detach().clone() if t.is_floating_point() else t, (args, kwargs)
        )
        out = func(*args, **kwargs)
    if not inputs:
        return out
    ran.add(name)
    apply = [partial(Custom.apply, rule, name, len(running().leaves[0]))]  # for the first output

    def with_rule(y: Tensor) -> Tensor:
        return (apply.pop() if apply else partial(Unread.apply, name))(y, *inputs) if y.is_floating_point() else y

    return tree_map_only(Tensor, with_rule, out)
