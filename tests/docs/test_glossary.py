"""docs/glossary.md: its terms are used elsewhere, and the classes at the core are in it."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs/glossary.md"

CORE = (
    "nbexchange.exchange.records",
    "nbexchange.models",
    "nbexchange.storage",
    "nbexchange.identity",
)
"""The modules whose classes a newcomer meets first."""


def rows() -> list[list[str]]:
    lines = GLOSSARY.read_text(encoding="utf-8").splitlines()
    cells = [line.strip("|").split("|") for line in lines if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in cells if row[0].strip() != "term"]


TERMS = [term for term, *_ in rows()]


@functools.cache
def prose() -> str:
    """The code and the documentation without the glossary, in lower case and single spaces."""
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("chart/*.md")]
    files += (ROOT / "nbexchange").rglob("*.py")
    texts = [file.read_text(encoding="utf-8") for file in files if file != GLOSSARY]
    return " ".join(" ".join(texts).lower().split())


def is_used(term: str) -> bool:
    """As words of prose, also with hyphens or in the plural."""
    words = re.split(r"[ -]", term.lower())
    return bool(re.search(rf"\b{'[ -]'.join(map(re.escape, words))}s?\b", prose()))


def core_classes() -> Iterator[str]:
    for name in CORE:
        module = importlib.import_module(name)
        for class_name, _ in inspect.getmembers(module, inspect.isclass):
            if getattr(module, class_name).__module__ == name and not class_name.startswith("_"):
                yield class_name


@pytest.mark.parametrize("term", TERMS)
def test_a_term_is_used_outside_the_glossary(term):
    assert is_used(term)


def test_a_term_that_nothing_uses_is_noticed():
    assert not is_used("submarine exchange")


def test_a_term_is_explained_once_in_at_most_two_sentences():
    assert len(set(TERMS)) == len(TERMS)
    for term, meaning, *_ in rows():
        # A colon or a semicolon does not end a sentence.
        assert 1 <= len(re.findall(r"\.(?: |$)", meaning)) <= 2, term


@pytest.mark.parametrize("name", sorted(set(core_classes())))
def test_a_class_of_the_core_is_in_the_glossary(name):
    assert re.search(rf"`{name}`", " ".join(places for _, _, places in rows()))


def test_every_name_that_the_glossary_gives_is_in_the_code():
    files = [*(ROOT / "nbexchange").rglob("*.py")]
    words = {word for file in files for word in re.findall(r"\w+", file.read_text("utf-8"))}
    names = re.findall(r"`([\w./]+)`", " ".join(places for _, _, places in rows()))

    # A file is named by the end of its path.
    gone = [
        name
        for name in names
        if name not in words and not any(name.strip("/") in file.as_posix() for file in files)
    ]
    assert gone == []


def test_the_glossary_is_linked_first():
    _, _, text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").partition("\n")
    link = re.search(r"\]\(([^)]+)\)", text)

    assert link
    assert link[1] == "docs/glossary.md"
