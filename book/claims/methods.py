"""The conclusions of part 2 about single methods: what each does on scenes and digits whose evidence is known."""

from functools import cache, partial

import torch
from torch import Tensor
from torch.nn import functional as F

from interp_lab import (
    decision_tree,
    deep_taylor,
    fidelity,
    fit_patterns,
    grad_cam,
    interior_gradient,
    lrp,
    occlusion,
    pattern_attribution,
    pattern_net,
    rise,
    selectivity,
    sparse_softmax,
    surrogate_linear,
    surrogate_tree,
    top_activations,
)
from interp_lab.data import digits, scenes
from interp_lab.networks import load

from . import claim
from .scenes import (
    BASELINES,
    EXPLAIN,
    MARGINS,
    NETWORKS,
    SEEDS,
    SIGNS,
    answers,
    asked_of_two,
    attribution,
    drawn,
    gradient,
    object_mask,
    score_of,
    scored,
    share,
    start,
    surely,
    trained,
    two_objects,
)

# Weight visualisation


@cache
def _purity(name: str, layer: str, strongest: int, seed: int) -> float:
    """Among the scenes that excite a unit most, the share of the most frequent class, averaged over the units of a layer."""
    data = drawn(seed, 1000)
    rows = top_activations(trained(name), data.images.split(250), layer, k=strongest).images
    labels = data.labels[rows]
    return (labels == labels.mode(1, keepdim=True).values).float().mean().item()


PURITY = {"strongest": (9, 16, 25), "seed": (7, 17)}


@claim("part2/weight_visualisation", above=0.2, network=NETWORKS, **PURITY)
def purity_rises_with_depth(network: str, strongest: int, seed: int) -> float:
    """The images that excite a unit of the last convolution most are of one class more often than those of the first (share of
    the most frequent class, difference above .2).
    """
    return _purity(network, "9", strongest, seed) - _purity(network, "1", strongest, seed)


@claim("part2/weight_visualisation", below=0.1, network=("untrained 0", "untrained 1", "untrained 2"), **PURITY)
def without_training_purity_does_not_rise(network: str, strongest: int, seed: int) -> float:
    """In an untrained network they are not (difference below .1)."""
    return _purity(network, "9", strongest, seed) - _purity(network, "1", strongest, seed)


# Surrogate models


def _cells(x: Tensor, side: int) -> Tensor:
    return F.adaptive_avg_pool2d(x, side)


@cache
def _fidelities(name: str, side: int, depth: int | None) -> dict[str, float]:
    """To a network of digits, on unseen ones: of a linear surrogate and a tree, and of the same models fitted to the true labels."""
    model, learned, unseen = load(name), digits("train"), digits("test").images
    cells = partial(_cells, side=side)
    fitted = {
        "linear": surrogate_linear(model, learned.images, ridge=0.01, features=cells),
        "tree": surrogate_tree(model, learned.images, depth=depth, features=cells),
        "linear, of the labels": sparse_softmax(learned.images, learned.labels, l1=0.0005, features=cells),
        "tree, of the labels": decision_tree(learned.images, learned.labels, depth=depth, features=cells),
    }
    return {kind: fidelity(surrogate, model, unseen) for kind, surrogate in fitted.items()}


DIGITS = ("digits_cnn", "digits_mlp", "digits_vit")


@claim("part2/surrogate_models", above=0, depth=(8, 3, 5), cells=(8, 7), network=DIGITS)
def a_linear_surrogate_is_more_faithful_than_a_tree(depth: int, cells: int, network: str) -> float:
    """On digits a linear surrogate agrees with the network more often than a tree does."""
    found = _fidelities(network, cells, depth)
    return found["linear"] - found["tree"]


@claim("part2/surrogate_models", above=-0.03, kind=("linear", "tree"), cells=(8, 7), network=DIGITS)
def a_model_of_the_labels_is_as_faithful(kind: str, cells: int, network: str) -> float:
    """A model of the same kind that never saw the network agrees with it nearly as often, or more often (at most .03 less)."""
    found = _fidelities(network, cells, 8)
    return found[f"{kind}, of the labels"] - found[kind]


# Saliency maps


