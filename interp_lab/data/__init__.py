"""Data whose evidence is known: digits, procedurally drawn scenes, photographs."""

from .dataset import Dataset
from .digits import digits
from .photos import photos
from .scenes import SHAPES, paste_watermark, scenes

__all__ = ["SHAPES", "Dataset", "digits", "paste_watermark", "photos", "scenes"]
