"""The package's own methods in a page that needs no server: recorded as graphs, run by a small interpreter."""

from .attack import attack_direction
from .channels import export_channels
from .graphs import SHOWN, Live, OutsideError, export
from .pairs import export_pairs
from .randomising import randomisable

__all__ = [
    "SHOWN",
    "Live",
    "OutsideError",
    "attack_direction",
    "export",
    "export_channels",
    "export_pairs",
    "randomisable",
]