@claim("part2/saliency_maps", above=1.5, margin=MARGINS, network=NETWORKS, seed=SEEDS)
def a_saliency_map_finds_the_object(margin: int, network: str, seed: int) -> float:
    """A saliency map has more than one and a half times as much on the object as a map that knows nothing."""
    mask = object_mask(seed, margin)
    return (share(gradient(network, seed), mask).mean() / mask.float().mean()).item()


@claim("part2/saliency_maps", below=0.5, margin=MARGINS, network=NETWORKS, seed=SEEDS)
def most_of_a_saliency_map_lies_outside(margin: int, network: str, seed: int) -> float:
    """Less than half of a saliency map lies on the object."""
    return share(gradient(network, seed), object_mask(seed, margin)).mean().item()


# Interior gradients


@claim(
    "part2/interior_gradient",
    below=0,
    alpha=(0.5, 0.25, 0.1, 0.75),
    margin=(0, 2),
    sign=SIGNS,
    network=NETWORKS,
    seed=SEEDS,
)
def no_interior_gradient_is_cleaner(alpha: float, margin: int, sign: str, network: str, seed: int) -> float:
    """On scenes an interior gradient lies on the object less than the gradient itself."""
    inner = interior_gradient(trained(network), drawn(seed).images, answers(network, seed), alpha=alpha)
    inside = (scored(map_, seed, margin=margin, sign=sign).nanmean() for map_ in (inner, gradient(network, seed)))
    return torch.sub(*inside).item()


# Gradient x input


@cache
def _falls(name: str, side: int, part: int) -> Tensor:
    """The fall of the logit when one square of a digit is black, for every square: (pictures, squares)."""
    x, model, count = digits("test")[40 * part : 40 * part + 40].images, load(name), 28 // side
    squares = F.one_hot(torch.arange(count**2)).view(-1, 1, count, count).float()
    covered = (x[:, None] * (1 - F.interpolate(squares, scale_factor=side))).flatten(0, 1)
    with torch.no_grad():
        full = model(x)
        target = full.argmax(1, keepdim=True)
        left = model(covered).unflatten(0, (len(x), -1)).gather(2, target[:, None].expand(-1, count**2, -1))
        return full.gather(1, target) - left[..., 0]


def _foretold(method: str, name: str, side: int, part: int) -> float:
    """How well a map's sums over squares correlate with these falls, over the squares of a picture."""
    x, model = digits("test")[40 * part : 40 * part + 40].images, load(name)
    sums = side**2 * F.avg_pool2d(EXPLAIN[method](model, x, model(x).argmax(1)), side).flatten(1)
    pairs = zip(sums, _falls(name, side, part), strict=True)
    return torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs]).nanmean().item()


REMOVALS = {"network": ("digits_cnn", "digits_mlp", "digits_vit"), "part": (0, 1, 2)}


@claim("part2/gradient_x_input", above=0.8, side=(2, 4), **REMOVALS)
def the_product_foretells_small_removals(side: int, network: str, part: int) -> float:
    """Gradient x input, summed over a small square, tells how far the logit falls when the square is black (correlation > .8)."""
    return _foretold("gradient_x_input", network, side, part)


@claim("part2/gradient_x_input", above=0, small=(2, 4), large=(14, 7), **REMOVALS)
def large_removals_are_foretold_less_well(small: int, large: int, network: str, part: int) -> float:
    """It tells less of the removal of large squares."""
    return _foretold("gradient_x_input", network, small, part) - _foretold("gradient_x_input", network, large, part)


# LRP


@claim(
    "part2/lrp",
    above=0,
    rule=("z_plus", "gamma", "composite"),
    margin=(0, 2),
    sign=SIGNS,
    network=NETWORKS,
    seed=SEEDS,
)
def rules_that_forgive_find_the_object(rule: str, margin: int, sign: str, network: str, seed: int) -> float:
    """The rules z+, gamma and composite put more on the object than epsilon does."""
    model, images, target = trained(network), drawn(seed).images, answers(network, seed)
    how = {"seed": seed, "margin": margin, "sign": sign}
    forgiving, epsilon = (scored(lrp(model, images, target, rule=each), **how) for each in (rule, "epsilon"))
    return surely(forgiving - epsilon)


