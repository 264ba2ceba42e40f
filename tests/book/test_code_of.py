"""book/_ext/code_of.py: the lines of a method on a page are those of the package, or the page does not build."""

import ast
import io
import sys
from pathlib import Path

import pytest

application = pytest.importorskip("sphinx.application", reason="needs Sphinx (extra `book`)")
docutils = pytest.importorskip("sphinx.util.docutils")
pytest.importorskip("myst_nb", reason="needs the extra `book`")

sys.path.insert(0, str(Path(__file__).parents[2] / "book" / "_ext"))
code_of = pytest.importorskip("code_of").code_of


def build(folder: Path, directive: str) -> tuple[str, str]:
    """The page of one directive, and the warnings."""
    (folder / "index.md").write_text(f"# Page\n\n```{{code-of}} {directive}\n```\n", encoding="utf-8")
    warnings = io.StringIO()
    folders = folder, None, folder / "out", folder / "doctrees"
    with docutils.patch_docutils(), docutils.docutils_namespace():
        settings = {"extensions": ["myst_parser", "code_of"], "pygments_style": "none"}
        application.Sphinx(*folders, "text", settings, status=None, warning=warnings).build()
    return (folder / "out" / "index.txt").read_text(encoding="utf-8"), warnings.getvalue()


def test_code_without_its_docstring():
    lines = code_of("interp_lab.gradient_x_input")
    assert lines[-1].strip() == "return saliency(model, x, target) * x.detach()"
    (function,) = ast.parse("\n".join(lines)).body
    assert len(function.body) == 1  # the docstring is gone, and nothing else
    assert code_of("interp_lab.explain_model.priors.Gaussians.log_prob")[0].startswith("def log_prob")


def test_a_part_of_a_function(tmp_path):
    page, warnings = build(tmp_path, "interp_lab.rectgrad\n:start-at: def rule\n:end-at: product =")
    assert warnings == ""
    assert [line.strip() for line in page.splitlines() if line.strip()][2:] == [
        "def rule(a: Tensor, g: Tensor) -> Tensor:",
        "product = (a * g).flatten(1)",
    ]


@pytest.mark.parametrize(
    ("directive", "message"),
    [
        ("interp_lab.no_such_method", "no code of interp_lab.no_such_method"),
        ("interp_lab.no_module.method", "no code of interp_lab.no_module.method"),
        ("interp_lab.rectgrad\n:start-at: no such line", "no line of interp_lab.rectgrad contains 'no such line'"),
        (
            "interp_lab.rectgrad\n:start-at: return g\n:end-at: def rule",
            "no line of interp_lab.rectgrad contains 'def rule'",
        ),
    ],
)
def test_what_is_not_there_is_a_warning(directive, message, tmp_path):
    assert message in build(tmp_path, directive)[1]
