"""examples/hub-local, started as `make hub-local` starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from tests.support.hub import python_of
from tests.support.jupyter import SLOW
from tests.support.output import Output
from tests.support.parts import PATIENCE, needs

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "hub-local"
RUN = EXAMPLE / "run.py"


class HubLocal:
    """Runs from `with` to its end, on ports that are free, and keeps everything in `data`."""

    def __init__(self, data: Path, *, version: int = 6, env: Mapping[str, str] | None = None):
        self.data = data
        self.log = data / "hub.log"
        self._python = python_of(version)
        self._env = env or {}
        self.left: list[str] = []
        """What still ran when it had stopped."""

    def __enter__(self) -> HubLocal:
        needs("configurable-http-proxy")
        try:
            self.start()
        except BaseException:
            self.interrupt()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.interrupt()

    def start(self) -> None:
        """Returns when it has said which address to open."""
        outer = Path(sys.prefix)
        unhurried = self.data / "unhurried"
        unhurried.mkdir(parents=True, exist_ok=True)
        (unhurried / "jupyter_server_config.json").write_text(json.dumps({"ServerApp": SLOW}))
        environment = {
            **{name: value for name, value in os.environ.items() if "JUPYTER" not in name},
            # Looked for below `sys.prefix`, which is another one in the environment of hub 5.
            "JUPYTER_CONFIG_PATH": f"{unhurried}{os.pathsep}{outer / 'etc' / 'jupyter'}",
            "JUPYTER_PATH": str(outer / "share" / "jupyter"),
            "PATH": os.pathsep.join([str(outer / "bin"), os.environ["PATH"]]),
            **self._env,
        }
        arguments = ["--port=0", "--platform-port=0", f"--data={self.data}"]
        self._process = psutil.Popen(
            [self._python, RUN, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.output = Output(os.dup(self._process.stdout.fileno()))
        self._process.stdout.close()
        self.platform_url = self._said(r"^Open (http://\S+) ")
        self.url = self._said(r"the hub +(http://\S+)")

    def _said(self, pattern: str) -> str:
        found = self.output.wait_for(pattern)
        assert found, f"it did not come up:\n{self.output}"
        return found[1]

    def interrupt(self) -> int:
        """Ctrl-C: its exit status. What it left behind is noted, and killed."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        psutil.wait_procs([self._process], PATIENCE)
        left = self._ours()
        self.left += left.values()
        for process in left:
            process.kill()
        psutil.wait_procs([self._process, *left], PATIENCE)
        return int(self._process.wait(PATIENCE))

    def processes(self) -> list[str]:
        """The commands that run because of it, be they children of ours or nobody's."""
        return list(self._ours().values())

    def _ours(self) -> dict[psutil.Process, str]:
        return {one: command for one in psutil.process_iter() if (command := self._told(one))}

    def _told(self, process: psutil.Process) -> str:
        try:
            command = " ".join(process.cmdline())
            told = [command, process.cwd(), *process.environ().values()]
        except psutil.Error:
            return ""
        return command if any(str(self.data) in one for one in told) else ""
