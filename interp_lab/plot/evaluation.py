"""Pictures of how explanations were evaluated."""

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from .base import COLORS, WIDTH, Figure, add_legend, label_axes, write_caption
from .general import curves

if TYPE_CHECKING:
    from ..evaluate.class_sensitivity import ClassSensitivity
    from ..evaluate.coherence import Coherence
    from ..evaluate.randomisation import ModelRandomisation
    from ..evaluate.roar import Retraining
    from ..evaluate.selectivity import Selectivity

REFERENCES = {"none": "whole images", "random": "random order", "edges": "edge detector"}


def retraining(table: "Retraining", *, alt: str | None = None) -> Figure:
    """Accuracy after retraining with the largest fraction replaced: a row for each method, the lowest accuracy first.

    A dot is the mean over the seeds, with its standard deviation as a line; a square is the mean of the networks that
    saw the masks alone. Where the two meet, the mask can have told the class. Lines from top to bottom: the whole
    images, and both baselines, the random order and the edge detector. Methods that failed are left out and named below.

    Args:
        table: from :func:`~interp_lab.roar` or :func:`~interp_lab.kar`.
        alt: the alt text; None lists the accuracies.

    Raises:
        ValueError: no method has a result.

    Example:
        >>> from interp_lab import plot, roar
        >>> from interp_lab.data import digits
        >>> options = {"fractions": (0.5,), "seeds": (0, 1), "epochs": 1, "progress": False}
        >>> table = roar(["saliency"], digits()[:200], "softmax_regression", **options)
        >>> [tick.get_text() for tick in plot.retraining(table).axes[0].get_yticklabels()]
        ['saliency']
    """
    summary = table.summary()
    failed = sorted({row.method for row in summary if not row.seeds})
    last = {row.method: row for row in sorted(summary, key=lambda row: row.fraction) if row.method not in failed}
    references = {label: last.pop(name) for name, label in REFERENCES.items()}
    if not last:
        raise ValueError(f"the table has no method to draw beside its baselines; failed: {', '.join(failed) or 'none'}")
    drawn = sorted(last.values(), key=lambda row: row.accuracy)
    figure = Figure(figsize=(0.9 * WIDTH, 0.26 * len(drawn) + 1.4), layout="constrained")
    axis, places = figure.subplots(), range(len(drawn))
    for (label, row), style in zip(references.items(), ("-", "--", ":"), strict=True):
        axis.axvline(row.accuracy, color="#777777", linestyle=style, linewidth=1.4, label=label, zorder=0)
    axis.plot(
        [row.mask_only for row in drawn],
        places,
        "s",
        color=COLORS[1],
        markersize=8,
        fillstyle="none",
        label="masks alone",
    )
    spread = [row.spread if row.seeds > 1 else 0 for row in drawn]
    axis.errorbar(
        [row.accuracy for row in drawn], places, xerr=spread, fmt="o", color=COLORS[0], markersize=4, label="method"
    )
    axis.set_yticks(places, [row.method.replace("_", " ") for row in drawn])
    axis.set_ylim(len(drawn) - 0.5, -0.5)
    label_axes(axis, "accuracy", "")
    axis.tick_params(axis="y", labelsize=9)
    add_legend(figure, 5)
    share = f"{100 * drawn[0].fraction:.0f} %"
    seeds = references["whole images"].seeds
    write_caption(
        figure,
        f"{share} of the pixels replaced, the {table.replaced} first; mean ± standard deviation over {seeds} seeds"
        + (f"; failed: {', '.join(failed)}" if failed else ""),
    )
    parts = ", ".join(f"{row.method} {100 * row.accuracy:.0f} % ({100 * row.mask_only:.0f} %)" for row in drawn)
    others = ", ".join(f"{label} {100 * row.accuracy:.0f} %" for label, row in references.items())
    figure.alt = alt or (
        f"Test accuracy after retraining without the {table.replaced} {share} of the pixels, and of networks that saw the "
        f"masks alone: {parts}. For comparison: {others}."
    )
    return figure


def coherence(results: Mapping[str, "Coherence"], *, alt: str | None = None) -> Figure:
    """The three scores of every method, each mean with its 95 % bootstrap interval and the chance level dashed.

    Args:
        results: name -> what :func:`~interp_lab.coherence` gave for the method, of two or more images.
        alt: the alt text; None lists the means and the chance level.

    Raises:
        ValueError: no result.

    Example:
        >>> import torch
        >>> from interp_lab import coherence, plot
        >>> mask = torch.zeros(3, 4, 4, dtype=torch.bool)
        >>> mask[:, :2, :2] = True
        >>> plot.coherence({"the mask itself": coherence(mask.float(), mask)}).alt.split(". ")[1]
        'pointing_game (chance 0.25): the mask itself 1.00'
    """
    scores = ("pointing_game", "relevance_mass", "relevance_rank")
    columns = {score: {name: getattr(result, score) for name, result in results.items()} for score in scores}
    chance = torch.cat([torch.zeros(0), *(result.chance.cpu() for result in results.values())]).mean().item()
    return _intervals(columns, dict.fromkeys(scores, ("chance", chance)), "Coherence", alt)


