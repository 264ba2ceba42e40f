"""book/_ext/glossary_links.py: the first use of a term leads to the glossary, and nothing else does."""

import io
import re
import sys
from pathlib import Path

import pytest

application = pytest.importorskip("sphinx.application", reason="needs Sphinx (extra `book`)")
docutils = pytest.importorskip("sphinx.util.docutils")
pytest.importorskip("myst_nb", reason="needs the extra `book`")
sys.path.insert(0, str(Path(__file__).parents[2] / "book" / "_ext"))
pattern = pytest.importorskip("glossary_links").pattern

GLOSSARY = """# Glossary

```{glossary}
saliency map
  The gradient.

map of colours
  None.

baseline
  A start.
```
"""


@pytest.fixture
def linked(tmp_path):
    """A function from a page to the words that lead to the glossary."""

    def build(page: str) -> list[str]:
        for name, text in {"index": page, "appendix/glossary": GLOSSARY}.items():
            path = tmp_path / "book" / f"{name}.md"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        settings = {"extensions": ["myst_parser", "glossary_links"], "root_doc": "book/index"}
        folders = tmp_path, None, tmp_path / "out", tmp_path / "doctrees"
        with docutils.patch_docutils(), docutils.docutils_namespace():
            application.Sphinx(*folders, "html", settings, status=None, warning=io.StringIO()).build()
        html = (tmp_path / "out" / "book" / "index.html").read_text(encoding="utf-8")
        return re.findall(
            r'<a class="[^"]*glossary-term[^"]*" href="appendix/glossary.html#term-[^"]+">([^<]+)</a>', html
        )

    return build


def test_the_first_use_is_linked_also_in_the_plural(linked):
    assert linked("# Page\n\nSaliency maps and a saliency map. A baseline, two baselines.") == [
        "Saliency maps",
        "baseline",
    ]


def test_titles_code_links_quotations_and_tables_are_left_alone(linked):
    page = "# Page\n\n## A baseline\n\n`baseline` [a baseline](https://example.org)\n\n> baseline\n\n| baseline |\n|---|\n| baseline |\n"
    assert linked(page) == []
    assert linked(page + "\nThe baseline.") == ["baseline"]


def test_a_page_does_not_link_the_term_of_its_title(linked):
    assert linked("# Saliency maps\n\nA saliency map from a baseline.") == ["baseline"]


def test_a_term_is_a_word_of_its_own():
    assert pattern("logit").search("the logits of")
    assert not pattern("logit").search("a logitech mouse")
    assert pattern("post-hoc").search("post hoc")
    assert not pattern("map").search("a bit-map")
