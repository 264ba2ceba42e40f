"""Every page of the built site, opened in headless Chromium from a local server that nothing may leave.

`problems` does the checking; the negative controls show that it finds each fault in a page that has it.
"""

import functools
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from interp_lab import plot

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright (extra `test`)")
axe_playwright = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")

SITE = Path(__file__).parents[2] / "_build" / "html"
NAMES = [p.relative_to(SITE).as_posix() for p in SITE.rglob("*.html")]
SOURCES = "_modules/interp_lab/explain_decision/"  # two of the pages that show a module, which are all alike
PAGES = sorted(
    [name for name in NAMES if name[0] != "_" and name != "index.html"]
    + [name for name in NAMES if name in (f"{SOURCES}grad_cam.html", f"{SOURCES}deeplift.html")]
)
VIEWS = {  # colour scheme and width, with axe's rules; the second view is that of a reader who turned day into night and desktop into phone
    ("light", 1366): None,
    ("dark", 390): ["color-contrast", "link-in-text-block", "scrollable-region-focusable"],
}

# Runs in the page: faults that a reader would see, one line each. JPEG noise aside, a picture of one colour is blank.
READER_CHECKS = """async () => {
  const found = [];
  for (const img of document.images) {
    const name = img.src.slice(0, 100), alt = img.getAttribute("alt");
    if (!alt?.trim()) found.push(`picture without alt text: ${name}`);
    else if (/\\.(png|jpe?g|svg|gif|webp)$/i.test(alt.trim())) found.push(`alt text is a file name: ${alt}`);
    try { await img.decode(); } catch { found.push(`picture cannot be decoded: ${name}`); continue; }
    const canvas = document.createElement("canvas");
    canvas.width = Math.min(img.naturalWidth || 64, 512);
    canvas.height = Math.min(img.naturalHeight || 64, 512);
    const context = canvas.getContext("2d");
    context.drawImage(img, 0, 0, canvas.width, canvas.height);
    const pixels = new Uint32Array(context.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
    if (pixels.every(p => p === pixels[0])) found.push(`blank picture: ${name}`);
  }
  const formulas = [...document.querySelectorAll(".math")];
  if (formulas.length) await window.MathJax?.startup?.promise;
  for (const formula of formulas)
    if (!formula.querySelector("mjx-container")) found.push(`formula not rendered: ${formula.textContent}`);
  for (const error of document.querySelectorAll("mjx-merror, [data-mml-node='merror']"))
    found.push(`formula with an error: ${error.parentElement.textContent}`);
  return found;
}"""
OVERFLOW = """() => {
  const found = [], root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) {
    const wide = [...document.querySelectorAll("main *, body > *")].filter(
      e => e.getBoundingClientRect().right > root.clientWidth + 1);
    const names = wide.slice(-3).map(e => `${e.tagName.toLowerCase()}.${e.className}`);
    found.push(`scrolls sideways: ${root.scrollWidth} px on ${root.clientWidth} px (${names.join(", ")})`);
  }
  return found;
}"""


# The theme lets the keyboard into what scrolls, .3 s after a page or its width has changed.
FOCUSABLE = """[...document.querySelectorAll('pre, .cell_output > .output, .pst-scrollable-table-container')].every(
  e => e.tabIndex === 0 || (e.scrollWidth <= e.clientWidth && e.scrollHeight <= e.clientHeight))"""

# axe takes seconds a page for the contrast of every text; of those that look alike, on any page of a view, one is enough.
NEW_LOOKS = """seen => {
  const known = new Set(seen), looks = new Map(), fresh = [];
  for (const judged of document.querySelectorAll("[data-look]")) delete judged.dataset.look;
  const look = e => {
    if (!e) return "";
    if (!looks.has(e)) {
      const { color, backgroundColor, opacity, fontSize, fontWeight } = getComputedStyle(e);
      const own = [e.tagName, e.className, e.getAttribute("style"), color, backgroundColor, opacity, fontSize, fontWeight];
      looks.set(e, `${look(e.parentElement)}<${own.join(" ")}`);
    }
    return looks.get(e);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode, words = text.data.trim();
    if (words.length < 2) continue;  // axe does not judge a single letter
    const its = look(text.parentElement);
    if (!known.has(its) && text.parentElement.checkVisibility()) {
      known.add(its);
      fresh.push(its);
      text.parentElement.dataset.look = "new";
    }
  }
  return fresh;
}"""
OF_NEW_LOOKS = (
    ";axe.configure({ rules: [{ id: 'color-contrast', selector: '[data-look], input, select, textarea' }] });"
)


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="session")
def serve() -> Iterator:
    """A function from a folder to the address that serves it."""
    servers = []

    @functools.cache
    def start(folder: Path) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_QuietHandler, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def reader(browser) -> Iterator:
    """A reader, who keeps what pages share in the cache."""
    context = browser.new_context(reduced_motion="reduce")
    yield context
    context.close()


