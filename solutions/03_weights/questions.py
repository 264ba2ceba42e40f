"""Weights and what units respond to: the graded questions."""

from functools import partial

import torch
from torch import Generator, Tensor

from grader.calls import Call
from grader.drawing import F64, integer, nothing, randn
from grader.judges import by_hand, shape_only
from grader.question import Part, Question

# Question 2: filters as pictures


def filters_easy(g: Generator) -> list[Call]:
    return [Call("filter_pictures", [randn(g, 1, 1, 2, 3)])]


def filters_shape(g: Generator) -> list[Call]:
    return [Call("filter_pictures", [randn(g, 5, 3, 2, 4, dtype=F64)])]


def filters_general(g: Generator) -> list[Call]:
    weight = randn(g, 6, 3, 5, 5, dtype=F64) * torch.tensor([1.0, 0.1, 0.5, 2.0, 0.0, 1.0]).view(6, 1, 1, 1)
    calls = [Call("filter_pictures", [w]) for w in (weight, -weight.abs(), torch.zeros(2, 1, 3, 3))]
    return [*calls, Call("filter_pictures", [weight], gradients=True, inspect=True)]


def filters_device(g: Generator) -> list[Call]:
    return [Call("filter_pictures", [randn(g, 4, 1, 3, 3)])]


# Question 3: receptive field


def stack(g: Generator, depth: int) -> list[list[int]]:
    """Layers [kernel, stride, padding, dilation]; no two neighbours alike."""
    return [[integer(g, 2, 6), integer(g, 1, 3), integer(g, 0, 3), integer(g, 1, 3)] for _ in range(depth)]


def field_easy(g: Generator) -> list[Call]:
    return [Call("receptive_field", [[[integer(g, 2, 9), integer(g, 1, 4), integer(g, 1, 4), 1]]])]


def field_general(g: Generator) -> list[Call]:
    return [Call("receptive_field", [stack(g, depth)]) for depth in (1, 2, 3, 5)]


# Question 4: top places and patches


def places_easy(g: Generator) -> list[Call]:
    maps = randn(g, integer(g, 3, 6), 1, 3, 4)
    maps[:, :, -1] += 5  # the highest is in the last row, where the width of the map matters
    return [Call("top_places", [maps, 1])]


def places_shape(g: Generator) -> list[Call]:
    return [Call("top_places", [randn(g, 6, 3, 2, 5, dtype=F64), 4])]


def places_general(g: Generator) -> list[Call]:
    maps = randn(g, 12, 5, 4, 7, dtype=F64)
    maps[integer(g, 0, 11)] += 5  # one image that would fill all ranks
    return [Call("top_places", [maps, k]) for k in (1, 9)]


def places_device(g: Generator) -> list[Call]:
    return [Call("top_places", [randn(g, 5, 2, 4, 3), 3])]


def chosen(g: Generator, images: int, rows: int, columns: int, count: int) -> Tensor:
    return torch.stack([torch.randint(n, (count,), generator=g) for n in (images, rows, columns)], 1)


def cut_easy(g: Generator) -> list[Call]:
    return [Call("cut", [randn(g, 1, 1, 8, 9), chosen(g, 1, 3, 3, 1), 3, 2, 0])]


def cut_shape(g: Generator) -> list[Call]:
    return [Call("cut", [randn(g, 2, 3, 7, 6, dtype=F64), chosen(g, 2, 3, 3, 4), 3, 1, 0])]


def cut_general(g: Generator) -> list[Call]:
    """Fields that reach beyond the image on every side, and one larger than the image."""
    corners = torch.cartesian_prod(torch.zeros(1, dtype=torch.long), torch.tensor([0, 3]), torch.tensor([0, 4]))
    x = randn(g, 1, 2, 8, 10, dtype=F64)
    return [Call("cut", [x, corners, size, 2, start]) for size, start in ((5, -2), (4, -1), (15, -6))]


def cut_batch(g: Generator) -> list[Call]:
    return [Call("cut", [randn(g, 5, 2, 9, 9, dtype=F64), chosen(g, 5, 4, 4, 7), 4, 2, -1])]


def cut_device(g: Generator) -> list[Call]:
    return [Call("cut", [randn(g, 2, 1, 6, 6), chosen(g, 2, 3, 3, 2), 3, 2, -1])]


# Question 5: projection


