"""Refuse a database server whose settings can lose committed data. The settings are not changed.

Every new connection is checked, because a server may be restarted with other settings. readyz
checks again, because many settings can change while the server runs. A setting that the server
does not have is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nbexchange.errors import Misconfigured


@dataclass(frozen=True)
class Setting:
    """A server's setting, and the values with which committed data is safe."""

    name: str
    allowed: str
    """A regular expression for the whole value; case is ignored."""
    reason: str
    """What happens with any other value."""
    fix: str
    """May name the {role} and the {database} of the connection."""
    only_with: str | None = None
    """Another setting. If that one is off or empty, this one does not matter."""
    tears_pages: bool = False
    """Harmless if the disks write a page completely or not at all."""

    def is_safe(self, values: Mapping[str, str | None]) -> bool:
        value = values.get(self.name)
        if value is None or (self.only_with and not _is_on(values.get(self.only_with))):
            return True
        return re.fullmatch(self.allowed, value, re.IGNORECASE) is not None


def _is_on(value: str | None) -> bool:
    return (value or "off").lower() not in ("off", "0")


def _set_global(name: str, value: str) -> str:
    return (
        f"As the server's administrator, run `SET GLOBAL {name} = {value}`, and write {name} into "
        "the server's configuration so that it stays"
    )


def _configure(line: str) -> str:
    return f"Write `{line}` into the [mysqld] section of its configuration and restart the server"


def _alter_system(name: str, value: str) -> str:
    return (
        "As the server's administrator, run "
        f"`ALTER SYSTEM SET {name} = {value}; SELECT pg_reload_conf()`"
    )


MYSQL = (
    Setting(
        "sql_mode",
        ".*STRICT_(TRANS|ALL)_TABLES.*",
        "without strict mode the server silently cuts values that are too long",
        _set_global("sql_mode", "CONCAT(@@GLOBAL.sql_mode, ',STRICT_TRANS_TABLES')"),
    ),
    Setting(
        "innodb_flush_log_at_trx_commit",
        "[13]",  # 3 is MariaDB's: it syncs twice for each commit
        "committed data is lost when the machine stops",
        _set_global("innodb_flush_log_at_trx_commit", "1"),
    ),
    Setting(
        "sync_binlog",
        "1",
        # InnoDB rolls back transactions that its own log has prepared and the binary log lacks.
        "with log_bin, committed data is rolled back after a crash that lost the unsynced end "
        "of the binary log",
        _set_global("sync_binlog", "1"),
        only_with="log_bin",
    ),
    Setting(
        "innodb_flush_method",
        # O_DIRECT_NO_FSYNC may lose new blocks of a growing file and the content of the disk's
        # cache. A connection cannot find out whether this disk is safe with it.
        "(?!nosync|littlesync|O_DIRECT_NO_FSYNC).*",
        "the server does not sync its files, so a crash of the machine damages tables",
        _configure("innodb_flush_method = O_DIRECT"),
    ),
    Setting(
        "innodb_doublewrite",
        "(?!fast).*",
        "the server does not sync its files, so a crash of the machine damages tables",
        _configure("innodb_doublewrite = ON"),
    ),
    Setting(
        "innodb_doublewrite",
        "ON|1|TRUE|DETECT_AND_RECOVER|fast",
        "a page that is half written when the machine stops cannot be restored",
        _configure("innodb_doublewrite = ON"),
        tears_pages=True,
    ),
    Setting(
        "Innodb_redo_log_enabled",  # a status variable of MySQL 8
        "ON",
        "without a redo log a crash loses the whole database",
        "As the server's administrator, run `ALTER INSTANCE ENABLE INNODB REDO_LOG`",
    ),
)

POSTGRESQL = (
    Setting(
        "synchronous_commit",
        "(?!off).*",
        "committed data is lost when the machine stops",
        # This overrides the settings of the role, the database and the server.
        "Run `ALTER ROLE {role} IN DATABASE {database} SET synchronous_commit = on`",
    ),
    Setting(
        "synchronous_commit",
        # remote_write loses nothing unless both machines stop at once.
        "(?!local).*",
        "with synchronous_standby_names, committed data is lost when a standby takes over",
        "Run `ALTER ROLE {role} IN DATABASE {database} SET synchronous_commit = on`",
        only_with="synchronous_standby_names",
    ),
    Setting(
        "fsync",
        "on",
        "committed data is not on the disk, and a crash of the machine damages tables",
        _alter_system("fsync", "on"),
    ),
    Setting(
        "full_page_writes",
        "on",
        "a page that is half written when the machine stops cannot be restored",
        _alter_system("full_page_writes", "on"),
        tears_pages=True,
    ),
    Setting(
        "data_sync_retry",
        "off",
        "a failed write to the disk is treated as successful",
        "As the server's administrator, run `ALTER SYSTEM SET data_sync_retry = off`, and restart "
        "the server",
    ),
    Setting(
        "zero_damaged_pages",
        "off",
        "the rows of a damaged page are thrown away without an error",
        _alter_system("zero_damaged_pages", "off"),
    ),
    Setting(
        "ignore_checksum_failure",
        "off",
        "the rows of a damaged page are read as if they were intact",
        _alter_system("ignore_checksum_failure", "off"),
    ),
    Setting(
        "session_replication_role",
        "(?!replica).*",
        "rows may refer to rows that do not exist",
        "Run `ALTER ROLE {role} IN DATABASE {database} SET session_replication_role = origin`",
    ),
    Setting(
        "server_encoding",
        "UTF8",
        "the encoding cannot hold every name",
        "Create another database: run `CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0`",
    ),
)


