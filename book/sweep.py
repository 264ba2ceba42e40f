"""A sweep that goes on where it was interrupted: every row that is measured stands in a journal at once, as a JSON line."""

import json
from collections.abc import Callable, Iterable
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

from tqdm import tqdm

from interp_lab.executors import open_executor


def rows(journal: Path) -> list[Any]:
    """The rows that were measured; a last line that a kill has cut off is taken out of the file."""
    if not journal.exists():
        return []
    text = journal.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        journal.write_bytes(whole)
    return [json.loads(line) for line in whole.splitlines()]


def sweep(
    journal: Path,
    measure: Callable[[Any], list],
    units: Iterable[Any],
    executor: str,
    *,
    total: int,
    desc: str,
    unit: str,
) -> None:
    """Append the rows of every unit to the journal, in the order in which they are known; none or processes."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    bar = tqdm(total=total, desc=desc, unit=unit)
    with bar, open_executor(executor) as pool, journal.open("a", encoding="utf-8") as file:
        futures = [pool.submit(measure, one) for one in units] if pool else []
        for found in (f.result() for f in as_completed(futures)) if pool else map(measure, units):
            file.writelines(json.dumps(row) + "\n" for row in found)
            file.flush()
            bar.update(len(found))
