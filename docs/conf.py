"""Sphinx settings; ``make docs`` builds docs/_build/html."""

from __future__ import annotations

import importlib.metadata
import re
from typing import Any

project = "jumpy-worldmodel"
author = "The jumpy-worldmodel authors"
release = importlib.metadata.version("jumpy-worldmodel")

extensions = [
    "myst_parser",  # the pages are Markdown
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",  # Google's style of docstrings
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "jumpy-worldmodel"
html_show_copyright = False

myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes are described once, with their class


def setup(app: Any) -> None:
    """A star before a name is a shape, ``(B, L, *action)``, not the beginning of emphasis."""

    def escape(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
        lines[:] = [re.sub(r"(?<![\\*`])\*(?=[a-z]+\))", r"\\*", line) for line in lines]

    app.connect("autodoc-process-docstring", escape)
