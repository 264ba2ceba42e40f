"""The conclusions of part 2: why saliency maps are noisy, SmoothGrad, priors, prototypes."""

from functools import cache

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from interp_lab import (
    am_code,
    am_density,
    maximize_activation,
    mmd_critic,
    networks,
    rectgrad,
    saliency,
    smoothgrad,
    total_variation,
)
from interp_lab.data import digits, scenes
from interp_lab.explain_model import priors
from interp_lab.networks import fast_gradient_sign, train

from . import claim
from .scenes import MARGINS, NETWORKS, SEEDS, answers, drawn, gradient, network, object_mask, share, surely

# Why saliency maps are noisy


def _strongest(k: int, where: Tensor, values: Tensor) -> Tensor:
    """The k pixels of each picture with the largest value among those of a mask."""
    chosen = values.masked_fill(~where, -1).flatten(1).topk(k, 1).indices
    return torch.zeros_like(where).flatten(1).scatter_(1, chosen, True).view_as(where)


def _logit(name: str, seed: int, x: Tensor) -> Tensor:
    with torch.no_grad():
        return network(name)(x).gather(1, answers(name, seed)[:, None])[:, 0]


@cache
def _replacements(seed: int) -> dict[str, Tensor]:
    """What can stand in the place of a pixel: another scene's background, at three distances, or no scene at all."""
    images, bare = drawn(seed).images, scenes(64, seed=seed, draw_object=False).images
    others = {f"background of scene +{k}": bare.roll(k, 0) for k in (1, 2, 5)}
    mean = images.mean((2, 3), keepdim=True).expand_as(images)
    return others | {"mean colour": mean, "blurred": gaussian_blur(images, 31, 8.0), "black": torch.zeros_like(images)}


@claim(
    "part2/why_saliency_maps_are_noisy",
    below=0.5,
    pixels=(50, 20, 100, 200),
    replacement=(
        "background of scene +1",
        "background of scene +2",
        "background of scene +5",
        "mean colour",
        "blurred",
        "black",
    ),
    network=NETWORKS,
    seed=SEEDS,
)
def scattered_pixels_are_not_evidence(pixels: int, replacement: str, network: str, seed: int) -> float:
    """Replacing the strongest pixels outside the object changes the logit less than half as much as replacing as many of
    the strongest inside.
    """
    images, inside, size = drawn(seed).images, object_mask(seed), gradient(network, seed).abs().amax(1)
    effect = []
    for mask in (~inside, inside):
        x = torch.where(_strongest(pixels, mask, size)[:, None], _replacements(seed)[replacement], images)
        effect.append((_logit(network, seed, x) - _logit(network, seed, images)).abs().mean())
    return (effect[0] / effect[1]).item()


@claim(
    "part2/why_saliency_maps_are_noisy",
    above=0,
    pixels=(50, 100, 200),
    reach=("full range", "as in the swap"),
    margin=(0, 3),
    network=NETWORKS,
    seed=SEEDS,
)
def scattered_pixels_are_leverage(pixels: int, reach: str, margin: int, network: str, seed: int) -> float:
    """Pushed against the class, the strongest pixels outside the object turn more answers than as many random ones."""
    images, outside, g = drawn(seed).images, ~object_mask(seed, margin), gradient(network, seed)
    amount = 1.0 if reach == "full range" else (_replacements(seed)["background of scene +1"] - images).abs()
    luck = torch.rand(g.abs().amax(1).shape, generator=torch.Generator().manual_seed(seed))
    kept = []
    for values in (g.abs().amax(1), luck):
        moved = torch.where(_strongest(pixels, outside, values)[:, None], images - amount * g.sign(), images).clamp(
            0, 1
        )
        kept.append((_model(network)(moved).argmax(1) == answers(network, seed)).float().mean())
    return (kept[1] - kept[0]).item()


_model = network  # its name is that of an option


def _smooth_twin(name: str, beta: float) -> nn.Sequential:
    return nn.Sequential(*[nn.Softplus(beta) if isinstance(layer, nn.ReLU) else layer for layer in network(name)])


