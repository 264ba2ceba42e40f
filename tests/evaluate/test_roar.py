"""ROAR and KAR: pixels replaced as said, networks that have seen what they may see, a table that says it.

Two tests retrain networks; the others look at the tasks of a sweep whose networks are not trained.
"""

import doctest
import importlib
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.testing import assert_close

from interp_lab import METHODS, kar, networks, roar
from interp_lab.data import Dataset, digits
from interp_lab.evaluate.roar import Cell, Retraining, Workers, edges, rank_pixels, workers
from interp_lab.evaluate.roar.starts import start
from interp_lab.evaluate.roar.training import Network, Task, seen
from interp_lab.networks import small_cnn
from interp_lab.reproducible import reproducibly

QUICK = {"fractions": (0.2, 0.7), "seeds": (0, 1), "epochs": 1, "progress": False}


@dataclass
class Sight:
    """What a network of a sweep would be trained and tested on."""

    network: Network
    images: tuple[Tensor, Tensor]
    labels: tuple[Tensor, Tensor]


@pytest.fixture
def sights(monkeypatch):
    """Nothing is trained: each network is looked at, and gets a number that its seed and its pixels decide."""
    found: list[Sight] = []

    def look(task: Task) -> list[float]:
        for network in task.networks:
            examples = [seen(task, part, network) for part in (0, 1)]
            images = tuple(torch.cat(list(part.images.split(7))) for part in examples)
            found.append(Sight(network, images, tuple(part.labels.clone() for part in examples)))
        return [float(hash((n.seed, n.places, n.mask_only)) % 101) / 101 for n in task.networks]

    monkeypatch.setattr(workers, "retrain", look)
    return found


def few_digits() -> tuple[Dataset, Dataset]:
    return digits("train")[:40], digits("test")[:20]


