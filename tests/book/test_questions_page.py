"""The page of questions: all of them, each on its part, and no answer but in the instructor's edition."""

import html
import re
from pathlib import Path

import pytest

from grader import exam_questions

pytest.importorskip("myst_nb", reason="needs the extra `book`")
pytest.importorskip("exam_questions", reason="needs the extra `book`")

ROOT = Path(__file__).parents[2]
PARTS = ("part1", "part2", "part3", "since", "laboratory")
OF_ONE_PAGE = re.compile("toctree|announcement")  # warnings that only these few pages give, without the book's theme
SETTINGS = {"myst_enable_extensions": ["dollarmath"]}


@pytest.fixture
def part(render):
    """A function from a part and an edition to the words of its page, and the warnings."""

    def run(name: str, edition: str) -> tuple[str, str]:
        pages = {"book/appendix/questions.md": f"# Questions\n\n```{{exam-questions}} {name}\n```\n"}
        pages |= {f"book/{page.name}.md": "# Page\n" for page in exam_questions.pages() if page.name.startswith(name)}
        page, warnings = render(pages, ["myst_nb", "course", "exam_questions"], course_edition=edition, **SETTINGS)
        return words(page), "\n".join(line for line in warnings.splitlines() if not OF_ONE_PAGE.search(line))

    return run


def words(text: str) -> str:
    """Words of a page or of Markdown, without formulas and code, which a page writes in another way."""
    text = re.sub(r'<span class="math.*?</span>|<code.*?</code>|<[^>]+>', " ", text, flags=re.S)
    return " ".join(re.findall(r"[a-z]{3,}", re.sub(r"\$[^$]*\$|`[^`]*`", " ", html.unescape(text)).lower()))


@pytest.mark.parametrize("edition", ["public", "instructor"])
@pytest.mark.parametrize("name", PARTS)
def test_a_page_has_its_questions_and_their_answers_only_for_the_instructor(name, edition, part):
    page, warnings = part(name, edition)
    assert warnings == ""
    for each in (each for each in exam_questions.pages() if each.name.split("/")[0] == name):
        assert (words(each.shown) in page) == (edition == "instructor"), each.name
        for question in each.questions:
            assert words(question.text) in page
            assert (words(question.answer) in page) == (edition == "instructor"), question.name


def test_a_part_without_questions_does_not_build(part):
    assert "no questions of part9" in part("part9", "public")[1]


def test_the_page_prints_every_part():
    text = (ROOT / "book" / "appendix" / "questions.md").read_text(encoding="utf-8")
    assert re.findall(r"\{exam-questions\} (\w+)", text) == list(PARTS)
    assert {page.name.split("/")[0] for page in exam_questions.pages()} == set(PARTS)
