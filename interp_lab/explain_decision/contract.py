r"""What every attribution method keeps: checked inputs, an untouched model, the gradient of one logit per row.

A method of this folder is ``method(model, x, target=None, *, ...) -> Tensor`` of the shape, dtype and device of
``x``. It explains the logit :math:`f_c(x)` of the target class in eval mode and leaves the model as it was.
"""

import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._pytree import tree_leaves

from .interception import CHOICES, ORDINARY_GRADIENT, Guard, Interception, UnsupportedModelError

Model = nn.Module | Callable[[Tensor], Tensor]
Target = int | Sequence[int] | Tensor | None


@dataclass
class _Block:
    """What :func:`explaining` finds out while its block runs."""

    first: tuple[Model, int, Tensor, list[Tensor]] | None = (
        None  # of a pass: its rows, and the first and the last of each
    )
    mixes: bool = False  # whether the rows of a pass may depend on each other
    scripts: list[torch.jit.ScriptModule] = field(default_factory=list)  # those that ran


_block: ContextVar[_Block | None] = ContextVar("block", default=None)
# Models that gave the same row again: alone (1), or taken out of a batch (2). A function that is written anew for a call is
# asked again.
_repeated: WeakKeyDictionary[Model, int] = WeakKeyDictionary()


@contextmanager
def explaining(model: Model, x: Tensor) -> Iterator[Tensor]:
    """The checked, detached x, inside a block that leaves the model and the global random state as they were.

    Every module that runs in the block is in eval mode, also inside a function, with gradients on and in the full
    precision of its dtype (no autocast, no TF32), whatever the caller has set. At the end of the block a model's first
    row is run again, alone, and where its operations may mix the rows of a batch, so is the last.

    Raises:
        ValueError: x is not a finite floating-point batch ``(N, ...)``, or not of the model's dtype and device.
        UnsupportedModelError: the output for a row changes from call to call or depends on the other rows.
    """
    check_input(model, x)
    cuda = [x.device] if x.device.type == "cuda" else []
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.random.fork_rng(cuda),
        full_precision(x.device.type),
        in_eval_mode(model),
    ):
        block = _Block()
        token = _block.set(block)
        try:
            yield x.clone() if x.is_inference() else x.detach()
        finally:
            _block.reset(token)
        if block.first is not None:
            _check_rows(*block.first, (0, 1) if block.mixes else (0,))


@contextmanager
def in_eval_mode(model: Model) -> Iterator[None]:
    """Every module of the model, and every other one that this thread runs in the block, is in eval mode."""
    switched: list[nn.Module] = []
    thread = threading.get_ident()

    def switch(module: nn.Module, *_) -> None:
        if threading.get_ident() == thread:
            scripted, block = isinstance(module, torch.jit.ScriptModule), _block.get()
            if scripted and block is not None and module not in block.scripts:
                _refuse_modes_of_a_script(module)
                block.scripts.append(module)
            for part in module.modules() if scripted else (module,):  # a scripted module runs its parts itself
                if getattr(part, "training", False):  # a frozen script has no mode
                    switched.append(part)
                    part.training = False

    try:
        for owner in owners(model):
            for module in owner.modules():
                switch(module)
        handle = register_module_forward_pre_hook(switch)
        try:
            yield
        finally:
            handle.remove()
    finally:
        for module in switched:
            module.training = True


def owners(model: Model) -> list[nn.Module]:
    """The modules that a model shows without being run: itself, or those that a function or an object of it holds."""
    found: list[nn.Module] = []
    seen: dict[int, object] = {}
    waiting: list[object] = [model]
    while waiting:
        holder = waiting.pop()
        if id(holder) in seen or isinstance(
            holder, type | ModuleType | Tensor | np.ndarray | str | bytes | int | float
        ):
            continue
        seen[id(holder)] = holder  # kept, so that its id stays its own
        if isinstance(holder, nn.Module):
            found.append(holder)
            seen.update((id(part), part) for part in holder.modules())
        waiting.extend(_held(holder))
    return found


def _held(holder: object) -> list[object]:
    """What a function, a method or an object refers to, and may call."""
    if isinstance(holder, nn.Module):  # torch knows its modules but for those in a list or an object of it
        hidden = (value for part in holder.modules() for name, value in vars(part).items() if name[0] != "_")
        return [value for value in hidden if not isinstance(value, FunctionType | torch.dtype | torch.device)]
    if isinstance(holder, Mapping):
        return list(holder.values())
    if isinstance(holder, list | tuple | set | frozenset):
        return list(holder)
    if isinstance(holder, MethodType | partial):
        return [getattr(holder, name, None) for name in ("__self__", "func", "__func__", "args", "keywords")]
    if not isinstance(holder, FunctionType):
        return list(getattr(holder, "__dict__", {}).values()) if type(holder).__module__ != "builtins" else []
    held: list[object] = [holder.__defaults__, holder.__kwdefaults__, vars(holder)]
    for cell in holder.__closure__ or ():
        with suppress(ValueError):  # a variable without a value yet
            held.append(cell.cell_contents)
    codes = [holder.__code__]
    for code in codes:
        codes += [part for part in code.co_consts if isinstance(part, CodeType)]
        held += [holder.__globals__[name] for name in code.co_names if name in holder.__globals__]
    return held


