"""The whole book as one PDF: the built pages in one document, printed by headless Chromium (`make pdf`, after `make book`).

Decks of slides that `make slides` has written are printed as well.

Code that a page folds away stays out, answers to its questions are unfolded, a slider shows the frame that it starts with, and a
live figure its still. Links between pages lead to places in the PDF, which is tagged and has bookmarks.
"""

import posixpath
import sys
from pathlib import Path
from urllib.parse import urlsplit

from bs4 import Tag

from book import built
from book.chromium import chromium

OUT = built.ROOT / "_build" / "pdf"
SLIDES = built.ROOT / "_build" / "slides"
MARGINS = {"top": "16mm", "bottom": "18mm", "left": "18mm", "right": "18mm"}  # of A4
WIDTH = 658  # pixels between the margins
FOOT = '<div style="width: 100%; text-align: center; font: 8px sans-serif">{}<span class="pageNumber"></span></div>'
# What is wider than the paper becomes smaller; the names of what still sticks out, or would be cut by its own box.
FIT = """() => {
  const right = e => e.getBoundingClientRect().right;
  const edge = right(document.querySelector("main"));
  for (const e of document.querySelectorAll("table, mjx-container[display], .frames, .output")) {
    const room = e.parentElement.clientWidth, wide = Math.max(e.scrollWidth, e.getBoundingClientRect().width);
    if (room && wide > room + 1) e.style.zoom = Math.max(room / wide - 0.005, 0.3);
  }
  return [...document.querySelectorAll("main *")].filter(e => !e.parentElement.closest("svg, mjx-container, .visually-hidden")
    && (right(e) > edge + 1 || (e.clientWidth && e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX !== "visible")))
    .map(e => `${e.closest("article")?.id}: ${e.tagName.toLowerCase()}.${e.className} ${e.textContent.slice(0, 60)}`);
}"""


def place(page: str, anchor: str = "") -> str:
    """The name of an anchor of a page, in the one document."""
    return f"{page}:{anchor}" if anchor else page


def printable(page: str, pages: set[str], below: int) -> Tag:
    """A page as it is printed, its headings ``below`` levels deeper."""
    article = built.article(page)
    for live in article.select(".live"):
        live.replace_with(live.select_one(".live-still"))
    for gone in article.select(
        "script, noscript, details.above-input, .frame[hidden], .toctree-wrapper, iframe, button"
    ):
        gone.decompose()
    for folded in article.select("details"):
        folded["open"] = ""
        if {"hide", "below-input"} <= set(folded.get("class", [])):
            folded.summary.decompose()
    for image in article.select("img[src]"):
        if not image["src"].startswith("data:"):
            image["src"] = f"../html/{image['src']}"
    for named in article.select("[id]"):
        named["id"] = place(page, named["id"])
    for link in article.select("a[href]"):
        address = urlsplit(link["href"])
        if not address.scheme:
            target = posixpath.normpath(posixpath.join(posixpath.dirname(page), address.path)) if address.path else page
            target = target.removesuffix(".html")
            if target in pages:
                link["href"] = "#" + place(target, address.fragment)
            else:  # sources and indices are not printed
                link.unwrap()
    for heading in article.find_all(["h1", "h2", "h3", "h4", "h5"]):
        heading.name = f"h{min(int(heading.name[1]) + below, 6)}"
    article["id"] = page
    return article


def document() -> str:
    """The book as one HTML page, which lies in a folder beside the site."""
    parts = built.parts()
    pages = {page for names in parts.values() for page in names}
    first = built.soup("book/intro")
    styles = "".join(
        f'<link rel="stylesheet" href="{posixpath.normpath(posixpath.join("../html/book", link["href"]))}">'
        for link in first.select("link[rel=stylesheet]")
    )
    contents, body = "", ""
    for caption, names in parts.items():
        articles = [printable(page, pages, 1 if caption else 0) for page in names]
        if caption:
            body += f"<h1>{caption}</h1>"
            contents += f"<li>{caption}<ol>"
        for page, article in zip(names, articles, strict=True):
            contents += f'<li><a href="#{page}">{article.find(["h1", "h2"]).get_text()}</a></li>' if caption else ""
            body += str(article)
        contents += "</ol></li>" if caption else ""
    config = built.configuration()
    title, author, licence = config["title"], config["author"], config["html"]["extra_footer"]
    warning = f"<p><strong>{edition()}</strong></p>" if edition() else ""
    return (
        '<!doctype html><html lang="en" data-theme="light" data-mode="light"><head><meta charset="utf-8">'
        f"<title>{title}</title>{styles}<script>{built.mathjax()}</script>"
        '<script src="../html/_static/mathjax/tex-chtml.js"></script></head>'
        f'<body class="printed"><main class="bd-content"><header><p class="book-title">{title}</p><p>{author}</p>{warning}'
        f'<p>{licence}</p><nav aria-label="Contents"><ol>{contents}</ol></nav></header>{body}</main></body></html>'
    )


def edition() -> str:
    """What the instructor's edition says on each of its pages."""
    announced = built.soup("book/intro").select_one(".bd-header-announcement")
    return announced.get_text(" ", strip=True) if announced else ""


def write(browser, page: Path, target: Path, foot: str = "") -> list[str]:
    """Print a page that lies in a file; what would be cut at the right edge of the paper."""
    tab = browser.new_page(viewport={"width": WIDTH, "height": 900})
    tab.set_default_timeout(1_800_000)
    tab.emulate_media(media="print", color_scheme="light")
    tab.goto(page.as_uri())
    tab.evaluate("() => window.MathJax?.startup?.promise.then(() => null)")
    tab.evaluate("() => Promise.all([...document.images].map(image => image.decode().catch(() => null)))")
    cut = tab.evaluate(FIT)
    tab.pdf(
        path=target, format="A4", margin=MARGINS, tagged=True, outline=True, print_background=True,
        display_header_footer=True, header_template="<span></span>", footer_template=FOOT.format(foot),
    )  # fmt: skip
    tab.close()
    return cut


def write_deck(browser, page: Path, target: Path) -> None:
    """Print a deck of slides, one on each page."""
    tab = browser.new_page(viewport={"width": 1280, "height": 720})
    tab.goto(page.as_uri())
    tab.wait_for_selector("html[data-ready]", state="attached", timeout=300_000)
    tab.pdf(path=target, prefer_css_page_size=True, tagged=True, outline=True, print_background=True)
    tab.close()


def main() -> int:
    """Write the PDF, and those of the decks that are there; 0 if nothing is cut."""
    try:
        text = document()
        OUT.mkdir(parents=True, exist_ok=True)
        page, target = OUT / "book.html", OUT / "interpretable_deep_learning.pdf"
        page.write_text(text, encoding="utf-8")
        with chromium() as browser:
            cut = write(browser, page, target, edition() and f"{edition()} ")
            for deck in sorted(SLIDES.glob("*.html")):
                write_deck(browser, deck, deck.with_suffix(".pdf"))
                print(deck.with_suffix(".pdf"))
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    for name in cut:
        print(f"wider than the paper: {name}", file=sys.stderr)
    print(f"{target}: {target.stat().st_size / 1e6:.0f} MB")
    return int(bool(cut))


if __name__ == "__main__":
    sys.exit(main())
