"""What a method computes, as a list of ATen operations: recorded below autograd while it runs once.

A :class:`Recorder` sees every operation that reaches a kernel, those of the backward pass among them, and appends it to a
:class:`Graph`. The graph shares: the same operation on the same operands is one step, whichever method asked for it. What
changes values in place is recorded as the operation that gives the changed values. A number that Python takes out of a
tensor, to choose a branch or to refuse an input, is fixed in a recording; it is kept as a :class:`Guard`.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from ..contract import UnsupportedModelError

aten = torch.ops.aten


class Ref(NamedTuple):
    """A step whose value is an operand."""

    step: int


class Guard(NamedTuple):
    """A number that was taken out of a tensor: the recording holds where it comes out the same."""

    step: int
    value: bool | int | float


class Step(NamedTuple):
    """One operation: an ATen overload by name, ``"input"`` (its number) or ``"weight"`` (its digest)."""

    op: str
    args: tuple
    kwargs: tuple  # pairs of name and value
    shape: tuple[int, ...]
    live: bool  # depends on an input


class Graph:
    """Steps in an order in which they can be run, each once, and the weights that they read."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.weights: dict[str, Tensor] = {}
        self._places: dict[tuple, int] = {}

    def add(self, op: str, args: tuple, kwargs: tuple, shape: tuple[int, ...], live: bool) -> Ref:
        # repr tells 1 from 1.0 and from True, and NaN is itself
        place = self._places.setdefault((op, repr(args), repr(kwargs), shape), len(self.steps))
        if place == len(self.steps):
            self.steps.append(Step(op, args, kwargs, shape, live))
        return Ref(place)

    def constant(self, value: Tensor) -> Ref:
        """A tensor that the inputs do not reach; one of a single value is written out."""
        shape, dtype = tuple(value.shape), (("dtype", str(value.dtype).removeprefix("torch.")),)
        if not value.numel() or bool((value == value.flatten()[0]).all()):
            fill = value.flatten()[0].item() if value.numel() else 0
            return self.add("full.default", (list(shape), fill), dtype, shape, False)
        value = value.detach().clone().contiguous()
        digest = hashlib.sha256(value.numpy().tobytes() + repr((shape, dtype)).encode()).hexdigest()[:16]
        self.weights[digest] = value
        return self.add("weight", (digest,), (), shape, False)


