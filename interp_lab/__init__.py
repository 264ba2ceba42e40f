"""Interpretable deep learning: every method of the course, as short as its equation."""

from . import _torchvision  # must come before any import of torchvision
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
from .explain_model import filters, mmd_critic, project_activation, top_activations

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "UnsupportedModelError",
    "deconvnet",
    "deep_taylor",
    "deeplift",
    "filters",
    "fit_patterns",
    "grad_cam",
    "gradient_x_input",
    "guided_backprop",
    "guided_grad_cam",
    "integrated_gradients",
    "interior_gradient",
    "lrp",
    "mmd_critic",
    "pattern_attribution",
    "pattern_net",
    "project_activation",
    "rectgrad",
    "saliency",
    "smoothgrad",
    "top_activations",
]

del _torchvision
