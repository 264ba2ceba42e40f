"""Networks that decide scenes by one part of the object, how they are trained, and their trained weights.

``python -m interp_lab.part_networks`` trains three for each part of ``PARTS`` from nothing, prints their accuracies and
writes their weights into the package, in half a minute.
"""

import torch
from torch import Tensor, nn

from .data import PARTS, Dataset, scenes
from .networks import accuracy, fold_batch_norm, scenes_cnn, train
from .weights import load_weights, save_weights

SEEDS = (1, 2, 3)


def trained(data: Dataset, seed: int = 1) -> nn.Sequential:
    """A network that has learned the two classes of these scenes; from a thousand of 48 by 48 pixels it takes some seconds.

    >>> trained(scenes(8, size=48, evidence="dot"))[-1]
    Linear(in_features=64, out_features=2, bias=True)
    """
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(seed)
        model = scenes_cnn(classes=2)
    train(model, data, epochs=8, lr=5e-3, batch_size=32, weight_decay=0.05, seed=seed, progress=False)
    return fold_batch_norm(model)


def load(part: str, seed: int = 1) -> nn.Sequential:
    """A network that decides by this part, in eval mode, from the weights that come with the package.

    It is ``trained(scenes(1024, size=48, seed=50 + seed, evidence=part), seed)``, rounded to eight bits.

    Raises:
        ValueError: unknown part, or another seed than 1, 2 or 3.

    >>> accuracy(load("dot"), scenes(200, size=48, seed=9, evidence="dot")) > 0.95
    True
    """
    if part not in PARTS or seed not in SEEDS:
        raise ValueError(
            f"no network for the part {part!r} with seed {seed}; there are {', '.join(PARTS)}, each with the seeds "
            f"{', '.join(map(str, SEEDS))}: call trained() for another"
        )
    with torch.random.fork_rng([]):  # the random weights that are overwritten here
        model = fold_batch_norm(scenes_cnn(classes=2))
    prefix = f"{part}.{seed}."
    state = load_weights("part_networks").items()
    model.load_state_dict({key.removeprefix(prefix): value for key, value in state if key.startswith(prefix)})
    return model.eval()


def _main() -> None:
    """Train the networks, write their weights in eight bits, print their accuracies."""
    state: dict[str, Tensor] = {}
    for part in PARTS:
        for seed in SEEDS:
            model = trained(scenes(1024, size=48, seed=50 + seed, evidence=part), seed)
            state |= {f"{part}.{seed}.{key}": value for key, value in model.state_dict().items()}
    save_weights("part_networks", state, torch.float8_e4m3fn)
    for part in PARTS:
        found = [accuracy(load(part, seed), scenes(2000, size=48, seed=9, evidence=part)) for seed in SEEDS]
        print(f"{part:8} accuracy {', '.join(f'{share:.4f}' for share in found)}")


if __name__ == "__main__":
    _main()
