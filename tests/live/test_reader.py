"""What readers do that nobody planned, and servers that forbid what a page may do: an answer or a sentence, never a dead figure."""

import io

import pytest
import torch
from PIL import Image
from test_page import logits_of, opened, pixels_of, settled
from torch import nn

import interp_lab as il
from interp_lab import plot
from interp_lab.live import export
from interp_lab.live.page import laboratory, page

SCENES = (torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 255).round() / 255


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 196, 5)).eval()


def figure(name: str = "scene", **options):
    live = export(small_network(), {"saliency": il.saliency, "lrp": il.lrp}, SCENES, "abcde")
    inputs, still = dict(zip(("one", "two"), SCENES, strict=True)), plot.images(SCENES[:1], alt="a scene")
    return laboratory(
        live, inputs, name=name, label=name, still=still, maps=["saliency", "smoothgrad", "lrp"], **options
    )


@pytest.fixture
def tab(browser, tmp_path, request):
    """A page with the figure, and perhaps with more in its head or body; nothing may fail in it."""
    text, options = page(figure(photographs=True), "Scene"), getattr(request, "param", {})
    text = text.replace("<head>", "<head>" + options.get("head", ""))
    if options.get("two"):
        text = text.replace("</main>", figure("another", scripts=False).html + "</main>")
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    tab = opened(browser, tmp_path / "page.html", faults := [], has_touch=True)
    tab.get_by_role("button", name="Load the network").click()
    yield tab
    tab.context.close()
    assert not [fault for fault in faults if not ("head" in options and "Content Security Policy" in fault)]


def policy(images: str) -> dict[str, str]:
    """A page that may run its own scripts, and neither code from text, nor WebAssembly, nor a Worker."""
    rules = f"default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src {images}"
    return {"head": f'<meta http-equiv="Content-Security-Policy" content="{rules}">'}


@pytest.mark.browser
@pytest.mark.parametrize("tab", [policy("data:")], indirect=True)
def test_a_strict_security_policy_costs_no_answer(tab):
    tab.locator(".live[data-state=settled]").wait_for()  # Playwright's own waiting is code from text
    assert not tab.evaluate("liveEngine().hasWasm")
    assert (logits_of(tab) - small_network()(SCENES[:1]).detach()[0]).abs().max() < 0.006
    assert all("sum" in tile.get_attribute("aria-label") for tile in tab.locator(".tile canvas").all())


@pytest.mark.browser
@pytest.mark.parametrize("tab", [policy("'none'")], indirect=True)
def test_a_policy_that_forbids_the_pictures_is_told(tab):
    tab.get_by_role("status").filter(has_text="cannot come alive here").wait_for()


def file_of(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    picture.save(file := io.BytesIO(), kind, **options)
    return file.getvalue()


@pytest.mark.browser
def test_a_file_of_any_kind_gets_an_answer_or_a_sentence(tab):
    red = Image.new("RGB", (30, 30), "red")
    files = {
        "dot.png": file_of(Image.new("RGB", (1, 1), "red")),
        "strip.png": file_of(Image.new("RGB", (8000, 20), "red")),
        "moving.gif": file_of(red, "GIF", save_all=True, append_images=[Image.new("RGB", (30, 30), "blue")]),
        "clear.png": file_of(Image.new("RGBA", (40, 20), (0, 0, 0, 0))),
        "broken.png": file_of(red)[:60],
        "empty.jpg": b"",
        "drawn.svg": b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><rect width="9" height="9" fill="red"/></svg>',
    }
    settled(tab)
    for name, content in files.items():
        before = tab.get_by_role("radio", name="yours").count()
        tab.locator("input[type=file]").set_input_files(
            {"name": name, "mimeType": "image/" + name[-3:], "buffer": content}
        )
        if name.split(".")[0] in ("broken", "empty", "drawn"):
            tab.get_by_role("status").filter(has_text=f"{name} is no picture that this browser can read").wait_for()
            continue
        tab.wait_for_function("n => document.querySelectorAll('[data-input]').length === n", arg=before + 3)
        settled(tab)
        x = torch.ones(1, 3, 16, 16)
        if name != "clear.png":
            x[:, 1:] = 0
        assert (pixels_of(tab, "pad") == 255).all()
        assert (logits_of(tab) - small_network()(x).detach()[0]).abs().max() < 0.05, name
        assert tab.get_by_role("status").inner_text()


@pytest.mark.browser
def test_only_the_first_of_two_fingers_erases(tab):
    settled(tab)
    box, session = tab.locator("[data-part=pad]").bounding_box(), tab.context.new_cdp_session(tab)

    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [
            {"x": box["x"] + box["width"] * x, "y": box["y"] + box["height"] * y, "id": k}
            for k, (x, y) in enumerate(places)
        ]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (0.1, 0.1))
    touch("touchStart", (0.1, 0.1), (0.9, 0.9))
    for k in range(3):
        touch("touchMove", (0.1 + 0.2 * k, 0.1), (0.9, 0.9 - 0.1 * k))
    touch("touchEnd")
    settled(tab)
    changed = (pixels_of(tab, "pad").view(16, 16) - 255 * SCENES[0, 0]).abs() > 1
    assert changed[:2, :8].any()
    assert not changed[5:].any()


@pytest.mark.browser
@pytest.mark.parametrize("tab", [{"two": True}], indirect=True)
def test_a_hasty_reader_gets_the_last_answer_that_he_asked_for(tab):
    """Two figures at once, classes switched faster than they are explained, the window resized, all erased and brought back."""
    settled(tab)
    for k in (*range(5), 3, 1, 4, 2):
        for select in tab.get_by_label("explain the class").all():
            select.select_option(str(k))
        tab.set_viewport_size({"width": 320 + 90 * k, "height": 500})
    for k in range(2):
        settled(tab, k)
    for told in tab.locator("[data-part=answer]").all_inner_texts():
        assert "explain the logit of c," in told
    box = tab.locator("[data-part=pad]").first.bounding_box()
    tab.mouse.move(box["x"] + 1, box["y"] + 1)
    tab.mouse.down()
    for row in [*range(16)] * 2:
        for column in (0.5, 15.5):
            tab.mouse.move(box["x"] + box["width"] * column / 16, box["y"] + box["height"] * (row + 0.5) / 16)
    tab.mouse.up()
    settled(tab)
    assert pixels_of(tab, "pad").std() < 2
    assert "sum" in tab.locator(".tile canvas").first.get_attribute("aria-label")
    tab.get_by_role("button", name="restore").first.click()
    settled(tab)
    assert torch.equal(pixels_of(tab, "pad").view(16, 16), (255 * SCENES[0, 0]).round())
