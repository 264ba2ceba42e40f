"""Part 3: can the explanation be trusted? Attributions evaluated against known evidence, and against the model."""

from .class_sensitivity import class_sensitivity
from .coherence import bootstrap, box_masks, chance, coherence, pointing_game, relevance_mass, relevance_rank
from .fragility import attack_attribution, top_k_overlap
from .randomisation import model_randomisation
from .road import impute
from .roar import kar, roar
from .selectivity import selectivity
from .similarity import similarity, spearman, ssim

__all__ = [
    "attack_attribution",
    "bootstrap",
    "box_masks",
    "chance",
    "class_sensitivity",
    "coherence",
    "impute",
    "kar",
    "model_randomisation",
    "pointing_game",
    "relevance_mass",
    "relevance_rank",
    "roar",
    "selectivity",
    "similarity",
    "spearman",
    "ssim",
    "top_k_overlap",
]
