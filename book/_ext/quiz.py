"""Sphinx extension of the course: questions at the end of a page, by which readers check what they have understood.

````md
```{quiz}
```
````

prints those that ``book/quizzes.yml`` holds for the page, with their options in an order that is fixed and arbitrary, and
why each is right or wrong in a ``<details>``. ``course.js`` makes radio buttons of the options; nothing is sent or graded.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

SOURCE = Path(__file__).resolve().parents[1] / "quizzes.yml"
TITLE = "Quiz"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Option:
    """One answer to choose: its text, whether it is the right one, and why, all Markdown in one paragraph."""

    text: str
    right: bool
    because: str


@dataclass(frozen=True)
class Question:
    """A question and its options, in the order of the page."""

    text: str
    options: tuple[Option, ...]

    def markdown(self) -> str:
        """A paragraph, the options as a list, and a folded list of what is right and wrong about them."""
        options = [f"1. {option.text}" for option in self.options]
        answers = [f"1. **{'Right' if option.right else 'Wrong'}.** {option.because}" for option in self.options]
        folded = ["<details>", "<summary>Answers</summary>", "", *answers, "", "</details>"]
        return "\n".join([self.text, "", *options, "", *folded])


def question(entry: dict[str, Any], where: str) -> Question:
    """What stands in the file, checked; the order of the options depends on nothing but their words.

    Raises:
        ValueError: a key that is missing or unknown, fewer than two options, or not exactly one that is right.
    """
    if set(entry) != {"question", "options"}:
        raise ValueError(f"{where} has the keys {', '.join(entry)}: give question and options")
    options = []
    for given in entry["options"]:
        if set(given) not in ({"right", "because"}, {"wrong", "because"}):
            raise ValueError(f"{where}: an option has the keys {', '.join(given)}: give right or wrong, and because")
        options.append(Option(given.get("right") or given["wrong"], "right" in given, given["because"]))
    if len(options) < 2:
        raise ValueError(f"{where} has fewer than two options")
    if (right := sum(option.right for option in options)) != 1:
        raise ValueError(f"{where} has {right} right options: mark exactly one")
    options.sort(key=lambda option: hashlib.sha256(option.text.encode()).digest())
    return Question(entry["question"], tuple(options))


@cache
def entries(source: Path) -> dict[str, list[dict[str, Any]]]:
    """The file as it is: for each page, ``part2/lrp``, its questions."""
    return yaml.safe_load(source.read_text(encoding="utf-8"))


def questions(page: str) -> list[Question]:
    """The questions of a page.

    Raises:
        ValueError: it has none, or one that :func:`question` refuses.
    """
    if not (asked := entries(SOURCE).get(page)):
        raise ValueError(f"{SOURCE.name} has no questions for {page}")
    return [question(entry, f"{SOURCE.name}: question {k} of {page}") for k, entry in enumerate(asked, 1)]


class Quiz(SphinxDirective):
    """The questions of the page on which it stands."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(SOURCE))
        self.env.metadata[self.env.docname]["quiz"] = "asked"
        try:
            asked = questions(self.env.docname.removeprefix("book/"))
        except ValueError as error:
            raise self.error(str(error)) from None
        quiz = nodes.admonition("", nodes.title("", TITLE), classes=["quiz", "seealso"])
        for each in asked:
            box = nodes.container(classes=["quiz-question"])
            lines = StringList(each.markdown().splitlines(), self.get_source_info()[0])
            self.state.nested_parse(lines, self.content_offset, box)
            quiz += box
        return [quiz]


def warn_of_questions_without_a_page(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of questions that no page prints."""
    for page in entries(SOURCE):
        if "quiz" not in env.metadata.get(f"book/{page}", {}):
            logger.warning("%s: book/%s.md does not ask the questions of %s", SOURCE.name, page, page)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive with Sphinx."""
    app.add_directive("quiz", Quiz)
    app.connect("env-check-consistency", warn_of_questions_without_a_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
