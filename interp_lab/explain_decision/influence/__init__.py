"""Influence functions: which training example moved this decision most?"""

from .definition import TopInfluence, influence

__all__ = ["TopInfluence", "influence"]
