"""Objects that the reader puts onto a scene: drawn as the package draws them, and the figure around them."""

import json
import math
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from test_live import ENGINE
from test_page import logits_of, opened, settled

import interp_lab as il
from interp_lab import plot
from interp_lab.data import drawn_scenes, scenes
from interp_lab.live import export
from interp_lab.live.page import laboratory, page
from interp_lab.networks import load

SIZE, ROW, COLUMN = 64, 30.0, 37.0


def test_the_page_draws_the_shapes_and_colours_of_the_package():
    if shutil.which("node") is None:
        pytest.skip("needs node to run scenes.js outside a browser")
    run = f"""const s = require({str(ENGINE.with_name("scenes.js"))!r}), out = {{}};
      for (const shape of Object.keys(s.SHAPES)) {{ const image = new Float32Array(3 * {SIZE}**2).fill(0.2);
        const mask = s.object(image, {SIZE}, {{ shape, hue: 0.35, row: {ROW}, column: {COLUMN} }}); out[shape] = [[...mask], [...image]]; }}
      console.log(JSON.stringify(out));"""
    found = json.loads(subprocess.run(["node", "-e", run], capture_output=True, text=True, check=True).stdout)
    assert tuple(found) == drawn_scenes.SHAPES
    scale, place = torch.tensor([0.27 * SIZE]), torch.tensor([[COLUMN, ROW]])
    u, v = drawn_scenes._frame(SIZE, place, torch.zeros(1))
    colour = drawn_scenes._rgb(torch.tensor([0.35]), torch.tensor([0.8]), torch.tensor([0.55]))[..., None, None]
    light = 1 + 0.25 * (v - u) / math.sqrt(2) / (drawn_scenes.REACH * scale)
    for number, (mask, image) in enumerate(found.values()):
        distance = drawn_scenes._distance(torch.tensor([number]), u, v, scale)
        alpha = (0.5 - distance).clamp(0, 1)[:, None]
        want = 0.2 + alpha * ((colour * light).clamp(0, 1) - 0.2)
        assert (torch.tensor(image).view(1, 3, SIZE, SIZE) - want).abs().max() < 2e-5
        differs = torch.tensor(mask).view(1, SIZE, SIZE).bool() != (distance < 0.5)
        assert (distance[differs] - 0.5).abs().max() < 1e-4 if differs.any() else True


@pytest.mark.browser
def test_an_object_is_put_on_moved_and_told_by_keyboard_on_a_phone(browser, tmp_path: Path):
    model, empty = load("scenes_cnn"), scenes(4, seed=3, draw_object=False).images[3]
    classes = list(drawn_scenes.SHAPES)
    figure = laboratory(
        export(model, {"saliency": il.saliency}, scenes(2, seed=3).images, classes),
        {"empty": empty}, truth={"empty": torch.zeros(64, 64)}, name="a", label="a",
        still=plot.images(empty[None], alt="a scene"), maps=["saliency"], shapes=classes,
    )  # fmt: skip
    (tmp_path / "page.html").write_text(page(figure, "Scene"), encoding="utf-8")
    tab = opened(browser, tmp_path / "page.html", faults := [], viewport={"width": 390, "height": 800}, has_touch=True)
    settled(tab)
    evidence = tab.get_by_role("img", name="true evidence")
    assert "0 of 4096 pixels" in evidence.get_attribute("aria-label")
    before = logits_of(tab)
    tab.get_by_label("put on").focus()
    tab.keyboard.press("c")  # cross, then crescent
    tab.get_by_role("status").get_by_text("reads cross").wait_for()
    settled(tab)
    area = int(evidence.get_attribute("aria-label").split(": ")[1].split(" of")[0])
    assert 200 < area < 460  # 0.27 of the width, squared: 299, and the edge
    tab.get_by_role("application").focus()
    centred = logits_of(tab)
    tab.keyboard.press("Space")
    for _ in range(5):
        tab.keyboard.press("ArrowLeft")
    settled(tab)
    assert "object down at row" in tab.locator("[data-part=cursor]").inner_text()
    assert not torch.equal(logits_of(tab), centred)
    assert tab.get_by_role("status").inner_text().startswith("The network reads cross")
    clear = logits_of(tab)
    tab.get_by_label("more clutter").focus()
    tab.keyboard.press("End")
    settled(tab)
    assert not torch.equal(logits_of(tab), clear)
    tab.keyboard.press("Home")
    tab.get_by_label("put on").select_option("")
    settled(tab)
    assert torch.equal(logits_of(tab), before)
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    tab.context.close()
    assert not faults


def test_objects_are_for_square_images_in_colour():
    x = torch.rand(2, 1, 8, 8)
    live = export(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2)).eval(), {}, x, "ab")
    with pytest.raises(ValueError, match="square images in colour"):
        laboratory(live, {"a": x[0]}, name="a", label="a", still=plot.images(x, alt="a"), maps=[], shapes=["disc"])
