"""Attention rollout and gradient times attention: closed forms, sums over all paths of tokens, refusals."""

import itertools
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close
from torchvision import models

from interp_lab import UnsupportedModelError, attention_rollout, gradient_x_attention
from interp_lab.networks import vision_transformer

pytestmark = pytest.mark.usefixtures("double")

X = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Layer(nn.Module):
    """Attention with two heads on a residual branch, written out; ``added`` is added to its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor, added: Tensor | float = 0.0, kept: list[Tensor] | None = None) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (2, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        p = self.weights(q, k) + added
        if kept is not None:
            kept.append(p.detach())
        return x + self.o((p @ v).transpose(1, 2).flatten(2))

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        """Of ``(N, heads, T, d)``."""
        return (q @ k.mT / 2).softmax(-1)


class Written(nn.Module):
    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers, self.head = nn.ModuleList(Layer() for _ in range(depth)), nn.Linear(8, 3)

    def forward(self, x: Tensor, added: list | None = None, kept: list[Tensor] | None = None) -> Tensor:
        for k, layer in enumerate(self.layers):
            x = layer(x, added[k] if added else 0.0, kept)
        return self.head(x[:, 0])


def over_paths(steps: list[Tensor]) -> Tensor:
    """Entry (i, j): the sum over all ways from token i of the last layer to token j of the first of the product of the steps."""
    tokens, result = steps[0].shape[-1], torch.zeros_like(steps[0])
    for way in itertools.product(range(tokens), repeat=len(steps) + 1):
        result[way[0], way[-1]] += math.prod(
            float(step[a, b]) for step, (a, b) in zip(steps[::-1], itertools.pairwise(way), strict=True)
        )
    return result


def test_rollout_is_the_sum_over_all_paths():
    kept: list[Tensor] = []
    model = Written()
    model(X, kept=kept)
    ours = attention_rollout(model, X)
    assert_close(ours.sum(2), torch.ones(3, 5))
    for n in range(3):
        steps = [p[n].mean(0) / 2 + torch.eye(5) / 2 for p in kept]
        assert_close(ours[n], over_paths(steps))


def test_gradient_x_attention_is_the_sum_over_all_paths_of_what_raises_the_logit():
    """The derivative to a weight is the change of the logit when a little is added to it."""
    model, kept, step = Written(), [], 1e-5
    model(X, kept=kept)
    with torch.no_grad():
        slopes = [torch.zeros_like(p) for p in kept]
        for k, slope in enumerate(slopes):
            for place in itertools.product(*map(range, slope.shape[1:])):
                added = [torch.zeros_like(p) for p in kept]
                added[k][(slice(None), *place)] = step
                rises = model(X, added)[:, 1]
                added[k][(slice(None), *place)] = -step
                slope[(slice(None), *place)] = (rises - model(X, added)[:, 1]) / (2 * step)
    ours = gradient_x_attention(model, X, 1)
    for n in range(3):
        steps = [torch.eye(5) + (p[n] * s[n]).clamp(min=0).mean(0) for p, s in zip(kept, slopes, strict=True)]
        assert_close(ours[n], over_paths(steps), rtol=1e-6, atol=1e-8)
    assert (gradient_x_attention(model, X, 0) - ours).norm() > 0.01 * ours.norm()


def uniform(depth: int) -> Written:
    model = Written(depth)
    for layer in model.layers:
        nn.init.zeros_(layer.q.weight)
        nn.init.zeros_(layer.q.bias)
    return model


@pytest.mark.parametrize(("depth", "own"), [(1, 1 / 2), (2, 1 / 4), (3, 1 / 8)])
def test_rollout_of_uniform_attention(depth, own):
    expected = own * torch.eye(5) + (1 - own) / 5
    assert_close(attention_rollout(uniform(depth), X), expected.expand(3, 5, 5))


def test_gradient_x_attention_of_one_uniform_layer():
    """The logit reads token 0 alone, whose row is the positive part of a fifth of each token's value, by the head."""
    model = uniform(1)
    (layer,) = model.layers
    along = model.head.weight[1] @ layer.o.weight  # (8,), four numbers for each head
    values = (layer.v(X) * along).unflatten(-1, (2, 4)).sum(-1)  # (3, 5, 2)
    expected = torch.eye(5).repeat(3, 1, 1)
    expected[:, 0] += (values / 5).relu().mean(2)
    assert_close(gradient_x_attention(model, X, 1), expected.detach())


