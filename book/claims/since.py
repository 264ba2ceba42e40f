"""The conclusions beside and after the lecture: sanity checks, fragility, transformers, concepts, counterfactuals, text."""

from functools import cache, partial

import torch
from scipy import stats
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import gaussian_blur

from book.since.on_patches import by_gradient, on_tokens, rollout
from book.since.reading import sequences, shares, trained_reader
from book.since.sentence_maps import LISTED, OF_WORDS, deciding_words, neutral
from book.since.superposition import nearest_cosine, present, sparse_autoencoder, superposed
from interp_lab import (
    attack_attribution,
    class_sensitivity,
    concept_bottleneck,
    counterfactual,
    impute,
    lrp,
    part_networks,
    relevance_mass,
    saliency,
    sentence_networks,
    shapley_values,
    similarity,
    tcav,
    tokens_to_maps,
    top_k_overlap,
)
from interp_lab.antehoc import ConceptBottleneck
from interp_lab.data import PARTS, Sentences, digits, scenes, sentences
from interp_lab.evaluate.roar import rank_pixels
from interp_lab.explain_model.concepts import ConceptTest
from interp_lab.networks import fast_gradient_sign, scenes_cnn, train

from . import claim
from .scenes import (
    BASELINES,
    EXPLAIN,
    FROM_BASELINE,
    NETWORKS,
    SCORES,
    SEEDS,
    SIGNS,
    answers,
    drawn,
    gradient,
    object_mask,
    scored,
    start,
    surely,
    trained,
)


@cache
def _map(method: str, name: str, seed: int) -> Tensor:
    """Of the class that ``scenes_cnn`` gives, whichever network is asked."""
    return EXPLAIN[method](trained(name), drawn(seed).images, answers("scenes_cnn", seed)).sum(1)


@claim(
    "since/sanity_checks",
    above=0.1,
    sign=("magnitude", "signed"),
    method=("saliency", "guided_backprop", "rectgrad", "lrp", "grad_cam", "smoothgrad"),
    second=("scenes_retrained", "scenes_watermark"),
    untrained=(0, 1, 2),
    seed=SEEDS,
)
def a_second_training_gives_a_similar_map(sign: str, method: str, second: str, untrained: int, seed: int) -> float:
    """A method's maps of two trained networks resemble each other more than those of a trained and an untrained one (rank
    correlation, by .1 at least).
    """

    def like(name: str) -> float:
        maps = [_map(method, n, seed) for n in ("scenes_cnn", name)]
        return similarity(*(m.abs() if sign == "magnitude" else m for m in maps)).spearman.nanmean().item()

    return like(second) - like(f"untrained {untrained}")


# Fragility


@cache
def _kept(name: str, levels: int, k: int, seed: int) -> dict[str, float]:
    """Of a saliency map's k strongest pixels, the share that outlives a change by so many grey levels: an attack's, a coin's."""
    images, answer = drawn(seed).images[:24], answers(name, seed)[:24]
    coin = torch.rand(images.shape, generator=torch.Generator().manual_seed(seed)).sub(0.5).sign()
    changed = {
        "attack": attack_attribution(trained(name), images, k=k, radius=levels / 255, steps=10),
        "coin": (images + levels / 255 * coin).clamp(0, 1),
    }
    maps = {how: saliency(trained(name), x, answer) for how, x in changed.items()}
    return {how: top_k_overlap(gradient(name, seed)[:24], map_, k).mean().item() for how, map_ in maps.items()}


FRAGILE = {"levels": (4, 1, 2, 8), "k": (200, 50), "seed": SEEDS}


@claim("since/fragility", below=-0.2, **FRAGILE, network=NETWORKS)
def an_attack_moves_the_map(levels: int, k: int, seed: int, network: str) -> float:
    """An attack on the saliency map leaves fewer of its strongest pixels in place than a random change of the same size does
    (by more than .2 of them).
    """
    kept = _kept(network, levels, k, seed)
    return kept["attack"] - kept["coin"]


@claim("since/fragility", above=0.1, **FRAGILE, beside=NETWORKS)
def robust_training_holds_the_map(levels: int, k: int, seed: int, beside: str) -> float:
    """The attack leaves more of the map's strongest pixels in place if the network was trained on adversarial examples (by
    more than .1 of them).
    """
    return _kept("scenes_robust", levels, k, seed)["attack"] - _kept(beside, levels, k, seed)["attack"]


