"""LRP through attention and norms: the formulas entry by entry, fused against written out, conservation, torchvision."""

import math
from collections.abc import Callable

import naive
import pytest
import torch
import torch.nn.functional as F
from naive import always, is_dense
from torch import Tensor, nn
from torch.testing import assert_close
from torchvision import models

from interp_lab import UnsupportedModelError, deeplift, gradient_x_input
from interp_lab.explain_decision.lrp import lrp

pytestmark = pytest.mark.usefixtures("double")

EXACT = {"rule": "epsilon", "epsilon": 0.0}
X = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ v


def heads(t: Tensor, count: int) -> Tensor:
    return t.unflatten(-1, (count, -1)).transpose(1, 2)


class Block(nn.Module):
    """Pre-norm: attention with two heads, then a GELU layer, each on a residual branch."""

    def __init__(self, bias: bool, norm: Callable, attention: Callable = attend) -> None:
        super().__init__()
        self.attention = attention
        self.norm1, self.norm2 = norm(8, bias), norm(8, bias)
        self.q, self.k, self.v, self.o, self.up, self.down = (nn.Linear(8, 8, bias=bias) for _ in range(6))

    def forward(self, x: Tensor) -> Tensor:
        n = self.norm1(x)
        z = self.attention(*(heads(layer(n), 2) for layer in (self.q, self.k, self.v)))
        x = x + self.o(z.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    def __init__(self, bias: bool = True, norm: Callable | None = None, attention: Callable = attend) -> None:
        super().__init__()
        torch.manual_seed(0)
        norm = norm or (lambda d, bias: nn.LayerNorm(d, bias=bias))
        self.blocks = nn.ModuleList([Block(bias, norm, attention) for _ in range(2)])
        self.head = nn.Linear(8, 3, bias=bias)
        for p in self.parameters():
            p.data += 0.1 * torch.randn_like(p)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


def rms_norm(d: int, bias: bool) -> nn.Module:
    return nn.RMSNorm(d)


def by_hand(model: Transformer, x: Tensor, c: int, constants: bool) -> Tensor:
    """The relevance of x, by the formulas of each layer from the top down."""
    kept = []
    with torch.no_grad():
        h = x
        for b in model.blocks:
            n = b.norm1(h)
            q, k, v = (heads(layer(n), 2) for layer in (b.q, b.k, b.v))
            z = attend(q, k, v).transpose(1, 2).flatten(2)
            h2 = h + b.o(z)
            up = b.up(b.norm2(h2))
            kept.append((b, h, n, q, k, v, z, h2, up))
            h = h2 + b.down(F.gelu(up))
        pooled = h.mean(1)
        r = h / h.shape[1] * model.head.weight[c]
        assert_close(r.sum(1), pooled * model.head.weight[c])
        for b, h, n, q, k, v, z, h2, up in reversed(kept):
            branch = b.down(F.gelu(up))
            total = h2 + branch
            r_up = naive.linear_relevance(b.down.weight, F.gelu(up), branch, r * branch / total)
            n2 = b.norm2(h2)
            shift = getattr(b.norm2, "bias", None)
            r_n = naive.linear_relevance(b.up.weight, n2, up, r_up) * (n2 - (0 if shift is None else shift)) / n2
            r = r * h2 / total + naive.norm_relevance(h2, r_n, isinstance(b.norm2, nn.LayerNorm))
            branch = b.o(z)
            r_z = naive.linear_relevance(b.o.weight, z, branch, r * branch / h2)
            parts = naive.attention_relevance(q, k, v, heads(r_z, 2), None, constants)
            r_n = torch.zeros_like(n)
            for layer, part in zip((b.q, b.k, b.v), parts, strict=True):
                r_n += naive.linear_relevance(layer.weight, n, layer(n), part.transpose(1, 2).flatten(2))
            shift = getattr(b.norm1, "bias", None)
            r_n = r_n * (n - (0 if shift is None else shift)) / n
            r = r * h / h2 + naive.norm_relevance(h, r_n, isinstance(b.norm1, nn.LayerNorm))
    return r


@pytest.mark.parametrize("norm", [None, rms_norm], ids=["LayerNorm", "RMSNorm"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("attention", ["attn_lrp", "cp_lrp"])
def test_equal_to_the_formulas_layer_by_layer(attention, bias, norm):
    model = Transformer(bias, norm)
    ours = lrp(model, X, 1, attention=attention, **EXACT)
    expected = by_hand(model, X, 1, attention == "cp_lrp")
    assert_close(ours, expected, rtol=0, atol=1e-9 * expected.abs().max().item())
    other = lrp(model, X, 1, attention="attn_lrp" if attention == "cp_lrp" else "cp_lrp", **EXACT)
    assert (other - ours).norm() > 0.01 * ours.norm()
    assert (gradient_x_input(model, X, 1) - ours).norm() > 0.01 * ours.norm()


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def by_einsum(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    p = F.softmax(torch.einsum("nhtd,nhud->nhtu", q, k) / q.shape[-1] ** 0.5, dim=-1)
    return torch.einsum("nhtu,nhud->nhtd", p, v)


def by_bmm(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (each.flatten(0, 1) for each in (q, k, v))
    p = torch.softmax(torch.bmm(q, k.mT) / q.shape[-1] ** 0.5, dim=-1)
    return torch.bmm(p, v).unflatten(0, (-1, 2))


METHODS: dict[str, Callable] = {
    "AttnLRP": lambda model, x, c: lrp(model, x, c, **EXACT),
    "CP-LRP": lambda model, x, c: lrp(model, x, c, attention="cp_lrp", **EXACT),
    "composite": lambda model, x, c: lrp(model, x, c),
    "DeepLIFT": lambda model, x, c: deeplift(model, x, c, baseline=0.1),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


@every_method
@pytest.mark.parametrize("attention", [fused, by_einsum, by_bmm])
def test_fused_attention_is_attention_written_out(attention, method):
    expected = method(Transformer(), X, 1)
    assert_close(method(Transformer(attention=attention), X, 1), expected, rtol=1e-12, atol=1e-12)


MASKS = {
    "causal": ({"is_causal": True}, torch.ones(5, 5, dtype=torch.bool).tril()),
    "bool": ({"attn_mask": torch.ones(5, 5, dtype=torch.bool).triu()}, torch.ones(5, 5, dtype=torch.bool).triu()),
    "float": (
        {"attn_mask": torch.zeros(5, 5).masked_fill(torch.ones(5, 5).triu(1) > 0, -torch.inf)},
        torch.ones(5, 5, dtype=torch.bool).tril(),
    ),
}


@every_method
@pytest.mark.parametrize(("options", "mask"), MASKS.values(), ids=MASKS.keys())
def test_a_masked_score_takes_no_part(options, mask, method):
    def with_options(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, **options)

    expected = method(Transformer(attention=lambda q, k, v: attend(q, k, v, mask)), X, 1)
    assert_close(method(Transformer(attention=with_options), X, 1), expected, rtol=1e-12, atol=1e-12)


def test_groups_of_queries_and_a_scale_of_their_own():
    q, kv = torch.randn(8, 8), torch.randn(2, 8, 4)

    def model(x: Tensor, own: bool) -> Tensor:
        a, (k, v) = heads(x @ q, 4), (heads(x @ w, 2) for w in kv)
        if own:
            k, v = (each.repeat_interleave(2, 1) for each in (k, v))
            return (torch.softmax(0.3 * (a @ k.mT), -1) @ v).flatten(1)
        return F.scaled_dot_product_attention(a, k, v, scale=0.3, enable_gqa=True).flatten(1)

    assert_close(lrp(lambda x: model(x, False), X, 1), lrp(lambda x: model(x, True), X, 1), rtol=1e-12, atol=1e-12)


class OwnAttention(nn.Module):
    """nn.MultiheadAttention, written out."""

    def __init__(self, fused: nn.MultiheadAttention) -> None:
        super().__init__()
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        m = self.fused
        w, b = m.in_proj_weight.chunk(3), m.in_proj_bias.chunk(3)
        q, k, v = (heads(F.linear(x, w[i], b[i]), m.num_heads) for i in range(3))
        return m.out_proj(attend(q, k, v).transpose(1, 2).flatten(2))


class OwnEncoderLayer(nn.Module):
    """nn.TransformerEncoderLayer, written out."""

    def __init__(self, fused: nn.TransformerEncoderLayer) -> None:
        super().__init__()
        self.fused, self.attention = fused, OwnAttention(fused.self_attn)

    def forward(self, x: Tensor) -> Tensor:
        m = self.fused

        def dense(x: Tensor) -> Tensor:
            return m.linear2(m.activation(m.linear1(x)))

        if m.norm_first:
            x = x + self.attention(m.norm1(x))
            return x + dense(m.norm2(x))
        x = m.norm1(x + self.attention(x))
        return m.norm2(x + dense(x))


def with_head(body: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(body, nn.Flatten(), nn.Linear(40, 3)).double()


@every_method
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("norm_first", [False, True])
def test_an_encoder_is_its_layers_written_out(norm_first, activation, method):
    torch.manual_seed(0)
    options = {"batch_first": True, "norm_first": norm_first, "activation": activation}
    layer = nn.TransformerEncoderLayer(8, 2, 12, **options)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    own = nn.Sequential(*map(OwnEncoderLayer, encoder.layers))
    expected = method(with_head(own), X, 1)
    assert_close(method(with_head(encoder), X, 1), expected, rtol=1e-12, atol=1e-12)
    assert expected.abs().max() > 0


@every_method
@pytest.mark.parametrize("need_weights", [True, False])
def test_multihead_attention_with_and_without_its_weights(need_weights, method):
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    attention.in_proj_bias.data.normal_()

    class Fused(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return attention(x, x, x, need_weights=need_weights)[0]

    # The weights' way scales the queries, not the scores: the epsilon of their layer is met by another size.
    tolerance = 1e-5 if need_weights and method is METHODS["composite"] else 1e-12
    expected = method(with_head(OwnAttention(attention)), X, 1)
    assert_close(method(with_head(Fused()), X, 1), expected, rtol=tolerance, atol=tolerance)


# Conservation.


@pytest.mark.parametrize("attention", [attend, fused])
def test_cp_lrp_sums_to_the_logit_without_biases(attention):
    for norm in (None, rms_norm):
        model = Transformer(False, norm, attention)
        logit = model(X)[:, 1].detach()
        assert_close(lrp(model, X, 1, attention="cp_lrp", **EXACT).sum((1, 2)), logit, rtol=1e-10, atol=1e-12)
        assert ((lrp(model, X, 1, **EXACT).sum((1, 2)) - logit).abs() > 1e-4).all()


def test_what_the_softmax_absorbs_is_reported():
    model = Transformer(False)
    relevance, balance = lrp(model, X, 1, balance=True, **EXACT)
    assert_close(relevance.sum((1, 2)) + balance.softmax, model(X)[:, 1].detach())
    assert_close(balance.biases, torch.zeros(3), rtol=0, atol=1e-12)
    assert (balance.softmax.abs() > 1e-4).all()
    _, balance = lrp(model, X, 1, balance=True, attention="cp_lrp", **EXACT)
    assert_close(balance.softmax, torch.zeros(3))


def test_one_token_alone_loses_the_half_that_goes_to_the_scores():
    w = torch.randn(3, 8, 8)

    def model(x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x @ w[0], x @ w[1], x @ w[2]).mean(1)

    x, by_value = X[:, :1], X[:, :1] * (w[2][:, 1])
    relevance, balance = lrp(model, x, 1, balance=True, **EXACT)
    assert_close(relevance, by_value / 2)
    assert_close(balance.softmax, by_value.sum((1, 2)) / 2)
    assert_close(lrp(model, x, 1, attention="cp_lrp", **EXACT), by_value)


# Norms: the gradient of the same network with every deviation written in as a number.


def number(x: Tensor, dims: list[int], eps: float, centred: bool = True) -> Tensor:
    c = x - x.mean(dims, keepdim=True) if centred else x
    return c / (c.detach().square().mean(dims, keepdim=True) + eps).sqrt()


MAPS = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
W, B = torch.rand(6, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 0.5, torch.ones(6) / 7
AT = (slice(None), None, None)
NORMS = {
    "layer_norm": (lambda z: F.layer_norm(z, (4, 4), eps=1e-3), lambda z: number(z, [2, 3], 1e-3)),
    "layer_norm with weights": (
        lambda z: F.layer_norm(z.movedim(1, -1), (6,), W, B.double()).movedim(-1, 1),
        lambda z: number(z, [1], 1e-5) * W[AT] + B.double()[AT],
    ),
    "torch.layer_norm": (lambda z: torch.layer_norm(z, (6, 4, 4)), lambda z: number(z, [1, 2, 3], 1e-5)),
    "rms_norm": (lambda z: F.rms_norm(z, (4,), eps=1e-2), lambda z: number(z, [3], 1e-2, False)),
    "group_norm": (
        lambda z: F.group_norm(z, 2, W, B.double()),
        lambda z: number(z.reshape(-1, 2, 48), [2], 1e-5).view_as(z) * W[AT] + B.double()[AT],
    ),
    "instance_norm": (lambda z: F.instance_norm(z), lambda z: number(z, [2, 3], 1e-5)),
    "nn.InstanceNorm2d": (nn.InstanceNorm2d(6), lambda z: number(z, [2, 3], 1e-5)),
    "by hand": (
        lambda z: (z - z.mean(1, keepdim=True)) / (z.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt(),
        lambda z: number(z, [1], 1e-5),
    ),
    "by hand, rsqrt": (
        lambda z: z * torch.rsqrt(z.pow(2).mean(1, keepdim=True) + 1e-5),
        lambda z: number(z, [1], 1e-5, False),
    ),
    "by hand, in place": (
        lambda z: z.clone().div_(z.norm(dim=1, keepdim=True)),
        lambda z: z / z.detach().norm(dim=1, keepdim=True),
    ),
    "normalize": (lambda z: F.normalize(z, dim=1), lambda z: z / z.detach().norm(dim=1, keepdim=True)),
    "local_response_norm": (
        lambda z: F.local_response_norm(z, 3, 0.2, 0.6, 1.1),
        lambda z: z * (F.local_response_norm(z, 3, 0.2, 0.6, 1.1) / z).detach(),
    ),
    "softsign by hand": (lambda z: z / (1 + z.abs()), lambda z: z * (1 / (1 + z.abs())).detach()),
}


@pytest.mark.parametrize(("norm", "constant"), NORMS.values(), ids=NORMS.keys())
def test_what_is_divided_by_a_deviation_takes_all(norm, constant):
    torch.manual_seed(0)
    first, head = nn.Conv2d(6, 6, 3, padding=1).double(), nn.Linear(96, 3).double()
    x = MAPS.requires_grad_()
    (gradient,) = torch.autograd.grad(head(constant(first(x)).flatten(1))[:, 1].sum(), x)
    ours = lrp(lambda x: head(norm(first(x)).flatten(1)), MAPS, 1, **EXACT)
    assert_close(ours, MAPS.detach() * gradient, rtol=1e-10, atol=1e-12)


# Refusals and options.


def test_the_option_is_checked():
    with pytest.raises(ValueError, match="attention must be 'attn_lrp' or 'cp_lrp', got 'rollout'"):
        lrp(Transformer(), X, 1, attention="rollout")


def test_a_final_softmax_and_active_dropout_are_refused():
    with pytest.raises(UnsupportedModelError, match=r"ends in a 'softmax' .*: give the logits"):
        lrp(nn.Sequential(Transformer(), nn.Softmax(1)), X, 1)
    with pytest.raises(UnsupportedModelError, match=r"drops out in eval mode|model is random|random numbers"):
        lrp(Transformer(attention=lambda q, k, v: F.scaled_dot_product_attention(q, k, v, dropout_p=0.5)), X, 1)


# torchvision's networks.


def vit() -> nn.Module:
    net = models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5)
    nn.init.normal_(net.heads.head.weight)
    net.class_token.data.zero_()
    net.encoder.pos_embedding.data.zero_()
    return net


def swin(**options) -> nn.Module:
    return models.SwinTransformer([4, 4], 8, [2, 2], [2, 2], [2, 2], num_classes=5, **options)


VISION: dict[str, Callable[[], nn.Module]] = {
    "vit": vit,
    "swin": swin,
    "swin_v2": lambda: swin(
        block=models.swin_transformer.SwinTransformerBlockV2, downsample_layer=models.swin_transformer.PatchMergingV2
    ),
    "maxvit": lambda: models.MaxVit((32, 32), 8, 4, [8, 16], [1, 1], 4, 0.0, num_classes=5),
    "convnext": lambda: models.ConvNeXt(
        [models.convnext.CNBlockConfig(8, 16, 1), models.convnext.CNBlockConfig(16, None, 1)], num_classes=5
    ),
}


def vision(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = VISION[name]().double().eval().requires_grad_(False)
    for module in model.modules():
        if hasattr(module, "layer_scale"):
            module.layer_scale.fill_(1.0)
    return model


@pytest.mark.parametrize("name", VISION)
def test_attn_lrp_is_the_gradient_of_the_network_with_constants_written_in(name):
    model, x = vision(name), torch.randn(2, 3, 32, 32)
    expected = naive.attn_lrp(model, x, 1)
    ours = lrp(model, x, 1, **EXACT)
    assert_close(ours, expected, rtol=0, atol=1e-9 * expected.abs().max().item())
    assert (gradient_x_input(model, x, 1) - ours).norm() > 0.01 * ours.norm()


@pytest.mark.parametrize("name", VISION)
def test_cp_lrp_conserves_without_biases(name):
    model, x = naive.without_bias(vision(name)), torch.randn(1, 3, 32, 32)
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            module.in_proj_bias.zero_()
    relevance = lrp(model, x, 1, attention="cp_lrp", **EXACT)
    assert_close(relevance.sum(), model(x)[0, 1], rtol=1e-8, atol=0)


def test_a_rule_of_its_own_for_the_dense_layers_of_a_transformer():
    # What LXT recommends for vision transformers: gamma in the dense layers.
    model = Transformer()
    gamma = lrp(model, X, 1, rule=[(is_dense, "gamma"), (always, "epsilon")], gamma=0.05)
    assert gamma.isfinite().all()
    assert (gamma - lrp(model, X, 1, rule="epsilon")).norm() > 1e-3 * gamma.norm()
    assert_close(lrp(model, X, 1, rule="gamma", gamma=0.0), lrp(model, X, 1, rule="epsilon"), rtol=1e-4, atol=1e-4)
