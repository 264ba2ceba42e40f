"""Downloads of six classroom systems, their zips and rosters, honest and hostile. No sandbox is needed here."""

import csv
import io
import json
import os
import random
import struct
import time
import tracemalloc
import unicodedata
import zipfile
from collections import Counter
from dataclasses import replace
from datetime import datetime, timezone
from zoneinfo import ZoneInfo

import downloads
import pytest
from downloads import CLASS, EXERCISE, SYSTEMS, as_folder, as_zip, full
from hypothesis import given, settings
from hypothesis import strategies as st

from grader import archive, classroom, cli, collect, roster
from grader.course import Rules

KNOWN = [EXERCISE, "02_antehoc_and_surrogates"]
HANDED_IN = {i: json.dumps({"cells": [], "by": i}).encode() for i in range(40) if i not in (11, 29)}


def people_of(system, folder):
    (folder / "roster.csv").write_text(downloads.rosters()[system], encoding="utf-8")
    return roster.read(folder / "roster.csv")


def take(source, into, **options):
    return classroom.collect(source, into, KNOWN, **{"exercise": EXERCISE} | options)


def rows_of(into):
    return {row["student"]: row for row in csv.DictReader(io.StringIO((into / collect.TABLE).read_text("utf-8-sig")))}


def key(name):
    """Of a name or of Canvas's "Last, First"."""
    return frozenset(name.replace(",", "").split())


