"""Secrets stay secret, and nobody writes the log but the service.

The program runs as an operator runs it, with everything logged that can be, and is sent secrets in
every place that a client, an operator or a mistake may put them.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
import requests

from nbexchange.logs import LONGEST_LINE, OneLineFormatter
from tests.support.archives import tar_gz, upload_headers
from tests.support.parts import PATIENCE

BODY = tar_gz(p1=b"{}")
PLACE = {"course_id": "physics", "assignment_id": "ps1"}

KNOWN = "canary-known-4f1d"
"""Ada's token."""

UNKNOWN = "canary-unknown-91ab"
"""A token of nobody; also a password and whatever else should not be told."""


class Program:
    """`nbexchange`, in a process of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.people = folder / "people.json"
        self.people.write_text(
            json.dumps({KNOWN: {"name": "ada", "courses": {"physics": "Instructor"}}})
        )
        handler = "nbexchange.handlers.auth.token_file.TokenFileUserHandler"
        self.process = start(
            "--ip=127.0.0.1",
            "--port=0",
            f"--base-storage-location={folder / 'data'}",
            f"--user-plugin-class={handler}",
            f"--TokenFileUserHandler.path={self.people}",
            *options,
        )
        self.lines: list[bytes] = []
        self._listening = threading.Event()
        assert self.process.stderr is not None
        self._reader = threading.Thread(target=self._read, args=[self.process.stderr])
        self._reader.start()
        assert self._listening.wait(PATIENCE)
        assert self.process.poll() is None, b"".join(self.lines)

    def _read(self, stderr: IO[bytes]) -> None:
        for line in stderr:
            self.lines.append(line)
            found = re.search(rb"on port (\d+)/", line)
            if found:
                self.port = int(found[1])
                self._listening.set()
        self._listening.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/services/nbexchange"

    def metrics(self) -> bytes:
        page = requests.get(f"http://127.0.0.1:{self.port}/metrics", timeout=PATIENCE)
        page.raise_for_status()
        return page.content

    def raw(self, request: bytes) -> bytes:
        """What comes back for bytes that no well-behaved client sends."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
            return answer

    def stop(self) -> bytes:
        """End it; everything that it wrote."""
        self.process.terminate()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        said = self.process.stdout.read() + b"".join(self.lines)
        self.process.stdout.close()
        self.process.stderr.close()
        return said


def start(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "nbexchange", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )


@pytest.fixture
def program(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Program]:
    running = Program(tmp_path, *getattr(request, "param", ["--debug"]))
    yield running
    if running.process.poll() is None:
        running.stop()


def hits(text: bytes) -> list[bytes]:
    """The secrets in a text, as they are or as they travel."""
    secrets = [KNOWN.encode(), UNKNOWN.encode()]
    travelling = [base64.b64encode(b"ada:" + secret) for secret in secrets]
    return [secret for secret in secrets + travelling if secret in text]


def everything(answer: requests.Response) -> bytes:
    return str(answer.headers).encode() + answer.content


# -- secrets


@pytest.mark.parametrize("program", [["--debug", "--debug-db"]], indirect=True)
def test_no_secret_reaches_a_log_an_answer_a_metric_or_the_disk(program):
    answers = [everything(answer) for answer in polite_requests(program.url)]
    answers += [program.raw(request) for request in rude_requests()]
    told = b"".join(answers) + program.metrics()
    said = program.stop()
    stored = [path for path in (program.folder / "data").rglob("*") if path.is_file()]

    # All of it happened, and was logged.
    assert said.count(b"refused") > 10
    assert said.count(b"INSERT INTO submission") > 0
    assert told.count(b"HTTP/1.1 400") > 2
    assert len(stored) > 2
    assert hits(said) == []
    assert hits(told) == []
    assert [path for path in stored if hits(path.read_bytes())] == []