def axe(page, rules: list[str] | None = None) -> list[str]:
    """What axe finds serious or worse by the rules, all by default; contrast where a look is new."""
    # preload would fetch the style sheets again, their @import from a wrong address
    options = {"resultTypes": ["violations"], "preload": False} | ({"runOnly": rules} if rules else {})
    judge = axe_playwright.Axe(axe_playwright.Axe().axe_script + OF_NEW_LOOKS)
    return [
        f"axe {violation['impact']} {violation['id']}: {violation['nodes'][0]['html'][:200]}"
        for violation in judge.run(page, options=options).response["violations"]
        if violation["impact"] in ("serious", "critical")
    ]


LOOKS: dict[str, set[str]] = {scheme: set() for scheme, _ in VIEWS}  # of texts whose contrast is known


def of_sliders(page) -> list[str]:
    """The sliders of a page that do not move their pictures; for those of live figures see tests/live."""
    found = []
    picture = "s => [...s.closest('figure').querySelectorAll('img')].filter(i => i.offsetHeight).map(i => i.src)"
    for k, slider in enumerate(page.locator("figure input[type=range]").all()):
        before = slider.evaluate(picture)
        slider.press("End" if slider.input_value() != slider.get_attribute("max") else "Home")
        if len(before) != 1 or slider.evaluate(picture) == before:
            found.append(f"slider does not move its picture: number {k + 1}")
    return found


def problems(reader, origin: str, page_name: str, looks: dict[str, set[str]]) -> list[str]:
    """What is wrong with a page in all views for a reader (a context of the browser): script, network, reader and axe faults."""
    found = []
    page = reader.new_page()

    def only_local(route):
        if route.request.url.startswith(origin):
            route.continue_()
        else:
            found.append(f"foreign request: {route.request.url}")
            route.abort()

    page.route("**/*", only_local)
    page.on("pageerror", lambda error: found.append(f"script error: {error}"))
    page.on(
        "console",
        lambda m: found.append(f"console {m.type}: {m.text}") if m.type in ("error", "warning") else None,
    )
    page.on("response", lambda r: found.append(f"status {r.status}: {r.url}") if r.status >= 400 else None)
    page.goto(f"{origin}/{page_name}")
    if (uncover := page.get_by_role("button", name="Show all results")).count():
        uncover.first.click()
    found += page.evaluate(READER_CHECKS) + of_sliders(page)
    for (scheme, width), rules in VIEWS.items():
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 844})
        page.wait_for_function(FOCUSABLE)
        found += page.evaluate(OVERFLOW)
        looks[scheme].update(page.evaluate(NEW_LOOKS, list(looks[scheme])))
        found += axe(page, rules)
    page.wait_for_load_state("networkidle")  # whatever a script fetches late; by now it mostly has been idle
    page.close()
    return found


@pytest.mark.browser
@pytest.mark.parametrize("page_name", PAGES or [None])
def test_page_is_sound(page_name, reader, serve):
    if page_name is None:
        pytest.skip("no built site: run `make book` (or `python book/build.py`) first")
    found = problems(reader, serve(SITE), page_name, LOOKS)
    assert not found, "\n".join(found)


@pytest.mark.browser
@pytest.mark.skipif(not PAGES, reason="no built site: run `make book` (or `python book/build.py`) first")
def test_the_site_opens_with_its_first_page(reader, serve):
    page = reader.new_page()
    page.goto(serve(SITE))
    page.wait_for_url("**/book/intro.html")
    page.close()