class Recorder(TorchDispatchMode):
    """While active, what is computed from the inputs is appended to the graph.

    Args:
        graph: where to.
        inputs: the tensors that a later run replaces, in their order.
        forced: guards by their step, with the value that Python is given in place of the one that came out.
    """

    def __init__(self, graph: Graph, inputs: list[Tensor], forced: Mapping[int, bool]) -> None:
        super().__init__()
        self.graph, self.forced, self.guards = graph, forced, list[Guard]()
        self.known: dict[tuple, Ref | None] = {}
        self.kept: list[Tensor] = []  # memory that is freed would be given to another tensor
        for number, value in enumerate(inputs):
            self.follow(value, graph.add("input", (number,), (), tuple(value.shape), True))

    def follow(self, value: Tensor, ref: Ref) -> None:
        self.kept.append(value)
        self.known[_place(value)] = ref

    def ref(self, value: Tensor) -> Ref:
        """The step whose value this tensor is; what no recorded operation has made is a constant."""
        place = _place(value)
        if place not in self.known:
            self.follow(value, self.graph.constant(value))
        if (ref := self.known[place]) is None:
            raise UnsupportedModelError("a view of values that were changed in place afterwards is read")
        return ref

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if any(isinstance(a, Tensor) and a.device.type == "meta" for a in _leaves((args, kwargs))):
            return func(*args, **kwargs)  # a shape, no values
        if func is aten._local_scalar_dense.default:
            return self.take_out(args[0], func(*args))
        if func is aten.equal.default:
            with self:
                return args[0].shape == args[1].shape and bool((args[0] == args[1]).all())
        if func in DECOMPOSED:
            with self:
                return DECOMPOSED[func](*args, **kwargs)
        with self:  # what only calls other operations, as linear and flatten do
            if (out := func.decompose(*args, **kwargs)) is not NotImplemented:
                return out
        if func._schema.is_mutable:
            return self.in_place(func, args, kwargs)
        return self.record(func, args, kwargs, func(*args, **kwargs))

    def take_out(self, value: Tensor, number: bool | int | float) -> bool | int | float:
        place = self.ref(value).step
        if self.graph.steps[place].live:
            number = self.forced.get(place, number)
            self.guards.append(Guard(place, number))
        return number

    def in_place(self, func: Any, args: tuple, kwargs: dict) -> Any:
        """Recorded as the operation without the underscore, or without ``out``, whose value its target then has."""
        target = kwargs.pop("out", None)
        name = func._schema.name.removeprefix("aten::")
        overload = func._overloadname
        if target is None and (not name.endswith("_") or not isinstance(args[0], Tensor)):
            raise UnsupportedModelError(f"{name!r} changes values in place and cannot be recorded")
        if target is not None:
            overload = {"out": "Tensor"}.get(overload, overload.removesuffix("_out")) or "default"
        written = args[0] if target is None else target
        extent = _place(written)
        for place in self.known:
            if place[0] == extent[0] and place != extent:
                self.known[place] = None  # a view of the same memory, whose step gives its former values
        if name == "copy_":
            with self:
                result = args[1].to(written.dtype).expand(written.shape)
        elif name in ("zero_", "fill_"):
            with self:
                value = args[1] if name == "fill_" else 0
                result = torch.full(written.shape, float(value), dtype=written.dtype)
        else:
            functional = getattr(getattr(aten, name.removesuffix("_")), overload)
            with self:
                result = functional(*args, **kwargs)
        written_by = self.ref(result)
        out = func(*args, **kwargs) if target is None else func(*args, **kwargs, out=target)
        self.follow(written, written_by)
        return out

    def record(self, func: Any, args: tuple, kwargs: dict, out: Any) -> Any:
        results = [out] if isinstance(out, Tensor) else [o for o in out if isinstance(o, Tensor)] if out else []
        if not results or results[0].device.type == "meta" or func in FACTORIES:
            self.kept += results  # constants, if they are read at all
            return out
        name = str(func).removeprefix("aten.")
        operands = tree_map(lambda a: self.ref(a) if isinstance(a, Tensor) else a, (args, kwargs))
        refs = [r for r in _leaves(operands) if isinstance(r, Ref)]
        live = any(self.graph.steps[r.step].live for r in refs)
        if not live and name not in OPERATIONS:
            self.kept += results
            return out
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise UnsupportedModelError(f"{name!r} draws random numbers, which a recording would repeat")
        options = {k: _encoded(v) for k, v in operands[1].items() if k not in PLACEMENT and v is not None}
        step = self.graph.add(
            name, _encoded(operands[0]), tuple(sorted(options.items())), tuple(results[0].shape), live
        )
        if isinstance(out, Tensor):
            self.follow(out, step)
        else:
            for number, value in enumerate(out):
                if isinstance(value, Tensor):
                    self.follow(value, self.graph.add("getitem", (step, number), (), tuple(value.shape), live))
        return out


PLACEMENT = {"device", "layout", "pin_memory", "memory_format", "non_blocking"}
# Their values do not depend on the operand, which gives its shape alone.
FACTORIES = {
    aten.zeros_like.default, aten.ones_like.default, aten.full_like.default, aten.empty_like.default,
    aten.new_zeros.default, aten.new_ones.default, aten.new_full.default, aten.new_empty.default,
    aten.new_empty_strided.default,
}  # fmt: skip


def _place(value: Tensor) -> tuple:
    """What tells a tensor from others: where its numbers lie. An empty one lies nowhere, so it is itself."""
    start = value.untyped_storage().data_ptr() if value.numel() else id(value)
    return start, value.storage_offset(), tuple(value.shape), value.stride(), value.dtype


def _leaves(value: Any) -> list:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple) and not isinstance(value, Ref):
        return [leaf for part in value for leaf in _leaves(part)]
    return [value]


