"""A real object store for as long as a command runs: `python -m tests.support.ceph -- COMMAND ...`.

One monitor, one OSD that keeps everything in memory, and the RADOS gateway, all on loopback, on
ports that are free, in a temporary directory. The command finds them in NBEXCHANGE_TEST_S3*, and
its exit status is ours. Needs Debian's ceph-mon, ceph-osd, radosgw and ceph-common, and no rights
but those to start them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.support.parts import free_port
from tests.support.stores import ENDPOINT, KEY, SECRET

PATIENCE = 120
"""Seconds until the cluster has to be up; it takes about ten."""

CONF = """\
[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{mon}
public addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
# Without this the gateway waits for ever for keys that nobody has.
ms mon client mode = crc
ms bind ipv6 = false
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon max pg per osd = 1000
mon data = {directory}/mon
mon data avail crit = 0
mon data avail warn = 0
osd data = {directory}/osd
osd objectstore = memstore
memstore device bytes = 4294967296
osd crush chooseleaf type = 0
osd memory target = 939524096
run dir = {directory}
log file = {directory}/$name.log
log to stderr = false
admin socket = {directory}/$name.asok
pid file =
crash dir =
[client.rgw]
rgw data = {directory}/rgw
rgw frontends = beast endpoint=127.0.0.1:{gateway}
rgw thread pool size = 32
rgw enable usage log = false
rgw dynamic resharding = false
# What was deleted is gone soon, or the memory is full after a few large files.
rgw gc obj min wait = 1
rgw gc processor period = 5
rgw gc processor max time = 5
"""


class CannotStart(Exception):
    """Says which part it was and what it said last."""


class Cluster:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.endpoint = ""
        self._conf = directory / "ceph.conf"
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> dict[str, str]:
        """Bring it up; what a command needs to know of it."""
        fsid, mon, gateway = str(uuid.uuid4()), free_port(), free_port()
        for name in ("mon", "osd", "rgw"):
            (self.directory / name).mkdir()
        self._conf.write_text(
            CONF.format(fsid=fsid, mon=mon, gateway=gateway, directory=self.directory)
        )
        self._start_monitor(fsid, mon)
        self._start_osd()
        self.endpoint = f"http://127.0.0.1:{gateway}"
        self._daemon("gateway", "radosgw", "-n", "client.rgw")
        self._wait("gateway", self._gateway_answers)
        user = json.loads(
            self._run("radosgw-admin", "user", "create", "--uid=test", "--display-name=test")
        )
        (keys,) = user["keys"]
        return {ENDPOINT: self.endpoint, KEY: keys["access_key"], SECRET: keys["secret_key"]}

    def stop(self) -> None:
        for process in reversed(self._running.values()):
            process.kill()
            process.wait()

    def _start_monitor(self, fsid: str, port: int) -> None:
        monmap = str(self.directory / "monmap")
        address = f"[v2:127.0.0.1:{port}]"
        self._run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monmap)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
        self._daemon("monitor", "ceph-mon", "-i", "a")

    def _start_osd(self) -> None:
        number = str(uuid.uuid4())
        self._wait("monitor", lambda: self._ceph("osd", "new", number, "0"))
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", number)
        self._daemon("OSD", "ceph-osd", "-i", "0")
        self._wait("OSD", lambda: json.loads(self._ceph("osd", "stat") or "{}").get("num_up_osds"))

    def _ceph(self, *arguments: str) -> str:
        """What it answers; nothing while there is nobody to ask."""
        command = ["ceph", "--connect-timeout=5", "--format=json", *arguments]
        done = subprocess.run(
            [*command, "--conf", str(self._conf)], capture_output=True, text=True, check=False
        )
        return (done.stdout or " ") if done.returncode == 0 else ""

    def _run(self, program: str, *arguments: str) -> str:
        try:
            done = subprocess.run(
                [program, "--conf", str(self._conf), *arguments],
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
        except FileNotFoundError as error:
            raise CannotStart(
                f"{program} is not installed; on Debian: apt-get install "
                "--no-install-recommends ceph-mon ceph-osd radosgw ceph-common"
            ) from error
        if done.returncode:
            raise CannotStart(f"{program} {arguments[0]} failed: {done.stderr or done.stdout}")
        return done.stdout

    def _daemon(self, name: str, program: str, *arguments: str) -> None:
        with open(self.directory / f"{name}.out", "wb") as output:
            self._running[name] = subprocess.Popen(
                [program, "--foreground", "--conf", str(self._conf), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait(self, name: str, condition: object) -> None:
        assert callable(condition)
        deadline = time.monotonic() + PATIENCE
        while not condition():
            code = self._running[name].poll()
            if code is not None:
                raise CannotStart(f"the {name} ended with {code}: {self._last_words()}")
            if time.monotonic() > deadline:
                raise CannotStart(f"the {name} was not up after {PATIENCE} s: {self._last_words()}")
            time.sleep(0.1)

    def _gateway_answers(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with contextlib.suppress(OSError), opener.open(self.endpoint, timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    def _last_words(self) -> str:
        files = sorted([*self.directory.glob("*.out"), *self.directory.glob("*.log")])
        return "".join(f"\n-- {file.name}\n{_tail(file)}" for file in files)


def _tail(file: Path) -> str:
    return "\n".join(file.read_text(errors="replace").splitlines()[-15:])


@contextlib.contextmanager
def cluster() -> Iterator[dict[str, str]]:
    # Short, because the path of a socket may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="ceph-") as directory:
        running = Cluster(Path(directory))
        try:
            yield running.start()
        finally:
            running.stop()


def main(arguments: list[str]) -> int:
    command = arguments[1:] if arguments[:1] == ["--"] else arguments
    if not command:
        print(__doc__, file=sys.stderr)
        return 2
    # Told to end, we end as after Ctrl-C: what was started has to stop.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        begun = time.monotonic()
        with cluster() as settings:
            took = time.monotonic() - begun
            print(f"Ceph is up at {settings[ENDPOINT]} after {took:.0f} s", file=sys.stderr)
            return subprocess.run(command, env={**os.environ, **settings}, check=False).returncode
    except CannotStart as error:
        print(f"Ceph does not start: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
