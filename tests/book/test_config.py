"""The book's configuration: the table of contents is complete, and nothing in it depends on a network or a person."""

import ast
import inspect
import re
from pathlib import Path

import pytest
import yaml

import interp_lab

ROOT = Path(__file__).parents[2]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))


def pages_of(toc: dict) -> list[str]:
    """All file names of a table of contents, whatever their depth."""
    own = [toc[key] for key in ("root", "file") if key in toc]
    if "glob" in toc:
        own += sorted(path.relative_to(ROOT).with_suffix("").as_posix() for path in ROOT.glob(f"{toc['glob']}.ipynb"))
    parts = [entry for key in ("parts", "chapters", "sections") for entry in toc.get(key, [])]
    return own + [name for entry in parts for name in pages_of(entry)]


PAGES = pages_of(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))


def test_toc_and_pages_are_the_same():
    files = [*(ROOT / "book").rglob("*.md"), *(ROOT / "exercises").glob("*.ipynb")]
    assert len(PAGES) == len(set(PAGES))
    assert set(PAGES) == {p.relative_to(ROOT).with_suffix("").as_posix() for p in files}


@pytest.mark.parametrize("page", [p for p in PAGES if (ROOT / p).with_suffix(".md").exists()])
def test_text_notebooks_name_format_and_kernel(page):
    """With only one of the two, myst_nb shows the code cells as plain text."""
    text = (ROOT / page).with_suffix(".md").read_text(encoding="utf-8")
    if "{code-cell}" in text:
        front = yaml.safe_load(text.split("---")[1])
        assert front["jupytext"]["text_representation"] == {"extension": ".md", "format_name": "myst"}
        assert front["kernelspec"]["name"] == "python3"


def test_errors_and_stderr_fail_the_build():
    assert CONFIG["execute"]["allow_errors"] is False
    assert CONFIG["execute"]["stderr_output"] == "warn"


def test_launch_buttons_are_off():
    assert CONFIG["sphinx"]["config"]["course_repository"] == ""
    assert "launch_buttons" not in CONFIG


def test_exercises_and_solutions_are_not_executed():
    notebooks = [*(ROOT / "exercises").glob("*.ipynb"), *(ROOT / "solutions").glob("*/solution.ipynb")]
    assert len(notebooks) >= 2 * 17
    for path in notebooks:
        assert any(path.relative_to(ROOT).match(pattern) for pattern in CONFIG["execute"]["exclude_patterns"]), path


def test_the_edition_is_the_public_one():
    assert CONFIG["sphinx"]["config"]["course_edition"] == "public"
    assert not any(page.startswith("solutions/") for page in PAGES)


def test_the_api_reference_holds_every_public_name():
    pages = [ROOT / "book" / "appendix" / "api.md", *(ROOT / "book" / "appendix" / "api").glob("*.md")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in pages)
    documented = re.findall(r"^\.\. auto(?:function|class|exception):: (\w+)$", text, re.MULTILINE)
    assert len(documented) == len(set(documented))
    modules = {name for name in interp_lab.__all__ if inspect.ismodule(getattr(interp_lab, name))}
    assert set(documented) | {"METHODS"} == set(interp_lab.__all__) - modules
    assert "`interp_lab.METHODS`" in text


def minutes(page: str) -> int:
    return sum(map(int, re.findall(r"^Time: (\d+) minutes", (ROOT / "book" / page).read_text(encoding="utf-8"), re.M)))


def test_the_paths_through_the_book_take_as_long_as_their_pages():
    text = (ROOT / "book" / "intro.md").read_text(encoding="utf-8")
    paths = re.findall(r"\((\d+) minutes[^)]*\)\n: (.+?)\n\n", text, re.S)
    assert len(paths) == 2
    for told, path in paths:
        assert int(told) == sum(map(minutes, re.findall(r"\((\w+/\w+\.md)\)", path)))
    (hours,) = map(int, re.findall(r"about (\d+) hours", text))
    assert hours == round(
        sum(minutes(f"{page.removeprefix('book/')}.md") for page in PAGES if page.startswith("book/")) / 60
    )


