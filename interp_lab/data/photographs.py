"""Photographs with labels and boxes."""

import csv
import os
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from .dataset import Dataset

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as torchvision's networks expect
CORNERS = ("xmin", "ymin", "xmax", "ymax")

# Photos of scikit-image and scikit-learn, with labels and boxes of this course; the boxes were drawn by eye, and the cat, which
# fills its picture, has none.
SAMPLES = (
    {"file": "chelsea", "class_index": "-1", "label": "cat"},
    {"file": "coffee", "class_index": "967", "label": "espresso", "xmin": 174, "ymin": 17, "xmax": 411, "ymax": 306},
    {
        "file": "motorcycle",
        "class_index": "-1",
        "label": "motorcycle",
        "xmin": 92,
        "ymin": 75,
        "xmax": 680,
        "ymax": 450,
    },
    {"file": "rocket", "class_index": "-1", "label": "rocket", "xmin": 306, "ymin": 125, "xmax": 338, "ymax": 405},
    {"file": "china.jpg", "class_index": "-1", "label": "pagoda", "xmin": 62, "ymin": 30, "xmax": 374, "ymax": 426},
    {"file": "flower.jpg", "class_index": "-1", "label": "dahlia", "xmin": 168, "ymin": 84, "xmax": 447, "ymax": 360},
)


