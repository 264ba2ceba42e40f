"""Model randomisation: does the map change when what the network has learned is destroyed, layer by layer?

A map that stays as it was cannot show what the network learned (Adebayo et al. 2018, arXiv:1810.03292).
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..explain_decision.contract import Target, UnsupportedModelError, explaining, logits_of, resolve
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
    statistics) and stays random while the next ones follow, in the reverse order of execution. The class explained
    is that of the original model throughout. It all happens on a copy of the model.

    Args:
        method: ``method(model, x, target)``, such as ``METHODS["lrp"]``.
        model: a module from ``(N, ...)`` to logits ``(N, K)``.
        x: float batch ``(N, ...)``.
        target: None (the class that the original model predicts), an int, or a LongTensor ``(N,)``.
        seed: of the new parameters, which are drawn on the CPU: every device gets the same.

    Raises:
        ValueError: the model is no module; the method gives NaN; x or target is not as above.
        UnsupportedModelError: a layer has parameters but no ``reset_parameters``, or no layer has any.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"only a torch.nn.Module has layers to randomise, got {type(model).__name__}")
    with explaining(model, x) as x:
        target = resolve(model, x, target)
    with explaining(model, x) as x:
        model = copy.deepcopy(model)
        original = relevance_map(method(model, x, target), "the original map")
        names, steps = _layers(model, x), []
        # The block gives the global random state back. Mixed, since a model that was itself made after manual_seed(0)
        # would get its old weights again.
        torch.manual_seed(seed ^ 0x5DEECE66D)
        for name in names:
            _randomise(model.get_submodule(name))
            steps.append(similarity(original, method(model, x, target)))
    stacked = {field: torch.stack([getattr(step, field) for step in steps]) for field in Similarity.__annotations__}
    return ModelRandomisation(**stacked, layers=names, target=target)


def _layers(model: nn.Module, x: Tensor) -> tuple[str, ...]:
    """Names of the modules that own parameters, the last one to finish first."""
    names = {m: name for name, m in model.named_modules() if next(m.parameters(recurse=False), None) is not None}
    for module, name in names.items():
        if not hasattr(module, "reset_parameters"):
            raise UnsupportedModelError(
                f"layer {name!r} ({type(module).__name__}) owns parameters but has no reset_parameters(): give it one"
            )
    finished: dict[nn.Module, None] = {}
    handles = [m.register_forward_hook(lambda module, *_: finished.setdefault(module)) for m in names]
    with torch.no_grad():
        logits_of(model, x[:1])
    for handle in handles:
        handle.remove()
    if not finished:
        raise UnsupportedModelError("no layer of the model has parameters that this input reaches")
    return tuple(names[module] for module in reversed(finished))


def _randomise(layer: nn.Module) -> None:
    """New parameters in place, drawn on the CPU."""
    fresh = copy.deepcopy(layer).cpu()
    fresh.reset_parameters()
    layer.load_state_dict(fresh.state_dict())
