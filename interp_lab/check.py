"""What the check cells of the exercises are written with.

A check tries a student's function on a small input whose answer is known without the function: a closed form, a
finite difference, an identity. A failed one raises AssertionError with a sentence that says which property failed,
on which input and by how much. Nothing here calls a method of the course, and no message holds code.
"""

import copy
import functools
import hashlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class question:
    """``with check.question("2a"):`` says "passed" at the end of its checks, or that there is no answer yet."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, traceback) -> None:
        if error is None:
            print(f"Question {self.name}: passed.")
        elif isinstance(error, NotImplementedError):
            while traceback.tb_next is not None:
                traceback = traceback.tb_next
            name = traceback.tb_frame.f_code.co_name
            raise self._told(
                NotImplementedError,
                f"{name} is not written yet. Put your answer in place of `raise NotImplementedError()`, run that cell, "
                "then run this one again.",
            ) from None
        elif isinstance(error, NameError) and traceback.tb_next is None:  # not a name in the student's own code
            raise self._told(
                AssertionError,
                f"{error.name} is not defined. Answer the question and run its cell (and the cells above it), then run "
                "this one again.",
            ) from None
        elif isinstance(error, AssertionError):
            raise self._told(AssertionError, str(error)) from None

    def _told(self, kind: type[Exception], message: str) -> Exception:
        """The error, which Jupyter shows as its sentence alone: the lines of a check teach nothing."""
        error: Any = kind(f"Question {self.name}: {message}")
        error._render_traceback_ = lambda: [f"{kind.__name__}: {error}"]
        return error


class Formula(nn.Module):
    """A model given by its formula, from ``(N, ...)`` to ``(N, K)``, so that its gradient is known by hand."""

    def __init__(self, formula: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.forward = formula


class Different(AssertionError):
    """What `close` raises; ``untold`` says it without a value, for inputs that nobody may work back to."""

    def __init__(self, told: str, untold: str) -> None:
        super().__init__(told)
        self.untold = untold


def close(got: Tensor, want: Tensor, what: str, *, tolerance: float = 1e-4) -> None:
    """Fail with ``what`` and the largest difference if that exceeds ``tolerance`` times max(1, abs(want))."""
    same_kind(got, want, what)
    difference = (got - want).abs()
    if difference.numel() and difference.max() > tolerance * (size := max(1.0, want.abs().max().item())):
        worst = tuple(int(i) for i in torch.unravel_index(difference.argmax(), difference.shape))
        share = difference[worst].item() / size
        raise Different(
            f"{what}\nThe largest difference is {difference[worst]:.3g}, at index {worst}: "
            f"got {got[worst]:.4g}, expected {want[worst]:.4g}.",
            f"{what}\nThe largest difference is at index {worst}, where your result is {got[worst]:.4g}: it is "
            f"{'above' if share > 0.1 else 'below'} a tenth of the largest right value, or of 1 if that is larger.",
        )


def elsewhere(function: Callable) -> Callable:
    """The function with tensors and networks moved to a simulated device, which is not the CPU, and its result moved back.

    Raises, when called:
        RuntimeError: the function mixes tensors of that device with such as it made on the CPU, or returns one of these.
    """
    from . import simulated_device

    if hasattr(function, "elsewhere"):
        return function

    @functools.wraps(function)
    def moved(*args: Any, **options: Any) -> Any:
        args = tuple(simulated_device.move(copy.deepcopy(arg)) for arg in args)
        with simulated_device.DeviceMode():
            result = function(*args, **options)
        return simulated_device.fetch(result).detach() if isinstance(result, Tensor) else result

    moved.elsewhere = True  # type: ignore[attr-defined]
    return moved


def runs(what: str, function: Callable, *args: Any, **options: Any) -> Any:
    """What the function returns; fail with ``what`` where it stops with an error, other than that of a missing answer."""
    try:
        return function(*args, **options)
    except (AssertionError, NotImplementedError):
        raise
    except Exception as error:
        raise AssertionError(f"{what}\nIt stops with {type(error).__name__}: {error}") from error


def written(function: Callable) -> Any:
    """What a function without arguments returns; fail where it asks what the course's package gave, which no grader has."""
    names = inspect.unwrap(function).__globals__
    given = {name: value for name, value in names.items() if _comes_from(value).split(".")[0] == "interp_lab"}
    for name in given:
        del names[name]
    try:
        return function()
    except NameError as error:
        if error.name not in given:
            raise
        raise AssertionError(
            f"{function.__name__} asks for {error.name}, which is not there while grading: write down the numbers themselves."
        ) from None
    finally:
        names |= given


def _comes_from(value: object) -> str:
    """The module in which a function, a class or an object's class was written, or the name of a module."""
    return str(getattr(value, "__module__", None) or getattr(value, "__name__", ""))


