"""Answers without what differs from one telling of the story to the next.

What a golden file says and what a server says go through the same hands, so that a place, a time
or a random name is replaced on both sides or on neither.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d\.\d{6})( UTC)?")

RULES = (
    # The frames of nbgrader, tornado and the plugin; the exception at their end stays.
    (re.compile(r"(Traceback \(most recent call last\):\n)(?: .*\n)+"), r"\1"),
    (re.compile(r"http://127\.0\.0\.1:(\d+|<PORT>)/formgrader"), "<JUPYTER>/formgrader"),
    # Depends on the versions of nbformat and of nbconvert's templates.
    (re.compile(r"Writing \d+ bytes"), "Writing <N> bytes"),
    # Nine bytes in URL-safe base64; with our exchange it is the id of the submission.
    (re.compile(r"((?:^|<TS\d>)\+)(?:[0-9a-f]{32}|[0-9A-Za-z_-]{12})(?=$|/| )"), r"\1<RANDOM>"),
    # The advice after it, which is the client's matter.
    (re.compile(r"(The exchange service at <EXCHANGE> cannot be reached\.).*"), r"\1"),
    (re.compile(r"is owned by \w+;"), "is owned by <ME>;"),
    (re.compile(r"/feedback/[0-9a-f]{32}-tmp\.html"), "/feedback/<HASH>.html"),
    (re.compile(r"/feedback/[0-9a-f]{32}/"), "/feedback/<SUBMISSION>/"),
)

CONVERTED = re.compile(r"/(assign|autograde|generate_feedback)$")
"""Where the log tells how notebooks were converted, in the words of nbconvert's version."""
ABOUT_A_FILE = re.compile(r"\[INFO\] (Copying|Releasing feedback)")


@dataclass
class Plain:
    """`places` are replaced by their marks; `times` are the submissions', oldest first."""

    places: dict[str, str]
    times: dict[str, str]
    _ids: dict[str, str] = field(default_factory=dict)

    def answer(self, path: str, response: Any) -> Any:
        """The plain form of what was answered to a question for this path."""
        if "__not_json__" in response:  # a page for people, in the words of Jupyter's version
            return "<title>Jupyter Server</title>" in response["__not_json__"]
        plain = self.value(response)
        if "log" in response:
            plain["log"] = _sorted(_entries(plain["log"], without_debug=CONVERTED.search(path)))
        return plain

    def value(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.value(one) for one in value]
        if isinstance(value, dict):
            return {key: self._item(key, value) for key in value}
        return self._text(value) if isinstance(value, str) else value

    def _item(self, key: str, siblings: dict[str, Any]) -> Any:
        value = siblings[key]
        if key == "id" and re.fullmatch("[0-9a-f]{32}", value or ""):
            return self._ids.setdefault(value, f"<ID{len(self._ids) + 1}>")
        if key == "display_timestamp" and siblings["timestamp"]:
            return value == f"{siblings['timestamp'][:19].replace('T', ' ')} UTC"
        if key in ("error", "raw_error") and "source" in siblings:  # the words of IPython's version
            return re.sub(r"<.*?>|\x1b\[[0-9;]*m", "", value).splitlines()[-1]
        return self.value(value)

    def _text(self, text: str) -> str:
        for place, mark in self.places.items():
            text = text.replace(place, mark)
        text = TIMESTAMP.sub(self._time, text)
        for pattern, replacement in RULES:
            text = pattern.sub(replacement, text)
        return text

    def _time(self, found: re.Match[str]) -> str:
        mark = self.times.get(f"{found[1]} {found[2]}", found[0])
        return mark if found[3] else f"{mark} without a zone"


def times_of(submissions: list[dict[str, Any]]) -> dict[str, str]:
    """The marks of their timestamps, which are listed oldest first."""
    timestamps = [one["timestamp"].removesuffix(" UTC") for one in submissions]
    return {timestamp: f"<TS{number}>" for number, timestamp in enumerate(timestamps, start=1)}


def _entries(log: str, *, without_debug: Any) -> list[str]:
    """The entries of a log, which may have several lines each."""
    entries = re.split(r"(?<=\n)(?=\[[A-Z]+\] )", log)
    return [one for one in entries if not (without_debug and one.startswith("[DEBUG]"))]


def _sorted(entries: list[str]) -> str:
    """The order of files is that of the disk; everything else has an order of its own."""
    runs = groupby(_by_file(entries), key=lambda entry: bool(ABOUT_A_FILE.match(entry)))
    return "".join("".join(sorted(run) if about else run) for about, run in runs)


def _by_file(entries: list[str]) -> list[str]:
    """What is said about a file in one piece, also where two entries say it."""
    return re.split(r"(?<=\n)(?=\[[A-Z]+\] (?!Feedback released to))", "".join(entries))
