"""book/_ext/course.py on one-page Sphinx projects: where alt text comes from, what is refused without it, repairs."""

import re
from types import SimpleNamespace

import nbformat
import pytest
from nbformat import v4

from interp_lab import plot

course = pytest.importorskip("course", reason="needs the extra `book`")

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture
def build(render):
    """A function from one output, or Markdown, to the <img> tags of the built page and the warnings."""

    def run(output: dict, output_metadata: dict, cell_metadata: dict, markdown: str = "") -> tuple[list[str], str]:
        result = v4.new_output("display_data", data=output, metadata=output_metadata)
        cell = v4.new_code_cell("figure", outputs=[result] if output else [], metadata=cell_metadata)
        notebook = v4.new_notebook(cells=[v4.new_markdown_cell("# Page\n\n" + markdown), cell])
        notebook.metadata["language_info"] = {"name": "python"}
        pages, options = {"index.ipynb": nbformat.writes(notebook)}, {"nb_execution_mode": "off"}
        page, warnings = render(pages, ["myst_nb", "course"], suppress_warnings=["image"], **options)
        return re.findall(r"<img [^>]*>", page), warnings

    return run


@pytest.mark.parametrize(
    ("output_metadata", "cell_metadata", "alt"),
    [
        ({"image/png": {"alt": "from the figure"}}, {}, "from the figure"),
        ({"image/png": {"alt": "from the figure"}}, {"mystnb": {"image": {"alt": "from the cell"}}}, "from the cell"),
        ({}, {"mystnb": {"image": {"alt": "from the cell"}}}, "from the cell"),
    ],
)
def test_alt_text_reaches_the_page(output_metadata, cell_metadata, alt, build):
    (tag,), warnings = build({"image/png": PIXEL, "text/plain": "figure"}, output_metadata, cell_metadata)
    assert f'alt="{alt}"' in tag
    assert warnings == ""


@pytest.mark.parametrize(
    ("output", "output_metadata", "markdown"),
    [
        ({"image/png": PIXEL}, {}, ""),
        ({"image/png": PIXEL}, {"image/png": {"alt": ""}}, ""),
        ({"image/png": PIXEL}, {"image/png": {"alt": " "}}, ""),
        ({"text/html": "<p><img src='a.png'></p>"}, {}, ""),
        ({"text/html": "<img src='a.png' data-alt='not it'>"}, {}, ""),
        ({}, {}, "![](a.png)"),
    ],
)
def test_picture_without_alt_text_is_a_warning(output, output_metadata, markdown, build):
    _, warnings = build(output, output_metadata, {}, markdown)
    assert len(re.findall(r"index\.ipynb:\d+: WARNING: picture without alt text", warnings)) == 1


def test_html_with_alt_text_is_no_warning(build):
    _, warnings = build({"text/html": "<img src='a.png' alt='A disc.'>"}, {}, {})
    assert warnings == ""


def page_context(suffix: str) -> dict:
    return {
        "body": '<summary aria-label="Toggle hidden content">Show</summary><div role="doc-biblioentry">',
        "page_source_suffix": suffix,
        "header_buttons": [{"label": "launch-buttons"}, {"label": "download-buttons"}],
    }


def test_repairs_of_the_page_body():
    context = page_context(".md")
    course.repair_html(None, "page", "page.html", context, None)
    assert context["body"] == '<summary>Show</summary><div role="listitem">'


def test_headers_of_a_data_frame_say_what_they_head():
    pytest.importorskip("pandas", reason="needs the extra `book`")
    frames = [plot.table({"a_b": {"x": 1}, "c": {"x": 2}}, label=label)._repr_html_() for label in ("name", "")]
    context = page_context(".md") | {"body": f"<table><th>kept</th></table>{frames[0]}<p>between</p>{frames[1]}"}
    course.repair_html(None, "page", "page.html", context, None)
    cells = re.findall(r"<t[hd]\b[^>]*>.*?(?=</t[hd]>)", context["body"])
    rows = ['<th scope="row">a_<wbr>b', "<td>1", '<th scope="row">c', "<td>2"]
    first, second = ['<th scope="col">name', '<th scope="col">x', *rows], ["<td>", '<th scope="col">x', *rows]
    assert cells == ["<th>kept", *first, *second]


@pytest.mark.parametrize(("suffix", "kept"), [(".ipynb", 2), (".md", 1)])
def test_launch_buttons_stay_only_where_the_services_can_open_the_page(suffix, kept):
    context = page_context(suffix)
    course.repair_html(None, "page", "page.html", context, None)
    assert len(context["header_buttons"]) == kept


def test_one_value_switches_the_launch_buttons_on():
    off = SimpleNamespace(course_repository="", html_theme_options={})
    course.switch_launch_buttons(None, off)
    assert off.html_theme_options == {}
    on = SimpleNamespace(course_repository="https://example.org/owner/course", html_theme_options={"kept": 1})
    course.switch_launch_buttons(None, on)
    assert on.html_theme_options["repository_url"] == "https://example.org/owner/course"
    assert set(on.html_theme_options["launch_buttons"]) >= {"colab_url", "binderhub_url"}
    assert on.html_theme_options["kept"] == 1


def test_a_large_network_of_a_live_figure_becomes_a_script_beside_the_page(tmp_path):
    network = '<script type="text/plain" data-part="network"{}</script>'
    context = {"body": network.format(">small") + network.format(' data-file="photographs">!#&')}
    context["pathto"] = lambda name, _: "../" + name
    course.share_live_scripts(SimpleNamespace(outdir=tmp_path), "book/one", "page.html", context, None)
    address = re.fullmatch(
        network.format(">small") + network.format(r' data-source="../(.*)\?v=\w{8}">'), context["body"]
    )
    assert (tmp_path / address[1]).read_text() == 'var liveNetwork = "!#&";\n'


def test_the_scripts_of_live_figures_are_one_file_of_the_site(tmp_path):
    def body_of(page: str, script: str) -> str:
        up = "../" * page.count("/")
        context = {"body": f"<p>{page}</p><script data-live>{script}</script>", "pathto": lambda name, _: up + name}
        course.share_live_scripts(SimpleNamespace(outdir=tmp_path), page, "page.html", context, None)
        return context["body"]

    first, second = body_of("book/one", "run();"), body_of("two", "run();")
    assert (tmp_path / "_static" / "live.js").read_text() == "run();"
    source = re.search(r'<p>book/one</p><script src="../_static/live.js(\?v=\w+)"></script>$', first)
    assert second == f'<p>two</p><script src="_static/live.js{source[1]}"></script>'
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(course.logger, "warning", lambda *told, **where: warned.append(where["location"]))
        warned: list[str] = []
        assert "walk();" in body_of("three", "walk();")  # keeps what it brought, and the build fails
    assert warned == ["three"]
