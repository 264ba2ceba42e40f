"""Selectivity. Orders without ties have one right answer; ties and random curves a law."""

from collections.abc import Callable
from itertools import combinations

import torch
from torch import Generator, Tensor

from grader.calls import Call, Net, Outcome
from grader.drawing import F64, conv, integer, linear, nothing, randn, targets, uniform
from grader.judges import Reference, by_hand, repeatable, same_kind, shape_only
from grader.question import Part, Question
from interp_lab import check


def orders(g: Generator, rows: int, pixels: int) -> Tensor:
    return torch.rand(rows, pixels, generator=g, dtype=F64).argsort(dim=1)


# Question 2: the order of removal


def order_easy(g: Generator) -> list[Call]:
    return [Call("removal_order", [randn(g, 1, 1, 4, 5)])]


def order_shape(g: Generator) -> list[Call]:
    return [Call("removal_order", [randn(g, 2, 3, 4, 6, dtype=F64)])]


def order_general(g: Generator) -> list[Call]:
    seed, fine = {"seed": integer(g, 0, 99)}, 10.0 ** -orders(g, 1, 20).view(1, 1, 5, 4).float()  # from 1 to 1e-19
    return [Call("removal_order", [maps], seed) for maps in (randn(g, 1, 3, 6, 5), fine)]


def order_batch(g: Generator) -> list[Call]:
    return [Call("removal_order", [randn(g, 5, 2, 4, 4) * torch.tensor([1, -50, 0.02, 3, 7]).view(5, 1, 1, 1)])]


def order_side_effects(g: Generator) -> list[Call]:
    """Half of the pixels have no relevance, the others 1; twice with one seed, once with another."""
    maps, seed = torch.zeros(2, 1, 100, dtype=F64), integer(g, 1, 999)
    maps[:, :, torch.randperm(100, generator=g)[:50]] = 1.0
    return [Call("removal_order", [maps.view(2, 1, 10, 10)], {"seed": s}, inspect=True) for s in (seed, seed, seed + 1)]


def random_ties(what: str, calls: list[Call], got: list[Outcome], reference: Reference) -> None:
    """Relevant pixels first, equal ones at random, and nothing else changed.

    Of 198 steps to the next pixel, some 4 go to a neighbour of the pixel in a random order; more than 30 never do.
    """
    repeatable(what, calls, got, reference)
    for call, outcome in zip(calls, got, strict=True):
        order, relevance = outcome.result, call.args[0].sum(1).flatten(1)
        check.close(
            order.sort(dim=1).values, torch.arange(100).expand(2, 100), f"{what}\nEach row must name each pixel once."
        )
        check.close(
            relevance.gather(1, order),
            relevance.sort(dim=1, descending=True).values,
            f"{what}\nThe relevances in your order.",
        )
        given = f"{what}\nHow often your order goes on with a neighbour in reading order."
        check.within((order.diff(dim=1).abs() == 1).sum().item(), 0, 30, given)


def order_device(g: Generator) -> list[Call]:
    return [Call("removal_order", [randn(g, 2, 2, 4, 4)])]


# Question 3: removing pixels


def remove_easy(g: Generator) -> list[Call]:
    x, order = randn(g, 1, 1, 3, 4), orders(g, 1, 12)
    return [Call("remove", [x, order, k], {"fill": fill}) for k, fill in ((5, None), (4, uniform(g, 2, 3)))]


def remove_shape(g: Generator) -> list[Call]:
    return [Call("remove", [randn(g, 2, 3, 5, 4, dtype=F64), orders(g, 2, 20), 7])]


def remove_general(g: Generator) -> list[Call]:
    """Three channels: a few pixels, none, all, and all of them black."""
    x, order = randn(g, 1, 3, 4, 5), orders(g, 1, 20)
    return [Call("remove", [x, order, k], {"fill": fill}) for k, fill in ((6, None), (0, None), (20, None), (20, 0.0))]


def remove_batch(g: Generator) -> list[Call]:
    x = randn(g, 4, 2, 4, 4, dtype=F64) * torch.tensor([1, 10, 0.1, 3]).view(4, 1, 1, 1) + 1
    return [Call("remove", [x, orders(g, 4, 16), 6], inspect=True)]


def remove_device(g: Generator) -> list[Call]:
    return [Call("remove", [randn(g, 2, 2, 4, 4), orders(g, 2, 16), 5], {"fill": f}) for f in (None, 0.5)]


