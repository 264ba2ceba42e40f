"""Model randomisation: does the map change when what the network has learned is destroyed, layer by layer?

A map that stays as it was cannot show what the network learned (Adebayo et al. 2018, arXiv:1810.03292).
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from ..contract import Target, UnsupportedModelError, explaining, logits_of, resolve
from .class_sensitivity import Method
from .relevance import relevance_map
from .similarity import Similarity, similarity


@dataclass(frozen=True, eq=False)
class ModelRandomisation(Similarity):
    """Similarity to the original map, ``(L, N)`` each: row l after ``layers[: l + 1]`` have been randomised. Besides:

    Attributes:
        layers: names of the layers in the order of their randomisation, from the logits to the input.
        target: the class explained, LongTensor ``(N,)``.
    """

    layers: tuple[str, ...]
    target: Tensor


def model_randomisation(
    method: Method, model: nn.Module, x: Tensor, target: Target = None, *, seed: int = 0
) -> ModelRandomisation:
    """Similarity of a method's map to itself while the layers are randomised in cascade, from the top.

    Each layer with parameters gets new ones from its own ``reset_parameters`` (a BatchNorm also forgets its
    statistics) and stays random while the next ones follow, in the reverse order of their first use. The class explained
    is that of the original model throughout. It all happens on a copy of the model, in which a weight that is computed
    from others (``weight_norm``, ``spectral_norm``, ``prune``, ``parametrize``) is written out first: its layer gets a
    new weight as any other, which the computation no longer touches. Frozen parameters are randomised too; tied ones
    with the first of their layers.

    A map that has died, zero everywhere, has no order: its rank correlation is NaN, and ``result.mean()`` leaves it out.

    Args:
        method: ``method(model, x, target)``, such as ``METHODS["lrp"]``.
        model: a module from ``(N, ...)`` to logits ``(N, K)``.
        x: float batch ``(N, ...)``.
        target: None (the class that the original model predicts), an int, or a LongTensor ``(N,)``.
        seed: of the new parameters, which are drawn on the CPU: every device gets the same.

    Raises:
        ValueError: the model is no module; the method gives NaN; x or target is not as above.
        UnsupportedModelError: a layer has parameters but no ``reset_parameters``, or one that leaves some of them as
            they were; the model uses weights that are no parameters of its own, or cannot be copied; no layer has any.

    >>> from interp_lab import saliency
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> model_randomisation(saliency, model, torch.rand(3, 1, 8, 8)).spearman.shape  # after each layer, each image
    torch.Size([2, 3])
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"only a torch.nn.Module has layers to randomise, got {type(model).__name__}")
    with explaining(model, x) as checked:
        target, network = resolve(model, checked, target), _copied(model)
        layers, steps = _layers(network, checked), []
        before, after = (logits_of(m, checked) for m in (model, network))
        if not (after - before).abs().max() <= torch.finfo(x.dtype).eps ** 0.5 * before.abs().max():
            raise UnsupportedModelError(
                "a copy of the model gives other logits than the model, so it tells nothing of it"
            )
        original = relevance_map(method(network, checked, target), "the original map")
    with explaining(network, x) as x:
        # The block gives the global random state back. Mixed, since a model that was itself made after manual_seed(0)
        # would get its old weights again.
        torch.manual_seed(seed ^ 0x5DEECE66D)
        for name, layer in layers.items():
            _randomise(name, layer)
            steps.append(similarity(original, method(network, x, target)))
    stacked = {field: torch.stack([getattr(step, field) for step in steps]) for field in Similarity.__annotations__}
    return ModelRandomisation(**stacked, layers=tuple(layers), target=target)


def _copied(model: nn.Module) -> nn.Module:
    """A copy in which every weight that is computed from others is a parameter of its own, with its present value."""
    derived = (t for m in model.modules() for t in vars(m).values() if isinstance(t, Tensor) and t.grad_fn is not None)
    try:
        network = copy.deepcopy(model, {id(t): t.detach().clone() for t in derived})
    except Exception as error:  # whatever a module's state may hold
        raise UnsupportedModelError(f"the model cannot be copied, so that it cannot be randomised: {error}") from error
    for module in list(network.modules()):
        if parametrize.is_parametrized(module):
            _write_out(module)
        for hook in reversed(list(module._forward_pre_hooks.values())):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(module, hook.name)
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(module, hook.name)
            elif isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)
    return network


