"""The sweeps of ROAR at scale: data in files, any executor, trainings together or one by one, going on after a kill."""

import hashlib
import json
import pickle
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed, nn
from torch.multiprocessing import spawn
from torch.testing import assert_close

from interp_lab import kar, networks, reproducible, roar, smoothgrad
from interp_lab.data import Dataset, digits
from interp_lab.evaluate.roar import Workers, images, roar_and_kar, training, workers
from interp_lab.evaluate.roar.images import mapped, mean_colour, store, uploaded
from interp_lab.evaluate.roar.ranks import among, orders, replaced_places
from interp_lab.evaluate.roar.starts import start
from interp_lab.evaluate.roar.training import Network, Task, retrain, seen
from interp_lab.networks import mlp, small_cnn, train

QUICK = {"fractions": (0.2, 0.7), "seeds": (0, 1), "epochs": 1, "progress": False}


def few_digits(train: int = 40, test: int = 20) -> tuple[Dataset, Dataset]:
    return digits("train")[:train], digits("test")[:test]


@pytest.fixture
def tasks(monkeypatch):
    """The tasks of a sweep, none of which is trained; every network gets a number that its seed and places decide."""
    found: list[Task] = []

    def keep(task: Task) -> list[float]:
        found.append(task)
        return [(n.seed + n.places.stop + n.mask_only) / 1000 for n in task.networks]

    monkeypatch.setattr(workers, "retrain", keep)
    return found


# The data lie in files


class Bytes(torch.utils.data.Dataset):
    """A torch data set of (image of bytes, label) that counts what is read."""

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        self.pixels, self.labels, self.read = pixels, labels, []

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        self.read.append(row)
        return self.pixels[row], int(self.labels[row])


def bytes_and_floats() -> list[tuple[Bytes, Dataset]]:
    """Two parts of 300 and 20 images, each as bytes and as the same numbers in [0, 1]."""
    parts = []
    for part in few_digits(300):
        pixels = (255 * part.images).byte()
        parts.append((Bytes(pixels, part.labels), Dataset(pixels.float() / 255, part.labels, part.classes)))
    return parts


@pytest.mark.parametrize("network", ["small_cnn", "digits_cnn"])
def test_a_task_takes_kilobytes_however_many_images_there_are(network, tasks):
    sizes = []
    for count in (40, 1000):
        roar(["saliency"], few_digits(count), network, **QUICK, model=small_cnn())
        sizes.append({len(pickle.dumps(task)) for task in tasks})
        tasks.clear()
    weights = {"small_cnn": 34_000, "digits_cnn": 115_000}[network]  # bytes of the start, which the task carries
    assert max(sizes[1]) < weights + 8_000
    assert max(sizes[1]) - max(sizes[0]) < 20


def test_a_data_set_of_bytes_larger_than_the_memory_is_seen_as_its_numbers_between_0_and_1(monkeypatch):
    (train, same_train), (test, same_test) = bytes_and_floats()
    found: list[Tensor] = []

    def look(task: Task) -> list[float]:
        for network in task.networks:
            for part in (0, 1):
                examples = seen(task, part, network)
                found.extend([torch.cat(list(examples.images.split(100))), examples.labels.clone()])
        return [0.5] * len(task.networks)

    monkeypatch.setattr(workers, "retrain", look)
    roar(["saliency"], (train, test), **QUICK)
    as_bytes = list(found)
    found.clear()
    roar(["saliency"], (same_train, same_test), **QUICK)
    assert as_bytes[0].dtype == torch.float32
    for one, other in zip(as_bytes, found, strict=True):
        assert_close(one, other)
    for data in (train, test):  # the first once more, for its shape
        assert sorted(data.read) == sorted([*range(len(data)), *(0 for _ in range(len(data.read) - len(data)))])
        assert len(data.read) <= len(data) + 2


