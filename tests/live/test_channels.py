"""Channels that a reader switches off: the graph of image and switches, and the figure around it."""

import re

import pytest
import torch
from test_live import in_node, is_small, small_network
from test_page import logits_of, opened, settled

import interp_lab as il
from interp_lab import plot
from interp_lab.live import export, export_channels
from interp_lab.live.channels import ACTIVATIONS, INTACT
from interp_lab.live.page import laboratory, page

MEANS = {"2": torch.tensor([0.5, 0.1, 0.0, 0.9]), "5": torch.tensor([0.2, 0.0, 0.7, 0.1, 0.4, 0.3])}


def by_hand(model, x, on):
    """Logits, and what the channels of layers 2 and 5 give: layer by layer, with those that are off filled."""
    first = model[:3](x.clone())
    second = model[3:6](torch.where(on[:4, None, None] > 0, first, MEANS["2"][:, None, None]))
    return model[6:](torch.where(on[4:, None, None] > 0, second, MEANS["5"][:, None, None])), first, second


def test_the_page_computes_the_network_with_its_channels_held(tmp_path):
    """Twenty inputs and patterns of switches, all on and all off among them; a mutation of an operation is noticed."""
    model, generator = small_network(), torch.Generator().manual_seed(3)
    images = torch.rand(20, 1, 12, 12, generator=generator)
    live = export_channels(model, {"saliency": il.saliency}, MEANS, images[:3], "abc")
    assert live.channels == (("2", 4), ("5", 6))
    on = (torch.rand(20, 10, generator=generator) > 0.4).float()
    on[0], on[1] = 1, 0
    targets, cases = torch.arange(20) % 3, {}
    for row in range(20):
        x = images[row : row + 1].clone().requires_grad_()
        logits, first, second = by_hand(model, x, on[row])
        (gradient,) = torch.autograd.grad(logits[0, targets[row]], x)
        wanted = {"logits": logits, "saliency": gradient, INTACT: model(x), ACTIVATIONS + "2": first}
        for name, want in (wanted | {ACTIVATIONS + "5": second}).items():
            if want.any():
                cases.setdefault(name, []).append((row, want.detach()))
    assert all(len(found) >= 10 for found in cases.values())
    result = in_node(tmp_path, live, torch.cat([images.flatten(1), on], 1), targets, cases)
    assert not {n: e for n, errors in result["found"].items() if (e := [e for e in errors if not is_small(e)])}
    assert not result["unnoticed"]


def test_a_figure_of_switches_needs_their_patches_and_two_examples():
    model, x = small_network(), torch.rand(2, 1, 12, 12)
    live = export_channels(model, {}, MEANS, x, "abc")
    top = {layer: il.top_activations(model, [x], layer) for layer in MEANS}
    given = {"name": "a", "label": "a", "still": plot.images(x[:1], alt="a"), "maps": []}
    for wrong, message in (
        ({"live": live}, "needs the patches"),
        ({"live": live, "channels": {"2": top["2"]}}, "needs the patches"),
        ({"live": export(model, {}, x, "abc"), "channels": top}, "needs the patches"),
        ({"live": live, "channels": top, "removal": 4}, "switches are of one network"),
    ):
        with pytest.raises(ValueError, match=message):
            laboratory(inputs={"a": x[0]}, **given, **wrong)
    with pytest.raises(ValueError, match="two or more examples"):
        export_channels(model, {}, MEANS, x[:1], "abc")


@pytest.mark.browser
def test_channels_are_switched_by_keyboard_finger_and_group_and_the_answer_is_told(browser, tmp_path):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    model = small_network()
    images = (torch.rand(2, 1, 12, 12) * 255).round() / 255
    tops = {layer: il.top_activations(model, [torch.rand(12, 1, 12, 12)], layer) for layer in MEANS}
    group = torch.tensor([True, False, False, True, *[False] * 4, True, False])
    figure = laboratory(
        export_channels(model, {"saliency": il.saliency}, MEANS, images, "abc"),
        {"one": images[0], "two": images[1]}, name="a", label="a", still=plot.images(images[:1], alt="a"),
        maps=["saliency"], channels=tops, groups={"some": group},
    )  # fmt: skip
    (tmp_path / "page.html").write_text(page(figure, "Channels"), encoding="utf-8")
    tab = opened(browser, tmp_path / "page.html", faults := [], viewport={"width": 390, "height": 800}, has_touch=True)
    told, switches = tab.locator("[data-part=told]"), tab.get_by_role("switch")

    def check(off: list[int], row: int = 0) -> None:
        settled(tab)
        on = torch.ones(10).index_fill(0, torch.tensor(off, dtype=torch.long), 0)
        x = images[row : row + 1]
        with torch.no_grad():
            logits, whole = by_hand(model, x, on)[0][0], model(x)[0]
        assert (logits_of(tab) - logits).abs().max() < 0.006
        assert [s.get_attribute("aria-checked") for s in switches.all()] == [
            str(k not in off).lower() for k in range(10)
        ]
        top = int(whole.argmax())
        want = [whole[top], logits[top]] if off else [whole[top]]
        numbers = [float(v) for v in re.findall(r"-?\d+\.\d", told.inner_text())]
        assert numbers == pytest.approx([v.item() for v in want], abs=0.051)
        assert told.inner_text().startswith(f"{len(off)} of 10 channels" if off else "All 10 channels are on")

    tab.locator("details").first.evaluate("d => { d.open = true }")
    check([])
    switches.first.focus()
    tab.keyboard.press("Enter")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("Space")
    check([0, 1])
    for _ in range(3):  # across the layers
        tab.keyboard.press("ArrowRight")
    assert tab.locator("[data-part=channel]").inner_text() == "The 9 patches that excite channel 0 of layer 5 most."
    shown = tab.locator("[data-part=patches]").evaluate(
        "c => [c.width, c.height, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    )
    width, height, *levels = shown
    side = tops["5"].patches.shape[-1]
    assert (width, height) == (3 * side + 2, 3 * side + 2)
    picture = torch.tensor(levels, dtype=torch.float32).view(height, width, 4)[..., 0] / 255
    nine = [
        picture[i : i + side, j : j + side] for i in (0, side + 1, 2 * side + 2) for j in (0, side + 1, 2 * side + 2)
    ]
    assert (torch.stack(nine) - tops["5"].patches[0, :, 0]).abs().mean() < 0.06  # which is compressed
    assert (torch.stack(nine) - tops["5"].patches[1, :, 0]).abs().mean() > 0.1
    tab.get_by_role("switch", name="channel 0 of layer 2, some").tap()
    check([1])
    tab.get_by_label("two", exact=True).check()
    check([1], row=1)
    tab.get_by_role("button", name="some").click()
    check([0, 3, 8], row=1)
    drawn = set()
    for _ in range(4):
        tab.get_by_role("button", name="as many at random").click()
        off = [k for k, s in enumerate(switches.all()) if s.get_attribute("aria-checked") == "false"]
        assert [sum(k < 4 for k in off), len(off)] == [2, 3]  # as many of each layer
        check(off, row=1)
        drawn.add(tuple(off))
    assert len(drawn) > 1
    tab.get_by_role("button", name="all on").click()
    check([], row=1)
    assert told.get_attribute("aria-live") == "polite"
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    violations = axe.run(tab, options={"resultTypes": ["violations"]}).response["violations"]
    assert not [v["id"] for v in violations if v["impact"] in ("serious", "critical")]
    tab.context.close()
    assert not faults
