"""The ascent of the page, against maximize_activation."""

import pytest
import torch
from test_page import opened, settled

import interp_lab as il
from interp_lab import plot
from interp_lab.data import digits
from interp_lab.live import export
from interp_lab.live.page import laboratory, page
from interp_lab.networks import load


@pytest.mark.browser
def test_the_ascent_is_that_of_the_package_and_its_end_is_told(browser, tmp_path):
    model, data = load("digits_mlp"), digits("test")
    images = (data.images[:20] * 255).round() / 255
    figure = laboratory(
        export(model, {"saliency": il.saliency}, images[:2], data.classes),
        {"one": images[0], "two": images[1]}, name="a", label="a", still=plot.images(images[:1], alt="a"),
        maps=["ascent"], course="ascent", drawing=True,
    )  # fmt: skip
    (tmp_path / "page.html").write_text(page(figure, "Ascent"), encoding="utf-8")
    tab = opened(browser, tmp_path / "page.html", faults := [], viewport={"width": 390, "height": 800})
    run = """async ([x, target, options]) => { const e = liveEngine(), net = await e.unpack(document.querySelector('[data-part=network]').textContent.trim());
      return [...e.LOOPS.ascent(net, Float32Array.from(x), target, options)].map(s => ({ input: [...s.input], logit: s.logit })); }"""
    starts = images.clone()
    starts[1::2] = torch.rand(starts[1::2].shape)  # no ties, of which the total variation takes one side or the other
    for k, x in enumerate(starts):  # few steps: where rounding turns the sign of a slope near 0, Adam's steps part
        l2, variation, rounds = (0.0, 0.05, 0.2)[k % 3], (0.0, 0.1)[k % 2], 4
        want = il.maximize_activation(
            model, k % 10, x[None], objective="logit", l2=l2, bounds=(0, 1), steps=rounds, lr=0.05,
            regularisers=[lambda v: variation * il.total_variation(v)],  # noqa: B023
        )  # fmt: skip
        options = {"l2": l2, "variation": variation, "rate": 0.05, "rounds": rounds}
        steps = tab.evaluate(run, [x.flatten().tolist(), k % 10, options])
        assert len(steps) == rounds + 1
        off = (torch.tensor(steps[-1]["input"]).view_as(x) - want.x[0]).abs()
        assert (off <= 1e-5).float().mean() > 0.99, (k, off.max())
        assert abs(steps[-1]["logit"] - model(want.x)[0, k % 10].item()) < 1e-2
    told = tab.locator("[data-part=told]")
    settled(tab)
    assert told.inner_text().startswith("After the ascent the logit is")
    free = told.inner_text()
    tab.get_by_label("weight of the total variation").focus()
    tab.keyboard.press("End")
    settled(tab)
    assert told.inner_text().startswith("After the ascent the logit is")
    assert told.inner_text() != free
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    tab.context.close()
    assert not faults
