"""Inputs that a network is asked about, and its answers."""

import torch
from torch import Tensor

from ...contract import Model, check_input, explaining, logits_of

ROWS = 512  # inputs in one pass of the network


def fresh_queries(x: Tensor, queries: int, *, noise: float = 0.1, seed: int = 0) -> Tensor:
    r"""New inputs to ask a network about: mixtures of pairs of inputs, plus noise, within the range of x.

    .. math:: \lambda x_i + (1 - \lambda) x_j + \sigma \varepsilon, \qquad \lambda \sim U(0, 1), \qquad
        \varepsilon \sim \mathcal N(0, I)

    with :math:`\sigma = \mathrm{noise} \cdot (\max x - \min x)`. Mixtures: Zhang et al. 2018, arXiv:1710.09412.

    Args:
        x: float batch ``(N, ...)``.
        queries: how many to make, at least 0.
        noise: standard deviation of the noise as a fraction of the range of the whole batch, at least 0.
        seed: of the pairs, the shares and the noise; the global random state is not used.

    Returns:
        ``(queries, ...)``, of the dtype and device of x; none lies outside the range of x.

    Raises:
        ValueError: queries or noise below 0.

    Example:
        >>> import torch
        >>> from interp_lab import fresh_queries
        >>> made = fresh_queries(torch.tensor([[0.0, 0.0], [1.0, 2.0]]), 50, noise=0.0)  # on the line between the two
        >>> made.shape, torch.equal(made[:, 1], 2 * made[:, 0])
        (torch.Size([50, 2]), True)
    """
    check_input(None, x)
    if not len(x):
        raise ValueError("x must hold at least one input, got an empty batch")
    if queries < 0 or not noise >= 0:
        raise ValueError(f"queries and noise must be at least 0, got {queries} and {noise}")
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randint(len(x), (2, queries), generator=generator).to(x.device)
    share = torch.rand(queries, *[1] * (x.dim() - 1), generator=generator).to(x)
    low, high = x.aminmax()
    draws = torch.randn(queries, *x.shape[1:], generator=generator).to(x)
    return (torch.lerp(x[first], x[second], share) + noise * (high - low) * draws).clamp(low, high)


def with_fresh_queries(x: Tensor, queries: int, noise: float, seed: int) -> Tensor:
    """The batch, and fresh queries after it."""
    return torch.cat([x, fresh_queries(x, queries, noise=noise, seed=seed)]).detach()


def fingerprints(x: Tensor) -> list[int]:
    """A number for each input, by which it is known again."""
    rows = x.detach().cpu().contiguous().view(torch.uint8).numpy()  # numpy knows no bfloat16
    return [hash(row.tobytes()) for row in rows]


def answers(model: Model, x: Tensor) -> Tensor:
    """The logits ``(N, K)`` of any number of inputs."""
    with explaining(model, x) as x, torch.no_grad():
        if len(x) == 0:
            raise ValueError("x must hold at least one input, got an empty batch")
        return torch.cat([logits_of(model, rows) for rows in x.split(ROWS)])
