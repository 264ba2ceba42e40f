r"""Watching and replacing the operations of a running model, however they are called.

While one of these :class:`torch.overrides.TorchFunctionMode` is active, every call of torch on its thread - by a
module, a function, a method, in place or not - comes by here first. :class:`Guard` refuses what makes an answer change
though nothing changed: random numbers, and statistics of the batch. :class:`Interception` hands the operations of a
table to their rules, and refuses a value that is computed from x without a gradient and then used.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextvars import ContextVar, Token
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._ops import OpOverload, OpOverloadPacket
from torch.autograd import Function
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

Rule = Callable[..., Any]  # called as rule(func, args, kwargs) in place of func(*args, **kwargs)


class UnsupportedModelError(ValueError):
    """A method met an operation or a model that it has no right answer for; the message names it."""


def operations(*names: str) -> list[Callable]:
    """The functions and methods of torch with these names, in place or not."""
    spaces = (torch, F, Tensor, torch._C._nn, torch.special)
    return [getattr(s, n) for name in names for n in (name, name + "_") for s in spaces if hasattr(s, n)]


def torch_function(func: Callable) -> Callable:
    """torch's own function for one of ``torch.ops.aten``, of which exported programs consist; any other as it is."""
    if not isinstance(func, OpOverload | OpOverloadPacket):
        return func
    packet = func.overloadpacket if isinstance(func, OpOverload) else func
    space, _, name = packet._qualified_op_name.partition("::")
    spaces = (torch, torch._C._nn, Tensor) if space == "aten" else ()
    return next((getattr(s, name) for s in spaces if hasattr(s, name)), func)


def name_of(func: Callable) -> str:
    """The name of a function of torch; that of the attribute for the getter of one, such as ``Tensor.data``."""
    getter = getattr(func, "__self__", None) if func.__name__ == "__get__" else None
    return getattr(getter, "__name__", func.__name__)


def tensors_in(*groups: Iterable) -> list[Tensor]:
    """The tensors in these arguments and in lists of them; much faster than torch's own search of any structure."""
    found: list[Tensor] = []
    for value in chain(*groups):
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += tensors_in(value)
    return found


