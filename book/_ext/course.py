"""Sphinx extension of the course: alt text for every picture, repairs of the theme's HTML, launch buttons.

The scripts of live figures, which every output brings for itself, become one file of the site.

`interp_lab.plot` writes the alt text of a figure into the metadata of its output (`{"image/png": {"alt": ...}}`).
myst_nb reads only the width and the height there, so its renderer is extended; the cell's own
`mystnb: {image: {alt: ...}}` still wins. A picture that has no alt text in the end is a warning, and the build of
the course turns warnings into errors.
"""

import functools
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docutils import nodes
from myst_nb.core.render import MimeData, NbElementRenderer
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging
from sphinx.util.nodes import get_node_line

logger = logging.getLogger(__name__)
IMG_WITHOUT_ALT = re.compile(r"<img(?![^>]*\salt\s*=)[^>]*>", re.IGNORECASE)
HTML_REPAIRS = {
    # the visible text of the summary is its name; another label is a mismatch for speech input
    '<summary aria-label="Toggle hidden content">': "<summary>",
    'role="doc-biblioentry"': 'role="listitem"',  # deprecated role, and not allowed inside the role "list"
}
LARGE_NETWORK = re.compile(
    r'(<script type="text/plain" data-part="network") data-file="([\w-]+)">(.*?)</script>', re.DOTALL
)
LIVE_SCRIPT = re.compile(r"<script data-live>(.*?)</script>", re.DOTALL)
DATA_FRAME = re.compile(r'<table [^>]*class="dataframe">.*?</table>', re.DOTALL)


def with_header_scopes(data_frame: re.Match[str]) -> str:
    """The table of a data frame, in which every header says whether it heads its column or its row; names may break at _."""
    head, end, body = data_frame[0].partition("</thead>")
    head = head.replace("<th></th>", "<td></td>").replace("<th>", '<th scope="col">')
    return (head + end + body.replace("<th>", '<th scope="row">')).replace("_", "_<wbr>")


def with_output_alt(render_image: Callable[..., list[nodes.Element]]) -> Callable[..., list[nodes.Element]]:
    """The image renderer of myst_nb, with the alt text of the output's metadata where the cell gives none."""

    @functools.wraps(render_image)
    def render(self: NbElementRenderer, data: MimeData) -> list[nodes.Element]:
        images = render_image(self, data)
        alt = data.output_metadata.get(data.mime_type, {}).get("alt")
        for image in images:
            if alt:
                image.setdefault("alt", alt)
        return images

    return render


def require_alt_text(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Warn of every picture without alt text, also inside raw HTML."""
    for image in doctree.findall(nodes.image):
        if not image.get("alt", "").strip():
            logger.warning("picture without alt text: %s", image["uri"], location=(docname, get_node_line(image)))
    for raw in doctree.findall(nodes.raw):
        for tag in IMG_WITHOUT_ALT.findall(raw.astext()):
            logger.warning("picture without alt text: %.80s", tag, location=(docname, get_node_line(raw)))


def repair_html(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Mend the accessibility faults of the theme's page body, and drop launch buttons that cannot work."""
    if context.get("body"):
        for fault, repair in HTML_REPAIRS.items():
            context["body"] = context["body"].replace(fault, repair)
        context["body"] = DATA_FRAME.sub(with_header_scopes, context["body"])
    if context.get("page_source_suffix") != ".ipynb":  # the launch services open .ipynb files only
        buttons = context.get("header_buttons", [])
        context["header_buttons"] = [b for b in buttons if b.get("label") != "launch-buttons"]


def share_live_scripts(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Put the scripts of live figures into one file, which a page that is opened without a server may load as well.

    A large network becomes a script of its own, which the page loads when the reader asks for it.
    """

    def apart(network: re.Match[str]) -> str:
        start, name, text = network.groups()
        path = Path(app.outdir, "_static", f"live-{name}.js")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'var liveNetwork = "{text}";\n', encoding="utf-8")
        version = hashlib.sha256(text.encode()).hexdigest()[:8]
        return f'{start} data-source="{context["pathto"](f"_static/live-{name}.js", 1)}?v={version}"></script>'

    if context.get("body"):
        context["body"] = LARGE_NETWORK.sub(apart, context["body"])
    for text in LIVE_SCRIPT.findall(context.get("body") or ""):
        path = Path(app.outdir, "_static", "live.js")
        if path.exists() and path.read_text(encoding="utf-8") != text:
            logger.warning(
                "scripts of live figures that differ from those of other pages: run the page again", location=pagename
            )
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        version = hashlib.sha256(text.encode()).hexdigest()[:8]
        address = f"{context['pathto']('_static/live.js', 1)}?v={version}"
        context["body"] = LIVE_SCRIPT.sub(f'<script src="{address}"></script>', context["body"], count=1)


def switch_launch_buttons(app: Sphinx, config: Config) -> None:
    """Turn the one value `course_repository` into the theme's repository and launch settings."""
    if config.course_repository:
        config.html_theme_options |= {
            "repository_url": config.course_repository,
            "repository_branch": "main",
            "use_repository_button": True,
            "launch_buttons": {
                "colab_url": "https://colab.research.google.com",
                "binderhub_url": "https://mybinder.org",
                "notebook_interface": "jupyterlab",
            },
        }


def mark_instructors_edition(app: Sphinx, config: Config) -> None:
    """A line on every page of the edition that holds the solutions."""
    if config.course_edition == "instructor":
        config.html_theme_options |= {"announcement": "Instructor's edition, with solutions. Do not publish."}


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the parts above with Sphinx."""
    if not hasattr(NbElementRenderer.render_image, "__wrapped__"):  # several builds in one process
        NbElementRenderer.render_image = with_output_alt(NbElementRenderer.render_image)
    app.add_config_value("course_repository", "", "env", str)
    app.add_config_value("course_edition", "public", "env", str)
    app.connect("config-inited", mark_instructors_edition, priority=100)
    app.connect("config-inited", switch_launch_buttons, priority=100)  # before the theme reads its options
    app.connect("doctree-resolved", require_alt_text)
    app.connect("html-page-context", share_live_scripts)
    app.connect("html-page-context", repair_html, priority=900)  # after the theme has made its buttons
    return {"parallel_read_safe": True, "parallel_write_safe": True}
