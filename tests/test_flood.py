"""A flood of bad requests, and requests that cost much to read: whoever sends them is refused and
slowed down, and nobody else waits."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import http.client
import itertools
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
import requests

from benchmarks.attackers import TOP, Attackers
from nbexchange.errors import Malformed
from nbexchange.handlers.multipart import MOST_PARTS, MultipartFile
from tests.hub import fake_hub
from tests.hub.exchange import Clock, exchange
from tests.support.course import PS1, receipt, release, submit
from tests.support.others import FLOOR_MS, MOST_ROUNDS, Waits
from tests.support.parts import PATIENCE
from tests.support.process import ServiceProcess, wait_until

# -- floods

FLOODS = {
    "of nobody": ("flood", False, {"401", "404", "405"}),
    "of somebody": ("flood", True, {"400", "404", "429"}),
    "of what is no HTTP": ("malformed", False, {"400"}),
}

RATE, BURST = 50, 200
"""Refusals a second that are answered, and at once after a rest."""


def test_a_flood_of_bad_requests_is_slowed_down_and_keeps_nobody_waiting(data: Path) -> None:
    _flood(data, *FLOODS["of somebody"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["of nobody", "of what is no HTTP"])
def test_a_long_flood_of_bad_requests_keeps_nobody_waiting(data: Path, name: str) -> None:
    _flood(data, *FLOODS[name])


def _flood(data: Path, kind: str, is_known: bool, statuses: set[str]) -> None:
    waits = Waits()
    floods: list[Attackers] = []
    with ServiceProcess(data) as service:
        receipt(release(service.instructor()))
        receipt(submit(service.student(name="other")))
        tokens = [service.enrol("mallory", {"physics": "Student"})] if is_known else []

        def attack() -> Attackers:
            floods.append(Attackers(service.url, kind, 200, tokens))
            return floods[-1]

        waits.watch(service, attack, seconds=3)

    answers = sum((flood.answers for flood in floods), start=Counter[str]())
    del answers["connections"]
    answered, took = answers.total(), sum(flood.seconds for flood in floods)
    print(f"{kind} {'known' if is_known else ''}: {waits}; {answered / took:.0f} answers a second")
    assert answers.keys() == statuses
    assert answered <= waits.rounds * BURST + 1.5 * RATE * took


# -- the hub behind


def test_a_hub_is_not_asked_again_and_again_for_a_token_that_it_does_not_know(data: Path) -> None:
    clock = Clock()
    with (
        fake_hub.FakeHub(user=fake_hub.http(403)) as hub,
        exchange(data, clock, api_url=hub.api_url) as service,
    ):
        nobody, other = service.wire("nobody"), service.wire("other")
        statuses = [nobody.get("assignments").status_code for _ in range(20)]
        statuses.append(submit(nobody).status_code)
        asked = len(hub.asked)
        other.get("assignments")
        asked_for_other = len(hub.asked)
        hub.answers["user"] = fake_hub.http(200, fake_hub.ADA)
        clock.forward(3)
        after = nobody.get("assignments", course_id="physics")

    assert statuses == 21 * [401]
    assert (asked, asked_for_other) == (1, 2)
    assert after.status_code == 200


NEWCOMERS = 20

HUB_SECONDS = 0.04
"""That the hub takes for an answer, during which it does nothing else."""


class Newcomers:
    """People with a token that the service has not seen, who all list at once."""

    def __init__(self, hub: fake_hub.FakeHub) -> None:
        self._tokens: dict[str, str] = {}
        self._strangers = 0
        self.statuses: Counter[int] = Counter()
        hub.answers["user"] = self._whose

    def _whose(self, token: str) -> bytes:
        time.sleep(HUB_SECONDS)
        if token not in self._tokens:
            self._strangers += 1
            return fake_hub.http(403)
        return fake_hub.http(200, {**fake_hub.ADA, "name": self._tokens[token]})

    def wait_for_strangers(self) -> None:
        before = self._strangers
        wait_until(lambda: self._strangers > before + 20)

    def come(self, service: ServiceProcess) -> list[float]:
        """How many seconds each waits for a list."""
        tokens = [uuid.uuid4().hex for _ in range(NEWCOMERS)]
        self._tokens |= {token: f"newcomer{token[:8]}" for token in tokens}
        with concurrent.futures.ThreadPoolExecutor(NEWCOMERS) as people:
            return list(people.map(lambda token: self._list(service, token), tokens))

    def _list(self, service: ServiceProcess, token: str) -> float:
        begun, over = time.monotonic(), threading.Event()
        while True:
            answer = requests.get(
                f"{service.url}/assignments",
                headers={"Authorization": f"Bearer {token}"},
                timeout=PATIENCE,
            )
            self.statuses[answer.status_code] += 1
            if answer.ok:
                return time.monotonic() - begun
            assert answer.status_code == 429, answer.text
            over.wait(0.2)


@contextlib.contextmanager
def hub_of_newcomers(data: Path) -> Iterator[tuple[ServiceProcess, Newcomers]]:
    with fake_hub.FakeHub() as hub:
        config = (
            "from nbexchange.handlers.auth.jupyterhub import JupyterHubUserHandler\n"
            "c.NbExchange.user_plugin_class = JupyterHubUserHandler\n"
            f"c.JupyterHubUserHandler.api_url = {hub.api_url!r}\n"
            'c.JupyterHubUserHandler.service_name = "nbexchange"\n'
            'c.JupyterHubUserHandler.api_token = ""\n'
        )
        with ServiceProcess(data, config) as service:
            yield service, Newcomers(hub)


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_flood_of_made_up_tokens_keeps_no_newcomer_waiting(data: Path, count: int) -> None:
    with hub_of_newcomers(data) as (service, newcomers):
        rounds = []
        for _ in range(MOST_ROUNDS):
            idle = 1000 * max(newcomers.come(service))
            with Attackers(service.url, "strangers", count, query="odd"):
                newcomers.wait_for_strangers()
                newcomers.statuses.clear()
                attacked = 1000 * max(newcomers.come(service))
            rounds.append((idle, attacked))
            print(f"{count} made-up tokens: {idle:.0f} ms before, {attacked:.0f} ms meanwhile")
            if attacked <= 2 * idle + FLOOR_MS:
                break

    assert attacked <= 2 * idle + FLOOR_MS, rounds
    assert newcomers.statuses.keys() == {200}


@pytest.mark.slow
def test_among_tokens_that_look_like_a_hubs_every_newcomer_gets_in(data: Path) -> None:
    """Nobody can tell them apart before the hub has answered."""
    with (
        hub_of_newcomers(data) as (service, newcomers),
        Attackers(service.url, "strangers", 100, query="hub"),
    ):
        newcomers.wait_for_strangers()
        waits = sorted(newcomers.come(service))

    print(f"100 like a hub's: {waits[9]:.1f} s, at most {waits[-1]:.1f}; {newcomers.statuses}")
    assert newcomers.statuses[200] == NEWCOMERS


# -- what costs much to read

MEGABYTE = 1024 * 1024

PART = b'--b\r\nContent-Disposition: form-data; name="notebooks"\r\n\r\np1\r\n'


def _request(
    method: str, path: str, *headers: str, body: Callable[[], Iterator[bytes]] = lambda: iter(())
) -> tuple[str, str, tuple[str, ...], Callable[[], Iterator[bytes]]]:
    return method, path, headers, body


def _many(piece: bytes, number: int) -> Callable[[], Iterator[bytes]]:
    """So many of it, in large pieces."""
    at_a_time = max(1, MEGABYTE // len(piece))
    return lambda: itertools.repeat(piece * at_a_time, number // at_a_time)


def _length(piece: bytes, number: int) -> str:
    at_a_time = max(1, MEGABYTE // len(piece))
    return f"Content-Length: {number // at_a_time * at_a_time * len(piece)}"


WHERE = urlencode(PS1)
FORM = "Content-Type: multipart/form-data; boundary=b"

COSTLY = {
    "a million parts": _request(
        "POST", f"submission?{WHERE}", FORM, _length(PART, 10**6), body=_many(PART, 10**6)
    ),
    "a hundred megabytes of &": _request(
        "POST",
        f"submission?{WHERE}",
        "Content-Type: application/x-www-form-urlencoded",
        _length(b"&", 10**8),
        body=_many(b"&", 10**8),
    ),
    "60 kB of query": _request("GET", "assignments?" + "a" * 60_000),
    "60 kB of & in the query": _request("GET", "assignments?" + "&" * 60_000),
    "60 kB of parameters": _request("GET", "assignments?" + "a=b&" * 15_000),
    "10,000 headers": _request("GET", "assignments", *(10_000 * ["A: b"])),
    "one header 1,000 times": _request("GET", "assignments", *(1000 * ["Idempotency-Key: key"])),
    "one long header": _request("GET", "assignments", "A: " + "b" * 60_000),
    "both lengths": _request(
        "POST", f"submission?{WHERE}", "Content-Length: 5", "Transfer-Encoding: chunked"
    ),
    "a compressed body": _request(
        "POST", f"submission?{WHERE}", "Content-Encoding: gzip", "Content-Length: 1000000",
        body=lambda: iter([bytes(1_000_000)]),
    ),
}  # fmt: skip


SHOWN = ("a million parts", "one header 1,000 times")


@pytest.mark.parametrize("name", SHOWN)
def test_what_costs_much_to_read_is_refused_and_keeps_nobody_waiting(data: Path, name: str) -> None:
    """S11: again and again, for as long as others are watched."""
    _costly(data, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in COSTLY if name not in SHOWN])
def test_all_that_costs_much_to_read_is_refused_and_keeps_nobody_waiting(
    data: Path, name: str
) -> None:
    """S11."""
    _costly(data, name)


def _costly(data: Path, name: str) -> None:
    waits = Waits()
    statuses: set[str] = set()
    with ServiceProcess(data) as service:
        receipt(release(service.instructor()))
        receipt(submit(service.student(name="other")))
        token = service.enrol("mallory", {"physics": "Student"})

        @contextlib.contextmanager
        def attack() -> Iterator[None]:
            command = [sys.executable, "-m", "tests.test_flood", service.url, token, name]
            with subprocess.Popen(
                command, cwd=TOP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as process:
                assert process.stdout is not None
                statuses.add(process.stdout.readline().strip())
                yield
                said, _ = process.communicate()
            statuses.update(said.split())

        waits.watch(service, attack, 1, lambda idle_ms: max(200, 2 * idle_ms))

    print(f"{name}: {waits}")
    assert statuses <= {"400", "413", "415", "422"}, statuses
    assert statuses


def main(url: str, token: str, name: str) -> None:
    """Sends it until standard input ends, and says what was answered."""
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    while not over.is_set():
        print(_send(url, token, *COSTLY[name]), flush=True)


def _send(
    url: str,
    token: str,
    method: str,
    path: str,
    headers: tuple[str, ...],
    body: Callable[[], Iterator[bytes]],
) -> str:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    connection.putrequest(method, f"{parts.path}/{path}", skip_accept_encoding=True)
    connection.putheader("Authorization", f"Bearer {token}")
    for header in headers:
        connection.putheader(*header.split(": "))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.endheaders()
        for piece in body():
            connection.send(piece)
    with contextlib.closing(connection):
        return str(connection.getresponse().status)


# -- forms


def test_a_form_of_many_parts_lets_others_have_their_turn() -> None:
    """All in one piece, as they come from the network; that took 97 ms without a pause."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def ignore(piece: bytes) -> None:
        pass

    async def story() -> None:
        other = asyncio.create_task(others())
        form = MultipartFile("multipart/form-data; boundary=b", "assignment", ignore)
        await form.feed(PART * (MOST_PARTS - 1))
        other.cancel()

    asyncio.run(story())

    assert turns >= MOST_PARTS / 100


def test_a_form_of_too_many_parts_is_refused() -> None:
    async def ignore(piece: bytes) -> None:
        pass

    form = MultipartFile("multipart/form-data; boundary=b", "assignment", ignore)

    with pytest.raises(Malformed):
        asyncio.run(form.feed(PART * (MOST_PARTS + 1)))


if __name__ == "__main__":
    main(*sys.argv[1:])