def polite_requests(url: str) -> Iterator[requests.Response]:
    """A cycle by Ada, then everything with secrets in the wrong places."""
    known = {"Authorization": f"Bearer {KNOWN}"}
    yield call("POST", f"{url}/assignment", known | upload_headers(BODY, "k"), BODY)
    yield call("POST", f"{url}/submission", known | upload_headers(BODY, "k"), BODY)
    form = {"assignment": ("x.tar.gz", BODY), "password": (None, UNKNOWN)}
    yield requests.post(
        f"{url}/submission", files=form, headers=known, params=PLACE, timeout=PATIENCE
    )
    basic = base64.b64encode(f"ada:{UNKNOWN}".encode()).decode()
    for path in ("assignments", "assignment", "collections", "feedback", "history", "nowhere", ""):
        for scheme in (f"Bearer {UNKNOWN}", f"Basic {basic}", f"token {UNKNOWN}", UNKNOWN):
            yield call("GET", f"{url}/{path}", {"Authorization": scheme})
        for headers in (known, {}):
            more = {
                "Cookie": f"_xsrf={UNKNOWN}; jupyterhub-session={UNKNOWN}",
                "Proxy-Authorization": f"Bearer {UNKNOWN}",
                "X-Api-Key": UNKNOWN,
                "Referer": f"https://ada:{UNKNOWN}@hub/?token={UNKNOWN}",
            }
            yield call("GET", f"{url}/{path}", headers | more, **misplaced())
            yield call("PUT", f"{url}/{path}", headers | more, **misplaced())


def misplaced() -> dict[str, str]:
    names = ("token", "access_token", "password", "api_key", "authorization")
    return dict.fromkeys(names, UNKNOWN)


def call(
    method: str, url: str, headers: dict[str, str], body: bytes | None = None, **params: str
) -> requests.Response:
    return requests.request(
        method, url, headers=headers, data=body, params={**PLACE, **params}, timeout=PATIENCE
    )


def rude_requests() -> Iterator[bytes]:
    """Requests that Tornado cannot read, with a token in them."""
    secret = UNKNOWN.encode()
    start_line = b"GET /services/nbexchange/assignments HTTP/1.1\r\nHost: x\r\n"
    for header in (
        b"Authorization: Bearer " + secret + b"\x01",
        b"Authorization: Bearer " + secret + b"\0",
        b"Authorization : Bearer " + secret,
        b"Bearer " + secret,
        secret + b"\x7f: x",
        b"Content-Length: " + secret,
        b"Transfer-Encoding: " + secret,
        b"Host: " + secret,
        b"Authorization: Bearer " + secret + b"x" * 70_000,
    ):
        yield start_line + header + b"\r\n\r\n"
    yield b"GET /?token=" + secret + b" HTTP/9.9\r\n\r\n"
    yield b"GET /?token=" + secret + b" and more HTTP/1.1\r\n\r\n"


def test_a_token_file_that_is_not_valid_tells_nothing_of_what_is_in_it(program):
    program.people.write_text(f'{{"{KNOWN}": {{"name": "ada", {UNKNOWN}')
    answer = call("GET", f"{program.url}/readyz", {"Authorization": f"Bearer {KNOWN}"})

    assert b"is not valid: line 1, column" in answer.content
    said = program.stop()
    assert b"is not valid: line 1, column" in said
    assert hits(said + everything(answer)) == []


UNUSABLE = {
    "away": f"mysql+pymysql://nb:{UNKNOWN}@127.0.0.1:1/nb",
    "away, with the password in the query": f"mysql+pymysql://127.0.0.1:1/nb?password={UNKNOWN}",
    "no such driver": f"mysql+nodriver://nb:{UNKNOWN}@127.0.0.1/nb",
    "no such database": f"nodb://nb:{UNKNOWN}@127.0.0.1/nb",
    "an @ and a : that were not quoted": f"mysql+pymysql://nb:pa@x:{UNKNOWN}@127.0.0.1/nb",
    "an @ that was not quoted": f"mysql+pymysql://nb:pa@{UNKNOWN}@127.0.0.1:1/nb",
    "no URL at all": f"{UNKNOWN}",
    "in memory": f"sqlite:///:memory:?password={UNKNOWN}",
}


