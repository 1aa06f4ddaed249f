"""What subcommands share: the options of the service, and its parts."""

from __future__ import annotations

from typing import Any, Protocol

from traitlets.config import Application, Config, catch_config_error

from nbexchange.database import Database
from nbexchange.storage import Storage


class Service(Protocol):
    """What a subcommand needs of the application that it belongs to."""

    upgrade_db: bool

    def update_config(self, config: Config) -> None: ...

    def load_options(self, cli_config: Config) -> None: ...

    def make_database(self) -> Database: ...

    def make_storage(self) -> Storage: ...


class Command(Application):
    """A subcommand: takes the service's options, from its file and from the command line."""

    aliases: dict[Any, Any] = {
        ("f", "config-file"): "NbExchange.config_file",
        "base-storage-location": "NbExchange.base_storage_location",
        "db-url": "NbExchange.db_url",
        "log-level": "Application.log_level",
    }
    flags: dict[Any, Any] = {}

    @property
    def service(self) -> Service:
        assert self.parent is not None
        service: Service = self.parent
        return service

    @catch_config_error
    def initialize(self, argv: list[str] | None = None) -> None:
        assert self.parent is not None
        self.classes = [type(self.parent)]
        super().initialize(argv)
        self.service.update_config(self.config)
        self.service.load_options(self.cli_config)

    def start(self) -> None:
        super().start()
        self.run()

    def run(self) -> Any:
        raise NotImplementedError
