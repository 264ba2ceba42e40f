"""The rows, read from ``rows/*.txt``, and the file of the checkout that each of them changes."""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "rows"


@dataclass(frozen=True)
class Row:
    group: str
    id: str
    why: str
    place: str
    tests: str
    old: str = ""
    new: str = ""
    survives: str = ""


def read(folder: Path = FOLDER) -> list[Row]:
    """All rows, in the order of the files.

    Raises:
        ValueError: a line that is none of those above, or an id that comes twice.
    """
    rows: dict[str, Row] = {}
    for path in sorted(folder.glob("*.txt")):
        place = tests = ""
        for block in path.read_text(encoding="utf-8").split("\n\n"):
            lines = [line for line in block.splitlines() if line and not line.startswith("#")]
            if not lines:
                continue
            head, _, rest = lines[0].partition(": ")
            if len(lines) == 1:
                place, tests = head, rest
                continue
            values = {"group": path.stem, "id": head, "why": rest, "place": place, "tests": tests}
            changed: dict[str, list[str]] = {"old": [], "new": []}
            for line in lines[1:]:
                key, _, value = line.partition(": ")
                if line[:2] in ("- ", "+ "):
                    changed["old" if line[0] == "-" else "new"].append(line[2:])
                elif key in ("tests", "survives"):
                    values[key] = value
                else:
                    raise ValueError(f"{path.name}, {head}: {line!r} is no part of a row")
            row = Row(**values, **{side: "\n".join(text) for side, text in changed.items()})
            if row.id in rows or not row.old or row.old == row.new:
                raise ValueError(f"{path.name}, {head}: an id that comes twice, or nothing that changes")
            rows[row.id] = row
    return list(rows.values())


def found(root: Path, row: Row) -> Path | None:
    """The one file of the row's place that holds the old text, once; None where the row is stale."""
    place = root / row.place
    candidates = [place] if place.is_file() else [place.with_suffix(".py"), *sorted(place.rglob("*.py"))]
    holding = {path: path.read_text(encoding="utf-8").count(row.old) for path in candidates if path.is_file()}
    return next(path for path in holding if holding[path]) if sum(holding.values()) == 1 else None