def test_the_mean_colour_is_that_of_all_images(tmp_path):
    pixels = torch.randint(0, 256, (700, 3, 5, 4), generator=torch.Generator().manual_seed(0)).byte()
    data = Bytes(pixels, torch.zeros(700, dtype=torch.long))
    expected = (pixels.double() / 255).mean((0, 2, 3)).float()
    assert_close(mean_colour(data, store(data, tmp_path, "training")), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
def test_files_hold_what_was_stored_and_cannot_be_changed(dtype, tmp_path):
    pixels = torch.randint(0, 256, (600, 2, 3, 4), generator=torch.Generator().manual_seed(0)).to(dtype)
    labels = torch.arange(600) % 3
    data = Bytes(pixels, labels) if dtype == torch.uint8 else Dataset(pixels, labels, ())
    got, kept = store(data, tmp_path, "training").load()
    assert_close((got, kept), (pixels, labels), rtol=0, atol=0)
    rows = torch.tensor([3, 1])
    batch = images.batch(got, rows)
    batch += 1  # memory of its own
    assert torch.equal(got, pixels)
    assert_close(images.batch(got, rows), pixels[rows].float() / 255 if dtype == torch.uint8 else pixels[rows])


@pytest.mark.parametrize("size", [(3, 5), (200, 190), (256, 256)], ids=str)  # int16, int16 above 2**15, int32
def test_the_files_of_ranks_hold_every_place(size, tmp_path):
    pixels = size[0] * size[1]
    generator = torch.Generator().manual_seed(0)
    data = [Dataset(torch.rand(n, 1, *size, generator=generator), torch.zeros(n, dtype=torch.long), ()) for n in (3, 2)]
    parts = tuple(store(part, tmp_path, name) for part, name in zip(data, ("training", "test"), strict=True))
    model = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 2))
    files = orders({"bright": lambda model, x, target: x}, lambda: model, parts, tmp_path, "bright")
    for part, file in zip(data, files, strict=True):
        ranks = mapped(file)
        assert ranks.dtype == (torch.int32 if pixels == 2**16 else torch.int16)
        for fraction in (0.0, 1 / pixels, 0.4, 1.0):
            count = round(fraction * pixels)
            for end, largest in (("most relevant", True), ("least relevant", False)):
                mask = among(ranks, replaced_places(fraction, pixels, end)).flatten(1)
                chosen = part.images.flatten(1).topk(count, largest=largest).indices
                assert torch.equal(mask, torch.zeros_like(mask).scatter(1, chosen, True))


def test_the_files_are_deleted_whatever_happens(tasks, tmp_path):
    sweep = partial(roar, [], few_digits(), **QUICK, model=small_cnn(), workers=Workers(folder=tmp_path))
    sweep()
    assert all(task.parts[0].images.is_relative_to(tmp_path) for task in tasks)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="logits"):
        roar([], few_digits(), lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 1)), workers=Workers(folder=tmp_path))
    assert not list(tmp_path.iterdir())


def task_of(data: tuple[Dataset, Dataset], folder: Path, **options) -> Task:
    """A task of no networks yet, with the ranks of the brightest pixels."""
    parts = store(data[0], folder, "training"), store(data[1], folder, "test")
    ranks = orders({"bright": lambda model, x, target: x}, lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).to(data[0].images.dtype), parts, folder, "bright")  # fmt: skip
    recipe = training.training_options(options)
    return Task(parts, [None, ranks], mean_colour(data[0], parts[0]).numpy(), [], False, recipe, "cpu")


def test_a_worker_without_the_files_or_with_others_says_so(tmp_path):
    task = task_of(few_digits(), tmp_path)
    task.networks = [Network(small_cnn(), 0, 0, range(0), False)]
    with open(task.parts[1].images, "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x3f")
    images._verify.cache_clear()  # as in a new process
    with pytest.raises(ValueError, match=r"test\.npy holds other images than those of the sweep"):
        retrain(task)
    task.parts[0].images.unlink()
    with pytest.raises(FileNotFoundError, match="give Workers a folder that all workers see"):
        retrain(task)


