"""What the methods are compared with: the same definitions, written from the papers on explicit matrices.

Nothing here uses the interception of ``interp_lab``: layers become matrices, relevance is shared entry by entry.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import permutations, product

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

LINEAR = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
NORM = (nn.BatchNorm1d, nn.BatchNorm2d)


def affine(function: Callable[[Tensor], Tensor], shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Matrix (outputs, inputs) and offset of an affine function of one example of this shape."""
    zero = torch.zeros(1, *shape)
    offset = function(zero).flatten().detach()
    columns = torch.eye(zero.numel()).view(-1, *shape)
    return (function(columns).flatten(1).detach() - offset).T, offset


def shares(numerators: Tensor, offset: Tensor, epsilon: float) -> Tensor:
    """Entry (j, i): input i's share of output j, numerators over their stabilised sum."""
    total = numerators.sum(1) + offset
    total = torch.where(total == 0, torch.inf, total + torch.where(total < 0, -epsilon, epsilon))
    return numerators / total[:, None]


def lrp_step(
    rule: str, w: Tensor, b: Tensor, a: Tensor, r: Tensor, epsilon: float, gamma: float, low: Tensor, high: Tensor
) -> Tensor:
    """Relevance of the inputs a of one affine layer from that of its outputs, Bach et al. 2015, Montavon et al. 2017."""
    z, none = w * a, torch.zeros_like(b)
    positive, negative = z.clamp(min=0), z.clamp(max=0)
    if rule == "epsilon":
        return shares(z, b, epsilon).T @ r
    if rule == "gamma":
        up = (z.sum(1) + b > 0)[:, None]
        favoured = torch.where(up, positive, negative)
        bias = torch.where(up[:, 0], b.clamp(min=0), b.clamp(max=0))
        return shares(z + gamma * favoured, b + gamma * bias, epsilon).T @ r
    if rule == "z_plus":
        return shares(positive, b.clamp(min=0), epsilon).T @ r
    if rule == "alpha2_beta1":
        up, down = shares(positive, b.clamp(min=0), epsilon), shares(negative, b.clamp(max=0), epsilon)
        return (2 * up - down).T @ r
    if rule == "z_b":
        return shares(z - w.clamp(min=0) * low - w.clamp(max=0) * high, none, epsilon).T @ r
    if rule == "w_squared":
        return shares(w**2, none, epsilon).T @ r
    if rule == "flat":
        return shares((w != 0).to(w), none, epsilon).T @ r
    raise AssertionError(rule)


def lrp(
    network: nn.Sequential,
    x: Tensor,
    target: int,
    rules: Sequence[str],
    *,
    epsilon: float = 1e-6,
    gamma: float = 0.25,
    low: float = 0.0,
    high: float = 0.0,
    start: Callable[[Tensor], Tensor] = lambda logit: logit,
) -> tuple[Tensor, list[Tensor]]:
    """Relevance of one example x (1, ...), and the sum of the relevance below each step, from the top down.

    ``rules`` names one rule for every linear layer; BatchNorm belongs to the linear layer before it.
    """
    steps: list[tuple[str, Callable[[Tensor], Tensor]]] = []
    for module in network.eval():
        kind = "linear" if isinstance(module, LINEAR) else type(module).__name__
        if isinstance(module, NORM) and steps and steps[-1][0] == "linear":
            steps[-1] = ("linear", nn.Sequential(steps[-1][1], module))
        else:
            steps.append((kind, module))
    values = [x]
    for _, function in steps:
        values.append(function(values[-1]).detach())
    left = list(rules)
    logits = values[-1]
    r = torch.zeros_like(logits).flatten()
    r[target] = start(logits[0, target])
    sums = []
    for (kind, function), value in zip(reversed(steps), reversed(values[:-1]), strict=True):
        shape, a = value.shape[1:], value.flatten()
        if kind == "linear":
            w, b = affine(function, shape)
            bounds = torch.full_like(a, low), torch.full_like(a, high)
            r = lrp_step(left.pop(), w, b, a, r, epsilon, gamma, *bounds)
        elif kind in ("AvgPool2d", "AdaptiveAvgPool2d", "BatchNorm1d", "BatchNorm2d"):
            w, b = affine(function, shape)
            r = shares(w * a, b, 0.0).T @ r
        elif kind == "MaxPool2d":  # winner takes all
            r = torch.autograd.functional.vjp(function, value, r.view_as(function(value)))[1].flatten()
        elif kind not in ("ReLU", "Flatten", "Dropout"):
            raise AssertionError(kind)
        sums.append(r.sum())
    assert not left
    return r.view_as(x), sums