# Attention


@cache
def _read(gap: int, fixed: bool, training: int) -> dict[str, tuple[float, float]]:
    """The mean share of the mark and of the value that decides, in each explanation."""
    learn, test, other = (sequences(n, seed, gap) for n, seed in ((2000, 0), (300, 1), (300, 2)))
    blank = other.images
    blank[:, :, 0] = 0
    told = shares(trained_reader(learn, fixed, training), test.images, blank)
    places = test.place[:, None]
    return {
        name: (share.gather(1, places).mean().item(), share.gather(1, places + gap).mean().item())
        for name, share in told.items()
    }


READERS = {"gap": (2, 1), "training": (0, 1, 2)}


@claim("since/attention", below=0.1, **READERS)
def attention_misses_the_mark(gap: int, training: int) -> float:
    """A learned attention gives the mark, on which the answer depends, less than an equal share of its weight (.1)."""
    return _read(gap, False, training)["attention"][0]


@claim("since/attention", above=0.25, fixed=(False, True), **READERS)
def the_ablation_finds_both_tokens(fixed: bool, gap: int, training: int) -> float:
    """The ablation gives both of the tokens that matter more than a quarter each."""
    return min(_read(gap, fixed, training)["ablation"])


# Transformers


OF_TRANSFORMERS = EXPLAIN | {
    "grad_cam": on_tokens,
    "rollout": rollout,
    "gradient x attention": by_gradient,
    "cp_lrp": partial(lrp, attention="cp_lrp"),
}


@cache
def _of_transformer(method: str, seed: int, baseline: str) -> Tensor:
    images, target = drawn(seed).images, answers("scenes_vit", seed)
    options = {"baseline": start(images, baseline)} if method in FROM_BASELINE else {}
    return OF_TRANSFORMERS[method](trained("scenes_vit"), images, target, **options)


def _lies_on_the_object(method: str, seed: int, baseline: str, **options) -> Tensor:
    return scored(_of_transformer(method, seed, baseline), seed, **options)


@claim(
    "since/transformers",
    above=0,
    baseline=("mean colour", "black"),
    method=(
        "saliency",
        "integrated_gradients",
        "lrp",
        "cp_lrp",
        "deeplift",
        "occlusion",
        "grad_cam",
        "gradient x attention",
    ),
    score=("mass", "rank"),
    margin=(0, 2),
    sign=SIGNS,
    seed=SEEDS,
)
def maps_of_a_transformer_beat_chance(
    baseline: str, method: str, score: str, margin: int, sign: str, seed: int
) -> float:
    """On a vision transformer, a method's map lies on the object more than a map that knows nothing."""
    area = object_mask(seed, margin).flatten(1).float().mean(1)
    return surely(_lies_on_the_object(method, seed, baseline, score=score, margin=margin, sign=sign) - area)


@claim(
    "since/transformers",
    above=0,
    baseline=("mean colour", "black", "blurred"),
    method=("lrp", "cp_lrp", "deeplift", "grad_cam", "gradient x attention"),
    score=("mass", "rank", "pointing"),
    margin=(0, 2),
    sign=SIGNS,
    seed=SEEDS,
)
def the_logit_beats_the_rollout(baseline: str, method: str, score: str, margin: int, sign: str, seed: int) -> float:
    """A method that follows the logit of a vision transformer lies on the object more than attention rollout."""
    options = {"score": score, "margin": margin, "sign": sign}
    return surely(
        _lies_on_the_object(method, seed, baseline, **options)
        - _lies_on_the_object("rollout", seed, baseline, **options)
    )


@cache
def _moved(method: str, seed: int, baseline: str) -> float:
    two, model = scenes(96, seed=seed, objects=2), trained("scenes_vit")
    both = torch.stack([two.labels, two.second_labels], 1)
    two = two[(model(two.images).gather(1, both) > 0).all(1)]
    explain = OF_TRANSFORMERS[method]
    if method in FROM_BASELINE:
        explain = partial(explain, baseline=start(two.images, baseline))
    masks = two.masks["object"], two.masks["second_object"]
    asked = class_sensitivity(explain, model, two.images, two.labels, two.second_labels, masks=masks)
    return asked.moved.nanmean().item()


