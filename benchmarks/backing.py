"""A database and a place in a store for each service, where they are not in its directory."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Engine, create_engine, make_url, text


@dataclass(frozen=True)
class Backing:
    server: str | None = None
    """The URL of somebody who may create databases on a server; None for SQLite."""
    bucket: str | None = None
    """The URL of a bucket; None for a local directory. What is stored there stays."""

    @contextlib.contextmanager
    def options(self) -> Iterator[list[str]]:
        """Those of a service with nothing in it."""
        name = f"nbexchange_benchmark_{secrets.token_hex(4)}"
        options = []
        if self.bucket is not None:
            options.append(f"--storage-url={self.bucket.rstrip('/')}/{name}")
        if self.server is None:
            yield options
            return
        url = make_url(self.server)
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        _say(engine, f"CREATE DATABASE {name}")
        try:
            own = url.set(database=name).render_as_string(hide_password=False)
            yield [*options, f"--db-url={own}", "--upgrade-db"]
        finally:
            _say(engine, f"DROP DATABASE {name}")
            engine.dispose()


def _say(engine: Engine, statement: str) -> None:
    with engine.connect() as connection:
        connection.execute(text(statement))
