"""Concept bottlenecks: the concepts first, which a person can correct, and the answer from them alone."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..contract import check_input, explaining
from ..schedule import one_cycle
from .features import check_labels, fit_head


class ConceptBottleneck(nn.Module):
    r"""A network that reads concepts off its input and answers from them alone; made by :func:`concept_bottleneck`.

    .. math:: f(x) = W c(x) + b, \qquad c_k(x) = \sigma(g_k(x))
    """

    def __init__(self, body: nn.Module, concepts: int, classes: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(concepts, classes)

    def forward(self, x: Tensor, known: Tensor | None = None) -> Tensor:
        """The logits ``(N, classes)``.

        Args:
            x: float batch ``(N, ...)``.
            known: an intervention: concepts that a person knows, 0, 1 or between, of a shape that broadcasts to
                ``(N, concepts)``; NaN leaves a concept to the network.

        Raises:
            ValueError: ``known`` is of another shape or range.
        """
        found = self.concepts(x)
        if known is None:
            return self.head(found)
        sizes = zip(reversed(known.shape), reversed(found.shape), strict=False)
        fits = known.dim() <= 2 and all(k in (1, n) for k, n in sizes)
        if not fits or ((known < 0) | (known > 1)).any():
            raise ValueError(
                f"known must hold values in [0, 1], or NaN, of a shape that broadcasts to {tuple(found.shape)}, got "
                f"{tuple(known.shape)}"
            )
        return self.head(torch.where(known.isnan(), found, known.to(found)))

    def concepts(self, x: Tensor) -> Tensor:
        """The probability of every concept, ``(N, concepts)``."""
        return self.body(x).sigmoid()


def concept_bottleneck(
    x: Tensor,
    concepts: Tensor,
    y: Tensor,
    body: nn.Module,
    *,
    joint: float | None = None,
    epochs: int = 10,
    lr: float = 3e-3,
    batch_size: int = 64,
    seed: int = 0,
) -> ConceptBottleneck:
    r"""Fit a concept bottleneck: a network that must say what it sees before it answers.

    With the concepts :math:`t_k` of an example, their cross-entropy
    :math:`L = -\sum_k t_k \log c_k(x) + (1 - t_k) \log(1 - c_k(x))` and the answer's
    :math:`A(c) = -\log \mathrm{softmax}(W c + b)_y`, both as means over the examples,

    .. math::

        \text{independent:} \quad \min_g L \text{ and } \min_{W, b} A(t) + 10^{-3} \lVert W \rVert^2 / 2, \qquad
        \text{joint:} \quad \min_{g, W, b} A(c(x)) + \lambda L .

    The independent answer has learnt from the concepts themselves, and is right about them whoever says them. In joint
    training :math:`c_k` may say more than the concept, whatever helps the answer: it leaks.

    Koh et al. 2020, Concept Bottleneck Models, arXiv:2007.04612; leakage: Mahinpei et al. 2021, arXiv:2106.13314.

    Args:
        x: float batch ``(N, ...)``, on the body's device.
        concepts: what holds for every example, ``(N, K)``: 0 or 1 (or a probability).
        y: labels, LongTensor ``(N,)``, every class present.
        body: from x to a logit for every concept, ``(N, K)``; trained in place.
        joint: :math:`\lambda` of joint training, at least 0; None trains independently.
        epochs: of the training (AdamW); 0 keeps a body that has learnt the concepts before (not in joint training).
        lr: the largest learning rate, reached after a fifth of the training.
        batch_size: examples per step of the training.
        seed: of the start and of the order of the examples; the global random state is not touched.

    Raises:
        ValueError: x, concepts, y, the body's output, ``joint`` or ``epochs`` are not as above.

    Example:
        >>> import torch
        >>> from interp_lab import concept_bottleneck
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> concepts = (x > 0).float()
        >>> model = concept_bottleneck(x, concepts, concepts[:, 0].long(), torch.nn.Linear(2, 2), lr=0.1)
        >>> model(x[:5]).argmax(1) == concepts[:5, 0]
        tensor([True, True, True, True, True])
        >>> told = torch.tensor([1.0, torch.nan])  # the first concept holds; the second one is left to the network
        >>> model(x[:5], told).argmax(1)
        tensor([1, 1, 1, 1, 1])
    """
    check_input(body, x)
    classes, y = check_labels(y, len(x)), y.to(x.device)
    if not isinstance(concepts, Tensor) or concepts.dim() != 2 or len(concepts) != len(x):
        raise ValueError(f"concepts must be a tensor ({len(x)}, K), got {getattr(concepts, 'shape', concepts)}")
    concepts = concepts.to(x)
    if not ((concepts >= 0) & (concepts <= 1)).all():
        raise ValueError("concepts must lie in [0, 1]")
    if joint is not None and not joint >= 0:
        raise ValueError(f"joint must be None or at least 0, got {joint!r}")
    if epochs < (0 if joint is None else 1):
        raise ValueError(f"epochs must be at least 0, and 1 in joint training, got {epochs}")
    with explaining(body, x[:1]), torch.no_grad():
        shape = tuple(getattr(body(x[:1]), "shape", ()))
    if shape != (1, concepts.shape[1]):
        raise ValueError(f"the body must give a logit for each of {concepts.shape[1]} concepts, got {shape} for one x")
    order = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
        torch.manual_seed(seed)
        network = ConceptBottleneck(body, concepts.shape[1], classes).to(x).train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=0.0)
        schedule = one_cycle(optimizer, lr, max(1, epochs * -(-len(x) // batch_size)))
        for _ in range(epochs):
            for index in torch.randperm(len(x), generator=order).to(x.device).split(batch_size):
                optimizer.zero_grad()
                logits = network.body(x[index])
                loss = F.binary_cross_entropy_with_logits(logits, concepts[index], reduction="sum") / len(index)
                if joint is not None:
                    loss = F.cross_entropy(network.head(logits.sigmoid()), y[index]) + joint * loss
                loss.backward()
                optimizer.step()
                schedule.step()
    if joint is None:
        fit_head(network.head, concepts, y)
    network.zero_grad()
    return network.eval()
