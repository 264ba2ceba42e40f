"""What comes of a cell: a change, a function and a network."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from .changes import CHANGES, Change, pair
from .functions import FUNCTIONS, Answer, Function
from .networks import NETWORKS, Case

EQUAL, REFUSED, CHANGED_REFUSED, FAILED = "equal", "refused", "refused where it may be", "failed"

Run = Callable[[Function, Case], Answer]
MAY_BE_REFUSED = {
    "torch.func refuses": "influence needs the derivatives of each row alone",
}
"""Words of a refusal that is right in the changed form alone, whatever the change, and why."""


@dataclass(frozen=True)
class Outcome:
    change: str
    function: str
    network: str
    kind: str
    message: str = ""

    def __str__(self) -> str:
        return f"{self.change} | {self.function} | {self.network}: {self.message}"


def attempt(run: Run, name: str, case: Case, seed: int = 1) -> Answer | str | Exception:
    """The answer, the words of a refusal, or what else was raised."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  the global one, which a model may use
    random.seed(seed)
    try:
        return run(FUNCTIONS[name], case)
    except ValueError as refusal:  # UnsupportedModelError is one
        return str(refusal) or type(refusal).__name__
    except Exception as crash:
        return crash


def difference(ours: Answer, theirs: Answer, tolerance: float) -> str:
    """What differs in the changed form's answer, or nothing."""
    if len(ours) != len(theirs):
        return f"{len(ours)} tensors, not {len(theirs)}"
    for a, b in zip(ours, theirs, strict=True):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            return f"{tuple(a.shape)} {a.dtype}, not {tuple(b.shape)} {b.dtype}"
        if a.requires_grad:
            return "an answer that is not detached"
        a, b = a.double(), b.double()
        if not torch.equal(a.isfinite(), b.isfinite()):
            return "other entries are finite"
        a, b = (t.nan_to_num(0.0, 0.0, 0.0) for t in (a, b))
        scale = b.abs().max().item() if b.numel() else 0.0
        off = (a - b).abs().max().item() if b.numel() else 0.0
        if off > tolerance * scale + 1e-14:
            return f"off by {off / max(scale, 1e-300):.1e} of the largest entry, {scale:.2g}"
    return ""


@cache
def reference(change: str, function: str, network: str) -> Answer | str | Exception:
    each = CHANGES[change]
    return attempt(each.run_reference, function, each.reference(NETWORKS[network].case()))


def canonical(change: str) -> str:
    """The first change with the same reference form, so that one is computed once."""
    each = CHANGES[change]
    return next(
        name for name, c in CHANGES.items() if (c.reference, c.run_reference) == (each.reference, each.run_reference)
    )


def outcome(change: str, function: str, network: str) -> Outcome:
    each = CHANGES[change]
    theirs = reference(canonical(change), function, network)
    ours = attempt(each.run, function, each.change(NETWORKS[network].case()))
    cell = change, function, network
    for form, answer in (("reference", theirs), ("changed", ours)):
        if isinstance(answer, Exception):
            return Outcome(*cell, FAILED, f"{form} form raised {type(answer).__name__}: {str(answer)[:150]}")
    if isinstance(theirs, str) and isinstance(ours, str):
        return Outcome(*cell, REFUSED, ours)
    if isinstance(ours, str):
        allowed = each.may_refuse(function, FUNCTIONS[function]) or any(word in ours for word in MAY_BE_REFUSED)
        return Outcome(
            *cell, CHANGED_REFUSED if allowed else FAILED, f"refused in the changed form alone: {ours[:150]}"
        )
    if isinstance(theirs, str):
        return Outcome(*cell, FAILED, f"refused in the reference form alone: {theirs[:150]}")
    off = difference(ours, theirs, each.tolerance and max(each.tolerance, FUNCTIONS[function].tolerance))
    return Outcome(*cell, FAILED if off else EQUAL, off)


@cache
def applies(change: str, network: str) -> bool:
    each: Change = CHANGES[change]
    return (not each.networks or network in each.networks) and pair(each, NETWORKS[network]) is not None


def whole(change: str) -> Iterator[tuple[str, str, str]]:
    """Every cell of a change."""
    for function, known in FUNCTIONS.items():
        if CHANGES[change].functions(function, known):
            networks = known.networks or NETWORKS
            yield from ((change, function, network) for network in networks if applies(change, network))


def family(change: str) -> list[str]:
    """The changes of one kind, named ``kind: ...`` or ``kind, ...``: the same mechanism has to see through them."""
    return [name for name in CHANGES if re.split("[:,]", name)[0] == re.split("[:,]", change)[0]]


def some(change: str) -> Iterator[tuple[str, str, str]]:
    """One cell of each function: on the network that shows most, else each in turn that gives the reference an answer.

    In a large family the functions take turns: each is tried on every third change.
    """
    row, like = list(CHANGES).index(change), family(change)
    networks = [network for network in NETWORKS if applies(change, network)]
    for column, (function, known) in enumerate(FUNCTIONS.items()):
        if not CHANGES[change].functions(function, known) or known.networks or not networks:
            continue
        shown_on = CHANGES[change].shown_on or known.shown_on
        if len(like) > 3 and not shown_on and (like.index(change) + column) % 3:
            continue
        start = networks.index(shown_on) if shown_on in networks else (row + column) % len(networks)
        turn = networks[start:] + networks[:start]
        answered = (n for n in turn if isinstance(reference(canonical(change), function, n), list))
        yield change, function, next(answered, turn[0])


def tally(outcomes: list[Outcome]) -> str:
    counts = Counter(each.kind for each in outcomes)
    kinds = ", ".join(f"{counts[kind]} {kind}" for kind in (EQUAL, REFUSED, CHANGED_REFUSED, FAILED))
    return f"{len(outcomes)} cells: {kinds}"
