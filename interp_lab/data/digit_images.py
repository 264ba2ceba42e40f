"""Handwritten digits, and the two data sets of torchvision with the same shape."""

import gzip
import os
import shutil
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from .dataset import Dataset, third

SPLITS = ("train", "test", "all")


def digits(
    split: str = "train",
    *,
    source: str = "sklearn",
    root: str | os.PathLike | None = None,
    download: bool = False,
) -> Dataset:
    """Grey images ``(N, 1, 28, 28)`` of ten classes.

    Args:
        split: ``"train"``, ``"test"`` or ``"all"``. For scikit-learn's digits the test part is a third of every
            class, held out by a fixed permutation; MNIST and Fashion-MNIST have their own.
        source: ``"sklearn"``: the 1,797 digits of 8x8 pixels that come with scikit-learn, enlarged to 28x28 by
            bilinear interpolation, so that they are real but smooth. ``"mnist"`` and ``"fashion"``: 70,000 images
            each, read by torchvision.
        root: folder of torchvision's data sets; by default the environment variable ``INTERP_LAB_DATA``.
        download: let torchvision fetch missing files into ``root``.

    Raises:
        ValueError: unknown split or source, no root for a source that needs one, or a file that is damaged.
        FileNotFoundError: the files are missing and ``download`` is False.

    Source: Alpaydin and Kaynak (1998), Optical recognition of handwritten digits, UCI; LeCun, Cortes and Burges,
    The MNIST database; Xiao, Rasul and Vollgraf (2017), Fashion-MNIST, arXiv:1708.07747.

    >>> digits("test").images.shape
    torch.Size([599, 1, 28, 28])
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if source == "sklearn":
        return _sklearn(split)
    if source in ("mnist", "fashion"):
        return _torchvision_digits(split, source, root, download)
    raise ValueError(f"source must be 'sklearn', 'mnist' or 'fashion', got {source!r}")


def _sklearn(split: str) -> Dataset:
    from sklearn.datasets import load_digits  # here: it takes a second to import

    data = load_digits()
    images = torch.from_numpy(data.images / 16).float()[:, None]
    images = F.interpolate(images, size=(28, 28), mode="bilinear").clamp(0, 1)
    labels = torch.from_numpy(data.target.astype(np.int64))
    index = torch.arange(len(labels)) if split == "all" else third(labels, test=split == "test")
    return Dataset(images[index], labels[index], tuple("0123456789"))


def _torchvision_digits(split: str, source: str, root: str | os.PathLike | None, download: bool) -> Dataset:
    import torchvision

    datasets = torchvision.datasets
    loader = {"mnist": datasets.MNIST, "fashion": datasets.FashionMNIST}[source]
    root = root or os.environ.get("INTERP_LAB_DATA")
    if not root:
        raise ValueError(
            f"digits(source={source!r}) needs the folder of torchvision's data sets: pass root=... or set "
            "INTERP_LAB_DATA"
        )
    parts = [True] if split == "train" else [False] if split == "test" else [True, False]
    if not download:
        root = _unpacked(loader, Path(root), source)
    for name, _ in loader.resources:
        file = (Path(root, loader.__name__, "raw") / name).with_suffix("")
        count = 60_000 if name.startswith("train") else 10_000
        size = 16 + count * 28 * 28 if "images" in name else 8 + count  # a header and one byte a pixel or label
        if file.is_file() and file.stat().st_size != size:
            raise ValueError(
                f"{file} is damaged: it has {file.stat().st_size} bytes instead of {size}; delete it and unpack it again"
            )
    sets = [loader(root, train=train, download=download) for train in parts]
    images = torch.cat([part.data for part in sets])[:, None].float().div_(255)
    classes = tuple("0123456789") if source == "mnist" else tuple(loader.classes)
    return Dataset(images, torch.cat([part.targets for part in sets]), classes)


def _unpacked(loader: Any, root: Path, source: str) -> Path:
    """A root with the loader's unpacked files: the given one, or the user's cache filled from its .gz files.

    The cache is there because root may be read-only. The checksum is compared here, since torchvision would
    answer a wrong one by downloading.
    """
    raw, cache = Path(loader.__name__, "raw"), _cache()
    if all((root / raw / name).with_suffix("").is_file() for name, _ in loader.resources):
        return root
    for name, checksum in loader.resources:
        packed, target = root / raw / name, (cache / raw / name).with_suffix("")
        if not packed.is_file():
            raise FileNotFoundError(
                f"neither {packed.with_suffix('')} nor {packed.name} beside it exists; to download the data set run: "
                f"python -c \"from interp_lab.data import digits; digits(source='{source}', root='{root}', "
                'download=True)"'
            )
        if target.is_file():
            continue
        if md5(packed.read_bytes()).hexdigest() != checksum:
            raise ValueError(f"{packed} is damaged: its md5 is not {checksum}; delete it and download it again")
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(f".{os.getpid()}")
        with gzip.open(packed) as archive, open(partial, "wb") as file:
            shutil.copyfileobj(archive, file)
        partial.replace(target)  # at once, so that another process never sees half a file
    return cache


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "interp_lab"
