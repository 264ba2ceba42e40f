"""Every exercise, tried on its solution, on right answers written differently and on wrong ones that students write.

The answers are data, in ``solutions/NN_topic/corpus.py``:

- ``SETTING``: ids of the given code cells that the visible checks need besides the answers.
- ``EMPTY``: of each question the signature, and an expression of a plausible kind that is wrong.
- ``RIGHT``: question, name, source of the answer cell.
- ``WRONG``: question, name, text of the model answer and what stands in its place; the visible check that catches it
  and words of its message; the graded parts that it loses and words of their feedback. Either may be empty: some
  mistakes only the student sees before handing in, some only the grader sees.
"""

import base64
import contextlib
import io
import json
import math
import os
import re
import runpy
import shutil
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from grader.calls import perform
from grader.exercise import Exercise, references
from grader.question import generator, mark
from interp_lab import extract

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(path for path in (ROOT / "solutions").iterdir() if path.is_dir())
NAMES = [path.name for path in FOLDERS]
EXERCISES = {path.name: Exercise.read(path) for path in FOLDERS}
CORPUS = {path.name: SimpleNamespace(**runpy.run_path(str(path / "corpus.py"))) for path in FOLDERS}
RIGHT = [pytest.param(name, *row, id=f"{name[:2]}-{row[0]} {row[1]}") for name in NAMES for row in CORPUS[name].RIGHT]
WRONG = [
    pytest.param(name, *row, id=f"{name[:2]}-{row[0]} {row[1]}", marks=[pytest.mark.trains] * (name == "14_roar"))
    for name in NAMES
    for row in CORPUS[name].WRONG
]
ONE_SIDED = [row for row in WRONG if not (row.values[5] and row.values[7])]
GRADED = [
    pytest.param(name, question, id=f"{name[:2]}-{question.name}")
    for name in NAMES
    for question in EXERCISES[name].questions
]
BODIES = ["raise NotImplementedError()", "return 0 * {0}", "return {0}", "return None"]


@cache
def notebook(folder, name):
    path = ROOT / folder / (f"{name}/solution.ipynb" if folder == "solutions" else f"{name}.ipynb")
    return json.loads(path.read_text(encoding="utf-8"))


@cache
def code(folder, name):
    cells = notebook(folder, name)["cells"]
    return {cell["id"]: "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"}


def kinds(parts):
    return set(re.findall(r"side effects|\w+", parts))


def checks(name, question=""):
    """The ids of the visible checks of a question, or of all."""
    return [cell for cell in code("solutions", name) if re.fullmatch(rf"q{question or '.*'}[a-z]?-check", cell)]


def answers(name):
    return [cell for cell in code("solutions", name) if cell.endswith("-answer")]


def said(name, check, **changed):
    """What the check cell says, "" if it passes, with the given sources in place of the model answers."""
    cells = code("solutions", name)
    namespace, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        for cell in CORPUS[name].SETTING + answers(name):
            exec(changed.get(cell.replace("-", "_"), cells[cell]), namespace)
        try:
            exec(cells[check], namespace)
        except (AssertionError, NotImplementedError) as error:
            return str(error) or "nothing"
    assert f"Question {check.removeprefix('q').removesuffix('-check')}: passed." in printed.getvalue()
    return ""


def lost(lane, name, question, source=None, *, student="anna", **changed):
    """The parts of a question that are wrong with these sources in place of the solution's, with what is wrong."""
    given, functions = references(EXERCISES[name])
    changed |= {} if source is None else {f"q{question.name}_answer": source}
    solution = {cell: changed.get(cell.replace("-", "_"), own) for cell, own in code("solutions", name).items()}
    cells = given | {f"code cell {i}": source for i, source in enumerate(solution.values(), 1)}
    faults = mark((question,), b"key", (name, student), lambda c: lane.run(cells, c), functions, threading.Lock())
    return {part.kind: fault for part, fault in zip(question.parts, faults[question.name], strict=True) if fault}


def asked(name, question):
    return next(q for q in EXERCISES[name].questions if q.name == question)


@pytest.mark.trains
@pytest.mark.parametrize("name", NAMES)
def test_the_model_answers_pass_every_visible_check(name):
    assert [said(name, check) for check in checks(name)] == [""] * len(checks(name))


