"""What methods say of the words of a sentence, and what it is measured with: for the page on text and for its claims."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from interp_lab import deeplift, gradient_x_input, integrated_gradients, lrp, shapley
from interp_lab.data import VOCABULARY, Sentences
from interp_lab.data.drawn_sentences import BAD, BUT, GOOD, NEUTRAL, NOT

JUDGEMENTS = [VOCABULARY.index(word) for word in GOOD + BAD]
LISTED = [NOT, BUT, *JUDGEMENTS]


def neutral(model: nn.Sequential, x: Tensor, kind: str = "a neutral word") -> Tensor:
    """What stands in for the embeddings x ``(N, D, 1, T)`` of every word."""
    words = model[0].weight.detach()[: len(NEUTRAL)]
    start = {"a neutral word": words[0], "their mean": words.mean(0), "zero": torch.zeros_like(words[0])}[kind]
    return start[:, None, None].expand_as(x)


OF_WORDS: dict[str, Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]] = {
    "gradient x input": lambda model, x, target, start: gradient_x_input(model, x, target),
    "integrated gradients": lambda model, x, target, start: integrated_gradients(
        model, x, target, baseline=start, steps=64
    ),
    "DeepLIFT": lambda model, x, target, start: deeplift(model, x, target, baseline=start),
    "AttnLRP": lambda model, x, target, start: lrp(model, x, target, rule="epsilon"),
    "CP-LRP": lambda model, x, target, start: lrp(model, x, target, rule="epsilon", attention="cp_lrp"),
    "Shapley": lambda model, x, target, start: shapley(
        model, x, target, players=torch.arange(x.shape[3])[None], baseline=start
    ),
}


def deciding_words(data: Sentences) -> tuple[Tensor, Tensor]:
    """The judgements that decide, as bool ``(N, T)``: those that stand alone, and those that a "not" turns."""
    judgement = data.masks["evidence"] & torch.isin(data.tokens, torch.tensor(JUDGEMENTS))
    behind = torch.zeros_like(judgement)
    behind[:, 1:] = data.tokens[:, :-1] == NOT
    return judgement & ~behind, judgement & behind
