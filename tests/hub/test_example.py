"""examples/hub-local comes up by one command, says what is missing, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.hub import PAUSE
from tests.support.hub_local import EXAMPLE, RUN, HubLocal
from tests.support.lms import Browser
from tests.support.parts import PATIENCE, needs
from tests.support.process import wait_until

FAKE_NPM = """\
#!{python}
import json, os, sys
print("npm", *sys.argv[1:], flush=True)
folder = os.path.join(sys.argv[sys.argv.index("--prefix") + 1], "node_modules", ".bin")
os.makedirs(folder)
os.symlink({proxy!r}, os.path.join(folder, "configurable-http-proxy"))
"""


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The example, where it is expected to end by itself."""
    return subprocess.run(
        [sys.executable, RUN, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, **env},
    )


def test_without_node_it_says_what_to_install(tmp_path: Path):
    ended = run(f"--data={tmp_path}", PATH=str(tmp_path))

    assert ended.returncode == 1
    assert "configurable-http-proxy" in ended.stderr
    assert "apt install npm" in ended.stderr


@pytest.mark.parametrize("option", ["--port", "--platform-port"])
def test_a_port_that_is_taken_is_named(tmp_path: Path, option: str):
    needs("configurable-http-proxy")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run("--port=0", "--platform-port=0", f"{option}={port}", f"--data={tmp_path}")

    assert ended.returncode == 1
    assert f"Port {port} is taken" in ended.stderr
    assert f"{option}=0" in ended.stderr


def test_make_hub_local_starts_it():
    said = subprocess.run(
        [needs("make"), "--dry-run", "hub-local", "HUB_LOCAL_ARGS=--port=8100"],
        cwd=EXAMPLE.parents[1],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "python examples/hub-local/run.py --port=8100" in said.stdout


@pytest.fixture
def without_proxy(tmp_path: Path) -> str:
    """A PATH with Node.js and npm, but not with the hub's proxy. This npm asks no registry."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "node").symlink_to(needs("node"))
    npm = folder / "npm"
    npm.write_text(FAKE_NPM.format(python=sys.executable, proxy=needs("configurable-http-proxy")))
    npm.chmod(0o755)
    return str(folder)


def test_a_proxy_that_an_earlier_start_installed_is_found_as_text(tmp_path: Path):
    """What it finds becomes JSON; shutil.which returns a Path for a Path on Python 3.11."""
    installed = tmp_path / "node_modules" / ".bin" / "configurable-http-proxy"
    installed.parent.mkdir(parents=True)
    installed.write_text("#!/bin/sh\n")
    installed.chmod(0o755)
    code = "import json, pathlib, sys; sys.path.insert(0, sys.argv[1]); import run; "
    code += "print(json.dumps(run.proxy_program(pathlib.Path(sys.argv[2]))))"

    found = subprocess.run(
        [sys.executable, "-c", code, EXAMPLE, tmp_path],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PATH": str(tmp_path)},
    )

    assert json.loads(found.stdout) == str(installed)


@pytest.mark.slow
def test_it_comes_up_with_a_proxy_of_its_own_and_ctrl_c_stops_everything(
    tmp_path: Path, without_proxy: str
):
    with HubLocal(tmp_path / "data", env={"PATH": without_proxy}) as campus:
        eve = Browser(SimpleNamespace(url=campus.platform_url))
        eve.press("launch-eve-17-13-jupyterlab")
        eve.get(f"{campus.url}/hub/user-redirect/lab")
        lab = f"{campus.url}/user/eve/lab"
        wait_until(lambda: eve.get(lab).url.startswith(lab), "a JupyterLab", pause=PAUSE)
        running = campus.processes()
        status = campus.interrupt()
        wait_until(lambda: campus.output.over)

    assert "npm install" in str(campus.output)
    programs = ("hub-local/run.py", "jupyterhub --", "node_modules", "nbexchange --", "singleuser")
    assert [one for one in programs if not any(one in line for line in running)] == []
    assert status == 0
    assert campus.left == []
    assert campus.output.lines[-1] == "Everything is stopped."
