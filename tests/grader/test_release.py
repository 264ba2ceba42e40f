import copy
import html
import json
import re
from pathlib import Path

import nbformat
import pytest

from grader import release as module
from grader.release import dumps, leaks, main, pieces, release

ROOT = Path(__file__).parents[2]
SOLUTIONS = sorted((ROOT / "solutions").glob("*/solution.ipynb"))
SCAFFOLD = """def double(x):
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION
    ### BEGIN SCAFFOLD
    # for _ in range(...):
    #     x = ...
    #
    # return x
    ### END SCAFFOLD
"""


def cell(kind, name, source, *, task=False, grade=False, solution=False, locked=False, points=None, **more):
    grader = {
        "schema_version": 3,
        "grade_id": name,
        "grade": grade,
        "solution": solution,
        "locked": locked,
        "task": task,
    }
    grader |= {} if points is None else {"points": points}
    outputs = {"outputs": [], "execution_count": 4} if kind == "code" else {}
    return {"cell_type": kind, "id": name, "metadata": {"nbgrader": grader}, "source": source} | outputs | more


def notebook(*cells):
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python", "version": "3.11.2"},
    }
    return {"cells": list(cells), "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def every_kind():
    printed = {"output_type": "stream", "name": "stdout", "text": ["42\n"]}
    return notebook(
        {"cell_type": "markdown", "id": "plain", "metadata": {}, "source": ["# Title\n", "\n", "ümlaut ☆"]},
        cell("code", "setup", "import math\n", locked=True, outputs=[printed]),
        cell(
            "code", "answer", "def f(x):\n    ### BEGIN SOLUTION\n    return x\n\n    ### END SOLUTION\n", solution=True
        ),
        cell(
            "code",
            "two",
            "# BEGIN SOLUTION\na = 1\n# END SOLUTION\nb = 2\n  # BEGIN SOLUTION\n  # END SOLUTION",
            solution=True,
        ),
        cell(
            "code",
            "check",
            "assert f(1) == 1\n### BEGIN HIDDEN TESTS\nassert f(2) == 2\n### END HIDDEN TESTS",
            grade=True,
            locked=True,
            points=2.5,
        ),
        cell("code", "by-hand", "### BEGIN SOLUTION\nplot(f)\n### END SOLUTION", solution=True, grade=True, points=1),
        cell(
            "markdown",
            "why",
            "<!-- BEGIN SOLUTION -->\nBecause.\n<!-- END SOLUTION -->",
            solution=True,
            grade=True,
            points=2,
        ),
        cell(
            "markdown",
            "task",
            "Do it.\n\n=== BEGIN MARK SCHEME ===\nA point each.\n=== END MARK SCHEME ===\n",
            task=True,
            locked=True,
            points=3,
        ),
        {
            "cell_type": "code",
            "id": "free",
            "metadata": {},
            "source": "f(3)",
            "outputs": [printed],
            "execution_count": 9,
        },
        {"cell_type": "raw", "id": "raw", "metadata": {}, "source": "raw"},
    )


def by_nbgrader(notebook):
    """What nbgrader's generate_assignment makes of it: the same preprocessors in the same order, without its database."""
    from nbgrader import preprocessors as p

    nb, resources = nbformat.from_dict(copy.deepcopy(notebook)), {}
    for cell in nb.cells:  # from JSON's list of lines to the text that nbformat's reader would give
        cell.source = module.source(cell)
    for step in (
        p.LockCells,
        p.ClearSolutions,
        p.ClearOutput,
        p.CheckCellMetadata,
        p.ComputeChecksums,
        p.ClearHiddenTests,
        p.ClearMarkScheme,
        p.ComputeChecksums,
        p.CheckCellMetadata,
    ):
        nb, resources = step().preprocess(nb, resources)
    return nb


def assert_same_cells(ours, theirs):
    assert len(ours["cells"]) == len(theirs.cells)
    for mine, other in zip(ours["cells"], theirs.cells, strict=True):
        assert module.source(mine) == other.source
        assert mine["metadata"] == other.metadata
        assert {k: v for k, v in mine.items() if k not in ("source", "metadata")} == {
            k: v for k, v in other.items() if k not in ("source", "metadata")
        }


def test_every_kind_of_cell_is_released_as_nbgrader_does():
    assert_same_cells(release(every_kind()), by_nbgrader(every_kind()))


def test_the_result_is_what_a_student_should_get():
    text = {cell["id"]: module.source(cell) for cell in release(every_kind())["cells"]}
    assert text["answer"] == "def f(x):\n    # YOUR CODE HERE\n    raise NotImplementedError()\n"
    assert text["check"] == "assert f(1) == 1"
    assert text["why"] == "YOUR ANSWER HERE"
    assert text["task"] == "Do it.\n\n"


def one_folder_higher(notebook):
    """The notebook with the links to the book that it has to have in exercises/."""
    return json.loads(json.dumps(notebook).replace("](../../book/", "](../book/"))


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.parent.name)
def test_the_links_of_solutions_and_exercises_lead_to_pages(path):
    for notebook in (path, ROOT / "exercises" / f"{path.parent.name}.ipynb"):
        links = re.findall(r"\]\((\.\.?/[^)#]+)", notebook.read_text(encoding="utf-8"))
        assert links
        assert all((notebook.parent / link).is_file() for link in links)


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.parent.name)
def test_the_solutions_are_released_as_nbgrader_does(path):
    from nbgrader.utils import compute_checksum

    solution = json.loads(path.read_text(encoding="utf-8"))
    ours, theirs = release(solution), by_nbgrader(one_folder_higher(solution))
    for mine, other, source in zip(ours["cells"], theirs.cells, map(module.source, solution["cells"]), strict=True):
        if "BEGIN SCAFFOLD" in source:  # ours alone; nbgrader would leave it in, commented, under its own stub
            other.source = module.source(mine)
            other.metadata.nbgrader.checksum = compute_checksum(other)
    assert_same_cells(ours, theirs)


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.parent.name)
def test_exercises_are_valid_for_nbgrader_and_jupyter(path):
    from nbgrader.nbgraderformat import read

    exercise = read(ROOT / "exercises" / f"{path.parent.name}.ipynb", as_version=4)
    nbformat.validate(exercise)
    assert exercise.metadata.kernelspec.name == "python3"
    for cell in exercise.cells:
        assert cell.cell_type != "code" or (cell.outputs == [] and cell.execution_count is None)


