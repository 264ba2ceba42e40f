"""Sphinx extension of the course: the lines of the package that are a method, on the page that explains it.

````md
```{code-of} interp_lab.smoothgrad
:start-at: low, high
:end-at: return point
```
````

prints the code of a function or class without its docstring, from the first line that contains one text to the next that
contains the other. A name or a text that is not there is a warning, and the build of the course turns warnings into errors.
"""

import ast
import importlib
import inspect
import textwrap
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


def code_of(name: str) -> list[str]:
    """The lines of a function or class, ``package.module.name`` or ``package.module.Class.name``, without its docstring."""
    module, _, attribute = name.rpartition(".")
    try:
        parent: Any = importlib.import_module(module)
    except ModuleNotFoundError:
        module, _, outer = module.rpartition(".")
        parent = getattr(importlib.import_module(module), outer)
    lines = textwrap.dedent(inspect.getsource(getattr(parent, attribute))).splitlines()
    definition = ast.parse("\n".join(lines)).body[0]
    if isinstance(definition, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(definition) is not None:
        docstring = definition.body[0]
        del lines[docstring.lineno - 1 : docstring.end_lineno]
    return lines


class CodeOf(SphinxDirective):
    """The code of a function, or a part of it."""

    required_arguments = 1
    option_spec: ClassVar = {"start-at": directives.unchanged_required, "end-at": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        try:
            lines = code_of(self.arguments[0])
        except (ImportError, AttributeError) as error:
            raise self.error(f"no code of {self.arguments[0]}: {error}") from error
        first = self._place(lines, self.options.get("start-at"), 0)
        last = self._place(lines, self.options.get("end-at"), first) if "end-at" in self.options else len(lines) - 1
        code = textwrap.dedent("\n".join(lines[first : last + 1]))
        block = nodes.literal_block(code, code, language="python", classes=["code-of"])
        return [block]

    def _place(self, lines: list[str], text: str | None, first: int) -> int:
        for number, line in enumerate(lines[first:], first):
            if text is None or text in line:
                return number
        raise self.error(f"no line of {self.arguments[0]} contains {text!r}")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive with Sphinx."""
    app.add_directive("code-of", CodeOf)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