DROPOUTS = operations("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
# Every row of the result depends on that row alone, if it has the rows of what it is computed from.
ROWWISE = frozenset(
    operations(
        *[f"{name}{d}d" for d in (1, 2, 3) for name in ("conv", "conv_transpose", "max_pool", "avg_pool")],
        *[f"adaptive_{name}_pool{d}d" for d in (1, 2, 3) for name in ("max", "avg")],
        *[f"__{side}{name}__" for side in ("", "r", "i") for name in ("add", "sub", "mul", "truediv", "pow")],
        "linear", "batch_norm", "relu", "relu6", "leaky_relu", "hardtanh", "hardsigmoid", "hardswish", "sigmoid", "tanh",
        "gelu", "silu", "elu", "softplus", "add", "sub", "mul", "div", "pow", "square", "neg", "abs", "exp", "log", "sqrt",
        "clamp", "flatten", "view", "reshape", "cat", "contiguous", "clone",
    )
    + DROPOUTS
)  # fmt: skip


class Guard(TorchFunctionMode):
    """Refuses dropout that is left on and BatchNorm in train mode; knows what may mix rows.

    Attributes:
        mixes: whether an operation was called that may make a row's result depend on other rows.
        normalised: what BatchNorm without statistics of its own was given: right of weights, which are constants.
        types: those of the values that were computed.
    """

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows, self.mixes = rows, False
        self.normalised: list[Tensor] = []
        self.types: set[torch.dtype] = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, call, func = kwargs or {}, func, torch_function(func)
        if func is Tensor.register_hook:
            return without_hook()
        if func in DROPOUTS:
            _refuse_active_dropout(func, args, kwargs)
        elif func in BATCH_NORMS:
            self.normalised += without_statistics(func, args, kwargs)
        elif kwargs.get("generator") is not None:
            raise UnsupportedModelError(f"{name_of(func)!r} draws random numbers in eval mode, so the model is random")
        out = call(*args, **kwargs)
        if isinstance(out, Tensor):
            self.types.add(out.dtype)
            if func in BATCH_NORMS and len(out) == 1 and out.requires_grad and out.device.type == "cpu":
                out.register_hook(Tensor.contiguous)  # of one row torch misreads a gradient that comes from tokens
        if torch.compiler.is_compiling():  # shapes are not known while torch.compile traces
            self.mixes = True
        elif not self.mixes and isinstance(out, Tensor | tuple | list) and not isinstance(out, torch.Size):
            read = args[0] if args and isinstance(args[0], Tensor) else out
            shapes = [getattr(value, "shape", ())[:1] for value in (out, read)]
            self.mixes = func not in ROWWISE or shapes != [(self.rows,)] * 2
        return out


def without_hook(*_) -> RemovableHandle:
    """In place of ``Tensor.register_hook``, as a hook may change the gradient."""
    return RemovableHandle(OrderedDict())


def _refuse_active_dropout(func: Callable, args: tuple, kwargs: dict) -> None:
    p = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
    if p > 0 and (args[2] if len(args) > 2 else kwargs.get("training", kwargs.get("train", True))):
        raise UnsupportedModelError(
            f"{func.__name__!r} is active in eval mode, so that the model is random: pass training=self.training to it"
        )


# Where each stands among the arguments: the running mean, and whether statistics of the batch are used.
BATCH_NORMS = {F.batch_norm: (1, 5), torch.batch_norm: (3, 5)}


BATCH_STATISTICS = (
    "batch_norm uses the statistics of the batch, so images are not independent: give it running statistics "
    "(track_running_stats=True, and some batches in train mode)"
)


def without_statistics(func: Callable, args: tuple, kwargs: dict) -> list[Tensor]:
    """What a BatchNorm without statistics of its own normalises, if this is one."""
    place, training = BATCH_NORMS[func]
    if (args[place] if len(args) > place else kwargs.get("running_mean")) is None:
        return [(args[0] if args else kwargs["input"]).detach()]
    if args[training] if len(args) > training else kwargs.get("training", False):
        raise UnsupportedModelError(BATCH_STATISTICS)
    return []


# Their gradient is zero everywhere, whatever effect they have.
STEPS = operations(
    "round", "floor", "ceil", "trunc", "fix", "sign", "sgn", "floor_divide", "__floordiv__", "copysign",
    "fake_quantize_per_tensor_affine", "fake_quantize_per_channel_affine",
)  # fmt: skip
# They choose among values by a mask or an index: the gradient of what is chosen is right.
CHOICES = frozenset(
    operations("where", "masked_fill", "masked_select", "gather", "index_select", "take_along_dim", "scatter", "index_put",
               "max_unpool1d", "max_unpool2d", "max_unpool3d", "mul", "__mul__", "__rmul__", "__getitem__",
               "__setitem__")
)  # fmt: skip
LEAVES_TORCH = frozenset(
    getattr(Tensor, name) for name in ("item", "tolist", "numpy", "__array__", "__float__", "__int__", "__index__")
)


OUTPUTS_ONLY = ": take it out of the model, or a method that asks for outputs only, such as occlusion or shapley"


def _no_slope(func: Callable, args: tuple, kwargs: dict) -> None:
    raise UnsupportedModelError(
        f"the gradient of {func.__name__!r} is zero everywhere, so that its effect on the logits cannot be seen{OUTPUTS_ONLY}"
    )


ORDINARY_GRADIENT: dict[Callable, Rule] = dict.fromkeys(STEPS, _no_slope)
_running: ContextVar["Interception"] = ContextVar("running")


def every_other(*args, **kwargs) -> Any:
    """Stands in a table for every operation that has no rule of its own, or whose rule declines the call."""


class Interception(TorchFunctionMode):
    """While active, calls of the operations in the table go to their rule if an argument lies on a path to a leaf.

    Args:
        table: operation -> rule. One that gives NotImplemented declines the call: the rule of :func:`every_other` is asked,
            then the operation itself runs.
        leaves: the tensors whose influence is followed, x first.
        choices: operations that may read a mask or an index computed from x, since they choose among values by it.
    """

    def __init__(
        self,
        table: Mapping[Callable, Rule],
        leaves: Sequence[Tensor],
        choices: Collection[Callable] = frozenset(),
    ) -> None:
        super().__init__()
        self.table: dict[Callable, Rule] = dict(table)
        self.table |= dict.fromkeys(DROPOUTS, _dropout) | dict.fromkeys(CUTS_IN_PLACE, _cut_in_place)
        self.leaves, self.choices = leaves, choices
        self.known: dict[Node, str | None] = {}
        self.cut: dict[int, tuple[Tensor, str]] = {}
        self.tokens: list[Token[Interception]] = []  # a rule may enter the interception that it is called by again

    def __enter__(self):
        self.tokens.append(_running.set(self))
        return super().__enter__()

    def __exit__(self, *error):
        _running.reset(self.tokens.pop())
        return super().__exit__(*error)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, call, func = dict(kwargs or {}), func, torch_function(func)
        # A part is changed by a copy: of any other change of it the graph does not show the operation.
        view = args[0] if _changes_view(func, args, kwargs) else None
        args = args if view is None else (view.clone(), *args[1:])
        rule = self.table.get(func) if kwargs.get("rounding_mode") is None else _no_slope
        rest = self.table.get(every_other)
        out = NotImplemented
        if (rule or rest) and any(self.origin(a) for a in tensors_in(args, kwargs.values())):
            if rule and "input" in kwargs:
                args = (kwargs.pop("input"), *args)
            out = rule(func, args, kwargs) if rule else out
            out = rest(func, args, kwargs) if rest and out is NotImplemented else out
        out = call(*args, **kwargs) if out is NotImplemented else out
        if view is not None:
            args, out = (view, *args[1:]), view.copy_(out)
        if func is Tensor.__setitem__ or (args and out is args[0] and works_in_place(func, args, kwargs)):
            base = args[0]._base  # what is written into a view is written into what it shows
            changed = [args[0]] if base is None else [args[0], base]
            if type(changed[-1].grad_fn).__name__ == "CopySlices":
                changed[-1].grad_fn.metadata[ASSIGNED] = True
            self.follow(func, tensors_in(args, kwargs.values()), changed)
        elif func in LEAVES_TORCH or (isinstance(out, Tensor | tuple | list) and not isinstance(out, torch.Size)):
            self.follow(func, tensors_in(args, kwargs.values()), tensors_in([out]))
        return out

    def origin(self, tensor: Any) -> str | None:
        """As :func:`origin`; a node of the graph is looked at once."""
        if not isinstance(tensor, Tensor) or not tensor.requires_grad:
            return None
        if any(tensor is leaf for leaf in self.leaves):
            return "input"
        if tensor.grad_fn is None:  # another leaf, or a view that was taken without gradients
            return self.origin(tensor._base)
        return self.origin_of(tensor.grad_fn)

    def origin_of(self, root: Node) -> str | None:
        """As :func:`origin`, of the values at a node of the graph."""
        stack = [] if root in self.known else [(root, False)]
        while stack:
            node, finished = stack.pop()
            parents = [parent for parent, _ in node.next_functions if parent is not None]
            if finished:
                found = {self.known[parent] for parent in parents}
                self.known[node] = "hidden" if "hidden" in found else "input" if "input" in found else None
            elif node in self.known:
                continue
            elif is_replacement(node):
                self.known[node] = "hidden"
            elif not parents or any(node is leaf.grad_fn for leaf in self.leaves):
                self.known[node] = "input" if parents or self.is_leaf(node) else None
            else:
                stack.append((node, True))
                stack.extend((parent, False) for parent in parents)
        return self.known[root]

    def is_leaf(self, node: Node) -> bool:
        """Whether the node of the graph stands for one of the leaves."""
        return any(getattr(node, "variable", None) is leaf for leaf in self.leaves)

    def follow(self, func: Callable, operands: Sequence[Tensor], results: Sequence[Tensor]) -> None:
        """Refuse a value that is computed from x without a gradient (a mask, an index, a detached gate) and used."""
        if not self.cut and func not in LEAVES_TORCH and all(result.requires_grad for result in results):
            return  # most calls
        name = name_of(func)
        if name.endswith("_like") or name.startswith("new_"):
            return
        if name in ("to", "type_as", "expand_as", "view_as", "reshape_as"):
            operands = operands[:1]  # the other gives its shape or type alone
        # What a function written by a user returns is met without its gradient first and has it later.
        cut = next((a for a in operands if id(a) in self.cut and (not a.requires_grad or a.is_leaf)), None)
        source = None if cut is None else self.cut[id(cut)][1]
        if func in LEAVES_TORCH:
            if operands[0].dtype != torch.bool and (source or self.origin(operands[0])):
                raise UnsupportedModelError(
                    f"{name!r} takes a value that depends on x out of torch, without a gradient{OUTPUTS_ONLY}"
                )
            return
        if name == "_pack_padded_sequence":
            results = results[:1]  # the sizes of its batches are those of the lengths
        chosen = func in self.choices and (cut is None or not cut.is_floating_point())
        for result in results:
            if source and result.requires_grad and not (chosen and any(self.origin(a) for a in operands)):
                raise UnsupportedModelError(
                    f"{name!r} uses a value that {source!r} computes from x without a gradient, so that what x does "
                    f"there cannot be seen{OUTPUTS_ONLY}"
                )
            if not result.requires_grad and (source or any(self.origin(a) for a in operands)):
                self.cut[id(result)] = (result, source or name)  # the tensor is kept, so that its id stays its own


CUTS_IN_PLACE = (Tensor.detach_, torch.detach_)  # afterwards nothing tells that the value came from x


def _cut_in_place(func: Callable, args: tuple, kwargs: dict) -> None:
    raise UnsupportedModelError(
        f"{name_of(func)!r} cuts a value that depends on x off from its gradient, so that what x does there cannot be seen"
        f"{OUTPUTS_ONLY}"
    )


def _dropout(func: Callable, args: tuple, kwargs: dict) -> Tensor:
    _refuse_active_dropout(func, args, kwargs)
    return func(*args, **kwargs)


def works_in_place(func: Callable, args: tuple, kwargs: dict) -> bool:
    """Whether this call changes its first argument: by its name, or by its argument ``inplace``."""
    names = func.__code__.co_varnames[: len(args)] if hasattr(func, "__code__") else ()
    inplace = args[names.index("inplace")] if "inplace" in names else kwargs.get("inplace", False)
    name = func.__name__
    return bool(inplace) or (name.startswith("__i") if name.endswith("__") else name.endswith("_"))


ASSIGNED = "assigned"  # marks the node of a change of a part that is a copy


def _changes_view(func: Callable, args: tuple, kwargs: dict) -> bool:
    view = args[0] if args and isinstance(args[0], Tensor) else None
    return view is not None and view._base is not None and view.requires_grad and works_in_place(func, args, kwargs)


class Replacement(Function):
    """Base of the functions that stand in for an operation; the graph search knows them by it."""


def is_replacement(node: Node) -> bool:
    return issubclass(getattr(node, "_forward_cls", object), Replacement)


def own_function(node: Any) -> str:
    """The name of the user's ``autograd.Function`` that the node belongs to, else ""."""
    own = getattr(node, "_forward_cls", None)
    if own is None or own.__module__.startswith("torch.") or is_replacement(node):
        return ""
    return own.__name__


def running() -> Interception:
    """The innermost interception of this thread, which a rule is called by."""
    return _running.get()


def origin(value: Any) -> str | None:
    """Where a value that a rule met comes from: "hidden" (a replaced operation), "input" (a leaf alone), or None."""
    return running().origin(value)
