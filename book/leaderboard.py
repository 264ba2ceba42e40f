"""Every attribution method in every evaluation, on five CNNs and five vision transformers.

    python -m book.leaderboard [--executor processes]

Networks and seeds that are there already, measured with the same code, are kept, also those of a run that was
interrupted; after a change of the code all are, if it has not moved any result of the first seed. The results,
``book/data/leaderboard.json``, are what the page prints; in all columns more is better.

A network of seed s is trained on scenes whose class is told by two of the object's three parts; the third, another for
each of three seeds, tells nothing. So it is known which parts should have relevance, and by scenes that are drawn without one
part, which of them the network really uses. Only ``moved`` needs two objects: there the seed draws the scenes of
the networks that come with the package.
"""

import argparse
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from book.claims.dependencies import fingerprint
from book.sweep import rows, sweep
from interp_lab import (
    METHODS,
    UnsupportedModelError,
    class_sensitivity,
    coherence,
    part_scores,
    selectivity,
    spearman,
    tokens_to_maps,
)
from interp_lab.data import PARTS, Dataset, scenes
from interp_lab.networks import accuracy, fold_batch_norm, load, scenes_cnn, scenes_vit, train, turned

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "book" / "data" / "leaderboard.json"
JOURNAL = ROOT / "_build" / "leaderboard.jsonl"

SEEDS = range(5)
IMAGES, FEW = (
    48,
    24,
)  # scenes of one object, and those for an untrained network or with two objects, whose maps are made twice
READINGS: dict[str, Callable[[Tensor], Tensor]] = {"signed": lambda r: r, "magnitude": torch.abs}
NETWORKS = {
    "CNN": (scenes_cnn, "scenes_cnn", {"lr": 5e-3, "epochs": 4}),
    "ViT": (scenes_vit, "scenes_vit", {"lr": 2e-3, "epochs": 8, "batch_size": 32, "perturb": turned}),
}


def _mean_colour(x: Tensor) -> Tensor:
    return x.mean((2, 3), keepdim=True).expand_as(x)


