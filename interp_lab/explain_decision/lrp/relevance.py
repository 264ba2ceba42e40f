r"""Layer-wise relevance propagation.

The relevance :math:`R_j` of a unit is shared out among the units below it in proportion to what they contributed.
With :math:`R = a \odot c` every rule is a backward pass for the signal :math:`c`, which starts as 1 at the logit:
at a linear layer it goes back through a surrogate :math:`s` of the pre-activation :math:`z`, scaled by :math:`z / s`;
at everything piecewise linear (ReLU, residual additions, pooling) it is the gradient. The relevance of x is
:math:`x \odot c`. A rule of two lines differs from another in its surrogate alone.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import NamedTuple

import torch
from torch import Tensor

from ...backprop.decompositions import FUSED, written_out
from ...backprop.layers import Layer, LayerRule, LinearLayer, layer_table
from ...backprop.modified_backprop import BATCH_NORM, CHOICES, MAX_POOLS, PASSED, locate, modified_gradient, nodes
from ...contract import Model, Target, UnsupportedModelError, explaining, logits_of, pick, resolve
from ...contract.interception import Rule
from .bounds import bounds_of
from .composite import Predicate, choose, composite_of
from .custom import CustomRule, custom_functions, custom_modules, split_custom
from .gates import NONLINEAR, PROPORTIONAL, proportional
from .rules import INPUT_RULES, Options
from .sums import sum_rules


class Balance(NamedTuple):
    """Where the relevance of every row went, ``(N,)`` each; the last four sum to the first."""

    score: Tensor
    """The score that was shared out."""
    inputs: Tensor
    """The sum of the map."""
    biases: Tensor
    """What biases and other constants kept."""
    lost: Tensor
    """What epsilon took, and what no contribution could carry."""
    softmax: Tensor
    """What the softmax of attention absorbed."""


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
    attention: str = "attn_lrp",
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
    all and the gate is its weight: a gate is what sigmoid, hardsigmoid, softmax, exp, 1 / z or rsqrt gives (then ReLU6 or a clamp to
    :math:`[\ge 0, h]`), a function of it, or a sum, concatenation or product of gates, all scaled and moved at will; else the
    factor that is broadcast; where neither tells, each gets half.

    Attention and recurrent layers are written out. A matrix product of two activations (``matmul``, ``einsum``, a convolution
    with kernels from x) gives half to each; a softmax (``exp(s) / exp(s).sum(dim, keepdim=True)`` too) has its gradient, and what it absorbs is in the balance; what is divided by an activation takes all, so
    that LayerNorm, RMSNorm, GroupNorm and InstanceNorm take their deviation as a constant and their mean as linear. With
    ``attention="cp_lrp"`` the softmax's weights are constants and the values take all: with ``"epsilon"``, epsilon -> 0, the
    relevance of a transformer without biases then sums to the logit.
    With epsilon -> 0 ``"epsilon"`` is gradient times input on a network of ReLU, pooling and linear layers.

    Bach et al. 2015, doi:10.1371/journal.pone.0130140; gamma and composites: Montavon et al. 2019,
    doi:10.1007/978-3-030-28954-6_10; gates: Arras et al. 2017, doi:10.18653/v1/W17-5221; halves, softmax and
    norms (AttnLRP): Achtibat et al. 2024, arXiv:2402.05602; CP-LRP: Ali et al. 2022, arXiv:2202.07304.

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
        attention: ``"attn_lrp"``: the scores of attention get half of the relevance. ``"cp_lrp"``: its weights are constants.
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
        UnsupportedModelError: an operation without a rule, by name: an exponential that is neither the weight of a signal nor part
            of a softmax, sort and topk, compiled
            code, a user's ``autograd.Function``, what has no gradient (a mask or an index from x); a softmax as the last operation.

    >>> model = lambda x: x @ torch.tensor([[1.0], [-2.0]])
    >>> lrp(model, torch.tensor([[3.0, 1.0]]), rule="epsilon", epsilon=0.0)  # w x, which sums to the logit
    tensor([[ 3., -2.]])
    >>> lrp(model, torch.tensor([[3.0, 1.0]]), rule="z_plus", epsilon=0.0)  # what speaks for it shares it all
    tensor([[1., 0.]])
    """
    options = Options(epsilon, gamma, bias, attention)
    relevance = balanced_relevance if balance else relevance_of
    return relevance(model, x, target, rule, options, low, high, custom=custom)


