r"""ROAR and KAR: the accuracy after retraining without the most, or the least, relevant pixels.

An attribution method orders the pixels of every image. The first (ROAR) or last (KAR) fraction t of them is replaced
by the mean colour of the training images, in the training and in the test part, and new networks are trained from
nothing on what is left. Without retraining, a drop of the accuracy could be due to images unlike any seen before; a
retrained network that fails has really lost the evidence.

The replaced pixels can tell the class by their *shape*, whatever stood in them: so next to every accuracy stands that
of a network trained on the masks alone. Where it is high, ROAR says little about the evidence.

Source: Hooker, Erhan, Kindermans, Kim (2019), A benchmark for interpretability methods in deep neural networks,
arXiv:1806.10758; for the leak through the masks Rong, Leemann, Borisov, Kasneci, Kasneci (2022), A consistent and
efficient evaluation strategy for attribution methods, arXiv:2202.00449.
"""

import copy
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

from torch import nn

from ... import networks
from ...data.dataset import Dataset
from ...explain_decision.methods import METHODS
from ...progress import tqdm
from ...reproducible import reproducibly
from .images import Part, Source, digest, image_shape, mean_colour, split, store
from .journal import Journal
from .ranks import BASELINES, Method, Orders, Ranks, orders, replaced_places
from .starts import check_logits, check_name, factory, start
from .table import WHOLE, Cell, Key, Retraining
from .training import Network, Task, Training, seen, training_options
from .workers import Workers


def roar(
    methods: Sequence[str] | Mapping[str, Method],
    dataset: Dataset | tuple[Source, Source],
    network: str | Callable[[], nn.Module] = "small_cnn",
    *,
    fractions: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    results: str | os.PathLike | None = None,
    model: nn.Module | None = None,
    workers: Workers | None = None,
    progress: bool = True,
    **training: float,
) -> Retraining:
    """Test accuracy after retraining without the most relevant pixels: the lower, the better the method found them.

    The attributions are computed once per method, of one network and for the class that it predicts, so that no label
    of a test image is used. Exactly ``round(fraction * H * W)`` pixels of every image are replaced, in all
    channels, by the mean colour of the training images; equally relevant pixels come in a random order. Every seed
    gives one start and one order of the data, the same for all methods and fractions. Nothing is chosen by the test
    part. A random order and the Sobel edge detector always run beside the methods.

    A method that raises, or gives NaN for one image, has its error in its cells and does not end the sweep.

    Args:
        methods: names in ``METHODS``, or name -> ``method(model, x, target)``.
        dataset: (training part, test part); of one Dataset, a fixed third of every class is the test part. A part may
            also be a torch data set of (image, label), images uint8 or float ``(C, H, W)``, and larger than the
            memory: it is read once, and its images are kept in a file while the sweep runs. Bytes become numbers in
            [0, 1].
        network: makes a new network, or its name: ``small_cnn``, ``softmax_regression``, ``mlp``, ``digits_cnn``,
            ``scenes_cnn``, ``digits_vit``, ``scenes_vit``.
        fractions: of pixels to replace, in (0, 1).
        seeds: of the networks that are averaged.
        results: a file of JSON lines. Every finished cell is appended, and a sweep that finds cells there goes on
            after them; further methods, fractions and seeds can be added in the same way. Cells with an error are
            tried again. A method is known by its name and its plain options.
        model: the network to explain; by default, one is trained with seed 0 on the whole images.
        workers: where and how the networks are trained; by default one after another, in this process.
        progress: show a bar with the time left.
        training: options of every training: ``epochs`` (10), ``lr`` (0.01), ``batch_size`` (64), ``weight_decay`` (0).

    Returns:
        The table of all cells; ``print`` it.

    Raises:
        ValueError: an unknown name, a network without a logit ``(N, K)`` for every class, a fraction that replaces no
            pixel or all of them, a part without an image, a results file of another sweep (the message names what
            differs).

    Source: Hooker et al. 2019, arXiv:1806.10758.

    Example:
        >>> from interp_lab.data import digits
        >>> parts = digits("train")[:100], digits("test")[:50]
        >>> table = roar(["saliency"], parts, fractions=[0.5], seeds=[0], epochs=1, progress=False)
        >>> [(cell.method, cell.fraction) for cell in table.cells]
        [('none', 0.0), ('saliency', 0.5), ('random', 0.5), ('edges', 0.5)]
    """
    return _sweep(
        "most relevant", methods, dataset, network, fractions, seeds, results, model, training, workers, progress
    )


