r"""Shapley values: the average effect of a part of the input over all ways to put the input together.

The parts are called players, a set of them that is shown a coalition, and :math:`v(S)`, the logit of the input that shows
the coalition S over the baseline, its value.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import factorial

import torch
from torch import Tensor

from ..contract import Model, Target, explaining, logits_in_passes, pick
from .removal import Removal

MOST_EXACT = 12  # players whose coalitions are all taken, 4096


@dataclass(frozen=True, eq=False)
class ShapleyValues:
    r"""The Shapley values of the P players of every row.

    Attributes:
        attribution: each player's value, spread evenly over its entries of x, of the shape, dtype and device of x.
        values: ``(N, P)``; their sum is :math:`f_c(x) - f_c(x_0)`, whatever the number of permutations.
        standard_error: ``(N, P)``, of the values: 0 if they are exact, NaN from a single pair of permutations.
    """

    attribution: Tensor
    values: Tensor
    standard_error: Tensor


def shapley(
    model: Model,
    x: Tensor,
    target: Target = None,
    *,
    players: int | Tensor | None = None,
    baseline: float | Tensor = 0.0,
    permutations: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
) -> Tensor:
    r"""Shapley values as an attribution: :func:`shapley_values`, each spread evenly over its player's entries of x.

    .. math:: R_p(x) = \phi_i / |i| \quad \text{for every entry } p \text{ of player } i,
        \qquad \sum_p R_p(x) = f_c(x) - f_c(x_0)

    Shapley 1953, A Value for n-Person Games; Lundberg & Lee 2017, arXiv:1705.07874.

    Args:
        model: a module or function from ``(N, ...)`` to logits ``(N, K)``.
        x: float batch ``(N, ...)``.
        target: None (the class predicted for x), an int, or a LongTensor ``(N,)``.
        players: the side of square patches, the number of every entry's player, or bool masks; see :func:`shapley_values`.
        baseline: :math:`x_0`, a number or a tensor that broadcasts to the shape of x.
        permutations: how many orders, an even number of at least 2; None is all coalitions of up to 12 players, 10 orders of more.
        seed: of the orders, which all images share.
        batch_size: rows per pass, to bound memory; any value gives the same numbers. None chooses by device.

    Returns:
        The attribution, of the shape, dtype and device of x.

    Raises:
        ValueError: x, target, the logits or an option are not as above, or the baseline does not broadcast to x.
        UnsupportedModelError: the model is random, or its rows depend on each other.

    >>> model = lambda x: x.prod(1, keepdim=True)
    >>> shapley(model, torch.tensor([[1.0, 1.0]]))  # neither can do without the other: half each
    tensor([[0.5000, 0.5000]])
    """
    return shapley_values(
        model,
        x,
        target,
        players=players,
        baseline=baseline,
        permutations=permutations,
        seed=seed,
        batch_size=batch_size,
    ).attribution


def shapley_values(
    model: Model,
    x: Tensor,
    target: Target = None,
    *,
    players: int | Tensor | None = None,
    baseline: float | Tensor = 0.0,
    permutations: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
) -> ShapleyValues:
    r"""Shapley values: what a player adds to the logit, averaged over all orders in which the players may come.

    .. math:: \phi_i = \sum_{S \not\ni i} \frac{|S|!\, (P - |S| - 1)!}{P!} \bigl( v(S \cup \{i\}) - v(S) \bigr),
        \qquad \sum_i \phi_i = f_c(x) - f_c(x_0)

    :math:`v(S) = f_c(x_S)`, where :math:`x_S` is x in the places of the players S and the baseline :math:`x_0` elsewhere. Up
    to 12 players they are exact, from all :math:`2^P` coalitions; of more they are the mean over random orders, each
    with its reverse, of which every one shares out :math:`f_c(x) - f_c(x_0)` completely. Of all ways to share it out this is
    the only one that gives equal players equal parts, and a player without effect nothing, and that
    adds up where models are added: Shapley 1953, A Value for n-Person Games. As attributions: Lundberg & Lee 2017,
    arXiv:1705.07874; permutations and their reverses: Mitchell et al. 2022, arXiv:2104.12199.

    Args:
        model: a module or function from ``(N, ...)`` to logits ``(N, K)``.
        x: float batch ``(N, ...)``.
        target: None (the class predicted for x), an int, or a LongTensor ``(N,)``.
        players: an int, the side of square patches of pixels; or a LongTensor that holds the number of every entry's player, from 0
            on, of the size of the image ``(H, W)``, or with all axes of x, such as ``(N, 1, H, W)``, and broadcasting to x; or
            as many bool masks ``(P, H, W)`` or ``(P, N, 1, H, W)`` of which every entry is in exactly one. None is patches of
            an eighth of the shortest side, rounded up, and of a vector every entry. A number that an image has not is a
            player without effect.
        baseline: :math:`x_0`, a number or a tensor that broadcasts to the shape of x.
        permutations: how many orders, an even number of at least 2; None is all coalitions of up to 12 players, 10 orders of more.
        seed: of the orders, which all images share, so that an image's values do not depend on its batch; the global random
            state is not used. Drawn on the CPU: every device gets the same.
        batch_size: rows per pass, to bound memory; any value gives the same numbers. None chooses by device.

    Raises:
        ValueError: x, target, the logits or an option are not as above, or the baseline does not broadcast to x.
        UnsupportedModelError: the model is random, or its rows depend on each other.

    >>> model = lambda x: x.amax(1, keepdim=True)
    >>> found = shapley_values(model, torch.tensor([[1.0, 2.0]]))  # the second adds 2 if it comes first, else 1
    >>> found.values, found.standard_error
    (tensor([[0.5000, 1.5000]]), tensor([[0., 0.]]))
    """
    if permutations is not None and (not isinstance(permutations, int) or permutations < 2 or permutations % 2):
        raise ValueError(
            f"permutations come with their reverses: give an even number of at least 2, got {permutations!r}"
        )
    with explaining(model, x) as x:
        removal = Removal(model, x, target, baseline, batch_size)
        numbers = _numbers(players, x, removal.places)
        count = int(numbers.max()) + 1 if len(numbers) else 1
        if count == 1 or (permutations is None and count <= MOST_EXACT):
            values = _exact(removal, numbers, count)
            error = torch.zeros_like(values)
        else:
            ranks = _ranks(10 if permutations is None else permutations, count, seed)
            of_pairs = _by_permutations(removal, numbers, ranks).unflatten(1, (-1, 2)).mean(2)
            pairs = of_pairs.shape[1]
            values = of_pairs.mean(1)
            error = of_pairs.std(1) / pairs**0.5 if pairs > 1 else torch.full_like(values, torch.nan)
        player = numbers.expand(len(numbers), *x.shape[1:]).flatten(1)
        size = torch.zeros(len(player), count, dtype=torch.long, device=x.device)
        size.scatter_add_(1, player, torch.ones_like(player))
        values = values.to(x)
        attribution = (values / size).gather(1, player.expand(len(x), -1)).view_as(x)
        return ShapleyValues(attribution, values, error.to(x))


def _scores(removal: Removal, numbers: Tensor, hidden: Callable[[Tensor], Tensor], count: int) -> Tensor:
    """``(N, count)`` in double precision on the CPU: the logit without the players ``hidden(ks)``, bool ``(K, P)``."""

    def amount(images: slice, ks: Tensor) -> Tensor:
        of_images = numbers[images] if len(numbers) > 1 else numbers
        return hidden(ks).to(removal.x)[:, of_images]

    return removal.scores(amount, count).cpu().double()


def _exact(removal: Removal, numbers: Tensor, count: int) -> Tensor:
    """The definition: every coalition's value, times its weight in every player's sum."""
    weights = torch.tensor([factorial(s) * factorial(count - s - 1) / factorial(count) for s in range(count)]).double()
    players = torch.arange(count)
    shown = (torch.arange(2**count)[:, None] >> players & 1).bool()
    others = shown.sum(1, keepdim=True) - shown.long()  # of the coalition, beside the player of the column
    signed = torch.where(shown, weights[others], -weights[others])
    hidden = ~shown.to(removal.x.device)
    return _scores(removal, numbers, lambda ks: hidden[ks], len(shown)) @ signed


def _ranks(permutations: int, count: int, seed: int) -> Tensor:
    """``(permutations, P)``: the place of every player in each order; every second one reverses the order before it."""
    generator = torch.Generator().manual_seed(seed)
    ranks = torch.stack([torch.randperm(count, generator=generator) for _ in range(permutations // 2)])
    return torch.stack([ranks, count - 1 - ranks], 1).flatten(0, 1)


def _by_permutations(removal: Removal, numbers: Tensor, ranks: Tensor) -> Tensor:
    """``(N, permutations, P)``: what each player adds when it comes, in each order."""
    permutations, count = ranks.shape
    on_device = ranks.to(removal.x.device)

    def hidden(ks: Tensor) -> Tensor:
        return on_device[ks // (count - 1)] > (ks % (count - 1))[:, None]

    between = _scores(removal, numbers, hidden, permutations * (count - 1))
    none = pick(logits_in_passes(removal.model, removal.reference, removal.rows), removal.target)
    ends = (end.cpu().double()[:, None, None].expand(-1, permutations, 1) for end in (none, removal.value))
    start, end = ends
    path = torch.cat([start, between.unflatten(1, (permutations, count - 1)), end], 2)
    return path.diff(dim=2).gather(2, ranks.expand(len(path), -1, -1))


def _numbers(players: int | Tensor | None, x: Tensor, places: torch.Size) -> Tensor:
    """The number of the player of every entry, LongTensor that broadcasts to x, with all its axes.

    Raises:
        ValueError: they are not as :func:`shapley_values` says.
    """
    if players is None:
        players = 1 if x.dim() == 2 else -(-min(places) // 8)
    if isinstance(players, int):
        if players < 1 or (x.dim() == 2 and players > 1):
            raise ValueError(f"players must be at least 1, the side of patches, and 1 for vectors, got {players}")
        numbers = torch.zeros(1, dtype=torch.long, device=x.device)
        for size in places:
            patch = torch.arange(size, device=x.device) // players
            numbers = numbers[..., None] * (int(patch[-1]) + 1) + patch
        return numbers.view(*[1] * (x.dim() - len(places)), *places)
    masks = isinstance(players, Tensor) and players.dtype == torch.bool
    if not isinstance(players, Tensor) or not (masks or players.dtype == torch.int64):
        got = players.dtype if isinstance(players, Tensor) else type(players).__name__
        raise ValueError(f"players must be an int, a LongTensor of their numbers or bool masks, got {got}")
    axes = players.shape[masks:]
    shape = (*[1] * (x.dim() - len(places)), *axes) if len(axes) == len(places) else tuple(axes)
    fits = len(shape) == x.dim() and all(size in (1, of_x) for size, of_x in zip(shape, x.shape, strict=True))
    if not fits or (masks and not len(players)):
        raise ValueError(
            f"players must have the shape {tuple(places)}, or all axes of x {tuple(x.shape)} and broadcast to it"
            f"{', behind the axis of the masks' * masks}, got {tuple(players.shape)}"
        )
    players = players.to(x.device)
    if masks:
        cover = players.sum(0)
        if (cover != 1).any():
            raise ValueError(
                f"every entry must be in exactly one mask, but {int((cover == 0).sum())} are in none and "
                f"{int((cover > 1).sum())} in several: add ~masks.any(0) as a player"
            )
        players = players.long().argmax(0)
    elif players.numel() and not 0 <= players.min() <= players.max() < players.numel():
        low, high = int(players.min()), int(players.max())
        raise ValueError(f"players must be numbered from 0 on, at most {players.numel() - 1}, got {low} to {high}")
    return players.view(shape)
