"""ROAR and KAR: replace the most (or least) relevant pixels, retrain, and see what the networks still know.

The two curves are in ``roar_and_kar``: ``images`` puts the data into files, ``ranks`` orders the pixels, ``starts`` makes
the networks and ``training`` trains them, ``workers`` says where, ``journal`` remembers what is finished, and ``table`` is
the result.
"""

from .ranks import edges, random_order, rank_pixels
from .roar_and_kar import kar, roar
from .table import Cell, Retraining, Summary
from .workers import Workers

__all__ = ["Cell", "Retraining", "Summary", "Workers", "edges", "kar", "random_order", "rank_pixels", "roar"]
