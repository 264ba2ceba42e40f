"""Influence: the solvers side by side, beside dattri on the same problem, and at 60,000 x 100.

The first table is softmax regression on digits of 8 x 8 (650 parameters) at its minimum, so that the exact answer is
known; time is processor time on one thread, since it hardly depends on who else computes. The last rows are the two settings of the
target: the last layer of the book's digits network, and two dense layers on the same convolutions, against 60,000 x
100 images, each in a process of its own; peak memory is what the call adds to that process.

    python -m benchmarks.influence [--train 1200] [--test 10] [--threads 2]
"""

import argparse
import os
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, suppress
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from interp_lab import influence, networks
from interp_lab.data import digits

WEIGHT_DECAY = 0.01


def problem(n: int, n_test: int) -> tuple[nn.Module, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Softmax regression at its minimum, training digits, and the test digits of largest loss."""
    data, generator = load_digits(), torch.Generator().manual_seed(0)
    order = torch.randperm(len(data.target), generator=generator)
    x, y = torch.from_numpy(data.images / 16)[order, None], torch.from_numpy(data.target).long()[order]
    model = networks.softmax_regression(64).double()
    optimizer = torch.optim.LBFGS(
        model.parameters(), 1, 5000, tolerance_grad=1e-10, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x[:n]), y[:n])
        loss = loss + WEIGHT_DECAY / 2 * sum((p**2).sum() for p in model.parameters())
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        hard = F.cross_entropy(model(x[n:]), y[n:], reduction="none").topk(n_test).indices
    return model.eval(), (x[:n], y[:n]), (x[n:][hard], y[n:][hard])


def dattri_call(solver: str, model: nn.Module, train: tuple, test: tuple) -> Callable[[], Tensor]:
    """dattri's influence, brought to ours: its matrix is (n_train, n_test) and lacks 1/n."""
    from dattri.algorithm import influence_function
    from dattri.task import AttributionTask
    from torch.utils.data import DataLoader, TensorDataset

    def loss(params: dict[str, Tensor], data: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(functional_call(model, params, (data[0],)), data[1])

    def call() -> Tensor:
        # All rows in one batch: dattri adds up the solutions of its batches, each with that batch's own Hessian.
        loaders = [DataLoader(TensorDataset(*pair), batch_size=len(pair[0])) for pair in (train, test)]
        task = AttributionTask(loss, model, {name: p.detach() for name, p in model.named_parameters()})
        options = {"max_iter": 200, "tol": 1e-6, "mode": "rev-fwd"} if solver == "CG" else {}
        kind = getattr(influence_function, f"IFAttributor{solver}")
        attributor = kind(task, regularization=WEIGHT_DECAY, **options)
        with redirect_stderr(StringIO()):  # its progress bars
            attributor.cache(loaders[0])
            return attributor.attribute(*loaders).detach().T / len(train[0])

    return call


def agreement(result: Tensor, exact: Tensor) -> str:
    result = result.to(exact)
    pairs = zip(result, exact, strict=True)
    r = min(float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs)
    error = float((result - exact).norm() / exact.norm())
    return f"{r:12.4f}{float((result * exact).sum() / (exact**2).sum()):8.3f}{error:12.1e}"


def table(n: int = 1200, n_test: int = 10) -> None:
    """Time and agreement of the solvers, and of dattri where it is installed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the problem is too small for a second one
    model, train, test = problem(n, n_test)
    calls: dict[str, Callable[[], Tensor]] = {
        f"ours, {solver}": lambda solver=solver: influence(model, train, test, weight_decay=WEIGHT_DECAY, solver=solver)
        for solver in ("exact", "cg", "lissa", "kfac", "ekfac")
    }
    try:
        calls |= {
            f"dattri {version('dattri')}, {name}": dattri_call(name, model, train, test) for name in ("Explicit", "CG")
        }
    except ModuleNotFoundError:
        print("dattri is not installed (pip install dattri): its rows are missing")
    print(f"\nsoftmax regression on digits: {n} x {n_test} influences, weight decay {WEIGHT_DECAY}")
    print(f"{'solver':24}{'CPU s':>8}{'smallest r':>12}{'slope':>8}{'error':>12}")
    exact = calls["ours, exact"]()  # also warms up
    for name, call in calls.items():
        start = time.process_time()
        result = call()
        print(f"{name:24}{time.process_time() - start:8.2f}{agreement(result, exact)}", flush=True)
    torch.set_num_threads(threads)


def many(layers: str) -> None:
    """60,000 x 100 influences of the last layers of a CNN on digits of 28 x 28; without MNIST, on random pixels."""
    if os.environ.get("INTERP_LAB_DATA"):
        train, test = (digits(split, source="mnist") for split in ("train", "test"))
        pairs = (train.images, train.labels), (test.images[:100], test.labels[:100])
    else:
        pairs = tuple((torch.rand(count, 1, 28, 28), torch.arange(count) % 10) for count in (60_000, 100))
    torch.manual_seed(0)
    model, names = networks.digits_cnn(), ["8"]
    if layers == "two":
        model, names = nn.Sequential(*model[:7], nn.Linear(32 * 7 * 7, 64), nn.ReLU(), nn.Linear(64, 10)), ["7", "9"]
    count = sum(p.numel() for name in names for p in model.get_submodule(name).parameters())
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # on Linux: forget the peak of loading the data
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    result = influence(model, *pairs, weight_decay=WEIGHT_DECAY, damping=WEIGHT_DECAY, solver="kfac", parameters=names)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert result.shape == (100, 60_000)
    print(f"{layers:>4} last ({count:>7,} parameters){wall:10.1f}{cpu:10.1f}{added:14.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=1200)
    parser.add_argument("--test", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--many", choices=("one", "two"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", message="the model is not at a minimum")
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # of torch.jit, inside torch
    if options.many:
        many(options.many)
        return
    table(options.train, options.test)
    print(f"\n60,000 x 100, solver kfac, {options.threads} threads")
    print(f"{'':28}{'wall s':>10}{'CPU s':>10}{'added MB':>14}", flush=True)
    for layers in ("one", "two"):
        command = [sys.executable, "-m", "benchmarks.influence", "--threads", str(options.threads), "--many", layers]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
