"""The book as one PDF: what is printed of a page, that links stay inside, that nothing is cut."""

import re

import pytest

bs4 = pytest.importorskip("bs4", reason="needs the extra `book`")
from sphinx_external_toc.parsing import parse_toc_yaml  # noqa: E402

from book import built, pdf  # noqa: E402

DRAWN = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='40' height='30'/%3E"
FIRST = f"""<section id="first"><h1>First<a class="headerlink" href="#first">#</a></h1>
<p><a href="#deeper">below</a>, <a href="second.html#there">there</a>, <a href="../intro.html">the front</a>,
<a href="../../_modules/code.html">[source]</a>, <a href="https://example.org">out</a></p>
<details class="hide above-input"><summary>Show code</summary><pre>folded = code</pre></details>
<details class="hide below-input"><summary>Show output</summary><p>unfolded output</p></details>
<figure class="frames"><div class="frame" hidden><img alt="one" src="{DRAWN}"></div><div class="frame"><img alt="two" src="../../_images/two.svg"></div></figure>
<div class="live"><div class="live-still"><img alt="still" src="{DRAWN}"></div><div>controls</div><script>run()</script></div>
<section id="deeper"><h2>Deeper</h2><pre>{"wide_" * 60}</pre></section></section>"""
SECOND = f"""<section id="second"><h1>Second</h1><table id="there"><tr>{"<td>a_cell_that_does_not_break</td>" * 8}</tr></table></section>"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A site of three pages, and the folder for what is printed beside it."""
    site, out = tmp_path / "html", tmp_path / "pdf"
    parts = {"": ["book/intro"], "Part 1 - Maps": ["book/part1/first", "book/part1/second"]}
    monkeypatch.setattr(built, "SITE", site)
    monkeypatch.setattr(pdf, "OUT", out)
    monkeypatch.setattr(pdf, "SLIDES", tmp_path / "slides")
    monkeypatch.setattr(built, "parts", lambda: parts)
    head = '<head><link rel="stylesheet" href="../course.css"><script>window.MathJax = {}</script></head>'
    bodies = {
        "book/intro": "<section id='intro'><h1>Front</h1></section>",
        "book/part1/first": FIRST,
        "book/part1/second": SECOND,
    }
    for name, body in bodies.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / f"{name}.html").write_text(
            f"<html>{head}<article class='bd-article'>{body}</article></html>", encoding="utf-8"
        )
    (site / "_images").mkdir()
    (site / "_images" / "two.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg' width='40' height='30'/>")
    (site / "course.css").write_text((built.ROOT / "book" / "_static" / "course.css").read_text(encoding="utf-8"))
    return out


def dead_links(document: str) -> list[str]:
    soup = bs4.BeautifulSoup(document, "html.parser")
    ids = [named["id"] for named in soup.select("[id]")]
    assert len(ids) == len(set(ids))
    return [link["href"] for link in soup.select("a[href^='#']") if link["href"][1:] not in ids]


def test_what_is_printed_of_a_page(site):
    text = pdf.document()
    soup = bs4.BeautifulSoup(text, "html.parser")
    page = soup.find(id="book/part1/first")
    assert "folded = code" not in text
    assert page.find(string="unfolded output").find_parent("details").has_attr("open")
    assert [image["alt"] for image in page.select("img")] == ["two", "still"]
    assert page.select_one("img")["src"] == "../html/_images/two.svg"
    assert "controls" not in text
    headings = [(h.name, h.get_text()) for h in soup.find_all(re.compile(r"h\d"))]
    assert headings == [("h1", "Front"), ("h1", "Part 1 - Maps"), ("h2", "First"), ("h3", "Deeper"), ("h2", "Second")]


def test_links_lead_to_places_in_the_document(site):
    text = pdf.document()
    assert dead_links(text) == []
    links = [(link.get_text(), link["href"]) for link in bs4.BeautifulSoup(text, "html.parser").select("article a")]
    assert links == [
        ("below", "#book/part1/first:deeper"),
        ("there", "#book/part1/second:there"),
        ("the front", "#book/intro"),
        ("out", "https://example.org"),
    ]


@pytest.mark.slow
def test_the_pdf_is_tagged_has_bookmarks_and_loses_nothing_at_the_right_edge(site, browser):
    site.mkdir()
    page, target = site / "book.html", site / "book.pdf"
    page.write_text(pdf.document(), encoding="utf-8")
    assert pdf.write(browser, page, target) == []
    data = target.read_bytes()
    assert b"/StructTreeRoot" in data
    assert b"/Outlines" in data
    titles = re.findall(rb"/Title \(([^)]*)\)", data)
    assert {title.decode() for title in titles} >= {"Front", "Part 1 - Maps", "First", "Deeper", "Second"}
    boxes = {tuple(round(float(n)) for n in box.split()) for box in re.findall(rb"/MediaBox \[([^\]]+)\]", data)}
    assert boxes == {(0, 0, 596, 843)}  # A4
    assert len(re.findall(rb"/Type\s*/Page\b", data)) == 5  # title, contents, and a page for each page

    wide = '<p style="width: 900px">a paragraph that nothing makes smaller</p><div style="overflow: hidden"><p style="width: 900px">cut</p></div>'
    page.write_text(pdf.document().replace("<h2>Second</h2>", f"<h2>Second</h2>{wide}"), encoding="utf-8")
    assert [name.split(":")[0] for name in pdf.write(browser, page, target)] == ["book/part1/second"] * 3


def test_without_a_site_the_command_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(built, "SITE", tmp_path)
    assert pdf.main() == 1
    assert "run `make book` first" in capsys.readouterr().err


BOOK = built.ROOT / "_build" / "html"
needs_the_book = pytest.mark.skipif(not (BOOK / "index.html").exists(), reason="the book is not built: run `make book`")


@pytest.mark.browser
@needs_the_book
def test_the_book_has_every_page_and_no_dead_link():
    text = pdf.document()
    assert dead_links(text) == []
    printed = bs4.BeautifulSoup(text, "html.parser").select("article.bd-article")
    names = [page for names in built.parts().values() for page in names]
    assert [page["id"] for page in printed] == names
    by_name = [name for name in names if not name.startswith("exercises/")]
    assert sorted(by_name) == sorted(parse_toc_yaml(built.ROOT / "_toc.yml"))  # as the site reads it


@pytest.mark.browser
@needs_the_book
@pytest.mark.parametrize("part", ["Part 3", pytest.param("", marks=pytest.mark.exhaustive)])
def test_nothing_of_the_book_is_cut(part, browser, tmp_path, monkeypatch):
    (tmp_path / "html").symlink_to(BOOK)
    parts = {caption: names for caption, names in built.parts().items() if not caption or caption.startswith(part)}
    monkeypatch.setattr(built, "parts", lambda: parts)
    page, target = tmp_path / "pdf" / "book.html", tmp_path / "pdf" / "book.pdf"
    page.parent.mkdir()
    page.write_text(pdf.document(), encoding="utf-8")
    assert pdf.write(browser, page, target) == []
    assert len(re.findall(rb"/Title \(", target.read_bytes())) > sum(map(len, parts.values()))
