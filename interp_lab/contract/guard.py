"""A block that leaves the model as it was, and refuses one whose answer for a row is not its own."""

import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._pytree import tree_leaves

from .inputs import Model, check_input
from .interception import BATCH_STATISTICS, Guard, UnsupportedModelError
from .modules import owners
from .scripts import refuse_cuts_in, refuse_modes


class _Pass(NamedTuple):
    """The first pass of a model: how many rows, and the first and the last of them."""

    model: Model
    rows: int
    x: Tensor
    outputs: list[Tensor]
    mixes: bool  # whether the rows may depend on each other


@dataclass
class _Block:
    """What :func:`explaining` finds out while its block runs."""

    passes: dict[int, _Pass] = field(default_factory=dict)  # of every model, as a generator and what it is explained by
    scripts: list[torch.jit.ScriptModule] = field(default_factory=list)  # those that ran
    # Of every model, as above, that normalises something by statistics of its own: a pass of it, and what that was.
    normalised: dict[int, tuple[Model, Tensor, list[Tensor]]] = field(default_factory=dict)
    checks: list[Callable[[], None]] = field(default_factory=list)  # further ones, which run models
    eps: float = 0.0  # the rounding of the narrowest type that a model computed in


_block: ContextVar[_Block | None] = ContextVar("block", default=None)
# Models that gave the same row again: alone (1), or taken out of a batch (2). A function that is written anew for a call is
# asked again.
_repeated: WeakKeyDictionary[Model, int] = WeakKeyDictionary()


@contextmanager
def explaining(model: Model, x: Tensor) -> Iterator[Tensor]:
    """The checked, detached x, inside a block that leaves the model and the global random state as they were.

    Every module that runs in the block is in eval mode, also inside a function, with gradients on and in the full
    precision of its dtype (no autocast, no TF32, no hooks on saved tensors), whatever the caller has set. At the end of the block a model's first
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
        exact_saved_tensors(),
        in_eval_mode(model),
    ):
        block = _Block()
        token = _block.set(block)
        try:
            yield x.clone() if x.is_inference() else x.detach()
        finally:
            _block.reset(token)
        for check in block.checks:
            check()
        for pass_ in block.normalised.values():
            _check_constant(*pass_)
        for first in block.passes.values():
            _check_rows(first, (0, 1) if first.mixes else (0,), block.eps)


@contextmanager
def in_eval_mode(model: Model) -> Iterator[None]:
    """Every module of the model, and every other one that this thread runs in the block, is in eval mode.

    Backward hooks, which may change a gradient, are set aside, and buffers are afterwards as they were.
    """
    switched: list[nn.Module] = []
    thread, cudnn = threading.get_ident(), torch.backends.cudnn.enabled

    def switch(module: nn.Module, *_) -> None:
        if threading.get_ident() == thread:
            parts: Iterable[nn.Module] = (module,)
            if isinstance(module, torch.jit.ScriptModule):
                parts, block = module.modules(), _block.get()  # it runs its parts itself
                if block is not None and module not in block.scripts:
                    refuse_modes(module)
                    block.scripts.append(module)
            for part in parts:
                if part._backward_hooks or part._backward_pre_hooks:  # torch took them before it came here
                    raise UnsupportedModelError(
                        f"a module {type(part).__name__} has a backward hook, which may change the gradient: remove it, or give "
                        "the module itself as the model"
                    )
                if isinstance(part, nn.RNNBase):
                    torch.backends.cudnn.enabled = False  # whose recurrent networks have no gradient in eval mode
                if getattr(part, "training", False):  # a frozen script has no mode
                    switched.append(part)
                    part.training = False

    modules = [module for owner in owners(model) for module in owner.modules()]
    try:
        with _without_backward_hooks(modules), _same_buffers(modules):
            for module in modules:
                switch(module)
            handle = register_module_forward_pre_hook(switch)
            try:
                yield
            finally:
                handle.remove()
    finally:
        torch.backends.cudnn.enabled = cudnn
        for module in switched:
            module.training = True


@contextmanager
def _without_backward_hooks(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Neither the hooks of these modules nor those of all modules see a gradient."""
    tables = [torch_modules._global_backward_hooks, torch_modules._global_backward_pre_hooks]
    tables += [hooks for module in modules for hooks in (module._backward_hooks, module._backward_pre_hooks)]
    kept = [(hooks, dict(hooks)) for hooks in tables if hooks]
    for hooks, _ in kept:
        hooks.clear()
    try:
        yield
    finally:
        for hooks, were in kept:
            hooks.update(were)