def test_images_without_a_common_shape_are_refused_by_their_row(tmp_path):
    pixels = list(torch.zeros(5, 1, 8, 8, dtype=torch.uint8))
    pixels[3] = pixels[3][:, :4]
    ragged = Bytes(pixels, torch.zeros(5))
    with pytest.raises(ValueError, match=r"training images need one shape .* image 3 is torch.uint8 \(1, 4, 8\)"):
        roar([], (ragged, ragged))
    pictures = Bytes([Image.new("L", (8, 8))], torch.zeros(1))
    with pytest.raises(ValueError, match=r"tensors \(C, H, W\) of uint8 or float, got Image; .*PILToTensor\(\)"):
        roar([], (pictures, pictures))


def test_the_images_of_a_sweep_are_uploaded_once_and_go_with_it(tmp_path, monkeypatch):
    part = store(few_digits()[0], tmp_path, "training")
    pixels, labels = part.load("meta")
    assert (pixels.device.type, labels.device.type) == ("meta", "meta")
    assert part.load("meta")[0] is pixels
    monkeypatch.setattr(images, "RESIDENT", 1000)  # too large for the device: each batch travels on its own
    assert part.load("meta")[0].device.type == "cpu"
    with Workers(folder=tmp_path).files():
        assert uploaded.cache_info().currsize == 2
    assert uploaded.cache_info().currsize == 0


def test_on_a_gpu_small_data_are_trained_together(tmp_path, monkeypatch):
    part = store(few_digits()[0], tmp_path, "training")
    assert Workers().group(small_cnn(), part) == 1
    assert Workers(device="cuda").group(small_cnn(), part) == 64
    assert Workers(device="cuda").group(nn.Dropout(), part) == 1
    monkeypatch.setattr(workers, "RESIDENT", 1000)
    assert Workers(device="cuda").group(small_cnn(), part) == 1


# Trainings, one by one and together


NETWORKS = {
    "cnn": small_cnn,
    "batch norm": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10)
    ),
}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))])  # fmt: skip
@pytest.mark.parametrize("recipe", [{"epochs": 2, "batch_size": 16}, {"epochs": 5, "batch_size": 100}], ids=["2", "5 steps"])  # fmt: skip
@pytest.mark.parametrize("new", NETWORKS.values(), ids=NETWORKS)
def test_an_ensemble_trains_the_same_networks_as_one_by_one(new, recipe, device, seed, verdict, tmp_path):
    # In double precision, rounding changes no decision: the accuracies are equal.
    data = tuple(Dataset(part.images.double(), part.labels, part.classes) for part in few_digits(100, 100))
    task = task_of(data, tmp_path, weight_decay=0.1, **recipe)
    task.device = device
    starts = {s: start(lambda: new().double(), s) for s in (2 * seed, 2 * seed + 1)}
    kinds = [(0, range(0), False)] + [(1, places, alone) for places in (range(150), range(400, 784)) for alone in (False, True)]  # fmt: skip
    task.networks = [Network(starts[s], s, *kind) for s in starts for kind in kinds]
    state = torch.get_rng_state()
    alone = retrain(task)
    task.together = True
    ensemble = retrain(task)
    assert torch.equal(torch.get_rng_state(), state)
    verdict("largest difference", max(abs(a - b) for a, b in zip(alone, ensemble, strict=True)), below=1e-6)
    assert len(set(alone)) > 4


@pytest.mark.parametrize("together", [False, True])
def test_a_training_that_diverges_is_reported(together, tmp_path):
    task = task_of(few_digits(), tmp_path, epochs=2, lr=1e30)
    task.networks, task.together = [Network(small_cnn(), 0, 1, range(300), alone) for alone in (False, True)], together
    assert all("training: the loss became nan" in error for error in retrain(task))


# Executors


