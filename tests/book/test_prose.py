"""Words that cannot disagree with the numbers beside them: a result in prose would stay when its cell prints another one."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "_build" / ".jupyter_cache"
NUMBER = re.compile(r"(?<![\w.,/:])\d*\.\d+(?![\d.])|\d+(?= ?%)")
NOT_PROSE = re.compile(r"^```.*?^```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|\]\([^)]*\)", re.S | re.M)

EXACT = {  # by arithmetic or by definition, not by a run
    "book/part2/gradient_x_input.md": {0.1},  # 10.1 - 10
    "book/part3/coherence.md": {95.0},  # the interval's
    "book/since/attention.md": {0.1},  # one of ten tokens
}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CACHE.is_dir(), reason="the book is not built: run `make book`, then `pytest -m browser`"),
]


def numbers(text: str) -> set[float]:
    return {float(number) for number in NUMBER.findall(text)}


def test_no_result_is_written_in_prose():
    """A decimal or percentage in the prose that an output shows is an option that the page's code sets, or it does not stand there."""
    cache = pytest.importorskip("jupyter_cache").get_cache(str(CACHE))
    found = {}
    for record in cache.list_cache_records():
        parts = Path(record.uri).parts
        page = Path(*parts[len(parts) - parts[::-1].index("book") - 1 :])
        code, outputs = "", ""
        for cell in cache.get_cache_bundle(record.pk).nb.cells:
            code += cell.source + "\n"
            for output in cell.get("outputs", []):
                outputs += output.get("text", "") + output.get("data", {}).get("text/plain", "") + "\n"
        assert outputs, page
        shown, options = numbers(outputs), numbers(code)
        shown |= {round(100 * number, 3) for number in shown} | {round(number / 100, 5) for number in shown}
        options |= {round(100 * number, 3) for number in options} | {0.5, 50.0, 1.0, 100.0}  # chance, and all
        prose = NOT_PROSE.sub(" ", (ROOT / page).read_text(encoding="utf-8"))
        if results := (numbers(prose) & shown) - options - EXACT.get(page.as_posix(), set()):
            found[page.as_posix()] = sorted(results)
    assert not found, f"say it in words or by a claim, or let a cell print it: {found}"
