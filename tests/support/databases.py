"""Databases to test with: the one of this run, and fresh ones on every server that is here.

`NBEXCHANGE_TEST_DB` is what services under test use: `sqlite` (usual), `mariadb` or `postgresql`.
`NBEXCHANGE_TEST_MARIADB` and `NBEXCHANGE_TEST_POSTGRESQL` name a server, as a SQLAlchemy URL of
somebody who may create databases; the usual ones run on this machine.
"""

from __future__ import annotations

import atexit
import functools
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, NullPool, create_engine, exc, make_url, select, text, update

from nbexchange.database import Database
from nbexchange.database.engines import make_engine
from nbexchange.models import Base
from tests.support.parts import missing

KIND = os.environ.get("NBEXCHANGE_TEST_DB", "sqlite")

SERVERS = {
    "mariadb": ("NBEXCHANGE_TEST_MARIADB", "mysql+pymysql://root@127.0.0.1:3306"),
    "postgresql": ("NBEXCHANGE_TEST_POSTGRESQL", "postgresql+psycopg://postgres@127.0.0.1:5432"),
}


@functools.cache
def server(kind: str) -> Engine:
    """Skips the test, or fails it where changes are judged, when there is no such server."""
    variable, usual = SERVERS[kind]
    url = make_url(os.environ.get(variable, usual))
    database = url.database or ("postgres" if kind == "postgresql" else "")
    engine = create_engine(url.set(database=database), isolation_level="AUTOCOMMIT")
    try:
        engine.connect().close()
    except exc.OperationalError as error:
        missing(f"no {kind} here ({error.orig}); {variable} may name one")
    return engine


def create(kind: str, directory: Path) -> str:
    """The URL of a database of nobody else, with nothing in it."""
    if kind == "sqlite":
        return f"sqlite:///{directory}/nbexchange.sqlite"
    name = f"nbexchange_test_{secrets.token_hex(6)}"
    with server(kind).connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    return server(kind).url.set(database=name).render_as_string(hide_password=False)


def drop(url: str) -> None:
    """Whoever still uses it."""
    kind, name = _kind_of(url), make_url(url).database
    if kind != "sqlite":
        force = " WITH (FORCE)" if kind == "postgresql" else ""
        with server(kind).connect() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {name}{force}"))


def administrator_of(url: str) -> Engine:
    """For statements about rights in a database that `create` made."""
    return create_engine(url, isolation_level="AUTOCOMMIT")


def _kind_of(url: str) -> str:
    name = make_url(url).get_backend_name()
    return "mariadb" if name == "mysql" else name


WRITTEN_BY_MIGRATIONS = {"compatibility", "secret"}
"""Tables whose rows belong to the schema."""

# -- those of services under test, one for each data directory

_of: dict[Path, str] = {}
_free: list[str] = []


def database_of(data: Path) -> str:
    """The URL of the database that belongs to a data directory, with the schema in it."""
    if KIND == "sqlite":
        return f"sqlite:///{data}/nbexchange.sqlite"
    if data not in _of:
        _of[data] = _emptied(_free.pop()) if _free else _made()
    return _of[data]


def give_back(data: Path) -> None:
    """No test will use it any more; another may have its database."""
    if data in _of:
        _free.append(_of.pop(data))


def _made() -> str:
    url = create(KIND, Path())
    atexit.register(drop, url)
    database = Database(url)
    database.prepare(upgrade=True)
    database.close()
    return url


def _emptied(url: str) -> str:
    engine = engine_of(url)
    with engine.begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            if table.name not in WRITTEN_BY_MIGRATIONS:
                connection.execute(table.delete())
    return url


@functools.cache
def engine_of(url: str) -> Engine:
    """For a look behind the service's back."""
    # Each test has an SQLite file of its own; a pool would keep all of them open.
    options = {"poolclass": NullPool} if _kind_of(url) == "sqlite" else {}
    return make_engine(url, **options)


def rename(data: Path, table: str, column: str, names: Mapping[str, str]) -> None:
    """Give rows names that the service refuses by now: older versions took them."""
    found = Base.metadata.tables[table]
    with engine_of(database_of(data)).begin() as connection:
        for old, new in names.items():
            changed = update(found).where(found.c[column] == old).values({column: new})
            assert connection.execute(changed).rowcount == 1


def rows(data: Path, table: str) -> list[dict[str, Any]]:
    found = Base.metadata.tables[table]
    with engine_of(database_of(data)).connect() as connection:
        return [
            dict(row) for row in connection.execute(select(found).order_by(found.c.id)).mappings()
        ]
