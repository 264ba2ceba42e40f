"""An instructor's own exercise: the template holds as it is, and each thing that can be off is named."""

import json
import re
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

from grader import authoring, release, sandbox
from grader.cli import add_teaching
from grader.corpus import KINDS, Corpus, Trial
from interp_lab.cli import run

COMMANDS = [add_teaching]


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course without exercises, in whose root one stands."""
    (tmp_path / "solutions").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def one_lane(lane, monkeypatch):
    """The command uses the lane of all tests, since another one takes seconds to start."""
    monkeypatch.setattr(sandbox, "Lane", lambda **_: SimpleNamespace(run=lane.run, close=lambda: None))


def change(folder, file, old, new):
    path = folder / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def change_cells(folder, edit):
    path = folder / "solution.ipynb"
    book = json.loads(path.read_text(encoding="utf-8"))
    edit(book["cells"], {cell["id"]: cell for cell in book["cells"]})
    path.write_text(json.dumps(book), encoding="utf-8")


def off(folder, kind, lane=None):
    return [
        f"{trial}: {fault}" for trial in Corpus(folder).trials() if trial.kind == kind for fault in trial.faults(lane)
    ]


def test_a_new_exercise_passes_every_trial_at_once(course, one_lane, capsys):
    assert run(COMMANDS, ["new-exercise", "how_far"]) == 0
    folder = course / "solutions" / "01_how_far"
    assert "check-exercise 01_how_far" in capsys.readouterr().out
    assert "# How far\n" in json.loads((folder / "solution.ipynb").read_text(encoding="utf-8"))["cells"][0]["source"]
    assert authoring.TITLE not in "".join(path.read_text(encoding="utf-8") for path in folder.iterdir())
    assert run(COMMANDS, ["check-exercise", "how_far"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in said] == [["ok", kind] for kind in KINDS]
    assert release.main([]) == 0  # and its notebook can be released, by the same command as all
    assert run(COMMANDS, ["check-exercise", "01"]) == 0


def test_the_template_is_a_whole_exercise_of_the_course():
    """What the tests of the exercises ask besides the trials: links, the picture, the first cell."""
    book = json.loads((authoring.TEMPLATE / "solution.ipynb").read_text(encoding="utf-8"))
    cells = {cell["id"]: cell for cell in book["cells"]}
    assert "".join(cells["install"]["source"]) == release.install_cell()
    assert (Path(__file__).parents[2] / "book" / "part2" / "saliency_maps.md").exists()
    assert "(../../book/part2/saliency_maps.md)" in "".join(cells["title"]["source"])
    namespace = {}
    for cell in cells.values():
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), namespace)
    (drawn,) = [output["data"]["image/png"] for output in cells["q1-figure"]["outputs"] if "data" in output]
    assert "".join(drawn).replace("\n", "") in "".join(cells["q1-picture"]["source"])


def test_the_command_names_what_is_off_says_what_to_do_and_fails(course, one_lane, capsys):
    folder = authoring.create(Path("solutions"), "how_far")
    change(folder, "corpus.py", '"squares", ".abs()", ".square()"', '"squares", ".abs()", ".abs().abs()"')
    assert run(COMMANDS, ["check-exercise", "how_far"]) == 1
    said = capsys.readouterr().out
    assert "\nOFF wrong        8 of 9 " in said
    guide = (Path(__file__).parents[2] / "book" / "appendix" / "instructors.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^    ok  solution .*\n(?:    .*\n)+", guide, re.MULTILINE)
    assert [line for line in textwrap.dedent(shown).splitlines() if line != "..." and line not in said] == []
    assert "\nOff: wrong, question 1, squares: passes: it gets all points\nWhat to do: let the check cell" in said


@pytest.mark.parametrize(
    ("kind", "old", "new", "words"),
    [
        ("wrong", '"squares", ".abs()", ".square()", "q1"', '"squares", ".abs()", ".abs().abs()", ""',
         "wrong, question 1, squares: passes: it gets all points"),
        ("wrong", '"squares", ".abs()", ".square()"', '"squares", ".abs()", ".abs().abs()"', "squares: passes q1-check"),
        ("wrong", '"q1", "A ramp", ALL', '"q1", "A hill", ALL', "squares: is refused by q1-check without the words 'A hill'"),
        ("wrong", '"device", "follow x"', '"batch device", "follow x"', "loses the parts device; the corpus says batch, device"),
        ("wrong", '"device", "follow x"', '"device", "follow y"', "on the CPU: gets no feedback with the words 'follow y'"),
        ("wrong", '"across + down", "across"', '"down + across", "across"', "replaces 'down + across', which does not stand"),
        ("wrong", '".square()", "q1", "A ramp", ALL', '".square()", "", "", ""', "squares: must name the visible check"),
        ("right", ".abs().mean() + (", ".abs().mean() - (", "right, question 1, row by row: is refused by q1-check: Question 1: A r"),
        ("right", ".abs().mean() + (", ".abs().mean() - (", "row by row: loses the part 'general': One map with three"),
        ("empty", "maps.sum(dim=(1, 2, 3)) + 2", "maps.sum(dim=1).diff(dim=2).abs().mean(dim=(1, 2)) + "
         "maps.sum(dim=1).diff(dim=1).abs().mean(dim=(1, 2))", "empty, question 1, return {0}: passes q1-check"),
        ("enough", '    ("1", "row by row", ROW_BY_ROW),\n', "", "enough, question 1: RIGHT has 2 of at least 3 answers"),
        ("enough", 'ALL, "', '"", "', "WRONG has 3 of at least 5 answers that lose points"),
    ],
)  # fmt: skip
def test_an_answer_that_the_corpus_has_wrong_is_named(course, lane, kind, old, new, words):
    folder = authoring.create(Path("solutions"), "how_far")
    change(folder, "corpus.py", old, new)
    faults = off(folder, kind, lane)
    assert any(words in fault for fault in faults), faults


def test_what_only_one_side_refuses_is_named(course, lane):
    folder = authoring.create(Path("solutions"), "how_far")
    change(folder, "questions.py", 'Part("device", 0.5', 'Part("device again", 0.5')  # tried on the CPU
    change(folder, "corpus.py", '"device", "follow x"', '"", ""')
    (fault,) = off(folder, "contained", lane)
    assert "on the CPU: passes: it gets all points, though q1-check refuses it" in fault


@pytest.mark.parametrize(
    ("summed", "faults"),
    [
        (
            "maps.sum(dim=1) * (1 if maps.equal(maps.round()) else 2)",
            ["gets no points, though it passes every visible check"],
        ),
        ("maps.sum(dim=4)", []),  # a crash in the check is a refusal, too
    ],
)
def test_what_gets_no_points_must_be_refused_by_a_check(course, lane, summed, faults):
    folder = authoring.create(Path("solutions"), "how_far")
    row = ("1", "height", "maps.sum(dim=1)", summed, "", "", "easy shape general batch side effects device", "")
    with (folder / "corpus.py").open("a", encoding="utf-8") as file:
        file.write(f"WRONG = [{row!r}]\n")
    assert off(folder, "wrong", lane) == []
    assert off(folder, "contained", lane) == [f"contained, question 1, height: {fault}" for fault in faults]


def test_the_template_tries_answers_on_maps_of_at_least_5_x_4_pixels(course, lane):
    """On smaller ones a wrong answer may be right by chance."""
    corpus = Corpus(authoring.create(Path("solutions"), "how_far"))
    model = corpus.cells["q1-answer"]
    large = model.replace("relevance =", "assert maps.shape[2] >= 5 and maps.shape[3] >= 4; relevance =")
    assert large != model
    assert corpus.said("q1-check", q1_answer=large) == ""
    assert corpus.lost(lane, "1", large) == {}


@pytest.mark.parametrize(
    ("cell", "old", "new", "words"),
    [
        ("q1-answer", "across + down", "acros + down", "NameError: name 'acros' is not defined (code cell 3, q1-answer, line 10)"),
        ("q1-check", "check.follows", "check.followed", "AttributeError: .*(code cell 4, q1-check, line 19)"),
        ("q1-check", "check.follows(roughness,", "check.follows(rough,", "rough is not defined. .*(code cell 4, q1-check, line 19)"),
        ("q1-check", "[10.0, 0.0]", "[9.0, 0.0]", "expected 9. (code cell 4, q1-check, line 3)"),
        ("imports", "import digits", "import digit", "ImportError: .*(code cell 2, imports, line 4)"),
    ],
)  # fmt: skip
def test_an_error_in_a_cell_is_named_with_cell_and_line_before_what_follows_from_it(
    course, one_lane, capsys, cell, old, new, words
):
    folder = authoring.create(Path("solutions"), "how_far")
    change_cells(
        folder, lambda cells, by_id: by_id[cell].update(source="".join(by_id[cell]["source"]).replace(old, new))
    )
    assert run(COMMANDS, ["check-exercise", "how_far"]) == 1
    said = capsys.readouterr().out
    assert re.search(re.escape(words).replace(r"\.\*", ".*") + "$", said, re.MULTILINE), said
    assert re.match(r"OFF solution .*\n--  all other trials wait for the solution\n\nOff: solution, ", said)
    assert re.findall(r"^Off: (?!solution)", said, re.MULTILINE) == []


@pytest.mark.parametrize(
    ("kind", "old", "new", "place"),
    [
        ("right", "results.append", "result.append", "in place of code cell 3, q1-answer, line 5"),
        ("right", "results = []", "results = [", "in place of code cell 3, q1-answer, line 3"),
        ("empty", '"roughness(maps)"', '"roughness(map_)"', "in place of code cell 3, q1-answer, line 2"),
    ],
)
def test_an_error_in_an_answer_of_the_corpus_is_named_with_its_line(course, lane, kind, old, new, place):
    folder = authoring.create(Path("solutions"), "how_far")
    change(folder, "corpus.py", old, new)
    assert off(folder, kind, lane)[0].endswith(f"({place})")


def test_two_questions_that_define_one_name_are_named(course):
    folder = authoring.create(Path("solutions"), "how_far")

    def copy(cells, by_id):
        flags = {**by_id["q1-answer"]["metadata"]["nbgrader"], "grade_id": "q2-answer"}
        cells.append({**by_id["q1-answer"], "id": "copy", "metadata": {"nbgrader": flags}})

    change_cells(folder, copy)
    with pytest.raises(ValueError, match="roughness is defined more than once") as error:
        Corpus(folder)
    assert "(code cell 3, q1-answer, line 1; code cell 6, q2-answer, line 1)" in str(error.value)


@pytest.mark.parametrize(
    ("called", "words"),
    [
        ('Call("rougness", [randn(g, 5, 2', "gives no rougness: no cell before the check of question 1 defines it"),
        (
            'Call("roughness", [Net.draw([("Mean",)], g), randn(g, 5, 2',
            "there is no layer 'Mean': take Power, AvgPool2d, ",
        ),
    ],
)
def test_a_call_of_what_is_not_there_is_named(course, lane, called, words):
    folder = authoring.create(Path("solutions"), "how_far")
    change(folder, "questions.py", 'Call("roughness", [randn(g, 5, 2', called)
    change(folder, "questions.py", "import Call", "import Call, Net")
    assert words in off(folder, "solution", lane)[0]


def test_what_answers_print_is_not_shown(course, one_lane, capsys):
    folder = authoring.create(Path("solutions"), "how_far")
    change(folder, "solution.ipynb", "    relevance =", "    print(7); relevance =")
    assert run(COMMANDS, ["check-exercise", "how_far"]) == 0
    assert "7" not in capsys.readouterr().out.splitlines()


def test_a_solution_that_loses_a_point_is_named(course, lane):
    folder = authoring.create(Path("solutions"), "how_far")
    change(folder, "solution.ipynb", "return across + down", "return torch.zeros(len(maps)) + across + down")
    faults = off(folder, "solution", lane)
    assert faults[0].startswith(
        "solution, visible checks: is refused by q1-check: Question 1: Inputs on another device"
    )
    assert faults[1].startswith("solution, graded: loses the part 'device' of question 1: Maps on another device")


@pytest.mark.parametrize(
    ("cell", "text", "words"),
    [
        (
            "q1",
            "Take `relevance.diff(dim=2)`:\n\n    across = relevance.diff(dim=2).abs().mean(dim=(1, 2))",
            "answer's text",
        ),
        (
            "q1",
            "Compute `down = relevance.diff(dim=1).abs().mean(dim=(1, 2))` in the same way.",
            "answer's text",
        ),
        (
            "q1-check",
            'check.close(0, 0, "Write down = relevance.diff(dim=1)"\n    ".abs().mean(dim=(1, 2)).")',
            "answer's text",
        ),
        (
            "q1-figure",
            "relevance = maps.sum(dim=1)\nacross = relevance.diff(dim=2).abs().mean(dim=(1, 2))",
            "answer's text",
        ),
    ],
)
def test_a_leak_of_the_answer_is_named(course, cell, text, words):
    folder = authoring.create(Path("solutions"), "how_far")
    change_cells(folder, lambda cells, by_id: by_id[cell].update(source=text))
    assert off(folder, "leaks")[0].startswith(f"leaks: the cell {cell} shows the {words}: ")


def test_a_short_line_within_a_sentence_is_no_leak(course):
    folder = authoring.create(Path("solutions"), "how_far")
    change_cells(folder, lambda cells, by_id: by_id["q1"].update(source="At the end `return across + down`, both."))
    assert off(folder, "leaks") == []


def test_leaks_of_the_released_file_are_named(course):
    folder = authoring.create(Path("solutions"), "how_far")
    assert release.main([]) == 0
    assert off(folder, "leaks") == []
    released = course / "exercises" / "01_how_far.ipynb"
    answer = "across = relevance.diff(dim=2).abs().mean(dim=(1, 2))"
    other = {"cells": [{"cell_type": "markdown", "id": "hint", "metadata": {}, "source": answer}]}
    (course / "exercises" / "02_other.ipynb").write_text(json.dumps(other), encoding="utf-8")
    book = json.loads(released.read_text(encoding="utf-8"))
    book["cells"][-1]["execution_count"] = 3
    released.write_text(json.dumps(book), encoding="utf-8")
    assert off(folder, "leaks") == [
        "leaks: exercises/01_how_far.ipynb is not what this solution releases: run `python -m grader.release`",
        "leaks: the cell q1-figure has an output",
        f"leaks: exercises/02_other.ipynb: the cell hint shows the answer's text: {answer}",
    ]


def test_a_number_found_by_hand_is_a_leak_and_one_of_another_question_is_none(course):
    """A question without arguments, whose numbers are the same for everybody, as the guide adds it."""
    folder = authoring.create(Path("solutions"), "how_far")
    change(folder, "questions.py", "QUESTIONS = (\n", 'QUESTIONS = (\n    Question("2", "By hand", (Part("easy", 1, "Three '
           'numbers.", nothing("by_hand_numbers"), by_hand),)),\n')  # fmt: skip
    change(folder, "questions.py", "import shape_only", "import by_hand, shape_only")
    change(folder, "questions.py", "import F64, randn", "import F64, nothing, randn")
    change(folder, "corpus.py", "EMPTY = {\n", 'EMPTY = {\n    "2": ("by_hand_numbers()", "[0, 0, 0]"),\n')

    def add(cells, by_id, *, task=""):
        flags = {**by_id["q1-answer"]["metadata"]["nbgrader"], "grade_id": "q2-answer"}
        text = "def by_hand_numbers():\n    ### BEGIN SOLUTION\n    return [3.0, -1.5, 2.0]\n    ### END SOLUTION\n"
        answer = {**by_id["q1-answer"], "id": "q2-answer", "metadata": {"nbgrader": flags}, "source": text}
        check = {**by_id["q1-check"], "id": "q2-check", "source": 'with check.question("2"):\n    by_hand_numbers()'}
        check["metadata"] = {"nbgrader": {**check["metadata"]["nbgrader"], "grade_id": "q2-check", "points": 1}}
        cells += [{"cell_type": "markdown", "id": "q2", "metadata": {}, "source": task}, answer, check]

    change_cells(folder, lambda cells, by_id: add(cells, by_id, task="Three numbers for the rows 3, 2 and -1.5."))
    assert Corpus(folder).by_hand() == {("2", "by_hand_numbers"): [3.0, -1.5, 2.0]}
    assert off(folder, "leaks") == []
    change_cells(folder, lambda cells, by_id: by_id["q2"].update(source="Why is it (3, -1.5, 2)?"))
    assert off(folder, "leaks") == ["leaks: the cell q2 shows the result of by_hand_numbers()"]
    assert off(folder, "title") == ["title: the cells have 5 points, the table 4"]


def test_a_check_that_passes_without_an_answer_is_named(course):
    folder = authoring.create(Path("solutions"), "how_far")
    change_cells(folder, lambda cells, by_id: by_id["q1-check"].update(source='with check.question("1"):\n    pass'))
    assert off(folder, "untouched") == [
        "untouched: q1-check does not say that nothing is written yet, but 'passed'",
        "untouched: q1-check does not say that the answer's cell was not run, but 'passed'",
    ]
    change_cells(folder, lambda cells, by_id: by_id["q1-check"].update(source="roughness(torch.ones(1, 1, 2, 2))"))
    assert "must stand under `with check.question" in off(folder, "solution")[0]


def test_cells_go_by_the_names_that_an_author_can_change(course, lane):
    """Jupyter gives a cell that is copied an id of its own."""
    folder = authoring.create(Path("solutions"), "how_far")
    change_cells(folder, lambda cells, by_id: [cell.update(id=f"random{i}") for i, cell in enumerate(cells)])
    assert [fault for trial in Corpus(folder).trials() for fault in trial.faults(lane)] == []


def test_minutes_that_do_not_add_up_are_named(course):
    folder = authoring.create(Path("solutions"), "how_far")
    change(folder, "solution.ipynb", "| | together | 4 | 15 |", "| | together | 4 | 25 |")
    assert off(folder, "title") == ["title: the minutes of its rows are 15, not 25"]


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("questions.py", "from grader.calls", "from grader.call", r"questions.py: ModuleNotFoundError: No module .*\(questions.py, line 5\)$"),
        ("questions.py", '"easy", 1, "One', '"easy", 2, "One', r"has 5 points in questions.py and 4 in solution.ipynb"),
        ("questions.py", "QUESTIONS = (", "QUESTIONS = ((", r"questions.py: SyntaxError: .*\(questions.py, line 40\)$"),
        ("questions.py", "QUESTIONS = (", "QUESTIONS = 2 * (", r"QUESTIONS of 01_how_far in questions.py must have names of their"),
        ("questions.py", 'Part("batch"', 'Part("easy"', r"question 1 must have one part of the kind easy \(questions.py, line 41\)$"),
        ("questions.py", 'shape_only, "easy"', 'shape_only, "eas"', r"question 1 must have one part of the kind eas \(quest"),
        ("questions.py", "\nQUESTIONS = (", "\ndef easy(g):\n    return []\n\n\nQUESTIONS = (",
         r"01_how_far: easy is defined more than once \(questions.py, line 13; questions.py, line 40\): every question needs"),
        ("corpus.py", "EMPTY = {", "EMPTY_ = {", r"corpus.py lacks EMPTY"),
        ("corpus.py", '"1": (', '"2": (', r"EMPTY must have an entry for each of the questions 1$"),
        ("corpus.py", '["imports"]', '["data"]', r"SETTING names code cells that are missing: data$"),
        ("corpus.py", '("1", "first channel", ', '("first channel", ', r"row 6 of WRONG must be 8 texts: question, name, old"),
        ("corpus.py", '("1", "row by row"', '("3", "row by row"', r"row 1 of RIGHT is for question '3', which needs"),
        ("corpus.py", '".square()", "q1"', '".square()", "q1b"', r"row 1 of WRONG names a check cell that is missing: q1b-check"),
        ("corpus.py", "RIGHT = [", "RIGHT = [nobody, ", r"corpus.py: NameError: .* is not defined \(corpus.py, line 38\)$"),
        ("solution.ipynb", "return across + down", "return across + down)",
         r"01_how_far: code cell 3, q1-answer, line 10 does not parse: SyntaxError: unmatched"),
        ("solution.ipynb", "names = (", "names = ((", r"code cell 5, q1-figure, line 3 does not parse: SyntaxError"),
        ("solution.ipynb", '"grade_id": "q1-answer"', '"grade_id": "q1_answer"', r"solution.ipynb lacks a code cell q1-answer$"),
        ("solution.ipynb", "### END SOLUTION", "### END", r"solution.ipynb: cell 5 \(q1-answer\): BEGIN SOLUTION without END"),
        ("solution.ipynb", '"cells"', '"cell', r"solution.ipynb: "),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_named_with_its_place(course, capsys, file, old, new, words):
    folder = authoring.create(Path("solutions"), "how_far")
    change(folder, file, old, new)
    with pytest.raises(ValueError, match=words):
        Corpus(folder)
    assert run(COMMANDS, ["check-exercise", "how_far"]) == 1
    assert capsys.readouterr().out.startswith("Off: solutions/01_how_far")


@pytest.mark.slow
def test_the_command_opens_and_closes_a_sandbox_of_its_own(course, lane):
    authoring.create(Path("solutions"), "how_far")
    assert run(COMMANDS, ["check-exercise", "how_far"]) == 0


def test_without_a_sandbox_the_command_says_what_to_do(course, monkeypatch, capsys):
    def none(**_):
        raise sandbox.SandboxError("there is none")

    authoring.create(Path("solutions"), "how_far")
    monkeypatch.setattr(sandbox, "Lane", none)
    assert run(COMMANDS, ["check-exercise", "how_far"]) == 2
    assert capsys.readouterr().err == "interp-lab: there is none\n"


def test_an_exercise_without_a_corpus_is_told_how_to_get_one(course, capsys):
    (authoring.create(Path("solutions"), "how_far") / "corpus.py").unlink()
    assert run(COMMANDS, ["check-exercise", "how_far"]) == 1
    assert "there is no solutions/01_how_far/corpus.py; interp-lab new-exercise makes one" in capsys.readouterr().out


def test_numbers_follow_each_other_unless_one_is_chosen(course):
    names = [authoring.create(Path("solutions"), name).name for name in ("a", "07_b", "c")]
    assert names == ["01_a", "07_b", "08_c"]


@pytest.mark.parametrize("taken", ["how_far", "01_other", "02_how_far"])
def test_a_taken_name_or_number_is_refused_and_nothing_is_overwritten(course, capsys, taken):
    folder = authoring.create(Path("solutions"), "how_far")
    (folder / "corpus.py").write_text("mine")
    assert run(COMMANDS, ["new-exercise", taken]) == 2
    assert "solutions/01_how_far has this name or number already: choose another" in capsys.readouterr().err
    assert [path.name for path in Path("solutions").iterdir()] == ["01_how_far"]
    assert (folder / "corpus.py").read_text() == "mine"


@pytest.mark.parametrize("name", ["", "a/b", "../a", "How far", "1_a", "ä", "a.ipynb", "15"])
def test_what_is_no_name_is_refused(course, capsys, name):
    assert run(COMMANDS, ["new-exercise", name]) == 2
    assert f"{name!r} is no name for an exercise: take small letters" in capsys.readouterr().err
    assert list(Path("solutions").iterdir()) == []


@pytest.mark.parametrize("command", ["new-exercise", "check-exercise"])
def test_outside_of_a_course_the_root_is_asked_for(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    assert run(COMMANDS, [command, "how_far"]) == 2
    assert "--solutions" in (said := capsys.readouterr().err)
    assert "root" in said
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_name_is_answered_by_those_that_there_are(course, capsys):
    authoring.create(Path("solutions"), "how_far")
    assert run(COMMANDS, ["check-exercise", "so_near"]) == 2
    assert capsys.readouterr().err == "interp-lab: NAME must be one of 01_how_far, not so_near\n"


def test_the_remedy_and_only_some_of_many_faults_are_shown():
    trial = Trial("leaks", "", "", lambda lane: iter(()))
    lines = authoring.table({trial: [f"line {i}" for i in range(7)]}).splitlines()
    assert [line for line in lines if line.startswith("Off: ")][-1].endswith("line 4")
    assert lines[-2:] == ["... and 2 more of these", f"What to do: {KINDS['leaks'][1]}."]
