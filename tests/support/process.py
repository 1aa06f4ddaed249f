"""A real service in a process of its own, which can be killed, started again, and made to fail.

`ServiceProcess` is the program as people start it. `FaultyService` is the same program, forked
from a process that has imported it already (a tenth of the time), with fail points: a request
with the header `Fault: <what> <n>` lets the n-th step that it takes fail: `kill` is kill -9, the
name of an error (`EIO`) is that of a system call, and `lost` loses the answer to a COMMIT. Steps
are the calls to the operating system, the SQL statements that write, both sides of each commit,
and the answer.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import exc

from tests.support.output import Output
from tests.support.parts import missing
from tests.support.service import PATIENCE, Service, parts_of

PROGRAM = (sys.executable, "-c", "from nbexchange.app import main; main()")

CONFIG = """\
from nbexchange.handlers.auth.token_file import TokenFileUserHandler

c.NbExchange.user_plugin_class = TokenFileUserHandler
c.TokenFileUserHandler.path = {people!r}
c.NbExchange.base_storage_location = {data!r}
c.NbExchange.ip = "127.0.0.1"
c.NbExchange.port = 0
"""

LISTENING = re.compile(r"on port ([0-9]+)(/[^\s\"]*)")


def wait_until(condition: Callable[[], Any], what: str = "", *, pause: float = 0.005) -> Any:
    """Look until something is so; `pause` leaves the processor to the others."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"never came: {what or condition}"
        time.sleep(pause)


class ServiceProcess(Service):
    """`config` is more lines of the configuration file; `wrapper` a command that runs ours."""

    def __init__(
        self,
        data: Path,
        config: str = "",
        *,
        wrapper: Sequence[str] = (),
        env: dict[str, str] | None = None,
    ) -> None:
        super().__init__(data)
        self.config_file = data.parent / "nbexchange_config.py"
        usual = CONFIG.format(people=str(self.people), data=str(data))
        usual += "".join(f"c.NbExchange.{name} = {value!r}\n" for name, value in parts_of(data))
        self.config_file.write_text(usual + config)
        self._wrapper = wrapper
        self._env = env or {}

    def __enter__(self) -> ServiceProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        for session in self._sessions:
            session.close()
        self.kill()

    # -- life

    def start(self) -> None:
        """Start, or start again; returns when it listens."""
        self._spawn(self._arguments)
        found = self.output.wait_for(LISTENING)
        assert found, str(self.output)
        self.port = int(found[1])
        self.url = f"http://127.0.0.1:{self.port}{found[2].rstrip('/')}"

    @property
    def _arguments(self) -> list[str]:
        return [f"--config-file={self.config_file}"]

    def _spawn(self, arguments: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            [*self._wrapper, *PROGRAM, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, **self._env},
            start_new_session=True,
        )
        assert self._process.stderr
        self.output = Output(os.dup(self._process.stderr.fileno()))
        self._process.stderr.close()

    @property
    def pid(self) -> int:
        assert self._process.pid
        return self._process.pid

    def kill(self) -> None:
        """kill -9, also for what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def wait(self) -> int:
        """The exit status, once it has ended."""
        return self._process.wait(PATIENCE)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A subcommand on the same data, while the service runs or not."""
        name, *rest = arguments
        return run_program(name, f"--config-file={self.config_file}", *rest)


