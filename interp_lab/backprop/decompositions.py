r"""Operations that torch computes in one call, written out in those that the methods have rules for.

A recurrent network, ``addcmul`` or circular padding hides its products, gates and sums from the interception. Written
out under it, each of them gets its own rule.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..contract import UnsupportedModelError
from ..contract.interception import Interception, Rule, operations, running


def written_out(
    table: Mapping[Callable, Rule], more: Mapping[Callable, Callable] | None = None
) -> dict[Callable, Rule]:
    """The table, to which the operations that can be written out are added; what they consist of goes to the table."""
    whole = dict(table)

    def rule(body: Callable) -> Rule:
        def call(func, args, kwargs):
            with Interception(whole, running().leaves):
                out = body(func, *args, **kwargs)
            return func(*args, **kwargs) if out is NotImplemented else out

        return call

    for func, body in {**DECOMPOSED, **(more or {})}.items():
        whole.setdefault(func, rule(body))
    return whole


def _lstm(x: Tensor, state: Sequence[Tensor], w_ih, w_hh, *more: Tensor) -> tuple[Tensor, Tensor]:
    h, c = state
    b_ih, b_hh = more[:2] if len(more) > 1 else (None, None)
    w_hr = more[-1] if len(more) % 2 else None  # the projection
    i, f, g, o = (F.linear(x, w_ih, b_ih) + F.linear(h, w_hh, b_hh)).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    return (h if w_hr is None else F.linear(h, w_hr)), c


def _gru(x: Tensor, state: Sequence[Tensor], w_ih, w_hh, b_ih=None, b_hh=None) -> tuple[Tensor]:
    (h,) = state
    (r, z, n), (r_h, z_h, n_h) = F.linear(x, w_ih, b_ih).chunk(3, -1), F.linear(h, w_hh, b_hh).chunk(3, -1)
    r, z = torch.sigmoid(r + r_h), torch.sigmoid(z + z_h)
    return ((1 - z) * torch.tanh(n + r * n_h) + z * h,)


def _elman(nonlinearity: Callable) -> Callable:
    def cell(x: Tensor, state: Sequence[Tensor], w_ih, w_hh, b_ih=None, b_hh=None) -> tuple[Tensor]:
        return (nonlinearity(F.linear(x, w_ih, b_ih) + F.linear(state[0], w_hh, b_hh)),)

    return cell


def _recurrent(cell: Callable) -> Callable:
    def run(func, x, state, weights, has_biases, layers, dropout, train, bidirectional, batch_first) -> tuple:
        if not isinstance(has_biases, bool):  # the sizes of a packed batch come second
            raise UnsupportedModelError(f"no rule for {func.__name__!r} on packed sequences: give a padded batch")
        if dropout and train:
            raise UnsupportedModelError(f"{func.__name__!r} drops out in eval mode, so that the model is random")
        if not batch_first:
            x = x.transpose(0, 1)
        states = state if isinstance(state, (tuple, list)) else (state,)
        directions = 2 if bidirectional else 1
        per_cell = len(weights) // (layers * directions)
        last = []
        for layer in range(layers):
            outputs = []
            for direction in range(directions):
                k = layer * directions + direction
                here, steps = tuple(s[k] for s in states), []
                for step in x.flip(1).unbind(1) if direction else x.unbind(1):
                    here = cell(step, here, *weights[k * per_cell : (k + 1) * per_cell])
                    steps.append(here[0])
                outputs.append(torch.stack(steps[::-1] if direction else steps, 1))
                last.append(here)
            x = torch.cat(outputs, -1)
        return (x if batch_first else x.transpose(0, 1), *(torch.stack(s) for s in zip(*last, strict=True)))

    return run


def _one_step(cell: Callable) -> Callable:
    def run(func, x, state, *weights):
        states = state if isinstance(state, (tuple, list)) else (state,)
        h = cell(x, states, *weights)
        return h if len(h) > 1 else h[0]

    return run


def _product(func, input, a, b, *, beta=1, alpha=1):
    return beta * input + alpha * torch.matmul(a, b)


def _glu(func, input, dim=-1):
    a, b = input.chunk(2, dim)
    return a * torch.sigmoid(b)


def _pad(func, input, pad, mode="constant", value=None):
    if mode != "circular":
        return NotImplemented
    for k in range(len(pad) // 2):
        dim, (before, after) = input.dim() - 1 - k, pad[2 * k : 2 * k + 2]
        if min(before, after) < 0:
            return NotImplemented
        size = input.shape[dim]
        parts = (input.narrow(dim, size - before, before), input, input.narrow(dim, 0, after))
        input = torch.cat(parts, dim)
    return input


def _largest(func, z, *args, other=None, dim=None, keepdim=False):
    """The largest or least along dimensions, or of two tensors, as a max-pool; not over the batch."""
    name = func.__name__
    sign = -1 if "min" in name else 1
    if args and isinstance(args[0], Tensor):
        other = args[0]
    elif args:
        dim, keepdim = (*args, keepdim)[:2]
    if other is not None:
        shape, dim = torch.broadcast_shapes(z.shape, other.shape), -1
        z = torch.stack([z.expand(shape), other.expand(shape)], -1)
    dims = sorted({d % z.dim() for d in ([dim] if isinstance(dim, int) else dim or ())})
    if not dims or 0 in dims:
        return NotImplemented
    values = (sign * z).movedim(dims, list(range(-len(dims), 0))).flatten(-len(dims))
    rest = values.shape[:-1]
    values = sign * F.adaptive_max_pool1d(values.reshape(len(z), -1, values.shape[-1]), 1).reshape(rest)
    for d in dims if keepdim else ():
        values = values.unsqueeze(d)
    if name in ("max", "min") and other is None:
        kind = torch.return_types.max if name == "max" else torch.return_types.min
        return kind((values, getattr(z.detach(), name)(dim, keepdim).indices))
    return values


MAXIMA = dict.fromkeys(operations("max", "min", "amax", "amin", "maximum", "minimum", "fmax", "fmin"), _largest)
DECOMPOSED: dict[Callable, Callable] = {
    torch.lstm: _recurrent(_lstm),
    torch.gru: _recurrent(_gru),
    torch.rnn_tanh: _recurrent(_elman(torch.tanh)),
    torch.rnn_relu: _recurrent(_elman(torch.relu)),
    torch.lstm_cell: _one_step(_lstm),
    torch.gru_cell: _one_step(_gru),
    torch.rnn_tanh_cell: _one_step(_elman(torch.tanh)),
    torch.rnn_relu_cell: _one_step(_elman(torch.relu)),
    **dict.fromkeys((torch.addcmul, Tensor.addcmul), lambda func, x, a, b, *, value=1: x + value * a * b),
    **dict.fromkeys((torch.addcdiv, Tensor.addcdiv), lambda func, x, a, b, *, value=1: x + value * a / b),
    **dict.fromkeys((torch.addmm, Tensor.addmm, torch.addmv, Tensor.addmv, torch.baddbmm, Tensor.baddbmm), _product),
    **dict.fromkeys(operations("glu"), _glu),
    **dict.fromkeys((Tensor.__rdiv__, Tensor.__rtruediv__), lambda func, x, other: other * torch.reciprocal(x)),
    F.pad: _pad,
}
