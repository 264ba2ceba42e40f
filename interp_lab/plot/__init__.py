"""Every picture of the book: images, heatmaps, curves and bars, colour-blind safe and with alt text; and its tables.

Each function but :func:`slider` and :func:`table` returns a :class:`Figure`, a matplotlib figure that a notebook shows as a PNG with its
alt text.
Signed attributions use a diverging map with white at zero (red positive, blue negative), magnitudes a
sequential one; what the colours clip is written under the picture.

Images may have any finite values: what leaves [0, 1] (normalised pictures, 0 .. 255) is shown by one linear scaling of all
images of the figure, and what is black and what is white in it is written under the picture and into its alt text.
Tensors have their channels first; batches of numpy arrays may have them last.
"""

# `pytest --doctest-modules interp_lab/plot` runs the examples in the docstrings.

from .antehoc import prototype_evidence, shape_functions, templates, tree
from .base import COLORS, DIVERGING, DPI, SEQUENTIAL, WIDTH, Figure
from .decisions import heatmap, influential, panel, tokens
from .evaluation import class_sensitivity, coherence, model_randomisation, ranks, retraining, selectivity
from .general import arrows, bars, curves, images, numbers
from .models import ascent, channel_graph, prototypes, segments, top_patches
from .sliders import Slider, slider
from .tables import table

__all__ = [
    "COLORS",
    "DIVERGING",
    "DPI",
    "SEQUENTIAL",
    "WIDTH",
    "Figure",
    "Slider",
    "arrows",
    "ascent",
    "bars",
    "channel_graph",
    "class_sensitivity",
    "coherence",
    "curves",
    "heatmap",
    "images",
    "influential",
    "model_randomisation",
    "numbers",
    "panel",
    "prototype_evidence",
    "prototypes",
    "ranks",
    "retraining",
    "segments",
    "selectivity",
    "shape_functions",
    "slider",
    "table",
    "templates",
    "tokens",
    "top_patches",
    "tree",
]