PIXELS = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='9' height='9'%3E{}%3C/svg%3E"
DRAWN = PIXELS.format("%3Ccircle r='5'/%3E")
FAULTS = {
    "": "",
    "script error": "<script>nothing.here()</script>",
    "console error": "<script>console.error('x')</script>",
    "foreign request": "<script src='https://example.org/x.js'></script>",
    "status 404": "<link rel='stylesheet' href='absent.css'>",
    "picture without alt text": f'<img src="{DRAWN}">',
    "alt text is a file name": f'<img src="{DRAWN}" alt="../_images/ab12.png">',
    "picture cannot be decoded": "<img src='data:image/png;base64,AAAA' alt='a broken file'>",
    "blank picture": f'<img src="{PIXELS.format("")}" alt="nothing drawn">',
    "formula not rendered": r"<p class='math'>\(x\)</p>",
    "formula with an error": "<p class='math'><mjx-container><mjx-merror>?</mjx-merror></mjx-container></p>",
    "scrolls sideways": "<div style='width: 500px'>wide</div>",
    "slider does not move its picture": f'<figure><img src="{DRAWN}" alt="a disc"><input type="range" max="3" value="0" '
    'aria-label="size"></figure>',
    "axe serious color-contrast": "<p style='color: #999; background: #aaa'>hard to read</p>",
    "axe serious color-contrast: <span": "<pre><span>one</span><span style='color: #aaa'>2</span><span style='color: #aaa'>two</span></pre>",
    "axe critical button-name": "<button></button>",
}


