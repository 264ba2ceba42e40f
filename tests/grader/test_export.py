"""From a download to the grade files of six systems, each imported by a parser written from that system's own source.

Graded with one reduced exercise, and right answers in place of the sandbox.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from datetime import datetime, timezone
from pathlib import Path

import downloads
import pytest
from downloads import CLASS, EXERCISE, SYSTEMS, as_zip, email, full
from saliency_alone import EXERCISE as REDUCED
from test_one_student_alone import HONEST, Lane, notebook

from grader import cli, collect, export, gradebook, sandbox
from grader.course import Rules
from interp_lab.cli import run

WRONG = notebook("# nothing")
HANDED_IN = {i: HONEST if i % 3 else WRONG + b" " * i for i in range(40) if i not in (11, 29)}
RULES = """
timezone: UTC
late: {percent_per_day: 10, at_most_days: 3}
exercises:
  01:
    points: 10
    questions: [2]
"""


def expected(i):
    return None if i not in HANDED_IN else 10.0 if i % 3 else 0.0


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """A function of a system that grades its download with one command, once; the output folder, and what it said."""
    top, done = tmp_path_factory.mktemp("class"), {}
    lane = Lane()
    lane.proven = {REDUCED}
    solution = top / "solutions" / EXERCISE
    solution.mkdir(parents=True)
    (solution / "solution.ipynb").write_bytes(REDUCED.solution)
    (solution / "questions.py").write_text(REDUCED.source)
    (top / "course.yml").write_text(RULES)

    def grade(system):
        if system not in done:
            out = top / system
            (top / "roster.csv").write_text(downloads.rosters()[system], encoding="utf-8")
            source = as_zip(top / f"{system}.zip", downloads.files(system, HANDED_IN))
            command = ["grade", source, "--out", out, "--roster", top / "roster.csv", "--course", top / "course.yml"]
            command += ["--solutions", top / "solutions", "--exercise", "01", "--workers", "1"]
            with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
                patch.setattr(sandbox, "lane", lambda *_: lane)
                assert run([cli.add_teaching], list(map(str, command))) == 0
            done[system] = out, said.getvalue()
        return done[system]

    return grade


def exported(out, system, capsys, *more):
    assert run([cli.add_teaching], ["export", str(out), "--to", system, *map(str, more)]) == 0
    return capsys.readouterr().out


# The systems' own importers, from their sources


def canvas_imports(text):
    """lib/gradebook_importer.rb: the scores by user of the column that is called TITLE (ID)."""
    lines = text.splitlines()[:3]
    semicolons = [line.count(";") for line in lines]
    delimiter = ";" if len(set(semicolons)) == 1 and semicolons[0] > lines[0].count(",") else ","
    rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(row)]
    head = rows[0]
    assert "Student" in head[0]
    assert "ID" in head[1]
    columns = 3
    if re.search(r"SIS\s+Login\s+ID", head[2]):
        columns += 1
    elif re.search(r"SIS\s+User\s+ID", head[2]) and re.search(r"SIS\s+Login\s+ID", head[3]):
        columns += 2
    assert "Section" in head[columns - 1]
    (at,) = (i for i, name in enumerate(head) if re.fullmatch(rf"{EXERCISE} \(\d+\)", name))
    scores, possible = {}, None
    for row in rows[1:]:
        if "Points Possible" in row[0]:
            possible = float(row[at])
        elif all(re.fullmatch(r"\s*(Muted|Manual Posting.*)?\s*", cell) for cell in row):
            continue
        else:
            number = re.fullmatch(r"-?[0-9.,]+%?", row[at])
            scores[int(row[1])] = float(row[at].replace(",", ".")) if number else row[at]
    return scores, possible


def moodle_imports(text, hidden="Participant "):
    """mod/assign/feedback/offline/importgradeslib.php: the grades by participant; what is out of range is skipped."""
    rows = list(csv.reader(io.StringIO(text, newline="")))
    where = {name: rows[0].index(name) for name in ("Identifier", "Grade", "Last modified (grade)", "Maximum Grade")}
    found = {}
    for row in rows[1:]:
        number = int(row[where["Identifier"]][len(hidden) :])
        if (value := row[where["Grade"]].replace(" ", "").replace(",", ".")) and 0 <= float(value) <= float(
            row[where["Maximum Grade"]]
        ):
            found[number] = float(value)
    return found


def moodle_takes_pages(data, participants):
    """mod/assign/feedback/file/importziplib.php: the page by participant."""
    found = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for path in archive.namelist():
            info = path.split("/")[0].split("_", 4)
            assert len(info) == 5
            assert info[1].isdigit()
            assert (info[2], info[3]) == ("assignsubmission", "file")
            assert int(info[1]) in participants
            assert info[4] == "feedback.html"
            found[int(info[1])] = archive.read(path).decode()
    return found


def canvas_takes_pages(data, attachments):
    """app/models/assignment.rb, infer_comment_context_from_filename: the first two parts that are numbers."""
    found = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for path in archive.namelist():
            user, attachment = [int(part) for part in Path(path).name.split("_") if part.isdigit()][:2]
            assert attachments[attachment] == user
            found[user] = archive.read(path).decode()
    return found


def gradescope_takes(results):
    """The specification of results.json for autograders."""
    assert set(results) <= {"score", "execution_time", "output", "output_format", "visibility", "stdout_visibility", "extra_data", "tests", "leaderboard"}  # fmt: skip
    assert isinstance(results["score"], (int, float)) or results["tests"]
    for test in results.get("tests", []):
        assert set(test) <= {"score", "max_score", "status", "name", "name_format", "number", "output", "output_format", "tags", "visibility", "extra_data"}  # fmt: skip
        assert test["status"] in ("passed", "failed")
        assert test["visibility"] in ("hidden", "after_due_date", "after_published", "visible")
        assert 0 <= test["score"] <= test["max_score"]
    return results["score"]


def test_rules_make_a_grade_of_the_points(tmp_path, monkeypatch):
    lane = Lane()
    monkeypatch.setattr(sandbox, "lane", lambda *_: lane)
    deadline = datetime(2026, 12, 1, tzinfo=timezone.utc)
    rules = Rules(
        deadline=deadline,
        percent_per_day=10,
        points=20,
        questions=("2", "q3b-answer"),
        missing="zero",
        extensions={"ana": deadline},
    )
    told: list[str] = []
    (tmp_path / "in" / "anna").mkdir(parents=True)
    (tmp_path / "in" / "anna" / f"{EXERCISE}.ipynb").write_bytes(HONEST)
    head = ",".join(collect.COLUMNS)
    (tmp_path / "in" / collect.TABLE).write_text(
        f"{head}\nanna,,,,,2026-12-02T12:00:00+00:00,late,,,anna\nben,,,,,,,,nothing was handed in,\n"
    )

    def grades():
        gradebook.grade(tmp_path / "in", tmp_path / "out", REDUCED, rules=rules, workers=1, note=told.append)
        return csv.DictReader(io.StringIO((tmp_path / "out" / "gradebook.csv").read_text("utf-8-sig")))

    assert [row["grade"] for row in grades()] == ["", "0"]  # the mark is missing
    assert "course.yml has an extension for ana, who is not in the class; is anna meant?" in told
    table = tmp_path / "out" / "by_hand.csv"
    table.write_text(table.read_text("utf-8-sig").replace("anna,", "anna,1", 1), encoding="utf-8")
    anna, _ = grades()
    assert [anna[column] for column in ("total", "of", "out of")] == ["6", "11", "20"]
    assert anna["grade"] == "13.14"  # (5 + 1) / 7 of 20, less two days of 2
    assert "2 days late: 4 of 20 points taken off" in anna["remark"]
    page = (tmp_path / "out" / "feedback" / "anna.html").read_text(encoding="utf-8")
    assert "Grade: 13.14 of 20 (2 days late: 4 of 20 points taken off)." in page
    with pytest.raises(
        ValueError, match="has no question q9 that could count; it has 2, q3b-answer, q6, q6-conclusion"
    ):
        gradebook.grade(tmp_path / "in", tmp_path / "out", REDUCED, rules=Rules(questions=("2", "q9")), workers=1)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_class_of_forty_of_each_form_is_graded_with_one_command(graded, system):
    out, said = graded(system)
    rows = list(csv.DictReader(io.StringIO((out / "gradebook.csv").read_text("utf-8-sig"))))
    assert len(rows) == 40
    grades = {frozenset(row["student"].replace(",", "").split()): row for row in rows}
    for i in range(40):
        row = grades[frozenset(full(i).split())]
        assert row["grade"] == ("" if expected(i) is None else f"{expected(i):g}")
        assert row["out of"] == "10"
        assert row["remark"].startswith("nothing was handed in") == (i not in HANDED_IN)
    assert "38 notebooks, 2 missing" in said
    assert re.search(r"Look: .*Łukasz.*: nothing was handed in", said)


def in_delimiter(text, delimiter):
    """As a spreadsheet in Europe saves it: only cells with the delimiter are quoted."""
    return "".join(
        delimiter.join(f'"{cell}"' if delimiter in cell else cell for cell in row) + "\n"
        for row in csv.reader(io.StringIO(text))
    )


def without_grades(data, encoding, column, delimiter):
    """All cells but those of a column, and all that stands between them, as it is."""
    lines = data.decode(encoding).split("\n")
    quoted = re.compile(rf'(?:"(?:[^"]|"")*"|[^{delimiter}])*')
    at = next(i for i, cell in enumerate(quoted.findall(lines[0])[::2]) if cell.strip('"').startswith(column))
    return [
        [cell for i, cell in enumerate(re.split(rf'{delimiter}(?=(?:[^"]*"[^"]*")*[^"]*$)', line)) if i != at]
        for line in lines
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_canvas_there_and_back(graded, capsys, tmp_path, encoding, end, delimiter):
    out, _ = graded("canvas")
    text = in_delimiter(downloads.canvas_gradebook("10.00").replace("A and B,,", "A and B,EX,", 1), delimiter)
    before = text.replace("\n", end).encode(encoding)
    (tmp_path / "export.csv").write_bytes(before)
    said = exported(out, "canvas", capsys, "--table", tmp_path / "export.csv")
    after = (out / "canvas.csv").read_bytes()
    scores, possible = canvas_imports(after.decode(encoding))
    assert possible == 10
    assert scores.pop(99) == ""  # Canvas's test student
    for i, (_, _, number) in enumerate(CLASS):
        assert scores[number] == ("EX" if i == 0 else "" if expected(i) is None else expected(i))
    assert without_grades(after, encoding, EXERCISE, delimiter) == without_grades(before, encoding, EXERCISE, delimiter)
    assert "Look: the cell of Müller, Anna was left as it was: it holds EX." in said
    assert "Look: the cell of O'Brien van Dyk, Łukasz was left as it was: nothing was handed in." in said
    assert "Look: Müller, Håkon gets 10: late, but not known by how much: nothing was taken off." in said
    assert said.count("Look:") == 4


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_moodle_there_and_back(graded, capsys, tmp_path, encoding):
    out, _ = graded("moodle")
    text = downloads.moodle_worksheet("10.00")
    text = text.replace(",Yes,", ",No,", 1).replace(",Submitted for grading,,", ',Submitted for grading,"",', 1)
    before = text.encode(encoding)
    (tmp_path / "export.csv").write_bytes(before)
    said = exported(out, "moodle", capsys, "--table", tmp_path / "export.csv")
    after = (out / "moodle.csv").read_bytes()
    given = {CLASS[i][2]: expected(i) for i in range(1, 40) if i in HANDED_IN}
    assert moodle_imports(after.decode("utf-8-sig")) == given
    assert without_grades(after, encoding, "Grade", ",") == without_grades(before, encoding, "Grade", ",")
    assert "the cell of Anna Müller was left as it was: Moodle does not let it change" in said


def test_feedback_goes_back_to_its_students(graded, capsys, tmp_path):
    for system, sheet in (("moodle", downloads.moodle_worksheet), ("canvas", downloads.canvas_gradebook)):
        out, _ = graded(system)
        (tmp_path / "export.csv").write_text(sheet("10"), encoding="utf-8")
        exported(out, system, capsys, "--table", tmp_path / "export.csv")
        data = (out / f"{system}_feedback.zip").read_bytes()
        if system == "moodle":
            pages = moodle_takes_pages(data, {number for _, _, number in CLASS})
        else:
            pages = canvas_takes_pages(data, {9000 + i: number for i, (_, _, number) in enumerate(CLASS)})
        assert set(pages) == {CLASS[i][2] for i in HANDED_IN}
        for i in HANDED_IN:
            assert all(word in pages[CLASS[i][2]] for word in CLASS[i][:1])  # the name is escaped in some
            assert f"Grade: {expected(i):g} of 10" in pages[CLASS[i][2]]


def test_gradescope_hands_out_the_results_of_each_file(graded, capsys, tmp_path):
    out, _ = graded("gradescope")
    exported(out, "gradescope", capsys)
    archive = zipfile.ZipFile(out / "gradescope_autograder.zip")
    assert {"setup.sh", "run_autograder"} <= set(archive.namelist())  # in the root of the zip
    assert archive.read("setup.sh").startswith(b"#!")
    assert all(info.external_attr >> 16 & 0o100 for info in archive.infolist())
    top = tmp_path / "autograder"
    archive.extractall(top / "source")
    for i, score in ((1, 5), (2, 5), (3, 0)):
        (top / "submission" / "deep").mkdir(parents=True, exist_ok=True)
        (top / "submission" / "deep" / "renamed.ipynb").write_bytes(HANDED_IN[i])
        metadata = {"id": 1, "users": [{"email": email(i), "id": 5, "name": full(i)}], "previous_submissions": []}
        (top / "submission_metadata.json").write_text(json.dumps(metadata))
        environment = {"AUTOGRADER": str(top), "PATH": os.environ["PATH"]}
        subprocess.run([sys.executable, top / "source" / "run_autograder"], env=environment, check=True, timeout=60)
        assert gradescope_takes(json.loads((top / "results" / "results.json").read_text())) == score
    (top / "submission" / "deep" / "renamed.ipynb").write_bytes(b"another")
    subprocess.run([sys.executable, top / "source" / "run_autograder"], env=environment, check=True, timeout=60)
    results = json.loads((top / "results" / "results.json").read_text())
    assert (gradescope_takes(results), results["output"][:33]) == (0, "This file has not been graded yet")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Object of type")  # of nbgrader's own code
def test_nbgrader_through_its_own_api(graded, capsys, tmp_path, monkeypatch):
    api = pytest.importorskip("nbgrader.api", reason="needs nbgrader (extra `test`)")
    whole, _ = graded("nbgrader")
    out, database = tmp_path / "grades", tmp_path / "gradebook.db"
    shutil.copytree(whole, out)
    kept = [
        line
        for line in (out / "gradebook.csv").read_text("utf-8-sig").splitlines(True)
        if "Müller" in line or "total" in line
    ]
    (out / "gradebook.csv").write_text("".join(kept[:6]), encoding="utf-8")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")  # it starts alembic
    more = ("--table", database, "--assignment", "ps1", "--solutions", whole.parent / "solutions")
    for _ in range(2):  # the second time into a database that has all
        exported(out, "nbgrader", capsys, *more)
        with api.Gradebook(f"sqlite:///{database}") as book:
            assert len(book.students) == 5
            for student in book.students:
                i = int(student.id.removeprefix("u")) - 1000
                submission = book.find_submission("ps1", student.id)
                assert submission.score == (5 if i % 3 else 0)
                assert submission.max_score == 11  # 6 of them by hand
                assert submission.needs_manual_grade


@pytest.mark.parametrize(
    ("system", "text", "more", "words"),
    [
        ("canvas", downloads.canvas_gradebook("28"), (), "the column is out of 28 points, the grades are out of 10"),
        ("canvas", downloads.canvas_gradebook("10"), ("--column", "Final"), "read only"),
        ("canvas", downloads.canvas_gradebook("10"), ("--column", "Homework"), "no column of the table is called 'Homework'"),
        ("canvas", downloads.canvas_gradebook("10"), ("--column", "i"), "more than one column"),
        ("canvas", downloads.moodle_worksheet(), (), "this is no table of canvas"),
        ("moodle", downloads.canvas_gradebook(), (), "this is no table of moodle"),
        ("moodle", downloads.moodle_worksheet("28,00".replace(",", ".")), (), "out of 28"),
        ("moodle", downloads.moodle_worksheet() + '"open', (), "line 42 of the table is damaged"),
        ("canvas", "", (), "this is no table of canvas"),
    ],
)  # fmt: skip
def test_a_table_that_would_be_filled_wrongly_is_refused(graded, capsys, tmp_path, system, text, more, words):
    out, _ = graded(system)
    (tmp_path / "export.csv").write_text(text, encoding="utf-8")
    (out / f"{system}.csv").unlink(missing_ok=True)
    assert (
        run([cli.add_teaching], ["export", str(out), "--to", system, "--table", str(tmp_path / "export.csv"), *more])
        == 2
    )
    assert words in capsys.readouterr().err
    assert not (out / f"{system}.csv").exists()


def test_who_has_no_line_and_who_has_two_are_told():
    def grade(name, number=""):
        return export.Grade(name, "5", 10, "", number)

    text = 'Student,ID,Section,x (1)\nPoints Possible,,,10\n"Lee, Ann",1,A,\n"Lee, Bo",2,A,"7"\n"Lee, Cy",3,A,\n'
    filled, told = export.fill(
        text.encode(), "canvas", [grade("Ann Lee"), grade("annlee", "1"), grade("Bo Lee"), grade("Di")], "x"
    )
    assert filled.decode() == text.replace("1,A,\n", "1,A,5\n").replace('"7"', '"5"')
    assert told == [
        "annlee and Ann Lee have the same line in the table: look at both",
        "Di has no line in the table: not on the roster",
        "Lee, Cy is in the table, but not in the gradebook",
    ]


def test_what_is_no_grade_is_not_exported_as_one(tmp_path):
    head = "student,1,q6,total,of,remark\n"
    rows = "ann,1,2,3,5,\nbo,1,,1,5,by_hand.csv lacks marks\ncy,0,,0,5,nothing was handed in; by_hand.csv lacks marks\n"
    rows += "di,0,1,1,5,the grader failed (OSError: x)\ned,0,0,0,5,the notebook is not a regular file\n"
    (tmp_path / "gradebook.csv").write_text(head + rows)
    got = [(grade.value, grade.why, grade.remark) for grade in export.grades(tmp_path)]
    assert got == [
        ("3", "", ""),
        ("", "marks by hand are missing", ""),
        ("", "nothing was handed in", ""),
        ("", "the grader failed (OSError: x)", ""),
        ("0", "", "the notebook is not a regular file"),
    ]
    with pytest.raises(FileNotFoundError, match="give the folder that interp-lab grade wrote"):
        export.grades(tmp_path / "nothing")


@pytest.mark.parametrize("data", [b"Student,ID,Section,x\r\nM\xfcller,1,A,\r\n", b"Student,ID,Section,x\nA,1,A,"])
def test_other_encodings_and_a_last_line_without_end_stay(data):
    filled, _ = export.fill(data, "canvas", [export.Grade("Müller" if b"\xfc" in data else "A", "2.5", 10, "")], "x")
    assert filled == data.replace(b",A,", b",A,2.5")


def test_the_file_that_was_graded_is_known_by_its_hash(graded):
    out, _ = graded("gradescope")
    table = json.loads(zipfile.ZipFile(io.BytesIO(export.autograder(out, export.grades(out)))).read("graded.json"))
    assert hashlib.sha256(HANDED_IN[3]).hexdigest() in table