@pytest.mark.parametrize("packed", [True, False], ids=["zip", "folder"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_class_of_forty_in_each_form(system, packed, tmp_path):
    found = downloads.files(system, HANDED_IN)
    source = as_zip(tmp_path / "d.zip", found) if packed else as_folder(tmp_path / "d", found)
    collected = take(source, tmp_path / "in", people=people_of(system, tmp_path))
    assert collected.form == system
    given = {key(s.student): s for s in collect.submissions(tmp_path / "in", EXERCISE)}
    assert set(given) == {key(full(i)) for i in range(40)}
    for i in range(40):
        submission = given[key(full(i))]
        if i in HANDED_IN:
            assert collect.read(submission) == HANDED_IN[i]  # nobody has the notebook of another
        else:
            assert (submission.path, submission.refused) == (None, "nothing was handed in")
    matched = Counter(row["matched"] for row in rows_of(tmp_path / "in").values())
    how = {"moodle": "name and number", "canvas": "name and number", "gradescope": "name and number", "google": "name"}
    assert matched == {how.get(system, "number"): 38, "": 2}
    assert collect.passed_over(tmp_path / "in") == []


@pytest.mark.parametrize("system", SYSTEMS)
def test_without_a_roster_everybody_has_the_name_of_the_download(system, tmp_path):
    source = as_zip(tmp_path / "d.zip", downloads.files(system, HANDED_IN))
    take(source, tmp_path / "in")
    given = collect.submissions(tmp_path / "in", EXERCISE)
    assert sorted(collect.read(s) for s in given) == sorted(HANDED_IN.values())
    names = {
        "canvas": {"müllerbjörn", "obrienvandykkim"},
        "github": {"hw-1-user-1000"},
        "nbgrader": {"u1000"},
    }.get(system, {"Björn Müller"})
    assert names <= {s.student for s in given}


def test_who_was_late_and_who_handed_in_twice_is_told(tmp_path):
    canvas = downloads.files("canvas", HANDED_IN)
    second = f"müllerbjörn_1001_9999_{EXERCISE}-1.ipynb"
    collected = take(
        as_zip(tmp_path / "d.zip", canvas | {second: b"newer"}), tmp_path / "in", people=people_of("canvas", tmp_path)
    )
    rows = rows_of(tmp_path / "in")
    assert rows["Müller, Håkon"]["late"] == "as the system marks it"
    assert "handed in more than once; the newest counts, not müllerbjörn_1001_9001" in rows["Müller, Björn"]["remark"]
    assert (tmp_path / "in" / "Müller, Björn" / f"{EXERCISE}.ipynb").read_bytes() == b"newer"
    assert "38 notebooks, 2 missing, 1 late, 1 handed in more than once" in collected.counts()
    assert any(line.startswith("Müller, Björn: handed in more than once") for line in collect.told(tmp_path / "in"))
    for rule, content in (("oldest", HANDED_IN[1]), ("refuse", None)):
        take(tmp_path / "d.zip", tmp_path / "in", people=people_of("canvas", tmp_path), rules=lambda _: Rules(rule))  # noqa: B023
        (given,) = [s for s in collect.submissions(tmp_path / "in", EXERCISE) if s.student == "Müller, Björn"]
        assert (collect.read(given) if given.path else None) == content


def test_late_is_told_by_the_clock_of_the_system(tmp_path):
    deadline = datetime(2026, 12, 4, 19, 0, tzinfo=timezone.utc)
    rules = Rules(deadline=deadline, extensions={"Björn Müller": datetime(2026, 12, 6, tzinfo=timezone.utc)})
    for system in ("gradescope", "nbgrader", "github"):
        source = as_zip(tmp_path / f"{system}.zip", downloads.files(system, HANDED_IN))
        take(source, tmp_path / system, people=people_of(system, tmp_path), rules=lambda _: rules)
        rows = rows_of(tmp_path / system)
        assert rows["Anna Müller"]["late"] == "by 0 d 1 h 15 min"
        assert rows["Anna Müller"]["handed in"] == "2026-12-04T20:15:00+00:00"
        assert rows["Björn Müller"]["late"] == ""


def test_times_of_moodle_are_of_the_zone_of_the_course(tmp_path, monkeypatch):
    """Not of the machine, which may stand anywhere."""
    monkeypatch.setenv("TZ", "America/Los_Angeles")
    time.tzset()
    try:
        zone = ZoneInfo("Asia/Tokyo")
        rules = Rules(deadline=datetime(2026, 12, 4, 20, 0, tzinfo=zone), zone=zone)
        source = as_zip(tmp_path / "d.zip", downloads.files("moodle", HANDED_IN))
        take(source, tmp_path / "in", people=people_of("moodle", tmp_path), rules=lambda _: rules)
        row = rows_of(tmp_path / "in")["Anna Müller"]
        assert (row["handed in"], row["late"]) == ("2026-12-04T20:15:00+09:00", "by 0 d 0 h 15 min")
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("name", "stem", "number"),
    [
        ("x.ipynb", "x", 0), ("x (1).ipynb", "x", 1), ("x(2).ipynb", "x", 2), ("Kopie von x.ipynb", "x", 0), ("Copy of Copy of x.ipynb", "x", 0),
        ("x-3.ipynb", "x", 3), ("x - Copy.ipynb", "x", 1), ("x - Kopie (2).ipynb", "x", 2), ("x-Copy1.ipynb", "x", 1), ("X.IPYNB", "x", 0),
        ("Cópia de x (1).ipynb", "x", 1), ("01_a-2024.ipynb", "01_a-2024", 0),
    ],
)  # fmt: skip
def test_names_that_were_changed_on_the_way(name, stem, number):
    assert classroom._likeness(name) == (stem, number)


@pytest.mark.parametrize("packed", [True, False], ids=["zip", "folder"])
def test_renamed_files_and_what_is_nobodys_are_told(packed, tmp_path):
    other = KNOWN[1]
    found = {
        f"anna/Kopie von {EXERCISE}.ipynb": b"a",
        f"ben/{EXERCISE}.ipynb": b"old", f"ben/{EXERCISE} (1).ipynb": b"b",
        "cem/my solution.ipynb": b"c",
        f"dora/{other}.ipynb": b"d",
        "eve/one.ipynb": b"e", "eve/two.ipynb": b"e",
        "finn/notes.txt": b"f",
        f"{EXERCISE} (3).ipynb": b"g",
        "report.pdf": b"h",
        "gül.zip": zipped(member(f"deep/{EXERCISE}.ipynb", b"i")),
        unicodedata.normalize("NFD", "jörg.ipynb"): b"j",
    }  # fmt: skip
    source = as_zip(tmp_path / "d.zip", found) if packed else as_folder(tmp_path / "d", found)
    take(source, tmp_path / "in")
    given = {s.student: s for s in collect.submissions(tmp_path / "in", EXERCISE)}
    read = {name: collect.read(s) for name, s in given.items() if s.path}
    assert read == {"anna": b"a", "ben": b"b", "cem": b"c", "gül": b"i", "jörg": b"j"}
    told = "\n".join(collect.told(tmp_path / "in"))
    assert "cem: its notebook is called my solution.ipynb" in told
    assert f"dora: expected one notebook {EXERCISE}.ipynb; there is {other}.ipynb" in told
    assert "eve: expected one notebook" in told
    assert f"finn: expected one notebook {EXERCISE}.ipynb; there is notes.txt" in told
    assert f"{EXERCISE} (3).ipynb is nobody's submission: its name does not tell whose it is" in told
    assert "report.pdf is nobody's submission" in told
    assert set(collect.passed_over(tmp_path / "in")) == {f"{EXERCISE} (3).ipynb", "report.pdf"}


def test_nobody_is_guessed(tmp_path):
    table = "student;id\nJane Doe;11\nJane Doe;12\nJohn Miller;13\nJürgen Groß;14\nMüller, Eva;15\n"
    (tmp_path / "r.csv").write_text(table, encoding="cp1252")
    people = roster.Roster(roster.read(tmp_path / "r.csv"))
    assert [person.student for person in people.people][:2] == ["Jane Doe (11)", "Jane Doe (12)"]
    for name, numbers, student, how in [
        ("Jane Doe", ["12"], "Jane Doe (12)", "name and number"),
        ("Jane Doe", [], None, "may be Jane Doe (11) or Jane Doe (12)"),
        ("John Miller", ["14"], None, "the number is that of Jürgen Groß, the name that of John Miller"),
        ("Mallory", ["14"], None, "the number is that of Jürgen Groß, the name that of nobody"),
        ("millerjohn", [], "John Miller", "name"),
        ("Juergen Gross", [], "Jürgen Groß", "name"),
        ("Jurgen Gross", [], "Jürgen Groß", "name"),
        ("Eva Müller", [], "Müller, Eva", "name"),
        ("Jon Miller", [], None, "not on the roster; is John Miller meant?"),
        ("", ["13"], "John Miller", "number"),
        ("", [], None, "not on the roster"),
    ]:
        person, found = people.find(name, numbers)
        assert (person and person.student, found) == (student, how)


def test_two_of_one_name_and_one_who_pretends_to_be_another(tmp_path):
    """Canvas takes the first two numbers; a name may end with one. It costs neither of the two anything."""
    found = {f"doejane_11_1_{EXERCISE}.ipynb": b"1", f"doejane_12_2_{EXERCISE}.ipynb": b"2"}
    found[f"mallory_11_12_3_{EXERCISE}.ipynb"] = b"3"  # a name "mallory_11"
    take(as_zip(tmp_path / "d.zip", found), tmp_path / "a")
    given = {s.student: collect.read(s) for s in collect.submissions(tmp_path / "a", EXERCISE)}
    assert given == {"doejane (11)": b"1", "doejane (12)": b"2", "mallory": b"3"}
    (tmp_path / "r.csv").write_text('Student,ID\n"Doe, Jane",11\n"Doe, Jane",12\n"X, Mallory_11",13\n')
    take(tmp_path / "d.zip", tmp_path / "b", people=roster.read(tmp_path / "r.csv"))
    given = {s.student: s for s in collect.submissions(tmp_path / "b", EXERCISE)}
    assert collect.read(given["Doe, Jane (11)"]) == b"1"
    assert collect.read(given["Doe, Jane (12)"]) == b"2"
    assert given["X, Mallory_11"].path is None
    assert "the number is that of Doe, Jane (11), the name that of nobody" in collect.told(tmp_path / "b")[-1]
    assert collect.read(given["mallory"]) == b"3"


# Hostile zips


def member(name, data=b"{}", mode=0o644, **more):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    for attribute, value in more.items():
        setattr(info, attribute, value)
    return info, data


def packed(path, *members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for info, data in members:
            made.writestr(info, data, zipfile.ZIP_DEFLATED)
    return path


def zipped(*members):
    data = io.BytesIO()
    packed(data, *members)
    return data.getvalue()


HONEST = [member(f"anna/{EXERCISE}.ipynb", b"a"), member(f"zoe/{EXERCISE}.ipynb", b"z")]


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("../evil.ipynb", "its path leaves the folder"),
        ("mallory/../../evil.ipynb", "its path leaves the folder"),
        ("/tmp/evil.ipynb", "its path leaves the folder"),
        ("\\evil.ipynb", "its path leaves the folder"),
        ("..\\evil.ipynb", "its path leaves the folder"),
        ("C:\\evil.ipynb", "its path leaves the folder"),
    ],
)
def test_no_path_leaves_the_folder(tmp_path, name, word):
    source = packed(tmp_path / "d.zip", *HONEST, member(name, b"evil"))
    take(source, tmp_path / "deep" / "in")
    assert word in "\n".join(collect.told(tmp_path / "deep" / "in"))
    held = [path for path in tmp_path.rglob("*") if path.is_file() and path.name not in ("d.zip", collect.TABLE)]
    assert sorted(path.read_bytes() for path in held) == [b"a", b"z"]


