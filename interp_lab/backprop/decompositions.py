r"""Operations that torch computes in one call, written out in those that the methods have rules for.

A recurrent network, attention, a norm, ``addcmul`` or circular padding hides its products, gates and sums from the
interception. Written out under it, each of them gets its own rule.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType

import torch
import torch.nn.functional as F
from torch import Tensor

from ..contract import UnsupportedModelError
from ..contract.interception import Rule, operations, origin, running


def written_out(
    table: Mapping[Callable, Rule], more: Mapping[Callable, Callable] | None = None
) -> dict[Callable, Rule]:
    """The table, to which the operations that can be written out are added; what they consist of goes to the table.

    An operation with a rule in the table is written out where that rule declines it.
    """
    whole = dict(table)

    def rule(first: Rule | None, body: Callable) -> Rule:
        def call(func, args, kwargs):
            out = first(func, args, kwargs) if first else NotImplemented
            if out is NotImplemented:
                with running():
                    out = body(func, *args, **kwargs)
            return out

        return call

    for func, body in {**(more or {}), **DECOMPOSED}.items():
        whole[func] = rule(table.get(func), body)
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


def _product(func, input, *factors, beta=1, alpha=1, **named):
    return beta * input + alpha * torch.matmul(*factors, *named.values())


def _glu(func, input, dim=-1):
    a, b = input.chunk(2, dim)
    return a * torch.sigmoid(b)


def _quotient(func, input, other):
    return input * torch.reciprocal(other) if origin(other) and not origin(input) else NotImplemented


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


def _norm(func, x, p=2, dim=None, keepdim=False, *, ord=None, dtype=None, out=None) -> Tensor:
    p = ord or p
    if dim is None or x.is_complex() or dtype is not None or out is not None or p in ("nuc", 0, -math.inf):
        return NotImplemented
    if p in (2, "fro"):
        return x.square().sum(dim, keepdim).sqrt()
    if p == math.inf:
        return x.abs().amax(dim, keepdim)
    return x.abs().pow(p).sum(dim, keepdim).pow(1 / p)


def _variance(func, x, dim=None, unbiased=True, keepdim=False, *, correction=None) -> Tensor:
    if dim is None or isinstance(dim, bool) or x.is_complex():
        return NotImplemented
    count = x[:1].numel() // x[:1].sum(dim).numel()
    squares = (x - x.mean(dim, keepdim=True)).square().sum(dim, keepdim)
    return squares / (count - (int(unbiased) if correction is None else correction))


def _deviation(func, *args, **kwargs) -> Tensor:
    variance = _variance(func, *args, **kwargs)
    return variance if variance is NotImplemented else variance.sqrt()


def _with_mean(spread: Callable) -> Callable:
    def run(func, x, dim=None, *args, **kwargs):
        value = spread(func, x, dim, *args, **kwargs)
        keepdim = args[1] if len(args) > 1 else kwargs.get("keepdim", False)
        return NotImplemented if value is NotImplemented else (value, x.mean(dim, keepdim))

    return run


def _cosine(func, x1, x2, dim=1, eps=1e-8) -> Tensor:
    lengths = [x.square().sum(dim).sqrt().clamp(min=eps) for x in (x1, x2)]
    return (x1 * x2).sum(dim) / (lengths[0] * lengths[1])


def _distance(func, x1, x2, p=2.0, eps=1e-6, keepdim=False) -> Tensor:
    return _norm(func, x1 - x2 + eps, p, -1, keepdim)


def _lp_pool(pool: Callable, dims: int) -> Callable:
    def run(func, x, norm_type, kernel_size, stride=None, ceil_mode=False):
        size = kernel_size**dims if isinstance(kernel_size, int) else math.prod(kernel_size)
        return (pool(x.pow(norm_type), kernel_size, stride, 0, ceil_mode) * size).pow(1 / norm_type)

    return run


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


def _attention(
    func, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
) -> Tensor:
    if dropout_p:
        raise UnsupportedModelError(f"{func.__name__!r} drops out in eval mode, so that the model is random")
    if enable_gqa:  # several heads of queries for one of keys and values
        key, value = (each.repeat_interleave(query.shape[-3] // each.shape[-3], -3) for each in (key, value))
    scores = torch.matmul(query, key.transpose(-2, -1)) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return torch.matmul(torch.softmax(scores, -1), value)


def _bilinear(func, a, b, weight, bias=None) -> Tensor:
    units, _, inner = weight.shape
    rows = F.linear(a, weight.transpose(1, 2).flatten(0, 1)).unflatten(-1, (units, inner))
    return _affine(torch.matmul(rows, b.unsqueeze(-1)).squeeze(-1), None, bias)


def _linear(func, a, weight, bias=None) -> Tensor:
    return _affine(torch.matmul(a, weight.transpose(-2, -1)), None, bias) if origin(weight) else NotImplemented


def _standardised(x: Tensor, dims: list[int], eps: float, centred: bool = True) -> Tensor:
    """x over its deviation along the dimensions."""
    x = x - x.mean(dims, keepdim=True) if centred else x
    return x / torch.sqrt(x.square().mean(dims, keepdim=True) + eps)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _layer_norm(func, x, shape, weight=None, bias=None, eps=1e-5, cudnn_enable=True) -> Tensor:
    return _affine(_standardised(x, list(range(-len(shape), 0)), eps), weight, bias)


def _rms_norm(func, x, shape, weight=None, eps=None) -> Tensor:
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    return _affine(_standardised(x, list(range(-len(shape), 0)), eps, centred=False), weight, None)


def _group_norm(func, x, groups, weight=None, bias=None, eps=1e-5, cudnn_enabled=True) -> Tensor:
    weight, bias = (None if each is None else each.view(-1, *[1] * (x.dim() - 2)) for each in (weight, bias))
    y = _standardised(x.reshape(len(x), groups, -1), [-1], eps)
    return _affine(y.view(x.shape), weight, bias)


def _instance_norm(func, x, weight, bias, mean, var, use_input_stats, momentum, eps, cudnn_enabled):
    return _group_norm(func, x, x.shape[1], weight, bias, eps) if use_input_stats else NotImplemented


MAXIMA = dict.fromkeys(operations("max", "min", "amax", "amin", "maximum", "minimum", "fmax", "fmin"), _largest)


def _opened(function: FunctionType) -> Callable:
    """A function that torch writes in others, which the interception then meets one by one in place of the whole."""
    unseen = dict.fromkeys([name for name in vars(F) if name.startswith("has_torch_function")], lambda *args: False)
    body = FunctionType(
        function.__code__, {**vars(F), **unseen}, function.__name__, function.__defaults__, function.__closure__
    )
    body.__kwdefaults__ = function.__kwdefaults__
    return lambda func, *args, **kwargs: body(*args, **kwargs)


DECOMPOSED: dict[Callable, Callable] = {
    torch.lstm: _recurrent(_lstm),
    torch.gru: _recurrent(_gru),
    torch.rnn_tanh: _recurrent(_elman(torch.tanh)),
    torch.rnn_relu: _recurrent(_elman(torch.relu)),
    torch.lstm_cell: _one_step(_lstm),
    torch.gru_cell: _one_step(_gru),
    torch.rnn_tanh_cell: _one_step(_elman(torch.tanh)),
    torch.rnn_relu_cell: _one_step(_elman(torch.relu)),
    **dict.fromkeys(
        (torch.addcmul, Tensor.addcmul),
        lambda func, input, tensor1, tensor2, *, value=1: input + value * tensor1 * tensor2,
    ),
    **dict.fromkeys(
        (torch.addcdiv, Tensor.addcdiv),
        lambda func, input, tensor1, tensor2, *, value=1: input + value * tensor1 / tensor2,
    ),
    **dict.fromkeys((torch.addmm, Tensor.addmm, torch.addmv, Tensor.addmv, torch.baddbmm, Tensor.baddbmm), _product),
    **dict.fromkeys((torch.lerp, Tensor.lerp), lambda func, input, end, weight: input + weight * (end - input)),
    **dict.fromkeys(operations("glu"), _glu),
    **dict.fromkeys((Tensor.__rdiv__, Tensor.__rtruediv__), lambda func, x, other: other * torch.reciprocal(x)),
    F.pad: _pad,
}
# For the methods with rules for quotients, matrix products and softmax.
FUSED: dict[Callable, Callable] = {
    **{
        function: _opened(function)
        for function in vars(F).values()
        if isinstance(function, FunctionType) and "handle_torch_function" in function.__code__.co_names
    },
    F.scaled_dot_product_attention: _attention,
    F.bilinear: _bilinear,
    F.linear: _linear,
    torch.layer_norm: _layer_norm,
    torch.rms_norm: _rms_norm,
    torch.group_norm: _group_norm,
    torch.instance_norm: _instance_norm,
    **dict.fromkeys((torch.norm, Tensor.norm, torch.linalg.vector_norm), _norm),
    torch.linalg.norm: lambda func, x, ord=None, dim=None, keepdim=False: (
        _norm(func, x, 2 if ord is None else ord, dim, keepdim) if isinstance(dim, int) else NotImplemented
    ),
    torch.hypot: lambda func, input, other: (input.square() + other.square()).sqrt(),
    torch.cosine_similarity: _cosine,
    F.pairwise_distance: _distance,
    **dict.fromkeys((torch.var, Tensor.var), _variance),
    **dict.fromkeys((torch.std, Tensor.std), _deviation),
    torch.var_mean: _with_mean(_variance),
    torch.std_mean: _with_mean(_deviation),
    F.lp_pool1d: _lp_pool(F.avg_pool1d, 1),
    F.lp_pool2d: _lp_pool(F.avg_pool2d, 2),
    F.lp_pool3d: _lp_pool(F.avg_pool3d, 3),
    **dict.fromkeys((torch.div, torch.divide, torch.true_divide, Tensor.div, Tensor.__truediv__), _quotient),
}