@pytest.mark.trains
@pytest.mark.parametrize(("name", "question"), GRADED)
def test_the_model_answers_get_all_points(lane, name, question):
    for student in ("anna", "ben", "cem"):
        assert lost(lane, name, question, student=student) == {}


@pytest.mark.trains
@pytest.mark.parametrize(("name", "question", "_", "source"), RIGHT)
def test_other_right_answers_pass_and_get_all_points(lane, name, question, _, source):
    for check in checks(name, question):
        assert said(name, check, **{f"q{question}_answer": source}) == ""
    assert lost(lane, name, asked(name, question), source) == {}


@pytest.mark.parametrize(("name", "question", "_", "old", "new", "check", "words", "parts", "feedback"), WRONG)
def test_wrong_answers_are_told_why_and_lose_the_points_of_the_right_parts(
    lane, name, question, _, old, new, check, words, parts, feedback
):
    source = code("solutions", name)[f"q{question}-answer"]
    assert old in source
    assert check or parts
    wrong = source.replace(old, new)
    if check:
        message = said(name, f"{check}-check", **{f"q{question}_answer": wrong})
        assert message.startswith(f"Question {check.removeprefix('q')}:")
        assert words in message
    if parts:
        faults = lost(lane, name, asked(name, question), wrong)
        assert set(faults) == kinds(parts)
        assert any(feedback in fault for fault in faults.values())


@pytest.mark.exhaustive
@pytest.mark.parametrize(("name", "question", "_", "old", "new", "check", "words", "parts", "feedback"), ONE_SIDED)
def test_the_hidden_tests_contain_the_visible_checks(lane, name, question, _, old, new, check, words, parts, feedback):
    """What a visible check refuses never gets all points, and what all visible checks pass never gets none."""
    wrong = code("solutions", name)[f"q{question}-answer"].replace(old, new)
    if check:
        assert lost(lane, name, asked(name, question), wrong)
    elif kinds(parts) == {part.kind for part in asked(name, question).parts}:
        assert any(said(name, each, **{f"q{question}_answer": wrong}) for each in checks(name, question))


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize(("name", "question"), GRADED)
def test_empty_answers_fail_every_check_and_get_nothing(lane, name, question, body):
    signature, value = CORPUS[name].EMPTY[question.name]
    empty = f"def {signature}:\n    {body.format(value)}"
    for check in checks(name, question.name):
        message = said(name, check, **{f"q{question.name}_answer": empty})
        assert message.startswith("Question")
        assert ("is not written yet" in message) == ("raise" in body)
    faults = lost(lane, name, question, empty)
    assert len(faults) == len(question.parts)
    if "raise" in body:
        assert all("There is no answer yet (code cell" in fault for fault in faults.values())


@pytest.mark.parametrize("seed", range(5))
def test_checks_of_random_numbers_do_not_depend_on_luck(seed):
    name = "01_saliency_and_smoothgrad"
    model_answer = code("solutions", name)["q4-answer"]
    other = model_answer.replace("manual_seed(seed)", f"manual_seed(seed + {1000 * seed + 17})")
    assert other != model_answer
    for check in ("q4b-check", "q5b-check"):
        assert said(name, check, q4_answer=other) == ""


