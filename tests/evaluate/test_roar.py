"""ROAR and KAR: pixels replaced as said, networks really retrained, sweeps that survive being killed."""

import json
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.testing import assert_close

from interp_lab import METHODS, kar, roar, smoothgrad
from interp_lab.data import Dataset, digits
from interp_lab.evaluate.roar import Workers, edges, rank_pixels, training
from interp_lab.evaluate.roar.training import Network
from interp_lab.networks import small_cnn

QUICK = {"fractions": (0.2, 0.7), "seeds": (0, 1), "training": {"epochs": 2}, "progress": False}


def few_digits(dtype: torch.dtype = torch.float32) -> tuple[Dataset, Dataset]:
    train, test = digits("train")[:200], digits("test")[:100]
    return tuple(Dataset(part.images.to(dtype), part.labels, part.classes) for part in (train, test))


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


@pytest.mark.parametrize(("sweep", "chosen"), [(roar, [0, 1, 2]), (kar, [13, 14, 15])])
def test_exactly_the_pixels_of_the_fraction_are_replaced_by_the_training_mean(sweep, chosen, monkeypatch):
    seen: list[tuple[Dataset, Network]] = []
    look = training._seen
    monkeypatch.setattr(
        training,
        "_seen",
        lambda task, part, network: seen.append((look(task, part, network), network)) or seen[-1][0],
    )
    images = torch.rand(30, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    train, test = (Dataset(part, torch.arange(len(part)) % 2, ("a", "b")) for part in (images[:20], images[20:]))
    order = constant(*range(16, 0, -1))  # the first pixel is the most relevant
    sweep({"order": order}, (train, test), partial(small_cnn, 3, 4, 4, 2), fractions=(0.2,), seeds=(0,), training={"epochs": 1}, progress=False)  # fmt: skip
    assert len(seen) == 2 * (1 + 3 * 2)
    (whole, *_), (_, *_), (got_train, network), (got_test, _), (mask_train, alone), (mask_test, _) = seen[:6]
    assert_close(whole.images, train.images)
    assert (network.mask_only, alone.mask_only) == (False, True)
    mean = train.images.mean((0, 2, 3))[:, None]
    for data, got, mask in ((train, got_train, mask_train), (test, got_test, mask_test)):
        expected = data.images.flatten(2).clone()
        expected[:, :, chosen] = mean
        assert_close(got.images.flatten(2), expected)
        expected = torch.zeros_like(expected)
        expected[:, :, chosen] = 1
        assert_close(mask.images.flatten(2), expected)
        assert torch.equal(got.labels, data.labels)
    # The random baseline replaces as many, elsewhere in every image.
    random = torch.cat([data.images for data, network in seen[6:10] if network.mask_only]).flatten(2)
    assert (random.sum(2) == 3).all()
    assert (random[:, 0].sum(0) > 0).all()


NETWORKS = {
    "cnn": small_cnn,
    "batch norm": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10)
    ),
}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))])  # fmt: skip
@pytest.mark.parametrize("new", NETWORKS.values(), ids=NETWORKS)
def test_an_ensemble_trains_the_same_networks_as_one_by_one(new, device, seed, verdict):
    # In double precision, rounding changes no decision: the accuracies are equal.
    train, test = few_digits(torch.float64)
    options = QUICK | {"training": {"epochs": 2, "weight_decay": 0.1}, "seeds": (2 * seed, 2 * seed + 1)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_together", None)
        alone = roar(
            {"brightness": brightness},
            (train, test),
            lambda: new().double(),
            workers=Workers(device=device, together=1),
            **options,
        )
        patch.undo()
        patch.setattr(training, "_one_by_one", None)
        ensemble = roar(
            {"brightness": brightness},
            (train, test),
            lambda: new().double(),
            workers=Workers(device=device, together=4),
            **options,
        )
    for name in ("accuracy", "mask_only"):
        one, other = ([getattr(cell, name) for cell in table.cells] for table in (alone, ensemble))
        assert [value is None for value in one] == [value is None for value in other]
        differences = [abs(a - b) for a, b in zip(one, other, strict=True) if a is not None]
        verdict(f"largest difference of {name}", max(differences), below=1e-6)
    assert len({c.accuracy for c in alone.cells}) > 5


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
        options = {
            "fractions": (0.25, 0.75),
            "seeds": (seed,),
            "training": {"epochs": 10, "lr": 0.3},
            "progress": False,
        }
        table = roar(methods, (train, test), "softmax_regression", **options)
        accuracy = {(row.method, row.fraction): row.accuracy for row in table.summary()}
        # The inverse order removes the 12 that say nothing: what stays is learnt as by least squares, in closed form.
        retrained = least_squares(train, test, informative, informative)
        verdict(
            "informative pixels, less least squares", accuracy["inverse", 0.75] - retrained, above=-0.03, below=0.03
        )
        whole = accuracy["none", 0] - least_squares(train, test, everything, everything)
        verdict("all pixels, less least squares", whole, above=-0.03, below=0.03)
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
    options = {"fractions": (0.09,), "seeds": (2 * seed, 2 * seed + 1), "training": {"epochs": 20, "lr": 0.02}}
    scores = {row.method: row for row in roar(methods, (train, test), pooled_cnn, progress=False, **options).summary()}
    accuracy = {name: row.accuracy for name, row in scores.items()}
    verdict("accuracy of the whole", accuracy["none"], above=0.9)
    verdict("without the evidence", accuracy["oracle"], below=0.6)  # chance is 0.5
    others = min(value for name, value in accuracy.items() if name != "oracle")
    verdict("the oracle below all others", accuracy["oracle"] - others, below=0)
    verdict("integrated gradients below random", accuracy["integrated_gradients"] - accuracy["random"], below=-0.1)
    verdict("the opposite above random", accuracy["opposite"] - accuracy["random"], above=0)
    verdict("place of the patch", scores["oracle"].mask_only, below=0.65)  # must say nothing of the class
    del methods["integrated_gradients"]
    kept = {row.method: row.accuracy for row in kar(methods, (train, test), pooled_cnn, progress=False, **options | {"fractions": (0.91,)}).summary()}  # fmt: skip
    verdict("the evidence kept", kept["oracle"], above=0.9)
    verdict("above all others", kept["oracle"] - max(kept["random"], kept["edges"], kept["opposite"]), above=0.2)


def crashes(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    if (x.flatten(1)[:, 300] == 1.5).any():
        raise ZeroDivisionError("no such image")
    return x


def one_nan(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    return torch.where(x == 1.5, torch.nan, x)


def test_a_method_that_fails_is_reported_by_name_and_ends_nothing(tmp_path):
    train, test = few_digits()
    test.images[70].flatten()[300] = 1.5
    methods = {
        "crashes": crashes,
        "one_nan": one_nan,
        "wrong_shape": lambda model, x, target: x[:1],
        "brightness": brightness,
    }
    options = QUICK | {"fractions": (0.5,), "results": tmp_path / "results.jsonl"}
    table = roar(methods, (train, test), **options)
    assert table.errors == {
        "crashes": "ZeroDivisionError for test image 70: no such image",
        "one_nan": "gives NaN or infinite values for test image 70",
        "wrong_shape": "gives shape (1, 1, 28, 28) for images (200, 1, 28, 28)",
    }
    failed = [cell for cell in table.cells if cell.method in table.errors]
    assert len(failed) == 6
    assert all(cell.accuracy is cell.mask_only is None for cell in failed)
    assert all(cell.accuracy is not None for cell in table.cells if cell.method in ("brightness", "random", "edges"))
    assert "one_nan: gives NaN" in str(table)
    # Mended, the method is tried again and the rest stays.
    methods["one_nan"] = lambda model, x, target: x
    methods["one_nan"].__qualname__ = "one_nan"
    again = roar(methods, (train, test), **options)
    assert set(again.errors) == {"crashes", "wrong_shape"}
    assert [c for c in again.cells if c.method == "edges"] == [c for c in table.cells if c.method == "edges"]


@pytest.mark.parametrize("together", [1, 3])
def test_a_training_that_diverges_is_reported_in_its_cells(together):
    table = roar(
        [],
        few_digits(),
        **QUICK | {"training": {"epochs": 2, "lr": 1e30}},
        model=small_cnn(),
        workers=Workers(together=together),
    )
    assert all("training: the loss became nan" in cell.error for cell in table.cells)
    assert "failed" in str(table)


SCRIPT = """
import os, signal
from interp_lab import roar
from interp_lab.data import digits

written, sync = [], os.fsync

def killed_at_the_sixth_line(file):
    sync(file)
    written.append(file)
    if len(written) == 6:
        os.kill(os.getpid(), signal.SIGKILL)

os.fsync = killed_at_the_sixth_line
roar(["saliency"], (digits("train")[:200], digits("test")[:100]), fractions=(0.2, 0.7), seeds=(0, 1), training={{"epochs": 2}}, results={!r})
"""


def test_a_killed_sweep_resumes_and_ends_with_the_same_table(tmp_path):
    path = tmp_path / "killed.jsonl"
    process = subprocess.run([sys.executable, "-c", SCRIPT.format(str(path))], capture_output=True)
    assert process.returncode == -signal.SIGKILL
    left = path.read_bytes()
    whole = left[: left.rfind(b"\n") + 1]
    assert whole.count(b"\n") == 6
    path.write_bytes(left + b'{"method": "edg')  # a torn line
    with torch.random.fork_rng():
        torch.manual_seed(5)  # another random state than that of the killed process
        resumed = roar(["saliency"], few_digits(), **QUICK, results=path)
    assert path.read_bytes().startswith(whole)
    straight = roar(["saliency"], few_digits(), **QUICK, results=tmp_path / "straight.jsonl")
    assert resumed == straight
    assert sorted(path.read_text().splitlines()) == sorted((tmp_path / "straight.jsonl").read_text().splitlines())
    # A finished sweep trains nothing, and can be made larger.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_one_by_one", None)
        assert roar(["saliency"], few_digits(), **QUICK, results=path) == straight
    larger = roar(["saliency"], few_digits(), **QUICK | {"seeds": (1, 2)}, results=path)
    assert [c for c in larger.cells if c.seed == 1] == [c for c in straight.cells if c.seed == 1]


def test_a_file_of_another_sweep_is_refused_by_name(tmp_path):
    path, (train, test) = tmp_path / "results.jsonl", few_digits()
    options = QUICK | {"fractions": (0.5,), "seeds": (0,), "training": {"epochs": 1}, "results": path}
    roar({"mine": partial(smoothgrad, n=2)}, (train, test), **options)
    before = path.read_bytes()
    for call, message in (
        (lambda: kar([], (train, test), **options), "replaced 'most relevant', not 'least relevant'"),
        (lambda: roar([], (train, test), **options | {"training": {"epochs": 2}}), "epochs 1, not 2"),
        (lambda: roar([], (train[:190], test), **options), "training images '"),
        (lambda: roar([], (train, test[:90]), **options), "test images '"),
        (lambda: roar([], (train, test), "mlp", **options), "network '"),
        (lambda: roar([], (train, test), **options, model=small_cnn()), "explained model 'trained', not '"),
        (
            lambda: roar({"mine": partial(smoothgrad, n=3)}, (train, test), **options),
            r"'mine' is smoothgrad\(n=2\), here it is smoothgrad\(n=3\)",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert path.read_bytes() == before
    path.write_bytes(before.replace(b"{", b"(", 2))
    with pytest.raises(ValueError, match=r"line 1 of .* is no JSON"):
        roar([], (train, test), **options)


def test_every_executor_gives_the_same_table(tmp_path):
    alone = roar(["saliency"], few_digits(), **QUICK)
    with ThreadPoolExecutor(3) as threads:
        assert roar(["saliency"], few_digits(), **QUICK, workers=Workers(threads, in_flight=3)) == alone


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["processes", "dask"])
def test_two_workers_give_the_same_table(kind, tmp_path):
    new = lambda: nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(784, 10))  # noqa: E731  cannot be pickled
    alone = roar(["saliency"], few_digits(), new, **QUICK)
    path = tmp_path / "results.jsonl"
    if kind == "processes":
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            spread = roar(["saliency"], few_digits(), new, **QUICK, workers=Workers(pool), results=path)
    else:
        distributed = pytest.importorskip("distributed")
        with (
            distributed.LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster,
            distributed.Client(cluster) as client,
        ):
            spread = roar(
                ["saliency"], few_digits(), new, **QUICK, workers=Workers(client.get_executor()), results=path
            )
    assert spread == alone
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 1 + len(alone.cells)


def test_one_data_set_is_split_by_class():
    data = digits("all")[:300]
    table = roar([], data, **QUICK | {"seeds": (0,)})
    assert table.cells[0].accuracy * 100 == pytest.approx(round(table.cells[0].accuracy * 100), abs=1e-4)  # of 100


def test_the_summary_is_mean_and_standard_deviation_over_the_seeds():
    table = roar([], few_digits(), **QUICK | {"seeds": (0, 1, 2)})
    row = next(row for row in table.summary() if (row.method, row.fraction) == ("edges", 0.7))
    cells = [c for c in table.cells if (c.method, c.fraction) == ("edges", 0.7)]
    assert (row.seeds, row.accuracy) == (3, pytest.approx(np.mean([c.accuracy for c in cells])))
    assert row.spread == pytest.approx(np.std([c.accuracy for c in cells], ddof=1))
    assert row.mask_only == pytest.approx(np.mean([c.mask_only for c in cells]))
    assert f"{100 * row.accuracy:.1f}" in str(table)


def test_the_explained_network_and_the_random_state_stay_as_they_were():
    model, state = small_cnn().train(), torch.get_rng_state()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    roar(["saliency"], few_digits(), **QUICK | {"fractions": (0.5,), "seeds": (0,)}, model=model)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


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
        (lambda data: roar([], data, training={"epoch": 1}), "training has no option 'epoch'; there are epochs, lr"),
        (
            lambda data: roar([], (data[0], Dataset(torch.rand(5, 1, 8, 8), data[1].labels[:5], ()))),
            "images of one shape",
        ),
    ],
)
def test_bad_arguments_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call(few_digits())


SHARED = Path(__file__).parents[2] / ".." / "shared" / "data" / "torchvision-data"


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder shared/ is not beside the checkout")
def test_a_signed_map_on_mnist_tells_the_class_by_its_mask_alone(seed, verdict):
    train, test = (digits(split, source="mnist", root=SHARED)[:2000] for split in ("train", "test"))
    table = roar(["saliency"], (train, test), fractions=(0.1,), seeds=(seed,), progress=False)
    rows = {row.method: row for row in table.summary()}
    verdict("masks of a random order", rows["random"].mask_only, below=0.15)
    verdict("masks of saliency", rows["saliency"].mask_only, above=0.8)


def test_the_images_of_a_sweep_are_uploaded_once_and_go_with_it():
    images = np.zeros((2, 1, 3, 3), dtype=np.float32)
    first = training._uploaded(images, "meta")
    assert first.device.type == "meta"
    assert training._uploaded(images, "meta") is first
    assert training._uploaded(images.copy(), "meta") is not first
    here = training._uploaded(images, "cpu")
    here += 1
    assert images.min() == 1  # a processor needs no copy
    del images, here
    assert not training._UPLOADED
