"""Transformers: the graded questions."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Generator

from grader.calls import Call
from grader.drawing import F64, nothing, rand, randn
from grader.judges import ENTRY, by_hand, shape_only
from grader.question import Part, Question

F32 = torch.float32


def attention(
    layers: int, rows: int, heads: int, tokens: int, dtype: torch.dtype = F64
) -> Callable[[Generator], list[Call]]:
    return lambda g: [Call("rollout", [randn(g, layers, rows, heads, tokens, tokens).softmax(-1).to(dtype)])]


def product(*sizes: int, dtype: torch.dtype = F64, zeros: bool = False) -> Callable[[Generator], list[Call]]:
    """Factors above 0, so that no term is far larger than the sum; or an output that is 0 in places."""
    rows, first, inner, last = sizes

    def draw(g: Generator) -> list[Call]:
        a, b = 0.2 + rand(g, rows, first, inner, dtype=dtype), 0.2 + rand(g, rows, inner, last, dtype=dtype)
        relevance = randn(g, rows, first, last, dtype=dtype)
        if zeros:
            b[..., 0], relevance[..., 0] = 0, 0
            a[:, 0], relevance[:, 0] = 0, 0
        return [Call("half_to_first", [a, b, relevance])]

    return draw


def scored(*shape: int, dtype: torch.dtype = F64, masked: bool = False) -> Callable[[Generator], list[Call]]:
    def draw(g: Generator) -> list[Call]:
        scores, relevance = 2 * randn(g, *shape, dtype=dtype), randn(g, *shape, dtype=dtype)
        if masked:  # causal: each token reads itself and those before it
            later = torch.ones(shape[-2:]).triu(1).bool()
            scores, relevance = scores.masked_fill(later, -torch.inf), relevance.masked_fill(later, 0)
        return [Call("softmax_relevance", [scores, relevance])]

    return draw


def normed(*shape: int, dtype: torch.dtype = F64, plain: bool = False) -> Callable[[Generator], list[Call]]:
    """Results that stay away from 0: the relevance goes with y, as it does in a network."""

    def draw(g: Generator) -> list[Call]:
        x = 3 * randn(g, *shape, dtype=F64) + 1
        weight, bias = 0.5 + rand(g, 2, shape[-1], dtype=F64)
        if plain:
            weight, bias = torch.ones_like(weight), 0 * bias
        y = torch.nn.functional.layer_norm(x, shape[-1:], weight, bias)
        relevance = y * randn(g, *shape, dtype=F64)
        return [Call("norm_relevance", [each.to(dtype) for each in (x, weight, bias, relevance)])]

    return draw


def asked(*shapes: tuple[int, int], dtype: torch.dtype = F64) -> Callable[[Generator], list[Call]]:
    return lambda g: [Call("three_answers", [randn(g, *shape, dtype=dtype) for _ in range(2)]) for shape in shapes]


def asked_easy(g: Generator) -> list[Call]:
    return [Call("three_answers", [torch.zeros(1, 4), 1 + rand(g, 1, 4)])]


QUESTIONS = (
    Question(
        "1a",
        "Rollout by hand",
        (
            Part("easy", 1, "What the first token has.", nothing("rollout_by_hand"), partial(by_hand, only=[0], name=ENTRY)),
            Part("general", 1, "What the second token has.", nothing("rollout_by_hand"), partial(by_hand, only=[1], name=ENTRY)),
        ),
    ),
    Question(
        "1b",
        "Relevance by hand",
        (
            Part("easy", 1, "The values and the weights.", nothing("relevance_by_hand"), partial(by_hand, only=[0, 1], name=ENTRY)),
            Part("general", 1, "The scores.", nothing("relevance_by_hand"), partial(by_hand, only=[2], name=ENTRY)),
        ),
    ),
    Question(
        "2",
        "Attention rollout",
        (
            Part("easy", 1, "One layer, one head.", attention(1, 1, 1, 4)),
            Part("shape", 0.5, "Two layers, three inputs, float64.", attention(2, 3, 2, 5), shape_only, "easy"),
            Part("general", 1.5, "Three layers, four heads, one input.", attention(3, 1, 4, 6)),
            Part("batch", 0.5, "Two layers, three inputs, two heads.", attention(2, 3, 2, 5)),
            Part("device", 0.5, "Attention on another device than the CPU.", attention(2, 2, 3, 4, F32)),
        ),
    ),
    Question(
        "3",
        "A product",
        (
            Part("easy", 1, "One input, one row, one column.", product(1, 1, 4, 1)),
            Part("shape", 0.5, "Two inputs, matrices of shape (3, 4) and (4, 5).", product(2, 3, 4, 5), shape_only, "easy"),
            Part("general", 1, "One input; some entries of the product are 0.", product(1, 4, 3, 5, zeros=True)),
            Part("batch", 1, "Three inputs.", product(3, 4, 5, 6)),
            Part("device", 0.5, "Tensors on another device than the CPU.", product(2, 3, 4, 2, dtype=F32)),
        ),
    ),
    Question(
        "4",
        "A softmax",
        (
            Part("easy", 1, "One row of five scores.", scored(1, 5)),
            Part("shape", 0.5, "Scores of shape (2, 3, 4, 4) in float64.", scored(2, 3, 4, 4), shape_only, "easy"),
            Part("general", 1, "Masked scores: each token reads itself and those before it.", scored(4, 4, masked=True)),
            Part("batch", 1, "Two inputs, three heads, five tokens.", scored(2, 3, 5, 5)),
            Part("device", 0.5, "Scores on another device than the CPU.", scored(2, 4, dtype=F32)),
        ),
    ),
    Question(
        "5",
        "A LayerNorm",
        (
            Part("easy", 1, "One token of four numbers, weights 1, biases 0.", normed(1, 1, 4, plain=True)),
            Part("shape", 0.5, "Two inputs of three tokens with five numbers in float64.", normed(2, 3, 5), shape_only, "easy"),
            Part("general", 1.5, "One input of three tokens, with weights and biases.", normed(1, 3, 6)),
            Part("batch", 0.5, "Four inputs of two tokens.", normed(4, 2, 5)),
            Part("device", 0.5, "Tensors on another device than the CPU.", normed(2, 2, 4, dtype=F32)),
        ),
    ),
    Question(
        "6",
        "Read, used, missed",
        (
            Part("easy", 1, "Four tokens with equal scores.", asked_easy),
            Part("shape", 0.5, "Three inputs of five tokens in float64.", asked((3, 5)), shape_only, "easy"),
            Part("general", 2, "One input of two tokens, and one of six.", asked((1, 2), (1, 6))),
            Part("device", 0.5, "Tensors on another device than the CPU.", asked((2, 4), dtype=F32)),
        ),
    ),
)  # fmt: skip
