"""Digits: scikit-learn's, and torchvision's two data sets through the shared files where they are."""

import gzip
import math
import os
import struct
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch.testing import assert_close

from interp_lab.data import digits
from interp_lab.data.dataset import third

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data" / "torchvision-data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder shared/ is not beside the checkout")


def test_the_splits_are_a_partition_with_a_third_of_every_class_held_out():
    train, test, everything = digits("train"), digits("test"), digits("all")
    assert (len(train), len(test), len(everything)) == (1198, 599, 1797)
    held_out = torch.bincount(test.labels) / torch.bincount(everything.labels)
    assert ((held_out - 1 / 3).abs() < 0.004).all()
    rows = {image.numpy().tobytes() for image in train.images} & {image.numpy().tobytes() for image in test.images}
    assert not rows


def test_the_permutation_is_fixed():
    labels = torch.arange(30) % 2
    test = third(labels, test=True)
    assert torch.equal(test, third(labels, test=True))
    assert sorted(test.tolist() + third(labels, test=False).tolist()) == list(range(30))
    assert test.tolist() != list(range(10))
    assert digits("test").labels[:12].tolist() == [6, 7, 6, 8, 0, 4, 9, 9, 9, 8, 8, 1]


def test_images_are_the_small_ones_enlarged():
    data, small = digits("all"), torch.from_numpy(load_digits().images).float() / 16
    assert data.images.shape == (1797, 1, 28, 28)
    assert data.images.min() == 0
    assert data.images.max() <= 1
    # Bilinear by hand: pixel i of 28 lies at (i + 1/2) 8/28 - 1/2 of the 8, clamped at the border.
    at = ((torch.arange(28) + 0.5) * 8 / 28 - 0.5).clamp(0, 7)
    low = at.long()
    weight = at - low
    matrix = torch.zeros(28, 8)
    matrix[torch.arange(28), low] += 1 - weight
    matrix[torch.arange(28), (low + 1).clamp(max=7)] += weight
    assert_close(data.images[:, 0], matrix @ small @ matrix.T)
    assert data.classes[data.labels[3]] == "3"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "valid"}, "split must be one of train, test, all, got 'valid'"),
        ({"source": "emnist"}, "source must be 'sklearn', 'mnist' or 'fashion', got 'emnist'"),
        ({"source": "mnist"}, "pass root=... or set INTERP_LAB_DATA"),
    ],
)
def test_bad_arguments_are_refused(arguments, message, monkeypatch):
    monkeypatch.delenv("INTERP_LAB_DATA", raising=False)
    with pytest.raises(ValueError, match=message):
        digits(**arguments)


@pytest.mark.parametrize("source", ["mnist", "fashion"])
def test_missing_files_are_an_error_that_says_what_to_run(source, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_LAB_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=rf"digits\(source='{source}', root='{tmp_path}', download=True\)"):
        digits(source=source)


def test_a_damaged_archive_is_refused_and_nothing_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"no images"))
    with pytest.raises(ValueError, match="is damaged: its md5 is not"):
        digits(source="fashion", root=tmp_path)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("folder", ["MNIST", "FashionMNIST"])
@pytest.mark.parametrize("download", [False, True])
def test_an_unpacked_file_that_is_not_whole_is_named(folder, download, tmp_path):
    raw, sizes = tmp_path / folder / "raw", {}
    raw.mkdir(parents=True)
    for part, n in (("train", 60_000), ("t10k", 10_000)):
        for kind, shape in (("images-idx3", (n, 28, 28)), ("labels-idx1", (n,))):
            file = raw / f"{part}-{kind}-ubyte"
            file.write_bytes(struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape))  # the format's definition
            sizes[file] = file.stat().st_size + math.prod(shape)
            os.truncate(file, sizes[file])  # zeros that take no room on the disk
    options = {"source": folder.removesuffix("MNIST").lower() or "mnist", "root": tmp_path, "download": download}
    assert len(digits("test", **options)) == 10_000
    for file, size in sizes.items():
        for damaged in (size - 1, 10, 0, size + 1):
            os.truncate(file, damaged)
            with pytest.raises(
                ValueError, match=f"{file} is damaged: it has {damaged} bytes instead of {size}; delete it"
            ):
                digits("all", **options)
        os.truncate(file, size)


# Mean and standard deviation of all training pixels, as commonly used to normalise these two data sets.
KNOWN = {"mnist": (0.1307, 0.3081, "7"), "fashion": (0.2860, 0.3530, "Ankle boot")}


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("source", KNOWN)
def test_the_shared_data_sets_load_from_a_read_only_root(source, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("INTERP_LAB_DATA", str(SHARED))
    train, test, everything = (digits(split, source=source) for split in ("train", "test", "all"))
    assert [tuple(data.images.shape) for data in (train, test, everything)] == [
        (60_000, 1, 28, 28),
        (10_000, 1, 28, 28),
        (70_000, 1, 28, 28),
    ]
    mean, std, first = KNOWN[source]
    assert_close(train.images.mean().item(), mean, atol=1e-4, rtol=0)
    assert_close(train.images.std().item(), std, atol=1e-4, rtol=0)
    assert torch.equal(everything.images, torch.cat([train.images, test.images]))
    assert torch.equal(everything.labels, torch.cat([train.labels, test.labels]))
    assert test.classes[test.labels[0]] == first
    assert (torch.bincount(test.labels, minlength=10) > 850).all()
