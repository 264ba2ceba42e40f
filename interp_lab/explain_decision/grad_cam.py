r"""Grad-CAM: where in the last feature maps the class is seen.

It needs the gradient only down to those maps, so it costs less than a saliency map, and shows no more detail than
they have.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .contract import Model, Target, UnsupportedModelError, captured, explaining, logits_of, pick
from .interception import operations
from .relu_rules import guided_backprop

CONVOLUTIONS = set(operations(*[f"{name}{d}d" for name in ("conv", "conv_transpose") for d in (1, 2, 3)]))
INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}


def grad_cam(
    model: Model,
    x: Tensor,
    target: Target = None,
    *,
    layer: str | nn.Module | None = None,
    upsample: bool = True,
) -> Tensor:
    r"""Grad-CAM: the feature maps, weighted by the mean gradient of the logit over each map.

    .. math:: R = \mathrm{relu}\Bigl(\sum_k \alpha_k A_k\Bigr), \qquad
        \alpha_k = \operatorname{mean}_{ij} \frac{\partial f_c}{\partial A_{k,ij}}

    On a network that ends in global average pooling and a dense layer it is the class activation map, up to the factor
    1 / (number of places). Selvaraju et al. 2017, arXiv:1610.02391.

    Args:
        model: a module or function from ``(N, ...)`` to logits ``(N, K)``.
        x: float batch ``(N, C, ...)``.
        target: None (the predicted class), an int, or a LongTensor ``(N,)``.
        layer: the module, or its name, whose output is A. None takes the last feature maps of the resolution of the last
            convolution, after its BatchNorm, ReLU and residual addition.
        upsample: interpolate linearly to the size of x, the same for every channel; else ``(N, 1, ...)`` at A's size.

    Returns:
        The non-negative attribution, of the shape of x unless ``upsample`` is False, and of its dtype and device.

    Raises:
        ValueError: x, target or the logits are not as above, or there is no module of that name.
        UnsupportedModelError: no convolution, or the layer gives no feature maps, is not called once, or does not act on
            the logit.
    """
    with explaining(model, x) as x:
        x.requires_grad_()
        maps, chosen = _last_maps(model, x, target) if layer is None else _maps_of(model, layer, x, target)
        (gradient,) = torch.autograd.grad(chosen.sum(), maps, allow_unused=True)
        if gradient is None:
            raise UnsupportedModelError("the feature maps do not act on the logit")
        alpha = gradient.flatten(2).mean(2).view(*maps.shape[:2], *[1] * (maps.dim() - 2))
        cam = (alpha * maps.detach()).sum(1, keepdim=True).relu()
        if not upsample:
            return cam
        if maps.dim() != x.dim() or x.dim() - 2 not in INTERPOLATION:
            raise UnsupportedModelError(f"maps {tuple(maps.shape)} cannot be laid over x {tuple(x.shape)}")
        mode = INTERPOLATION[x.dim() - 2]
        return F.interpolate(cam, x.shape[2:], mode=mode, align_corners=False).expand_as(x).contiguous()


def guided_grad_cam(model: Model, x: Tensor, target: Target = None, *, layer: str | nn.Module | None = None) -> Tensor:
    """Guided Grad-CAM: guided backpropagation times Grad-CAM, detail only where the class is seen.

    Selvaraju et al. 2017, arXiv:1610.02391. Arguments, shapes and errors as for :func:`grad_cam` and
    :func:`~interp_lab.guided_backprop`.
    """
    return guided_backprop(model, x, target) * grad_cam(model, x, target, layer=layer)


class _LastMaps(TorchFunctionMode):
    """Keeps the last value of the resolution of the last convolution whose maps have more than one place."""

    maps: Tensor | None = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.requires_grad and out.dim() > 2:
            same_size = self.maps is not None and (out.shape[0], *out.shape[2:]) == (
                self.maps.shape[0],
                *self.maps.shape[2:],
            )
            if same_size or (func in CONVOLUTIONS and out.shape[2:].numel() > 1):
                self.maps = out
        return out


def _last_maps(model: Model, x: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    with _LastMaps() as mode:
        chosen = pick(logits_of(model, x), target)
    if mode.maps is None:
        raise UnsupportedModelError("Grad-CAM needs feature maps, but the model calls no convolution")
    return mode.maps, chosen


def _maps_of(model: Model, layer: str | nn.Module, x: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    with captured(model, layer) as kept:
        chosen = pick(logits_of(model, x), target)
    return kept[0], chosen
