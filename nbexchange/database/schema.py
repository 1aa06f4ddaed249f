"""The schema: which one is there, and the way to another. Two never migrate at once."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, select, text

from nbexchange.columns import Name
from nbexchange.database.failures import known_errors
from nbexchange.database.reset import leave_wal, locked_tables, refuse_without_code
from nbexchange.database.rights import rights_to_migrate
from nbexchange.errors import Misconfigured

log = logging.getLogger(__name__)

USABLE = ("current", "ahead")

LOCK = "nbexchange migration"
LOCK_SECONDS = 3600
"""How long to wait for somebody else's migration."""


class Schema:
    """Migrations go through an engine of their own, which waits for as long as one takes."""

    def __init__(self, engine: Engine, make_migration_engine: Callable[[], Engine]) -> None:
        self._engine = engine
        self._make_migration_engine = make_migration_engine

    def prepare(
        self,
        *,
        upgrade: bool = False,
        reset: bool = False,
        reset_code: str = "",
        make: bool = True,
    ) -> None:
        """Make the schema usable, or raise Misconfigured with the words that mend it.

        A new SQLite file gets its schema if `make` says so; every other change is asked for.
        """
        if reset:
            self.reset(reset_code)
        state = self.state()
        is_new_file = state == "empty" and self._engine.dialect.name == "sqlite"
        if upgrade or (is_new_file and make):
            self.upgrade()
        elif state not in USABLE:
            raise Misconfigured(_ADVICE[state])
        elif state == "ahead":
            log.warning("the database's schema is that of a newer version, which allows this one")
        if self._engine.dialect.name in ("mysql", "mariadb"):
            with known_errors(), self._engine.connect() as connection:
                _refuse_lossy_tables(connection)

    @functools.cached_property
    def _script(self) -> ScriptDirectory:
        """Read once: it takes 10 ms, and readyz asks all the time."""
        script = ScriptDirectory.from_config(alembic_config())
        script.get_heads()
        return script

    def state(self) -> str:
        """`current`, `empty`, `behind`; `ahead`: made by a newer version that says that this one
        may go on; or `unknown`: made by one that does not, or not by us.
        """
        script = self._script
        revisions = {revision.revision for revision in script.walk_revisions()}
        with known_errors(), self._engine.connect() as connection:
            heads = set(MigrationContext.configure(connection).get_current_heads())
            if not heads:
                return "empty"
            if heads == set(script.get_heads()):
                return "current"
            if heads <= revisions:
                return "behind"
            return "ahead" if _oldest(connection) in revisions else "unknown"

    def upgrade(self, revision: str = "head") -> None:
        """Bring the schema up to date. Two at once: the second waits and finds nothing to do.

        One that is ahead stays as it is; raises Misconfigured for one that is not known.
        """
        state = self.state()
        if state == "unknown":
            raise Misconfigured(_ADVICE[state])
        if state == "ahead":
            return
        if self._engine.dialect.name in ("mysql", "mariadb"):
            with known_errors(), self._engine.connect() as connection:
                _refuse_lossy_defaults(connection)
        self._migrate(command.upgrade, revision)

    def downgrade(self, revision: str) -> None:
        """Back to an older version's schema. What only the newer one holds is lost."""
        self._migrate(command.downgrade, revision)

    def reset(self, code: str) -> None:
        """Erase every row, if there are any and the code is theirs (reset.py).

        Raises Misconfigured, with what would be lost and the code, before it erases anything.
        """
        if self.state() == "unknown":
            raise Misconfigured(_ADVICE["unknown"])
        with known_errors(), self._engine.connect() as connection:
            loss = refuse_without_code(connection, code)
        if not loss.is_nothing:
            self._engine.dispose()  # our own sessions are not those of another process
            self._erase(code)
            # The URL itself may hold a password, also in its query.
            log.warning("--reset-db erased %s of the database %s", loss, self._engine.url.database)
        self.upgrade()

    def _erase(self, code: str) -> None:
        with self._migration_connection() as connection:
            leave_wal(connection)
            with _exclusively(connection), locked_tables(connection):
                refuse_without_code(connection, code)
                _run(command.downgrade, connection, "base")

    def _migrate(self, direction: Callable[[Config, str], None], revision: str) -> None:
        with self._migration_connection() as connection, _exclusively(connection):
            _run(direction, connection, revision)

    @contextlib.contextmanager
    def _migration_connection(self) -> Iterator[Connection]:
        engine = self._make_migration_engine()
        try:
            with (
                known_errors(),
                rights_to_migrate(self._engine),
                engine.execution_options(nbexchange_writes=True).connect() as connection,
            ):
                yield connection
        finally:
            engine.dispose()


