"""Title of the exercise: the hidden checks. Inputs are drawn anew for each student, results come from the solution."""

from torch import Generator

from grader.calls import Call
from grader.drawing import F64, randn
from grader.judges import shape_only
from grader.question import Part, Question

# Question 1: roughness


def easy(g: Generator) -> list[Call]:
    return [Call("roughness", [randn(g, 1, 1, 5, 4)])]


def shape(g: Generator) -> list[Call]:
    return [Call("roughness", [randn(g, 2, 3, 5, 4, dtype=F64)])]


def general(g: Generator) -> list[Call]:
    return [Call("roughness", [randn(g, 1, 3, 6, 5)])]


def batch(g: Generator) -> list[Call]:
    return [Call("roughness", [randn(g, 5, 2, 5, 7)])]


def side_effects(g: Generator) -> list[Call]:
    """With ``inspect`` the maps and the global random state are compared before and after."""
    return [Call("roughness", [randn(g, 2, 2, 5, 4)], inspect=True)]


def device(g: Generator) -> list[Call]:
    """A part of the kind "device" is tried on a simulated device."""
    return [Call("roughness", [randn(g, 2, 2, 5, 6)])]


# The points of a question are those of its check cells in the notebook, q1-check, or q1a-check and so on.
QUESTIONS = (
    Question(
        "1",
        "Roughness",
        (
            Part("easy", 1, "One map of 5 x 4 pixels.", easy),
            Part("shape", 0.5, "Two maps of shape (3, 5, 4) in float64.", shape, shape_only, "easy"),
            Part("general", 1, "One map with three channels of both signs.", general),
            Part("batch", 0.5, "Five maps.", batch),
            Part("side effects", 0.5, "Two maps, which must come back unchanged.", side_effects),
            Part("device", 0.5, "Maps on another device than the CPU.", device),
        ),
    ),
)