@pytest.mark.slow
@pytest.mark.parametrize(("question", "function"), [("4", "retrain"), ("5", "roar")])
def test_trained_accuracies_tell_right_answers_from_wrong_ones(question, function, seed, verdict):
    """How far answers are from the recipe's accuracies, over the tolerance, for the student whose name is the seed."""
    name = "14_roar"
    given, functions = references(EXERCISES[name])
    answer = code("solutions", name)[f"q{question}-answer"]
    tolerance = runpy.run_path(str(ROOT / "solutions" / name / "questions.py"))["TOLERANCE"]
    right = [row[2] for row in CORPUS[name].RIGHT if row[0] == question]
    wrong = {row[1]: row for row in CORPUS[name].WRONG if row[0] == question and row[7] == "largest difference"}

    def distances(source, calls):
        cells = given | {str(i): cell for i, cell in enumerate([*code("solutions", name).values(), source])}
        namespace = {"__name__": "answer"}
        extract.execute(extract.select(extract.parse(cells)[0], function), namespace)
        pairs = ((perform(f[function], call).result for f in (namespace, functions)) for call in calls)
        return max((a - b).abs().max().item() for a, b in pairs) / tolerance

    for part in asked(name, question).parts:
        calls = part.draw(generator(b"key", name, str(seed), question, part.kind))
        verdict(f"{part.kind}: of the farthest right answer", max(distances(s, calls) for s in right), below=1)
        losing = [answer.replace(row[2], row[3]) for row in wrong.values() if part.kind in kinds(row[6])]
        nearest = min(distances(source, calls) for source in losing)
        verdict(f"{part.kind}: log10 of the nearest wrong answer", math.log10(max(nearest, 1e-9)), above=0)


def test_wrong_gradients_by_hand_are_named_but_not_corrected():
    wrong = "def gradient_a(): return [0, 0, 0]"
    assert "expected -3" not in said("01_saliency_and_smoothgrad", "q1a-check", q1a_answer=wrong)


@pytest.mark.parametrize("name", NAMES)
def test_there_are_enough_answers_to_every_question(name):
    corpus = CORPUS[name]
    for question in EXERCISES[name].questions:
        assert sum(row[0] == question.name for row in corpus.RIGHT) >= 3, question.name
        assert sum(row[0] == question.name and bool(row[6]) for row in corpus.WRONG) >= 5, question.name
    assert set(corpus.EMPTY) == {question.name for question in EXERCISES[name].questions}


@pytest.mark.parametrize("name", NAMES)
def test_the_untouched_exercise_fails_in_every_check_with_a_message_that_helps(name):
    cells, namespace, heard = code("exercises", name), {}, {}
    for cell in CORPUS[name].SETTING + answers(name) + checks(name):
        try:
            exec(cells[cell], namespace)
        except (AssertionError, NotImplementedError) as error:
            heard[cell] = str(error)
    for check in checks(name):
        assert "is not written yet" in heard[check]
    first = checks(name)[0]
    with pytest.raises(AssertionError, match=f"Question {first[1:-6]}: .* is not defined"):
        exec(cells[first], {key: namespace[key] for key in namespace if key not in graded_names(name)})


def graded_names(name):
    """What the answer cells of the solution define."""
    cells = {cell: code("solutions", name)[cell] for cell in answers(name)}
    statements, _ = extract.parse(cells)
    return {bound for statement in statements for bound in statement.binds}


@pytest.mark.parametrize("name", NAMES)
def test_points_and_minutes_add_up(name):
    """The title's table has the points of the test cells, and the grader's questions have them too."""
    cells = [cell["metadata"].get("nbgrader", {}) for cell in notebook("solutions", name)["cells"]]
    total = sum(cell.get("points", 0) for cell in cells)
    rows = [row.split("|") for row in "".join(notebook("solutions", name)["cells"][0]["source"]).splitlines()]
    (last,) = [row for row in rows if "together" in "|".join(row)]
    parts = [row for row in rows if "★" in "|".join(row)]
    assert float(last[3]) == sum(float(row[3]) for row in parts) == total
    assert float(last[4]) == sum(float(row[4]) for row in parts)
    by_question = {question.name: 0 for question in EXERCISES[name].questions}
    for cell in cells:
        if cell.get("grade") and not cell["solution"]:
            question = cell["grade_id"].removeprefix("q").removesuffix("-check")
            by_question[question if question in by_question else question[:-1]] += cell["points"]
    assert by_question == {question.name: question.points for question in EXERCISES[name].questions}


def picture(png):
    """The picture as a reader sees it, small."""
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").resize((96, 64))
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).float() / 255


