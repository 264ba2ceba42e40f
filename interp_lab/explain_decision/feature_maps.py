"""The feature maps of a layer: which axis of its output holds the channels, and along which axes of x its places run.

No shape tells ``(N, C, H, W)`` from ``(N, H, W, C)``. So the operations are followed while the model runs: a
convolution puts its channels on axis 1 and a linear layer on the last, a permutation moves them, and what works
entry by entry leaves them where they are. Where that does not settle it the layer is refused, and the caller says with
``reshape`` how the maps lie in the layer's output.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from math import isqrt, prod
from weakref import ref

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .contract import Model, UnsupportedModelError, owners
from .interception import tensors_in

Layer = str | nn.Module
Reshape = Callable[[Tensor], Tensor]
Labels = tuple[int | str | None, ...]

CHANNEL = "channel"
CONVOLUTIONS = {f"{name}{d}d" for name in ("conv", "conv_transpose") for d in (1, 2, 3)}
MATRIX_PRODUCTS = {"matmul", "__matmul__", "__rmatmul__", "mm", "bmm"}
# Each new entry is a sum over entries of another axis, so that no axis of the operands is known to survive.
SUMS_OF_PRODUCTS = MATRIX_PRODUCTS | {
    "addmm", "addbmm", "baddbmm", "einsum", "tensordot", "bilinear", "scaled_dot_product_attention",
    "multi_head_attention_forward", "lstm", "gru", "rnn_tanh", "rnn_relu",
}  # fmt: skip
MOVES = {
    "view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "permute", "transpose", "swapaxes", "swapdims",
    "movedim", "moveaxis", "t", "adjoint", "squeeze", "unsqueeze", "expand", "expand_as", "select", "narrow", "split",
    "split_with_sizes", "chunk", "tensor_split", "unbind", "__getitem__",
}  # fmt: skip
TRANSPOSED = {getattr(Tensor, name).__get__ for name in ("T", "mT", "H", "mH")}
REDUCTIONS = {"mean", "sum", "amax", "amin", "max", "min", "logsumexp", "std", "var", "prod", "median"}


def tokens_to_maps(grid: Sequence[int] | None = None, *, prefix_tokens: int = 1) -> Reshape:
    """The ``reshape`` of a transformer: from tokens ``(N, T, D)`` to maps ``(N, D, *grid)``, row by row.

    Args:
        grid: number of patches along each axis of the picture, such as ``(14, 14)``; None is a square.
        prefix_tokens: how many tokens before the patches are left out, such as class, distillation and register tokens.

    The function returned raises a ValueError for another number of tokens.
    """

    def reshape(tokens: Tensor) -> Tensor:
        if tokens.dim() != 3:
            raise ValueError(f"tokens_to_maps needs tokens (N, T, D), got shape {tuple(tokens.shape)}")
        patches = tokens[:, prefix_tokens:]
        sides = (isqrt(patches.shape[1]),) * 2 if grid is None else tuple(grid)
        if prod(sides) != patches.shape[1]:
            raise ValueError(
                f"{tokens.shape[1]} tokens less {prefix_tokens} before the patches are no grid of "
                f"{' x '.join(map(str, sides))}: set grid and prefix_tokens"
            )
        return patches.unflatten(1, sides).movedim(-1, 1)

    return reshape


def channels_first(output: Tensor) -> Tensor:
    """The ``reshape`` of a layer with its channels last: ``(N, ..., C) -> (N, C, ...)``."""
    return output.movedim(-1, 1)


class Axes(TorchFunctionMode):
    """While active, says of each value that is computed from x what its axes are.

    The label of an axis is 0 for the batch, :data:`CHANNEL`, or the number of the axis of x along which it runs; a name
    of its own for an axis that a convolution found along none of x; None where nothing is known, as after a split
    into windows. An axis of x becomes the channels where the first layer sums over it.
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.shape, self.channel = x.shape, None
        self.known = {id(x): (ref(x), tuple(range(x.dim())))}

    def labels(self, tensor: Tensor) -> Labels | None:
        """The labels of a value's axes; None if it was not computed from x."""
        known, labels = self.known.get(id(tensor), (None, None))
        return labels if known is not None and known() is tensor else None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.__name__ == "__get__" and func not in TRANSPOSED:  # shape, dtype and the like
            return func(*args, **kwargs)
        operands = tensors_in(args, kwargs.values())
        known = {id(a): labels for a in operands if (labels := self.labels(a)) is not None}
        shape = operands[0].shape if known else None  # before the call, which may change it
        out = func(*args, **kwargs)
        for result in tensors_in([out]) if known else ():
            self.known[id(result)] = ref(result), self.label(func, args, kwargs, shape, known, result)
            self.met(func, operands, known, result)
        return out

    def met(self, func: Callable, operands: list[Tensor], known: dict[int, Labels], result: Tensor) -> None:
        """Called with every value computed from x."""

    def label(self, func: Callable, args, kwargs, shape: Sequence[int], known: dict[int, Labels], result: Tensor):
        """The labels of a result; ``known`` holds those of the operands by id."""
        name, unknown = func.__name__, (None,) * result.dim()
        of_first = known.get(id(args[0] if args else kwargs.get("input")))
        one_weight = name == "linear" or (name in MATRIX_PRODUCTS and len(known) == 1)
        if name in CONVOLUTIONS or (one_weight and of_first):
            summed = 1 if name in CONVOLUTIONS else -1
            if not of_first or len(of_first) != result.dim():
                return unknown
            if self.channel is None and of_first[summed] in range(1, result.dim()):
                self.channel = of_first[summed]
            labels = list(of_first)
            labels[summed] = CHANNEL
            if name in CONVOLUTIONS and not are_places(labels[2:]):
                labels[2:] = [f"place {axis}" for axis in range(2, len(labels))]
            return tuple(labels)
        if name in SUMS_OF_PRODUCTS:
            return unknown
        if func in TRANSPOSED or name in MOVES:
            moved = _moved(func, args, kwargs, shape, of_first, result) if of_first and args else unknown
            if name != "__getitem__" or moved != unknown:  # else entries chosen by a list, which moves no axis
                return moved
        if name.endswith("_") and name[:-1] in MOVES:
            return unknown
        dims = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if name in REDUCTIONS and of_first and len(of_first) > result.dim() > 0 and isinstance(dims, int | Sequence):
            gone = {d % len(of_first) for d in ([dims] if isinstance(dims, int) else dims)}
            return tuple(label for axis, label in enumerate(of_first) if axis not in gone)
        same = [labels for labels in known.values() if len(labels) == result.dim()]
        return tuple(map(_agreed, zip(*same, strict=True))) if same else unknown

    def places(self, labels: Labels, channel: int) -> tuple[int, ...]:
        """The axes of x along which the axes of maps with these labels run, without batch and channels."""
        found = without(labels, channel)[1:]
        if found and are_places(found) and all(isinstance(label, int) for label in found):
            return tuple(found)
        return tuple(axis for axis in range(1, len(self.shape)) if axis != (self.channel or 1))


