"""Options about the database."""

from __future__ import annotations

from traitlets import Bool, HasTraits, Unicode

from nbexchange.database import Database
from nbexchange.traits import SecretDict


class DatabaseOptions(HasTraits):
    db_url = Unicode(
        help="""
        The database, as a SQLAlchemy URL. Default: $NBEX_DB_URL, else an SQLite file in
        base_storage_location. A database in memory is refused.
        """,
    ).tag(config=True)

    db_kwargs = SecretDict(help="More arguments for sqlalchemy.create_engine.").tag(config=True)

    db_writes_whole_pages = Bool(
        False,
        help="""
        Say True if the disks of the database server write each of its pages whole or not at all
        (ZFS with a fitting recordsize, Amazon RDS Optimized Writes, Aurora). Only there
        innodb_doublewrite and PostgreSQL's full_page_writes may be off; the service cannot check
        the disks, and refuses to start otherwise.
        """,
    ).tag(config=True)

    debug_db = Bool(False, help="Log every SQL statement.").tag(config=True)

    upgrade_db = Bool(False, help="Bring the database's schema up to date before starting.").tag(
        config=True
    )

    reset_db = Bool(
        False,
        help="""
        Erase every row before starting. The files stay until `nbexchange gc`. An empty database
        is left as it is. Any other one is only erased with --confirm-reset=CODE on the command
        line, while no other process uses it; without the code the service says what would be lost,
        gives the code, and does not start.
        """,
    ).tag(config=True)

    reset_code = Unicode(
        help="""
        For the command line only: the code that --reset-db gave for the rows that are there now.
        """,
    ).tag(config=True)

    def make_database(self) -> Database:
        options = dict(self.db_kwargs)
        return Database(
            self.db_url,
            echo=self.debug_db,
            writes_whole_pages=self.db_writes_whole_pages,
            **options,
        )
