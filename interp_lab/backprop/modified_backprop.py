r"""One mechanism for every modified backward pass: the operations are replaced while the model runs.

A backprop-based method is a table from operations to rules. While the model runs, a
:class:`torch.overrides.TorchFunctionMode` replaces each listed call - module, functional, method or in place - by an
``autograd.Function`` of the same forward value and another gradient. Module hooks would miss functional calls,
reused modules and residual additions.

What the mode cannot see (compiled, scripted and C++ code) still leaves its node in the autograd graph. So the
graph between x and the logits is searched before the backward pass, and a node that the method has no rule for is
an :class:`~interp_lab.UnsupportedModelError` with its name. Nothing is ever passed through in silence.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, disable_saved_tensors_hooks
from torch.utils._pytree import tree_leaves

from ..contract import Model, UnsupportedModelError, differentiated, is_finite, logits_of, refuse_cuts
from ..contract.interception import (
    ASSIGNED,
    Interception,
    Rule,
    is_replacement,
    operations,
    origin,
    own_function,
    works_in_place,
)


def nodes(*names: str) -> frozenset[str]:
    return frozenset(f"{name}Backward" for name in names)


# Linear in x with one tensor on the way to x, or a choice of the largest: their gradient is every method's rule.
PASSED = nodes(
    "Add", "Sub", "Rsub", "Neg", "Sum", "Mean", "Cat", "Stack", "Clone", "ToCopy", "Alias", "Detach", "View",
    "UnsafeView", "ReshapeAlias", "AsStrided", "T", "Transpose", "Permute", "Expand", "Repeat", "Squeeze", "Unsqueeze",
    "Select", "Slice", "Split", "SplitWithSizes", "UnsafeSplit", "Unbind", "Narrow", "Index", "IndexSelect", "Gather",
    "IndexPut", "Flip", "Roll", "Movedim", "Unfold", "Im2Col", "Col2Im", "ConstantPadNd", "MaskedFill",
    "ReflectionPad1D", "ReflectionPad2D", "ReflectionPad3D", "ReplicationPad1D", "ReplicationPad2D", "ReplicationPad3D",
    "AvgPool1D", "AvgPool2D", "AvgPool3D", "AdaptiveAvgPool1D", "AdaptiveAvgPool2D", "AdaptiveAvgPool3D",
    "UpsampleNearest1D", "UpsampleNearest2D", "UpsampleNearest3D", "UpsampleNearestExact1D", "UpsampleNearestExact2D",
    "UpsampleNearestExact3D", "UpsampleLinear1D", "UpsampleBilinear2D", "UpsampleBilinear2DAa", "UpsampleBicubic2D",
    "UpsampleBicubic2DAa", "UpsampleTrilinear3D", "GridSampler2D", "GridSampler3D", "PixelShuffle", "PixelUnshuffle",
    "ChannelShuffle", "Cumsum", "Diagonal", "Tril", "Triu", "Rot90", "IndexAdd", "ScatterAdd", "Where", "FftC2C", "FftR2C",
    "FftC2R", "Real", "Imag", "ViewAsReal", "ViewAsComplex", "Conj", "Complex", "Assignment",
) | {"CopyBackwards"}  # fmt: skip
MAX_POOLS = nodes(
    "MaxPool1DWithIndices", "MaxPool2DWithIndices", "MaxPool3DWithIndices", "AdaptiveMaxPool1D", "AdaptiveMaxPool2D",
    "AdaptiveMaxPool3D",
)  # fmt: skip
CHOICES = nodes("Max", "Min", "Amax", "Amin", "Maximum", "Minimum", "Fmax", "Fmin")
# Linear in several tensors that lie on a path to x together, or a choice of one; others must have one such argument,
# of which some are linear in the first alone.
SEVERAL = nodes(
    "Add", "Sub", "Rsub", "Cat", "Stack", "MaskedFill", "IndexAdd", "IndexPut", "ScatterAdd", "Maximum", "Minimum", "Fmax", "Fmin",
    "Where", "Complex", "Assignment",
) | {"CopyBackwards"}  # fmt: skip
FIRST = nodes("Div", "GridSampler2D", "GridSampler3D")
PRODUCTS = nodes("Mul", "Div", "Mm", "Bmm", "Mv", "Dot", "Addmm", "Baddbmm", "Linear")
BATCH_NORM = nodes("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm")
LAYERS = nodes("Convolution", "MkldnnConvolution", "CudnnConvolution")


def operation_of(node: Any) -> str:
    """The name of the node's class without the number of torch's variant: "AddBackward"."""
    name = type(node).__name__.rstrip("0123456789")
    return "AssignmentBackward" if name == "CopySlices" and ASSIGNED in node.metadata else name


def elementwise(func: Callable, args: tuple, kwargs: dict) -> tuple[Tensor, Callable[[Tensor], Tensor], bool]:
    """A call of an elementwise function as (its input z, the function of z alone, whether it works in place).

    The function never changes what it is given; if the call works in place, z is a copy of the input.
    """
    z, *rest = args
    inplace = works_in_place(func, args, kwargs)

    def phi(value: Tensor) -> Tensor:
        return func(value.clone() if inplace else value, *rest, **kwargs)

    return z.clone() if inplace else z, phi, inplace


def in_place(target: Tensor, value: Tensor) -> Tensor:
    """What an in-place operation returns: its argument, holding the value and the value's history."""
    return target.copy_(value)


