"""How Alembic finds the tables.

The service hands over its own connection. On the command line (`alembic revision`, `alembic
check`) the database is named by NBEX_DB_URL.
"""

import os

from alembic import context
from sqlalchemy import Connection

from nbexchange.database import Database
from nbexchange.models import Base


def migrate(connection: Connection) -> None:
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
