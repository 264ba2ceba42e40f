"""Images in files: a task carries the names of the files, and a worker maps them into its memory.

So the data are sent once, however many networks are trained on them, and may be larger than the memory: what a batch
needs is read when it is needed.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ...data.dataset import Dataset, third

BATCH = 256  # images read at a time
RESIDENT = 2**32  # bytes of images that are laid on a GPU as a whole


class Pairs(Sized, Protocol):
    """A torch data set whose item i is (image, label)."""

    def __getitem__(self, row: int, /) -> Sequence[Any]: ...


Source = Dataset | Pairs


class Part(NamedTuple):
    """Images and labels of the training or the test part, in two files."""

    images: Path  # npy, uint8 or float (N, C, H, W)
    labels: Path  # npy, int64 (N,)
    digest: str  # of both

    def load(self, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Images and labels: on a GPU that takes them, uploaded once for all tasks of a process; else :func:`mapped`.

        Raises:
            FileNotFoundError: this machine does not see the files.
            ValueError: they hold other data.
        """
        _verify(self)
        images, labels = mapped(self.images), mapped(self.labels)
        if torch.device(device).type == "cpu" or images.nbytes > RESIDENT:
            return images, labels
        return uploaded(self.images, str(device)), uploaded(self.labels, str(device))


def split(dataset: Source | tuple[Source, Source]) -> tuple[Source, Source]:
    """(training part, test part): of one Dataset, a fixed third of every class is the test part.

    Raises:
        ValueError: it is neither a Dataset nor a pair.
    """
    if isinstance(dataset, Dataset):
        dataset = dataset[third(dataset.labels, test=False)], dataset[third(dataset.labels, test=True)]
    if not isinstance(dataset, tuple | list) or len(dataset) != 2:
        raise ValueError(f"dataset must be a Dataset or (training part, test part), got {type(dataset).__name__}")
    train, test = (part.to("cpu") if isinstance(part, Dataset) else part for part in dataset)
    return train, test


def image_shape(data: Source) -> tuple[int, int, int]:
    """(C, H, W) of the first image.

    Raises:
        ValueError: it is no tensor of numbers in [0, 1] or of bytes.
    """
    image = data.images[0] if isinstance(data, Dataset) else data[0][0]
    if (
        not isinstance(image, Tensor)
        or image.dim() != 3
        or not (image.is_floating_point() or image.dtype == torch.uint8)
    ):
        raise ValueError(
            f"images must be tensors (C, H, W) of uint8 or float, got {type(image).__name__}; give the data set the "
            "transform torchvision.transforms.PILToTensor()"
        )
    channels, height, width = image.shape
    return channels, height, width


def store(data: Source, folder: Path, name: str) -> Part:
    """Write the images, as they are, and the labels into the folder; only a batch of them is in memory.

    Raises:
        ValueError: images of different shapes or types.
        OSError: the disk is full.
    """
    images, labels, seen = folder / f"{name}.npy", folder / f"{name}-labels.npy", []
    first = data.images[0] if isinstance(data, Dataset) else data[0][0]
    with written(images, first.dtype, (len(data), *first.shape)) as write:
        for x, y in _batches(data, first, name):
            write(x)
            seen.append(y)
    np.save(labels, torch.cat(seen).numpy())
    return Part(images, labels, digest(mapped(images), mapped(labels)))


def _batches(data: Source, first: Tensor, name: str) -> Iterator[tuple[Tensor, Tensor]]:
    for rows in torch.arange(len(data)).split(BATCH):
        if isinstance(data, Dataset):
            yield data.images[rows], data.labels[rows]
            continue
        x, y = zip(*(data[row] for row in rows.tolist()), strict=True)
        for row, image in zip(rows.tolist(), x, strict=True):
            if (image.shape, image.dtype) != (first.shape, first.dtype):
                raise ValueError(
                    f"{name} images need one shape and type: the first is {first.dtype} {tuple(first.shape)}, "
                    f"image {row} is {image.dtype} {tuple(image.shape)}"
                )
        yield torch.stack(x), torch.tensor([int(label) for label in y])


def mean_colour(data: Source, part: Part) -> Tensor:
    """Mean of every channel over all images ``(C,)``; those of bytes in [0, 1]."""
    if isinstance(data, Dataset):
        return data.images.mean((0, 2, 3))
    images, _ = part.load()
    sums = (batch(images, rows).double().sum((0, 2, 3)) for rows in torch.arange(len(images)).split(BATCH))
    return (sum(sums, torch.zeros(images.shape[1]).double()) / (images.numel() / images.shape[1])).float()


def batch(images: Tensor, rows: Tensor) -> Tensor:
    """The images of these rows, in memory of their own; bytes become floats in [0, 1].

    Example:
        >>> batch(torch.tensor([[0], [51], [255]], dtype=torch.uint8), torch.tensor([2, 1])).tolist()
        [[1.0], [0.20000000298023224]]
    """
    x = images[rows.to(images.device)]
    return x.float() / 255 if x.dtype == torch.uint8 else x


@contextmanager
def written(path: Path, dtype: torch.dtype, shape: Sequence[int]) -> Iterator[Callable[[Tensor], int]]:
    """A npy file of this shape; the function that is given adds a batch to it."""
    header = {"descr": torch.empty(0, dtype=dtype).numpy().dtype.str, "fortran_order": False, "shape": tuple(shape)}
    with open(path, "wb") as file:  # not through a map, whose writing on a full disk ends the process
        np.lib.format.write_array_header_1_0(file, header)
        yield lambda batch: file.write(batch.contiguous().numpy().data)


def mapped(path: Path) -> Tensor:
    """The tensor in a npy file; nothing is read before it is used, and nothing may be written.

    Raises:
        FileNotFoundError: this machine does not see the file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path} on this machine: give Workers a folder that all workers see")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(np.load(path, mmap_mode="r"))


@lru_cache(maxsize=4)  # images and labels of both parts
def uploaded(path: Path, device: str) -> Tensor:
    """The tensor in a npy file, on the device."""
    return mapped(path).to(device)


@lru_cache(maxsize=4)  # once in a process
def _verify(part: Part) -> None:
    found = digest(mapped(part.images), mapped(part.labels))
    if found != part.digest:
        raise ValueError(f"{part.images} holds other images than those of the sweep: {found}, not {part.digest}")


def digest(*tensors: Tensor, text: str = "") -> str:
    """A fingerprint of 16 hexadecimal digits: of the tensors' types, shapes and values, and of a text."""
    total = hashlib.sha256(text.encode())
    for tensor in tensors:
        total.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().numpy().data)
    return total.hexdigest()[:16]
