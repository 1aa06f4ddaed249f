"""The schema: find its version, and migrate it. Two processes never migrate at the same time."""

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
"""How long to wait for the migration of another process."""


class Schema:
    """Migrations use an engine of their own without timeouts."""

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
        """Make the schema usable, or raise Misconfigured with instructions.

        With `make`, a new SQLite file gets its tables. Every other change needs `upgrade`.
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
            log.warning("The database's schema is of a newer version, which allows this one.")
        if self._engine.dialect.name in ("mysql", "mariadb"):
            with known_errors(), self._engine.connect() as connection:
                _refuse_lossy_tables(connection)

    @functools.cached_property
    def _script(self) -> ScriptDirectory:
        """Read once: it takes 10 ms, and readyz needs it often."""
        script = ScriptDirectory.from_config(alembic_config())
        script.get_heads()
        return script

    def state(self) -> str:
        """The state of the schema:

        `current`, `empty`, or `behind` (of an older version);
        `ahead`: of a newer version, which allows this one to use it;
        `unknown`: of a newer version that does not allow it, or of another program.
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
        """Bring the schema up to date. A second process that does the same waits for the first.

        A schema that is ahead stays as it is. Raises Misconfigured for an unknown one.
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
        """Return to an older version's schema. Data that only the newer one can hold is lost."""
        self._migrate(command.downgrade, revision)

    def reset(self, code: str) -> None:
        """Erase every row, if there are any and the code matches them (reset.py).

        Raises Misconfigured without a matching code. The message names what would be lost, and the
        code.
        """
        if self.state() == "unknown":
            raise Misconfigured(_ADVICE["unknown"])
        with known_errors(), self._engine.connect() as connection:
            loss = refuse_without_code(connection, code)
        if not loss.is_nothing:
            self._engine.dispose()  # otherwise our own sessions would count as another process
            self._erase(code)
            # The URL may contain a password, also in its query.
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
    """A transaction during which no other process migrates. A killed process releases its lock."""
    dialect = connection.dialect.name
    if dialect in ("mysql", "mariadb"):
        with _mysql_lock(connection), connection.begin():
            yield
    else:
        # SQLite's write transaction is exclusive already.
        with connection.begin():
            if dialect == "postgresql":
                connection.execute(
                    text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": LOCK}
                )
            yield


@contextlib.contextmanager
def _mysql_lock(connection: Connection) -> Iterator[None]:
    """Held by the connection, since every ALTER or CREATE TABLE there ends the transaction."""
    # The name is global to the server, which may have databases of several exchanges.
    lock = {"name": LOCK, "seconds": LOCK_SECONDS}
    name = "LEFT(CONCAT(:name, ' ', DATABASE()), 64)"
    with connection.begin():
        got = connection.execute(text(f"SELECT GET_LOCK({name}, :seconds)"), lock).scalar_one()
    if got != 1:
        raise Misconfigured(
            f"Another process's migration did not end within {LOCK_SECONDS} seconds. Find that "
            "process, then try again."
        )
    yield
    # After an error the connection is closed, which releases the lock.
    with connection.begin():
        connection.execute(text(f"SELECT RELEASE_LOCK({name})"), lock)


def _refuse_lossy_defaults(connection: Connection) -> None:
    """Check the defaults for new tables. Converting existing tables would be much more work."""
    database, letters, engine = connection.execute(_DEFAULTS).one()
    if letters != "utf8mb4":
        raise Misconfigured(
            f"The database's character set is {letters}, which cannot hold every name. Fix it "
            f"with: ALTER DATABASE `{database}` CHARACTER SET utf8mb4"
        )
    if engine != "InnoDB":
        raise Misconfigured(
            f"New tables would use the storage engine {engine}, which cannot roll back a "
            "transaction. Fix it with: SET GLOBAL default_storage_engine = InnoDB"
        )


def _refuse_lossy_tables(connection: Connection) -> None:
    """Check tables that another program may have copied here with other types.

    Their engines are checked by every connection (durability.py).
    """
    for table, column, kind in connection.execute(_LOSSY_COLUMNS):
        raise Misconfigured(
            f"Column {column!r} of table {table!r} is {kind}, which cannot store every name and "
            "time exactly. Restore the tables as `nbexchange upgrade-db` creates them (VARBINARY, "
            "DATETIME(6), and text in utf8mb4)."
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
    "empty": "The database has no tables yet. Create them with `nbexchange upgrade-db`.",
    "behind": "The database was made by an older version. Back it up, then run "
    "`nbexchange upgrade-db` (or start once with --upgrade-db).",
    "unknown": "The database has a schema that this version cannot use, perhaps from a newer one. "
    "Run the version that made it, or restore a backup.",
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
