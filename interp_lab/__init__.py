"""Interpretable deep learning: every method of the course, as short as its equation."""

from . import _torchvision  # must come before any import of torchvision
from .antehoc import BagOfLocalFeatures, additive_model, decision_tree, prototype_network, sparse_softmax
from .explain_decision import (
    METHODS,
    UnsupportedModelError,
    deconvnet,
    deep_taylor,
    deeplift,
    fit_patterns,
    grad_cam,
    gradient_x_input,
    guided_backprop,
    guided_grad_cam,
    integrated_gradients,
    interior_gradient,
    lrp,
    pattern_attribution,
    pattern_net,
    rectgrad,
    saliency,
    smoothgrad,
)
from .explain_model import (
    am_code,
    am_density,
    fidelity,
    filters,
    maximize_activation,
    mmd_critic,
    project_activation,
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
    "integrated_gradients",
    "interior_gradient",
    "lrp",
    "maximize_activation",
    "mmd_critic",
    "pattern_attribution",
    "pattern_net",
    "project_activation",
    "prototype_network",
    "rectgrad",
    "saliency",
    "smoothgrad",
    "sparse_softmax",
    "surrogate_graph",
    "surrogate_linear",
    "surrogate_local",
    "surrogate_tree",
    "top_activations",
    "total_variation",
]

del _torchvision


def __getattr__(name: str):
    if name == "priors":  # on demand: it brings scikit-learn's mixtures along
        from .explain_model import priors

        return priors
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
