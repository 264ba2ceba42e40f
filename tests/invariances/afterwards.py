"""The model and the process after a call, and after one that fails, are what they were before."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from .cells import EQUAL, FAILED, Outcome, canonical, reference
from .changes import call
from .functions import FUNCTIONS
from .networks import NETWORKS, Apply, Case, Network, stack

HOOKS = [name for name in vars(nn.Module()) if "hooks" in name]


def fingerprint(value: Any) -> Any:
    """Something that is equal if and only if the value is, bit for bit."""
    if isinstance(value, Tensor):
        return value.dtype, tuple(value.shape), value.detach().cpu().numpy().tobytes()
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, tuple | list):
        return tuple(fingerprint(part) for part in value)
    return value


def state(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Any]:
    """Everything that a call might leave changed, by name."""
    found: dict[str, Any] = {
        "torch's random state": torch.get_rng_state(),
        "numpy's random state": np.random.get_state(),  # noqa: NPY002
        "Python's random state": random.getstate(),
        "gradients on": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "autocast": [(torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in ("cpu", "cuda")],
        "autocast's cache": torch.is_autocast_cache_enabled(),
        "precision of products": torch.get_float32_matmul_precision(),
        "TF32": (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32),
        "cuDNN": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.backends.cudnn.enabled),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "default dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "anomaly detection": torch.is_anomaly_enabled(),
        "modes of functions": torch._C._len_torch_function_stack(),
        "modes of dispatch": torch._C._len_torch_dispatch_stack(),
        "global hooks": [list(hooks) for name, hooks in sorted(vars(torch_module).items()) if name.startswith("_global_") and "hook" in name and isinstance(hooks, dict)],
    }  # fmt: skip
    for name, module in model.named_modules():
        found[f"mode of {name!r}"] = module.training
        found[f"class of {name!r}"] = type(module)
        found[f"attributes of {name!r}"] = sorted(vars(module))
        found[f"hooks of {name!r}"] = [list(vars(module)[hooks].items()) for hooks in HOOKS if vars(module)[hooks]]
    for kind, tensors in (
        ("parameter", model.named_parameters()),
        ("buffer", model.named_buffers()),
        ("input", inputs.items()),
    ):
        for name, tensor in tensors:
            found[f"{kind} {name!r}"] = tensor.detach().clone()
            found[f"which {kind} {name!r}"] = id(tensor)
            found[f".grad of {kind} {name!r}"] = None if tensor.grad is None else tensor.grad.clone()
            found[f"requires_grad of {kind} {name!r}"] = tensor.requires_grad
            found[f"hooks of {kind} {name!r}"] = list(tensor._backward_hooks or ())
    return {name: fingerprint(value) for name, value in found.items()}


class Counted(nn.Module):
    """Raises at a call of the model."""

    def __init__(self, at: int, error: type[BaseException]) -> None:
        super().__init__()
        self.calls, self.at, self.error = [], at, error  # a list: the number itself would be a change of the model

    def forward(self, h: Tensor) -> Tensor:
        self.calls.append(1)
        if len(self.calls) == self.at:
            raise self.error(f"call {self.at}")
        return h


def lived_in(case: Case) -> Case:
    """A model as it is in the middle of its training: mixed modes, gradients, hooks, a frozen parameter."""
    modules, parameters = list(case.model.modules()), list(case.model.parameters())
    case.model.train()
    modules[-1].eval()
    modules[len(modules) // 2].register_forward_hook(lambda *_: None)
    modules[len(modules) // 2].register_full_backward_pre_hook(lambda *_: None)
    parameters[0].grad = torch.ones_like(parameters[0])
    parameters[1].requires_grad_(False)
    return replace(case, x=case.x.clone().requires_grad_())


def behind(module: nn.Module) -> Callable[[Case], Case]:
    def edit(case: Case) -> Case:
        case.model.head = (
            stack(inner=case.model.head, behind=module) if hasattr(case.model, "head") else case.model.head
        )
        return case

    return edit


class Counting(nn.Module):
    """Changes one buffer in place and puts another in the place of a second."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(()))

    def forward(self, h: Tensor) -> Tensor:
        self.calls += 1
        self.last = h.detach().mean()
        return h


SCENARIOS: dict[str, Callable[[Case], Case]] = {
    "an answer of a network that changes its buffers": behind(Counting()),
    "an answer of a function": lambda c: replace(c, model=lambda x, m=c.model: m(x), layer=c.model.get_submodule("maps")),
    "a target out of range": lambda c: replace(c, target=99),
    "NaN in x": lambda c: replace(c, x=c.x.detach() * torch.nan, train=c.train * torch.nan),
    "another number of channels": lambda c: replace(c, x=torch.cat([c.x, c.x], 1).detach(), train=torch.cat([c.train, c.train], 1)),
    "a refused operation": behind(Apply(lambda h: F.dropout(h.softmax(1)))),
    "no logits": behind(Apply(lambda h: (h, h))),
    **{f"an exception at call {k}": behind(Counted(k, RuntimeError)) for k in (1, 2, 3, 4)},
    "an interruption at call 2": behind(Counted(2, KeyboardInterrupt)),
}  # fmt: skip
USUAL = ("residual", "functional ReLU", "dense", "squeeze-excitation")


def network_for(function: str) -> str:
    """The first usual network that the function answers."""
    name = canonical("twice in a row")
    return next((n for n in USUAL if isinstance(reference(name, function, n), list)), USUAL[0])


def outcome(scenario: str, function: str, network: str | None = None) -> Outcome:
    network = network or network_for(function)
    known: Network = NETWORKS[network]
    case = lived_in(known.case())
    model = case.model
    edited = SCENARIOS[scenario](case)
    for module in model.modules():
        if isinstance(module, Counted):
            module.calls.clear()
    inputs = {name: getattr(edited, name) for name in ("x", "beside", "train")}
    before = state(model, inputs)
    came = "answered"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call(FUNCTIONS[function], edited)
        except ValueError:
            came = "refused"
        except (Exception, KeyboardInterrupt) as error:
            came = f"raised {type(error).__name__}"
    after = state(model, inputs)
    changed = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    torch.set_grad_enabled(True)
    message = f"{came}; changed: {', '.join(sorted(changed)[:6])}" if changed else ""
    return Outcome(f"after {scenario}", function, network, FAILED if changed else EQUAL, message)


def cells(scenario: str) -> Iterator[tuple[str, str]]:
    yield from ((scenario, function) for function, known in FUNCTIONS.items() if not known.networks)