def run_program(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The program `nbexchange`, to its end."""
    return subprocess.run(
        [*PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, **env},
        check=False,
    )


# -- fail points

forked = multiprocessing.get_context("forkserver")
forked.set_forkserver_preload(["pytest", "requests", "nbexchange.app"])


class FaultyService(ServiceProcess):
    def _spawn(self, arguments: Sequence[str]) -> None:
        reader, writer = forked.Pipe(duplex=False)
        self._process = forked.Process(  # type: ignore[assignment]
            target=_serve, args=(writer, list(arguments)), daemon=True
        )
        self._process.start()  # type: ignore[attr-defined]
        writer.close()
        self.output = Output(os.dup(reader.fileno()))
        reader.close()

    def kill(self) -> None:
        self._process.kill()
        self.wait()

    def wait(self) -> int:
        self._process.join(PATIENCE)  # type: ignore[attr-defined]
        code = self._process.exitcode  # type: ignore[attr-defined]
        assert code is not None, f"it did not end:\n{self.output}"
        assert isinstance(code, int)
        return code

    def after_fault(self, start: int) -> list[str] | None:
        """The steps of the request with a `Fault` that was sent when there were `start` lines.

        None when the fault has killed the service.
        """
        found = self.output.wait_for(r"STEPS (.*)", start)
        return found[1].split() if found else None

    def run_command(self, *arguments: str) -> tuple[int, str]:
        """`command`, forked too: its exit status and what it said."""
        reader, writer = forked.Pipe(duplex=False)
        name, *rest = arguments
        argv = [name, f"--config-file={self.config_file}", *rest]
        process = forked.Process(target=_run, args=(writer, argv), daemon=True)
        process.start()
        writer.close()
        output = Output(os.dup(reader.fileno()))
        reader.close()
        process.join(PATIENCE)
        output.wait_for("never said")
        assert process.exitcode is not None
        return process.exitcode, str(output)


def _run(output: Any, arguments: list[str]) -> None:
    from nbexchange.app import main

    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    output.close()
    try:
        main(arguments)
    finally:
        # Of our ends of the pipe none may stay open, or the reader waits for ever.
        sys.stdout.flush()


def _serve(output: Any, arguments: list[str]) -> None:
    _plant_faults()
    _run(output, arguments)


class _Plan:
    """What is to fail, and how many steps have been taken. One request at a time."""

    def __init__(self) -> None:
        self.what: str | None = None
        self.at = 0
        self.steps: list[str] = []

    def arm(self, header: str) -> None:
        what, _, at = header.partition(" ")
        self.what, self.at, self.steps = what, int(at or 0), []

    def disarm(self) -> None:
        if self.what is not None:
            self.what = None
            print("STEPS", *self.steps, file=sys.stderr, flush=True)

    def step(self, name: str, *, can_fail: bool = False) -> None:
        can_fail = name == "after_commit" if self.what == "lost" else can_fail
        if self.what is None or (self.what != "kill" and not can_fail):
            return
        self.steps.append(name)
        if len(self.steps) != self.at:
            return
        if self.what == "kill":
            os._exit(9)
        if self.what == "lost":
            raise exc.OperationalError("COMMIT", {}, Exception("the connection was lost"))
        number = getattr(errno, self.what)
        raise OSError(number, os.strerror(number))


def _plant_faults() -> None:
    import io

    import obstore
    from sqlalchemy import Engine, event
    from sqlalchemy.orm import Session

    from nbexchange.handlers.base import BaseHandler
    from nbexchange.handlers.transfer import UploadHandler

    plan = _Plan()
    for name in ("open", "fsync", "rename", "mkdir", "unlink"):
        setattr(os, name, _before(getattr(os, name), functools.partial(_fail, plan, name)))

    class FileIO(io.FileIO):
        def write(self, data: Any) -> int:
            plan.step("write", can_fail=True)
            return super().write(data)

    io.FileIO = FileIO  # type: ignore[misc]
    for name in ("put_async", "head_async", "delete_async"):
        setattr(obstore, name, _around(getattr(obstore, name), functools.partial(plan.step, name)))
    event.listen(Engine, "before_cursor_execute", lambda *said: _statement(plan, said[2]))
    event.listen(Engine, "commit", lambda *_: plan.step("before_commit"))
    event.listen(Session, "after_commit", lambda *_: plan.step("after_commit"))
    BaseHandler.finish = _before(  # type: ignore[method-assign]
        BaseHandler.finish, lambda: plan.step("answer")
    )

    prepare, on_finish = UploadHandler.prepare, UploadHandler.on_finish

    async def armed(handler: UploadHandler) -> None:
        header = handler.request.headers.get("Fault")
        if header:
            plan.arm(header)
        await prepare(handler)

    def disarmed(handler: UploadHandler) -> None:
        on_finish(handler)
        plan.disarm()

    UploadHandler.prepare = armed  # type: ignore[method-assign]
    UploadHandler.on_finish = disarmed  # type: ignore[method-assign]


def _statement(plan: _Plan, statement: str) -> None:
    # To die at a SELECT is to die at the statement before it.
    if not statement.startswith("SELECT"):
        plan.step(statement.split()[0])


def _fail(plan: _Plan, name: str) -> None:
    plan.step(name, can_fail=True)


def _around(function: Callable[..., Any], step: Callable[[], None]) -> Callable[..., Any]:
    """The store may have got it, or have done it, when we die."""

    @functools.wraps(function)
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        step()
        result = await function(*args, **kwargs)
        step()
        return result

    return wrapped


def _before(function: Callable[..., Any], first: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        first()
        return function(*args, **kwargs)

    return wrapped


# -- the system below


@contextlib.contextmanager
def small_disk(directory: Path, size: str) -> Iterator[Path]:
    """A file system of its own, in memory, that is quickly full."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    directory.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)],
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        missing(f"cannot mount a tmpfs: {done.stderr.decode().strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def highest_memory(pid: int) -> int:
    """The most memory that a process has ever had, in bytes."""
    found = re.search(r"VmHWM:\s+([0-9]+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def resident_memory(pid: int) -> int:
    """What a process has in memory now, in bytes."""
    found = re.search(r"VmRSS:\s+([0-9]+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024