def check_durability(dialect: str, connection: Any, *, writes_whole_pages: bool) -> None:
    """Raises Misconfigured for a server that may lose coursework. Takes the driver's connection.

    Does nothing for SQLite: engines.py opens its file with safe settings.
    """
    if dialect in ("mysql", "mariadb"):
        _check_mysql(connection, writes_whole_pages=writes_whole_pages)
    elif dialect == "postgresql":
        _check_postgresql(connection, writes_whole_pages=writes_whole_pages)


def _check_mysql(connection: Any, *, writes_whole_pages: bool) -> None:
    names = _names(MYSQL)
    with connection.cursor() as cursor:
        values: dict[str, str | None] = {}
        for kind in ("SESSION VARIABLES", "GLOBAL STATUS"):
            # Unlike @@name, SHOW leaves out what this server does not have.
            cursor.execute(f"SHOW {kind} WHERE Variable_name IN %s", [names])
            values |= dict(cursor.fetchall())
        _refuse_lossy(MYSQL, values, writes_whole_pages=writes_whole_pages)
        cursor.execute(_OTHER_ENGINES)
        table = cursor.fetchone()
    connection.rollback()
    if table is not None:
        raise Misconfigured(
            f"Table {table[0]!r} uses the storage engine {table[1]}, which may lose rows in a "
            f"crash and cannot roll back a change. Run `ALTER TABLE `{table[0]}` ENGINE = InnoDB`."
        )


def _check_postgresql(connection: Any, *, writes_whole_pages: bool) -> None:
    names = _names(POSTGRESQL)
    columns = ", ".join(f"current_setting('{name}', true)" for name in names)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT quote_ident(session_user), quote_ident(current_database()),"
            f" ({_UNLOGGED}), {columns}"
        )
        role, database, table, *settings = cursor.fetchone()
    connection.rollback()
    values = dict(zip(names, settings, strict=True))
    _refuse_lossy(
        POSTGRESQL, values, writes_whole_pages=writes_whole_pages, role=role, database=database
    )
    if table is not None:
        raise Misconfigured(
            f"Table {table} is UNLOGGED, so a crash of the server empties it. "
            f"Run `ALTER TABLE {table} SET LOGGED`."
        )


def _names(settings: Sequence[Setting]) -> list[str]:
    others = [setting.only_with for setting in settings if setting.only_with]
    return list(dict.fromkeys([*(setting.name for setting in settings), *others]))


def _refuse_lossy(
    settings: Sequence[Setting],
    values: Mapping[str, str | None],
    *,
    writes_whole_pages: bool,
    **connection: str,
) -> None:
    for setting in settings:
        if not (setting.is_safe(values) or (setting.tears_pages and writes_whole_pages)):
            raise Misconfigured(
                "The database server may lose coursework: "
                f"{setting.name} is {values[setting.name] or 'empty'}, and {setting.reason}. "
                f"{setting.fix.format_map(connection)}."
            )


_OTHER_ENGINES = (
    "SELECT table_name, engine FROM information_schema.tables WHERE table_schema = DATABASE()"
    " AND table_type = 'BASE TABLE' AND engine <> 'InnoDB' LIMIT 1"
)

# A table can become LOGGED only after the tables that it refers to.
_UNLOGGED = (
    "SELECT min(quote_ident(t.relname)) FROM pg_class t"
    " JOIN pg_namespace n ON n.oid = t.relnamespace AND n.nspname = current_schema()"
    " WHERE t.relkind = 'r' AND t.relpersistence = 'u' AND NOT EXISTS ("
    "SELECT FROM pg_constraint k JOIN pg_class o ON o.oid = k.confrelid"
    " WHERE k.contype = 'f' AND k.conrelid = t.oid AND o.oid <> t.oid"
    " AND o.relpersistence = 'u')"
)
