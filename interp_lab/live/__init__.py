"""The package's own methods in a page that needs no server: recorded as graphs, run by a small interpreter."""

from .graphs import Live, OutsideError, export

__all__ = ["Live", "OutsideError", "export"]
