"""The composition root: the application, its options and its subcommands."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import gc
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import URL, make_url
from tornado.log import access_log, gen_log
from tornado.web import Application as TornadoApplication
from tornado.web import RequestHandler
from traitlets import (
    Bool,
    Enum,
    Float,
    Integer,
    TraitError,
    Type,
    Unicode,
    default,
    observe,
)
from traitlets.config import Application, Configurable, catch_config_error

from nbexchange import __version__
from nbexchange.archive import ArchiveOptions
from nbexchange.commands.base import only_options, wrong_use
from nbexchange.commands.check import Check
from nbexchange.commands.demo import Demo
from nbexchange.commands.export import Export
from nbexchange.commands.gc import Gc
from nbexchange.commands.import_folder import ImportFolder
from nbexchange.commands.purge import Purge
from nbexchange.commands.upgrade_db import UpgradeDb
from nbexchange.database import Database
from nbexchange.database.options import DatabaseOptions
from nbexchange.errors import Misconfigured, NbExchangeError
from nbexchange.exchange.commitments import Commitments
from nbexchange.exchange.quotas import QuotaOptions
from nbexchange.exchange.upkeep.inventory import count_rows, owns_any
from nbexchange.handlers import machine_paths, rules
from nbexchange.handlers.auth.jupyterhub import JupyterHubUserHandler
from nbexchange.handlers.auth.token_file import TokenFileUserHandler
from nbexchange.handlers.auth.user_handler import BaseUserHandler
from nbexchange.handlers.base import BaseHandler, NothingHereHandler
from nbexchange.handlers.health import HealthzHandler, MetricsPageHandler, ReadyzHandler
from nbexchange.handlers.services import Services
from nbexchange.logs import FORMATTERS
from nbexchange.server import memory
from nbexchange.server.address import AddressOptions
from nbexchange.server.connections import LONGEST_READ, ConnectionOptions, Server
from nbexchange.server.metrics import Metrics, MetricsOptions
from nbexchange.server.rate_limits import RateLimiter, RateLimitOptions
from nbexchange.server.readiness import Readiness
from nbexchange.server.scheduled_erasure import ScheduledErasure
from nbexchange.storage import CHUNK, Storage
from nbexchange.storage.disk import may_be_absent
from nbexchange.storage.options import StorageOptions

IDLE_SECONDS = 75
"""How long a kept connection may be silent; a little more than what proxies wait."""

SWEEP_SECONDS = 3
"""How long the very end waits for what broken-off uploads leave."""

READ_SIZE = 64 * 1024
"""Bytes asked of a socket at a time."""


class ServiceOptions(
    AddressOptions,
    StorageOptions,
    DatabaseOptions,
    ArchiveOptions,
    QuotaOptions,
    RateLimitOptions,
    ConnectionOptions,
    MetricsOptions,
):
    """The options of the parts, each beside the part that it configures."""


class NbExchange(ServiceOptions, Application):
    """The exchange service. Without a subcommand it starts and serves until it is stopped."""

    name = "nbexchange"
    version = __version__
    description = __doc__ or ""
    examples = """
    nbexchange                                          # on port 9000, data in the home directory
    nbexchange --generate-config > nbexchange_config.py
    nbexchange --config-file=nbexchange_config.py
    nbexchange demo                                     # a whole course, with real nbgrader
    """

    # Classes whose options --generate-config and --help-all show, besides this one.
    classes = [TokenFileUserHandler, JupyterHubUserHandler]

    subcommands = {
        "upgrade-db": (UpgradeDb, "Bring the database's schema up to date."),
        "check": (Check, "Check that the stored file of every row exists and is intact."),
        "gc": (Gc, "Delete stored files that belong to nothing."),
        "export": (Export, "Copy courses into a folder in nbgrader's own layout."),
        "import-folder": (ImportFolder, "Import nbgrader's own exchange, or an export."),
        "purge": (Purge, "Erase a course, an assignment or a student's work, in two steps."),
        "demo": (Demo, "Take one course through the exchange, step by step."),
    }

    aliases: dict[Any, Any] = {
        "ip": "NbExchange.ip",
        "port": "NbExchange.port",
        "base-url": "NbExchange.base_url",
        "base-storage-location": "NbExchange.base_storage_location",
        "storage-url": "NbExchange.storage_url",
        "db-url": "NbExchange.db_url",
        "user-plugin-class": "NbExchange.user_plugin_class",
        ("f", "config-file"): "NbExchange.config_file",
        "log-level": "Application.log_level",
        "confirm-reset": "NbExchange.reset_code",
    }

    flags: dict[Any, Any] = {
        "debug": ({"NbExchange": {"debug": True}}, "Log more."),
        "debug-db": ({"NbExchange": {"debug_db": True}}, "Log every SQL statement."),
        "upgrade-db": ({"NbExchange": {"upgrade_db": True}}, "Bring the schema up to date first."),
        "reset-db": (
            {"NbExchange": {"reset_db": True}},
            "Erase every row first; see --help-all.",
        ),
        "generate-config": (
            {"NbExchange": {"generate_config": True}},
            "Print a configuration file with every option and its meaning.",
        ),
    }

    config_file = Unicode(
        "/etc/config/nbexchange_config.py",
        help="The configuration file. It may be absent only where this is the default.",
    ).tag(config=True)

    generate_config = Bool(
        False, help="Print a configuration file with every option, and leave."
    ).tag(config=True)

    @default("db_url")
    def _sqlite_file(self) -> str:
        file = Path(self.base_storage_location).absolute() / "nbexchange.sqlite"
        url = URL.create("sqlite", database=str(file))
        return os.environ.get("NBEX_DB_URL") or url.render_as_string()

    max_buffer_size = Integer(
        5253530000, help="The largest file that is taken, in bytes.", min=1
    ).tag(config=True)

    purge_grace = Float(
        14.0,
        min=0,
        max=3650,
        help="""
        Days during which an assignment that an instructor purged is hidden and can be restored, by
        an instructor of the course or with `nbexchange purge --restore`. Then the service erases
        it, within about ten minutes. Its bytes count for quotas until then.
        """,
    ).tag(config=True)

    user_plugin_class = Type(
        BaseUserHandler,
        klass=BaseUserHandler,
        help="""
        Who a request comes from: a subclass of
        nbexchange.handlers.auth.user_handler.BaseUserHandler, by name or, in a configuration
        file, as the class itself. The default refuses all requests.
        """,
    ).tag(config=True)

    debug = Bool(False, help="Log more.").tag(config=True)

    log_style = Enum(
        list(FORMATTERS),
        "plain",
        help="""
        How the log is written: `plain`, for people, with local time and tracebacks below; or
        `json`, for programs: one object a line, with time in UTC, and tracebacks in it.
        """,
    ).tag(config=True)

    @observe("log_style")
    def _restyle(self, change: Any) -> None:
        self._configure_logging()

    def get_default_logging_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_default_logging_config()
        formatter = FORMATTERS[self.log_style]
        config["formatters"]["console"]["class"] = f"{formatter.__module__}.{formatter.__name__}"
        return config

    def _log_level_default(self) -> int:
        return logging.INFO

    @default("log_format")
    def _with_the_time(self) -> str:
        return "%(asctime)s.%(msecs)03d %(levelname)s %(name)s: %(message)s"

    @catch_config_error
    def initialize(self, argv: list[str] | None = None) -> None:
        super().initialize(argv)
        if self.subapp is None:
            self.load_options(self.cli_config)

    def load_options(self, cli_config: Any) -> None:
        """Read the configuration file; what the command line says goes over it."""
        file = Path(self.config_file)
        if file.is_file():
            self.load_config_file(file.name, path=str(file.parent.absolute()))
            self.update_config(cli_config)
        elif self.config_file != type(self).config_file.default_value:
            raise Misconfigured(f"the configuration file {self.config_file} does not exist")
        if self.debug:
            self.log_level = logging.DEBUG

    def _gather_logs(self) -> None:
        """What libraries log goes where ours goes, and looks like it."""
        root = logging.getLogger()
        root.handlers, root.level = self.log.handlers, self.log.level
        self.log.propagate = False
        logging.getLogger("alembic").setLevel(max(self.log.level, logging.WARNING))
        # Below that, Tornado quotes headers that it cannot read, and one of them is the token.
        gen_log.setLevel(logging.WARNING)

    # -- the parts

    def make_database(self) -> Database:
        if "db_url" not in self._trait_values and not os.environ.get("NBEX_DB_URL"):
            self.make_data_directory()
        return super().make_database()

    def _disks(self, database: Database) -> list[Path]:
        """Where space has to stay free."""
        disks = [Path(self.base_storage_location).absolute()]
        if database.is_sqlite:
            disks.append(Path(database.engine.url.database or "").absolute().parent)
        return disks

    def refuse_absent_store(self, database: Database) -> None:
        """Raise Misconfigured where the database knows files, and the directory has not one.

        Before `make_storage`: a directory made where a disk should be mounted would take its place.
        """
        directory = Path(self.base_storage_location).absolute()
        if self.storage_url or not database.read_now(owns_any) or not may_be_absent(directory):
            return
        # Asked again, last: a purge may have erased all of them since.
        if known := database.read_now(count_rows):
            raise Misconfigured(
                f"the database knows {known:,} files, and there is not one in {directory}/blobs; "
                "is its disk mounted? Mount it, or correct base_storage_location. If the files "
                "are lost, docs/troubleshooting.md says how to go on"
            )

    def make_user_handler(self) -> BaseUserHandler:
        plugin: type[BaseUserHandler] = self.user_plugin_class
        try:
            if issubclass(plugin, Configurable):
                configurable: BaseUserHandler = plugin(parent=self)
                return configurable
            return plugin()
        except TraitError as error:
            raise Misconfigured(str(error)) from error

    def make_services(self, database: Database, storage: Storage) -> Services:
        """The parts that handlers use; the caller closes the database and the store."""
        user_handler = self.make_user_handler()
        user_handler.check_start()
        readiness = Readiness(database, storage, user_handler.find_problem)
        stopping = asyncio.Event()
        return Services(
            database=database,
            storage=storage,
            user_handler=user_handler,
            readiness=readiness,
            metrics=Metrics(database, storage, readiness, self.metrics_organisations),
            metrics_token=self.metrics_token,
            max_buffer_size=self.max_buffer_size,
            limits=self.archive_limits(),
            rate_limiter=RateLimiter(self.request_limits(is_sqlite=database.is_sqlite), stopping),
            quotas=self.make_quotas(self._disks(database)),
            commitments=Commitments(),
            purge_grace=datetime.timedelta(days=self.purge_grace),
            stopping=stopping,
        )

    def make_app(self, services: Services) -> TornadoApplication:
        return TornadoApplication(
            rules(self.base_url, services),
            default_handler_class=NothingHereHandler,
            default_handler_args={"services": services},
            log_function=_log_request,
        )

    # -- running

    def start(self) -> None:
        self._gather_logs()
        super().start()
        if self.subapp is not None:
            return
        with wrong_use():
            only_options(self)
        if self.generate_config:
            print(self.generate_config_file())  # noqa: T201 (its purpose)
            return
        asyncio.run(self.serve())

    async def serve(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        memory.return_large_buffers()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with self.running() as port:
            _keep_turns_short()
            self.log.info("nbexchange %s on port %s%s", __version__, port, self.base_url)
            self._welcome(port)
            await stop.wait()
            self.log.info("stopping")

    def _welcome(self, port: int) -> None:
        """What an administrator who has just started it wants to know."""
        host = self.ip if self.ip not in ("", "0.0.0.0", "::") else "127.0.0.1"  # noqa: S104
        shown = f"[{host}]" if ":" in host else host
        self.log.info("It answers at http://%s:%s%s", shown, port, self.base_url)
        self.log.info("Its data are in %s", self.shown_places())
        file = Path(self.config_file)
        self.log.info(
            "Its configuration file is %s%s",
            file.absolute(),
            "" if file.is_file() else ", which does not exist (--config-file names another)",
        )
        if self.user_plugin_class is BaseUserHandler:
            self.log.warning(
                "No user handler is configured, so nobody can sign in yet. Set "
                "c.NbExchange.user_plugin_class in the configuration file, for example to "
                "nbexchange.handlers.auth.token_file.TokenFileUserHandler (with "
                "c.TokenFileUserHandler.path) or "
                "nbexchange.handlers.auth.jupyterhub.JupyterHubUserHandler, and start again. "
                "`nbexchange demo` shows a whole course without any of that."
            )

    def shown_places(self) -> str:
        """Where files and rows are. The addresses of a store and a database may hold passwords."""
        directory = Path(self.base_storage_location).absolute()
        files = urlsplit(self.storage_url)
        store = f"{files.scheme}://{files.hostname}{files.path}" if self.storage_url else directory
        url = make_url(self.db_url)
        name = Path(url.database or "").absolute() if _is_sqlite(url) else url.database
        at = f" at {url.host}" if url.host else ""
        return f"{store}, and in the database {name}{at}"

    @contextlib.asynccontextmanager
    async def running(self) -> Any:
        """The service, listening; gives the port.

        At the end uploads that have begun get their answer, or `stop_grace` ends them. All else is
        broken off: it can be asked for again.
        """
        database = self.make_database()
        try:
            database.prepare(
                upgrade=self.upgrade_db, reset=self.reset_db, reset_code=self._given_reset_code()
            )
            self.refuse_absent_store(database)
            storage = self.make_storage()
            services = self.make_services(database, storage)
            server = Server(
                self.make_app(services),
                chunk_size=CHUNK,
                # Handlers check the length of a body and refuse with a reason; this sets no limit.
                max_body_size=2**62,
                max_buffer_size=16 * CHUNK,
                max_header_size=LONGEST_READ,
                idle_connection_timeout=IDLE_SECONDS,
            )
            hold_unknown = functools.partial(services.rate_limiter.hold, None)
            server.limit(
                self.connection_limits(),
                hold_unknown,
                services.metrics,
                machine_paths(self.base_url),
            )
            # Otherwise as large as `chunk_size`, and zeroed for every read from a socket.
            server.read_chunk_size = READ_SIZE
            sockets = self.listen()
            server.listen_on(sockets)
            erasure = ScheduledErasure(database, storage, services.quotas, services.under_way)
            by_itself = [
                asyncio.create_task(services.metrics.watch_the_loop()),
                asyncio.create_task(erasure.run()),
                asyncio.create_task(memory.trim_regularly()),
            ]
            try:
                yield sockets[0].getsockname()[1]
            finally:
                for task in by_itself:
                    task.cancel()
                services.stopping.set()
                await asyncio.sleep(self.stop_delay)
                server.stop()
                await _finish(services.under_way, self.stop_grace)
                await server.close_all_connections()
                await _finish(services.under_way, SWEEP_SECONDS)
                storage.close()
        finally:
            database.close()

    def _given_reset_code(self) -> str:
        """Raises Misconfigured for one that the command line does not repeat."""
        if self.reset_code and "reset_code" not in self.cli_config.NbExchange:
            raise Misconfigured(
                "Nothing was erased: c.NbExchange.reset_code does not count in a configuration "
                "file. Remove it there, and write --confirm-reset=CODE on the command line."
            )
        if self.reset_code and not self.reset_db:
            raise Misconfigured(
                "Nothing was erased: --confirm-reset belongs to --reset-db. Write both, or none."
            )
        return self.reset_code


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


async def _finish(under_way: set[asyncio.Future[Any]], seconds: float) -> None:
    """Wait for uploads that arrive, are being stored, or whose leavings are being swept up."""
    end = time.monotonic() + seconds
    # More may begin meanwhile, on connections that were kept.
    while under_way and time.monotonic() < end:
        await asyncio.wait(under_way, timeout=end - time.monotonic())


def _keep_turns_short() -> None:
    """Keep one long list or collection of garbage from holding up the event loop.

    Threads swap ten times as often. The collector leaves alone what lives as long as the process:
    a full collection stopped all requests for 50 ms, and takes 7. Collecting less often is no help,
    because then there is more to collect at a time: that made it 100.
    """
    sys.setswitchinterval(0.0005)
    gc.collect()
    gc.freeze()


def _log_request(handler: RequestHandler) -> None:
    """One line a request. Probes and scrapes, which come all the time, only where they fail."""
    assert isinstance(handler, BaseHandler)
    if handler.told:
        return
    is_usual = (
        isinstance(handler, HealthzHandler | ReadyzHandler | MetricsPageHandler)
        and handler.get_status() == 200
    )
    access_log.log(
        logging.DEBUG if is_usual else logging.INFO, "request", extra={"fields": handler.facts()}
    )


def main(argv: list[str] | None = None) -> None:
    """The program `nbexchange`."""
    app = NbExchange()
    try:
        app.initialize(argv)
        app.start()
    except NbExchangeError as error:
        sys.exit(f"nbexchange: {error}")
