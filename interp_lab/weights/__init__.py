"""The weights that come with the package, one safetensors file each."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

FOLDER = Path(__file__).parent


def load_weights(name: str) -> dict[str, Tensor]:
    """What :func:`save_weights` wrote under this name, in float32."""
    return {key: value.float() for key, value in load_file(FOLDER / f"{name}.safetensors").items()}


def save_weights(name: str, state: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> int:
    """Write a state under this name; returns the size of the file in bytes."""
    path = FOLDER / f"{name}.safetensors"
    save_file({key: value.to(dtype) for key, value in state.items()}, path)
    path.chmod(0o644)
    return path.stat().st_size
