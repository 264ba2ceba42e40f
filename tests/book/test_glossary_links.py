"""book/_ext/glossary_links.py: the first use of a term leads to the glossary, and nothing else does."""

import re

import pytest

pytest.importorskip("myst_nb", reason="needs the extra `book`")
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
def linked(render):
    """A function from a page to the words that lead to the glossary."""

    def run(page: str) -> list[str]:
        pages = {"book/index.md": page, "book/appendix/glossary.md": GLOSSARY}
        html, _ = render(pages, ["myst_parser", "glossary_links"])
        return re.findall(
            r'<a class="[^"]*glossary-term[^"]*" href="appendix/glossary.html#term-[^"]+">([^<]+)</a>', html
        )

    return run


def test_the_first_use_is_linked_also_in_the_plural(linked):
    assert linked("# Page\n\nSaliency maps and a saliency map. A baseline, two baselines.") == [
        "Saliency maps",
        "baseline",
    ]


def test_titles_code_links_quotations_tables_and_quizzes_are_left_alone(linked):
    page = "# Page\n\n## A baseline\n\n`baseline` [a baseline](https://example.org)\n\n> baseline\n\n| baseline |\n|---|\n| baseline |\n"
    page += "\n```{admonition} Quiz\n:class: quiz\n- baseline\n```\n"
    assert linked(page) == []
    assert linked(page + "\nThe baseline.") == ["baseline"]


def test_a_page_does_not_link_the_term_of_its_title(linked):
    assert linked("# Saliency maps\n\nA saliency map from a baseline.") == ["baseline"]


def test_a_term_is_a_word_of_its_own():
    assert pattern("logit").search("the logits of")
    assert not pattern("logit").search("a logitech mouse")
    assert pattern("post-hoc").search("post hoc")
    assert not pattern("map").search("a bit-map")
