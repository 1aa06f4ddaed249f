"""What subcommands share: the options of the service, and its parts."""

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
"""The exit status when the words of the command make no sense, or name what is not there."""


class Service(Protocol):
    """What a subcommand needs of the application that it belongs to."""

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
    """A subcommand: takes the service's options, from its file and from the command line."""

    aliases: dict[Any, Any] = {
        ("f", "config-file"): "NbExchange.config_file",
        "base-storage-location": "NbExchange.base_storage_location",
        "storage-url": "NbExchange.storage_url",
        "db-url": "NbExchange.db_url",
        "log-level": "Application.log_level",
    }
    flags: dict[Any, Any] = {}

    takes_words: ClassVar[bool] = False
    """Whether words that are no options mean something."""

    @property
    def service(self) -> Service:
        assert self.parent is not None
        service: Service = self.parent
        return service

    @property
    def limits(self) -> ArchiveLimits:
        """What archives may ask of the service."""
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
        """The service's database and store, ready to be used, and closed in the end."""
        with contextlib.closing(self.service.make_database()) as database:
            # Never on a new one: an address that is wrong would look like an empty service.
            database.prepare(make=False)
            self.service.refuse_absent_store(database)
            database.disable_timeouts()
            with contextlib.closing(self.service.make_storage()) as storage:
                yield database, storage


class CourseCommand(Command):
    """A subcommand about one organisation, and perhaps one course of it."""

    aliases: dict[Any, Any] = {
        **Command.aliases,
        "org": "CourseCommand.org_id",
        "course": "CourseCommand.course_id",
    }

    org_id = OrganisationNumber(help="The organisation.").tag(config=True)
    course_id = Unicode(None, allow_none=True, help="The course; all if left out.").tag(config=True)


def only_options(app: Application) -> None:
    """Refuse words that are no options: most often a space where = should be."""
    if app.extra_args:
        raise Malformed(f"{app.extra_args[0]!r} is no option; write --option=value, or see --help")


@contextlib.contextmanager
def wrong_use() -> Iterator[None]:
    """End with the exit status for it, and say why."""
    try:
        yield
    except (Malformed, NotFound) as error:
        print(f"nbexchange: {error}", file=sys.stderr)
        sys.exit(WRONG_USE)


async def refuse_absence(storage: Storage) -> None:
    """Raise Unavailable if not one file cannot be read, but the whole store is away."""
    with contextlib.suppress(StoreFull):
        await storage.check()


def operator() -> str:
    """The operating system's user, as the record of what was done names him."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may run as somebody whom its image does not know
        return f"uid {os.getuid()}"