def deeplift(layers: Sequence[nn.Linear], x: Tensor, x0: Tensor, target: int, cancel: bool) -> Tensor:
    """Contributions of one example of a ReLU network of dense layers, unit by unit (Shrikumar et al. 2017, section 3)."""
    forward, forward0 = [x], [x0]  # inputs of each layer
    before, before0 = [], []
    for layer in layers:
        before.append(layer(forward[-1]).detach())
        before0.append(layer(forward0[-1]).detach())
        forward.append(before[-1].clamp(min=0))
        forward0.append(before0[-1].clamp(min=0))
    m = torch.zeros_like(before[-1])
    m[target] = 1.0
    m_up = m_down = m
    for k in reversed(range(len(layers))):
        w, change = layers[k].weight.detach(), forward[k] - forward0[k]
        below = torch.zeros_like(change)
        for i in range(len(change)):
            for j in range(len(m_up)):
                part = w[j, i] * change[i]
                m_j = m_up[j] if part > 0 else m_down[j] if part < 0 else (m_up[j] + m_down[j]) / 2
                below[i] += w[j, i] * m_j
        if k == 0:
            return below * change
        z, z0 = before[k - 1], before0[k - 1]
        if not cancel:
            m_up = m_down = below * (forward[k] - forward0[k]) / (z - z0)
            continue
        parts = layers[k - 1].weight.detach() * (forward[k - 1] - forward0[k - 1])
        up, down = parts.clamp(min=0).sum(1), parts.clamp(max=0).sum(1)
        y, y0, y_up, y_down = (v.clamp(min=0) for v in (z, z0, z0 + up, z0 + down))
        m_up = below * (y_up - y0 + y - y_down) / 2 / torch.where(up == 0, 1, up)
        m_down = below * (y_down - y0 + y - y_up) / 2 / torch.where(down == 0, 1, down)
    raise AssertionError("no layer")


class _Rectified(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z: Tensor, rule: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        ctx.rule = rule
        ctx.save_for_backward(z.clone())
        return torch.maximum(z, torch.zeros_like(z))

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor, None]:
        return ctx.rule(ctx.saved_tensors[0], g), None


RELU_RULES = {
    "deconvnet": lambda z, g: torch.where(g > 0, g, 0),
    "guided_backprop": lambda z, g: torch.where((g > 0) & (z > 0), g, 0),
}


def rectified(z: Tensor, rule: str) -> Tensor:
    """ReLU with the named backward pass."""
    return _Rectified.apply(z, RELU_RULES[rule])


@contextmanager
def every_relu(rule: str) -> Iterator[None]:
    """While active, ``F.relu`` (which ``nn.ReLU`` calls) has the named backward pass."""
    kept = F.relu
    F.relu = lambda input, inplace=False: rectified(input, rule)
    try:
        yield
    finally:
        F.relu = kept


def gradient(model: Callable[[Tensor], Tensor], x: Tensor, target: int) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(model(x)[:, target].sum(), x)[0]


