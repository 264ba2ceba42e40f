"""What the book concludes, as code.

A claim is a function of options. Its docstring is the sentence that a page prints, and its value is a number that lies
between two bounds where the sentence is true. ``python -m book.claims`` measures every claim at every combination of
its options, which are those that could overturn it: baseline, margin of the mask, sign, score, network, seed, control.
The first value of each option is the page's own. A claim *holds* if it is true at all of them, *fails* if at none, and
*depends* otherwise; pages print it with its range (``book/_ext/claims.py``), and one page lists them all.
"""

import importlib
import inspect
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .dependencies import fingerprint

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "book" / "data" / "claims.json"
PARTS = ("part1", "part2", "methods", "part3", "since")


@dataclass(frozen=True)
class Claim:
    """A sentence, what it is measured by, and the options over which it has to hold."""

    page: str
    sentence: str
    measure: Callable[..., float]
    above: float
    below: float
    options: dict[str, tuple]

    def settings(self) -> Iterator[dict[str, Any]]:
        """Every combination of the options, the page's own first."""
        for values in itertools.product(*self.options.values()):
            yield dict(zip(self.options, values, strict=True))

    def holds(self, value: float) -> bool:
        return self.above < value < self.below

    @cached_property
    def fingerprint(self) -> str:
        """Of the code that its value comes from, and of the weights that this code or an option names."""
        return fingerprint(Path(inspect.getfile(self.measure)), self.measure.__name__, str(self.options))


CLAIMS: dict[str, Claim] = {}


def claim(
    page: str, *, above: float = -math.inf, below: float = math.inf, **options: tuple
) -> Callable[[Callable], Callable]:
    """Register a function as a claim of a page: true where its value lies strictly between the bounds."""

    def register(measure: Callable[..., float]) -> Callable[..., float]:
        sentence = " ".join((inspect.getdoc(measure) or "").split())
        assert sentence, f"{measure.__name__} has no docstring"
        assert measure.__name__ not in CLAIMS, f"two claims are called {measure.__name__}"
        CLAIMS[measure.__name__] = Claim(page, sentence, measure, above, below, options)
        return measure

    return register


def all_claims() -> dict[str, Claim]:
    """Every claim of the book by its name, in the order of the parts."""
    for part in PARTS:
        if Path(__file__).with_name(f"{part}.py").is_file():
            importlib.import_module(f"book.claims.{part}")
    return CLAIMS
