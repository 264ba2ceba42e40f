"""Methods of the package as graphs that run elsewhere, tried on many inputs before they are handed out."""

import base64
import json
import math
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..contract import UnsupportedModelError, explaining, logits_of
from ..explain_decision.methods import METHODS
from .recording import Graph, Guard, Recorder, Ref, aten, is_unsupported

SHOWN = {name: method for name, method in METHODS.items() if name not in ("occlusion", "rise", "shapley")}
"""The methods of ``METHODS`` that a page can show; those that take parts of the input away need hundreds of passes."""

TOLERANCE = 1e-5  # of a map's largest value


class OutsideError(ValueError):
    """An input for which a recorded graph does not hold."""


@dataclass
class Recording:
    """One method in a graph: the step that is its map, and what must hold for an input."""

    output: int
    guards: list[Guard]


class Layer(NamedTuple):
    """A layer that may be given new weights: the steps that are its parameters, each with the bound of its uniform law."""

    label: str
    parameters: tuple[tuple[int, float], ...]


@dataclass
class Live:
    """A network with methods as one graph that needs no torch; see :func:`export`.

    Attributes:
        shape: of an input, ``(1, ...)``.
        classes: their names.
        methods: name -> recording; ``"logits"`` is the network itself.
        layers: those that may be randomised, from the logits to the input; see :func:`~interp_lab.live.randomisable`.
        pairs: an input is an image above a baseline; see :func:`~interp_lab.live.export_pairs`.
        image: the shape ``(C, H, W)`` of the image where an input holds more than that, else empty.
        channels: (layer, number of channels) with switches; see :func:`~interp_lab.live.export_channels`.
    """

    shape: tuple[int, ...]
    classes: tuple[str, ...]
    graph: Graph = field(default_factory=Graph)
    methods: dict[str, Recording] = field(default_factory=dict)
    layers: tuple[Layer, ...] = ()
    pairs: bool = False
    image: tuple[int, ...] = ()
    channels: tuple[tuple[str, int], ...] = ()

    def run(self, name: str, x: Tensor, target: Tensor) -> Tensor:
        """The map of one input ``(1, ...)`` for a class ``(1,)``, step by step as the page runs it.

        Raises:
            OutsideError: the graph does not hold for this input.
        """
        if x.shape != self.shape or not 0 <= int(target) < len(self.classes):
            raise OutsideError(
                f"the graph is for one input {self.shape} and a class of {len(self.classes)}, got {tuple(x.shape)}, {int(target)}"
            )
        result, broken = self.replay(name, x, target)
        if broken:
            raise OutsideError(f"the recording of {name!r} does not hold for this input (step {broken[0].step})")
        return result

    def replay(self, name: str, x: Tensor, target: Tensor) -> tuple[Tensor, list[Guard]]:
        """The map, and the guards that the input breaks, for which it is not the method's."""
        recording, values = self.methods[name], dict[int, Any]()
        for place in needed(self.graph, recording):
            step = self.graph.steps[place]
            if step.op == "input":
                values[place] = (x, target)[step.args[0]]
            elif step.op == "weight":
                values[place] = self.graph.weights[step.args[0]]
            else:
                args = _decoded(step.args, values)
                kwargs = {k: getattr(torch, v) if k == "dtype" else _decoded(v, values) for k, v in step.kwargs}
                operation, _, overload = step.op.partition(".")
                call = operator.getitem if step.op == "getitem" else getattr(getattr(aten, operation), overload)
                values[place] = call(*args, **kwargs)
        broken = [guard for guard in recording.guards if values[guard.step].item() != guard.value]
        return values[recording.output], broken

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape of a method's map."""
        return self.graph.steps[self.methods[name].output].shape

    def to_json(self) -> str:
        """The graph with its weights, which come as base64 of halves where that is exact, else of single precision."""
        places = sorted(set().union(*(needed(self.graph, r) for r in self.methods.values())))
        number = {place: k for k, place in enumerate(places)}
        steps, blob = [], bytearray()
        for place in places:
            step = self.graph.steps[place]
            args: Any = _referring(step.args, number)
            if step.op == "weight":
                value = self.graph.weights[step.args[0]].float()
                exact = bool((value.half().float() == value).all())
                kind = "h" if exact else "f"
                args = [kind, len(blob)]
                blob += value.numpy().astype("<f2" if exact else "<f4").tobytes()
                blob += bytes(-len(blob) % 4)
            kwargs = dict(step.kwargs)
            steps.append([step.op, args, list(step.shape), *([kwargs] if kwargs else [])])
        methods = {
            name: {"output": number[r.output], "guards": [[number[g.step], float(g.value)] for g in r.guards]}
            for name, r in self.methods.items()
        }
        layers = [[label, [[number[step], bound] for step, bound in parameters]] for label, parameters in self.layers]
        parts = {"shape": self.shape, "classes": self.classes, "methods": methods, "steps": steps, "layers": layers}
        return json.dumps({**parts, "weights": base64.b64encode(bytes(blob)).decode()}, separators=(",", ":"))


