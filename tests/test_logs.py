"""The log: one line a request, of who did what and nothing of what it was done to.

Read from the standard error of the program itself, in each of its two styles. That nothing in a
request makes a line long, or a second one, is asked of the plain style by test_secrets.py as well.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from nbexchange.exchange.policy import Verb
from nbexchange.logs import LONGEST_LINE, JsonFormatter, OneLineFormatter
from nbexchange.text import is_safe
from tests.support.archives import tar_gz_of, upload_headers
from tests.support.canaries import every_verb
from tests.support.course import PS1, WORK, receipt, release, submit
from tests.support.numbers import Numbers
from tests.support.process import ServiceProcess, run_program, wait_until
from tests.support.raw import RawConnection

JSON = "c.NbExchange.log_style = 'json'\n"
PLAIN = "c.NbExchange.log_style = 'plain'\n"

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


class Log:
    """What a service says from now on."""

    def __init__(self, service: ServiceProcess, style: str) -> None:
        self.service = service
        self._read = json.loads if style == JSON else read_plain
        self._start = len(service.output.lines)

    @property
    def lines(self) -> list[str]:
        return self.service.output.lines[self._start :]

    def records(self) -> list[dict[str, Any]]:
        return [self._read(line) for line in self.lines if not line.startswith("  ")]

    def requests(self, number: int) -> list[dict[str, Any]]:
        """Wait until so many are told of."""
        return wait_until(
            lambda: found if len(found := self._requests()) >= number else None, "a line"
        )

    def _requests(self) -> list[dict[str, Any]]:
        return [said for said in self.records() if said["logger"] == "tornado.access"]


def read_plain(line: str) -> dict[str, Any]:
    found = re.fullmatch(r"(\S+ \S+) (\w+) ([\w.]+): (.*)", line)
    assert found, line
    words = shlex.split(found[4])
    facts = dict(word.split("=", 1) for word in words if "=" in word)
    numbers = {name: float(value) for name, value in facts.items() if is_number(value)}
    message = " ".join(word for word in words if "=" not in word)
    fixed = {"time": found[1], "level": found[2], "logger": found[3], "message": message}
    return fixed | facts | numbers


def is_number(text: str) -> bool:
    return bool(re.fullmatch(r"\d+(\.\d+)?", text))


@pytest.fixture(params=[PLAIN, JSON], ids=["plain", "json"])
def log(data: Path, request: pytest.FixtureRequest) -> Iterator[Log]:
    with ServiceProcess(data, request.param) as service:
        yield Log(service, request.param)


@pytest.fixture
def json_log(data: Path) -> Iterator[Log]:
    with ServiceProcess(data, JSON) as service:
        yield Log(service, JSON)


# -- a line a request


def test_each_request_has_a_line_with_who_and_what(log: Log):
    service = log.service
    receipt(release(service.instructor("physics", "ada", 7)))
    answer = submit(service.student("physics", "bob with a space", 7))

    said = log.requests(2)

    assert len(said) == 2
    assert [line["verb"] for line in said] == ["release", "submit"]
    assert [line["user"] for line in said] == ["ada", "bob with a space"]
    for line in said:
        assert line["organisation"] == 7
        assert (line["method"], line["status"]) == ("POST", 201)
        assert line["bytes_in"] == len(WORK)
        assert line["duration_ms"] > 0
        assert line["level"] == "INFO"
    assert said[1]["path"] == "/services/nbexchange/submission"
    assert said[1]["request_id"] == answer.headers["X-Request-Id"]
    assert said[1]["bytes_out"] == len(answer.content)


def test_a_line_says_nothing_of_courses_and_of_what_was_sent(log: Log):
    every_verb(log.service)

    said = log.requests(len(Verb))

    assert {line["verb"] for line in said} == {verb.name.lower() for verb in Verb}
    assert {line["user"] for line in said} == {"canary-instructor", "canary-student"}
    # But for the two acts that someone may have to undo.
    kept = [line for line in log.lines if "was hidden by" in line or "was restored by" in line]
    assert len(kept) == 2
    text = "\n".join(line for line in log.lines if line not in kept)
    assert "canary" not in text.replace("canary-instructor", "").replace("canary-student", "")


def test_a_refusal_says_its_reason_and_a_stranger_has_no_name(log: Log):
    release(log.service.student())
    log.service.wire("canary-token").get("assignments")

    forbidden, unknown = log.requests(2)

    assert (forbidden["status"], forbidden["reason"]) == (403, "Forbidden")
    assert (forbidden["user"], forbidden["verb"]) == ("bob", "release")
    assert (unknown["status"], unknown["reason"]) == (401, "Unauthenticated")
    assert "user" not in unknown
    assert "canary" not in "\n".join(log.lines)


def test_an_upload_that_is_broken_off_has_its_line(log: Log):
    service = log.service
    receipt(release(service.instructor()))
    with RawConnection(service.url, service.enrol("bob", {"physics": "Student"})) as connection:
        headers = upload_headers(WORK) | {"Content-Length": str(len(WORK))}
        connection.send(connection.head("POST", "submission", headers, **PS1), WORK[:9])
        wait_until(lambda: Numbers(service).get("nbexchange_uploads_in_flight") == 1)
        connection.reset()

    _, broken = log.requests(2)

    assert (broken["status"], broken["reason"]) == (499, "BrokenOff")
    assert (broken["user"], broken["verb"]) == ("bob", "submit")


def test_a_download_whose_reader_goes_away_does_not_pass_for_whole(log: Log):
    """Its answer had begun, so its status stays what the reader was told."""
    service = log.service
    receipt(release(service.instructor(), tar_gz_of({"data": os.urandom(20_000_000)})))
    with RawConnection(service.url, service.enrol("bob", {"physics": "Student"})) as connection:
        connection.send(connection.head("GET", "assignment", **PS1))
        assert connection.socket.recv(100)
        connection.reset()

    _, broken = log.requests(2)

    assert (broken["status"], broken["reason"]) == (200, "BrokenOff")
    assert "bytes_out" not in broken
    numbers = Numbers(service)
    assert numbers.get("nbexchange_refusals_total", reason="BrokenOff") == 1
    assert numbers.get("nbexchange_verbs_total", verb="fetch") == 0


def ask(service: ServiceProcess, path: str, **headers: str) -> requests.Response:
    return service.wire(None).get(path, headers=headers)


def test_probes_and_scrapes_are_told_of_only_when_they_fail(log: Log):
    for path in ("healthz", "readyz", "../../metrics", "metrics"):
        ask(log.service, path)
    ask(log.service, "")

    refused, home = log.requests(2)

    assert (refused["path"], refused["status"]) == ("/services/nbexchange/metrics", 404)
    assert home["path"] == "/services/nbexchange/"


THEIRS = {
    "as nginx makes them": ("0123456789abcdef0123456789abcdef", True),
    "a trace": ("1-67891233:abcdef01/2+3=", True),
    "long": ("a" * 65, False),
    "with a space": ("a b", False),
    "with quotes": ('a"b', False),
    "with letters that are not ASCII": ("é", False),
    "none": ("", False),
}


@pytest.mark.parametrize(("theirs", "is_told"), THEIRS.values(), ids=THEIRS)
def test_a_proxys_id_of_a_request_is_told_beside_ours(json_log: Log, theirs: str, is_told: bool):
    answer = json_log.service.wire(None).get("", headers={"X-Request-Id": theirs.encode()})

    (said,) = json_log.requests(1)

    assert said.get("proxy_request_id") == (theirs if is_told else None)
    assert said["request_id"] == answer.headers["X-Request-Id"] != theirs


# -- what people send


HOSTILE = (
    'x\n2000-01-01 forged user=root\r\n{"forged": 1}\u2028\x85\x1b[2J\x7f\u202e\u2066"\' '
    'user="root" '
)


def test_nothing_that_people_send_makes_a_line_long_or_a_second_one(log: Log):
    service = log.service
    name = "".join(filter(is_safe, HOSTILE))
    service.enrol(name, {"x": "Student"}, token="hostile")
    sent = 0
    for wire in (service.wire("hostile"), service.wire("canary-token")):
        for value in (HOSTILE, HOSTILE * 100, "x" * 20_000):
            for path in ("assignments", "collections", "history"):
                sent += wire.get(path, course_id=value).status_code > 0
    tail = b" HTTP/1.1\r\nHost: x\r\n\r\n"
    for line in (
        b"GET /" + b"x" * 20_000,
        b"X" * 5_000 + b" /services/nbexchange/assignments",
        b"GET /%0aforged%0d%0a{",
        b'GET /"\xc2\x85\xe2\x80\xa8user="root"\xa0status=200\xff',
        b"GET /\x1b[2J",
    ):
        with RawConnection(service.url) as connection:
            connection.send(line + tail)
            connection.socket.shutdown(1)
            assert connection.is_closed()
    ask(service, "")

    # Of what is no HTTP at all Tornado tells in words of its own, or not at all.
    wait_until(
        lambda: log._requests()[sent:] and log._requests()[-1]["path"].endswith("nbexchange/")
    )
    lines = log.lines
    assert sent > 10
    assert max(len(line.encode()) for line in lines) <= LONGEST_LINE
    assert [line for line in lines if not printable(line)] == []
    assert {said.get("user") for said in log._requests()} <= {None, name}
    assert {said["status"] for said in log._requests()} <= {200, 400, 401, 404, 405}
    assert [said for said in log.records() if "forged" in said] == []


def printable(line: str) -> bool:
    return not re.search("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", line)


# -- JSON


def test_every_line_of_json_is_an_object_with_time_level_logger_and_message(data: Path):
    with ServiceProcess(data, JSON + "c.NbExchange.debug = True\n") as service:
        ask(service, "nowhere")
        ask(service, "healthz")
        service.terminate()
        assert service.wait() == 0
        service.output.wait_for("never said")
        lines = service.output.lines

    said = [json.loads(line) for line in lines]
    assert len(said) >= 4
    assert all(set(line) >= {"time", "level", "logger", "message"} for line in said)
    assert all(RFC_3339.fullmatch(line["time"]) for line in said)
    first = datetime.datetime.fromisoformat(said[0]["time"])
    assert abs(datetime.datetime.now(datetime.UTC) - first) < datetime.timedelta(minutes=5)
    assert [line["message"] for line in said if "stopping" in line["message"]] == ["stopping"]
    assert "DEBUG" in {line["level"] for line in said}


BROKEN = """
from nbexchange.handlers.auth.user_handler import BaseUserHandler

