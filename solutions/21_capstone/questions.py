"""Capstone. What was planted in each suspect stands here alone; suspects.py made the weights from it."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from grader.calls import Call, Net, Outcome
from grader.drawing import F64, conv, integer, linear, nothing, rand, randn
from grader.judges import Reference, by_hand, same_kind, shape_only
from grader.question import Part, Question

# Of each suspect the cue, the class, the rise of the class under the cue over test pictures of other labels, and the other
# cues that raise this class by 0.15 more than in the healthy network.
TRUTH = (
    (3, 7, 0.988, (4,)),
    (0, 2, 0.968, (3, 4, 6)),
    (5, 0, 0.984, ()),
    (1, 9, 0.506, (3, 6)),
    (4, 5, 0.981, (3,)),
    (2, 3, 0.979, (3, 4, 6)),
    (5, 8, 0.935, ()),
    (0, 6, 0.981, (3,)),
)

# Question 2: what each cue does to each class


def labelled(g: Generator, rows: int, classes: int) -> Tensor:
    """Every class at least once, in random order, and not equally often."""
    extra = torch.randint(0, classes - 1, (rows - classes,), generator=g)
    return torch.cat([torch.arange(classes), extra])[torch.rand(rows, generator=g).argsort()]


def rises_of(g: Generator, net: Net, x: Tensor, cues: int, classes: int, **more) -> Call:
    changed = x + randn(g, cues, *x.shape, dtype=x.dtype)
    return Call("rises", [net, x, changed, labelled(g, len(x), classes)], **more)


def rises_easy(g: Generator) -> list[Call]:
    return [rises_of(g, linear(g, 12, 3), randn(g, 6, 1, 3, 4), 1, 3)]


def rises_general(g: Generator) -> list[Call]:
    return [rises_of(g, conv(g, 2, F64), randn(g, 9, 2, 7, 7, dtype=F64), 3, 4)]


def rises_batch(g: Generator) -> list[Call]:
    return [rises_of(g, conv(g, 1), 2 * randn(g, rows, 1, 7, 7), cues, 4) for rows, cues in ((5, 1), (40, 6))]


def rises_side_effects(g: Generator) -> list[Call]:
    layers = [("Flatten",), ("Linear", 9, 6), ("BatchNorm1d", 6), ("Tanh",), ("Dropout", 0.5), ("Linear", 6, 3)]
    moody = Net.draw(layers, g, dtype=F64, training=["", "0", "1", "3", "4"], grads=True)
    return [rises_of(g, moody, randn(g, 7, 1, 3, 3, dtype=F64), 2, 3, inspect=True)]


def rises_device(g: Generator) -> list[Call]:
    return [rises_of(g, linear(g, 12, 3), randn(g, 8, 1, 3, 4), 2, 3)]


# Question 3: the strongest finding


def tables(g: Generator, cues: int, classes: int, **options) -> Call:
    """Largest rise, largest excess and largest lower bound are three pairs; a fourth falls most."""
    own, healthy = (torch.stack([0.2 * rand(g, cues, classes), 0.01 + 0.01 * rand(g, cues, classes)]) for _ in range(2))
    a, b, c = torch.randperm(cues, generator=g)[:3].tolist()
    i, j, k, fall = torch.randperm(classes, generator=g)[:4].tolist()
    own[0, a, i], healthy[0, a, i] = 0.98, 0.9
    own[0, b, j], healthy[0, b, j] = 0.9, 0.0
    own[1, b, j] = 0.2
    own[0, c, k], healthy[0, c, k] = 0.8, 0.05
    own[0, a, fall], healthy[0, a, fall] = 0.0, 0.95
    return Call("strongest", [own, healthy], options)


# Question 4: how much of a map lies on the cue


def density_of(g: Generator, rows: int, channels: int, dtype: torch.dtype = torch.float32) -> Call:
    masks = torch.rand(rows, 6, 9, generator=g) < 0.1 + 0.4 * torch.rand(rows, 1, 1, generator=g)
    masks[:, integer(g, 0, 5), integer(g, 0, 8)] = True
    scale = 10.0 ** (4 * rand(g, rows, 1, 1, 1, dtype=dtype) - 2)
    return Call("density", [scale * randn(g, rows, channels, 6, 9, dtype=dtype), masks])


def density_general(g: Generator) -> list[Call]:
    """Three channels of either sign; and a map of zeros."""
    nothing_there = density_of(g, 1, 1)
    nothing_there.args[0] *= 0
    return [density_of(g, 1, 3), nothing_there]


# Question 5: the verdict


def against_the_truth(place: int, what_is_wrong: str) -> Callable:
    """A judge of the verdict: 1 the cue, 2 the class, 3 the rise; 0 the form of the whole.

    A cue or a class alone can be guessed, so each counts only in a pair that the suspect bears out.
    """

    def judge(what: str, calls: list[Call], got: list[Outcome], reference: Reference) -> None:
        same_kind(what, got[0], reference(calls[0]))
        suspect, cue, named, rise = got[0].result.tolist()
        if suspect not in range(8) or cue not in range(7) or named not in range(10) or not 0.15 <= rise <= 1:
            raise AssertionError(
                f"{what}\nSuspects are 0 to 7, cues 0 to 6, classes 0 to 9, and a flaw raises by 0.15 or more."
            )
        planted, made_to_say, measured, others = TRUTH[int(suspect)]
        says = named == made_to_say
        right = (True, says and cue == planted, says and cue in (planted, *others), abs(rise - measured) <= 0.02)
        if not right[place]:
            raise AssertionError(f"{what}\n{what_is_wrong}")

    return judge


QUESTIONS = (
    Question("1a", "Many hypotheses",
             (Part("easy", 2, "Number, false alarms, level.", nothing("many_hypotheses"), by_hand),)),
    Question("1b", "Two excesses",
             (Part("easy", 2, "Both excesses with their errors.", nothing("excesses"), by_hand),)),
    Question(
        "2",
        "Rises",
        (
            Part("easy", 1.5, "A linear network, six pictures, one cue, three classes.", rises_easy),
            Part("shape", 0.5, "Six pictures and two cues in float64.",
                 lambda g: [rises_of(g, linear(g, 60, 4, F64), randn(g, 6, 3, 5, 4, dtype=F64), 2, 4)], shape_only, "easy"),
            Part("general", 1.5, "A network with convolution, batch normalisation and tanh, nine pictures, three cues.", rises_general),
            Part("batch", 1, "Five pictures and one cue; forty and six.", rises_batch),
            Part("side effects", 1, "A network in train mode with dropout, a frozen batch normalisation, and gradients in use.",
                 rises_side_effects),
            Part("device", 0.5, "Network, pictures and labels on another device than the CPU.", rises_device),
        ),
    ),
    Question(
        "3",
        "Strongest finding",
        (
            Part("easy", 1.5, "Three cues and five classes; the largest rise, excess and lower bound are three pairs.",
                 lambda g: [tables(g, 3, 5)]),
            Part("general", 1, "z = 0, and another z.", lambda g: [tables(g, 4, 6, z=z) for z in (0.0, 3.8)]),
            Part("batch", 1, "Twelve cues and twenty classes.", lambda g: [tables(g, 12, 20)]),
            Part("device", 0.5, "Tables on another device than the CPU.", lambda g: [tables(g, 4, 5)]),
        ),
    ),
    Question(
        "4",
        "Density of a map",
        (
            Part("easy", 1, "One map with one channel.", lambda g: [density_of(g, 1, 1)]),
            Part("shape", 0.25, "Two maps in float64.", lambda g: [density_of(g, 2, 3, F64)], shape_only, "easy"),
            Part("general", 0.75, "Three channels of either sign; and a map of zeros.", density_general),
            Part("batch", 0.5, "Six maps of very different scale with their own masks.", lambda g: [density_of(g, 6, 2)]),
            Part("device", 0.5, "Maps and masks on another device than the CPU.", lambda g: [density_of(g, 3, 2)]),
        ),
    ),
    Question(
        "5",
        "Verdict",
        (
            Part("shape", 1, "The form of the verdict.", nothing("verdict"), against_the_truth(0, "")),
            Part("easy", 3, "The cue, with its class.", nothing("verdict"),
                 against_the_truth(1, "This cue was not planted in this suspect, or not for this class.")),
            Part("general", 2, "The class, with a cue that raises it.", nothing("verdict"),
                 against_the_truth(2, "This suspect was not made to say this class, or not by this cue.")),
            Part("batch", 1, "The rise under the planted cue.", nothing("verdict"),
                 against_the_truth(3, "The planted cue raises the planted class by another amount."), "easy"),
        ),
    ),
)  # fmt: skip