@claim("part2/lrp", below=-0.8, rule=("z_plus", "composite"), unlikely=(1, 2, 3), network=NETWORKS, seed=SEEDS)
def z_plus_draws_the_unlikely_class_in_the_other_colour(rule: str, unlikely: int, network: str, seed: int) -> float:
    """With z+ or the composite, the map of an unlikely class is that of the likely one with its sign turned (cosine < -.8)."""
    model, images = trained(network), drawn(seed).images
    target = model(images).argsort(1)[:, unlikely - 1]
    maps = (lrp(model, images, each, rule=rule).flatten(1) for each in (answers(network, seed), target))
    return torch.cosine_similarity(*maps).mean().item()


# Deep Taylor


@claim("part2/deep_taylor", above=0.8, low=(0.0, None), network=NETWORKS, seed=SEEDS)
def deep_taylor_draws_two_classes_alike(low: float | None, network: str, seed: int) -> float:
    """Where two classes have a positive logit, deep Taylor's maps of them are much the same (cosine > .8)."""
    model, images = trained(network), drawn(seed, 200).images
    value, order = model(images).detach().topk(2)
    both = value[:, 1] > 0
    bounds = {} if low is None else {"low": low, "high": 1.0}
    maps = (deep_taylor(model, images[both], order[both, k], **bounds).flatten(1) for k in (0, 1))
    return torch.cosine_similarity(*maps).mean().item()


# Integrated gradients, DeepLIFT


@claim(
    "part2/integrated_gradients",
    above=0.1,
    pair=(("black", "mean colour"), ("black", "blurred"), ("mean colour", "blurred")),
    margin=(0, 2),
    sign=SIGNS,
    network=NETWORKS,
    seed=SEEDS,
)
def the_baseline_moves_the_map(pair: tuple[str, str], margin: int, sign: str, network: str, seed: int) -> float:
    """From another baseline, integrated gradients puts another share on the object (difference above .1)."""
    one, other = (
        score_of("integrated_gradients", network, seed, baseline, margin=margin, sign=sign).mean() for baseline in pair
    )
    return (one - other).abs().item()


@claim("part2/deeplift", below=0.9, baseline=BASELINES, network=NETWORKS, seed=SEEDS)
def deeplift_is_not_integrated_gradients(baseline: str, network: str, seed: int) -> float:
    """Though both sum to the same difference, DeepLIFT's map is not that of integrated gradients (cosine below .9)."""
    maps = (attribution(name, network, seed, baseline).flatten(1) for name in ("deeplift", "integrated_gradients"))
    return torch.cosine_similarity(*maps).mean().item()


# PatternNet


@cache
def _patterned(method: str, centred: bool, name: str, seed: int) -> Tensor:
    """The map of a network's answers through patterns that were fitted by either formula."""
    patterns = _patterns(name, centred)
    explain = {"pattern_net": pattern_net, "pattern_attribution": pattern_attribution}[method]
    return explain(trained(name), drawn(seed).images, answers(name, seed), patterns=patterns)


@cache
def _patterns(name: str, centred: bool) -> dict[str, Tensor]:
    return fit_patterns(trained(name), [drawn(11, 128).images], centred=centred)


@claim(
    "part2/pattern_net",
    above=0,
    method=("pattern_net", "pattern_attribution"),
    score=("mass", "rank", "pointing"),
    margin=(0, 2),
    sign=SIGNS,
    network=NETWORKS,
    seed=SEEDS,
)
def centred_patterns_find_the_object_better(
    method: str, score: str, margin: int, sign: str, network: str, seed: int
) -> float:
    """With centred patterns more of the map lies on the object than with those of the paper's form."""
    how = {"seed": seed, "score": score, "margin": margin, "sign": sign}
    centred, published = (scored(_patterned(method, c, network, seed), **how) for c in (True, False))
    return surely(centred - published)


# Grad-CAM


@claim(
    "part2/grad_cam",
    above=0,
    method=("grad_cam", "guided_grad_cam"),
    beside=(
        "lrp",
        "deep_taylor",
        "rectgrad",
        "guided_backprop",
        "deeplift",
        "integrated_gradients",
        "gradient_x_input",
        "smoothgrad",
        "saliency",
    ),
    network=NETWORKS,
    seed=(9, 19, 29),
)
def grad_cam_follows_the_question_best(method: str, beside: str, network: str, seed: int) -> float:
    """Grad-CAM and guided Grad-CAM move more of their relevance to the object that was asked for than the other methods do."""
    gap = asked_of_two(method, network, seed).moved - asked_of_two(beside, network, seed).moved
    return surely(gap[torch.isfinite(gap)])


