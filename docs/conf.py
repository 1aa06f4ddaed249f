"""How Sphinx makes the site: `make docs`. Nothing in it is loaded from elsewhere."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from nbexchange import __version__

project = "nbexchange"
release = version = __version__
html_title = f"nbexchange {__version__}"

extensions = ["myst_parser", "nbexchange_docs"]
exclude_patterns = ["_ext", "_build"]

myst_heading_anchors = 4
# Quotes and dashes in these pages often belong to configuration files.
smartquotes = False
# Blocks without a language are of many kinds.
highlight_language = "none"

html_theme = "furo"
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_use_index = False
