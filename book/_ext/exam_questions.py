"""Sphinx extension of the course: the questions of a part, without their answers.

````md
```{exam-questions} part2
```
````

prints them page by page out of ``grader/exam_questions.yml``, each as a target ``question-lrp-1``. In the instructor's
edition (``course_edition``) each has its answer, and each page the sentence that students get wrong.
"""

import sys
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.append(str(Path(__file__).resolve().parents[2]))  # a reader may have installed the package without the grader

from grader import exam_questions


class ExamQuestions(SphinxDirective):
    """All questions of one part."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(exam_questions.SOURCE))
        part, answers = self.arguments[0], self.config.course_edition == "instructor"
        found: list[nodes.Node] = []
        for page in exam_questions.pages():
            if page.name.split("/")[0] == part:
                found += self._parsed(f"**[](/book/{page.name}.md)**")
                if answers:
                    found += self._parsed(page.misconception())
                for question in page.questions:
                    box = nodes.container(classes=["exam-question"], names=[f"question-{question.name}"])
                    self.state.document.note_explicit_target(box)
                    box += self._parsed(question.markdown(answers))
                    found.append(box)
        if not found:
            raise self.error(f"no questions of {part}")
        return found

    def _parsed(self, markdown: str) -> list[nodes.Node]:
        box = nodes.container()
        self.state.nested_parse(StringList(markdown.splitlines(), self.get_source_info()[0]), self.content_offset, box)
        return box.children


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive with Sphinx."""
    app.add_directive("exam-questions", ExamQuestions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
