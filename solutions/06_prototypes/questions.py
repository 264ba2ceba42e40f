"""Prototypes and criticisms: the graded questions."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor

from grader.calls import Call, Outcome
from grader.drawing import F64, integer, nothing, randn, uniform
from grader.judges import Reference, by_hand, same_kind, shape_only
from grader.question import Part, Question
from interp_lab import check


def alike(data: Tensor) -> Tensor:
    """A kernel of rows with themselves, with a diagonal of exactly 1."""
    return torch.exp(-(data[:, None] - data).abs().flatten(2).sum(2))


# Question 2: kernel, witness, discrepancy


def kernel_calls(rows: tuple[int, int], shape: tuple[int, ...], dtype: torch.dtype = F64):
    def calls(g: Generator) -> list[Call]:
        a, b = (randn(g, n, *shape, dtype=dtype) for n in rows)
        return [Call("kernel", [a, b, uniform(g, 0.2, 0.6)])]

    return calls


def witness_calls(rows: tuple[int, int, int], shape: tuple[int, ...], dtype: torch.dtype = F64):
    def calls(g: Generator) -> list[Call]:
        points, data, prototypes = (randn(g, n, *shape, dtype=dtype) for n in rows)
        return [Call("witness", [points, data, prototypes, uniform(g, 0.2, 0.6)])]

    return calls


def mmd2_calls(rows: tuple[int, int], shape: tuple[int, ...], dtype: torch.dtype = F64):
    def calls(g: Generator) -> list[Call]:
        data, prototypes = (randn(g, n, *shape, dtype=dtype) for n in rows)
        return [Call("mmd2", [data, prototypes + 0.5, uniform(g, 0.2, 0.6)])]

    return calls


# Question 3: greedy choice


def scores_calls(sizes: tuple[int, ...], dtype: torch.dtype = F64) -> Callable[[Generator], list[Call]]:
    def calls(g: Generator) -> list[Call]:
        made = []
        for size in sizes:
            k = alike(randn(g, integer(g, 7, 9), 2, dtype=dtype))
            made.append(Call("candidate_scores", [k.mean(0), k[:size].sum(0), size]))
        return made

    return calls


def up_to_a_number(what: str, calls: list[Call], got: list[Outcome], reference: Reference) -> None:
    """The differences between candidates."""
    for call, outcome in zip(calls, got, strict=True):
        expected = reference(call)
        same_kind(what, outcome, expected)
        ours, theirs = (scores - scores.mean() for scores in (outcome.result, expected.result))
        check.close(ours, theirs, f"{what}\n{call.args[2]} chosen so far; scores less their mean.", tolerance=1e-6)


def groups(g: Generator, *sizes: int, dtype: torch.dtype = F64) -> Tensor:
    """Rows of one number in groups that are far apart, in this order."""
    places = torch.cat([torch.full((size,), 10.0 * i) for i, size in enumerate(sizes)])
    return (places + 0.2 * randn(g, len(places), dtype=F64)).view(-1, 1).to(dtype)


def greedy_easy(g: Generator) -> list[Call]:
    return [Call("greedy", [alike(groups(g, 5, 3)), m]) for m in (1, 2)]


def greedy_general(g: Generator) -> list[Call]:
    return [Call("greedy", [alike(randn(g, 14, 2, dtype=F64) / 2), 9])]


def greedy_all(g: Generator) -> list[Call]:
    """Equal examples, of which the first would always be the best."""
    places = torch.cat([torch.zeros(integer(g, 3, 5), 1), randn(g, 3, 1)])
    return [Call("greedy", [alike(places), len(places)])]


def each_once(what: str, calls: list[Call], got: list[Outcome], reference: Reference) -> None:
    """All examples in any order."""
    for call, outcome in zip(calls, got, strict=True):
        expected = reference(call)
        same_kind(what, outcome, expected)
        twice = len(outcome.result) - len(outcome.result.unique())
        if twice:
            raise AssertionError(f"{what}\n{twice} of your {len(outcome.result)} indices were there before.")


def greedy_device(g: Generator) -> list[Call]:
    return [Call("greedy", [alike(randn(g, 6, 2)), 3])]


# Question 4: criticisms


def criticisms_easy(g: Generator) -> list[Call]:
    """One prototype in the largest group; the others are left out."""
    return [Call("criticisms", [groups(g, 4, 2, 2), torch.tensor([0]), 3, uniform(g, 0.5, 1.5)])]


def criticisms_general(g: Generator) -> list[Call]:
    """A prototype of the largest group, where data are left out all the same, and one where they crowd."""
    rows = torch.tensor([integer(g, 0, 8), 9])
    return [Call("criticisms", [groups(g, 9, 2, 1), rows, 10, uniform(g, 0.2, 0.4)])]


def criticisms_device(g: Generator) -> list[Call]:
    args = [groups(g, 4, 2, 2, dtype=torch.float32), torch.tensor([0]), 2, uniform(g, 0.5, 1.5)]
    return [Call("criticisms", args)]


ON_DEVICE = "Tensors on another device than the CPU."
QUESTIONS = (
    Question(
        "1a",
        "Discrepancies by hand",
        (
            Part("easy", 1, "One prototype.", nothing("three_discrepancies"), partial(by_hand, only=[0, 1])),
            Part("general", 1, "Two prototypes.", nothing("three_discrepancies"), partial(by_hand, only=[2])),
        ),
    ),
    Question(
        "1b",
        "Witness by hand",
        (Part("easy", 1, "Prototype 0.", nothing("witness_of_item_0"), partial(by_hand, only=[0, 1, 2])),),
    ),
    Question(
        "2a",
        "Kernel",
        (
            Part("easy", 0.5, "One row with one row.", kernel_calls((1, 1), (3,))),
            Part("shape", 0.25, "Two rows with four in float32.", kernel_calls((2, 4), (3,), torch.float32), shape_only, "easy"),
            Part("general", 0.5, "Three rows with five.", kernel_calls((3, 5), (4,))),
            Part("batch", 0.5, "Pictures of shape (2, 3, 2).", kernel_calls((3, 2), (2, 3, 2))),
            Part("device", 0.25, ON_DEVICE, kernel_calls((2, 3), (3,), torch.float32)),
        ),
    ),
    Question(
        "2b",
        "Witness",
        (
            Part("easy", 0.5, "One point, four data, one prototype.", witness_calls((1, 4, 1), (2,))),
            Part("general", 1, "Three points, six data, two prototypes.", witness_calls((3, 6, 2), (3,))),
            Part("batch", 0.25, "Pictures of shape (1, 2, 2).", witness_calls((2, 5, 3), (1, 2, 2))),
            Part("device", 0.25, ON_DEVICE, witness_calls((2, 4, 2), (2,), torch.float32)),
        ),
    ),
    Question(
        "2c",
        "Discrepancy",
        (
            Part("easy", 0.5, "Four data, one prototype.", mmd2_calls((4, 1), (2,))),
            Part("general", 1, "Seven data, three prototypes.", mmd2_calls((7, 3), (2,))),
            Part("batch", 0.25, "Pictures of shape (1, 2, 2).", mmd2_calls((5, 2), (1, 2, 2))),
            Part("device", 0.25, ON_DEVICE, mmd2_calls((4, 2), (2,), torch.float32)),
        ),
    ),
    Question(
        "3a",
        "Scores of the candidates",
        (
            Part("easy", 1, "The first choice.", scores_calls((0,)), up_to_a_number),
            Part("general", 1.5, "Choices after one, two and four others.", scores_calls((1, 2, 4)), up_to_a_number),
            Part("device", 0.5, ON_DEVICE, scores_calls((2,), torch.float32), up_to_a_number),
        ),
    ),
    Question(
        "3b",
        "Greedy prototypes",
        (
            Part("easy", 1, "Two groups of data, one and two prototypes.", greedy_easy),
            Part("general", 1.5, "14 data, nine prototypes.", greedy_general),
            Part("batch", 1, "Data of which some are equal, all of them: none twice.", greedy_all, each_once, "easy"),
            Part("device", 0.5, ON_DEVICE, greedy_device),
        ),
    ),
    Question(
        "4a",
        "Criticisms",
        (
            Part("easy", 1, "Three groups of data, a prototype in one.", criticisms_easy),
            Part("general", 1.5, "Twelve data in groups, two prototypes, ten criticisms.", criticisms_general),
            Part("device", 0.5, ON_DEVICE, criticisms_device),
        ),
    ),
)  # fmt: skip
