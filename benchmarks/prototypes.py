"""How many prototypes are enough, and what they cost: MMD-critic beside random choice, k-means and an N x N algorithm.

- error: nearest-prototype error on held-out digits against the number of prototypes. All methods choose from the same
  training examples; k-means takes the example nearest to each centre, the same number of centres in every class.
- modes: the lecture's question about the motorcycle. A concept is the union of k digits, its modes. How many
  prototypes until every mode has one? A random choice needs k (1 + 1/2 + ... + 1/k) on average.
- scale: time and peak memory in a process of its own, beside the algorithm that holds the N x N matrix. The 60,000
  digits of MNIST where torchvision finds them, else random pictures of their size.

    python -m benchmarks.prototypes [error] [modes] [scale]
"""

import argparse
import resource
import subprocess
import sys
import time
from statistics import mean, stdev

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from interp_lab import mmd_critic
from interp_lab.data import digits

COUNTS = (10, 20, 40, 60, 100)
CONCEPTS = (1, 2, 4, 6, 8, 10)
CHOSEN = 100  # prototypes and criticisms in the table of scale


def nearest_error(x: Tensor, labels: Tensor, chosen: Tensor, test_x: Tensor, test_labels: Tensor) -> float:
    nearest = torch.cdist(test_x, x[chosen]).argmin(1)
    return (labels[chosen][nearest] != test_labels).float().mean().item()


