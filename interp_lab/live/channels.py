"""A network whose channels have switches, as a graph of the image and the switches, so that a reader can turn them off."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from ..backprop.feature_maps import Axes, captured
from ..contract import Model
from ..explain_model.surrogates.graph import ablated
from .graphs import Live, export

INTACT = "logits with all channels"
ACTIVATIONS = "activations of "  # a layer


class Switched(nn.Module):
    """The network on rows ``(N, P + K)`` of an image and the switches of K channels: 1 is on, 0 holds it at its mean."""

    def __init__(self, model: nn.Module, means: Mapping[str, Tensor], shape: Sequence[int]) -> None:
        super().__init__()
        self.model, self.means, self.shape = model, dict(means), tuple(shape)

    def parts(self, both: Tensor) -> tuple[Tensor, Tensor]:
        """The images, and the switches, which are those of the first row."""
        pixels = math.prod(self.shape)
        return both[:, :pixels].unflatten(1, self.shape), both[0, pixels:] > 0.5

    def with_channels(self, on: Tensor) -> Model:
        ends = [0, *accumulate(map(len, self.means.values()))]
        kept = {layer: on[start:end] for layer, (start, end) in zip(self.means, pairwise(ends), strict=True)}
        return lambda x: ablated(self.model, x, kept, self.means)

    def forward(self, both: Tensor) -> Tensor:
        x, on = self.parts(both)
        return self.with_channels(on)(x)


def export_channels(
    model: nn.Module,
    methods: Mapping[str, Callable[..., Tensor]],
    means: Mapping[str, Tensor],
    examples: Tensor,
    classes: Sequence[str],
) -> Live:
    """As :func:`~interp_lab.live.export`, for the network with some channels held at their means.

    What the graph takes is a row ``(1, P + K)``: the image, and a number for each channel of the layers, 1 where it is on and
    0 where it is off. ``"logits"`` and the methods are those of the network with these channels off, ``"logits with all
    channels"`` those of the network, and ``"activations of LAYER"`` what the layer's channels give before they are held.

    Args:
        model: as there.
        methods: name -> method of the network and an image.
        means: layer -> mean activation of each channel ``(K,)``, at which it is held, such as those of
            :func:`~interp_lab.surrogate_graph`.
        examples: images ``(N, C, H, W)``, two or more.
        classes: the names of the classes.

    Raises:
        ValueError: the examples are not as in ``export``, or fewer than two.
        UnsupportedModelError: as there.

    >>> import interp_lab
    >>> layers = nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)
    >>> model, x, means = nn.Sequential(*layers).eval(), torch.rand(2, 1, 2, 2), {"1": torch.ones(3)}
    >>> live = export_channels(model, {"saliency": interp_lab.saliency}, means, x, "ab")
    >>> row = torch.cat([x[0].flatten(), torch.tensor([1.0, 0.0, 1.0])])
    >>> held = model[:2](x[:1]).index_fill(1, torch.tensor([1]), 1.0)
    >>> torch.allclose(live.run("logits", row[None], torch.tensor([0])), model[2:](held))
    True
    """
    if len(examples) < 2:
        raise ValueError("channels are recorded on two or more examples: with some of them off, and with all on")
    network = Switched(model, means, examples.shape[1:]).eval()
    on = torch.rand(len(examples), sum(map(len, means.values())), generator=torch.Generator().manual_seed(0)) > 0.3
    on[-1] = True

    def of_image(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(_: nn.Module, both: Tensor, target: Tensor) -> Tensor:
            x, on = network.parts(both)
            return method(network.with_channels(on), x, target)

        return run

    @torch.no_grad()
    def intact(_: nn.Module, both: Tensor, target: Tensor) -> Tensor:
        return model(network.parts(both)[0])

    def activations(layer: str) -> Callable[..., Tensor]:
        @torch.no_grad()
        def run(_: nn.Module, both: Tensor, target: Tensor) -> Tensor:
            x, on = network.parts(both)
            with captured(model, Axes(x), [layer], on_grid=False) as maps:
                network.with_channels(on)(x)
            return maps[layer]

        return run

    recorded = {name: of_image(method) for name, method in methods.items()}
    recorded |= {INTACT: intact} | {ACTIVATIONS + layer: activations(layer) for layer in means}
    live = export(network, recorded, torch.cat([examples.flatten(1), on.float()], 1), classes)
    return dataclasses.replace(
        live, image=network.shape, channels=tuple((layer, len(mean)) for layer, mean in means.items())
    )
