"""A recorded network whose layers can be randomised where it runs, with the weights of ``model_randomisation``."""

import copy
import dataclasses
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from ..contract import Model, UnsupportedModelError
from ..evaluate.randomisation import model_randomisation
from .graphs import Layer, Live, agrees, answer_or_refusal, needed, probes

KINDS = {nn.Linear: "linear", nn.Conv1d: "convolution", nn.Conv2d: "convolution", nn.Conv3d: "convolution"}


def randomisable(live: Live, model: nn.Module, methods: Mapping[str, Callable[..., Tensor]], examples: Tensor) -> Live:
    r"""The same graph, whose layers may be given the weights that :func:`~interp_lab.model_randomisation` gives them.

    Nothing is added to it but where the parameters are. Those of a dense layer or a convolution with :math:`n` inputs
    to each unit are drawn from :math:`U(-1/\sqrt n, 1/\sqrt n)`, which a page can do as torch does it, for any seed. Here
    that is compared with the weights of ``model_randomisation``, and every method's graph with the method, for each layer
    alone and in cascade.

    Args:
        live: from :func:`~interp_lab.live.export`.
        model: its network.
        methods: its methods.
        examples: inputs ``(N, ...)``, as for the export.

    Raises:
        UnsupportedModelError: a layer is of another kind or is initialised in another way, or a graph gives other maps
            than the method for random weights.

    >>> from interp_lab import saliency
    >>> from interp_lab.live import export
    >>> model, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval(), torch.rand(2, 1, 2, 2)
    >>> live = randomisable(export(model, {"saliency": saliency}, x, "ab"), model, {"saliency": saliency}, x)
    >>> [layer.label for layer in live.layers]
    ['layer 2: linear', 'layer 1: linear']
    """
    states = list[dict[str, Tensor]]()

    def keep(network: Model, x: Tensor, target: Tensor) -> Tensor:
        states.append({name: value.detach().clone() for name, value in cast(nn.Module, network).named_parameters()})
        return x

    names = model_randomisation(keep, model, examples, 0).layers
    after = states[1:]
    steps, layers = live.graph.steps, list[Layer]()
    weights = {step for step in needed(live.graph, live.methods["logits"]) if steps[step].op == "weight"}
    for number, name in enumerate(names):
        layer = model.get_submodule(name)
        if type(layer) not in KINDS:
            raise UnsupportedModelError(f"a page cannot randomise layer {name!r} ({type(layer).__name__})")
        bound = 1 / math.sqrt(layer.weight[0].numel())  # type: ignore[index, union-attr]
        places = [live.graph.constant(value).step for value in layer.parameters(recurse=False)]
        if not weights.issuperset(places):
            raise UnsupportedModelError(
                f"the graph does not read the parameters of layer {name!r}, or one is a single number"
            )
        label = f"layer {len(names) - number}: {KINDS[type(layer)]}"
        layers.append(Layer(label, tuple((place, bound) for place in places)))
    live = dataclasses.replace(live, layers=tuple(layers))
    for chosen in choices(len(names)):
        network, drawn = copy.deepcopy(model), randomised(live, chosen)
        for k in chosen:
            new = {key: value for key, value in after[k].items() if key.rpartition(".")[0] == names[k]}
            network.load_state_dict(new, strict=False)
            for (step, _), key in zip(layers[k].parameters, new, strict=True):
                if not torch.equal(drawn.graph.weights[steps[step].args[0]], new[key]):
                    raise UnsupportedModelError(f"reset_parameters() of {names[k]!r} does not draw from U(-1/√n, 1/√n)")
        _check(drawn, network, methods, examples)
    return live


def randomised(live: Live, chosen: Collection[int], seed: int = 0) -> Live:
    """The network with new weights in the chosen ones of its layers, drawn as the page draws them."""
    graph, generator = copy.copy(live.graph), torch.Generator().manual_seed(seed ^ 0x5DEECE66D)
    graph.weights = dict(graph.weights)
    for number, layer in enumerate(live.layers):
        for step, bound in layer.parameters:
            fresh = torch.empty(graph.steps[step].shape).uniform_(-bound, bound, generator=generator)
            if number in chosen:
                graph.weights[graph.steps[step].args[0]] = fresh
    return dataclasses.replace(live, graph=graph)


def choices(count: int) -> Iterator[tuple[int, ...]]:
    """The layers that are random: each alone, and each with those above it."""
    for k in range(count):
        yield from {(k,), tuple(range(k + 1))}


def _check(live: Live, network: nn.Module, methods: Mapping[str, Callable[..., Tensor]], examples: Tensor) -> None:
    for name, method in methods.items():
        for k, x in enumerate(probes(examples[:1])):
            x, target = x[None], torch.tensor([k % len(live.classes)])
            want, (map_, broken) = answer_or_refusal(method, network, x, target), live.replay(name, x, target)
            if not broken and not (isinstance(want, Tensor) and agrees(map_, want)):
                raise UnsupportedModelError(f"the graph of {name} does not hold for random weights")