@pytest.mark.parametrize(
    ("inner", "word"),
    [
        ([member("_" + " " * 60_000 + ".ipynb"), member(" - " * 20_000), member("1_" * 30_000)], "longer names"),
        ([member("x.ipynb", b"/etc/passwd", 0o120777)], "a symbolic link is not followed"),
        ([member("x.ipynb", b"0" * 2**23)], "was compressed by more than 200"),
        ([member("a/" * 12 + "x.ipynb")], "folders in each other"),
        ([member(f"{i}.ipynb") for i in range(archive.MAX_FILES + 1)], "more than 2000 files"),
        ([member("x.ipynb"), member("y.zip", zipped(member("x.ipynb")))], ""),
        ([member("y.zip", zipped(member(f"{EXERCISE}.ipynb", b"deep")))], "there is x.zip"),
        (b"PK\5\6" + b"\0" * 18, "there is x.zip"),
        (b"no zip", "no zip that can be read"),
        (b"", "no zip that can be read"),
    ],
    ids=["names", "link", "bomb", "deep", "many", "zip beside", "zip in zip", "empty", "none", "nothing"],
)
def test_a_hostile_zip_costs_its_student_alone(tmp_path, inner, word):
    data = inner if isinstance(inner, bytes) else zipped(*inner)
    source = packed(tmp_path / "d.zip", *HONEST, member("mallory/x.zip", data))
    take(source, tmp_path / "in")
    given = {s.student: s for s in collect.submissions(tmp_path / "in", EXERCISE)}
    assert [collect.read(given[name]) for name in ("anna", "zoe")] == [b"a", b"z"]
    assert (given["mallory"].path is None) == bool(word)
    assert word in next(line for line in [*collect.told(tmp_path / "in"), "mallory:"] if line.startswith("mallory"))