def softmax_of(input: Tensor, dim: int | None = None, dtype: torch.dtype | None = None) -> tuple[Tensor, int | None]:
    """What a softmax reads, and along which dimension; called with its arguments."""
    return (input if dtype is None else input.to(dtype)), dim


def product_table(product: Callable[[Tensor, Tensor], Tensor], *names: str) -> dict[Callable, Rule]:
    """The table that gives the product of two activations to ``product``, or their quotient; one with a constant declines."""

    def rule(func: Callable, args: tuple, kwargs: dict) -> Tensor:
        a, b, *more = [*args, *kwargs.values()]
        if more or not (origin(a) and origin(b)) or a.is_complex() or b.is_complex():
            return NotImplemented
        return in_place(a, product(a.clone(), b)) if works_in_place(func, args, kwargs) else product(a, b)

    return dict.fromkeys(operations(*names), rule)


PRODUCT = ("mul", "multiply", "__mul__", "__rmul__", "__imul__")
QUOTIENT = ("div", "divide", "true_divide", "__truediv__", "__itruediv__")
CONVOLUTION = tuple(f"{name}{d}d" for d in (1, 2, 3) for name in ("conv", "conv_transpose"))
MATRIX_PRODUCT = ("matmul", "mm", "bmm", "mv", "dot", "__matmul__")


CHECKPOINTS = "this method has no rule for torch.utils.checkpoint: switch the checkpoints of the model off"


def modified_gradient(
    model: Model,
    x: Tensor,
    choose: Callable[[Tensor], Tensor],
    table: Mapping[Callable, Rule],
    *,
    allowed: Iterable[str],
    leaves: Sequence[Tensor] = (),
    start: Callable[[Tensor], Tensor] = torch.ones_like,
    run: Callable[[Model, Tensor], Tensor] = logits_of,
) -> list[Tensor]:
    """The gradient of a chosen score to x (and to further leaves) under the table's rules.

    Args:
        model, x: checked by ``explaining``.
        choose: the scores to differentiate, ``(N,)``, from what ``run`` gives.
        table: operation -> rule; a rule returns the operation's value with another gradient.
        allowed: names of the autograd nodes whose ordinary gradient is this method's rule.
        leaves: further tensors to differentiate to, which rules bring into the graph.
        start: the backward signal at the score, as a function of the score ``(N,)``.
        run: runs the model on x; its operations are those that the rules replace.

    Raises:
        UnsupportedModelError: an operation that the method has no rule for, or a result that is not finite.
    """
    leaves = [x.requires_grad_(), *leaves]
    # A checkpointed model would be run again in the backward pass, outside the interception.
    with Interception(table, leaves), disable_saved_tensors_hooks(CHECKPOINTS):
        output = run(model, x)
    refuse_cuts()
    chosen = choose(output)
    check_graph(chosen, leaves, frozenset(allowed), model)
    grads = differentiated(chosen, leaves, start(chosen.detach()))
    if not all(is_finite(value) for value in (chosen, *grads)):
        raise UnsupportedModelError(f"the logit or the backward signal overflows {x.dtype}; use a wider dtype")
    return list(grads)


