"""Two small networks that read sentences, how they are trained, and their trained weights.

Both are ``nn.Sequential(words, ...)``: methods that differentiate take ``model[1:]``, from embeddings to logits, and
``x = model[0](tokens).detach()``. ``python -m interp_lab.sentence_networks`` trains both from nothing, prints their
accuracies and writes their weights into the package.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .data import VOCABULARY, Sentences, sentences
from .data.drawn_sentences import LENGTH, VERDICTS
from .networks import accuracy, train, vision_transformer
from .weights import load_weights, save_weights


class Words(nn.Embedding):
    """Tokens ``(N, T)`` as embeddings ``(N, D, 1, T)``: a picture of D channels that is one pixel high."""

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens).mT[:, :, None]


class Recurrent(nn.Module):
    """An LSTM in both directions: from ``(N, D, 1, T)`` to its two last states, ``(N, 2 hidden)``."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        _, (last, _) = self.lstm(x.flatten(2).mT)
        return torch.cat([last[0], last[1]], 1)


def sentence_transformer(width: int = 24) -> nn.Sequential:
    """A transformer of two blocks on the words of sentences ``(N, 10)``."""
    words = Words(len(VOCABULARY), width)
    model = vision_transformer(words, width=width, places=LENGTH, depth=2, classes=len(VERDICTS))
    nn.init.normal_(words.weight, std=0.5)  # words and places of one size, so that what stands where can be learned
    nn.init.normal_(model.get_parameter("1.positions"), std=0.5)
    return model


def sentence_lstm(width: int = 24) -> nn.Sequential:
    """An LSTM in both directions on the words of ``(N, T)``; the logits are linear in its two last states."""
    words, head = Words(len(VOCABULARY), width), nn.Linear(2 * width, len(VERDICTS))
    return nn.Sequential(words, Recurrent(width, width), head)


TRAINED: dict[str, Callable[[], nn.Sequential]] = {
    "sentences_transformer": sentence_transformer,
    "sentences_lstm": sentence_lstm,
}


def trained(name: str, data: Sentences, seed: int = 0) -> nn.Sequential:
    """A network of ``TRAINED`` that has learned these sentences, which takes some seconds.

    Raises:
        ValueError: unknown name.

    >>> trained("sentences_lstm", sentences(128))[0](sentences(2).tokens).shape
    torch.Size([2, 24, 1, 10])
    """
    _check(name)
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(seed)
        model = TRAINED[name]()
    train(model, data, epochs=16, lr=1e-2, batch_size=128, weight_decay=0.05, seed=seed, progress=False)
    return model


def load(name: str) -> nn.Sequential:
    """``"sentences_transformer"`` or ``"sentences_lstm"``, trained, in eval mode, from the weights that come with the package.

    Raises:
        ValueError: unknown name.

    >>> model, data = load("sentences_lstm"), sentences(100, seed=3)
    >>> accuracy(model, data) > 0.97
    True
    """
    _check(name)
    with torch.random.fork_rng([]):  # the random weights that are overwritten here
        model = TRAINED[name]()
    model.load_state_dict(load_weights(name))
    return model.eval()


def _check(name: str) -> None:
    if name not in TRAINED:
        raise ValueError(f"no network {name!r} for sentences; there are {', '.join(TRAINED)}")


def _main() -> None:
    """Train both networks, print their accuracies, write their weights in half precision."""
    for name in TRAINED:
        save_weights(name, trained(name, sentences(10_000, seed=1)).state_dict(), torch.float16)
        print(f"{name:22} accuracy {accuracy(load(name), sentences(4000, seed=2)):.4f}", flush=True)


if __name__ == "__main__":
    _main()