# Question 4: the curve


def curve_of(g: Generator, net: Net, x: Tensor, classes: int, steps: int, fill: float | None, **more) -> Call:
    args = [net, x, orders(g, len(x), x[0, 0].numel()), targets(g, len(x), classes), steps]
    return Call("removal_curve", args, {"fill": fill}, **more)


def soft(net: Net) -> Net:
    """Logits of order 1, so that no probability is near 0 or 1."""
    last = max(name for name in net.state if name.endswith("weight"))
    net.state[last] = net.state[last] / net.state[last].norm(dim=1, keepdim=True)
    return net


def curve_easy(g: Generator) -> list[Call]:
    net = soft(linear(g, 12, 3))
    return [curve_of(g, net, randn(g, 1, 1, 3, 4), 3, steps, 0.0) for steps in (12, 4)]


def curve_shape(g: Generator) -> list[Call]:
    return [curve_of(g, soft(linear(g, 60, 4, F64)), randn(g, 2, 3, 5, 4, dtype=F64), 4, 5, 0.0)]


def curve_general(g: Generator) -> list[Call]:
    """A curved network, steps that do not divide the 49 pixels, mean colour and a number."""
    net = soft(conv(g, 2, F64))
    return [curve_of(g, net, randn(g, 1, 2, 7, 7, dtype=F64), 4, s, f) for s, f in ((10, None), (49, 0.5))]


def curve_batch(g: Generator) -> list[Call]:
    return [curve_of(g, soft(conv(g, 2)), randn(g, 5, 2, 7, 7), 4, 6, None)]


def curve_side_effects(g: Generator) -> list[Call]:
    layers = [("Flatten",), ("Linear", 9, 6), ("BatchNorm1d", 6), ("Tanh",), ("Dropout", 0.5), ("Linear", 6, 3)]
    moody = Net.draw(layers, g, dtype=F64, training=["", "0", "1", "3", "4"], grads=True)
    return [curve_of(g, moody, randn(g, 4, 1, 3, 3, dtype=F64), 3, 3, None, inspect=True)]


def curve_device(g: Generator) -> list[Call]:
    return [curve_of(g, soft(conv(g, 2)), randn(g, 2, 2, 7, 7), 4, 3, f) for f in (None, 0.5)]


# Question 5: the area, and chance beside it


