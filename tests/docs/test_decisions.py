"""docs/decisions: every page has its parts and its row, and names files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DECISIONS = ROOT / "docs/decisions"
PAGES = sorted(DECISIONS.glob("0*.md"))

HEADINGS = ["Context", "Decision", "Consequence", "Test"]
STATUS = r"accepted|superseded by \[\d{4}\]\(\d{4}-[a-z0-9-]+\.md\)"

_ROW = re.compile(r"^\| \[(\d{4})\]\((\S+)\) \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)
_FILE = re.compile(r"`([\w./-]+\.py)(?:::\w+)?`")


def ids(file: Path) -> str:
    return file.name


def test_numbers_have_no_gap():
    assert [int(page.name[:4]) for page in PAGES] == list(range(1, len(PAGES) + 1))


def test_the_index_has_a_row_for_every_page_and_its_status():
    rows = _ROW.findall((DECISIONS / "index.md").read_text(encoding="utf-8"))

    assert [(f"{page.name[:4]}", page.name, status_of(page)) for page in PAGES] == sorted(rows)


def status_of(page: Path) -> str:
    match = re.search(rf"^Status: ({STATUS})$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert match, f"{page.name} has no status"
    return match[1]


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_a_page_has_its_number_and_its_four_parts(page):
    text = page.read_text(encoding="utf-8")

    assert text.startswith(f"# {page.name[:4]} ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
    assert _FILE.search(text.partition("## Test\n")[2]), "it names no test"


@pytest.mark.parametrize("file", [ROOT / "ARCHITECTURE.md", *PAGES], ids=ids)
def test_files_that_are_named_exist(file):
    named = _FILE.findall(file.read_text(encoding="utf-8"))

    assert [name for name in named if not is_there(name)] == []


def is_there(name: str) -> bool:
    """A file of the package or a test, named by the end of its path."""
    folders = ("nbexchange", "tests", "alembic", "docs", "examples")
    return (ROOT / name).is_file() or any(
        f"/{found.as_posix()}".endswith(f"/{name}")
        for folder in folders
        for found in (ROOT / folder).rglob(Path(name).name)
    )


def test_classes_that_the_map_names_exist():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    files = [file for folder in ("nbexchange", "tests") for file in (ROOT / folder).rglob("*.py")]
    words = {word for file in files for word in re.findall(r"\w+", file.read_text("utf-8"))}

    named = set(re.findall(r"`([A-Z]\w+)(?:\.\w+)*`", text)) - {"Dockerfile", "CONTRIBUTING"}

    assert named - words == set()


def test_the_map_stays_a_map():
    lines = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").splitlines()

    assert len(lines) <= 150, "move reasons to docs/decisions"