def test_the_map_of_the_lecture_leads_to_every_page_of_its_three_parts():
    """That each link and each anchor leads somewhere is for the build to say, where a dead one is an error."""
    text = (ROOT / "book" / "appendix" / "lecture_map.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\(\.\./(part\d/\w+)\.md", text))
    assert linked == {page.removeprefix("book/") for page in PAGES if re.match(r"book/part\d/", page)}


def test_the_map_of_the_lecture_leads_to_code_that_is_there():
    table = (ROOT / "book" / "appendix" / "lecture_map.md").read_text(encoding="utf-8").partition("to the code")[2]
    paths = re.findall(r"`([\w/]+/[\w.]*)`", table.replace("in `interp_lab/`", ""))
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / "interp_lab" / path).exists()] == []


CELL = re.compile(r"^```\{code-cell\}.*?\n(.*?)^```", re.DOTALL | re.MULTILINE)
WIDTH = re.compile(r"(?:.?[<>=^])?[-+ ]?#?(?:[1-9]|0\d|\{)")  # at the start of a format's specification


def printed_tables(code: str) -> list[str]:
    """The lines of a cell that lay out a table as text: a format with a width, or a loop that prints several numbers."""
    tree = ast.parse("\n".join("" if re.match(r":\w+:", line) else line for line in code.splitlines()))

    def formats(node: ast.AST) -> list[str]:
        parts = [n for n in ast.walk(node) if isinstance(n, ast.FormattedValue) and n.format_spec]
        return [ast.unparse(n.format_spec)[2:-1] for n in parts]

    found = [n for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) and any(map(WIDTH.match, formats(n)))]
    for loop in (n for n in ast.walk(tree) if isinstance(n, ast.For)):
        prints = (n for n in ast.walk(loop) if isinstance(n, ast.Call) and ast.unparse(n.func) == "print")
        found += [n for n in prints if sum(form[-1:] in "feg%" for form in formats(n)) > 1]
    return [code.splitlines()[n.lineno - 1].strip() for n in found]


@pytest.mark.parametrize("page", [p for p in PAGES if (ROOT / p).with_suffix(".md").exists()])
def test_pages_show_their_tables_as_tables(page):
    """As text, a phone shows the first column alone, and a screen reader reads lines: use plot.table."""
    cells = CELL.findall((ROOT / page).with_suffix(".md").read_text(encoding="utf-8"))
    assert [line for cell in cells for line in printed_tables(cell)] == []


@pytest.mark.parametrize("page", [p for p in PAGES if (ROOT / p).with_suffix(".md").exists()])
def test_the_lines_of_a_cell_fit_the_column(page):
    """Of a window of 1280 pixels, which holds 88 characters (course.css); longer ones wrap in the middle of a call."""
    cells = CELL.findall((ROOT / page).with_suffix(".md").read_text(encoding="utf-8"))
    assert [line for cell in cells for line in cell.splitlines() if len(line) > 88] == []


@pytest.mark.parametrize(
    "code",
    [
        'for a in b:\n    print(f"{a:10} {b[a]}")',
        'print("".join(f"{v:8.2f}" for v in values))',
        'line = f"{name:<{width}}"',
        'print(f"{x:>6}")',
        ':tags: [hide-input]\nfor a, b in c:\n    print(f"{a.mean():.2f}", f"{b:.0%}")',
    ],
)
def test_a_table_of_text_is_found(code):
    assert len(printed_tables(code)) == 1


@pytest.mark.parametrize(
    "code", ['print(f"{a:.2f} and {b:+.3f}")', 'for a in b:\n    print(f"{a}: {b[a]:.2f}")', 'f"{n:,} weights"']
)
def test_a_line_of_text_is_none(code):
    assert printed_tables(code) == []
