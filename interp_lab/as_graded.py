"""The check cells of a notebook with the functions as the grader would take them: ``interp-lab check --as-graded``.

A notebook that passes in Jupyter can still lose points: by a function that stands behind its check, by a line that does
not run while grading, by a tensor that stays on the CPU. Each such line is named. Nothing here judges: the hidden inputs
and the judges are the teacher's; this runs the visible checks, on functions that `interp_lab.extract` took out of the
notebook, once as they are and once with their tensors on a simulated device.

Run as ``python -m interp_lab.as_graded NOTEBOOK`` in a process of its own.
"""

import contextlib
import functools
import io
import sys
from collections.abc import Callable
from pathlib import Path

from . import check, extract


def findings(notebook: bytes) -> list[str]:
    """A line for every check, and for each line of the notebook that would not count.

    Raises:
        ValueError: it is no notebook of the course.
    """
    cells = extract.code_cells(notebook)
    given = set(extract.code_cells(notebook, given=True).values())
    statements, told = extract.parse(cells)
    own = {s.cell for s in statements if cells[s.cell] not in given} or set(cells)  # a copy may have lost its metadata
    for place, statement in enumerate(statements):
        if not statement.check:
            continue
        before = statements[:place]
        names = statement.reads & {name for s in before if s.cell in own for name in s.binds}
        said: list[str] = []
        functions = {}
        for name in sorted(names):
            chosen = extract.select(before, name)
            with extract.stand_in(check):
                namespace: dict = {"__name__": "__main__"}
                said += [problem for problem in extract.execute(chosen, namespace) if not _given(problem, cells, own)]
            if callable(namespace.get(name)):
                functions[name] = namespace[name]
            needed = {bound for s in chosen for bound in s.binds}
            said += [
                f"{s.place}: `{', '.join(sorted(s.binds & needed))}` changes behind the check of question "
                f"{statement.check}, so the change does not count for it"
                for s in statements[place + 1 :]
                if s.cell in own and not s.check and s.binds & needed
            ]
        state = _try(before, statement, {name: _absent(f) for name, f in functions.items()})
        said += [f"as graded: {state}"] if state else []
        if not state:
            there = _try(before, statement, {name: check.elsewhere(_absent(f)) for name, f in functions.items()})
            blamed = there if any(f"({cell}, line" in there for cell in own) or "lies on the CPU" in there else ""
            said += [f"on another device than the CPU: {blamed}"] if blamed else []
        told += [f"{'passed' if not said else 'look  '}  {statement.check}"]
        told += [f"        {line}" for line in dict.fromkeys(said)]
    return told


def _given(problem: str, cells: dict[str, str], own: set[str]) -> bool:
    """Whether a line that did not run is one of the exercise as it was given out."""
    return problem.split(",")[0] in cells.keys() - own


def _absent(function: Callable) -> Callable:
    """The function, called while of the course's package only `check` is there."""

    @functools.wraps(function)
    def called(*args, **options):
        with extract.stand_in(check):
            return function(*args, **options)

    return called


def _try(before: list[extract.Statement], statement: extract.Statement, functions: dict[str, Callable]) -> str:
    """What the check says of these functions, ``""`` if it passes."""
    namespace: dict = {"__name__": "__main__"}
    chosen = {id(s) for name in statement.reads for s in extract.select(before, name)}
    with contextlib.redirect_stdout(io.StringIO()):
        extract.execute([s for s in before if id(s) in chosen], namespace)
        namespace |= functions
        problems = extract.execute([statement], namespace)
    return problems[0].split(": ", 1)[1] if problems else ""


if __name__ == "__main__":
    try:
        print("\n".join(findings(Path(sys.argv[1]).read_bytes())))
    except ValueError as error:
        sys.exit(str(error))