def brightness(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    return x


def constant(*values: float):
    """A method that gives every image of 4x4 pixels the same map."""
    return lambda model, x, target: torch.tensor(values).view(1, 1, 4, 4).expand_as(x)


def test_ranks_are_in_the_order_of_the_summed_channels_and_ties_are_broken_at_random():
    attribution = torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    attribution[:, :, :3] = 0  # 18 ties
    ranks = rank_pixels(attribution, torch.Generator().manual_seed(1))
    summed = attribution.sum(1).flatten(1)
    for row, place in zip(summed, ranks.flatten(1).long(), strict=True):
        assert place.sort().values.tolist() == list(range(36))
        by_rank = row[place.argsort()]
        assert (by_rank[:-1] >= by_rank[1:]).all()
    # Not by index, not the same for all images, and the same again with the same seed.
    tied = ranks[:, :3].flatten(1)
    assert not (tied.diff(dim=1) > 0).all(1).any()
    assert len({tuple(row.argsort().tolist()) for row in tied}) == 5
    assert torch.equal(ranks, rank_pixels(attribution, torch.Generator().manual_seed(1)))
    # Every one of 4 equal pixels comes first equally often: within 5 standard deviations of 1000.
    first = rank_pixels(torch.zeros(4000, 2, 2), torch.Generator().manual_seed(0)).flatten(1).argmin(1).bincount()
    assert ((first - 1000).abs() < 5 * (4000 * 3 / 16) ** 0.5).all()


def test_edges_are_those_of_scipy():
    x = torch.rand(3, 2, 9, 7, generator=torch.Generator().manual_seed(0))
    expected = [
        np.hypot(*(ndimage.sobel(image, axis, mode="nearest") for axis in (0, 1))) for image in x.sum(1).numpy()
    ]
    assert_close(edges(nn.Identity(), x)[:, 0], torch.from_numpy(np.stack(expected)))


# What the networks of a sweep see


@pytest.mark.parametrize("together", [1, 4])
@pytest.mark.parametrize(("sweep", "chosen"), [(roar, [0, 1, 2]), (kar, [13, 14, 15])])
def test_exactly_the_pixels_of_the_fraction_are_replaced_by_the_training_mean(sweep, chosen, together, sights):
    images = torch.rand(30, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    train, test = (Dataset(part, torch.arange(len(part)) % 2, ("a", "b")) for part in (images[:20], images[20:]))
    order = constant(*range(16, 0, -1))  # the first pixel is the most relevant
    options = QUICK | {"fractions": (0.2,), "seeds": (0,), "workers": Workers(together=together)}
    sweep({"order": order}, (train, test), partial(small_cnn, 3, 4, 4, 2), **options)
    whole, got, alone, random, random_alone, *_ = sights
    assert len(sights) == 1 + 3 * 2
    assert [sight.network.mask_only for sight in sights] == [False] + 3 * [False, True]
    mean = train.images.mean((0, 2, 3))[:, None]
    for part, data in enumerate((train, test)):
        assert_close(whole.images[part], data.images)
        expected = data.images.flatten(2).clone()
        expected[:, :, chosen] = mean
        assert_close(got.images[part].flatten(2), expected)
        expected = torch.zeros_like(expected)
        expected[:, :, chosen] = 1
        assert_close(alone.images[part].flatten(2), expected)
        assert all(torch.equal(sight.labels[part], data.labels) for sight in sights)
        # The random baseline replaces as many, elsewhere in every image.
        mask = random_alone.images[part].bool()
        assert (mask[:, 0].flatten(1).sum(1) == 3).all()
        assert_close(random.images[part], torch.where(mask, mean[:, None], data.images))
    everywhere = torch.cat(random_alone.images)[:, 0].sum(0)
    assert (everywhere > 0).all()


def test_the_number_of_replaced_pixels_is_rounded(sights):
    images = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    data = tuple(Dataset(part, torch.arange(6) % 2, ("a", "b")) for part in images.split(6))
    roar({"x": brightness}, data, **QUICK | {"fractions": (0.1, 0.4)}, model=small_cnn(1, 4, 4, 2))
    counts = {
        len(s.network.places): s.images[0].flatten(1).sum(1).unique().tolist() for s in sights if s.network.mask_only
    }
    assert counts == {2: [2.0], 6: [6.0]}  # 1.6 and 6.4 of 16


def test_every_seed_has_a_start_of_its_own_and_the_same_one_everywhere(sights):
    roar(["saliency"], few_digits(), **QUICK, model=small_cnn())
    starts: dict[int, list[Tensor]] = {}
    for sight in sights:
        starts.setdefault(sight.network.seed, []).append(sight.network.start[0].weight)
    assert not torch.equal(starts[0][0], starts[1][0])
    assert all(torch.equal(weight, same[0]) for same in starts.values() for weight in same)


def test_the_class_explained_is_the_one_predicted(sights):
    model, calls = start(small_cnn, 0).eval(), []
    roar({"spy": lambda m, x, target: calls.append((x, target)) or x}, few_digits(), **QUICK, model=model)
    assert len(calls) == 2  # once for each part, whatever the fractions and seeds
    for x, target in calls:
        assert torch.equal(target, model(x).argmax(1))
        assert len(target.unique()) > 1


def test_the_explained_network_has_seen_the_training_part_alone(sights):
    (train, test), models = few_digits(), []
    recipe = {"epochs": 1, "batch_size": 16}
    roar({"spy": lambda m, x, target: models.append(m) or x}, (train, test), **QUICK | recipe)
    expected = start(small_cnn, 0)
    with reproducibly():
        networks.train(expected, train, seed=0, lr=1e-2, progress=False, **recipe)
    assert_close(models[0].state_dict(), expected.state_dict())


def test_one_data_set_is_split_into_parts_without_a_common_image(sights):
    data = digits("all")[:300]
    roar([], data, **QUICK, model=small_cnn())
    train, test = ({image.numpy().tobytes() for image in part} for part in sights[0].images)
    assert not train & test
    assert (len(sights[0].images[0]), len(sights[0].images[1])) == (200, 100)
    assert len(train | test) == len({image.numpy().tobytes() for image in data.images})
    of_class = torch.stack([labels.bincount(minlength=10) for labels in sights[0].labels])
    assert ((of_class[1] - data.labels.bincount() / 3).abs() < 1).all(), "a third of every class"


def test_two_images_are_enough(sights):
    data = digits("all")[:2]
    roar([], data, **QUICK, model=small_cnn())
    assert_close(torch.cat(sights[0].images).sum(0), data.images.sum(0))


def test_the_explained_network_and_the_random_state_stay_as_they_were(sights):
    model, state = small_cnn().train(), torch.get_rng_state()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for explained in (model, None):
        roar(["saliency"], few_digits(), **QUICK, model=explained)
        assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# Two sweeps whose networks are trained


def toy(problem: int, sample: int) -> tuple[Dataset, Dataset]:
    """Hooker et al.: x = a z / 10 + d eta + noise / 10 in 16 dimensions, 4 of them informative, y = [z > 0]."""
    generator = torch.Generator().manual_seed(problem)
    a, d = torch.zeros(16), torch.randn(16, generator=generator)
    a[:4] = torch.randn(4, generator=generator)
    generator.manual_seed(100 + sample)
    z, eta, noise = (torch.randn(4000, k, generator=generator) for k in (1, 1, 16))
    data = Dataset((a * z / 10 + d * eta + noise / 10).view(-1, 1, 4, 4), (z[:, 0] > 0).long(), ("-", "+"))
    return data[:1000], data[1000:]


def least_squares(train: Dataset, test: Dataset, fitted: Tensor, kept: Tensor) -> float:
    """Test accuracy on the kept features of the least-squares classifier fitted on other ones."""
    features = [
        torch.cat([torch.where(keep, part.images.flatten(1), train.images.mean()), torch.ones(len(part), 1)], 1)
        for part, keep in ((train, fitted), (test, kept))
    ]
    weights = torch.linalg.lstsq(features[0], 2.0 * train.labels[:, None] - 1, driver="gelsd").solution
    return ((features[1] @ weights)[:, 0].gt(0) == test.labels).float().mean().item()


def test_hookers_toy_networks_are_retrained_not_only_tested_again(seed, verdict):
    methods = {"truth": constant(*range(16, 0, -1)), "inverse": constant(*range(16))}
    informative, everything = torch.arange(16) < 4, torch.ones(16, dtype=torch.bool)
    for problem in (0, 1):
        train, test = toy(problem, seed)
        recipe = {"epochs": 10, "lr": 0.3}
        options = {"fractions": (0.25, 0.75), "seeds": (seed,), "progress": False, **recipe}
        table = roar(methods, (train, test), "softmax_regression", **options)
        accuracy = {(row.method, row.fraction): row.accuracy for row in table.summary()}
        # The inverse order removes the 12 that say nothing: what stays is learnt as by least squares, in closed form.
        retrained = least_squares(train, test, informative, informative)
        verdict(
            "informative pixels, less least squares", accuracy["inverse", 0.75] - retrained, above=-0.03, below=0.03
        )
        whole = accuracy["none", 0] - least_squares(train, test, everything, everything)
        verdict("all pixels, less least squares", whole, above=-0.04, below=0.04)
        verdict("without the informative pixels", accuracy["truth", 0.25], above=0.44, below=0.56)
        gain = accuracy["inverse", 0.75] - least_squares(train, test, everything, informative)
        verdict(
            f"gain by retraining on problem {problem}", gain, above=0.1
        )  # without it, the removal would look harmful


def planted(n: int, seed: int) -> tuple[Dataset, Tensor]:
    """Noise with a patch of 3x3 pixels at a random place, a plus or a cross: the place says nothing."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.tensor([[[-1.0, 1, -1], [1, 1, 1], [-1, 1, -1]], [[1, -1, 1], [-1, 1, -1], [1, -1, 1]]])
    images = 0.25 * torch.randn(n, 1, 10, 10, generator=generator) + 0.5
    labels, masks = torch.randint(2, (n,), generator=generator), torch.zeros(n, 10, 10, dtype=torch.bool)
    for i, (row, column) in enumerate(torch.randint(8, (n, 2), generator=generator).tolist()):
        images[i, 0, row : row + 3, column : column + 3] += 0.4 * signs[labels[i]]
        masks[i, row : row + 3, column : column + 3] = True
    return Dataset(images, labels, ("plus", "cross")), masks


def pooled_cnn() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, 2))


def test_planted_evidence_the_oracle_is_best_and_its_opposite_worst(seed, verdict):
    (train, train_masks), (test, test_masks) = planted(500, 2 * seed), planted(600, 2 * seed + 1)
    truth = {image.numpy().tobytes(): mask for data, masks in ((train, train_masks), (test, test_masks)) for image, mask in zip(data.images, masks, strict=True)}  # fmt: skip

    def oracle(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
        return torch.stack([truth[image.numpy().tobytes()] for image in x]).float()

    methods = {
        "oracle": oracle,
        "opposite": lambda *a: 1 - oracle(*a),
        "integrated_gradients": METHODS["integrated_gradients"],
    }
    recipe = {"epochs": 20, "lr": 0.02}
    options = {"seeds": (2 * seed, 2 * seed + 1), "progress": False, **recipe}
    scores = {
        row.method: row for row in roar(methods, (train, test), pooled_cnn, fractions=[0.09], **options).summary()
    }
    accuracy = {name: row.accuracy for name, row in scores.items()}
    verdict("accuracy of the whole", accuracy["none"], above=0.9)
    verdict("without the evidence", accuracy["oracle"], below=0.65)  # chance is 0.5, with a deviation of .03
    others = min(value for name, value in accuracy.items() if name != "oracle")
    verdict("the oracle below all others", accuracy["oracle"] - others, below=0)
    verdict("integrated gradients below random", accuracy["integrated_gradients"] - accuracy["random"], below=-0.1)
    verdict("the opposite above random", accuracy["opposite"] - accuracy["random"], above=0)
    verdict("place of the patch", scores["oracle"].mask_only, below=0.65)  # must say nothing of the class
    del methods["integrated_gradients"]
    table = kar(methods, (train, test), pooled_cnn, fractions=[0.91], **options)
    kept = {row.method: row.accuracy for row in table.summary()}
    verdict("the evidence kept", kept["oracle"], above=0.9)
    verdict("above all others", kept["oracle"] - max(kept["random"], kept["edges"], kept["opposite"]), above=0.2)


SHARED = Path(__file__).parents[2] / ".." / "shared" / "data" / "torchvision-data"


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder shared/ is not beside the checkout")
def test_a_signed_map_on_mnist_tells_the_class_by_its_mask_alone(seed, verdict):
    train, test = (digits(split, source="mnist", root=SHARED)[:2000] for split in ("train", "test"))
    table = roar(["saliency"], (train, test), fractions=(0.1,), seeds=(seed,), progress=False)
    rows = {row.method: row for row in table.summary()}
    verdict("masks of a random order", rows["random"].mask_only, below=0.15)
    verdict("masks of saliency", rows["saliency"].mask_only, above=0.8)


# What the table says


def test_the_cells_hold_the_accuracy_of_their_own_network(sights):
    table = kar(["saliency"], few_digits(), **QUICK, model=small_cnn())
    numbers = {(s.network.seed, s.network.places, s.network.mask_only) for s in sights}
    value = {key: float(hash(key) % 101) / 101 for key in numbers}
    places = {0.0: range(784, 784), 0.2: range(784 - 157, 784), 0.7: range(784 - 549, 784)}
    assert [(c.method, c.fraction, c.seed) for c in table.cells[:4]] == [
        ("none", 0.0, 0),
        ("none", 0.0, 1),
        ("saliency", 0.2, 0),
        ("saliency", 0.2, 1),
    ]
    for cell in table.cells:
        assert cell.accuracy == value[cell.seed, places[cell.fraction], False]
        assert cell.mask_only == (None if cell.method == "none" else value[cell.seed, places[cell.fraction], True])


def test_the_summary_is_mean_and_standard_deviation_over_the_seeds():
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(3, 2, generator=generator).tolist()
    whole = [Cell("none", 0.0, seed, 0.9) for seed in range(3)]
    cells = [Cell("edges", 0.7, seed, *row) for seed, row in enumerate(values)]
    table = Retraining("most relevant", (*whole, *cells, Cell("edges", 0.2, 0, error="broken")))
    _, row, broken = table.summary()
    assert (row.method, row.fraction, row.seeds) == ("edges", 0.7, 3)
    assert (row.accuracy, row.mask_only) == pytest.approx(tuple(np.mean(values, 0)))
    assert (row.spread, row.mask_only_spread) == pytest.approx(tuple(np.std(values, 0, ddof=1)))
    assert broken.seeds == 0
    assert math.isnan(broken.accuracy)
    shown = f"{100 * row.accuracy:.1f} ± {100 * row.spread:.1f} ({100 * row.mask_only:.1f})"
    unchanged = "90.0 ± 0.0"
    assert table.rows() == {
        "edges": {"70 %": shown, "20 %": "failed"},
        "whole images": {"70 %": unchanged, "20 %": unchanged},
    }
    *_, header, edges, last, error = str(table).splitlines()
    assert [" ".join(line.split()) for line in (header, edges, last)] == [
        "replaced 70 % 20 %",
        " ".join(f"edges {shown} failed".split()),
        f"whole images {unchanged} {unchanged}",
    ]
    assert error == "edges: broken"


def crashes(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    if (x.flatten(1)[:, 300] == 1.5).any():
        raise ZeroDivisionError("no such image")
    return x


def one_nan(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    return torch.where(x == 1.5, torch.nan, x)


def test_a_method_that_fails_is_reported_by_name_and_ends_nothing(sights, tmp_path):
    train, test = few_digits()
    test.images[17].flatten()[300] = 1.5
    methods = {
        "crashes": crashes,
        "one_nan": one_nan,
        "wrong_shape": lambda model, x, target: x[:1],
        "brightness": brightness,
    }
    options = QUICK | {"fractions": (0.5,), "results": tmp_path / "results.jsonl"}
    table = roar(methods, (train, test), **options)
    assert table.errors == {
        "crashes": "ZeroDivisionError for test image 17: no such image",
        "one_nan": "gives NaN or infinite values for test image 17",
        "wrong_shape": "gives shape (1, 1, 28, 28) for images (40, 1, 28, 28)",
    }
    failed = [cell for cell in table.cells if cell.method in table.errors]
    assert len(failed) == 6
    assert all(cell.accuracy is cell.mask_only is None for cell in failed)
    assert all(cell.accuracy is not None for cell in table.cells if cell.method in ("brightness", "random", "edges"))
    assert "one_nan: gives NaN" in str(table)
    # Mended, the method is tried again and the rest stays.
    methods["one_nan"] = lambda model, x, target: x
    methods["one_nan"].__qualname__ = "one_nan"
    sights.clear()
    again = roar(methods, (train, test), **options)
    assert set(again.errors) == {"crashes", "wrong_shape"}
    assert len(sights) == 2 * 2
    assert [c for c in again.cells if c.method == "edges"] == [c for c in table.cells if c.method == "edges"]


def test_a_training_that_fails_is_reported_in_its_cell(monkeypatch):
    outcomes = {False: 0.5, True: "training: the loss became nan"}
    monkeypatch.setattr(workers, "retrain", lambda task: [outcomes[network.mask_only] for network in task.networks])
    table = roar([], few_digits(), **QUICK, model=small_cnn())
    assert {cell.error for cell in table.cells if cell.method == "none"} == {""}
    assert {cell.error for cell in table.cells if cell.method != "none"} == {"training: the loss became nan"}
    assert "failed" in str(table)


# What is refused


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda data: roar("saliency", data), r"write \['saliency'\]"),
        (lambda data: roar(["salience"], data), "no method 'salience'; METHODS has saliency"),
        (lambda data: roar({"random": brightness}, data), "the name 'random' is taken"),
        (lambda data: roar([], data, "resnet"), "no network 'resnet'; there are small_cnn"),
        (lambda data: roar([], data, fractions=(0.5, 1.0)), "not all or none; got 1.0"),
        (lambda data: roar([], data, fractions=(0.0001,)), "some of the 784 pixels, not all or none; got 0.0001"),
        (lambda data: roar([], data, seeds=()), r"seeds must be different .* got \[\]"),
        (lambda data: roar([], data, fractions=(0.5, 0.5)), r"fractions must be different"),
        (lambda data: roar([], data, epoch=1), "training has no option 'epoch'; there are epochs, lr"),
        (lambda data: roar([], data, workers=Workers(processes=0)), "processes must be at least 1, got 0"),
        (lambda data: roar([], data, workers=Workers(together=0)), "together must be a number of cells from 1 on"),
        (lambda data: roar([], data, "digits_cnn", workers=Workers(together=2)), "module '7' is a dropout"),
        (
            lambda data: roar(["saliency"], data, lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 1))),
            r"logits \(N, K\) of two classes or more, here K = 10 .* it gives K = 1",
        ),
        (
            lambda data: roar([], data, lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 1), nn.Flatten(0))),
            r"the model must give logits of shape \(2, K\)",
        ),
        (
            lambda data: kar([], (data[0], Dataset(torch.rand(5, 1, 8, 8), data[1].labels[:5], ()))),
            "images of one shape",
        ),
        (lambda data: roar([], data[0][:1]), "the training part of dataset has no image; give two images or more"),
        (lambda data: roar([], (data[0], data[1][:0])), "the test part of dataset has no image"),
        (lambda data: roar([], (*data, data[0])), r"a Dataset or \(training part, test part\), got tuple"),
    ],
)
def test_bad_arguments_are_refused_by_name(call, message, sights):
    with pytest.raises(ValueError, match=message):
        call(few_digits())
    assert not sights


MODULES = ("images", "journal", "ranks", "roar_and_kar", "table", "training")


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_the_docstrings_run(name):
    found = doctest.testmod(importlib.import_module(f"interp_lab.evaluate.roar.{name}"))
    assert found.attempted > 0
    assert found.failed == 0
