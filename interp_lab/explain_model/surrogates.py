r"""Surrogates: a network summarised by a model that can be read.

A surrogate is fitted to what the *network* says about inputs, never to their true labels, and is as good as its
:func:`fidelity`. Linear models and trees come from :mod:`interp_lab.antehoc`; the graph is the network itself with
most of its channels switched off; the local surrogate speaks of one image alone.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..antehoc import LinearModel, TreeModel, fit_tree, linear_in_units, read_features, standardised
from ..backprop.feature_maps import Axes, captured, reading
from ..contract import (
    Model,
    Target,
    UnsupportedModelError,
    check_target,
    chosen_logit,
    decisions,
    differentiated,
    explaining,
    full_precision,
    logits_of,
    pick,
)

if TYPE_CHECKING:
    import networkx as nx

CHUNK = 512  # inputs that one pass of the network takes


def fidelity(surrogate: Model, model: Model, x: Tensor) -> float:
    r"""Share of inputs for which surrogate and model predict the same class.

    .. math:: \frac1N \sum_n \bigl[ \arg\max_c g_c(x_n) = \arg\max_c f_c(x_n) \bigr]

    Where one of them has a single logit, its class is 1 if the logit is positive, else 0.

    It compares with the model's labels, not with the true ones, and belongs on inputs that the surrogate has not
    seen: a deep tree has fidelity 1 on those it was fitted to. A warning says so where x holds some of them.

    Args:
        surrogate: any function from a batch ``(N, ...)`` to scores ``(N, K)``, such as the results of this file. A
            :class:`SurrogateGraph` runs the network with everything else ablated.
        model: the module or function that is explained, from ``(N, ...)`` to logits ``(N, K)``.
        x: float batch ``(N, ...)``, N at least 1.

    Raises:
        ValueError: x is not as above, or one of the two gives no ``(N, K)`` or NaN.
    """
    known = getattr(surrogate, "queried", frozenset())
    if known and (seen := len(known.intersection(_fingerprints(x)))):
        warnings.warn(
            f"{seen} of these {len(x)} inputs were used to fit the surrogate, so its fidelity is flattered; use inputs "
            "that were held out",
            stacklevel=2,
        )
    return (_labels(surrogate, x) == _labels(model, x)).float().mean().item()


def surrogate_linear(
    model: Model,
    x: Tensor,
    *,
    ridge: float = 0.0,
    features: Callable[[Tensor], Tensor] | None = None,
    names: Sequence[str] | None = None,
    queries: int = 0,
    noise: float = 0.1,
    seed: int = 0,
) -> LinearModel:
    r"""The linear model whose scores are nearest to the logits of a network.

    .. math:: \min_{W, b} \; \frac1N \sum_n \lVert W \phi(x_n) + b - f(x_n) \rVert^2 + \lambda \lVert W \rVert^2

    with standardised features :math:`\phi` in the fit; the weights returned are in their units. Among equally good
    weights those of least norm are taken. On inputs :math:`x_n \sim \mathcal N(x, \sigma^2 I)` its weights tend to
    SmoothGrad at x (Stein's identity).

    Args:
        model: a module or function from ``(N, ...)`` to logits ``(N, K)``.
        x: float batch ``(N, ...)``.
        ridge: :math:`\lambda \ge 0`.
        features, names: a function from a batch to the features ``(N, *shape)`` and their names; by default pixels.
        queries, noise, seed: this many more inputs are made from x by :func:`fresh_queries`.

    Raises:
        ValueError: x, the logits, the features or an option are not as above.
    """
    if not ridge >= 0:
        raise ValueError(f"ridge must be at least 0, got {ridge}")
    with full_precision(x.device.type):
        reader = read_features(x, features, names)
        x = _with_queries(x, queries, noise, seed)
        logits = _logits(model, x).double()
        z, mean, scale = standardised(reader(x))
        bias = logits.mean(0)
        u, s, vh = torch.linalg.svd(z, full_matrices=False)
        gain = s / (s.square() + ridge * len(x))
        gain = gain.where(s > s[0] * max(z.shape) * torch.finfo(x.dtype).eps, 0)  # directions without variance
        weight = (vh.T * gain) @ (u.T @ (logits - bias))
        return replace(linear_in_units(reader, weight.T, bias, mean, scale, x), queried=frozenset(_fingerprints(x)))


def surrogate_tree(
    model: Model,
    x: Tensor,
    *,
    depth: int | None = 5,
    features: Callable[[Tensor], Tensor] | None = None,
    names: Sequence[str] | None = None,
    queries: int = 0,
    noise: float = 0.1,
    seed: int = 0,
) -> TreeModel:
    """A decision tree fitted to the labels that a network gives. Craven & Shavlik 1996, NIPS 8.

    Args:
        model, x, features, names, queries, noise, seed: as for :func:`surrogate_linear`.
        depth: at most so many tests on the way to a leaf; None grows until the leaves are pure.

    Raises:
        ValueError: x, the logits, the features or an option are not as above.
    """
    reader = read_features(x, features, names)
    x = _with_queries(x, queries, noise, seed)
    logits = _logits(model, x)
    tree = fit_tree(reader, x, decisions(logits), max(2, logits.shape[1]), depth, seed)
    return replace(tree, queried=frozenset(_fingerprints(x)))


def fresh_queries(x: Tensor, n: int, *, noise: float = 0.1, seed: int = 0) -> Tensor:
    r"""New inputs to ask a network about: mixtures of pairs of inputs, plus noise, within the range of x.

    .. math:: \lambda x_i + (1 - \lambda) x_j + \sigma \varepsilon, \qquad \lambda \sim U(0, 1), \qquad
        \varepsilon \sim \mathcal N(0, I)

    with :math:`\sigma` the fraction ``noise`` of the range of x. Mixtures: Zhang et al. 2018, arXiv:1710.09412.

    Raises:
        ValueError: n or noise below 0.
    """
    if n < 0 or not noise >= 0:
        raise ValueError(f"n and noise must be at least 0, got {n} and {noise}")
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randint(len(x), (2, n), generator=generator).to(x.device)
    share = torch.rand(n, *[1] * (x.dim() - 1), generator=generator).to(x)
    low, high = x.aminmax()
    draws = torch.randn(n, *x.shape[1:], generator=generator).to(x)
    return (torch.lerp(x[first], x[second], share) + noise * (high - low) * draws).clamp(low, high)


def _with_queries(x: Tensor, queries: int, noise: float, seed: int) -> Tensor:
    return torch.cat([x, fresh_queries(x, queries, noise=noise, seed=seed)]).detach()


def _fingerprints(x: Tensor) -> list[int]:
    return [hash(row.tobytes()) for row in x.detach().cpu().numpy()]


def _logits(model: Model, x: Tensor) -> Tensor:
    with explaining(model, x) as x, torch.no_grad():
        if len(x) == 0:
            raise ValueError("x must hold at least one input, got an empty batch")
        return torch.cat([logits_of(model, rows) for rows in x.split(CHUNK)])


def _labels(model: Model, x: Tensor) -> Tensor:
    return decisions(_logits(model, x))


# Graph of channels


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
        queried: see :func:`fidelity`.
    """

    graph: "nx.DiGraph"
    kept: Mapping[str, Tensor]
    means: Mapping[str, Tensor]
    model: nn.Module
    queried: frozenset[int] = field(repr=False)

    def __call__(self, x: Tensor) -> Tensor:
        with explaining(self.model, x) as x, torch.no_grad():
            return _ablated(self.model, x, self.kept, self.means)


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
        x: float batch ``(N, C, H, W)``; measure :func:`fidelity` on other inputs.
        layers: names of the modules that give the channels ``(N, K, h, w)``, from input to output; None takes every
            ReLU that gives such maps. Channels on the last axis, also of tokens ``(N, T, K)``, are found as well.
        threshold: least fidelity on x, in (0, 1].

    Raises:
        ValueError: the model is no module, x or ``threshold`` are not as above, or there is no such module.
        UnsupportedModelError: no layers found, one not called once or whose channels are not known to be on one axis, or
            relevance flows past one of them (a residual connection, parallel branches, or layers in another order).
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must lie in (0, 1], got {threshold}")
    if not isinstance(model, nn.Module):
        raise ValueError(f"only a torch.nn.Module has layers with channels, got {type(model).__name__}")
    logits = _logits(model, x)
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
            agree = sum((decisions(_ablated(model, i, kept, means)) == c).sum() for i, c in _chunks(inputs, decided))
            if agree < threshold * len(x):
                kept[name][channel] = True
    graph = _flow(model, x, labels, layers, kept, relevance)
    return SurrogateGraph(graph, kept, means, model, frozenset(_fingerprints(x)))


def _chunks(x: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(x.split(CHUNK), labels.split(CHUNK), strict=True)


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


def _ablated(model: nn.Module, x: Tensor, kept: Mapping[str, Tensor], means: Mapping[str, Tensor]) -> Tensor:
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


# One image, by segments


@dataclass(frozen=True, eq=False)
class LocalSurrogate:
    """A linear model of one logit near one image: what each segment adds when it is there.

    Attributes:
        image: ``(C, H, W)``.
        segments: LongTensor ``(H, W)``, 0 .. S - 1.
        effects: ``(S,)``.
        bias: the score without any segment, according to the linear model.
        target: the class.
        r2: weighted coefficient of determination on fresh maskings of the image that were not fitted; 1 is perfect.
    """

    image: Tensor
    segments: Tensor
    effects: Tensor
    bias: float
    target: int
    r2: float

    @property
    def attribution(self) -> Tensor:
        """Each segment's effect laid over its pixels, ``(H, W)``."""
        return self.effects[self.segments]


def surrogate_local(
    model: Model,
    x: Tensor,
    target: Target = None,
    *,
    segments: Tensor | int = 40,
    n: int = 1000,
    width: float = 0.25,
    ridge: float = 1e-6,
    fill: float | Tensor | None = None,
    seed: int = 0,
) -> LocalSurrogate:
    r"""Local linear surrogate of a logit, in the manner of LIME: switch segments of one image on and off.

    .. math:: & \min_{\beta} \sum_k \pi_k \Bigl( f_c(x_k) - \beta_0 - \sum_s z_{ks} \beta_s \Bigr)^2
        + \lambda \sum_s \beta_s^2 , \\ & \pi_k = \exp\bigl(-(1 - \sqrt{\bar z_k})^2 / w^2 \bigr)

    :math:`z_{ks}`, 0 or 1 with equal probability, says whether :math:`x_k` shows segment s; :math:`1 - \sqrt{\bar z_k}`
    is the cosine distance of :math:`z_k` to all ones. The width decides what "near" means, and so the answer, unless
    the logit is additive in the segments. Ribeiro, Singh & Guestrin 2016, arXiv:1602.04938.

    Args:
        model: a module or function from ``(N, C, H, W)`` to logits ``(N, K)``.
        x: one image, ``(1, C, H, W)``.
        target: None (the predicted class) or a class.
        segments: a map ``(H, W)`` of the numbers 0 .. S - 1, or about how many :func:`segment` shall find.
        n: maskings to fit; half as many more measure ``r2``.
        width: :math:`w > 0`.
        ridge: :math:`\lambda \ge 0`.
        fill: what hides a segment, a number or a tensor that broadcasts to x; None is the mean colour of each segment.
        seed: of the maskings; the global random state is not used.

    Raises:
        ValueError: x, target, the logits or an option are not as above, or fewer maskings than segments.
    """
    if x.dim() != 4 or len(x) != 1:
        raise ValueError(f"x must be one image (1, C, H, W), got shape {tuple(x.shape)}")
    if not width > 0 or not ridge >= 0:
        raise ValueError(f"width must be above 0 and ridge at least 0, got {width} and {ridge}")
    with explaining(model, x) as x, torch.no_grad():
        if isinstance(segments, int):
            segments = segment(x[0], segments)
        segments = _check_segments(segments, x)
        count = int(segments.max()) + 1
        if n <= count:
            raise ValueError(f"n must exceed the number of segments, {count}, got {n}")
        hidden = _mean_colours(x, segments) if fill is None else torch.as_tensor(fill).to(x).expand_as(x)
        logits = logits_of(model, x)
        chosen = int(logits.argmax() if target is None else check_target(target, 1))
        pick(logits, chosen)  # refuses a class that there is not
        z = torch.rand(n + n // 2, count, generator=torch.Generator().manual_seed(seed)) < 0.5
        z[0] = True  # the image itself
        z = z.to(x.device)
        parts = [
            pick(logits_of(model, torch.where(rows[:, segments][:, None], x, hidden)), chosen)
            for rows in z.split(max(1, CHUNK * 64 * 64 // x[0, 0].numel()))
        ]
        y, z = torch.cat(parts).double(), z.double()
        pi = torch.exp(-((1 - z.mean(1).sqrt()) ** 2) / width**2)
        design = torch.cat([z, torch.ones_like(z[:, :1])], 1)
        penalty = ridge * torch.eye(count + 1).to(design)
        penalty[-1, -1] = 0
        weighted = design[:n].T * pi[:n]
        beta = torch.linalg.solve(weighted @ design[:n] + penalty, weighted @ y[:n])
        fresh, pi = y[n:], pi[n:]
        error = (pi * (fresh - design[n:] @ beta).square()).sum()
        spread = (pi * (fresh - (pi * fresh).sum() / pi.sum()).square()).sum()
        r2 = 1 - (error / spread).item() if spread > 0 else 1.0
        return LocalSurrogate(x[0], segments, beta[:-1].to(x), beta[-1].item(), chosen, r2)


def segment(image: Tensor, n: int = 40, *, compactness: float = 0.5) -> Tensor:
    """About n patches of similar colour, as a map ``(H, W)`` of the numbers 0 .. S - 1.

    k-means on colour and place, from centres on a regular grid. Like SLIC (Achanta et al. 2012,
    doi:10.1109/TPAMI.2012.120) but without its local search, so a patch may come in several pieces.

    Args:
        image: ``(C, H, W)``.
        n: number of patches, at least 1.
        compactness: how much a step from one grid centre to the next counts, beside a step of 1 in colour.

    Raises:
        ValueError: another shape, or n out of range.
    """
    if image.dim() != 3 or not 1 <= n <= image[0].numel():
        raise ValueError(f"segment needs an image (C, H, W) and n of 1 to H x W, got {tuple(image.shape)} and n={n}")
    height, width = image.shape[1:]
    spacing = (height * width / n) ** 0.5
    rows, columns = (torch.arange(round(length / spacing) or 1) for length in (height, width))
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([y, x]).double() * compactness / spacing
    points = torch.cat([image.detach().cpu().double(), place])
    rows = (rows + 0.5) * height / len(rows)
    columns = (columns + 0.5) * width / len(columns)
    centres = points[:, rows.long()[:, None], columns.long()].flatten(1).T
    points = points.flatten(1).T
    from sklearn.cluster import KMeans  # here: it takes a second to import

    found = KMeans(len(centres), init=centres.numpy(), n_init=1, max_iter=20).fit_predict(points.numpy())
    numbers = torch.from_numpy(found).long().unique(return_inverse=True)[1]  # a cluster may have become empty
    return numbers.view(height, width).to(image.device)


def _check_segments(segments: Tensor, x: Tensor) -> Tensor:
    if segments.shape != x.shape[2:] or segments.dtype != torch.int64:
        raise ValueError(
            f"segments must be a LongTensor {tuple(x.shape[2:])}, got {segments.dtype} {tuple(segments.shape)}"
        )
    numbers = segments.unique()
    if not torch.equal(numbers, torch.arange(len(numbers), device=numbers.device)):
        raise ValueError(f"segments must be numbered 0 .. S - 1 without a gap, got {numbers.tolist()[:10]}")
    return segments.to(x.device)


def _mean_colours(x: Tensor, segments: Tensor) -> Tensor:
    """The image with every segment in its mean colour."""
    onehot = torch.nn.functional.one_hot(segments.flatten()).to(x)
    means = x.flatten(2) @ onehot / onehot.sum(0)
    return means[:, :, segments]
