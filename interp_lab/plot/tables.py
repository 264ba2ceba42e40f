"""Tables of numbers, which a page shows as HTML."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    import pandas


def table(rows: Mapping[Any, Mapping[str, Any]], spec: str = ".2f", *, label: str = "") -> "pandas.DataFrame":
    """Named rows of named values as a data frame of texts, which a notebook shows as a table.

    Args:
        rows: row -> (column -> value). Texts and integers stay as they are, numbers are written by ``spec``, as are the
            intervals of :func:`interp_lab.bootstrap`; a tensor of several numbers is told by their mean ± standard
            deviation. A column that a row lacks stays empty.
        spec: format of the numbers, e.g. ``".1%"``.
        label: what the names of the rows are.

    Raises:
        ImportError: pandas is not installed; the extra ``book`` brings it.
        ValueError: a tensor without numbers, or of more than one dimension.

    Example:
        >>> import torch
        >>> from interp_lab import plot
        >>> masses = {"saliency": torch.tensor([0.61, 0.65]), "lrp": torch.tensor([0.86, 0.74])}
        >>> plot.table({name: {"mass": mass, "n": len(mass)} for name, mass in masses.items()}, label="method")
        method           mass  n
        saliency  0.63 ± 0.03  2
        lrp       0.80 ± 0.08  2
    """
    import pandas

    def written(row: Any, column: str, value: Any) -> str:
        if isinstance(value, Tensor):
            if value.dim() > 1 or not value.numel():
                raise ValueError(f"{column!r} of {row!r} has shape {tuple(value.shape)}; give numbers (N,), or a text")
            if value.numel() > 1:
                return f"{value.double().mean():{spec}} ± {value.double().std():{spec}}"
            value = value.item()
        return str(value) if isinstance(value, str | int) else format(value, spec)

    texts = {
        str(row): {name: written(row, name, value) for name, value in cells.items()} for row, cells in rows.items()
    }
    frame = pandas.DataFrame.from_dict(texts, orient="index").fillna("")
    return frame.rename_axis(columns=label or None)
