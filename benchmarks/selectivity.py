"""Time of `selectivity` beside the bare forward passes of the same inputs and Quantus's PixelFlipping, in one run.

Maps are computed before. The floor runs the network on the very pictures that `selectivity` gives it, made before,
one step of all images at a time. The calls take turns, so that a drift of the machine hits all alike; times are of the
processor, and each ratio is the median over the rounds of a call's time over the floor's in the same round. Quantus
gives no score of the images themselves, so it runs one forward pass less per image. On one channel the two do the
same, and the largest difference of their curves stands beside; of colours Quantus removes the channels of a pixel one
by one.

    python -m benchmarks.selectivity [--rounds 7] [--threads 1] [--device cpu]
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import quantus
import torch
import torchvision
from torch import Tensor, nn

from interp_lab import gradient_x_input, networks, selectivity
from interp_lab.data import digits, scenes

STEPS = {1: 28, 3: 24}  # by the number of channels, as Quantus's steps must divide the pixels


def settings(device: str) -> dict[str, tuple[nn.Module, Tensor]]:
    """Name -> (network, images)."""
    torch.manual_seed(0)
    squeezenet = torchvision.models.squeezenet1_1(weights=None).eval()
    both = {
        "digits_cnn": (networks.load("digits_cnn"), digits("test").images[:256]),
        "scenes_cnn": (networks.load("scenes_cnn"), scenes(64, seed=3).images),
        "squeezenet1_1": (squeezenet, torch.rand(4, 3, 224, 224)),
    }
    return {name: (network.to(device), x.to(device)) for name, (network, x) in both.items()}


def calls(network: nn.Module, x: Tensor) -> dict[str, Callable]:
    """The floor, ours and Quantus's call."""
    steps, attribution = STEPS[x.shape[1]], gradient_x_input(network, x)
    with torch.no_grad():
        target = network(x).argmax(1)
    flipping = quantus.PixelFlipping(
        features_in_step=x[0].numel() // steps, normalise=False, perturb_baseline="black", disable_warnings=True
    )
    arrays = {"x_batch": x, "y_batch": target, "a_batch": attribution}
    arrays = {name: array.cpu().numpy() for name, array in arrays.items()}

    pictures: list[Tensor] = []

    def record(batch: Tensor) -> Tensor:
        pictures.append(batch.clone())
        return network(batch)

    selectivity(record, x, attribution, target, steps=steps, fill=0.0, batch_size=len(x))

    def floor() -> None:
        with torch.no_grad():
            for batch in pictures:
                network(batch)

    return {
        "floor": floor,
        "interp_lab": lambda: selectivity(network, x, attribution, target, steps=steps, fill=0.0).curve[:, 1:],
        "quantus": lambda: torch.tensor(
            flipping(model=network, **arrays, softmax=False, device=str(x.device), batch_size=len(x))
        ),
    }


def clock(call: Callable, device: str) -> float:
    now = time.process_time if device == "cpu" else time.perf_counter
    start = now()
    call()
    if device != "cpu":
        torch.cuda.synchronize()
    return now() - start


def table(rounds: int = 7, device: str = "cpu") -> None:
    """Print the table."""
    print(f"selectivity, {device}, {torch.get_num_threads()} threads, {rounds} rounds")
    print(f"{'network':16}{'images':>8}{'steps':>7}{'floor s':>10}{'interp_lab':>12}{'quantus':>10}{'difference':>12}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Quantus, on pictures that have become black
        for name, (network, x) in settings(device).items():
            run = calls(network, x)
            ours, theirs = run["interp_lab"](), run["quantus"]()  # also warms up
            difference = f"{(ours.cpu() - theirs).abs().max():.1e}" if x.shape[1] == 1 else "-"
            times = [{key: clock(call, device) for key, call in run.items()} for _ in range(rounds)]
            seconds = statistics.median(row["floor"] for row in times)
            ratios = [statistics.median(row[key] / row["floor"] for row in times) for key in ("interp_lab", "quantus")]
            print(
                f"{name:16}{len(x):>8}{STEPS[x.shape[1]]:>7}{seconds:>10.3f}{ratios[0]:>12.2f}{ratios[1]:>10.2f}{difference:>12}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    table(options.rounds, options.device)


if __name__ == "__main__":
    main()
