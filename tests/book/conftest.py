"""For the tests of the book's Sphinx extensions: these can be imported, and a few pages rendered."""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "book" / "_ext"))


@pytest.fixture
def render(tmp_path) -> Callable[..., tuple[str, str]]:
    """A function from pages (name -> source), the first of which is the root, to this page as rendered, and the warnings."""
    application = pytest.importorskip("sphinx.application", reason="needs Sphinx (extra `book`)")
    docutils = pytest.importorskip("sphinx.util.docutils")

    def run(pages: dict[str, str], extensions: list[str], builder: str = "html", **settings) -> tuple[str, str]:
        for name, source in pages.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source, encoding="utf-8")
        root, warnings = Path(next(iter(pages))).with_suffix(""), io.StringIO()
        settings |= {"extensions": extensions, "root_doc": root.as_posix()}
        settings["source_suffix"] = {".rst": "restructuredtext"}  # Sphinx's own default keeps what extensions add to it
        folders = tmp_path, None, tmp_path / "out", tmp_path / "doctrees"
        with docutils.patch_docutils(), docutils.docutils_namespace():
            application.Sphinx(*folders, builder, settings, status=None, warning=warnings).build()
        ending = {"html": ".html", "text": ".txt"}[builder]
        return (tmp_path / "out" / root.with_suffix(ending)).read_text(encoding="utf-8"), warnings.getvalue()

    return run
