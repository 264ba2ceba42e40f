"""Part 2, the macroscopic view: what has the network learned, whatever the input?"""

from .activation_maximisation import am_code, am_density, maximize_activation, total_variation
from .prototypes import mmd_critic
from .surrogates import (
    fidelity,
    fresh_queries,
    segment,
    surrogate_graph,
    surrogate_linear,
    surrogate_local,
    surrogate_tree,
)
from .weights import filters, project_activation, project_top, top_activations

__all__ = [
    "am_code",
    "am_density",
    "fidelity",
    "filters",
    "fresh_queries",
    "maximize_activation",
    "mmd_critic",
    "project_activation",
    "project_top",
    "segment",
    "surrogate_graph",
    "surrogate_linear",
    "surrogate_local",
    "surrogate_tree",
    "top_activations",
    "total_variation",
]
