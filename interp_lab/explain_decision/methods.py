"""All attribution methods, by name."""

from collections.abc import Callable

from .deconvnet_and_guided_backprop import deconvnet, guided_backprop
from .deep_taylor import deep_taylor
from .deeplift import deeplift
from .grad_cam import grad_cam, guided_grad_cam
from .gradient_based import (
    gradient_x_input,
    integrated_gradients,
    interior_gradient,
    saliency,
    smoothgrad,
)
from .lrp import lrp
from .occlusion import occlusion
from .rectgrad import rectgrad
from .rise import rise
from .shapley import shapley

METHODS: dict[str, Callable] = {
    "saliency": saliency,
    "gradient_x_input": gradient_x_input,
    "smoothgrad": smoothgrad,
    "interior_gradient": interior_gradient,
    "integrated_gradients": integrated_gradients,
    "deconvnet": deconvnet,
    "guided_backprop": guided_backprop,
    "rectgrad": rectgrad,
    "lrp": lrp,
    "deep_taylor": deep_taylor,
    "deeplift": deeplift,
    "grad_cam": grad_cam,
    "guided_grad_cam": guided_grad_cam,
    "occlusion": occlusion,
    "rise": rise,
    "shapley": shapley,
}
"""Every attribution method by name, with the book's default options: ``METHODS[name](model, x, target)``.

The pattern methods are not among them: they need patterns that were fitted for the model.
"""
