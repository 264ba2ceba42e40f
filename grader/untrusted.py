"""Bounds on what students hand in, before it is parsed on the trusted side or shown to anybody."""

import re

MAX_FILE = 64 * 2**20  # bytes of a notebook with its pictures
MAX_NOTEBOOK = 10 * 2**20  # bytes without them, which are parsed
MAX_VALUES = 10**6  # of JSON in these; each takes up to 100 bytes of memory
MAX_TOKENS = 2 * 10**6  # quotes and backslashes in a file whose pictures are cut out, each a step of Python
SHOWN = 20_000  # characters of an answer that a page shows, and of a text that is no picture

# What steers a terminal, a table or the direction of writing, and halves of characters.
_STEERS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, most: int = SHOWN) -> str:
    r"""At most so many characters of a text; control characters and halves of characters as their numbers.

    >>> print(printable("a\x1b[2J\ud800"))
    a\u001b[2J\ud800
    """
    text = text.replace("\r\n", "\n")
    cut = f" ... ({len(text) - most} more characters)" if len(text) > most else ""
    return _STEERS.sub(lambda match: f"\\u{ord(match[0]):04x}", text[:most]) + cut


def printable_name(text: str) -> str:
    r"""A name from the disk in one line, no two names alike.

    >>> print(printable_name("a\nb\\n\udcff"))
    a\u000ab\\n\xff
    """
    text = text.replace("\\", "\\\\").encode(errors="surrogateescape").decode(errors="backslashreplace")
    return printable(text.replace("\t", "\\u0009").replace("\n", "\\u000a").replace("\r", "\\u000d"), 2000)


def bounded(notebook: bytes) -> bytes:
    """A notebook that can be parsed: as it is, or without its pictures where it is large.

    Raises:
        ValueError: without them it still has more than ``MAX_NOTEBOOK`` bytes or ``MAX_VALUES`` values.
    """
    if len(notebook) > MAX_NOTEBOOK:
        notebook = _without_pictures(notebook)
    if len(notebook) > MAX_NOTEBOOK or sum(map(notebook.count, (b"[", b"{", b",", b":"))) > MAX_VALUES:
        raise ValueError(
            f"the notebook has more than {MAX_NOTEBOOK // 2**20} MiB without its pictures, or {MAX_VALUES} values; clear "
            "its outputs and save it again"
        )
    return notebook


def _without_pictures(notebook: bytes) -> bytes:
    """Every JSON string of more than ``SHOWN`` bytes, as a picture is one, replaced by its size."""
    if notebook.count(b'"') + notebook.count(b"\\") > MAX_TOKENS:
        return notebook
    parts, kept, opened = [], 0, -1
    for match in re.finditer(rb'\\.|"', notebook, re.DOTALL):
        if match[0] != b'"':
            continue
        if opened < 0:
            opened = match.start()
            continue
        if (size := match.start() - opened - 1) > SHOWN:
            parts += [notebook[kept:opened], b'"(left out: %d bytes)"' % size]
            kept = match.end()
        opened = -1
    return b"".join([*parts, notebook[kept:]])
