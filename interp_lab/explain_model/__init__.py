"""Part 2, the macroscopic view: what has the network learned, whatever the input?"""

from .weights import project_activation

__all__ = ["project_activation"]
