"""Part 2, the macroscopic view: what has the network learned, whatever the input?"""

from .prototypes import mmd_critic
from .weights import filters, project_activation, top_activations

__all__ = ["filters", "mmd_critic", "project_activation", "top_activations"]
