"""Whatever one submission holds costs its student alone, and nobody vanishes. No sandbox is needed here."""

import contextlib
import csv
import json
import os
import re
import struct
import subprocess
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from saliency_alone import EXERCISE, NAME, QUESTION

from grader import by_hand, calls, collect, gradebook, sandbox, untrusted
from grader.exercise import find, references
from grader.journal import alone
from grader.roster import read as roster_of

ROOT = Path(__file__).parents[2]
MARK = "# written by an honest student"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def notebook(*sources, **answers):
    """Code cells, and the cells that a person marks by their names."""
    cells = [{"cell_type": "code", "metadata": {}, "source": source} for source in sources]
    for name, source in answers.items():
        grader = {"grade_id": name.replace("_", "-"), "grade": True, "solution": True}
        cells.append({"cell_type": "markdown", "metadata": {"nbgrader": grader}, "source": source})
    return json.dumps({"cells": cells}).encode()


HONEST = notebook(MARK, q3b_answer="It is noise.")


class Lane:
    """In place of the sandbox: right answers for those who are honest; what others send is given."""

    sent = b""

    def __init__(self):
        self.proven, self.seen = {EXERCISE}, []

    def run(self, cells, wanted):
        asked = [call for question in wanted for call in question]
        if MARK in cells.values():
            self.seen.append(asked)
            _, answers = references(EXERCISE)
            return [[calls.perform(answers[call.function], replace(call, on_simulated_device=False)) for call in asked]]
        messages, malformed = calls.unpack(self.sent, answers=len(asked))
        got = [sandbox._outcome(*message) for message in messages]
        return [got + [calls.Outcome(error=malformed or "the process ended")] * (len(asked) - len(got))]


@pytest.fixture
def lane(monkeypatch):
    lane = Lane()
    monkeypatch.setattr(sandbox, "lane", lambda *_: lane)
    return lane


def class_of(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, data in {"anna": HONEST, "zoe": HONEST, **files}.items():
        (folder / f"{name}.ipynb").write_bytes(data)
    return folder


def run(folder, out, **options):
    """The results by student, and the notes."""
    notes = []
    results = gradebook.grade(folder, out, EXERCISE, workers=1, note=notes.append, **options)
    return {result.student: result for result in results}, notes


def rows(path):
    with path.open(newline="", encoding="utf-8-sig") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


def assert_contained(folder, out, results):
    """The honest have their points, and what is written holds for every student and can be read again."""
    for name in ("anna", "zoe"):
        assert results[name].earned(QUESTION) == QUESTION.points
        assert rows(out / "gradebook.csv")[name]["2"] == "5"
    names = {collect.guarded(name) for name in results}
    assert not any(CONTROL.search(name) for name in names)
    for table in ("gradebook.csv", "by_hand.csv"):
        with (out / table).open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.reader(file))
        assert {line[0] for line in lines[1:]} == names
        assert len(lines) == 1 + len(names)
        assert len({len(line) for line in lines}) == 1
    assert set(by_hand.read(out / "by_hand.csv", by_hand.items(EXERCISE.solution))) == names
    for folder_of, count in (("feedback", len(names)), ("gradescope", len(names))):
        assert len(list((out / folder_of).iterdir())) == count
    for path in out.rglob("*.html"):
        page = path.read_bytes()
        assert len(page) < 10**6
        assert not CONTROL.search(page.decode())


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
letters = st.text(st.characters(), max_size=30)  # with halves of characters
graders = st.fixed_dictionaries(
    {},
    optional={
        "grade_id": st.sampled_from(["q3b-answer", "q6", "q6-conclusion"]) | anything,
        "grade": st.booleans() | anything,
        "solution": st.booleans() | anything,
        "task": st.booleans() | anything,
    },
)
cells = st.fixed_dictionaries(
    {},
    optional={
        "cell_type": st.sampled_from(["code", "markdown"]) | anything,
        "source": letters | st.lists(letters | anything, max_size=3) | anything,
        "metadata": st.fixed_dictionaries({"nbgrader": graders | anything}) | anything,
    },
)
notebooks = (
    st.binary(max_size=60)
    | anything.map(lambda value: json.dumps(value).encode())
    | st.lists(cells | anything, max_size=6).map(lambda value: json.dumps({"cells": value}).encode())
)
names = (
    st.binary(min_size=1, max_size=30) | st.text(min_size=1, max_size=80).map(lambda t: t.encode(errors="ignore"))
).map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_"))
headers = st.dictionaries(st.sampled_from(["call", "kind", "error", "attached"]), letters | anything, max_size=4)
messages = st.binary(max_size=60) | headers.map(lambda h: calls.pack({"call": 0} | h, {"result": torch.ones(2)}))


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=st.dictionaries(names, notebooks, max_size=6), folders=st.lists(names, max_size=2), sent=messages)
def test_whatever_is_handed_in_costs_its_student_alone(entries, folders, sent, lane, tmp_path_factory):
    lane.sent = sent
    top = tmp_path_factory.mktemp("class")
    folder, out = class_of(top / "in"), top / "out"
    for name, data in entries.items():
        for ending in (b".ipynb", b""):
            with contextlib.suppress(OSError):  # the file system's own limits
                (Path(os.fsdecode(os.fsencode(folder) + b"/" + name + ending))).write_bytes(data)
    for name in folders:
        with contextlib.suppress(OSError):
            inner = Path(os.fsdecode(os.fsencode(folder) + b"/" + name))
            inner.mkdir()
            (inner / f"{NAME}.ipynb").write_bytes(next(iter(entries.values()), b"{}"))
    for name in ("anna", "zoe"):  # the others may have been called so
        (folder / f"{name}.ipynb").write_bytes(HONEST)
        with contextlib.suppress(OSError):
            (folder / name).unlink()
    results, notes = run(folder, out)
    assert_contained(folder, out, results)
    told = "\n".join([*results, *notes])
    for entry in os.listdir(folder):
        stem = entry[:-6] if entry.lower().endswith(".ipynb") else entry
        assert unicodedata.normalize("NFC", stem) in told or untrusted.printable_name(stem) in told
    before = len(lane.seen)
    again, _ = run(folder, out)
    assert (again, len(lane.seen)) == (results, before)


