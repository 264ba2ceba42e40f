r"""Grad-CAM: where in the last feature maps the class is seen.

It needs the gradient only down to those maps, so it costs less than a saliency map, and shows no more detail than
they have.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import Node

from ..backprop.feature_maps import (
    CONVOLUTIONS,
    MATRIX_PRODUCTS,
    SUMS_OF_PRODUCTS,
    Axes,
    Labels,
    Layer,
    Reshape,
    are_places,
    captured,
    channel_axis,
    without,
)
from ..contract import Model, Target, UnsupportedModelError, chosen_logit, differentiated, explaining
from .deconvnet_and_guided_backprop import guided_backprop

WEIGHTED = SUMS_OF_PRODUCTS | CONVOLUTIONS | {"linear"}
LEAST_SHIFT = 0.05  # between the gradients of the halves of a map, as a share of the axis of x along which it runs
INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}
EARLIER = "such as the first norm of the last transformer block, as behind its attention only the class token may act"


def grad_cam(
    model: Model,
    x: Tensor,
    target: Target = None,
    *,
    layer: Layer | None = None,
    reshape: Reshape | None = None,
    relu: bool = True,
    upsample: bool = True,
) -> Tensor:
    r"""Grad-CAM: the feature maps, weighted by the mean gradient of the logit over each map.

    .. math:: R = \mathrm{relu}\Bigl(\sum_k \alpha_k A_k\Bigr), \qquad
        \alpha_k = \operatorname{mean}_{ij} \frac{\partial f_c}{\partial A_{k,ij}}

    On a network that ends in global average pooling and a dense layer it is the class activation map, up to the factor
    1 / (number of places). A map of zeros says that no place speaks for the class; what speaks against it, the signed
    map shows (``relu=False``). Selvaraju et al. 2017, arXiv:1610.02391.

    A vision transformer has no last convolution, but tokens that stand for patches of the picture::

        grad_cam(vit_b_16(), x, layer="encoder.layers.encoder_layer_11.ln_1", reshape=tokens_to_maps())

    Args:
        model: a module or function from ``(N, ...)`` to logits ``(N, K)``.
        x: float batch ``(N, C, ...)``. Where the network itself moves the axes of x first, as in ``(N, T, D)``, the maps
            are laid over the axes along which they run, from edge to edge, as if the network had not cropped or padded x.
        target: None (the predicted class), an int, or a LongTensor ``(N,)``.
        layer: the module, or its name, whose output is A. None takes the last feature maps of the resolution of the last
            convolution that has more than one place, after its BatchNorm, ReLU and residual addition.
        reshape: from the output of ``layer`` to maps ``(N, K, ...)``, a choice and order of its entries; for tokens
            :func:`~interp_lab.tokens_to_maps`, for channels on the last axis :func:`~interp_lab.channels_first`. None
            finds the axis of the channels.
        relu: whether to set negative values to 0.
        upsample: interpolate linearly to the size of x, the same for every channel; else ``(N, 1, ...)`` at A's size.

    Returns:
        The attribution, non-negative if ``relu``, of the shape of x unless ``upsample`` is False, and of its dtype and
        device.

    Raises:
        ValueError: x, target, ``reshape`` or the logits are not as above, or there is no module of that name.
        UnsupportedModelError: the layer gives no feature maps or not known where their channels are, is not called once, or
            does not act on the logit; it is not known along which axes of x the maps run, and ``upsample`` is set; without a
            layer: no convolution, later layers with weights act on tokens, or the
            logit does not depend on the last maps alone (an image encoded twice, parallel branches).

    >>> model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten(), nn.Linear(4, 1, bias=False))
    >>> _ = model[0].weight.data.fill_(1.0), model[2].weight.data.fill_(0.5)
    >>> grad_cam(model, torch.tensor([[[[0.0, 2.0], [4.0, 6.0]]]]), upsample=False)  # mean gradient 0.5 times the map
    tensor([[[[0., 1.],
              [2., 3.]]]])
    """
    if layer is None and reshape is not None:
        raise ValueError("reshape says how the output of a layer is laid out: pass layer= too")
    with explaining(model, x) as x:
        x.requires_grad_()
        if layer is None:
            axes, maps, channel, chosen = _last_maps(model, x, target)
        else:
            axes = Axes(x)
            with captured(model, axes, [layer], reshape) as kept:
                chosen = chosen_logit(model, x, target)
            maps, channel = kept[layer], 1
        (gradient,) = differentiated(chosen.sum(), [maps], materialize_grads=False)
        if gradient is None:
            raise UnsupportedModelError("the feature maps do not act on the logit")
        if reshape is not None and not gradient.any():
            raise UnsupportedModelError(
                f"the selected tokens do not act on the logit: pass an earlier layer, {EARLIER}"
            )
        alpha = gradient.movedim(channel, 1).flatten(2).mean(2)
        cam = torch.einsum("nk,nk...->n...", alpha, maps.detach().movedim(channel, 1))[:, None]
        cam = cam.relu() if relu else cam
        return _laid_over(x, cam, _places(axes, x, maps, channel)) if upsample else cam


def guided_grad_cam(
    model: Model, x: Tensor, target: Target = None, *, layer: Layer | None = None, reshape: Reshape | None = None
) -> Tensor:
    """Guided Grad-CAM: guided backpropagation times Grad-CAM, detail only where the class is seen.

    Selvaraju et al. 2017, arXiv:1610.02391.

    Args:
        model: a network from ``(N, ...)`` to logits ``(N, K)`` with feature maps, whose only nonlinearities are ReLU and
            max-pooling.
        x: float batch ``(N, ...)``.
        target: None (the predicted class), an int, or a LongTensor ``(N,)``.
        layer, reshape: the layer whose maps are weighted, and how they lie in its output; see :func:`grad_cam`.

    Returns:
        The attribution, of the shape, dtype and device of x.

    Raises:
        ValueError: x, target or the logits are not as above.
        UnsupportedModelError: the model has no ReLU or no feature maps, or an operation without a rule, by name.

    >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4))
    >>> guided_grad_cam(model, torch.rand(5, 1, 6, 6)).shape
    torch.Size([5, 1, 6, 6])
    """
    return guided_backprop(model, x, target) * grad_cam(model, x, target, layer=layer, reshape=reshape)


def _places(axes: Axes, x: Tensor, maps: Tensor, channel: int) -> list[int | None]:
    """The axes of x along which the maps run, by their labels, or else by the gradient; None for a single place.

    The gradients of the two halves of the maps lie at one another's side along the axis of x that they run along, and
    in the same places along every other.

    Raises:
        UnsupportedModelError: neither of them tells.
    """
    labels = without(axes.labels(maps) or (None,) * maps.dim(), channel)[1:]
    if are_places(labels) and all(isinstance(label, int) for label in labels):
        return list(labels)
    found: list[int | None] = []
    for axis in (axis for axis in range(1, maps.dim()) if axis != channel):
        if maps.shape[axis] == 1:
            found.append(None)
            continue
        # In fewer axes than x has, some of x may be joined, which halves do not show.
        shifts = _shifts(x, maps, axis) if maps.requires_grad and maps.dim() >= x.dim() else [0.0]
        first, *others = sorted(range(len(shifts)), key=lambda a: -abs(shifts[a]))
        clear = shifts[first] > LEAST_SHIFT and all(abs(shifts[a]) < shifts[first] / 3 for a in others)
        if not clear or first + 1 in found:
            raise UnsupportedModelError(
                f"maps {tuple(maps.shape)} cannot be laid over x {tuple(x.shape)}, as it is not known along which of its axes "
                "they run (the model mixes, mirrors or moves its places): upsample=False gives the map as it is"
            )
        found.append(first + 1)
    return found


def _shifts(x: Tensor, maps: Tensor, axis: int) -> list[float]:
    """How far the gradient of the maps' second half along an axis lies beyond that of the first, as a share of each axis of x."""
    half, centres = maps.shape[axis] // 2, []
    for start in (0, maps.shape[axis] - half):
        signal = torch.zeros_like(maps)
        signal.narrow(axis, start, half).fill_(1)
        (gradient,) = differentiated(maps, [x], signal, retain_graph=True)
        mass = [gradient.abs().transpose(0, a).flatten(1).sum(1) for a in range(1, x.dim())]
        at = [torch.linspace(0, 1, len(m), dtype=m.dtype, device=m.device) for m in mass]
        centres.append([float((m * where).sum() / m.sum()) for m, where in zip(mass, at, strict=True)])  # NaN if zero
    return [second - first for first, second in zip(*centres, strict=True)]


