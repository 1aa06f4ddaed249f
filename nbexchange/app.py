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
from dataclasses import replace
from pathlib import Path
from typing import Any, Never
from urllib.parse import SplitResult, urlsplit

from sqlalchemy import URL, make_url
from tornado.log import access_log, gen_log
from tornado.netutil import bind_sockets
from tornado.web import Application as TornadoApplication
from tornado.web import RequestHandler
from traitlets import (
    Bool,
    Dict,
    Enum,
    Float,
    Int,
    Integer,
    TraitError,
    Type,
    Unicode,
    default,
    observe,
    validate,
)
from traitlets.config import Application, Configurable, catch_config_error

from nbexchange import __version__
from nbexchange.archive import ArchiveLimits
from nbexchange.commands.base import only_options, wrong_use
from nbexchange.commands.check import Check
from nbexchange.commands.demo import Demo
from nbexchange.commands.export import Export
from nbexchange.commands.gc import Gc
from nbexchange.commands.import_folder import ImportFolder
from nbexchange.commands.purge import Purge
from nbexchange.commands.upgrade_db import UpgradeDb
from nbexchange.database import Database
from nbexchange.errors import Misconfigured, NbExchangeError
from nbexchange.exchange.commitments import Commitments
from nbexchange.exchange.quotas import Quota, Quotas
from nbexchange.exchange.upkeep.inventory import count_rows, owns_any
from nbexchange.handlers import machine_paths, rules
from nbexchange.handlers.auth.jupyterhub import JupyterHubUserHandler
from nbexchange.handlers.auth.token_file import TokenFileUserHandler
from nbexchange.handlers.auth.user_handler import BaseUserHandler
from nbexchange.handlers.base import BaseHandler, NothingHereHandler, Services
from nbexchange.handlers.health import HealthzHandler, MetricsPageHandler, ReadyzHandler
from nbexchange.logs import FORMATTERS
from nbexchange.server import memory
from nbexchange.server.connections import LONGEST_READ, ConnectionLimits, Server, most_connections
from nbexchange.server.metrics import ORGANISATIONS, Metrics
from nbexchange.server.rate_limits import RateLimiter, RequestLimits
from nbexchange.server.readiness import Readiness
from nbexchange.server.scheduled_erasure import ScheduledErasure
from nbexchange.storage import CHUNK, Storage
from nbexchange.storage.disk import DiskStorage, may_be_absent
from nbexchange.traits import OrganisationNumber

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
    classes = [TokenFileUserHandler, JupyterHubUserHandler]

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

    base_url = Unicode(
        "/services/nbexchange/",
        help="""
        The path below which everything is served; a slash at both ends is added.
        A service of JupyterHub takes it from $JUPYTERHUB_SERVICE_PREFIX.
        """,
    ).tag(config=True)

    @default("base_url")
    def _prefix(self) -> str:
        return _of_service("JUPYTERHUB_SERVICE_PREFIX") or "/services/nbexchange/"

    @validate("base_url")
    def _slashes(self, proposal: Any) -> str:
        inner = proposal["value"].strip("/")
        return f"/{inner}/" if inner else "/"

    ip = Unicode(
        "0.0.0.0",  # noqa: S104 (a service)
        help="""
        The address to listen on; empty for all, also IPv6.
        A service of JupyterHub takes it from $JUPYTERHUB_SERVICE_URL.
        """,
    ).tag(config=True)

    @default("ip")
    def _address(self) -> str:
        return _service_url().hostname or "0.0.0.0"  # noqa: S104 (a service)

    port = Int(
        9000,
        help="""
        The port to listen on; 0 for any that is free.
        A service of JupyterHub takes it from $JUPYTERHUB_SERVICE_URL.
        """,
    ).tag(config=True)

    @default("port")
    def _port(self) -> int:
        return _service_url().port or 9000

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

    max_buffer_size = Integer(
        5253530000, help="The largest file that is taken, in bytes.", min=1
    ).tag(config=True)

    max_entries = Integer(
        ArchiveLimits().entries, help="The most files and folders in one archive.", min=1
    ).tag(config=True)

    max_expanded_size = Integer(
        ArchiveLimits().expanded_size,
        help="The most that one archive may unpack to, in bytes.",
        min=1,
    ).tag(config=True)

    max_ratio = Integer(
        ArchiveLimits().ratio,
        help="The most bytes that one compressed byte may become, beyond `ratio_floor`.",
        min=1,
    ).tag(config=True)

    ratio_floor = Integer(
        ArchiveLimits().ratio_floor,
        help="""
        Bytes that one archive may unpack to whatever `max_ratio` is: a notebook that printed one
        line too often is ordinary work. The default is that of nbgrader's
        CourseDirectory.max_dir_size, which counts in units of 1,000 bytes; raise both together.
        """,
        min=0,
    ).tag(config=True)

    student_quota = Integer(
        10_000_000_000,
        min=0,
        help="""
        The most bytes that all submissions of one person in an organisation may have together;
        more are answered 413. 0: as many as there is room for. The default is twice the largest
        file, and twenty times what a student hands in who takes ten courses.
        """,
    ).tag(config=True)

    organisation_quota = Integer(
        0,
        min=0,
        help="""
        The most bytes that all releases, submissions and feedback of one organisation may have
        together; more are answered 507. 0: as many as there is room for.
        """,
    ).tag(config=True)

    quotas: Any = Dict(
        value_trait=Dict(value_trait=Integer(min=0), key_trait=Enum(["student", "organisation"])),
        key_trait=OrganisationNumber(),
        help="""
        Other quotas for some organisations, by their number:
        {7: {"student": 2_000_000_000, "organisation": 500_000_000_000}}. What is not said here is
        as everywhere.
        """,
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

    min_free_space = Integer(
        1_000_000_000,
        min=0,
        help="""
        Bytes that have to stay free on the disk of base_storage_location, and on that of an SQLite
        database; an upload that needs them is answered 507. A database that meets a full disk
        fails in everything. Of a small disk no more than a twentieth is kept free.
        """,
    ).tag(config=True)

    max_requests_per_person = Integer(
        RequestLimits().requests,
        min=0,
        help="Requests of one person under way at a time; more are answered 429. 0: any number.",
    ).tag(config=True)

    max_rate_per_person = Float(
        RequestLimits().rate,
        min=0,
        help="""
        Requests a second that one person may go on with, after a burst of max_burst_per_person.
        More wait, so that a client that asks again only when it has its answer is paced; those
        that would wait for more than turn_timeout are answered 429. 0: any number.
        """,
    ).tag(config=True)

    max_burst_per_person = Integer(
        RequestLimits().burst, min=1, help="Requests that one person may send at once after a rest."
    ).tag(config=True)

    max_transfers_per_person = Integer(
        RequestLimits().transfers,
        min=0,
        help="""
        Files that one person may send at a time, and as many that the person may fetch. The next
        wait, and are answered 429 after turn_timeout. 0: any number.
        """,
    ).tag(config=True)

    max_transfers = Integer(
        RequestLimits().all_transfers,
        min=0,
        help="""
        Files that all may send at a time to this process, and as many that all may fetch from it;
        each takes up to two megabytes of memory. The next wait, and are answered 503 after
        turn_timeout. 0: any number.
        """,
    ).tag(config=True)

    turn_timeout = Float(
        RequestLimits().patience,
        min=0,
        help="""
        Seconds that a request waits for its turn before it is answered 429 or 503. Clients of
        older versions give up after ten.
        """,
    ).tag(config=True)

    max_refusals_per_second = Float(
        RequestLimits().refusals,
        min=0,
        help="""
        Refused requests (400 to 499) that are answered a second: of one person, and of all who
        are not known together. More wait for up to five seconds. 0: any number.
        """,
    ).tag(config=True)

    max_connections = Integer(
        0,
        min=0,
        help="""
        Connections at a time. Beyond, the one is closed that has been waiting longest for a request
        or for the rest of a refused body; without such a connection, the new one is answered 503.
        Requests of probes and metrics are answered in any case. 0: 4,000, or as many as the limit
        of open files allows, of which each takes two.
        """,
    ).tag(config=True)

    header_timeout = Float(
        ConnectionLimits().header,
        min=0,
        help="Seconds from the first byte of a request's header to its last. 0: 75.",
    ).tag(config=True)

    silence_timeout = Float(
        ConnectionLimits().silence,
        min=0,
        help="""
        Seconds without a byte of a body, or of an answer that is read, after which a connection
        is closed; and seconds that a refused body may take, after which it is answered. 0: for
        ever.
        """,
    ).tag(config=True)

    min_transfer_rate = Float(
        ConnectionLimits().rate,
        min=0,
        help="""
        Bytes a second that a body, or an answer, has to move over any stretch of twice
        silence_timeout; a telephone line moves 5,000. 0: any.
        """,
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

    metrics_token = Unicode(
        help="""
        What a scraper has to show as `Authorization: Bearer <token>` before it reads `metrics`.
        Default: $NBEXCHANGE_METRICS_TOKEN, else whoever reaches the port may. `metrics` is never
        below the base URL, unless that is `/`.
        """,
    ).tag(config=True)

    @default("metrics_token")
    def _metrics_token(self) -> str:
        return os.environ.get("NBEXCHANGE_METRICS_TOKEN", "").strip()

    metrics_organisations = Integer(
        ORGANISATIONS,
        min=0,
        help="""
        How many organisations get numbers of their own in `metrics`; those that come later share
        `other`. Each costs up to eleven series, in every replica.
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
        return Database(
            self.db_url,
            echo=self.debug_db,
            writes_whole_pages=self.db_writes_whole_pages,
            **options,
        )

    def refuse_absent_store(self, database: Database) -> None:
        """Raise Misconfigured where the database knows files, and the directory has not one.

        Before `make_storage`: what is made where a disk should be would take its place.
        """
        directory = Path(self.base_storage_location).absolute()
        if self.storage_url or not database.read_now(owns_any) or not may_be_absent(directory):
            return
        # Asked again, last: somebody may have erased all of them since.
        if known := database.read_now(count_rows):
            raise Misconfigured(
                f"the database knows {known:,} files, and there is not one in {directory}/blobs; "
                "is its disk mounted? Mount it, or correct base_storage_location. If the files "
                "are lost, docs/troubleshooting.md says how to go on"
            )

    def make_storage(self) -> Storage:
        self._make_data_directory()
        directory = Path(self.base_storage_location).absolute()
        if not self.storage_url:
            return DiskStorage(directory)
        try:
            from nbexchange.storage.objects import ObjectStorage
        except ImportError as error:
            raise Misconfigured(
                "storage_url needs the library obstore: install nbexchange with its extra [objects]"
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
        try:
            if issubclass(plugin, Configurable):
                configurable: BaseUserHandler = plugin(parent=self)
                return configurable
            return plugin()
        except TraitError as error:
            raise Misconfigured(str(error)) from error

    def make_app(self, database: Database, storage: Storage) -> TornadoApplication:
        """The web application over parts that the caller closes."""
        user_handler = self.make_user_handler()
        user_handler.check_start()
        readiness = Readiness(database, storage, user_handler.find_problem)
        stopping = asyncio.Event()
        services = Services(
            database=database,
            storage=storage,
            user_handler=user_handler,
            readiness=readiness,
            metrics=Metrics(database, storage, readiness, self.metrics_organisations),
            metrics_token=self.metrics_token,
            max_buffer_size=self.max_buffer_size,
            limits=ArchiveLimits(
                entries=self.max_entries,
                expanded_size=self.max_expanded_size,
                ratio=self.max_ratio,
                ratio_floor=self.ratio_floor,
            ),
            rate_limiter=RateLimiter(self._request_limits(database), stopping),
            quotas=self._make_quotas(database),
            commitments=Commitments(),
            purge_grace=datetime.timedelta(days=self.purge_grace),
        )
        return TornadoApplication(
            rules(self.base_url, services),
            default_handler_class=NothingHereHandler,
            default_handler_args={"services": services},
            log_function=_log_request,
            metrics=services.metrics,
            stopping=stopping,
            rate_limiter=services.rate_limiter,
            quotas=services.quotas,
            under_way=set(),
        )

    def _request_limits(self, database: Database) -> RequestLimits:
        return RequestLimits(
            requests=self.max_requests_per_person,
            rate=self.max_rate_per_person,
            burst=self.max_burst_per_person,
            transfers=self.max_transfers_per_person,
            all_transfers=self.max_transfers,
            patience=self.turn_timeout,
            refusals=self.max_refusals_per_second,
            # SQLite has one writer at a time, who waits for none of ours.
            writes=0 if database.is_sqlite else RequestLimits().writes,
            course_writes=0 if database.is_sqlite else RequestLimits().course_writes,
        )

    def _make_quotas(self, database: Database) -> Quotas:
        usual = Quota(self.student_quota, self.organisation_quota)
        special = {org_id: replace(usual, **said) for org_id, said in self.quotas.items()}
        disks = [Path(self.base_storage_location).absolute()]
        if database.is_sqlite:
            disks.append(Path(database.engine.url.database or "").absolute().parent)
        return Quotas(usual, special, disks, self.min_free_space)

    def _connection_limits(self) -> ConnectionLimits:
        return ConnectionLimits(
            header=self.header_timeout,
            silence=self.silence_timeout,
            rate=self.min_transfer_rate,
            connections=most_connections(self.max_connections),
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
            _give_everybody_a_turn()
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
            app = self.make_app(database, storage)
            server = Server(
                app,
                chunk_size=CHUNK,
                # Handlers judge the length of a body, in words; this is no limit.
                max_body_size=2**62,
                max_buffer_size=16 * CHUNK,
                max_header_size=LONGEST_READ,
                idle_connection_timeout=IDLE_SECONDS,
            )
            hold_unknown = functools.partial(app.settings["rate_limiter"].hold, None)
            server.limit(
                self._connection_limits(),
                hold_unknown,
                app.settings["metrics"],
                machine_paths(self.base_url),
            )
            # Otherwise as large as `chunk_size`, and zeroed for every read from a socket.
            server.read_chunk_size = READ_SIZE
            sockets = self._listen()
            server.listen_on(sockets)
            erasure = ScheduledErasure(
                database, storage, app.settings["quotas"], app.settings["under_way"]
            )
            by_itself = [
                asyncio.create_task(app.settings["metrics"].watch_the_loop()),
                asyncio.create_task(erasure.run()),
                asyncio.create_task(memory.trim_regularly()),
            ]
            try:
                yield sockets[0].getsockname()[1]
            finally:
                for task in by_itself:
                    task.cancel()
                app.settings["stopping"].set()
                await asyncio.sleep(self.stop_delay)
                server.stop()
                await _finish(app, self.stop_grace)
                await server.close_all_connections()
                await _finish(app, SWEEP_SECONDS)
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

    def _listen(self) -> list[Any]:
        try:
            return bind_sockets(self.port, self.ip or None)
        except OSError as error:
            raise Misconfigured(
                f"cannot listen on {self.ip}:{self.port}: {error.strerror}; "
                "choose another with --ip and --port"
            ) from error


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _of_service(name: str) -> str:
    """A variable that JupyterHub sets for its services; users' servers have the same for theirs."""
    return os.environ.get(name, "") if os.environ.get("JUPYTERHUB_SERVICE_NAME") else ""


def _service_url() -> SplitResult:
    """Where JupyterHub expects the service."""
    try:
        url = urlsplit(_of_service("JUPYTERHUB_SERVICE_URL"))
        _ = url.port
    except ValueError:
        raise Misconfigured("$JUPYTERHUB_SERVICE_URL is no address with a port") from None
    return url


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
    """One line a request. Probes and scrapes, which come all the time, only where they fail."""
    assert isinstance(handler, BaseHandler)
    if handler.told:
        return
    is_usual = (
        isinstance(handler, HealthzHandler | ReadyzHandler | MetricsPageHandler)
        and handler.get_status() == 200
    )
    access_log.log(
        logging.DEBUG if is_usual else logging.INFO, "request", extra={"facts": handler.facts()}
    )


def main(argv: list[str] | None = None) -> None:
    """The program `nbexchange`."""
    app = NbExchange()
    try:
        app.initialize(argv)
        app.start()
    except NbExchangeError as error:
        sys.exit(f"nbexchange: {error}")
