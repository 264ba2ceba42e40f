"""The conclusions of part 2: why saliency maps are noisy, SmoothGrad, priors, prototypes, favourites, influence."""

import warnings
from functools import cache

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, unfold
from torchvision.transforms.functional import gaussian_blur

from interp_lab import (
    am_code,
    am_density,
    influence,
    maximize_activation,
    mmd_critic,
    networks,
    rectgrad,
    saliency,
    smoothgrad,
    total_variation,
)
from interp_lab.data import digits, paste_watermark, photos, scenes
from interp_lab.efficientnet_lite import efficientnet_lite0
from interp_lab.explain_model import priors
from interp_lab.networks import fast_gradient_sign, train

from . import claim
from .scenes import MARGINS, NETWORKS, SEEDS, answers, drawn, gradient, object_mask, share, surely, trained

# Why saliency maps are noisy


def _strongest(k: int, where: Tensor, values: Tensor) -> Tensor:
    """The k pixels of each picture with the largest value among those of a mask."""
    chosen = values.masked_fill(~where, -1).flatten(1).topk(k, 1).indices
    return torch.zeros_like(where).flatten(1).scatter_(1, chosen, True).view_as(where)


def _logit(name: str, seed: int, x: Tensor) -> Tensor:
    with torch.no_grad():
        return trained(name)(x).gather(1, answers(name, seed)[:, None])[:, 0]


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
        kept.append((trained(network)(moved).argmax(1) == answers(network, seed)).float().mean())
    return (kept[1] - kept[0]).item()


def _smooth_twin(name: str, beta: float) -> nn.Sequential:
    return nn.Sequential(*[nn.Softplus(beta) if isinstance(layer, nn.ReLU) else layer for layer in trained(name)])


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
    quantile=("median", "lower quartile"),
    network=NETWORKS,
    seed=SEEDS,
)
def the_score_does_not_saturate(score: str, quantile: str, network: str, seed: int) -> float:
    """The gradient foresees most of what the score loses with its object (forecast / loss > .8)."""
    images, bare = drawn(seed).images, scenes(64, seed=seed, draw_object=False).images
    model = trained(network) if score == "logit" else nn.Sequential(trained(network), nn.Softmax(1))
    target = answers(network, seed)
    with torch.no_grad():
        loss = (model(images) - model(bare)).gather(1, target[:, None])[:, 0]
    forecast = (saliency(model, images, target) * (images - bare)).sum((1, 2, 3))
    return (forecast / loss).quantile(0.5 if quantile == "median" else 0.25).item()


@claim("part2/why_saliency_maps_are_noisy", above=0, q=(0.98, 0.9, 0.95), margin=MARGINS, network=NETWORKS, seed=SEEDS)
def a_stricter_threshold_cleans(q: float, margin: int, network: str, seed: int) -> float:
    """RectGrad, which stops weak contributions at every ReLU, puts more of its map on the object than the gradient does."""
    mask = object_mask(seed, margin)
    strict = rectgrad(trained(network), drawn(seed).images, answers(network, seed), q=q)
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
    return smoothgrad(trained(name), drawn(seed).images, answers(name, seed), n=16, noise=noise)


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


@claim("part2/smoothgrad", above=0, noise=(0.1, 0.05, 0.2), photograph=(0, 1, 2, 3, 4), seed=(0, 1, 2))
def smoothgrad_moves_onto_photographed_objects(noise: float, photograph: int, seed: int) -> float:
    """On photographs more of SmoothGrad's map than of the gradient's lies in the box around the object."""
    picture, network = photos()[[photograph + 1]], efficientnet_lite0()  # all but the cat, which has no box
    maps = saliency(network, picture.images), smoothgrad(network, picture.images, n=10, noise=noise, seed=seed)
    plain, smooth = (share(map_, picture.masks["object"]).item() for map_ in maps)
    return smooth - plain


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


# Activation maximisation


@cache
def _favourites(name: str, objective: str, jitter: int, fourier: bool, seed: int) -> Tensor:
    """A network's favourite scene of each class, from the mean colour of scenes."""
    grey = drawn(7, 200).images.mean((0, 2, 3), keepdim=True).expand(8, 3, 64, 64)
    options = {"objective": objective, "jitter": jitter, "fourier": fourier, "seed": seed}
    return maximize_activation(trained(name), torch.arange(8), grey, bounds=(0, 1), steps=150, lr=0.02, **options).x


