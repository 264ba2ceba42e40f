"""A live figure in Chromium, opened as a file with every request blocked."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import interp_lab as il
from interp_lab import plot
from interp_lab.data import digits
from interp_lab.live import Live, export
from interp_lab.live.page import dense_text, laboratory, page
from interp_lab.networks import load

BUILT = Path(__file__).parents[2] / "_build" / "html"
MAPS = ("saliency", "smoothgrad", "integrated_gradients", "interior_gradient", "lrp", "deeplift", "grad_cam")


@pytest.fixture(scope="module")
def figure():
    model, data = load("digits_cnn"), digits("test")
    rules = {"composite": il.lrp, "epsilon": partial(il.lrp, rule="epsilon")}
    methods = {name: il.METHODS[name] for name in ("saliency", "deeplift", "grad_cam")}
    live = export(model, methods | {f"lrp {k}": v for k, v in rules.items()}, data.images[:2], data.classes)
    return laboratory(
        live,
        {f"number {i}": data.images[i] for i in range(5)},
        name="digits",
        label="digits",
        still=plot.images(data.images[:1], alt="a digit"),
        maps=MAPS,
        variants={"LRP rule": (["lrp"], [*rules])},
        drawing=True,
        trained_form=True,
    )


def opened(browser, path: Path, faults: list, **options):
    """The page, in which every request but that for the file itself is refused and told."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    tab = context.new_page()

    def only_the_file(route):
        if route.request.url.split("#")[0] == path.as_uri():
            route.continue_()
        else:
            faults.append(f"request: {route.request.url[:100]}")
            route.abort()

    tab.route("**/*", only_the_file)
    tab.on("pageerror", lambda error: faults.append(f"script error: {error}"))
    tab.on("console", lambda m: faults.append(f"console: {m.text}") if m.type in ("error", "warning") else None)
    tab.goto(path.as_uri())
    return tab


def settled(tab, k: int = 0) -> None:
    tab.wait_for_function(f"document.querySelectorAll('.live')[{k}].dataset.state === 'settled'", timeout=60_000)


@pytest.fixture
def digits_page(browser, figure, tmp_path):
    faults: list[str] = []
    (tmp_path / "page.html").write_text(page(figure, "Digits"), encoding="utf-8")
    tab = opened(browser, tmp_path / "page.html", faults)
    settled(tab)
    yield tab
    tab.context.close()
    assert not faults


def logits_of(tab) -> torch.Tensor:
    return torch.tensor(
        [float(cell.inner_text()) for cell in tab.locator("[data-part=logits] td:nth-of-type(1)").all()]
    )


@pytest.mark.browser
def test_the_keyboard_alone_chooses_an_input_and_a_class_and_the_answer_is_told(digits_page):
    model, data = load("digits_cnn"), digits("test")
    digits_page.keyboard.press("Tab")  # the ready inputs
    for k in range(3):
        settled(digits_page)
        want = model((data.images[k : k + 1] * 255).round() / 255).detach()[0]
        assert (logits_of(digits_page) - want).abs().max() < 0.006  # two decimals
        status = digits_page.get_by_role("status")
        assert status.inner_text().startswith(f"The network reads {int(want.argmax())}")
        assert status.get_attribute("aria-live") == "polite"
        before = status.inner_text()
        digits_page.keyboard.press("ArrowRight")
        digits_page.wait_for_function("t => document.querySelector('[role=status]').textContent !== t", arg=before)
    digits_page.get_by_label("explain the class").focus()
    digits_page.keyboard.press("4")
    digits_page.wait_for_function("() => /logit of 4/.test(document.querySelector('[role=status]').textContent)")
    settled(digits_page)
    names = [c.get_attribute("aria-label") for c in digits_page.locator(".tile canvas").all()]
    assert len(names) == len(MAPS)
    assert all("sum" in name or "zero everywhere" in name for name in names)
    x = (data.images[3:4] * 255).round() / 255
    tile = digits_page.locator(".tile canvas").nth(MAPS.index("lrp"))
    for rule in ("composite", "epsilon"):
        settled(digits_page)
        said = re.search(r"sum (\S+),", tile.get_attribute("aria-label"))
        assert float(said[1]) == pytest.approx(il.lrp(model, x, 4, rule=rule).sum().item(), rel=0.01)
        digits_page.get_by_label("LRP rule").focus()
        digits_page.keyboard.press("ArrowDown")