class Broken(BaseUserHandler):
    def get_current_user(self, request):
        raise ValueError("the last words\\nof a failure " + "é" * 100_000 + " and its end")

c.NbExchange.user_plugin_class = Broken
"""


def test_a_traceback_is_one_line_of_json_with_the_id_of_its_request(data: Path):
    with ServiceProcess(data, JSON + BROKEN) as service:
        log = Log(service, JSON)
        answer = service.wire("x").get("assignments")
        (request,) = log.requests(1)

        (failure,) = [said for said in log.records() if said["level"] == "ERROR"]

    assert failure["request_id"] == request["request_id"] == answer.json()["request_id"]
    assert request["reason"] == "MalformedIdentity"
    assert failure["message"] == "failed"
    assert failure["exception"].startswith("Traceback")
    assert failure["exception"].endswith("the user handler failed")
    assert max(len(line) for line in log.lines) <= LONGEST_LINE
    assert "the last words" not in answer.text


def formatted(message: str, error: BaseException | None = None, **facts: Any) -> str:
    info = (type(error), error, None) if error else None
    record = logging.LogRecord("a.logger", logging.ERROR, "", 0, message, None, info)
    record.fields = facts
    return JsonFormatter().format(record)


@given(st.text(), st.text(), st.text())
def test_any_text_is_a_line_of_json(message: str, failure: str, user: str):
    line = formatted(message, ValueError(failure), user=user)

    said = json.loads(line)
    assert line.isascii()
    assert line.isprintable()
    assert (said["message"], said["user"]) == (message, user)
    assert failure in said["exception"]


@pytest.mark.parametrize("letter", ["x", "é", "💥", "\0", '"', "\ud800", "\x7f"])
def test_a_line_of_json_is_cut_to_the_longest_and_stays_json(letter: str):
    line = formatted(letter * 10**6, ValueError(letter * 10**6), path=letter * 10**6, status=200)

    said = json.loads(line)
    assert len(line.encode()) <= LONGEST_LINE
    assert line.isprintable()
    assert said["status"] == 200
    assert said["message"].startswith(letter)
    assert said["exception"].endswith(letter)


# -- plain


VALUES = {
    "a b": '"a b"',
    'a" user="root': r'"a\" user=\"root"',
    "": '""',
    "ada@example.org": "ada@example.org",
    "bob=1": '"bob=1"',
    "学生": '"学生"',
}


@pytest.mark.parametrize(("value", "told"), VALUES.items(), ids=VALUES)
def test_no_value_looks_like_more_than_a_value(value: str, told: str):
    record = logging.LogRecord("a", logging.INFO, "", 0, "request", None, None)
    record.fields = {"user": value, "status": 200}

    line = OneLineFormatter("%(message)s").format(record)

    assert line == f"request user={told} status=200"


def test_a_style_that_nobody_knows_is_refused(tmp_path: Path):
    done = run_program(f"--base-storage-location={tmp_path}", "--NbExchange.log_style=xml")

    assert done.returncode != 0
    assert "log_style" in done.stderr
    assert "plain" in done.stderr
    assert not list(tmp_path.iterdir())
