"""Photographs: the pixels that torchvision's own transform gives, boxes carried along, and bad tables refused."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
import torchvision
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_image
from torch.testing import assert_close

from interp_lab.data import photos

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data" / "photos"
HEADER = "file,class_index,label,xmin,ymin,xmax,ymax,width,height\n"


@pytest.fixture
def folder(tmp_path):
    """Three photos: green ground with a red box; one of them with a blue box of a second class."""
    for name, size, boxes in [
        ("wide.png", (500, 300), {"red": (210, 60, 330, 200)}),
        ("tall.png", (240, 400), {"red": (30, 120, 90, 250), "blue": (120, 200, 200, 300)}),
        ("plain.png", (300, 300), {}),
    ]:
        picture = Image.new("RGB", size, "green")
        for colour, (xmin, ymin, xmax, ymax) in boxes.items():
            ImageDraw.Draw(picture).rectangle((xmin, ymin, xmax - 1, ymax - 1), fill=colour)
        picture.save(tmp_path / name)
    rows = [
        "wide.png,5,shark,210,60,270,200,500,300",
        "tall.png,-1,sunflower,30,120,90,250,240,400",
        "tall.png,7,cock,120,200,200,300,240,400",
        "wide.png,5,shark,270,60,330,200,500,300",
        "plain.png,999,paper,,,,,300,300",
    ]
    (tmp_path / "labels.csv").write_text(HEADER + "\n".join(rows) + "\n")
    return tmp_path


@pytest.mark.parametrize("size", [224, 112, 99])
def test_boxes_follow_the_resizing_and_the_crop(folder, size):
    data = photos(folder, size=size)
    assert data.images.shape == (3, 3, size, size)
    for name, channel, rows in [("object", 0, [0, 1]), ("second_object", 2, [1])]:
        mask, strength = data.masks[name][rows], data.images[rows, channel]
        assert mask.flatten(1).any(1).all()
        # A resized edge is a ramp; where the colour is mostly in or mostly out, the mask must say so.
        assert mask[strength > 0.7].all()
        assert not mask[strength < 0.3].any()
    assert not data.masks["object"][2].any()
    assert not data.masks["second_object"][[0, 2]].any()


def test_labels_are_imagenet_indices_and_other_classes_come_after_them(folder):
    data = photos(folder)
    assert data.labels.tolist() == [5, 1000, 999]
    assert data.second_labels.tolist() == [-1, 7, -1]
    assert data.classes[7] == "cock"
    assert data.classes[999] == "toilet tissue"
    assert data.classes[1000:] == ("sunflower",)


def test_a_table_without_class_index_has_its_own_classes(folder):
    (folder / "labels.csv").write_text("file,label\nwide.png,sky\nplain.png,meadow\n")
    data = photos(folder)
    assert data.classes == ("meadow", "sky")
    assert data.labels.tolist() == [1, 0]
    assert data.second_labels is None
    assert list(data.masks) == ["object"]
    assert not data.masks["object"].any()


SAMPLES = ["cat", "espresso", "motorcycle", "rocket", "pagoda", "dahlia"]


def test_pixels_are_those_of_torchvisions_transform():
    transform = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.transforms()
    stored = [skimage.data.chelsea(), skimage.data.coffee(), skimage.data.stereo_motorcycle()[0], skimage.data.rocket()]
    stored += [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    data = photos(normalize=True)
    assert_close(data.images, torch.stack([transform(Image.fromarray(x)) for x in stored]))
    assert photos().images.min() >= 0
    assert photos().images.max() <= 1


def test_the_sample_photos_need_no_folder():
    data = photos()
    assert [data.classes[label] for label in data.labels] == SAMPLES
    assert (data.labels < 1000).tolist() == [name == "espresso" for name in SAMPLES], "the one ImageNet class"
    assert data.masks["object"].flatten(1).any(1).tolist() == [name != "cat" for name in SAMPLES]


@pytest.mark.parametrize(
    ("name", "channel", "difference"),
    [
        ("espresso", 1, 0.15),  # a white cup, on red and brown
        ("rocket", 0, 0.25),  # white, before a blue sky
        ("dahlia", 0, 0.3),  # orange, on a blue-green ground
    ],
)
def test_boxes_lie_around_their_objects(name, channel, difference):
    data = photos()
    row = SAMPLES.index(name)
    strength, inside = data.images[row, channel], data.masks["object"][row]
    assert strength[inside].mean() > strength[~inside].mean() + difference


ROW = "wide.png,5,shark,210,60,270,200,500,300"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,label\nwide.png,sky\n", "must have a column 'file'; it has name, label"),
        ("file,class\nwide.png,sky\n", "must have a column 'label'"),
        ("", "it has none"),
        (HEADER, "has no rows"),
        (HEADER + ROW.replace("5,", "1000,", 1), r"class_index must be -1 or 0..999, got '1000' for wide.png"),
        (HEADER + ROW.replace("5,", "x,", 1), "got 'x'"),
        (HEADER + ROW.replace("210", ""), "four numbers or blank"),
        (HEADER + ROW.replace("210", "280"), "xmin < xmax"),
        (HEADER + ROW.replace("270", "501"), r"inside \(500, 300\)"),
        (HEADER + ROW.replace("500", "250"), r"wide.png is \(500, 300\) pixels, but .* meant for \(250, 300\)"),
        ("file,label\nwide.png,sky\nplain.png\n", r"row 2 of .*labels.csv has no label: .*plain.png"),
        ("file,label\nwide.png, \n", r"row 1 of .*labels.csv has no label: .*wide.png"),
        (HEADER + ROW.replace("shark", ""), r"row 1 of .*labels.csv has no label"),
        ("label,file\nsky,wide.png\nsky\n", r"row 2 of .*labels.csv has no file: .*sky"),
        (HEADER + "\n".join(ROW.replace("5,shark", f"{k},k") for k in (5, 6, 7)), "3 classes .* at most 2"),
    ],
)
def test_bad_tables_are_refused(folder, table, message):
    (folder / "labels.csv").write_text(table)
    with pytest.raises(ValueError, match=message):
        photos(folder)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize("damage", ["half", "junk", "empty", "header"])
@pytest.mark.parametrize("name", ["wide.png", "wide.jpg", "wide.gif", "wide.bmp", "wide.tif", "wide.webp"])
def test_a_photo_that_cannot_be_read_is_named(folder, name, damage):
    Image.effect_noise((500, 300), 50).convert("RGB").save(folder / name)
    whole = (folder / name).read_bytes()
    (folder / "labels.csv").write_text(f"file,label\n{name},sky\n")
    assert len(photos(folder)) == 1
    parts = {"half": whole[: len(whole) // 2], "junk": b"no picture", "empty": b"", "header": whole[:30]}
    (folder / name).write_bytes(parts[damage])
    with pytest.raises(ValueError, match=rf"{name} cannot be read as a picture"):
        photos(folder)


def test_a_photo_of_too_many_pixels_is_named(folder, monkeypatch):
    Image.new("RGB", (300, 300)).save(folder / "large.png")
    (folder / "labels.csv").write_text("file,label\nlarge.png,sky\n")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300 * 300 // 2 - 1)
    with pytest.raises(ValueError, match=r"large.png cannot be read as a picture"):
        photos(folder)


@pytest.mark.parametrize(("kind", "modes"), [("uint16", ("I;16", "I")), ("int32", ("I",)), ("float32", ("F",))])
def test_photos_that_would_be_clipped_are_refused(folder, kind, modes):
    values = np.linspace(0, 60_000, 300 * 300).reshape(300, 300).astype(kind)
    Image.fromarray(values).save(folder / "deep.tif")
    with Image.open(folder / "deep.tif") as picture:
        assert picture.mode in modes
    (folder / "labels.csv").write_text("file,label\ndeep.tif,sky\n")
    with pytest.raises(ValueError, match=r"deep.tif has 16 bits or more a channel \(mode .*save it with 8 bits"):
        photos(folder)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_photos_with_8_bits_a_channel_are_read_as_their_colours(folder, mode):
    Image.new("RGB", (300, 300), "white").convert(mode).save(folder / "white.tif")
    (folder / "labels.csv").write_text("file,label\nwhite.tif,sky\n")
    assert photos(folder).images.min() == 1


def test_missing_files_are_named(folder, tmp_path):
    (folder / "wide.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"names wide.png, but .*wide.png does not exist"):
        photos(folder)
    with pytest.raises(FileNotFoundError, match=r"needs the table .*labels.csv"):
        photos(tmp_path / "nowhere")


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder shared/ is not beside the checkout")
def test_the_shared_photos():
    data = photos(SHARED, size=112)
    assert len(data) == 324
    assert data.classes[1000:] == ("motorcycle", "sunflower")
    assert (data.labels >= 1000).sum() == 4
    assert (data.second_labels >= 0).sum() == 4
    assert sorted({*data.second_labels.tolist()}) == [-1, 254, 282, 805]
    assert data.masks["object"].flatten(1).any(1).sum() == 64
    assert data.masks["second_object"].flatten(1).any(1).sum() == 4
    assert data.classes[data.labels[0]] == "ostrich"