def needed(graph: Graph, recording: Recording) -> list[int]:
    """The steps that a map and its guards rest on, in order."""
    found, waiting = set[int](), [recording.output, *(guard.step for guard in recording.guards)]
    while waiting:
        place = waiting.pop()
        if place not in found:
            found.add(place)
            waiting += _refs(graph.steps[place].args)
    return sorted(found)


def export(
    model: nn.Module,
    methods: Mapping[str, Callable[..., Tensor]],
    examples: Tensor,
    classes: Sequence[str],
) -> Live:
    """The network and methods ``method(model, x, target)`` as one graph for inputs like the examples, one at a time.

    A recording holds the branches that the method took. Each is tried on the examples, on others made of them
    (darker, noisy, partly and wholly zero) and on several classes: where a branch would have gone the other way and the
    map is right all the same, it chose a faster way and is let go; where it is not right, the method is recorded on the other
    branch. What is left is checked whenever the graph runs, as are the method's own refusals.

    Args:
        model: a network whose operations are those of ``recording.OPERATIONS``.
        methods: name -> method; ``"logits"`` is added.
        examples: inputs ``(N, ...)``, as they will come.
        classes: the names of the classes.

    Raises:
        ValueError: the examples are not float32 on the CPU.
        UnsupportedModelError: methods that cannot be recorded, or whose graph gives other maps; each by name.

    >>> import interp_lab
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 3)).eval()
    >>> live = export(model, {"saliency": interp_lab.saliency}, torch.rand(2, 1, 2, 2), classes="abc")
    >>> x, target = torch.rand(1, 1, 2, 2), torch.tensor([1])
    >>> torch.equal(live.run("saliency", x, target), interp_lab.saliency(model, x, target))
    True
    """
    if examples.dtype != torch.float32 or examples.device.type != "cpu" or examples.dim() < 2 or not len(examples):
        raise ValueError(
            f"export needs examples (N, ...) of float32 on the CPU, got {tuple(examples.shape)} of {examples.dtype} on "
            f"{examples.device}"
        )
    live = Live((1, *examples.shape[1:]), tuple(classes))
    cases = [(x[None], torch.tensor([k % len(classes)])) for k, x in enumerate(probes(examples))]
    refusals = []
    for name, method in {"logits": _logits, **methods}.items():
        try:
            live.methods[name] = _recorded(live, name, model, method, cases)
        except UnsupportedModelError as error:
            live.methods.pop(name, None)
            refusals.append(f"{name} cannot run in a page: {error}")
            if name == "logits":
                break
    if refusals:
        raise UnsupportedModelError("\n".join(refusals))
    return live


