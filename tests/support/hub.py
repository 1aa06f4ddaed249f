"""A real JupyterHub with its proxy, its users' servers and the services that it starts."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import requests

from tests.support.parts import PATIENCE, free_port, missing, needs
from tests.support.process import wait_until

PAUSE = 0.1
"""Seconds between two questions to a hub that has much to do until it is ready."""


ADMIN = "0f-the-tests"
"""The token of an administrator, a service that is called `tests`."""


LIGHT = """
import sys
c.Spawner.cmd = [
    sys.executable,
    "-c",
    "import http.server as h, os, urllib.parse as u;"
    "at = u.urlsplit(os.environ['JUPYTERHUB_SERVICE_URL']);"
    "h.HTTPServer((at.hostname, at.port), h.SimpleHTTPRequestHandler).serve_forever()",
]
"""
"""More config, for users' servers that do nothing but run, with the environment that they get."""

USUAL = """\

c = get_config()
c.JupyterHub.authenticator_class = "dummy"
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = {homes!r}
c.Spawner.args = ["--allow-root"]
c.Spawner.start_timeout = c.Spawner.http_timeout = {patience}
c.Spawner.env_keep = [
    "JUPYTERHUB_SINGLEUSER_APP", "JUPYTERLAB_DIR", "JUPYTER_PATH",
    "LANG", "LC_ALL", "PATH", "PYTHONPATH",
]
"""

# After the config of the test, which need not know of them.
OURS = """
import json

c.JupyterHub.bind_url = {bind_url!r}
c.JupyterHub.hub_bind_url = {hub_bind_url!r}
c.ConfigurableHTTPProxy.api_url = {proxy_api_url!r}
c.ConfigurableHTTPProxy.command = [{proxy!r}]
c.JupyterHub.cleanup_servers = True
c.JupyterHub.cleanup_proxy = True
c.JupyterHub.services.append({{"name": "tests", "api_token": {admin!r}}})
c.JupyterHub.load_roles.append({{
    "name": "tests",
    "services": ["tests"],
    "scopes": [
        "admin:users", "admin:servers", "admin:groups", "admin:server_state",
        "tokens", "shares", "proxy", "shutdown", "list:services", "read:services", "read:hub",
        "read:roles", "read:metrics", "access:services", "access:servers",
    ],
}})
_scopes = c.Spawner.get("server_token_scopes", [])
with open({scopes!r}, "w") as file:
    json.dump(list(_scopes) if isinstance(_scopes, (list, set, tuple)) else [], file)
"""