def follows(function: Callable, *args: Any, **options: Any) -> None:
    """Fail unless the function gives on a simulated device, which is not the CPU, what it gives on the CPU."""
    here = function(*args, **options)
    try:
        there = elsewhere(function)(*args, **options)
    except RuntimeError as error:
        raise AssertionError(f"Inputs on another device than the CPU: {error}") from error
    close(there.double(), here.double(), "Inputs on another device than the CPU: the same result is expected.")


def within(value: float, low: float, high: float, what: str) -> None:
    """Fail with ``what`` if a measured number is not in the range that chance allows."""
    if not low <= value <= high:
        raise AssertionError(f"{what}\nMeasured {value:.4g}, expected {low:.4g} to {high:.4g}.")


def same_kind(got: Tensor, want: Tensor, what: str) -> None:
    """Fail unless got is a detached, finite tensor of the shape and dtype of want."""
    if not isinstance(got, Tensor):
        raise AssertionError(f"{what}\nThe result must be a torch.Tensor, got {type(got).__name__}.")
    if got.shape != want.shape or got.dtype != want.dtype:
        raise AssertionError(
            f"{what}\nThe result must have shape {tuple(want.shape)} and dtype {want.dtype}, "
            f"got {tuple(got.shape)} and {got.dtype}."
        )
    if got.requires_grad:
        raise AssertionError(f"{what}\nThe result still hangs on the graph of the computation; it must be detached.")
    if not torch.isfinite(got).all():
        raise AssertionError(f"{what}\n{int((~torch.isfinite(got)).sum())} of its values are NaN or infinite.")


def fingerprint(number: float, place: str) -> str:
    """Five characters for a number found by hand, to four decimals; which number it is they do not tell."""
    return hashlib.sha256(f"{place}: {round(number, 4) + 0.0:.4f}".encode()).hexdigest()[:5]  # + 0.0: no -0


def is_known(number: float, place: str, known: str) -> bool:
    """Whether a number found by hand is, to 1e-4, the one whose `fingerprint` at this place is known."""
    return any(fingerprint(float(number) + step, place) == known for step in (-1e-4, 0.0, 1e-4))


def slopes(answer: list[float], score: Callable[[Tensor], Tensor], point: list[float], step: float = 0.05) -> None:
    """Fail, without giving the value, where a gradient found by hand is not how the score moves around the point."""
    if not isinstance(answer, list | tuple) or len(answer) != len(point):
        raise AssertionError(f"A gradient has one number per input: expected a list of {len(point)}, got {answer}.")
    for i, slope in enumerate(answer):
        move = step * torch.eye(len(point))[i]
        moved = float(score(torch.tensor(point) + move) - score(torch.tensor(point) - move)) / 2
        if not abs(slope * step - moved) <= 1e-5:  # so that NaN fails
            raise AssertionError(
                f"At x = {tuple(point)}, your number for x[{i}] says that the score changes by {slope * step:+.3g} "
                f"when x[{i}] grows by {step}. It does not."
            )


def difference_quotient(model: nn.Module, x: Tensor, target: Tensor, step: float = 1e-5) -> Tensor:
    """Gradient of each row's logit without autograd: move one input by +-step, see by how much the logit moves.

    Central differences, so the error is of order step^2; float64 in, float64 out. The model must be in eval mode.
    """
    moves = step * torch.eye(x[0].numel(), dtype=x.dtype).view(-1, *x.shape[1:])
    with torch.no_grad():
        rows = [
            (model(row + moves)[:, c] - model(row - moves)[:, c]) / (2 * step) for row, c in zip(x, target, strict=True)
        ]
    return torch.stack(rows).view_as(x)


@contextmanager
def untouched(model: nn.Module, x: Tensor) -> Iterator[None]:
    """``with check.untouched(model, x):`` fails if its block changed the model, x or the global random state."""
    before = _state(model, x)
    yield
    for what, value in _state(model, x).items():
        old = before[what]
        same = torch.equal(value, old) if isinstance(value, Tensor) and isinstance(old, Tensor) else value is old
        if not same:
            raise AssertionError(
                f"{what} changed. A map only looks: whoever uses the model next must find it as it was."
            )


def _state(model: nn.Module, x: Tensor) -> dict[str, Tensor | bool | None]:
    def copy(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.detach().clone()

    modes = {f"The train/eval mode of the {type(m).__name__} {name!r}": m.training for name, m in model.named_modules()}
    values = {f"The values of the model's {name!r}": copy(value) for name, value in model.state_dict().items()}
    grads = {f"The .grad of the parameter {name!r}": copy(p.grad) for name, p in model.named_parameters()}
    return (
        modes
        | values
        | grads
        | {
            "The values of the input x": copy(x),
            "The requires_grad flag of the input x": x.requires_grad,
            "The .grad of the input x": copy(x.grad),
            "The global random state of torch (to avoid it, draw from your own torch.Generator)": torch.get_rng_state(),
        }
    )
