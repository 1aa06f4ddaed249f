"""Privileges that a migration needs: the message has the statement that grants them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sqlalchemy import Connection, Engine, exc, text

from nbexchange.database.failures import has_code
from nbexchange.errors import Misconfigured

_DENIED = (
    "42501",  # PostgreSQL: insufficient privilege
    "3F000",  # PostgreSQL: no schema to create tables in, because the account may not use any
    # MariaDB, MySQL: a database, a command on a table, a column
    1044,
    1142,
    1143,
)

_MYSQL_RIGHTS = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP, REFERENCES"


@contextlib.contextmanager
def rights_to_migrate(engine: Engine) -> Iterator[None]:
    """Raises Misconfigured, with what to do, if the account may not change the schema."""
    try:
        yield
    except exc.DBAPIError as error:
        if not has_code(error.orig, _DENIED):
            raise
        with engine.connect() as connection:
            advice = _advice(connection)
        raise Misconfigured(
            f"The database refuses to change the schema ({_first_line(error)}). {advice}"
        ) from error


def _advice(connection: Connection) -> str:
    if connection.dialect.name != "postgresql":
        database, account = connection.execute(text("SELECT DATABASE(), CURRENT_USER()")).one()
        name, _, host = account.rpartition("@")
        return (
            "Run as an administrator of the database: "
            f"GRANT {_MYSQL_RIGHTS} ON `{database}`.* TO '{name}'@'{host}'"
        )
    role, database, may_create = connection.execute(
        text(
            "SELECT quote_ident(current_user), quote_ident(current_database()),"
            " coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)"
        )
    ).one()
    if may_create:
        return (
            f"Its tables belong to another role than {role}: run `nbexchange upgrade-db` as that "
            "role, or change their owner with ALTER TABLE ... OWNER TO"
        )
    schema = connection.execute(
        text("SELECT quote_ident(coalesce(current_schema(), 'public'))")
    ).scalar_one()
    # Since PostgreSQL 15 only the owner of a database may create in `public`.
    return (
        f"Run as an administrator, connected to the database {database}: "
        f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {role}"
    )


def _first_line(error: exc.DBAPIError) -> str:
    words = getattr(error.orig, "args", ())[-1:]
    return str(words[0] if words else error.orig).partition("\n")[0].strip()
