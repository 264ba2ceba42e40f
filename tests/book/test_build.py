"""book/build.py on a small project: which pages run, what is cached, what makes the cache stale, what fails."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("jupyter_cache", reason="needs the extra `book`")
spec = importlib.util.spec_from_file_location("book_build", Path(__file__).parents[2] / "book" / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

FRONT = """---
jupytext: {text_representation: {extension: .md, format_name: myst}}
kernelspec: {name: python3, display_name: Python 3}
---
"""


def page(code: str) -> str:
    return f"{FRONT}\n# Page\n\n```{{code-cell}} python\n{code}\n```\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("INTERP_LAB_DATA", raising=False)
    for folder in ("book/part1", "exercises", "drafts/week", "interp_lab/weights"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: book/intro\nchapters: [{file: book/part1/a}, {file: drafts/week/d}, {glob: exercises/*}]\n"
    )
    (tmp_path / "_config.yml").write_text("execute: {exclude_patterns: ['exercises/*', 'drafts/*/*'], timeout: 60}\n")
    (tmp_path / "book" / "intro.md").write_text("# No code\n")
    (tmp_path / "book" / "part1" / "a.md").write_text(page("1 + 1"))
    (tmp_path / "book" / "part1" / "not_in_toc.md").write_text(page("1 / 0"))
    (tmp_path / "drafts" / "week" / "d.md").write_text(page("1 / 0"))
    for name in ("02_f", "01_e"):
        (tmp_path / "exercises" / f"{name}.ipynb").write_text("{}")
    (tmp_path / "interp_lab" / "method.py").write_text("x = 1\n")
    return tmp_path


def test_only_notebooks_of_the_toc_run(project):
    assert [path.name for path, _ in build.notebooks(project)] == ["a.md"]


def test_the_instructors_edition_has_each_solution_under_its_exercise(project):
    assert build.table_of_contents(project) == project / "_toc.yml"
    with (project / "_config.yml").open("a") as config:
        config.write("sphinx: {config: {course_edition: instructor}}\n")
    toc = build.yaml.safe_load(build.table_of_contents(project).read_text())
    assert toc["chapters"][:2] == [{"file": "book/part1/a"}, {"file": "drafts/week/d"}]
    assert toc["chapters"][2:] == [
        {"file": f"exercises/{name}", "sections": [{"file": f"solutions/{name}/solution", "title": "Solution"}]}
        for name in ("01_e", "02_f")
    ]
    assert "solutions" not in (project / "_toc.yml").read_text()


def test_an_unknown_edition_is_refused(project):
    with (project / "_config.yml").open("a") as config:
        config.write("sphinx: {config: {course_edition: teacher}}\n")
    with pytest.raises(ValueError, match="must be public or instructor, got 'teacher'"):
        build.table_of_contents(project)


@pytest.mark.parametrize(
    "change",
    [
        lambda root, env: (root / "interp_lab" / "method.py").write_text("x = 2\n"),
        lambda root, env: (root / "interp_lab" / "weights" / "net.safetensors").write_bytes(b"weights"),
        lambda root, env: ((root / "book" / "data").mkdir(), (root / "book" / "data" / "t.json").write_text("{}")),
        lambda root, env: (
            (root / "book" / "since").mkdir(),
            (root / "book" / "since" / "toy.py").write_text("x = 1\n"),
        ),
        lambda root, env: env.setenv("INTERP_LAB_DATA", str(Path(__file__).parent)),
        lambda root, env: env.setenv("TORCH_HOME", str(root / "other")),
    ],
    ids=["code", "weights", "book data", "beside a page", "data folder", "torch home"],
)
def test_fingerprint_follows_what_pages_depend_on(change, project, monkeypatch):
    other = project / "other" / "hub" / "checkpoints"
    other.mkdir(parents=True)
    (other / "net.pth").write_bytes(b"1")
    before = build.fingerprint(project)
    change(project, monkeypatch)
    assert build.fingerprint(project) != before


def test_fingerprint_ignores_pages_and_compiled_files(project):
    before = build.fingerprint(project)
    (project / "book" / "intro.md").write_text("# Other words\n")
    (project / "interp_lab" / "__pycache__").mkdir()
    (project / "interp_lab" / "__pycache__" / "method.pyc").write_bytes(b"compiled")
    assert build.fingerprint(project) == before


def test_cache_is_dropped_only_when_stale(project):
    kept = project / "_build" / ".jupyter_cache" / "outputs"
    build.drop_stale_cache(project)
    kept.write_text("of a page")
    build.drop_stale_cache(project)
    assert kept.exists()
    (project / "interp_lab" / "method.py").write_text("x = 2\n")
    build.drop_stale_cache(project)
    assert not kept.exists()


@pytest.mark.slow
def test_pages_run_once_and_failures_are_reported(project, capsys):
    assert build.execute(project)
    assert "book/part1/a.md" in capsys.readouterr().out
    assert build.execute(project)
    assert capsys.readouterr().out == "0 pages to run\n"
    (project / "book" / "part1" / "a.md").write_text(page("1 / 0"))
    for _ in range(2):  # a failure is not cached
        assert not build.execute(project)
        printed = capsys.readouterr().out
        assert "FAILED  book/part1/a.md" in printed
        assert "ZeroDivisionError" in printed


def test_a_bundle_that_no_page_asks_for_is_no_part_of_the_site(tmp_path):
    mathjax = tmp_path / "_static" / "mathjax"
    for name in ("tex-chtml.js", "tex-svg.js", "core.js", "tex.map", "output/tex-font.js"):
        (mathjax / name).parent.mkdir(parents=True, exist_ok=True)
        (mathjax / name).write_text("")
    (tmp_path / "page.html").write_text('<script src="_static/mathjax/tex-chtml.js"></script>', encoding="utf-8")
    build.remove_unused(tmp_path)
    left = {path.relative_to(mathjax).as_posix() for path in mathjax.rglob("*") if path.is_file()}
    assert left == {"tex-chtml.js", "core.js", "output/tex-font.js"}
