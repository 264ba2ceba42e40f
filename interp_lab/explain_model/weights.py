"""Weights made visible: what a feature map deep in the network responds to, in pixels."""

from torch import Tensor, nn

from ..explain_decision.contract import captured, explaining
from ..explain_decision.modified_backprop import modified_gradient
from ..explain_decision.relu_rules import ALLOWED, relu_table


def project_activation(model: nn.Module, x: Tensor, layer: str | nn.Module, channel: int) -> Tensor:
    r"""The strongest activation of one feature map in each image, projected back to pixels by a deconvnet.

    All other activations of the layer are set to zero. On the way down the signal, which starts as the activation
    itself, is rectified at every ReLU, passes max-pools to the place of the maximum (their switches) and
    convolutions transposed. It lies inside the receptive field of the activation. Zeiler & Fergus 2013,
    arXiv:1311.2901.

    Args:
        model: a network whose operations up to the layer are convolution, BatchNorm, ReLU, pooling and the like.
        x: float batch ``(N, C, ...)``.
        layer: the module, or its name, that gives the feature maps ``(N, K, ...)``.
        channel: index of the feature map, 0 .. K - 1.

    Returns:
        The projection, of the shape, dtype and device of x; zero for an image that does not activate the channel.

    Raises:
        ValueError: x is not as above, or there is no such module or channel.
        UnsupportedModelError: an operation without a rule, by name, or a layer that is not called once.
    """

    def run(model: nn.Module, x: Tensor) -> Tensor:
        with captured(model, layer) as kept:
            model(x.clone())
        return kept[0]

    def strongest(maps: Tensor) -> Tensor:
        if not (isinstance(channel, int) and 0 <= channel < maps.shape[1]):
            raise ValueError(f"channel must lie in 0..{maps.shape[1] - 1}, got {channel!r}")
        return maps[:, channel].flatten(1).max(1).values

    with explaining(model, x) as x:
        table = relu_table(lambda a, g: g.clamp(min=0), [])
        (projection,) = modified_gradient(
            model, x, strongest, table, allowed=ALLOWED, start=lambda activation: activation.clamp(min=0), run=run
        )
        return projection