def photos(folder: str | os.PathLike | None = None, *, size: int = 224, normalize: bool = False) -> Dataset:
    """Colour photographs ``(N, 3, size, size)``: the shorter side resized to 256/224 size, the centre cropped.

    ``folder`` holds the photos and a ``labels.csv`` with one row per object and the columns

    - ``file`` and ``label``: the photo and the name of the object's class;
    - optionally ``class_index``: the class in torchvision's order of the 1,000 ImageNet classes, or -1 for a class
      outside them;
    - optionally ``xmin, ymin, xmax, ymax``: its box in pixels of the stored file, all four or none of them, and
      ``width, height`` of that file, which are compared with it.

    Photos come in the order of their first rows. The class of a photo's first row is its label; if other rows name
    a second class, that is its second label (-1 for the photos without one; None if there are none at all).
    ``masks["object"]`` is the union of the boxes of the first class, ``masks["second_object"]`` of the second,
    False all over where there is no box.

    With ``class_index``, ``classes`` are torchvision's 1,000 names, so that labels are targets of an ImageNet
    network, followed by the names of the classes outside them: those have labels from 1,000 on, which no such
    network has (``data[data.labels < 1000]`` leaves them out). Without it, ``classes`` are the sorted labels.

    Args:
        folder: by default, the sample photos that come with scikit-image (a cat, an espresso, a motorcycle and a rocket)
            and with scikit-learn (a pagoda and a dahlia). Of their labels only "espresso" is an ImageNet class.
        size: height and width.
        normalize: subtract ImageNet's mean colour and divide by its standard deviation; otherwise in [0, 1].

    Raises:
        FileNotFoundError: there is no ``labels.csv``, or a photo that it names is missing.
        ValueError: a column is missing or a row cannot be understood; the message names the row. A photo cannot be
            read, or has 16 bits or floats a channel; the message names its file.

    >>> photos().images.shape  # the photographs of two libraries; a folder of yours gives more
    torch.Size([6, 3, 224, 224])
    """
    if folder is None:
        return _dataset(list(SAMPLES), _sample, size, normalize)
    table = Path(folder) / "labels.csv"
    if not table.is_file():
        raise FileNotFoundError(f"photos needs the table {table} with the columns file and label; it does not exist")
    with open(table, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        rows, columns = list(reader), reader.fieldnames or []
    for column in ("file", "label"):
        if column not in columns:
            raise ValueError(f"{table} must have a column {column!r}; it has {', '.join(columns) or 'none'}")
    if not rows:
        raise ValueError(f"{table} has no rows")
    for number, row in enumerate(rows, 1):
        for column in ("file", "label"):
            if not (row[column] or "").strip():
                raise ValueError(f"row {number} of {table} has no {column}: {row}")

    def open_photo(name: str) -> Image.Image:
        path = Path(folder) / name
        if not path.is_file():
            raise FileNotFoundError(f"{table} names {name}, but {path} does not exist")
        try:
            picture = Image.open(path)
            picture.load()
        except (
            OSError,
            SyntaxError,
            ValueError,
            Image.DecompressionBombError,
        ) as error:  # junk, half a file, too many pixels
            raise ValueError(f"{path} cannot be read as a picture ({error}); put a whole one in its place") from error
        if picture.mode.startswith(("I", "F")):  # convert("RGB") clips their values to black and white
            raise ValueError(
                f"{path} has 16 bits or more a channel (mode {picture.mode}); scale its values and save it with 8 bits"
            )
        return picture

    return _dataset(rows, open_photo, size, normalize)


def _sample(name: str) -> Image.Image:
    """A sample photo by its name in scikit-image or its file in scikit-learn."""
    import skimage.data  # here: both take a second to import
    from sklearn.datasets import load_sample_image

    if name.endswith(".jpg"):
        return Image.fromarray(load_sample_image(name))
    return Image.fromarray(
        skimage.data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(skimage.data, name)()
    )


def _dataset(rows: list[dict], open_photo, size: int, normalize: bool) -> Dataset:
    import torchvision

    TF = torchvision.transforms.functional
    indices, classes = _classes(rows)
    by_file: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        by_file.setdefault(row["file"], []).append(i)
    images = torch.empty(len(by_file), 3, size, size)
    labels = torch.full((2, len(by_file)), -1)
    masks = torch.zeros(2, len(by_file), size, size, dtype=torch.bool)
    for n, (file, members) in enumerate(by_file.items()):
        present = list(dict.fromkeys(indices[i] for i in members))
        if len(present) > 2:
            raise ValueError(f"{file} has objects of {len(present)} classes in labels.csv; at most 2 are supported")
        with open_photo(file) as picture:
            stored = picture.size
            # Resizing and cropping as torchvision's transforms of its networks do them.
            picture = TF.resize(picture.convert("RGB"), round(size * 256 / 224), TF.InterpolationMode.BILINEAR)
        images[n] = TF.to_tensor(TF.center_crop(picture, [size, size]))
        labels[: len(present), n] = torch.tensor(present)
        for i in members:
            box = _box(rows[i], stored)
            if box is not None:
                masks[present.index(indices[i]), n] |= _inside(box, stored, picture.size, size)
    if normalize:
        images = TF.normalize(images, MEAN, STD)
    if (labels[1] < 0).all():
        return Dataset(images, labels[0], classes, {"object": masks[0]})
    return Dataset(images, labels[0], classes, {"object": masks[0], "second_object": masks[1]}, labels[1])


def _classes(rows: list[dict]) -> tuple[list[int], tuple[str, ...]]:
    """The class of every row, and the names of all classes."""
    if "class_index" not in rows[0]:
        names = sorted({row["label"] for row in rows})
        return [names.index(row["label"]) for row in rows], tuple(names)
    import torchvision

    names = list(torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.meta["categories"])
    others = sorted({row["label"] for row in rows if row["class_index"] == "-1"})
    indices = []
    for row in rows:
        index = row["class_index"]
        if index == "-1":
            indices.append(len(names) + others.index(row["label"]))
        elif index is not None and index.isdecimal() and int(index) < len(names):
            indices.append(int(index))
        else:
            raise ValueError(f"class_index must be -1 or 0..{len(names) - 1}, got {index!r} for {row['file']}")
    return indices, (*names, *others)


def _box(row: dict, stored: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """The row's box, or None where it has none."""
    values = [row.get(corner) or "" for corner in CORNERS]
    if values == [""] * 4:
        return None
    try:
        xmin, ymin, xmax, ymax = map(float, values)
        named = int(row.get("width") or stored[0]), int(row.get("height") or stored[1])
    except ValueError:
        raise ValueError(f"the box of {row['file']} must be four numbers or blank, got {values}") from None
    if named != stored:
        raise ValueError(f"{row['file']} is {stored} pixels, but its box in labels.csv is meant for {named}")
    if not (0 <= xmin < xmax <= stored[0] and 0 <= ymin < ymax <= stored[1]):
        raise ValueError(f"the box of {row['file']} must be xmin < xmax, ymin < ymax inside {stored}, got {values}")
    return xmin, ymin, xmax, ymax


def _inside(box: tuple, stored: tuple[int, int], resized: tuple[int, int], size: int) -> Tensor:
    """Pixels ``(size, size)`` of the crop whose centres, taken back to the stored photo, lie in the box."""
    centre = torch.arange(size) + 0.5
    x, y = (
        (centre + round((new - size) / 2)) * old / new  # the offset of torchvision's centre crop
        for new, old in zip(resized, stored, strict=True)
    )
    xmin, ymin, xmax, ymax = box
    return ((y >= ymin) & (y <= ymax))[:, None] & ((x >= xmin) & (x <= xmax))
