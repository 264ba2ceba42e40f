r"""Concepts: does the direction in which a layer encodes a concept, given by examples, raise a logit?

Kim et al. 2018, Interpretability Beyond Feature Attribution: Quantitative Testing with Concept Activation Vectors,
arXiv:1711.11279.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..backprop.feature_maps import Axes, Layer, Reshape, captured
from ..contract import (
    Model,
    Target,
    check_batch_size,
    check_input,
    check_target,
    chosen_logit,
    differentiated,
    explaining,
    is_finite,
    output_of,
    rows_per_pass,
    with_rows_that_fit,
)


@dataclass(frozen=True, eq=False)
class ConceptTest:
    """What C concepts do to a logit, beside what M sets of random pictures do, over S splits. All on the CPU, in double.

    Attributes:
        names: of the concepts.
        vectors: ``(C, S, K)``, the concept activation vectors, of length 1, over the K channels of the layer.
        accuracies: ``(C, S)``, of the classifier on the pictures that it was not fitted to; 0.5 is chance.
        derivatives: ``(C, S, N)``, of the logit of every example along every vector.
        random_sensitivities, random_scores: ``(M,)``, the means over splits and examples for the random sets.
        p_values: ``(C,)``, of the sensitivities, two-sided, times C (Bonferroni), at most 1.
        score_p_values: ``(C,)``, the same for the scores.
    """

    names: tuple[str, ...]
    vectors: Tensor
    accuracies: Tensor
    derivatives: Tensor
    random_sensitivities: Tensor
    random_scores: Tensor
    p_values: Tensor
    score_p_values: Tensor

    @property
    def scores(self) -> Tensor:
        """``(C, S)``, the TCAV scores: the share of the examples with a positive derivative, where 0 counts half."""
        return _positive(self.derivatives).mean(2)

    @property
    def sensitivities(self) -> Tensor:
        """``(C, S)``, the mean derivatives."""
        return self.derivatives.mean(2)


def tcav(
    model: Model,
    x: Tensor,
    target: Target = None,
    *,
    layer: Layer,
    concepts: Mapping[str, Tensor],
    random: Tensor,
    reshape: Reshape | None = None,
    splits: int = 30,
    random_sets: int = 200,
    seed: int = 0,
    batch_size: int | None = None,
) -> ConceptTest:
    r"""TCAV: whether a logit rises along the direction of a concept in a layer, tested against random directions.

    The concept activation vector v is the normal of a linear classifier of activations a, those of the concept's pictures
    (y = 1) against as many random ones (y = -1); here ridge regression:

    .. math:: & v = \arg\min_w \sum_i \bigl(y_i - w \cdot (a_i - \bar a)\bigr)^2 + \lambda |w|^2, \quad
        \lambda = \operatorname{mean}_i |a_i - \bar a|^2, \\
        & S(x) = \frac{\partial f_c(x)}{\partial a} \cdot \frac{v}{|v|}, \qquad
        \mathrm{score} = \frac{\#\{x : S(x) > 0\}}{N}

    A direction is one of channels, the same at all places: a is the mean over the places of a map, and the derivative the
    sum over them. On a layer that gives vectors, such as ``nn.Flatten``, it is that of the paper.

    Each split fits the classifier to a random two thirds of the concept's pictures and as many random ones, and measures its
    accuracy on the rest. **The test**: the same is done with sets of random pictures, as many in each as a concept has,
    in place of the concept. The p-value is the share of these sets, with the concept itself among them, whose mean
    derivative lies at least as far from 0 (whose score lies at least as far from 1/2), times the number of concepts in this call
    (Bonferroni). It cannot fall below :math:`C / (M + 1)`. Whoever tests several layers or classes has to multiply by their number
    too. A t-test over the splits, as in the paper, answers another question: all splits share the concept's pictures, so that with
    enough of them *any* direction but one exactly across the gradient is significant.

    Args:
        model: a module or function from ``(N, ...)`` to logits ``(N, K)``.
        x: float batch ``(N, ...)``, the examples whose logit is asked for.
        target: None (the predicted class), an int, or a LongTensor ``(N,)``.
        layer: the module, or its name, that gives maps ``(N, K, ...)``, tokens or vectors.
        concepts: n pictures ``(n, ...)`` of every concept, n at least 3, by its name.
        random: pictures ``(R, ...)`` of which the concept is no property, R at least 4 n: one half is for the
            classifiers, the other for the random sets.
        reshape: from the layer's output to maps ``(N, K, ...)``, such as :func:`~interp_lab.tokens_to_maps`; None where the
            axis of the channels is found.
        splits: S, at least 1.
        random_sets: M, at least 1.
        seed: of the splits and the random sets; the global random state is not used.
        batch_size: rows per pass, to bound memory; any value gives the same numbers. None chooses by device.

    Raises:
        ValueError: an argument is not as above, there is no such module, or its activations are not finite.
        UnsupportedModelError: the layer is not called once, or it is not known which axis of its output holds the channels.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Identity(), nn.Linear(2, 1, bias=False))
    >>> _ = model[1].weight.data.copy_(torch.tensor([[3.0, 0.0]]))
    >>> pictures = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    >>> concepts = {"right": pictures[:20] + torch.tensor([5.0, 0.0]), "up": pictures[:20] + torch.tensor([0.0, 5.0])}
    >>> test = tcav(model, pictures, 0, layer="0", concepts=concepts, random=pictures)
    >>> test.scores[0].mean(), test.p_values < 0.05
    (tensor(1., dtype=torch.float64), tensor([ True, False]))
    """
    check_batch_size(batch_size)
    check_input(model, x)
    if not len(x):
        raise ValueError("x must hold at least one example, got an empty batch")
    count = _pictures_of_each(x, concepts, random, splits, random_sets)
    slopes = _slopes(model, x, target, layer, reshape, batch_size)
    a = _activations(model, torch.cat([*concepts.values(), random]), layer, reshape, batch_size)
    a = a - a.mean(0)

    generator = torch.Generator().manual_seed(seed)
    first = count * len(concepts) + torch.randperm(len(random), generator=generator)
    others, of_sets = first.tensor_split(2)
    sets = [of_sets[torch.randperm(len(of_sets), generator=generator)[:count]] for _ in range(random_sets)]
    positive = torch.cat([torch.arange(count * len(concepts)).view(-1, count), torch.stack(sets)])  # (C + M, n)

    gram, along = a @ a.mT, a @ slopes.mT  # that is all that any direction needs of the layer
    parts = [_split(gram, along, positive, others, generator) for _ in range(splits)]
    weights, accuracies, derivatives = (torch.stack(part, 1) for part in zip(*parts, strict=True))
    sensitivities, scores = derivatives.mean((1, 2)), _positive(derivatives).mean((1, 2))
    of_concepts, of_random = slice(len(concepts)), slice(len(concepts), None)
    vectors = weights[of_concepts] @ a
    return ConceptTest(
        tuple(concepts),
        vectors,
        accuracies[of_concepts],
        derivatives[of_concepts],
        sensitivities[of_random],
        scores[of_random],
        _corrected(sensitivities[of_concepts], sensitivities[of_random]),
        _corrected(scores[of_concepts] - 0.5, scores[of_random] - 0.5),
    )


def _pictures_of_each(x: Tensor, concepts: Mapping[str, Tensor], random: Tensor, splits: int, random_sets: int) -> int:
    """The number n of pictures that each concept has.

    Raises:
        ValueError: they are not as :func:`tcav` says.
    """
    if splits < 1 or random_sets < 1:
        raise ValueError(f"splits and random_sets must be at least 1, got {splits} and {random_sets}")
    if not isinstance(concepts, Mapping) or not concepts:
        raise ValueError("concepts must hold at least one name with its pictures, such as {'striped': pictures}")
    for name, pictures in {**concepts, "random": random}.items():
        if not isinstance(pictures, Tensor) or pictures.shape[1:] != x.shape[1:]:
            got = tuple(pictures.shape) if isinstance(pictures, Tensor) else type(pictures).__name__
            raise ValueError(
                f"the pictures of {name!r} must be a tensor (n, {', '.join(map(str, x.shape[1:]))}), got {got}"
            )
    counts = {name: len(pictures) for name, pictures in concepts.items()}
    count = min(counts.values())
    if count < 3 or len(set(counts.values())) > 1:
        raise ValueError(
            f"every concept needs as many pictures, at least 3, got {counts}: take the first {max(count, 3)}"
        )
    if len(random) < 4 * count:
        raise ValueError(f"{count} pictures of a concept need at least {4 * count} random ones, got {len(random)}")
    return count


def _slopes(
    model: Model, x: Tensor, target: Target, layer: Layer, reshape: Reshape | None, batch_size: int | None
) -> Tensor:
    """The gradient of every row's logit to the layer's channels, summed over the places, ``(N, K)``."""

    def run(rows: slice) -> Tensor:
        some = x[rows].clone().requires_grad_()
        with captured(model, Axes(some), [layer], reshape, on_grid=False) as kept:
            chosen = chosen_logit(model, some, classes if classes is None else classes[rows])
        return _places(differentiated(chosen.sum(), [kept[layer]])[0]).sum(2)

    with explaining(model, x) as x:
        classes = None if target is None else check_target(target, len(x))
        return _in_passes(x, run, batch_size)


def _activations(
    model: Model, pictures: Tensor, layer: Layer, reshape: Reshape | None, batch_size: int | None
) -> Tensor:
    """Of the layer's channels, the mean over the places, ``(P, K)``."""

    def run(rows: slice) -> Tensor:
        some = pictures[rows].clone()
        with captured(model, Axes(some), [layer], reshape, on_grid=False) as kept:
            output_of(model, some)
        return _places(kept[layer]).mean(2)

    with explaining(model, pictures) as pictures, torch.no_grad():
        return _in_passes(pictures, run, batch_size)


