"""Is the model expressive enough? Accuracy against complexity of the models that are interpretable by design.

Every model is fitted from nothing on digits and on scenes, once per seed: another third of the digits is held out,
other scenes are drawn, other initial weights. The table gives mean and standard deviation over the seeds, the size of
what a reader has to read (in the last seed), and how many pixels one term of the explanation looks at.

    python -m benchmarks.expressiveness [--seeds 3] [--scenes 4000] [--threads 2]
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interp_lab import networks
from interp_lab.antehoc import (
    BagOfLocalFeatures,
    additive_model,
    decision_tree,
    prototype_network,
    sparse_softmax,
)
from interp_lab.backprop.receptive_field import receptive_field
from interp_lab.data import Dataset, digits, scenes

Row = tuple[str, Callable[[Dataset, int], tuple[Callable[[Tensor], Tensor], str, str]]]


def parameters(model: nn.Module) -> str:
    return f"{sum(p.numel() for p in model.parameters()):,} parameters"


def tabular(size: int, l1: float) -> list[Row]:
    """The models that read mean colours of size x size cells."""

    def cells(x: Tensor) -> Tensor:
        return F.interpolate(x, size=(size, size), mode="area")

    def linear(data: Dataset, seed: int, l1: float):
        model = sparse_softmax(data.images, data.labels, l1=l1, features=cells)
        return model, f"{model.nonzeros} weights", cell

    def tree(data: Dataset, seed: int, depth: int | None):
        model = decision_tree(data.images, data.labels, depth=depth, features=cells, seed=seed)
        return model, f"{model.leaves} leaves", f"{model.tree.get_depth()} tests"

    def additive(data: Dataset, seed: int):
        model = additive_model(data.images, data.labels, features=cells, l2=3e-3)
        return model, f"{int((model.importance > 0).sum())} curves", cell

    cell = f"1 of {size} x {size} cells"
    rows: list[Row] = [
        (f"softmax regression, L1 {l1:g}", lambda data, seed, l1=l1: linear(data, seed, l1))
        for l1 in (10 * l1, l1, 0.0)
    ]
    rows += [(f"tree, depth {d or 'free'}", lambda data, seed, d=d: tree(data, seed, d)) for d in (3, 5, 8, None)]
    return [*rows, ("additive model", additive)]


def convolutional(
    build: Callable[[], nn.Sequential], cuts: dict[int, int], last: int, *, epochs: int, lr: float, bag_lr: float
) -> list[Row]:
    """Bags of local features over the first layers of a CNN, ``cuts``: layers -> channels; the CNN; prototypes on it."""
    trained: dict[int, nn.Sequential] = {}

    def sees(body: nn.Module, data: Dataset) -> str:
        field, _ = receptive_field(body, body, data.images[:1])
        return f"{field.size} x {field.size} pixels"

    def bag(data: Dataset, seed: int, cut: int):
        model = BagOfLocalFeatures(build()[:cut], cuts[cut], len(data.classes))
        networks.train(model, data, epochs=epochs, lr=bag_lr, seed=seed, progress=False)
        return model, parameters(model), sees(model.body, data)

    def cnn(data: Dataset, seed: int):
        model = trained[seed] = build()
        networks.train(model, data, epochs=epochs, lr=lr, seed=seed, progress=False)
        return model, parameters(model), "the image"

    def prototypes(data: Dataset, seed: int):
        body = trained[seed][:last]  # as in the paper, the body starts from a trained network
        model = prototype_network(data.images, data.labels, body, epochs=epochs, lr=lr, seed=seed)
        return model, f"{len(model.classes)} prototypes", sees(model.body, data)

    rows: list[Row] = [(f"bag over {cut} layers", lambda data, seed, cut=cut: bag(data, seed, cut)) for cut in cuts]
    return [*rows, ("CNN", cnn), ("prototypes on the CNN", prototypes)]


def split_digits(seed: int) -> tuple[Dataset, Dataset]:
    data = digits("all")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    return data[order[len(data) // 3 :]], data[order[: len(data) // 3]]


def measure(name: str, rows: list[Row], data: list[tuple[Dataset, Dataset]]) -> None:
    print(f"\n{name}: {len(data[0][0])} to fit, {len(data[0][1])} held out, {len(data)} seeds")
    print(f"{'model':28}{'accuracy':>18}   {'size':22}{'one term sees':20}{'s per fit':>9}")
    for title, fit in rows:
        accuracies, start = [], time.perf_counter()
        for seed, (train, test) in enumerate(data):
            torch.manual_seed(seed)
            model, size, sees = fit(train, seed)
            with torch.no_grad():
                labels = torch.cat([model(x).argmax(1) for x in test.images.split(256)])
            accuracies.append((labels == test.labels).double().mean().item())
        seconds = (time.perf_counter() - start) / len(data)
        spread = statistics.stdev(accuracies) if len(data) > 1 else float("nan")
        mean = statistics.mean(accuracies)
        print(f"{title:28}{mean:>9.3f} +- {spread:.3f}   {size:22}{sees:20}{seconds:>9.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scenes", type=int, default=4000, help="scenes to fit; half as many are held out")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", message="sparse_softmax is not yet")  # the row without penalty, on scenes
    start, seeds, n = time.perf_counter(), range(options.seeds), options.scenes

    rows = tabular(8, 0.002) + convolutional(networks.digits_cnn, {3: 16, 6: 32}, 6, epochs=15, lr=3e-3, bag_lr=3e-2)
    measure("digits", rows, [split_digits(seed) for seed in seeds])

    drawn = [scenes(n + n // 2, seed=100 + seed) for seed in seeds]
    rows = tabular(16, 0.002) + convolutional(
        networks.scenes_cnn, {6: 32, 9: 48, 12: 64}, 15, epochs=12, lr=5e-3, bag_lr=5e-3
    )
    measure("scenes", rows, [(data[:n], data[n:]) for data in drawn])
    print(f"\n{time.perf_counter() - start:.0f} s in all, {options.threads} threads")


if __name__ == "__main__":
    main()
