"""Text as nbgrader's pages show it, and small pages of our own."""

import textwrap

WIDTH = 42
"""Characters that a dialog shows in a line on a phone. It wraps nothing: what is longer is cut."""


def wrapped(text: str) -> str:
    """For a dialog: lines that fit, where their words do. Indented lines stay indented."""
    return "\n".join(_wrapped(line) for line in text.splitlines())


def _wrapped(line: str) -> str:
    line = line.expandtabs(4)
    return textwrap.fill(
        line,
        WIDTH,
        subsequent_indent=line[: len(line) - len(line.lstrip())],
        break_long_words=False,  # a path or an address is copied from here
        break_on_hyphens=False,
    )


def in_one_line(text: str) -> str:
    """For a list, where line breaks do not show: a full stop is put in their place, unless there is
    a mark already, and a semicolon between items, which are indented."""
    lines = [line for line in text.splitlines() if line.strip()]
    return " ".join([*map(_ended, lines, lines[1:]), *(line.strip() for line in lines[-1:])])


def _ended(line: str, following: str) -> str:
    if line[0].isspace() and following[0].isspace():
        return f"{line.strip()};"
    has_mark = line.rstrip().endswith((".", ":", "?", "!"))
    return line.strip() + ("" if has_mark else ".")


def page(content: str) -> str:
    """A page with this HTML in it, light or dark as the person's system is."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<title>Formgrader</title><body style="background: Canvas; font-family: sans-serif">'
        f"<main><h1>Formgrader</h1>{content}</main></body></html>"
    )