CASES = {
    "half a character": notebook(q3b_answer="half a character \ud800"),
    "a terminal's commands": notebook(q3b_answer="\x1b[2J\x1b]0;title\x07", q6="a\r\nb\0c"),
    "a name that is no text": json.dumps({"cells": [{"source": "x", "metadata": {"nbgrader": {"grade": 1, "solution": 1, "grade_id": [1]}}}]}).encode(),
    "nested source": b'{"cells": [{"source": ' + b"[" * 500 + b"]" * 500 + b', "metadata": {"nbgrader": {"task": 1}}}]}',
    "many lists": b'{"cells": [' + b"[]," * (3 * 2**20) + b"1]}",
    "many cells": json.dumps({"cells": [{"cell_type": "code", "source": ""}] * 100_000}).encode(),
    "ampersands": notebook(q3b_answer="&" * 9_000_000),
    "many small answers": json.dumps({"cells": json.loads(notebook(q3b_answer="&" * 1000))["cells"] * 5000}).encode(),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_notebook_that_ended_the_run_costs_its_student_alone(lane, tmp_path, case):
    folder, out = class_of(tmp_path / "in", mallory=CASES[case]), tmp_path / "out"
    results, _ = run(folder, out)
    assert_contained(folder, out, results)
    assert results["mallory"].earned(QUESTION) == 0


@pytest.mark.parametrize(
    "name",
    ["mal\rlory", "a\nb", "\t", "\x1b[2Jx", "字" * 83, "x" * 249, "é" * 124, "..", "=1+1", "\u202eymmalg", "a\u2028b"],
)
def test_a_name_that_ended_the_run_costs_its_student_alone(lane, tmp_path, name, capsys):
    folder, out = class_of(tmp_path / "in"), tmp_path / "out"
    (folder / f"{name}.ipynb").write_bytes(HONEST)
    told = []
    results, _ = run(folder, out, progress=told.append)
    assert_contained(folder, out, results)
    assert len(results) == 3
    assert not CONTROL.search("".join(told))
    run(folder, out)  # from the tables of the first run


@pytest.mark.parametrize("function", ["_notebooks", "read"])
def test_what_the_system_does_not_let_read_costs_its_student_alone(lane, tmp_path, monkeypatch, function):
    """As an unreadable folder, or a file on a broken disk; root, who may run this, can read all."""
    folder, out = class_of(tmp_path / "in"), tmp_path / "out"
    (folder / "mallory").mkdir()
    (folder / "mallory" / f"{NAME}.ipynb").write_bytes(HONEST)
    real = collect._notebooks if function == "_notebooks" else os.open

    def broken(path, *rest):
        if "mallory" in str(path):
            raise PermissionError(13, "Permission denied")
        return real(path, *rest)

    if function == "read":
        monkeypatch.setattr(collect.os, "open", broken)
    else:
        monkeypatch.setattr(collect, function, broken)
    results, _ = run(folder, out)
    assert_contained(folder, out, results)
    assert "Permission denied" in results["mallory"].problem


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[:50],
        lambda line: line.replace(b'"2"', b'"3"'),
        lambda line: line.replace(b'[""', b'["x"'),
        lambda line: b"[" * 10**5,
        lambda line: b"[1, 2]",
        lambda line: b"\xff\xfe",
        lambda line: b'{"student": 5}',
        lambda line: b"",
    ],
)
def test_a_damaged_line_of_the_journal_is_graded_again(lane, tmp_path, damage):
    folder, out = class_of(tmp_path / "in"), tmp_path / "out"
    results, _ = run(folder, out)
    journal = out / "journal.jsonl"
    header, first, second = journal.read_bytes().splitlines()
    journal.write_bytes(b"\n".join([header, damage(first), second, b""]))
    before = len(lane.seen)
    again, notes = run(folder, out)
    assert (again, len(lane.seen)) == (results, before + 1)
    assert any("1 damaged lines of the journal" in note for note in notes)
    assert run(folder, out)[1] == []  # it is mended


