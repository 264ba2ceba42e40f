"""A device that is not the CPU, simulated: its tensors do not mix with those of the CPU, as CUDA's do not.

It finds code that makes its tensors on the CPU whatever the device of x is, on a machine without an accelerator and
without giving the sandbox access to a driver. A tensor of this device wraps a CPU tensor that holds its values.

The sandbox imports this file on its own: torch only.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("lazy")  # a device type of PyTorch that autograd runs without a thread of its own
aten = torch.ops.aten
# Operations that take CPU tensors beside those of another device on CUDA, too.
MIXED = {aten.copy_.default, aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
TO_CPU = {aten._local_scalar_dense.default, aten.equal.default, aten.is_nonzero.default}
# What a tensor says of its layout, asked from the tensor inside.
LAYOUT: dict[Any, Callable] = {
    aten.dim.default: Tensor.dim,
    aten.sym_size.default: Tensor.size,
    aten.sym_stride.default: Tensor.stride,
    aten.sym_numel.default: Tensor.numel,
    aten.sym_storage_offset.default: Tensor.storage_offset,
    aten.is_contiguous.default: Tensor.is_contiguous,
    aten.is_contiguous.memory_format: lambda x, layout: x.is_contiguous(memory_format=layout),
    aten.is_strides_like_format.default: lambda x, layout: False,
    aten.is_non_overlapping_and_dense.default: Tensor.is_contiguous,
}


class DeviceTensor(Tensor):
    """A tensor whose ``device`` is ``DEVICE``."""

    held: Any  # the tensor on the CPU

    @staticmethod
    def __new__(cls, held: Tensor) -> "DeviceTensor":
        made: Any = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
            dispatch_sizes_strides_policy="sizes",  # asks below, since an operation in place may change the shape
        )
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __getitem__(self, key: Any) -> Tensor:
        return super().__getitem__(_indices(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(_indices(key), value)

    def tolist(self) -> list:
        detached: Any = self.detach()
        return detached.held.tolist()

    def __format__(self, form: str) -> str:
        detached: Any = self.detach()
        return format(detached.held, form)

    def new_tensor(self, values, *, dtype=None, device=None, requires_grad=False) -> Tensor:  # type: ignore[override]
        return _make(torch.tensor, values, dtype=dtype or self.dtype, device=device or DEVICE).requires_grad_(
            requires_grad
        )

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), options=None):
        return _run(operation, args, options or {})


class DeviceMode(TorchDispatchMode):
    """``with DeviceMode():`` also catches what is made with ``device=x.device`` out of no tensor."""

    def __enter__(self):
        self.real = {name: getattr(torch, name) for name in ("Generator", "tensor", "as_tensor")}
        generator = self.real["Generator"]  # CUDA has generators, so this device has; a class, as in annotations
        torch.Generator = type("Generator", (), {"__new__": lambda cls, device=None: generator()})
        torch.tensor, torch.as_tensor = (partial(_make, self.real[name]) for name in ("tensor", "as_tensor"))
        return super().__enter__()

    def __exit__(self, *error):
        for name, function in self.real.items():
            setattr(torch, name, function)
        return super().__exit__(*error)

    def __torch_dispatch__(self, operation, types, args=(), options=None):
        return _run(operation, args, options or {})


def move(value: Any) -> Any:
    """A tensor, or a module with all its tensors, moved to this device."""
    if isinstance(value, nn.Module):
        for module in value.modules():
            for name, p in module._parameters.items():
                if p is not None:
                    module._parameters[name] = nn.Parameter(DeviceTensor(p.detach()), p.requires_grad)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = DeviceTensor(buffer)
        return value
    return DeviceTensor(value) if isinstance(value, Tensor) else value


def fetch(result: Tensor) -> Tensor:
    """The values of a tensor of this device.

    Raises:
        RuntimeError: it lies on the CPU.
    """
    if not isinstance(result, DeviceTensor):
        raise RuntimeError("x lies on another device than the CPU, but the result lies on the CPU; make it follow x")
    detached: Any = result.detach()
    return detached.held


def _indices(key: Any) -> Any:
    """Lists, ranges and arrays of an index as CPU tensors, which PyTorch makes of them below the reach of a mode."""
    if isinstance(key, tuple):
        return tuple(map(_indices, key))
    return torch.as_tensor(key) if isinstance(key, list | range) or type(key).__name__ == "ndarray" else key


def _make(constructor: Callable, values: Any, *, device: Any = None, **options: Any) -> Tensor:
    """`torch.tensor`, which makes its result below the level where a mode can catch it."""
    if isinstance(values, Tensor):
        return values.clone().to(device=device or values.device, dtype=options.get("dtype") or values.dtype)
    made = constructor(values, **options)
    return made if device is None or torch.device(device).type != DEVICE.type else made.to(DEVICE)


def _run(operation, args: tuple, options: dict) -> Any:
    if operation in LAYOUT:
        return LAYOUT[operation](*(arg.held if isinstance(arg, DeviceTensor) else arg for arg in args))
    tensors = [leaf for leaf in tree_leaves((args, options)) if isinstance(leaf, Tensor)]
    on_device = any(isinstance(t, DeviceTensor) for t in tensors)
    cpu_operands = [t for t in tensors if not isinstance(t, DeviceTensor) and t.dim() > 0]
    if on_device and cpu_operands and operation not in MIXED:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but {operation.overloadpacket.__name__} met one on the device "
            "of x and one on the CPU. Tensors that you make must follow x: torch.zeros_like(x), .to(x), device=x.device"
        )
    if (device := options.get("device")) is not None:
        on_device = torch.device(device).type == DEVICE.type
        options = options | {"device": torch.device("cpu")}
    if operation is aten._efficientzerotensor.default:  # of forward-mode differentiation: no memory behind it
        operation = aten.zeros.default
    inner_args, inner_options = tree_map(lambda v: v.held if isinstance(v, DeviceTensor) else v, (args, options))
    result = operation(*inner_args, **inner_options)
    if operation._schema.is_mutable and isinstance(args[0] if args else None, Tensor):
        return args[0]
    if not on_device or operation in TO_CPU:
        return result
    return tree_map(lambda v: DeviceTensor(v) if isinstance(v, Tensor) else v, result)
