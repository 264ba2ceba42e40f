"""Inputs that a network is asked about, and its answers."""

import torch
from torch import Tensor

from ...contract import Model, explaining, logits_of

ROWS = 512  # inputs that one pass of the network takes


def fresh_queries(x: Tensor, n: int, *, noise: float = 0.1, seed: int = 0) -> Tensor:
    r"""New inputs to ask a network about: mixtures of pairs of inputs, plus noise, within the range of x.

    .. math:: \lambda x_i + (1 - \lambda) x_j + \sigma \varepsilon, \qquad \lambda \sim U(0, 1), \qquad
        \varepsilon \sim \mathcal N(0, I)

    with :math:`\sigma` the fraction ``noise`` of the range of x. Mixtures: Zhang et al. 2018, arXiv:1710.09412.

    Raises:
        ValueError: n or noise below 0.
    """
    if n < 0 or not noise >= 0:
        raise ValueError(f"n and noise must be at least 0, got {n} and {noise}")
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randint(len(x), (2, n), generator=generator).to(x.device)
    share = torch.rand(n, *[1] * (x.dim() - 1), generator=generator).to(x)
    low, high = x.aminmax()
    draws = torch.randn(n, *x.shape[1:], generator=generator).to(x)
    return (torch.lerp(x[first], x[second], share) + noise * (high - low) * draws).clamp(low, high)


def with_fresh_queries(x: Tensor, queries: int, noise: float, seed: int) -> Tensor:
    return torch.cat([x, fresh_queries(x, queries, noise=noise, seed=seed)]).detach()


def fingerprints(x: Tensor) -> list[int]:
    return [hash(row.tobytes()) for row in x.detach().cpu().numpy()]


def answers(model: Model, x: Tensor) -> Tensor:
    with explaining(model, x) as x, torch.no_grad():
        if len(x) == 0:
            raise ValueError("x must hold at least one input, got an empty batch")
        return torch.cat([logits_of(model, rows) for rows in x.split(ROWS)])
