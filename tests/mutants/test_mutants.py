"""The tool itself, on a module of one line."""

import pytest

from .__main__ import ROOT, outcome
from .rows import Row, found, read

TESTS = """
from module import double

def test_double():
    assert double(0) == 0
    assert double(3) == 6
"""


@pytest.fixture
def root(tmp_path):
    course = tmp_path / "course"
    course.mkdir()
    (course / "module.py").write_text("def double(x):\n    return 2 * x\n")
    (course / "test_module.py").write_text(TESTS)
    return course


@pytest.mark.slow
@pytest.mark.parametrize(
    ("new", "expected"),
    [
        ({"new": "3 * x"}, "killed"),
        ({"new": "x + x"}, "survived"),
        ({"new": "x + x", "survives": "the same"}, "explained"),
        ({"new": "3 * x", "survives": "not so"}, "refuted"),
        ({"new": "3 * x", "old": "4 * x"}, "stale"),
        ({"new": "3 * x", "tests": "test_module.py -k nothing"}, "broken"),
        ({"new": "3 * x", "tests": "test_of_nothing.py"}, "broken"),
        ({"new": "3 * x", "tests": "test_wrong.py"}, "broken"),
        ({"new": "__import__('os').abort()"}, "killed"),
    ],
)
def test_verdicts(root, new, expected):
    (root / "test_wrong.py").write_text("def test_wrong():\n    assert False\n")
    row = {"group": "", "id": "1", "why": "", "place": "module", "tests": "test_module.py", "old": "2 * x"} | new
    before = (root / "module.py").read_text()
    verdict, _, by = outcome(root, Row(**row))
    assert verdict == expected
    assert (root / "module.py").read_text() == before
    assert by == ("test_module.py::test_double" if new == {"new": "3 * x"} else by)


def test_every_row_fits_the_code():
    assert [row.id for row in read() if found(ROOT, row) is None] == []


def test_a_row_may_name_a_folder_in_which_one_file_holds_the_text(tmp_path):
    row = Row("", "1", "", "room", "", old="once", new="")
    assert found(tmp_path, row) is None
    (tmp_path / "room.py").write_text("once")
    assert found(tmp_path, row) == tmp_path / "room.py"
    (tmp_path / "room.py").unlink()
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "corner.py").write_text("once")
    assert found(tmp_path, row) == tmp_path / "room" / "corner.py"
    for again in ("corner.py", "door.py"):
        (tmp_path / "room" / again).write_text("once, once" if again == "corner.py" else "once")
        assert found(tmp_path, row) is None
    assert found(tmp_path, Row("", "1", "", "room/door.py", "", old="once", new="")) == tmp_path / "room" / "door.py"


def test_rows_are_read_as_they_are_written(tmp_path):
    (tmp_path / "rows.txt").write_text(
        "# by hand\n\na.py: tests/test_a.py\n\n1: too: long\n- if x:\n-     y\n+ y\ntests: b -k 'c and d'\nsurvives: it does\n\n2: no\n- z\n"
    )
    assert read(tmp_path) == [
        Row("rows", "1", "too: long", "a.py", "b -k 'c and d'", "if x:\n    y", "y", "it does"),
        Row("rows", "2", "no", "a.py", "tests/test_a.py", "z", ""),
    ]
    for wrong in ("1: twice\n- a\n\n1: twice\n- b", "1: nothing\n- a\n+ a", "1: what\n- a\n? b"):
        (tmp_path / "rows.txt").write_text(f"a.py: tests/test_a.py\n\n{wrong}\n")
        with pytest.raises(ValueError, match=r"rows\.txt, 1: "):
            read(tmp_path)
    assert len(read()) > 300
