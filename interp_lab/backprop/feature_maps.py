"""The feature maps of a layer: which axis of its output holds the channels, and along which axes of x its places run.

No shape tells ``(N, C, H, W)`` from ``(N, H, W, C)``. So the operations are followed while the model runs: a
convolution puts its channels on axis 1 and a linear layer on the last, a permutation moves them, and what works
entry by entry leaves them where they are. Where that does not settle it the layer is refused, and the caller says with
``reshape`` how the maps lie in the layer's output.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import combinations
from math import isqrt, prod
from weakref import ref

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..contract import Model, UnsupportedModelError, owners
from ..contract.interception import tensors_in, torch_function

Layer = str | nn.Module
Reshape = Callable[[Tensor], Tensor]
Label = int | str | tuple[tuple[int, int], ...] | None
Labels = tuple[Label, ...]

CHANNEL = "channel"
CONVOLUTIONS = {f"{name}{d}d" for name in ("conv", "conv_transpose") for d in (1, 2, 3)}
MATRIX_PRODUCTS = {"matmul", "__matmul__", "__rmatmul__", "mm", "bmm"}
CELLS = {"lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"}
# Every token is answered by one of its own, which other tokens act on.
OF_TOKENS = {
    "lstm", "gru", "rnn_tanh", "rnn_relu", "scaled_dot_product_attention", "multi_head_attention_forward",
}  # fmt: skip
# Each new entry is a sum over entries of another axis: only what the operation says of its axes is known of them.
SUMS_OF_PRODUCTS = MATRIX_PRODUCTS | OF_TOKENS | {"addmm", "addbmm", "baddbmm", "einsum", "tensordot", "bilinear"}
# What was at one place of x is at another one then.
REPLACED = {"flip", "fliplr", "flipud", "roll", "rot90", "grid_sample", "grid_sampler", "stft", "istft"}
MOVES = {
    "view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "permute", "transpose", "swapaxes", "swapdims",
    "movedim", "moveaxis", "t", "adjoint", "squeeze", "unsqueeze", "expand", "expand_as", "select", "narrow", "split",
    "split_with_sizes", "chunk", "tensor_split", "unbind", "__getitem__",
}  # fmt: skip
TRANSPOSED = {getattr(Tensor, name).__get__ for name in ("T", "mT", "H", "mH")}
PARTS = {getattr(Tensor, name).__get__ for name in ("real", "imag", "data")}
REDUCTIONS = {"mean", "sum", "amax", "amin", "max", "min", "logsumexp", "std", "var", "prod", "median"}


def tokens_to_maps(grid: Sequence[int] | None = None, *, prefix_tokens: int = 1) -> Reshape:
    """The ``reshape`` of a transformer: from tokens ``(N, T, D)`` to maps ``(N, D, *grid)``, row by row.

    Args:
        grid: number of patches along each axis of the picture, such as ``(14, 14)``; None is a square.
        prefix_tokens: how many tokens before the patches are left out, such as class, distillation and register tokens.

    The function returned raises a ValueError for another number of tokens.

    >>> tokens_to_maps((14, 14), prefix_tokens=1)(torch.zeros(2, 197, 768)).shape
    torch.Size([2, 768, 14, 14])
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
    """The ``reshape`` of a layer with its channels last: ``(N, ..., C) -> (N, C, ...)``.

    >>> channels_first(torch.zeros(1, 7, 7, 3)).shape
    torch.Size([1, 3, 7, 7])
    """
    return output.movedim(-1, 1)