@pytest.mark.browser
@pytest.mark.parametrize("fault", FAULTS)
def test_check_finds_the_fault(fault, reader, serve, tmp_path):
    """Negative control: the one planted fault is found, and the page without one is clean."""
    body = f'<main><h1>Page</h1><img src="{DRAWN}" alt="a quarter of a disc">{FAULTS[fault]}</main>'
    head = '<meta name="viewport" content="width=device-width"><title>Page</title><link rel="icon" href="data:,">'
    (tmp_path / "page.html").write_text(f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>')
    found = problems(reader, serve(tmp_path), "page.html", {scheme: set() for scheme in LOOKS})
    assert any(problem.startswith(fault) for problem in found) if fault else not found, found


STATIC = Path(__file__).parents[2] / "book" / "_static"


def write_page(folder: Path, body: str, *files: str) -> None:
    """A page of this body, with style sheets and scripts of the course."""
    for name in files:
        shutil.copy(STATIC / name, folder)
    links = [
        f'<link rel="stylesheet" href="{n}">' if n.endswith(".css") else f'<script src="{n}"></script>' for n in files
    ]
    head = '<meta charset="utf-8"><title>Page</title><link rel="icon" href="data:,">' + "".join(links)
    (folder / "page.html").write_text(
        f'<!doctype html><html lang="en"><head>{head}</head><body><main class="bd-content"><h1>Page</h1>{body}</main></body></html>'
    )


@pytest.fixture
def visit(browser):
    """A function from an address, and the options of a browser context, to the page; its clock stands still if told."""
    contexts = []

    def opened(address, *, clock=False, **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        if clock:
            page.clock.install()
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()


PHONE = {"width": 390, "height": 844}


@pytest.fixture
def slider_page(visit, serve, tmp_path):
    """A function from the options of a browser context to a page with a slider of three frames, which it opens."""
    frames = {
        n: plot.images(torch.eye(4)[None, None].roll(n, -1), alt=f"a diagonal, {n} to the right") for n in range(3)
    }
    html = plot.slider(frames, label="shift", start=1, play=True).html
    write_page(tmp_path, f'<div class="cell_output">{html}</div>', "course.css", "course.js")
    return functools.partial(visit, f"{serve(tmp_path)}/page.html", clock=True)


def alt_of_visible(page) -> list[str]:
    return [re.sub(r"\D", "", image.get_attribute("alt")) for image in page.locator("img:visible").all()]


@pytest.mark.browser
def test_slider_goes_through_its_frames_by_the_arrow_keys_and_says_where_it_is(slider_page):
    page = slider_page()
    assert alt_of_visible(page) == ["1"]
    for _ in ("the picture", "the button", "the slider"):
        page.keyboard.press("Tab")
    for key, value in (("ArrowRight", "2"), ("ArrowRight", "2"), ("ArrowLeft", "1"), ("Home", "0")):
        page.keyboard.press(key)
        assert alt_of_visible(page) == [value]
        assert page.locator("output").inner_text() == f"shift = {value}"
        assert page.locator("input").get_attribute("aria-valuetext") == f"shift = {value}"


@pytest.mark.browser
def test_play_shows_one_frame_a_second_and_stops_at_the_last(slider_page):
    page = slider_page()
    button = page.locator(".controls button")
    button.click()
    page.clock.run_for(1000)
    assert (alt_of_visible(page), button.inner_text()) == (["2"], "Play")
    button.click()
    assert (alt_of_visible(page), button.inner_text()) == (["0"], "Stop")
    page.clock.run_for(1000)
    button.click()
    page.clock.run_for(5000)
    assert (alt_of_visible(page), button.inner_text()) == (["1"], "Play")
    page = slider_page(reduced_motion="reduce")
    assert page.get_by_role("button", name="Play").count() == 0
    assert alt_of_visible(page) == ["1"]


@pytest.mark.browser
def test_slider_without_scripts_shows_every_frame_and_on_paper_the_chosen_one(slider_page):
    assert alt_of_visible(slider_page(java_script_enabled=False)) == ["0", "1", "2"]
    page = slider_page()
    page.emulate_media(media="print")
    assert alt_of_visible(page) == ["1"]
    assert page.locator("output").is_visible()
    assert not page.locator("input").is_visible()


@pytest.fixture
def picture_page(visit, serve, tmp_path):
    """A function from the options of a browser context to a page with a wide picture of a notebook's cell."""
    figure = plot.images(torch.rand(8, 1, 4, 4), alt="eight squares of noise")
    figure.savefig(tmp_path / "wide.png", dpi=plot.DPI)
    body = '<div class="cell_output"><img src="wide.png" alt="eight squares of noise"></div><style>img {max-width: 100%}</style>'
    write_page(tmp_path, body, "course.css", "course.js")
    return functools.partial(visit, f"{serve(tmp_path)}/page.html")


@pytest.mark.browser
def test_a_picture_scrolls_on_a_phone_and_is_enlarged_by_keyboard(picture_page):
    page = picture_page(viewport=PHONE)
    page.wait_for_function("document.querySelector('img').complete")
    widths = "[document.querySelector('.picture img').offsetWidth, document.documentElement.scrollWidth]"
    assert page.evaluate(widths) == [562, 390]  # of 770 pixels: letters of nine points have ten
    page.get_by_role("button", name="eight squares of noise").press("Enter")
    assert page.evaluate("document.querySelector('dialog img').offsetWidth") == 768
    report = axe_playwright.Axe().run(page, options={"resultTypes": ["violations"], "preload": False})
    assert [v["id"] for v in report.response["violations"] if v["impact"] in ("serious", "critical")] == []
    page.keyboard.press("Escape")
    page.locator("dialog").wait_for(state="detached")
    assert page.get_by_role("button", name="eight squares of noise").evaluate("b => b === document.activeElement")


@pytest.mark.browser
def test_a_picture_fits_the_column_of_a_desktop_and_is_enlarged_by_a_click(picture_page):
    page = picture_page(viewport={"width": 1280, "height": 800})
    image = page.locator(".picture img")
    assert image.evaluate("i => i.offsetWidth === i.naturalWidth")
    image.click()
    assert page.locator("dialog img").evaluate("i => i.offsetWidth") == round(0.9 * 1280)
    page.locator("dialog img").click()
    page.locator("dialog").wait_for(state="detached")


@pytest.fixture
def prediction_page(visit, serve, tmp_path):
    """A function from the options of a browser context to a page that asks twice, which it opens."""
    asked = "".join(
        f"<p>A sentence. <strong>Predict:</strong> {word}?</p><p>Remark.</p><div class='cell'><pre>code</pre>"
        f"<div class='cell_output'>result {word}</div></div><p>About {word}.</p>"
        for word in ("one", "two")
    )
    asked = f"<section>{asked}<div class='cell' id='more'>more</div></section><section><p>Later.</p></section>"
    write_page(tmp_path, asked, "course.css", "predict.js")
    return functools.partial(visit, f"{serve(tmp_path)}/page.html", viewport=PHONE)


EVERYTHING = ["result one", "About one.", "result two", "About two.", "more", "Later."]


def seen(page) -> list[str]:
    return [word for word in EVERYTHING if page.get_by_text(word, exact=True).is_visible()]


@pytest.mark.browser
def test_a_result_and_the_rest_of_its_section_are_covered_until_the_reader_has_predicted_it(prediction_page):
    page = prediction_page()
    assert seen(page) == ["Later."]
    page.keyboard.press("Tab")
    page.keyboard.type("a seven")
    page.keyboard.press("Enter")
    assert seen(page) == ["result one", "About one.", "Later."]
    assert "You predicted: “a seven”" in page.locator("main").inner_text()
    page.reload()
    assert seen(page) == ["result one", "About one.", "Later."], "remembered"
    page.get_by_role("button", name="Show the result").click()
    assert seen(page) == EVERYTHING
    page.get_by_role("button", name="Cover it again").first.click()
    assert seen(page) == ["Later."]
    page.get_by_role("button", name="Show the result").click()
    assert seen(page) == EVERYTHING, "the second was answered"


@pytest.mark.browser
def test_all_results_can_be_shown_for_good_and_covered_again(prediction_page):
    page = prediction_page()
    page.get_by_role("button", name="Show all results").click()
    assert seen(page) == EVERYTHING
    page.reload()
    assert seen(page) == EVERYTHING
    page.get_by_role("button", name="Cover it again").first.click()
    page.reload()
    assert seen(page) == ["Later."]


@pytest.mark.browser
def test_a_link_to_a_covered_place_shows_it(prediction_page):
    page = prediction_page()
    page.evaluate("location.hash = 'more'")
    page.wait_for_function("document.querySelector('#more').offsetHeight > 0")
    page.reload()
    assert seen(page) == EVERYTHING


@pytest.mark.browser
def test_results_are_there_without_scripts_on_paper_and_where_nothing_can_be_kept(prediction_page):
    assert seen(prediction_page(java_script_enabled=False)) == EVERYTHING
    page = prediction_page()
    page.emulate_media(media="print")
    assert seen(page) == EVERYTHING
    assert not page.locator("form").first.is_visible()
    page = prediction_page()
    page.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('blocked'); } })")
    page.reload()
    page.get_by_role("button", name="Show the result").click()
    assert seen(page) == ["result one", "About one.", "Later."]


