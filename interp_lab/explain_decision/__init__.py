"""Part 2, the microscopic view: why did the network decide as it did for this input?"""

from functools import partial

from .contract import UnsupportedModelError
from .deeplift import deeplift
from .feature_maps import channels_first, tokens_to_maps
from .grad_cam import grad_cam, guided_grad_cam
from .gradient_based import (
    gradient_x_input,
    integrated_gradients,
    interior_gradient,
    saliency,
    smoothgrad,
)
from .influence import TopInfluence, influence
from .lrp import deep_taylor, lrp
from .patterns import fit_patterns, pattern_attribution, pattern_net
from .relu_rules import deconvnet, guided_backprop, rectgrad

METHODS = {
    "saliency": saliency,
    "gradient_x_input": gradient_x_input,
    "smoothgrad": smoothgrad,
    "interior_gradient": partial(interior_gradient, alpha=0.5),
    "integrated_gradients": integrated_gradients,
    "deconvnet": deconvnet,
    "guided_backprop": guided_backprop,
    "rectgrad": rectgrad,
    "lrp": lrp,
    "deep_taylor": deep_taylor,
    "deeplift": deeplift,
    "grad_cam": grad_cam,
    "guided_grad_cam": guided_grad_cam,
}
"""Every attribution method by name, with the book's default options: ``METHODS[name](model, x, target)``.

The pattern methods are not among them: they need patterns that were fitted for the model.
"""

__all__ = [
    "METHODS",
    "TopInfluence",
    "UnsupportedModelError",
    "channels_first",
    "deconvnet",
    "deep_taylor",
    "deeplift",
    "fit_patterns",
    "grad_cam",
    "gradient_x_input",
    "guided_backprop",
    "guided_grad_cam",
    "influence",
    "integrated_gradients",
    "interior_gradient",
    "lrp",
    "pattern_attribution",
    "pattern_net",
    "rectgrad",
    "saliency",
    "smoothgrad",
    "tokens_to_maps",
]
