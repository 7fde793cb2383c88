"""How Sphinx makes the site: `make docs`; sources are all Markdown pages of the repository."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

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


def _escape_stars(app, what, name, obj, options, lines):
    """A star before a word is that of Python, and begins no emphasis."""
    lines[:] = [re.sub(r"(?<![\w`*\\])\*(?=[\w.])", r"\\*", line) for line in lines]


def setup(app):
    """Sphinx calls this; napoleon comes first."""
    app.connect("autodoc-process-docstring", _escape_stars, priority=900)