def kar(
    methods: Sequence[str] | Mapping[str, Method],
    dataset: Dataset | tuple[Source, Source],
    network: str | Callable[[], nn.Module] = "small_cnn",
    *,
    fractions: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    results: str | os.PathLike | None = None,
    model: nn.Module | None = None,
    workers: Workers | None = None,
    progress: bool = True,
    **training: float,
) -> Retraining:
    """Test accuracy after retraining without the least relevant pixels: the higher, the better the method kept them.

    Keep And Retrain: everything is as in :func:`~interp_lab.roar`, but for the end of the order from which pixels are
    replaced.

    Args:
        methods: names in ``METHODS``, or name -> ``method(model, x, target)``.
        dataset: (training part, test part), Datasets or torch data sets of (image, label); of one Dataset, a fixed
            third of every class is the test part.
        network: makes a new network, or its name, as for ``roar``.
        fractions: of pixels to replace, in (0, 1): 0.9 keeps the most relevant tenth.
        seeds: of the networks that are averaged.
        results: a file of JSON lines from which a sweep goes on.
        model: the network to explain; by default, one is trained with seed 0 on the whole images.
        workers: where and how the networks are trained; by default one after another, in this process.
        progress: show a bar with the time left.
        training: options of every training: ``epochs`` (10), ``lr`` (0.01), ``batch_size`` (64), ``weight_decay`` (0).

    Returns:
        The table of all cells; ``print`` it.

    Raises:
        ValueError: as :func:`~interp_lab.roar`.

    Source: Hooker et al. 2019, arXiv:1806.10758.

    Example:
        >>> from interp_lab.data import digits
        >>> parts = digits("train")[:100], digits("test")[:50]
        >>> kar([], parts, fractions=[0.9], seeds=[0], epochs=1, progress=False).replaced
        'least relevant'
    """
    return _sweep(
        "least relevant", methods, dataset, network, fractions, seeds, results, model, training, workers, progress
    )


def _sweep(
    replaced: str,
    methods: Sequence[str] | Mapping[str, Method],
    dataset: Dataset | tuple[Source, Source],
    network: str | Callable[[], nn.Module],
    fractions: Sequence[float],
    seeds: Sequence[int],
    results: str | os.PathLike | None,
    model: nn.Module | None,
    training: Mapping[str, float],
    workers: Workers | None,
    progress: bool,
) -> Retraining:
    functions, options, workers = _functions(methods), training_options(training), workers or Workers()
    check_name(network)
    data = split(dataset)
    pixels = _check(data, fractions, seeds)
    keys: list[Key] = [(WHOLE, 0.0, seed) for seed in seeds]
    keys += [(name, fraction, seed) for name in functions for fraction in fractions for seed in seeds]
    with workers.files() as folder:
        parts = store(data[0], folder, "training"), store(data[1], folder, "test")
        new = factory(network, data[0], parts[0])
        starts = {seed: start(new, seed) for seed in seeds}
        check_logits(starts[seeds[0]], parts)
        together = workers.group(starts[seeds[0]], parts[0])
        mean = mean_colour(data[0], parts[0]).numpy()
        sweep = Task(parts, [None], mean, [], together > 1, options, str(workers.device), workers.processes)
        orders_of = cache(partial(orders, functions, cache(partial(_explained, model, new, sweep)), parts, folder))
        places = {fraction: replaced_places(fraction, pixels, replaced) for fraction in (0.0, *fractions)}
        header = _header(replaced, parts, new, model, options)
        with Journal(results, header, functions, keys) as journal, _bar(journal, progress) as bar:
            record = partial(_record, journal, bar)
            chunks = _chunks(keys, together, journal.cells)
            tasks = _tasks(chunks, orders_of, partial(_task, sweep, starts, places), record)
            for cells, accuracies in workers.retrained(tasks):
                record(_outcomes(cells, accuracies))
    return Retraining(replaced, tuple(Cell(*key, **journal.cells[key]) for key in keys))


def _header(
    replaced: str,
    parts: tuple[Part, Part],
    new: Callable[[], nn.Module],
    model: nn.Module | None,
    options: Training,
) -> dict[str, Any]:
    """What a results file must agree in to go on with it."""
    return {
        "replaced": replaced,
        "training images": parts[0].digest,
        "test images": parts[1].digest,
        "network": _network_digest(start(new, 0)),
        "explained model": "trained" if model is None else _network_digest(model),
        **options._asdict(),
    }


def _bar(journal: Journal, progress: bool) -> tqdm:
    total, done = len(journal.keys), len(journal.cells)
    return tqdm(total=total, initial=done, desc="retraining", unit="cell", disable=not progress)