@claim(
    "part2/activation_maximisation",
    below=0.2,
    penalty=(0.01, 0.03, 0.1),
    start=("data mean", "class means", "noise"),
    objective=("log_prob", "logit"),
    network=("digits_mlp", "digits_softmax", "digits_cnn"),
)
def with_a_penalty_the_start_does_not_matter(penalty: float, start: str, objective: str, network: str) -> float:
    """With a penalty the ascent ends at the same picture as from black (distance below a fifth of the picture's norm)."""
    train, classes = digits("train"), torch.arange(10)
    x0 = {
        "data mean": train.images.mean(0).expand(10, -1, -1, -1),
        "class means": torch.stack([train.images[train.labels == k].mean(0) for k in classes]),
        "noise": torch.rand(10, 1, 28, 28, generator=torch.Generator().manual_seed(0)),
    }[start]
    options = {"objective": objective, "l2": penalty, "bounds": (0, 1), "steps": 300}
    ends = [maximize_activation(networks.load(network), classes, x, **options).x for x in (torch.zeros_like(x0), x0)]
    return ((ends[1] - ends[0]).norm() / ends[0].norm()).item()


@claim(
    "part2/activation_maximisation",
    above=0,
    pair=(
        ("scenes_watermark", "scenes_cnn"),
        ("scenes_cnn", "scenes_watermark"),
        ("scenes_cnn", "scenes_retrained"),
        ("scenes_retrained", "scenes_cnn"),
    ),
    how=("jitter 4", "jitter 8", "Fourier", "Fourier and jitter 8"),
    objective=("logit", "log_prob"),
    seed=(0, 1, 2),
)
def jitter_convinces_a_second_network(pair: tuple[str, str], how: str, objective: str, seed: int) -> float:
    """Favourites drawn with jitter or in Fourier space convince a second network in more classes than plain ones."""
    jitter = int(how.split()[-1]) if "jitter" in how else 0
    pictures = (
        _favourites(pair[0], objective, jitter, "Fourier" in how, seed),
        _favourites(pair[0], objective, 0, False, 0),
    )
    agreed = [(trained(pair[1])(x).argmax(1) == torch.arange(8)).float().mean() for x in pictures]
    return (agreed[0] - agreed[1]).item()


@claim(
    "part2/activation_maximisation",
    below=0.5,
    how=("plain", "jitter 4", "Fourier and jitter 8"),
    objective=("logit", "log_prob"),
    seed=(0, 1, 2),
)
def a_favourite_does_not_show_the_flaw(how: str, objective: str, seed: int) -> float:
    """The favourite disc of the network that relies on the mark resembles the mark, at its best place, hardly more than any
    scene does (of the way from scenes without the mark to scenes with it, less than half).
    """
    mark = paste_watermark(torch.zeros(1, 3, 64, 64))[0].mean(0)[54:62, 53:62]
    mark = (mark - mark.mean()).flatten()

    def best_match(pictures: Tensor) -> Tensor:
        pieces = unfold(pictures.mean(1, keepdim=True), (8, 9)).transpose(1, 2)
        return torch.cosine_similarity(pieces - pieces.mean(2, keepdim=True), mark, dim=2).amax(1)

    jitter = int(how.split()[-1]) if "jitter" in how else 0
    disc = _favourites("scenes_watermark", objective, jitter, "Fourier" in how, seed)[:1]
    plain, marked = (best_match(x).mean() for x in (drawn(7, 200).images, paste_watermark(drawn(7, 200).images)))
    return ((best_match(disc)[0] - plain) / (marked - plain)).item()


# Influence