@pytest.mark.browser
def test_the_question_for_a_prediction_is_accessible(prediction_page):
    for scheme in ("light", "dark"):
        page = prediction_page(color_scheme=scheme)
        page.get_by_role("button", name="Show the result").first.click()
        options = {"resultTypes": ["violations"]}
        violations = axe_playwright.Axe().run(page, options=options).response["violations"]
        assert not [v["id"] for v in violations if v["impact"] in ("serious", "critical")]


@pytest.fixture
def table_page(visit, serve, tmp_path):
    """A page with a table of three rows, the course's style and script, and the theme's two colours."""
    pytest.importorskip("pandas", reason="needs the extra `book`")
    rows = {
        name: {"share": v, "weights": f"{n:,}"} for name, v, n in (("b", -0.5, 900), ("a", 0.25, 1200), ("c", 0.0, 7))
    }
    rows["d"] = {"weights": "30"}
    table = re.sub("<th>", '<th scope="col">', plot.table(rows, label="name").to_html())
    output = f'<div class="cell_output"><div class="output text_html">{table}</div></div>'
    write_page(tmp_path, output, "course.css", "course.js")
    return visit(f"{serve(tmp_path)}/page.html", viewport=PHONE)


def order_of(page) -> str:
    return "".join(page.locator("tbody th").all_inner_texts())


