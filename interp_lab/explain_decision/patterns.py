r"""PatternNet and PatternAttribution: the signal that a layer's units carry, in place of the filter that reads it.

A weight :math:`w` must cancel the distractor in its input, so it need not look like the signal. For data
:math:`x = a\,y + d` with the unit's value :math:`y` uncorrelated with the distractor :math:`d`, the signal's
direction is :math:`a = \mathrm{cov}(x, y) / (w^\top \mathrm{cov}(x, y))`. The backward pass then goes through
:math:`a` (PatternNet) or :math:`w \odot a` (PatternAttribution) in place of :math:`w`.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from ..backprop.decompositions import written_out
from ..backprop.layers import Layer, LinearLayer, layer_at, layer_table, moved_layers
from ..backprop.modified_backprop import CHOICES, MAX_POOLS, PASSED, modified_gradient, nodes, paths
from ..contract import Target, UnsupportedModelError, explaining, inputs_of, logits_of, pick
from ..contract.interception import Interception, operations


@torch.inference_mode(False)  # patterns take part in graphs, wherever they were fitted
def fit_patterns(
    model: nn.Module, batches: Iterable[Tensor | tuple[Tensor, ...]], *, centred: bool = True
) -> dict[str, Tensor]:
    r"""The pattern of every unit of every layer, from one pass over the data.

    With :math:`E_+` the mean over the inputs where the unit's value :math:`y` is positive (a layer not followed by a
    ReLU takes all inputs), :math:`a = c / (w^\top c)` with

    * ``centred=True``: :math:`c = E_+[x y] - E_+[x] E_+[y]`, the covariance within :math:`y > 0`;
    * ``centred=False``: :math:`c = E_+[x y] - E_+[x] E[y]`, the paper's form, which the mean of the distractor biases.

    The sums are a convolution's own weight gradients, so memory is bounded by the weights and one batch. A unit that is
    never positive, or whose input never varies with it, gets the pattern 0. BatchNorm is folded into the layer before.

    Kindermans et al. 2018, arXiv:1705.05598 (their equation 8 is ``centred=False``).

    Args:
        model: a network of convolutions, dense layers, ReLU, pooling and BatchNorm after a layer.
        batches: float batches ``(N, ...)``, or tuples whose first entry is one (a data loader).
        centred: which of the two forms above.

    Returns:
        Layer name -> pattern, of the shape of the layer's weight.

    Raises:
        ValueError: no batch, or a batch that is not as above.
        UnsupportedModelError: a linear operation that is no convolution or dense layer with a parameter as weight.

    >>> model = nn.Sequential(nn.Linear(2, 1, bias=False))
    >>> _ = model[0].weight.data.copy_(torch.tensor([[1.0, -1.0]]))  # subtracts the distractor (1, 1)
    >>> signal, distractor = torch.randn(10_000, 1), torch.randn(10_000, 1)
    >>> patterns = fit_patterns(model, [torch.cat([signal + distractor, distractor], 1)])
    >>> patterns["0"].shape, bool(patterns["0"][0, 0] > 10 * patterns["0"][0, 1].abs())  # the signal lies along (1, 0)
    (torch.Size([1, 2]), True)
    """
    sums: dict[str, _Sums] = {}
    for batch in batches:
        with explaining(model, inputs_of(batch)) as x:
            for layer, rectified in _layers(model, x.requires_grad_()):
                if not layer.name or not layer.rows:
                    remedy = (
                        "" if isinstance(model, nn.Module) else ": give the module itself, as a function has no names"
                    )
                    raise UnsupportedModelError(
                        f"patterns need convolutions and dense layers with named weights, but met the {layer.kind} "
                        f"layer {layer.name or layer.index!r}{remedy}"
                    )
                sums.setdefault(layer.name, _Sums(layer)).add(layer, rectified)
    if not sums:
        raise ValueError("fit_patterns needs at least one batch and a model with a linear layer")
    return {name: sums.pop(name).pattern(centred) for name in tuple(sums)}


def pattern_net(model: nn.Module, x: Tensor, target: Target = None, *, patterns: Mapping[str, Tensor]) -> Tensor:
    r"""PatternNet: the logit, sent back through the patterns: an estimate of the signal in x that the logit detects.

    .. math:: S = \frac{\partial f_c}{\partial x}\Big|_{w \to a}\, f_c(x)

    Kindermans et al. 2018, arXiv:1705.05598.

    Args:
        model: the network that the patterns were fitted for.
        x: float batch ``(N, ...)``.
        target: None (the predicted class), an int, or a LongTensor ``(N,)``.
        patterns: from :func:`fit_patterns`.

    Returns:
        The signal, of the shape, dtype and device of x.

    Raises:
        ValueError: x, target or the logits are not as above, or a layer has no pattern of its shape.
        UnsupportedModelError: an operation other than convolution, dense layer, ReLU and pooling, by name.

    >>> model = nn.Sequential(nn.Linear(2, 1, bias=False))
    >>> _ = model[0].weight.data.copy_(torch.tensor([[1.0, -1.0]]))
    >>> pattern_net(model, torch.tensor([[3.0, 1.0]]), patterns={"0": torch.tensor([[1.0, 0.0]])})  # y = 2 along (1, 0)
    tensor([[2., 0.]])
    """
    return _backward(model, x, target, patterns, lambda layer, pattern: pattern)


def pattern_attribution(
    model: nn.Module, x: Tensor, target: Target = None, *, patterns: Mapping[str, Tensor]
) -> Tensor:
    r"""PatternAttribution: the logit, sent back through :math:`w \odot a`: how much each input's signal contributed.

    Of a linear unit it is :math:`w_i a_i y`, which sums to :math:`y`. Kindermans et al. 2018, arXiv:1705.05598.

    Args:
        model: the network that the patterns were fitted for.
        x: float batch ``(N, ...)``.
        target: None (the predicted class), an int, or a LongTensor ``(N,)``.
        patterns: from :func:`fit_patterns`.

    Returns:
        The attribution, of the shape, dtype and device of x.

    Raises:
        ValueError: x, target or the logits are not as above, or a layer has no pattern of its shape.
        UnsupportedModelError: an operation other than convolution, dense layer, ReLU and pooling, by name.

    >>> model = nn.Sequential(nn.Linear(2, 1, bias=False))
    >>> _ = model[0].weight.data.copy_(torch.tensor([[1.0, -1.0]]))  # subtracts the distractor (1, 1)
    >>> signal, distractor = torch.randn(1000, 1), torch.randn(1000, 1)
    >>> patterns = fit_patterns(model, [torch.cat([signal + distractor, distractor], 1)])
    >>> pattern_attribution(model, torch.tensor([[3.0, 1.0]]), patterns=patterns).round(decimals=0).abs()
    tensor([[2., 0.]])
    """
    return _backward(model, x, target, patterns, lambda layer, pattern: pattern * layer.weight)


def _backward(
    model: nn.Module,
    x: Tensor,
    target: Target,
    patterns: Mapping[str, Tensor],
    weight: Callable[[Layer, Tensor], Tensor],
) -> Tensor:
    read: dict[str, Layer] = {}

    def rule(layer: Layer, g: Tensor) -> tuple[Tensor, ...]:
        _refuse_two_forms(layer, read.setdefault(layer.name, layer))
        pattern = patterns.get(layer.name)
        if pattern is None or pattern.shape != layer.weight.shape:
            raise ValueError(f"patterns hold none of shape {tuple(layer.weight.shape)} for the layer {layer.name!r}")
        through = weight(layer, pattern.to(layer.a))
        return torch.autograd.grad(layer.apply(layer.a, through, None), [layer.a], g)

    with explaining(model, x) as x:
        table = layer_table(model, lambda layer: LinearLayer.apply(layer, rule, layer.read))
        allowed = PASSED | MAX_POOLS | CHOICES | nodes("Relu", "Mul", "Div")
        (signal,) = modified_gradient(
            model, x, partial(pick, target=target), table, allowed=allowed, start=lambda logit: logit
        )
        return signal


def _refuse_two_forms(layer: Layer, other: Layer) -> None:
    """One pattern a name: the layer must be read as the same affine map wherever it is read."""
    both = [(layer.weight, other.weight), (layer.bias, other.bias)]
    if not all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in both):
        raise UnsupportedModelError(
            f"the layer {layer.name!r} is read with and without a BatchNorm, or with several, but has one pattern: "
            "copy the layer for each of them"
        )


def _layers(model: nn.Module, x: Tensor) -> list[tuple[Layer, bool]]:
    """Every linear layer that the logits of x depend on, and whether a ReLU reads it."""
    rectified: set[Layer] = set()

    def relu(func, args, kwargs):
        rectified.update(moved_layers(args[0]))
        return func(*args, **kwargs)

    table = layer_table(model, lambda layer: LinearLayer.apply(layer, None, layer.read))
    with Interception(written_out(table | dict.fromkeys(operations("relu"), relu)), [x]):
        logits = logits_of(model, x)
    # A layer that a BatchNorm was folded into is met in both forms, of which the logits depend on one.
    read = [layer for node in paths(logits.grad_fn, [x]) if (layer := layer_at(node))]
    named: dict[str, Layer] = {}
    for layer in read:
        _refuse_two_forms(layer, named.setdefault(layer.name or str(layer.index), layer))
    return [(layer, layer in rectified) for layer in sorted(read, key=lambda layer: layer.index)]


class _Sums:
    """Running sums of one layer in float64, each of the shape of its weight or of its units."""

    def __init__(self, layer: Layer) -> None:
        self.weight = layer.weight
        self.xy = self.x = torch.zeros((), dtype=torch.float64, device=layer.weight.device)
        self.count, self.y, self.all_count, self.all_y = torch.zeros(
            4, len(self.weight), dtype=torch.float64, device=self.weight.device
        )

    def add(self, layer: Layer, rectified: bool) -> None:
        z = layer.z.detach()
        taken = (z > 0).to(z) if rectified else torch.ones_like(z)
        leaf = layer.weight.detach().requires_grad_()
        read = layer.apply(layer.a.detach(), leaf, None)
        weight_gradient = partial(torch.autograd.grad, read, leaf, retain_graph=True)
        self.xy = weight_gradient(taken * z)[0].double().add_(self.xy)
        self.x = weight_gradient(taken)[0].double().add_(self.x)
        units, kept = (each.movedim(layer.axis or 0, 0).reshape(len(leaf), -1).double() for each in (z, taken))
        self.count += kept.sum(1)
        self.y += (kept * units).sum(1)
        self.all_count += units.shape[1]
        self.all_y += units.sum(1)

    def pattern(self, centred: bool) -> Tensor:
        mean_y = self.y / self.count if centred else self.all_y / self.all_count
        result = torch.empty_like(self.weight, memory_format=torch.contiguous_format)  # its rows are written as views
        rows = max(1, 2**18 * len(result) // max(1, result.numel()))  # so many units at a time stay in the cache
        sums = (self.weight, self.xy, self.x, self.count[:, None], mean_y[:, None], result)
        for weight, xy, x, count, mean_y, out in zip(*(each.flatten(1).split(rows) for each in sums), strict=True):
            weight, covariance = weight.double(), (xy - x * mean_y) / count
            read = (weight * covariance).sum(1, keepdim=True)
            # What float32 sums leave of a unit that never varies is no pattern, nor 0 / 0 of one that is never positive.
            scale = (weight * xy / count).abs().sum(1, keepdim=True)
            out.copy_(torch.where(read.abs() > 1e-6 * scale, covariance / read, 0))
        return result
