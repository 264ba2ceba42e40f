"""What a vision transformer's tokens say, as maps of its picture: for the page on transformers and for its claims."""

from torch import Tensor, nn
from torch.nn import functional as F

from interp_lab import attention_rollout, grad_cam, gradient_x_attention, tokens_to_maps


def over_image(rolled: Tensor, x: Tensor) -> Tensor:
    """What the class token has of every patch, enlarged to the picture."""
    patches = tokens_to_maps()(rolled[:, 0, :, None])
    return F.interpolate(patches, x.shape[2:], mode="bilinear").expand_as(x)


def rollout(model: nn.Module, x: Tensor, target: Tensor | None = None) -> Tensor:
    return over_image(attention_rollout(model, x), x)


def by_gradient(model: nn.Module, x: Tensor, target: Tensor | None = None) -> Tensor:
    return over_image(gradient_x_attention(model, x, target), x)


def on_tokens(model: nn.Module, x: Tensor, target: Tensor | None = None) -> Tensor:
    """Grad-CAM behind the first norm of the last block."""
    return grad_cam(model, x, target, layer=model[-4].norm1, reshape=tokens_to_maps())
