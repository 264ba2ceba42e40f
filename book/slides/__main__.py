"""A deck of slides for each part of the lecture, made from the built pages (`make slides`, after `make book`).

Nothing is written for the slides. A section of a page becomes a slide for each of its pictures and tables, with the section's
heading, its first sentence, what it asks the reader to predict, and the claims as ``book/data/claims.json`` has them; the
page's text goes into the speaker's notes. A deck is one file that needs no network.
"""

import re
import sys
from copy import copy
from dataclasses import dataclass, field
from html import escape
from importlib.metadata import files
from pathlib import Path

from bs4 import BeautifulSoup, NavigableString, Tag

from book import built

OUT = built.ROOT / "_build" / "slides"
DECKS = {
    "part1": "Part 1",
    "part2": "Part 2",
    "part3": "Part 3",
    "since": "Beside and after",
}  # their captions' beginnings
SENTENCE = re.compile(r"[.?!][\u201d\u2019)]*(?=\s|$)")
VERDICTS = {"claim-holds", "claim-depends", "claim-fails"}
ROWS = 10  # of a table that can still be read from the last row of seats
LETTERS = {True: 350, False: 700}  # that fit beside a picture, and without one


@dataclass
class Slide:
    """All of its parts are HTML; ``notes`` are paragraphs for the speaker."""

    heading: str
    shown: list[str] = field(default_factory=list)
    visual: str = ""
    notes: list[str] = field(default_factory=list)

    def has_room(self, block: str) -> bool:
        letters = sum(len(re.sub("<[^>]*>", "", part)) for part in (*self.shown, block))
        return not self.shown or letters <= LETTERS[bool(self.visual)]


def plain(element: Tag) -> str:
    """The HTML inside an element, without citations and links, which lead nowhere on a slide."""
    element = copy(element)
    for cited in element.select("span:has(> a[href*='bibliography.html'])"):
        cited.decompose()
    for link in element.select("a, span.std"):
        link.unwrap()
    return re.sub(r"\s+([.,;:?!])(?!\d)", r"\1", element.decode_contents()).strip()


def sentence(paragraph: Tag) -> str:
    """The first sentence of a paragraph; what ends inside a formula or in bold is not its end."""
    inner = BeautifulSoup(plain(paragraph), "html.parser")
    for node in list(inner.children):
        if isinstance(node, NavigableString) and (end := SENTENCE.search(node)):
            for later in list(node.next_siblings):
                later.extract()
            node.replace_with(node[: end.end()])
            break
    return str(inner)


def lead_in(item: Tag) -> str:
    """What an item of a list says in bold at its beginning, else its first sentence."""
    start = item.p or item
    first = next((node for node in start.children if str(node).strip()), None)
    return plain(first) if isinstance(first, Tag) and first.name == "strong" else sentence(start)


def visual(child: Tag) -> str:
    """The picture or table in a part of a page: of a slider the frame that it starts with, of a live figure its still."""
    images = child.select(".frames .frame:not([hidden]) img, .live-still img") or child.select(
        "figure img, .cell_output img"
    )
    if images or child.name == "img":
        return str(images[0] if images else child)
    table = child if child.name == "table" else child.select_one(".cell_output table, table.table")
    return f"<table>{plain(table)}</table>" if table and len(table.select("tbody tr")) <= ROWS else ""


def block_of(child: Tag, heading: str, first: bool) -> str:
    """What a slide shows of a part of a page that is no picture, as HTML; the rest is for the notes."""
    classes = set(child.get("class", []))
    if child.name == "p":
        asks = re.match(r"Predict|The question\.", child.get_text(" ", strip=True))
        return f"<p>{plain(child) if asks else sentence(child)}</p>" if asks or first else ""
    if child.name == "blockquote" or "math" in classes:
        return str(child)
    if child.name in ("ul", "ol", "dl"):
        items = child.find_all(["li", "dt"], recursive=False)
        leads = [plain(item.p or item) if "learned" in heading else lead_in(item) for item in items]
        return "<ul>" + "".join(f"<li>{lead}</li>" for lead in leads) + "</ul>"
    if "claim" in classes:
        return f'<p class="{(classes & VERDICTS).pop()}">{plain(child.p)}</p>'
    return f"<p>{plain(child.select_one('.admonition-title'))}</p>" if "dropdown" in classes else ""