def _from_mean_colour(method: Callable, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    return method(model, x, target, baseline=_mean_colour(x))


def _grad_cam(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    last = model[-4]  # the last block of a transformer
    options = {"layer": last.norm1, "reshape": tokens_to_maps()} if hasattr(last, "norm1") else {}
    return METHODS["grad_cam"](model, x, target, **options)


def _even(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    return torch.ones_like(x)


def _random(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    return torch.randn_like(x)


def _colour(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    return (x - _mean_colour(x)).abs()


WITH_OPTIONS = METHODS | {
    "smoothgrad": partial(METHODS["smoothgrad"], n=10, noise=0.05),
    "integrated_gradients": partial(METHODS["integrated_gradients"], steps=20),
    "grad_cam": _grad_cam,
    "occlusion": partial(METHODS["occlusion"], stride=8),
    "rise": partial(METHODS["rise"], samples=100),
    "shapley": partial(METHODS["shapley"], permutations=2),
}
EXPLAIN = WITH_OPTIONS | {
    f"{name}, mean colour": partial(_from_mean_colour, WITH_OPTIONS[name])
    for name in ("integrated_gradients", "deeplift", "occlusion")
}
CONTROLS = {"colour": _colour, "even": _even, "random": _random}  # that ask no network


def _told_by(parts: tuple[str, str], n: int, seed: int) -> Dataset:
    """Scenes with a class for each pair of states of two parts."""
    first, second = (scenes(n, seed=seed, evidence=part) for part in parts)
    deciding = first.masks["evidence"] | second.masks["evidence"]
    return replace(first, labels=first.labels + 2 * second.labels, masks=first.masks | {"evidence": deciding})


class Trial:
    """A network of one seed with all that its explanations are compared with."""

    def __init__(self, network: str, seed: int) -> None:
        build, shipped, recipe = NETWORKS[network]
        parts = [part for k, part in enumerate(PARTS) if k != seed % 3]
        torch.manual_seed(seed)
        self.model, self.untrained = build(4), fold_batch_norm(build(4))
        train(self.model, _told_by(parts, 4096, 100 + seed), seed=seed, weight_decay=0.05, progress=False, **recipe)
        self.model = fold_batch_norm(self.model)

        data = _told_by(parts, IMAGES, 200 + seed)
        self.accuracy = accuracy(self.model, data)
        self.images, self.masks = data.images, data.masks
        self.target = self.model(self.images).argmax(1)
        drawn = partial(scenes, IMAGES, seed=200 + seed, evidence=parts[0])
        self.without = {part: drawn(without=part).images for part in PARTS}
        bare, on = drawn(draw_object=False).images, data.masks["object"]
        # Removed is the object by its absence, and the background by that of another scene.
        self.whole = {"object": bare, "background": torch.where(on[:, None], self.images, bare.roll(1, 0))}
        self.masks |= {"background": ~on}

        self.shipped, two = load(shipped), scenes(2 * FEW, seed=300 + seed, objects=2)
        pair = torch.stack([two.labels, two.second_labels], 1)
        self.two = two[(self.shipped(two.images).gather(1, pair) > 0).all(1)][:FEW]  # where the network sees both
        self.random_area = self._area(torch.zeros_like(self.images))  # equal relevance goes in a random order

    def maps(self, explain: Callable) -> dict[str, Tensor]:
        """The relevance of every pixel: of the network's answers, of the untrained network, of each of two objects."""
        few, two = self.images[:FEW], self.two
        return {
            "own": explain(self.model, self.images, self.target).sum(1),
            "untrained": explain(self.untrained, few, self.target[:FEW]).sum(1),
            "first": explain(self.shipped, two.images, two.labels).sum(1),
            "second": explain(self.shipped, two.images, two.second_labels).sum(1),
        }

    def by_parts(self, relevance: Tensor) -> dict[str, Tensor]:
        found = part_scores(self.model, self.images, relevance, self.without, self.masks, self.target)
        return {name: getattr(found, name) for name in ("single_deletion", "deletion", "preservation", "shares")}

    def by_background(self, relevance: Tensor) -> dict[str, Tensor]:
        found = part_scores(self.model, self.images, relevance, self.whole, self.masks, self.target)
        return {"background": found.shares}

    def by_coherence(self, relevance: Tensor) -> dict[str, Tensor]:
        found = coherence(relevance, self.masks["evidence"])
        return {"mass": found.relevance_mass, "rank": found.relevance_rank, "pointing": found.pointing_game}

    def by_class(self, first: Tensor, second: Tensor) -> dict[str, Tensor]:
        given, two = iter((first, second)), self.two
        question = self.shipped, two.images, two.labels, two.second_labels
        masks = two.masks["object"], two.masks["second_object"]
        return {"moved": class_sensitivity(lambda *_: next(given), *question, masks=masks).moved}

    def by_patches(self, relevance: Tensor) -> dict[str, Tensor]:
        return {"selectivity": self.random_area - self._area(relevance)}

    def _area(self, relevance: Tensor) -> Tensor:
        return selectivity(self.model, self.images, relevance, self.target, steps=16, patch=8, score="probability").area

    def scores(self, maps: dict[str, Tensor]) -> dict[str, Tensor]:
        own, untrained = maps["own"], maps["untrained"]
        changes = {"changes": 1 - spearman(own[:FEW], untrained).abs()}
        by_map = (self.by_parts, self.by_background, self.by_coherence, self.by_patches)
        return (
            {name: value for by in by_map for name, value in by(own).items()}
            | self.by_class(maps["first"], maps["second"])
            | changes
        )

    def answer_key(self) -> dict[str, Tensor]:
        """The scores of the true effects laid evenly on their parts, and where the mask is the answer, of the mask."""
        two = self.two
        return (
            self.by_parts(self._laid(self.without))
            | self.by_background(self._laid(self.whole))
            | self.by_coherence(self.masks["evidence"].float())
            | self.by_class(two.masks["object"].float(), two.masks["second_object"].float())
        )

    def _laid(self, without: dict[str, Tensor]) -> Tensor:
        effects = part_scores(self.model, self.images, self.images, without, self.masks, self.target).effects
        inside = torch.stack([self.masks[name] for name in without], 1)
        return (inside * (effects / inside.sum((2, 3)))[:, :, None, None]).sum(1)


def measure(network: str, seed: int) -> dict:
    """Of one network: its accuracy, the mean scores of every method in both readings, and what the others refuse."""
    torch.set_num_threads(1)
    with torch.random.fork_rng([]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trial = Trial(network, seed)
        values, refused = {"oracle": dict.fromkeys(READINGS, _means(trial.answer_key()))}, {}
        for name, explain in (EXPLAIN | CONTROLS).items():
            try:
                maps = trial.maps(explain)
            except UnsupportedModelError as error:
                refused[name] = str(error)
                continue
            values[name] = {
                reading: _means(trial.scores({key: read(map_) for key, map_ in maps.items()}))
                for reading, read in READINGS.items()
            }
    return {"network": network, "seed": seed, "accuracy": trial.accuracy, "values": values, "refused": refused}


def _means(scores: dict[str, Tensor]) -> dict[str, float | None]:
    """Over the images where a score is defined; None where it is nowhere."""
    means = {name: values.double().nanmean().item() for name, values in scores.items()}
    return {name: round(mean, 4) if mean == mean else None for name, mean in means.items()}


def code() -> str:
    """The fingerprint of all code and weights that the results come from."""
    return fingerprint(Path(__file__), "measure", "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executor", choices=("none", "processes"), default="processes")
    arguments = parser.parse_args()
    version, stored = code(), json.loads(RESULTS.read_text(encoding="utf-8"))["networks"]
    _measure(version, SEEDS[:1], arguments.executor)
    first = tables(_of(version, SEEDS[:1]))
    if first == {network: _first(table) for network, table in stored.items()}:
        return write(version, stored)  # the code has changed, and no result with it
    _measure(version, SEEDS, arguments.executor)
    return write(version, tables(_of(version, SEEDS)))


def _measure(version: str, seeds: Sequence[int], executor: str) -> None:
    """Add to the journal what it lacks; what takes longest comes first."""
    there = {(result["network"], result["seed"]) for result in _of(version, seeds)}
    missing = [(network, seed) for network in reversed(NETWORKS) for seed in seeds if (network, seed) not in there]
    sweep(JOURNAL, partial(_rows, version), missing, executor, total=len(missing), desc="leaderboard", unit="network")


def _rows(version: str, unit: tuple[str, int]) -> list[tuple[str, dict]]:
    return [(version, measure(*unit))]


def _of(version: str, seeds: Sequence[int]) -> list[dict]:
    return [result for written, result in rows(JOURNAL) if written == version and result["seed"] in seeds]


def tables(results: list[dict]) -> dict[str, dict]:
    """For every network its accuracy and, for every method and reading, the scores, each a list over the seeds."""
    networks = {}
    for network in NETWORKS:
        mine = sorted((r for r in results if r["network"] == network), key=lambda r: r["seed"])
        networks[network] = {
            "accuracy": [round(result["accuracy"], 4) for result in mine],
            "refused": mine[0]["refused"],
            "values": {
                method: {
                    reading: {score: [r["values"][method][reading][score] for r in mine] for score in scores}
                    for reading, scores in readings.items()
                }
                for method, readings in mine[0]["values"].items()
            },
        }
    return networks


def _first(table: Any) -> Any:
    """The same for the first seed alone."""
    if isinstance(table, dict):
        return {name: _first(part) for name, part in table.items()}
    return table[:1] if isinstance(table, list) else table


def write(version: str, networks: dict[str, dict]) -> None:
    """A line for every network, method and reading."""
    text = json.dumps({"fingerprint": version, "networks": networks})
    RESULTS.write_text(
        text.replace('"signed"', '\n"signed"').replace('"magnitude"', '\n"magnitude"') + "\n", encoding="utf-8"
    )
    print(f"wrote {RESULTS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