def by_k_means(x: Tensor, labels: Tensor, count: int, seed: int) -> Tensor:
    chosen = []
    for label in labels.unique():
        members = (labels == label).nonzero().squeeze(1)
        centres = KMeans(count // 10, n_init=3, random_state=seed).fit(x[members].numpy()).cluster_centers_
        chosen.append(members[torch.cdist(torch.as_tensor(centres).to(x), x[members]).argmin(1)])
    return torch.cat(chosen)


def error_curves(splits: int = 3) -> dict[str, Tensor]:
    """Method -> errors ``(splits, len(COUNTS))``, from the digits cut in two halves anew for each split."""
    parts = [digits("train"), digits("test")]
    x = torch.cat([part.images for part in parts]).flatten(1)
    labels = torch.cat([part.labels for part in parts])
    curves: dict[str, list[list[float]]] = {}
    for split in range(splits):
        generator = torch.Generator().manual_seed(split)
        order = torch.randperm(len(x), generator=generator)
        train, test = order[len(x) // 5 :], order[: len(x) // 5]
        own, own_labels = x[train], labels[train]
        chosen = {
            "MMD, local kernel": mmd_critic(own, max(COUNTS), labels=own_labels).prototypes,
            "MMD, global kernel": mmd_critic(own, max(COUNTS)).prototypes,
            "random": torch.randperm(len(own), generator=generator),
        }
        found = {name: [all_[:count] for count in COUNTS] for name, all_ in chosen.items()}
        found["k-means"] = [by_k_means(own, own_labels, count, split) for count in COUNTS]
        for name, choices in found.items():
            errors = [nearest_error(own, own_labels, choice, x[test], labels[test]) for choice in choices]
            curves.setdefault(name, []).append(errors)
    return {name: torch.tensor(rows) for name, rows in curves.items()}


def covered_at(prototypes: Tensor, modes: Tensor) -> int:
    """How many prototypes, in their order, until every mode has one."""
    first = [(modes[prototypes] == mode).nonzero() for mode in modes.unique()]
    return 1 + max(place[0].item() if len(place) else len(prototypes) for place in first)


def modes_table(seeds: int = 5) -> dict[int, tuple[list[int], list[int]]]:
    """Number of modes -> prototypes needed by MMD-critic and by a random choice, for each seed."""
    data = digits("train")
    x = data.images.flatten(1)
    table: dict[int, tuple[list[int], list[int]]] = {}
    for k in CONCEPTS:
        critic, chance = table.setdefault(k, ([], []))
        for seed in range(seeds):
            generator = torch.Generator().manual_seed(seed)
            concept = torch.randperm(10, generator=generator)[:k]
            members = torch.isin(data.labels, concept).nonzero().squeeze(1)
            modes = data.labels[members]
            critic.append(covered_at(mmd_critic(x[members], len(members) // 2).prototypes, modes))
            chance.append(covered_at(torch.randperm(len(members), generator=generator), modes))
    return table


def pictures(n: int) -> Tensor:
    try:
        x = digits("train", source="mnist").images[:n]
    except (ValueError, RuntimeError, OSError) as error:
        print(f"random pictures: {error}", file=sys.stderr)
        x = torch.rand(n, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return x.flatten(1)


def with_the_whole_matrix(x: Tensor, n_prototypes: int, gamma: float) -> list[int]:
    """Greedy MMD-critic as its authors' code has it: the float64 kernel of all pairs, then one choice after another."""
    x = x.double()
    kernel = torch.cdist(x, x).square_().mul_(-gamma).exp_()
    columns = 2 * kernel.sum(0) / len(x)
    chosen: list[int] = []
    for _ in range(n_prototypes):
        within = kernel[chosen].sum(0) * 2 + kernel.diagonal()
        gain = columns - within / (len(chosen) + 1)
        gain[chosen] = -torch.inf
        chosen.append(gain.argmax().item())
    return chosen


def one(algorithm: str, n: int) -> None:
    x = pictures(n)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    start = time.perf_counter()
    if algorithm == "mmd_critic":
        result = mmd_critic(x, CHOSEN, CHOSEN)
        chosen = result.prototypes.tolist()
    else:
        chosen = with_the_whole_matrix(x, CHOSEN, mmd_critic(x[:2000], 1).gamma)
    seconds = time.perf_counter() - start
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, base, *chosen[:3])


def print_error() -> None:
    print("Nearest-prototype error on held-out digits, mean of 3 splits")
    print(f"{'prototypes':20}" + "".join(f"{count:>8}" for count in COUNTS))
    for name, errors in error_curves().items():
        print(f"{name:20}" + "".join(f"{value:8.3f}" for value in errors.mean(0)))


def print_modes() -> None:
    print("\nPrototypes until each of k modes has one: mean (standard deviation) of 5 concepts")
    print(f"{'modes k':>8} {'MMD-critic':>16} {'random':>16} {'k H_k':>8}")
    for k, (critic, chance) in modes_table().items():
        harmonic = k * sum(1 / i for i in range(1, k + 1))
        cells = (f"{mean(v):.1f} ({stdev(v):.1f})" for v in (critic, chance))
        print(f"{k:8} " + " ".join(f"{cell:>16}" for cell in cells) + f" {harmonic:8.1f}")


def print_scale() -> None:
    print(f"\n{CHOSEN} prototypes and as many criticisms of N pictures of 784 pixels: seconds, peak memory in MB")
    print(f"{'N':>8} {'mmd_critic':>22} {'N x N in float64':>22}")
    for n in (5_000, 10_000, 20_000, 40_000, 60_000):
        cells = []
        for algorithm in ("mmd_critic", "matrix"):
            if algorithm == "matrix" and 8 * n**2 > 4e9:
                cells.append(f"needs {8 * n**2 / 1e9:.0f} GB")
                continue
            command = [sys.executable, "-m", "benchmarks.prototypes", "--one", algorithm, str(n)]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            cells.append(f"{float(out[0]):.1f} s {float(out[1]):.0f} MB")
        print(f"{n:8} " + " ".join(f"{cell:>22}" for cell in cells), flush=True)


def main() -> None:
    parts = {"error": print_error, "modes": print_modes, "scale": print_scale}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(parts)}; all without")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return one(options.one[0], int(options.one[1]))
    if unknown := set(options.parts) - set(parts):
        parser.error(f"no part {', '.join(sorted(unknown))}; the parts are {', '.join(parts)}")
    for name in options.parts or parts:
        parts[name]()


if __name__ == "__main__":
    main()