def test_exercises_are_up_to_date(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert main(["--check"]) == 0, capsys.readouterr()


def readable(path):
    """The text of a file of the site, as a reader or a search sees it."""
    text = path.read_text(encoding="utf-8", errors="ignore")
    if path.suffix == ".html":
        text = html.unescape(re.sub("<[^>]*>", "", text))
    return " ".join(text.split())


@pytest.mark.browser
def test_no_answer_is_on_the_public_site():
    site = ROOT / "_build" / "html"
    if not (site / "index.html").exists():
        pytest.skip("the book is not built: run `make book`")
    texts = {".html", ".md", ".ipynb", ".txt", ".js"}
    pages = {p.relative_to(site): readable(p) for p in site.rglob("*") if p.suffix in texts}
    assert not [page for page in pages if "solutions" in page.parts]
    marked = {page.stem for page, text in pages.items() if "BEGIN SOLUTION" in text}
    assert marked <= {"instructors"}  # the guide tells authors of this mark; it too is searched for answers below
    for path in SOLUTIONS:
        for piece in pieces(json.loads(path.read_text(encoding="utf-8"))):
            found = [str(page) for page, text in pages.items() if piece in text]
            assert not found, (path.parent.name, piece, found)


def test_a_leak_is_found_on_a_page(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<pre><span>return</span>  weight[<i>x</i> &gt; 0].sum()</pre>")
    assert "return weight[x > 0].sum()" in readable(page)


LEAKING = notebook(
    cell(
        "code",
        "q1-answer",
        "### BEGIN SOLUTION\nanswer = 6 * 7 * 1\nanswer = answer - 0.125\n### END SOLUTION",
        solution=True,
    ),
    cell("code", "q1-check", "print(answer * answer)", grade=True, locked=True, points=1),
)
LEAKING["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["the answer is 1753.5156\n"]}]


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("markdown", "For example\n\n    answer = 6 * 7 * 1", "the answer's text: answer = 6 * 7 * 1"),
        (
            "code",
            "answer = 6 * 7 * 1\nanswer = answer - 0.125",
            "the answer's text: answer = 6 * 7 * 1 answer = answer - 0.125",
        ),
        (
            "markdown",
            "You will find that the answer is 1753.5156.",
            "what the solution prints: the answer is 1753.5156",
        ),
        ("markdown", "The row is (3, -1, 0.5).", "the result of row()"),
        ("markdown", "It is 41.875.", "the result of number()"),
    ],
)
def test_a_leak_is_named_with_its_cell(kind, text, words):
    by_hand = {("1", "row"): [3.0, -1.0, 0.5], ("1", "number"): [41.875], ("1", "short"): [1.0, 2.0]}
    harmless = {"cell_type": "markdown", "id": "task", "metadata": {}, "source": "Of 3, -1 and 2, take 1, 2."}
    book = {**LEAKING, "cells": [*LEAKING["cells"], harmless]}
    assert leaks(book, release(book), by_hand) == []
    told = {"cell_type": kind, "id": "hint", "metadata": {}, "source": text} | (
        {"outputs": []} if kind == "code" else {}
    )
    book["cells"].append(told)
    assert leaks(book, release(book), by_hand) == [f"the cell hint shows {words}"]


def test_an_output_is_a_leak():
    assert leaks(LEAKING, LEAKING)[-1] == "the cell q1-check has an output"


def test_a_short_line_in_another_exercise_is_no_leak():
    told = notebook({"cell_type": "markdown", "id": "hint", "metadata": {}, "source": "answer = 6 * 7 * 1"})
    assert leaks(LEAKING, told) != []
    assert leaks(LEAKING, told, longer_than=36) == []


def test_a_scaffold_is_uncommented_in_place_of_the_stub():
    (released,) = release(notebook(cell("code", "a", SCAFFOLD, solution=True)))["cells"]
    assert module.source(released) == (
        "def double(x):\n    # YOUR CODE HERE\n    for _ in range(...):\n        x = ...\n\n    return x\n"
    )


def test_release_is_the_same_bytes_every_time_and_leaves_its_input_alone():
    source = every_kind()
    before = copy.deepcopy(source)
    first = dumps(release(source))
    assert source == before
    reordered = json.loads(json.dumps(source, sort_keys=True))
    for cell in reordered["cells"]:
        cell["source"] = module.source(cell).splitlines(keepends=True)
        cell["metadata"] |= {"execution": {"iopub.execute_input": "now"}, "collapsed": True}
    assert dumps(release(reordered)) == first
    assert nbformat.writes(nbformat.reads(first, as_version=4)) + "\n" == first


def test_pictures_of_a_removed_answer_are_removed():
    pictures = {"attachments": {"answer.png": {"image/png": "AA=="}, "task.png": {"image/png": "AA=="}}}
    text = "![t](attachment:task.png)\n=== BEGIN MARK SCHEME ===\n![a](attachment:answer.png)\n=== END MARK SCHEME ==="
    (released,) = release(notebook(cell("markdown", "t", text, task=True, locked=True, points=1, **pictures)))["cells"]
    assert list(released["attachments"]) == ["task.png"]


def test_the_install_cell_is_generated(monkeypatch):
    book = notebook(cell("code", "install", "anything", locked=True))
    exec(module.source(release(book)["cells"][0]), {})  # interp_lab is here, so nothing happens
    monkeypatch.setattr(module, "INSTALL", "interp_lab==1.2.3")
    assert '    %pip install -q "interp_lab==1.2.3"' in module.source(release(book)["cells"][0])


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.parent.name)
def test_every_solution_starts_with_the_install_cell(path):
    cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    assert (cells[0]["id"], module.source(cells[0])) == ("install", module.install_cell())