@claim(
    "part2/why_saliency_maps_are_noisy",
    below=0.05,
    beta=(30, 10, 100, 1000),
    margin=MARGINS,
    network=NETWORKS,
    seed=SEEDS,
)
def a_smooth_twin_is_as_noisy(beta: int, margin: int, network: str, seed: int) -> float:
    """A twin of the network without any kink puts hardly more of its gradient on the object (gain of the share < .05)."""
    map_ = saliency(_smooth_twin(network, beta), drawn(seed).images, answers(network, seed))
    mask = object_mask(seed, margin)
    return (share(map_, mask) - share(gradient(network, seed), mask)).mean().item()


@claim(
    "part2/why_saliency_maps_are_noisy",
    above=0.8,
    score=("logit", "probability"),
    scenes=("median", "quarter with the least"),
    network=NETWORKS,
    seed=SEEDS,
)
def the_score_does_not_saturate(score: str, scenes: str, network: str, seed: int) -> float:
    """The gradient foresees most of what the score loses with its object (forecast / loss > .8)."""
    from interp_lab.data import scenes as draw

    images, bare = drawn(seed).images, draw(64, seed=seed, draw_object=False).images
    model = _model(network) if score == "logit" else nn.Sequential(_model(network), nn.Softmax(1))
    target = answers(network, seed)
    with torch.no_grad():
        loss = (model(images) - model(bare)).gather(1, target[:, None])[:, 0]
    forecast = (saliency(model, images, target) * (images - bare)).sum((1, 2, 3))
    return (forecast / loss).quantile(0.5 if scenes == "median" else 0.25).item()


@claim("part2/why_saliency_maps_are_noisy", above=0, q=(0.98, 0.9, 0.95), margin=MARGINS, network=NETWORKS, seed=SEEDS)
def a_stricter_threshold_cleans(q: float, margin: int, network: str, seed: int) -> float:
    """RectGrad, which stops weak contributions at every ReLU, puts more of its map on the object than the gradient does."""
    mask = object_mask(seed, margin)
    strict = rectgrad(_model(network), drawn(seed).images, answers(network, seed), q=q)
    return surely(share(strict, mask) - share(gradient(network, seed), mask))


