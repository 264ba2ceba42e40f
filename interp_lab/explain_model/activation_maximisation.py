r"""Activation maximisation: the input that a network answers to most, alone or held to the data by a prior.

One function maximises, for every row of a batch at once,

.. math:: A(x) - \lambda \|x\|^2 + \log p(x) - \sum_i r_i(x)

where :math:`A` is a class's log-probability or logit, or a unit or a direction of a hidden layer. With a generator
the variable is a code :math:`z`, the picture is :math:`x = g(z)` and the penalty is :math:`\lambda \|z\|^2`.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, nn

from ..backprop.feature_maps import Axes, captured
from ..contract import (
    Model,
    Target,
    UnsupportedModelError,
    check_functions,
    differentiated,
    explaining,
    is_finite,
    logits_of,
    output_of,
    pick,
)
from ..contract.interception import CHOICES, ORDINARY_GRADIENT, Interception

Score = Callable[[Tensor], Tensor]
Bounds = tuple[float | Tensor, float | Tensor]
SNAPSHOTS = 11


@dataclass(frozen=True, eq=False)
class Maximum:
    """What :func:`maximize_activation` found.

    Attributes:
        x: the pictures ``(N, ...)``; with a generator the decoded codes.
        trace: ``(steps + 1, N)``: the whole objective, penalties and priors included, from ``x0`` to ``x``.
        gradient_norm: ``(N,)``: norm of the objective's gradient at the end, without the components that point out
            of an active bound. It is near zero where the ascent has arrived, and large where it was stopped early.
        trajectory: ``(S, N, ...)``: the pictures on the way, the start and the end included.
        at: LongTensor ``(S,)``: their steps.
        code: ``(N, ...)``: the codes of ``x``; None without a generator.
    """

    x: Tensor
    trace: Tensor
    gradient_norm: Tensor
    trajectory: Tensor
    at: Tensor
    code: Tensor | None = None


def maximize_activation(
    model: Model,
    target: Target,
    x0: Tensor,
    *,
    objective: str | tuple = "log_prob",
    l2: float = 0.0,
    density: object | None = None,
    generator: object | None = None,
    bounds: Bounds | None = None,
    regularisers: Sequence[Score] = (),
    steps: int = 1000,
    lr: float = 0.05,
    jitter: int = 0,
    fourier: bool = False,
    seed: int = 0,
) -> Maximum:
    r"""Gradient ascent on :math:`A(x) - \lambda \|x\|^2 + \log p(x) - \sum_i r_i(x)` from ``x0``, row by row.

    Adam whose learning rate falls to zero along a cosine; a step that leaves the box is projected back. Every term
    is summed over a row's entries and rows do not interact, so a batch gives what its rows give one by one.

    What the objective is decides what is found. The probability itself has no gradient far from the class, hence
    its logarithm; the logit is unbounded and grows until a penalty or the box stops it. The network's own confidence
    says nothing about the picture: judge it by another network and by the data. With a density of several modes the
    start decides which is reached; a start at the class means with a pull back to them gives them back, so look at
    ``trace[-1] - trace[0]``.

    Args:
        model: gives logits ``(N, K)``, or holds the layer of the objective.
        target: the class, an int or a LongTensor ``(N,)``; None where the objective is in a hidden layer.
        x0: float batch where the ascent starts: zero, the data mean, the class means, images; with a generator, codes.
        objective: ``"log_prob"``, ``"logit"``, or ``(layer, unit)`` or ``(layer, unit, position)`` in the output
            ``(N, K, ...)`` of a module, given itself or by name. The unit is a channel, an int or a LongTensor
            ``(N,)``, or a direction, a float tensor ``(K,)`` or ``(N, K)``; the position is an index into the map's
            other axes, and without one the mean over the map counts.
        l2: :math:`\lambda` of the squared norm of the variable: ``x``, or the code.
        density: adds :math:`\log p(x)` of the picture: an object with ``log_prob``, or the function itself,
            ``(N, ...) -> (N,)``.
        generator: an object with ``decode``, or the function itself, from codes to pictures.
        bounds: ``(low, high)`` of the variable, numbers or tensors that broadcast to it.
        regularisers: functions ``(N, ...) -> (N,)`` of the picture that are subtracted, such as
            ``lambda x: 0.1 * total_variation(x)``.
        steps: of the ascent.
        lr: Adam's learning rate at the start.
        jitter: the model sees the picture rolled by up to so many pixels, anew in each step and alike for all rows.
            The trace is then noisy; its end and the gradient norm are those of the picture not rolled.
        fourier: the variable is the picture's Fourier coefficients, see :func:`fourier_parametrisation`; ``bounds``
            then hold through a sigmoid.
        seed: of the jitter.

    Raises:
        ValueError: x0 is not a finite float batch within the bounds; a target, layer, unit or position that is not
            there; a term of the objective that is not ``(N,)`` or not finite, by name; options that exclude each other.
        UnsupportedModelError: the objective does not depend on x through differentiable operations, or a part of it is
            random or does so without a gradient.

    Sources: Simonyan, Vedaldi and Zisserman 2013, arXiv:1312.6034; Nguyen et al. 2016, arXiv:1605.09304 (code space);
    Montavon, Samek and Müller 2018, arXiv:1706.07979 (densities); Kingma and Ba 2014, arXiv:1412.6980 (Adam).

    >>> model = lambda x: x @ torch.tensor([[1.0], [-2.0]])
    >>> found = maximize_activation(model, 0, torch.zeros(1, 2), objective="logit", bounds=(-1.0, 1.0), steps=200)
    >>> found.x.round(decimals=2)  # the corner of the box where the logit is largest
    tensor([[ 1., -1.]])
    """
    whole = isinstance(steps, int) and isinstance(jitter, int)
    if not whole or steps < 1 or lr <= 0 or l2 < 0 or jitter < 0:
        raise ValueError(f"steps >= 1, lr > 0, l2 >= 0 and jitter >= 0, got {steps}, {lr}, {l2} and {jitter}")
    if fourier and generator is not None:
        raise ValueError("fourier parametrises pictures, but with a generator the variable is a code; choose one")
    log_p = _function(density, "density", "log_prob")
    decode = _function(generator, "generator", "decode")
    with ExitStack() as stack:
        for module in (density, generator, model):
            if isinstance(module, nn.Module) or module is model:
                checked = stack.enter_context(explaining(module, x0))
        x0 = checked
        low, high = _box(bounds, x0)
        score = _activation(model, target, objective, len(x0))
        if fourier:
            start, to_picture = fourier_parametrisation(x0, bounds)
            low, high = x0.new_tensor(-math.inf), x0.new_tensor(math.inf)  # the sigmoid keeps the bounds
        else:
            start, to_picture = x0.clone(), partial(output_of, decode) if decode else (lambda x: x)

        def terms(variable: Tensor, shift: tuple[int, int]) -> list[tuple[str, Tensor]]:
            x = to_picture(variable)
            if jitter and x.dim() != 4:
                raise ValueError(f"jitter rolls pictures (N, C, H, W), got shape {tuple(x.shape)}")
            values = [("activation", score(x.roll(shift, (-2, -1)) if any(shift) else x))]
            if l2:
                values.append(("l2", -l2 * (variable if generator is not None else x).flatten(1).square().sum(1)))
            if log_p is not None:
                values.append(("density", output_of(log_p, x)))
            return values + [(f"regulariser {_name(r)}", -r(x)) for r in regularisers]

        def term(variable: Tensor, place: int, shift: tuple[int, int]) -> Tensor:
            return terms(variable, shift)[place][1]

        variable = start.requires_grad_()
        # A longer memory of squared gradients would remember the steep start and creep along the flat directions.
        adam = torch.optim.Adam([variable], lr=lr, betas=(0.9, 0.95), maximize=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
        random = torch.Generator().manual_seed(seed)
        at = torch.linspace(0, steps, min(SNAPSHOTS, steps + 1)).round().long().tolist()
        trace, trajectory = [], []
        for step in range(steps + 1):
            shift = torch.randint(-jitter, jitter + 1, (2,), generator=random).tolist() if step < steps else (0, 0)
            # What the objective cannot see of the variable does not change from step to step.
            with Interception(ORDINARY_GRADIENT, [variable], CHOICES) if step == 0 else nullcontext():
                parts = terms(variable, tuple(shift))
            values = _checked(parts, len(x0), step, lr)
            if step == 0 and not values.requires_grad:
                raise UnsupportedModelError("the objective does not depend on x through differentiable operations")
            if step == 0:
                for place, (_, value) in enumerate(parts):
                    check_functions(partial(term, place=place, shift=tuple(shift)), variable, value)
            (gradient,) = differentiated(values.sum(), [variable])
            if not is_finite(gradient):
                raise ValueError(f"the gradient of the objective is not finite at step {step}; lower lr (now {lr})")
            trace.append(values.detach())
            if step in at:
                trajectory.append(to_picture(variable).detach().clone())
            if step == 0 and (gradient.flatten(1) == 0).all(1).any():
                warnings.warn("the objective has no gradient at x0 in some rows, which stay there", stacklevel=2)
            if step < steps:
                variable.grad = gradient
                adam.step()
                schedule.step()
                with torch.no_grad():
                    variable.clamp_(low, high)
        outward = (variable <= low) & (gradient < 0) | (variable >= high) & (gradient > 0)
        return Maximum(
            x=trajectory[-1],
            trace=torch.stack(trace),
            gradient_norm=gradient.masked_fill(outward, 0).flatten(1).norm(dim=1),
            trajectory=torch.stack(trajectory),
            at=torch.tensor(at),
            code=variable.detach() if generator is not None else None,
        )


def am_density(model: Model, target: Target, x0: Tensor, *, density: object, **options) -> Maximum:
    r"""The most likely input of a class: maximises :math:`\log p(c \mid x) + \log p(x)`.

    By Bayes' rule this is :math:`\log p(x \mid c)` up to a constant.

    Args:
        model: gives logits ``(N, K)``.
        target: the class, an int or a LongTensor ``(N,)``.
        x0: float batch where the ascent starts.
        density: of pictures: an object with ``log_prob``, or the function itself, ``(N, ...) -> (N,)``.
        options: as in :func:`maximize_activation`: ``objective``, ``bounds``, ``steps``, ``lr``, ...

    Raises:
        ValueError: as :func:`maximize_activation`.

    >>> model = lambda x: x @ torch.tensor([[1.0], [-2.0]])
    >>> normal = lambda x: -0.5 * x.square().sum(1)  # w x - x^2 / 2 is largest at w
    >>> am_density(model, 0, torch.zeros(1, 2), objective="logit", density=normal, steps=500).x.round(decimals=1)
    tensor([[ 1., -2.]])
    """
    return maximize_activation(model, target, x0, density=density, **options)


def am_code(model: Model, target: Target, z0: Tensor, *, generator: object, lam: float = 0.5, **options) -> Maximum:
    r"""A class's most typical picture of a generator: maximises :math:`\log p(c \mid g(z)) - \lambda \|z\|^2`.

    With a standard normal code the prior's own :math:`\lambda` is 1/2.

    Args:
        model: gives logits ``(N, K)``.
        target: the class, an int or a LongTensor ``(N,)``.
        z0: float batch of codes where the ascent starts.
        generator: an object with ``decode``, or the function itself, from codes to pictures.
        lam: :math:`\lambda`, the weight of the prior of the codes.
        options: as in :func:`maximize_activation`: ``objective``, ``bounds``, ``steps``, ``lr``, ...

    Raises:
        ValueError: as :func:`maximize_activation`.

    >>> model = lambda x: x @ torch.tensor([[1.0], [-2.0]])
    >>> found = am_code(model, 0, torch.zeros(1, 2), generator=lambda z: 2 * z, objective="logit", lam=0.5, steps=500)
    >>> found.code.round(decimals=1)  # 2 w z - z^2 / 2 is largest at 2 w
    tensor([[ 2., -4.]])
    """
    return maximize_activation(model, target, z0, generator=generator, l2=lam, **options)


def total_variation(x: Tensor) -> Tensor:
    """Sum over a picture's neighbouring pixels of their absolute difference: ``(N, C, H, W) -> (N,)``.

    >>> total_variation(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]]))
    tensor([2.])
    """
    return x.diff(dim=-2).abs().flatten(1).sum(1) + x.diff(dim=-1).abs().flatten(1).sum(1)


def fourier_parametrisation(x0: Tensor, bounds: Bounds | None = None) -> tuple[Tensor, Score]:
    r"""Coefficients that stand for the pictures ``x0``, and the function from coefficients to pictures.

    A picture is the inverse Fourier transform of its coefficients times :math:`1 / \max(f, 1/n)`, f in cycles per
    pixel and n the longer side. A step of gradient ascent then moves low frequencies more than high ones, as in
    natural images, where steps on pixels give high-frequency noise. With bounds the transform's result goes through
    a sigmoid onto ``(low, high)``; pixels of x0 closer to a bound than 0.001 of the range are moved to there.

    Args:
        x0: float ``(N, C, H, W)``.

    Returns:
        Real coefficients ``(N, C, H, W // 2 + 1, 2)`` and the function.

    Source: Olah, Mordvintsev and Schubert 2017, "Feature Visualization", Distill, doi:10.23915/distill.00007.
    """
    if x0.dim() != 4:
        raise ValueError(f"the Fourier parametrisation needs pictures (N, C, H, W), got shape {tuple(x0.shape)}")
    size = x0.shape[-2:]
    rows = torch.fft.fftfreq(size[0], device=x0.device, dtype=x0.dtype)
    columns = torch.fft.rfftfreq(size[1], device=x0.device, dtype=x0.dtype)
    scale = 1 / torch.hypot(rows[:, None], columns).clamp(min=1 / max(size))
    if bounds is not None:
        low, high = _box(bounds, x0)
        x0 = ((x0 - low) / (high - low)).logit(eps=1e-3)

    def to_picture(coefficients: Tensor) -> Tensor:
        x = torch.fft.irfft2(torch.view_as_complex(coefficients) * scale, s=size, norm="ortho")
        return x if bounds is None else low + (high - low) * x.sigmoid()

    spectrum = torch.fft.rfft2(x0.contiguous(), norm="ortho")  # old versions of MKL refuse an expanded tensor
    return torch.view_as_real(spectrum / scale).contiguous(), to_picture


def _activation(model: Model, target: Target, objective: str | tuple, count: int) -> Score:
    """The function A of the pictures ``(N, ...) -> (N,)``."""
    if objective in ("log_prob", "logit"):
        if target is None:
            raise ValueError(f"the objective {objective!r} needs target classes: an int or a LongTensor ({count},)")
        normalised = _log_softmax if objective == "log_prob" else lambda logits: logits
        return lambda x: pick(normalised(logits_of(model, x)), target)
    if not (isinstance(objective, tuple) and len(objective) in (2, 3)):
        raise ValueError(
            "objective must be 'log_prob', 'logit', (layer, unit) or (layer, unit, position), got " + repr(objective)
        )
    if target is not None:
        raise ValueError("an objective in a layer names its unit itself: pass target=None")
    layer, unit, *position = objective

    def score(x: Tensor) -> Tensor:
        copy = x.clone()
        with captured(model, Axes(copy), [layer], on_grid=False) as kept:
            output_of(model, copy)
        maps = kept[layer]
        if position:
            index = tuple(position[0]) if isinstance(position[0], Sequence) else (position[0],)
            if len(index) != maps.dim() - 2 or not all(0 <= i < n for i, n in zip(index, maps.shape[2:], strict=True)):
                raise ValueError(f"position must be an index into a map {tuple(maps.shape[2:])}, got {position[0]!r}")
            maps = maps[(..., *index)]
        values = maps.flatten(2).mean(2) if maps.dim() > 2 else maps  # (N, K)
        classes = values.shape[1]
        if isinstance(unit, Tensor) and unit.is_floating_point():
            if unit.shape not in ((classes,), (len(x), classes)):
                raise ValueError(f"a direction must be ({classes},) or ({len(x)}, {classes}), got {tuple(unit.shape)}")
            return (values * unit.to(values)).sum(1)
        channels = torch.as_tensor(unit, device=x.device) if isinstance(unit, int | Tensor) else torch.empty(0)
        if channels.dtype != torch.int64 or channels.shape not in ((), (len(x),)):
            raise ValueError(f"unit must be an int, a LongTensor ({len(x)},) or a float direction, got {unit!r}")
        if not (0 <= channels.min() and channels.max() < classes):
            raise ValueError(f"channel must lie in 0..{classes - 1}, got {channels.tolist()}")
        return values.gather(1, channels.expand(len(x))[:, None]).squeeze(1)

    return score


def _log_softmax(logits: Tensor) -> Tensor:
    if logits.shape[1] < 2:
        raise ValueError("log_prob needs two logits or more; a network with one logit takes objective='logit'")
    return logits.log_softmax(1)


def _checked(terms: list[tuple[str, Tensor]], count: int, step: int, lr: float) -> Tensor:
    """The sum of the terms, each ``(N,)`` and finite."""
    for name, value in terms:
        if not isinstance(value, Tensor) or value.shape != (count,):
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"the term {name!r} must give one number per row, shape ({count},), got {got}")
        if not is_finite(value):
            row = int((~value.isfinite()).nonzero()[0])
            raise ValueError(
                f"the term {name!r} is {value[row].item()} in row {row} at step {step}; lower lr (now {lr})"
            )
    return reduce(torch.add, [value for _, value in terms])


def _box(bounds: Bounds | None, x0: Tensor) -> tuple[Tensor, Tensor]:
    low, high = (-math.inf, math.inf) if bounds is None else bounds
    low, high = (torch.as_tensor(b, dtype=x0.dtype, device=x0.device).expand_as(x0) for b in (low, high))
    if not (low < high).all():
        raise ValueError("bounds must be (low, high) with low < high everywhere")
    if not ((low <= x0) & (x0 <= high)).all():
        raise ValueError(f"x0 must lie within the bounds, got {x0.min().item():.4g}..{x0.max().item():.4g}; clamp it")
    return low, high


def _function(given: Any, role: str, method: str) -> Score | None:
    """The named method of what was given, or the given function itself."""
    function = getattr(given, method, given)
    if given is not None and not callable(function):
        raise ValueError(f"the {role} must have the method {method} or be a function, got {type(given).__name__}")
    return function


def _name(function: Score) -> str:
    return getattr(function, "__name__", type(function).__name__)
