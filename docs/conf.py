"""Settings of Sphinx. Pages of methods, losses, the reference and the gallery are written before a build."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from site_pages.write import COPIES, MADE, write_pages  # noqa: E402  the path is set first

import jaxcluster  # noqa: E402

project = "jaxcluster"
author = "The jaxcluster developers"
copyright = f"2026, {author}"
version = release = jaxcluster.__version__

extensions = ["myst_parser", "sphinx_design", "site_pages.mathml", "sphinx.ext.githubpages"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "texts", "site_pages", "methods.md"]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3
html_math_renderer = "mathml"
pygments_style = "default"
add_module_names = False
toc_object_entries_show_parents = "hide"
maximum_signature_line_length = 80
nitpicky = False

# `make links`: anchors of pages that are drawn by scripts cannot be seen, and publishers refuse programs.
linkcheck_anchors = False
linkcheck_timeout = 20
linkcheck_retries = 2
linkcheck_report_timeouts_as_broken = False
linkcheck_ignore = [r"https://doi\.org/", r"https://dl\.acm\.org/"]

html_theme = "pydata_sphinx_theme"
html_context = {"default_mode": "auto"}  # without it the theme warns in the console at the first visit
html_title = "jaxcluster"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_sidebars = {"start": [], "index": []}
html_copy_source = html_show_sourcelink = False
html_show_search_summary = False  # summaries are fetched, which no browser does for files on disk
html_theme_options = {
    "logo": {"text": "jaxcluster"},
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
}

write_pages(HERE)


def relink(app, docname, source):
    """Links to files that the site shows as copies, or in another form."""
    up = "../" * docname.count("/")
    for name, copy in COPIES.items():
        source[0] = source[0].replace(f"]({up}../{name}", f"]({up}{MADE}/{copy}.md")
    source[0] = source[0].replace(f"]({up}methods.md", f"]({up}methods/index.md")


def setup(app):
    """Connect the hook."""
    app.connect("source-read", relink)
