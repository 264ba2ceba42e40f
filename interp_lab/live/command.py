"""``interp-lab live``: a network of one's own, in a page of one file.

A model file is data of others. What is read of it is a safetensors file, which holds names, shapes and numbers and nothing
that runs. The network itself is made by a function of the instructor's own code. Pickles (``.pt``, ``.pth``, ``.ckpt``) run
code of whoever wrote them; so may an archive of ``torch.export``, whose reader falls back to pickle in torch 2.6 and later.
"""

import runpy
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .. import networks, plot
from .graphs import SHOWN, export
from .page import NEEDS_SALIENCY, laboratory, page


def write_page(
    network: str,
    *,
    images: str | Path,
    out: Path,
    weights: Path | None = None,
    classes: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    draw: bool = False,
    title: str = "Laboratory",
) -> int:
    """Write a page with one :func:`~interp_lab.live.page.laboratory` of a network; returns its size in bytes.

    Args:
        network: ``"FILE.py:FUNCTION"``, called without arguments, or one of ``networks.TRAINED``.
        images: safetensors with ``images`` ``(N, C, H, W)`` in [0, 1], and perhaps ``labels`` ``(N,)``; eight are shown.
        out: the page.
        weights: safetensors with the network's state; only a network of the book has its own.
        classes: their names.
        methods: names of ``SHOWN``; None is all.
        draw: give the reader a pen.
        title: of the page.

    Raises:
        ValueError: a file is no safetensors file, or does not hold what is asked for; an unknown method or network.
        UnsupportedModelError: methods that cannot run in a page for this network, each by name.
    """
    if unknown := set(methods or ()) - set(SHOWN):
        raise ValueError(f"unknown methods: {', '.join(sorted(unknown))}; there are {', '.join(SHOWN)}")
    model, held = _network(network, weights), read_tensors(Path(images))
    if "images" not in held or held["images"].dim() != 4:
        raise ValueError(f"{images} must hold a tensor 'images' (N, C, H, W), it holds {', '.join(held) or 'nothing'}")
    x = held["images"].float()
    with torch.no_grad():
        logits = model(x[:1])
    names = tuple(classes or map(str, range(logits.shape[1])))
    if len(names) != logits.shape[1]:
        raise ValueError(f"the network has {logits.shape[1]} classes, got {len(names)} names")
    maps = list(methods or SHOWN)
    wanted = dict.fromkeys("saliency" if name in NEEDS_SALIENCY else name for name in maps)
    live = export(model, {name: SHOWN[name] for name in wanted}, x[:3], names)
    labels = held.get("labels")
    titles = [f"{k + 1}" + (f": {names[int(labels[k])]}" if labels is not None else "") for k in range(min(8, len(x)))]
    recorded = [name for name in maps if name in live.methods][:4] or ["saliency"]
    still = plot.panel(
        x[:1],
        {name.replace("_", " "): SHOWN[name](model, x[:1]) for name in recorded},
        alt=f"The first of the inputs, and maps of it by {', '.join(recorded)}.",
    )
    figure = laboratory(
        live, dict(zip(titles, x, strict=False)), name="laboratory", label=title, still=still, maps=maps, drawing=draw
    )
    out.write_text(page(figure, title), encoding="utf-8")
    return out.stat().st_size


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        ValueError: it is none.
    """
    if path.suffix != ".safetensors":
        raise ValueError(
            f"{path} is not read: a model file may run the code of whoever wrote it, a .safetensors file cannot. Convert it "
            "where it was made: safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from error


def _network(name: str, weights: Path | None) -> nn.Module:
    if weights is None:
        if name not in networks.TRAINED:
            raise ValueError(f"{name} needs --weights; of the book's networks there are {', '.join(networks.TRAINED)}")
        return networks.load(name)
    file, colon, function = name.rpartition(":")
    if not colon:
        raise ValueError(f"a network with weights of its own is given as FILE.py:FUNCTION, got {name!r}")
    if not Path(file).is_file():
        raise FileNotFoundError(f"there is no file {file}")
    if Path(file).suffix != ".py":
        raise ValueError(f"{file} is no Python file")
    names = runpy.run_path(file)  # which takes the file as it stands, not what an import compiled of it before
    if function not in names:
        raise ValueError(f"{file} has no function {function!r}")
    model = names[function]()
    try:
        model.load_state_dict(read_tensors(weights))
    except RuntimeError as error:
        raise ValueError(f"{weights} does not fit {name}: {error}") from error
    return model.eval()
