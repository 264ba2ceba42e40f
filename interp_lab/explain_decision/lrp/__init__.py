"""Layer-wise relevance propagation: the pass, the rules, and what is no linear layer."""

from .relevance import Balance, lrp

__all__ = ["Balance", "lrp"]
