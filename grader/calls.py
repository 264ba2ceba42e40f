"""Calls of a student's function as data, and their outcomes as data: what travels between grader and sandbox.

A message is a JSON header and one safetensors blob, never a pickle. A network travels as a list of layer names with
arguments and its state; both sides build it with `Net.build`. Both sides use `perform`: the sandbox on the student's
function, the grader on the reference.

The sandbox imports this file on its own: torch, safetensors and the standard library only.
"""

import json
import operator
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn


class Power(nn.Module):
    """x^p / p at every entry, with the gradient x^(p - 1)."""

    def __init__(self, p: int) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return x**self.p / self.p


LAYERS = {
    layer.__name__: layer
    for layer in (Power, nn.AvgPool2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.Conv2d, nn.Dropout, nn.Flatten, nn.Linear,
                  nn.MaxPool2d, nn.ReLU, nn.Sigmoid, nn.Softplus, nn.Tanh)
}  # fmt: skip


GRADIENT = "the gradient of the result's sum with respect to argument"


@dataclass
class Net:
    """A stack of layers with its weights: ``Net.draw([("Linear", 4, 3), ("ReLU",)], generator)``.

    ``("Again", i)`` is the module of place i once more.
    """

    layers: list[tuple]
    state: dict[str, Tensor]
    training: list[str] = field(default_factory=list)  # names of the modules in train mode
    grads: bool = False  # whether every parameter carries a .grad of ones

    @classmethod
    def draw(
        cls,
        layers: list[tuple],
        generator: torch.Generator,
        *,
        dtype: torch.dtype = torch.float32,
        training: list[str] | None = None,
        grads: bool = False,
    ) -> "Net":
        """Gaussian weights of the usual scale, in eval mode but for the modules named in ``training``."""
        net = cls(layers, {}, training or [], grads)
        for name, value in net.build().state_dict().items():
            noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            if value.is_floating_point():
                fan_in = value[0].numel() if value.dim() > 1 else 4
                noise = 0.5 + noise.abs() if name.endswith("running_var") else noise / fan_in**0.5
                value = noise.to(dtype)
            net.state[name] = value
        return net

    def build(self) -> nn.Sequential:
        with torch.random.fork_rng([]):  # the random weights that are overwritten here
            made: list[nn.Module] = []
            for name, *options in self.layers:
                if name not in {"Again", *LAYERS}:
                    raise ValueError(f"there is no layer {name!r}: take {', '.join(LAYERS)} or Again")
                made.append(made[options[0]] if name == "Again" else LAYERS[name](*options))
            model = nn.Sequential(*made)
        if self.state:
            model.to(next((v.dtype for v in self.state.values() if v.is_floating_point()), torch.float32))
            model.load_state_dict(self.state)
        for name, module in model.named_modules():
            module.training = name in self.training
        if self.grads:
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)
        return model


@dataclass
class Call:
    """``function(*args, **options)``; args are tensors, `Net`s, numbers or nested lists of numbers.

    Args:
        inspect: also return what the call left behind: the values and modes of its networks, the values of its tensors
            and the global random state, which is set before.
        on_simulated_device: the tensors and networks lie on a simulated device that is not the CPU.
        gradients: its tensors require a gradient, and where the result hangs on them its gradients are returned, too.
        question: its name; of the student's notebook counts what stands before its check. See `interp_lab.extract`.
    """

    function: str
    args: list
    options: dict[str, Any] = field(default_factory=dict)
    inspect: bool = False
    on_simulated_device: bool = False
    gradients: bool = False
    question: str = ""


@dataclass
class Outcome:
    """What a call gave: ``tensors["result"]`` and what `Call.inspect` adds, or an error in words.

    Args:
        left_out: what of the notebook did not run or does not count, in words.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    kind: str = ""  # type of the result: "Tensor", "float", "list", ...
    attached: bool = False  # it still hangs on a graph
    error: str = ""
    left_out: str = ""

    @property
    def result(self) -> Tensor:
        return self.tensors["result"]


def perform(function: Callable, call: Call) -> Outcome:
    """Call the function on copies of the arguments. Its exceptions pass through."""
    from contextlib import nullcontext

    if call.on_simulated_device:
        import simulated_device
    args = [
        arg.build() if isinstance(arg, Net) else arg.clone() if isinstance(arg, Tensor) else arg for arg in call.args
    ]
    if call.on_simulated_device:
        args = [simulated_device.move(arg) for arg in args]
    if call.gradients:
        args = [arg.requires_grad_() if isinstance(arg, Tensor) and arg.is_floating_point() else arg for arg in args]
    layers = [list(arg) for arg in args if isinstance(arg, nn.Sequential)]
    if call.inspect:
        torch.manual_seed(0)
    with simulated_device.DeviceMode() if call.on_simulated_device else nullcontext():
        result = function(*args, **call.options)
    outcome = Outcome(kind=type(result).__name__)
    if isinstance(result, Tensor):
        outcome.kind, outcome.attached = "Tensor", bool(result.requires_grad)
        if call.on_simulated_device:
            result = simulated_device.fetch(result)
        with torch._C.DisableTorchFunctionSubclass():
            outcome.tensors["result"] = result.detach().as_subclass(Tensor).cpu().contiguous().clone()
    elif kinds := [kind.__name__ for kind in (bool, float, int, list, tuple) if isinstance(result, kind)]:
        outcome.kind = kinds[0]  # np.float64 is a float
        outcome.tensors["result"] = torch.tensor(_plain(result), dtype=torch.float64)
    else:
        raise TypeError(f"the result must be a torch.Tensor or made of numbers, got {type(result).__name__}")
    if call.gradients and outcome.attached:
        leaves = {
            f"{GRADIENT} {n}": arg for n, arg in enumerate(args, 1) if isinstance(arg, Tensor) and arg.requires_grad
        }
        found = torch.autograd.grad(result.sum(), list(leaves.values()), allow_unused=True)
        outcome.tensors |= {
            name: torch.zeros_like(leaves[name]) if g is None else g for name, g in zip(leaves, found, strict=True)
        }
    if call.inspect:
        outcome.tensors |= side_effects(args)
        now = [list(arg) for arg in args if isinstance(arg, nn.Sequential)]
        same = all(len(a) == len(b) and all(map(operator.is_, a, b)) for a, b in zip(layers, now, strict=True))
        outcome.tensors["the list of the network's layers"] = torch.tensor(same)
    return outcome


def _plain(value: Any) -> Any:
    """Numbers, and lists of them, as Python's own: whatever of torch or numpy stands in a list."""
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.tolist() if hasattr(value, "tolist") else value


