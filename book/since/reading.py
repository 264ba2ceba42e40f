"""Sequences in which a mark tells where to look, and networks that read them: for the page on attention and for its claims."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from interp_lab import gradient_x_input
from interp_lab.networks import train


def sequences(n: int, seed: int, gap: int) -> SimpleNamespace:
    """Ten tokens of six random numbers. The first number marks a token; the second, ``gap`` tokens on, decides by its sign."""
    generator = torch.Generator().manual_seed(seed)
    x, place = torch.randn(n, 10, 6, generator=generator), torch.randint(1, 8, (n,), generator=generator)
    x[:, :, 0], rows = 0, torch.arange(n)
    x[rows, place, 0] = 1
    return SimpleNamespace(images=x, labels=(x[rows, place + gap, 1] > 0).long(), place=place)


class Reader(nn.Module):
    """A recurrent layer in both directions, and attention over what it gives."""

    def __init__(self, fixed: bool = False) -> None:
        super().__init__()
        self.fixed, self.context = fixed, nn.GRU(6, 24, batch_first=True, bidirectional=True)
        self.score, self.value = nn.Linear(48, 1), nn.Linear(48, 2)

    def attention(self, hidden: Tensor) -> Tensor:
        return (self.score(hidden) * (not self.fixed)).softmax(1)

    def forward(self, x: Tensor) -> Tensor:
        hidden, _ = self.context(x)
        return (self.attention(hidden) * self.value(hidden)).sum(1)


def trained_reader(learn: SimpleNamespace, fixed: bool, seed: int) -> Reader:
    torch.manual_seed(seed)
    reader = Reader(fixed)
    train(reader, learn, epochs=15, lr=2e-2, progress=False, seed=seed)
    return reader


def shares(reader: Reader, x: Tensor, blank: Tensor) -> dict[str, Tensor]:
    """Share of each token (N, 10) in three explanations; an ablation puts the token of ``blank`` in its place."""
    answers = reader(x).argmax(1)
    swapped = [torch.where((torch.arange(10) == t)[:, None], blank, x) for t in range(10)]
    logits = [reader(s).gather(1, answers[:, None])[:, 0] for s in (x, *swapped)]
    answer = {
        "attention": reader.attention(reader.context(x)[0])[..., 0],
        "gradient x input": gradient_x_input(reader, x, answers).sum(2).abs(),
        "ablation": torch.stack([(logits[0] - after).abs() for after in logits[1:]], 1),
    }
    return {name: (values / values.sum(1, keepdim=True)).detach() for name, values in answer.items()}
