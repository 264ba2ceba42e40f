"""Where do the methods put their relevance? Coherence, class sensitivity and model randomisation of all METHODS.

On scenes, where the pixels of the object are known, and on photographs with boxes if a folder is given. Every number
is a mean over the images with its 95 % bootstrap interval. Beside the methods stand maps that ask no network: an edge
detector, a random map and a uniform map.

    python -m benchmarks.coherence [--scenes 200] [--photos FOLDER [--network squeezenet1_1]] [--threads 1]
"""

import argparse
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from interp_lab import METHODS, bootstrap, class_sensitivity, coherence, model_randomisation, networks
from interp_lab.data import photos, scenes
from interp_lab.evaluate.roar import edges

BATCH = 16  # bounds the memory of the photographs' networks


def noise(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    return torch.rand(x.shape[0], *x.shape[2:], generator=torch.Generator().manual_seed(0))


def uniform(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    return torch.ones(x.shape[0], *x.shape[2:])


QUICK: dict[str, Callable] = METHODS | {
    "rise": partial(METHODS["rise"], samples=200),
    "shapley": partial(METHODS["shapley"], permutations=2),
}
CONTROLS: dict[str, Callable] = {"edges": edges, "random": noise, "uniform": uniform}


def cell(values: Tensor) -> str:
    """Mean and interval of the values that are defined, and how many are not."""
    defined = values[~values.isnan()]
    lost = len(values) - len(defined)
    return (f"{bootstrap(defined)}" if len(defined) > 1 else "-") + (f" ({lost} NaN)" if lost else "")


def coherence_table(title: str, network: nn.Module, x: Tensor, target: Tensor, mask: Tensor) -> None:
    area = mask.float().mean((1, 2))
    print(f"\nCoherence on {len(x)} {title}; chance {bootstrap(area)}")
    print(f"{'method':22}{'pointing game':24}{'relevance mass':24}{'relevance rank':24}no positive relevance")
    for name, method in (QUICK | CONTROLS).items():
        try:
            parts = [method(network, a, t) for a, t in zip(x.split(BATCH), target.split(BATCH), strict=True)]
        except ValueError as error:
            print(f"{name:22}{error}")
            continue
        maps = torch.cat(parts)
        scores = vars(coherence(maps, mask))
        empty = int((maps.flatten(1).amax(1) <= 0).sum())
        columns = "".join(f"{cell(scores[score])!s:24}" for score in list(scores)[:3])
        print(f"{name:22}{columns}{empty or ''}", flush=True)


def sensitivity_table(title: str, network: nn.Module, x: Tensor, *targets: Tensor, masks=None) -> None:
    """Of the top and the least likely class, or of the two classes of two-object pictures."""
    print(f"\nClass sensitivity on {len(x)} {title}; 1: the class makes no difference; moved: 0 does")
    print(f"{'method':22}" + "".join(f"{column:30}" for column in ("spearman", "its abs", "ssim", "its abs", "moved")))
    for name, method in QUICK.items():
        try:
            result = class_sensitivity(method, network, x, *targets, masks=masks)
        except ValueError as error:
            print(f"{name:22}{error}")
            continue
        parts = [result.spearman, result.spearman_abs, result.ssim, result.ssim_abs]
        parts += [] if result.moved is None else [result.moved]
        print(f"{name:22}" + "".join(f"{cell(part):30}" for part in parts), flush=True)


def randomisation_table(network: nn.Module, x: Tensor) -> None:
    print(f"\nModel randomisation on {len(x)} scenes: similarity to the original map, from the top layer to all")
    for name, method in QUICK.items():
        result = model_randomisation(method, network, x)
        rows = [f"{step:6.2f}" for part in (result.spearman, result.spearman_abs) for step in part.nanmean(1)]
        half = len(result.layers)
        print(f"{name:22}signed{''.join(rows[:half])}    absolute{''.join(rows[half:])}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--photos", help="a folder with labels.csv, as interp_lab.data.photos reads it")
    parser.add_argument("--network", default="squeezenet1_1")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", message=".*no positive relevance|.*constant map")  # counted in the tables

    network, one = networks.load("scenes_cnn"), scenes(options.scenes, seed=3)
    two = scenes(options.scenes // 2, seed=9, objects=2)
    coherence_table("scenes", network, one.images, one.labels, one.masks["object"])
    sensitivity_table("scenes, top and least likely class", network, one.images[:100])
    masks = two.masks["object"], two.masks["second_object"]
    sensitivity_table("scenes with two objects", network, two.images, two.labels, two.second_labels, masks=masks)
    randomisation_table(network, one.images[:32])

    if options.photos:
        network, normalize = networks.imagenet(options.network)[0], options.network != "efficientnet_lite0"
        data = photos(options.photos, normalize=normalize)
        mask = data.masks["object"].flatten(1)
        data = data[(data.labels < 1000) & mask.any(1) & ~mask.all(1)]
        coherence_table(f"photographs, {options.network}", network, data.images, data.labels, data.masks["object"])
        if data.second_labels is not None:
            both = data[(data.second_labels >= 0) & (data.second_labels < 1000)]
            both = both[both.masks["second_object"].flatten(1).any(1)]
            masks = both.masks["object"], both.masks["second_object"]
            sensitivity_table(
                "photographs with two objects", network, both.images, both.labels, both.second_labels, masks=masks
            )


if __name__ == "__main__":
    main()
