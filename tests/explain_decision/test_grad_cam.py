"""Grad-CAM against class activation maps and Captum, and the choice of its layer."""

import captum.attr
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from interp_lab import (
    UnsupportedModelError,
    channels_first,
    grad_cam,
    guided_backprop,
    guided_grad_cam,
    tokens_to_maps,
)


@pytest.fixture
def cam_network() -> nn.Sequential:
    """Convolutions, global average pooling, a dense layer: here Grad-CAM is the class activation map."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1),
        nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    ).double().eval()  # fmt: skip


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(3, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_it_is_the_class_activation_map_over_the_number_of_places(cam_network, x):
    maps, weight = cam_network[:6](x).detach(), cam_network[8].weight.detach()
    cam = torch.einsum("nkij,k->nij", maps, weight[2])[:, None].relu() / 64
    assert_close(grad_cam(cam_network, x, 2, upsample=False), cam)
    upsampled = nn.functional.interpolate(cam, (16, 16), mode="bilinear").expand(3, 3, 16, 16)
    assert_close(grad_cam(cam_network, x, 2), upsampled)


@pytest.mark.parametrize("layer", ["3", "4", "5"])
def test_agreement_with_captum_at_every_layer_although_the_relu_works_in_place(cam_network, x, layer):
    module = cam_network.get_submodule(layer)
    theirs = captum.attr.LayerGradCam(cam_network, module).attribute(x, 1, relu_attributions=True)
    assert_close(grad_cam(cam_network, x, 1, layer=layer, upsample=False), theirs.detach())
    assert_close(grad_cam(cam_network, x, 1, layer=module, upsample=False), theirs.detach())


@pytest.mark.parametrize(
    ("name", "layer"),
    [("resnet18", "layer4"), ("densenet121", None), ("squeezenet1_1", "classifier.2"), ("vgg11", "features.19")],
)
def test_the_default_layer_is_the_end_of_the_last_convolutional_stage(name, layer):
    torch.manual_seed(0)
    network = getattr(torchvision.models, name)(weights=None).eval()
    x = torch.rand(1, 3, 64, 64)
    cam = grad_cam(network, x, 7, upsample=False)
    if layer is None:  # DenseNet ends in a functional ReLU, which no module gives
        maps = network.features(x).relu().detach()
        cam_by_hand = torch.einsum("nkij,k->nij", maps, network.classifier.weight[7].detach())[:, None].relu()
        assert_close(cam, cam_by_hand / maps[0, 0].numel(), rtol=1e-4, atol=1e-7)
    else:
        assert_close(cam, grad_cam(network, x, 7, layer=layer, upsample=False))


def by_hook(network: nn.Module, x: torch.Tensor, target: int, module: nn.Module, places: tuple[int, ...]):
    """The signed map from a hook of its own; ``places`` are the axes of the output along which its places run."""
    kept = []
    handle = module.register_forward_hook(lambda module, args, out: kept.append(out) or out.clone())
    score = network(x.clone().requires_grad_())[:, target].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept[-1])
    (channels,) = {*range(1, kept[-1].dim())} - {*places}
    return (gradient.mean(places, keepdim=True) * kept[-1]).sum(channels).unsqueeze(1).detach()


class Last(nn.Module):
    """A convolution, what follows it, and a head; ``last`` is the module whose output are the last maps."""

    def __init__(self, follow, width: int = 6, kind=nn.Conv2d, **parts: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.conv = kind(3, 6, 3, padding=1), kind(6, 6, 3, padding=1)
        self.parts, self.follow = nn.ModuleDict(parts), follow
        self.last, self.head = nn.Identity(), nn.Linear(width, 4)
        self.double().eval()

    def forward(self, x):
        x = self.stem(x).relu()
        return self.head(self.follow(self, x, self.conv(x)))


def pool(x):
    return x.flatten(2).mean(2)


def squeeze_excite(m, x, y):
    gate = m.parts["up"](m.parts["down"](y.mean((2, 3), keepdim=True)).relu()).sigmoid()
    return pool(m.last(gate * y + x))


def squeeze_excite_linear(m, x, y):
    gate = m.parts["down"](pool(y)).sigmoid()
    return pool(m.last((y * gate.view(*gate.shape, 1, 1)).relu_()))


def efficient_channel_attention(m, x, y):
    gate = m.parts["mix"](F.adaptive_avg_pool2d(y, 1).squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1)
    return pool(m.last(y * gate.sigmoid().expand_as(y)))


def spatial_attention(m, x, y):
    both = torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], 1)
    return pool(m.last(y * m.parts["where"](both).sigmoid()))


def context_pooling(m, x, y):
    weight = m.parts["where"](y).flatten(2).softmax(2)
    context = torch.matmul(y.flatten(2), weight.mT).unsqueeze(-1)
    return pool(m.last(y + m.parts["up"](context)))


def inverted_block(m, x, y):
    inner = m.parts["norm"](y.permute(0, 2, 3, 1))
    return pool(m.last(x + m.parts["down"](F.gelu(m.parts["up"](inner))).permute(0, 3, 1, 2)))


def non_local(m, x, y):
    attention = (y.flatten(2).mT @ y.flatten(2)).softmax(-1)
    mixed = (attention @ y.flatten(2).mT).mT.reshape(y.shape)
    return pool(m.last(y + m.parts["out"](mixed)))


def branches(m, x, y):
    return pool(m.last(torch.cat([m.parts["one"](x).relu(), x, F.max_pool2d(y, 3, 1, 1)], 1)))


def bilinear_pooling(m, x, y):
    y = m.last(y.relu()).flatten(2)
    return (y @ y.mT / y.shape[2]).flatten(1)


def attention_pooling(m, x, y):
    y = m.last(F.relu_(y))
    score = m.parts["where"](y).flatten(2)
    return (score.softmax(-1) * y.flatten(2)).sum(2)


def one_place_after(m, x, y):
    y = m.last(m.parts["norm"](y))
    return m.parts["conv"](F.adaptive_max_pool2d(y, 1)).flatten(1)


def flattened(m, x, y):
    return m.parts["dense"](F.max_pool2d(m.last(y.relu()), 4).flatten(1)).view(len(x), 3, 2).flatten(1)


def places_linear(m, x, y):
    """(N, H, W, C) to the end."""
    return m.last(m.parts["up"](F.relu(y).movedim(1, -1))).mean((1, 2))


@pytest.mark.parametrize(
    ("follow", "width", "parts"),
    [
        (squeeze_excite, 6, {"down": nn.Conv2d(6, 2, 1), "up": nn.Conv2d(2, 6, 1)}),
        (squeeze_excite_linear, 6, {"down": nn.Linear(6, 6)}),
        (efficient_channel_attention, 6, {"mix": nn.Conv1d(1, 1, 3, padding=1)}),
        (spatial_attention, 6, {"where": nn.Conv2d(2, 1, 3, padding=1)}),
        (context_pooling, 6, {"where": nn.Conv2d(6, 1, 1), "up": nn.Conv2d(6, 6, 1)}),
        (inverted_block, 6, {"norm": nn.LayerNorm(6), "up": nn.Linear(6, 9), "down": nn.Linear(9, 6)}),
        (non_local, 6, {"out": nn.Conv2d(6, 6, 1)}),
        (branches, 14, {"one": nn.Conv2d(6, 2, 1)}),
        (bilinear_pooling, 36, {}),
        (one_place_after, 6, {"norm": nn.BatchNorm2d(6), "conv": nn.Conv2d(6, 6, 1)}),
        (flattened, 6, {"dense": nn.Linear(96, 6)}),
        (places_linear, 5, {"up": nn.Linear(6, 5)}),
    ],
)
def test_the_default_maps_are_the_last_through_which_the_logit_flows(follow, width, parts, x):
    network = Last(follow, width, **parts)
    places = (1, 2) if follow is places_linear else (2, 3)
    expected = by_hook(network, x, 1, network.last, places)
    assert expected.abs().max() > 1e-6
    for layer in (None, "last"):
        result = grad_cam(network, x, 1, layer=layer, relu=False, upsample=False)
        assert_close(result, expected, rtol=1e-9, atol=1e-12)


def mixer(m, x, y):
    tokens = y.flatten(2).mT
    return (tokens + m.parts["tokens"](tokens.mT).mT).mean(1)


def attention(m, x, y):
    tokens = y.flatten(2).mT
    return m.parts["attention"](tokens, tokens, tokens)[0].mean(1)


def written_attention(m, x, y):
    tokens = y.flatten(2).mT
    scores = m.parts["query"](tokens) @ m.parts["key"](tokens).mT
    return (scores.softmax(-1) @ tokens).mean(1)


def attention_back_on_the_grid(m, x, y):
    flat = y.flatten(2)
    return pool(y + (flat @ (flat.mT @ flat).softmax(-1)).view_as(y))


def recurrent(m, x, y):
    return m.parts["rnn"](y.flatten(2).mT)[0].mean(1)


def twice(m, x, y):
    return pool(y.relu()) - pool(m.conv(x.flip(1)).relu())


def parallel(m, x, y):
    return torch.cat([pool(y.relu()), pool(m.parts["other"](x).relu())], 1)


def crops(m, x, y):
    return pool(m.parts["out"](torch.cat([y, y.flip(-1)]))).view(2, len(x), -1).mean(0)


@pytest.mark.parametrize(
    ("follow", "width", "parts", "message"),
    [
        (mixer, 6, {"tokens": nn.Linear(256, 256)}, r"'conv'\) 'linear' \(module 'parts.tokens'\) acts on tokens"),
        (attention, 6, {"attention": nn.MultiheadAttention(6, 2, batch_first=True)}, "'multi_head_attention_forward'"),
        (written_attention, 6, {"query": nn.Linear(6, 2), "key": nn.Linear(6, 2)}, "'parts.query'.* acts on tokens"),
        (attention_back_on_the_grid, 6, {}, "'conv'.* acts on tokens"),
        (
            recurrent,
            5,
            {"rnn": nn.GRU(6, 5, batch_first=True)},
            "'gru'.* acts on tokens.*layer=.*reshape=tokens_to_maps",
        ),
        (twice, 6, {}, r"also past the maps of the last convolution \(module 'conv'\) \(it runs for several images"),
        (parallel, 8, {"other": nn.Conv2d(6, 2, 1)}, r"also past the maps .*'parts.other'.*parallel branches"),
        (attention_pooling, 6, {"where": nn.Conv2d(6, 1, 1)}, r"also past the maps .*'parts.where'"),
        (crops, 6, {"out": nn.Conv2d(6, 6, 1)}, r"maps \(6, 6, 16, 16\) for 3 inputs .*layer=.*reshape="),
    ],
)
def test_maps_that_are_not_the_last_are_refused_with_the_remedy(follow, width, parts, message, x):
    with pytest.raises(UnsupportedModelError, match=message):
        grad_cam(Last(follow, width, **parts), x, 1)


def test_attention_over_a_series_is_not_taken_for_maps():
    """As many tokens as places: neither the attention matrix (N, L, L) nor the values (N, L, C) are feature maps."""
    series = torch.rand(2, 3, 9, dtype=torch.float64)
    for follow, parts in (
        (written_attention, {"query": nn.Linear(6, 2), "key": nn.Linear(6, 2)}),
        (attention, {"attention": nn.MultiheadAttention(6, 2, batch_first=True)}),
        (mixer, {"tokens": nn.Linear(9, 9)}),
    ):
        with pytest.raises(UnsupportedModelError, match="acts on tokens"):
            grad_cam(Last(follow, kind=nn.Conv1d, **parts), series, 0)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_the_map_of_a_network_with_one_pooled_head_is_the_class_activation_map_in_any_dimension(dims):
    kind, shape = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1], (8, 6, 4)[:dims]
    network = Last(lambda m, x, y: pool(m.last(y.relu())), kind=kind)
    x = torch.rand(2, 3, *shape, dtype=torch.float64)
    maps = network.conv(network.stem(x).relu()).relu()
    cam = torch.einsum("nk...,k->n...", maps, network.head.weight[2])[:, None] / maps[0, 0].numel()
    signed = grad_cam(network, x, 2, relu=False, upsample=False)
    assert_close(signed, cam.detach())
    assert_close(grad_cam(network, x, 2, upsample=False), cam.detach().relu())
    assert_close(grad_cam(network, x, 2, relu=False), signed.expand_as(x))  # the maps are as large as x
    # Exact: the logit is the sum over the places, plus the bias.
    assert_close(signed.flatten(1).sum(1) + network.head.bias[2].detach(), network(x)[:, 2].detach())


def test_all_negative_evidence_is_zero_and_shows_in_the_signed_map(cam_network, x):
    with torch.no_grad():
        cam_network[8].weight[0] = -cam_network[8].weight[0].abs()
    assert (grad_cam(cam_network, x, 0) == 0).all()
    signed = grad_cam(cam_network, x, 0, relu=False)
    assert (signed <= 0).all()
    assert signed.min() < 0


def test_a_map_is_laid_over_the_axes_of_x_along_which_it_runs():
    network = Last(lambda m, x, y: pool(y.relu()))
    x = torch.rand(2, 3, 10, 7, dtype=torch.float64)
    expected = grad_cam(network, x, 1)
    channels_last = grad_cam(lambda x: network(x.movedim(-1, 1)), x.movedim(1, -1), 1)
    assert_close(channels_last, expected.movedim(1, -1))
    turned = grad_cam(lambda x: network(x.mT), x.mT, 1)
    assert_close(turned, expected.mT)
    tokens = torch.rand(2, 9, 3, dtype=torch.float64)  # (N, T, D)
    series = Last(lambda m, x, y: pool(F.avg_pool1d(y.relu(), 3)), kind=nn.Conv1d)
    result = grad_cam(lambda x: series(x.mT), tokens, 1)
    assert_close(result, grad_cam(series, tokens.mT, 1).mT)
    assert_close(result[:, :, 0], result[:, :, 2])
    grey = nn.Sequential(
        nn.Unflatten(1, (1, 10)), nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(280, 2)
    )
    pictures = torch.rand(2, 10, 7)  # (N, H, W)
    assert_close(grad_cam(grey, pictures, 1), grad_cam(grey[1:], pictures[:, None], 1)[:, 0])


def fill(x):
    y = torch.zeros(2, 3, 10, 7, dtype=torch.float64)
    for i in range(3):
        y[:, i] = x[..., i]
    return y


@pytest.mark.parametrize(
    "front",
    [
        lambda x: torch.stack(x.unbind(-1), 1),
        lambda x: torch.einsum("nhwc->nchw", x),
        lambda x: torch.tensordot(torch.eye(3).double(), x, ([1], [3])).transpose(0, 1),
        lambda x: (x @ torch.eye(3).double()).permute(0, 3, 1, 2),
        lambda x: torch.stack([x @ vector for vector in torch.eye(3).double()], 1),
        fill,
        lambda x: torch.fft.ifft2(torch.fft.fft2(x.permute(0, 3, 1, 2))).real,
        lambda x: x.permute(0, 3, 1, 2).flatten().view(2, 3, 10, 7),
    ],
)
@pytest.mark.parametrize("options", [{}, {"layer": "conv"}, {"layer": "conv", "reshape": lambda maps: maps}])
def test_a_map_lies_over_a_picture_whose_channels_are_moved_in_any_way(front, options):
    network = Last(lambda m, x, y: pool(y.relu()))
    network.eval()
    x = torch.rand(2, 3, 10, 7, dtype=torch.float64)
    network.stem = nn.Sequential(Front(lambda x: x), network.stem)
    expected = grad_cam(network, x, 1, **options)
    network.stem[0].function = front
    assert_close(grad_cam(network, x.movedim(1, -1), 1, **options), expected.movedim(1, -1))


class Front(nn.Module):
    """What a network does to x first; with a layer, so that it also has weights."""

    def __init__(self, function, *parts) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, x):
        return self.function(x, *self.parts)


def step_by_step(x, cell):
    state, states = None, []
    for step in x.unbind(1):
        state = cell(step, state)
        states.append(state)
    return torch.stack(states, 1)


@pytest.mark.parametrize(
    ("front", "parts"),
    [
        (lambda x, lstm: lstm(x)[0], [nn.LSTM(3, 3, batch_first=True)]),
        (lambda x, gru: gru(x.transpose(0, 1))[0].transpose(0, 1), [nn.GRU(3, 3)]),
        (lambda x, heads: heads(x, x, x)[0], [nn.MultiheadAttention(3, 1, batch_first=True)]),
        (lambda x: F.scaled_dot_product_attention(x, x, x), []),
        (lambda x: torch.einsum("ntd,de->nte", x, torch.eye(3).double()), []),
        (step_by_step, [nn.GRUCell(3, 3)]),
    ],
)
def test_a_map_runs_along_the_steps_of_a_series(front, parts):
    torch.manual_seed(1)
    x = torch.randn(2, 9, 3, dtype=torch.float64)
    front = Front(front, *parts).double()
    series = Last(lambda m, x, y: pool(y.relu()), kind=nn.Conv1d).double()
    cam = grad_cam(lambda x: series(front(x).mT), x, 1, relu=False, upsample=False)
    assert_close(
        grad_cam(lambda x: series(front(x).mT), x, 1, relu=False),
        F.interpolate(cam, 9, mode="linear").mT.expand_as(x),
    )


@pytest.mark.parametrize(
    "front",
    [
        lambda x: x.flip(3),
        lambda x: x[..., list(range(6, -1, -1))],
        lambda x: torch.rot90(x, 2, (2, 3)),
        lambda x: torch.fft.fft2(x).abs(),
    ],
)
def test_a_map_of_what_has_no_place_in_x_any_more_is_not_laid_over_it(front):
    network = Last(lambda m, x, y: pool(y.relu()))
    x = torch.rand(2, 3, 10, 7, dtype=torch.float64)
    with pytest.raises(UnsupportedModelError, match=r"not known along which of its axes they run .*: upsample=False"):
        grad_cam(lambda x: network(front(x)), x, 1)
    assert_close(
        grad_cam(lambda x: network(front(x)), x, 1, upsample=False), grad_cam(network, front(x), 1, upsample=False)
    )


def test_axes_joined_to_one_are_not_told_by_the_gradient():
    series = Last(lambda m, x, y: pool(y.relu()), kind=nn.Conv1d)
    network = lambda x: series(F.unfold(x, 2, stride=2)[:, :3])  # noqa: E731
    with pytest.raises(UnsupportedModelError, match="not known along which of its axes"):
        grad_cam(network, torch.rand(2, 3, 8, 6, dtype=torch.float64), 1)


def test_a_reshape_may_swap_the_axes_that_the_network_swapped():
    network = Last(lambda m, x, y: pool(y.relu()))
    x, network.stem = torch.rand(2, 3, 10, 7, dtype=torch.float64), nn.Sequential(Front(lambda x: x.mT), network.stem)
    expected = grad_cam(network, x, 1, layer="conv")
    assert_close(grad_cam(network, x, 1, layer="conv", reshape=lambda maps: maps), expected)
    assert_close(grad_cam(network, x, 1, layer="conv", reshape=lambda maps: maps.mT), expected)


@pytest.mark.parametrize("last", [True, False])
def test_patches_of_a_dense_layer_lie_over_a_picture_of_any_layout(last):
    torch.manual_seed(0)

    class Patches(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.norm, self.head = nn.Linear(48, 8), nn.LayerNorm(8), nn.Linear(8, 3)

        def forward(self, x):
            x = x if last else x.permute(0, 2, 3, 1)
            tokens = x.view(2, 3, 4, 2, 4, 3).transpose(2, 3).reshape(2, 6, 48)
            return self.head(self.norm(self.patches(tokens)).relu().mean(1))

    network, reshape = Patches(), tokens_to_maps((3, 2), prefix_tokens=0)
    x = torch.rand(2, 12, 8, 3) if last else torch.rand(2, 3, 12, 8)
    small = grad_cam(network, x, 1, layer="norm", reshape=reshape, upsample=False)
    cam = F.interpolate(small, (12, 8), mode="bilinear")
    result = grad_cam(network, x, 1, layer="norm", reshape=reshape)
    assert_close(result, (cam.movedim(1, -1) if last else cam).expand_as(x))


def test_a_vision_transformer_with_its_patches_on_a_grid():
    torch.manual_seed(0)
    network = torchvision.models.VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=5).double().eval()
    nn.init.normal_(network.heads.head.weight)
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    name, kept = "encoder.layers.encoder_layer_2.ln_1", []
    handle = network.get_submodule(name).register_forward_hook(lambda module, args, out: kept.append(out))
    score = network(x.clone().requires_grad_())[:, 3].sum()
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept[0])
    patches, slopes = kept[0][:, 1:], gradient[:, 1:]  # without the class token
    expected = torch.einsum("ntd,nd->nt", patches, slopes.mean(1)).relu().view(2, 1, 4, 4).detach()
    assert expected.max() > 0
    assert_close(grad_cam(network, x, 3, layer=name, reshape=tokens_to_maps(), upsample=False), expected)
    assert_close(
        grad_cam(network, x, 3, layer=name, reshape=tokens_to_maps((4, 4))),
        F.interpolate(expected, (32, 32), mode="bilinear").expand_as(x),
    )
    with pytest.raises(UnsupportedModelError, match="selected tokens do not act on the logit: pass an earlier layer"):
        grad_cam(network, x, 3, layer="encoder.layers.encoder_layer_2", reshape=tokens_to_maps())
    with pytest.raises(UnsupportedModelError, match=r"'conv_proj'\) 'multi_head_attention_forward' .* acts on tokens"):
        grad_cam(network, x, 3)
    with pytest.raises(ValueError, match="pass layer= too"):
        grad_cam(network, x, 3, reshape=tokens_to_maps())


def test_mean_pooled_tokens_have_their_class_activation_map():
    """Closed form: the logit is the mean over tokens of their part, so the parts are the map."""
    torch.manual_seed(0)
    patches, mix, head = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(12, 12), nn.Linear(8, 3)

    class Mixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.mix, self.last, self.head = patches, mix, nn.Identity(), head

        def forward(self, x):
            tokens = self.patches(x).flatten(2)
            return self.head(self.last((tokens + self.mix(tokens).relu()).mT).mean(1))

    network, x = Mixer(), torch.rand(2, 3, 16, 12)
    tokens = network.patches(x).flatten(2)
    tokens = tokens + network.mix(tokens).relu()
    parts = torch.einsum("ndt,d->nt", tokens, head.weight[1]).view(2, 1, 4, 3).detach() / 12
    reshape = tokens_to_maps((4, 3), prefix_tokens=0)
    assert_close(grad_cam(network, x, 1, layer="last", reshape=reshape, relu=False, upsample=False), parts)
    assert grad_cam(network, x, 1, layer="last", reshape=reshape).shape == x.shape


@pytest.mark.parametrize("layer", ["features.1.0.norm2", "features.3", "features.5", "features.7.1.norm1", "norm"])
def test_swin_keeps_its_channels_on_the_last_axis(layer):
    torch.manual_seed(0)
    network = torchvision.models.SwinTransformer([4, 4], 8, [1, 1, 2, 2], [1, 2, 2, 4], [2, 2], num_classes=5).eval()
    x = torch.rand(2, 3, 64, 64)
    expected = by_hook(network, x, 3, network.get_submodule(layer), (1, 2))
    assert_close(grad_cam(network, x, 3, layer=layer, relu=False, upsample=False), expected)
    if layer == "norm":
        given = grad_cam(network, x, 3, layer=layer, reshape=channels_first, relu=False, upsample=False)
        assert_close(given, expected)
        with pytest.raises(UnsupportedModelError, match=r"after the last convolution \(module 'features.0.0'\)"):
            grad_cam(network, x, 3)


def test_frames_folded_into_the_batch_take_a_reshape():
    conv, head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 2)

    class Video(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = conv, head

        def forward(self, x):  # (N, T, C, H, W)
            return self.head(self.conv(x.flatten(0, 1)).mean((2, 3)).view(*x.shape[:2], -1).mean(1))

    x = torch.rand(2, 5, 3, 6, 6)
    cam = torch.einsum("ntkij,k->ntij", conv(x.flatten(0, 1)).view(2, 5, 4, 6, 6), head.weight[1]) / 180
    reshape = lambda maps: maps.unflatten(0, (2, 5)).transpose(1, 2)  # noqa: E731
    result = grad_cam(Video(), x, 1, layer="conv", reshape=reshape, relu=False, upsample=False)
    assert_close(result[:, 0], cam.detach())
    with pytest.raises(UnsupportedModelError, match=r"'conv' gives \(10, 4, 6, 6\) for 2 inputs \(crops, frames"):
        grad_cam(Video(), x, 1, layer="conv")


REFUSED = {"maxvit_t", "swin_t", "swin_v2_t", "vit_b_32"}
LAST = {
    "alexnet": "features.11", "convnext_tiny": "features.7", "efficientnet_b0": "features", "efficientnet_v2_s": "features",
    "googlenet": "inception5b", "inception_v3": "Mixed_7c", "mnasnet0_5": "layers", "mobilenet_v2": "features",
    "mobilenet_v3_small": "features", "regnet_y_400mf": "trunk_output", "regnet_x_400mf": "trunk_output",
    "resnet18": "layer4", "resnet50": "layer4", "resnext50_32x4d": "layer4", "shufflenet_v2_x0_5": "conv5",
    "squeezenet1_0": "classifier.2", "vgg11_bn": "features.27", "mc3_18": "layer4", "r3d_18": "layer4",
    "r2plus1d_18": "layer4", "densenet121": "features.norm5",
}  # fmt: skip


VIDEO = {"mc3_18", "r2plus1d_18", "r3d_18"}  # which take long


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.exhaustive if n in VIDEO else []) for n in sorted(REFUSED | set(LAST))],
)
def test_the_default_layer_of_torchvision_networks(name):
    torch.manual_seed(0)
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    network = torchvision.models.get_model(name, weights=None, **options).double().eval()
    size = 224 if "vit" in name else 128 if name == "inception_v3" else 96
    x = torch.rand(2, 3, *((8, 64, 64) if name.endswith("_18") else (size, size)), dtype=torch.float64)
    if name in REFUSED:
        with pytest.raises(UnsupportedModelError, match=r"acts on tokens.*layer=.*reshape="):
            grad_cam(network, x, 3)
        return
    result = grad_cam(network, x, 3, relu=False, upsample=False)
    if name == "densenet121":  # its last operation is a function, which works in place on what the module gave
        expected = torch.einsum("nkij,k->nij", network.features(x).relu(), network.classifier.weight[3])[:, None]
        expected = expected.detach() / expected[0].numel()
    else:
        expected = by_hook(network, x, 3, network.get_submodule(LAST[name]), tuple(range(2, x.dim())))
    assert expected.abs().max() > 0
    assert_close(result, expected, rtol=1e-6, atol=1e-9 * expected.abs().max().item())


def test_one_dimensional_signals_have_maps_too():
    network = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3))
    assert grad_cam(network, torch.rand(2, 2, 20), 0).shape == (2, 2, 20)


def test_guided_grad_cam_is_the_product(cam_network, x):
    product = guided_backprop(cam_network, x, 2) * grad_cam(cam_network, x, 2)
    early = guided_backprop(cam_network, x, 2) * grad_cam(cam_network, x, 2, layer="1")
    exactly = {"rtol": 1e-9, "atol": 0}  # the products are small
    assert not torch.allclose(product, early, **exactly)
    assert_close(guided_grad_cam(cam_network, x, 2), product, **exactly)
    assert_close(guided_grad_cam(cam_network, x, 2, layer="1", reshape=lambda maps: maps), early, **exactly)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "nowhere"}, "no module 'nowhere'"),
        ({"layer": nn.ReLU()}, "no module 'ReLU'"),
        ({"layer": "8"}, "feature maps"),
    ],
)
def test_a_layer_without_feature_maps_is_refused(cam_network, x, options, message):
    with pytest.raises(ValueError, match=message):
        grad_cam(cam_network, x, 0, **options)
    assert not any(module._forward_hooks for module in cam_network.modules())


def test_what_has_no_maps_is_refused():
    with pytest.raises(UnsupportedModelError, match="calls no convolution"):
        grad_cam(nn.Linear(5, 3), torch.rand(2, 5))
    relu = nn.ReLU()
    twice = nn.Sequential(nn.Conv2d(3, 3, 1), relu, nn.Conv2d(3, 3, 1), relu, nn.Flatten(), nn.Linear(48, 2))
    with pytest.raises(UnsupportedModelError, match="called 2 times"):
        grad_cam(twice, torch.rand(1, 3, 4, 4), layer="1")

    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 2, 3), nn.Linear(48, 2)

        def forward(self, x):
            self.conv(x)
            return self.head(x.flatten(1))

    with pytest.raises(UnsupportedModelError, match="do not act on the logit"):
        grad_cam(Aside(), torch.rand(1, 3, 4, 4), 0)