def test_two_runs_do_not_write_to_one_folder(lane, tmp_path):
    folder, out = class_of(tmp_path / "in"), tmp_path / "out"
    out.mkdir()
    with alone(out), pytest.raises(ValueError, match="another grader is at work in"):
        run(folder, out)
    assert not list(out.iterdir())
    run(folder, out)


def test_a_second_process_waits_for_nobody_and_writes_nothing(lane, tmp_path):
    folder, out = class_of(tmp_path / "in"), tmp_path / "out"
    out.mkdir()
    with alone(out):
        command = [sys.executable, "-m", "grader", folder, "--out", out, "--exercise", "01"]
        command += ["--solutions", ROOT / "solutions"]
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        second = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=120
        )
    assert second.returncode == 2
    assert "another grader is at work" in second.stderr


def test_one_folder_does_not_choose_the_exercise_of_the_class(tmp_path):
    (tmp_path / "mallory").mkdir()
    (tmp_path / "mallory" / "02_antehoc_and_surrogates.ipynb").write_text("{}")
    for name in ("anna", "ben"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{NAME}.ipynb").write_text("{}")
    assert find(ROOT / "solutions", tmp_path, None).name == NAME
    (tmp_path / "ben" / f"{NAME}.ipynb").rename(tmp_path / "ben" / "02_antehoc_and_surrogates.ipynb")
    (tmp_path / "zoe.ipynb").write_text("{}")
    with pytest.raises(ValueError, match="name the exercise"):  # two of four
        find(ROOT / "solutions", tmp_path, None)


@pytest.mark.parametrize("text", ["", "ab", "zz" * 32, "ab" * 16, "ab" * 33, "\ufeff" + "ab" * 32, "AB" * 31 + "\n\n"])
def test_a_key_that_can_be_guessed_is_refused(lane, tmp_path, text):
    folder, out = class_of(tmp_path / "in"), tmp_path / "out"
    out.mkdir()
    (out / "course.key").write_text(text, encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"course\.key is no key: .* delete it and the journal: then a new key is made"
    ):
        run(folder, out)
    (out / "course.key").unlink()
    run(folder, out)


def test_a_file_that_is_handed_in_again_meets_other_inputs_and_the_same_file_the_same(lane, tmp_path):
    for number, data in enumerate([HONEST, HONEST, HONEST + b" "]):
        out = tmp_path / f"out {number}"
        out.mkdir()
        (out / "course.key").write_text("ab" * 32)
        run(class_of(tmp_path / "in", anna=data), out)
    inputs = [torch.cat([call.args[1].flatten() for call in asked]) for asked in lane.seen[::2]]
    assert torch.equal(inputs[0], inputs[1])
    assert not torch.equal(inputs[0], inputs[2])


NAMES = {
    "Müller": True, "Mu\u0308ller": True, "हिन्दी कुमारी": True, "สมชาย": True, "مُحَمَّد": True, "O\u2019Brien": True, "D'Angelo": True,
    "Anne\u2013Marie": True, "Kim (she, her)": True, "Li [2]": True, "علی\u200cرضا": True, "Paral·lel": True, "李小龙": True,
    "Доброво́льский": True, "ʻOkina": True, "doe_jane_12345": True, "_": True,
    "": False, " x": False, "x ": False, "a/b": False, "a\\b": False, "<b>": False, "a\x00": False, "a\x1b[2J": False, "a\u202eb": False,
    "\u0308x": False, "=1": False, "-x": False, "a\ud800": False, "a:b": False, "a\u00a0b": False, "x" * 101: False,
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_are_letters_of_any_script_with_their_marks(name):
    assert collect.is_name(unicodedata.normalize("NFC", name)) == NAMES[name]


@pytest.mark.parametrize("name", [name for name, taken in NAMES.items() if taken])
def test_a_name_is_one_however_its_accents_are_written(lane, tmp_path, name):
    folder, out = class_of(tmp_path / "in"), tmp_path / "out"
    (folder / f"{unicodedata.normalize('NFD', name)}.ipynb").write_bytes(HONEST)
    results, _ = run(folder, out, roster=["anna", "zoe", unicodedata.normalize("NFC", name)])
    assert_contained(folder, out, results)
    assert len(results) == 3
    assert all(result.earned(QUESTION) == 5 for result in results.values())
    (folder / unicodedata.normalize("NFC", name)).mkdir()
    results, _ = run(folder, out)
    assert "handed in twice" in results[unicodedata.normalize("NFC", name)].problem


def test_every_entry_of_the_folder_has_a_row_or_a_word(lane, tmp_path):
    folder, out = class_of(tmp_path / "in"), tmp_path / "out"
    (folder / "ann.IPYNB").write_bytes(HONEST)
    odd = ["ben.ipynb.txt", "cem.zip", "dora.json", "python.py", "report.pdf", ".hidden.ipynb", "README"]
    for name in odd:
        (folder / name).write_bytes(HONEST)
    (folder / "eve").mkdir()
    (folder / "eve" / "my solution.ipynb").write_bytes(HONEST)
    results, notes = run(folder, out)
    assert list(results) == ["ann", "anna", "eve", "zoe"]
    assert results["ann"].earned(QUESTION) == 5
    assert results["eve"].problem == f"expected one notebook {NAME}.ipynb, found 0; the folder holds my solution.ipynb"
    assert sorted(notes) == sorted(f"{name} is no notebook, so it is nobody's submission" for name in odd)
    assert all(name in (out / "summary.html").read_text() for name in odd)


def test_every_line_of_the_roster_has_a_row(lane, tmp_path):
    folder, out = class_of(tmp_path / "in"), tmp_path / "out"
    (folder / "cem.zip").write_bytes(b"PK")
    roster = tmp_path / "roster.csv"
    roster.write_bytes("id;student\n1;anna\n2;cem\n3;Müller\n;\n".encode("cp1252"))
    results, notes = run(folder, out, roster=[person.student for person in roster_of(roster)])
    assert list(results) == ["Müller", "anna", "cem", "zoe"]
    assert results["Müller"].problem == "nothing was handed in"
    assert results["cem"].problem == "nothing was handed in, but there is cem.zip"
    assert "zoe is not on the roster" in notes
    assert rows(out / "gradebook.csv")["Müller"]["remark"].startswith("nothing was handed in")
    for text, words in (
        ("name\nanna\n", "column student"),
        ("student\na:b\n", "is no name"),
        ("student\na\na\n", "twice"),
    ):
        roster.write_text(text)
        with pytest.raises(ValueError, match=words):
            roster_of(roster)


def test_a_notebook_of_another_exercise_is_said_to_be_one(lane, tmp_path):
    other = ROOT / "solutions" / "02_antehoc_and_surrogates" / "solution.ipynb"
    released = (ROOT / "exercises" / f"{NAME}.ipynb").read_bytes()
    translated = released.replace(b"# Saliency maps and SmoothGrad", b"# Salienzkarten")
    assert translated != released
    folder = class_of(tmp_path / "in", ben=other.read_bytes(), cem=released, dora=translated)
    results, _ = run(folder, tmp_path / "out")
    words = 'this is the notebook of another exercise: it begins with "Models that explain themselves, and surrogates"'
    assert [results[name].problem for name in ("anna", "ben", "cem", "dora")] == ["", words, "", ""]


@pytest.fixture
def marking(lane, tmp_path):
    """A function of who handed in what, that gives the rows of the gradebook, the notes, and the path of the marks."""

    def run_with(**files):
        folder, out = class_of(tmp_path / "in", **files), tmp_path / "out"
        _, notes = run(folder, out)
        return rows(out / "gradebook.csv"), notes, out / "by_hand.csv"

    return run_with


def give(table, name, **marks):
    """Fill cells of the table, as somebody in a spreadsheet."""
    with table.open(newline="", encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        if line["student"] == name:
            line |= {column.replace("_", "-"): mark for column, mark in marks.items()}
    with table.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, lines[0].keys())
        writer.writeheader()
        writer.writerows(lines)


def test_a_mark_belongs_to_the_text_that_it_was_given_for(marking):
    first, second = (notebook(MARK, q3b_answer=text, q6_conclusion="Same.") for text in ("Old.", "New."))
    _, _, table = marking(anna=first)
    give(table, "anna", q3b_answer="2", q6_conclusion="1")
    gradebook_rows, notes, _ = marking(anna=first)
    assert (gradebook_rows["anna"]["total"], notes) == ("8", [])
    for _ in range(2):  # and it stays told
        gradebook_rows, notes, _ = marking(anna=second)
        assert gradebook_rows["anna"]["total"] == "6"
        assert "marked for an older text: q3b-answer" in gradebook_rows["anna"]["remark"]
        assert [note for note in notes if "anna has handed in another text for q3b-answer since it was marked" in note]
    assert marking(anna=first)[0]["anna"]["total"] == "8"  # the old text again
    marking(anna=second)
    give(table, "anna", q3b_answer="1", texts="")
    for _ in range(2):
        gradebook_rows, notes, _ = marking(anna=second)
        assert (gradebook_rows["anna"]["total"], notes) == ("7", [])


def test_a_mark_that_was_typed_before_the_file_changed_is_told_too(marking):
    """The page showed the old text; the new one comes with the run that reads the mark."""
    _, _, table = marking(anna=notebook(MARK, q3b_answer="Old."))
    give(table, "anna", q3b_answer="2")
    gradebook_rows, _, _ = marking(anna=notebook(MARK, q3b_answer="New."))
    assert gradebook_rows["anna"]["total"] == "5"


def test_a_misspelt_name_in_the_marks_is_told(marking):
    _, _, table = marking()
    give(table, "anna", student="Anna", q6="1")
    gradebook_rows, notes, _ = marking()
    assert notes == ["by_hand.csv has a row for Anna, who handed in nothing; is anna meant?"]
    assert gradebook_rows["anna"]["q6"] == ""
    assert "Anna" in table.read_text(encoding="utf-8-sig")  # never dropped


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_tables_are_read_as_spreadsheets_save_them(tmp_path, encoding, delimiter, end):
    asked = by_hand.items(EXERCISE.solution)
    lines = [
        ["student", *(item.name for item in asked), "comment"],
        ["Mu\u0308ller" if "utf" in encoding else "Müller", "1,5", "", "2", "schön"],
    ]
    text = end.join(delimiter.join(f'"{cell}"' for cell in line) for line in lines) + end
    (tmp_path / "by_hand.csv").write_bytes(text.encode(encoding))
    marks = by_hand.read(tmp_path / "by_hand.csv", asked)
    assert [marks["Müller"].earned(item) for item in asked] == [1.5, None, 2]
    assert marks["Müller"].comment == "schön"


def test_tables_are_written_as_excel_reads_them(lane, tmp_path):
    folder, out = class_of(tmp_path / "in", **{"Müller": HONEST}), tmp_path / "out"
    run(folder, out)
    for table in ("gradebook.csv", "by_hand.csv"):
        assert (out / table).read_bytes().startswith(b"\xef\xbb\xbfstudent,")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"student,q\x81", "cannot be read as a table"),
        (b'student,q3b-answer,q6,q6-conclusion,comment\nanna,"1,,,', "cannot be read as a table"),
        (b"\xff\xfea", "cannot be read as a table"),
        (b"", "must have the columns"),
        (b"student,q3b-answer,q6,q6-conclusion,comment,texts\nanna,1,,,well, but\n", "leave that column as it is"),
    ],
)
def test_a_table_that_cannot_be_read_is_told_by_name(tmp_path, data, words):
    (tmp_path / "by_hand.csv").write_bytes(data)
    with pytest.raises(ValueError, match=rf"by_hand\.csv.*{words}"):
        by_hand.read(tmp_path / "by_hand.csv", by_hand.items(EXERCISE.solution))


