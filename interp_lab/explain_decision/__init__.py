"""Part 2, the microscopic view: why did the network decide as it did for this input?"""

from functools import partial

from .contract import UnsupportedModelError
from .gradient_based import (
    gradient_x_input,
    integrated_gradients,
    interior_gradient,
    saliency,
    smoothgrad,
)

METHODS = {
    "saliency": saliency,
    "gradient_x_input": gradient_x_input,
    "smoothgrad": smoothgrad,
    "interior_gradient": partial(interior_gradient, alpha=0.5),
    "integrated_gradients": integrated_gradients,
}
"""Every attribution method by name, with the book's default options: ``METHODS[name](model, x, target)``."""

__all__ = [
    "METHODS",
    "UnsupportedModelError",
    "gradient_x_input",
    "integrated_gradients",
    "interior_gradient",
    "saliency",
    "smoothgrad",
]
