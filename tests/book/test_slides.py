"""The slides: what they take from a page, and a deck in a browser."""

import html
import json
import re

import pytest

bs4 = pytest.importorskip("bs4", reason="needs the extra `book`")
from book import built  # noqa: E402
from book.slides import __main__ as slides  # noqa: E402

PICTURE = (
    "<img alt='{}' src=\"data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='40' height='30'/%3E\">"
)
ROW = "<tr><th>a row</th><td>0.5</td></tr>"
PAGE = f"""<section>
<h1>Clean maps<a class="headerlink" href="#">#</a></h1>
<div class="admonition"><p class="admonition-title">What this page is for</p><p>After it you can <strong>judge</strong>.</p></div>
<p><strong>The question.</strong> Is it clean? Is it true?</p>
<div class="cell tag_hide-input"><div class="cell_output"><figure class="frames">
  <div class="frame" hidden>{PICTURE.format("frame one")}</div><div class="frame">{PICTURE.format("frame two")}</div></figure></div></div>
<p>After the picture.</p>
<section><h2>The claim</h2>
<p>Two values, <em>a. b</em>, of <span class="math">\\(x.\\)</span> are below .05 <span id="id1">[<a href="../bibliography.html#id2">KSA+19</a>]</span>. A second sentence.</p>
<div class="math notranslate">\\[ R(x) = 1 \\]</div>
<p><strong>Predict:</strong> what will come out? And why?</p>
<div class="cell"><div class="cell_output"><div class="output text_html"><table class="dataframe"><tbody>{ROW}</tbody></table></div></div></div>
<div class="claim claim-depends" id="claim-x"><p><strong>This depends on the options:</strong> It is <a href="#">so</a>.</p>
  <p class="claim-range">True in 1 of 2 settings.</p></div>
<div class="cell"><div class="cell_output">{PICTURE.format("a second &quot;picture&quot;")}</div></div>
<p>About the second.</p>
<section><h3>Inside</h3><p>Deeper? Yes.</p></section>
</section>
<section><h2>What can go wrong</h2><ul><li><p><strong>Units.</strong> They matter.</p></li><li><p>No bold start. More.</p></li></ul>
<div class="cell"><div class="cell_output"><table class="dataframe"><tbody>{ROW * 11}</tbody></table></div></div></section>
<section><h2>What we learned</h2><ul><li><p>One thing. And another.</p></li></ul>
<div class="admonition seealso"><p class="admonition-title">Try it</p><p>Change this line.</p></div>
<div class="admonition dropdown"><p class="admonition-title">A question?</p><p>The answer.</p></div></section>
</section>"""


@pytest.fixture
def made():
    section = bs4.BeautifulSoup(PAGE, "html.parser").section
    section.select_one(".headerlink").decompose()
    return slides.slides_of(section)


def words(markup: str) -> str:
    straight = str.maketrans("\u201c\u201d\u2019", '""\'')
    return " ".join(html.unescape(re.sub("<[^>]+>", " ", markup)).translate(straight).split())


def test_each_picture_has_its_slide_with_what_the_page_says(made):
    assert [(s.heading, bool(s.visual)) for s in made] == [
        ("Clean maps", True),
        ("The claim", True),
        ("The claim", True),
        ("Inside", False),
        ("What can go wrong", False),
        ("What we learned", False),
    ]
    assert "frame two" in made[0].visual
    assert "a row" in made[1].visual
    assert [words(part) for part in made[0].shown] == ["The question. Is it clean? Is it true?"]
    assert [words(part) for part in made[1].shown] == [
        "Two values, a. b , of \\(x.\\) are below .05.",
        "\\[ R(x) = 1 \\]",
        "Predict: what will come out? And why?",
        "This depends on the options: It is so.",
    ]
    assert made[1].shown[-1].startswith('<p class="claim-depends">')
    assert [words(part) for part in made[4].shown] == ["Units. No bold start."]
    assert [words(part) for part in made[5].shown] == ["One thing. And another.", "A question?"]


def test_the_rest_of_the_page_is_in_the_notes(made):
    notes = [words(" ".join(s.notes)) for s in made]
    assert notes[0].startswith("After it you can judge .")
    assert notes[0].endswith("The picture. frame two After the picture.")
    assert "A second sentence." in notes[1]
    assert "True in 1 of 2 settings." in notes[1]
    assert notes[2] == 'The picture. a second "picture" About the second.'
    assert notes[4] == "Units. They matter. No bold start. More."
    assert notes[5].endswith("The answer.")
    assert "Change this line" not in " ".join(notes)


