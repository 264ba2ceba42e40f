"""A user's rules for modules and functions, held to conserving the relevance."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from ...contract import Model, UnsupportedModelError
from ...contract.interception import Replacement, Rule, operations, origin, running

CustomRule = Callable[..., Tensor | Sequence[Tensor]]  # (inputs ..., output, signal at it) -> signal at every input


class Custom(Replacement):
    """A module or function whose backward pass is a user's rule, held to conserving the relevance."""

    @staticmethod
    def forward(ctx, rule: CustomRule, name: str, rows: int, y: Tensor, *inputs: Tensor) -> Tensor:
        ctx.rule, ctx.name, ctx.rows = rule, name, rows
        ctx.save_for_backward(y, *inputs)
        return y.clone()

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        y, *inputs = ctx.saved_tensors
        with torch.enable_grad():
            signals = ctx.rule(*(a.detach().requires_grad_() for a in inputs), y, g)
        signals = [signals] if isinstance(signals, Tensor) else list(signals)
        if [s.shape for s in signals] != [a.shape for a in inputs]:
            raise ValueError(f"the rule for {ctx.name!r} must give a signal of each input's shape")
        parts = [y * g, *(-a * s.detach() for a, s in zip(inputs, signals, strict=True))]
        # The rows lie along an axis that all have, the first or another; where there is none, only the whole is known.
        axes = [d for d in range(min(p.dim() for p in parts)) if all(p.shape[d] == ctx.rows for p in parts)]
        by_row = [[p.movedim(d, 0).reshape(ctx.rows, -1) for p in parts] for d in axes if ctx.rows]
        leaks = [_leak(rows) for rows in by_row or [[p.reshape(1, -1) for p in parts]]]
        if None not in leaks:
            raise ValueError(f"the rule for {ctx.name!r} does not conserve relevance: {leaks[0]}")
        return None, None, None, None, *(s.detach() for s in signals)


def _leak(parts: Sequence[Tensor]) -> str | None:
    """What comes into the row that leaks most and goes out of it, where that is not the same."""
    sums = torch.stack([part.sum(1) for part in parts])
    left, size = sums.sum(0), torch.stack([part.abs().sum(1) for part in parts]).sum(0)
    row = (left.abs() - 1e-3 * size).argmax()
    if left[row].abs() <= 1e-3 * size[row]:
        return None
    came = sums[0, row].item()
    return f"{came:.4g} comes in, {came - left[row].item():.4g} goes out"


class Unread(Replacement):
    """A further output of a module or function with a user's rule, which tells nothing about it."""

    @staticmethod
    def forward(ctx, name: str, y: Tensor, *inputs: Tensor) -> Tensor:
        ctx.name = name
        return y.clone()

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        raise UnsupportedModelError(
            f"the rule for {ctx.name!r} is for its first output, but the model reads another: write the rule for a "
            "module that gives one tensor"
        )


def split_custom(
    model: Model, custom: Mapping[str, CustomRule]
) -> tuple[dict[str, CustomRule], dict[str, tuple[nn.Module, CustomRule]]]:
    """The user's rules for functions of torch and those for modules of the model."""
    modules = dict(model.named_modules()) if isinstance(model, nn.Module) else {}
    for name in custom:
        if name not in modules and not operations(name):
            raise ValueError(f"custom has a rule for {name!r}, which is neither a module nor a function of torch")
    functions = {name: rule for name, rule in custom.items() if name not in modules}
    return functions, {name: (modules[name], rule) for name, rule in custom.items() if name in modules}


def custom_functions(custom: Mapping[str, CustomRule], ran: set[str]) -> dict[Callable, Rule]:
    def table(name: str, rule: CustomRule) -> dict[Callable, Rule]:
        def call(func, args, kwargs):
            return _run_custom(name, rule, func, args, kwargs, ran)

        return dict.fromkeys(operations(name), call)

    return {func: call for name, rule in custom.items() for func, call in table(name, rule).items()}


@contextmanager
def custom_modules(modules: Mapping[str, tuple[nn.Module, CustomRule]], ran: set[str]) -> Iterator[None]:
    """The modules run their own rule in this block."""

    def wrapped(name: str, forward: Callable, rule: CustomRule) -> Callable:
        return lambda *args, **kwargs: _run_custom(name, rule, forward, args, kwargs, ran)

    kept = {n: {k: v for k, v in vars(module).items() if k == "forward"} for n, (module, _) in modules.items()}
    try:
        for name, (module, rule) in modules.items():
            module.forward = wrapped(name, module.forward, rule)
        yield
    finally:
        for name, (module, _) in modules.items():
            module.__dict__.pop("forward", None)
            module.__dict__ |= kept[name]


def _run_custom(name: str, rule: CustomRule, func: Callable, args: tuple, kwargs: dict, ran: set[str]):
    inputs = [value for value in tree_leaves((args, kwargs)) if origin(value)]
    with torch._C.DisableTorchFunction(), torch.no_grad():  # what happens inside is the rule's affair
        args, kwargs = tree_map_only(
            Tensor, lambda t: t.detach().clone() if t.is_floating_point() else t, (args, kwargs)
        )
        out = func(*args, **kwargs)
    if not inputs:
        return out
    ran.add(name)
    apply = [partial(Custom.apply, rule, name, len(running().leaves[0]))]  # for the first output

    def with_rule(y: Tensor) -> Tensor:
        return (apply.pop() if apply else partial(Unread.apply, name))(y, *inputs) if y.is_floating_point() else y

    return tree_map_only(Tensor, with_rule, out)