@claim(
    "since/transformers",
    above=0.2,
    baseline=BASELINES,
    method=("lrp", "cp_lrp", "deeplift", "grad_cam", "gradient x attention"),
    seed=(9, 19, 29),
)
def a_transformers_relevance_follows_the_question(baseline: str, method: str, seed: int) -> float:
    """On a vision transformer, relevance moves to the object that was asked for (share that moves above .2)."""
    return _moved(method, seed, baseline)


@claim(
    "since/transformers",
    above=0,
    block=("last", "first"),
    score=("mass", "rank", "pointing"),
    margin=(0, 2),
    seed=SEEDS,
)
def grad_cam_on_tokens_is_better_without_its_mean(block: str, score: str, margin: int, seed: int) -> float:
    """On a vision transformer, Grad-CAM lies on the object more if each token keeps its own gradient in place of the mean over all."""
    model, images = trained("scenes_vit"), drawn(seed).images
    start = len(model) - (4 if block == "last" else 5)  # the block's input
    tokens = model[:start](images).detach().requires_grad_()
    logit = model[start:](tokens).gather(1, answers("scenes_vit", seed)[:, None]).sum()
    (slope,) = torch.autograd.grad(logit, tokens)

    def lies(alpha: Tensor) -> Tensor:
        cam = (tokens.detach() * alpha).sum(2).relu()
        return scored(
            F.interpolate(tokens_to_maps()(cam[..., None]), images.shape[2:], mode="bilinear"), seed, score, margin
        )

    return surely(lies(slope) - lies(slope[:, 1:].mean(1, keepdim=True)))


# Mechanistic interpretability


@cache
def _kept_features(density: float, training: int) -> Tensor:
    """The lengths of the directions of five features in two units."""
    return superposed(5, 2, density, steps=600, seed=training).norm(dim=0)


TOY = {"threshold": (0.5, 0.3, 0.7), "training": (0, 1, 2, 3, 4)}


@claim("since/mechanistic_interpretability", above=4.5, density=(0.05, 0.02, 0.1), **TOY)
def rare_features_are_all_kept(density: float, threshold: float, training: int) -> float:
    """Two units keep all of five features that are rare (number of directions that are longer than a threshold)."""
    return (_kept_features(density, training) > threshold).sum().item()


@claim("since/mechanistic_interpretability", below=3.5, **TOY)
def features_that_are_always_there_are_dropped(threshold: float, training: int) -> float:
    """Of five features that are always present, two units keep three at most."""
    return (_kept_features(1.0, training) > threshold).sum().item()


@cache
def _stored(training: int) -> tuple[Tensor, Tensor]:
    """The directions of twenty features in eight units, and 20,000 activations."""
    w = superposed(20, 8, 0.05, seed=training)
    return F.normalize(w.T), present(20_000, 20, 0.05) @ w.T


@cache
def _directions(what: str, training: int, penalty: float = 0.1) -> Tensor:
    _, h = _stored(training)
    if what == "units":
        return torch.cat([torch.eye(8), -torch.eye(8)])
    if what == "principal components":
        main = torch.linalg.svd(h - h.mean(0), full_matrices=False).Vh
        return torch.cat([main, -main])
    if what == "at random":
        return F.normalize(torch.randn(40, 8, generator=torch.Generator().manual_seed(training)))
    return sparse_autoencoder(h, int(what), penalty, seed=training)


def _share_found(directions: Tensor, training: int, cosine: float) -> float:
    return (nearest_cosine(_stored(training)[0], directions) > cosine).float().mean().item()


FOUND = {"cosine": (0.95, 0.9), "training": (0, 1, 2)}


@claim("since/mechanistic_interpretability", above=0.5, size=(40, 20, 80), penalty=(0.1, 0.03, 0.2), **FOUND)
def a_sparse_autoencoder_finds_most_features(size: int, penalty: float, cosine: float, training: int) -> float:
    """A sparse autoencoder finds more than half of the features that are stored in a layer."""
    return _share_found(_directions(str(size), training, penalty), training, cosine)


@claim("since/mechanistic_interpretability", below=0.5, what=("units", "principal components", "at random"), **FOUND)
def without_it_most_features_are_missed(what: str, cosine: float, training: int) -> float:
    """The units, the principal components and random directions come near to less than half of the features."""
    return _share_found(_directions(what, training), training, cosine)


