"""Messages that name the cause: the file, the disk, the address, or the proxy."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest

from nbexchange.plugin.client import (
    BearerToken,
    Client,
    Payload,
    RequestRefused,
    ServiceError,
    Unreachable,
)
from nbexchange.plugin.connections import session
from tests.plugin.middleman import Answer, Middleman, drop, middleman, say
from tests.plugin.test_bad_service import complaint
from tests.support.process import small_disk

# The address


@pytest.mark.parametrize("blank", ["\n", "\r\n", " ", "\t"])
def test_blanks_around_the_address_do_not_count(alice, blank):
    """As of the token: both come from files that end with a line."""
    alice.env["NBEXCHANGE_URL"] = f"{blank}{alice.url}{blank}"

    assert alice.nbgrader("list").status == 0


@pytest.mark.parametrize("path", ["/services/other", "/services/nbexchange/more", ""])
def test_a_message_about_a_wrong_path_names_the_address(service, alice, path):
    alice.url = f"http://127.0.0.1:{service.port}{path}"

    assert f"here is nothing at {path}/assignments" in complaint(alice, "list")


# The disk


@pytest.fixture
def heavy(teacher, alice) -> str:
    """An assignment that a small disk does not hold."""
    folder = teacher.work / "release" / "heavy"
    folder.mkdir(parents=True)
    (folder / "p1.ipynb").write_text("{}")
    (folder / "data.bin").write_bytes(os.urandom(3_000_000))
    assert teacher.nbgrader("release_assignment", "heavy").status == 0
    return "heavy"


def test_a_full_disk_for_temporary_files_is_named(alice, heavy, tmp_path):
    assert alice.nbgrader("fetch_assignment", heavy).status == 0
    (alice.work / "heavy").rename(alice.work / "old")
    (tmp_path / "small").mkdir()
    with small_disk(tmp_path / "small", "1m") as small:
        alice.env["TMPDIR"] = str(small)
        words = [complaint(alice, "fetch_assignment", heavy)]
        (alice.work / "old").rename(alice.work / "heavy")
        words.append(complaint(alice, "submit", heavy))

    for told in words:
        assert told.startswith(f"No space left on device: {small} (the folder for temporary")
        assert "TMPDIR" in told
        assert f"The disk at {small} has " in told


def test_a_full_disk_for_the_work_is_named(alice, heavy, tmp_path):
    (tmp_path / "small").mkdir()
    with small_disk(tmp_path / "small", "1m") as small:
        alice.configure(f"c.Exchange.assignment_dir = {str(small)!r}")
        told = complaint(alice, "fetch_assignment", heavy)

    assert told.startswith(f"No space left on device: {small}/heavy. The disk at {small} has ")
    assert ".nbexchange-" not in told


def test_a_full_disk_for_the_copies_is_named(alice, heavy, tmp_path):
    assert alice.nbgrader("fetch_assignment", heavy).status == 0
    (tmp_path / "small").mkdir()
    with small_disk(tmp_path / "small", "1m") as small:
        alice.configure(f"c.Exchange.cache = {str(small)!r}")
        ran = alice.nbgrader("submit", heavy)

    assert ran.status == 0
    assert f"no copy of it is kept here: No space left on device: {small}/" in ran.output
    assert "/.nbexchange-" not in ran.output


# Proxies and broken connections


class Clock:
    seconds = 0.0

    def now(self) -> float:
        return self.seconds


@pytest.fixture
def server() -> Iterator[Middleman]:
    with middleman("http://127.0.0.1:9") as running:
        running.always("GET healthz", say(Answer.json({"success": True})))
        yield running
    session().close()


def client(server: Middleman, clock: Clock | None = None, **options: Any) -> Client:
    return Client(
        server.url,
        BearerToken(),
        logging.getLogger("test"),
        clock=(clock or Clock()).now,
        sleep=lambda _: None,
        **options,
    )


def send(asked: Client, size: int = 2_500_000) -> object:
    parcel = Payload(io.BytesIO(os.urandom(size)), "application/gzip")
    return asked.submit("physics", "ps1", parcel)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (413, r"does not accept uploads of this size \(413\): 2.5 MB packed.*client_max_body_size"),
        (408, r"ended the request \(408\) after 2.5 MB of 2.5 MB and 7 seconds.*raise the limit"),
        (502, r"answers 502: it cannot reach the service.*Try again"),
        (504, r"answers 504: it cannot reach the service, or gets no answer in time.*Try again"),
        (401, r"answers 401 with a page of its own, perhaps for a login"),
        (407, r"answers 407 with a page of its own, perhaps for a login"),
    ],
)
def test_a_page_of_a_proxy_is_recognised(server, status, words):
    clock = Clock()

    def later(handler: Any, _seen: Any) -> None:
        clock.seconds += 7
        handler.send(Answer.html(status))

    server.always("POST submission", later)

    with pytest.raises(ServiceError, match=f"A proxy between this notebook and .*{words}"):
        send(client(server, clock))


@pytest.mark.parametrize("status", [408, 413])
def test_a_file_that_a_proxy_refused_is_not_sent_again(server, status):
    server.always("POST submission", say(Answer.html(status)))

    with pytest.raises(RequestRefused):
        send(client(server))

    assert len(server.requests("POST submission")) == 1


@pytest.mark.parametrize("status", [413, 408, 502])
def test_the_services_own_note_is_not_attributed_to_a_proxy(server, status):
    server.always("POST submission", say(Answer.refusal(status, "The service's own words.")))

    with pytest.raises(ServiceError, match=r"^The service's own words\.$"):
        send(client(server))


def test_a_message_about_a_redirect_names_its_address(server):
    login = "https://user:secret@sso.example/login?state=secret"
    server.always("GET assignments", say(Answer.html(302, Location=login)))

    with pytest.raises(ServiceError) as error:
        client(server).assignments(None)

    assert "redirects to another page, https://sso.example/login, perhaps" in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("reaction", [drop, say(Answer(408, {}, b""))], ids=["cut", "408"])
@pytest.mark.parametrize(
    ("seconds", "is_hubs"), [(200, False), (301, True), (330, True), (400, False)]
)
def test_a_transfer_that_was_cut_after_300_seconds_is_the_hubs_proxys(
    server, reaction, seconds, is_hubs
):
    clock = Clock()

    def late(handler: Any, seen: Any) -> None:
        clock.seconds += seconds
        reaction(handler, seen)

    server.always("POST submission", late)

    with pytest.raises(ServiceError) as error:
        send(client(server, clock))

    assert f"after 2.5 MB of 2.5 MB and {seconds} seconds" in str(error.value)
    assert (
        "JupyterHub's proxy ends every request after 300 seconds" in str(error.value)
    ) == is_hubs
    # Nothing would be different the next time.
    is_sent_once = is_hubs or reaction is not drop
    assert (len(server.requests("POST submission")) == 1) == is_sent_once


NAMES = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"]


@pytest.fixture
def environment(monkeypatch) -> pytest.MonkeyPatch:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_a_proxy_in_the_environment_is_named_without_its_password(environment, server, name):
    environment.setenv(name, "http://ada:secret@127.0.0.1:9")

    with pytest.raises(Unreachable) as error:
        client(server).assignments(None)

    assert "cannot be reached. The plugin uses the proxy http://127.0.0.1:9 (" in str(error.value)
    assert "set NO_PROXY=127.0.0.1." in str(error.value)
    assert "secret" not in str(error.value)


def test_a_proxy_that_is_not_asked_is_named_as_that(environment, server):
    environment.setenv("http_proxy", "http://proxy.example:3128")
    environment.setenv("no_proxy", "127.0.0.1")
    server.always("GET assignments", drop)

    with pytest.raises(Unreachable, match=r"because NO_PROXY covers 127\.0\.0\.1"):
        client(server).assignments(None)


def test_without_a_proxy_none_is_named(environment, server):
    server.always("GET assignments", drop)

    with pytest.raises(Unreachable) as error:
        client(server).assignments(None)

    assert "proxy" not in str(error.value).lower()