def test_feedback_of_those_who_left_is_told(lane, tmp_path):
    folder, out = class_of(tmp_path / "in", ben=HONEST), tmp_path / "out"
    run(folder, out)
    (folder / "ben.ipynb").unlink()
    _, notes = run(folder, out)
    assert [note.split(":")[0] for note in notes if "earlier run" in note] == [
        "feedback/ben.html is left from an earlier run",
        "gradescope/ben/results.json is left from an earlier run",
    ]


def with_pictures(size, count, text="It is noise."):
    """An honest notebook with so many pictures."""
    whole = json.loads(notebook(MARK, q3b_answer=text))
    picture = {"output_type": "display_data", "metadata": {}, "data": {"image/png": 'iVBOR\\"' + "A" * size}}
    whole["cells"][0]["outputs"] = [picture] * count
    return json.dumps(whole).encode()


def test_a_notebook_that_pictures_make_large_is_graded(lane, tmp_path):
    large = with_pictures(500_000, 40)
    assert len(large) > 15 * 2**20
    folder = class_of(tmp_path / "in", ben=large, cem=with_pictures(15_000, 1500), dora=b'{"cells": "' + b"\\" * 2**25)
    results, _ = run(folder, tmp_path / "out")
    assert results["ben"].earned(QUESTION) == 5
    assert results["ben"].written == {"q3b-answer": "It is noise."}
    for name in ("cem", "dora"):
        assert "more than 10 MiB without its pictures" in results[name].problem


