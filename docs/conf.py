"""How Sphinx makes the site: `make docs`; sources are all Markdown pages of the repository."""

import pathlib
import sys

from sphinx.util import logging

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import pages  # noqa: E402

from snnvit_jax.version import __version__  # noqa: E402

project, author, release = "snnvit_jax", "The snnvit_jax authors", __version__
copyright = author
extensions = [
    *("myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"),
]
root_doc = "docs/index"
include_patterns = [
    *("docs/*.md", "experiments/*/README.md", "README.md", "CHANGELOG.md", "CONTRIBUTING.md"),
    "snnvit_jax/weights/networks/*/README.md",
]
exclude_patterns = ["build"]
html_theme = "furo"
html_static_path, html_css_files = ["static"], ["site.css"]
html_title = f"snnvit_jax {release}"
html_copy_source = False
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings say what arguments are
napoleon_google_docstring = True
napoleon_use_rtype = False
napoleon_use_ivar = True  # or attributes would be described twice
default_role = "code"


def setup(app):
    """Sphinx calls this; napoleon comes first."""
    app.connect("autodoc-process-docstring", pages.as_prose, priority=900)
    app.connect("autodoc-process-signature", pages.short_defaults)
    app.connect("html-page-context", pages.finish, priority=900)
    app.connect("build-finished", _check_links)


def _check_links(app, error):
    """A dead link inside the site is a warning, as Sphinx's own are."""
    if error is None and app.builder.name == "html":
        for page, link in pages.dead_links(app.outdir):
            logging.getLogger(__name__).warning("%s: %s leads nowhere", page, link)