def _write_out(module: Any) -> None:
    """In place of ``remove_parametrizations``, which takes the attribute from the class that the original shares."""
    values = {
        name: (getattr(module, name).detach().clone(), next(computation.parameters(), None) is not None)
        for name, computation in module.parametrizations.items()
    }
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    for name, (value, learned) in values.items():
        if learned:
            module.register_parameter(name, nn.Parameter(value))
        else:
            module.register_buffer(name, value)


class _Uses(TorchFunctionMode):
    """Sees every tensor that an operation gets, from a module or from a function."""

    def __init__(self, see: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.see = see

    def __torch_function__(self, func, types, args=(), kwargs=None):
        for value in tree_leaves((args, kwargs or {})):
            if isinstance(value, Tensor):
                self.see(value)
        return func(*args, **(kwargs or {}))


def _layers(network: nn.Module, x: Tensor) -> dict[str, nn.Module]:
    """The modules whose own parameters are used, by name, the last one to be used first."""
    owners: dict[int, list[str]] = {}
    for name, module in network.named_modules():
        if hasattr(module, "_packed_params") or isinstance(module, torch.jit.ScriptModule):
            raise UnsupportedModelError(
                f"layer {name!r} ({type(module).__name__}) keeps its weights where none can be set"
            )
        for _, tensor in _learned(module):
            owners.setdefault(id(tensor), []).append(name)
    constants = {
        id(tensor): f"{key!r} of {name!r} ({type(module).__name__})"
        for name, module in network.named_modules()
        for key, tensor in [*vars(module).items(), *module.named_buffers(recurse=False)]
        if isinstance(tensor, Tensor)
        and id(tensor) not in owners
        and (key in ("weight", "bias") or tensor.requires_grad)
    }
    used: dict[str, None] = {}

    def see(tensor: Tensor) -> None:
        for name in owners.get(id(tensor), ()):
            used.setdefault(name)
        if id(tensor) in constants:
            raise UnsupportedModelError(
                f"{constants[id(tensor)]} is a weight but no parameter; make it an nn.Parameter"
            )
        is_view = tensor._base is not None  # of a weight that was seen when the view was taken
        learned = isinstance(tensor, nn.Parameter) or (tensor.requires_grad and tensor.is_leaf and not is_view)
        if learned and id(tensor) not in owners:
            raise UnsupportedModelError(
                f"the model uses a weight {tuple(tensor.shape)} that is no parameter of a module of its own: it lies in a list, "
                "or in a module that a function or a compiled model holds. Make it an nn.Parameter, or the module an attribute of "
                "the model; give the model as it was before compiling"
            )

    with torch.no_grad(), _Uses(see):
        logits_of(network, x[:1])
    if not used:
        raise UnsupportedModelError("no layer of the model has parameters that this input reaches")
    layers = {name: network.get_submodule(name) for name in reversed(used)}
    for name, layer in layers.items():
        if _reset(layer) is None:
            raise UnsupportedModelError(
                f"layer {name!r} ({type(layer).__name__}) owns parameters but has no reset_parameters(): give it one"
            )
    return layers


def _learned(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """A module's own parameters and, of a normalisation, its statistics."""
    yield from module.named_parameters(recurse=False)
    if isinstance(module, _NormBase):
        yield from module.named_buffers(recurse=False)


def _reset(layer: Any) -> Any:
    return getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)


@torch.no_grad()
def _randomise(name: str, layer: nn.Module) -> None:
    """New parameters in place, drawn on the CPU; what the reset leaves as it is would be a NaN, and is refused."""
    fresh = copy.deepcopy(layer).cpu()
    for _, tensor in _learned(fresh):
        if tensor.is_floating_point():  # contiguous, as the order in which numbers are drawn is that of the memory
            tensor.data = torch.full_like(tensor, torch.nan, memory_format=torch.contiguous_format)
    _reset(fresh)()
    for (key, old), (_, new) in zip(_learned(layer), _learned(fresh), strict=True):
        if new.isnan().any():
            raise UnsupportedModelError(
                f"reset_parameters() of layer {name!r} ({type(layer).__name__}) leaves its {key!r} as it was: complete it"
            )
        old.copy_(new)
