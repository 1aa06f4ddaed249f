"""How Alembic finds the tables.

The service hands over its own connection. On the command line (`alembic revision`, `alembic
check`) the database is named by NBEX_DB_URL.
"""

import os
from typing import Any

from alembic import context
from alembic.ddl.mysql import MariaDBImpl, MySQLImpl
from sqlalchemy import Connection, exc, inspect

from nbexchange.database import Database
from nbexchange.models import Base

DONE_BEFORE = (1050, 1051, 1060, 1061, 1091)
"""A table that is there or is gone already, a column, an index, something to drop."""


class Resumable(MySQLImpl):
    """Goes on with a migration that was killed.

    MariaDB and MySQL keep each change of a table at once, so the statements before the kill have
    to be passed over. Only where the table of revisions tells that this is a database of ours:
    tables of others in a new one are an error.
    """

    __dialect__ = "mysql"

    def _exec(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super()._exec(*args, **kwargs)
        except exc.DBAPIError as error:
            if error.orig.args[0] in DONE_BEFORE and self.connection.info["nbexchange_resumes"]:
                return None
            raise


class ResumableMariaDB(Resumable, MariaDBImpl):
    __dialect__ = "mariadb"


def migrate(connection: Connection) -> None:
    connection.info["nbexchange_resumes"] = inspect(connection).has_table("alembic_version")
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_type=True,
        render_as_batch=connection.dialect.name == "sqlite",
        # SQLite can, as we say BEGIN ourselves; a migration that is killed leaves nothing.
        transactional_ddl=connection.dialect.name in ("sqlite", "postgresql"),
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    database = Database(os.environ["NBEX_DB_URL"])
    with database.engine.begin() as own:
        migrate(own)
    database.close()
