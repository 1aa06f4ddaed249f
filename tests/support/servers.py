"""Database servers of a test's own, which may be killed, frozen and filled up.

Made from what Debian installs. Each has its own data directory and port, and holds one database,
`nbexchange`, with the schema in it.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import URL, Engine, create_engine, exc, select, text
from sqlalchemy.pool import NullPool

from nbexchange.database import Database
from nbexchange.models import Base
from tests.support.parts import free_port, missing
from tests.support.process import wait_until
from tests.support.service import PATIENCE

NAME = "nbexchange"
KINDS = ("mariadb", "postgresql")


class DatabaseServer:
    """Runs from `with` to its end. `place` is an empty directory for its files, if it matters."""

    kind: str
    drivername: str
    administrator: str
    account: str | None = None
    """The operating system's user that it runs as where we are root, which it may not be."""
    end: signal.Signals
    """Lets it stop in order, without waiting for its clients."""

    def __init__(self, place: Path | None = None) -> None:
        # Not below tmp_path, which only its owner may enter.
        self.directory = place or _temporary()
        self.files = self.directory / "files"
        self.log = Path(tempfile.gettempdir()) / f"nbexchange-log-{os.getpid()}-{id(self):x}"
        self.port = free_port()
        self.options: tuple[str, ...] = ()
        """Of its command line, besides those that every test needs."""

    def __enter__(self) -> DatabaseServer:
        template = _template(type(self))
        self.own_directory()
        # A file with holes would run out of space where the server believes to have it.
        _run(["cp", "-a", "--sparse=never", template, self.files])
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        self.log.unlink()
        shutil.rmtree(self.files)
        with contextlib.suppress(OSError):
            self.directory.rmdir()  # not if it is a disk of its own

    def own_directory(self) -> None:
        self.directory.chmod(0o755)
        if self.account is not None and os.geteuid() == 0:
            shutil.chown(self.directory, self.account)

    def make_files(self) -> None:
        """Of a server without any database of ours."""
        raise NotImplementedError

    # -- life

    def start(self) -> None:
        """Start, or start again; returns when it answers."""
        self.launch()
        wait_until(lambda: self.answers() or not self.is_running(), "an answer of the server")
        assert self.is_running(), self.log.read_text()[-2000:]

    def launch(self) -> None:
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                **_as(self.account),
            )

    def command(self) -> list[str | Path]:
        raise NotImplementedError

    def is_running(self) -> bool:
        return self._process.poll() is None

    def answers(self) -> bool:
        with contextlib.suppress(exc.OperationalError):
            self.engine().connect().close()
            return True
        return False

    def stop(self) -> None:
        """In order, as an operator does; clients are thrown out."""
        self._process.send_signal(self.end)
        self._process.wait(PATIENCE)

    def restart(self, *options: str) -> None:
        """With other options than before."""
        self.stop()
        self.options = options
        self.start()

    def kill(self) -> None:
        """kill -9, with all that it started."""
        self._signal(signal.SIGKILL)
        self._process.wait(PATIENCE)

    def freeze(self) -> None:
        """It keeps its connections and says nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        # The first one first, so that it starts no other meanwhile.
        if self.is_running():
            for pid in (self._process.pid, *_children(self._process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    # -- what is in it

    def url(self, database: str = NAME, port: int | None = None) -> str:
        """As a service's `db_url`; through a proxy with its `port`."""
        return self._url(database, port).render_as_string(hide_password=False)

    def _url(self, database: str, port: int | None = None) -> URL:
        return URL.create(
            self.drivername, self.administrator, None, "127.0.0.1", port or self.port, database
        )

    def engine(self, database: str = "") -> Engine:
        """For an administrator's look behind the service's back; asks nothing of the settings."""
        return create_engine(self._url(database), poolclass=NullPool, isolation_level="AUTOCOMMIT")

    def say(self, *statements: str, database: str = NAME) -> None:
        """Each one for itself, as in the server's own terminal."""
        with self.engine(database).connect() as connection:
            for statement in statements:
                for one in filter(None, map(str.strip, statement.split(";"))):
                    connection.execute(text(one.replace(":", r"\:")))

    @contextlib.contextmanager
    def locked(self, statement: str) -> Iterator[None]:
        """What a SELECT ... FOR UPDATE locks stays locked, and no row beside it."""
        engine = create_engine(self.url(), isolation_level="READ COMMITTED")
        with engine.begin() as connection:
            connection.execute(text(statement))
            yield
        engine.dispose()

    def rows(self, table: str) -> list[dict[str, Any]]:
        found = Base.metadata.tables[table]
        with self.engine(NAME).connect() as connection:
            return [
                dict(row)
                for row in connection.execute(select(found).order_by(found.c.id)).mappings()
            ]

    def throw_out(self) -> None:
        """Every connection but this one, so that clients have to make new ones."""
        raise NotImplementedError


