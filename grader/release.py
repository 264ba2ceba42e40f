"""Exercises from solutions: ``python -m grader.release [--check]`` in the root of the course.

``solutions/NN_topic/solution.ipynb`` is an executed notebook with nbgrader's cell metadata (schema version 3) and marks;
``exercises/NN_topic.ipynb`` is the student's edition of it, equal byte for byte on every run. The marks are lines that
contain these words, in a comment of the cell's language:

==================================== ======================== ===================================================
region                               in                       becomes
==================================== ======================== ===================================================
BEGIN SOLUTION ... END SOLUTION      every solution cell      ``raise NotImplementedError()``, or a line of text
BEGIN HIDDEN TESTS ... END           test cells (grade)       nothing
BEGIN MARK SCHEME ... END            task cells               nothing
BEGIN SCAFFOLD ... END SCAFFOLD      code solution cells      its lines, uncommented, in place of the error above
==================================== ======================== ===================================================

All but the scaffold is what ``nbgrader generate_assignment`` does, and nbgrader opens the result. Links to the book
lose one ``../``, since an exercise lies one folder higher than its solution.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping
from copy import deepcopy
from itertools import pairwise
from pathlib import Path

from interp_lab.notebook import CODE_STUB, TEXT_STUB, checksum, source

from .exercise import Exercise

# What a hosted notebook installs, pinned: a requirement such as "interp_lab @ git+https://...@v0.1.0". Empty until the
# course has a public address; the install cell then only says whether the package is there.
INSTALL = ""

INLINE = 24  # characters of a line; a longer one is an answer within a sentence, too

KEYS = {"schema_version", "grade", "solution", "locked", "task", "grade_id", "points", "checksum", "cell_type"}


def release(notebook: dict) -> dict:
    """The student's edition of a solution notebook (nbformat 4.5, as parsed JSON).

    Solutions, hidden tests, mark schemes and outputs are gone, cells are locked as nbgrader locks them, and the
    checksums are those of the new sources. The cell with the id ``install`` gets the text of `install_cell`.

    Raises:
        ValueError: the metadata or the marks of a cell are not what nbgrader expects; the message names the cell.
    """
    if (notebook.get("nbformat"), notebook.get("nbformat_minor")) != (4, 5):
        got = f"{notebook.get('nbformat')}.{notebook.get('nbformat_minor')}"
        raise ValueError(f"a solution must be in nbformat 4.5 (cells with ids), got {got}; save it again in JupyterLab")
    released, seen = [], set()
    for number, cell in enumerate(notebook["cells"]):
        grader = cell["metadata"].get("nbgrader")
        where = f"cell {number} ({grader.get('grade_id') if grader else cell['id']})"
        if grader is not None:
            _check(cell, grader, where)
            if grader["grade_id"] in seen:
                raise ValueError(f"{where}: this grade_id is used twice; every cell needs its own")
            seen.add(grader["grade_id"])
        released.append(_release_cell(cell, grader or {}, where))
    kernel = notebook["metadata"]["kernelspec"]
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": released, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def install_cell() -> str:
    """Source of the first cell of every exercise: installs the pinned package where it is missing, or says how."""
    install = (
        f'    %pip install -q "{INSTALL}"'
        if INSTALL
        else '    raise ModuleNotFoundError("interp_lab is missing: run `pip install .` in a copy of the course")'
    )
    test = 'if importlib.util.find_spec("interp_lab") is None:'
    return "\n".join(
        ["# The package of the course, where it is not installed yet.", "import importlib.util", "", test, install]
    )


def dumps(notebook: dict) -> str:
    """The notebook as the one text that it is written as: sorted keys, lines of source as a list, like Jupyter."""
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def cell_name(cell: dict) -> str:
    """Its grade_id, which an author can change in Jupyter, or else its id, which Jupyter chooses."""
    return cell["metadata"].get("nbgrader", {}).get("grade_id", cell["id"])


def answers(solution: dict) -> list[str]:
    """Lines of solutions, hidden tests and mark schemes in order; short ones say nothing."""
    removed, inside = [], False
    for line in "\n".join(map(source, solution["cells"])).split("\n"):
        if re.search("(BEGIN|END) (SOLUTION|HIDDEN TESTS|MARK SCHEME)", line):
            inside = "BEGIN" in line
        elif inside and len(line.strip()) > 12:
            removed.append(" ".join(line.split()))
    return removed


def pieces(solution: dict) -> set[str]:
    """Text that only the solution holds. A line alone, such as one that makes a generator, is also written by others;
    a long one and two in a row are not."""
    lines = answers(solution)
    pairs = {f"{line} {after}" for line, after in pairwise(lines)}
    return {piece for piece in pairs if len(piece) > 36} | {line for line in lines if len(line) > 60}


def leaks(
    solution: dict,
    exercise: dict,
    by_hand: Mapping[tuple[str, str], list[float]] | None = None,
    *,
    longer_than: int = 12,
) -> list[str]:
    """What the exercise gives away of a solution, in sentences that name the cell.

    Args:
        by_hand: numbers that functions have to give, by question and name. They are looked for in the prose and in the
            question's own cells, since other code may hold them by chance; fewer than three may stand anywhere, unless
            one of them has three decimals.
        longer_than: of a single line, in characters; a short one in another exercise is no answer. Longer than
            ``INLINE`` it is one also within a sentence, or in a message of a check.
    """
    given = {
        " ".join(line.split())
        for cell in solution["cells"]
        if cell["cell_type"] == "code" and not cell["metadata"].get("nbgrader", {}).get("solution")
        for line in _replace(source(cell), "HIDDEN TESTS", lambda *_: [], cell["id"]).split("\n")
    }
    secret = {line for line in answers(solution) if len(line) > longer_than} - given
    whole = pieces(solution) | {line for line in secret if len(line) > max(longer_than, INLINE)}
    printed = {
        " ".join(line.split())
        for cell in solution["cells"]
        for output in cell.get("outputs", [])
        for line in "".join(output.get("text", "")).splitlines()
        if len(line.strip()) > 12 and line.strip() not in source(cell)
    }
    found = []
    for cell in exercise["cells"]:
        text = re.sub(r"data:image/[^)]*", "", source(cell))
        lines, where = [" ".join(line.split()) for line in text.split("\n")], f"the cell {cell_name(cell)}"
        text = " ".join(re.sub(r"""(["'])\n\s*f?\1""", "", text).split())  # a message over several lines is one
        shown = secret & set(lines) | {piece for piece in whole if piece in text}
        found += [f"{where} shows the answer's text: {line}" for line in sorted(shown)]
        found += [f"{where} shows what the solution prints: {line}" for line in sorted(printed) if line in text]
        for (question, name), numbers in (by_hand or {}).items():
            own = cell["cell_type"] == "markdown" or cell_name(cell).startswith(f"q{question}")
            found += [f"{where} shows the result of {name}()"] * (own and _shows(text, numbers))
        if cell.get("outputs") or cell.get("execution_count"):
            found.append(f"{where} has an output")
    return found


