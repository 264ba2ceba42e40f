"""What in an image made an activation: its way back to the pixels through a deconvnet."""

import torch
from torch import Tensor, nn

from ..backprop.feature_maps import Axes, Layer, Reshape, captured
from ..backprop.modified_backprop import modified_gradient
from ..backprop.relu_rules import ALLOWED, relu_table
from ..contract import Model, explaining, output_of
from .top_activations import TopActivations, cut_patches


def project_activation(
    model: nn.Module, x: Tensor, layer: Layer, channel: int | Tensor, *, reshape: Reshape | None = None
) -> Tensor:
    r"""The strongest activation of one feature map in each image, projected back to pixels by a deconvnet.

    All other activations of the layer are set to zero. On the way down the signal, which starts as the activation
    itself, is rectified at every ReLU, passes max-pools to the place of the maximum (their switches) and
    convolutions transposed. It lies inside the receptive field of the activation. Zeiler & Fergus 2014,
    arXiv:1311.2901.

    Args:
        model: a network whose operations up to the layer are convolution, BatchNorm, ReLU, pooling and the like.
        x: float batch ``(N, C, ...)``.
        layer: the module, or its name, that gives the feature maps ``(N, K, ...)``.
        channel: index of the feature map, 0 .. K - 1, or a LongTensor ``(N,)`` with one for each image.
        reshape: from the layer's output to the maps ``(N, K, h, w)``, such as :func:`~interp_lab.tokens_to_maps`; None
            where the output is maps, with the channels on any axis.

    Returns:
        The projection, of the shape, dtype and device of x; zero for an image that does not activate the channel.

    Raises:
        ValueError: x is not as above, or there is no such module or channel.
        UnsupportedModelError: an operation without a rule, by name, or a layer that is not called once.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from interp_lab import project_activation
        >>> network = nn.Sequential(nn.Conv2d(1, 1, 3, bias=False), nn.ReLU())
        >>> x = torch.zeros(1, 1, 5, 5)
        >>> x[..., 1:4, 1:4] = network[0].weight.detach()  # what the filter answers most
        >>> projection = project_activation(network, x, "1", 0)
        >>> torch.allclose(projection, x * x.square().sum())
        True
    """

    def run(model: Model, x: Tensor) -> Tensor:
        copy = x.clone()
        with captured(model, Axes(copy), [layer], reshape) as kept:
            output_of(model, copy)
        return kept[layer]

    def strongest(maps: Tensor) -> Tensor:
        channels = torch.as_tensor(channel, device=maps.device)
        if channels.dtype != torch.long or not ((channels >= 0) & (channels < maps.shape[1])).all():
            raise ValueError(f"channel must lie in 0..{maps.shape[1] - 1}, got {channel!r}")
        return maps[torch.arange(len(maps), device=maps.device), channels].flatten(1).max(1).values

    with explaining(model, x) as x:
        table = relu_table(lambda a, g: g.clamp(min=0), [])
        (projection,) = modified_gradient(
            model, x, strongest, table, allowed=ALLOWED, start=lambda activation: activation.clamp(min=0), run=run
        )
        return projection


@torch.inference_mode(False)
def project_top(
    model: nn.Module, images: Tensor, layer: Layer, top: TopActivations, *, reshape: Reshape | None = None
) -> Tensor:
    """What in each patch of ``top`` made the activation: :func:`project_activation`, cut like the patches.

    Args:
        model: the network that was given to :func:`~interp_lab.top_activations`.
        images: float ``(N, C, H, W)``, the images that ``top.images`` counts.
        layer: the module, or its name, that was given there.
        top: the strongest activations.
        reshape: from the layer's output to the maps ``(N, K, h, w)``, such as :func:`~interp_lab.tokens_to_maps`; None
            where the output is maps, with the channels on any axis.

    Returns:
        Signed projections of the shape of ``top.patches``; zero where there were fewer than k images.

    Raises:
        ValueError: fewer images than ``top`` speaks of, or there is no such module.
        UnsupportedModelError: an operation up to the layer without a rule, by name.

    Example:
        >>> from interp_lab import networks, project_top, top_activations
        >>> from interp_lab.data import digits
        >>> model, images = networks.load("digits_cnn"), digits("test").images[:60]
        >>> top = top_activations(model, [images], "0", k=3)
        >>> project_top(model, images, "0", top).shape == top.patches.shape
        True
    """
    if top.images.max() >= len(images):
        raise ValueError(f"top speaks of image {top.images.max().item()}, but there are {len(images)} images")
    channel, rank = (top.images >= 0).nonzero(as_tuple=True)
    projections = torch.zeros_like(top.patches)
    for part in torch.arange(len(channel), device=channel.device).split(64):
        c, r = channel[part], rank[part]
        x = images[top.images[c, r].to(images.device)].to(top.patches)
        down = project_activation(model, x, layer, c, reshape=reshape)
        projections[c, r] = cut_patches(down, torch.arange(len(down), device=down.device), top.places[c, r], top.fields)
    return projections