ANSWER = "### BEGIN SOLUTION\na = 1\n### END SOLUTION"
BAD = {
    "used twice": [cell("code", "q1", ANSWER, solution=True), cell("code", "q1", ANSWER, solution=True)],
    "without points": [cell("code", "q1", "assert a", grade=True, locked=True)],
    "points must be": [cell("code", "q1", "assert a", grade=True, locked=True, points=-1)],
    "has points, but": [cell("code", "q1", ANSWER, solution=True, points=1)],
    "without END": [cell("code", "q1", "### BEGIN SOLUTION\na = 1", solution=True)],
    "without BEGIN": [cell("code", "q1", "a = 1\n### END HIDDEN TESTS", grade=True, points=1)],
    "inside another": [cell("code", "q1", "### BEGIN SOLUTION\n" + ANSWER, solution=True)],
    "would be released whole": [cell("code", "q1", "a = 1", solution=True)],
    "SOLUTION region does not belong": [cell("code", "q1", ANSWER, locked=True)],
    "HIDDEN TESTS region does not belong": [
        cell("code", "q1", ANSWER + "\n### BEGIN HIDDEN TESTS\n### END HIDDEN TESTS", solution=True)
    ],
    "MARK SCHEME region does not belong": [
        cell("markdown", "q1", "BEGIN MARK SCHEME\nEND MARK SCHEME", grade=True, solution=True, points=1)
    ],
    "must be a comment": [cell("code", "q1", SCAFFOLD.replace("# return", "return"), solution=True)],
    "SCAFFOLD region does not belong": [cell("code", "q1", "# BEGIN SCAFFOLD\n# END SCAFFOLD", locked=True)],
    "markdown answer must be both": [cell("markdown", "q1", ANSWER, solution=True)],
    "a task is a markdown cell": [cell("code", "q1", "a", task=True, locked=True, points=1)],
    "a task must be locked": [cell("markdown", "q1", "a", task=True, points=1)],
    "drop the metadata": [cell("code", "q1", "a")],
    "grade_id must be": [cell("code", "q1 a", "a", locked=True)],
}


