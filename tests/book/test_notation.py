"""The letters in the formulas of all pages: what each means stands on the page of notation, for every page that uses it."""

import re
from pathlib import Path

import pytest

BOOK = Path(__file__).parents[2] / "book"
NOTATION = (BOOK / "appendix" / "notation.md").read_text(encoding="utf-8")
PAGES = {
    path.stem: path for part in ("part1", "part2", "part3", "since") for path in sorted((BOOK / part).glob("*.md"))
}

GREEK = re.compile(
    "alpha|beta|gamma|delta|(var)?epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|pi|rho|sigma|tau|upsilon|(var)?phi|chi|psi|omega|ell|"
    "Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Phi|Psi|Omega"
)
NOT_FORMULAS = re.compile(r"^```.*?^```|`[^`]*`", re.S | re.M)
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$]+)\$", re.S)
WORDS = re.compile(r"\\(?:text|mathrm|operatorname\*?|begin|end)\s*\{[^{}]*\}")


def letters(text: str) -> set[str]:
    """Latin letters and, as commands, Greek ones, in the formulas of a text, without those of words and of code."""
    found = set()
    for display, inline in FORMULA.findall(NOT_FORMULAS.sub("", text)):
        formula = WORDS.sub(" ", display or inline)
        commands = re.findall(r"\\([A-Za-z]+)", formula)
        found |= {f"\\{name}" for name in commands if GREEK.fullmatch(name)}
        found |= set(re.findall(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", " ", formula)))
    return found


def table(title: str) -> dict[str, set[str]]:
    """The letters in the first cells of a table, each with the pages that its row links."""
    _, _, section = NOTATION.partition(f"## {title}\n")
    rows = [row.split(" | ", 1) for row in re.findall(r"^\| (\$.*) \|$", section.partition("\n## ")[0], re.M)]
    found: dict[str, set[str]] = {}
    for cell, rest in rows:
        for letter in letters(cell):
            assert letter not in found or title == "Symbols", f"{letter} has two rows under {title!r}"
            found.setdefault(letter, set()).update(re.findall(r"/(\w+)\.md", rest))
    return found


EVERYWHERE, SEVERAL, FEW = map(table, ("Symbols", "Letters with more than one meaning", "Letters of a few pages"))


def test_a_formula_gives_its_letters_and_no_words():
    text = (
        r"So $x_i \in \R^d$, $$\begin{aligned} R &= \mathrm{relu}(\lambda w) \text{ of it} \end{aligned}$$ and `$y$`."
    )
    assert letters(text) == {"x", "i", "d", "R", "w", r"\lambda"}


@pytest.mark.parametrize("page", PAGES)
def test_the_notation_explains_every_letter_of_a_page(page):
    explained = {letter for letter, pages in (*SEVERAL.items(), *FEW.items()) if page in pages}
    missing = letters(PAGES[page].read_text(encoding="utf-8")) - EVERYWHERE.keys() - explained
    assert not missing, f"what {sorted(missing)} mean on this page stands nowhere in book/appendix/notation.md"


def test_a_letter_of_one_meaning_stands_in_one_table_and_its_pages_use_it():
    assert not FEW.keys() & (EVERYWHERE.keys() | SEVERAL.keys())
    for letter, pages in (*SEVERAL.items(), *FEW.items()):
        unused = {page for page in pages if letter not in letters(PAGES[page].read_text(encoding="utf-8"))}
        assert not unused, f"{letter} does not stand in a formula of {sorted(unused)}"
