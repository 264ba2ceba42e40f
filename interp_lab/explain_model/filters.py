"""Weights made visible: the filters of a first layer as pictures."""

import torch
from torch import Tensor, nn

from ..backprop.feature_maps import Layer


def filters(model: nn.Module, layer: Layer | None = None) -> Tensor:
    r"""The filters of a convolution as pictures, each scaled by its own largest magnitude: 0 is mid-grey.

    A filter w becomes :math:`\tfrac12 + \tfrac{w}{2 \max |w|}`, so that sign and relative size can be read off; a filter
    of zeros is grey.

    Args:
        model: a network.
        layer: a convolution over one or three channels, or its name; None takes the first convolution of the model.

    Returns:
        Pictures in [0, 1], ``(K, 1 or 3, h, w)``.

    Raises:
        ValueError: the model is no module, there is no such convolution, or its input has no colours (see
            :func:`~interp_lab.top_activations` then).

    Example:
        >>> from interp_lab import filters, networks
        >>> pictures = filters(networks.load("digits_cnn"))
        >>> pictures.shape, bool(((pictures >= 0) & (pictures <= 1)).all())
        (torch.Size([16, 1, 5, 5]), True)
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"only a torch.nn.Module has filters, got {type(model).__name__}")
    modules = dict(model.named_modules())
    if layer is None:
        layer = next((m for m in modules.values() if isinstance(m, nn.Conv2d)), None)
    module = modules.get(layer) if isinstance(layer, str) else layer
    if not isinstance(module, nn.Conv2d):
        raise ValueError(f"filters needs a Conv2d of the model, got {layer!r}")
    weight = module.weight.detach()
    if weight.shape[1] not in (1, 3):
        raise ValueError(
            f"a filter over {weight.shape[1]} feature maps is no picture; top_activations shows what it responds to"
        )
    largest = weight.abs().flatten(1).amax(1).clamp(min=torch.finfo(weight.dtype).tiny)
    return 0.5 + weight / largest.view(-1, 1, 1, 1) / 2
