"""What the disk and the loopback can do: nginx, storing and serving the same bytes."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.client import Client
from benchmarks.service import PATIENCE, free_port

_CONFIG = """
daemon off;
{user}
worker_processes 1;
pid {here}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    sendfile on;
    client_max_body_size 0;
    client_body_temp_path {here}/body;
    proxy_temp_path {here}/proxy;
    fastcgi_temp_path {here}/fastcgi;
    uwsgi_temp_path {here}/uwsgi;
    scgi_temp_path {here}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {here}/files;
        dav_methods PUT;
    }}
}}
"""


def is_installed() -> bool:
    """nginx with the module that stores what is PUT."""
    if shutil.which("nginx") is None:
        return False
    version = subprocess.run(["nginx", "-V"], capture_output=True, text=True, check=False)
    return "http_dav_module" in version.stderr


@contextlib.contextmanager
def started(directory: Path) -> Iterator[str]:
    """An nginx that keeps its files below `directory`; gives its address."""
    port = free_port()
    (directory / "files").mkdir(parents=True)
    config = directory / "nginx.conf"
    # Started by root, it would hand itself down to somebody who may not write here.
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(_CONFIG.format(here=directory, port=port, user=user))
    command = ["nginx", "-c", str(config), "-p", str(directory), "-e", str(directory / "log")]
    with (directory / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            _wait_until_ready(process, f"http://127.0.0.1:{port}", directory)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, directory: Path) -> None:
    (directory / "files" / "ready").write_bytes(b"")
    give_up = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < give_up:
        with contextlib.suppress(OSError), Client(url) as client:
            client.get("ready")
            return
        time.sleep(0.05)
    raise RuntimeError(f"nginx does not start: {(directory / 'log').read_text()[-2000:]}")
