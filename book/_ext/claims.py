"""Sphinx extension of the course: a conclusion on a page, with the settings in which it was true.

````md
```{claim} name_of_the_claim
:verdict: holds
```
````

prints the claim's sentence and its verdict out of ``book/data/claims.json``, which ``python -m book.claims`` measures.
The verdict that the author expects stands on the page, since the text around was written for it: ``holds``, ``fails`` or
``depends``. Where the measurement says something else, the page does not build. ``{claims}`` lists all claims.
"""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

RESULTS = Path(__file__).resolve().parents[1] / "data" / "claims.json"
OVERVIEW = "/book/since/how_firm"  # the page of all claims
WORDS = {"holds": "holds", "depends": "depends on the options", "fails": "does not hold"}


class Result:
    """A claim with what was measured; a setting counts as true if it is so with every kind of kernel."""

    def __init__(self, stored: dict[str, Any]) -> None:
        self.page, self.sentence = stored["page"], stored["sentence"]
        self.options = {  # a pair is told in words
            name: [" and ".join(map(str, value)) if isinstance(value, list) else value for value in values]
            for name, values in stored["options"].items()
        }
        self.above, self.below = stored["above"], stored["below"]
        runs = list(stored["values"].values())
        self.true = [all(self.above < value < self.below for value in values) for values in zip(*runs, strict=True)]
        self.low, self.high = (end(end(values) for values in runs) for end in (min, max))

    @property
    def verdict(self) -> str:
        return "holds" if all(self.true) else "depends" if any(self.true) else "fails"

    def shares(self, option: str) -> dict[Any, tuple[int, int]]:
        """For each value of an option, in how many of its settings the claim is true, and how many there are."""
        true = np.moveaxis(self._table(), list(self.options).index(option), 0).reshape(len(self.options[option]), -1)
        return {value: (int(row.sum()), row.size) for value, row in zip(self.options[option], true, strict=True)}

    def _table(self) -> np.ndarray:
        """Where the claim is true, with an axis for each option."""
        return np.reshape(self.true, [len(values) for values in self.options.values()])

    def turned(self, option: str) -> float:
        """Of the pairs of settings that differ in this option alone, the share in which the claim is true only once.

        Where it is true k times among the n values of the option, all else fixed, these are k (n - k) of n (n - 1) / 2.
        """
        true = np.moveaxis(self._table(), list(self.options).index(option), -1)
        n, k = true.shape[-1], true.sum(-1)
        return float((k * (n - k)).mean() / max(1, n * (n - 1) / 2))

    def decisive(self) -> str:
        """The option that turns the claim most often when it alone is changed; of equals, the one whose values differ most."""

        def rank(option: str) -> tuple[float, float]:
            parts = [true / of for true, of in self.shares(option).values()]
            return round(self.turned(option), 9), max(parts) - min(parts)

        return max(self.options, key=rank)

    def counted(self) -> str:
        """ "In all 216 settings", or in how many of them."""
        true, of = sum(self.true), len(self.true)
        return f"all {of:,} settings" if true == of else f"{true:,} of {of:,} settings"

    def measured(self) -> str:
        """The range of the values, and what would make each of them true."""
        bounds = [
            f"{word} {bound:g}"
            for word, bound in (("above", self.above), ("below", self.below))
            if math.isfinite(bound)
        ]
        return f"values from {self.low:.3g} to {self.high:.3g}, true {' and '.join(bounds)}"

    def where(self) -> str:
        """For a claim that depends: its decisive option, with the count of each of its values."""
        option = self.decisive()
        ordered = sorted(self.shares(option).items(), key=lambda item: -item[1][0] / item[1][1])
        return f"*{option}* decides most: " + ", ".join(f"{value} ({true} of {of})" for value, (true, of) in ordered)


@cache
def results() -> dict[str, Result]:
    return {name: Result(stored) for name, stored in json.loads(RESULTS.read_text(encoding="utf-8")).items()}


def verdict_name(argument: str) -> str:
    return directives.choice(argument, tuple(WORDS))


class ClaimDirective(SphinxDirective):
    """One claim, where its page draws the conclusion."""

    required_arguments = 1
    option_spec: ClassVar = {"verdict": verdict_name}

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in results():
            raise self.error(
                f"no claim {name!r} in {RESULTS.name}: define it in book/claims and run python -m book.claims"
            )
        result = results()[name]
        if f"book/{result.page}" != self.env.docname:
            raise self.error(f"the claim {name!r} belongs to {result.page}")
        if self.options.get("verdict") != result.verdict:
            raise self.error(
                f"the claim {name!r} {WORDS[result.verdict]}, so :verdict: {result.verdict}; does the text say so?"
            )
        box = nodes.container(classes=["claim", f"claim-{result.verdict}"])
        box["names"] = [f"claim-{name}"]
        self.state.document.note_explicit_target(box)
        text = f"**This {WORDS[result.verdict]}:** {result.sentence}"
        found = f"True in {result.counted()} ({' × '.join(result.options)}; {result.measured()})"
        found += f"; {result.where()}." if result.verdict == "depends" else "."
        lines = [text, "", f"{found} [How firm are our conclusions?]({OVERVIEW}.md)"]
        self.state.nested_parse(StringList(lines, self.get_source_info()[0]), self.content_offset, box)
        box.children[-1]["classes"].append("claim-range")
        return [box]


class ClaimsDirective(SphinxDirective):
    """The table of all claims, page by page, those of the first verdict of WORDS first."""

    def run(self) -> list[nodes.Node]:
        rows = ["| claim | verdict | true in | varied | where it breaks |", "|---|---|---|---|---|"]
        for name, result in results().items():
            link = f"[{result.sentence}](#claim-{name})"
            where = result.where() if result.verdict == "depends" else ""
            rows.append(
                f"| {link} | {WORDS[result.verdict]} | {result.counted()} | {', '.join(result.options)} | {where} |"
            )
        box = nodes.container(classes=["claims"])
        self.state.nested_parse(StringList(rows, self.get_source_info()[0]), self.content_offset, box)
        return [box]


def remember_results(app: Sphinx, docname: str, source: list[str]) -> None:
    """Pages that print claims are read again when these change."""
    if "{claim" in source[0]:
        app.env.note_dependency(str(RESULTS))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives with Sphinx."""
    app.add_directive("claim", ClaimDirective)
    app.add_directive("claims", ClaimsDirective)
    app.connect("source-read", remember_results)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