def without(shape: Sequence, axis: int | None) -> tuple | None:
    """A shape, or labels, without one axis; None without None."""
    return None if axis is None else (*shape[:axis], *shape[axis + 1 :])


def are_places(labels: Sequence) -> bool:
    """Whether these are the labels of different known axes of a picture, a series or a volume."""
    return not {0, None, CHANNEL} & set(labels) and len(set(labels)) == len(labels)


def _agreed(labels: tuple) -> int | str | None:
    """The label of an axis whose operands have these: sums with x meet its own channels, not yet known as such."""
    axes = {label for label in labels if isinstance(label, int)}
    names = set(labels) - axes - {None}
    if CHANNEL in names:
        return CHANNEL
    return next(iter(axes or names)) if len(axes or names) == 1 else None


def _moved(func: Callable, args, kwargs, shape: Sequence[int], labels: Labels, result: Tensor) -> Labels:
    """The labels after a call that moves, joins or splits axes: it is repeated on a view that varies along one label.

    An axis of the result has the label if the view varies along it, which its stride tells. Where a label would be
    joined with another the result is no view, and the label is lost.
    """
    found: list[set] = [set() for _ in result.shape]
    for label in set(labels) - {None}:
        strides, step = [0] * len(shape), 1
        for axis in reversed(range(len(shape))):
            if labels[axis] == label:
                strides[axis], step = step, step * shape[axis]
        probe = torch.empty_strided(shape, strides, device="meta")
        try:
            moved = tensors_in([func(probe, *args[1:], **kwargs)])[0]
        except RuntimeError:  # of `view`, which never copies
            continue
        if moved is probe or moved._is_view():
            for axis, stride in enumerate(moved.stride()):
                if stride:
                    found[axis].add(label)
    axes = [names.pop() if len(names) == 1 else None for names in found]
    long = [a for a, size in zip(axes, result.shape, strict=True) if size > 1]
    # An axis of size 1 may be new, with the stride of its neighbour; the parts of a place may be joined in another order.
    return tuple(
        None if (axes.count(a) > 1 if size == 1 else a != CHANNEL and long.count(a) > 1) else a
        for a, size in zip(axes, result.shape, strict=True)
    )


