"""A folder of submissions to a gradebook: layouts, half-done work, resuming, the same grade again."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from grader import collect, gradebook, report, sandbox
from grader.exercise import Exercise
from interp_lab import cli

pytestmark = pytest.mark.xdist_group("gradebook")  # one class is graded for all

ROOT = Path(__file__).parents[2]
NAME = "01_saliency_and_smoothgrad"
SOLUTION, RELEASED = ROOT / "solutions" / NAME / "solution.ipynb", ROOT / "exercises" / f"{NAME}.ipynb"
EXERCISE = Exercise.read(SOLUTION.parent)
ASKED = EXERCISE.questions
LIMITS = sandbox.Limits(seconds=20)
REAL_LANE = sandbox.lane


def edited(path, **answers):
    """The notebook with other sources in the cells of these ids."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if (source := answers.get(cell["id"].replace("-", "_"))) is not None:
            cell["source"] = source
    return json.dumps(notebook)


def hand_in(folder):
    """Six students, in every layout that is taken."""
    folder.mkdir()
    (folder / "anna.ipynb").write_bytes(SOLUTION.read_bytes())
    (folder / "ben").mkdir()
    (folder / "ben" / f"{NAME}.ipynb").write_bytes(RELEASED.read_bytes())
    (folder / "cem" / "01").mkdir(parents=True)
    half = edited(RELEASED, q1a_answer="def gradient_a(): return [-3.0, 0.5, 4.0]", q1b_answer="def gradients_b(:")
    (folder / "cem" / "01" / f"{NAME}.ipynb").write_text(half)
    (folder / "dora, née Groß (2).ipynb").write_text(edited(SOLUTION, q4_answer="pass"))
    (folder / "eve.ipynb").write_text("{}")
    cells = [
        {"cell_type": "code", "source": "def smoothed_sign(x, sigma): return torch.special.erf(x / sigma / 2**.5)"}
    ]
    (folder / "finn.ipynb").write_text(json.dumps({"cells": cells}))
    (folder / ".DS_Store").write_text("x")
    (folder / "README.txt").write_text("x")
    return folder


