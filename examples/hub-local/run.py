"""Run a learning management system, a hub and the exchange on this machine, until Ctrl-C.

    python examples/hub-local/run.py

This process serves the simulated platform (lms.py) and starts JupyterHub, which starts its proxy,
the exchange and, later, each user's JupyterLab. At the end it stops all of them. All their data is
in one folder.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from lms import Platform

HERE = Path(__file__).resolve().parent
PROXY = "configurable-http-proxy"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 60
"""Seconds to wait for the hub to start."""
GRACE = 30
"""Seconds for the hub to stop everything in order."""

WELCOME = """\

Open {platform[url]} and choose who you are and which course you open.
For two people at once use two browsers, or a private window for the second.

    the hub        {hub_url}
    what is kept   {data}
    what happens   {data}/hub.log

Ctrl-C stops all of it."""


class Failed(Exception):
    """Something is missing, or did not start; the message says what to do."""


class Stopped(BaseException):
    """Ctrl-C, or another signal that means the same."""


def main() -> int:
    options = parse(sys.argv[1:])
    for number in SIGNALS:
        signal.signal(number, stop)
    try:
        run(options)
    except Failed as failure:
        print(failure, file=sys.stderr)
        return 1
    except Stopped:
        print("Everything is stopped.", flush=True)
    return 0


def stop(*_: object) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C would leave processes behind
    raise Stopped


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    free = "0 is any that is free"
    parser.add_argument("--port", type=int, default=8000, help=f"of the hub; {free}")
    parser.add_argument("--platform-port", type=int, default=8010, help=f"of the platform; {free}")
    parser.add_argument(
        "--data", type=Path, default=HERE / "data", help="the folder for all that is written"
    )
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    data = options.data.resolve()
    data.mkdir(parents=True, exist_ok=True)
    data.chmod(0o700)
    proxy = proxy_program(data / "proxy")
    port = choose_port(options.port, "--port")
    hub_url = f"http://127.0.0.1:{port}"
    platform_port = choose_port(options.platform_port, "--platform-port")
    with Platform(hub_url, platform_port) as platform:
        settings = {
            "data": str(data),
            "proxy": proxy,
            "port": port,
            "hub_url": hub_url,
            "platform": platform.settings(),
            **{f"{name}_port": free_port() for name in ("hub", "proxy", "exchange")},
        }
        with hub(settings, data) as process:
            wait_for(process, settings, data)
            print(WELCOME.format(**settings), flush=True)
            process.wait()
            raise Failed(f"The hub has ended by itself:\n{last_words(data)}")


# -- requirements


def proxy_program(folder: Path) -> str:
    """The hub's proxy, a Node.js program; installed into the folder if it is missing."""
    installed = folder / "node_modules" / ".bin" / PROXY
    found = shutil.which(PROXY) or shutil.which(str(installed))
    if found:
        return found
    npm = shutil.which("npm")
    if npm is None:
        raise Failed(
            f"JupyterHub needs {PROXY}, and npm, which could install it, is not here either. "
            "Install Node.js with npm (apt install npm, brew install node, https://nodejs.org)."
        )
    print(f"Installing {PROXY} into {folder} ...", flush=True)
    command = [npm, "install", "--prefix", str(folder), "--no-save", "--no-audit", "--no-fund"]
    if subprocess.run([*command, f"{PROXY}@5"], check=False).returncode != 0:
        raise Failed(f"npm could not install {PROXY}; it says why above.")
    return str(installed)


def choose_port(wanted: int, option: str) -> int:
    if wanted == 0:
        return free_port()
    if not is_free(wanted):
        raise Failed(
            f"Port {wanted} is taken, perhaps by another one of these. Choose with {option}=..., "
            f"or {option}=0 for any that is free."
        )
    return wanted


def free_port() -> int:
    """A free port below the range that the system gives to clients."""
    return next(port for port in iter(lambda: random.randrange(10_000, 32_000), 0) if is_free(port))


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Connections that ended a minute ago do not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


# -- the hub


@contextlib.contextmanager
def hub(settings: dict[str, Any], data: Path) -> Iterator[subprocess.Popen[bytes]]:
    file = data / "settings.json"
    write_secret(file, json.dumps(settings))
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("JUPYTERHUB_")},
        "HUB_LOCAL_SETTINGS": str(file),
        # nbgrader starts `alembic`, and JupyterLab's terminal `nbgrader`, by name.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    with (data / "hub.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterhub", f"--config={HERE / 'jupyterhub_config.py'}"],
            cwd=data,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Ctrl-C reaches only this process, which then stops the hub in order.
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end(process, data)


def end(process: subprocess.Popen[bytes], data: Path) -> None:
    """Let the hub stop its processes and itself; kill the processes that remain."""
    if process.poll() is not None:
        return
    print("\nStopping everybody's servers, the exchange and the hub ...", flush=True)
    started = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        print(f"The hub did not stop by itself and was killed.\n{last_words(data)}", flush=True)
    for one in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(started, GRACE)


def wait_for(process: subprocess.Popen[bytes], settings: dict[str, Any], data: Path) -> None:
    """Wait until the exchange answers through the hub's proxy, which is the last part to start."""
    hub = f"http://127.0.0.1:{settings['hub_port']}/hub/api/"
    exchange = f"{settings['hub_url']}/services/nbexchange/healthz"
    deadline = time.monotonic() + PATIENCE
    for address in (hub, exchange):
        while not answers(address):
            if process.poll() is not None:
                raise Failed(f"The hub did not start:\n{last_words(data)}")
            if time.monotonic() > deadline:
                raise Failed(f"{address} does not answer:\n{last_words(data)}")
            time.sleep(0.2)


def answers(address: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(address, timeout=PATIENCE) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def last_words(data: Path) -> str:
    log = data / "hub.log"
    if not log.exists():
        return f"Its log is gone, and all of {data}."
    lines = log.read_text(errors="replace").splitlines()[-15:]
    return "\n".join([*(f"    {line}" for line in lines), f"The whole log: {log}"])


def write_secret(file: Path, text: str) -> None:
    file.touch(mode=0o600)
    file.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
