"""Experiments are deterministic: pages run a second time give the outputs that the site shows, picture for picture."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("jupyter_cache", reason="needs the extra `book`")
from jupyter_cache import get_cache
from jupyter_cache.executors.utils import single_nb_execution

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "_build" / ".jupyter_cache"

spec = importlib.util.spec_from_file_location("book_build", ROOT / "book" / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)


def outputs(notebook):
    """Of every cell what it printed, however it was cut on the way, and what it showed."""
    cells = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    return [("".join(o.get("text", "") for o in cell), [o.data for o in cell if "data" in o]) for cell in cells]


# Two pages after each build of the book, of which one trains; all take as long as the build.
AGAIN = ("why_saliency_maps_are_noisy", "roar_and_kar")
PAGES = [
    pytest.param(path, id=path.stem, marks=pytest.mark.browser if path.stem in AGAIN else pytest.mark.exhaustive)
    for path, _ in build.notebooks(ROOT)
]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_that_runs_again_gives_the_same_outputs(path, monkeypatch):
    if not CACHE.exists():
        pytest.skip("the book is not built: run `make book`")
    page = dict(build.notebooks(ROOT))[path]
    cache = get_cache(str(CACHE))
    record = cache.match_cache_notebook(page)
    for name, value in build.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    again = single_nb_execution(page, str(path.parent), 300, False, extra_arguments=["--log-level=ERROR"])
    assert not again.err
    for old, new in zip(outputs(cache.get_cache_bundle(record.pk).nb), outputs(again.nb), strict=True):
        assert new == old
