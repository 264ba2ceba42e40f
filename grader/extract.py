"""Source code of a notebook: its code cells, and the statements that one function needs.

`code_cells` reads the file as JSON on the trusted side. `parse` and `execute` handle the student's code, so they run
inside the sandbox; on the trusted side only the solution notebook goes through them. Cells are never executed as they
stand, and functions are found by name: copied, deleted or retyped cells and lost cell metadata do not matter.

Standard library only: the sandbox imports this file on its own.
"""

import ast
import json
import re
from dataclasses import dataclass
from typing import Any

MAX_SOURCE = 500_000  # characters of code in one notebook
MAX_CELLS = 2_000


def code_cells(text: bytes, *, given: bool = False) -> dict[str, str]:
    """Sources of the code cells of an nbformat 4 notebook, by a name for messages such as "code cell 3".

    Args:
        given: leave out the cells that a student answers in (nbgrader's solution cells).

    Raises:
        ValueError: the bytes are no such notebook, or hold more code than ``MAX_SOURCE``.
    """
    try:
        notebook = json.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"the file is not a notebook: it is no valid JSON ({type(error).__name__})") from None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise ValueError("the file is not a notebook of format 4: it has no list of cells")
    cells: dict[str, str] = {}
    for cell in notebook["cells"]:
        if not isinstance(cell, dict) or cell.get("cell_type") != "code":
            continue
        metadata = cell.get("metadata")
        grader = metadata.get("nbgrader") if isinstance(metadata, dict) else None
        if given and isinstance(grader, dict) and grader.get("solution"):
            continue
        source = cell.get("source")
        if isinstance(source, list) and all(isinstance(line, str) for line in source):
            source = "".join(source)
        if isinstance(source, str):
            cells[f"{'given' if given else 'code'} cell {len(cells) + 1}"] = source
    if len(cells) > MAX_CELLS or sum(map(len, cells.values())) > MAX_SOURCE:
        raise ValueError(f"the notebook has more than {MAX_CELLS} code cells or {MAX_SOURCE} characters of code")
    return cells


@dataclass(frozen=True)
class Statement:
    """A top-level import, definition or assignment."""

    cell: str
    node: ast.stmt
    binds: frozenset[str]
    uses: frozenset[str]


def parse(cells: dict[str, str]) -> tuple[list[Statement], list[str]]:
    """The top-level imports, definitions and assignments, and what was wrong with cells that do not parse."""
    statements, problems = [], []
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign, ast.AugAssign)
    for cell, source in cells.items():
        try:
            body = ast.parse(re.sub(r"(?m)^\s*[%!].*$", "pass", source)).body  # IPython's magics and shell lines
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
            problems.append(f"{cell}{line} does not parse: {type(error).__name__}: {error}"[:300])
            continue
        statements += [Statement(cell, node, *_names(node)) for node in body if isinstance(node, kinds)]
    return statements, problems


def select(statements: list[Statement], name: str) -> list[Statement]:
    """Those that ``name`` needs, in order.

    A statement is needed if it binds a name that a needed statement uses; the last definition of a name is executed
    last, so it wins.
    """
    needed, chosen, grown = {name, "*"}, set(), True
    while grown:
        grown = False
        for i, statement in enumerate(statements):
            if i not in chosen and statement.binds & needed:
                chosen.add(i)
                needed |= statement.uses
                grown = True
    return [statements[i] for i in sorted(chosen)]


def execute(statements: list[Statement], namespace: dict) -> list[str]:
    """Run the statements one by one in the namespace; what fails is left out and told."""
    problems = []
    for statement in statements:
        try:
            exec(compile(ast.Module([statement.node], []), f"<{statement.cell}>", "exec"), namespace)
        except BaseException as error:  # also SystemExit: it is student's code
            problems.append(f"{statement.cell}, line {statement.node.lineno}: {describe(error)}")
    return problems


def describe(error: BaseException) -> str:
    """Type and message of an error, and the line of the notebook that it came from; never raises."""
    try:
        where, step = "", error.__traceback__
        while step is not None:
            if (file := step.tb_frame.f_code.co_filename).startswith(("<code cell", "<given cell")):
                where = f" ({file[1:-1]}, line {step.tb_lineno}, in {step.tb_frame.f_code.co_name})"
            step = step.tb_next
        return f"{type(error).__name__}: {error}{where}"[:2000]
    except BaseException:
        return "an error that cannot be printed"


def _names(statement: ast.stmt) -> tuple[frozenset[str], frozenset[str]]:
    """Names that a top-level statement binds, and names that it uses."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return frozenset(alias.asname or alias.name.split(".")[0] for alias in statement.names), frozenset()
    used = frozenset(node.id for node in ast.walk(statement) if isinstance(node, ast.Name))
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return frozenset([statement.name]), used
    targets: list[Any] = (
        statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    )
    return frozenset(n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)), used
