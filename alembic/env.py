"""Alembic's environment.

The service passes its own connection. On the command line (`alembic revision`, `alembic check`),
NBEX_DB_URL names the database.
"""

import os
from typing import Any

from alembic import context
from alembic.ddl.mysql import MariaDBImpl, MySQLImpl
from sqlalchemy import Connection, exc, inspect

from nbexchange.database import Database
from nbexchange.models import Base

DONE_BEFORE = (1050, 1051, 1060, 1061, 1091)
"""Errors of a repeated statement: what it creates exists already, or what it drops is gone."""


class Resumable(MySQLImpl):
    """Continues a migration that was killed.

    MariaDB and MySQL commit each change of a table at once, so statements from before the kill must
    be skipped. This happens only if the revision table shows that the database belongs to
    nbexchange: tables of other programs in a new database are an error.
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
        # On SQLite too, because the service issues BEGIN itself: a killed migration leaves nothing.
        transactional_ddl=connection.dialect.name in ("sqlite", "postgresql"),
    )
    with context.begin_transaction():
        context.run_migrations()


connection = context.config.attributes.get("connection")
if connection is not None:
    migrate(connection)
else:
    database = Database(os.environ["NBEX_DB_URL"])
    with database.engine.begin() as new_connection:
        migrate(new_connection)
    database.close()
