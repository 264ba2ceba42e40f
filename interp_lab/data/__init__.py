"""Data whose evidence is known: digits, procedurally drawn scenes and sentences, photographs."""

from .dataset import Dataset
from .digit_images import digits
from .drawn_scenes import PARTS, SHAPES, paste_watermark, scenes
from .drawn_sentences import VOCABULARY, Sentences, evidence, sentences, verdict
from .photographs import photos

__all__ = [
    "PARTS",
    "SHAPES",
    "VOCABULARY",
    "Dataset",
    "Sentences",
    "digits",
    "evidence",
    "paste_watermark",
    "photos",
    "scenes",
    "sentences",
    "verdict",
]
