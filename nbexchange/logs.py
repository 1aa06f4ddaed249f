"""Log formats. Nothing in a request can make a line too long or add a second line.

A record may have fields (`extra={"fields": {...}}`). They follow its message as `name=value`; in a
JSON log they are fields of the object.
"""

from __future__ import annotations

import datetime
import json
import logging
import re
from collections.abc import Mapping
from typing import Any

from traitlets.config.application import LevelFormatter

from nbexchange.text import escaped

LONGEST_LINE = 4000
"""Bytes."""

_PLAIN = re.compile(r"[\w./:@+-]+", re.ASCII)


class OneLineFormatter(LevelFormatter):
    """One line for each record; the lines of a traceback follow it, indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        fields = [f" {name}={_value(value)}" for name, value in _fields(record).items()]
        return one_line(super().formatMessage(record) + "".join(fields))

    def formatException(self, ei: Any) -> str:  # noqa: N802 (logging's name)
        lines = super().formatException(ei).split("\n")
        return "\n".join(one_line(f"  {line}") for line in lines)


class JsonFormatter(logging.Formatter):
    """One line for each record: a JSON object, which includes the traceback.

    Fields: `time` (RFC 3339, UTC), `level`, `logger`, `message`, the record's own fields, and
    `exception` if there is one. Texts that are too long are cut in the middle.
    """

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": _utc(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return _json_line(fields)


FORMATTERS: Mapping[str, type[logging.Formatter]] = {
    "plain": OneLineFormatter,
    "json": JsonFormatter,
}


def one_line(text: str) -> str:
    return escaped(text[:LONGEST_LINE]).encode()[:LONGEST_LINE].decode(errors="ignore")


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return fields


def _value(value: object) -> str:
    """The value as text, in quotes if it could be read as something else."""
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _utc(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json_line(fields: dict[str, Any]) -> str:
    texts = {name: text for name, text in fields.items() if isinstance(text, str)}
    longest = LONGEST_LINE
    while True:
        shortened = {name: _shortened(text, longest) for name, text in texts.items()}
        # Everything except printable ASCII is escaped, so the text cannot end the line.
        line = json.dumps(fields | shortened, default=str)
        if len(line) <= LONGEST_LINE:
            return line
        longest //= 2


def _shortened(text: str, longest: int) -> str:
    """Keeps the end, because the last line of a traceback names the error."""
    half = max(1, longest // 2)
    return text if len(text) <= longest else f"{text[:half]} ... {text[-half:]}"