class Axes(TorchFunctionMode):
    """While active, says of each value that is computed from x what its axes are.

    The label of an axis is 0 for the batch, :data:`CHANNEL`, or the number of the axis of x along which it runs, also in
    steps of a window; for axes joined row by row their numbers and sizes; a name of its own for an axis that a
    convolution found along none of x; None where nothing is known.
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.shape = x.shape
        self.known: dict[int, tuple[ref[Tensor], Labels]] = {id(x): (ref(x), tuple(range(x.dim())))}

    def labels(self, tensor: Tensor) -> Labels | None:
        """The labels of a value's axes; None if it was not computed from x."""
        known, labels = self.known.get(id(tensor), (None, None))
        return labels if known is not None and known() is tensor else None

    def name(self, tensor: Tensor, labels: Labels | None) -> None:
        """Give a value the labels of another that is equal to it; none without labels."""
        if labels is not None:
            self.known[id(tensor)] = ref(tensor), labels

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.__name__ == "__get__" and func not in TRANSPOSED and func not in PARTS:  # shape, dtype and the like
            return func(*args, **kwargs)
        operands = tensors_in(args, kwargs.values())
        known = {id(a): labels for a in operands if (labels := self.labels(a)) is not None}
        shape = operands[0].shape if known else None  # before the call, which may change it
        out, func = func(*args, **kwargs), torch_function(func)
        if not known or func.__name__.startswith("new_"):
            return out
        results = operands[:1] if func is Tensor.__setitem__ else tensors_in([out])
        for result in results:
            first = result is results[0]
            self.known[id(result)] = ref(result), self.label(func, args, kwargs, shape, known, result, first)
            self.met(func, operands, known, result)
        return out

    def met(self, func: Callable, operands: list[Tensor], known: dict[int, Labels], result: Tensor) -> None:
        """Called with every value computed from x."""

    def label(
        self, func: Callable, args, kwargs, shape: Sequence[int], known: dict[int, Labels], result: Tensor, first: bool
    ) -> Labels:
        """The labels of a result, the first one or another; ``known`` holds those of the operands by id."""
        name, unknown = func.__name__, (None,) * result.dim()
        of_first = known.get(id(args[0] if args else kwargs.get("input")))
        if name in CONVOLUTIONS:
            if not of_first or len(of_first) != result.dim():
                return unknown
            places = of_first[2:]
            if not are_places(places):
                places = tuple(f"place {axis}" for axis in range(2, result.dim()))
            return of_first[0], CHANNEL, *places
        if name == "linear" or name in CELLS or name in OF_TOKENS:
            # Of the other results, such as a last state, nothing is known.
            if not of_first or len(of_first) != result.dim() or not (first or name in CELLS):
                return unknown
            return *of_first[:-1], CHANNEL
        if name in SUMS_OF_PRODUCTS:
            of_product = _product if name in MATRIX_PRODUCTS else _einsum if name == "einsum" else None
            labels = of_product(name, args, known) if of_product and len(known) == 1 else None
            return labels if labels and len(labels) == result.dim() else unknown
        if func is Tensor.__setitem__:
            target, index, value = args
            filled, given = known.get(id(target)), known.get(id(value))
            if filled and given:
                here = _moved(Tensor.__getitem__, (target, index), {}, shape, filled, target[index])
                agree = len(here) == len(given) and all(
                    a == b or None in (a, b) for a, b in zip(here, given, strict=True)
                )
                return filled if agree else unknown
            return filled or unknown
        if func in TRANSPOSED or name in MOVES:
            moved = _moved(func, args, kwargs, shape, of_first, result) if of_first and args else unknown
            if not of_first or name != "__getitem__" or moved != unknown or result.dim() != len(of_first):
                return moved
            return _elsewhere(of_first, _chosen(args[1], result.dim()))  # a list chooses entries, and moves no axis
        if name.endswith("_") and name[:-1] in MOVES:
            return unknown
        if name == "stack":
            dim = kwargs.get("dim", args[1] if len(args) > 1 else 0) % result.dim()
            agreed = tuple(map(_agreed, zip(*known.values(), strict=True)))
            return (*agreed[:dim], None, *agreed[dim:])
        dims = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if name in REDUCTIONS and of_first and len(of_first) > result.dim() > 0 and isinstance(dims, int | Sequence):
            gone = {d % len(of_first) for d in ([dims] if isinstance(dims, int) else dims)}
            return tuple(label for axis, label in enumerate(of_first) if axis not in gone)
        same = [labels for labels in known.values() if len(labels) == result.dim()]
        agreed = tuple(map(_agreed, zip(*same, strict=True))) if same else unknown
        if name == "index_select":
            return _elsewhere(agreed, [kwargs.get("dim", args[1] if len(args) > 1 else 0)])
        return _elsewhere(agreed) if name in REPLACED or name.startswith("fft_") else agreed