@pytest.mark.browser
def test_the_keyboard_draws_and_erases(digits_page):
    pad = digits_page.get_by_role("application")
    pad.focus()
    digits_page.keyboard.press("Delete")
    digits_page.wait_for_function("() => /nothing to see/.test(document.querySelector('[role=status]').textContent)")
    for key in ["ArrowUp"] * 8 + [" "] + ["ArrowDown"] * 16:
        digits_page.keyboard.press(key)
    digits_page.wait_for_function("() => /reads 1 /.test(document.querySelector('[role=status]').textContent)")
    settled(digits_page)
    assert "pen down at row" in digits_page.locator("[data-part=cursor]").inner_text()
    drawn = pixels_of(digits_page, "pad").mean()
    digits_page.get_by_role("button", name="eraser").click()
    pad.focus()
    for key in ["ArrowUp"] * 6:
        digits_page.keyboard.press(key)
    assert pixels_of(digits_page, "pad").mean() < drawn
    digits_page.keyboard.press(" ")
    assert "eraser up" in digits_page.locator("[data-part=cursor]").inner_text()


def pixels_of(tab, part: str) -> torch.Tensor:
    """The red channel of a canvas."""
    read = """c => { const copy = new OffscreenCanvas(c.width, c.height).getContext("2d", { willReadFrequently: true });
      copy.drawImage(c, 0, 0); return [...copy.getImageData(0, 0, c.width, c.height).data].filter((_, i) => i % 4 === 0); }"""
    return torch.tensor(tab.locator(f"[data-part={part}]").first.evaluate(read), dtype=torch.float32)


SEVEN = [(8, 6), (20, 6), (13, 22)]


def draw(tab, points) -> None:
    box = tab.locator("[data-part=pad]").bounding_box()
    places = [(box["x"] + x / 28 * box["width"], box["y"] + y / 28 * box["height"]) for x, y in points]
    tab.mouse.move(*places[0])
    tab.mouse.down()
    for place in places[1:]:
        tab.mouse.move(*place, steps=6)
    tab.mouse.up()


@pytest.mark.browser
def test_a_seven_from_a_pen_is_read_in_the_form_of_the_training_digits(digits_page):
    digits_page.get_by_role("button", name="clear").click()
    draw(digits_page, SEVEN)
    status = digits_page.get_by_role("status")
    digits_page.wait_for_function("() => /reads 7 /.test(document.querySelector('[role=status]').textContent)")
    settled(digits_page)
    seen, drawn = pixels_of(digits_page, "seen"), pixels_of(digits_page, "pad")
    rows = seen.view(28, 28).amax(1)
    assert (rows > 30).nonzero().flatten()[[0, -1]].tolist() == [0, 27]  # as the training digits, it fills the height
    before = status.inner_text()
    digits_page.get_by_label("bring it to the form").uncheck()
    digits_page.wait_for_function("t => document.querySelector('[role=status]').textContent !== t", arg=before)
    assert torch.equal(pixels_of(digits_page, "seen"), drawn)


@pytest.mark.browser
def test_every_stroke_redraws_the_maps(digits_page):
    seen = set()
    for k in range(3):
        draw(digits_page, [(8 + 3 * k, 6), (20, 6 + 3 * k)])
        settled(digits_page)
        labels = [c.get_attribute("aria-label") for c in digits_page.locator(".tile canvas").all()]
        seen.add(tuple(labels))
        assert float(digits_page.locator(".live").get_attribute("data-milliseconds")) > 0
    assert len(seen) == 3
    assert "(50 points)" in digits_page.locator("[data-part=maps]").inner_text()