def _run(direction: Callable[[Config, str], None], connection: Connection, revision: str) -> None:
    config = alembic_config()
    config.attributes["connection"] = connection
    direction(config, revision)


def _oldest(connection: Connection) -> str | None:
    if not inspect(connection).has_table("compatibility"):
        return None
    column = sqlalchemy.column("oldest", Name(32))
    return connection.execute(
        select(column).select_from(sqlalchemy.table("compatibility"))
    ).scalar_one_or_none()


@contextlib.contextmanager
def _exclusively(connection: Connection) -> Iterator[None]:
    """A transaction that nobody else's migration runs beside. Whoever dies lets go."""
    dialect = connection.dialect.name
    if dialect in ("mysql", "mariadb"):
        with _mysql_lock(connection), connection.begin():
            yield
    else:
        # SQLite's transaction for writing is alone already.
        with connection.begin():
            if dialect == "postgresql":
                connection.execute(
                    text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": LOCK}
                )
            yield


@contextlib.contextmanager
def _mysql_lock(connection: Connection) -> Iterator[None]:
    """Held by the connection, since every change of a table there ends a transaction."""
    # The name is the server's; several exchanges may live on it in databases of their own.
    lock = {"name": LOCK, "seconds": LOCK_SECONDS}
    name = "LEFT(CONCAT(:name, ' ', DATABASE()), 64)"
    with connection.begin():
        got = connection.execute(text(f"SELECT GET_LOCK({name}, :seconds)"), lock).scalar_one()
    if got != 1:
        raise Misconfigured("somebody else's migration does not end; look for it and try again")
    yield
    # After an error the connection goes, and the lock with it.
    with connection.begin():
        connection.execute(text(f"SELECT RELEASE_LOCK({name})"), lock)


def _refuse_lossy_defaults(connection: Connection) -> None:
    """What new tables would be made of. Afterwards the words that mend them would be long."""
    database, letters, engine = connection.execute(_DEFAULTS).one()
    if letters != "utf8mb4":
        raise Misconfigured(
            f"the database's character set is {letters}, which cannot hold everybody's name; mend "
            f"it with: ALTER DATABASE `{database}` CHARACTER SET utf8mb4"
        )
    if engine != "InnoDB":
        raise Misconfigured(
            f"new tables would be kept by {engine}, which cannot take back half of a change; mend "
            "it with: SET GLOBAL default_storage_engine = InnoDB"
        )


def _refuse_lossy_tables(connection: Connection) -> None:
    """Tables may have been copied here by another program, which made of them what it liked.

    Their engines are checked by every connection (durability.py).
    """
    for table, column, kind in connection.execute(_LOSSY_COLUMNS):
        raise Misconfigured(
            f"column {column!r} of table {table!r} is {kind}, which does not keep every name and "
            "every time as it is; restore the tables as `nbexchange upgrade-db` makes them "
            "(VARBINARY, DATETIME(6), and text in utf8mb4)"
        )


_DEFAULTS = text("SELECT DATABASE(), @@character_set_database, @@SESSION.default_storage_engine")
_LOSSY_COLUMNS = text(
    "SELECT table_name, column_name, CONCAT_WS(' ', column_type, character_set_name)"
    " FROM information_schema.columns"
    " WHERE table_schema = DATABASE() AND table_name <> 'alembic_version' AND ("
    " data_type IN ('char', 'varchar')"
    " OR (data_type = 'datetime' AND datetime_precision <> 6)"
    " OR character_set_name <> 'utf8mb4')"
)

_ADVICE = {
    "empty": "the database has no tables yet; make them with `nbexchange upgrade-db`",
    "behind": "the database was made by an older version; back it up, then run "
    "`nbexchange upgrade-db` (or start once with --upgrade-db)",
    "unknown": "the database has a schema that this version cannot use, perhaps from a newer one; "
    "run the version that made it, or restore a backup",
}


def migrations() -> Path:
    """Where the migrations are: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).parent.parent
    packed = package / "_alembic"
    return packed if packed.is_dir() else package.parent / "alembic"


def alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations()).replace("%", "%%"))
    return config
