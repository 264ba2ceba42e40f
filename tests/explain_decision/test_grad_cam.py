"""Grad-CAM against class activation maps and Captum, and the choice of its layer."""

import captum.attr
import pytest
import torch
import torchvision
from torch import nn
from torch.testing import assert_close

from interp_lab import UnsupportedModelError, grad_cam, guided_backprop, guided_grad_cam


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


def test_one_dimensional_signals_have_maps_too():
    network = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3))
    assert grad_cam(network, torch.rand(2, 2, 20), 0).shape == (2, 2, 20)


def test_guided_grad_cam_is_the_product(cam_network, x):
    assert_close(guided_grad_cam(cam_network, x, 1), guided_backprop(cam_network, x, 1) * grad_cam(cam_network, x, 1))


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
