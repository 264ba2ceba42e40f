"""Methods that compare an input with a baseline, as graphs of both, so that a reader can draw the baseline."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..contract import Model
from .graphs import Live, export

AT_BASELINE = "logits at the baseline"


class Upper(nn.Module):
    """The network on the input alone, which lies above the baseline."""

    def __init__(self, model: Model, channels: int) -> None:
        super().__init__()
        self.model, self.channels = model, channels

    def forward(self, both: Tensor) -> Tensor:
        return self.model(both[:, : self.channels])


def export_pairs(
    model: nn.Module,
    methods: Mapping[str, Callable[..., Tensor]],
    examples: Tensor,
    baselines: Tensor,
    classes: Sequence[str],
) -> Live:
    """As :func:`~interp_lab.live.export`, for methods ``method(model, x, target, baseline=x0)``.

    What the graph takes is x above x0, ``(1, 2C, ...)``; ``"logits"`` are those of x, ``"logits at the baseline"`` those of x0.

    Args:
        model: as there.
        methods: name -> method.
        examples: inputs ``(N, C, ...)``.
        baselines: theirs, of the same shape.
        classes: the names of the classes.

    Raises:
        ValueError: the examples and baselines differ in shape, or are not as in ``export``.
        UnsupportedModelError: as there.

    >>> from interp_lab import deeplift
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 3)).eval()
    >>> live = export_pairs(model, {"deeplift": deeplift}, torch.rand(2, 1, 2, 2), torch.zeros(2, 1, 2, 2), classes="abc")
    >>> x, x0, target = torch.rand(1, 1, 2, 2), torch.rand(1, 1, 2, 2), torch.tensor([1])
    >>> map_ = live.run("deeplift", torch.cat([x, x0], 1), target)
    >>> torch.allclose(map_, deeplift(model, x, target, baseline=x0))
    True
    """
    if examples.shape != baselines.shape:
        raise ValueError(f"every example needs its baseline, got {tuple(examples.shape)} and {tuple(baselines.shape)}")
    channels = examples.shape[1]

    def of_both(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda _, both, target: method(model, both[:, :channels], target, baseline=both[:, channels:])

    @torch.no_grad()
    def at_baseline(_: nn.Module, both: Tensor, target: Tensor) -> Tensor:
        return model(both[:, channels:])

    recorded = {name: of_both(method) for name, method in methods.items()} | {AT_BASELINE: at_baseline}
    live = export(Upper(model, channels).eval(), recorded, torch.cat([examples, baselines], 1), classes)
    return dataclasses.replace(live, pairs=True, image=tuple(examples.shape[1:]))
