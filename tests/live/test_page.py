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
from interp_lab.live import export
from interp_lab.live.page import laboratory, page
from interp_lab.networks import load

BUILT = Path(__file__).parents[2] / "_build" / "html" / "book" / "laboratory.html"
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
        rules={name: f"lrp {name}" for name in rules},
        drawing=True,
        trained_form=True,
    )


def opened(browser, path: Path, faults: list, **options):
    """The page, in which every request but that for the file itself is refused and told."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
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
    return torch.tensor(tab.locator(f"[data-part={part}]").evaluate(read), dtype=torch.float32)


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
    run = """([x, target, name, options]) => { const e = liveEngine(); const draws = options.draws?.[Symbol.iterator]();
      let last; for (const map of e.LOOPS[name](window.net, Float32Array.from(x), target, options, draws && (() => draws.next().value))) last = map;
      return [...last]; }"""
    digits_page.evaluate("""async () => { const packed = document.querySelector('[data-part=network]').textContent.trim();
      const stream = new Blob([Uint8Array.from(atob(packed), c => c.charCodeAt(0))]).stream().pipeThrough(new DecompressionStream('gzip'));
      window.net = new (liveEngine().Network)(JSON.parse(await new Response(stream).text())); }""")
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randn(x.shape[1:], generator=generator) for _ in range(8)]
    cases = [
        ("smoothgrad", {"n": 8, "noise": 0.2, "draws": torch.stack(draws).flatten().tolist()}, {"n": 8, "noise": 0.2}),
        ("integrated_gradients", {"steps": 16}, {"steps": 16}),
        ("interior_gradient", {"alpha": 0.3}, {"alpha": 0.3}),
    ]
    for name, options, keywords in cases:
        want = il.METHODS[name](model, x, 3, **keywords)
        got = torch.tensor(digits_page.evaluate(run, [x.flatten().tolist(), 3, name, options])).view_as(x)
        assert (got - want).abs().max() <= 1e-5 * want.abs().max(), name


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
def test_every_figure_of_the_built_page_is_live(browser):
    faults: list[str] = []
    context = browser.new_context()
    tab = context.new_page()
    tab.on("request", lambda r: None if r.url.startswith("file:") else faults.append(f"request: {r.url[:80]}"))
    tab.on("pageerror", lambda error: faults.append(f"script error: {error}"))
    tab.goto(BUILT.as_uri())
    for k in range(tab.locator(".live").count()):
        settled(tab, k)
    assert tab.locator(".live").count() == 2
    context.close()
    assert not [fault for fault in faults if not fault.startswith("request: blob:")]
    text = BUILT.read_text(encoding="utf-8")
    assert sum(map(len, re.findall(r'<div class="live".*?</script>\n</div>', text, re.DOTALL))) < 450_000


def test_a_figure_refuses_what_it_cannot_show(figure):
    model, data = load("digits_cnn"), digits("test")
    live = export(model, {"saliency": il.saliency}, data.images[:2], data.classes)
    still = plot.images(data.images[:1], alt="a digit")
    common = {"name": "a", "label": "a", "still": still}
    with pytest.raises(ValueError, match="no recording of 'deeplift'"):
        laboratory(live, {"a": data.images[0]}, maps=["deeplift"], **common)
    with pytest.raises(ValueError, match="must be an image"):
        laboratory(live, {"a": data.images[0] - 1}, maps=["saliency"], **common)
    facts = re.search(r'data-part="facts">(.*?)</script>', figure.html)
    assert json.loads(facts[1])["classes"] == list(data.classes)