@pytest.mark.browser
def test_the_worker_leaves_an_older_input_for_a_newer_one(digits_page):
    runs = digits_page.evaluate("""() => new Promise(done => {
      const worker = new Worker(URL.createObjectURL(new Blob([`"use strict";(${liveEngine})().serve(self)`])));
      const seen = { 1: 0, 2: 0 }, tasks = [{ key: 'a', method: 'smoothgrad', n: 50, noise: 0.1 }];
      worker.onmessage = ({ data }) => { seen[data.run] += 1;
        if (data.run === 1 && seen[1] === 5) worker.postMessage({ run: 2, x: new Float32Array(784), target: 1, tasks });
        if (data.settled) { worker.terminate(); done({ ...seen, settled: data.run }); } };
      worker.postMessage({ packed: document.querySelector('[data-part=network]').textContent.trim() });
      worker.postMessage({ run: 1, x: new Float32Array(784), target: 1, tasks }); })""")
    assert runs["settled"] == 2
    assert runs["2"] > 50 > runs["1"]


@pytest.mark.browser
def test_the_loops_over_the_gradient_are_those_of_the_package(digits_page, figure):
    model, x = load("digits_cnn"), digits("test").images[:1]
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([torch.randn(x.shape[1:], generator=generator) for _ in range(8)])
    grey = torch.full_like(
        x, 0.25
    )  # where nearly all pixels are alike, rounding breaks the ties of the maximum pooling
    cases = [
        ("smoothgrad", {"n": 8, "noise": 0.2, "draws": draws.flatten().tolist()}, {"n": 8, "noise": 0.2}),
        ("integrated_gradients", {"steps": 16}, {"steps": 16}),
        ("integrated_gradients", {"steps": 16, "baseline": grey.flatten().tolist()}, {"steps": 16, "baseline": 0.25}),
        ("interior_gradient", {"alpha": 0.3, "course": True}, {"alpha": 0.3}),
    ]
    found = []
    for name, options, keywords in cases:
        want = il.METHODS[name](model, x, 3, **keywords)
        found.append(last_of(digits_page, name, x, 3, options))
        got = torch.tensor(found[-1]["map"]).view_as(x)
        assert (got - want).abs().max() <= 1e-5 * want.abs().max(), name
    # what the page tells of their course
    copies = x + 0.2 * (x.max() - x.min()) * draws
    gradients = il.saliency(model, copies, 3).flatten(1)
    error = (gradients.var(0) / len(draws)).sum().sqrt() / gradients.mean(0).norm()
    assert found[0]["error"] == pytest.approx(error.item(), rel=1e-4)
    assert found[0]["same"] == (model(copies).argmax(1) == model(x).argmax()).sum()
    for step, start in ((found[1], 0 * x), (found[2], grey)):
        ends = [model(end)[0, 3].item() for end in (start, x)]
        assert step["ends"] == pytest.approx(ends, rel=1e-5)
        assert step["sum"] == pytest.approx(sum(step["map"]), rel=1e-4)
    assert found[3]["path"][-1] == pytest.approx([1, model(x)[0, 3].item()], rel=1e-5)


def last_of(tab, name: str, x: torch.Tensor, target: int, options: dict) -> dict:
    """What a loop of the page's first network gives at its end."""
    run = """async ([x, target, name, { draws, ...options }]) => { const e = liveEngine(), normal = draws?.[Symbol.iterator]();
      if (options.baseline) options.baseline = Float32Array.from(options.baseline);
      const net = await e.unpack(document.querySelector('[data-part=network]').textContent.trim()); let last;
      for (const step of e.LOOPS[name](net, Float32Array.from(x), target, options, normal && (() => normal.next().value))) last = step;
      return { ...last, map: last.map && [...last.map], moved: last.over && [...last.input], input: null }; }"""
    return tab.evaluate(run, [x.flatten().tolist(), target, name, options])


@pytest.mark.browser
def test_the_curves_of_a_removal_are_those_of_the_package(digits_page):
    """Ties, of which these maps have many, in the package's order; and the mean colour as the fill."""
    model, x = load("digits_cnn"), digits("test").images[3:4]
    ties = torch.randperm(49, generator=torch.Generator().manual_seed(0)).tolist()
    for by, options in (("saliency", {}), ("deeplift", {}), ("interior_gradient", {"alpha": 0.5}), (None, {})):
        map_ = il.METHODS[by](model, x, 8, **options) if by else torch.zeros_like(x)
        want = il.selectivity(model, x, map_, 8, patch=4, score="probability").curve[0]
        options |= {"by": by, "patch": 4, "ties": ties}
        got = torch.tensor(last_of(digits_page, "removal", x, 8, options)["curve"])
        assert (got - want).abs().max() < 1e-5, by