def _encoded(value: Any) -> Any:
    if isinstance(value, Ref):
        return value
    if isinstance(value, tuple):
        return tuple(_encoded(part) for part in value)
    if isinstance(value, list):
        return [_encoded(part) for part in value]
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    return None if isinstance(value, torch.device | torch.layout | torch.memory_format) else value


# Operations in terms of others, so that an interpreter need not know them.


def _convolution_backward(g, x, w, bias_sizes, stride, padding, dilation, transposed, output_padding, groups, mask):
    if mask[1] or mask[2]:
        raise UnsupportedModelError("'convolution_backward' differentiates to a weight")
    if transposed:
        return aten.convolution(g, w, None, stride, padding, dilation, False, [0] * len(stride), groups), None, None
    left = [
        n - ((m - 1) * s - 2 * p + d * (k - 1) + 1)
        for n, m, s, p, d, k in zip(x.shape[2:], g.shape[2:], stride, padding, dilation, w.shape[2:], strict=True)
    ]
    return aten.convolution(g, w, None, stride, padding, dilation, True, left, groups), None, None


def _max_pool_backward(g, x, kernel, stride, padding, dilation, ceil_mode, at):
    flat = torch.zeros_like(x).flatten(2)
    return flat.scatter_add(2, at.flatten(2), g.flatten(2)).view(x.shape)


def _slice_backward(g, sizes, dim, start, end, step):
    if step != 1:
        raise UnsupportedModelError(f"a slice with step {step}")
    start = min(start + sizes[dim] if start < 0 else start, sizes[dim])
    before, after = list(g.shape), list(g.shape)
    before[dim], after[dim] = start, sizes[dim] - start - g.shape[dim]
    return torch.cat([g.new_zeros(before), g, g.new_zeros(after)], dim)


def _kthvalue(x, k, dim=-1, keepdim=False):
    value, at = torch.topk(x, x.shape[dim] - k + 1, dim)
    value, at = value.narrow(dim, -1, 1), at.narrow(dim, -1, 1)
    return (value, at) if keepdim else (value.squeeze(dim), at.squeeze(dim))


def _stack(parts, dim=0):
    parts = [part.unsqueeze(dim) for part in parts]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _nan_to_num(x, nan=None, posinf=None, neginf=None):
    limits = torch.finfo(x.dtype)
    for hit, value, default in (
        (x.isnan(), nan, 0.0),
        (x > limits.max, posinf, limits.max),
        (x < limits.min, neginf, limits.min),
    ):
        x = torch.where(hit, torch.full((), default if value is None else value, dtype=x.dtype), x)
    return x


def _softplus(x, beta=1, threshold=20):
    return torch.where(x * beta > threshold, x, (1 + (x * beta).exp()).log() / beta)


def _softplus_backward(g, x, beta, threshold):
    return torch.where(x * beta > threshold, g, g * (x * beta).sigmoid())


def _sign(a):
    return (a > 0).to(a) - (a < 0).to(a)


def _scale_and_shift(x, weight, bias, mean, variance, eps):
    scale = (variance + eps).rsqrt() * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - mean * scale
    shape = [1, -1] + [1] * (x.dim() - 2)
    return scale.view(shape), shift.view(shape)


def _batch_norm(x, weight, bias, mean, variance, training, momentum, eps):
    if training:
        raise UnsupportedModelError("'batch_norm' uses the statistics of the batch")
    scale, shift = _scale_and_shift(x, weight, bias, mean, variance, eps)
    return x * scale + shift, x.new_zeros(0), x.new_zeros(0)


def _batch_norm_backward(g, x, weight, mean, variance, saved_mean, saved_variance, training, eps, mask):
    if training or mask[1] or mask[2]:
        raise UnsupportedModelError("'batch_norm' differentiates to its weight")
    return g * _scale_and_shift(x, weight, None, mean, variance, eps)[0], None, None


def _bool(mask):
    if mask.dtype != torch.bool:
        raise UnsupportedModelError("an operation on the bits of integers")
    return mask


