"""The picture of the front page is what its code draws, and shows what its alt text says."""

import base64
import importlib.util
import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from interp_lab.data import scenes

BOOK = Path(__file__).parents[2] / "book"
spec = importlib.util.spec_from_file_location("title_picture", BOOK / "title_picture.py")
title_picture = importlib.util.module_from_spec(spec)
spec.loader.exec_module(title_picture)
EMBEDDED = re.compile(r'data:image/webp;base64,([^"]+)')


def pixels(svg: str) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(code))), float) for code in EMBEDDED.findall(svg)]


def test_the_picture_is_what_the_code_draws():
    """Up to the last bit of a relevance on this kind of processor, which a colour may round either way."""
    kept, drawn = title_picture.FILE.read_text(encoding="utf-8"), title_picture.draw()
    assert EMBEDDED.sub("", kept) == EMBEDDED.sub("", drawn)
    for ours, theirs in zip(pixels(kept), pixels(drawn), strict=True):
        assert ours.shape == (128, 512, 3)
        assert np.abs(ours - theirs).mean() < 1


def test_under_the_lens_lies_a_star_of_sixteen_scenes():
    alt = re.search(r"title_picture.svg\n.*\n:alt: (.+)", (BOOK / "intro.md").read_text(encoding="utf-8"))[1]
    data = scenes(28, seed=3)
    assert alt.startswith("Sixteen")
    assert len(set(title_picture.CHOSEN)) == 16
    assert data.classes[data.labels[title_picture.CHOSEN[4]]] in alt
