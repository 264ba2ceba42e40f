"""The channels of a network that suffice for its decisions, as a graph."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...backprop.feature_maps import Axes, captured, reading
from ...contract import UnsupportedModelError, chosen_logit, decisions, differentiated, explaining
from .queries import ROWS, answers, fingerprints

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True, eq=False)
class SurrogateGraph:
    """The channels of a network that suffice for its decisions, and how relevance flows between them.

    As a function it is the network with every other channel of these layers held at its mean.

    Attributes:
        graph: nodes (layer, channel) with attributes ``relevance`` (the mean over the inputs) and ``depth`` (position
            of the layer); the classes are the nodes ("logit", class). Edges carry ``weight``, the mean relevance that
            flows along them, from the layer above to the one below; arrows point the way of the forward pass.
        kept: layer -> bool mask ``(K,)`` of the channels kept.
        means: layer -> mean of every channel ``(K,)``.
        model: the network.
        queried: see :func:`~interp_lab.fidelity`.
    """

    graph: "nx.DiGraph"
    kept: Mapping[str, Tensor]
    means: Mapping[str, Tensor]
    model: nn.Module
    queried: frozenset[int] = field(repr=False)

    def __call__(self, x: Tensor) -> Tensor:
        with explaining(self.model, x) as x, torch.no_grad():
            return ablated(self.model, x, self.kept, self.means)


@torch.inference_mode(False)
def surrogate_graph(
    model: nn.Module, x: Tensor, *, layers: Sequence[str] | None = None, threshold: float = 0.95
) -> SurrogateGraph:
    r"""A sparse graph of channels: a network with all channels ablated that its decisions do not need.

    The channels are tried one after the other, the least relevant first. A channel is held at its mean over the
    inputs and their places, together with those given up before it, and is given up if the network still decides as
    it did on at least the share ``threshold`` of the inputs. The relevance of a channel, :math:`R_k`, and the part of it
    that flows along an edge to channel j of the next layer are

    .. math:: R_k &= \sum_p a_{kp} \frac{\partial f_c}{\partial a_{kp}} = \sum_j R_{k \leftarrow j}, \\
        R_{k \leftarrow j} &= \sum_p a_{kp} \sum_q \frac{\partial a_{jq}}{\partial a_{kp}}
        \frac{\partial f_c}{\partial a_{jq}}

    for the predicted class c: gradient times activation, which is LRP-epsilon on a ReLU network. Channels are ablated,
    not edges: an edge says how much flows, not that it alone suffices. Pass the images of a few classes to see
    what decides between those. The idea of a graph that explains a network: Zhang et al. 2018, arXiv:1708.01785.

    Args:
        model: a network whose listed layers follow one another.
        x: float batch ``(N, C, H, W)``; measure :func:`~interp_lab.fidelity` on other inputs.
        layers: names of the modules that give the channels ``(N, K, h, w)``, from input to output; None takes every
            ReLU that gives such maps. Channels on the last axis, also of tokens ``(N, T, K)``, are found as well.
        threshold: least fidelity on x, in (0, 1].

    Raises:
        ValueError: the model is no module, x or ``threshold`` are not as above, or there is no such module.
        UnsupportedModelError: no layers found, one not called once or whose channels are not known to be on one axis, or
            relevance flows past one of them (a residual connection, parallel branches, or layers in another order).

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from interp_lab import surrogate_graph
        >>> network = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(3, 2))
        >>> weight, bias = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]), torch.tensor([0.0, 0.5])
        >>> state = {"0.weight": torch.ones(3, 1, 1, 1), "3.weight": weight, "3.bias": bias}
        >>> _ = network.load_state_dict(state)  # class 0 where the channel in the middle is above 1/2
        >>> surrogate_graph(network, torch.linspace(0, 1, 10).view(10, 1, 1, 1)).kept
        {'1': tensor([False,  True, False])}
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must lie in (0, 1], got {threshold}")
    if not isinstance(model, nn.Module):
        raise ValueError(f"only a torch.nn.Module has layers with channels, got {type(model).__name__}")
    logits = answers(model, x)
    labels, decided = logits.argmax(1), decisions(logits)
    layers = list(layers) if layers is not None else _relu_layers(model, x[:1])
    if not layers or len(set(layers)) < len(layers):
        raise ValueError(f"layers must be one or more different names of modules, got {layers}")
    means, relevance = _means_and_relevance(model, x, labels, layers)

    kept = {name: torch.ones_like(r, dtype=torch.bool) for name, r in relevance.items()}
    order = sorted((r.abs().item(), name, k) for name, rs in relevance.items() for k, r in enumerate(rs))
    with explaining(model, x) as inputs, torch.no_grad():
        for _, name, channel in order:
            kept[name][channel] = False
            agree = sum((decisions(ablated(model, i, kept, means)) == c).sum() for i, c in _chunks(inputs, decided))
            if agree < threshold * len(x):
                kept[name][channel] = True
    graph = _flow(model, x, labels, layers, kept, relevance)
    return SurrogateGraph(graph, kept, means, model, frozenset(fingerprints(x)))


