"""What the tests read from a figure."""

import io

import numpy as np
import torch
from PIL import Image

from interp_lab import plot


def pixels(figure: plot.Figure, cell: int = 0) -> torch.Tensor:
    """The numbers that the picture in one cell shows."""
    return torch.tensor(np.asarray(figure.axes[cell].images[0].get_array()))


def colours(figure: plot.Figure, cell: int = 0) -> np.ndarray:
    """The RGB colours of the map in one cell."""
    shown = figure.axes[cell].images[0]
    return shown.cmap(shown.norm(pixels(figure, cell).numpy()))[..., :3]


def hue(colour: np.ndarray) -> str:
    red, green, blue = colour
    if red > 1.1 * max(green, blue):
        return "red"
    return "blue" if blue > 1.1 * max(red, green) else "neither"


def caption(figure: plot.Figure) -> str:
    """What stands below, in one line."""
    return " ".join(figure.get_supxlabel().split())


def png(figure: plot.Figure) -> bytes:
    return figure._repr_mimebundle_()[0]["image/png"]


def assert_is_shown_with_alt_text(draw) -> None:
    """``draw(alt)``: the figure is a picture, carries the alt text that was given, and else one of its own."""
    data, metadata = draw("what it shows")._repr_mimebundle_()
    drawn = np.asarray(Image.open(io.BytesIO(data["image/png"])).convert("RGB"))
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 10
    assert metadata["image/png"]["alt"] == data["text/plain"] == "what it shows"
    assert len(draw(None).alt) > 10
