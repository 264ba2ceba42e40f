"""Layers that are randomised in the page, against the networks of model_randomisation."""

import copy
import json
import shutil
import subprocess

import pytest
import torch
from test_live import ENGINE, cases_of, fresh_inputs, in_node, is_small, targets_of
from test_page import opened, settled
from torch import nn

import interp_lab as il
from interp_lab import plot
from interp_lab.data import scenes
from interp_lab.live import export, randomisable
from interp_lab.live.page import laboratory, page
from interp_lab.live.randomising import choices
from interp_lab.networks import load

METHODS = {name: il.METHODS[name] for name in ("saliency", "guided_backprop", "lrp", "grad_cam")}


def plain_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(432, 16), nn.ReLU(), nn.Linear(16, 3),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module", params=["small", pytest.param("scenes_cnn", marks=pytest.mark.exhaustive)])
def recorded(request):
    if request.param == "small":
        model, images = plain_network(), torch.rand(120, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    else:
        model, images = load("scenes_cnn"), scenes(120, seed=2).images
    classes = [str(k) for k in range(model(images[:1]).shape[1])]
    live = export(model, METHODS, images[:3], classes)
    return model, randomisable(live, model, METHODS, images[:3]), images[20:]


def networks_of(model, x, seed: int) -> list[nn.Module]:
    """The trained network, and those of model_randomisation after each step."""
    found = []

    def keep(network, x, target):
        found.append(copy.deepcopy(network))
        return x

    il.model_randomisation(keep, model, x[:1], 0, seed=seed)
    return found


def with_random(model, x, chosen, seed: int) -> nn.Module:
    names = il.model_randomisation(il.saliency, model, x[:1], 0).layers
    network, steps = copy.deepcopy(model), networks_of(model, x, seed)
    for k in chosen:
        network.get_submodule(names[k]).load_state_dict(steps[k + 1].get_submodule(names[k]).state_dict())
    return network


def test_the_page_draws_the_maps_of_a_randomised_network(recorded, tmp_path):
    """Each layer alone and in cascade, with several seeds: twenty fresh inputs and classes for every method."""
    model, live, images = recorded
    images, targets, different = fresh_inputs(images), targets_of(model, fresh_inputs(images)), 0
    for number, chosen in enumerate(choices(len(live.layers))):
        seed = number % 3
        network = with_random(model, images, chosen, seed)
        cases = {}
        for name, method in METHODS.items():
            cases[name] = cases_of(network, copy.deepcopy(network).double(), method, images, targets=targets)
            different += sum(
                not torch.equal(want, method(model, images[r : r + 1], targets[r : r + 1])) for r, want in cases[name]
            )
        assert sum(map(len, cases.values())) >= 60, chosen  # a Grad-CAM of random weights is often zero everywhere
        found = in_node(tmp_path, live, images, targets, cases, "plain", random=(chosen, seed))["found"]
        bad = {name: e for name, errors in found.items() if (e := [e for e in errors if not is_small(e)])}
        assert not bad, (chosen, bad)
    assert different > 100


def test_the_page_has_the_rank_correlation_of_the_package(tmp_path):
    if shutil.which("node") is None:
        pytest.skip("needs node to run live.js outside a browser")
    pairs = torch.randn(4, 2, 400)
    pairs[1] = pairs[1].mul(3).round()  # ties
    pairs[2].relu_()
    pairs[3, 1] = 0.5
    with pytest.warns(UserWarning, match="1 of 4 pairs have a constant map"):
        want = il.evaluate.similarity.spearman(pairs[:, 0], pairs[:, 1])
    script = "const { spearman } = require(process.argv[1]); console.log(JSON.stringify(JSON.parse(process.argv[2]).map(([a, b]) => spearman(a, b))))"
    done = subprocess.run(
        ["node", "-e", script, ENGINE.resolve(), json.dumps(pairs.tolist())], capture_output=True, text=True
    )
    got = [float("nan") if v is None else v for v in json.loads(done.stdout)]
    assert torch.allclose(torch.tensor(got), want, atol=1e-6, equal_nan=True)


class Own(nn.Linear):
    """A kind of its own, which may draw its weights as it likes."""


def of_the_weights(model, x, target):
    """A way that a recording holds fast, since no input changes it."""
    return il.saliency(model, x, target) * (1 if model[1].weight.sum().item() > 0 else 2)


def test_what_a_page_cannot_randomise_is_refused():
    x = torch.rand(3, 1, 3, 3)
    saliency = {"saliency": il.saliency}
    normed = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3)).eval()
    own = nn.Sequential(nn.Flatten(), Own(9, 3))
    for model, message in ((normed, "BatchNorm2d"), (own, "Own")):
        with pytest.raises(il.UnsupportedModelError, match=message):
            randomisable(export(model, saliency, x, "abc"), model, saliency, x)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(9, 3))
    nn.init.constant_(flat[1].bias, 0.25)
    with pytest.raises(il.UnsupportedModelError, match="the parameters of layer '1', or one is a single number"):
        randomisable(export(flat, saliency, x, "abc"), flat, saliency, x)
    dense, method = nn.Sequential(nn.Flatten(), nn.Linear(9, 3)), {"of the weights": of_the_weights}
    nn.init.uniform_(dense[1].weight, 0, 1)
    if with_random(dense, x, (0,), 0)[1].weight.sum().item() > 0:  # so that the way changes
        nn.init.uniform_(dense[1].weight, -1, 0)
    with pytest.raises(il.UnsupportedModelError, match="of the weights does not hold for random weights"):
        randomisable(export(dense, method, x, "abc"), dense, method, x)


