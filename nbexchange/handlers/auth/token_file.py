"""People and their tokens in a JSON file: for a class without a hub, for tests and the demo.

    {"s3cret-of-ada": {"name": "ada", "courses": {"physics": "Instructor"}},
     "s3cret-of-bob": {"name": "bob", "course_id": "physics", "course_role": "Student"}}

Make tokens long and random (`openssl rand -hex 32`), and the file readable by the service alone.

The file is read again whenever it changes. While it cannot be read, or is not valid JSON (an editor
has written half of it), its last valid content stays in use, and the log and readyz say so. The
service does not start with such a file, because then there is no earlier content.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tornado.web import RequestHandler
from traitlets import Unicode
from traitlets.config import Configurable

from nbexchange.errors import Misconfigured
from nbexchange.handlers.auth.user_handler import Answer, BaseUserHandler

log = logging.getLogger(__name__)

REMINDER_SECONDS = 600
"""How often the log repeats that a file is still not valid."""


class InvalidPeople(Exception):
    """Says where and why in words that quote nothing: the file is full of secrets."""


@dataclass(frozen=True)
class _Reading:
    """What was found when the file was last looked at."""

    version: tuple[int, ...] | None = None
    """Of the file; None where it could not be read, so that it is read again each time."""
    people: Mapping[str, Answer] | None = None
    """The last valid content, by digest of token; None before the first."""
    problem: str | None = None
    """Why that content is not the file's."""


class TokenFileUserHandler(BaseUserHandler, Configurable):
    path = Unicode(
        help="""
        The JSON file that maps each token to what is known of its owner (the keys of
        BaseUserHandler.get_current_user). It is read again whenever it changes; while it is not
        valid, its last valid content stays in use.
        """,
    ).tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._reading = _Reading()
        self._lock = threading.Lock()
        self._reported_at = 0.0

    def check_start(self) -> None:
        self._people()

    def find_problem(self) -> str | None:
        problem = self._read().problem
        return problem and f"The token file {problem}. Its last valid content stays in use."

    async def get_current_user(self, request: RequestHandler) -> Answer:
        token = bearer_token(request)
        if token is None:
            return None
        people = await asyncio.get_running_loop().run_in_executor(None, self._people)
        return people.get(_digest(token))

    def _people(self) -> Mapping[str, Answer]:
        """By digest of token. Raises Misconfigured before the first valid content."""
        reading = self._read()
        if reading.people is None:
            raise Misconfigured(
                f"The token file {self.path!r} {reading.problem}. Correct it, or let "
                "c.TokenFileUserHandler.path name another file, then start again."
            )
        return reading.people

    def _read(self) -> _Reading:
        with self._lock:
            before = self._reading
            self._reading = self._read_again(before)
            self._report(before, self._reading)
            return self._reading

    def _read_again(self, before: _Reading) -> _Reading:
        version = None
        try:
            stat = Path(self.path).stat()
            version = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if version == before.version:
                return before
            people = parse_people(Path(self.path).read_bytes())
        except OSError as error:
            return _Reading(None, before.people, f"cannot be read: {error.strerror}")
        except InvalidPeople as error:
            return _Reading(version, before.people, f"is not valid: {error}")
        # Looking up digests, not tokens: how long that takes tells nothing of a token.
        return _Reading(version, {_digest(token): person for token, person in people.items()})

    def _report(self, before: _Reading, reading: _Reading) -> None:
        """Log each new problem, remind of an old one, and say when there is none any more."""
        if reading.people is None:
            return  # `_people` raises
        now = time.monotonic()
        is_due = now - self._reported_at >= REMINDER_SECONDS
        if reading.problem is not None and (reading.problem != before.problem or is_due):
            self._reported_at = now
            log.error(
                "The token file %s %s. Its last valid content stays in use, so people who were "
                "removed since can still sign in. Correct the file.",
                self.path,
                reading.problem,
            )
        elif reading.problem is None and before.problem is not None:
            log.warning("The token file %s is valid again and in use.", self.path)


def parse_people(content: bytes) -> dict[str, Any]:
    """What is known of each token's owner, from a token file's bytes, with or without a BOM.

    Raises InvalidPeople with the line and the column.
    """
    try:
        # Editors of Windows write a BOM, and some of them UTF-16.
        encoding = json.detect_encoding(content)
        people = json.loads(content.decode(encoding))
    except UnicodeDecodeError as error:
        before = content[: error.start].decode(error.encoding, "replace")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise InvalidPeople(f"line {line}, column {column}: not text in UTF-8") from None
    except json.JSONDecodeError as error:
        why = error.msg.partition(":")[0]
        raise InvalidPeople(f"line {error.lineno}, column {error.colno}: {why}") from None
    except (RecursionError, ValueError):
        raise InvalidPeople("values nest too deep, or a number is too long") from None
    if not isinstance(people, dict):
        raise InvalidPeople("line 1, column 1: not an object like {token: {...}, ...}")
    return people


def bearer_token(request: RequestHandler) -> str | None:
    """The token of an `Authorization: Bearer` header; JupyterHub's `token` scheme is the same."""
    scheme, _, token = request.request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() in ("bearer", "token") and token.strip():
        return token.strip()
    return None


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