def test_pictures_are_cut_out_of_json_as_it_is_written():
    text = json.dumps({"a": "\\" * 30_001, "b": 'x"y', "c": '"' * 30_000, "d": ["z" * 100]}).encode()
    assert json.loads(untrusted._without_pictures(text)) == {
        "a": "(left out: 60002 bytes)",
        "b": 'x"y',
        "c": "(left out: 60000 bytes)",
        "d": ["z" * 100],
    }


def message(header, blob=b""):
    return struct.pack("<QQ", len(header), len(blob)) + header + blob


def empty_tensors(count):
    entries = ",".join(f'"{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(count)).encode()
    return message(b'{"call": 0}', struct.pack("<Q", len(entries) + 2) + b"{" + entries + b"}")


GREEDY = {
    "empty tensors": lambda: empty_tensors(5 * 10**5),
    "lists": lambda: message(b"[" + b"[]," * (10**7 - 1) + b"0]"),
    "nested": lambda: message(b"[" * 10**7),
}


@pytest.mark.parametrize("kind", GREEDY)
def test_what_a_student_sends_does_not_grow_the_grader(kind):
    """Read in a process of its own, whose peak is that of reading."""
    data = GREEDY[kind]()
    assert 5 * 2**20 < len(data) < 40 * 2**20
    read = (
        "import resource, sys\nfrom grader import calls\ndata = sys.stdin.buffer.read()\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\ncalls.unpack(data, answers=40)\nprint((peak() - before) / 1024)"
    )
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", read],
        input=data,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        check=True,
        timeout=300,
    )
    assert float(done.stdout) < 80  # MiB