def notes_of(child: Tag) -> list[str]:
    """The paragraphs of a part of a page, but for what a reader may try at home."""
    if child.name == "p":
        return [plain(child)]
    if child.name in ("ul", "ol", "dl"):
        return [plain(item) for item in child.find_all(["li", "dd"], recursive=False)]
    told = {"claim", "admonition"} & set(child.get("class", [])) and "seealso" not in child["class"]
    return [plain(p) for p in child.select("p:not(.admonition-title)")] if told else []


def slides_of(section: Tag) -> list[Slide]:
    """The slides of a section and of those inside it; a picture, or text for which there is no room, begins a new one."""
    heading = section.find(["h1", "h2", "h3"], recursive=False)
    slides, inner = [Slide(plain(heading))], list[Slide]()
    for child in section.find_all(recursive=False):
        if child.name == "section":
            inner += slides_of(child)
            continue
        first = heading.name != "h1" and len(slides) == 1 and not slides[0].shown
        seen = "" if {"tag_hide-output", "admonition"} & set(child.get("class", [])) else visual(child)
        block = "" if seen else block_of(child, slides[0].heading, first)
        predicts = child.name == "p" and block and not first
        if (slides[-1].visual and (seen or predicts)) or (block and not slides[-1].has_room(block)):
            slides.append(Slide(slides[0].heading))
        if seen:
            slides[-1].visual = seen
            pictures = BeautifulSoup(seen, "html.parser").select("img")
            slides[-1].notes += [f"<em>The picture.</em> {escape(picture['alt'])}" for picture in pictures]
        else:
            slides[-1].shown += [block] if block else []
            slides[-1].notes += notes_of(child)
    return [slide for slide in slides if slide.shown or slide.visual] + inner


def deck(caption: str, pages: list[str]) -> str:
    """A deck as one HTML file."""
    number, contents, sections = 1, "", ""
    for page in pages:
        article = built.article(page)
        for image in article.select("img[src]"):
            image["src"] = built.embedded(image["src"])
        title = plain(article.h1)
        contents += f'<li><a href="#{number + 1}">{title}</a></li>'
        for slide in slides_of(article.section):
            number += 1
            layout = "both" if slide.shown and slide.visual else "one"
            notes = "".join(f"<p>{note}</p>" for note in slide.notes)
            sections += (
                f'<section class="slide" id="{number}"><h2>{slide.heading}</h2><div class="{layout}">'
                + (f'<div class="shown">{"".join(slide.shown)}</div>' if slide.shown else "")
                + (f'<div class="visual">{slide.visual}</div>' if slide.visual else "")
                + f"</div><footer>{title}</footer><details><summary>Notes</summary>{notes}</details></section>\n"
            )
    cover = f'<section class="slide title" id="1"><h1>{caption}</h1><ol>{contents}</ol></section>\n'
    here = Path(__file__).parent
    style, script = ((here / name).read_text(encoding="utf-8") for name in ("deck.css", "deck.js"))
    # The site has only the bundle that its pages ask for.
    library = next(f for f in files("sphinx-mathjax-offline") if f.name == "tex-svg.js").read_text("utf-8")
    library = library.replace("</script", "<\\/script")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{caption}</title>'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        f"<style>{style}</style></head><body><main>\n{cover}{sections}</main>"
        f"<script>{script}</script><script>{built.mathjax()}</script><script>{library}</script></body></html>\n"
    )


def main() -> int:
    """Write the decks of the parts that the site has."""
    try:
        parts = built.parts()
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    OUT.mkdir(parents=True, exist_ok=True)
    for name, beginning in DECKS.items():
        ((caption, pages),) = ((caption, pages) for caption, pages in parts.items() if caption.startswith(beginning))
        if pages:
            path = OUT / f"{name}.html"
            path.write_text(deck(caption, pages), encoding="utf-8")
            print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