def test_names_without_end_at_the_top_cost_no_time(tmp_path):
    members = [
        member(text + ".ipynb")
        for text in ("_" + " " * 60_000, " - " * 20_000, "1_" * 30_000, "-" * 65_000, "(" * 60_000)
    ]
    packed(tmp_path / "d.zip", *HONEST, *members)
    began = time.process_time()
    take(tmp_path / "d.zip", tmp_path / "in")
    assert time.process_time() - began < 2
    given = {s.student for s in collect.submissions(tmp_path / "in", EXERCISE) if s.path}
    assert given == {"anna", "zoe"}
    assert sum("longer names" in line for line in collect.told(tmp_path / "in")) == 5


def test_a_table_that_somebody_put_there_hides_nobody(tmp_path):
    folder = as_folder(tmp_path / "d", {f"{name}/{EXERCISE}.ipynb": name.encode() for name in ("anna", "zoe")})
    (folder / collect.TABLE).write_text(",".join(collect.COLUMNS) + "\nmallory,,,,,,,,,../anna\nx,,,,,,,,,/etc\n")
    given = {s.student: s for s in collect.submissions(folder, EXERCISE)}
    assert set(given) == {"anna", "mallory", "x", "zoe"} - {"anna"}  # mallory has anna's folder, and zoe is told
    assert given["mallory"].path == folder / "anna" / f"{EXERCISE}.ipynb"
    assert "does not list it" in given["zoe"].refused
    for text, words in (
        ("student\nx\n", "is not what interp-lab collect writes"),
        (f"{','.join(collect.COLUMNS)}\nx,,,,,soon,,,,\n", "soon"),
    ):
        (folder / collect.TABLE).write_text(text)
        with pytest.raises(ValueError, match=rf"collected\.csv.*{words}"):
            collect.submissions(folder, EXERCISE)


