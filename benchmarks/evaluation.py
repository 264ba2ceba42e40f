"""Evaluation at scale: networks retrained together or one by one; then selectivity beside Quantus, and influence.

The retraining trains the same networks on digits with a random half of the pixels replaced, once one by one and once as
ensembles of 1, 2, 4 ... networks. Every row trains as many networks, and the ways take turns in every round, so
that a drift of the machine hits all alike; printed is the median time per network (of the processor on the CPU, of the
clock on a GPU), its ratio to one by one, and the largest difference of the test accuracies.

    python -m benchmarks.evaluation [--rounds 3] [--networks 16] [--threads 1] [--device cuda]
"""

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from interp_lab import networks
from interp_lab.data import digits
from interp_lab.evaluate.roar.images import mean_colour, store
from interp_lab.evaluate.roar.ranks import SHIFT, rank_pixels
from interp_lab.evaluate.roar.training import Network, Task, Training, retrain

from . import influence, selectivity


def sweep(folder: Path, device: str) -> Task:
    """The digits and two random orders of their pixels, in files."""
    data, generator = (digits("train"), digits("test")), torch.Generator().manual_seed(0)
    parts = tuple(store(part, folder, name) for part, name in zip(data, ("training", "test"), strict=True))
    ranks = [tuple(folder / f"{order}-{part}.npy" for part in (0, 1)) for order in (0, 1)]
    for files in ranks:
        for file, part in zip(files, data, strict=True):
            np.save(file, (rank_pixels(0 * part.images, generator) - SHIFT).short().numpy())
    return Task(parts, ranks, mean_colour(data[0], parts[0]).numpy(), [], False, Training(epochs=2), device)


def tasks(whole: Task, new, count: int, together: int) -> list[Task]:
    """``count`` networks on images without a half of their pixels, in tasks of ``together``; 0 is one by one."""
    torch.manual_seed(0)
    all_of_them = [Network(new(), seed, seed % 2, range(392), seed % 4 >= 2) for seed in range(count)]
    size = together or count
    return [replace(whole, networks=all_of_them[i : i + size], together=together > 0) for i in range(0, count, size)]


def table(folder: Path, rounds: int = 3, count: int = 16, device: str = "cpu") -> None:
    """Print the table of the retraining."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    whole = sweep(folder, device)
    ways = [0] + [2**k for k in range(count.bit_length()) if 2**k <= count]
    print(f"retraining {count} networks for 2 epochs on 1,198 digits, {device}, {rounds} rounds")
    print(f"{'network':12}{'together':>12}{'s / network':>14}{'ratio':>8}{'difference':>12}")
    for name, new in (("small_cnn", networks.small_cnn), ("mlp", networks.mlp)):
        runs = {way: tasks(whole, new, count, way) for way in ways}
        retrain(runs[0][0])  # warm-up
        seconds, accuracies = {way: [] for way in ways}, {}
        for _ in range(rounds):
            for way, run in runs.items():
                start = clock()
                accuracies[way] = torch.tensor([value for task in run for value in retrain(task)])
                seconds[way].append((clock() - start) / count)
        for way in ways:
            ratio = statistics.median(a / b for a, b in zip(seconds[way], seconds[0], strict=True))
            difference = (accuracies[way] - accuracies[0]).abs().max().item()
            median = statistics.median(seconds[way])
            print(f"{name:12}{way or 'one by one':>12}{median:14.4f}{ratio:8.2f}{difference:12.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--networks", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)  # a second one waits much, which processor time counts
    for device in dict.fromkeys(("cpu", options.device)):
        with TemporaryDirectory() as folder:
            table(Path(folder), options.rounds, options.networks, device)
    selectivity.table(device=options.device)
    influence.table()


if __name__ == "__main__":
    main()
