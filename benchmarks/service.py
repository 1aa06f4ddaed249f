"""The service that is measured: started here, or running elsewhere."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # has no types of its own

from benchmarks.client import Client
from benchmarks.people import People

PATIENCE = 60
"""Seconds until a start or a stop has failed."""

_CONFIG = """
c.NbExchange.user_plugin_class = "nbexchange.handlers.auth.token_file.TokenFileUserHandler"
c.TokenFileUserHandler.path = {tokens!r}
c.NbExchange.base_storage_location = {data!r}
c.NbExchange.ip = "127.0.0.1"
"""


@dataclass(frozen=True)
class Service:
    url: str
    people: People
    process: psutil.Process | None = None
    """None where it runs elsewhere: then nobody can see its CPU time and memory."""

    def instructor(self) -> Client:
        return Client(self.url, self.people.instructor)

    def student(self, number: int = 0) -> Client:
        return Client(self.url, self.people.students[number])

    def anybody(self) -> Client:
        return Client(self.url)


@contextlib.contextmanager
def started(
    directory: Path, tokens: Path, people: People, options: Sequence[str], log_name: str
) -> Iterator[Service]:
    """A service as `nbexchange` starts it, with its data and its log in a directory."""
    port = free_port()
    config = directory / "nbexchange_config.py"
    config.write_text(_CONFIG.format(tokens=str(tokens), data=str(directory / "data")))
    command = [sys.executable, "-c", "from nbexchange.app import main; main()"]
    command += [f"--config-file={config}", f"--port={port}", *options]
    url = f"http://127.0.0.1:{port}/services/nbexchange"
    # Without it, a Python of its own would find another nbexchange than ours, or none.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with (
        (directory / log_name).open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=environment) as process,
    ):
        try:
            _wait_until_ready(process, url, directory / log_name)
            yield Service(url, people, psutil.Process(process.pid))
        finally:
            process.send_signal(signal.SIGTERM)
            _wait_for_end(process)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    give_up = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < give_up:
        with contextlib.suppress(OSError, RuntimeError), Client(url) as client:
            client.get("readyz")
            return
        time.sleep(0.05)
    raise RuntimeError(f"the service does not start; its log ends: {log.read_text()[-2000:]}")


def _wait_for_end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