@pytest.mark.browser
def test_the_head_of_a_column_sorts_a_table_in_both_directions_and_back(table_page):
    assert order_of(table_page) == "bacd"
    downwards, upwards, as_it_was = ("descending", "ascending", "none")
    for column, sorted_ in {
        "share": {"acbd": downwards, "dbca": upwards},
        "weights": {"abdc": downwards, "cdba": upwards},
        "name": {"abcd": upwards, "dcba": downwards},
    }.items():
        head = table_page.get_by_role("columnheader", name=column)
        for order, told in (*sorted_.items(), ("bacd", as_it_was)):
            head.get_by_role("button").click()
            assert (order_of(table_page), head.get_attribute("aria-sort")) == (order, told)
    table_page.get_by_role("button", name="share").click()
    table_page.get_by_role("button", name="weights").focus()
    table_page.keyboard.press("Enter")
    assert order_of(table_page) == "abdc"
    assert table_page.get_by_role("columnheader", name="share").get_attribute("aria-sort") == "none"


@pytest.mark.browser
def test_a_wide_table_scrolls_in_its_own_box_beside_the_names_of_its_rows(table_page):
    table_page.add_style_tag(content="td { min-width: 300px; }")
    box, name = table_page.locator(".text_html"), table_page.locator("tbody th").first
    box.evaluate("box => { box.scrollLeft = 200; }")
    assert box.evaluate("box => box.scrollLeft") == 200
    assert table_page.evaluate("document.documentElement.scrollWidth") <= 390
    assert name.bounding_box()["x"] == box.bounding_box()["x"]


@pytest.fixture
def quiz_page(visit, serve, render, tmp_path):
    """A function from the options of a browser context to a page of the book's theme with a quiz of three questions."""
    pytest.importorskip("sphinx_book_theme", reason="needs the extra `book`")
    settings = {"html_theme": "sphinx_book_theme", "html_context": {"default_mode": "auto"}, "language": "en"}
    settings |= {"html_static_path": [str(STATIC)], "html_css_files": ["course.css"], "html_js_files": ["course.js"]}
    render({"book/part1/locality.md": "# Page\n\n```{quiz}\n```\n"}, ["myst_parser", "quiz"], **settings)
    return functools.partial(visit, f"{serve(tmp_path / 'out')}/book/part1/locality.html", viewport=PHONE)


@pytest.mark.browser
def test_a_quiz_is_answered_by_keyboard(quiz_page):
    page = quiz_page()
    assert page.get_by_role("group").count() == 3, "fieldsets, each named by its question"
    question = page.get_by_role("group", name="Which of these explanations is the most local?")
    told = question.locator("[aria-live=polite]")
    question.get_by_role("button", name="Check").press("Enter")
    assert told.inner_text() == "Choose an answer first."
    reasons = question.locator("xpath=..").locator("details li").all()
    assert not reasons[0].is_visible()
    page.get_by_role("radio").first.focus()
    for k, reason in enumerate(reasons):
        page.keyboard.press("ArrowDown" if k else "Space")
        assert question.get_by_role("radio", checked=True).count() == 1
        assert told.inner_text() == "", "what was told of another option is gone"
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert told.inner_text() == reason.text_content().strip()
        assert told.inner_text().startswith(("Right. ", "Wrong. "))
        page.keyboard.press("Shift+Tab")
    page.get_by_role("radio").last.check()
    assert page.get_by_role("radio", checked=True).count() == 2, "each question has an answer of its own"


@pytest.mark.browser
def test_a_quiz_without_scripts_and_on_paper_is_a_list_with_its_reasons(quiz_page):
    page = quiz_page(java_script_enabled=False)
    assert page.get_by_text("A saliency map.").is_visible()
    reason = page.locator("details li").first
    assert not reason.is_visible()
    page.locator("summary", has_text="Answers").first.click()
    assert reason.is_visible()
    page = quiz_page()
    page.emulate_media(media="print")
    assert page.locator("details li").first.is_visible()
    assert not page.get_by_role("radio").first.is_visible()
    assert not page.get_by_role("button", name="Check").first.is_visible()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_quiz_is_accessible_on_a_phone(scheme, quiz_page):
    page = quiz_page(color_scheme=scheme)
    assert page.locator("html").get_attribute("data-theme") == scheme
    page.get_by_role("radio").first.check()
    page.get_by_role("button", name="Check").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    violations = axe_playwright.Axe().run(page, context=".quiz").response["violations"]
    assert not violations, [violation["id"] for violation in violations]