class PostgreSQL(DatabaseServer):
    kind = "postgresql"
    drivername = "postgresql+psycopg"
    administrator = "postgres"
    account = "postgres"
    end = signal.SIGINT

    def make_files(self) -> None:
        options = "--auth=trust --encoding=UTF8 --locale=C --wal-segsize=1 --no-sync"
        command = [_postgresql("initdb"), "-D", self.files, "-U", self.administrator]
        _run([*command, *options.split()], self.account)

    def command(self) -> list[str | Path]:
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "dynamic_shared_memory_type": "mmap",  # in its own files, so that nothing outlives it
            "shared_buffers": "16MB",
            "min_wal_size": "2MB",
            "max_wal_size": "4MB",
        }
        said = [f"--{name}={value}" for name, value in settings.items()]
        return [_postgresql("postgres"), "-D", self.files, *said, *self.options]

    def engine(self, database: str = "") -> Engine:
        return super().engine(database or "postgres")

    def throw_out(self) -> None:
        self.say(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )


class MariaDB(DatabaseServer):
    kind = "mariadb"
    drivername = "mysql+pymysql"
    administrator = "root"
    end = signal.SIGTERM

    def make_files(self) -> None:
        options = "--no-defaults --skip-test-db --auth-root-authentication-method=normal"
        command = [_mariadb("mariadb-install-db"), *options.split(), *_MARIADB]
        _run([*command, f"--datadir={self.files}"])

    def command(self) -> list[str | Path]:
        said = [f"--port={self.port}", f"--datadir={self.files}", f"--socket={self.files}/socket"]
        return [_mariadb("mariadbd"), "--no-defaults", *_MARIADB, *said, *self.options]

    def throw_out(self) -> None:
        with self.engine().connect() as connection:
            others = connection.execute(
                text(
                    "SELECT id FROM information_schema.processlist"
                    " WHERE id <> CONNECTION_ID() AND user = 'root'"
                )
            )
            for other in others.scalars():
                connection.execute(text(f"KILL {other}"))


_MARIADB = (
    f"--user={'root' if os.geteuid() == 0 else os.environ.get('USER', '')}",
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--character-set-server=utf8mb4",  # as Debian has it
    "--innodb-log-file-size=4M",
    "--innodb-data-file-path=ibdata1:4M:autoextend",
    "--innodb-autoextend-increment=1",
    "--innodb-buffer-pool-size=16M",
    "--innodb-buffer-pool-dump-at-shutdown=OFF",
)

_SERVERS = {"mariadb": MariaDB, "postgresql": PostgreSQL}


def make_server(kind: str, place: Path | None = None) -> DatabaseServer:
    return _SERVERS[kind](place)


@functools.cache
def _template(server: type[DatabaseServer]) -> Path:
    """The files of one that was stopped in order. To make them takes seconds, to copy does not."""
    made = server()
    atexit.register(shutil.rmtree, made.directory, ignore_errors=True)
    made.own_directory()
    made.make_files()
    made.start()
    try:
        made.say(f"CREATE DATABASE {NAME}", database="")
        database = Database(made.url())
        database.prepare(upgrade=True)
        database.close()
        made.stop()
    finally:
        made.kill()
        made.log.unlink()
    return made.files


def _run(command: Sequence[str | Path], account: str | None = None) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, cwd="/", check=False, **_as(account)
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _as(account: str | None) -> dict[str, Any]:
    if account is None or os.geteuid() != 0:
        return {}
    return {"user": account, "group": account, "extra_groups": []}


def _postgresql(program: str) -> Path:
    """Debian keeps them out of the way, one directory for each version."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
    if not found:
        missing(f"no {program} of PostgreSQL in /usr/lib/postgresql")
    return found[-1]


def _mariadb(program: str) -> str:
    # Not everybody's PATH has the programs of administrators.
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        missing(f"{program} is not installed")
    assert found
    return found


def _temporary() -> Path:
    return Path(tempfile.mkdtemp(prefix="nbexchange-database-"))


def _children(pid: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(line) for line in listed.stdout.split()]