def check_graph(output: Tensor, leaves: Sequence[Tensor], allowed: frozenset[str], model: Model) -> None:
    """Refuse a graph from the leaves to the output with a node that is neither allowed nor a replacement.

    Raises:
        UnsupportedModelError: names the operation and, where a module can be found that ends in it, the module.
    """
    on_path = paths(output.grad_fn, leaves) if output.requires_grad else {}
    if not on_path:
        raise UnsupportedModelError("the logits do not depend on x through differentiable operations")
    for node, inputs in on_path.items():
        name = operation_of(node)
        where = partial(locate, model, leaves[0], name)
        if name in SOFTMAX and moved_to(output.grad_fn, node):
            raise UnsupportedModelError(
                f"the network ends in a {spelt(node)!r}{where()}: give the logits, that is the network without it"
            )
        if is_replacement(node) or name == "AccumulateGrad" or passes(node, inputs, allowed):
            continue
        if getattr(node, "_saved_training", False):
            if normalises_alone(node):
                raise UnsupportedModelError(f"this method has no rule for the operation 'instance_norm'{where()}")
            raise UnsupportedModelError("batch_norm uses the statistics of the batch, so images are not independent")
        raise UnsupportedModelError(
            f"this method has no rule for the operation {spelt(node)!r}{where()} as it is called here; lrp and deeplift have "
            "the most rules, and integrated_gradients needs none"
        )


def passes(node: Node, inputs: Sequence[int], allowed: Collection[str]) -> bool:
    """Whether the gradient of the operation is the rule, where these of its inputs lie on a path to x."""
    name = operation_of(node)
    linear = name in SEVERAL or (len(inputs) == 1 and (name not in FIRST or list(inputs) == [0]))
    return name in allowed and linear and not getattr(node, "_saved_training", False)


def passes_between(output: Tensor, operands: Sequence[Tensor], allowed: Collection[str]) -> bool:
    """Whether the gradient of the operation that made the output from these operands is the rule."""
    ends = [operand.grad_fn for operand in operands]
    between = paths(output.grad_fn, operands, ends) if output.requires_grad else {}
    return all(
        node in ends or operation_of(node) == "AccumulateGrad" or passes(node, inputs, allowed)
        for node, inputs in between.items()
    )


SOFTMAX = nodes("Softmax", "LogSoftmax", "SafeSoftmax")


def moved_to(node: Node | None, end: Node) -> bool:
    """Whether the values at ``node`` are those at ``end``, chosen and moved only."""
    while node and node is not end and operation_of(node) in PASSED and len(node.next_functions) == 1:
        node = node.next_functions[0][0]
    return node is end


def normalises_alone(node: Any) -> bool:
    """Whether a normalisation takes the batch for channels, as instance_norm does: each image by itself."""
    return (
        node.next_functions[0][0] is not None
        and len(node._saved_input) == 1
        and bool(operation_of(node.next_functions[0][0]) in nodes("View", "ReshapeAlias", "UnsafeView", "Clone"))
    )


def spelt(node: Node) -> str:
    """The operation of a node as torch spells its function; a user's function keeps its class's name."""
    name = operation_of(node).removesuffix("Backward")
    return own_function(node) or re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z0-9])(?=[A-Z][a-z])", "_", name).lower()


def paths(root: Node | None, leaves: Sequence[Tensor], ends: Sequence[Node | None] = ()) -> dict[Node, list[int]]:
    """Every node on a path from the root to a leaf or an end, with the positions of its inputs that lie on such a path."""
    result: dict[Node, list[int]] = {node: [] for node in ends if node is not None}
    done: set[Node] = set(result)
    stack = [] if root is None else [(root, False)]
    while stack:
        node, finished = stack.pop()
        if finished:
            inputs = [i for i, (parent, _) in enumerate(node.next_functions) if parent in result]
            if inputs or any(getattr(node, "variable", None) is leaf for leaf in leaves):
                result[node] = inputs
        elif node not in done:
            done.add(node)
            stack.append((node, True))
            stack.extend((parent, False) for parent, _ in node.next_functions if parent is not None)
    return result


def locate(model: Model, x: Tensor, node_name: str) -> str:
    """ " (module 'name')" for the innermost module in which such a node first arises, else ""."""
    found: list[str] = []

    def watch(name: str) -> Callable:
        def hook(module, args, output):
            ends = {t.grad_fn for t in tree_leaves(args) if isinstance(t, Tensor)}
            stack = [t.grad_fn for t in tree_leaves(output) if isinstance(t, Tensor)]
            while stack and not found:  # inner modules end first
                node = stack.pop()
                if node is None or node in ends:
                    continue
                ends.add(node)
                if operation_of(node) == node_name:
                    found.append(name)
                stack.extend(parent for parent, _ in node.next_functions)

        return hook

    if isinstance(model, nn.Module):
        handles = [
            module.register_forward_hook(watch(name))
            for name, module in model.named_modules()
            if not isinstance(module, torch.jit.ScriptModule)
        ]
        try:
            model(x.clone())
        finally:
            for handle in handles:
                handle.remove()
    return f" (module {found[0]!r})" if found and found[0] else ""