DECOMPOSED: dict[Any, Callable] = {
    aten.convolution_backward.default: _convolution_backward,
    aten.max_pool2d_with_indices_backward.default: _max_pool_backward,
    aten.threshold_backward.default: lambda g, a, threshold: torch.where(a <= threshold, 0.0, g),
    aten.slice_backward.default: _slice_backward,
    aten.kthvalue.default: _kthvalue,
    aten.stack.default: _stack,
    aten.nan_to_num.default: _nan_to_num,
    aten.copysign.Tensor: lambda a, sign: torch.where(sign < 0, -a.abs(), a.abs()),
    aten.sign.default: _sign,
    aten.sgn.default: _sign,
    aten.softplus.default: _softplus,
    aten.softplus_backward.default: _softplus_backward,
    aten.masked_fill.Scalar: lambda a, mask, value: torch.where(mask, torch.full((), value, dtype=a.dtype), a),
    aten.native_batch_norm.default: _batch_norm,
    aten.native_batch_norm_backward.default: _batch_norm_backward,
    aten.sigmoid_backward.default: lambda g, y: g * y * (1 - y),
    aten.tanh_backward.default: lambda g, y: g * (1 - y * y),
    aten.rsub.Scalar: lambda a, other, alpha=1: -a * alpha + other,
    aten.addcmul.default: lambda a, b, c, value=1: a + value * b * c,
    aten.bitwise_and.Tensor: lambda a, b: torch.logical_and(_bool(a), b),
    aten.bitwise_or.Tensor: lambda a, b: torch.logical_or(_bool(a), b),
    aten.bitwise_not.default: lambda a: torch.logical_not(_bool(a)),
}

# What an interpreter has to know: those of live.js, which a test compares with these.
OPERATIONS = frozenset(
    [
        "_to_copy.default",
        "abs.default",
        "add.Scalar",
        "add.Tensor",
        "addmm.default",
        "alias.default",
        "all.default",
        "amax.default",
        "amin.default",
        "any.default",
        "bmm.default",
        "cat.default",
        "clamp.default",
        "clone.default",
        "constant_pad_nd.default",
        "convolution.default",
        "detach.default",
        "div.Scalar",
        "div.Tensor",
        "eq.Scalar",
        "eq.Tensor",
        "exp.default",
        "expand.default",
        "full.default",
        "gather.default",
        "ge.Scalar",
        "ge.Tensor",
        "gt.Scalar",
        "gt.Tensor",
        "index.Tensor",
        "isnan.default",
        "le.Scalar",
        "le.Tensor",
        "log.default",
        "logical_and.default",
        "logical_not.default",
        "logical_or.default",
        "lt.Scalar",
        "lt.Tensor",
        "max.default",
        "max_pool2d_with_indices.default",
        "maximum.default",
        "mean.default",
        "mean.dim",
        "min.default",
        "minimum.default",
        "mm.default",
        "mul.Scalar",
        "mul.Tensor",
        "ne.Scalar",
        "ne.Tensor",
        "neg.default",
        "permute.default",
        "pow.Tensor_Scalar",
        "reciprocal.default",
        "relu.default",
        "rsqrt.default",
        "scatter_add.default",
        "select.int",
        "sigmoid.default",
        "slice.Tensor",
        "sqrt.default",
        "squeeze.dim",
        "squeeze.dims",
        "squeeze.default",
        "sub.Scalar",
        "sub.Tensor",
        "sum.default",
        "sum.dim_IntList",
        "t.default",
        "tanh.default",
        "topk.default",
        "transpose.int",
        "unsqueeze.default",
        "_unsafe_view.default",
        "upsample_bilinear2d.default",
        "upsample_bilinear2d.vec",
        "view.default",
        "where.self",
        "where.Scalar",
        "where.ScalarOther",
        "where.ScalarSelf",
    ]
)


def is_unsupported(step: Step) -> bool:
    """Whether no interpreter can run the step: an operation that is none of its, or one in double precision."""
    kinds = dict(step.kwargs)
    return (
        step.op not in OPERATIONS | {"input", "weight", "getitem"}
        or kinds.get("dtype") == "float64"
        or kinds.get("alpha", 1) != 1
        or not kinds.keys() <= {"dtype", "alpha"}
        or any(isinstance(v, float) and math.isnan(v) for v in _leaves(step.args))
    )
