"""Pages whose text is elsewhere in the repository, with links that work in both places."""

from __future__ import annotations

import os
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"

SOURCES = {
    "architecture": "ARCHITECTURE.md",
    "changelog": "CHANGELOG.md",
    "chart": "chart/README.md",
    "contributing": "CONTRIBUTING.md",
    "hub-local": "examples/hub-local/README.md",
    "zero-to-jupyterhub": "examples/zero-to-jupyterhub/README.md",
}
"""Page -> the file that holds its text."""

_PAGES = {source: f"{page}.md" for page, source in SOURCES.items()} | {"README.md": "index.md"}
_FENCE = re.compile(r"^\s*(```+|~~~+)")
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")
_SCHEME = re.compile(r"[a-z]+:")


def source_of(page: str) -> Path | None:
    return ROOT / SOURCES[page] if page in SOURCES else None


def with_links_of_the_site(text: str, file: Path) -> str:
    """The text with links to pages; a file without a page becomes its name, without a link."""
    pieces: list[str] = []
    prose: list[str] = []
    fence = None
    for line in text.splitlines(keepends=True):
        found = _FENCE.match(line)
        if fence is None and found is None:
            prose.append(line)
            continue
        if fence is None:
            pieces.append(_relinked("".join(prose), file))
            prose, fence = [], found[1] if found else None
        elif found and line.strip() == fence:
            fence = None
        pieces.append(line)
    return "".join([*pieces, _relinked("".join(prose), file)])


def _relinked(prose: str, file: Path) -> str:
    return _LINK.sub(lambda found: _link(found[1], found[2], file), prose)


def _link(words: str, target: str, file: Path) -> str:
    path, _, anchor = target.partition("#")
    if not path or _SCHEME.match(target):
        return f"[{words}]({target})"
    place = Path(os.path.normpath(file.parent / path))
    if place.is_dir():
        place /= "README.md"
    page = _page(place)
    if page is None:
        return words if path in words else f"{words} (`{place.relative_to(ROOT)}`)"
    start = file.parent if file.is_relative_to(DOCS) else DOCS
    return f"[{words}]({os.path.relpath(page, start)}{'#' if anchor else ''}{anchor})"


def _page(place: Path) -> Path | None:
    """The file of docs that shows this one; None where the site does not show it."""
    if place.is_relative_to(DOCS):
        return place
    page = _PAGES.get(place.relative_to(ROOT).as_posix())
    return None if page is None else DOCS / page
