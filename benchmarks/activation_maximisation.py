"""Does a prior move the pictures of activation maximisation toward the data? The lecture says so; this measures it.

Over all ten classes of the digits at once and for five seeds. In each seed everything is trained anew: the explained
network (an MLP) and the priors on the training split, the judges on the held-out split, which nothing else sees:

- agreement: share of the pictures that a convolutional network puts into their class;
- distance: Euclidean distance to the nearest real image of the held-out split;
- log p: log-density in nats, less that of a mean real image, under a mixture of Gaussians fitted to the held-out split.

All variants run from the data mean and from the class means (codes: from their encodings) with the same steps and
rate; pixels stay in [0, 1]. The network's own probability of the class stands beside the measures, as a warning.
Printed are mean and standard deviation over the seeds.

    python -m benchmarks.activation_maximisation [--seeds 5] [--steps 500]
"""

import argparse
import time
from statistics import mean, stdev

import torch
from torch import Tensor

from interp_lab import am_code, am_density, maximize_activation, networks, priors
from interp_lab.data import digits

CLASSES = torch.arange(10)
MEASURES = ("own p", "agreement", "distance", "log p")


def measure(seed: int, steps: int) -> dict[str, list[float]]:
    """Variant -> the four numbers of ``MEASURES``."""
    train, held_out = digits("train"), digits("test")
    torch.manual_seed(seed)
    network, judge = networks.mlp(), networks.digits_cnn()
    networks.train(network, train, epochs=30, lr=2e-3, weight_decay=0.1, seed=seed, progress=False)
    networks.train(judge, held_out, epochs=30, lr=3e-3, weight_decay=0.1, seed=seed, progress=False)
    judge_density = priors.fit_mixture(held_out.images, 10, dim=32, seed=seed)
    rbm = priors.fit_rbm(train.images, dim=32, seed=seed)
    mixture = priors.fit_mixture(train.images, dim=32, seed=seed)
    vae = priors.fit_vae(train.images, seed=seed)
    level = judge_density.log_prob(train.images).mean()

    def judged(x: Tensor, labels: Tensor) -> list[float]:
        own = network(x).softmax(1).gather(1, labels[:, None]).mean()
        agreement = (judge(x).argmax(1) == labels).float().mean()
        distance = torch.cdist(x.flatten(1), held_out.images.flatten(1)).min(1).values.mean()
        return [v.item() for v in (own, agreement, distance, (judge_density.log_prob(x) - level).mean())]

    class_means = torch.stack([train.images[train.labels == k].mean(0) for k in CLASSES])
    rows = {"real images": (train.images, train.labels), "class means": (class_means, CLASSES)}
    boxed = {"bounds": (0, 1), "steps": steps}
    for start, x0 in (("data mean", train.images.mean(0).expand_as(class_means)), ("class means", class_means)):
        z0 = vae.encode(x0)
        found = {
            "simple AM": maximize_activation(network, CLASSES, x0, **boxed),
            "simple AM, L2 0.01": maximize_activation(network, CLASSES, x0, l2=0.01, **boxed),
            "AM-density, RBM": am_density(network, CLASSES, x0, density=rbm, **boxed),
            "AM-density, mixture": am_density(network, CLASSES, x0, density=mixture, **boxed),
            "AM-code, VAE": am_code(network, CLASSES, z0, generator=vae, steps=steps),
        }
        rows |= {f"{name} from {start}": (result.x, CLASSES) for name, result in found.items()}
    with torch.no_grad():
        return {name: judged(*row) for name, row in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=500)
    options = parser.parse_args()
    torch.set_num_threads(1)  # the networks are so small that a second thread only waits
    start = time.perf_counter()
    runs = [measure(seed, options.steps) for seed in range(options.seeds)]
    print(f"{'':38}" + "".join(f"{name:>20}" for name in MEASURES))
    for name in runs[0]:
        columns = zip(*(run[name] for run in runs), strict=True)
        cells = (f"{mean(c):.4g} +- {stdev(c) if len(c) > 1 else 0:.2g}" for c in columns)
        print(f"{name:38}" + "".join(f"{cell:>20}" for cell in cells))
    print(f"{options.seeds} seeds, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
