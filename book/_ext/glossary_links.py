"""Sphinx extension of the course: on every page, the first use of a term of the glossary leads to it.

A term is looked for in running text, whatever its case and also in the plural; not in titles, links, quotations, code,
tables or quizzes, whose options are there to be chosen, and a page whose title names the term explains it itself.
"""

import re
from collections.abc import Iterator
from functools import cache

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

GLOSSARY = "book/appendix/glossary"
NOT_INSIDE = (
    nodes.title,
    nodes.reference,
    nodes.literal,
    nodes.block_quote,
    nodes.table,
    nodes.term,
    nodes.raw,
    nodes.math,
)


@cache
def pattern(term: str) -> re.Pattern:
    """The term as a word of its own, with any space or hyphen between its words, and its plural."""
    words = re.split(r"[ -]", term)
    return re.compile(r"(?<![\w-])" + r"[\s-]".join(map(re.escape, words)) + r"s?(?![\w-])", re.IGNORECASE)


def terms(env: BuildEnvironment) -> dict[str, str]:
    """Every term with its anchor; "a and b" is no phrase that a page would use."""
    objects = env.get_domain("std").get_objects()
    return {
        name: anchor
        for name, _, kind, page, anchor, _ in objects
        if (kind, page) == ("term", GLOSSARY) and " and " not in name
    }


def running_text(doctree: nodes.document) -> Iterator[nodes.Text]:
    for text in list(doctree.findall(nodes.Text)):
        parent, inside_paragraph = text.parent, False
        while parent is not None and not isinstance(parent, NOT_INSIDE) and "quiz" not in parent["classes"]:
            inside_paragraph |= isinstance(parent, nodes.paragraph)
            parent = parent.parent
        if parent is None and inside_paragraph:
            yield text


def link_terms(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Link the first use of every term."""
    if not docname.startswith("book/") or docname == GLOSSARY or app.builder.format != "html":
        return
    title = next(doctree.findall(nodes.title), nodes.title()).astext()
    waiting = {name: anchor for name, anchor in terms(app.env).items() if not pattern(name).search(title)}
    for text in running_text(doctree):
        found = [(match, name) for name in waiting if (match := pattern(name).search(text))]
        pieces: list[nodes.Node] = []
        end = 0
        for match, name in sorted(found, key=lambda item: (item[0].start(), -len(item[1]))):
            if match.start() < end:  # inside a longer term
                continue
            uri = app.builder.get_relative_uri(docname, GLOSSARY) + "#" + waiting.pop(name)
            link = nodes.reference("", match.group(), internal=True, refuri=uri, classes=["glossary-term"])
            pieces += [nodes.Text(text[end : match.start()]), link]
            end = match.end()
        if pieces:
            text.parent.replace(text, [*pieces, nodes.Text(text[end:])])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the links with Sphinx."""
    app.connect("doctree-resolved", link_terms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