def _places(maps: Tensor) -> Tensor:
    """``(N, K, P)`` of maps ``(N, K, ...)`` or vectors ``(N, K)``."""
    return maps.reshape(*maps.shape[:2], -1)


def _in_passes(x: Tensor, run: Callable[[slice], Tensor], batch_size: int | None) -> Tensor:
    def passes(rows: int) -> Tensor:
        parts = [run(slice(first, first + rows)).cpu().double() for first in range(0, len(x), rows)]
        return torch.cat(parts)

    rows = batch_size or rows_per_pass(x, lambda some: run(slice(len(some))))
    found = with_rows_that_fit(passes, rows)
    if not is_finite(found):
        raise ValueError("the layer's activations or their gradients are not finite for some of these pictures")
    return found


def _positive(derivatives: Tensor) -> Tensor:
    return (derivatives.sign() + 1) / 2


def _corrected(values: Tensor, random: Tensor) -> Tensor:
    """Of every value the share of the M + 1 that are as far from 0 up to rounding, times the number of values."""
    rounding = 1e-12 * torch.cat([values, random]).abs().max()
    as_far = random.abs() >= values.abs()[:, None] - rounding
    return (len(values) * (1 + as_far.sum(1)) / (len(random) + 1)).double().clamp(max=1)


def _split(
    gram: Tensor, along: Tensor, positive: Tensor, others: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """One random split of B sets of n pictures, each against n others: ``v / |v|`` as weights of the P pictures, ``(B, P)``,
    its accuracy ``(B,)`` and derivatives ``(B, N)``.

    Args:
        gram: ``(P, P)``, the inner products of the pictures' activations.
        along: ``(P, N)``, the derivative of every example's logit along each picture's activation.
        positive: ``(B, n)``, numbers of pictures.
        others: numbers of the pictures that they are told from.
        generator: draws the split.
    """
    sets, count = positive.shape
    order = torch.rand(sets, count, generator=generator).argsort(1)
    negative = others[torch.rand(sets, len(others), generator=generator).argsort(1)[:, :count]]
    fitted = 2 * count // 3
    used, rest = (
        torch.cat([positive.gather(1, order), negative], 1).unflatten(1, (2, count)).split([fitted, count - fitted], 2)
    )
    used, rest = used.flatten(1), rest.flatten(1)
    y = gram.new_tensor([1.0, -1.0]).repeat_interleave(fitted)
    centred = gram[used[:, :, None], used[:, None]]
    centred = centred - centred.mean(1, keepdim=True)
    centred = centred - centred.mean(2, keepdim=True)
    ridge = centred.diagonal(dim1=1, dim2=2).mean(1, keepdim=True)
    flat = ridge <= 1e-12 * gram.diagonal().mean()  # all activations are equal up to rounding: there is no direction
    dual = torch.linalg.solve(
        centred + torch.diag_embed(ridge.masked_fill(flat, 1).expand(used.shape)), y.expand(used.shape)
    ).masked_fill(flat, 0)
    weights = gram.new_zeros(sets, len(gram)).scatter_(1, used, dual)
    length = ((weights @ gram) * weights).sum(1, keepdim=True).clamp(min=0).sqrt()
    weights = weights / length.where(length > 0, 1)
    on_pictures = weights @ gram
    margin = on_pictures.gather(1, rest) - on_pictures.gather(1, used).mean(1, keepdim=True)
    right = _positive(margin * gram.new_tensor([1.0, -1.0]).repeat_interleave(count - fitted))
    return weights, right.mean(1), weights @ along
