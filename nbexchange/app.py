"""The composition root: the application, its options and its subcommands."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import time
import weakref
from pathlib import Path
from typing import Any, Never

from sqlalchemy import URL
from tornado.httpserver import HTTPServer
from tornado.log import access_log, gen_log
from tornado.netutil import bind_sockets
from tornado.web import Application as TornadoApplication
from tornado.web import RequestHandler
from traitlets import Bool, Dict, Float, Int, Integer, TraitError, Type, Unicode, default, validate
from traitlets.config import Application, Configurable, catch_config_error

from nbexchange import __version__
from nbexchange.archive import Limits
from nbexchange.commands.check import Check
from nbexchange.commands.demo import Demo
from nbexchange.commands.export import Export
from nbexchange.commands.gc import Gc
from nbexchange.commands.import_folder import ImportFolder
from nbexchange.commands.purge import Purge
from nbexchange.commands.upgrade_db import UpgradeDb
from nbexchange.database import Database
from nbexchange.errors import Misconfigured, NbExchangeError
from nbexchange.handlers import rules
from nbexchange.handlers.auth.token_file import TokenFileUserHandler
from nbexchange.handlers.auth.user_handler import BaseUserHandler
from nbexchange.handlers.base import BaseHandler, NothingHere, Services
from nbexchange.handlers.metrics import Metrics
from nbexchange.logs import OneLineFormatter
from nbexchange.storage import CHUNK, Storage
from nbexchange.storage.disk import DiskStorage

IDLE_SECONDS = 75
"""How long a kept connection may be silent; a little more than what proxies wait."""

SWEEP_SECONDS = 3
"""How long the very end waits for what broken-off uploads leave."""

READ_SIZE = 64 * 1024
"""Bytes asked of a socket at a time."""


class SecretDict(Dict):
    """A mapping whose values are not quoted when it is none."""

    def error(self, obj: Any, value: Any, error: Any = None, info: Any = None) -> Never:
        raise TraitError(f"{self.name} has to be a mapping: {{'name': value, ...}}")


class NbExchange(Application):
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

    # What --generate-config and --help-all tell of, besides this class.
    classes = [TokenFileUserHandler]

    subcommands = {
        "upgrade-db": (UpgradeDb, "Bring the database's schema up to date."),
        "check": (Check, "Find out whether every row has its bytes, unharmed."),
        "gc": (Gc, "Sweep up bytes that belong to nothing."),
        "export": (Export, "Copy courses into a folder as nbgrader's own exchange has it."),
        "import-folder": (ImportFolder, "Take over what lies in nbgrader's own exchange."),
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
    }

    flags: dict[Any, Any] = {
        "debug": ({"NbExchange": {"debug": True}}, "Log more."),
        "debug-db": ({"NbExchange": {"debug_db": True}}, "Log every SQL statement."),
        "upgrade-db": ({"NbExchange": {"upgrade_db": True}}, "Bring the schema up to date first."),
        "reset-db": ({"NbExchange": {"reset_db": True}}, "Throw away every row first."),
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

    base_url = Unicode(
        "/services/nbexchange/",
        help="The path below which everything is served; a slash at both ends is added.",
    ).tag(config=True)

    @validate("base_url")
    def _slashes(self, proposal: Any) -> str:
        inner = proposal["value"].strip("/")
        return f"/{inner}/" if inner else "/"

    ip = Unicode("0.0.0.0", help="The address to listen on; empty for all, also IPv6.").tag(  # noqa: S104 (a service)
        config=True
    )

    port = Int(9000, help="The port to listen on; 0 for any that is free.").tag(config=True)

    base_storage_location = Unicode(
        help="""
        The data directory: the store of files unless storage_url says otherwise, and the database
        unless db_url does.
        Default: $NBEXCHANGE_DATA, else nbexchange in $XDG_DATA_HOME, else
        ~/.local/share/nbexchange. Back it up.
        """,
    ).tag(config=True)

    @default("base_storage_location")
    def _data_directory(self) -> str:
        data_home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
        return os.environ.get("NBEXCHANGE_DATA") or str(Path(data_home) / "nbexchange")

    storage_url = Unicode(
        help="""
        The object store that holds the files: s3://bucket/prefix, gs://bucket/prefix or
        az://container/prefix. The bucket has to exist. Needs the extra `objects`.
        Default: $NBEX_STORAGE_URL, else the files are in base_storage_location. Large uploads
        gather in base_storage_location/spool before they are sent.
        """,
    ).tag(config=True)

    @default("storage_url")
    def _storage_url(self) -> str:
        return os.environ.get("NBEX_STORAGE_URL", "")

    storage_options = SecretDict(
        help="""
        How to reach the object store of storage_url, with the names that obstore gives them:
        {"endpoint": "https://s3.example.org", "region": "...", "access_key_id": "...",
        "secret_access_key": "..."} for S3, and "client_options" for its HTTP client. What is not
        said here is taken from the environment, as usual (AWS_ACCESS_KEY_ID, ...), or from the
        role of the machine.
        """,
    ).tag(config=True)

    db_url = Unicode(
        help="""
        The database, as a SQLAlchemy URL. Default: $NBEX_DB_URL, else an SQLite file in
        base_storage_location. A database in memory is refused.
        """,
    ).tag(config=True)

    @default("db_url")
    def _sqlite_file(self) -> str:
        file = Path(self.base_storage_location).absolute() / "nbexchange.sqlite"
        url = URL.create("sqlite", database=str(file))
        return os.environ.get("NBEX_DB_URL") or url.render_as_string()

    db_kwargs = SecretDict(help="More arguments for sqlalchemy.create_engine.").tag(config=True)

    debug_db = Bool(False, help="Log every SQL statement.").tag(config=True)

    upgrade_db = Bool(False, help="Bring the database's schema up to date before starting.").tag(
        config=True
    )

    reset_db = Bool(
        False,
        help="Throw away every row before starting. The files stay until `nbexchange gc`.",
    ).tag(config=True)

    max_buffer_size = Integer(
        5253530000, help="The largest file that is taken, in bytes.", min=1
    ).tag(config=True)

    max_entries = Integer(
        Limits().entries, help="The most files and folders in one archive.", min=1
    ).tag(config=True)

    max_expanded_size = Integer(
        Limits().expanded_size, help="The most that one archive may unpack to, in bytes.", min=1
    ).tag(config=True)

    max_ratio = Integer(
        Limits().ratio, help="The most bytes that one compressed byte may become.", min=1
    ).tag(config=True)

    user_plugin_class = Type(
        BaseUserHandler,
        klass=BaseUserHandler,
        help="""
        Who a request comes from: a subclass of
        nbexchange.handlers.auth.user_handler.BaseUserHandler, by name or, in a configuration
        file, as the class itself. The default lets nobody in.
        """,
    ).tag(config=True)

    stop_delay = Float(
        0,
        min=0,
        help="""
        Seconds after SIGTERM during which all goes on, but readyz says 503, so that requests are
        sent to other replicas. With several: as long as a load balancer needs to notice.
        """,
    ).tag(config=True)

    stop_grace = Float(
        20,
        min=0,
        help="""
        Seconds that the end then waits for uploads that are under way; all else is broken off.
        Kubernetes kills after terminationGracePeriodSeconds (30), which has to be five seconds
        longer than stop_delay and this together.
        """,
    ).tag(config=True)

    debug = Bool(False, help="Log more.").tag(config=True)

    _log_formatter_cls = OneLineFormatter

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
            raise Misconfigured(f"there is no configuration file {self.config_file}")
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
            self._make_data_directory()
        options = dict(self.db_kwargs)
        return Database(self.db_url, echo=self.debug_db, **options)

    def make_storage(self) -> Storage:
        self._make_data_directory()
        directory = Path(self.base_storage_location).absolute()
        if not self.storage_url:
            return DiskStorage(directory)
        try:
            from nbexchange.storage.objects import ObjectStorage
        except ImportError as error:
            raise Misconfigured(
                "storage_url needs the library obstore: pip install 'nbexchange[objects]'"
            ) from error
        return ObjectStorage.from_url(self.storage_url, self.storage_options, directory / "spool")

    def _make_data_directory(self) -> None:
        directory = Path(self.base_storage_location)
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise Misconfigured(
                f"cannot make the data directory {directory}: {error.strerror}; let "
                "base_storage_location name a directory that the service may write"
            ) from error

    def make_user_handler(self) -> BaseUserHandler:
        plugin: type[BaseUserHandler] = self.user_plugin_class
        if issubclass(plugin, Configurable):
            configurable: BaseUserHandler = plugin(parent=self)
            return configurable
        return plugin()

    def make_app(self, database: Database, storage: Storage) -> TornadoApplication:
        """The web application over parts that the caller closes."""
        services = Services(
            database=database,
            storage=storage,
            user_handler=self.make_user_handler(),
            metrics=Metrics(),
            max_buffer_size=self.max_buffer_size,
            limits=Limits(
                entries=self.max_entries,
                expanded_size=self.max_expanded_size,
                ratio=self.max_ratio,
            ),
        )
        return TornadoApplication(
            rules(self.base_url, services),
            default_handler_class=NothingHere,
            default_handler_args={"services": services},
            log_function=_log_request,
            stopping=asyncio.Event(),
            under_way=set(),
            turns=weakref.WeakValueDictionary(),
        )

    # -- running

    def start(self) -> None:
        self._gather_logs()
        super().start()
        if self.subapp is not None:
            return
        if self.generate_config:
            print(self.generate_config_file())  # noqa: T201 (its purpose)
            return
        asyncio.run(self.serve())

    async def serve(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        if self.user_plugin_class is BaseUserHandler:
            self.log.warning(
                "nobody will be let in: choose a user handler with c.NbExchange.user_plugin_class"
            )
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with self.running() as port:
            _give_everybody_a_turn()
            self.log.info("nbexchange %s on port %s%s", __version__, port, self.base_url)
            await stop.wait()
            self.log.info("stopping")

    @contextlib.asynccontextmanager
    async def running(self) -> Any:
        """The service, listening; gives the port.

        At the end uploads that have begun get their answer, or `stop_grace` ends them. All else is
        broken off: it can be asked for again.
        """
        database = self.make_database()
        try:
            database.prepare(upgrade=self.upgrade_db, reset=self.reset_db)
            storage = self.make_storage()
            app = self.make_app(database, storage)
            server = HTTPServer(
                app,
                chunk_size=CHUNK,
                # Handlers judge the length of a body, in words; this is no limit.
                max_body_size=2**62,
                max_buffer_size=16 * CHUNK,
                idle_connection_timeout=IDLE_SECONDS,
            )
            # Otherwise as large as `chunk_size`, and zeroed for every read from a socket.
            server.read_chunk_size = READ_SIZE
            sockets = self._listen()
            server.add_sockets(sockets)
            try:
                yield sockets[0].getsockname()[1]
            finally:
                app.settings["stopping"].set()
                await asyncio.sleep(self.stop_delay)
                server.stop()
                await _finish(app, self.stop_grace)
                await server.close_all_connections()
                await _finish(app, SWEEP_SECONDS)
                storage.close()
        finally:
            database.close()

    def _listen(self) -> list[Any]:
        try:
            return bind_sockets(self.port, self.ip or None)
        except OSError as error:
            raise Misconfigured(
                f"cannot listen on {self.ip}:{self.port}: {error.strerror}; "
                "choose another with --ip and --port"
            ) from error


async def _finish(app: TornadoApplication, seconds: float) -> None:
    """Wait for uploads that arrive, are being stored, or whose leavings are being swept up."""
    end = time.monotonic() + seconds
    # More may begin meanwhile, on connections that were kept.
    while app.settings["under_way"] and time.monotonic() < end:
        await asyncio.wait(app.settings["under_way"], timeout=end - time.monotonic())


def _give_everybody_a_turn() -> None:
    """Keep one long list or collection of garbage from holding up the event loop.

    Threads swap ten times as often. The collector leaves alone what lives as long as the process:
    a full collection stopped everybody for 50 ms, and takes 7. Collecting less often is no help,
    because then there is more to collect at a time: that made it 100.
    """
    sys.setswitchinterval(0.0005)
    gc.collect()
    gc.freeze()


def _log_request(handler: RequestHandler) -> None:
    """One line a request. No query: it holds names of people and of courses."""
    request_id = handler.request_id if isinstance(handler, BaseHandler) else "-"
    access_log.info(
        "%s %s %s %s %.0f ms",
        request_id,
        handler.get_status(),
        (handler.request.method or "")[:20],
        handler.request.path[:200],
        1000 * handler.request.request_time(),
    )


def main(argv: list[str] | None = None) -> None:
    """The program `nbexchange`."""
    app = NbExchange()
    try:
        app.initialize(argv)
        app.start()
    except NbExchangeError as error:
        sys.exit(f"nbexchange: {error}")
