"""The client alone: its retries, its checks of answers, and its messages."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import logging
import os
import re
import sys
from collections.abc import Iterator

import pytest

from nbexchange.plugin.client import (
    AnswerLimits,
    BearerToken,
    Client,
    NotAnExchange,
    Payload,
    RequestRefused,
    ServiceError,
    Unreachable,
)
from nbexchange.plugin.connections import session
from nbexchange.plugin.progress import TransferProgress
from tests.plugin.middleman import Answer, Middleman, drop, middleman, pour, say, slowly

PIECE = 64 * 1024
LATER = {"success": False, "note": "Later."}


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def now(self) -> float:
        return sum(self.slept)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def server() -> Iterator[Middleman]:
    """A server that gives only the answers of a test."""
    with middleman("http://127.0.0.1:9") as running:
        running.always("GET healthz", say(Answer.json({"success": True})))
        yield running
    session().close()


@pytest.fixture
def client(server: Middleman, time: Time) -> Client:
    return Client(
        server.url, BearerToken(), logging.getLogger("test"), sleep=time.sleep, clock=time.now
    )


def fetched_feedback(client: Client, course_id: str) -> object:
    return client.fetch_feedback(course_id, "ps1")


def later(seconds: str) -> Answer:
    return Answer.json(LATER, 503, **{"Retry-After": seconds})


def released(client: Client) -> object:
    return client.release("c", "a", Payload(io.BytesIO(b"x"), "application/gzip"), overwrite=True)


def test_pauses_grow_and_are_spread(server, client, time):
    server.always("POST assignment", drop)

    with pytest.raises(Unreachable):
        released(client)

    assert len(time.slept) == 3
    for number, slept in enumerate(time.slept):
        assert 0.5 * 2**number <= slept <= 2**number


def test_the_services_own_pause_is_kept_but_not_for_ever(server, client, time):
    server.next("POST assignment", say(later("7")), say(later("3600")), say(later("0")))
    server.always("POST assignment", say(Answer.refusal(403, "No.")))

    with pytest.raises(RequestRefused, match="No"):
        released(client)

    assert 7 <= time.slept[0] <= 8.4
    assert 30 <= time.slept[1] <= 36
    assert time.slept[2] == 0


@pytest.mark.parametrize(
    "said",
    ["Fri, 21 Nov 2036 07:28:00 GMT", "soon", "-7", "1e3", "nan", "\N{SUPERSCRIPT TWO}", "9" * 19],
)
def test_a_pause_that_is_not_a_number_of_seconds_is_replaced_by_ours(server, client, time, said):
    server.next("POST assignment", say(later(said)))
    server.always("POST assignment", say(Answer.refusal(403, "No.")))

    with pytest.raises(RequestRefused):
        released(client)

    assert time.slept[0] <= 1


def patient(server: Middleman, time: Time, retries: int) -> Client:
    return Client(
        server.url,
        BearerToken(),
        logging.getLogger("test"),
        retries=retries,
        sleep=time.sleep,
        clock=time.now,
    )


def test_a_list_is_not_waited_for_long(server, time):
    """A whole Jupyter server waits with it."""
    server.always("GET assignments", say(later("1")))

    with pytest.raises(Unreachable, match="Later"):
        patient(server, time, retries=1000).assignments(None)

    assert 2.6 <= time.now() <= 5


def test_a_transfer_is_tried_again_however_long_it_took(server, time, blob):
    whole = Answer.archive(blob)

    def break_off_after_an_hour(handler, seen):
        time.sleep(3600)
        handler.send(whole, only=PIECE)

    server.next("GET assignment", break_off_after_an_hour, say(part(whole, PIECE)))

    assert fetched(patient(server, time, retries=1)) == blob


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 413, 415, 416, 422, 500, 507])
def test_a_refusal_for_good_is_not_asked_again(server, client, time, status):
    server.always("POST assignment", say(Answer.refusal(status, "No.")))

    with pytest.raises(RequestRefused) as refusal:
        released(client)

    assert refusal.value.status == status
    assert time.slept == []


def test_removing_again_after_a_lost_answer_succeeds(server, client):
    server.next("DELETE assignment", drop, say(Answer.refusal(404, "Not there.")))

    client.remove("c", "a")

    assert len(server.requests("DELETE assignment")) == 2


# Downloads


def fetched(client: Client) -> bytes:
    with client.fetch("c", "a") as file:
        return file.read()


def damaged(answer: Answer) -> Answer:
    return Answer(answer.status, answer.headers, answer.body[:-1] + b"!")


def part(answer: Answer, start: int, says: int | None = None) -> Answer:
    says = start if says is None else says
    size = len(answer.body)
    headers = {**answer.headers, "Content-Range": f"bytes {says}-{size - 1}/{size}"}
    return Answer(206, headers, answer.body[start:])


def cut_off(answer: Answer, after: int):
    return lambda handler, _seen: handler.send(answer, only=after)


@pytest.fixture
def blob() -> bytes:
    return os.urandom(3 * PIECE)


def test_a_partial_answer_completes_a_download(server, client, blob):
    whole = Answer.archive(blob)
    server.next("GET assignment", cut_off(whole, PIECE), say(part(whole, PIECE)))

    assert fetched(client) == blob
    assert server.seen[1].headers["range"] == f"bytes={PIECE}-"
    assert server.seen[1].headers["if-range"] == whole.headers["ETag"]


def test_another_archive_meanwhile_is_taken_whole(server, client, blob):
    other = os.urandom(2 * PIECE)
    server.next("GET assignment", cut_off(Answer.archive(blob), PIECE), say(Answer.archive(other)))

    assert fetched(client) == other


def test_a_shorter_archive_meanwhile_keeps_nothing_of_the_longer_one(server, client, blob):
    other = os.urandom(PIECE)
    server.next(
        "GET assignment", cut_off(Answer.archive(blob), 2 * PIECE), say(Answer.archive(other))
    )

    assert fetched(client) == other
    assert len(server.seen) == 2


def test_a_part_of_another_archive_is_not_believed(server, client, blob):
    other = Answer.archive(os.urandom(3 * PIECE))
    server.next(
        "GET assignment",
        cut_off(Answer.archive(blob), PIECE),
        say(part(other, PIECE)),
        say(other),
    )

    assert fetched(client) == other.body


def test_another_part_than_asked_for_is_not_believed(server, client, blob):
    whole = Answer.archive(blob)
    server.next(
        "GET assignment",
        cut_off(whole, PIECE),
        say(part(whole, PIECE, says=PIECE + 1)),
        say(whole),
    )

    assert fetched(client) == blob
    assert "range" not in server.seen[2].headers


def test_a_corrupt_download_restarts_from_the_beginning(server, client, blob):
    whole = Answer.archive(blob)
    server.next("GET assignment", say(damaged(whole)), say(whole))

    assert fetched(client) == blob
    assert "range" not in server.seen[1].headers


def test_a_download_that_stays_corrupt_is_an_error(server, client, blob):
    server.always("GET assignment", say(damaged(Answer.archive(blob))))

    with pytest.raises(ServiceError, match="arrived corrupt"):
        fetched(client)


def test_an_archive_without_its_digest_is_not_believed(server, client, blob):
    whole = Answer.archive(blob)
    del whole.headers["Repr-Digest"]
    server.always("GET assignment", say(whole))

    with pytest.raises(NotAnExchange, match="without its digest"):
        fetched(client)


def test_the_digest_of_a_whole_body_is_enough(server, client, blob):
    whole = Answer.archive(blob)
    whole.headers["Content-Digest"] = whole.headers.pop("Repr-Digest")
    server.always("GET assignment", say(whole))

    assert fetched(client) == blob


def test_the_digest_of_a_part_says_nothing_of_the_archive(server, client, blob):
    whole = Answer.archive(blob)
    rest = part(whole, PIECE)
    rest.headers["Content-Digest"] = rest.headers.pop("Repr-Digest")
    server.next("GET assignment", cut_off(whole, PIECE), say(rest))

    with pytest.raises(NotAnExchange, match="without its digest"):
        fetched(client)


def test_a_page_with_a_digest_is_not_taken_for_an_archive(server, client, blob):
    whole = Answer.archive(blob)
    server.always(
        "GET assignment", say(Answer(200, {**whole.headers, "Content-Type": "text/html"}, blob))
    )

    with pytest.raises(NotAnExchange, match="does not send an archive"):
        fetched(client)


def test_an_archive_that_a_proxy_compressed_again_is_unpacked_once(server, client, blob):
    whole = Answer.archive(blob)
    server.always(
        "GET assignment",
        say(Answer(200, {**whole.headers, "Content-Encoding": "gzip"}, gzip.compress(blob))),
    )

    assert fetched(client) == blob


def test_an_archive_that_is_too_large_is_not_taken(server, blob):
    client = Client(server.url, BearerToken(), logging.getLogger("test"), max_buffer_size=2 * PIECE)
    server.always("GET assignment", say(Answer.archive(blob)))

    with pytest.raises(ServiceError, match="max_buffer_size"):
        fetched(client)


# Answers without end

OK = "HTTP/1.1 200 OK\n"
JSON = f"{OK}Content-Type: application/json\n"
CHUNKED = f"{JSON}Transfer-Encoding: chunked\n\n"
GZIP = f"{OK}Content-Type: application/gzip\nContent-Length: 99999\n\n"
ENDLESS = itertools.repeat(b"1000\r\n" + b"1," * 2048 + b"\r\n")


def small(server: Middleman, time: Time, **bounds: int) -> Client:
    limits = AnswerLimits(list=10**5, feedback=10**5, pages=5, values=10**4)
    return Client(
        server.url,
        BearerToken(),
        logging.getLogger("test"),
        sleep=time.sleep,
        clock=time.now,
        retries=0,
        limits=limits,
        **bounds,
    )


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        pytest.param(f"{JSON}X-Long: ", b"0" * 100, id="header"),
        pytest.param(f"{JSON}Content-Length: 99999\n\n", b"0", id="body"),
        pytest.param(CHUNKED, b"0", id="chunk"),
    ],
)
def test_an_answer_that_hardly_moves_is_given_up(server, time, head, piece):
    """A header in time; the rest at least as fast as the slowest line."""
    server.always("GET assignments", pour(head, slowly(piece, 0.05)))

    with pytest.raises(Unreachable, match="sends its answer too slowly"):
        small(server, time, api_timeout=2).assignments(None)


def test_an_archive_that_hardly_moves_is_given_up(server, time):
    server.always("GET assignment", pour(GZIP, slowly(b"0", 0.05)))

    with pytest.raises(Unreachable, match="sends its answer too slowly"):
        fetched(small(server, time, api_timeout=2))


def test_a_slow_line_that_moves_may_take_longer_than_the_timeout(server, time):
    body = b'{"success": true, "value": []}'.rjust(10_000)
    pieces = [body[at : at + 200] for at in range(0, len(body), 200)]
    head = f"{JSON}Content-Length: {len(body)}\n\n"
    pauses = (piece for piece, _ in zip(pieces, slowly(b"", 0.05), strict=False))
    server.always("GET assignments", pour(head, pauses))

    assert small(server, time, api_timeout=1).assignments(None) == ([], [])


@pytest.mark.parametrize(
    ("head", "pieces"),
    [
        pytest.param(CHUNKED, ENDLESS, id="body"),
        pytest.param(CHUNKED + "0\n", itertools.repeat(b"x: y\r\n" * 99), id="trailers"),
        pytest.param(CHUNKED, itertools.repeat(b"1\r\n \r\n" * 99), id="small chunks"),
        pytest.param("", itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n"), id="continue"),
    ],
)
@pytest.mark.parametrize("ask", [Client.assignments, fetched_feedback])
def test_json_without_end_is_not_kept(server, time, head, pieces, ask):
    server.always("GET assignments", pour(head, pieces))
    server.always("GET feedback", pour(head, pieces))

    with pytest.raises(Unreachable, match="sends an answer of more than 100,000 bytes"):
        ask(small(server, time), "physics")


def test_compressed_json_counts_with_its_uncompressed_size(server, time):
    body = gzip.compress(b" " * 10**7)
    answer = Answer(200, {"Content-Type": "application/json", "Content-Encoding": "gzip"}, body)
    server.always("GET assignments", say(answer))

    with pytest.raises(Unreachable, match="sends an answer of more than 100,000 bytes"):
        small(server, time).assignments(None)


@pytest.mark.parametrize("value", ["1", "[]", "{}"])
def test_json_of_many_small_values_is_not_read(server, time, value):
    body = json.dumps({"success": True, "value": [json.loads(value)] * 10_001}).encode()
    server.always("GET assignments", say(Answer(200, {"Content-Type": "application/json"}, body)))

    with pytest.raises(NotAnExchange, match="more than 10,000 values"):
        small(server, time).assignments(None)


def pages(server: Middleman, time: Time, size: int = 0, seconds: float = 0) -> None:
    """A list whose every page names another one."""
    numbers = itertools.count()

    def react(handler, seen):
        time.slept.append(seconds)
        page = {"success": True, "value": [], "next": str(next(numbers)), "padding": "x" * size}
        handler.send(Answer.json(page))

    server.always("GET collections", react)


@pytest.mark.parametrize(
    ("page", "words"),
    [
        pytest.param({}, "its list never ends", id="many"),
        pytest.param({"size": 30_000}, "sends an answer of more than 100,000 bytes", id="large"),
        pytest.param({"seconds": 250}, "takes more than 600 seconds for a list", id="slow"),
    ],
)
def test_pages_without_end_are_given_up(server, time, page, words):
    pages(server, time, **page)

    with pytest.raises(ServiceError, match=words):
        small(server, time).inbound("physics")

    assert len(server.seen) <= 6


@pytest.mark.parametrize("token", [7, ["a"], "x" * 10_000])
def test_a_next_page_that_cannot_be_asked_for_ends_the_list(server, time, token):
    server.always(
        "GET collections", say(Answer.json({"success": True, "value": [], "next": token}))
    )

    with pytest.raises(NotAnExchange, match="its list never ends"):
        small(server, time).inbound("physics")

    assert len(server.seen) == 1


def test_an_archive_of_just_the_largest_size_is_taken(server, blob):
    client = Client(server.url, BearerToken(), logging.getLogger("test"), max_buffer_size=len(blob))
    server.always("GET assignment", say(Answer.archive(blob)))

    assert fetched(client) == blob


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("note", ["", 7, ["No."], None])
def test_a_refusal_without_words_is_a_sentence(server, client, note, status):
    server.always("POST assignment", say(Answer.json({"success": False, "note": note}, status)))

    with pytest.raises(RequestRefused, match=f"answers {status} with a page of its own"):
        released(client)


def test_an_answer_without_success_is_not_an_empty_list(server, client):
    server.always("GET assignments", say(Answer.json({"success": False, "value": []})))

    with pytest.raises(NotAnExchange, match="'success' is missing"):
        client.assignments(None)


def test_a_refusal_that_claims_success_is_not_quoted(server, client):
    server.always("POST assignment", say(Answer.json({"success": True, "note": "Stored."}, 403)))

    with pytest.raises(RequestRefused, match="answers 403 with a page of its own"):
        released(client)


def test_cookies_are_not_kept(server, client):
    empty = Answer.json({"success": True, "value": []}, **{"Set-Cookie": "who=somebody"})
    server.always("GET assignments", say(empty))

    client.assignments(None)
    client.assignments(None)

    assert "cookie" not in server.seen[1].headers


def test_names_travel_unharmed(server, client):
    server.always("DELETE assignment", say(Answer.json({"success": True, "note": "Removed."})))
    course_id, assignment_id = "a&b=c d+e%20 #?🧪", "'\"/\\;"

    client.remove(course_id, assignment_id)

    assert server.seen[0].params == {"course_id": course_id, "assignment_id": assignment_id}


def test_a_name_that_is_not_text_is_an_error_message(client):
    with pytest.raises(ServiceError, match="is not text"):
        client.remove("course", "\udcff")


# Progress


class Terminal(io.StringIO):
    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.mark.parametrize(
    ("total", "is_terminal", "is_shown"),
    [
        pytest.param(6_000_000, True, True, id="long, for a person"),
        pytest.param(6_000_000, False, False, id="long, into a file"),
        pytest.param(4_000_000, True, False, id="short"),
    ],
)
def test_progress_is_shown_to_people_who_wait(monkeypatch, total, is_terminal, is_shown):
    terminal = Terminal(is_terminal=is_terminal)
    monkeypatch.setattr(sys, "stderr", terminal)

    with TransferProgress("Sending", total) as progress:
        progress.advance(total // 2)

    clear = "\r\x1b[K"
    shown = f"{clear}Sending: 50 % of 6 MB{clear}"
    assert terminal.getvalue() == (shown if is_shown else "")


def test_long_transfers_show_how_far_they_are(server, client, monkeypatch):
    terminal = Terminal(is_terminal=True)
    monkeypatch.setattr(sys, "stderr", terminal)
    long = bytes(6_000_000)
    server.always("GET assignment", say(Answer.archive(long)))
    server.always("POST assignment", say(Answer.refusal(403, "No.")))

    fetched(client)
    with pytest.raises(RequestRefused):
        client.release("c", "a", Payload(io.BytesIO(long), "application/gzip"), overwrite=True)

    for label in ("Fetching a", "Sending"):
        assert re.search(f"{label}: [0-9]+ % of 6 MB", terminal.getvalue())