@pytest.mark.parametrize("url", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_database_that_cannot_be_used_is_named_without_its_password(tmp_path, url):
    data = f"--base-storage-location={tmp_path / 'data'}"
    process = start("--debug", "--port=0", data, NBEX_DB_URL=url)
    stdout, stderr = process.communicate(timeout=PATIENCE)

    assert process.returncode == 1
    assert b"database" in stderr or b"db_url" in stderr
    assert b"Traceback" not in stderr
    assert hits(stdout + stderr) == []


def test_options_of_a_store_that_are_no_mapping_are_not_quoted(tmp_path):
    config = tmp_path / "config.py"
    config.write_text(f"c.NbExchange.storage_options = [('secret_access_key', {UNKNOWN!r})]\n")
    process = start("--port=0", f"--config-file={config}")
    stdout, stderr = process.communicate(timeout=PATIENCE)

    assert process.returncode != 0
    assert b"storage_options has to be a mapping" in stderr
    assert hits(stdout + stderr) == []


# -- the log


CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]")


def test_no_request_makes_a_line_long_or_a_second_one(program):
    headers = {"Authorization": f"Bearer {KNOWN}"}
    forged = "x\n2000-01-01 forged\r\n2000-01-01 forged \u20282000-01-01\x85\x1b[2J"
    for value in (forged, forged * 100, "x" * 20_000):
        for name in ("course_id", "assignment_id", "action", "limit", "page", "path", "user_id"):
            for path in ("assignments", "assignment", "collections", "collection", "history"):
                params = {"course_id": "physics", "assignment_id": "x", "path": "x", name: value}
                url = f"{program.url}/{path}"
                requests.get(url, headers=headers, params=params, timeout=PATIENCE)
    for request in strange_requests():
        program.raw(request)

    said = program.stop()

    lines = said.splitlines(keepends=True)
    assert len(lines) > 150
    assert [line for line in lines if len(line) > LONGEST_LINE + 1] == []
    assert [line for line in lines if CONTROL.search(line)] == []
    assert [line for line in lines if not re.match(rb"\d{4}-\d\d-\d\d |  ", line)] == []
    assert [line for line in lines if line.startswith(b"2000-01-01")] == []


def strange_requests() -> Iterator[bytes]:
    tail = b" HTTP/1.1\r\nHost: x\r\n\r\n"
    yield b"GET /" + b"x" * 60_000 + tail
    yield b"X" * 10_000 + b" /services/nbexchange/assignments" + tail
    yield b"GET /%0a[NbExchange]%20forged%0d%0a" + tail
    yield b"GET /\xc2\x85\xe2\x80\xa8[NbExchange]forged\xff" + tail
    yield b"GET /\x1b[2J" + tail
    yield b"GET /\n[NbExchange] forged" + tail
    yield b"\r\n[NbExchange] forged\r\n\r\n"
    yield b"GET / HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n[NbExchange] forged: x\r\n\r\n"


def formatted(message: str, error: BaseException | None = None) -> str:
    info = (type(error), error, None) if error else None
    record = logging.LogRecord("NbExchange", logging.ERROR, "", 0, message, None, info)
    return OneLineFormatter("[%(name)s]%(highlevel)s %(message)s").format(record)


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "a\x85b", "a\u2028b", "a\x1b[2Jb", "a\0b"])
def test_a_message_is_one_line(text):
    line = formatted(text)

    assert line.splitlines() == [line]
    assert line.isprintable()


def test_a_message_of_any_length_is_cut_to_the_longest_line():
    assert len(formatted("x" * 10**6).encode()) == LONGEST_LINE
    assert len(formatted("💥" * 10**6).encode()) <= LONGEST_LINE
    assert formatted("lone \ud800").endswith(r"lone \ud800")


def test_an_error_cannot_begin_a_line_of_its_own():
    text = formatted("failed", ValueError("x\n[NbExchange] forged\n" + "y" * 10**6))

    first, *rest = text.splitlines()
    assert first.startswith("[NbExchange]")
    assert all(line.startswith("  ") for line in rest)
    assert max(map(len, rest)) <= LONGEST_LINE
