"""Methods whose baseline the reader draws: graphs of both, and the sums that the page tells."""

import copy
import re
from functools import partial

import pytest
import torch
from test_live import in_node, is_small, refused_or, small_network
from test_page import draw, opened, settled

import interp_lab as il
from interp_lab import plot
from interp_lab.data import digits
from interp_lab.live import export_pairs
from interp_lab.live.page import laboratory, page
from interp_lab.live.pairs import AT_BASELINE
from interp_lab.networks import load


def first_order(model, x, target, baseline):
    return (x - baseline) * il.saliency(model, x, target)


METHODS = {
    "deeplift": il.deeplift,
    "reveal_cancel": partial(il.deeplift, rule="reveal_cancel"),
    "first_order": first_order,
}


def fresh_pairs(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Baselines of all kinds: black, grey, another image, the input with a part erased, noise of both signs."""
    baselines = images.roll(1, 0)
    baselines[0::5] = 0
    baselines[1::5] = 0.5
    baselines[2::5] = images[2::5]
    baselines[2::5, ..., : images.shape[-1] // 2] = 0
    baselines[3::5] = torch.randn(images[3::5].shape, generator=torch.Generator().manual_seed(5))
    return images, baselines


@pytest.mark.parametrize("name", ["small", pytest.param("digits_cnn", marks=pytest.mark.slow)])
def test_the_page_draws_the_maps_of_the_package_for_any_baseline(name, tmp_path):
    """Twenty fresh inputs, classes and baselines; a mutation of an operation is noticed."""
    if name == "small":
        model, images = small_network(), torch.rand(150, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    else:
        model, images = load(name), digits("test").images[:150]
    classes = [str(k) for k in range(model(images[:1]).shape[1])]
    live = export_pairs(model, METHODS, images[:3], images[:3].roll(1, 0) / 2, classes)
    x, x0 = fresh_pairs(images[50:])
    double, targets = copy.deepcopy(model).double(), torch.arange(len(x)) % len(classes)
    cases = {AT_BASELINE: [(row, model(x0[row : row + 1]).detach()) for row in range(20)]}
    for method, call in METHODS.items():
        found = []
        for row, target in enumerate(targets[:, None]):
            want, exact = (
                refused_or(lambda: call(net, x[row : row + 1].to(kind), target, baseline=x0[row : row + 1].to(kind)))  # noqa: B023
                for net, kind in ((model, torch.float32), (double, torch.float64))
            )
            if want.any() and (want - exact).abs().max() <= 2e-6 * want.abs().max():
                found.append((row, want.detach()))
        assert len({row % 5 for row, _ in found[:20]}) == 5  # every kind of baseline
        cases[method] = found[:20]
    assert all(len(found) == 20 for found in cases.values())
    result = in_node(tmp_path, live, torch.cat([x, x0], 1), targets, cases)
    bad = {n: e for n, errors in result["found"].items() if (e := [e for e in errors if not is_small(e)])}
    assert not bad
    # The slope of a unit at its baseline is a mean, where the inputs differ by nothing; and on trained weights no difference comes so
    # near to the smallest one that is divided by (gt) that quotient and slope would tell them apart.
    assert set(result["unnoticed"]) <= ({"mean"} if name == "small" else {"mean", "gt"})


def test_a_pair_needs_a_baseline_of_its_shape_and_its_figure_a_pen():
    x = torch.rand(2, 1, 12, 12)
    with pytest.raises(ValueError, match="every example needs its baseline"):
        export_pairs(small_network(), {"deeplift": il.deeplift}, x, x[:1], "abc")
    live = export_pairs(small_network(), {"deeplift": il.deeplift}, x, 0 * x, "abc")
    given = {"name": "a", "label": "a", "still": plot.images(x[:1], alt="a"), "maps": ["deeplift"]}
    for wrong in ({}, {"drawing": True}, {"drawing": True, "baselines": {"black": 0 * x}, "trained_form": True}):
        with pytest.raises(ValueError, match="a baseline of the reader's needs a pen"):
            laboratory(live, {"a": x[0], "b": x[1]}, **given, **wrong)


@pytest.mark.browser
def test_the_baseline_is_drawn_and_the_sums_are_told(browser, tmp_path):
    model, data = load("digits_cnn"), digits("test")
    images = (data.images[:2] * 255).round() / 255
    methods = {"deeplift": il.deeplift, "first_order": first_order}
    figure = laboratory(
        export_pairs(model, methods, images, 0 * images, data.classes),
        {"one": images[0], "two": images[1]}, name="a", label="a", still=plot.images(images[:1], alt="a"),
        maps=list(methods), drawing=True, baselines={"black": 0 * images, "the input": images},
    )  # fmt: skip
    (tmp_path / "page.html").write_text(page(figure, "Baseline"), encoding="utf-8")
    tab = opened(browser, tmp_path / "page.html", faults := [], viewport={"width": 390, "height": 800}, has_touch=True)
    read = """c => { const copy = new OffscreenCanvas(c.width, c.height).getContext("2d"); copy.drawImage(c, 0, 0);
      return [...copy.getImageData(0, 0, c.width, c.height).data].filter((_, i) => i % 4 === 0); }"""
    told = tab.locator("[data-part=told]")

    def check(x: torch.Tensor) -> torch.Tensor:
        """The sums that are told are those of the package, to what the canvas rounds; the baseline, as it is drawn."""
        settled(tab)
        x0 = torch.tensor(tab.locator("[data-part=pad]").evaluate(read)).view_as(x) / 255
        target = int(model(x).argmax())
        ends = [model(end)[0, target].item() for end in (x, x0)]
        sums = [method(model, x, target, baseline=x0).sum().item() for method in methods.values()]
        got = [float(v) for v in re.findall(r"-?\d+\.\d\d", told.inner_text())]
        assert torch.allclose(torch.tensor(got), torch.tensor([*ends, ends[0] - ends[1], *sums]), atol=0.03)
        assert abs(got[3] - got[2]) <= 0.011  # DeepLIFT is complete, whatever is drawn
        return x0

    assert not check(images[:1]).any()
    tab.get_by_role("button", name="the input").click()
    assert torch.equal(check(images[:1]), images[:1])
    tab.get_by_role("button", name="eraser").click()
    draw(tab, [(8, 6), (8, 22)])
    erased = check(images[:1])
    assert (erased <= images[:1]).all()
    assert not torch.equal(erased, images[:1])
    tab.get_by_role("button", name="pen").click()
    tab.get_by_role("application", name="Baseline").focus()
    before = told.inner_text()
    for key in [" ", *["ArrowDown"] * 4, " "]:
        tab.keyboard.press(key)
    settled(tab)
    _, _, rise, lift, _ = (float(v) for v in re.findall(r"-?\d+\.\d\d", told.inner_text()))
    assert told.inner_text() != before  # the pad shows its cursor now, so that its picture is not the baseline
    assert abs(lift - rise) <= 0.011
    tab.get_by_role("button", name="clear").click()
    assert not check(images[:1]).any()
    tab.get_by_label("two", exact=True).check()
    check(images[1:])
    assert told.get_attribute("aria-live") == "polite"
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    tab.context.close()
    assert not faults