def test_every_executor_gives_the_same_table():
    alone = roar(["saliency"], few_digits(), "mlp", **QUICK)
    with ThreadPoolExecutor(3) as threads:
        spread = roar(["saliency"], few_digits(), "mlp", **QUICK, workers=Workers(threads, in_flight=3))
    assert spread == alone
    assert len({cell.accuracy for cell in alone.cells}) > 3


def test_the_explained_network_is_drawn_while_no_thread_trains(tasks, monkeypatch):
    """All threads of a process share one random state, which a training sets and gives back."""
    alone = []

    def spied(new, seed: int) -> nn.Module:
        alone.append(reproducible._ALONE.locked())
        return start(new, seed)

    monkeypatch.setattr(roar_and_kar, "start", spied)
    roar(["saliency"], few_digits(), "mlp", **QUICK)
    assert alone == [False, False, False, True]  # one for each seed and one for the header, before any training


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["processes", "dask"])
def test_two_workers_give_the_same_table(kind, tmp_path):
    new = lambda: nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(784, 10))  # noqa: E731  cannot be pickled
    data, path = few_digits(200, 100), tmp_path / "results.jsonl"
    alone = roar(["saliency"], data, new, **QUICK)
    if kind == "processes":
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            spread = roar(["saliency"], data, new, **QUICK, workers=Workers(pool), results=path)
    else:
        dask = pytest.importorskip("distributed")
        with (
            dask.LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster,
            dask.Client(cluster) as client,
        ):
            spread = roar(["saliency"], data, new, **QUICK, workers=Workers(client.get_executor()), results=path)
    assert spread == alone
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 1 + len(alone.cells)


@pytest.mark.slow
def test_jobs_of_submitit_give_the_same_table(tmp_path):
    submitit = pytest.importorskip("submitit")
    executor = submitit.AutoExecutor(tmp_path / "logs", cluster="local")  # the jobs of "slurm", on this machine
    executor.update_parameters(timeout_min=10)
    sweep = partial(roar, [], few_digits(), "mlp", **QUICK | {"seeds": (0,)})
    alone = sweep(workers=Workers(together=3))  # five cells, two jobs
    assert sweep(workers=Workers(executor, together=3, in_flight=2, folder=tmp_path)) == alone
    assert len(list(tmp_path.glob("logs/*_result.pkl"))) == 2


@pytest.mark.slow
def test_two_processes_that_share_a_training_find_the_weights_of_one(tmp_path):
    spawn(trained_by_two, (tmp_path,), nprocs=2)
    for rank in (0, 1):  # 53 images in batches of 16: the last one is shared as 3 and 2
        assert_close(load_file(tmp_path / f"{rank}.safetensors"), trained_alone(), atol=1e-12, rtol=0)


def trained_alone() -> dict[str, Tensor]:
    part, model = digits("train")[:53], start(lambda: mlp().double(), 0)
    train(model, replace(part, images=part.images.double()), epochs=2, batch_size=16, progress=False)
    return model.state_dict()


def trained_by_two(rank: int, folder: Path) -> None:
    distributed.init_process_group("gloo", init_method=(folder / "group").as_uri(), rank=rank, world_size=2)
    save_file(trained_alone(), folder / f"{rank}.safetensors")


@pytest.mark.exhaustive
def test_cells_that_several_processes_train_give_the_same_table():
    sweep = partial(roar, [], few_digits(), "mlp", **QUICK | {"fractions": (0.7,), "seeds": (0,)})
    alone, shared = sweep(), sweep(workers=Workers(processes=2))
    assert [(cell.method, cell.mask_only) for cell in shared.cells] == [
        (cell.method, cell.mask_only) for cell in alone.cells
    ]
    assert_close([cell.accuracy for cell in shared.cells], [cell.accuracy for cell in alone.cells], atol=0.05, rtol=0)


