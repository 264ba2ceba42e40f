"""What it costs to find the strongest patches of every feature map: one pass over the data beside the bare forward pass.

Both run over the same batches in turns, the layers up to the one looked at and the rest alike; the ratio is the
median over the rounds. The pictures are 4,096 of ``scenes``, again and again but each time shifted (the same picture twice
would enter the lists of the strongest twice), and the 60,000 digits of MNIST where torchvision finds them.

    python -m benchmarks.top_activations [--images 60000] [--rounds 3] [--device cpu|cuda]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from interp_lab import networks, top_activations
from interp_lab.data import digits, scenes

BATCH = 128


def seconds(call: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(name: str, model: nn.Module, images: Tensor, layer: str, rounds: int, device: str) -> None:
    model = model.eval().to(device)
    batches = [batch.to(device) for batch in images.split(BATCH)]

    @torch.no_grad()
    def forward() -> None:
        for batch in batches:
            model(batch)

    forward()
    pairs = [
        (seconds(lambda: top_activations(model, batches, layer), device), seconds(forward, device))
        for _ in range(rounds)
    ]
    ratio = statistics.median(ours / bare for ours, bare in pairs)
    bare = statistics.median(bare for _, bare in pairs)
    print(f"{name:28} {len(images):8,} images: forward {bare:6.1f} s, top_activations {ratio:.3f} x", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    drawn = scenes(4096).images
    shifts = range(-(-options.images // len(drawn)))
    pictures = torch.cat([drawn.roll((3 * shift, 5 * shift), (2, 3)) for shift in shifts])[: options.images]
    measure("scenes_cnn, last ReLU", networks.load("scenes_cnn"), pictures, "9", options.rounds, options.device)
    try:
        mnist = digits("train", source="mnist").images[: options.images]
    except (ValueError, RuntimeError, OSError) as error:
        print(f"MNIST left out: {error}")
        return
    measure("digits_cnn, last ReLU", networks.load("digits_cnn"), mnist, "4", options.rounds, options.device)


if __name__ == "__main__":
    main()
