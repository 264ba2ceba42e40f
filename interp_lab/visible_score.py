"""What a student sees of the grade: the check cells of a notebook, run on the student's own machine, without a sandbox.

The scores of all exercises are kept in ``progress.json`` beside the notebooks. They say which checks passed and have no
part in the grade, which comes from hidden inputs.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .notebook import checksum, is_by_hand

PROGRESS = "progress.json"
OPEN = "no answer yet"  # what a check says of a question that nobody has begun


@dataclass(frozen=True)
class Score:
    """The visible score of one notebook.

    Attributes:
        checks: of each check cell its name, the points earned and possible, and what it said, ``""`` if it passed.
        by_hand: points of the questions that an instructor marks.
    """

    exercise: str
    checks: list[tuple[str, float, float, str]]
    by_hand: float

    @property
    def earned(self) -> float:
        return sum(earned for _, earned, _, _ in self.checks)

    @property
    def points(self) -> float:
        return sum(points for _, _, points, _ in self.checks)

    def __str__(self) -> str:
        lines = [self.exercise]
        for name, earned, points, said in self.checks:
            state = "open" if said == OPEN else "failed" if said else "passed"
            lines.append(f"  {state:6}  {name:12} {earned:4g} of {points:g}")
            lines += [f"          {line}" for line in said.splitlines() if said != OPEN]
        by_hand = f"; {self.by_hand:g} more are marked by hand" if self.by_hand else ""
        return "\n".join([*lines, f"Visible score: {self.earned:g} of {self.points:g} points{by_hand}."])


def visible_score(path: Path, *, seconds: int = 120) -> Score:
    """Run a copy of a notebook from top to bottom and collect what its check cells say; the file stays as it is.

    A cell that fails does not stop the others; one that runs longer than ``seconds`` is interrupted.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no notebook of the course, its kernel died, or Jupyter is not installed.
    """
    try:
        import nbformat
        from nbclient import NotebookClient
        from nbclient.exceptions import DeadKernelError
    except ImportError as error:
        raise ValueError(f"running a notebook needs Jupyter: pip install notebook ({error})") from None
    from tqdm import tqdm

    try:
        notebook = nbformat.read(path, as_version=4)
    except (ValueError, nbformat.ValidationError) as error:
        raise ValueError(f"{path} is not a notebook: {error}") from None
    graders = [cell.metadata.get("nbgrader", {}) for cell in notebook.cells]
    points = sum(g.get("points", 0) for g in graders if g.get("grade") and not g["solution"])
    if not points:
        raise ValueError(f"{path} has no check cells; is it a notebook of exercises/?")
    with tqdm(total=len(notebook.cells), desc=path.stem, unit="cell", leave=False) as bar:
        client = NotebookClient(
            notebook,
            timeout=seconds,
            interrupt_on_timeout=True,
            allow_errors=True,
            extra_arguments=["--log-level=ERROR"],  # ipykernel warns of its local TCP socket at every start
            resources={"metadata": {"path": str(path.resolve().parent)}},
            on_cell_complete=lambda cell, cell_index: bar.update(),
        )
        try:
            client.execute()
        except DeadKernelError:
            raise ValueError(
                f"the kernel of {path} died; run the notebook in Jupyter to see which cell does it"
            ) from None
    checks = []
    for cell, grader in zip(notebook.cells, graders, strict=True):
        if grader.get("grade") and not grader["solution"]:
            errors = [output for output in cell.outputs if output.output_type == "error"]
            said = "\n".join(error.evalue or error.ename for error in errors)
            if any(error.ename == "NotImplementedError" for error in errors):
                said = OPEN
            if grader.get("checksum") not in (None, checksum(cell)):
                said = "This check was edited. Copy the cell again from the exercise as it was given out."
            checks.append((grader["grade_id"], 0.0 if said else grader["points"], grader["points"], said))
    return Score(path.stem, checks, sum(grader["points"] for grader in graders if is_by_hand(grader)))


def as_graded(path: Path, *, seconds: int = 120) -> str:
    """The checks with the functions as the grader takes them from the notebook; see `interp_lab.as_graded`.

    Raises:
        ValueError: it is no notebook, or took longer than ``seconds`` for every check.
    """
    checks = path.read_text(encoding="utf-8").count("check.question(")
    command = [sys.executable, "-m", "interp_lab.as_graded", str(path.resolve())]
    try:
        done = subprocess.run(
            command,
            cwd=path.resolve().parent,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=seconds * (checks + 1),
        )
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"{path} as graded took longer than {seconds} seconds for each of its {checks} checks"
        ) from None
    if done.returncode:
        raise ValueError(f"{path} as graded: {done.stderr.strip()[-500:]}")
    return f"As graded:\n{done.stdout.rstrip()}"


def remember(score: Score, folder: Path) -> None:
    """Write the score into the folder's progress file, whole or not at all."""
    scores = progress(folder) | {score.exercise: {"earned": score.earned, "points": score.points}}
    part = folder / f"{PROGRESS}.part"
    part.write_text(json.dumps(scores, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(part, folder / PROGRESS)


def progress(folder: Path) -> dict[str, dict[str, float]]:
    """The scores of the folder's progress file by exercise; none if there is no file yet.

    Raises:
        ValueError: the file is not what `remember` writes.
    """
    path = folder / PROGRESS
    if not path.exists():
        return {}
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
        found = {name: {key: float(score[key]) for key in ("earned", "points")} for name, score in scores.items()}
        if not all(
            name.isprintable() and 0 <= s["earned"] <= s["points"] and 0 < s["points"] < 1e6
            for name, s in found.items()
        ):
            raise ValueError
        return found
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise ValueError(f"{path} cannot be read; delete it, and check the exercises again to have a new one") from None


def bars(folder: Path, *, width: int = 30, full: str = "█", empty: str = "░") -> str:
    """A line with a bar for every exercise of the folder."""
    scores = progress(folder)
    names = sorted({path.stem for path in folder.glob("[0-9][0-9]_*.ipynb")} | scores.keys())
    if not names:
        raise ValueError(f"no exercises in {folder.resolve()}; name a notebook, or go to the folder that holds them")
    longest, lines = max(map(len, names)), []
    for name in names:
        done, text = 0, "not checked yet"
        if score := scores.get(name):
            done = int(width * score["earned"] / score["points"])
            text = f"{score['earned']:g} of {score['points']:g} points"
        lines.append(f"{name:{longest}}  {full * done}{empty * (width - done)}  {text}")
    return "\n".join(lines)