def test_batches_too_small_for_the_processes_are_refused(monkeypatch):
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 4)
    monkeypatch.setattr(networks, "DistributedDataParallel", lambda model: model)
    with pytest.raises(ValueError, match="4 processes cannot share a batch of fewer images: change batch_size, now 37"):
        train(mlp(), digits("train")[:40], batch_size=37, progress=False)


# The results file


SCRIPT = """
import os, signal
from interp_lab import roar
from interp_lab.data import digits
from interp_lab.evaluate.roar import workers

written, sync = [], os.fsync

def killed_at_the_sixth_line(file):
    sync(file)
    written.append(file)
    if len(written) == 6:
        os.kill(os.getpid(), signal.SIGKILL)

os.fsync = killed_at_the_sixth_line
workers.retrain = lambda task: [(n.seed + n.places.stop + n.mask_only) / 1000 for n in task.networks]
parts = digits("train")[:40], digits("test")[:20]
roar(["saliency"], parts, fractions=(0.2, 0.7), seeds=(0, 1), epochs=1, results={!r})
"""


def test_a_killed_sweep_resumes_and_ends_with_the_same_table(tasks, tmp_path):
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
    assert len(tasks) == len(resumed.cells) - 5
    assert path.read_bytes().startswith(whole)
    straight = roar(["saliency"], few_digits(), **QUICK, results=tmp_path / "straight.jsonl")
    assert resumed == straight
    assert sorted(path.read_text().splitlines()) == sorted((tmp_path / "straight.jsonl").read_text().splitlines())
    # A finished sweep trains nothing, and can be made larger.
    tasks.clear()
    assert roar(["saliency"], few_digits(), **QUICK, results=path) == straight
    assert not tasks
    larger = roar(["saliency"], few_digits(), **QUICK | {"seeds": (1, 2)}, results=path)
    assert {network.seed for task in tasks for network in task.networks} == {2}
    assert [c for c in larger.cells if c.seed == 1] == [c for c in straight.cells if c.seed == 1]


def test_an_interrupted_sweep_cuts_the_same_ensembles_when_it_resumes(tasks, tmp_path):
    sweep = partial(roar, ["saliency"], few_digits(), **QUICK, model=small_cnn(), workers=Workers(together=3))
    table, cut = sweep(), [[n.places for n in task.networks] for task in tasks]
    path = tmp_path / "results.jsonl"
    sweep(results=path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:6]))  # the header and 5 of 14 cells: the second ensemble is half finished
    tasks.clear()
    assert sweep(results=path) == table
    assert [[n.places for n in task.networks] for task in tasks] == cut[1:]


def test_a_file_of_another_sweep_is_refused_by_name(tasks, tmp_path):
    path, (train, test) = tmp_path / "results.jsonl", few_digits()
    options = QUICK | {"fractions": (0.5,), "seeds": (0,), "results": path}
    roar({"mine": partial(smoothgrad, n=2)}, (train, test), **options)
    before = path.read_bytes()
    for call, message in (
        (lambda: kar([], (train, test), **options), "replaced 'most relevant', not 'least relevant'"),
        (lambda: roar([], (train, test), **options | {"epochs": 2}), "epochs 1, not 2"),
        (lambda: roar([], (train[:30], test), **options), "training images '"),
        (lambda: roar([], (train, test[:10]), **options), "test images '"),
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


def test_the_header_names_the_data_by_the_hash_of_their_numbers(tasks, tmp_path):
    data, path = few_digits(), tmp_path / "results.jsonl"
    roar([], data, **QUICK, results=path)
    header = json.loads(path.read_text().splitlines()[0])
    for part, name in zip(data, ("training images", "test images"), strict=True):
        total = hashlib.sha256()
        for tensor in (part.images, part.labels):
            total.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
        assert header[name] == total.hexdigest()[:16]
    recipe = {"epochs": 1, "lr": 0.01, "batch_size": 64, "weight_decay": 0.0}
    assert header.items() >= ({"replaced": "most relevant", "explained model": "trained"} | recipe).items()