def test_text_without_room_begins_a_new_slide():
    paragraph = "<p><strong>Predict:</strong> " + "a long question about it, " * 10 + "?</p>"
    section = bs4.BeautifulSoup(f"<section><h2>Much</h2>{paragraph * 4}</section>", "html.parser").section
    assert [len(s.shown) for s in slides.slides_of(section)] == [2, 2]


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A site of two pages and their deck."""
    monkeypatch.setattr(built, "SITE", tmp_path)
    settings = '<script>window.MathJax = {"tex": {"macros": {"R": "\\\\mathbb{R}"}}}</script>'
    for name in ("book/intro", "book/part2/clean", "book/part2/other"):
        path = tmp_path / f"{name}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{settings}<article class='bd-article'>{PAGE}</article>", encoding="utf-8")
    path = tmp_path / "deck.html"
    path.write_text(slides.deck("Part 2 - Maps", ["book/part2/clean", "book/part2/other"]), encoding="utf-8")
    return path


@pytest.fixture
def deck(site, browser):
    """A function that opens the deck; nothing but the file may be asked for."""
    pages = []

    def opened(width=1280, height=720, **options):
        page = browser.new_page(viewport={"width": width, "height": height}, **options)
        pages.append(page)
        page.on("request", lambda r: r.url.startswith(("file:", "data:")) or pytest.fail(f"asks for {r.url}"))
        page.on("pageerror", lambda error: pytest.fail(f"script error: {error}"))
        page.goto(site.as_uri())
        if options.get("java_script_enabled", True):
            page.wait_for_selector("html[data-ready]", state="attached")
        return page

    yield opened
    for page in pages:
        page.close()


def seen(page) -> list[str]:
    return [heading.inner_text() for heading in page.locator("h1, h2").all() if heading.is_visible()]


@pytest.mark.slow
def test_keys_go_through_the_deck_one_slide_at_a_time(deck):
    page = deck()
    assert seen(page) == ["Part 2 - Maps"]
    for key, heading in (
        ("ArrowRight", "Clean maps"),
        ("PageDown", "The claim"),
        (" ", "The claim"),
        ("ArrowLeft", "The claim"),
        ("End", "What we learned"),
        ("ArrowRight", "What we learned"),
        ("Home", "Part 2 - Maps"),
    ):
        page.keyboard.press(key)
        assert seen(page) == [heading]
    page.get_by_role("link", name="Clean maps").last.click()
    page.get_by_text("8 / 13").wait_for()  # a change of the address is told later than the click
    assert page.locator("mjx-container svg").count() >= 4


@pytest.mark.slow
def test_notes_here_and_in_a_window_that_moves_along(deck):
    page = deck()
    page.keyboard.press("ArrowRight")
    assert not page.locator("#notes").is_visible()
    page.keyboard.press("n")
    assert page.locator("#notes").inner_text().startswith("After it you can judge.")
    page.keyboard.press("n")
    assert not page.locator("#notes").is_visible()
    with page.expect_popup() as popup:
        page.keyboard.press("s")
    speaker = popup.value
    speaker.wait_for_selector("html[data-ready]", state="attached")
    assert speaker.locator("#notes").is_visible()
    page.keyboard.press("End")
    speaker.get_by_text("13 / 13").wait_for()
    speaker.keyboard.press("Home")
    page.get_by_text("1 / 13").wait_for()


@pytest.mark.slow
def test_on_paper_every_slide_is_a_page_and_nothing_else(deck):
    for width in (1280, 390):
        pdf = deck(width).pdf(prefer_css_page_size=True)
        assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 13
        assert set(re.findall(rb"/MediaBox \[([^\]]+)\]", pdf)) == {b"0 0 960 540"}  # 1280 x 720 px in points


@pytest.mark.slow
def test_a_phone_and_a_browser_without_scripts_read_it_as_one_page(deck):
    page = deck(390, 844)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert len(seen(page)) == 13
    page.locator("summary").first.click()
    assert page.get_by_text("After it you can judge.").first.is_visible()
    assert len(seen(deck(java_script_enabled=False))) == 13


STICKS_OUT = """() => [...document.querySelectorAll('.slide')].flatMap(slide => {
  const box = (slide.querySelector(':scope > div') ?? slide).getBoundingClientRect();
  return [...slide.querySelectorAll('.shown > *, .shown svg, .visual > *, :scope > ol')]
    .map(e => e.getBoundingClientRect())
    .filter(e => e.left < box.left - 1 || e.right > box.right + 1 || e.top < box.top - 1 || e.bottom > box.bottom + 1)
    .map(() => slide.id);
})"""


@pytest.mark.slow
def test_text_is_made_smaller_until_it_fits(site, browser):
    text = site.read_text(encoding="utf-8")
    long = "<p>" + "A sentence that goes on and on for a while. " * 25 + "</p>"
    site.write_text(text.replace('<div class="shown">', f'<div class="shown">{long}', 1), encoding="utf-8")
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.goto(site.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    assert 0.4 < float(page.evaluate("document.getElementById('2').style.getPropertyValue('--fit')")) < 0.8
    assert page.evaluate(STICKS_OUT) == []
    page.evaluate("document.getElementById('2').style.setProperty('--fit', 1)")
    assert set(page.evaluate(STICKS_OUT)) == {"2"}  # the negative control
    page.close()


BOOK = built.ROOT / "_build" / "html"


@pytest.mark.browser
@pytest.mark.skipif(not (BOOK / "index.html").exists(), reason="the book is not built: run `make book`")
@pytest.mark.parametrize("name", slides.DECKS)
def test_the_decks_of_the_book(name, browser, tmp_path):
    ((caption, pages),) = ((c, p) for c, p in built.parts().items() if c.startswith(slides.DECKS[name]))
    text = slides.deck(caption, pages)
    path = tmp_path / "deck.html"
    path.write_text(text, encoding="utf-8")
    told = words(text)
    for claim in json.loads((built.ROOT / "book" / "data" / "claims.json").read_text(encoding="utf-8")).values():
        assert (words(claim["sentence"]) in told) == (f"book/{claim['page']}" in pages), claim["sentence"]
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached", timeout=90_000)
    contents = [link.text_content() for link in page.locator("#\\31  a").all()]
    assert len(contents) == len(pages)
    for footer in contents:
        assert page.locator("footer", has_text=footer).count() >= 2
    assert page.evaluate("[...document.images].filter(i => !i.alt.trim()).length") == 0
    assert page.evaluate(STICKS_OUT) == []
    sizes = page.evaluate("[...document.querySelectorAll('.slide')].map(s => s.style.getPropertyValue('--fit'))")
    assert min(map(float, sizes)) >= 0.6  # of 27 pixels on a sheet of 720: it can be read from the back
    page.close()
