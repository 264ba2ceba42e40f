"""Data whose evidence is known: digits, procedurally drawn scenes, photographs."""

from .dataset import Dataset
from .digit_images import digits
from .drawn_scenes import PARTS, SHAPES, paste_watermark, scenes
from .photographs import photos

__all__ = ["PARTS", "SHAPES", "Dataset", "digits", "paste_watermark", "photos", "scenes"]
