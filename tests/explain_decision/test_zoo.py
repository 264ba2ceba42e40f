"""What networks are built of: DeepLIFT meets its sum and LRP has a rule, or the reason of a refusal is one of principle."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from interp_lab import UnsupportedModelError, deeplift
from interp_lab.explain_decision.lrp import lrp

pytestmark = pytest.mark.usefixtures("double")

D, T = 8, 6
A = torch.rand(T, T, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 1, 3], [1, 2, 3, 4, 5, 0, 4, 0]])


class Build:
    """Layers made as they are first asked for, so that a block of the zoo is one function of (layers, x)."""

    def __init__(self) -> None:
        self.made = nn.ModuleDict()

    def __call__(self, name: str, make: Callable[[], nn.Module], *args):
        if name not in self.made:
            self.made[name] = make().double().eval()
        return self.made[name](*args)

    def linear(self, name: str, x: Tensor, out: int = D) -> Tensor:
        return self(name, lambda: nn.Linear(x.shape[-1], out), x)

    def conv(self, name: str, x: Tensor, out: int = D, kernel: int = 3, **options) -> Tensor:
        kind = nn.Conv1d if x.dim() == 3 else nn.Conv2d
        return self(name, lambda: kind(x.shape[1], out, kernel, padding=kernel // 2, **options), x)

    def norm(self, name: str, x: Tensor) -> Tensor:
        return self(name, lambda: nn.LayerNorm(x.shape[-1]), x)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    s = q @ k.mT / q.shape[-1] ** 0.5
    s = s - s.amax(-1, keepdim=True)
    return s.exp() / torch.exp(s).sum(-1, keepdim=True) @ v


def qkv(m: Build, x: Tensor) -> tuple[Tensor, ...]:
    return m.linear("qkv", x, 3 * D).chunk(3, -1)


def rotary(x: Tensor) -> Tensor:
    angle = torch.arange(x.shape[1])[:, None] / 10 ** torch.arange(x.shape[-1] // 2)
    a, b = x.chunk(2, -1)
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)


def llama(m: Build, x: Tensor) -> Tensor:
    q, k, v = qkv(m, m("norm", lambda: nn.RMSNorm(D), x))
    x = x + F.scaled_dot_product_attention(rotary(q), rotary(k), v, is_causal=True)
    n = m("norm2", lambda: nn.RMSNorm(D), x)
    return x + m.linear("down", F.silu(m.linear("gate", n, 12)) * m.linear("up", n, 12))


def linear_attention(m: Build, x: Tensor) -> Tensor:
    q, k, v = qkv(m, x)
    q, k = F.elu(q) + 1, F.elu(k) + 1
    return torch.einsum("nte,ned->ntd", q, torch.einsum("nte,ntd->ned", k, v)) / (q @ k.sum(1)[..., None])


def graph_attention(m: Build, x: Tensor) -> Tensor:
    h = m.linear("h", x)
    score = F.leaky_relu(m.linear("from", h, 1) + m.linear("into", h, 1).transpose(1, 2), 0.2)
    return F.elu(score.masked_fill(A < 0.3, -torch.inf).softmax(-1) @ h)


def capsules(m: Build, x: Tensor) -> Tensor:
    s = m.linear("s", x)
    squares = s.square().sum(-1, keepdim=True)
    return squares / (1 + squares) * s / (squares + 1e-9).sqrt()


def vlad(m: Build, x: Tensor) -> Tensor:
    h = F.normalize(m.linear("h", x), dim=-1)
    share = m.linear("share", h, 4).softmax(-1)
    centres = torch.linspace(-1, 1, 4 * D).view(4, D)
    residual = torch.einsum("ntk,ntd->nkd", share, h) - share.sum(1)[..., None] * centres
    return F.normalize(residual, dim=-1).flatten(1)


def pyramid(m: Build, z: Tensor) -> Tensor:
    small = F.relu(m.conv("small", F.max_pool2d(z, 2)))
    up = F.interpolate(small, scale_factor=2, mode="bilinear", antialias=True)
    return m.conv("out", torch.cat([z, up], 1))


def selective(m: Build, z: Tensor) -> Tensor:
    parts = torch.stack([F.relu(m.conv("a", z)), F.relu(m.conv("b", z, kernel=5))], 1)
    share = m.linear("share", parts.sum(1).mean((2, 3)), 2 * D).view(-1, 2, D).softmax(1)
    return (parts * share[..., None, None]).sum(1)


def kernels(m: Build, z: Tensor) -> Tensor:
    """A mixture of kernels for every picture (CondConv), in the order of a convolution with one group a picture."""
    share = torch.sigmoid(m.linear("share", z.mean((2, 3)), 3))
    return (share @ torch.linspace(-1, 1, 3 * 4 * D * 9).cos().view(3, -1)).view(-1, D, 3, 3)


def conditional(m: Build, z: Tensor) -> Tensor:
    weight, bias = kernels(m, z), torch.linspace(-1, 1, 4).repeat(len(z))
    return F.conv2d(z.flatten(0, 1)[None], weight, bias, padding=1, groups=len(z)).view(len(z), 4, *z.shape[2:])


def spatial_gate(m: Build, z: Tensor) -> Tensor:
    c = m.linear("c", F.relu(m.linear("r", z.mean((2, 3)), 4))) + m.linear(
        "c", F.relu(m.linear("r", z.amax((2, 3)), 4))
    )
    z = z * torch.sigmoid(c)[..., None, None]
    both = torch.cat([z.mean(1, keepdim=True), z.max(1, keepdim=True).values], 1)
    return z * torch.sigmoid(m.conv("s", both, 1))


def point_net(m: Build, x: Tensor) -> Tensor:
    turn = m.linear("turn", F.relu(m.linear("t", x)).max(1).values, D * D).view(-1, D, D) + torch.eye(D)
    return F.relu(m.linear("p", torch.bmm(x, turn))).amax(1)


def text_cnn(m: Build, x: Tensor) -> Tensor:
    h = x.transpose(1, 2)
    return torch.cat([F.relu(m.conv(f"k{k}", h, 4, k)).max(2).values for k in (1, 3, 5)], 1)


def mixer(m: Build, x: Tensor) -> Tensor:
    h = m.linear("t2", F.gelu(m.linear("t1", m.norm("n1", x).transpose(1, 2), 12)), T).transpose(1, 2)
    x = x + h
    return x + m.linear("c2", F.gelu(m.linear("c1", m.norm("n2", x), 12)))


def res_mlp(m: Build, x: Tensor) -> Tensor:
    scale, shift = torch.full((1, 1, D), 0.7), torch.full((1, 1, D), 0.1)
    h = torch.addcmul(shift, scale, x)
    return x + 0.1 * m.linear("t", h.transpose(1, 2), T).transpose(1, 2)


def gated_mlp(m: Build, x: Tensor) -> Tensor:
    u, v = F.gelu(m.linear("in", m.norm("n", x), 2 * D)).chunk(2, -1)
    return x + m.linear("out", u * m.linear("t", m.norm("n2", v).transpose(1, 2), T).transpose(1, 2))


def reader(m: Build, x: Tensor) -> Tensor:
    h, _ = m("rnn", lambda: nn.GRU(D, 4, batch_first=True, bidirectional=True), x)
    return (m.linear("score", torch.tanh(m.linear("a", h)), 1).softmax(1) * h).sum(1)


def encoder_decoder(m: Build, x: Tensor) -> Tensor:
    return m("net", lambda: nn.Transformer(D, 2, 1, 1, 12, batch_first=True), x, x.flip(1))


def experts(m: Build, x: Tensor) -> Tensor:
    share = m.linear("share", x, 3).softmax(-1)
    return sum(share[..., k : k + 1] * F.relu(m.linear(f"e{k}", x)) for k in range(3))


def generalised_mean(m: Build, z: Tensor) -> Tensor:
    return F.relu(m.conv("c", z)).clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3)


def bilinear_pooling(m: Build, z: Tensor) -> Tensor:
    h = F.relu(m.conv("c", z)).flatten(2)
    return F.normalize((torch.bmm(h, h.transpose(1, 2)) / h.shape[2]).flatten(1) + 0.1)


def statistics(m: Build, x: Tensor) -> Tensor:
    h = F.relu(m.conv("c", x.transpose(1, 2)))
    return torch.cat([h.mean(2), (h.var(2) + 1e-3).sqrt()], 1)


def messages(m: Build, x: Tensor) -> Tensor:
    sent = F.relu(m.linear("m", torch.cat([x[:, EDGES[0]], x[:, EDGES[1]]], -1)))
    return m.linear("u", torch.cat([x, torch.zeros_like(x).index_add(1, EDGES[1], sent)], -1))


def factorisation(m: Build, x: Tensor) -> Tensor:
    v = m.linear("v", x)
    return (v.sum(1).square() - v.square().sum(1)) / 2


def cross(m: Build, x: Tensor) -> Tensor:
    h = x.flatten(1)
    return h * m.linear("w", h, 1) + h


def hypernetwork(m: Build, x: Tensor) -> Tensor:
    w = m.linear("w", x.mean(1), D * D).view(-1, D, D)
    return F.relu(x @ w)


def squeeze(m: Build, z: Tensor, gate: Callable = torch.sigmoid) -> Tensor:
    return z * gate(m.conv("up", F.silu(m.conv("down", z.mean((2, 3), keepdim=True), 2, 1)), D, 1))


def wave(m: Build, x: Tensor) -> Tensor:
    h = F.pad(x.transpose(1, 2), (2, 0))
    return torch.tanh(m("f", lambda: nn.Conv1d(D, D, 3), h)) * torch.sigmoid(m("g", lambda: nn.Conv1d(D, D, 3), h))


def written_in_parts(m: Build, x: Tensor) -> Tensor:
    """Residual additions, activations and gates that work in place on views, as many networks have them."""
    z = m.linear("a", x).transpose(1, 2)  # a view, and of a view
    z += x.transpose(1, 2)
    F.relu(z[:, :3], inplace=True)
    z[:, 3:5].sigmoid_().mul_(0.5)
    h = torch.zeros(len(x), T, D)
    h[:, 0], h[:, 1:] = x[:, 0], z.transpose(1, 2)[:, 1:]
    h[:, torch.tensor([0, 2])] = z[..., :2].transpose(1, 2)
    h[:, 3] *= z[..., 0].sigmoid()
    return h


def ode(m: Build, x: Tensor) -> Tensor:
    for _ in range(4):
        x = x + 0.2 * torch.tanh(m.linear("f", x))
    return x


def state_space(m: Build, x: Tensor) -> Tensor:
    """A state whose decay and input depend on x (Mamba)."""
    step = F.softplus(m.linear("step", x))
    decay = torch.exp(step[..., None] * -torch.arange(1.0, 4))
    enter = (step * x)[..., None] * m.linear("b", x, 3)[:, :, None]
    state, out = torch.zeros(len(x), D, 3), []
    for t in range(T):
        state = decay[:, t] * state + enter[:, t]
        out.append((state @ m.linear("c", x, 3)[:, t, :, None])[..., 0])
    return torch.stack(out, 1)


def attention_with_slopes(m: Build, x: Tensor) -> Tensor:
    """Positions added to the scores in the same call (ALiBi)."""
    q, k, v = qkv(m, x)
    return A.expand(len(x), -1, -1).baddbmm(batch1=q, batch2=k.mT, beta=1.0, alpha=0.3).softmax(-1) @ v


def likeness(m: Build, x: Tensor) -> Tensor:
    a, b = m.linear("a", x), m.linear("b", x.flip(1))
    return torch.cat([F.cosine_similarity(a, b, -1), F.pairwise_distance(a, b), torch.linalg.norm(a, dim=-1)], -1)


def moments(m: Build, x: Tensor) -> Tensor:
    return torch.cat([*torch.var_mean(m.linear("a", x), 1), *torch.std_mean(x, dim=2, unbiased=False)], 1)


def spectrum(m: Build, x: Tensor) -> Tensor:
    return torch.log1p(torch.fft.rfft(m.linear("a", x), dim=1).abs())


def response_norm(m: Build, z: Tensor) -> Tensor:
    h = F.gelu(m.conv("c", z)).permute(0, 2, 3, 1)
    size = torch.norm(h, p=2, dim=(1, 2), keepdim=True)
    return h + h * size / (size.mean(-1, keepdim=True) + 1e-6)


# Sequences of vectors, x (N, T, D).
SEQUENCES: dict[str, Callable[[Build, Tensor], Tensor]] = {
    "encoder": lambda m, x: m("net", lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(D, 2, 12, batch_first=True), 2), x),
    "encoder, pre-norm GELU": lambda m, x: m(
        "net", lambda: nn.TransformerEncoderLayer(D, 2, 12, batch_first=True, norm_first=True, activation="gelu"), x
    ),
    "encoder and decoder": encoder_decoder,
    "self-attention": lambda m, x: m("net", lambda: nn.MultiheadAttention(D, 2, batch_first=True), x, x, x)[0],
    "attention with other keys": lambda m, x: m(
        "net", lambda: nn.MultiheadAttention(D, 2, kdim=4, vdim=4, batch_first=True, add_bias_kv=True), x, x[..., :4], x[..., 4:]
    )[0],
    "rotary, RMSNorm, SwiGLU": llama,
    "latent queries": lambda m, x: attend(torch.linspace(-1, 1, 3 * D).view(1, 3, D).expand(len(x), -1, -1), *qkv(m, x)[1:]),
    "positions that decay": lambda m, x: (
        (lambda q, k, v: (q @ k.mT / 3 - (torch.arange(T)[:, None] - torch.arange(T)).abs()).softmax(-1) @ v)(*qkv(m, x))
    ),
    "attention with slopes": attention_with_slopes,
    "linear attention": linear_attention,
    "attention pooling": lambda m, x: (m.linear("s", x, 1).softmax(1) * x).sum(1),
    "Fourier mixing": lambda m, x: m.norm("n", x + torch.fft.fft2(x).real),
    "LSTM": lambda m, x: m("net", lambda: nn.LSTM(D, 5, 2, batch_first=True, bidirectional=True), x)[0][:, -1],
    "GRU": lambda m, x: m("net", lambda: nn.GRU(D, 5, batch_first=True), x)[0].mean(1),
    "RNN": lambda m, x: m("net", lambda: nn.RNN(D, 5, batch_first=True, nonlinearity="relu"), x)[1][-1],
    "GRU with attention": reader,
    "state space": state_space,
    "TextCNN": text_cnn,
    "causal convolutions": wave,
    "mixer": mixer,
    "ResMLP": res_mlp,
    "gMLP": gated_mlp,
    "GLU": lambda m, x: F.glu(m.linear("in", x, 2 * D), -1),
    "GEGLU": lambda m, x: (lambda a, b: a * F.gelu(b))(*m.linear("in", x, 2 * D).chunk(2, -1)),
    "highway": lambda m, x: (lambda g: g * F.relu(m.linear("h", x)) + (1 - g) * x)(torch.sigmoid(m.linear("g", x))),
    "mixture of experts": experts,
    "PointNet": point_net,
    "deep sets": lambda m, x: F.relu(m.linear("b", F.relu(m.linear("a", x)).sum(1))),
    "graph convolution": lambda m, x: F.relu(A @ m.linear("a", x)),
    "graph convolution by einsum": lambda m, x: F.relu(torch.einsum("ij,njd->nid", A, m.linear("a", x))),
    "graph convolution by bmm": lambda m, x: F.relu(torch.bmm(A.expand(len(x), -1, -1), m.linear("a", x))),
    "graph attention": graph_attention,
    "messages along edges": messages,
    "capsules": capsules,
    "NetVLAD": vlad,
    "statistics pooling": statistics,
    "moments": moments,
    "likeness": likeness,
    "spectrum": spectrum,
    "moving average": lambda m, x: torch.lerp(m.linear("a", x), x, torch.sigmoid(m.linear("g", x))),
    "Fourier features": lambda m, x: torch.cat([torch.cos(m.linear("a", x)), torch.log(1 + x.square())], -1),
    "factorisation machine": factorisation,
    "cross network": cross,
    "hypernetwork": hypernetwork,
    "maxout": lambda m, x: m.linear("a", x, 3 * D).unflatten(-1, (3, D)).amax(-2),
    "cosine classifier": lambda m, x: F.linear(F.normalize(x.flatten(1)), F.normalize(torch.linspace(-1, 1, 3 * T * D).view(3, -1))),
    "bilinear": lambda m, x: m("b", lambda: nn.Bilinear(D, D, 4), x, x.flip(1)),
    "sine": lambda m, x: torch.sin(3 * m.linear("a", x)),
    "Euler steps": ode,
    "written in parts": written_in_parts,
    "PReLU": lambda m, x: m("p", lambda: nn.PReLU(D), x.transpose(1, 2)),
    "softmax by hand": lambda m, x: by_hand(*qkv(m, x)),
    "layer norm by hand": lambda m, x: (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-5),
}  # fmt: skip
# Pictures, z (N, D, 8, 8).
PICTURES: dict[str, Callable[[Build, Tensor], Tensor]] = {
    "group norm": lambda m, z: F.relu(m("n", lambda: nn.GroupNorm(2, D), m.conv("c", z))),
    "instance norm": lambda m, z: F.leaky_relu(m("n", lambda: nn.InstanceNorm2d(D, affine=True), m.conv("c", z))),
    "global response norm": response_norm,
    "complex cells": lambda m, z: torch.hypot(m.conv("a", z), m.conv("b", z)),
    "local response norm": lambda m, z: F.local_response_norm(F.relu(m.conv("c", z)), 3),
    "ConvNeXt block": lambda m, z: (
        z + m.linear("b", F.gelu(m.linear("a", m.norm("n", m.conv("c", z, kernel=7, groups=D).permute(0, 2, 3, 1)), 16))).permute(0, 3, 1, 2)
    ),
    "squeeze-excite": squeeze,
    "squeeze-excite, hard": lambda m, z: squeeze(m, z, F.hardsigmoid),
    "selective kernels": selective,
    "kernels from x": conditional,
    "channel and spatial gates": spatial_gate,
    "non-local": lambda m, z: z + attend(*(m.conv(k, z, kernel=1).flatten(2).mT for k in "qkv")).mT.reshape(z.shape),
    "feature pyramid": pyramid,
    "U-Net step": lambda m, z: m("u", lambda: nn.ConvTranspose2d(D, D, 2, 2), F.relu(m.conv("d", F.avg_pool2d(z, 2)))) + z,
    "generalised mean pooling": generalised_mean,
    "norm pooling": lambda m, z: F.lp_pool2d(F.relu(m.conv("c", z)), 2, 2),
    "bilinear pooling": bilinear_pooling,
    "channel shuffle": lambda m, z: F.channel_shuffle(m.conv("c", z, groups=2), 2),
    "pixel shuffle": lambda m, z: F.pixel_shuffle(m.conv("c", z, 4 * D), 2),
    "ghost": lambda m, z: (lambda a: torch.cat([a, F.relu(m.conv("b", a, 4, groups=4))], 1))(F.relu(m.conv("a", z, 4))),
    "Fourier filter": lambda m, z: torch.fft.irfft2(torch.fft.rfft2(z) * torch.view_as_complex(torch.linspace(-1, 1, 80).view(8, 5, 2))),
    "windows that shift": lambda m, z: m.norm("n", torch.roll(z, (2, 2), (2, 3)).unflatten(2, (2, 4)).unflatten(4, (2, 4)).permute(0, 2, 4, 3, 5, 1)),
    "global maximum": lambda m, z: F.adaptive_max_pool2d(m.conv("c", z), 1),
}  # fmt: skip
# Refused: (what, by both methods, why).
REFUSED: dict[str, tuple[Callable[[Build, Tensor], Tensor], str]] = {
    "hard choice of an expert": (lambda m, x: x * F.one_hot(m.linear("s", x).argmax(-1), D), "'argmax'|'one_hot'"),
    "the largest few": (lambda m, x: x.topk(2, 1).values, "'topk'"),
    "rounding": (lambda m, x: torch.round(x), "'round'"),
    "sampling at places from x": (
        lambda m, x: F.grid_sample(x[:, None], torch.tanh(m.linear("g", x, 2))[:, None], align_corners=False), "'grid_sampler"
    ),
    "a gate cut off from its gradient": (lambda m, x: x * torch.sigmoid(x.detach()), "'detach'"),
    "packed sequences": (
        lambda m, x: m("r", lambda: nn.LSTM(D, 4), nn.utils.rnn.pack_padded_sequence(x, [T] * len(x), True))[1][0][-1], "packed"
    ),
}  # fmt: skip
# By LRP alone: nowhere is the relevance of an exponential that is no softmax defined, or of a complex product.
REFUSED_BY_LRP: dict[str, tuple[Callable[[Build, Tensor], Tensor], str]] = {
    "radial basis": (lambda m, x: torch.exp(-(x[:, :, None] - torch.linspace(-1, 1, 4 * D).view(4, D)).square().sum(-1)), "'exp'"),
    "product of complex values": (
        lambda m, x: (lambda z: (z * z / (1 + z.abs())).imag)(torch.fft.fft(m.linear("a", x))),
        "'mul'",
    ),
    "distances": (lambda m, x: torch.cdist(m.linear("a", x), torch.linspace(-1, 1, 4 * D).view(4, D)), "'(cdist|euclidean.*)'"),
}  # fmt: skip


def network(block: Callable[[Build, Tensor], Tensor], x: Tensor) -> Callable[[Tensor], Tensor]:
    torch.manual_seed(0)
    layers = Build()

    def model(x: Tensor) -> Tensor:
        stem = layers.linear("stem", x) if x.dim() == 3 else layers.conv("stem", x)
        return layers.linear("head", block(layers, stem).flatten(1), 3)

    with torch.no_grad():
        model(x)
    return model


def sequence() -> Tensor:
    return torch.randn(2, T, D, generator=torch.Generator().manual_seed(1))


def picture() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


ZOO = {name: (block, sequence) for name, block in SEQUENCES.items()} | {
    name: (block, picture) for name, block in PICTURES.items()
}


@pytest.mark.parametrize(("block", "draw"), ZOO.values(), ids=ZOO.keys())
def test_deeplift_sums_to_the_difference(block, draw):
    x = draw()
    model = network(block, x)
    for baseline in (0.0, 0.3):
        relevance = deeplift(model, x, 1, baseline=baseline)
        difference = (model(x) - model(torch.full_like(x, baseline)))[:, 1].detach()
        assert_close(relevance.flatten(1).sum(1), difference, rtol=1e-8, atol=1e-10)
        assert (relevance.flatten(1).abs().sum(1) > 0).all()


@pytest.mark.parametrize(("block", "draw"), ZOO.values(), ids=ZOO.keys())
def test_lrp_has_a_rule_for_it(block, draw):
    x = draw()
    model = network(block, x)
    for options in ({}, {"rule": "epsilon"}, {"attention": "cp_lrp"}):
        relevance = lrp(model, x, 1, **options)
        assert relevance.isfinite().all()
        assert (relevance.flatten(1).abs().sum(1) > 0).all()
        assert_close(
            lrp(model, x[:1], 1, **options), relevance[:1], rtol=1e-7, atol=1e-9 * relevance.abs().max().item()
        )


@pytest.mark.parametrize("method", [lrp, deeplift])
@pytest.mark.parametrize(("block", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_is_refused_by_name(block, message, method):
    x = sequence()
    with pytest.raises(UnsupportedModelError, match=message):
        method(network(block, x), x, 1)


@pytest.mark.parametrize(("block", "message"), REFUSED_BY_LRP.values(), ids=REFUSED_BY_LRP.keys())
def test_what_is_refused_by_lrp_alone(block, message):
    x = sequence()
    model = network(block, x)
    with pytest.raises(UnsupportedModelError, match=message):
        lrp(model, x, 1)
    difference = (model(x) - model(torch.zeros_like(x)))[:, 1].detach()
    assert_close(deeplift(model, x, 1).sum((1, 2)), difference, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("attention", ["attn_lrp", "cp_lrp"])
def test_a_softmax_written_by_hand_is_a_softmax(attention):
    x = sequence()
    ours, expected = (
        lrp(network(lambda m, x, f=f: f(*qkv(m, x)), x), x, 1, attention=attention, balance=True)
        for f in (by_hand, attend)
    )
    assert_close(ours, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"rule": "epsilon", "attention": "cp_lrp"}])
def test_a_convolution_with_kernels_from_x_is_a_matrix_product(options):
    def unfolded(m: Build, z: Tensor) -> Tensor:
        patches = F.unfold(z, 3, padding=1)
        return (kernels(m, z).reshape(len(z), 4, -1) @ patches + torch.linspace(-1, 1, 4)[:, None]).unflatten(2, (8, 8))

    x = picture()
    ours, expected = (lrp(network(block, x), x, 1, **options) for block in (conditional, unfolded))
    assert_close(ours, expected, rtol=1e-9, atol=1e-12)


def test_a_norm_by_hand_has_the_contributions_of_the_norm_where_the_baseline_is_zero():
    """A factor 1 / b, b = 0.001 for the baseline: of two factors the contributions would cancel, 500 to 1 in every layer."""
    x = sequence()

    def stack(norm: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        torch.manual_seed(0)
        weights = [torch.randn(D, D) for _ in range(6)]

        def model(x: Tensor) -> Tensor:
            for weight in weights:
                x = norm(x @ weight)
            return x.mean(1)

        return model

    def squares(x: Tensor) -> Tensor:
        return x.pow(2).mean(-1, keepdim=True) + 1e-6

    expected = deeplift(stack(lambda x: F.rms_norm(x, (D,), eps=1e-6)), x, 1)
    for by_hand in (
        lambda x: x * torch.rsqrt(squares(x)),
        lambda x: torch.pow(squares(x), -0.5) * x,
        lambda x: x * squares(x).sqrt().reciprocal(),
    ):
        assert_close(deeplift(stack(by_hand), x, 1), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "weigh", [lambda w, s: w * s, lambda w, s: s * (w + torch.sigmoid(w)), lambda w, s: w * s / w.sum(1)[:, None]]
)
def test_what_an_exponential_weights_takes_all_by_lrp(weigh):
    def block(m: Build, x: Tensor, hold: Callable[[Tensor], Tensor] = lambda w: w) -> Tensor:
        return weigh(hold(torch.exp(-F.softplus(m.linear("a", x)))), m.linear("b", x))

    x = sequence()
    constant = network(lambda m, x: block(m, x, Tensor.detach), x)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(constant(leaf)[:, 1].sum(), leaf)
    assert_close(lrp(network(block, x), x, 1, rule="epsilon", epsilon=1e-14), x * gradient, rtol=1e-9, atol=1e-12)
