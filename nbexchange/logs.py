"""How the log is written: nothing in a request can make a line long, or make a second one."""

from __future__ import annotations

import logging
import re
from typing import Any

from traitlets.config.application import LevelFormatter

LONGEST_LINE = 4000
"""Bytes."""

# What ends a line for some reader, or moves the cursor of a terminal.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class OneLineFormatter(LevelFormatter):
    """One line for each record; those of a traceback follow it, indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        return one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 (logging's name)
        lines = super().formatException(ei).split("\n")
        return "\n".join(one_line(f"  {line}") for line in lines)


def one_line(text: str) -> str:
    line = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text[:LONGEST_LINE])
    return line.encode(errors="backslashreplace")[:LONGEST_LINE].decode(errors="ignore")
