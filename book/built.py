"""The pages of the built site, in the order of the table of contents: what the slides and the printed book are made from."""

import base64
import mimetypes
import posixpath
import re
from pathlib import Path
from typing import Any

import yaml
from bs4 import BeautifulSoup, Tag

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_build" / "html"


def configuration() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))


def parts() -> dict[str, list[str]]:
    """The caption of each part, with its pages that the site has (``book/part2/lrp``); the front page has none.

    Raises:
        FileNotFoundError: there is no site.
    """
    if not (SITE / "index.html").exists():
        raise FileNotFoundError("the book is not built: run `make book` first")
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    found = {"": [toc["root"]]}
    for part in toc["parts"]:
        pages = [name for entry in part["chapters"] for name in _names(entry)]
        found[part["caption"]] = [name for name in pages if (SITE / f"{name}.html").exists()]
    return found


def _names(entry: dict[str, Any]) -> list[str]:
    """The pages of an entry of the table of contents, each before those below it."""
    if "file" in entry:
        return [entry["file"], *(name for below in entry.get("sections", ()) for name in _names(below))]
    return sorted(path.relative_to(ROOT).with_suffix("").as_posix() for path in ROOT.glob(f"{entry['glob']}.ipynb"))


def soup(page: str) -> BeautifulSoup:
    return BeautifulSoup((SITE / f"{page}.html").read_text(encoding="utf-8"), "html.parser")


def article(page: str) -> Tag:
    """What a reader sees of a page; the addresses of its pictures begin at the site's folder."""
    found = soup(page).select_one("article.bd-article")
    for mark in found.select("a.headerlink"):
        mark.decompose()
    for image in found.select("img[src]"):
        if not image["src"].startswith("data:"):
            image["src"] = posixpath.normpath(posixpath.join(posixpath.dirname(page), image["src"]))
    return found


def embedded(address: str) -> str:
    """A picture of the site as its own address, ``data:``."""
    if address.startswith("data:"):
        return address
    kind = mimetypes.guess_type(address)[0]
    return f"data:{kind};base64,{base64.b64encode((SITE / address).read_bytes()).decode()}"


def mathjax() -> str:
    """The settings of the site's formulas, as a script."""
    (settings,) = (s.string for s in soup("book/intro")("script") if s.string and s.string.startswith("window.MathJax"))
    return re.sub(r";?\s*$", ";", settings)
