"""nbexchange upgrade-db"""

from __future__ import annotations

from nbexchange.commands.base import Command


class UpgradeDb(Command):
    """Bring the database's schema up to date. Back the database up before that."""

    name = "nbexchange-upgrade-db"
    description = __doc__ or ""

    def run(self) -> None:
        database = self.service.make_database()
        try:
            before = database.schema.state()
            database.schema.upgrade()
            print(f"The schema was {before}. It is {database.schema.state()} now.")
        finally:
            database.close()
