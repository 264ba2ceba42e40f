"""book/_ext/code_of.py: the lines of a method on a page are those of the package, or the page does not build."""

import ast

import pytest

pytest.importorskip("myst_nb", reason="needs the extra `book`")
code_of = pytest.importorskip("code_of").code_of


@pytest.fixture
def build(render):
    """A function from a directive to its page, and the warnings."""

    def run(directive: str) -> tuple[str, str]:
        pages = {"index.md": f"# Page\n\n```{{code-of}} {directive}\n```\n"}
        return render(pages, ["myst_parser", "code_of"], "text", pygments_style="none")

    return run


def test_code_without_its_docstring():
    lines = code_of("interp_lab.gradient_x_input")
    assert lines[-1].strip() == "return saliency(model, x, target) * x.detach()"
    (function,) = ast.parse("\n".join(lines)).body
    assert len(function.body) == 1  # the docstring is gone, and nothing else
    assert code_of("interp_lab.explain_model.priors.Gaussians.log_prob")[0].startswith("def log_prob")


def test_a_part_of_a_function(build):
    page, warnings = build("interp_lab.rectgrad\n:start-at: def rule\n:end-at: product =")
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
def test_what_is_not_there_is_a_warning(directive, message, build):
    assert message in build(directive)[1]
