"""The modules that a function or an object may run, found without running it."""

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from .inputs import Model


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