@pytest.mark.parametrize(("message", "cells"), BAD.items(), ids=list(BAD))
def test_what_nbgrader_would_not_take_is_refused_by_name(message, cells):
    with pytest.raises(ValueError, match=message) as error:
        release(notebook(*cells))
    assert re.match(r"cell \d \(q1", str(error.value))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("schema_version", 2, "schema_version must be 3"),
        ("extra", 1, "unknown keys"),
        ("grade", "yes", "true or false"),
    ],
)
def test_unusual_metadata_is_refused(key, value, message):
    book = every_kind()
    book["cells"][2]["metadata"]["nbgrader"][key] = value
    with pytest.raises(ValueError, match=rf"cell 2 \(answer\): .*{message}"):
        release(book)


def test_an_old_notebook_format_is_refused():
    with pytest.raises(ValueError, match=r"nbformat 4\.5 .* got 4\.4"):
        release(notebook() | {"nbformat_minor": 4})


def test_the_command_writes_checks_and_says_what_changed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 2
    for name in "ab":
        (tmp_path / "solutions" / name).mkdir(parents=True)
    (tmp_path / "solutions/a/solution.ipynb").write_text(json.dumps(every_kind()), encoding="utf-8")
    said = []
    for arguments, code in [(["--check"], 1), ([], 0), ([], 0), (["--check"], 0)]:
        assert main(arguments) == code
        said.append(capsys.readouterr().out)
    assert ["stale" in said[0], "new" in said[1], "unchanged" in said[2], "unchanged" in said[3]] == [True] * 4
    assert (tmp_path / "exercises/a.ipynb").read_text(encoding="utf-8") == dumps(release(every_kind()))
    (tmp_path / "exercises/b.ipynb").write_text("{}", encoding="utf-8")
    assert main(["--check"]) == 1
    assert "there is no solutions/b/solution.ipynb" in capsys.readouterr().out
    (tmp_path / "solutions/b/solution.ipynb").write_text(json.dumps(notebook(*BAD["used twice"])), encoding="utf-8")
    assert main([]) == 1
    assert "solutions/b/solution.ipynb: cell 1 (q1): this grade_id is used twice" in capsys.readouterr().err
    assert main(["--fast"]) == 2
