"""The one result type of every data source of the course."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with their labels and, where it is known, the evidence for them.

    Attributes:
        images: float ``(N, C, H, W)`` in [0, 1], unless a loader was asked to normalise them.
        labels: LongTensor ``(N,)``, indices into ``classes``.
        classes: names of the classes.
        masks: named bool masks ``(N, H, W)`` of what is where, e.g. ``masks["object"]``.
        second_labels: LongTensor ``(N,)`` where every image shows a second object, else None.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    masks: dict[str, Tensor] = field(default_factory=dict)
    second_labels: Tensor | None = None

    def __post_init__(self) -> None:
        n, size = len(self.images), tuple(self.images.shape[-2:])
        if self.images.dim() != 4 or not self.images.is_floating_point():
            raise ValueError(f"images must be a float tensor (N, C, H, W), got {tuple(self.images.shape)}")
        for name, labels in (("labels", self.labels), ("second_labels", self.second_labels)):
            if labels is not None and (labels.shape != (n,) or labels.dtype != torch.int64):
                raise ValueError(f"{name} must be a LongTensor ({n},), got {labels.dtype} {tuple(labels.shape)}")
        for name, mask in self.masks.items():
            if mask.shape != (n, *size) or mask.dtype != torch.bool:
                raise ValueError(f"mask {name!r} must be bool {(n, *size)}, got {mask.dtype} {tuple(mask.shape)}")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: slice | Tensor | list[int]) -> "Dataset":
        """The rows of a slice, of a list of indices or of a boolean or index tensor, as a Dataset."""
        if isinstance(index, int):
            index = [index]
        return self._each(lambda tensor: tensor[index])

    def to(self, device: torch.device | str) -> "Dataset":
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change) -> "Dataset":
        masks = {name: change(mask) for name, mask in self.masks.items()}
        second = None if self.second_labels is None else change(self.second_labels)
        return Dataset(change(self.images), change(self.labels), self.classes, masks, second)


def third(labels: Tensor, test: bool) -> Tensor:
    """Rows of a fixed third of every class, or of the other two thirds, in their first order."""
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    held_out[by_class[::3]] = True
    return (held_out == test).nonzero().flatten()
