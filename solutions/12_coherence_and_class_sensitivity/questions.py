"""Coherence and class sensitivity.

Masks are drawn as rectangles and maps as noise, so that every score has a value of its own that no constant answer has.
"""

import torch
from torch import Generator, Tensor

from grader.calls import Call
from grader.drawing import F64, integer, nothing, randn, uniform
from grader.judges import by_hand, shape_only
from grader.question import Part, Question


def boxes(g: Generator, rows: int, height: int, width: int) -> Tensor:
    """A rectangle in each picture, at least 2 x 2 pixels and at least one pixel smaller than the picture."""
    masks = torch.zeros(rows, height, width, dtype=torch.bool)
    for mask in masks:
        top, left = integer(g, 0, height - 3), integer(g, 0, width - 3)
        mask[top : integer(g, top + 2, height - 1), left : integer(g, left + 2, width - 1)] = True
    return masks


# Question 2: the pointing game


def maps_pointing(g: Generator, masks: Tensor, distances: list[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Negative maps whose maximum lies so many rows or columns from the mask (0: inside)."""
    maps = -1 - torch.rand(masks.shape, generator=g, dtype=F64)
    for map_, mask, distance in zip(maps, masks, distances, strict=True):
        far, near = mask, torch.zeros_like(mask)
        for _ in range(distance):
            near, far = far, grown(far)
        places = (far & ~near).nonzero()
        y, x = places[integer(g, 0, len(places) - 1)].tolist()
        map_[y, x] = -0.5
    return maps.to(dtype)


def grown(mask: Tensor) -> Tensor:
    """The mask and all that touches it, corners included."""
    ys, xs = mask.nonzero().unbind(1)
    result = mask.clone()
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            result[(ys + dy).clamp(0, mask.shape[0] - 1), (xs + dx).clamp(0, mask.shape[1] - 1)] = True
    return result


def middle(rows: int, size: int) -> Tensor:
    masks = torch.zeros(rows, size, size, dtype=torch.bool)
    masks[:, size // 2 - 1 : size // 2 + 1, size // 2 - 1 : size // 2 + 2] = True
    return masks


def pointing_easy(g: Generator) -> list[Call]:
    masks = middle(1, 9)
    return [Call("pointing_game", [maps_pointing(g, masks, [d]), masks], {"margin": 0}) for d in (0, 2)]


def pointing_shape(g: Generator) -> list[Call]:
    return [Call("pointing_game", [randn(g, 2, 4, 7, dtype=F64), boxes(g, 2, 4, 7)], {"margin": 1})]


def pointing_general(g: Generator) -> list[Call]:
    """Just within and just beyond margins of 1 to 3, and the margin that is not given."""
    masks = middle(1, 13)
    calls = [
        Call("pointing_game", [maps_pointing(g, masks, [d]), masks], {"margin": m})
        for m in (1, 2, 3)
        for d in (m, m + 1)
    ]
    return calls + [Call("pointing_game", [maps_pointing(g, masks, [d]), masks]) for d in (1, 2)]


def pointing_batch(g: Generator) -> list[Call]:
    """Maps of different scales; then few values, so that every map has several maxima."""
    masks = middle(6, 11)
    maps = maps_pointing(g, masks, [0, 1, 2, 3, 2, 0]) * torch.tensor([1, 9, 0.1, 3, 20, 1]).view(6, 1, 1)
    ties = torch.randint(0, 4, (4, 6, 7), generator=g).double()
    ties[0] = 0.25
    return [
        Call("pointing_game", [maps, masks], {"margin": 2}),
        Call("pointing_game", [ties, boxes(g, 4, 6, 7)], {"margin": 0}),
    ]


def pointing_device(g: Generator) -> list[Call]:
    masks = middle(3, 9)
    return [Call("pointing_game", [maps_pointing(g, masks, [0, 1, 2]), masks], {"margin": 1})]


# Question 3: relevance mass above chance


def mass_easy(g: Generator) -> list[Call]:
    mask = boxes(g, 1, 5, 6)
    return [Call("mass_above_chance", [map_, mask]) for map_ in (randn(g, 1, 1, 5, 6).abs(), 3.0 * mask[:, None])]


def mass_shape(g: Generator) -> list[Call]:
    return [Call("mass_above_chance", [randn(g, 2, 3, 4, 7, dtype=F64), boxes(g, 2, 4, 7)])]


def mass_general(g: Generator) -> list[Call]:
    """Three channels of both signs; and a map that is zero everywhere."""
    mask = boxes(g, 1, 6, 5)
    return [Call("mass_above_chance", [map_, mask]) for map_ in (randn(g, 1, 3, 6, 5), torch.zeros(1, 3, 6, 5))]


def mass_batch(g: Generator) -> list[Call]:
    maps = randn(g, 4, 2, 6, 6, dtype=F64) * torch.tensor([1, 100, 0.01, 5]).view(4, 1, 1, 1)
    return [Call("mass_above_chance", [maps, boxes(g, 4, 6, 6)], inspect=True)]


def mass_device(g: Generator) -> list[Call]:
    return [Call("mass_above_chance", [randn(g, 2, 3, 5, 5), boxes(g, 2, 5, 5)])]


# Question 4: rank correlation


def rank_easy(g: Generator) -> list[Call]:
    a, b = randn(g, 1, 12), randn(g, 1, 12)
    return [Call("rank_correlation", [a, other]) for other in (b, a**3 + 1, -a)]


def rank_shape(g: Generator) -> list[Call]:
    return [Call("rank_correlation", [randn(g, 2, 3, 4, 5, dtype=F64) for _ in range(2)])]


def ties(g: Generator, *shape: int) -> Tensor:
    """A few distinct values, half of them 0."""
    return (randn(g, *shape).clamp(min=0) * 3).round()


def rank_general(g: Generator) -> list[Call]:
    constant = torch.full((1, 5, 6), uniform(g, 1, 2))
    a, b = ties(g, 1, 5, 6), ties(g, 1, 5, 6)
    return [Call("rank_correlation", pair) for pair in ([a, b], [a, constant], [constant, 2 * constant])] + [
        Call("rank_correlation", [ties(g, 1, 40), a.new_tensor(range(40))[None] ** 2])
    ]


def rank_batch(g: Generator) -> list[Call]:
    a = randn(g, 5, 2, 4, 4)
    scales = torch.tensor([1, 50, -1, 0.02, 3]).view(5, 1, 1, 1)
    return [Call("rank_correlation", [a, (a + randn(g, 5, 2, 4, 4)) * scales + scales])]


def rank_device(g: Generator) -> list[Call]:
    return [Call("rank_correlation", [ties(g, 2, 3, 7), ties(g, 2, 3, 7)])]


# Question 5: does the relevance follow the question?


def halves(rows: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Two disjoint masks of different area in every picture, A the smaller one."""
    first, second = (torch.zeros(rows, height, width, dtype=torch.bool) for _ in range(2))
    first[:, 1:3, 1:3] = second[:, 1 : height - 1, 4:] = True
    return first, second


def seen(g: Generator, strength: list[tuple[float, float]], dtype: torch.dtype = torch.float32) -> Tensor:
    """Maps with a mean positive relevance near these on A and on B, strong negative relevance in between."""
    first, second = halves(len(strength), 6, 8)
    level = torch.tensor(strength, dtype=F64)
    maps = level[:, :1, None] * first + level[:, 1:, None] * second
    maps *= 0.98 + 0.04 * torch.rand(maps.shape, generator=g, dtype=F64)
    return (maps - 5.0 * ~(first | second)).to(dtype)


def asked(g: Generator, for_a: list, for_b: list, dtype: torch.dtype = torch.float32, **more) -> Call:
    return Call("follows", [seen(g, for_a, dtype), seen(g, for_b, dtype), *halves(len(for_a), 6, 8)], **more)


def follows_easy(g: Generator) -> list[Call]:
    a, b = (uniform(g, 1, 2), 0.0), (0.0, uniform(g, 1, 2))
    return [asked(g, [x], [y]) for x, y in ((a, b), (b, a), (a, a))]


def follows_shape(g: Generator) -> list[Call]:
    return [asked(g, [(1.0, 0.0)] * 2, [(0.0, 1.0)] * 2, F64)]


def follows_general(g: Generator) -> list[Call]:
    """More per pixel on A, more in sum on B; evidence against; only one answer right; zeros; two scales; a torn object."""
    low, high = uniform(g, 0.6, 0.8), 1.0
    cases = [((high, low), (0.2, 1.0)), ((1.0, -9.0), (-9.0, 1.0)), ((1.0, 0.5), (1.0, 0.9)), ((0.0, 0.0), (0.0, 1.0))]
    torn = asked(g, [(1.0, 0.4)], [(30.0, 90.0)])
    torn.args[0][:, 1, 1] = -9.0
    return [asked(g, [a], [b]) for a, b in cases] + [torn]


def follows_batch(g: Generator) -> list[Call]:
    right, wrong = (1.0, 0.3), (0.3, 1.0)
    return [asked(g, [right, wrong, right, wrong, right], [wrong, right, right, wrong, wrong])]


def follows_device(g: Generator) -> list[Call]:
    return [asked(g, [(1.0, 0.3), (0.3, 1.0)], [(0.3, 1.0), (0.3, 1.0)])]


QUESTIONS = (
    Question(
        "1a",
        "Scores by hand",
        (Part("easy", 2, "Pointing game, relevance mass and chance level of R and M.", nothing("toy_scores"), by_hand),),
    ),
    Question(
        "1b",
        "Rank correlations by hand",
        (Part("easy", 2, "Rank correlation of a and b, and of a and -a.", nothing("toy_correlations"), by_hand),),
    ),
    Question(
        "2",
        "Pointing game with a margin",
        (
            Part("easy", 1, "One map with one maximum, margin 0: in the mask, and two pixels away.", pointing_easy),
            Part("shape", 0.5, "Two maps of shape (4, 7) in float64.", pointing_shape, shape_only, "easy"),
            Part("general", 1.5, "One map, margins 1 to 3, the maximum just within and just beyond; and the margin that is "
                 "not given.", pointing_general),
            Part("batch", 1.5, "Six maps of different scales, then four with several maxima each.", pointing_batch),
            Part("device", 0.5, "Maps and masks on another device than the CPU.", pointing_device),
        ),
    ),
    Question(
        "3",
        "Relevance mass above chance",
        (
            Part("easy", 1.5, "One positive map with one channel; and the mask itself.", mass_easy),
            Part("shape", 0.5, "Two maps of shape (3, 4, 7) in float64.", mass_shape, shape_only, "easy"),
            Part("general", 1.5, "Three channels of both signs; and a map of zeros.", mass_general),
            Part("batch", 1, "Four maps of different scales with their own masks, which must come back unchanged.", mass_batch),
            Part("device", 0.5, "Maps and masks on another device than the CPU.", mass_device),
        ),
    ),
    Question(
        "4",
        "Rank correlation",
        (
            Part("easy", 1.5, "Two rows of 12 values without ties; the same order; the opposite order.", rank_easy),
            Part("shape", 0.5, "Two rows of shape (3, 4, 5) in float64.", rank_shape, shape_only, "easy"),
            Part("general", 2, "Rows with many equal values; constant rows.", rank_general),
            Part("batch", 1.5, "Five rows of different scale and sign.", rank_batch),
            Part("device", 0.5, "Both maps on another device than the CPU.", rank_device),
        ),
    ),
    Question(
        "5",
        "Does the relevance follow the question?",
        (
            Part("easy", 1, "Each map on its own object; on the other one; the same map twice.", follows_easy),
            Part("shape", 0.5, "Two scenes in float64.", follows_shape, shape_only, "easy"),
            Part("general", 1.5, "Objects of different size, negative relevance, one right answer of two, a map of zeros.",
                 follows_general),
            Part("batch", 0.5, "Five scenes, each with its own result.", follows_batch),
            Part("device", 0.5, "Maps and masks on another device than the CPU.", follows_device),
        ),
    ),
)  # fmt: skip