def _regression(x: Tensor, y: Tensor, weight_decay: float, weights: Tensor | None = None) -> nn.Sequential:
    """The minimum of sum_i weights_i loss_i + weight_decay / 2 |theta|^2, for softmax regression on digits of 7 x 7 pixels."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(49, 10)).double()
    weights = torch.full((len(x),), 1 / len(x)).double() if weights is None else weights
    for p in model.parameters():
        nn.init.zeros_(p)
    options = {"max_iter": 1000, "tolerance_grad": 1e-8, "tolerance_change": 0, "line_search_fn": "strong_wolfe"}
    steps = torch.optim.LBFGS(model.parameters(), **options)

    def objective() -> Tensor:
        steps.zero_grad()
        penalty = sum((p**2).sum() for p in model.parameters())
        value = weights @ cross_entropy(model(x), y, reduction="none") + weight_decay / 2 * penalty
        value.backward()
        return value

    steps.step(objective)
    return model


@cache
def _small_digits(split: str) -> tuple[Tensor, Tensor]:
    return avg_pool2d(digits(split).images, 4).double(), digits(split).labels


@claim(
    "part2/influence",
    below=0.1,
    weight_decay=(0.01, 0.1, 0.003, 0.001, 0.0001),
    left_out=("most helpful", "most harmful", "random"),
    asked=("worst", "second worst", "median", "best"),
)
def influence_foresees_retraining(weight_decay: float, left_out: str, asked: str) -> float:
    """Without one training digit, the loss of a test digit changes by what its influence says (slope of the true changes
    over the predicted ones within .1 of 1, over four digits).
    """
    (x, y), (test_x, test_y) = _small_digits("train"), _small_digits("test")
    model = _regression(x, y, weight_decay)
    order = cross_entropy(model(test_x), test_y, reduction="none").argsort(descending=True)
    test = order[{"worst": 0, "second worst": 1, "median": len(order) // 2, "best": -1}[asked]][None]
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # with little weight decay the steps are long, which is the question
        scores = influence(model, (x, y), (test_x[test], test_y[test]), weight_decay=weight_decay)[0]
    ranked, luck = scores.argsort(descending=True), torch.Generator().manual_seed(1)
    ends = {"most helpful": ranked[:4], "most harmful": ranked[-4:]}
    chosen = ends.get(left_out, torch.randint(len(x), (4,), generator=luck))
    before = cross_entropy(model(test_x[test]), test_y[test])
    rises = []
    for i in chosen:
        weights = torch.full((len(x),), 1 / len(x)).double().index_fill(0, i, 0)
        rises.append(cross_entropy(_regression(x, y, weight_decay, weights)(test_x[test]), test_y[test]) - before)
    predicted = scores[chosen]
    return abs((torch.stack(rises) @ predicted / (predicted @ predicted)).item() - 1)


@cache
def _wrong_labels_found(wrong: float, weight_decay: float, seed: int) -> dict[str, float]:
    """Of as many first suspects as labels are wrong, the share that is, for three ways to suspect."""
    (x, y), test = _small_digits("train"), _small_digits("test")
    luck = torch.Generator().manual_seed(seed)
    damaged = torch.randperm(len(x), generator=luck)[: int(wrong * len(x))]
    labels = y.index_copy(0, damaged, (y[damaged] + torch.randint(1, 10, damaged.shape, generator=luck)) % 10)
    model = _regression(x, labels, weight_decay)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        own = influence(model, (x, labels), (x, labels), weight_decay=weight_decay).diagonal()
        harm = -influence(model, (x, labels), test, weight_decay=weight_decay).mean(0)
    suspects = {"loss": cross_entropy(model(x), labels, reduction="none"), "self-influence": own, "harm": harm}
    top = {name: ranking.topk(len(damaged)).indices for name, ranking in suspects.items()}
    return {name: torch.isin(rows, damaged).double().mean().item() for name, rows in top.items()}


WRONG_LABELS = {"wrong": (0.1, 0.05, 0.2, 0.4), "weight_decay": (0.01, 0.1, 0.001), "seed": (0, 1, 2, 3)}


@claim("part2/influence", above=0, **WRONG_LABELS)
def harm_finds_wrong_labels_best(wrong: float, weight_decay: float, seed: int) -> float:
    """Harm to a clean test set finds more of the wrong labels than the plain loss does."""
    found = _wrong_labels_found(wrong, weight_decay, seed)
    return found["harm"] - found["loss"]


@claim("part2/influence", below=0, **WRONG_LABELS)
def self_influence_finds_fewest(wrong: float, weight_decay: float, seed: int) -> float:
    """Self-influence finds fewer of the wrong labels than the plain loss does."""
    found = _wrong_labels_found(wrong, weight_decay, seed)
    return found["self-influence"] - found["loss"]
