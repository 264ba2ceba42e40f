"""The loss of every example as a function of the chosen parameters: its values, gradients and Hessian products."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from ...backprop.decompositions import DECOMPOSED
from ...contract import UnsupportedModelError, check_input, explaining, output_of
from ...contract.interception import without_hook

Loss = Callable[[Tensor, Tensor], Tensor]

BUDGET = 2**25  # numbers that one step may hold on a processor; decides how many rows go together


class Objective:
    """The loss as a function of the chosen parameters, one vector ``theta`` ``(P,)``; the others stay fixed.

    Attributes:
        shape: of the model's output for one row.
        rows: examples that go together.
        chunk: examples that are handed on together, with what is computed of them.
        vectors: vectors that go together through a Hessian product.
    """

    def __init__(
        self,
        model: nn.Module,
        names: str | Sequence[str] | None,
        loss: Loss,
        x: Tensor,
        y: Tensor,
        batch_size: int | None,
        check_labels: Callable[[torch.Size, Tensor], None],
    ) -> None:
        self.fixed = {name: p.detach() for name, p in model.named_parameters()}
        for name, p in self.fixed.items():
            if p.dtype not in (torch.float32, torch.float64):
                raise ValueError(
                    f"the parameters must be float32 or float64, got {p.dtype} in {name!r}; use model.float()"
                )
        chosen = {name: self.fixed.pop(name) for name in _chosen(model, names)}
        if len({p.dtype for p in chosen.values()}) > 1:
            raise ValueError("the parameters must have one type; use model.float() or model.double()")
        self.model, self.loss, self.check_labels = model, loss, check_labels
        self.shapes = {name: p.shape for name, p in chosen.items()}
        self.theta = torch.cat([p.flatten() for p in chosen.values()])
        self.shape = _outputs(model, x[:2]).shape[1:]  # two: whether rows depend on each other shows
        self.floating = x.is_floating_point()
        self.check_labels(self.shape, y)
        kept = len(self.theta) + self._kept(x, y)
        numbers, most = budget(self.theta)
        self.rows = batch_size or min(most, max(1, numbers // kept))
        self.chunk = batch_size or most
        self.vectors = max(1, numbers // (self.rows * kept))
        self._try(x[:1], y[:1])
        self.loss = partial(
            _refusing, loss
        )  # from here on an error of the loss is one of its labels, not of torch.func

    def split(self, vectors: Tensor) -> dict[str, Tensor]:
        """Vectors ``(..., P)`` as tensors of the parameters' shapes, by name."""
        parts = vectors.split([shape.numel() for shape in self.shapes.values()], -1)
        pairs = zip(self.shapes.items(), parts, strict=True)
        return {name: part.reshape(*part.shape[:-1], *shape) for (name, shape), part in pairs}

    def outputs(self, theta: Tensor, x: Tensor) -> Tensor:
        # a copy: a model that works in place must not change the caller's x
        return functional_call(
            self.model, self.fixed | self.split(theta), (x.clone(memory_format=torch.contiguous_format),)
        )

    def loss_of(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The loss of one example, which goes through the model as a batch of its own."""
        return self.loss(self.outputs(theta, x[None]), y[None])

    def losses(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return vmap(self.loss_of, (None, 0, 0))(theta, x, y)

    def gradients(self, x: Tensor, y: Tensor) -> Tensor:
        """The gradient of every example's loss, ``(N, P)``."""
        return torch.cat([self.gradients_and_losses(*rows)[0] for rows in self.split_rows(x, y)])

    def gradients_and_losses(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return vmap(grad_and_value(self.loss_of), (None, 0, 0))(self.theta, x, y)

    def split_rows(self, x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The examples in batches of those that go together."""
        return zip(x.split(self.rows), y.split(self.rows), strict=True)

    def hessian_of(self, x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
        """The Hessian of the sum of these examples' losses, as what multiplies every vector ``(m, P)`` by it."""
        gradient = grad(lambda theta: self.losses(theta, x, y).sum())
        pull = vjp(gradient, self.theta)[1]
        return vmap(lambda v: pull(v)[0], chunk_size=self.vectors)

    def check(self, x: Tensor, y: Tensor) -> None:
        check_x(self.model, x)
        if x.is_floating_point() != self.floating:
            raise ValueError(
                f"the training inputs are {x.dtype}, but the test inputs are not of that kind: give both alike"
            )
        self.check_labels(self.shape, y)

    def _kept(self, x: Tensor, y: Tensor) -> int:
        """How many numbers one row keeps for its backward pass."""
        count = 0

        def keep(tensor: Tensor) -> Tensor:
            nonlocal count
            count += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            outputs = self.outputs(self.theta.clone().requires_grad_(), x[:1])
            value = _refusing(self.loss, outputs, y[:1])
        if value.dim():
            raise ValueError(f"loss must give the mean over the batch as one number, got shape {tuple(value.shape)}")
        return count

    def _try(self, x: Tensor, y: Tensor) -> None:
        """One Hessian product of one row: what torch.func cannot do is refused here, with the module's name."""
        inside: list[str] = []

        def leave(*_) -> None:
            inside.pop()

        with ExitStack() as hooks:
            for name, module in self.model.named_modules():
                enter = module.register_forward_pre_hook(lambda *_, name=name: inside.append(name))
                hooks.callback(enter.remove)
                hooks.callback(module.register_forward_hook(leave).remove)
            try:
                past = self._reached_otherwise(x[0], y[0])
                self.gradients(x, y)
                pair = torch.randn(2, len(self.theta), generator=torch.Generator().manual_seed(0)).to(self.theta)
                products = self.hessian_of(x, y)(pair)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                place = f"the module {inside[-1]!r}" if inside and inside[-1] else "the model or the loss"
                raise UnsupportedModelError(
                    f"{place} has an operation that torch.func refuses; for the layers behind it, give these as the model and "
                    f"what enters them as x. It says: {error}"
                ) from error
        if past:
            raise UnsupportedModelError(
                f"the parameter {past[0]!r} is also reached through another object than the attribute of its module (a "
                "partial, a list, a closure, a stored view of it, the loss), where no other value can be put for it: "
                f"read it as self.{past[0].rpartition('.')[2]} in the forward of its module"
            )
        both = products @ pair.T
        if not (both - both.T).abs().max() <= torch.finfo(pair.dtype).eps ** 0.4 * products.norm() * pair.norm():
            raise UnsupportedModelError(
                "the Hessian is not symmetric: an operation of the model has a wrong second derivative"
            )

    def _reached_otherwise(self, x: Tensor, y: Tensor) -> list[str]:
        """The chosen parameters that still have a part in the loss where others stand in their places."""
        own = {name: p for name, p in self.model.named_parameters() if name in self.shapes}
        frozen = [p for p in own.values() if not (p.requires_grad or p.is_inference())]
        try:
            for p in frozen:
                p.requires_grad_()
            value = self.loss_of(self.theta.clone().requires_grad_(), x, y)
            if not value.requires_grad:
                return []
            own = {name: p for name, p in own.items() if p.requires_grad}
            found = torch.autograd.grad(value, list(own.values()), allow_unused=True)
        finally:
            for p in frozen:
                p.requires_grad_(False)
        return [name for name, gradient in zip(own, found, strict=True) if gradient is not None]


@contextmanager
def differentiating(model: nn.Module, x: Tensor) -> Iterator[None]:
    """A block in which the losses have second derivatives, and that leaves the model as it was."""
    # The guard looks at what it explains, which ids cannot be. Fused attention has no second derivative.
    stand_in = x if x.is_floating_point() else next(model.parameters()).new_zeros(1, 1)
    with _same_attributes(model), explaining(model, stand_in), sdpa_kernel(SDPBackend.MATH), _WrittenOut():
        yield


def check_x(model: nn.Module, x: Tensor) -> None:
    """No gradient to x is taken, so that it may also be of integers."""
    if x.is_floating_point():
        check_input(model, x)
        return
    device = next(model.parameters()).device
    if x.is_complex() or x.device != device:
        raise ValueError(f"x must be real and on the model's {device}, got {x.dtype} on {x.device}")


def check_classes(shape: torch.Size, y: Tensor) -> None:
    """Refuse labels that are no classes of outputs ``(N, *shape)``, of which the first axis holds the classes."""
    if y.dtype != torch.int64 or y.shape[1:] != shape[1:] or not 0 <= int(y.min()) <= int(y.max()) < shape[0]:
        raise ValueError(
            f"y must be a LongTensor ({', '.join(map(str, ('N', *shape[1:])))}) of classes in 0..{shape[0] - 1}, got {y.dtype} "
            f"{tuple(y.shape)} from {y.min().item()} to {y.max().item()}"
        )


def budget(theta: Tensor) -> tuple[int, int]:
    """How many numbers a step may hold, and how many rows: on a GPU what fills a quarter of its free memory."""
    if theta.device.type != "cuda":
        return BUDGET, 256
    free, _ = torch.cuda.mem_get_info(theta.device)
    return free // (4 * theta.element_size()), 4096


def _chosen(model: nn.Module, names: str | Sequence[str] | None) -> list[str]:
    """Names of the parameters that are trained, each once; a shared one also answers to its other names."""
    first: dict[Tensor, str] = {}
    places = {name: first.setdefault(p, name) for name, p in model.named_parameters(remove_duplicate=False)}
    trained = {name for p, name in first.items() if p.requires_grad}
    names = [""] if names is None else [names] if isinstance(names, str) else list(names)
    if not names:
        raise ValueError("parameters must name at least one parameter or module, got none")
    found: set[str] = set()
    for name in names:
        group = {first for place, first in places.items() if not name or place == name or place.startswith(f"{name}.")}
        if not group:
            raise ValueError(f"the model has no parameter or module {name!r}; its parameters: {', '.join(places)}")
        found |= group & trained or group
    return [name for name in first.values() if name in found]


def _outputs(model: nn.Module, x: Tensor) -> Tensor:
    out = output_of(model, x.clone())  # a copy: a model that works in place must not change the caller's x
    if not isinstance(out, Tensor) or out.dim() == 0 or len(out) != len(x):
        got = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(
            f"the model must give one tensor ({len(x)}, ...) for x {tuple(x.shape)}, got {got}; wrap it in a module whose "
            "forward returns what the loss takes, as model(x).logits or model(x)[0]"
        )
    if out.isnan().any():
        raise ValueError("the model gives NaN for this x")
    return out


def _refusing(loss: Loss, z: Tensor, y: Tensor) -> Tensor:
    """The loss, whose errors say which outputs and labels it got."""
    try:
        return loss(z, y)
    except torch.OutOfMemoryError:
        raise
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"the loss takes a batch of outputs {tuple(z.shape)}, {z.dtype}, and of labels {tuple(y.shape)}, {y.dtype}, but "
            f"says: {str(error).rstrip('.')}. Labels must be as the loss wants them, such as y[:, None].float() for one logit (N, 1) "
            "with F.binary_cross_entropy_with_logits; the cross-entropy needs two logits or more"
        ) from error


@contextmanager
def _same_attributes(model: nn.Module) -> Iterator[None]:
    """Puts tensors back that a module computes from its parameters in every pass, such as a pruned weight."""
    computed = [(m, key, t) for m in model.modules() for key, t in vars(m).items() if isinstance(t, Tensor)]
    try:
        yield
    finally:
        for module, key, tensor in computed:
            setattr(module, key, tensor)


class _WrittenOut(TorchFunctionMode):
    """Replaces operations whose second derivative torch lacks, or has wrong, by others."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        body = WRITTEN_OUT.get(func)
        return func(*args, **(kwargs or {})) if body is None else body(*args, **(kwargs or {}))


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    return v * (g / torch.norm_except_dim(v, 2, dim))


RECURRENT = (
    *(torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu),
    *(torch.lstm_cell, torch.gru_cell, torch.rnn_tanh_cell, torch.rnn_relu_cell),
)
WRITTEN_OUT: dict[Callable, Callable] = {
    torch._weight_norm: _weight_norm,
    Tensor.register_hook: without_hook,
    **{func: partial(DECOMPOSED[func], func) for func in RECURRENT},
}
