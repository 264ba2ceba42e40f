"""Questions for exams and for the seminar, with their answers: all of them stand in ``exam_questions.yml``.

The book's page of questions is made from it without the answers, the instructor's edition and ``interp-lab questions
--answers`` with them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

SOURCE = Path(__file__).with_suffix(".yml")
KINDS = ("recall", "reasoning", "transfer")


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        name: that of its page and a number, ``lrp-1``.
        kind: ``recall``, ``reasoning`` or ``transfer``.
        text: the question, Markdown.
        answer: Markdown.
    """

    name: str
    kind: str
    text: str
    answer: str

    def markdown(self, answers: bool = False) -> str:
        """A paragraph with the question, and one with its answer if asked for."""
        asked = f"**{self.name}** ({self.kind}) {self.text}"
        return f"{asked}\n\n> **Answer.** {self.answer}" if answers else asked


@dataclass(frozen=True)
class Page:
    """What belongs to a page of the book.

    Attributes:
        name: its path in the book, ``part2/lrp``.
        wrong: a sentence that students believe.
        shown: what on the page shows that it is wrong.
        questions: in their order.
    """

    name: str
    wrong: str
    shown: str
    questions: tuple[Question, ...]

    def misconception(self) -> str:
        """A paragraph for the teacher."""
        return f"*What students get wrong:* \u201c{self.wrong}\u201d *What shows it:* {self.shown}"


@cache
def pages() -> tuple[Page, ...]:
    """All pages, in the order of the book.

    Raises:
        ValueError: a kind that there is not, or a part of an entry that is missing or unknown.
    """
    found = []
    for name, entry in yaml.safe_load(SOURCE.read_text(encoding="utf-8")).items():
        try:
            questions = [
                Question(f"{name.split('/')[-1]}-{k}", asked.pop("kind"), asked.pop("question"), asked.pop("answer"))
                for k, asked in enumerate(entry["questions"], 1)
            ]
            found.append(Page(name, entry["wrong"], entry["shown"], tuple(questions)))
        except KeyError as error:
            raise ValueError(f"{SOURCE.name}: {name} has no {error}") from None
        if unknown := [
            *set(entry) - {"wrong", "shown", "questions"},
            *(k for asked in entry["questions"] for k in asked),
        ]:
            raise ValueError(f"{SOURCE.name}: {name} has a part {unknown[0]!r}, which is none")
        if wrong := [question for question in questions if question.kind not in KINDS]:
            raise ValueError(f"{SOURCE.name}: {wrong[0].name} must be one of {', '.join(KINDS)}, not {wrong[0].kind}")
    return tuple(found)


def sheet(names: Iterable[str] = (), *, kinds: Iterable[str] = KINDS, answers: bool = False) -> str:
    """Questions as a Markdown document, page by page.

    Args:
        names: of questions (``lrp-1``), pages (``lrp`` or ``part2/lrp``) or parts (``part2``); none: all.
        kinds: only these.
        answers: with model answers, and what students get wrong on each page.

    Raises:
        ValueError: a name that nothing has, or nothing left to ask.
    """
    names, kinds = set(names), set(kinds)
    lines, met = [f"# Questions{' and answers' if answers else ''}"], set[str]()
    for page in pages():
        part, _, short = page.name.rpartition("/")
        own = {page.name, short, part} & names
        asked = [q for q in page.questions if q.kind in kinds and (not names or own or q.name in names)]
        met |= own | {question.name for question in page.questions}
        if asked:
            lines += [f"## {page.name}", *([page.misconception()] if answers else [])]
            lines += [question.markdown(answers) for question in asked]
    if unknown := names - met:
        raise ValueError(f"no question, page or part is called {', '.join(sorted(unknown))}")
    if len(lines) == 1:
        raise ValueError("none of these questions is of that kind")
    return "\n\n".join(lines) + "\n"