@pytest.mark.browser
def test_bytes_come_back_from_their_text(digits_page):
    for count in (0, 1, 2, 3, 12, 13, 14, 1000):
        data = torch.randint(256, (count,), dtype=torch.uint8).numpy().tobytes()
        text = dense_text(data)
        assert not set(text) & set('<"\\ \n')
        assert bytes(digits_page.evaluate("text => [...liveEngine().bytesOf(text)]", text)) == data


@pytest.mark.browser
def test_what_is_erased_is_the_mean_colour_and_comes_back(browser, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 49, 3)).eval()
    scene, mask = torch.rand(3, 16, 16), torch.zeros(16, 16, dtype=torch.bool)
    mask[2:5, 3:9] = True
    figure = laboratory(
        export(model, {"saliency": il.saliency}, scene[None], "abc"),
        {"scene": scene},
        truth={"scene": mask},
        name="scene",
        label="scene",
        still=plot.images(scene[None], alt="a scene"),
        maps=["saliency"],
    )
    (tmp_path / "page.html").write_text(page(figure, "Scene"), encoding="utf-8")
    faults: list[str] = []
    tab = opened(browser, tmp_path / "page.html", faults)
    settled(tab)
    assert tab.get_by_role("img", name="true evidence of scene: 18 of 256 pixels").is_visible()
    whole = pixels_of(tab, "pad")
    assert (whole.view(16, 16) - 255 * scene[0]).abs().max() <= 0.51
    assert (logits_of(tab) - model((scene * 255).round()[None] / 255).detach()[0]).abs().max() < 0.006
    box = tab.locator("[data-part=pad]").bounding_box()
    tab.mouse.click(box["x"] + box["width"] * 8.5 / 16, box["y"] + box["height"] * 8.5 / 16)
    settled(tab)
    erased = pixels_of(tab, "pad").view(16, 16)
    assert abs(float(erased[8, 8]) - 255 * float(scene[0].mean())) < 1
    assert torch.equal(erased[0], whole.view(16, 16)[0])
    tab.get_by_role("button", name="restore").click()
    assert torch.equal(pixels_of(tab, "pad"), whole)
    tab.context.close()
    assert not faults


def random_network(classes: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 49, classes)).eval()