def _shows(text: str, numbers: list[float]) -> bool:
    """Whether these numbers stand in a row."""
    if len(numbers) < 3 and all(abs(number * 100 - round(number * 100)) < 1e-6 for number in numbers):
        return False
    there = [float(number) for number in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?", text)]
    rows = (there[start : start + len(numbers)] for start in range(len(there) - len(numbers) + 1))
    return any(max(abs(a - b) for a, b in zip(row, numbers, strict=True)) < 1e-4 for row in rows)


def _check(cell: dict, grader: dict, where: str) -> None:
    """Refuse metadata that nbgrader would refuse, or would take and grade otherwise than meant."""
    kind = cell["cell_type"]
    grade, solution, locked = (grader.get(key) for key in ("grade", "solution", "locked"))
    task = grader.get("task", False)
    wrong = [
        (set(grader) - KEYS, f"unknown keys {sorted(set(grader) - KEYS)}; nbgrader's are {sorted(KEYS)}"),
        (grader.get("schema_version") != 3, f"schema_version must be 3, got {grader.get('schema_version')!r}"),
        (
            not all(isinstance(flag, bool) for flag in (grade, solution, locked, task)),
            "grade, solution, locked and task must be true or false",
        ),
        (
            not re.fullmatch(r"[a-zA-Z0-9_-]+", str(grader.get("grade_id", ""))),
            f"grade_id must be letters, digits, - and _, got {grader.get('grade_id')!r}",
        ),
        (not (grade or solution or locked or task), "none of grade, solution, locked and task; drop the metadata"),
        (task and (grade or solution or kind != "markdown"), "a task is a markdown cell, neither grade nor solution"),
        (task and not locked, "a task must be locked, or its text is the student's"),
        (kind == "markdown" and grade != solution, "a markdown answer must be both grade and solution"),
        ((grade or task) and "points" not in grader, "graded, but without points"),
        (not grade and not task and "points" in grader, "has points, but is neither a grade nor a task cell"),
    ]
    for is_wrong, message in wrong:
        if is_wrong:
            raise ValueError(f"{where}: {message}")
    points = grader.get("points", 0)
    if isinstance(points, bool) or not isinstance(points, int | float) or not 0 <= points < float("inf"):
        raise ValueError(f"{where}: points must be a number from 0, got {points!r}")


def _release_cell(cell: dict, grader: dict, where: str) -> dict:
    code = cell["cell_type"] == "code"
    text = install_cell() if cell["id"] == "install" else source(cell)
    has = {name for name in ("SOLUTION", "HIDDEN TESTS", "MARK SCHEME", "SCAFFOLD") if f"BEGIN {name}" in text}
    home = {
        "SOLUTION": grader.get("solution"),
        "HIDDEN TESTS": grader.get("grade"),
        "MARK SCHEME": grader.get("task"),
        "SCAFFOLD": grader.get("solution") and code and "SOLUTION" in has,
    }
    for name in sorted(has):
        if not home[name]:
            raise ValueError(f"{where}: a {name} region does not belong in a cell of this kind")
    if grader.get("solution") and "SOLUTION" not in has:
        raise ValueError(f"{where}: a solution cell without a line BEGIN SOLUTION would be released whole")

    stub = [] if "SCAFFOLD" in has else CODE_STUB if code else TEXT_STUB
    text = _replace(text, "SOLUTION", lambda indent, _: [indent + line for line in stub], where)
    text = _replace(text, "SCAFFOLD", lambda indent, lines: _uncomment(indent, lines, where), where)
    text = _replace(text, "HIDDEN TESTS", lambda *_: [], where)
    text = _replace(text, "MARK SCHEME", lambda *_: [], where)
    text = text if code else text.replace("](../../", "](../")

    new = {"id": cell["id"], "cell_type": cell["cell_type"]}
    if pictures := {k: v for k, v in cell.get("attachments", {}).items() if f"attachment:{k}" in text}:
        new["attachments"] = pictures  # those of a removed region would give the answer away
    new["source"] = text.splitlines(keepends=True)
    new["metadata"] = {
        k: v for k, v in deepcopy(cell["metadata"]).items() if k not in ("execution", "collapsed", "scrolled")
    }
    if code:
        new |= {"execution_count": None, "outputs": []}
    if grader:
        new["metadata"]["deletable"] = False
        if not grader["solution"]:
            new["metadata"]["editable"] = False
        new["metadata"]["nbgrader"] |= {"checksum": checksum(new), "cell_type": cell["cell_type"]}
    return new


def _replace(text: str, region: str, replacement: Callable[[str, list[str]], list[str]], where: str) -> str:
    """The text with every region, its marks included, replaced by ``replacement(indent of the mark, lines)``."""
    kept: list[str] = []
    inside: list[str] | None = None
    indent = ""
    for line in text.split("\n"):
        if f"BEGIN {region}" in line:
            if inside is not None:
                raise ValueError(f"{where}: BEGIN {region} inside another {region} region")
            inside, indent = [], line[: len(line) - len(line.lstrip())]
        elif f"END {region}" in line:
            if inside is None:
                raise ValueError(f"{where}: END {region} without BEGIN {region}")
            kept += replacement(indent, inside)
            inside = None
        else:
            (kept if inside is None else inside).append(line)
    if inside is not None:
        raise ValueError(f"{where}: BEGIN {region} without END {region}")
    return "\n".join(kept)


def _uncomment(indent: str, lines: list[str], where: str) -> list[str]:
    for line in lines:
        if not re.match(r"\s*#", line):
            raise ValueError(f"{where}: a line of a scaffold must be a comment, got {line!r}")
    return [indent + CODE_STUB[0]] + [re.sub(r"^(\s*)# ?", r"\1", line).rstrip() for line in lines]


def main(arguments: list[str] | None = None) -> int:
    """Write ``exercises/`` from ``solutions/`` of the current folder and print what changed.

    With ``--check`` nothing is written. Returns 1 if an exercise was stale (with ``--check``) or has no solution, or the
    points of its check cells are not those of its graded questions.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments not in ([], ["--check"]):
        print("usage: python -m grader.release [--check]", file=sys.stderr)
        return 2
    solutions = {path.parent.name: path for path in sorted(Path("solutions").glob("*/solution.ipynb"))}
    if not solutions:
        print("no solutions/*/solution.ipynb here: run this in the root of the course", file=sys.stderr)
        return 2
    stale = 0
    for name, path in solutions.items():
        target = Path("exercises", f"{name}.ipynb")
        try:
            text = dumps(release(json.loads(path.read_text(encoding="utf-8"))))
            if (path.parent / "questions.py").exists():
                Exercise.read(path.parent).agree()
        except ValueError as error:
            print(f"{path}: {error}", file=sys.stderr)
            return 1
        if target.exists() and target.read_text(encoding="utf-8") == text:
            print(f"{target}: unchanged")
        elif arguments:
            stale += 1
            print(f"{target}: stale, run `make exercises`")
        else:
            print(f"{target}: {'rewritten' if target.exists() else 'new'}")
            target.parent.mkdir(exist_ok=True)
            target.write_text(text, encoding="utf-8", newline="\n")
    for orphan in sorted({path.stem for path in Path("exercises").glob("*.ipynb")} - solutions.keys()):
        stale += 1
        print(f"exercises/{orphan}.ipynb: there is no solutions/{orphan}/solution.ipynb; delete it")
    return int(stale > 0)


if __name__ == "__main__":
    sys.exit(main())