def randomise_batch_norm(model: nn.Module, x: Tensor, seed: int = 0) -> nn.Module:
    """Statistics measured on x, then disturbed: far from the identity, yet the signal lives through every layer."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(value: Tensor, low: float, high: float) -> Tensor:
        return torch.rand(value.shape, generator=generator, dtype=torch.float64).to(value) * (high - low) + low

    norms = [module for module in model.modules() if isinstance(module, NORM)]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = 1.0
        model.train()(x)
        for norm in norms:
            norm.weight.mul_(uniform(norm.weight, 0.7, 1.4))
            norm.bias.add_(uniform(norm.bias, -0.2, 0.4))
            norm.running_mean.add_(norm.running_var.sqrt() * uniform(norm.running_mean, -0.2, 0.2))
            norm.running_var.mul_(uniform(norm.running_var, 0.5, 1.5))
    return model.eval()


def without_bias(model: nn.Module) -> nn.Module:
    """The same network with every bias and every shift of a BatchNorm set to zero."""
    with torch.no_grad():
        for module in model.modules():
            if getattr(module, "bias", None) is not None:
                module.bias.zero_()
            if isinstance(module, NORM):
                module.running_mean.zero_()
    return model


# Predicates of LRP's composite rules.


def is_input(layer) -> bool:
    return layer.is_input


def is_dense(layer) -> bool:
    return layer.kind == "dense"


def always(layer) -> bool:
    return True


# Methods that take parts of the input away, one image and one pixel at a time.


def without(x: Tensor, x0: Tensor, pixels: Iterable[tuple[int, int]]) -> Tensor:
    """An image (C, H, W) with its baseline at some pixels."""
    x = x.clone()
    for row, column in pixels:
        x[:, row, column] = x0[:, row, column]
    return x


def occlusion(f: Callable[[Tensor], float], x: Tensor, x0: Tensor, window: int, stride: int) -> Tensor:
    """The mean fall (H, W) over all windows that hide a pixel (Zeiler & Fergus 2014, section 4.2)."""
    height, width = x.shape[1:]
    falls: dict[tuple[int, int], list[float]] = {}
    starts = [sorted({*range(0, size - window + 1, stride), size - window}) for size in (height, width)]
    for top, left in product(*starts):
        pixels = list(product(range(top, top + window), range(left, left + window)))
        fall = f(x) - f(without(x, x0, pixels))
        for pixel in pixels:
            falls.setdefault(pixel, []).append(fall)
    return torch.tensor([[sum(falls[i, j]) / len(falls[i, j]) for j in range(width)] for i in range(height)])


def magnified(cells: int, side: int) -> Tensor:
    """The weights (places, cells) by which ``(cells + 1) * side`` places lie between the centres of the cells."""
    size = (cells + 1) * side
    weights = torch.zeros(size, cells)
    for place in range(size):
        at = (place + 0.5) * cells / size - 0.5  # of the centre of a place, in cells
        low = math.floor(at)
        for cell, weight in ((low, low + 1 - at), (low + 1, at - low)):
            weights[place, min(max(cell, 0), cells - 1)] += weight
    return weights


def rise_mask(coarse: Tensor, shift: tuple[int, int], shape: tuple[int, int]) -> Tensor:
    """One mask (H, W) of Petsiuk et al. 2018, section 3.2, from its cells (h, w) and the offset of the crop."""
    sides = [math.ceil(size / cells) for size, cells in zip(shape, coarse.shape, strict=True)]
    down, across = (magnified(cells, side) for cells, side in zip(coarse.shape, sides, strict=True))
    mask = torch.zeros(shape)
    for i, j in product(range(shape[0]), range(shape[1])):
        for a, b in product(range(coarse.shape[0]), range(coarse.shape[1])):
            mask[i, j] += down[shift[0] + i, a] * across[shift[1] + j, b] * coarse[a, b]
    return mask


def shapley(value: Callable[[frozenset[int]], float], players: int) -> list[float]:
    """What every player adds when it comes, averaged over all orders in which they may come (Shapley 1953)."""
    total = [0.0] * players
    for order in permutations(range(players)):
        for place, player in enumerate(order):
            before = frozenset(order[:place])
            total[player] += value(before | {player}) - value(before)
    return [part / math.factorial(players) for part in total]


# Attention, layer by layer in relevance (AttnLRP, arXiv:2402.05602; CP-LRP, arXiv:2202.07304), epsilon -> 0.


def linear_relevance(w: Tensor, a: Tensor, z: Tensor, r: Tensor) -> Tensor:
    """Of the inputs a of z = a w^T + b."""
    return a * ((r / z) @ w)


def norm_relevance(a: Tensor, r: Tensor, centred: bool = True) -> Tensor:
    """Through a LayerNorm (RMSNorm): y = w (a - mean a) / constant + b; the relevance r is that of w (a - mean a) / constant."""
    if not centred:
        return r
    c = a - a.mean(-1, keepdim=True)
    share = r / c  # every a_i contributes (d_ij - 1 / D) a_i to c_j
    return a * (share - share.mean(-1, keepdim=True))


def attention_relevance(
    q: Tensor, k: Tensor, v: Tensor, r: Tensor, mask: Tensor | None = None, weights_are_constants: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Of q, k, v from the relevance r of softmax(q k^T / sqrt(d)) v, entry by entry."""
    bias = torch.zeros(q.shape[-2], k.shape[-2]) if mask is None else torch.where(mask, 0.0, -torch.inf)
    s = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    p = torch.softmax(s + bias, -1)
    o = p @ v
    parts = p[..., None] * v[..., None, :, :] / o[..., :, None, :]  # [t, u, d]: what value u contributes to output t
    if weights_are_constants:
        return torch.zeros_like(q), torch.zeros_like(k), (parts * r[..., :, None, :]).sum(-3)
    half = parts * r[..., :, None, :] / 2
    r_p, r_v = half.sum(-1), half.sum(-3)
    r_s = (s + bias).nan_to_num(neginf=0.0) * (r_p - p * r_p.sum(-1, keepdim=True))
    r_s = torch.where(p == 0, 0, r_s)
    r_s = r_s * torch.where(s + bias == 0, 0, s / (s + bias).nan_to_num(neginf=1.0))  # a bias takes its share
    products = q[..., :, None, :] * k[..., None, :, :] / q.shape[-1] ** 0.5 / s[..., None]
    half = products * r_s[..., None] / 2
    return half.sum(-2), half.sum(-3), r_v