# However the attention is called.


class Fused(nn.Module):
    def __init__(self, written: Written, way: str) -> None:
        super().__init__()
        self.written, self.way, self.attentions = written, way, nn.ModuleList()
        for layer in written.layers:
            attention = nn.MultiheadAttention(8, 2, batch_first=True)
            parts = layer.q, layer.k, layer.v
            attention.in_proj_weight.data = torch.cat([part.weight for part in parts]).detach()
            attention.in_proj_bias.data = torch.cat([part.bias for part in parts]).detach()
            attention.out_proj.load_state_dict(layer.o.state_dict())
            self.attentions.append(attention)

    def forward(self, x: Tensor) -> Tensor:
        for layer, attention in zip(self.written.layers, self.attentions, strict=True):
            if self.way == "sdpa":
                q, k, v = (part(x).unflatten(-1, (2, 4)).transpose(1, 2) for part in (layer.q, layer.k, layer.v))
                x = x + layer.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
            else:
                x = x + attention(x, x, x, need_weights=self.way == "with weights")[0]
        return self.written.head(x[:, 0])


@pytest.mark.parametrize("way", ["sdpa", "with weights", "without weights"])
def test_torchs_own_attention_is_seen(way):
    written = Written()
    fused = Fused(written, way)
    assert_close(fused(X), written(X))
    assert_close(attention_rollout(fused, X), attention_rollout(written, X))
    assert_close(gradient_x_attention(fused, X, 1), gradient_x_attention(written, X, 1))


def test_an_encoder_of_torch_and_torchvisions_vit():
    images = torch.rand(2, 3, 16, 16)
    own = vision_transformer(nn.Conv2d(3, 8, 4, 4), width=8, places=16, depth=2, classes=3).double()
    theirs = models.VisionTransformer(16, 4, 2, 2, 8, 16, num_classes=3).double()
    nn.init.normal_(theirs.heads.head.weight)
    for model in (own, theirs):
        assert_close(attention_rollout(model, images).sum(2), torch.ones(2, 17))
        relevance = gradient_x_attention(model, images, 1)
        assert_close(relevance[1:], gradient_x_attention(model, images[1:], 1))  # rows are independent
        assert relevance[:, 0, 1:].min() >= 0
        assert relevance[:, 0, 1:].max() > 0


@pytest.mark.parametrize("method", [attention_rollout, gradient_x_attention])
def test_what_cannot_be_multiplied_is_refused(method):
    with pytest.raises(UnsupportedModelError, match="no attention: the model takes no softmax of scores"):
        method(nn.Sequential(nn.Flatten(), nn.Linear(40, 3)), X)
    swin = models.SwinTransformer([4, 4], 8, [2, 2], [2, 2], [2, 2], num_classes=5).double()
    with pytest.raises(UnsupportedModelError, match=r"not among the same tokens of each of 2 inputs in every layer"):
        method(swin, torch.rand(2, 3, 32, 32))
    with pytest.raises(UnsupportedModelError, match=r"not among the same tokens of each of 1 inputs in every layer"):
        method(swin, torch.rand(1, 3, 32, 32))


class HeadsFirst(Layer):
    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        return super().weights(q.transpose(0, 1), k.transpose(0, 1)).transpose(0, 1)


