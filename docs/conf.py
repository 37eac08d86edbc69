"""Sphinx: `make docs` builds build/docs from these pages and the docstrings, without a network."""

import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

project = "alexnet"
author = "The alexnet authors"
release = metadata.version("alexnet")
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"alexnet {release}"
html_show_sphinx = False
html_extra_path = ["claims.html"]
exclude_patterns = ["*.html"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
nitpicky = False  # types of torch and numpy have no page here