@contextmanager
def _same_buffers(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Puts back the buffers that a module changes or replaces when it runs; none of torch's own does so in eval mode."""
    own = [module for module in modules if not type(module).__module__.startswith("torch.nn.")]
    tables = [(m._buffers, dict(m._buffers)) for m in own if not isinstance(m, torch.jit.ScriptModule)]
    values = [b for module in own for b in module.buffers(recurse=False) if not b.is_inference()]
    kept = [(buffer, buffer._version, buffer.detach().clone()) for buffer in values]
    try:
        yield
    finally:
        for table, buffers in tables:
            table.update(buffers)
        for buffer, version, value in kept:
            if buffer._version != version:
                with torch.no_grad():
                    buffer.copy_(value)


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


@contextmanager
def exact_saved_tensors() -> Iterator[None]:
    """No hooks of the caller on saved tensors, which may round what a backward pass reads; afterwards they are back."""
    hooks = []
    while pair := torch._C._autograd._top_saved_tensors_default_hooks(True):
        hooks.append(pair)
        torch._C._autograd._pop_saved_tensors_default_hooks()
    try:
        yield
    finally:
        for pair in reversed(hooks):
            torch._C._autograd._push_saved_tensors_default_hooks(*pair)


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
    except (RuntimeError, LookupError, TypeError, AttributeError, AssertionError) as error:
        raise ValueError(
            f"the model could not be run on x of shape {tuple(x.shape)}, {x.dtype}: {error}. ({_remedy(error)}.)"
        ) from error
    if _random_states(x.device) != before:
        raise UnsupportedModelError(
            "the model draws random numbers in eval mode, so that its output is random (or another thread drew some meanwhile)"
        )
    block = _block.get()
    if block is not None:
        types = {x.dtype, *guard.types}
        block.eps = max(block.eps, *(torch.finfo(each).eps for each in types if each.is_floating_point))
        if guard.normalised:
            block.normalised.setdefault(id(model), (model, x.detach(), guard.normalised))
        mixes = len(x) > 1 and (guard.mixes or bool(block.scripts))
        first = block.passes.get(id(model))
        # Equal rows, as those of a baseline, tell nothing of what mixes them.
        is_first = len(x) > 0 and (first is None or (len(x) > 1 and torch.equal(first.x[0], first.x[-1])))
        if is_first and (mixes or not _is_repeated(model, len(x))):
            block.passes[id(model)] = _Pass(model, len(x), x.detach()[[0, -1]], _ends(output, len(x)), mixes)
    return output


def _remedy(error: Exception) -> str:
    if "positional argument" in str(error):
        return "A model that takes x by a name, or more than x, goes into a function: lambda x: model(name=x)"
    return (
        "A function that holds a second input takes the rows of that input and no others: pass batch_size=N, or explain its "
        "rows one by one"
    )


def _check_constant(model: Model, x: Tensor, normalised: Sequence[Tensor]) -> None:
    """Refuse a model that normalises by statistics of the batch what depends on x, and not its weights alone."""
    other = Guard(len(x))
    with torch.no_grad(), suppress(Exception), other:
        model(x / 2 + torch.linspace(0.1, 1, x.numel(), dtype=x.dtype, device=x.device).view_as(x))
    if len(other.normalised) != len(normalised) or not all(map(torch.equal, normalised, other.normalised)):
        raise UnsupportedModelError(BATCH_STATISTICS)


def rounding() -> float:
    """That of the narrowest type that the models have computed in within the surrounding block of :func:`explaining`."""
    block = _block.get()
    return block.eps if block else 0.0


def at_end(check: Callable[[], None]) -> None:
    """Call it when the surrounding block of :func:`explaining` ends, where no method's hooks are on the model any more."""
    block = _block.get()
    if block is None:
        check()
    else:
        block.checks.append(check)


def refuse_cuts() -> None:
    """Refuse the scripts that the surrounding block of :func:`explaining` has met, if one may cut a value off."""
    block = _block.get()
    for script in block.scripts if block else ():
        refuse_cuts_in(script)


def _ends(output: object, count: int) -> list[Tensor]:
    """The first and the last of these rows in every floating-point tensor of the output that has as many."""
    found = [part.detach() for part in tree_leaves(output) if isinstance(part, Tensor) and part.is_floating_point()]
    return [part[[0, -1]] for part in found if part.shape[:1] == (count,)]


def _is_repeated(model: Model, count: int) -> bool:
    try:
        return _repeated.get(model, 0) >= min(count, 2)
    except TypeError:  # it cannot be hashed
        return False


def _random_states(device: torch.device) -> tuple:
    """The state of every global source of random numbers that a model may draw from, as values that compare."""
    numpy_state: Any = np.random.get_state()  # noqa: NPY002
    _, keys, position, *_ = numpy_state
    torch_states = [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])
    return random.getstate(), keys.tobytes(), position, *(state.numpy().tobytes() for state in torch_states)


def _check_rows(first: _Pass, rows: Sequence[int], eps: float) -> None:
    """Refuse a model whose output for these rows changes when they are run again, without the others or in their place.

    Raises:
        UnsupportedModelError: they do, by more than the rounding of another order of the sums.
    """
    model, count, x, outputs, _ = first
    shapes = [part.shape for part in outputs]
    for row in rows:  # a sum that runs over the batch leaves the one as it is
        again: list[Tensor] = []
        with torch.no_grad():
            with suppress(Exception):  # a function that holds a second input of as many rows as x
                again = _ends(model(x[row][None]), 1)
            if [part.shape for part in again] != shapes:
                again = _ends(model(x[row][None].repeat(count, *[1] * (x.dim() - 1))), count)
        for was, now in zip(outputs, again, strict=False):
            change = torch.where(now[row] == was[row], 0, now[row] - was[row]).abs().max()  # equal infinities are equal
            size = was.nan_to_num(0, 0, 0).abs().max()
            if not change <= eps**0.5 * size + 100 * eps * x.abs().max().clamp(min=1):
                raise UnsupportedModelError(
                    f"the output for a row changes from call to call, or depends on the other rows of its batch (by {change:.2g} in "
                    f"row {row and count - 1}), so rows cannot be explained by themselves: look for random numbers, or a mean, a "
                    "softmax or a norm over axis 0, or attention over it"
                )
    with suppress(TypeError):  # it cannot be hashed, or held weakly
        _repeated[model] = max(min(count, 2), _repeated.get(model, 0))
