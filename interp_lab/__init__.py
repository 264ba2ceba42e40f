"""Interpretable deep learning: every method of the course, as short as its equation."""

import torch

from . import _torchvision
from .antehoc import BagOfLocalFeatures, additive_model, decision_tree, prototype_network, sparse_softmax
from .evaluate import (
    attack_attribution,
    class_sensitivity,
    coherence,
    impute,
    kar,
    model_randomisation,
    pointing_game,
    relevance_mass,
    relevance_rank,
    roar,
    selectivity,
    top_k_overlap,
)
from .explain_decision import (
    METHODS,
    UnsupportedModelError,
    channels_first,
    deconvnet,
    deep_taylor,
    deeplift,
    fit_patterns,
    grad_cam,
    gradient_x_input,
    guided_backprop,
    guided_grad_cam,
    influence,
    integrated_gradients,
    interior_gradient,
    lrp,
    pattern_attribution,
    pattern_net,
    rectgrad,
    saliency,
    smoothgrad,
    tokens_to_maps,
)
from .explain_model import (
    am_code,
    am_density,
    fidelity,
    filters,
    maximize_activation,
    mmd_critic,
    project_activation,
    project_top,
    surrogate_graph,
    surrogate_linear,
    surrogate_local,
    surrogate_tree,
    top_activations,
    total_variation,
)

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "BagOfLocalFeatures",
    "UnsupportedModelError",
    "additive_model",
    "am_code",
    "am_density",
    "attack_attribution",
    "channels_first",
    "class_sensitivity",
    "coherence",
    "decision_tree",
    "deconvnet",
    "deep_taylor",
    "deeplift",
    "fidelity",
    "filters",
    "fit_patterns",
    "grad_cam",
    "gradient_x_input",
    "guided_backprop",
    "guided_grad_cam",
    "impute",
    "influence",
    "integrated_gradients",
    "interior_gradient",
    "kar",
    "lrp",
    "maximize_activation",
    "mmd_critic",
    "model_randomisation",
    "pattern_attribution",
    "pattern_net",
    "pointing_game",
    "project_activation",
    "project_top",
    "prototype_network",
    "rectgrad",
    "relevance_mass",
    "relevance_rank",
    "roar",
    "saliency",
    "selectivity",
    "smoothgrad",
    "sparse_softmax",
    "surrogate_graph",
    "surrogate_linear",
    "surrogate_local",
    "surrogate_tree",
    "tokens_to_maps",
    "top_activations",
    "top_k_overlap",
    "total_variation",
]

# Until a block of nearly 32 MB has been freed once, glibc may give the memory of every pass back to the system, and the
# next pass fetch it again page by page, at up to twice the time.
torch.empty(2**25 - 2**16, dtype=torch.uint8)

del _torchvision, torch


def __getattr__(name: str):
    if name == "priors":  # on demand: it brings scikit-learn's mixtures along
        from .explain_model import priors

        return priors
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