@contextmanager
def full_precision(device: str) -> Iterator[None]:
    """Neither autocast nor TF32, which change maps by percents; what was set comes back."""
    precision = torch.get_float32_matmul_precision()
    convolutions = torch.backends.cudnn.allow_tf32
    with ExitStack() as stack:
        for kind in {"cpu", device} & {"cpu", "cuda", "xpu", "mps"}:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if precision != "highest":
            stack.callback(torch.set_float32_matmul_precision, precision)
            torch.set_float32_matmul_precision("highest")
        if device == "cuda" and convolutions:
            stack.callback(setattr, torch.backends.cudnn, "allow_tf32", True)
            torch.backends.cudnn.allow_tf32 = False
        yield


def check_input(model: Model, x: Tensor) -> None:
    """Refuse what no method can treat; see :func:`explaining`."""
    if not isinstance(x, Tensor):
        raise ValueError(f"x must be a torch.Tensor batch (N, ...), got {type(x).__name__}")
    if not x.is_floating_point():
        raise ValueError(
            f"x must be a floating-point batch, got dtype {x.dtype}: scale a picture with x / 255; for token ids explain "
            "their embeddings, x = model.embedding(ids).detach(), with a function from embeddings to logits as the model"
        )
    if x.dim() < 2:
        raise ValueError(f"x must be a batch (N, ...), got shape {tuple(x.shape)}; add a batch axis with x[None]")
    if not is_finite(x):
        raise ValueError(f"x must be finite, got {int((~torch.isfinite(x)).sum())} NaN or infinite values")
    parameters = model.named_parameters() if isinstance(model, nn.Module) else ()
    for name, p in parameters:
        if p.is_floating_point() and (p.dtype, p.device) != (x.dtype, x.device):
            raise ValueError(f"x is {x.dtype} on {x.device}, but parameter {name!r} is {p.dtype} on {p.device}")
        break


def is_finite(tensor: Tensor) -> bool:
    """Whether every entry is finite; one sum tells in most cases, and is several times faster than a mask."""
    return bool(torch.isfinite(tensor.sum()) or torch.isfinite(tensor).all())


