"""Every exercise, tried as `interp-lab check-exercise` does, and in Jupyter's and nbgrader's own programs."""

import base64
import io
import json
import math
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from grader.calls import perform
from grader.corpus import Corpus, kinds
from grader.exercise import references
from grader.question import generator
from interp_lab import extract

ROOT = Path(__file__).parents[2]
CORPUS = {path.name: Corpus(path) for path in sorted((ROOT / "solutions").iterdir()) if path.is_dir()}
NAMES = list(CORPUS)


def trials(*kinds, trains=()):
    """Those of all exercises, as parameters; ``trains`` names exercises whose trials train a network."""
    return pytest.mark.parametrize(
        "trial",
        [
            pytest.param(
                trial,
                id=f"{name[:2]}-{trial.question} {trial.name}",
                marks=[pytest.mark.trains] * (name in trains),
            )
            for name, corpus in CORPUS.items()
            for trial in corpus.trials()
            if trial.kind in kinds
        ],
    )


@trials("solution", trains=NAMES)
def test_the_model_answers_pass_every_visible_check_and_get_all_points(lane, trial):
    assert trial.faults(lane) == []


@trials("right", trains=NAMES)
def test_other_right_answers_pass_and_get_all_points(lane, trial):
    assert trial.faults(lane) == []


@trials("wrong", trains=["14_roar"])
def test_wrong_answers_are_told_why_and_lose_the_points_of_the_right_parts(lane, trial):
    assert trial.faults(lane) == []


@pytest.mark.exhaustive
@trials("contained", trains=["14_roar"])
def test_the_hidden_tests_contain_the_visible_checks(lane, trial):
    """What a visible check refuses never gets all points, and what all visible checks pass never gets none."""
    assert trial.faults(lane) == []


@trials("empty")
def test_empty_answers_fail_every_check_and_get_nothing(lane, trial):
    assert trial.faults(lane) == []


@trials("untouched", "enough", "title", "leaks")
def test_the_notebook_is_as_students_need_it(trial):
    """Its checks help who has written nothing, its points add up, it holds no answer, and the corpus is large enough."""
    assert trial.faults(None) == []


@pytest.mark.parametrize("seed", range(5))
def test_checks_of_random_numbers_do_not_depend_on_luck(seed):
    corpus = CORPUS["01_saliency_and_smoothgrad"]
    model_answer = corpus.cells["q4-answer"]
    other = model_answer.replace("manual_seed(seed)", f"manual_seed(seed + {1000 * seed + 17})")
    assert other != model_answer
    for check in ("q4b-check", "q5b-check"):
        assert corpus.said(check, q4_answer=other) == ""


@pytest.mark.exhaustive  # for `benchmarks.verdicts`: the trials above say of each answer on which side it is
@pytest.mark.parametrize(("question", "function"), [("4", "retrain"), ("5", "roar")])
def test_trained_accuracies_tell_right_answers_from_wrong_ones(question, function, seed, verdict):
    """How far answers are from the recipe's accuracies, over the tolerance, for the student whose name is the seed."""
    name, corpus = "14_roar", CORPUS["14_roar"]
    given, functions = references(corpus.exercise)
    answer = corpus.cells[f"q{question}-answer"]
    tolerance = runpy.run_path(str(ROOT / "solutions" / name / "questions.py"))["TOLERANCE"]
    right = [row[2] for row in corpus.right if row[0] == question]
    wrong = {row[1]: row for row in corpus.wrong if row[0] == question and row[7] == "largest difference"}

    def distances(source, calls):
        cells = given | {str(i): cell for i, cell in enumerate([*corpus.cells.values(), source])}
        namespace = {"__name__": "answer"}
        extract.execute(extract.select(extract.parse(cells)[0], function), namespace)
        pairs = ((perform(f[function], call).result for f in (namespace, functions)) for call in calls)
        return max((a - b).abs().max().item() for a, b in pairs) / tolerance

    for part in corpus.questions[question].parts:
        calls = part.draw(generator(b"key", name, str(seed), question, part.kind))
        verdict(f"{part.kind}: of the farthest right answer", max(distances(s, calls) for s in right), below=1)
        losing = [answer.replace(row[2], row[3]) for row in wrong.values() if part.kind in kinds(row[6])]
        nearest = min(distances(source, calls) for source in losing)
        verdict(f"{part.kind}: log10 of the nearest wrong answer", math.log10(max(nearest, 1e-9)), above=0)


@pytest.mark.trains  # nothing, but its numbers are those of trained networks, on any processor
def test_the_flaws_planted_in_the_capstone_are_what_its_tools_find():
    corpus, given = CORPUS["21_capstone"], {}
    for cell in ("imports", "suspects"):
        exec(corpus.cells[cell], given)
    _, functions = references(corpus.exercise)
    test = given["digits"]("test")
    changed = torch.stack([given["with_cue"](test.images, cue) for cue in range(7)])
    control = functions["rises"](given["networks"].load("digits_cnn"), test.images, changed, test.labels)
    truth = runpy.run_path(str(corpus.folder / "questions.py"))["TRUTH"]
    for number, (cue, named, rise, others) in enumerate(truth):
        own = functions["rises"](given["suspect"](number), test.images, changed, test.labels)
        assert functions["strongest"](own, control)[:2] == [cue, named]
        assert functions["strongest"](own, control)[3] > 0.4
        assert abs(own[0, cue, named] - rise) < 0.01  # half of what the judge allows
        excess = own[0, :, named] - control[0, :, named]
        assert {k for k in range(7) if excess[k] >= 0.15} == {cue, *others}
    assert {given["assigned"](f"student {i}") for i in range(100)} == set(range(len(truth)))


def test_the_sentences_that_are_graded_are_those_that_students_are_given():
    corpus, given = CORPUS["20_text"], {}
    for cell in ("imports", "language"):
        exec(corpus.cells[cell], given)
    graded = runpy.run_path(str(corpus.folder / "questions.py"))
    assert given["GROUPS"] == graded["GROUPS"]
    assert torch.equal(given["pool"].masks["evidence"], graded["DECIDES"])


def test_wrong_gradients_by_hand_are_named_but_not_corrected():
    wrong = "def gradient_a(): return [0, 0, 0]"
    assert "expected -3" not in CORPUS["01_saliency_and_smoothgrad"].said("q1a-check", q1a_answer=wrong)


def picture(png):
    """The picture as a reader sees it, small."""
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").resize((96, 64))
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).float() / 255


@pytest.mark.parametrize("name", NAMES)
def test_the_picture_beside_a_task_is_what_the_solution_draws(name):
    cells = {cell["id"]: cell for cell in CORPUS[name].notebook["cells"]}
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
@pytest.mark.parametrize("name", NAMES[-1:])  # nbval runs the cells of them all
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
    answered = {c["id"]: c["source"] for c in CORPUS[name].notebook["cells"]}
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
