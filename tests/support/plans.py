"""What a database says that it will do for a statement."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, Engine, event

Statement = tuple[str, Any]
"""SQL and its parameters, as the driver gets them."""


@contextlib.contextmanager
def statements_of(engine: Engine) -> Iterator[list[Statement]]:
    """All that are executed meanwhile, and have a plan."""
    seen: list[Statement] = []

    def see(conn: Any, cursor: Any, sql: str, parameters: Any, context: Any, many: bool) -> None:
        if sql.startswith(("SELECT", "INSERT", "UPDATE", "DELETE")):
            seen.append((sql, parameters[0] if many else parameters))

    event.listen(engine, "before_cursor_execute", see)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", see)


def explain(connection: Connection, statement: Statement) -> list[Any]:
    """The plan: lines of SQLite's, or one tree of a server's."""
    words, read = _EXPLAIN[connection.dialect.name]
    sql, parameters = statement
    return [read(row) for row in connection.exec_driver_sql(f"{words} {sql}", parameters)]


_EXPLAIN: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "sqlite": ("EXPLAIN QUERY PLAN", lambda row: row.detail),
    "postgresql": ("EXPLAIN (FORMAT JSON)", lambda row: row[0]),
    "mysql": ("EXPLAIN FORMAT=JSON", lambda row: json.loads(row[0])),
    "mariadb": ("EXPLAIN FORMAT=JSON", lambda row: json.loads(row[0])),
}


def tables_read_whole(plan: list[Any]) -> set[str]:
    """Tables, or indexes of them, that are read from their beginning."""
    return {re.sub(r"_\d+$", "", name) for part in plan for name in _whole(part)}


def _whole(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield from re.findall(r"^SCAN (\w+)", part)
    elif isinstance(part, list):
        for item in part:
            yield from _whole(item)
    elif isinstance(part, dict):
        if part.get("access_type") in ("ALL", "index"):  # MariaDB and MySQL
            yield part["table_name"]
        if "Relation Name" in part and "Index Cond" not in part and not _by_bitmap(part):
            yield part["Relation Name"]  # PostgreSQL
        for item in part.values():
            if isinstance(item, list | dict):
                yield from _whole(item)


def _by_bitmap(part: dict[str, Any]) -> bool:
    return part["Node Type"] in ("Bitmap Heap Scan", "ModifyTable")
