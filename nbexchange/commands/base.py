"""The base classes of subcommands: the options and the parts of the service."""

from __future__ import annotations

import contextlib
import os
import pwd
import sys
from collections.abc import Iterator
from typing import Any, ClassVar, Protocol

from traitlets import Unicode
from traitlets.config import Application, Config, catch_config_error

from nbexchange.archive import ArchiveLimits
from nbexchange.database import Database
from nbexchange.errors import Malformed, NotFound, StoreFull
from nbexchange.storage import Storage
from nbexchange.traits import OrganisationNumber

WRONG_USE = 2
"""The exit status if the arguments are invalid or name something that does not exist."""


class Service(Protocol):
    """The part of the application that subcommands use."""

    upgrade_db: bool
    max_buffer_size: int
    max_entries: int
    max_expanded_size: int
    max_ratio: int
    ratio_floor: int

    def update_config(self, config: Config) -> None: ...

    def load_options(self, cli_config: Config) -> None: ...

    def make_database(self) -> Database: ...

    def refuse_absent_store(self, database: Database) -> None: ...

    def make_storage(self) -> Storage: ...


class Command(Application):
    """A subcommand. It accepts the service's options in its file and on the command line."""

    aliases: dict[Any, Any] = {
        ("f", "config-file"): "NbExchange.config_file",
        "base-storage-location": "NbExchange.base_storage_location",
        "storage-url": "NbExchange.storage_url",
        "db-url": "NbExchange.db_url",
        "log-level": "Application.log_level",
    }
    flags: dict[Any, Any] = {}

    takes_words: ClassVar[bool] = False
    """Whether the command accepts positional arguments."""

    @property
    def service(self) -> Service:
        assert self.parent is not None
        service: Service = self.parent
        return service

    @property
    def limits(self) -> ArchiveLimits:
        """The limits for archives."""
        return ArchiveLimits(
            entries=self.service.max_entries,
            expanded_size=self.service.max_expanded_size,
            ratio=self.service.max_ratio,
            ratio_floor=self.service.ratio_floor,
        )

    @catch_config_error
    def initialize(self, argv: list[str] | None = None) -> None:
        assert self.parent is not None
        self.classes = [type(self), type(self.parent)]
        super().initialize(argv)
        self.service.update_config(self.config)
        self.service.load_options(self.cli_config)

    def start(self) -> None:
        super().start()
        with wrong_use():
            if not self.takes_words:
                only_options(self)
            self.run()

    def run(self) -> Any:
        raise NotImplementedError

    @contextlib.contextmanager
    def parts(self) -> Iterator[tuple[Database, Storage]]:
        """The service's database and store, ready for use; closed at the end."""
        with contextlib.closing(self.service.make_database()) as database:
            # Never creates a database: a wrong address would look like an empty service.
            database.prepare(make=False)
            self.service.refuse_absent_store(database)
            database.disable_timeouts()
            with contextlib.closing(self.service.make_storage()) as storage:
                yield database, storage


class CourseCommand(Command):
    """A subcommand about one organisation, or one course of it."""

    aliases: dict[Any, Any] = {
        **Command.aliases,
        "org": "CourseCommand.org_id",
        "course": "CourseCommand.course_id",
    }

    org_id = OrganisationNumber(help="The organisation.").tag(config=True)
    course_id = Unicode(None, allow_none=True, help="The course; all if omitted.").tag(config=True)


def only_options(app: Application) -> None:
    """Refuse positional arguments. Most often one is a space in place of =."""
    if app.extra_args:
        raise Malformed(
            f"Unexpected argument {app.extra_args[0]!r}. Options are written --option=value; see "
            "--help."
        )


@contextlib.contextmanager
def wrong_use() -> Iterator[None]:
    """For invalid arguments, print the reason and exit with status WRONG_USE."""
    try:
        yield
    except (Malformed, NotFound) as error:
        print(f"nbexchange: {error}", file=sys.stderr)
        sys.exit(WRONG_USE)


async def refuse_absence(storage: Storage) -> None:
    """Raise Unavailable if the whole store is unavailable, and not just one file unreadable."""
    with contextlib.suppress(StoreFull):
        await storage.check()


def operator() -> str:
    """The name of the operating system's user, for the record of a purge."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may run as a user that its image does not have
        return f"uid {os.getuid()}"
