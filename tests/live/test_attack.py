"""The attack on a saliency map, step by step: its direction as a graph, and the steps that the page takes."""

import copy

import pytest
import torch
from test_live import in_node, is_small, small_network
from test_page import last_of, opened, settled
from torch import nn

import interp_lab as il
from interp_lab import plot
from interp_lab.live import attack_direction, export_pairs
from interp_lab.live.page import laboratory, page

K = 20


def gradient(model, x, target, baseline):
    return il.saliency(model, x, target)


def direction(model, x, target, baseline):
    return attack_direction(model, x, target, baseline, k=K)


def smooth_network(model: nn.Sequential) -> nn.Sequential:
    return copy.deepcopy(nn.Sequential(*[nn.Softplus(10.0) if isinstance(m, nn.ReLU) else m for m in model])).double()


def exported(model, images):
    moved = (images + 0.02 * torch.rand(images.shape, generator=torch.Generator().manual_seed(2))).clamp(0, 1)
    return export_pairs(model, {"saliency": gradient, "attack direction": direction}, moved, images, "abc"), moved


def test_the_page_computes_the_direction_as_the_derivative_of_the_objective(tmp_path):
    """By differences of the objective of a twin with softplus, in double precision; a mutation of an operation is noticed."""
    model, generator = small_network(), torch.Generator().manual_seed(1)
    images = torch.rand(5, 1, 12, 12, generator=generator)
    live, moved = exported(model, images)
    twin, cases = smooth_network(model), []

    def objective(x, target, inside):
        x = x.requires_grad_()
        map_ = torch.autograd.grad(twin(x)[:, target].sum(), x)[0].abs().flatten(1)
        return map_[:, inside].sum(1) / map_.sum(1)

    for row in range(5):
        inside = il.saliency(model, images[row : row + 1], row % 3).abs().flatten().topk(K).indices
        step = 1e-6 * torch.eye(144, dtype=torch.double).view(144, 1, 12, 12)
        x = moved[row : row + 1].double()
        slope = (objective(x + step, row % 3, inside) - objective(x - step, row % 3, inside)) / 2e-6
        got = attack_direction(model, moved[row : row + 1], torch.tensor([row % 3]), images[row : row + 1], k=K)
        assert (got.flatten() - slope).abs().max() < 2e-4 * slope.abs().max()
        cases.append((row, got))
    found = {"attack direction": cases}
    result = in_node(tmp_path, live, torch.cat([moved, images], 1), torch.arange(5) % 3, found)
    assert all(is_small(error) for error in result["found"]["attack direction"])
    # Of two branches of softplus and of ties at the border a smooth network of small numbers takes one.
    assert set(result["unnoticed"]) <= {"eq", "sub", "div", "log", "exp", "add"}


@pytest.mark.browser
def test_the_steps_of_the_page_are_those_of_the_package_and_are_told(browser, tmp_path):
    model = small_network()
    images = (torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(5)) * 255).round() / 255
    live, _ = exported(model, images)
    figure = laboratory(
        live, {"one": images[0], "two": images[1]}, name="a", label="a", still=plot.images(images[:1], alt="a"),
        maps=["saliency", "attack"], course="attack", attack=K, start={"levels": 8},
    )  # fmt: skip
    (tmp_path / "page.html").write_text(page(figure, "Attack"), encoding="utf-8")
    tab = opened(browser, tmp_path / "page.html", faults := [], viewport={"width": 390, "height": 800}, has_touch=True)
    settled(tab)
    told = tab.locator("[data-part=told]")
    assert f"of the {K} strongest pixels" in told.inner_text()
    for k, x in enumerate(images[:, None]):
        target = int(model(x).argmax())
        last = last_of(tab, "attack", torch.cat([x, x], 1), target, {"k": K, "radius": 8 / 255})
        moved = torch.tensor(last["moved"]).view_as(x)
        assert (moved - x).abs().max() <= 8 / 255 + 1e-6
        overlap = il.top_k_overlap(il.saliency(model, x, target), il.saliency(model, moved, target), K).item()
        assert last["overlap"] == pytest.approx(overlap)
        least = il.attack_attribution(model, x, target, k=K, radius=8 / 255, steps=10)
        best = il.top_k_overlap(il.saliency(model, x, target), il.saliency(model, least, target), K).item()
        assert overlap >= best
        tab.get_by_label(("one", "two")[k], exact=True).check()
        settled(tab)
        assert f"After 10 steps of the attack {100 * overlap:.0f}" in told.inner_text()
        assert f"reads {'abc'[last['reads']]}" in told.inner_text()
    tab.get_by_label("attack: grey levels").focus()
    before = told.inner_text()
    tab.keyboard.press("Home")
    settled(tab)
    assert told.inner_text() != before
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    tab.context.close()
    assert not faults