def test_where_nobody_is_to_know_the_names(tmp_path):
    found = {f"Participant_{n}_assignsubmission_file/{EXERCISE}.ipynb": str(n).encode() for n in (7, 8)}
    found[f"Group A-Jane Doe_9_assignsubmission_file/{EXERCISE}.ipynb"] = b"9"
    (tmp_path / "r.csv").write_text(
        "Identifier,Full name,Status\nParticipant 7,,\nParticipant 8,,\nParticipant 9,Jane Doe,\n"
    )
    take(as_zip(tmp_path / "d.zip", found), tmp_path / "in", people=roster.read(tmp_path / "r.csv"))
    given = {s.student: collect.read(s) for s in collect.submissions(tmp_path / "in", EXERCISE)}
    assert given == {"Participant 7": b"7", "Participant 8": b"8", "Jane Doe": b"9"}
    take(as_zip(tmp_path / "e.zip", {f"anon_Ab1c_{n}_{EXERCISE}.ipynb": b"" for n in (1, 2)}), tmp_path / "in")
    assert [s.student for s in collect.submissions(tmp_path / "in", EXERCISE)] == ["anon_Ab1c"]


def test_zips_of_students_are_not_kept_in_memory(tmp_path):
    """Of a dozen students with 2 MiB each, one is held at a time."""
    noise = random.Random(0).randbytes(2**21)
    inner = zipped(member("noise.bin", noise), member(f"{EXERCISE}.ipynb", b"{}"))
    packed(tmp_path / "d.zip", *(member(f"s{i}/x.zip", inner) for i in range(12)))
    tracemalloc.start()
    take(tmp_path / "d.zip", tmp_path / "in")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 14 * 2**20
    assert all(s.path for s in collect.submissions(tmp_path / "in", EXERCISE))


def test_a_member_that_lies_about_its_size_or_is_damaged_costs_its_student_alone(tmp_path):
    data = bytearray(
        zipped(*HONEST, member(f"liar/{EXERCISE}.ipynb", b"l" * 5000), member(f"mallory/{EXERCISE}.ipynb", b"m" * 500))
    )
    at = data.rindex(b"liar/") - 46
    data[at + 24 : at + 28] = struct.pack("<I", 10)  # the size in the list of files
    at = data.rindex(b"mallory/") - 46
    data[at + 16 : at + 20] = b"\0\0\0\0"  # the checksum
    (tmp_path / "d.zip").write_bytes(data)
    take(tmp_path / "d.zip", tmp_path / "in")
    given = {s.student: s for s in collect.submissions(tmp_path / "in", EXERCISE)}
    assert [name for name, s in given.items() if s.path] == ["anna", "zoe"]
    assert "cannot be unpacked" in given["mallory"].refused


def test_an_encrypted_member_and_a_list_of_files_without_end_are_refused(tmp_path, monkeypatch):
    data = bytearray(zipped(*HONEST, member(f"mallory/{EXERCISE}.ipynb", b"m")))
    at = data.rindex(b"mallory/") - 46
    data[at + 8] |= 1
    (tmp_path / "d.zip").write_bytes(data)
    take(tmp_path / "d.zip", tmp_path / "in")
    assert any("mallory" in line and "is encrypted" in line for line in collect.told(tmp_path / "in"))
    monkeypatch.setattr(archive, "MAX_LISTING", 100)
    with pytest.raises(ValueError, match=r"d\.zip: .*too many files.*unpack it yourself"):
        take(tmp_path / "d.zip", tmp_path / "in")