@pytest.fixture(scope="module", autouse=True)
def shared(lane):
    """One lane for all runs with one worker: a new one takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox, "lane", lambda *_: lane)
        yield patch


@pytest.fixture(scope="module")
def graded(shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("graded")
    results = gradebook.grade(hand_in(folder / "in"), folder / "out", EXERCISE, workers=1, limits=LIMITS)
    return folder, {result.student: result for result in results}


def totals(result):
    return [result.earned(question) for question in ASKED]


def test_everyone_gets_the_points_earned(graded):
    _, results = graded
    assert list(results) == ["anna", "ben", "cem", "dora, née Groß (2)", "eve", "finn"]
    assert totals(results["anna"]) == [1, 2, 5, 3, 7, 2, 2]
    assert totals(results["ben"]) == [0] * 7
    assert totals(results["cem"]) == [1, 0, 0, 0, 0, 0, 0]
    assert totals(results["dora, née Groß (2)"]) == [1, 2, 5, 3, 0, 2, 0]
    assert totals(results["eve"]) == [0] * 7
    assert totals(results["finn"]) == [0, 0, 0, 0, 0, 2, 0]  # the given cells bring the imports


def test_every_loss_has_a_message(graded):
    _, results = graded
    assert results["eve"].problem == "the file is not a notebook of format 4: it has no list of cells"
    assert "There is no answer yet (code cell" in results["ben"].faults["2"][0]
    assert "does not parse" in results["cem"].faults["1b"][0]
    assert "there is no function smoothgrad" in results["dora, née Groß (2)"].faults["4"][0]
    assert "smoothgrad" in results["dora, née Groß (2)"].faults["5b"][0]


def test_what_is_written(graded):
    folder, _ = graded
    with (folder / "out" / "gradebook.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert [rows[name]["total"] for name in rows] == ["22", "0", "1", "13", "0", "2"]
    assert rows["anna"]["of"] == "28"  # 6 of them by hand
    assert rows["anna"]["remark"] == "by_hand.csv lacks marks"
    assert rows["dora, née Groß (2)"]["5a"] == "2"
    scope = json.loads((folder / "out" / "gradescope" / "cem" / "results.json").read_text())
    assert scope["score"] == 1
    assert sum(test["max_score"] for test in scope["tests"]) == 22
    assert all(test["output"] for test in scope["tests"])
    page = (folder / "out" / "feedback" / "cem.html").read_text()
    assert "1 of 22 points" in page
    assert "Another 6 points are marked by hand" in page
    assert "Network B at (1, 0.5)." in page
    summary = (folder / "out" / "summary.html").read_text()
    assert "6 students" in summary
    assert "33 %" in summary  # two of six have question 2
    assert (folder / "out" / "course.key").stat().st_mode & 0o077 == 0


@pytest.fixture
def marked(graded, tmp_path):
    """The output folder, where marks can be given: a function of the text of the table that grades again."""
    out = tmp_path / "out"
    shutil.copytree(graded[0] / "out", out)

    def again(text):
        (out / "by_hand.csv").write_text(text, encoding="utf-8")
        gradebook.grade(graded[0] / "in", out, EXERCISE, workers=1, limits=LIMITS)
        return out

    return again


HEAD = "student,q3b-answer,q6,q6-conclusion,comment\n"  # as somebody would write it
WHOLE_HEAD = HEAD.replace("comment", "comment,texts")


def test_marks_by_hand_enter_the_gradebook_and_the_feedback(graded, marked):
    empty = (graded[0] / "out" / "by_hand.csv").read_text(encoding="utf-8-sig")
    empty = re.sub(r"q3b-answer:\w{12} q6:\w{12} q6-conclusion:\w{12}$", "TEXTS", empty, flags=re.MULTILINE)
    names = ["anna", "ben", "cem", '"dora, née Groß (2)"', "eve", "finn"]
    assert empty == WHOLE_HEAD + "".join(f"{name},,,,,TEXTS\n" for name in names)
    out = marked(HEAD + 'anna,2,1.5,0,"well seen, <b>but</b>"\ncem,,1,,\nzoe,2,2,2,left the course\n')
    with (out / "gradebook.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    columns = {"q3b-answer": "2", "q6": "1.5", "q6-conclusion": "0", "total": "25.5", "of": "28"}
    assert {column: rows["anna"][column] for column in columns} == columns
    assert [rows["cem"][c] for c in ("q3b-answer", "q6", "total")] == ["", "1", "2"]
    assert (rows["anna"]["remark"], rows["cem"]["remark"]) == ("", "by_hand.csv lacks marks")
    page = (out / "feedback" / "anna.html").read_text(encoding="utf-8")
    assert "1.5 of 2" in page
    assert "well seen, &lt;b&gt;but&lt;/b&gt;" in page
    assert "points are marked by hand and not counted" not in page
    assert "Another 4 points are marked by hand" in (out / "feedback" / "cem.html").read_text(encoding="utf-8")
    scope = json.loads((out / "gradescope" / "anna" / "results.json").read_text())
    assert scope["score"] == 25.5
    kept = (out / "by_hand.csv").read_text(encoding="utf-8-sig")
    assert kept.endswith("zoe,2,2,2,left the course,\n")
    assert "\nben,,,,,q3b-answer:" in kept


def test_marks_as_a_european_spreadsheet_saves_them(marked):
    out = marked("\ufeff" + HEAD.replace(",", ";") + "anna;2;1,5;0;\n")
    assert "anna,1,2,5,3,7,2,2,2,1.5,0,25.5,28," in (out / "gradebook.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "anna,3,,,\n", "anna has '3' for q3b-answer; give 0 to 2"),
        (HEAD + "anna,-1,,,\n", "give 0 to 2"),
        (HEAD + "anna,nan,,,\n", "give 0 to 2"),
        (HEAD + "anna,two,,,\n", "anna has 'two'"),
        (HEAD + "anna,1,,,well, but\n", "more cells than columns"),
        (HEAD + "anna,1,,,\nanna,2,,,\n", "anna stands there twice"),
        ("student,q6\nanna,1\n", "must have the columns student, q3b-answer, q6, q6-conclusion, comment"),
    ],
)
def test_a_slip_in_the_marks_is_told_and_nothing_is_written(marked, text, message, tmp_path):
    before = written(tmp_path / "out")
    with pytest.raises(ValueError, match=re.escape(message)):
        marked(text)
    assert written(tmp_path / "out") == before | {Path("by_hand.csv"): text.encode()}


def test_the_page_to_mark_from_shows_every_answer_escaped(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    hostile = edited(SOLUTION, q3b_answer="<script>alert(1)</script>", q6_conclusion="It depends.")
    notebook = json.loads(hostile)
    place = next(i for i, cell in enumerate(notebook["cells"]) if cell["id"] == "q6")
    notebook["cells"].insert(place + 1, {"cell_type": "code", "metadata": {}, "source": ["my_experiment = 1\n", "2"]})
    (folder / "anna.ipynb").write_text(json.dumps(notebook))
    (folder / "ben.ipynb").write_text('{"cells": [1, {"metadata": 3}]}')
    (folder / "cem.ipynb").write_bytes(b"\xff")
    (folder / "dan.ipynb").write_bytes(RELEASED.read_bytes())
    gradebook.grade(folder, tmp_path / "out", EXERCISE, workers=1, limits=LIMITS)
    page = (tmp_path / "out" / "by_hand.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in page
    assert "my_experiment = 1\n2" in page
    assert "It depends." in page
    assert page.count("Not answered") == 3 * 3  # all but anna
    assert "BEGIN MARK SCHEME" in page  # for the instructor's eyes


def written(out):
    """All that is written, but for the journal, whose lines come as they are finished."""
    return {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != "journal.jsonl"}


def again(graded, tmp_path, journal, **options):
    """Grade the same folder with the same key and this journal, and count who is graded."""
    folder, _ = graded
    out, told = tmp_path / "out", []
    out.mkdir()
    (out / "course.key").write_bytes((folder / "out" / "course.key").read_bytes())
    if journal is not None:
        (out / "journal.jsonl").write_bytes(journal)
    gradebook.grade(folder / "in", out, EXERCISE, limits=LIMITS, progress=told.append, **options)
    assert written(out) == written(folder / "out")
    return len(told) - 1


def test_a_run_that_was_cut_off_goes_on_and_ends_the_same(graded, tmp_path):
    journal = (graded[0] / "out" / "journal.jsonl").read_bytes()
    lines = journal.splitlines(keepends=True)
    assert again(graded, tmp_path, b"".join(lines[:5]) + lines[5][:100], workers=1) == 2


def test_a_complete_journal_needs_no_sandbox(graded, tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "lane", None)
    assert again(graded, tmp_path, (graded[0] / "out" / "journal.jsonl").read_bytes()) == 0


def test_the_same_key_gives_the_same_grades_over_an_executor(graded, tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "lane", REAL_LANE)
    with ThreadPoolExecutor(2) as executor:
        assert again(graded, tmp_path, None, executor=executor) == 6
    sandbox.close_lanes()


@pytest.mark.slow
@pytest.mark.parametrize(
    "executor", ["processes", pytest.param("dask", marks=pytest.mark.exhaustive)]
)  # as test_cluster
def test_processes_and_a_cluster_give_the_same_grades(executor, graded, tmp_path):
    folder, out = graded[0], tmp_path / "out"
    out.mkdir()
    (out / "course.key").write_bytes((folder / "out" / "course.key").read_bytes())
    command = [sys.executable, "-m", "grader", folder / "in", "--out", out, "--exercise", "01"]
    subprocess.run([*command, "--executor", executor, "--seconds", "20"], cwd=ROOT, check=True, timeout=300)
    assert written(out) == written(folder / "out")


def test_a_new_file_is_graded_again(graded, tmp_path):
    folder = hand_in(tmp_path / "in")
    (folder / "finn.ipynb").write_text("{}")
    out, told = tmp_path / "out", []
    out.mkdir()
    for name in ("course.key", "journal.jsonl"):
        (out / name).write_bytes((graded[0] / "out" / name).read_bytes())
    results = gradebook.grade(folder, out, EXERCISE, workers=1, limits=LIMITS, progress=told.append)
    assert len(told) - 1 == 1
    assert totals(results[-1]) == [0] * 7


def test_a_journal_of_something_else_is_refused(graded, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "journal.jsonl").write_bytes((graded[0] / "out" / "journal.jsonl").read_bytes())
    with pytest.raises(ValueError, match="another exercise, key, solution"):
        gradebook.grade(graded[0] / "in", out, EXERCISE)  # a new key


def test_a_fault_of_the_grader_costs_one_student_and_is_tried_again(graded, tmp_path, monkeypatch):
    def broken(submission, *rest):
        raise RuntimeError(f"no luck with {submission.student}")

    monkeypatch.setattr(gradebook, "grade_one", broken)
    results = gradebook.grade(graded[0] / "in", tmp_path / "out", EXERCISE, workers=1, limits=LIMITS)
    assert "no luck with anna" in results[0].problem
    assert len((tmp_path / "out" / "journal.jsonl").read_bytes().splitlines()) == 1


def test_two_files_of_one_student_are_refused(tmp_path):
    (tmp_path / "anna").mkdir()
    for path in (tmp_path / "anna.ipynb", tmp_path / "anna" / f"{NAME}.ipynb"):
        path.write_bytes(RELEASED.read_bytes())
    (only,) = collect.submissions(tmp_path, NAME)
    assert only == collect.Submission("anna", None, "handed in twice, as a folder and as a file")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """What pip would write of the entry point that grader/pyproject.toml declares."""
    text = (ROOT / "grader" / "pyproject.toml").read_text(encoding="utf-8")
    group, command = re.search(r'^\[project\.entry-points\."(.+)"\]\n(.+)$', text, re.MULTILINE).groups()
    folder = tmp_path / "site" / "interp_lab_grader-0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: interp_lab_grader\nVersion: 0\n")
    (folder / "entry_points.txt").write_text(f"[{group}]\n" + command.replace('"', "") + "\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


def test_the_command(installed, graded, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("course.key", "journal.jsonl"):
        (out / name).write_bytes((graded[0] / "out" / name).read_bytes())
    arguments = ["grade", str(graded[0] / "in"), "--out", str(out)]
    arguments += ["--solutions", str(ROOT / "solutions"), "--exercise", "01"]
    assert cli.main(arguments) == 0
    assert "2. Saliency map" in capsys.readouterr().out
    assert written(out) == written(graded[0] / "out")
    assert cli.main(["grade", str(tmp_path / "nothing"), *arguments[2:]]) == 2
    assert "no folder of submissions" in capsys.readouterr().err


def test_the_command_of_this_package_alone_runs_from_any_folder(graded, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("course.key", "journal.jsonl"):
        (out / name).write_bytes((graded[0] / "out" / name).read_bytes())
    command = [sys.executable, "-m", "grader", graded[0] / "in", "--out", "out", "--exercise", "01"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [*command, "--solutions", ROOT / "solutions"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "2. Saliency map" in run.stdout
    assert written(out) == written(graded[0] / "out")


def test_summary_of_nobody():
    assert "0 students" in report.summary([], ASKED, NAME, [])


@pytest.mark.slow
def test_kill_9_in_the_middle(graded, tmp_path):
    """The process is killed once two students are in the journal, then started again."""
    folder, out = graded[0] / "in", tmp_path / "out"
    out.mkdir()
    (out / "course.key").write_bytes((graded[0] / "out" / "course.key").read_bytes())
    command = [sys.executable, "-m", "grader", str(folder), "--out", str(out), "--exercise", "01"]
    command += ["--solutions", str(ROOT / "solutions"), "--workers", "1", "--seconds", "20"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    journal, deadline = out / "journal.jsonl", time.monotonic() + 120
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 3):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "gradebook.csv").exists()
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert written(out) == written(graded[0] / "out")
