"""Options of the database."""

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

    db_kwargs = SecretDict(help="Additional arguments of sqlalchemy.create_engine.").tag(
        config=True
    )

    db_writes_whole_pages = Bool(
        False,
        help="""
        Set this to True if the disks of the database server write each of its pages completely or
        not at all (ZFS with a matching recordsize, Amazon RDS Optimized Writes, Aurora). Only then
        may innodb_doublewrite and PostgreSQL's full_page_writes be off. Otherwise the service
        refuses to start with them off. It cannot check the disks itself.
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
        stays as it is. Any other one is erased only with --confirm-reset=CODE on the command line,
        while no other process uses it. Without the code the service prints what would be lost and
        the code, and does not start.
        """,
    ).tag(config=True)

    reset_code = Unicode(
        help="""
        For the command line only: the code that --reset-db printed for the current rows.
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