class Hub:
    """Runs from `with` to its end, in `folder`.

    `config` is more Python for jupyterhub_config.py: it comes after USUAL, so it may choose other
    things. `env` is of the hub's own process. `base_url` is the path below which all of it is.
    """

    def __init__(
        self,
        folder: Path,
        config: str = "",
        *,
        version: int = 6,
        env: Mapping[str, str] | None = None,
        base_url: str = "/",
    ) -> None:
        self.version = version
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.python = python_of(version)
        self.log = folder / "hub.log"
        self.homes = folder / "homes"
        self._config = config
        self._env = env or {}
        self._base = base_url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False
        self._port, self._hub_port, self._proxy_port = (free_port() for _ in range(3))
        self.url = f"http://127.0.0.1:{self._port}{self._base}"
        """Of the proxy, with the base_url; no slash at the end."""
        self.api_url = f"http://127.0.0.1:{self._hub_port}{self._base}/hub/api"
        """On the hub's own port."""
        self._write_config()

    def _write_config(self) -> None:
        usual = USUAL.format(homes=str(self.homes / "{username}"), patience=PATIENCE)
        ours = OURS.format(
            bind_url=f"http://127.0.0.1:{self._port}{self._base}/",
            hub_bind_url=f"http://127.0.0.1:{self._hub_port}",
            proxy_api_url=f"http://127.0.0.1:{self._proxy_port}",
            proxy=needs("configurable-http-proxy"),
            admin=ADMIN,
            scopes=str(self.folder / "server_token_scopes.json"),
        )
        file = self.folder / "jupyterhub_config.py"
        file.write_text(f"{usual}\n{self._config}\n{ours}")

    # -- life

    def __enter__(self) -> Hub:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()
        self.stop()

    def start(self) -> None:
        """Start, or start again with the same database; returns when hub and proxy answer."""
        tools = [str(self.python.parent), str(Path(sys.executable).parent)]
        outer = Path(sys.prefix) / "share/jupyter"
        environment = {
            **{name: value for name, value in os.environ.items() if "JUPYTER" not in name},
            # Looked for below `sys.prefix`, which is another one in the environment of hub 5.
            "JUPYTERLAB_DIR": str(outer / "lab"),
            "JUPYTER_PATH": str(outer),
            "PATH": os.pathsep.join([*tools, os.environ["PATH"]]),
            **self._env,
        }
        with self.log.open("ab") as log:
            self._process = psutil.Popen(
                [self.python, "-m", "jupyterhub", "--config=jupyterhub_config.py"],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            wait_until(self._answers, "an answer of the hub through its proxy", pause=PAUSE)
        except BaseException:
            self.stop()
            raise

    def _answers(self) -> bool:
        assert self._process.poll() is None, self.log.read_text()
        try:
            return self._session.get(f"{self.url}/hub/api/", timeout=PATIENCE).ok
        except requests.ConnectionError:
            return False

    def stop(self) -> None:
        """In order; what is left after that, and of what it started, is killed."""
        if self._process.poll() is not None:
            return
        started = self._process.children(recursive=True)
        self._process.send_signal(signal.SIGTERM)
        _, late = psutil.wait_procs([self._process], PATIENCE)
        for process in (*late, *started):
            _kill(process)
        psutil.wait_procs([self._process, *started], PATIENCE)

    def freeze(self) -> None:
        """It keeps its connections and says nothing. The proxy goes on."""
        self._process.suspend()

    def thaw(self) -> None:
        self._process.resume()

    # -- what an administrator does

    def api(
        self, method: str, path: str, json: Any = None, token: str | None = None
    ) -> requests.Response:
        """`path` begins with a slash; as an administrator unless there is a `token`."""
        return self._session.request(
            method,
            f"{self.api_url}{path}",
            json=json,
            headers={"Authorization": f"token {token or ADMIN}"},
            timeout=PATIENCE,
        )

    def do(self, method: str, path: str, json: Any = None, token: str | None = None) -> Any:
        """The same, where anything but success is a failed test; the answer's JSON."""
        response = self.api(method, path, json, token)
        assert response.ok, f"{method} {path}: {response.status_code} {response.text}"
        return response.json() if response.text else None

    def add_user(self, name: str, *groups: str) -> None:
        """Make the user and the groups where there are none yet, and put one into the other."""
        assert self.api("POST", f"/users/{name}").status_code in (201, 409)
        for group in groups:
            assert self.api("POST", f"/groups/{group}").status_code in (201, 409)
            self.do("POST", f"/groups/{group}/users", {"users": [name]})

    def remove_from(self, group: str, name: str) -> None:
        self.do("DELETE", f"/groups/{group}/users", {"users": [name]})

    def token(self, name: str, scopes: list[str] | None = None, expires_in: int = 3600) -> str:
        """A new token of a user, who is made if there is none.

        Without `scopes` those that the token of the user's server gets from the configuration,
        but for what is about a running server.
        """
        self.add_user(name)
        if scopes is None:
            said = json.loads((self.folder / "server_token_scopes.json").read_text())
            scopes = [one for one in said if not one.endswith("!server")]
            scopes = scopes or ["users:activity!user"]
        asked = {"scopes": scopes, "expires_in": expires_in, "note": "made by a test"}
        token = self.do("POST", f"/users/{name}/tokens", asked)["token"]
        assert isinstance(token, str)
        return token

    # -- users' servers

    def spawn(self, name: str) -> str:
        """Start the user's server; its URL, without a slash at the end, when it is ready."""
        self.add_user(name)
        response = self.api("POST", f"/users/{name}/server")
        assert response.status_code in (201, 202), response.text
        wait_until(lambda: self._is_ready(name), f"the server of {name}", pause=PAUSE)
        return f"{self.url}/user/{name}"

    def _is_ready(self, name: str) -> bool:
        server = self._server(name)
        assert server, f"the server of {name} did not start:\n{self.log.read_text()}"
        return bool(server["ready"])

    def _server(self, name: str) -> Any:
        return self.do("GET", f"/users/{name}?include_stopped_servers")["servers"].get("")

    def stop_server(self, name: str) -> None:
        assert self.api("DELETE", f"/users/{name}/server").status_code in (202, 204)
        ended = f"the end of {name}'s server"
        wait_until(lambda: not self._server(name)["pending"], ended, pause=PAUSE)

    def environment(self, name: str) -> dict[str, str]:
        """What the hub gave to the user's running server."""
        pid = self._server(name)["state"]["pid"]
        return dict(psutil.Process(pid).environ())

    def server_token(self, name: str) -> str:
        """The token of the user's running server."""
        return self.environment(name)["JUPYTERHUB_API_TOKEN"]

    # -- services

    def wait_for_service(self, name: str) -> str:
        """Its URL behind the proxy, without a slash at the end, when it answers there."""
        url = f"{self.url}/services/{name}"

        def answers() -> bool:
            # The hub itself answers 404 until the proxy knows of it, then the proxy 503.
            said = self._session.get(f"{url}/", allow_redirects=False, timeout=PATIENCE)
            return said.status_code < 500 and "x-jupyterhub-version" not in said.headers

        wait_until(answers, f"the service {name} behind the proxy", pause=PAUSE)
        return url

    # -- in a browser

    def browser(self, name: str) -> requests.Session:
        """The cookies of somebody who has logged in by name (DummyAuthenticator)."""
        session = requests.Session()
        session.trust_env = False
        page = session.get(f"{self.url}/hub/login", timeout=PATIENCE)
        found = re.search(r'name="_xsrf"\s+value="([^"]+)"', page.text)
        assert found, page.text
        fields = {"username": name, "password": "", "_xsrf": found[1]}
        said = session.post(
            f"{self.url}/hub/login", data=fields, allow_redirects=False, timeout=PATIENCE
        )
        assert said.status_code == 302, said.text
        return session


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


def python_of(version: int) -> Path:
    if version == 6:
        return Path(sys.executable)
    python = Path(sys.prefix) / f"hub{version}" / "bin" / "python"
    if not python.exists():
        missing(f"there is no JupyterHub {version} in {python.parent.parent}: make test makes it")
    return python