def side_effects(args: list) -> dict[str, Tensor]:
    """State of the arguments after a call, under names for the feedback; an absent .grad is an empty tensor."""
    found = {"the global random state of torch": torch.get_rng_state()}
    for number, arg in enumerate(args, 1):
        if isinstance(arg, nn.Module):
            for name, module in arg.named_modules():
                found[f"the train/eval mode of the {type(module).__name__} {name!r}"] = torch.tensor(module.training)
            for name, value in arg.state_dict().items():
                found[f"the values of the model's {name!r}"] = value.detach().clone()
            for name, p in arg.named_parameters():
                found[f"the .grad of the parameter {name!r}"] = torch.empty(0) if p.grad is None else p.grad.clone()
        elif isinstance(arg, Tensor):
            found[f"the values of argument {number}, of shape {tuple(arg.shape)},"] = arg.detach().clone()
            found[f"the requires_grad flag of argument {number}, of shape {tuple(arg.shape)},"] = torch.tensor(
                arg.requires_grad
            )
        elif isinstance(arg, list):
            found[f"the list that is argument {number}"] = torch.tensor(list(repr(arg).encode()))
    return found


def pack(header: dict, tensors: dict[str, Tensor]) -> bytes:
    """One message."""
    text = json.dumps(header).encode()
    blob = save({name: value.clone(memory_format=torch.contiguous_format) for name, value in tensors.items()})
    return struct.pack("<QQ", len(text), len(blob)) + text + blob


HEADER = 2**17  # bytes of JSON in an answer; of tensors' names and shapes, as many again


def unpack(message: bytes, *, answers: int | None = None) -> tuple[list[tuple[dict, dict[str, Tensor]]], str]:
    """The complete messages at the start of the bytes, and what is wrong with the bytes behind them, if anything.

    Args:
        answers: the bytes come from a student's process, with at most so many messages, each with a small header.
    """
    found: list[tuple[dict, dict[str, Tensor]]] = []
    start = 0
    while len(message) >= start + 16:
        sizes = struct.unpack_from("<QQ", message, start)
        middle, end = start + 16 + sizes[0], start + 16 + sum(sizes)
        if end > len(message) or len(found) == answers:
            break
        if answers is not None and max(sizes[0], int.from_bytes(message[middle : middle + 8], "little")) > HEADER:
            return found, "malformed answer (a header is too long)"
        try:
            header, tensors = json.loads(message[start + 16 : middle]), load(message[middle:end])
        except Exception as error:  # whatever a parser says about hostile bytes
            return found, f"malformed answer ({type(error).__name__})"
        if not isinstance(header, dict) or header.get("call", len(found)) != len(found):
            return found, "malformed answer (no header of this call)"
        found.append((header, tensors))
        start = end
    return found, ""


def pack_calls(cells: dict[str, str], calls: list[Call]) -> bytes:
    """The student's code and the calls to make, as one message."""
    tensors: dict[str, Tensor] = {}

    def flat(value: Any, name: str) -> Any:
        if isinstance(value, Tensor):
            tensors[name] = value
            return {"tensor": name}
        if isinstance(value, Net):
            tensors.update({f"{name}/{key}": v for key, v in value.state.items()})
            return {
                "layers": value.layers,
                "state": list(value.state),
                "training": value.training,
                "grads": value.grads,
            }
        return value

    plain = [
        vars(call) | {"args": [flat(arg, f"{i}/{j}") for j, arg in enumerate(call.args)]}
        for i, call in enumerate(calls)
    ]
    return pack({"cells": cells, "calls": plain}, tensors)


def unpack_calls(message: bytes) -> tuple[dict[str, str], list[Call]]:
    """Inverse of `pack_calls`."""
    ((header, tensors),), _ = unpack(message)

    def full(value: Any, name: str) -> Any:
        if not isinstance(value, dict):
            return value
        if "tensor" in value:
            return tensors[value["tensor"]]
        return Net(**value | {"state": {key: tensors[f"{name}/{key}"] for key in value["state"]}})

    calls = [
        Call(**call | {"args": [full(arg, f"{i}/{j}") for j, arg in enumerate(call["args"])]})
        for i, call in enumerate(header["calls"])
    ]
    return header["cells"], calls
