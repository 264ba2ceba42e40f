"""The file of finished cells, from which a killed sweep goes on."""

import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from .table import Key


class Journal:
    """The finished cells, in memory and in a file: a header that names the sweep, then one JSON object per cell.

    Each is written at once, so a killed sweep leaves whole lines, or one torn line at the end, which is dropped.

    Attributes:
        cells: the finished cells among those asked for.
    """

    def __init__(
        self, path: str | os.PathLike | None, header: dict, functions: Mapping[str, Callable], keys: list[Key]
    ) -> None:
        self.path, self.header = None if path is None else Path(path), header
        self.described = {name: describe(function) for name, function in functions.items()}
        self.cells: dict[Key, dict] = {}
        self.keys = keys

    def __enter__(self) -> "Journal":
        if self.path is not None:
            self.file = open(self.path, "a+b", buffering=0)
            self.cells = self._read()
        return self

    def __exit__(self, *error: object) -> None:
        if self.path is not None:
            self.file.close()

    def record(self, found: dict[Key, dict]) -> int:
        """Remember the cells that are not finished yet; how many these are."""
        fresh = {key: value for key, value in found.items() if key not in self.cells}
        if self.path is not None and fresh:
            self._write(
                [
                    {"method": name, "fraction": fraction, "seed": seed, "function": self.described.get(name), **cell}
                    for (name, fraction, seed), cell in fresh.items()
                ]
            )
        self.cells.update(fresh)
        return len(fresh)

    def _read(self) -> dict[Key, dict]:
        self.file.seek(0)
        content = self.file.read()
        whole = content.rfind(b"\n") + 1
        self.file.truncate(whole)
        lines = content[:whole].splitlines()
        if not lines:
            self._write([self.header])
            return {}
        header, *rows = (self._parsed(number, line) for number, line in enumerate(lines, 1))
        other = [f"{name} {header.get(name)!r}, not {value!r}" for name, value in self.header.items() if header.get(name) != value]  # fmt: skip
        if other:
            raise ValueError(f"{self.path} holds another sweep, with {'; '.join(other)}; give this one another file")
        wanted, found = set(self.keys), {}
        for row in rows:
            key = (row.pop("method"), row.pop("fraction"), row.pop("seed"))
            function = row.pop("function", None)
            if key not in wanted or "error" in row:
                continue
            if function != self.described.get(key[0]):
                raise ValueError(
                    f"in {self.path}, {key[0]!r} is {function}, here it is {self.described[key[0]]}; "
                    "give it another name, or this sweep another file"
                )
            found[key] = row
        return found

    def _parsed(self, number: int, line: bytes) -> dict:
        try:
            return json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number} of {self.path} is no JSON; give the sweep another file") from error

    def _write(self, rows: list[dict]) -> None:
        self.file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
        os.fsync(self.file.fileno())


def describe(function: Callable) -> str:
    """Name of a function and its plain options, to tell ``smoothgrad(n=10)`` from ``smoothgrad(n=50)``.

    Example:
        >>> describe(partial(sorted, reverse=True))
        'sorted(reverse=True)'
    """
    if isinstance(function, partial):
        plain = {k: v for k, v in sorted(function.keywords.items()) if isinstance(v, bool | int | float | str)}
        return f"{describe(function.func)}({', '.join(f'{k}={v!r}' for k, v in plain.items())})"
    return getattr(function, "__qualname__", type(function).__qualname__)