def test_no_cell_of_the_table_is_a_formula(tmp_path):
    found = {f"{sign}1+1/{EXERCISE}.ipynb": b"" for sign in "=+-@"} | {"=2.pdf": b"", f"anna/{EXERCISE}.ipynb": b"a"}
    take(as_zip(tmp_path / "d.zip", found), tmp_path / "in")
    cells = [
        cell
        for row in csv.reader(io.StringIO((tmp_path / "in" / collect.TABLE).read_text("utf-8-sig")))
        for cell in row
    ]
    assert not any(cell[:1] in ("=", "+", "-", "@") for cell in cells)
    assert "'=1+1" in cells
    assert {s.student for s in collect.submissions(tmp_path / "in", EXERCISE)} == {
        "=1+1",
        "+1+1",
        "-1+1",
        "@1+1",
        "anna",
    }


def test_empty_folders_without_end_are_not_walked(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_FILES", 20)
    folder = as_folder(tmp_path / "d", {f"anna/{EXERCISE}.ipynb": b"a"})
    for i in range(50):
        (folder / "mallory" / str(i)).mkdir(parents=True)
    (folder / "mallory" / "9" / f"{EXERCISE}.ipynb").touch()
    take(folder, tmp_path / "in")
    assert [line for line in collect.told(tmp_path / "in") if "mallory: more than 20 files and folders" in line]


def test_links_and_endless_folders_on_the_disk_cost_their_student_alone(tmp_path):
    folder = as_folder(tmp_path / "d", {f"{name}/{EXERCISE}.ipynb": name.encode() for name in ("anna", "zoe")})
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / f"{EXERCISE}.ipynb").write_text("secret")
    (folder / "mallory").symlink_to(tmp_path / "secret")
    (folder / "moe").mkdir()
    (folder / "moe" / f"{EXERCISE}.ipynb").symlink_to(tmp_path / "secret" / f"{EXERCISE}.ipynb")
    (folder / "max" / "inner").mkdir(parents=True)
    (folder / "max" / "inner" / "x").symlink_to(folder)
    for i in range(archive.MAX_FILES + 5):
        (folder / "max" / f"{i}.txt").touch()
    os.mkfifo(folder / "max" / f"{EXERCISE}.ipynb")
    take(folder, tmp_path / "in")
    given = {s.student: s for s in collect.submissions(tmp_path / "in", EXERCISE)}
    assert sorted(name for name, s in given.items() if s.path) == ["anna", "zoe"]
    told = "\n".join(collect.told(tmp_path / "in"))
    for words in ("mallory", "symbolic link is not followed", f"more than {archive.MAX_FILES}"):
        assert words in told
    assert b"secret" not in b"".join(path.read_bytes() for path in (tmp_path / "in").rglob("*") if path.is_file())


def test_metadata_of_gradescope_is_hostile_too(tmp_path):
    found = downloads.files("gradescope", dict(list(HANDED_IN.items())[:3]))
    name = "assignment_31_export/submission_metadata.yml"
    evil = found[name] + (
        b"submission_1000:\n  :submitters:\n  - :name: ../../Anna\\u0000\n    :sid: !ruby/object:Gem::Installer\n      i: x\n"
        b"submission_7: !ruby/object:OpenStruct\n  a: b\nsubmission_8: [1, 2]\n"
        b"submission_9:\n  :submitters:\n  - :name: [&a [x, x], *a, *a]\n    :sid: 0900\n"
    ).replace(b"submission_1000:", b"submission_2000:")
    found |= {name: evil} | {f"assignment_31_export/submission_{n}/{EXERCISE}.ipynb": b"evil" for n in (9, 2000)}
    take(as_zip(tmp_path / "d.zip", found), tmp_path / "in")
    given = {s.student: s for s in collect.submissions(tmp_path / "in", EXERCISE)}
    assert {"Anna Müller", "Björn Müller", "Çem Müller"} < set(given)
    assert all(given[name].path for name in ("Anna Müller", "Björn Müller"))
    assert given["0900"].path  # a name that is none is written out nowhere
    assert "the name may hold letters" in given["../../Anna\\\\u0000"].refused
    found[name] = b"a: &a [x, x]\nb: &b [*a, *a]\n" + b"[" * 5000
    with pytest.raises(ValueError, match=r"submission_metadata\.yml cannot be read"):
        take(as_zip(tmp_path / "d.zip", found), tmp_path / "in")