def _explained(model: nn.Module | None, new: Callable[[], nn.Module], sweep: Task) -> nn.Module:
    """The network whose decisions are explained: a copy of the given one, or one trained on the whole images."""
    if model is not None:
        return copy.deepcopy(model).to(sweep.device).eval()
    with reproducibly():  # the start too, as it draws from the random state that all threads share
        trained = start(new, 0)
        train = seen(sweep, 0, Network(trained, seed=0, order=0, places=range(0), mask_only=False))
        networks.train(trained, train, seed=0, device=sweep.device, progress=False, **sweep.training._asdict())
    return trained


def _chunks(keys: list[Key], together: int, finished: Container[Key]) -> Iterator[list[Key]]:
    """The chunks of cells with something to do; an interrupted sweep cuts the same chunks when it resumes."""
    for first in range(0, len(keys), together):
        chunk = keys[first : first + together]
        if any(key not in finished for key in chunk):
            yield chunk


def _tasks(
    chunks: Iterable[list[Key]],
    orders_of: Callable[[str], Orders],
    make: Callable[[list[Key], dict[str, Ranks]], Task],
    record: Callable[[dict[Key, dict]], None],
) -> Iterator[tuple[list[Key], Task]]:
    """The cells of every chunk whose method did not fail, with their task; the others are recorded."""
    for chunk in chunks:
        found = {name: orders_of(name) for name, *_ in chunk}
        ranks = {name: files for name, files in found.items() if not isinstance(files, str)}
        record({key: {"error": found[key[0]]} for key in chunk if key[0] not in ranks})
        cells = [key for key in chunk if key[0] in ranks]
        if cells:
            yield cells, make(cells, ranks)


def _task(
    sweep: Task,
    starts: Mapping[int, nn.Module],
    places: Mapping[float, range],
    cells: list[Key],
    ranks: dict[str, Ranks],
) -> Task:
    """The networks of the cells: for each one on the images, and one on the masks alone."""
    return replace(
        sweep,
        ranks=list(ranks.values()),
        networks=[
            Network(starts[seed], seed, list(ranks).index(name), places[fraction], mask_only)
            for name, fraction, seed in cells
            for mask_only in ((False, True) if name != WHOLE else (False,))
        ],
    )


def _outcomes(cells: list[Key], accuracies: list[float | str]) -> dict[Key, dict]:
    """What becomes of every cell: its accuracies, or the first thing that went wrong."""
    accuracy, outcomes = iter(accuracies), {}
    for key in cells:
        found = {"accuracy": next(accuracy), "mask_only": None if key[0] == WHOLE else next(accuracy)}
        error = next((value for value in found.values() if isinstance(value, str)), None)
        outcomes[key] = found if error is None else {"error": error}
    return outcomes


def _record(journal: Journal, bar: tqdm, found: dict[Key, dict]) -> None:
    bar.update(journal.record(found))


def _functions(methods: Sequence[str] | Mapping[str, Method]) -> dict[str, Method]:
    if isinstance(methods, str):
        raise ValueError(f"methods must be a list of names or a dictionary, got {methods!r}; write [{methods!r}]")
    if not isinstance(methods, Mapping):
        unknown = [name for name in methods if name not in METHODS]
        if unknown:
            raise ValueError(f"no method {unknown[0]!r}; METHODS has {', '.join(METHODS)}")
        methods = {name: METHODS[name] for name in methods}
    taken = {WHOLE, *BASELINES} & set(methods)
    if taken:
        raise ValueError(f"the name {taken.pop()!r} is taken: both baselines and the whole images run always")
    return {**methods, **BASELINES}


def _check(data: tuple[Source, Source], fractions: Sequence[float], seeds: Sequence[int]) -> int:
    """Refuse what cannot be swept before hours of work; the pixels of an image."""
    for name, part in zip(("training", "test"), data, strict=True):
        if not len(part):
            raise ValueError(f"the {name} part of dataset has no image; give two images or more, or one in each part")
    shapes = [image_shape(part) for part in data]
    if shapes[0] != shapes[1]:
        raise ValueError(f"both parts need images of one shape, got {shapes[0]} and {shapes[1]}")
    pixels = shapes[0][1] * shapes[0][2]
    for fraction in fractions:
        if not 0 < round(fraction * pixels) < pixels:
            raise ValueError(f"a fraction must replace some of the {pixels} pixels, not all or none; got {fraction}")
    for name, values in (("fractions", fractions), ("seeds", seeds)):
        if not values or len(set(values)) < len(values):
            raise ValueError(f"{name} must be different from each other, and one at least; got {list(values)}")
    return pixels


def _network_digest(network: nn.Module) -> str:
    return digest(*network.state_dict().values(), text=repr(network))