def class_sensitivity(results: Mapping[str, "ClassSensitivity"], *, alt: str | None = None) -> Figure:
    """Similarity of the maps of two classes, signed and absolute, by method; 1 (dashed) is a map that ignores the class.

    Where masks were given, the share of relevance that moves to the right object stands beside; there, 0 is such a map.
    Values that are NaN are left out, and the caption counts them.

    Args:
        results: name -> what :func:`~interp_lab.class_sensitivity` gave for the method, of two or more images.
        alt: the alt text; None lists the means.

    Raises:
        ValueError: no result.

    Example:
        >>> import torch
        >>> from interp_lab import METHODS, class_sensitivity, plot
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 3))
        >>> result = class_sensitivity(METHODS["saliency"], model, torch.rand(2, 1, 16, 16), 0, 1)
        >>> [axis.get_xlabel() for axis in plot.class_sensitivity({"saliency": result}).axes]
        ['spearman', 'spearman abs', 'ssim', 'ssim abs']
    """
    names = ["spearman", "spearman_abs", "ssim", "ssim_abs"]
    blind = dict.fromkeys(names, ("a map that ignores the class", 1.0))
    if all(result.moved is not None for result in results.values()):
        blind["moved"] = ("a map that ignores the class", 0.0)
    columns = {part: {name: getattr(result, part) for name, result in results.items()} for part in blind}
    return _intervals(columns, blind, "Similarity of the maps of two classes", alt)


def _intervals(
    columns: dict[str, dict[str, Tensor]], references: dict[str, tuple[str, float]], title: str, alt: str | None
) -> Figure:
    """One plot per column with one row per method: mean and interval; values that are NaN are left out and counted."""
    from .. import bootstrap

    methods = list(next(iter(columns.values())))
    if not methods:
        raise ValueError("there is no result to draw")
    figure = Figure(figsize=(1.2 + 1.5 * len(columns), 0.9 + 0.22 * len(methods)), layout="constrained")
    axes = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    texts, undefined = [], []
    for axis, (column, values) in zip(axes, columns.items(), strict=True):
        means = []
        for place, (name, numbers) in enumerate(values.items()):
            defined = numbers[~numbers.isnan()]
            if len(defined) < len(numbers):
                undefined.append(f"{name}, {column}: {len(numbers) - len(defined)} of {len(numbers)}")
            if len(defined) < 2:
                continue
            mean, low, high = bootstrap(defined)
            axis.errorbar(mean, place, xerr=[[mean - low], [high - mean]], fmt="o", color=COLORS[0], markersize=4)
            means.append(f"{name} {mean:.2f}")
        label, level = references[column]
        axis.axvline(level, color=COLORS[1], linestyle="--", linewidth=1)
        label_axes(axis, column.replace("_", " "), "")
        texts.append(f"{column} ({label} {level:.2f}): {', '.join(means)}")
    axes[0].set_yticks(range(len(methods)), [name.replace("_", " ") for name in methods])
    axes[0].invert_yaxis()
    note = f"mean and 95 % bootstrap interval; dashed: {next(iter(references.values()))[0]}"
    write_caption(figure, note + (f"; undefined: {'; '.join(undefined)}" if undefined else ""))
    figure.alt = alt or f"{title}. {'. '.join(texts)}."
    return figure


def ranks(values: Mapping[str, Mapping[str, Sequence[int]]], *, xlabel: str = "rank", alt: str | None = None) -> Figure:
    """The ranks that each method had in several runs: a line from its best to its worst, with a dot at the median.

    The line of n runs holds the median of all runs with the probability :math:`1 - 2^{1 - n}`, whatever their distribution:
    it misses only where all n lie on one side of it.

    Args:
        values: group -> (method -> its rank in every run, 1 is the best); every group has a colour of its own.
        xlabel: what the ranks are of.
        alt: the alt text; None lists the medians with their ranges.

    Raises:
        ValueError: no rank to draw.

    Example:
        >>> from interp_lab import plot
        >>> plot.ranks({"CNN": {"lrp": [1, 2, 1], "saliency": [2, 1, 3]}}, xlabel="rank by mass").alt
        'rank by mass. CNN: lrp 1 (1 to 2), saliency 2 (1 to 3).'
    """
    methods = list(dict.fromkeys(name for group in values.values() for name in group))
    if not methods:
        raise ValueError("there is no rank to draw")
    figure = Figure(figsize=(5.4, 1.1 + 0.26 * len(methods)), layout="constrained")
    axis, texts = figure.subplots(), []
    for k, (group, of) in enumerate(values.items()):
        shift = 0.3 * (k - (len(values) - 1) / 2)
        told: list[str] = []
        for name, found in of.items():
            low, middle, high = min(found), statistics.median(found), max(found)
            place = methods.index(name) + shift
            axis.plot([low, high], [place, place], color=COLORS[k], linewidth=2, solid_capstyle="butt")
            axis.plot(middle, place, "os^Dvx*"[k], color=COLORS[k], markersize=5, label=None if told else group)
            told.append(f"{name.replace('_', ' ')} {middle:g} ({low} to {high})")
        texts.append(f"{group}: {', '.join(told)}")
    axis.set_yticks(range(len(methods)), [name.replace("_", " ") for name in methods])
    axis.invert_yaxis()
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(axis="y", color="#eeeeee")
    label_axes(axis, xlabel, "")
    add_legend(figure, len(values))
    figure.alt = alt or f"{xlabel}. {'. '.join(texts)}."
    return figure