@cache
def _trained_further(how: str, seed: int) -> nn.Sequential:
    """``scenes_cnn`` trained further: on adversarial examples, on noisy pictures, or as before."""
    if (how, seed) == ("adversarial", 0):
        return networks.load("scenes_robust")
    model = networks.load("scenes_cnn")

    def noisy(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return (x + 8 / 255 * torch.randn_like(x)).clamp(0, 1)

    perturb = {"adversarial": fast_gradient_sign, "noise": noisy, "as before": None}[how]
    torch.manual_seed(seed)
    train(
        model, scenes(10_000, seed=1), epochs=6, lr=2e-3, weight_decay=0.05, perturb=perturb, seed=seed, progress=False
    )
    return model


@claim(
    "part2/why_saliency_maps_are_noisy",
    above=0.05,
    control=("as before", "noise"),
    training=(0, 1),
    margin=(0, 2),
    seed=SEEDS,
)
def robust_training_cleans_the_gradient(control: str, training: int, margin: int, seed: int) -> float:
    """Training against adversarial examples moves the plain gradient onto the object (gain of the share > .05 against the
    same training without them).
    """
    data, mask = drawn(seed), object_mask(seed, margin)
    shares = []
    for how in ("adversarial", control):
        model = _trained_further(how, training)
        shares.append(share(saliency(model, data.images, model(data.images).argmax(1)), mask).mean())
    return (shares[0] - shares[1]).item()


# SmoothGrad


def _auc(map_: Tensor, mask: Tensor) -> Tensor:
    pairs = zip(mask.flatten(1), map_.abs().amax(1).flatten(1), strict=True)
    return torch.tensor([roc_auc_score(inside, values) for inside, values in pairs])


SHARE_OR_AUC = {"share": share, "AUC": _auc}


@cache
def _smooth(name: str, seed: int, noise: float) -> Tensor:
    return smoothgrad(network(name), drawn(seed).images, answers(name, seed), n=16, noise=noise)


@claim(
    "part2/smoothgrad",
    above=0,
    noise=(0.05, 0.02, 0.1, 0.2),
    score=("share", "AUC"),
    margin=(0, 2),
    network=NETWORKS,
    seed=SEEDS,
)
def smoothgrad_moves_onto_the_object(noise: float, score: str, margin: int, network: str, seed: int) -> float:
    """SmoothGrad lies on the object more than the gradient does."""
    judge, mask = SHARE_OR_AUC[score], object_mask(seed, margin)
    return surely(judge(_smooth(network, seed, noise), mask) - judge(gradient(network, seed), mask))


@claim(
    "part2/smoothgrad",
    above=0,
    score=("share", "AUC"),
    blur=(1, 2, 3),
    margin=(0, 2),
    network=NETWORKS,
    seed=SEEDS,
)
def blurring_is_no_substitute(score: str, blur: int, margin: int, network: str, seed: int) -> float:
    """SmoothGrad lies on the object more than the gradient's magnitude does after a blur over the pixels."""
    judge, mask = SHARE_OR_AUC[score], object_mask(seed, margin)
    blurred = gaussian_blur(gradient(network, seed).abs(), 6 * blur + 1, float(blur))
    return surely(judge(_smooth(network, seed, 0.05), mask) - judge(blurred, mask))


# Priors


@cache
def _favourite(kind: str, name: str) -> Tensor:
    """Each digit's favourite picture of a network, from the mean digit of its class."""
    data, model, classes = digits("train"), networks.load(name), torch.arange(10)
    x0 = torch.stack([data.images[data.labels == k].mean(0) for k in classes])
    box = {"bounds": (0, 1), "steps": 300}
    if kind == "simple":
        return maximize_activation(model, classes, x0, **box).x
    if kind == "VAE":
        vae = priors.load("digits_vae")
        return am_code(model, classes, vae.encode(x0), generator=vae, steps=300).x
    return am_density(model, classes, x0, density=priors.load(f"digits_{kind}"), **box).x


@claim(
    "part2/priors",
    below=1,
    measure=("total variation", "total variation / deviation"),
    prior=("VAE", "rbm", "mixture"),
    network=("digits_mlp", "digits_softmax", "digits_cnn"),
    beside=("real digits", "simple"),
)
def pictures_with_a_prior_are_softer(measure: str, prior: str, network: str, beside: str) -> float:
    """Favourite pictures with a prior are softer than other pictures (ratio of the measure below 1)."""

    def softness(x: Tensor) -> Tensor:
        variation = total_variation(x)
        return (variation if measure == "total variation" else variation / x.flatten(1).std(1)).mean()

    other = digits("train").images if beside == "real digits" else _favourite("simple", network)
    return (softness(_favourite(prior, network)) / softness(other)).item()


# Prototypes and criticisms


@claim(
    "part2/prototypes_and_criticisms",
    above=0.9,
    width=(1, 0.25, 0.5, 2, 4, 16),
    prototypes=(10, 20, 40),
    planting=(0, 1, 2),
)
def the_signed_witness_finds_what_was_left_out(width: float, prototypes: int, planting: int) -> float:
    """Of the digits with the largest signed witness, more than nine in ten come from the group that was planted (gamma as a
    multiple of the default).
    """
    data = digits("train")
    odd = torch.randperm(len(data), generator=torch.Generator().manual_seed(planting))[:36]
    x = data.images.clone()
    x[odd] = 1 - x[odd]
    result = mmd_critic(x, prototypes, 12, gamma=width * mmd_critic(x, 2).gamma)
    rows = result.witness.index_fill(0, result.prototypes, -1.0).topk(12).indices
    return torch.isin(rows, odd).float().mean().item()