def without(shape: Sequence, axis: int) -> tuple:
    """A shape, or labels, without one axis."""
    return *shape[:axis], *shape[axis + 1 :]


def are_places(labels: Sequence) -> bool:
    """Whether these are the labels of different known axes of a picture, a series or a volume, none of them joined."""
    single = all(isinstance(label, int | str) and label not in (0, CHANNEL) for label in labels)
    return single and len(set(labels)) == len(labels)


def _elsewhere(labels: Labels, axes: Sequence[int] | None = None) -> Labels:
    """The labels after entries changed places along these axes, or any: no place is at that of x any more."""
    moved = range(len(labels)) if axes is None else [axis % len(labels) for axis in axes]
    return tuple(
        f"place {label}" if axis in moved and isinstance(label, int) and label else label
        for axis, label in enumerate(labels)
    )


def _chosen(index: object, dims: int) -> list[int] | None:
    """The axes on which a subscript that keeps all axes has a list; None where it has more than slices and lists."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(part is None or (isinstance(part, Tensor) and part.dim() != 1) for part in parts):
        return None
    if (at := next((i for i, part in enumerate(parts) if part is ...), None)) is not None:
        parts[at : at + 1] = [slice(None)] * (dims - len(parts) + 1)
    return [axis for axis, part in enumerate(parts) if not isinstance(part, slice)]


def _product(name: str, args: Sequence, known: dict[int, Labels]) -> Labels | None:
    """The labels of the product of a value with a constant matrix or vector, on either side."""
    left, right = args[:2] if name != "__rmatmul__" else args[1::-1]
    if id(left) in known:
        labels = known[id(left)]
        return labels[:-1] if right.dim() == 1 else (*labels[:-1], CHANNEL)
    labels = known[id(right)]
    kept = () if isinstance(left, Tensor) and left.dim() == 1 else (CHANNEL,)
    return (*labels[:-2], *kept, labels[-1]) if len(labels) > 1 else None


def _einsum(name: str, args: Sequence, known: dict[int, Labels]) -> Labels | None:
    """The labels of the sum of products of a value with constants; an axis of the constants alone holds channels."""
    inputs, arrow, output = str(args[0]).replace(" ", "").partition("->")
    operands = tensors_in(args[1:])
    terms = [(t, known[id(a)]) for t, a in zip(inputs.split(","), operands, strict=False) if id(a) in known]
    if not arrow or "." in inputs or len(terms) != 1 or len(set(terms[0][0])) != len(terms[0][1]):
        return None
    of_letter = dict(zip(*terms[0], strict=True))
    return tuple(of_letter.get(letter, CHANNEL) for letter in output)


def _agreed(labels: tuple) -> Label:
    """The label of an axis whose operands have these: sums with x meet its own channels, not yet known as such."""
    axes = {label for label in labels if isinstance(label, int)}
    names = set(labels) - axes - {None}
    if CHANNEL in names:
        return CHANNEL
    return next(iter(axes or names)) if len(axes or names) == 1 else None


def _moved(func: Callable, args, kwargs, shape: Sequence[int], labels: Labels, result: Tensor) -> Labels:
    """The labels after a call that moves, joins or splits axes: it is repeated on a view that varies along one label.

    An axis of the result has the label if the view varies along it, which its stride tells. Where a label would be
    joined with another the result is no view; axes of x that are joined row by row are found by a view that varies
    along all of them.
    """

    def strides_of(varying: Sequence[int]) -> Sequence[int]:
        """The strides of the result if these axes vary row by row and the others do not."""
        strides, step = [0] * len(shape), 1
        for axis in reversed(varying):
            strides[axis], step = step, step * shape[axis]
        probe = torch.empty_strided(shape, strides, device="meta")
        try:
            moved = tensors_in([func(probe, *args[1:], **kwargs)])[0]
        except RuntimeError:  # of `view`, which never copies
            return [0] * result.dim()
        return moved.stride() if moved is probe or moved._is_view() else [0] * result.dim()

    found: list[list[Label]] = [[] for _ in result.shape]
    for label in set(labels) - {None}:
        strides = strides_of([axis for axis, other in enumerate(labels) if other == label])
        varying = [axis for axis, size in enumerate(result.shape) if strides[axis] and size > 1]
        for axis, stride in enumerate(strides):
            if not stride or (varying and axis not in varying):  # an axis of size 1 may have its neighbour's
                continue
            if label == CHANNEL or len(varying) < 2:
                found[axis].append(label)
            elif isinstance(label, tuple):
                found[axis].append(_run(label, stride, result.shape[axis]))
            elif label and stride == max(strides[other] for other in varying):
                found[axis].append(label)  # it counts windows, and the other axes the entries in one
    axes = [names[0] if len(names) == 1 else None for names in found]
    lost = [axis for axis, size in enumerate(result.shape) if axes[axis] is None and size > 1]
    of_axis = {axis: label for axis, label in enumerate(labels) if isinstance(label, int) and label > 0}
    of_x = list(of_axis)
    for start, end in combinations(range(len(of_x) + 1), 2):
        if not lost or end - start < 2 or result.dim() >= len(shape):
            continue
        strides, digits = (
            strides_of(of_x[start:end]),
            tuple((of_axis[axis], shape[axis]) for axis in of_x[start:end]),
        )
        for axis in lost:
            axes[axis] = _run(digits, strides[axis], result.shape[axis]) or axes[axis]
    # Of several axes of size 1, all but one may be new.
    return tuple(None if size == 1 and axes.count(a) > 1 else a for a, size in zip(axes, result.shape, strict=True))


def _run(digits: tuple[tuple[int, int], ...], stride: int, size: int) -> Label:
    """The label of an axis of this stride and size in what runs row by row over axes of x, given by number and size."""
    for start in range(len(digits)):
        for end in range(start + 1, len(digits) + 1):
            run = digits[start:end]
            if stride == prod(n for _, n in digits[end:]) and size == prod(n for _, n in run):
                return run[0][0] if len(run) == 1 else run
    return None


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
        # The network goes on with a copy: a later operation in place must not change what is kept.
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
    remedy = (
        f"pass reshape=, a function from this output to maps ({count}, K, ...), such as channels_first, or "
        "`lambda maps: maps` if it gives them"
        if on_grid
        else "take another layer, such as a convolution, or a dense layer over the last axis"
    )
    if len(out) != count or labels[0] not in (0, None) or 0 in labels[1:]:
        raise UnsupportedModelError(
            f"{name} gives {shape} for {count} inputs (crops, frames or windows in the batch, or time first?): {remedy}"
        )
    if out.dim() == 2:
        return out, lambda maps: maps
    tokens = on_grid and out.dim() == 3 and axis == 2
    if axis is None or (on_grid and not tokens and not are_places(without(labels, axis)[1:])):
        raise UnsupportedModelError(
            f"which axis of {name}'s output {shape} holds the channels, and which the places, is not known: {remedy}"
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
    moved, selected = reshape(out), out.flatten()[index if inside else 0]
    if not inside or not torch.allclose(moved, selected, rtol=0, atol=0, equal_nan=True):
        raise ValueError("reshape may only select and rearrange the entries of the layer's output, each at most once")
    axes.name(selected, axes.labels(moved))

    def back(maps: Tensor) -> Tensor:
        return out.flatten().scatter(0, index.flatten(), maps.flatten()).view(out.shape)

    return selected, back