def relevance_of(
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
) -> Tensor:
    """The relevance of x; ``positive`` starts at the positive part of the logit and keeps every sum to z+."""
    rules = composite_of(rule, o, bounded=not positive and not (low is None and high is None))
    functions, modules = split_custom(model, custom or {})

    def start(logit: Tensor) -> Tensor:
        return (logit > 0).to(logit) if positive else torch.ones_like(logit)

    with explaining(model, x) as x:
        bounds, at_layer = bounds_of(model, x, rules, low, high)
        leaves, bounded = [x, *bounds], not bounds

        def replace(layer: Layer) -> Tensor:
            nonlocal bounded
            name, rule = choose(rules, layer)
            if name not in INPUT_RULES:
                return LinearLayer.apply(layer, rule, layer.read)
            if not (layer.is_input and layer.index == 0):
                raise UnsupportedModelError(
                    f"rule {name!r} is for the one layer that reads x, not for {layer.name!r}; 'epsilon' is for any"
                )
            layer.bounds, bounded = at_layer, True
            return LinearLayer.apply(layer, rule, layer.read, *at_layer)

        others: dict[Callable, Rule] = dict.fromkeys(NONLINEAR, partial(proportional, o=o))
        others |= sum_rules(dataclasses.replace(o, where=partial(locate, model, x)), positive)
        ran: set[str] = set()
        own = custom_functions(functions, ran)
        allowed = PASSED | BATCH_NORM | PROPORTIONAL | MAX_POOLS | CHOICES | nodes("Mul", "Div")
        with custom_modules(modules, ran):
            signals = modified_gradient(
                model,
                x,
                partial(pick, target=target),
                written_out({**layer_table(model, replace, others), **own}, {} if positive else FUSED),
                allowed=allowed,
                leaves=bounds,
                start=start,
            )
        for name in set(custom or ()) - ran:
            raise ValueError(f"custom has a rule for {name!r}, which the model never calls on values of x")
        if not bounded:
            raise UnsupportedModelError("the layer that reads x reads it through an operation with a rule of its own")
        return reduce(torch.add, [leaf.detach() * signal for leaf, signal in zip(leaves, signals, strict=True)])


def balanced_relevance(
    model: Model, x: Tensor, target: Target, rule, o: Options, low, high, *, custom=None, positive: bool = False
) -> tuple[Tensor, Balance]:
    """Row by row: what a layer loses cannot be told apart by rows wherever the batch dimension is moved."""
    with explaining(model, x) as checked:
        target = resolve(model, checked, target)
        with torch.no_grad():
            score = pick(logits_of(model, checked), target)
    score = score.clamp(min=0) if positive else score
    if len(x) == 0:
        return relevance_of(model, x, target, rule, o, low, high, custom=custom, positive=positive), Balance(
            *5 * (score,)
        )
    maps, lost, absorbed = [], *score.new_zeros(2, len(x))
    for k in range(len(x)):
        row = slice(k, k + 1)
        ends = [
            bound.expand_as(x)[row] if isinstance(bound, Tensor) and bound.dim() == x.dim() else bound
            for bound in (low, high)
        ]
        losses: tuple[list[Tensor], list[Tensor]] = [], []
        here = dataclasses.replace(o, lost=losses[0], softmax=losses[1])
        maps.append(relevance_of(model, x[row], target[row], rule, here, *ends, custom=custom, positive=positive))
        lost[k], absorbed[k] = (sum(each, score.new_zeros(())) for each in losses)
    relevance = torch.cat(maps)
    inputs = relevance.flatten(1).sum(1)
    return relevance, Balance(score, inputs, score - inputs - lost - absorbed, lost, absorbed)
