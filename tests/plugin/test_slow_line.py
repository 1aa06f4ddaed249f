"""Work that arrives, once, over a line that stands still, or while the service is busy."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nbexchange.handlers.auth.token_file import TokenFileUserHandler
from nbexchange.plugin.client import BearerToken, Client, Payload, Unreachable
from nbexchange.plugin.connections import session
from tests.plugin.conftest import ran_well
from tests.plugin.middleman import Answer, Middleman, drop, hang, lose, say
from tests.support.archives import tar_gz_of
from tests.support.course import receipt, release
from tests.support.line import Line, stalls
from tests.support.nbgrader import Home
from tests.support.service import Service, configured

CONNECT = 0.3
"""Seconds for a connection; all that follows takes longer."""

STALL = 1.0
LARGE = 8_000_000
"""Bytes; the system takes up to four million before the sender notices that nothing moves."""


def stored(service: Service) -> list[dict[str, Any]]:
    """The submissions as an instructor sees them."""
    value = service.instructor().get("collections", course_id="physics").json()["value"]
    assert isinstance(value, list)
    return value


@pytest.fixture
def mine(alice: Home, released: str) -> Path:
    """Alice's folder, with a large file in it."""
    alice.configure(f"c.Exchange.connect_timeout = {CONNECT}")
    ran_well(alice, "fetch_assignment", released)
    (alice.work / "ps1" / "data.bin").write_bytes(os.urandom(LARGE))
    return alice.work / "ps1"


@pytest.mark.usefixtures("mine")
def test_a_submission_over_a_line_with_three_stalls_arrives_once(service, alice):
    behave = stalls(500_000, 1_000_000, 1_500_000, seconds=STALL)
    with Line(alice.url, behave) as line:
        alice.url = line.url

        ran = ran_well(alice, "submit", "ps1")

    (submission,) = stored(service)
    assert submission["size"] > LARGE
    assert sum(line.passed) < 1.1 * submission["size"]
    assert ran.output.count(f"Submitted as: physics ps1 {submission['timestamp']}") == 1


class SlowUserHandler(TokenFileUserHandler):
    """Takes a while to authenticate a request."""

    async def get_current_user(self, request: Any) -> Any:
        if request.request.method == "POST":
            await asyncio.sleep(STALL)
        return await super().get_current_user(request)


def test_a_submission_waits_while_the_service_learns_who_sends_it(data, zygote, tmp_path):
    work = tar_gz_of({"p1.ipynb": b"{}", "data.bin": os.urandom(LARGE)})
    with configured(data, user_plugin_class=SlowUserHandler) as service:
        receipt(release(service.instructor()))
        token = service.enrol("alice", {"physics": "Student"})
        alice = Home(tmp_path / "machine", service.url, token, zygote)
        alice.configure(f"c.Exchange.connect_timeout = {CONNECT}")
        (alice.work / "ps1").mkdir()
        (alice.work / "ps1" / "p1.ipynb").write_text("{}")
        (alice.work / "ps1" / "data.bin").write_bytes(work)

        ran_well(alice, "submit", "ps1")

        assert len(stored(service)) == 1


# The client by itself


@pytest.fixture(autouse=True)
def _no_kept_connections() -> Iterator[None]:
    yield
    session().close()


class Sleeps:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def client(self, url: str, token: str, **timeouts: float) -> Client:
        return Client(
            url,
            _Token(token),
            logging.getLogger("test"),
            sleep=self.slept.append,
            clock=lambda: sum(self.slept),
            **timeouts,
        )


class _Token(BearerToken):
    def __init__(self, token: str) -> None:
        self._token = token


@pytest.fixture
def token(service: Service, released: str) -> str:
    return service.enrol("bob", {"physics": "Student"})


def parcel(size: int = 1000) -> Payload:
    body = tar_gz_of({"p1.ipynb": b"{}", "data.bin": os.urandom(size)})
    return Payload(io.BytesIO(body), "application/gzip")


def test_each_try_lets_the_line_stand_still_for_longer(service, token):
    """It stands still in every connection, for more than two tries wait and less than three."""

    stalled = set()

    def behave(number: int, passed: int) -> None:
        if passed >= 100_000 and number not in stalled:
            stalled.add(number)
            time.sleep(1.5)

    with Line(service.url, behave) as line:
        Sleeps().client(line.url, token, send_timeout=0.6).submit("physics", "ps1", parcel(LARGE))

    assert len(stalled) == 3
    assert len(stored(service)) == 1


def test_a_file_goes_into_a_stall_once(service, token):
    """A line that lets nothing through any more gets a few bytes that ask whether it does."""

    def behave(number: int, passed: int) -> None:
        if passed >= 500_000 or number > 1:
            line.stand_still()

    with (
        Line(service.url, behave) as line,
        pytest.raises(Unreachable),
    ):
        Sleeps().client(line.url, token, send_timeout=0.3, api_timeout=0.3).submit(
            "physics", "ps1", parcel(LARGE)
        )

    assert stored(service) == []
    assert len(line.passed) == 1 + 3
    assert max(line.received[1:]) < 1000


def test_a_file_is_sent_again_when_the_service_answers_with_the_same_key(service, token, trouble):
    trouble.next("POST submission", lose)
    trouble.next("GET healthz", drop, drop)
    sleeps = Sleeps()

    sleeps.client(trouble.url, token).submit("physics", "ps1", parcel())

    names = [f"{seen.method} {seen.name}" for seen in trouble.seen]
    assert names == ["POST submission", *3 * ["GET healthz"], "POST submission"]
    assert len({seen.headers["idempotency-key"] for seen in trouble.requests(names[0])}) == 1
    assert sleeps.slept == sorted(sleeps.slept)
    assert len(stored(service)) == 1


def test_a_try_that_was_answered_is_followed_by_the_next_and_nothing_between(
    service, token, trouble
):
    """A proxy with two replicas, one of them gone, would give each second request to that one."""
    trouble.next(
        "POST submission", say(Answer(502, {"Content-Type": "text/html"}, b"<h1>Bad</h1>"))
    )

    Sleeps().client(trouble.url, token).submit("physics", "ps1", parcel())

    assert [seen.name for seen in trouble.seen] == ["submission", "submission"]
    assert len(stored(service)) == 1


def test_a_receipt_is_waited_for_longer_than_a_list(service, token, trouble: Middleman):
    def late(handler: Any, seen: Any) -> None:
        answer = handler.forward(seen)
        time.sleep(1)
        handler.send(answer)

    trouble.always("POST submission", late)
    client = Sleeps().client(trouble.url, token, api_timeout=0.5)

    client.submit("physics", "ps1", parcel())

    assert len(trouble.requests("POST submission")) == 1


def test_a_fetched_file_that_stops_is_not_waited_for_like_a_receipt(service, token, trouble):
    def stop_in_the_middle(handler: Any, seen: Any) -> None:
        answer = handler.forward(seen)
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(answer.body)))
        handler.end_headers()
        handler.wfile.write(answer.body[:100])
        hang(handler, seen)

    trouble.next("GET assignment", stop_in_the_middle)
    client = Sleeps().client(trouble.url, token, api_timeout=0.5, transfer_timeout=60)

    with client.fetch("physics", "ps1") as file:
        assert len(file.read()) > 100
    assert len(trouble.requests("GET assignment")) == 2