def rows_per_pass(x: Tensor, run: Callable[[Tensor], object]) -> int:
    """How many rows like those of x a pass of ``run`` takes by default.

    On a processor as many as fit its cache, and few enough that the feature maps of a large network are fetched in time;
    on a GPU as many as fill half of the memory that is free, if each takes what it takes in ``run(x)``.
    """
    if x.device.type != "cuda":
        return max(1, min(2**20 // max(1, x[:1].numel()), 128))
    held = torch.cuda.memory_allocated(x.device)
    torch.cuda.reset_peak_memory_stats(x.device)
    try:
        run(x)
    except torch.OutOfMemoryError:
        return max(1, len(x) // 2)
    taken = max(1, torch.cuda.max_memory_allocated(x.device) - held)
    kept = torch.cuda.memory_reserved(x.device) - held  # by torch, for what comes next
    free = torch.cuda.mem_get_info(x.device)[0] + kept
    return max(1, min(free * len(x) // (2 * taken), 2**16))


def with_rows_that_fit(call: Callable[[int], Tensor], rows: int) -> Tensor:
    """``call(rows)``, tried again with half the rows a pass as long as the memory is too small for so many."""
    while True:
        try:
            return call(rows)
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
        rows //= 2  # behind the handler, so that what the failed pass held is free


def output_of(model: Model, x: Tensor) -> Tensor:
    """``model(x)``, which is the same whenever it is computed.

    Raises:
        ValueError: the model cannot take x's shape.
        UnsupportedModelError: the model draws random numbers or uses statistics of the batch.
    """
    guard, before = Guard(len(x)), _random_states(x.device)
    try:
        with guard:
            output = model(x)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError, TypeError) as error:
        raise ValueError(
            f"the model could not be run on x of shape {tuple(x.shape)}, {x.dtype}: {error}. (A function that holds a second input "
            "takes the rows of that input and no others: pass batch_size=N, or explain its rows one by one.)"
        ) from error
    if _random_states(x.device) != before:
        raise UnsupportedModelError("the model draws random numbers in eval mode, so that its output is random")
    block = _block.get()
    if block is not None:
        mixes = len(x) > 1 and (guard.mixes or bool(block.scripts))
        is_first = len(x) > 0 and (block.first is None or block.first[1] == 1 < len(x))
        if is_first and (mixes or not _is_repeated(model, len(x))):
            block.first, block.mixes = (model, len(x), x.detach()[[0, -1]], _ends(output, len(x))), mixes
    return output


def _ends(output: object, count: int) -> list[Tensor]:
    """The first and the last of these rows in every floating-point tensor of the output that has as many."""
    found = [part.detach() for part in tree_leaves(output) if isinstance(part, Tensor) and part.is_floating_point()]
    return [part[[0, -1]] for part in found if part.shape[:1] == (count,)]


def _is_repeated(model: Model, count: int) -> bool:
    try:
        return _repeated.get(model, 0) >= min(count, 2)
    except TypeError:  # it cannot be hashed
        return False


def _refuse_modes_of_a_script(script: torch.jit.ScriptModule) -> None:
    """Refuse a script, traced in train mode, that has dropout on or takes statistics of the batch for ever."""
    graph = script.inlined_graph  # held, as its nodes do not hold it
    for kind, training in (("aten::dropout", 2), ("aten::batch_norm", 5)):
        if any(list(node.inputs())[training].toIValue() is True for node in graph.findAllNodes(kind)):
            raise UnsupportedModelError(f"the scripted module holds {kind} in train mode: trace it after model.eval()")


CUT_IN_A_SCRIPT = [f"aten::{name}" for name in ("detach", "round", "floor", "ceil", "trunc", "sign")]


def _refuse_cuts_of_a_script(script: torch.jit.ScriptModule) -> None:
    """Refuse a script, whose operations no interception sees, that computes values without a gradient."""
    graph = script.inlined_graph
    for kind in CUT_IN_A_SCRIPT:
        if graph.findAllNodes(kind):
            raise UnsupportedModelError(
                f"the scripted module holds {kind}, whose value may have come from x and has no gradient: explain the module "
                "that it was made from"
            )


def logits_of(model: Model, x: Tensor) -> Tensor:
    """``model(x)``, checked to be logits ``(N, K)``.

    Raises:
        ValueError: the model cannot take x's shape, gives no ``(N, K)`` tensor, or gives NaN.
        UnsupportedModelError: as for :func:`output_of`.
    """
    logits = output_of(model, x.clone())  # a model that works in place shall not change the caller's x
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(x):
        raise ValueError(
            f"the model must give logits of shape ({len(x)}, K) for x {tuple(x.shape)}, got {_got(logits)}"
        )
    if torch.isnan(logits).any():
        raise ValueError("the model gives NaN logits for this x")
    return logits


def _got(output: object) -> str:
    """What a model gave in place of logits, and the function around it that would give them."""
    if isinstance(output, Tensor):
        remedy = ": wrap it, lambda x: model(x)[:, None]" if output.dim() == 1 else ""
        return f"shape {tuple(output.shape)}{remedy}"
    keys = list(output) if isinstance(output, dict) else getattr(output, "_fields", ())
    part = f"[{keys[0]!r}]" if isinstance(output, dict) and keys else f".{keys[0]}" if keys else "[0]"
    return f"{type(output).__name__}: wrap it, lambda x: model(x){part}, or whichever part holds the logits"


def _random_states(device: torch.device) -> tuple:
    """The state of every global source of random numbers that a model may draw from, as values that compare."""
    _, keys, position, *_ = np.random.get_state()  # noqa: NPY002
    torch_states = [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])
    return random.getstate(), keys.tobytes(), position, *(state.numpy().tobytes() for state in torch_states)


def _check_rows(model: Model, count: int, x: Tensor, outputs: list[Tensor], rows: Sequence[int]) -> None:
    """Refuse a model whose output for these rows changes when they are run again, without the others or in their place.

    Raises:
        UnsupportedModelError: they do, by more than the rounding of another order of the sums.
    """
    shapes = [part.shape for part in outputs]
    for row in rows:  # a sum that runs over the batch leaves the one as it is
        again: list[Tensor] = []
        with torch.no_grad():
            with suppress(Exception):  # a function that holds a second input of as many rows as x
                again = _ends(model(x[row][None]), 1)
            if [part.shape for part in again] != shapes:
                again = _ends(model(x[row][None].repeat(count, *[1] * (x.dim() - 1))), count)
        for was, now in zip(outputs, again, strict=False):
            change, size, eps = (now[row] - was[row]).abs().max(), was.abs().max(), torch.finfo(was.dtype).eps
            if not change <= eps**0.5 * size + 100 * eps * x.abs().max().clamp(min=1):
                raise UnsupportedModelError(
                    f"the output for a row changes from call to call, or depends on the other rows of its batch (by {change:.2g} in "
                    f"row {row and count - 1}), so rows cannot be explained by themselves: look for random numbers, or a mean, a "
                    "softmax or a norm over axis 0, or attention over it"
                )
    with suppress(TypeError):  # it cannot be hashed, or held weakly
        _repeated[model] = max(min(count, 2), _repeated.get(model, 0))


def decisions(logits: Tensor) -> Tensor:
    """The class decided for, ``(N,)``: that of the largest logit; of a single logit, whether it is positive."""
    return (logits > 0).long().squeeze(1) if logits.shape[1] == 1 else logits.argmax(1)


def probabilities(logits: Tensor) -> Tensor:
    """Softmax over the classes, ``(N, K)``; of a single logit its sigmoid, the probability of the class it stands for."""
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)


def check_target(target: int | Sequence[int] | Tensor, count: int) -> Tensor:
    """Target classes as a LongTensor ``(count,)``.

    Raises:
        ValueError: neither an int nor ``count`` integers.
    """
    given = target
    if isinstance(target, list | tuple | np.ndarray | np.generic):
        target = torch.as_tensor(np.asarray(target))
    if isinstance(target, Tensor) and target.dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        if target.dim() != 0 and target.shape != (count,):
            raise ValueError(f"target must have shape ({count},), got {tuple(target.shape)}")
    elif not isinstance(target, int) or isinstance(target, bool):
        got = f"a tensor of {target.dtype}" if isinstance(given, Tensor) else repr(given)
        raise ValueError(f"target must be None, an int or a LongTensor ({count},), got {got}")
    return torch.as_tensor(target).long().expand(count)


def resolve(model: Model, x: Tensor, target: Target) -> Tensor:
    """Target classes ``(N,)`` of a checked batch; only None takes a forward pass (without a graph).

    Whether a class that is given lies in the range of the logits is checked where they are computed.
    """
    if target is None:
        with torch.no_grad():
            return logits_of(model, x).argmax(1)
    return check_target(target, len(x)).to(x.device)


def pick(logits: Tensor, target: Target) -> Tensor:
    """The target's logit of every row, ``(N,)``; None is the predicted class.

    Raises:
        ValueError: also for a class outside ``0 .. K - 1``.
    """
    count, classes = logits.shape
    target = logits.argmax(1) if target is None else check_target(target, count).to(logits.device)
    if count and not (0 <= target.min() and target.max() < classes):
        raise ValueError(f"target must lie in 0..{classes - 1}, got {target.min().item()}..{target.max().item()}")
    return logits.gather(1, target[:, None]).squeeze(1)


def chosen_logit(model: Model, x: Tensor, target: Target) -> Tensor:
    r""":math:`f_c(x)` of every row, ``(N,)``, differentiable to x; with the ordinary gradient of every operation.

    Raises:
        UnsupportedModelError: a value is computed from x without a gradient and used, by the name of the operation, or
            the logits do not depend on x through differentiable operations.
    """
    with Interception(ORDINARY_GRADIENT, [x], CHOICES):
        chosen = pick(logits_of(model, x), target)
    block = _block.get()
    for script in block.scripts if block else ():
        _refuse_cuts_of_a_script(script)
    if not chosen.requires_grad:
        raise UnsupportedModelError(
            "the logits do not depend on x through differentiable operations (is there a detach(), a no_grad or "
            "an integer operation between x and the logits?)"
        )
    return chosen


def gradient(model: Model, x: Tensor, target: Target) -> Tensor:
    r""":math:`\partial f_c / \partial x` for every row of a checked batch, by one forward and one backward pass.

    Rows are independent in eval mode, so the gradient of the sum of the chosen logits holds each row's own.

    Raises:
        UnsupportedModelError: as for :func:`chosen_logit`, or an operation has no gradient.
    """
    x = x.detach().requires_grad_()
    return differentiated(chosen_logit(model, x, target).sum(), [x])[0]


def differentiated(
    output: Tensor, inputs: Sequence[Tensor], signal: Tensor | None = None, **options: bool
) -> tuple[Tensor, ...]:
    """``torch.autograd.grad``, by default zero for an input that the output does not depend on.

    Raises:
        UnsupportedModelError: torch cannot run the graph; in its own words, such as on a tensor that is changed in place
            after it was used, or an operation without a derivative.
    """
    _check_gradients(output)
    try:
        return torch.autograd.grad(output, inputs, signal, allow_unused=True, **{"materialize_grads": True, **options})
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise UnsupportedModelError(f"the model cannot be differentiated: {error}") from error


def _check_gradients(output: Tensor) -> None:
    """Refuse a graph with an operation in C++ for which torch has no gradient and would take zero."""
    seen, stack = set(), [output.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if type(node).__name__ == "CppFunction" and "NotImplemented" in node.name():
            raise UnsupportedModelError(
                "the model calls an operation in C++ that has no gradient (none is registered with autograd)"
            )
        stack.extend(parent for parent, _ in node.next_functions)