def falls(g: Generator, rows: int, steps: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(rows, steps + 1, generator=g, dtype=F64).to(dtype)


def area_of(*sizes: tuple[int, int], dtype: torch.dtype = torch.float32) -> Callable[[Generator], list[Call]]:
    return lambda g: [Call("aopc", [falls(g, *size, dtype)]) for size in sizes]


DRAWS = 64


def random_of_four(g: Generator) -> list[Call]:
    """Four pixels, so that all choices of removed pixels can be counted."""
    seed = integer(g, 0, 999)
    net = Net([("Flatten",), ("Linear", 4, 3)], {})
    net.state = {"1.weight": 2 * randn(g, 3, 4), "1.bias": randn(g, 3)}
    args = [net, 1 + torch.rand(2, 1, 2, 2, generator=g, dtype=F64).float(), targets(g, 2, 3), 4]
    return [Call("random_curve", args, {"draws": DRAWS, "seed": seed, "fill": 0.0})]


def as_chance_allows(what: str, calls: list[Call], got: list[Outcome], reference: Reference) -> None:
    """Each entry is the mean of independent draws from all choices of k pixels; six standard errors are allowed."""
    for call, outcome in zip(calls, got, strict=True):
        net, x, target, _ = call.args
        same_kind(what, outcome, Outcome({"result": torch.zeros(2, 5)}, "Tensor"))
        for row in range(2):
            for k in range(5):
                pictures = x[row : row + 1].flatten(1).repeat(len(list(combinations(range(4), k))), 1)
                for picture, gone in zip(pictures, combinations(range(4), k), strict=True):
                    picture[list(gone)] = 0.0
                p = net.build()(pictures).softmax(1)[:, target[row]].detach()
                allowed = 6 * p.std(unbiased=False).item() / call.options["draws"] ** 0.5 + 1e-5
                given = f"{what}\nImage {row}, {k} of 4 pixels removed: your mean minus that over all choices of {k} pixels."
                check.within(outcome.result[row, k].item() - p.mean().item(), -allowed, allowed, given)


def random_shape(g: Generator) -> list[Call]:
    args = [soft(linear(g, 60, 4, F64)), randn(g, 2, 3, 5, 4, dtype=F64), targets(g, 2, 4), 5]
    return [Call("random_curve", args, {"draws": 2})]


def random_side_effects(g: Generator) -> list[Call]:
    layers = [("Flatten",), ("Linear", 25, 6), ("Tanh",), ("Dropout", 0.5), ("Linear", 6, 3)]
    net = Net.draw(layers, g, training=["", "3"])
    args, seed = [net, randn(g, 2, 1, 5, 5), targets(g, 2, 3), 5], integer(g, 1, 999)
    return [Call("random_curve", args, {"draws": 2, "seed": s}, inspect=True) for s in (seed, seed, seed + 1)]


QUESTIONS = (
    Question("1a", "Best order of a linear model",
             (Part("easy", 2, "The four pixels in the best order.", nothing("best_order"), by_hand),)),
    Question("1b", "Curve of the gradient's order",
             (Part("easy", 2, "The five scores of the curve.", nothing("gradient_curve"), by_hand),)),
    Question(
        "2",
        "Order of removal",
        (
            Part("easy", 1, "One map with one channel.", order_easy),
            Part("shape", 0.5, "Two maps of shape (3, 4, 6) in float64.", order_shape, shape_only, "easy"),
            Part("general", 1, "Three channels of both signs; and relevances that hardly differ.", order_general),
            Part("batch", 0.5, "Five maps of different scale and sign.", order_batch),
            Part("side effects", 1.5, "Two maps of zeros and ones, twice with one seed and once with another.", order_side_effects,
                 random_ties),
            Part("device", 0.5, "Maps on another device than the CPU.", order_device),
        ),
    ),
    Question(
        "3",
        "Removing pixels",
        (
            Part("easy", 1, "One picture with one channel: its mean, then a number.", remove_easy),
            Part("shape", 0.5, "Two pictures of shape (3, 5, 4) in float64.", remove_shape, shape_only, "easy"),
            Part("general", 1, "Three channels: some pixels, none, all, and all of them black.", remove_general),
            Part("batch", 1, "Four pictures of different scale with their own orders, which must come back unchanged.",
                 remove_batch),
            Part("device", 0.5, "Pictures and orders on another device than the CPU.", remove_device),
        ),
    ),
    Question(
        "4",
        "Removal curve",
        (
            Part("easy", 1.5, "A linear network, one picture, black pixels, one and three pixels a step.", curve_easy),
            Part("shape", 0.5, "Two pictures of shape (3, 5, 4) in float64.", curve_shape, shape_only, "easy"),
            Part("general", 1.5, "A network with convolution, batch normalisation and tanh, one picture of 49 pixels in 10 and "
                 "in 49 steps.", curve_general),
            Part("batch", 1, "The same kind of network, five pictures with their own orders and targets.", curve_batch),
            Part("side effects", 1, "A network in train mode with dropout, a frozen batch normalisation, and gradients in use.",
                 curve_side_effects),
            Part("device", 0.5, "Network, pictures and orders on another device than the CPU.", curve_device),
        ),
    ),
    Question(
        "5a",
        "Area over the curve",
        (
            Part("easy", 0.5, "One curve of five entries.", area_of((1, 4))),
            Part("shape", 0.25, "Two curves in float64.", area_of((2, 6), dtype=F64), shape_only, "easy"),
            Part("general", 0.5, "One curve of two entries and one of 51.", area_of((1, 1), (1, 50))),
            Part("batch", 0.5, "Six curves of eleven entries.", area_of((6, 10))),
            Part("device", 0.25, "Curves on another device than the CPU.", area_of((2, 5))),
        ),
    ),
    Question(
        "5b",
        "Mean curve of random orders",
        (
            Part("easy", 1, f"Two pictures of four pixels, {DRAWS} draws, against the mean over all choices.", random_of_four,
                 as_chance_allows),
            Part("shape", 0.5, "Two pictures of shape (3, 5, 4) in float64.", random_shape, shape_only, "easy"),
            Part("side effects", 1, "A network in train mode, two calls with one seed and one with another.", random_side_effects,
                 repeatable, "easy"),
            Part("device", 0.5, "Network and pictures on another device than the CPU.", random_of_four, as_chance_allows),
        ),
    ),
)  # fmt: skip
