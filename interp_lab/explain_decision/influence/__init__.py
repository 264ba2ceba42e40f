"""Influence functions and TRAK: which training example moved this decision most?"""

from .definition import TopInfluence, influence
from .random_projections import trak

__all__ = ["TopInfluence", "influence", "trak"]
