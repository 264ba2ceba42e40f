"""What the claims on scenes have in common: networks, scenes, maps, scores. Everything is computed once and kept."""

from functools import cache, lru_cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import gaussian_blur

from interp_lab import (
    METHODS,
    bootstrap,
    class_sensitivity,
    lrp,
    pointing_game,
    relevance_mass,
    relevance_rank,
    saliency,
)
from interp_lab.data import Dataset, scenes
from interp_lab.evaluate.class_sensitivity import ClassSensitivity
from interp_lab.networks import fold_batch_norm, load, scenes_cnn

NETWORKS = ("scenes_cnn", "scenes_retrained", "scenes_watermark")
SEEDS = (7, 17, 27)  # of the scenes; 7 is that of most pages
MARGINS = (0, 1, 2)
SIGNS = ("magnitude", "signed")
BASELINES = ("black", "mean colour", "blurred")
FROM_BASELINE = ("integrated_gradients", "deeplift", "occlusion")
SCORES = {"mass": relevance_mass, "rank": relevance_rank, "pointing": pointing_game}
EXPLAIN = METHODS | {
    "smoothgrad": partial(METHODS["smoothgrad"], n=10, noise=0.05),  # that suits the scenes
    "occlusion": partial(METHODS["occlusion"], stride=8),
}


@cache
def trained(name: str) -> nn.Module:
    """A network of the package; ``"untrained 0"`` has random weights drawn with seed 0."""
    if name.startswith("untrained"):
        with torch.random.fork_rng([]):
            torch.manual_seed(int(name.split()[1]))
            return fold_batch_norm(scenes_cnn())
    return load(name)


@cache
def drawn(seed: int, n: int = 64) -> Dataset:
    return scenes(n, seed=seed)


@cache
def answers(name: str, seed: int) -> Tensor:
    return trained(name)(drawn(seed).images).argmax(1)


def start(images: Tensor, baseline: str) -> Tensor:
    """The images that a baseline method starts from."""
    if baseline == "black":
        return torch.zeros_like(images)
    if baseline == "mean colour":
        return images.mean((2, 3), keepdim=True).expand_as(images)
    return gaussian_blur(images, 31, 8.0)


@lru_cache(200)
def attribution(method: str, name: str, seed: int, baseline: str = "black") -> Tensor:
    """A method's map of the network's answers, with its channels."""
    images, target = drawn(seed).images, answers(name if not name.startswith("untrained") else "scenes_cnn", seed)
    if method == "colour":  # asks no network
        return (images - images.mean((2, 3), keepdim=True)).abs()
    options = {"baseline": start(images, baseline)} if method in FROM_BASELINE else {}
    return EXPLAIN[method](trained(name), images, target, **options)


@cache
def object_mask(seed: int, margin: int = 0) -> Tensor:
    """The objects' pixels, and those at most so many pixels away."""
    mask = drawn(seed).masks["object"]
    return F.max_pool2d(mask[:, None].float(), 2 * margin + 1, 1, margin)[:, 0] > 0


def scored(map_: Tensor, seed: int, score: str = "mass", margin: int = 0, sign: str = "magnitude") -> Tensor:
    """The score of every map ``(N, C, H, W)``, with its channels summed."""
    relevance = map_.sum(1)
    return SCORES[score](relevance.abs() if sign == "magnitude" else relevance, object_mask(seed, margin))


def score_of(method: str, network: str, seed: int, baseline: str = "black", **options) -> Tensor:
    """The score of a method by its name."""
    return scored(attribution(method, network, seed, baseline), seed, **options)


def surely(difference: Tensor) -> float:
    """The lower end of the mean's 95 % interval over the scenes: above zero, the scenes show that there is a difference."""
    return bootstrap(difference, resamples=1000).low


def share(map_: Tensor, mask: Tensor) -> Tensor:
    """Of the largest magnitude over the channels, the share in the mask."""
    return relevance_mass(map_.abs().amax(1), mask)


@lru_cache(50)
def gradient(name: str, seed: int) -> Tensor:
    return saliency(trained(name), drawn(seed).images, answers(name, seed))


@cache
def two_objects(name: str, seed: int) -> Dataset:
    """Scenes with two objects for which a network gives both classes a positive logit."""
    two = scenes(96, seed=seed, objects=2)
    both = torch.stack([two.labels, two.second_labels], 1)
    return two[(trained(name)(two.images).gather(1, both) > 0).all(1)][:40]


@cache
def asked_of_two(method: str, name: str, seed: int, baseline: str = "black") -> ClassSensitivity:
    """How a method answers the question for the one and the other of two objects."""
    two = two_objects(name, seed)
    explain = partial(lrp, rule="z_plus") if method == "lrp, only z+" else EXPLAIN[method]
    if method in FROM_BASELINE:
        explain = partial(explain, baseline=start(two.images, baseline))
    masks = two.masks["object"], two.masks["second_object"]
    return class_sensitivity(explain, trained(name), two.images, two.labels, two.second_labels, masks=masks)