def _logits(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    with explaining(model, x) as x, torch.no_grad():
        return logits_of(model, x)


def probes(examples: Tensor) -> Tensor:
    """The examples, and inputs of other kinds: no zero, both signs, three quarters zero, all zero."""
    spread = float(examples.max() - examples.min()) or 1.0
    noise = torch.rand(examples.shape, generator=torch.Generator().manual_seed(0)).to(examples)
    noisy = (1 - noise / 4) * examples + spread * noise / 4  # within the range of the examples
    partly = noisy.clone()
    partly[..., examples.shape[-1] // 4 :] = 0
    signed = [examples - 0.3 * spread, spread * (2 * noise - 1)]
    return torch.cat([examples, noisy, *signed, partly, torch.zeros_like(examples[:1])])


def _recorded(
    live: Live, name: str, model: nn.Module, method: Callable, cases: Sequence[tuple[Tensor, Tensor]]
) -> Recording:
    """The method on the first case, and on another branch wherever a case shows that this one was not general."""
    wanted = [answer_or_refusal(method, model, x, target) for x, target in cases]
    treated = [(x, t, want) for (x, t), want in zip(cases, wanted, strict=True) if isinstance(want, Tensor)]
    if not treated:
        raise next(want for want in wanted if isinstance(want, Exception))
    forced: dict[int, bool] = {}
    x, target, _ = treated[0]
    while True:
        live.methods[name] = recording = _record(live.graph, model, method, x, target, forced)
        _check_operations(live.graph, recording)
        free, wrong, other = set[int](), list[set[int]](), None
        for case in treated:
            result, broken = live.replay(name, *case[:2])
            if agrees(result, case[2]):
                free |= {guard.step for guard in broken}
            elif not broken:
                raise UnsupportedModelError(
                    "the recording gives another map than the method, and no branch tells the two apart"
                )
            else:
                wrong.append({guard.step for guard in broken})
                untried = (g for g in broken if isinstance(g.value, bool) and g.step not in forced)
                other = other or next(((case, guard) for guard in untried), None)
        if other is None:
            for steps in wrong:
                free -= steps if steps <= free else set()
            recording.guards = [guard for guard in recording.guards if guard.step not in free]
            break
        (x, target, _), guard = other
        forced[guard.step] = not guard.value
    for (x, target), want in zip(cases, wanted, strict=True):
        if isinstance(want, Exception) and not live.replay(name, x, target)[1]:
            raise UnsupportedModelError(f"the method refuses an input that its recording takes: {want}")
    return recording


def _record(graph: Graph, model: nn.Module, method: Callable, x: Tensor, target: Tensor, forced: dict) -> Recording:
    x, target = x.clone(), target.clone()
    with Recorder(graph, [x, target], forced) as recorder:
        result = method(model, x, target)
    output = recorder.ref(result.detach()).step
    guards = {guard.step: guard for guard in recorder.guards}
    return Recording(output, list(guards.values()))


def answer_or_refusal(method: Callable, model: nn.Module, x: Tensor, target: Tensor) -> Tensor | Exception:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return method(model, x, target).detach()
    except ValueError as error:
        return error


def agrees(result: Tensor, want: Tensor) -> bool:
    """Whether two maps are equal to single precision, in units of the largest value."""
    size = float(want.abs().max()) or 1.0
    return bool(((result - want).abs().max() <= TOLERANCE * size).item())  # False of NaN


def _check_operations(graph: Graph, recording: Recording) -> None:
    for place in needed(graph, recording):
        step = graph.steps[place]
        if is_unsupported(step):
            options = ", ".join(f"{k}={v}" for k, v in step.kwargs)
            raise UnsupportedModelError(
                f"the page has no operation {step.op!r}" + (f" with {options}" if options else "")
            )


def _refs(value: Any) -> list[int]:
    if isinstance(value, Ref):
        return [value.step]
    return [ref for part in value for ref in _refs(part)] if isinstance(value, list | tuple) else []


def _decoded(value: Any, values: Mapping[int, Any]) -> Any:
    if isinstance(value, Ref):
        return values[value.step]
    return [_decoded(part, values) for part in value] if isinstance(value, list | tuple) else value


def _referring(value: Any, number: Mapping[int, int]) -> Any:
    """For JSON: a step as ``"#n"``, infinity as its name."""
    if isinstance(value, Ref):
        return f"#{number[value.step]}"
    if isinstance(value, list | tuple):
        return [_referring(part, number) for part in value]
    return str(value) if isinstance(value, float) and math.isinf(value) else value
