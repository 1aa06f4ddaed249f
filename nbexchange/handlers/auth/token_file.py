"""People and their tokens in a JSON file: for a class without a hub, for tests and the demo.

    {"s3cret-of-ada": {"name": "ada", "courses": {"physics": "Instructor"}},
     "s3cret-of-bob": {"name": "bob", "course_id": "physics", "course_role": "Student"}}

Make tokens long and random (`openssl rand -hex 32`), and the file readable by the service alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tornado.web import RequestHandler
from traitlets import Unicode
from traitlets.config import Configurable

from nbexchange.errors import Unavailable
from nbexchange.handlers.auth.user_handler import Answer, BaseUserHandler

log = logging.getLogger(__name__)


class TokenFileUserHandler(BaseUserHandler, Configurable):
    path = Unicode(
        help="""
        The JSON file that maps each token to what is known of its owner (the keys of
        BaseUserHandler.get_current_user). It is read again whenever it changes.
        """,
    ).tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # One value, set at once: two threads may read the file, and the older one finish last.
        self._known: tuple[tuple[int, ...] | None, Mapping[str, Answer]] = (None, {})

    async def get_current_user(self, request: RequestHandler) -> Answer:
        token = bearer_token(request)
        if token is None:
            return None
        people = await asyncio.get_running_loop().run_in_executor(None, self._read)
        return people.get(_digest(token))

    def _read(self) -> Mapping[str, Answer]:
        try:
            stat = Path(self.path).stat()
            version = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            known, people = self._known
            if version != known:
                read = json.loads(Path(self.path).read_text(encoding="utf-8"))
                # Looking up digests, not tokens: how long that takes tells nothing of a token.
                people = {_digest(token): person for token, person in read.items()}
                self._known = (version, people)
        except (OSError, ValueError, AttributeError) as error:
            # The error of a JSON parser quotes the file, and the file is full of secrets.
            log.error("the token file %s cannot be read: %s", self.path, type(error).__name__)
            raise Unavailable(
                "the exchange cannot tell who you are for now; try again soon"
            ) from None
        return people


def bearer_token(request: RequestHandler) -> str | None:
    """The token of an `Authorization: Bearer` header; JupyterHub's `token` scheme is the same."""
    scheme, _, token = request.request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() in ("bearer", "token") and token.strip():
        return token.strip()
    return None


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