def _laid_over(x: Tensor, cam: Tensor, places: list[int | None]) -> Tensor:
    """A map ``(N, 1, ...)`` interpolated to the size of x along the axes ``places``, and repeated along all others."""
    if len([axis for axis in places if axis]) > len(INTERPOLATION):
        raise UnsupportedModelError(
            f"maps {tuple(cam.shape)} cannot be laid over x {tuple(x.shape)}: upsample=False gives them as they are"
        )
    # A single place lies over everything.
    cam = cam.squeeze([2 + place for place, axis in enumerate(places) if axis is None])
    axes = [axis for axis in places if axis]
    if axes:
        sizes = [x.shape[axis] for axis in axes]
        cam = F.interpolate(cam, sizes, mode=INTERPOLATION[len(axes)], align_corners=False)
    cam = cam[:, 0].permute(0, *(1 + axes.index(axis) for axis in sorted(axes)))
    for axis in range(1, x.dim()):
        cam = cam if axis in axes else cam.unsqueeze(axis)
    return cam.expand_as(x).contiguous()


class _LastMaps(Axes):
    """Keeps the values since the last convolution that are maps of its resolution, and what acts on tokens since."""

    def __init__(self, x: Tensor) -> None:
        super().__init__(x)
        self.maps: list[Tensor] = []
        self.convolution: list[Tensor] = []  # its operands
        self.tokens: tuple[str, list[Tensor]] | None = None  # name and operands of the first such operation

    def met(self, func: Callable, operands: list[Tensor], known: dict[int, Labels], result: Tensor) -> None:
        name = func.__name__
        if not result.requires_grad or result.dim() < 2:
            return
        inputs = [known[id(a)] for a in operands if id(a) in known]
        if name in CONVOLUTIONS and result.dim() > 2 and channel_axis(inputs[0]) in (None, 1):
            if result.shape[2:].numel() > 1:
                self.maps, self.convolution, self.tokens = [result], operands, None
        elif self.maps and self._grid(result) == self._grid(self.maps[0]):
            if "softmax" not in name:
                self.maps.append(result)
        elif self.maps and name in WEIGHTED:
            # One vector for each input is a head; a product that sums over the places of both operands is a pooling.
            head = sum(size > 1 for size in result.shape) - (len(result) > 1) < 2
            if not head and not (name in MATRIX_PRODUCTS and len(inputs) == 2 and _sums_over_places(*inputs)):
                self.tokens = self.tokens or (name, operands)
        elif self.maps and result.shape == self.maps[-1].shape and "softmax" not in name:
            self.maps.append(result)  # they may be maps, with their axes in an order that is not known

    def _grid(self, maps: Tensor) -> tuple[int, ...] | None:
        """The sizes of the batch and the places; None where it is not known which axes these are."""
        labels = self.labels(maps)
        channel = channel_axis(labels)
        if labels is None or channel is None or not are_places(without(labels, channel)[1:]):
            return None
        return without(maps.shape, channel)