def _chunks(x: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(x.split(ROWS), labels.split(ROWS), strict=True)


def _relu_layers(model: nn.Module, x: Tensor) -> list[str]:
    """Names of the ReLU modules that give feature maps, in the order of their calls."""
    found: list[str] = []
    with ExitStack() as hooks, explaining(model, x) as x, torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.ReLU):
                note = lambda _, args, out, name=name: found.append(name) if out.dim() > 2 else None  # noqa: E731
                hooks.callback(module.register_forward_hook(note).remove)
        model(x.clone())
    if not found:
        raise UnsupportedModelError("no nn.ReLU gives maps (N, K, h, w) here: name the layers whose channels to use")
    return found


def ablated(model: nn.Module, x: Tensor, kept: Mapping[str, Tensor], means: Mapping[str, Tensor]) -> Tensor:
    """What the model gives where channels that are not kept are at their mean."""

    def held(name: str) -> Callable[[Tensor], Tensor]:
        def read(maps: Tensor) -> Tensor:
            channels = (-1, *[1] * (maps.dim() - 2))
            return torch.where(kept[name].view(channels), maps, means[name].view(channels))

        return read

    copy = x.clone()  # which the model may work in
    with reading(model, Axes(copy), {name: held(name) for name in kept}, on_grid=False):
        return model(copy)


@contextmanager
def _maps(model: nn.Module, x: Tensor, labels: Tensor, layers: Sequence[str]) -> Iterator[tuple[list[Tensor], Tensor]]:
    """The maps of the layers, with their graph, and the logit of each input's label."""
    with explaining(model, x) as x:
        with captured(model, Axes(x.requires_grad_()), layers, on_grid=False) as kept:
            chosen = chosen_logit(model, x, labels)
        for name, maps in kept.items():
            if maps.dim() < 3:
                raise UnsupportedModelError(f"layer {name!r} must give maps (N, K, ...), got {tuple(maps.shape)}")
        yield [kept[name] for name in layers], chosen


def _gradients(maps: Sequence[Tensor], chosen: Tensor, layers: Sequence[str]) -> list[Tensor]:
    """The gradient of the logits to each layer's maps, all of which must flow through the next layer."""
    gradients = differentiated(chosen.sum(), maps, retain_graph=True)
    for k in range(len(maps) - 1):
        (through,) = differentiated(maps[k + 1], [maps[k]], gradients[k + 1], retain_graph=True)
        if (through - gradients[k]).abs().max() > 1e-3 * gradients[k].abs().max():
            raise UnsupportedModelError(
                f"relevance flows from {layers[k]!r} to the logits past {layers[k + 1]!r}: pass layers=[...] that follow "
                "one another, such as the outputs of the residual blocks"
            )
    return list(gradients)


def _means_and_relevance(model: nn.Module, x: Tensor, labels: Tensor, layers: Sequence[str]) -> tuple[dict, dict]:
    """Mean activation and mean relevance of every channel, ``(K,)`` by layer."""
    sums: dict[str, Tensor] = {}
    flows: dict[str, Tensor] = {}
    for rows, classes in _chunks(x, labels):
        with _maps(model, rows, classes, layers) as (maps, chosen):
            for name, a, g in zip(layers, maps, _gradients(maps, chosen, layers), strict=True):
                sums[name] = sums.get(name, 0) + a.detach().flatten(2).mean(2).sum(0)
                flows[name] = flows.get(name, 0) + (a * g).detach().flatten(2).sum((0, 2))
    return {name: s / len(x) for name, s in sums.items()}, {name: f / len(x) for name, f in flows.items()}


def _flow(
    model: nn.Module,
    x: Tensor,
    labels: Tensor,
    layers: Sequence[str],
    kept: Mapping[str, Tensor],
    relevance: Mapping[str, Tensor],
) -> "nx.DiGraph":
    """The graph of the channels kept: relevance of each, and the flow along each edge between them."""
    import networkx as nx

    graph = nx.DiGraph()
    channels = {name: mask.nonzero().flatten().tolist() for name, mask in kept.items()}
    for depth, name in enumerate(layers):
        for channel in channels[name]:
            graph.add_node((name, channel), relevance=relevance[name][channel].item(), depth=depth)
    for c in labels.unique().tolist():
        graph.add_node(("logit", c), relevance=0.0, depth=len(layers))

    def add(below: str, above: tuple[str, int], through: Tensor) -> None:
        """``through``: relevance ``(K,)`` of the layer below that comes from the node above."""
        for channel in channels[below]:
            edge = (below, channel), above
            old = graph.edges[edge]["weight"] if graph.has_edge(*edge) else 0.0
            graph.add_edge(*edge, weight=old + through[channel].item() / len(x))

    for rows, classes in _chunks(x, labels):
        with _maps(model, rows, classes, layers) as (maps, chosen):
            gradients = _gradients(maps, chosen, layers)
            top = (maps[-1] * gradients[-1]).detach().flatten(2).sum(2)
            for c in classes.unique().tolist():
                add(layers[-1], ("logit", c), top[classes == c].sum(0))
                graph.nodes["logit", c]["relevance"] += chosen[classes == c].sum().item() / len(x)
            for k in range(len(layers) - 1):
                for channel in channels[layers[k + 1]]:
                    start = torch.zeros_like(maps[k + 1])
                    start[:, channel] = gradients[k + 1][:, channel]
                    (back,) = differentiated(maps[k + 1], [maps[k]], start, retain_graph=True)
                    add(layers[k], (layers[k + 1], channel), (maps[k] * back).detach().flatten(2).sum((0, 2)))
    return graph
