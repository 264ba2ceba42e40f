"""Part 2, the macroscopic view: what has the network learned, whatever the input?"""

from .prototypes import mmd_critic
from .weights import project_activation

__all__ = ["mmd_critic", "project_activation"]
