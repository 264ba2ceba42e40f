"""Which rule a layer gets."""

from collections.abc import Callable, Sequence
from functools import partial

from ...backprop.layers import Layer, LayerRule
from ...contract import UnsupportedModelError
from .rules import RULES, Options

Predicate = Callable[[Layer], bool]
Composite = list[tuple[Predicate, str, LayerRule]]  # predicate, name of the rule ("" of a user's own), rule


def is_input(layer: Layer) -> bool:
    return layer.is_input


def always(layer: Layer) -> bool:
    return True


def is_dense(layer: Layer) -> bool:
    return layer.kind == "dense"


def composite_of(rule: str | Sequence[tuple[Predicate, str | LayerRule]], o: Options, bounded: bool) -> Composite:
    """The composite that ``rule`` stands for, its options checked."""
    if not (o.epsilon >= 0 and o.gamma >= 0):
        raise ValueError(f"epsilon and gamma must be at least 0, got {o.epsilon} and {o.gamma}")
    if o.bias not in ("share", "inputs"):
        raise ValueError(f"bias must be 'share' or 'inputs', got {o.bias!r}")
    if o.attention not in ("attn_lrp", "cp_lrp"):
        raise ValueError(f"attention must be 'attn_lrp' or 'cp_lrp', got {o.attention!r}")
    composite: list[tuple[Predicate, str | LayerRule]]
    if rule == "composite":
        composite = [(is_dense, "epsilon"), (always, "z_plus")]
    elif isinstance(rule, str):
        composite = [(always, rule)]
    else:
        composite = list(rule)
    if bounded and isinstance(rule, str):
        composite.insert(0, (is_input, "z_b"))
    rules: Composite = []
    for predicate, entry in composite:
        if callable(entry):
            rules.append((predicate, "", entry))
        elif entry in RULES:
            rules.append((predicate, entry, partial(RULES[entry], o=o)))
        else:
            raise ValueError(f"unknown rule {entry!r}; the rules are 'composite', {', '.join(map(repr, RULES))}")
    return rules


def choose(rules: Composite, layer: Layer) -> tuple[str, LayerRule]:
    for holds, name, rule in rules:
        if holds(layer):
            return name, rule
    raise UnsupportedModelError(f"no predicate of the rule holds for the {layer.kind} layer {layer.name!r}")