def channel_axis(labels: Labels | None) -> int | None:
    """The one axis with the channels, or the only one left when batch and places are known; else None."""
    if labels is None:
        return None
    if CHANNEL in labels:
        return labels.index(CHANNEL) if labels.count(CHANNEL) == 1 else None
    return labels.index(None) if labels[:1] == (0,) and labels.count(None) == 1 else None


def find_module(model: Model, layer: Layer) -> nn.Module:
    """The module of that name in the model, or in the one that a function holds; or the module itself.

    Raises:
        ValueError: there is no such module, or several.
    """
    named = [pair for owner in owners(model) for pair in owner.named_modules()]
    found = {id(m): m for name, m in named if (name == layer if isinstance(layer, str) else m is layer)}
    if len(found) == 1:
        return found.popitem()[1]
    if isinstance(layer, nn.Module) and not isinstance(model, nn.Module):
        return layer  # a function may reach it in ways that cannot be seen
    raise ValueError(f"the model has no module {layer if isinstance(layer, str) else type(layer).__name__!r}")


@contextmanager
def reading(
    model: Model,
    axes: Axes,
    reads: Mapping[Layer, Callable[[Tensor], Tensor | None]],
    reshape: Reshape | None = None,
    *,
    on_grid: bool = True,
) -> Iterator[None]:
    """Call each layer's function with the feature maps ``(N, K, ...)`` that the layer gives in this block.

    What the function returns goes on through the network in their place; None leaves them as they are.

    Args:
        model, axes: the model and ``Axes(x)`` of the very tensor x that it is called with.
        reads: layer, or its name, -> function.
        reshape: from the layer's output to the maps; it may only select and rearrange entries. None finds the axis of
            the channels.
        on_grid: whether the places must form the grid of a picture; else also tokens ``(N, T, D)``, whose grid is
            not known, and vectors ``(N, K)`` are taken.

    Raises:
        ValueError: the model has no such module.
        UnsupportedModelError: a layer gives something else, its channels are not known to be on one axis, or it was not
            called once when the block ends.
    """
    calls = dict.fromkeys(reads, 0)

    def hook(layer: Layer, read: Callable[[Tensor], Tensor | None]):
        name = f"layer {layer!r}" if isinstance(layer, str) else "the layer"

        def run(module: nn.Module, args: tuple, out: Tensor) -> Tensor | None:
            calls[layer] += 1
            maps, back = _maps_of(out, axes, reshape, on_grid, name)
            new = read(maps)
            return None if new is None else back(new)

        return run

    with ExitStack() as hooks:
        for layer, read in reads.items():
            handle = find_module(model, layer).register_forward_hook(hook(layer, read))
            hooks.callback(handle.remove)
        with axes:
            yield
    for layer, number in calls.items():
        if number != 1:
            name = f"layer {layer!r}" if isinstance(layer, str) else "the layer"
            raise UnsupportedModelError(f"{name} must be called once, but was called {number} times")


