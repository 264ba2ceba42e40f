"""Which axis is what: labels that follow the operations, the layouts that callers give, and the methods that read layers."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.testing import assert_close

from interp_lab import (
    UnsupportedModelError,
    channels_first,
    grad_cam,
    maximize_activation,
    project_activation,
    surrogate_graph,
    tokens_to_maps,
    top_activations,
)
from interp_lab.backprop.feature_maps import CHANNEL, Axes, captured, channel_axis

C = CHANNEL


def random(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


MAPS, SERIES = random(2, 3, 8, 6), random(2, 5, 7)
CONV, CONV1, LINEAR = nn.Conv2d(3, 4, 3, padding=1).double(), nn.Conv1d(7, 4, 1).double(), nn.Linear(7, 4).double()


def shifted(y, x):
    y[:, 1:, : x.shape[2]] = x[:, :-1]
    return y


LINEAR_PATCHES = nn.Linear(12, 4).double()


def patches(x):
    """Patches of 2 x 2 pixels, as tokens."""
    return x.view(2, 3, 4, 2, 3, 2).permute(0, 2, 4, 1, 3, 5).reshape(2, 12, 12)


@pytest.mark.parametrize(
    ("run", "labels"),
    [
        (lambda x: CONV(x), (0, C, 2, 3)),
        (lambda x: CONV(x).permute(0, 2, 3, 1), (0, 2, 3, C)),
        (lambda x: CONV(x).movedim(1, -1).transpose(1, 2), (0, 3, 2, C)),
        (lambda x: CONV(x.mT), (0, C, 3, 2)),
        (lambda x: CONV(x).flatten(2).mT, (0, ((2, 8), (3, 6)), C)),  # tokens
        (lambda x: CONV(x).view(2, 4, 48).mT, (0, ((2, 8), (3, 6)), C)),
        (lambda x: torch.cat([random(2, 1, 4), CONV(x).flatten(2).mT], 1)[:, 1:].unflatten(1, (8, 6)), (0, 2, 3, C)),
        (lambda x: CONV(x).flatten(2).unflatten(2, (6, 8)), (0, C, None, None)),  # no grid of theirs
        (lambda x: LINEAR_PATCHES(patches(x)), (0, ((2, 4), (3, 3)), C)),
        (lambda x: CONV(x).flatten(1), (0, None)),
        (
            lambda x: CONV(x).view(2, 2, 2, 8, 6).transpose(1, 2).reshape(2, 4, 8, 6),
            (0, C, 2, 3),
        ),  # shuffled channels
        (lambda x: CONV(x).unflatten(2, (4, 2)).unflatten(-1, (3, 2)), (0, C, 2, None, 3, None)),  # windows
        (lambda x: CONV(x).mean((2, 3)), (0, C)),
        (lambda x: CONV(x).amax(-1, keepdim=True), (0, C, 2, 3)),
        (lambda x: CONV(x).relu_().add_(CONV(x)), (0, C, 2, 3)),
        (lambda x: torch.cat([x, CONV(x)], 1), (0, C, 2, 3)),
        (lambda x: CONV(x)[:, [2, 0]], (0, C, 2, 3)),
        (lambda x: CONV(x)[:, 0], (0, 2, 3)),
        (lambda x: CONV(x).chunk(2, 1)[1], (0, C, 2, 3)),
        (lambda x: F.avg_pool2d(F.pad(CONV(x), (1, 1)), 2), (0, C, 2, 3)),
        (lambda x: CONV(x).flatten(2) @ CONV(x).flatten(2).mT, (None, None, None)),
        (lambda x: torch.einsum("nchw,kc->nkhw", x, CONV.weight[:, :, 0, 0]), (0, C, 2, 3)),
        (lambda x: torch.einsum("nchw->nwhc", x), (0, 3, 2, 1)),
        (lambda x: torch.einsum("nchw,nkhw->nck", x, CONV(x)), (None, None, None)),
        (lambda x: torch.stack(x.unbind(1), -1), (0, 2, 3, None)),
        (lambda x: (x.movedim(1, -1) @ random(3))[:, None], (0, None, 2, 3)),
        (lambda x: (random(5, 3) @ x.flatten(2)).unflatten(2, (8, 6)), (0, C, 2, 3)),
        (lambda x: torch.zeros(2, 3, 8, 6).double().copy_(x), (0, 1, 2, 3)),
        (lambda x: torch.fft.ifft2(torch.fft.fft2(CONV(x))).real, (0, C, "place 2", "place 3")),
        (lambda x: shifted(torch.zeros_like(x), x), (0, 1, 2, 3)),
        (lambda x: shifted(torch.zeros(2, 3, 8, 6).double(), x), (None, None, None, None)),
        (lambda x: shifted(x.new_zeros(2, 3, 8, 6), x), (None, None, None, None)),
        (lambda x: shifted(torch.zeros_like(x[..., :3]).expand(2, 3, 8, 3).clone(), x.mT[:, :, :3].mT), (0, 1, 2, 3)),
        (lambda x: shifted(torch.zeros_like(x), x.mT.reshape(2, 3, 6, 8)[:, :, :, :6]), (None, None, None, None)),
        (lambda x: CONV(x).flip(3), (0, C, "place 2", "place 3")),
        (lambda x: CONV(x)[..., [5, 4, 3, 2, 1, 0]], (0, C, 2, "place 3")),
        (lambda x: CONV(x[:, [2, 1, 0]]), (0, C, 2, 3)),
        (lambda x: CONV(x) @ random(6, 4), (0, C, 2, C)),  # sums over places
        (lambda x: CONV(x.flatten(1).view(2, 3, 8, 6)), (0, C, 2, 3)),
        (lambda x: CONV(x.flatten().view(2, 3, 8, 6)), (None, C, "place 2", "place 3")),
    ],
)
def test_labels_follow_the_operations(run, labels):
    x = MAPS.clone()
    with Axes(x) as axes:
        out = run(x)
    assert axes.labels(out) == labels
    assert axes.labels(MAPS) is None


@pytest.mark.parametrize(
    ("run", "labels"),
    [
        (CONV, (0, C, 2, 3)),
        (lambda x: CONV(x)[:, :, :1].relu(), (0, C, 2, 3)),
        (lambda x: CONV(x).flatten(2).unflatten(2, (8, 6)), (None, C, 2, 3)),
        (lambda x: CONV(x).flatten(2).unflatten(2, (6, 8)), (None, C, None, None)),
        (lambda x: x.flatten(1).unflatten(1, (8, 6, 3)), (None, None, None, None)),
    ],
)
def test_labels_of_a_single_input(run, labels):
    x = MAPS[:1].clone()
    with Axes(x) as axes:
        out = run(x)
    assert axes.labels(out) == labels


def cell_by_cell(x):
    state = None
    for step in x.unbind(1):
        state = CELL(step, state)
    return state


torch.manual_seed(0)
CELL, LSTM = nn.GRUCell(7, 4).double(), nn.LSTM(7, 4, batch_first=True).double()
HEADS = nn.MultiheadAttention(7, 7, batch_first=True).double()


@pytest.mark.parametrize(
    ("run", "labels"),
    [
        (LINEAR, (0, 1, C)),
        (lambda x: CONV1(x.mT), (0, C, 1)),
        (lambda x: x.transpose(0, 1) @ random(7, 3), (1, 0, C)),
        (lambda x: LSTM(x)[0], (0, 1, C)),
        (lambda x: LSTM(x)[1][0], (None, None, None)),
        (lambda x: HEADS(x, x, x)[0], (0, 1, C)),
        (lambda x: HEADS(x, x, x)[1], (None, None, None)),
        (lambda x: F.scaled_dot_product_attention(x, x, x), (0, 1, C)),
        (cell_by_cell, (0, C)),
        (lambda x: torch.stack([cell_by_cell(x), cell_by_cell(x)]), (None, 0, C)),
        (lambda x: x, (0, 1, 2)),
    ],
)
def test_labels_follow_a_series(run, labels):
    x = SERIES.clone()
    with Axes(x) as axes:
        out = run(x)
    assert axes.labels(out) == labels


def test_the_channel_axis_is_the_one_known_or_the_only_one_left():
    assert channel_axis((0, 2, 3, C)) == 3
    assert channel_axis((0, None, 2, 3)) == 1
    for labels in ((0, C, C, 2), (0, None, None, 3), (None, None, 2, 3), (0, 1, 2, 3), (), None):
        assert channel_axis(labels) is None


def test_tokens_become_a_grid_row_by_row_without_those_before_the_patches():
    grid = random(2, 5, 3, 4)
    patches = torch.stack([grid[:, :, i, j] for i in range(3) for j in range(4)], 1)
    tokens = torch.cat([random(2, 5, 5), patches], 1)
    assert torch.equal(tokens_to_maps((3, 4), prefix_tokens=5)(tokens), grid)
    square = random(2, 10, 5)
    assert torch.equal(tokens_to_maps()(square)[:, :, 2, 1], square[:, 1 + 2 * 3 + 1])
    assert torch.equal(channels_first(grid.permute(0, 2, 3, 1)), grid)
    with pytest.raises(ValueError, match="10 tokens less 0 before the patches are no grid of 3 x 3"):
        tokens_to_maps(prefix_tokens=0)(square)
    with pytest.raises(ValueError, match=r"tokens \(N, T, D\), got shape \(2, 5, 3, 4\)"):
        tokens_to_maps()(grid)


class Transformer(nn.Module):
    """Patches of 4 pixels, a class token, and blocks of attention; the head reads the class token."""

    def __init__(self, depth: int = 2, width: int = 8) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.class_token = nn.Parameter(torch.randn(1, 1, width))
        self.blocks = nn.Sequential(
            *[nn.TransformerEncoderLayer(width, 2, 16, 0.0, batch_first=True, norm_first=True) for _ in range(depth)]
        )
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).mT
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), tokens], 1)
        return self.head(self.blocks(tokens)[:, 0])


def transformer() -> Transformer:
    torch.manual_seed(0)
    return Transformer().double().eval()


PICTURES = random(2, 3, 16, 12)
TO_MAPS = tokens_to_maps((4, 3))


def test_maps_that_are_captured_lie_on_the_way_to_the_logits():
    """The gradient to a choice of tokens is that choice of the gradient."""
    network, kept = transformer(), []
    handle = network.blocks[1].norm1.register_forward_hook(lambda module, args, out: kept.append(out))
    network(PICTURES)
    handle.remove()
    x = PICTURES.clone()
    with captured(network, Axes(x), ["blocks.1.norm1"], TO_MAPS) as maps:
        logit = network(x)[:, 1].sum()
    assert torch.equal(maps["blocks.1.norm1"], TO_MAPS(kept[0]))
    (gradient,) = torch.autograd.grad(logit, maps["blocks.1.norm1"])
    step = torch.zeros_like(kept[0])
    step[:, 1:] = 1e-6
    handle = network.blocks[1].norm1.register_forward_hook(lambda module, args, out: out + step)
    assert_close((network(PICTURES)[:, 1].sum() - logit) / 1e-6, gradient.sum(), rtol=1e-4, atol=1e-6)
    handle.remove()


@pytest.mark.parametrize(
    ("reshape", "error", "message"),
    [
        (
            None,
            UnsupportedModelError,
            r"'blocks.1.norm1' gives tokens \(2, 13, 8\), not maps: pass reshape=tokens_to_maps",
        ),
        (lambda tokens: tokens, UnsupportedModelError, None),
        (lambda tokens: TO_MAPS(tokens).flatten(0, 1), ValueError, r"must give maps \(2, K, ...\).*got \(16, 4, 3\)"),
        (lambda tokens: TO_MAPS(tokens).mean(1, keepdim=True, dtype=torch.double), ValueError, "may only select"),
        (lambda tokens: TO_MAPS(tokens).relu(), ValueError, "may only select and rearrange"),
        (lambda tokens: TO_MAPS(tokens).repeat(1, 2, 1, 1), ValueError, "each at most once"),
        (lambda tokens: "maps", ValueError, "got str"),
        (tokens_to_maps(), ValueError, "13 tokens less 1"),
    ],
)
def test_a_layout_that_is_none_is_refused(reshape, error, message):
    call = lambda: grad_cam(transformer(), PICTURES, 0, layer="blocks.1.norm1", reshape=reshape)  # noqa: E731
    if message is None:  # tokens taken for channels, as the caller says: maps of one axis, which no picture has
        error, message = UnsupportedModelError, r"cannot be laid over x"
    with pytest.raises(error, match=message):
        call()


def channels_last() -> nn.Sequential:
    """A convolution network whose stages give (N, H, W, C): linear layers and LayerNorm over the last axis."""

    class Move(nn.Module):
        def __init__(self, *dims: int) -> None:
            super().__init__()
            self.dims = dims

        def forward(self, x):
            return x.permute(self.dims)

    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), Move(0, 2, 3, 1), nn.Linear(5, 7), nn.ReLU(), nn.LayerNorm(7),
        Move(0, 3, 1, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 3),
    ).double().eval()  # fmt: skip


def test_every_method_that_reads_a_layer_finds_channels_on_the_last_axis():
    network = channels_last()
    maps = network[:5](PICTURES).detach().movedim(-1, 1)
    top = top_activations(network, [PICTURES], "4", k=2)
    assert_close(top.values, maps.flatten(2).amax(2).T.sort(1, descending=True).values)
    assert (top.fields[0].size, top.fields[0].stride) == (3, 1)
    for channel in (1, 4):
        for position in ((), ((2, 5),)):
            result = maximize_activation(network, None, PICTURES, objective=("5", channel, *position), steps=2)
            normalised = network[5](maps.movedim(1, -1)).detach()[..., channel]
            value = normalised[:, 2, 5] if position else normalised.mean((1, 2))
            assert_close(result.trace[0], value)
    graph = surrogate_graph(network, PICTURES, layers=["1", "4"], threshold=0.5)
    assert graph.kept["4"].shape == (7,)
    assert_close(graph.means["4"], maps.mean((0, 2, 3)))
    # The same network with 1 x 1 convolutions in place of the linear layers, whose channels are on axis 1 throughout.
    twin = nn.Sequential(network[0], nn.ReLU(), nn.Conv2d(5, 7, 1).double(), nn.ReLU())
    with torch.no_grad():
        twin[2].weight.copy_(network[3].weight[..., None, None])
        twin[2].bias.copy_(network[3].bias)
    assert_close(project_activation(network[:5], PICTURES, "4", 2), project_activation(twin, PICTURES, "3", 2))


def test_every_method_that_reads_a_layer_finds_the_width_of_tokens():
    network = transformer()
    kept = []
    handle = network.blocks[0].register_forward_hook(lambda module, args, out: kept.append(out.detach()))
    network(PICTURES)
    handle.remove()
    result = maximize_activation(network, None, PICTURES, objective=("blocks.0", 3, 5), steps=1)
    assert_close(result.trace[0], kept[0][:, 5, 3])
    graph = surrogate_graph(network, PICTURES, layers=["blocks.0"], threshold=0.5)
    assert_close(graph.means["blocks.0"], kept[0].mean((0, 1)))
    graph.kept["blocks.0"][:] = False
    ablated = graph(PICTURES)
    handle = network.blocks[0].register_forward_hook(lambda module, args, out: kept[0].mean((0, 1)).expand_as(out))
    assert_close(ablated, network(PICTURES).detach())
    handle.remove()
    top = top_activations(network, [PICTURES], "blocks.0", k=1, reshape=TO_MAPS)
    assert_close(top.values[:, 0], TO_MAPS(kept[0]).flatten(2).amax((0, 2)))
    assert [field.size for field in top.fields] == [16, 12]  # attention sees everything
    with pytest.raises(UnsupportedModelError, match="reshape=tokens_to_maps"):
        top_activations(network, [PICTURES], "blocks.0", k=1)


def test_windows_of_tokens_are_no_picture():
    """(N, windows, tokens, C), as in MaxViT: four axes with the channels last, but no grid."""

    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.mix, self.norm, self.head = (
                nn.Conv2d(3, 4, 1),
                nn.Linear(4, 4),
                nn.Identity(),
                nn.Linear(4, 2),
            )

        def forward(self, x):
            windows = self.conv(x).unflatten(2, (4, 4)).unflatten(4, (3, 4)).permute(0, 2, 4, 3, 5, 1).flatten(3, 4)
            return self.head(self.norm(self.mix(windows.flatten(1, 2))).mean((1, 2)))

    network = Windows().double()
    with pytest.raises(UnsupportedModelError, match="holds the channels, and which the places, is not known"):
        grad_cam(network, PICTURES, 0, layer="norm")
    with pytest.raises(
        UnsupportedModelError, match=r"after the last convolution \(module 'conv'\) 'linear' \(module 'mix'\)"
    ):
        grad_cam(network, PICTURES, 0)


def test_a_layer_is_found_through_a_function_around_the_model():
    network = channels_last()
    expected = grad_cam(network, PICTURES, 1, layer="5")
    assert_close(grad_cam(lambda x: network(x), PICTURES, 1, layer="5"), expected)
    assert_close(grad_cam(network.forward, PICTURES, 1, layer=network[5]), expected)
    assert_close(grad_cam(lambda x: [network][0](x), PICTURES, 1, layer=network[5]), expected)
    with pytest.raises(ValueError, match="no module '12'"):
        grad_cam(lambda x: network(x), PICTURES, 1, layer="12")
    with pytest.raises(UnsupportedModelError, match="was called 0 times"):
        grad_cam(lambda x: network(x), PICTURES, 1, layer=nn.ReLU())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "last"),
    [
        ("alexnet", 64, 0), ("resnet18", 64, 0), ("densenet121", 64, 0), ("googlenet", 64, 0), ("mobilenet_v3_small", 64, 0),
        ("shufflenet_v2_x0_5", 64, 0), ("efficientnet_b0", 64, 0), ("convnext_tiny", 64, 90), ("swin_t", 64, 138),
    ],
)  # fmt: skip
def test_the_channels_of_every_layer_of_torchvision_networks_are_found(name, size, last):
    """Each module's output is told by the size of the next layer's weight; here: no map of these networks is unknown."""
    torch.manual_seed(0)
    network = torchvision.models.get_model(
        name, weights=None, **({"init_weights": False} if name == "googlenet" else {})
    )
    x, found = torch.rand(2, 3, size, size), []
    axes = Axes(x)

    def note(module, args, out):
        if out.dim() == 4:
            labels = axes.labels(out)
            channels = getattr(
                module, "num_features", getattr(module, "out_channels", getattr(module, "out_features", None))
            )
            assert channels in (None, out.shape[channel_axis(labels)])
            found.append(labels[:1] == (0,) and channel_axis(labels))

    for module in network.eval().modules():
        module.register_forward_hook(note)
    with axes, torch.no_grad():
        network(x)
    assert found.count(3) == last
    assert found.count(1) + last == len(found) - found.count(False)
    assert found.count(False) == (
        24 if name == "swin_t" else 0
    )  # windows' attention and its dropout, before the residual addition