def network(g: Generator, images: int, dtype: torch.dtype = F64, *, even: bool = False) -> list:
    """Images of two channels with the weights of two convolutions, and a unit that is active in them."""
    size = (10, 12) if even else (9, 11)
    x, w1, b1 = randn(g, images, 2, *size, dtype=dtype), randn(g, 4, 2, 3, 3, dtype=dtype), randn(g, 4, dtype=dtype)
    return [x, w1, b1, 0.4 + randn(g, 3, 4, 3, 3, dtype=dtype), 20 + randn(g, 3, dtype=dtype), integer(g, 0, 2)]


def project_easy(g: Generator) -> list[Call]:
    """Without negative numbers nothing is rectified, and all sizes are even."""
    args = network(g, 1, even=True)
    return [Call("project", [*map(Tensor.abs, args[:5]), args[5]])]


def project_shape(g: Generator) -> list[Call]:
    return [Call("project", network(g, 2, even=True))]


def project_general(g: Generator) -> list[Call]:
    return [Call("project", network(g, 1), {"padding": padding}) for padding in (0, 1, 2)]


def project_batch(g: Generator) -> list[Call]:
    return [Call("project", network(g, 5), {"padding": 1})]


def project_side_effects(g: Generator) -> list[Call]:
    """A unit that is active in no image; and one that is, with a look at what the call leaves behind."""
    silent = network(g, 2)
    silent[4] = silent[4] - 1000
    return [Call("project", silent), Call("project", network(g, 2), inspect=True)]


def project_device(g: Generator) -> list[Call]:
    return [Call("project", network(g, 2, torch.float32, even=True))]


QUESTIONS = (
    Question(
        "1a",
        "Favourite patches",
        (
            Part(
                "easy", 1, "The best patch of length 1.", nothing("favourites"), partial(by_hand, only=[0], name="pixel {i}")
            ),
            Part(
                "general", 1, "The best patch in [0, 1].", nothing("favourites"), partial(by_hand, only=[1], name="pixel {i}")
            ),
        ),
    ),
    Question(
        "1b",
        "Fields of view",
        (
            Part(
                "easy", 1, "Sides after the four layers, from 0.", nothing("sides"), partial(by_hand, name="layer {i}")
            ),
        ),
    ),
    Question(
        "2",
        "Filters as pictures",
        (
            Part("easy", 1, "One filter of 2 x 3 pixels.", filters_easy),
            Part("shape", 0.5, "Five filters of shape (3, 2, 4) in float64.", filters_shape, shape_only, "easy"),
            Part("general", 1, "Filters of unequal strength, filters without a positive weight, filters of zeros; and the weights "
                 "of a layer, which require a gradient and must stay as they were.",
                 filters_general),
            Part("device", 0.5, "Weights on another device than the CPU.", filters_device),
        ),
    ),
    Question(
        "3",
        "Receptive field",
        (
            Part("easy", 1, "One layer without dilation.", field_easy),
            Part("general", 3, "Stacks of 1, 2, 3 and 5 layers.", field_general),
        ),
    ),
    Question(
        "4a",
        "Places of the highest activations",
        (
            Part("easy", 1, "One map per image, k = 1.", places_easy),
            Part("shape", 0.5, "Six images with three maps of 2 x 5 in float64, k = 4.", places_shape, shape_only, "easy"),
            Part("general", 1, "Twelve images, five maps, k = 1 and 9; one image is brighter than all others.",
                 places_general),
            Part("device", 0.5, "Maps on another device than the CPU.", places_device),
        ),
    ),
    Question(
        "4b",
        "Patches",
        (
            Part("easy", 1, "One field inside the image.", cut_easy),
            Part("shape", 0.5, "Four patches of two images with three channels in float64.", cut_shape, shape_only, "easy"),
            Part("general", 1, "Fields that reach beyond the image on each side.", cut_general),
            Part("batch", 1, "Seven patches of five images.", cut_batch),
            Part("device", 0.5, "Images on another device than the CPU.", cut_device),
        ),
    ),
    Question(
        "5",
        "Projection",
        (
            Part("easy", 1, "Images and weights without a negative number.", project_easy),
            Part("shape", 0.5, "Two images in float64.", project_shape, shape_only, "easy"),
            Part("general", 2.5, "Random weights and biases, sides of odd length, padding 0, 1 and 2.", project_general),
            Part("batch", 1, "Five images, each with its own strongest place.", project_batch),
            Part("side effects", 1, "A unit that is not active; images, weights and random state must stay as they are.",
                 project_side_effects, needs="easy"),
            Part("device", 1, "Images and weights on another device than the CPU.", project_device),
        ),
    ),
)  # fmt: skip
