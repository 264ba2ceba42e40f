"""What methods say of the words of a sentence, and what it is measured with: for the page on text and for its claims."""

from functools import partial

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


def by_shapley(model: nn.Module, x: Tensor, target: Tensor, baseline: Tensor) -> Tensor:
    """Every word is a player."""
    return shapley(model, x, target, players=torch.arange(x.shape[3])[None], baseline=baseline)


def by_lrp(model: nn.Module, x: Tensor, target: Tensor, baseline: Tensor, attention: str = "attnlrp") -> Tensor:
    """It has no baseline, as gradient times input has none."""
    return lrp(model, x, target, rule="epsilon", attention=attention)


def by_gradient_x_input(model: nn.Module, x: Tensor, target: Tensor, baseline: Tensor) -> Tensor:
    return gradient_x_input(model, x, target)


def by_path(model: nn.Module, x: Tensor, target: Tensor, baseline: Tensor) -> Tensor:
    return integrated_gradients(model, x, target, baseline=baseline, steps=64)


def by_deeplift(model: nn.Module, x: Tensor, target: Tensor, baseline: Tensor) -> Tensor:
    return deeplift(model, x, target, baseline=baseline)


OF_WORDS = {
    "gradient x input": by_gradient_x_input,
    "integrated gradients": by_path,
    "DeepLIFT": by_deeplift,
    "AttnLRP": by_lrp,
    "CP-LRP": partial(by_lrp, attention="cp_lrp"),
    "Shapley": by_shapley,
}


def deciding(data: Sentences) -> tuple[Tensor, Tensor]:
    """The judgements that decide, as bool ``(N, T)``: those that stand alone, and those that a "not" turns."""
    judgement = data.masks["evidence"] & torch.isin(data.tokens, torch.tensor(JUDGEMENTS))
    behind = torch.zeros_like(judgement)
    behind[:, 1:] = data.tokens[:, :-1] == NOT
    return judgement & ~behind, judgement & behind