class _AttentionByDetaching(TorchFunctionMode):
    """AttnLRP as its authors' code has it: the network's own gradient, with constants written into the forward pass."""

    SMOOTH = (F.gelu, F.silu, F.tanh, torch.tanh, Tensor.tanh)
    PRODUCTS = (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, torch.einsum)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            with self:
                return _multihead(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            with self:
                q, k, v = args[:3]
                return torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1) @ v
        grown = [i for i, a in enumerate(args) if isinstance(a, Tensor) and a.requires_grad]
        if func in self.SMOOTH and grown:
            with torch.no_grad():
                ratio = func(*args, **kwargs) / args[0]
            return args[0] * ratio
        if func in (F.layer_norm, torch.layer_norm):
            z, shape, weight, bias, eps = args if len(args) == 5 else (*args, *kwargs.values())
            dims = list(range(-len(shape), 0))
            c = z - z.mean(dims, keepdim=True)
            return c / (c.detach().square().mean(dims, keepdim=True) + eps).sqrt() * weight + bias
        if func is F.normalize:
            return args[0] / args[0].detach().norm(dim=kwargs["dim"], keepdim=True)
        if func in self.PRODUCTS and len(grown) == 2:
            halves = [func(*[a.detach() if i == fixed else a for i, a in enumerate(args)]) for fixed in grown]
            return (halves[0] + halves[1]) / 2
        if (
            func in (Tensor.mul, torch.mul, Tensor.__mul__) and len(grown) == 2
        ):  # a squeeze-excitation's gate is the smaller
            a, b = args
            return a * b.detach() if a.numel() > b.numel() else a.detach() * b
        return func(*args, **kwargs)


def _multihead(query, key, value, d, heads, w, b, bias_k, bias_v, zero, dropout, w_out, b_out, *rest, **named):
    q, k, v = F.linear(query, w, b).chunk(3, -1)  # (T, N, d)
    q, k, v = (each.unflatten(-1, (heads, -1)).permute(1, 2, 0, 3) for each in (q, k, v))
    z = F.scaled_dot_product_attention(q, k, v)
    return F.linear(z.permute(2, 0, 1, 3).flatten(2), w_out, b_out), None


def attn_lrp(model: nn.Module, x: Tensor, target: int) -> Tensor:
    """Input times that gradient; epsilon -> 0 everywhere. The model's parameters must not require gradients."""
    x = x.clone().requires_grad_()
    with _AttentionByDetaching():
        score = model(x)[:, target].sum()
    return x.detach() * torch.autograd.grad(score, x)[0]