def test_two_who_handed_in_together_both_have_the_notebook(tmp_path):
    found = {
        f"submission_1/{EXERCISE}.ipynb": b"ours",
        "submission_metadata.yml": b"submission_1:\n  :submitters:\n  - {':name': Ann Lee, ':sid': 007}\n  - {':name': Bo Li, ':sid': 8}\n",
    }
    take(as_zip(tmp_path / "d.zip", found), tmp_path / "in")
    assert {s.student: collect.read(s) for s in collect.submissions(tmp_path / "in", EXERCISE)} == {
        "Ann Lee": b"ours",
        "Bo Li": b"ours",
    }


def test_of_several_assignments_in_nbgrader_each_has_its_own_time(tmp_path):
    found = {
        f"u1/{ps}/timestamp.txt": f"2026-12-0{n} 10:00:00.500000 UTC".encode() for n, ps in ((1, "ps1"), (9, "ps2"))
    }
    found |= {f"u1/ps1/{EXERCISE}.ipynb": b"1", f"u1/ps2/{KNOWN[1]}.ipynb": b"2"}
    take(as_zip(tmp_path / "d.zip", {f"submitted/{name}": data for name, data in found.items()}), tmp_path / "in")
    assert rows_of(tmp_path / "in")["u1"]["handed in"] == "2026-12-01T10:00:00+00:00"
    take(as_zip(tmp_path / "e.zip", found | {f"u1/ps2/{EXERCISE}.ipynb": b"3"}), tmp_path / "in")
    (given,) = collect.submissions(tmp_path / "in", EXERCISE)
    assert (collect.read(given), given.handed_in.day) == (b"3", 9)


def test_words_about_all_that_a_student_handed_in_are_kept(tmp_path):
    found = {f"{name}_assignsubmission_file/{EXERCISE}.ipynb": b"1" for name in ("Ann Lee_5", "Bo Li_6", "Cy Ng_7")}
    found |= {"Ann Lee/notes.txt": b""}  # put there by hand
    (tmp_path / "r.csv").write_text("student\nAnn Lee\nBo Li\nCy Ng\n")
    take(as_zip(tmp_path / "d.zip", found), tmp_path / "in", people=roster.read(tmp_path / "r.csv"))
    assert [collect.read(s) for s in collect.submissions(tmp_path / "in", EXERCISE)] == [b"1"] * 3
    assert collect.told(tmp_path / "in") == [
        f"Ann Lee: Ann Lee: expected one notebook {EXERCISE}.ipynb; there is notes.txt"
    ]


@pytest.mark.slow
def test_a_class_of_two_thousand_repositories_is_collected_in_seconds(tmp_path):
    found = {
        f"hw-1-user-{i}/{file}": b""
        for i in range(2000)
        for file in (".git/HEAD", f"exercises/{EXERCISE}.ipynb", "a.py", "b.py")
    }
    (tmp_path / "r.csv").write_text(
        "identifier,github_username\n" + "".join(f"Name {i},user-{i}\n" for i in range(2000))
    )
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as made:
        for name in found:
            made.writestr(name, b"")
    began = time.process_time()
    people = roster.read(tmp_path / "r.csv")
    collected = take(tmp_path / "d.zip", tmp_path / "in", people=people[:1000])
    assert collected.counts() == "github: 2000 notebooks, 1000 not on the roster"
    assert time.process_time() - began < 20