def test_a_reset_of_another_kind_is_refused(monkeypatch):
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(9, 3)), torch.rand(3, 1, 3, 3)
    live = export(model, {"saliency": il.saliency}, x, "abc")
    monkeypatch.setattr(nn.Linear, "reset_parameters", lambda layer: [p.data.normal_() for p in layer.parameters()])
    with pytest.raises(il.UnsupportedModelError, match="of '1' does not draw from U"):
        randomisable(live, model, {"saliency": il.saliency}, x)


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore:.*constant map")
def test_the_keyboard_randomises_layers_and_the_correlations_are_told(browser, tmp_path):
    model, images = plain_network(), (torch.rand(2, 1, 12, 12) * 255).round() / 255
    live = randomisable(export(model, METHODS, images, "abc"), model, METHODS, images)
    figure = laboratory(
        live, {"one": images[0], "two": images[1]}, name="a", label="a", still=plot.images(images[:1], alt="a"), maps=list(METHODS)
    )  # fmt: skip
    (tmp_path / "page.html").write_text(page(figure, "Layers"), encoding="utf-8")
    tab = opened(browser, tmp_path / "page.html", faults := [], viewport={"width": 390, "height": 800})
    told, target = tab.locator("[data-part=told]"), int(model(images[:1]).argmax())
    settled(tab)
    assert "All weights are those of the training" in told.inner_text()

    def check(chosen, seed: int) -> None:
        settled(tab)
        network = with_random(model, images, chosen, seed)
        parts = []
        for name, label in zip(METHODS, ("saliency", "guided backprop", "LRP", "Grad-CAM"), strict=True):
            maps = [METHODS[name](net, images[:1], target) for net in (model, network)]
            alike = il.similarity(*maps)
            parts.append((label, [alike.spearman.item(), alike.spearman_abs.item()]))
        text = told.inner_text()
        assert text.startswith(f"{len(chosen)} of 4 layers")
        assert f"reads {'abc'[int(network(images[:1]).argmax())]}" in text
        for label, (signed, magnitudes) in parts:
            got = text.split(label + " ")[1].split(";")[0].removesuffix(".").split(", ")
            for shown, want in zip(got, (signed, magnitudes), strict=True):
                assert (shown == "none") if want != want else abs(float(shown) - want) < 0.0051, label
        pressed = [b.get_attribute("aria-pressed") == "true" for b in tab.locator("[data-layer]").all()]
        assert [k for k, is_pressed in enumerate(pressed) if is_pressed] == list(chosen)

    tab.get_by_role("button", name="layer 4: linear").focus()
    tab.keyboard.press("Enter")
    told.get_by_text("1 of 4").wait_for()
    check((0,), 0)
    tab.get_by_role("button", name="layer 2: convolution").focus()
    tab.keyboard.press("Enter")
    told.get_by_text("3 of 4").wait_for()
    check((0, 1, 2), 0)
    tab.get_by_label("and all layers above it").focus()
    tab.keyboard.press(" ")
    told.get_by_text("1 of 4").wait_for()
    check((2,), 0)
    tab.get_by_role("button", name="draw others").click()
    told.get_by_text("draw 2").wait_for()
    check((2,), 1)
    tab.get_by_role("button", name="give all weights back").click()
    told.get_by_text("All weights are those").wait_for()
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    tab.context.close()
    assert not faults
