"""The course plan: complete, in an order that works, with the minutes that pages and exercises state themselves."""

import json
import math
import re
from pathlib import Path

import pytest
import yaml

from grader import exam_questions

ROOT = Path(__file__).parents[2]
PLAN = (ROOT / "book" / "appendix" / "course_plan.md").read_text(encoding="utf-8")
NAMES = ("Twelve weeks", "Six weeks", "One week", "One hour")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)")
CELL = re.compile(r"^```\{code-cell\}.*?\n(.*?)^```", re.S | re.M)
FRONT_MATTER = re.compile(r"\A---\n.*?^---$", re.S | re.M)


def source(page: str) -> str:
    """A page without what its notebook needs."""
    return FRONT_MATTER.sub("", (ROOT / "book" / f"{page}.md").read_text(encoding="utf-8"))


def words(page: str) -> int:
    return len(re.findall(r"\w+", CELL.sub(" ", source(page))))


def stated(page: str) -> int | None:
    found = re.search(r"^Time: (\d+) minutes", source(page), re.M)
    return int(found[1]) if found else None


def reading(page: str) -> int:
    """Minutes for a page: its own, else a minute for each hundred words, in steps of five."""
    return stated(page) or 5 * math.ceil(words(page) / 500)


def first_cell(exercise: str) -> str:
    notebook = json.loads((ROOT / "exercises" / exercise).read_text(encoding="utf-8"))
    return "".join(notebook["cells"][0]["source"])


def doing(exercise: str) -> int:
    """Minutes for an exercise, by the table at its top."""
    return int(re.search(r"together \| \d+ \| (\d+) \|", first_cell(exercise))[1])


def rows(name: str) -> list[list[str]]:
    """The rows of a plan's table, its sum last."""
    section = PLAN.split(f"## {name}\n")[1].split("\n## ")[0]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return table[2:]


def pages_of(row: list[str]) -> list[str]:
    return [link.removeprefix("../").removesuffix(".md") for link in LINK.findall(row[1])]


def exercises_of(row: list[str]) -> list[str]:
    return [Path(link).name for link in LINK.findall(row[2])]


def chapters() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = [chapter.get("file", "") for part in toc["parts"] for chapter in part["chapters"]]
    return [file.removeprefix("book/") for file in (toc["root"], *files) if file]


def test_every_page_and_every_exercise_has_its_week():
    *weeks, _ = rows("Twelve weeks")
    assert len(weeks) == 12
    pages = [page for row in weeks for page in pages_of(row)]
    read = [page for page in chapters() if not page.startswith("appendix/") and page != "bibliography"]
    assert len(pages) == len(set(pages))
    assert set(pages) == set(read)
    done = [exercise for row in weeks for exercise in exercises_of(row)]
    assert sorted(done) == sorted(path.name for path in (ROOT / "exercises").glob("*.ipynb"))
    looked_up = {page for page in chapters() if page not in read} - {"appendix/course_plan"}
    linked = {(ROOT / "book" / "appendix" / link).resolve() for link in LINK.findall(PLAN)}
    assert {(ROOT / "book" / f"{page}.md").resolve() for page in looked_up} <= linked


@pytest.mark.parametrize("name", NAMES)
def test_the_minutes_are_those_of_pages_and_exercises(name):
    *parts, total = rows(name)
    minutes = []
    for k, row in enumerate(parts, 1):
        assert row[0] == str(k)
        minutes.append((sum(map(reading, pages_of(row))), sum(map(doing, exercises_of(row)))))
        assert [int(cell or 0) for cell in row[3:6]] == [*minutes[-1], sum(minutes[-1])]
    sums = [sum(column) for column in zip(*minutes, strict=True)]
    assert [int(cell) for cell in total[3:6]] == [*sums, sum(sums)]


@pytest.mark.parametrize("name", NAMES[:2])
def test_nothing_comes_before_what_it_needs(name):
    *weeks, _ = rows(name)
    seen: set[str] = set()
    for row in weeks:
        seen |= set(pages_of(row))
        for page in pages_of(row):
            you_need = re.search(r"You need: (.*?)^```", source(page), re.S | re.M)
            if you_need:
                folder = (ROOT / "book" / page).parent
                links = [(folder / link).resolve() for link in LINK.findall(you_need[1])]
                needed = {path.relative_to(ROOT / "book").with_suffix("").as_posix() for path in links}
                assert needed <= seen, page
        for exercise in exercises_of(row):
            assert set(re.findall(r"book/([\w/]+)\.md", first_cell(exercise))) <= seen, exercise


@pytest.mark.parametrize("name", NAMES)
def test_each_week_discusses_a_question_of_its_pages(name):
    own = {question.name: page.name for page in exam_questions.pages() for question in page.questions}
    *parts, _ = rows(name)
    for row in parts:
        (asked,) = re.findall(r"\(#question-([\w-]+)\)", row[6])
        assert own[asked] in pages_of(row)


def test_the_week_is_the_path_of_the_front_page():
    paths = (ROOT / "book" / "intro.md").read_text(encoding="utf-8").split("## Three paths")[1]
    hour, week = (
        re.findall(r"\((\w+/\w+)\.md\)", paths.split(name)[1].split("\n\n")[0]) for name in ("hour", "week**")
    )
    assert [page for row in rows("One week")[:-1] for page in pages_of(row)] == week
    assert [page for row in rows("One hour")[:-1] for page in pages_of(row)] == hour


def test_links_lead_to_files():
    """That anchors and questions are there is for the build to say, where a dead one is an error."""
    links = LINK.findall(PLAN)
    assert len(links) > 100
    assert [link for link in links if not (ROOT / "book" / "appendix" / link).is_file()] == []


@pytest.mark.parametrize("page", [page for page in chapters() if stated(page)])
def test_a_page_states_no_fewer_minutes_than_it_takes_to_read(page):
    """150 words a minute, which is fast for such text, and a quarter of a minute for each cell that is shown."""
    shown = [cell for cell in CELL.findall(source(page)) if "hide-input" not in cell]
    assert stated(page) >= words(page) / 150 + len(shown) / 4