@contextmanager
def captured(
    model: Model, axes: Axes, layers: Sequence[Layer], reshape: Reshape | None = None, *, on_grid: bool = True
) -> Iterator[dict[Layer, Tensor]]:
    """A table that holds the feature maps which each layer gives in this block, for :func:`reading`'s arguments."""
    kept: dict[Layer, Tensor] = {}

    def keep(layer: Layer) -> Callable[[Tensor], Tensor]:
        # The network goes on with a copy: a later operation in place shall not change what is kept.
        return lambda maps: kept.setdefault(layer, maps).clone()

    with reading(model, axes, {layer: keep(layer) for layer in layers}, reshape, on_grid=on_grid):
        yield kept


def _maps_of(
    out: Tensor, axes: Axes, reshape: Reshape | None, on_grid: bool, name: str
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The maps ``(N, K, ...)`` in a layer's output, and the function that puts others in their place."""
    if not isinstance(out, Tensor) or (out.dim() < 3 and (on_grid or out.dim() < 2)):
        got = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
        raise UnsupportedModelError(f"{name} must give feature maps (N, K, ...), got {got}")
    if reshape is not None:
        return _selected(out, axes, reshape, name)
    labels = axes.labels(out) or (None,) * out.dim()
    count, shape, axis = axes.shape[0], tuple(out.shape), channel_axis(labels)
    if len(out) != count or labels[0] not in (0, None):
        raise UnsupportedModelError(
            f"{name} gives {shape} for {count} inputs (crops, frames or windows in the batch?): pass reshape=, a "
            f"function from this output to maps ({count}, K, ...)"
        )
    if out.dim() == 2:
        return out, lambda maps: maps
    tokens = on_grid and out.dim() == 3 and axis == 2
    if axis is None or (on_grid and not tokens and not are_places(without(labels, axis)[1:])):
        raise UnsupportedModelError(
            f"which axis of {name}'s output {shape} holds the channels, and which the places, is not known: pass reshape=, "
            "a function from this output to maps (N, K, ...), such as channels_first, or `lambda maps: maps` if it gives them"
        )
    if tokens:
        raise UnsupportedModelError(
            f"{name} gives tokens {shape}, not maps: pass reshape=tokens_to_maps(...), which says how many tokens "
            "precede the patches and what grid these form (channels_first for a series)"
        )
    return (out, lambda maps: maps) if axis == 1 else (out.movedim(axis, 1), lambda maps: maps.movedim(1, axis))


def _selected(out: Tensor, axes: Axes, reshape: Reshape, name: str) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Where ``reshape`` takes each entry from tells its maps, and where a change of these goes."""
    index = reshape(torch.arange(out.numel(), device=out.device).view(out.shape))
    if not isinstance(index, Tensor) or index.dim() < 3 or len(index) != axes.shape[0]:
        got = tuple(index.shape) if isinstance(index, Tensor) else type(index).__name__
        raise ValueError(
            f"reshape must give maps ({axes.shape[0]}, K, ...) of {name}'s output {tuple(out.shape)}, got {got}"
        )
    unique = index.dtype == torch.int64 and len(index.unique()) == index.numel()
    inside = unique and 0 <= index.min() and index.max() < out.numel()
    if not inside or not torch.allclose(reshape(out), out.flatten()[index], rtol=0, atol=0, equal_nan=True):
        raise ValueError("reshape may only select and rearrange the entries of the layer's output, each at most once")

    def back(maps: Tensor) -> Tensor:
        return out.flatten().scatter(0, index.flatten(), maps.flatten()).view(out.shape)

    return out.flatten()[index], back
