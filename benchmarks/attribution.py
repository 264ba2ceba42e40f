"""Time and memory of every attribution method beside its floor and beside Captum, in one run.

The unit is one forward and one backward pass to the input; a method's floor is the number of such units that its
mathematics needs. All calls of a network take turns in rounds, so that a drift of the machine hits all alike, and
each ratio is the median over the rounds of a call's time over the unit's time of the same round.

    python -m benchmarks.attribution [--rounds 7] [--device cpu|cuda] [--memory]
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import captum.attr
import torch
import torchvision
from torch import Tensor, nn

import interp_lab
from interp_lab import networks

Call = Callable[[], Tensor]
N = 10  # noisy copies and steps: enough passes to show a cost per pass


def setting(name: str, device: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    if name == "scenes CNN, 64x64, batch 64":
        network, x = networks.scenes_cnn(), torch.rand(64, 3, 64, 64)
    else:
        network, x = torchvision.models.squeezenet1_1(weights=None), torch.rand(8, 3, 224, 224)
    return network.eval().to(device), x.to(device)


NETWORKS = ("scenes CNN, 64x64, batch 64", "squeezenet1_1, 224x224, batch 8")


def unit(network: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """One forward and one backward pass to the input, as bare as it gets."""
    leaf = x.detach().requires_grad_()
    score = network(leaf).gather(1, target[:, None]).sum()
    return torch.autograd.grad(score, leaf)[0]


def calls(network: nn.Module, x: Tensor, target: Tensor) -> dict[str, tuple[float, Call, Call]]:
    """Name -> (floor in units, our call, Captum's call)."""
    attr = captum.attr
    sigma = 0.15 * float(x[0].max() - x[0].min())
    rows = len(x)
    return {
        "saliency": (
            1,
            lambda: interp_lab.saliency(network, x, target),
            lambda: attr.Saliency(network).attribute(x, target, abs=False),
        ),
        "gradient_x_input": (
            1,
            lambda: interp_lab.gradient_x_input(network, x, target),
            lambda: attr.InputXGradient(network).attribute(x, target),
        ),
        "interior_gradient": (
            1,
            lambda: interp_lab.interior_gradient(network, x, target, alpha=0.5),
            lambda: attr.Saliency(network).attribute(0.5 * x, target, abs=False),
        ),
        f"smoothgrad, n={N}": (
            N,
            lambda: interp_lab.smoothgrad(network, x, target, n=N),
            lambda: attr.NoiseTunnel(attr.Saliency(network)).attribute(
                x, nt_samples=N, nt_samples_batch_size=1, stdevs=sigma, target=target, abs=False
            ),
        ),
        f"integrated_gradients, steps={N}": (
            N,
            lambda: interp_lab.integrated_gradients(network, x, target, steps=N),
            lambda: attr.IntegratedGradients(network).attribute(
                x, target=target, n_steps=N, internal_batch_size=rows, method="gausslegendre"
            ),
        ),
    }


def timed(call: Call, device: str) -> float:
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def time_table(name: str, device: str, rounds: int) -> None:
    network, x = setting(name, device)
    with torch.no_grad():
        target = network(x).argmax(1)
    table = calls(network, x, target)
    entries = {(method, who): table[method][1 + who] for method in table for who in (0, 1)}
    x.requires_grad_()  # Captum warns otherwise; ours detaches
    ratios: dict[tuple[str, int], list[float]] = {key: [] for key in entries}
    units = []
    for round_number in range(rounds + 1):
        bare = min(timed(lambda: unit(network, x, target), device) for _ in range(3))
        for (method, who), call in entries.items():
            seconds = timed(call, device)
            if round_number:  # the first round warms up
                ratios[method, who].append(seconds / bare / table[method][0])
        units.append(bare)
    print(f"\n{name} on {device}: one forward and backward pass takes {1000 * statistics.median(units[1:]):.1f} ms")
    print(f"{'method':36} {'floor':>6} {'ours / floor':>22} {'Captum / floor':>22}")
    for method, (floor, *_) in table.items():
        columns = []
        for who in (0, 1):
            values = ratios[method, who]
            columns.append(f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})")
        print(f"{method:36} {floor:6} {columns[0]:>22} {columns[1]:>22}")


def peak_memory(method: str, n: int, batch_size: int, device: str) -> float:
    """Peak memory in MB of one call in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.attribution", "--device", device]
    command += ["--one", method, str(n), str(batch_size)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def one_call(method: str, n: int, batch_size: int, device: str) -> None:
    network, x = setting("squeezenet1_1, 224x224, batch 8", device)
    option = {"smoothgrad": "n", "integrated_gradients": "steps"}[method]
    getattr(interp_lab, method)(network, x, 0, **{option: n}, batch_size=batch_size)
    if device == "cuda":
        print(torch.cuda.max_memory_allocated() / 2**20)
    else:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)


def memory_table(device: str) -> None:
    print(f"\nPeak memory (MB) on squeezenet1_1, 8 images of 224x224, on {device}; columns: n or steps")
    print(f"{'method':24} {'batch_size':>10} " + " ".join(f"{n:>7}" for n in (2, 8, 32)))
    for method in ("smoothgrad", "integrated_gradients"):
        for batch_size in (4, 16):
            row = [peak_memory(method, n, batch_size, device) for n in (2, 8, 32)]
            print(f"{method:24} {batch_size:10} " + " ".join(f"{value:7.0f}" for value in row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--memory", action="store_true", help="measure peak memory too (about a minute on a CPU)")
    parser.add_argument("--one", nargs=3, metavar=("METHOD", "N", "BATCH_SIZE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one_call(options.one[0], int(options.one[1]), int(options.one[2]), options.device)
        return
    for name in NETWORKS:
        time_table(name, options.device, options.rounds)
    if options.memory:
        memory_table(options.device)


if __name__ == "__main__":
    main()
