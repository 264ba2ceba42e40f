"""Judges of what a student's function gives: each fails with a sentence for the feedback, or says nothing."""

from collections.abc import Callable, Collection

import torch

from interp_lab import check

from .calls import GRADIENT, Call, Outcome

Reference = Callable[[Call], Outcome]
Judge = Callable[[str, list[Call], list[Outcome], Reference], None]

ENTRY = "row {row}, entry {n}"  # of a table found by hand


def same_kind(what: str, got: Outcome, expected: Outcome) -> None:
    """Fail unless type, shape and dtype are those expected, the result is detached and all its values are finite."""
    kind = "torch.Tensor" if expected.kind == "Tensor" else expected.kind
    if got.kind != expected.kind and {got.kind, expected.kind} != {"list", "tuple"}:
        raise AssertionError(f"{what}\nThe result must be a {kind}, got {got.kind}.")
    if got.attached and not expected.attached:
        raise AssertionError(f"{what}\nThe result still hangs on the graph of the computation; it must be detached.")
    if expected.attached and not got.attached:
        raise AssertionError(f"{what}\nThe result does not depend on its input for autograd.")
    check.same_kind(got.result, expected.result, what)


def same_state(what: str, got: Outcome, expected: Outcome) -> None:
    """Fail unless a call had the side effects of the reference, and no other."""
    for name in sorted(expected.tensors.keys() - {"result"}):
        left, wanted = got.tensors.get(name), expected.tensors[name]
        if name.startswith(GRADIENT) and left is not None:
            check.close(left, wanted, f"{what}\nThe result is right, but not {name}.")
            continue
        if left is None or left.dtype != wanted.dtype or not torch.equal(left, wanted):
            raise AssertionError(f"{what}\nThe result is right, but afterwards {name} had changed.")


def same(what: str, calls: list[Call], got: list[Outcome], reference: Reference) -> None:
    """Fail unless every call gives what the reference gives and leaves behind what the reference leaves behind."""
    for call, outcome in zip(calls, got, strict=True):
        expected = reference(call)
        same_kind(what, outcome, expected)
        check.close(outcome.result, expected.result, what)
        same_state(what, outcome, expected)


def shape_only(what: str, calls: list[Call], got: list[Outcome], reference: Reference) -> None:
    """Fail unless type, shape and dtype are right and all values finite."""
    for call, outcome in zip(calls, got, strict=True):
        same_kind(what, outcome, reference(call))


def by_hand(
    what: str,
    calls: list[Call],
    got: list[Outcome],
    reference: Reference,
    *,
    only: Collection[int] | None = None,
    name: str = "number {n}",
    tolerance: float = 1e-4,
) -> None:
    """Right numbers in a list, or in a table's rows; the feedback names the wrong ones and not what they should be.

    Args:
        only: places of the list, or rows of the table, that count; None for all.
        name: of an entry; i and n are its place in the list or row, counted from 0 and from 1, row that of its row from 1.
    """
    expected = reference(calls[0])
    same_kind(what, got[0], expected)
    wrong = (got[0].result - expected.result).abs() > tolerance
    if wrong.dim() > 1:
        wrong = wrong.flatten(1)
    places = [place for place in wrong.nonzero().tolist() if only is None or place[0] in only]
    if names := dict.fromkeys(name.format(row=p[0] + 1, i=p[-1], n=p[-1] + 1) for p in places):
        raise AssertionError(f"{what}\nWrong: {'; '.join(names)}.")


def repeatable(what: str, calls: list[Call], got: list[Outcome], reference: Reference) -> None:
    """Three calls, the first two with the same seed: same result; the third with another: another; nothing else changed."""
    for call, outcome in zip(calls, got, strict=True):
        expected = reference(call)
        same_kind(what, outcome, expected)
        same_state(what, outcome, expected)
    first, again, other = (outcome.result for outcome in got)
    check.close(again, first, f"{what}\nTwo calls with the same seed gave two results.", tolerance=1e-6)
    if (other - first).abs().max() < 1e-5:
        raise AssertionError(f"{what}\nTwo seeds gave the same result: it does not depend on the seed.")