@pytest.mark.parametrize("name", NAMES)
def test_the_picture_beside_a_task_is_what_the_solution_draws(name):
    cells = {cell["id"]: cell for cell in notebook("solutions", name)["cells"]}
    shown = [cell for cell in cells if re.fullmatch(r"q\d+-picture", cell)]
    assert shown
    for cell in shown:
        (png,) = re.findall(r"!\[[^\]]+\]\(data:image/png;base64,([^)]+)\)", "".join(cells[cell]["source"]))
        outputs = [output.get("data", {}) for output in cells[cell.replace("picture", "figure")]["outputs"]]
        (drawn,) = [data["image/png"] for data in outputs if "image/png" in data]
        assert (picture(png) - picture("".join(drawn))).abs().mean() < 0.01, cell


@pytest.fixture(scope="module")
def kernel():
    """One for all exercises, since it takes seconds to start and to import torch."""
    from jupyter_client import KernelManager

    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    yield manager
    manager.shutdown_kernel(now=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_untouched_exercise_raises_nothing_else_in_a_kernel(name, kernel):
    import nbformat
    from nbclient import NotebookClient

    released = nbformat.read(ROOT / "exercises" / f"{name}.ipynb", as_version=4)
    released.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
    NotebookClient(released, km=kernel, allow_errors=True, timeout=300).execute()
    for cell in released.cells:
        if cell.cell_type == "code":
            errors = [output for output in cell.outputs if output.output_type == "error"]
            assert all(error.ename in ("NotImplementedError", "AssertionError") for error in errors), (cell.id, errors)
            assert bool(errors) >= cell.id.endswith("-check"), cell.id
            assert not [o for o in cell.outputs if o.output_type == "stream" and o.name == "stderr"], cell.id


@pytest.mark.slow
@pytest.mark.parametrize("name", [NAMES[0], NAMES[-1]])  # nbval runs the cells of them all
def test_nbgrader_validates_the_answered_exercise(name, tmp_path):
    import nbformat
    from nbgrader.validator import Validator

    released = nbformat.read(ROOT / "exercises" / f"{name}.ipynb", as_version=4)
    solved = nbformat.read(ROOT / "solutions" / name / "solution.ipynb", as_version=4)
    for cell, answer in zip(released.cells, solved.cells, strict=True):
        if cell.metadata.get("nbgrader", {}).get("solution"):
            cell.source = answer.source
    path = tmp_path / f"{name}.ipynb"
    nbformat.write(released, path)
    assert Validator().validate(str(path)) == {}


@pytest.mark.slow
def test_nbgrader_generates_and_autogrades_an_exercise(tmp_path):
    """Through nbgrader's own commands: the solution as a source, the released exercise answered and handed in."""
    from nbgrader.api import Gradebook

    name = "06_prototypes"
    source, handed_in = tmp_path / "source" / "week", tmp_path / "submitted" / "anna" / "week"
    for folder in (source, handed_in):
        folder.mkdir(parents=True)
    shutil.copy(ROOT / "solutions" / name / "solution.ipynb", source / f"{name}.ipynb")

    # nbgrader calls alembic by its name, which stands beside this Python whether or not the environment is active
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    def nbgrader(*command):
        command = [sys.executable, "-m", "nbgrader", *command]
        subprocess.run(command, cwd=tmp_path, env=os.environ | {"PATH": path}, check=True, timeout=300)

    nbgrader("generate_assignment", "week", "--create")
    released = json.loads((tmp_path / "release" / "week" / f"{name}.ipynb").read_text(encoding="utf-8"))
    answered = {c["id"]: c["source"] for c in notebook("solutions", name)["cells"]}
    for cell in released["cells"]:
        if cell["id"].endswith("-answer") and cell["id"] != "q3a-answer":  # one question is left open
            cell["source"] = answered[cell["id"]]
    (handed_in / f"{name}.ipynb").write_text(json.dumps(released), encoding="utf-8")
    nbgrader("autograde", "week", "--student", "anna")
    with Gradebook(f"sqlite:///{tmp_path}/gradebook.db") as gradebook_of_nbgrader:
        submission = gradebook_of_nbgrader.find_submission("week", "anna")
        scores = {grade.name: (grade.auto_score, grade.max_score) for grade in submission.notebooks[0].grades}
    checks_ = {cell: score for cell, score in scores.items() if cell.endswith("-check")}
    assert {cell for cell, (earned, points) in checks_.items() if earned == points} >= {"q1a-check", "q2a-check"}
    assert checks_["q3a-check"][0] == 0
