"""The book's configuration: the table of contents is complete, and nothing in it depends on a network or a person."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))


def pages_of(toc: dict) -> list[str]:
    """All file names of a table of contents, whatever their depth."""
    own = [toc[key] for key in ("root", "file") if key in toc]
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


def test_exercises_are_not_executed():
    assert CONFIG["execute"]["exclude_patterns"] == ["exercises/*"]
