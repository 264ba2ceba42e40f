"""The book's configuration: the table of contents is complete, and nothing in it depends on a network or a person."""

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
    assert len(notebooks) >= 2 * 14
    for path in notebooks:
        assert any(path.relative_to(ROOT).match(pattern) for pattern in CONFIG["execute"]["exclude_patterns"]), path


def test_the_edition_is_the_public_one():
    assert CONFIG["sphinx"]["config"]["course_edition"] == "public"
    assert not any(page.startswith("solutions/") for page in PAGES)


def test_the_api_reference_holds_every_public_name():
    text = (ROOT / "book" / "appendix" / "api.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\.\. auto(?:function|class|exception):: (\w+)$", text, re.MULTILINE)
    assert len(documented) == len(set(documented))
    modules = {name for name in interp_lab.__all__ if inspect.ismodule(getattr(interp_lab, name))}
    assert set(documented) | {"METHODS"} == set(interp_lab.__all__) - modules
    assert "`interp_lab.METHODS`" in text


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
