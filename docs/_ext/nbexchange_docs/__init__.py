"""Generate the parts of the pages that come from elsewhere.

* A page that is named in `elsewhere.SOURCES` gets its text from a file outside of docs.
* `<!-- generated: NAME -->` in a page becomes a reference made from the code.
* Links that lead out of docs, as they should on a forge, lead to the page of that file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbexchange_docs import configuration, elsewhere, interface, modules, programs

if TYPE_CHECKING:
    from sphinx.application import Sphinx

GENERATED = {
    "service options": configuration.service,
    "plugin options": configuration.plugin,
    "hub arguments": configuration.hub,
    "commands": programs.commands,
    "http operations": interface.operations,
    "http schemas": interface.schemas,
    "http about": interface.about,
    "modules": modules.modules,
}

# The line before it is for forges, which show the page as it is.
_MARK = re.compile(r"(?:_[^_\n]*_\n)?<!-- generated: ([\w ]+) -->")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def fill(app: Sphinx, docname: str, source: list[str]) -> None:
    file = elsewhere.source_of(docname)
    if file is not None:
        app.env.note_dependency(str(file))
        source[0] = file.read_text(encoding="utf-8")
    # What is generated depends on all of the code.
    if _MARK.search(source[0]):
        app.env.note_reread()
    text = _MARK.sub(lambda found: GENERATED[found[1]](), source[0])
    place = file or Path(app.env.doc2path(docname))
    source[0] = elsewhere.with_links_of_the_site(text, place)
