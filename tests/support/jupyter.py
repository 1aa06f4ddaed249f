"""A real Jupyter server on somebody's machine, asked as JupyterLab's pages ask it.

nbgrader's four server extensions are loaded, and ours, and nothing else unless JupyterLab is asked
for, because the others cost seconds.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests

from tests.support.nbgrader import Home
from tests.support.parts import PATIENCE, free_port
from tests.support.process import wait_until

TOKEN = "t0k3n"

OURS = "nbexchange.plugin.pages"
NBGRADER = ("assignment_list", "course_list", "formgrader", "validate_assignment")
EXTENSIONS = {
    OURS: True,
    **{f"nbgrader.server_extensions.{name}": True for name in NBGRADER},
    **dict.fromkeys(
        ("jupyter_lsp", "jupyter_server_terminals", "jupyterlab", "notebook", "notebook_shim"),
        False,
    ),
}
SERVER = {
    "allow_root": True,
    "ip": "127.0.0.1",
    "open_browser": False,
    "terminals_enabled": False,
}
CONFIG = {"IdentityProvider": {"token": TOKEN}}
SLOW = {"tornado_settings": {"nbexchange_answer_after": PATIENCE}}
"""For a machine that is so busy that an ordinary click takes longer than people would wait."""


class Jupyter:
    """A server in `home.work`, with what the home has around it when the server starts."""

    def __init__(
        self, home: Home, *, lab: bool = False, hurried: bool = False, root: Path | None = None
    ) -> None:
        """`hurried`: answers after 10 seconds, as on a real server. `root`: what it shows."""
        self.home = home
        self._options = {**SERVER, **({} if hurried else SLOW)}
        if root is not None:
            self._options["root_dir"] = str(root)
        self._extensions = {**EXTENSIONS, "jupyterlab": lab}
        self.log = home.folder / "jupyter.log"
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Authorization"] = f"token {TOKEN}"

    # -- life

    def __enter__(self) -> Jupyter:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it; the first request waits until it listens, so that two may start at a time."""
        config = self.home.home / ".jupyter" / "jupyter_server_config.json"
        said = {**CONFIG, "ServerApp": {**self._options, "jpserver_extensions": self._extensions}}
        config.write_text(json.dumps(said))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jupyter_server", f"--port={free_port()}"],
                cwd=self.home.work,
                env=self.home.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._url = ""

    def stop(self) -> None:
        self._session.close()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    @property
    def url(self) -> str:
        """Without a slash; wait for it to listen."""
        if not self._url:
            port = wait_until(self._port, "a Jupyter server that listens", pause=0.05)
            self._url = f"http://127.0.0.1:{port}"
        return self._url

    def _port(self) -> int | None:
        """As it tells other programs, shortly before it listens."""
        assert self._process.poll() is None, self.log.read_text()
        runtime = self.home.home / ".local/share/jupyter/runtime"
        try:
            said = json.loads((runtime / f"jpserver-{self._process.pid}.json").read_text())
            socket.create_connection(("127.0.0.1", said["port"])).close()
        except (FileNotFoundError, json.JSONDecodeError, ConnectionRefusedError):
            return None
        return int(said["port"])

    # -- what people do

    def ask(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None
    ) -> requests.Response:
        return self._session.request(
            method, f"{self.url}{path}", params=query, json=body, timeout=PATIENCE
        )

    def get(self, path: str, /, **query: str) -> Any:
        """The JSON of a page's question."""
        return self._answer(self.ask("GET", path, query))

    def post(self, path: str, /, **body: Any) -> Any:
        """The JSON of what a button says."""
        return self._answer(self.ask("POST", path, body=body))

    def _answer(self, response: requests.Response) -> Any:
        assert response.status_code == 200, f"{response.text}\n{self.log.read_text()}"
        return response.json()

    @property
    def directory(self) -> Path:
        """Where the process is; nbgrader's pages change it for a moment, and may forget it."""
        return Path(f"/proc/{self._process.pid}/cwd").resolve()