def test_names_in_a_zip_of_a_mac_and_of_windows(tmp_path):
    data = zipped(member(f"ZZZZZ/{EXERCISE}.ipynb", b"mac"), member(f"Jrg/{EXERCISE}.ipynb", b"windows"))
    data = data.replace(b"ZZZZZ", "Jo\u0308e".encode()).replace(b"Jrg", b"J\x94g")
    (tmp_path / "d.zip").write_bytes(data)
    take(tmp_path / "d.zip", tmp_path / "in")
    assert {s.student: collect.read(s) for s in collect.submissions(tmp_path / "in", EXERCISE)} == {
        "Jöe": b"mac",
        "Jög": b"windows",
    }


names = st.text(st.characters(), min_size=1, max_size=40).filter(lambda name: "/" not in name and "\0" not in name)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    system=st.sampled_from(SYSTEMS),
    odd=st.lists(st.lists(names, min_size=1, max_size=4), max_size=4),
    inner=st.binary(max_size=40),
)
def test_whatever_a_zip_holds_the_honest_are_collected_and_nothing_is_dropped(system, odd, inner, tmp_path_factory):
    top = tmp_path_factory.mktemp("zip")
    found = downloads.files(system, dict(list(HANDED_IN.items())[:9]))
    for parts in odd:
        found.setdefault("/".join(parts).encode(errors="replace").decode(), inner)
    collected = take(as_zip(top / "d.zip", found), top / "in", people=people_of(system, top), form=system)
    given = {key(s.student): s for s in collect.submissions(top / "in", EXERCISE)}
    assert all(collect.read(given[key(full(i))]) == HANDED_IN[i] for i in range(9))
    assert {path.parent.parent for path in (top / "in").rglob("*.ipynb")} <= {top / "in"}
    text = (top / "in" / collect.TABLE).read_text("utf-8-sig")
    rows = list(csv.reader(io.StringIO(text)))
    assert len(rows) == 1 + len(collected.rows)
    assert {len(row) for row in rows} == {len(classroom.COLUMNS)}
    assert not any(cell[:1] in ("=", "+", "-", "@") for row in rows for cell in row)


def test_the_command_tells_what_it_did(tmp_path, capsys):
    source = as_zip(
        tmp_path / "d.zip", downloads.files("moodle", HANDED_IN) | {"x_1_assignsubmission_file_/y.txt": b""}
    )
    (tmp_path / "moodle.csv").write_text(downloads.rosters()["moodle"])
    for name in KNOWN:
        (tmp_path / "solutions" / name).mkdir(parents=True)
        (tmp_path / "solutions" / name / "solution.ipynb").touch()
    (tmp_path / "course.yml").write_text("timezone: UTC\nexercises: {01: {deadline: 2026-12-04 12:00}}\n")
    arguments = [
        source,
        "--into",
        tmp_path / "in",
        "--roster",
        tmp_path / "moodle.csv",
        "--solutions",
        tmp_path / "solutions",
    ]
    assert cli.SYSTEMS == tuple(name for name in cli.SYSTEMS if name in classroom.FORMS)
    assert set(cli.SYSTEMS) == set(classroom.FORMS)
    command = ["collect", *map(str, arguments), "--course", str(tmp_path / "course.yml")]
    from interp_lab.cli import run

    assert run([cli.add_teaching], command) == 0
    out = capsys.readouterr().out
    assert "Look: Ōta Groß: nothing was handed in" not in out
    assert f"{EXERCISE}, moodle: 38 notebooks, 2 missing" in out
    assert "x: expected one notebook" in out
    assert run([cli.add_teaching], [*command, "--exercise", "77"]) == 2
    assert "--exercise must be one of" in capsys.readouterr().err
    (tmp_path / "in2").mkdir()
    (tmp_path / "in2" / "mine.txt").touch()
    assert run([cli.add_teaching], ["collect", str(source), "--into", str(tmp_path / "in2"), *command[4:]]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert replace(roster.Person("a", "a"), line=3) == roster.Person("a", "a")
    assert len(CLASS) == 40