class HeadsFirstInOneAxis(Layer):
    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        q, k = (t.transpose(0, 1).flatten(0, 1) for t in (q, k))
        return super().weights(q, k).unflatten(0, (2, -1)).transpose(0, 1)


class RowsFirstInOneAxis(Layer):
    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        return super().weights(q.flatten(0, 1), k.flatten(0, 1)).unflatten(0, (-1, 2))


class OverColumns(Layer):
    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        return (k @ q.mT / 2).softmax(-2).mT


def built_of(layer: type[Layer]) -> Written:
    model = Written()
    for k, old in enumerate(model.layers):
        model.layers[k] = layer()
        model.layers[k].load_state_dict(old.state_dict())
    return model


@pytest.mark.parametrize("rows", [1, 2, 3])  # two heads: as many as rows, fewer, more
@pytest.mark.parametrize("layer", [HeadsFirst, HeadsFirstInOneAxis, RowsFirstInOneAxis])
def test_rows_and_heads_may_lie_in_any_order(layer, rows):
    for method in (attention_rollout, gradient_x_attention):
        assert_close(method(built_of(layer), X[:rows]), method(Written(), X[:rows]))


@pytest.mark.parametrize("method", [attention_rollout, gradient_x_attention])
def test_cross_attention_is_refused(method):
    layer, head = nn.TransformerDecoderLayer(8, 2, 8, batch_first=True), nn.Linear(8, 3)
    with pytest.raises(UnsupportedModelError, match="attend to 5 others"):
        method(lambda x: head(layer(x[:, :2], x).mean(1)), X)


def test_a_softmax_over_another_axis_is_refused():
    assert_close(built_of(OverColumns)(X), Written()(X))
    for method in (attention_rollout, gradient_x_attention):
        with pytest.raises(UnsupportedModelError, match="not over their last axis"):
            method(built_of(OverColumns), X)


class Folded(Layer):
    """Attention in windows of two tokens, which are folded into the batch."""

    def forward(self, x: Tensor, added: Tensor | float = 0.0, kept: list[Tensor] | None = None) -> Tensor:
        return super().forward(x.unflatten(1, (-1, 2)).flatten(0, 1)).unflatten(0, (len(x), -1)).flatten(1, 2)


class FoldedInOneAxis(Folded, RowsFirstInOneAxis):
    pass


class Mixed(Layer):
    """One mixing for all inputs, which the layer has learnt."""

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        scores = torch.arange(50.0).unflatten(0, (2, 5, 5)).sin() + 0 * q.sum()
        return scores.softmax(-1)


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("layer", [Folded, FoldedInOneAxis])
def test_windows_are_not_taken_for_heads(layer, rows):
    for method in (attention_rollout, gradient_x_attention):
        with pytest.raises(UnsupportedModelError, match="windows"):
            method(built_of(layer), X[:rows, :4])


def test_weights_that_do_not_tell_rows_from_heads_are_refused():
    for method in (attention_rollout, gradient_x_attention):
        with pytest.raises(UnsupportedModelError, match="not among the same tokens of each of 2"):
            method(built_of(Mixed), X[:2])


@pytest.mark.parametrize("layer", [Layer, HeadsFirst, HeadsFirstInOneAxis, RowsFirstInOneAxis])
def test_inputs_may_be_alike_or_none(layer):
    for method in (attention_rollout, gradient_x_attention):
        assert_close(method(built_of(layer), X[[0, 0]]), method(Written(), X[:1]).expand(2, 5, 5))
        assert method(built_of(layer), X[:0]).shape == (0, 5, 5)


def test_a_second_input_by_a_closure():
    second, model = torch.randn(3, 5, 8), Written()

    def beside(rows: slice) -> Callable:
        return lambda x: model(x + second[rows])

    for method in (attention_rollout, partial(gradient_x_attention, target=1)):
        alone = [method(beside(slice(k, k + 1)), X[k : k + 1]) for k in range(3)]
        assert_close(method(beside(slice(None)), X), torch.cat(alone))