@claim("part2/grad_cam", above=0, earlier=("7", "5", "3", "1"), network=NETWORKS, seed=(9, 19, 29))
def below_the_last_layer_the_class_fades(earlier: str, network: str, seed: int) -> float:
    """Of the relevance on two objects, Grad-CAM of an earlier layer puts less on the one that was asked for than Grad-CAM of the
    last one does.
    """
    own = [_own(partial(grad_cam, layer=layer), network, seed) for layer in ("9", earlier)]
    gap = own[0] - own[1]
    return surely(gap[torch.isfinite(gap)])


# Occlusion


@claim(
    "part2/occlusion",
    above=1,
    beside=("mean colour", "blurred"),
    window=(8, 16),
    network=NETWORKS,
    seed=SEEDS,
)
def a_black_hole_is_an_object(beside: str, window: int, network: str, seed: int) -> float:
    """Where there is no object, black squares move the logit more than those of the mean colour or a blur do (ratio above 1)."""
    bare = scenes(64, seed=seed, draw_object=False).images

    def effect(filling: str) -> Tensor:
        options = {"window": window, "stride": window, "baseline": start(bare, filling)}
        return occlusion(trained(network), bare, answers(network, seed), **options).abs().mean()

    return (effect("black") / effect(beside)).item()


def _own(method, name: str, seed: int) -> Tensor:
    """Of the positive relevance on two objects, the part on the one that was asked for; the mean of both questions."""
    two = two_objects(name, seed)
    places, parts = (two.masks["object"], two.masks["second_object"]), []
    for labels, place in zip((two.labels, two.second_labels), places, strict=True):
        map_ = method(trained(name), two.images, labels).sum(1).clamp(min=0)
        parts.append((map_ * place).sum((1, 2)) / (map_ * (places[0] | places[1])).sum((1, 2)))
    return torch.stack(parts).nanmean(0)


@cache
def _own_from(method: str, baseline: str, name: str, seed: int) -> Tensor:
    explain = partial(rise, samples=300) if method == "rise" else EXPLAIN[method]
    return _own(partial(explain, baseline=start(two_objects(name, seed).images, baseline)), name, seed)


@claim(
    "part2/occlusion",
    above=0,
    hiding=("occlusion", "rise"),
    beside=("integrated_gradients", "deeplift"),
    baseline=("mean colour", "black", "blurred"),
    network=NETWORKS,
    seed=(9, 19),
)
def hiding_finds_what_was_asked_for(hiding: str, beside: str, baseline: str, network: str, seed: int) -> float:
    """Of the positive relevance on two objects, occlusion and RISE put more on the one that was asked for than integrated
    gradients and DeepLIFT do from the same baseline.
    """
    gap = _own_from(hiding, baseline, network, seed) - _own_from(beside, baseline, network, seed)
    return surely(gap[torch.isfinite(gap)])


# RectGrad


@cache
def _flipping(method: str, fill: str, score: str, order: str, name: str, seed: int) -> Tensor:
    images, target = drawn(seed).images[:32], answers(name, seed)[:32]
    map_ = attribution(method, name, seed)[:32].abs()
    options = {"steps": 16, "patch": 4, "fill": fill, "score": score, "order": f"{order}_relevant_first"}
    return selectivity(trained(name), images, map_, target, **options).area


@claim(
    "since/rectgrad",
    below=0,
    fill=("noise", "mean", "blur"),
    score=("probability", "logit"),
    order=("most", "least"),
    network=NETWORKS,
    seed=(7, 17),
)
def the_cleaner_map_removes_better(fill: str, score: str, order: str, network: str, seed: int) -> float:
    """Removing pixels in the order of RectGrad's map lowers the score faster than in that of the gradient, and from the other end
    slower (difference of the areas, turned where the least relevant go first).
    """
    gap = _flipping("rectgrad", fill, score, order, network, seed) - _flipping(
        "saliency", fill, score, order, network, seed
    )
    return -surely(-gap if order == "most" else gap)