def _sums_over_places(first: Labels, second: Labels) -> bool:
    channels = channel_axis(first), channel_axis(second)
    return None not in channels and channels[0] != len(first) - 1 and channels[1] != len(second) - 2


def _last_maps(model: Model, x: Tensor, target: Target) -> tuple[Axes, Tensor, int, Tensor]:
    """The labels of the model's values, the last maps through which all of the logit flows, their channel axis, and the logit."""
    with _LastMaps(x) as axes:
        chosen = chosen_logit(model, x, target)
    if not axes.maps:
        raise UnsupportedModelError(
            "Grad-CAM needs feature maps, but the model calls no convolution with several places on what is seen to be "
            "computed from x: pass "
            "layer=, and reshape=, a function from its output to maps (N, K, ...)"
        )
    last = f"the last convolution{_module_of(model, axes.convolution)}"
    if axes.tokens:
        name, operands = axes.tokens
        raise UnsupportedModelError(
            f"after {last} {name!r}{_module_of(model, operands)} acts on tokens, so that its maps are not the last: pass "
            f"layer=, {EARLIER}, and reshape=tokens_to_maps(...) if its output is tokens (N, T, D)"
        )
    if len(axes.maps[0]) != len(x):
        raise UnsupportedModelError(
            f"{last} gives maps {tuple(axes.maps[0].shape)} for {len(x)} inputs (crops or frames in the batch?): pass layer=, "
            "and reshape=, a function from its output to maps (N, K, ...)"
        )
    for maps in reversed(axes.maps):
        if not any(getattr(node, "variable", None) is x for node in _before(chosen.grad_fn, maps.grad_fn)):
            channel = channel_axis(axes.labels(maps))
            if channel is None or axes._grid(maps) is None:
                raise UnsupportedModelError(
                    f"after {last} come values of the shape of its maps, but which axis holds the channels is not known: "
                    "pass layer=, and reshape=, a function from its output to maps (N, K, ...)"
                )
            return axes, maps, channel, chosen
    if not any(maps.grad_fn in _before(chosen.grad_fn) for maps in axes.maps):
        raise UnsupportedModelError(f"the feature maps of {last} do not act on the logit: pass layer=")
    raise UnsupportedModelError(
        f"the logit depends on x also past the maps of {last} (it runs for several images, or there are parallel "
        "branches): pass layer=, a module that is called once, or explain a function of one of the images"
    )


def _before(root: Node | None, end: Node | None = None) -> set[Node]:
    """The nodes of the graph from the root on, without what lies beyond ``end``."""
    seen, stack = set(), [root]
    while stack:
        node = stack.pop()
        if node is not None and node is not end and node not in seen:
            seen.add(node)
            stack.extend(parent for parent, _ in node.next_functions)
    return seen


def _module_of(model: Model, operands: Sequence[Tensor]) -> str:
    """ " (module 'name')" for the module whose parameter is among the operands, else ""."""
    named = model.named_parameters() if isinstance(model, nn.Module) else ()
    name = next((name for name, p in named if any(p is a for a in operands)), "")
    return f" (module {name.rpartition('.')[0]!r})" if "." in name else ""
