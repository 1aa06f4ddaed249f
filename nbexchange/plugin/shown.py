"""Format text for nbgrader's pages, and small pages of our own."""

import textwrap

WIDTH = 42
"""Characters per line of a dialog on a phone. A dialog does not wrap; it cuts longer lines."""


def wrapped(text: str) -> str:
    """Wrap text for a dialog. Long words are not broken, and indented lines stay indented."""
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
    """Join lines for a list, which does not show line breaks. Lines end with a full stop unless
    they have a mark already, and indented items are separated by semicolons."""
    lines = [line for line in text.splitlines() if line.strip()]
    return " ".join([*map(_ended, lines, lines[1:]), *(line.strip() for line in lines[-1:])])


def _ended(line: str, following: str) -> str:
    if line[0].isspace() and following[0].isspace():
        return f"{line.strip()};"
    has_mark = line.rstrip().endswith((".", ":", "?", "!"))
    return line.strip() + ("" if has_mark else ".")


def page(content: str) -> str:
    """A page with this HTML, light or dark like the user's system."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<title>Formgrader</title><body style="background: Canvas; font-family: sans-serif">'
        f"<main><h1>Formgrader</h1>{content}</main></body></html>"
    )
