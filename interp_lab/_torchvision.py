"""Make ``import torchvision`` work beside a CPU build of torch.

A torchvision wheel built for CUDA cannot load its compiled operators next to a CPU torch, and its import then
stops at the fake kernels of two of them ("operator torchvision::nms does not exist"). Declaring the two names
is enough for the rest of torchvision, which is Python. Calling them still fails, with torch's own message.
"""

import importlib.util
from pathlib import Path

import torch

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def declare_missing_operators() -> bool:
    """Declare the operators that torchvision's import needs, if its own library cannot; True if it did so."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or hasattr(torch.ops.torchvision, "nms"):
        return False
    for library in Path(spec.origin).parent.glob("_C.*"):
        try:
            torch.ops.load_library(str(library))
            return False
        except OSError:  # built for another torch
            break
    for schema in SCHEMAS:
        torch.library.define(f"torchvision::{schema.split('(')[0]}", schema[schema.index("(") :])
    return True


declare_missing_operators()
