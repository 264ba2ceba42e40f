"""The result of a sweep: one cell per method, fraction and seed, and what they say together."""

import math
from dataclasses import dataclass
from statistics import mean, stdev

Key = tuple[str, float, int]  # of a cell: method, fraction, seed
WHOLE = "none"  # the method that replaces nothing


@dataclass(frozen=True)
class Cell:
    """One row of the table: test accuracies in [0, 1], or what went wrong.

    Attributes:
        method: whose attributions order the pixels; ``"none"`` for the whole images.
        fraction: of the pixels that were replaced.
        seed: of the training.
        accuracy: of the network trained and tested on the images with their pixels replaced.
        mask_only: of the network trained and tested on the masks alone; None for the whole images.
        error: what went wrong, or empty.
    """

    method: str
    fraction: float
    seed: int
    accuracy: float | None = None
    mask_only: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation over the seeds of one method and fraction; NaN where there is nothing to average.

    Attributes:
        method: whose attributions order the pixels; ``"none"`` for the whole images.
        fraction: of the pixels that were replaced.
        accuracy: its mean, in [0, 1].
        spread: its standard deviation, in [0, 1].
        mask_only: the mean accuracy of the networks trained on the masks alone.
        mask_only_spread: its standard deviation.
        seeds: how many accuracies there are.
    """

    method: str
    fraction: float
    accuracy: float
    spread: float
    mask_only: float
    mask_only_spread: float
    seeds: int


@dataclass(frozen=True)
class Retraining:
    """What :func:`~interp_lab.roar` and :func:`~interp_lab.kar` return: ``print`` it, or make a data frame of its ``cells``.

    Attributes:
        replaced: ``"most relevant"`` (ROAR) or ``"least relevant"`` (KAR).
        cells: one per method, fraction and seed. The method ``"none"`` at fraction 0 is the network on whole images;
            ``"random"`` and ``"edges"`` are the baselines.

    Example:
        >>> cells = [Cell("none", 0.0, 0, 0.98), Cell("edges", 0.5, 0, 0.9, 0.8), Cell("edges", 0.5, 1, 0.7, 0.6)]
        >>> row = Retraining("most relevant", tuple(cells)).summary()[1]
        >>> f"{row.method}: {row.accuracy:.2f} ± {row.spread:.2f}, masks alone {row.mask_only:.2f}"
        'edges: 0.80 ± 0.14, masks alone 0.70'
    """

    replaced: str
    cells: tuple[Cell, ...]

    def summary(self) -> list[Summary]:
        """One row per method and fraction, in the order of the cells."""
        groups: dict[tuple[str, float], list[Cell]] = {}
        for cell in self.cells:
            groups.setdefault((cell.method, cell.fraction), []).append(cell)
        rows = []
        for (method, fraction), cells in groups.items():
            accuracies = [cell.accuracy for cell in cells if cell.accuracy is not None]
            alone = [cell.mask_only for cell in cells if cell.mask_only is not None]
            rows.append(Summary(method, fraction, *_moments(accuracies), *_moments(alone), len(accuracies)))
        return rows

    @property
    def errors(self) -> dict[str, str]:
        """Method -> the first thing that went wrong with it."""
        return {cell.method: cell.error for cell in reversed(self.cells) if cell.error}

    def rows(self) -> dict[str, dict[str, str]]:
        """Method -> (fraction -> its accuracy in %, in brackets that of the masks alone), the lowest mean first.

        The last row is the accuracy on whole images, which no fraction changes.
        """
        by_method: dict[str, dict[float, Summary]] = {}
        for row in self.summary():
            by_method.setdefault(row.method, {})[row.fraction] = row
        whole = by_method.pop(WHOLE)[0.0]
        fractions = list(dict.fromkeys(c.fraction for c in self.cells if c.method != WHOLE))
        order = sorted(by_method, key=lambda name: mean(row.accuracy for row in by_method[name].values()))
        order.sort(key=lambda name: math.isnan(mean(row.accuracy for row in by_method[name].values())))
        by_method["whole images"] = dict.fromkeys(fractions, whole)
        return {
            name: {f"{100 * f:g} %": _percent(by_method[name][f]) for f in fractions}
            for name in (*order, "whole images")
        }

    def __str__(self) -> str:
        rows = self.rows()
        width, seeds = max(map(len, rows)), sum(c.method == WHOLE and c.accuracy is not None for c in self.cells)
        lines = [
            f"Test accuracy in % after retraining without the {self.replaced} pixels,",
            f"mean ± standard deviation over {seeds} seeds; in brackets, of networks trained on the masks alone.",
            f"{'replaced':{width}}" + "".join(f"{fraction:>20}" for fraction in rows["whole images"]),
            *(f"{name:{width}}" + "".join(f"{cell:>20}" for cell in cells.values()) for name, cells in rows.items()),
        ]
        return "\n".join(lines + [f"{name}: {error}" for name, error in self.errors.items()])


def _moments(values: list[float]) -> tuple[float, float]:
    return mean(values) if values else math.nan, stdev(values) if len(values) > 1 else math.nan


def _percent(row: Summary) -> str:
    if row.seeds == 0:
        return "failed"
    spread = f" ± {100 * row.spread:.1f}" if row.seeds > 1 else ""
    alone = "" if math.isnan(row.mask_only) else f" ({100 * row.mask_only:.1f})"
    return f"{100 * row.accuracy:.1f}{spread}{alone}"