def model_randomisation(
    results: Mapping[str, "ModelRandomisation"], *, part: str = "spearman", alt: str | None = None
) -> Figure:
    """Similarity to the original map, mean over the images, while layers are randomised from the top.

    Args:
        results: name -> what :func:`~interp_lab.model_randomisation` gave for the method, all of one network.
        part: the similarity drawn: ``"spearman"``, ``"spearman_abs"``, ``"ssim"`` or ``"ssim_abs"``.
        alt: the alt text; None tells the similarities after the first and after all layers.

    Raises:
        ValueError: results of different layers, or none.

    Example:
        >>> import torch
        >>> from interp_lab import METHODS, model_randomisation, plot
        >>> layers = torch.nn.Flatten(), torch.nn.Linear(256, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
        >>> result = model_randomisation(METHODS["saliency"], torch.nn.Sequential(*layers), torch.rand(2, 1, 16, 16))
        >>> [tick.get_text() for tick in plot.model_randomisation({"saliency": result}).axes[0].get_xticklabels()]
        ['none', '3', '1']
    """
    layers = {result.layers for result in results.values()}
    if len(layers) != 1:
        raise ValueError(f"the results must be of one network, got layers {sorted(layers)}")
    lines = {
        name.replace("_", " "): [1.0, *getattr(result, part).nanmean(1).tolist()] for name, result in results.items()
    }
    (names,) = layers
    ends = ", ".join(f"{name} {line[1]:.2f} and {line[-1]:.2f}" for name, line in lines.items())
    figure = curves(
        range(len(names) + 1),
        lines,
        xlabel="layers randomised, from the top",
        ylabel=f"similarity ({part.replace('_', ' ')})",
        alt=alt or f"Similarity to the original map after the first and after all {len(names)} layers: {ends}.",
    )
    figure.axes[0].set_xticks(range(len(names) + 1), ["none", *names])
    return figure


def selectivity(results: Mapping[str, "Selectivity"], *, alt: str | None = None) -> Figure:
    """The score while patches are removed, mean over the images; random (grey) and optimal order where they are known.

    Args:
        results: name -> what :func:`~interp_lab.selectivity` gave for the method, all with one order, score and number
            of steps; the random and the optimal order drawn are those of the first result that has them.
        alt: the alt text; None lists the areas under the curves.

    Raises:
        ValueError: results of different steps, orders or scores, or none.

    Example:
        >>> import torch
        >>> from interp_lab import plot, selectivity
        >>> model, x = (lambda x: x.flatten(1)), torch.eye(4).view(4, 1, 2, 2)
        >>> plot.selectivity({"the input": selectivity(model, x, x, fill=0.0)}).alt
        'Mean logit while patches are removed, most relevant first. Areas under the curves: the input 0.125.'
    """
    kinds = {(result.order, result.score, len(result.removed)) for result in results.values()}
    if len(kinds) != 1:
        raise ValueError(f"the results must have one order, score and number of steps, got {sorted(kinds)}")
    ((order, score, _),) = kinds
    drawn = {name.replace("_", " "): result for name, result in results.items()}
    for beside in ("random", "optimal"):
        known = [getattr(result, beside) for result in results.values() if getattr(result, beside) is not None]
        if known:
            drawn[f"{beside} order"] = known[0]
    removed = next(iter(results.values())).removed.cpu()
    areas = ", ".join(f"{name} {result.area.mean():.3g}" for name, result in drawn.items())
    figure = curves(
        100 * removed,
        {name: result.curve.mean(0) for name, result in drawn.items()},
        xlabel=f"patches removed, {order.replace('_', ' ')} (%)",
        ylabel=score,
        alt=alt
        or f"Mean {score} while patches are removed, {order.replace('_', ' ')}. Areas under the curves: {areas}.",
    )
    for line in figure.axes[0].lines:
        if line.get_label() == "random order":
            line.set(color="#888888", linestyle=":")
    add_legend(figure, len(drawn))  # again, for the changed line
    return figure
