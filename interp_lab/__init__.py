"""Interpretable deep learning: every method of the course, as short as its equation."""

from . import _torchvision  # must come before any import of torchvision
from .explain_decision import (
    METHODS,
    UnsupportedModelError,
    gradient_x_input,
    integrated_gradients,
    interior_gradient,
    saliency,
    smoothgrad,
)

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "UnsupportedModelError",
    "gradient_x_input",
    "integrated_gradients",
    "interior_gradient",
    "saliency",
    "smoothgrad",
]

del _torchvision
