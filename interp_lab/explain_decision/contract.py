r"""What every attribution method keeps: checked inputs, an untouched model, the gradient of one logit per row.

A method of this folder is ``method(model, x, target=None, *, ...) -> Tensor`` of the shape, dtype and device of
``x``. It explains the logit :math:`f_c(x)` of the target class in eval mode and leaves the model as it was.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Model = nn.Module | Callable[[Tensor], Tensor]
Target = int | Tensor | None


class UnsupportedModelError(ValueError):
    """A method met an operation or a model that it has no right answer for; the message names it."""


@contextmanager
def explaining(model: Model, x: Tensor) -> Iterator[Tensor]:
    """The checked, detached x, inside a block that leaves the model and the global random state as they were.

    The model runs in eval mode with gradients on, whatever mode it or the caller is in.

    Raises:
        ValueError: x is not a finite floating-point batch ``(N, ...)``, or not of the model's dtype and device.
    """
    modes = [(module, module.training) for module in model.modules()] if isinstance(model, nn.Module) else []
    check_input(model, x)
    cuda = [x.device] if x.device.type == "cuda" else []
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(cuda):
        try:
            for module, _ in modes:
                module.training = False
            yield x.clone() if x.is_inference() else x.detach()
        finally:
            for module, training in modes:
                module.training = training


def check_input(model: Model, x: Tensor) -> None:
    """Refuse what no method can treat; see :func:`explaining`."""
    if not isinstance(x, Tensor):
        raise ValueError(f"x must be a torch.Tensor batch (N, ...), got {type(x).__name__}")
    if not x.is_floating_point():
        raise ValueError(f"x must be a floating-point batch, got dtype {x.dtype}; use x.float() and scale it")
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


def rows_per_pass(x: Tensor) -> int:
    """How many rows like those of x a pass takes by default: more no longer fit a cache, fewer leave a GPU idle.

    On a processor also their number is bounded, since the memory of large feature maps takes long to fetch.
    """
    elements, most = (2**20, 128) if x.device.type == "cpu" else (2**26, 2**16)
    return max(1, min(elements // max(1, x[:1].numel()), most))


def logits_of(model: Model, x: Tensor) -> Tensor:
    """``model(x)``, checked to be logits ``(N, K)``.

    Raises:
        ValueError: the model cannot take x's shape, gives no ``(N, K)`` tensor, or gives NaN.
    """
    try:
        logits = model(x.clone())  # a model that works in place shall not change the caller's x
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ValueError(f"the model could not be run on x of shape {tuple(x.shape)}: {error}") from error
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(x):
        got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the model must give logits of shape ({len(x)}, K) for x {tuple(x.shape)}, got {got}")
    if torch.isnan(logits).any():
        raise ValueError("the model gives NaN logits for this x")
    return logits


def check_target(target: int | Tensor, count: int) -> Tensor:
    """Target classes as a LongTensor ``(count,)``.

    Raises:
        ValueError: neither an int nor an integer tensor ``(count,)``.
    """
    if isinstance(target, Tensor) and target.dtype in (torch.int64, torch.int32, torch.int16, torch.uint8):
        if target.dim() != 0 and target.shape != (count,):
            raise ValueError(f"target must have shape ({count},), got {tuple(target.shape)}")
    elif not isinstance(target, int) or isinstance(target, bool):
        got = f"a tensor of {target.dtype}" if isinstance(target, Tensor) else repr(target)
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


@contextmanager
def reading(model: Model, layer: str | nn.Module, read: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """Call ``read`` with the feature maps ``(N, K, ...)`` that the layer gives in this block.

    What ``read`` returns goes on through the network in their place; None leaves them as they are.

    Raises:
        ValueError: the model has no such module.
        UnsupportedModelError: the layer gives something else, or was not called once when the block ends.
    """
    modules = dict(model.named_modules()) if isinstance(model, nn.Module) else {}
    module = modules.get(layer) if isinstance(layer, str) else layer
    if not any(module is m for m in modules.values()):
        raise ValueError(f"the model has no module {layer if isinstance(layer, str) else type(layer).__name__!r}")
    calls = 0

    def hook(module: nn.Module, args: tuple, out: Tensor) -> Tensor | None:
        nonlocal calls
        calls += 1
        if not isinstance(out, Tensor) or out.dim() < 3:
            got = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
            raise UnsupportedModelError(f"the layer must give feature maps (N, K, ...), got {got}")
        return read(out)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
    if calls != 1:
        raise UnsupportedModelError(f"the layer must be called once, but was called {calls} times")


@contextmanager
def captured(model: Model, layer: str | nn.Module) -> Iterator[list[Tensor]]:
    """A list that holds the feature maps which the layer gives in this block; errors as for :func:`reading`."""
    kept: list[Tensor] = []

    def keep(maps: Tensor) -> Tensor:
        kept.append(maps)
        return maps.clone()  # a later operation in place shall not change what is kept

    with reading(model, layer, keep):
        yield kept


def gradient(model: Model, x: Tensor, target: Target) -> Tensor:
    r""":math:`\partial f_c / \partial x` for every row of a checked batch, by one forward and one backward pass.

    Rows are independent in eval mode, so the gradient of the sum of the chosen logits holds each row's own.

    Raises:
        UnsupportedModelError: the logits do not depend on x through differentiable operations.
    """
    x = x.detach().requires_grad_()
    chosen = pick(logits_of(model, x), target).sum()
    if not chosen.requires_grad:
        raise UnsupportedModelError(
            "the logits do not depend on x through differentiable operations (is there a detach(), a no_grad or "
            "an integer operation between x and the logits?)"
        )
    (grad,) = torch.autograd.grad(chosen, x, materialize_grads=True)
    return grad