@cache
def _patched(pair: tuple[int, int], cut: int, chosen_on: str) -> tuple[Tensor, Tensor, Tensor]:
    """Of the digits MLP: true and estimated effects of patching each unit of a layer, and for each order of the units, by
    effect and twenty drawn ones, the share of answers that a quarter of them turns in pairs that took no part in the choice.
    """
    model, test = trained("digits_mlp"), digits("test")
    below, above = model[:cut], model[cut:]
    here, there = (below(test.images[test.labels == c]).detach() for c in pair)
    n = min(len(here), len(there)) // 2 * 2
    halves = [(here[k:n:2], there[k:n:2]) for k in (0, 1)]
    (a, b), (x, y) = halves if chosen_on == "first half" else halves[::-1]

    def lean(hidden: Tensor) -> Tensor:
        logits = above(hidden)
        return logits[..., pair[1]] - logits[..., pair[0]]

    units = a.shape[1]
    one = torch.eye(units, dtype=torch.bool)[:, None]
    effect = (lean(torch.where(one, b, a).flatten(0, 1)).view(units, -1) - lean(a)).mean(1).detach()
    inside = a.clone().requires_grad_()
    (slope,) = torch.autograd.grad(lean(inside).sum(), inside)
    generator = torch.Generator().manual_seed(0)
    orders = [effect.argsort(descending=True), *(torch.randperm(units, generator=generator) for _ in range(20))]
    turned = []
    for order in orders:
        mixed = x.clone()
        mixed[:, order[: units // 4]] = y[:, order[: units // 4]]
        turned.append((lean(mixed) > 0).float().mean())
    return effect, (slope * (b - a)).mean(0), torch.stack(turned)


PATCHED = {"pair": ((4, 9), (9, 4), (3, 8), (1, 7)), "cut": (3, 5), "chosen_on": ("first half", "second half")}


@claim("since/mechanistic_interpretability", above=0.3, **PATCHED)
def a_quarter_of_the_units_carries_the_difference(pair: tuple[int, int], cut: int, chosen_on: str) -> float:
    """A quarter of a layer's units, chosen by their effect and patched, turns more answers than a quarter drawn at random (by
    more than .3 of them).
    """
    turned = _patched(pair, cut, chosen_on)[2]
    return (turned[0] - turned[1:].mean()).item()


@claim("since/mechanistic_interpretability", above=0.9, **PATCHED)
def the_gradient_estimates_patching(pair: tuple[int, int], cut: int, chosen_on: str) -> float:
    """The gradient times the difference foretells the effects of patching single units (correlation above .9)."""
    return torch.stack(_patched(pair, cut, chosen_on)[:2]).corrcoef()[0, 1].item()


# Concepts


@cache
def _concepts(part: str, training: int, layer: str, seed: int) -> ConceptTest:
    """The test of all three parts as concepts: the first state of each, against pictures with both."""
    told = {name: scenes(800, size=48, seed=1000 + seed, evidence=name) for name in PARTS}
    concepts = {name: data[:400].images[data.labels[:400] == 0][:40] for name, data in told.items()}
    random, examples = told[part].images[400:], scenes(100, size=48, seed=2000 + seed, evidence=part).images
    return tcav(part_networks.load(part, training), examples, 0, layer=layer, concepts=concepts, random=random)


CONCEPTS = {"part": tuple(PARTS), "training": (1, 2, 3), "seed": (7, 17)}


def _others(part: str) -> list[int]:
    return [k for k, name in enumerate(PARTS) if name != part]


@claim("since/concepts", below=0.05, layer=("last", "fourth"), **CONCEPTS)
def the_deciding_part_is_found_as_a_concept(layer: str, part: str, training: int, seed: int) -> float:
    """The part of a scene that decides is significant among the concepts of a convolution (its corrected p-value lies below
    .05).
    """
    found = _concepts(part, training, LAYERS[layer], seed)
    return found.p_values[list(PARTS).index(part)].item()


@claim("since/concepts", above=0.05, layer=("last", "fourth", "third"), **CONCEPTS)
def what_does_not_decide_is_no_concept(layer: str, part: str, training: int, seed: int) -> float:
    """No part that does not decide is significant among the concepts of a convolution (the smaller of their corrected p-values
    lies above .05).
    """
    return _concepts(part, training, LAYERS[layer], seed).p_values[_others(part)].min().item()


@claim("since/concepts", below=0.05, layer=("last", "fourth", "third"), **CONCEPTS)
def a_t_test_over_splits_finds_what_decides_nothing(layer: str, part: str, training: int, seed: int) -> float:
    """A t-test of the scores over the splits, against one half and corrected, calls a part significant that does not decide."""
    scores = _concepts(part, training, LAYERS[layer], seed).scores[_others(part)]
    splits = scores.shape[1]
    t = (scores.mean(1) - 0.5) / (scores.std(1) / splits**0.5)
    return 3 * float(2 * stats.t.sf(t.abs().max(), splits - 1))


LAYERS = {"last": "9", "fourth": "7", "third": "5"}  # the ReLU behind each convolution


class Readers(nn.Module):
    """A logit for the second state of every part, by the network that was trained on this part."""

    def __init__(self, training: int) -> None:
        super().__init__()
        self.readers = nn.ModuleList(part_networks.load(part, training) for part in PARTS)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([reader(x).diff(dim=1) for reader in self.readers], 1)


def _states(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Scenes, and the states of their parts ``(n, 3)``."""
    drawn = [scenes(n, size=48, seed=seed, evidence=part) for part in PARTS]
    return drawn[0].images, torch.stack([data.labels for data in drawn], 1)


def _right(model: ConceptBottleneck, x: Tensor, states: Tensor, told: list[int], answer: int) -> float:
    """How often the answer, the state of one part, is right where some concepts are told."""
    known = torch.where(torch.isin(torch.arange(states.shape[1]), torch.tensor(told)), states.float(), torch.nan)
    with torch.no_grad():
        return (model(x, known).argmax(1) == states[:, answer]).float().mean().item()


@claim("since/concepts", above=0.3, **CONCEPTS)
def a_correction_helps_only_at_the_deciding_part(part: str, training: int, seed: int) -> float:
    """On scenes in which the deciding part is not drawn, a concept bottleneck that is told its state is right more often than one
    that is told any other part's (by .3 at least).
    """
    decides = list(PARTS).index(part)
    x, states = _states(400, 1000 + seed)
    model = concept_bottleneck(x, states, states[:, decides], Readers(training), epochs=0)
    hidden = scenes(200, size=48, seed=2000 + seed, evidence=part, without=part).images
    states = _states(200, 2000 + seed)[1]
    other, deciding = (
        max(_right(model, hidden, states, [k], decides) for k in told) for told in (_others(part), [decides])
    )
    return deciding - other


@claim("since/concepts", above=0.2, joint=(0.03, 0.1, 0.3), training=(1, 2, 3))
def a_joint_bottleneck_leaks(joint: float, training: int) -> float:
    """A bottleneck whose answer and concepts are trained together is right more often by itself than with all concepts told
    truly (by .2 at least), though none of them bears on the answer.
    """
    x, states = _states(1024, 50 + training)
    with torch.random.fork_rng([]):
        torch.manual_seed(training)
        body = scenes_cnn(2)
    model = concept_bottleneck(
        x, states[:, 1:], states[:, 0], body, joint=joint, epochs=8, lr=5e-3, batch_size=32, seed=training
    )
    new, told = _states(400, 9)
    with torch.no_grad():
        alone, corrected = (
            (logits.argmax(1) == told[:, 0]).float().mean().item()
            for logits in (model(new), model(new, told[:, 1:].float()))
        )
    return alone - corrected


# Counterfactuals


@cache
def _hardened(training: int) -> nn.Module:
    """The network of the dot, trained further on adversarial examples."""
    model = part_networks.load("dot", training)
    learned = scenes(1024, size=48, seed=50 + training, evidence="dot")
    options = {"batch_size": 32, "lr": 2e-3, "weight_decay": 0.05, "seed": training, "progress": False}
    train(model, learned, epochs=6, perturb=fast_gradient_sign, **options)
    return model


@cache
def _changes(training: int, seed: int, robust: bool) -> tuple[Tensor, Tensor, Tensor]:
    """From scenes to their closest counterfactuals, and to those that show the other dot; and the masks of the dots."""
    data = scenes(32, size=48, seed=seed, evidence="dot")
    x, model = data.images, _hardened(training) if robust else part_networks.load("dot", training)
    other = torch.where(data.masks["dot"][:, None], x.flip(1), x)  # red for blue
    found = counterfactual(model, x, 1 - model(x).argmax(1))
    there = found.distance < torch.inf
    return (found.x - x)[there], (other - x)[there], data.masks["dot"][there]


TRUE = {"training": (1, 2, 3), "seed": (7, 17)}


@claim("since/counterfactuals", below=0.5, robust=(False, True), **TRUE)
def the_closest_is_closer_than_the_true_one(robust: bool, training: int, seed: int) -> float:
    """The closest counterfactual picture lies less than half as far away as the scene with the other dot (median of the ratios)."""
    change, other, _ = _changes(training, seed, robust)
    return (change.flatten(1).norm(dim=1) / other.flatten(1).norm(dim=1)).median().item()


@claim("since/counterfactuals", below=0.5, robust=(False, True), **TRUE)
def most_of_the_closest_change_lies_elsewhere(robust: bool, training: int, seed: int) -> float:
    """Less than half of the closest change lies on the part that decides, on which all of the true change lies."""
    change, _, dot = _changes(training, seed, robust)
    return relevance_mass(change.abs().sum(1), dot).mean().item()


@claim("since/counterfactuals", above=1, **TRUE)
def robust_training_moves_the_closest_counterfactual_away(training: int, seed: int) -> float:
    """The closest counterfactuals of a network lie further away after training on adversarial examples (median distance, as a
    multiple of the one before).
    """
    near, far = (_changes(training, seed, robust)[0].flatten(1).norm(dim=1).median() for robust in (False, True))
    return (far / near).item()


# Shapley values


@cache
def _of_parts(baseline: str, name: str, seed: int) -> Tensor:
    """Shapley values of the object, of what else stands out, and of the background."""
    images, objects = drawn(seed, 24).images, drawn(seed, 24).masks["object"]
    median = images.flatten(2).median(2).values[..., None, None]
    stands_out = (gaussian_blur(images, 5, 1.0) - median).abs().sum(1) > 0.5
    players = torch.stack([objects, stands_out & ~objects, ~stands_out & ~objects])[:, :, None]
    target = trained(name)(images).argmax(1)
    return shapley_values(trained(name), images, target, players=players, baseline=start(images, baseline)).values


@claim("since/shapley_values", above=0.5, baseline=("mean colour", "black", "blurred"), network=NETWORKS, seed=SEEDS)
def the_object_carries_the_logit(baseline: str, network: str, seed: int) -> float:
    """Of the Shapley values of object, clutter and background, the object's is more than half of the sum (over the scenes)."""
    values = _of_parts(baseline, network, seed).mean(0)
    return (values[0] / values.sum()).item()


@cache
def _by_orders(orders: int, baseline: str, name: str, draw: int) -> Tensor:
    images = drawn(7).images[:4]
    options = {"players": 8, "permutations": orders, "baseline": start(images, baseline), "seed": draw}
    return shapley_values(trained(name), images, answers(name, 7)[:4], **options).values


@claim(
    "since/shapley_values",
    above=1,
    orders=(16, 4),
    other=("black", "blurred"),
    network=NETWORKS,
    draw=(0, 1, 2),
)
def the_baseline_moves_more_than_the_estimator(orders: int, other: str, network: str, draw: int) -> float:
    """Another baseline in place of the mean colour moves the Shapley values of patches further than other orders do (ratio of the
    changes).
    """
    here = _by_orders(orders, "mean colour", network, draw)
    moved = _by_orders(orders, other, network, draw) - here
    return (moved.norm() / (_by_orders(orders, "mean colour", network, draw + 1) - here).norm()).item()


# ROAD


@cache
def _detected(filling: str, removed: float, seed: int) -> float:
    """AUC of a detector that says of each pixel whether it was filled, from its neighbours, the mean colour and its copies."""
    images = drawn(seed, 12).images
    place = rank_pixels(torch.zeros_like(images), torch.Generator().manual_seed(seed))
    gone = place < removed * 64 * 64
    if filling == "mean colour":
        filled = torch.where(gone[:, None], images.mean((2, 3), keepdim=True), images)
    else:
        filled = impute(images, gone, noise=float(filling.split()[-1]))
    around = F.unfold(F.pad(filled, (1, 1, 1, 1), mode="reflect"), 3).unflatten(1, (3, 9))
    centre, near, far = around[:, :, 4], around.mean(2), filled.mean((2, 3))[..., None]
    known = [torch.unique(c, dim=1, return_inverse=True, return_counts=True)[1:] for c in filled.flatten(2)]
    copies = torch.stack([counts[inverse] for inverse, counts in known])[:, None]  # pixels of exactly this colour
    features = torch.cat([around.flatten(1, 2), (centre - near).abs(), (centre - far).abs(), copies], 1).mT
    seen, new = (part.flatten(0, 1).numpy() for part in (features[:8], features[8:]))
    detector = HistGradientBoostingClassifier(max_iter=40, random_state=0).fit(seen, gone[:8].flatten())
    return roc_auc_score(gone[8:].flatten(), detector.predict_proba(new)[:, 1])


@claim("since/road", above=0.05, noise=(0.04, 0.01, 0.0), removed=(0.5, 0.2, 0.8), seed=SEEDS)
def road_hides_the_removal_better_than_a_constant(noise: float, removed: float, seed: int) -> float:
    """A detector recognises the pixels that ROAD filled less surely than those of a constant (AUC lower by .05 or more)."""
    return _detected("mean colour", removed, seed) - _detected(f"ROAD {noise}", removed, seed)


@claim("since/road", above=0.6, noise=(0.04, 0.01, 0.0), removed=(0.5, 0.2, 0.8), seed=SEEDS)
def road_is_far_from_invisible(noise: float, removed: float, seed: int) -> float:
    """Even so, the detector recognises them (AUC above .6; .5 is chance)."""
    return _detected(f"ROAD {noise}", removed, seed)


# Text


@cache
def _of_text(network: str, training: str, baseline: str, method: str, seed: int) -> tuple[Sentences, Tensor]:
    """Forty sentences with a judgement and evidence for it, and the method's map of each, ``(40, 1, 10)``."""
    model = _that_reads(network, training)
    data = sentences(100, seed=seed)
    data = data[(data.labels != 1) & data.masks["evidence"].any(1)][:40]
    x = model[0](data.tokens).detach()
    return data, OF_WORDS[method](model[1:], x, data.labels, neutral(model, x, baseline)).sum(1)


@cache
def _that_reads(network: str, training: str) -> nn.Sequential:
    if training == "shipped":
        return sentence_networks.load(network)
    return sentence_networks.trained(network, sentences(10_000, seed=1), int(training))


READING = {
    "network": tuple(sentence_networks.TRAINED),
    "training": ("shipped", "1"),
    "baseline": ("a neutral word", "their mean", "zero"),
    "method": ("integrated gradients", "DeepLIFT", "Shapley", "AttnLRP", "CP-LRP", "gradient x input"),
    "seed": SEEDS,
}


@claim("since/text", above=0, **READING, score=("rank", "mass", "pointing"), sign=SIGNS)
def the_planted_words_are_found(
    network: str, training: str, baseline: str, method: str, seed: int, score: str, sign: str
) -> float:
    """In a sentence, a method finds the words that decide better than a list of all judgements, "not" and "but" does."""
    data, map_ = _of_text(network, training, baseline, method, seed)
    listed = torch.isin(data.tokens, torch.tensor(LISTED))[:, None].float()
    return surely(
        SCORES[score](map_.abs() if sign == "magnitude" else map_, data.masks["evidence"][:, None])
        - SCORES[score](listed, data.masks["evidence"][:, None])
    )


@claim("since/text", above=0.1, **READING)
def a_judgement_gets_less_behind_a_not(network: str, training: str, baseline: str, method: str, seed: int) -> float:
    """A judgement that "not" turns gets a smaller share of a sentence's relevance, with its sign, than one that stands alone
    (by .1 at least).
    """
    data, map_ = _of_text(network, training, baseline, method, seed)
    plain, turned = deciding_words(data)
    share = (map_[:, 0] / map_[:, 0].abs().sum(1, keepdim=True)).detach()
    return (share[plain].mean() - share[turned].mean()).item()