def opened_figure(browser, folder: Path, faults: list, **options):
    """A figure of two scenes, on a phone."""
    scenes = (torch.rand(2, 3, 16, 16) * 255).round() / 255
    if isinstance(options["live"], list):
        options["live"] = {
            f"net {k}": export(model, {"saliency": il.saliency}, scenes, "abc")
            for k, model in enumerate(options["live"])
        }
    else:
        options["live"] = export(options["live"], {"saliency": il.saliency}, scenes, "abc")
    if "switch" in options:
        options["switch"] = (options["switch"][0], options["switch"][1](scenes))
    still = plot.images(scenes[:1], alt="a scene")
    figure = laboratory(
        inputs={"one": scenes[0], "two": scenes[1]}, name="scene", label="scene", still=still, **options
    )
    (folder / "page.html").write_text(page(figure, "Scene"), encoding="utf-8")
    tab = opened(browser, folder / "page.html", faults, viewport={"width": 390, "height": 800}, has_touch=True)
    settled(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    return tab, scenes


@pytest.mark.browser
def test_the_keyboard_and_a_finger_remove_patches_and_the_curve_is_told(browser, tmp_path):
    faults, model = list[str](), random_network()
    tab, scenes = opened_figure(browser, tmp_path, faults, live=model, maps=["saliency"], removal=4)
    x, told = scenes[:1], tab.locator("[data-part=told]")
    target = int(model(x).argmax())

    def probability(*patches) -> str:
        left = x.clone()
        for row, column in patches:
            left[..., 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = x.mean((2, 3), keepdim=True)
        return f"is {model(left).softmax(1)[0, target]:.2f}"

    assert probability() in told.inner_text()
    tab.get_by_role("application").focus()
    tab.keyboard.press(" ")  # at the middle: row 3, column 3 of the patches
    tab.keyboard.press("ArrowLeft")
    told.get_by_text("With the 2 patches").wait_for()
    settled(tab)
    assert probability((2, 2), (2, 1)) in told.inner_text()
    order = il.selectivity(model, x, il.saliency(model, x), patch=4, score="probability", beside=["random"])
    assert f"at random {order.random.curve[0, 2]:.2f}, saliency {order.curve[0, 2]:.2f}" in told.inner_text()
    box = tab.get_by_role("application").bounding_box()
    tab.touchscreen.tap(box["x"] + box["width"] / 8, box["y"] + box["height"] * 7 / 8)
    told.get_by_text("With the 3 patches").wait_for()
    assert probability((2, 2), (2, 1), (3, 0)) in told.inner_text()
    assert tab.locator("[data-part=course] svg").get_attribute("aria-label") == told.inner_text()
    assert told.get_attribute("aria-live") == "polite"
    tab.get_by_role("button", name="restore").click()
    told.get_by_text("Nothing is removed").wait_for()
    tab.context.close()
    assert not faults


@pytest.mark.browser
def test_a_switch_puts_pixels_on_for_two_networks_and_takes_them_off(browser, tmp_path):
    def marked(images):
        images = images.clone()
        images[..., 10:13, 10:13] = 1.0
        return images

    faults, models = list[str](), [random_network(), random_network()]
    place = torch.zeros(16, 16, dtype=torch.bool)
    place[10:13, 10:13] = True
    tab, scenes = opened_figure(
        browser, tmp_path, faults, live=models, maps=["saliency"], switch=("the mark", marked),
        truth={"one": place, "two": place}, truth_name="the place",
    )  # fmt: skip

    def check(x: torch.Tensor) -> None:
        settled(tab)
        logits = torch.stack([model(x[None])[0] for model in models], 1).detach()
        cells = [
            [float(c) for c in row.inner_text().split()[1::3][:2]] for row in tab.locator("[data-part=logits] tr").all()
        ]
        assert (torch.tensor(cells) - logits).abs().max() < 0.006
        tab.locator("details").first.evaluate("d => { d.open = true }")
        rows = tab.locator("[data-part=numbers] tr").all()
        for row, model in zip(rows, models, strict=True):
            map_ = il.saliency(model, x[None])
            hit = "hit" if il.pointing_game(map_, place[None]) else "miss"
            inside = il.relevance_mass(map_.sum(1).abs(), place[None]).item()
            assert row.locator("td").all_inner_texts()[-2:] == [hit, f"{100 * inside:.0f}\u00a0%"]

    check(scenes[0])
    tab.keyboard.press("Tab")
    tab.get_by_label("the mark", exact=True).focus()
    tab.keyboard.press(" ")
    check(marked(scenes)[0])
    assert torch.equal(pixels_of(tab, "pad").view(16, 16), (255 * marked(scenes)[0, 0]).round())
    tab.get_by_label("two", exact=True).check()
    check(marked(scenes)[1])
    tab.get_by_label("the mark", exact=True).focus()
    tab.keyboard.press(" ")
    check(scenes[1])
    assert torch.equal(pixels_of(tab, "pad").view(16, 16), (255 * scenes[1, 0]).round())
    tab.context.close()
    assert not faults


@pytest.mark.browser
def test_sliders_and_a_choice_of_baseline_change_the_course_of_a_loop(browser, tmp_path):
    faults, model = list[str](), random_network()
    white = torch.ones(2, 3, 16, 16)
    tab, scenes = opened_figure(
        browser, tmp_path, faults, live=model, maps=["integrated_gradients"], course="integrated_gradients",
        baselines={"black": 0 * white, "white": white},
    )  # fmt: skip
    told, target = tab.locator("[data-part=told]"), int(model(scenes[:1]).argmax())
    for start in (0 * white[:1], white[:1]):
        settled(tab)
        ends = [model(end)[0, target].item() for end in (start, scenes[:1])]
        assert f"is {ends[0]:.1f} at the baseline and {ends[1]:.1f} at the input" in told.inner_text()
        tab.locator("[data-option=baseline]").focus()
        tab.keyboard.press("ArrowDown")
    settled(tab)
    steps = tab.get_by_label("integrated gradients: steps")
    assert steps.get_attribute("aria-valuetext") == "16"
    steps.focus()
    tab.keyboard.press("Home")
    settled(tab)
    assert steps.get_attribute("aria-valuetext") == "1"
    want = il.integrated_gradients(model, scenes[:1], target, baseline=1.0, steps=1).sum().item()
    assert f"The map sums to {want:.1f}," in told.inner_text()
    tab.context.close()
    assert not faults


class Bright(nn.Module):
    """Another function on bright images than on dark ones, so that its recording holds for one kind alone."""

    def forward(self, x):
        return x.flatten(1)[:, :3] * (2.0 if bool(x.mean() > 0.5) else 3.0)


@pytest.mark.browser
@pytest.mark.parametrize(
    "options", [{"maps": ["saliency", "smoothgrad"], "course": "smoothgrad"}, {"maps": ["saliency"], "removal": 4}]
)
def test_an_input_for_which_no_graph_holds_is_told_and_nothing_is_drawn(browser, tmp_path, options):
    dark = 0.2 * torch.rand(1, 8, 8)
    bright = 0.8 + dark
    live = export(Bright(), {"saliency": il.saliency}, dark[None].expand(2, -1, -1, -1), "abc")
    figure = laboratory(
        live, {"dark": dark, "bright": bright, "dark again": dark / 2}, name="a", label="a",
        still=plot.images(dark[None], alt="a"), **options,
    )  # fmt: skip
    (tmp_path / "page.html").write_text(page(figure, "Bright"), encoding="utf-8")
    tab = opened(browser, tmp_path / "page.html", faults := [])
    for k, holds in enumerate((True, False, True)):
        tab.locator("input[type=radio]").nth(k).check()
        settled(tab)
        assert ("has no answer here" in tab.locator("[data-part=answer]").inner_text()) is not holds
        assert (tab.locator("[data-part=course] svg > *").count() > 5) is holds
        for tile in tab.locator(".tile canvas").all()[-len(options["maps"]) :]:
            assert ("no map" in tile.get_attribute("aria-label")) is not holds
    tab.context.close()
    assert not faults


@pytest.mark.browser
def test_a_drawing_among_the_inputs_is_brought_to_the_form_by_the_switch(browser, figure, tmp_path):
    model, data = load("digits_cnn"), digits("test")
    seven = torch.zeros(1, 28, 28)
    seven[:, 5:8, 5:21] = 1
    seven[:, 8:23, 17:20] = 1
    live = export(model, {"saliency": il.saliency}, data.images[:2], data.classes)
    drawn = laboratory(
        live, {"drawn": seven, "given": data.images[0]}, name="a", label="a", still=plot.images(seven[None], alt="a seven"),
        maps=["saliency"], drawing=True, trained_form=True, by_hand=["drawn"], start={"form": 0},
    )  # fmt: skip
    (tmp_path / "page.html").write_text(page(drawn, "Seven"), encoding="utf-8")
    tab = opened(browser, tmp_path / "page.html", faults := [])
    settled(tab)
    assert torch.equal(pixels_of(tab, "seen"), pixels_of(tab, "pad"))
    tab.get_by_label("bring it").check()
    settled(tab)
    assert (pixels_of(tab, "seen").view(28, 28).amax(1) > 30).all()  # the height is filled
    tab.get_by_label("given").check()
    settled(tab)
    assert torch.equal(pixels_of(tab, "seen"), pixels_of(tab, "pad"))  # it has that form already
    tab.context.close()
    assert not faults


@pytest.mark.browser
def test_without_scripts_and_on_paper_the_still_picture_stands(browser, figure, tmp_path):
    (tmp_path / "page.html").write_text(page(figure, "Digits"), encoding="utf-8")
    faults: list[str] = []
    tab = opened(browser, tmp_path / "page.html", faults, java_script_enabled=False)
    assert tab.get_by_role("img", name="a digit").is_visible()
    assert not tab.locator("[data-part=panel]").is_visible()
    tab.context.close()
    tab = opened(browser, tmp_path / "page.html", faults)
    settled(tab)
    assert tab.get_by_role("img", name="a digit").bounding_box()["width"] > 0  # for a screen reader
    old = browser.new_context()
    old.add_init_script("delete window.DecompressionStream")
    before = old.new_page()
    before.goto((tmp_path / "page.html").as_uri())
    assert before.get_by_role("img", name="a digit").bounding_box()["width"] > 20
    assert not before.locator("[data-part=panel]").is_visible()
    old.close()
    tab.emulate_media(media="print")
    assert tab.locator(".live-still").bounding_box()["width"] > 100
    assert not tab.locator("[data-part=panel]").is_visible()
    tab.context.close()
    assert not faults


@pytest.mark.browser
@pytest.mark.skipif(not BUILT.exists(), reason="no built site: run `make book` (or `python book/build.py`) first")
def test_every_figure_of_the_built_site_is_live_from_a_file(browser):
    faults, figures = list[str](), 0
    tab = browser.new_page(viewport={"width": 390, "height": 844})

    def note(request):
        if not request.url.startswith(("file:", "blob:", "data:")):
            faults.append(f"request: {request.url[:80]}")

    tab.on("request", note)
    tab.on("pageerror", lambda error: faults.append(f"script error: {error}"))
    tab.on("console", lambda m: faults.append(f"console: {m.text}") if m.type == "error" else None)
    for path in BUILT.rglob("*.html"):
        grown = re.findall(r'<div class="live".*?</script>\n</div>', path.read_text(encoding="utf-8"), re.DOTALL)
        assert all(len(figure) < 450_000 for figure in grown), path
        if not grown:
            continue
        tab.goto(path.as_uri())
        for button in tab.locator("[data-part=load] button").all():  # a large network in a file beside the page
            button.click()
        tab.wait_for_function(
            "[...document.querySelectorAll('.live')].every(f => f.dataset.milliseconds)", timeout=60_000
        )
        for shown in tab.locator(".live").all():
            assert shown.locator("[data-part=answer]").inner_text(), path
            assert shown.locator(".tile canvas:not([aria-label*='not computed'])").count(), path
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390, path
        figures += len(grown)
    tab.close()
    assert figures >= 14
    assert not faults
    assert sum(path.stat().st_size for path in BUILT.rglob("*") if path.is_file()) < 80e6


def test_a_figure_refuses_what_it_cannot_show(figure):
    model, data = load("digits_cnn"), digits("test")
    live = export(model, {"saliency": il.saliency}, data.images[:2], data.classes)
    still = plot.images(data.images[:1], alt="a digit")
    common = {"name": "a", "label": "a", "still": still}
    with pytest.raises(ValueError, match="no recording of 'deeplift'"):
        laboratory(live, {"a": data.images[0]}, maps=["deeplift"], **common)
    with pytest.raises(ValueError, match="must be an image"):
        laboratory(live, {"a": data.images[0] - 1}, maps=["saliency"], **common)
    given = {"live": live, "inputs": {"a": data.images[0]}, "maps": ["saliency"], **common}
    for wrong, message in (
        ({"maps": ["integrated_gradients"], "baselines": {"far": data.images[:1] + 1}}, "'a, far' must be an image"),
        ({"switch": ("on", data.images[:1, :, 1:])}, "'a, on' must be an image"),
        ({"course": "smoothgrad"}, "among the maps"),
        ({"live": {"a": live, "b": live}, "removal": 4}, "of one network"),
        ({"live": {"a": live, "b": Live((1, 1, 9, 9), live.classes)}}, "same shape of input"),
        ({"drawing": True, "removal": 4}, "without a pen"),
        ({"baselines": {"black": data.images[:1]}}, "are for the map 'integrated_gradients'"),
        ({"by_hand": ["b"]}, "names no inputs: b"),
        ({"photographs": True, "drawing": True}, "only looks at or erases"),
        ({"start": {"noise": 0.1}}, "no options of this figure: noise"),
        ({"maps": ["smoothgrad"], "start": {"noise": 0.12}}, "noise must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            laboratory(**(given | wrong))
    facts = re.search(r'data-part="facts">(.*?)</script>', figure.html)
    assert json.loads(facts[1])["classes"] == list(data.classes)
