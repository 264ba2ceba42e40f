"""book/_ext/quiz.py and book/quizzes.yml: every page asks its own questions, and nothing but their content tells the right option."""

import re
from pathlib import Path
from statistics import mean

import pytest
import yaml

from grader import exam_questions

pytest.importorskip("myst_nb", reason="needs the extra `book`")
quiz = pytest.importorskip("quiz")

BOOK = Path(__file__).parents[2] / "book"
PAGES = sorted(
    path.relative_to(BOOK).with_suffix("").as_posix()
    for folder in ("part1", "part2", "part3", "since")
    for path in (BOOK / folder).glob("*.md")
)
RIGHT, WRONG = {"right": "Yes.", "because": "It is."}, {"wrong": "No.", "because": "It is not."}


def asked(*options: dict, text: str = "Is it?") -> dict:
    return {"question": text, "options": list(options)}


@pytest.fixture
def build(render, tmp_path, monkeypatch):
    """A function from the questions of a file and the source of the page part1/page to this page, and the warnings."""

    def run(questions: dict, source: str = "# Page\n\n```{quiz}\n```\n") -> tuple[str, str]:
        monkeypatch.setattr(quiz, "SOURCE", tmp_path / "quizzes.yml")
        quiz.SOURCE.write_text(yaml.safe_dump(questions), encoding="utf-8")
        return render({"book/part1/page.md": source}, ["myst_parser", "quiz"])

    yield run
    quiz.entries.cache_clear()


def test_every_page_has_its_questions_and_asks_them_at_one_place():
    assert sorted(quiz.entries(quiz.SOURCE)) == PAGES
    for page in PAGES:
        text = (BOOK / f"{page}.md").read_text(encoding="utf-8")
        after = (
            "## Check yourself\n\n```{quiz}\n```\n"
            if page.endswith("summary")
            else "```{quiz}\n```\n\n```{admonition} Try it"
        )
        assert text.count("```{quiz}") == 1, page
        assert after in text or page == "since/not_covered", page


@pytest.mark.parametrize("page", PAGES)
def test_questions_are_questions_with_three_or_four_options(page):
    questions = quiz.questions(page)
    assert 1 <= len(questions) <= 3
    for question in questions:
        assert question.text[-1] in "?:"
        assert len(question.options) in (3, 4)
        for option in question.options:
            assert re.search(r'[.?!]"?$', option.because), option.because
    words = " ".join([question.markdown() for question in questions])
    assert not re.search(r"\d+\.\d|\d ?%", words), "another run could print another number"


def test_no_text_stands_twice_nor_in_an_exam():
    questions = [question for page in PAGES for question in quiz.questions(page)]
    texts = [question.text for question in questions]
    reasons = [option.because for question in questions for option in question.options]
    assert len(set(texts)) == len(texts)
    assert len(set(reasons)) == len(reasons)
    for question in questions:
        assert len({option.text for option in question.options}) == len(question.options), question.text
    exams = {
        sentence
        for page in exam_questions.pages()
        for q in page.questions
        for sentence in sentences(f"{q.text} {q.answer}")
    }
    assert not exams & {sentence for text in [*texts, *reasons] for sentence in sentences(text)}


def sentences(text: str) -> list[str]:
    """The sentences of more than three words."""
    return [s for s in re.split(r"(?<=[.?!])\s+", " ".join(text.split())) if s.count(" ") > 2]


def test_neither_length_nor_place_tells_the_right_option():
    questions = [question for page in PAGES for question in quiz.questions(page)]

    def length(right: bool) -> float:
        return mean(len(option.text) for question in questions for option in question.options if option.right == right)

    assert 0.75 < length(True) / length(False) < 1.25
    longest = mean(max(question.options, key=lambda option: len(option.text)).right for question in questions)
    chance = mean(1 / len(question.options) for question in questions)
    assert abs(longest - chance) < 0.15
    for place in range(3):
        assert abs(mean(question.options[place].right for question in questions) - chance) < 0.15


def test_a_page_prints_options_as_a_list_and_folds_the_reasons(build):
    wrong = {"wrong": "Not *that*.", "because": "Not `this`."}
    page, warnings = build({"part1/page": [asked(RIGHT, wrong), asked(RIGHT, WRONG, text="And this?")]})
    assert warnings == ""
    assert page.count('class="quiz-question') == 2
    static, folded = page.split("<details>")[:2]
    assert set(re.findall(r"<li><p>(.*?)</p></li>", static)) == {"Yes.", "Not <em>that</em>."}
    assert "It is." not in static
    assert "<p><strong>Right.</strong> It is.</p>" in folded
    assert "<p><strong>Wrong.</strong> Not <code" in folded


def test_the_order_of_the_options_depends_on_their_words_alone():
    words = [{"wrong": letter, "because": "No."} for letter in "abcdef"] + [RIGHT]
    orders = [[o.text for o in quiz.question(asked(*options), "here").options] for options in (words, words[::-1])]
    assert orders[0] == orders[1]
    assert orders[0] not in ([w.get("wrong", "Yes.") for w in words], sorted(orders[0]))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (asked(RIGHT), "question 1 of part1/page has fewer than two options"),
        (asked(WRONG, {**WRONG, "wrong": "Nor."}), "question 1 of part1/page has 0 right options: mark exactly one"),
        (asked(RIGHT, {**RIGHT, "right": "Too."}), "question 1 of part1/page has 2 right options: mark exactly one"),
        (asked(RIGHT, {"wrong": "No."}), "question 1 of part1/page: an option has the keys wrong: give right or wrong"),
        ({"question": "Is it?"}, "question 1 of part1/page has the keys question: give question and options"),
    ],
)
def test_a_faulty_question_does_not_build(entry, message, build):
    assert message in build({"part1/page": [entry]})[1]


def test_a_page_without_questions_does_not_build(build):
    assert "quizzes.yml has no questions for part1/page" in build({})[1]


def test_questions_without_a_page_do_not_build(build):
    questions = [asked(RIGHT, WRONG)]
    message = "book/{0}.md does not ask the questions of {0}"
    warnings = build({"part1/page": questions, "part1/gone": questions})[1]
    assert message.format("part1/gone") in warnings
    assert message.format("part1/page") not in warnings
    quiz.entries.cache_clear()
    assert message.format("part1/page") in build({"part1/page": questions}, "# Page\n")[1]
