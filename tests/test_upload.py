"""Bytes in: what is taken, what is refused, and that a refusal leaves nothing."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from traitlets.config import Config

from tests.support import bombs, course
from tests.support.archives import content_digest, sha256, tar_gz, tar_gz_of, upload_headers
from tests.support.commands import run_for
from tests.support.course import PS1, WORK, give_feedback, receipt, release, rows, submit
from tests.support.faults_report import report
from tests.support.process import wait_until
from tests.support.raw import LAST_CHUNK, RawConnection, chunk
from tests.support.service import Service, Wire

LIMIT = 3_000_000
MEGABYTE = 1024 * 1024
MEGABYTES = tar_gz_of({"p1.ipynb": bytes(range(256)) * 10}) + bytes(8_000_000)
"""More than a socket buffers, so that the answer comes while the client still sends."""


@pytest.fixture
def ada(service: Service) -> Wire:
    ada = service.instructor()
    receipt(release(ada))
    return ada


@pytest.fixture
def bob(service: Service, ada: Wire) -> Wire:
    return service.student()


@pytest.fixture
def small(data: Path) -> Iterator[Service]:
    """A service that takes LIMIT bytes at most."""
    config = Config()
    config.NbExchange.max_buffer_size = LIMIT
    with Service(data, config) as running:
        receipt(release(running.instructor()))
        yield running


def raw(service: Service) -> RawConnection:
    return RawConnection(service.url, service.enrol("bob", {"physics": "Student"}))


def assert_nothing_stored(service: Service, releases: int = 1) -> None:
    """Neither a row nor a byte beyond the releases that a test began with."""
    assert len(rows(service, "release")) == releases
    assert rows(service, "submission") == rows(service, "feedback") == []
    wait_until(lambda: len(service.files()) == releases)
    wait_until(lambda: course.uploads_in_flight(service.wire(None)) == 0)


# -- taken


def test_a_raw_body_with_a_digest_is_taken(bob: Wire) -> None:
    given = receipt(bob.post("submission", WORK, upload_headers(WORK), **PS1))

    assert (given["sha256"], given["size"]) == (sha256(WORK), len(WORK))
    assert course.collect(bob, given["submission_id"]).content == WORK


def test_a_raw_body_without_a_digest_is_taken(bob: Wire) -> None:
    given = receipt(bob.post("submission", WORK, **PS1))

    assert given["sha256"] == sha256(WORK)


def test_a_chunked_body_is_taken(bob: Wire) -> None:
    pieces = (WORK[start : start + 10] for start in range(0, len(WORK), 10))

    given = receipt(bob.post("submission", pieces, upload_headers(WORK), **PS1))

    assert course.collect(bob, given["submission_id"]).content == WORK


@pytest.mark.parametrize(
    ("method", "field"), [("submission", "assignment"), ("assignment", "assignment")]
)
def test_a_form_of_an_old_client_is_taken(ada: Wire, bob: Wire, method: str, field: str) -> None:
    wire = ada if method == "assignment" else bob
    form = {field: ("ps1.tar.gz", WORK)}

    given = receipt(wire.request("POST", method, params=PS1, files=form, data={"notebooks": "p1"}))

    assert (given["sha256"], given["size"]) == (sha256(WORK), len(WORK))


def test_a_form_in_chunks_of_one_byte_is_taken(service: Service, bob: Wire) -> None:
    form = (
        b'--b\r\nContent-Disposition: form-data; name="assignment"; filename="a"\r\n\r\n'
        + WORK
        + b"\r\n--b--\r\n"
    )
    headers = {
        "Content-Type": "multipart/form-data; boundary=b",
        "Transfer-Encoding": "chunked",
    }
    with raw(service) as connection:
        connection.send(connection.head("POST", "submission", headers, **PS1))
        for byte in form:
            connection.send(chunk(bytes([byte])))
        connection.send(LAST_CHUNK)
        answer = connection.answer()

    assert answer.status == 201
    assert answer.json()["sha256"] == sha256(WORK)


def test_a_body_after_100_continue_is_taken(service: Service, bob: Wire) -> None:
    headers = upload_headers(WORK, Expect="100-continue") | {"Content-Length": str(len(WORK))}
    with raw(service) as connection:
        connection.send(connection.head("POST", "submission", headers, **PS1))
        assert connection.first_line().startswith(b"HTTP/1.1 100 ")
        connection.send(WORK)
        assert connection.first_line() == b""
        assert connection.answer().status == 201


def test_one_connection_serves_many_requests(service: Service, bob: Wire) -> None:
    """Also after refusals, whose bodies have to be read to their end."""
    statuses = []
    with raw(service) as connection:
        for body, digest in [(WORK, WORK), (WORK, b"other"), (b"no archive", b"no archive")] * 3:
            headers = {
                "Content-Length": str(len(body)),
                "Content-Digest": content_digest(digest),
            }
            connection.send(connection.head("POST", "submission", headers, **PS1), body)
            statuses.append(connection.answer().status)

            headers = {"Content-Length": str(len(body))}
            connection.send(connection.head("POST", "submission", headers), body)
            statuses.append(connection.answer().status)

    # The last is refused by its head, before its body.
    assert statuses == [201, 400, 422, 400, 422, 400] * 3
    assert len(rows(service, "submission")) == 3


def test_exactly_as_much_as_is_allowed_is_taken(small: Service) -> None:
    body = gzip.compress(gzip.decompress(WORK), mtime=0)
    padding = tar_of_size(LIMIT)

    assert len(padding) == LIMIT
    assert receipt(submit(small.student(), padding))["size"] == LIMIT
    assert receipt(submit(small.student(), body))["size"] == len(body)


def tar_of_size(size: int) -> bytes:
    """A tar.gz of just that many bytes: a comment in the gzip header fills up."""
    body = tar_gz(p1=b"x")
    header, rest = bytearray(body[:10]), body[10:]
    assert header[3] == 0
    header[3] = 0x10  # there is a comment
    fill = size - len(header) - len(rest) - 1
    return bytes(header) + b"x" * fill + b"\0" + rest


# -- refused


def test_other_bytes_than_announced_are_refused(service: Service, bob: Wire) -> None:
    answer = bob.post("submission", WORK, {"Content-Digest": content_digest(b"other")}, **PS1)

    assert answer.status_code == 422
    assert answer.json()["success"] is False
    assert "send them again" in answer.json()["note"]
    assert_nothing_stored(service)


@pytest.mark.parametrize(
    "field",
    [
        "",
        "sha-256",
        "sha-256=abc",
        "sha-256=::",
        "sha-256=:!!!!:",
        "sha-256=:YWJj:",
        "md5=:1B2M2Y8AsgTpgAmY7PhCfg==:",
        "sha-512=:z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwv:",
    ],
)
def test_a_digest_that_cannot_be_checked_is_refused(
    service: Service, bob: Wire, field: str
) -> None:
    assert bob.post("submission", WORK, {"Content-Digest": field}, **PS1).status_code == 400
    assert_nothing_stored(service)


def test_of_several_digests_sha_256_counts(bob: Wire) -> None:
    both = f"sha-512=:AAAA:, {content_digest(WORK)}"
    wrong = f"sha-512=:AAAA:, {content_digest(b'other')}"

    assert bob.post("submission", WORK, {"Content-Digest": both}, **PS1).status_code == 201
    assert bob.post("submission", WORK, {"Content-Digest": wrong}, **PS1).status_code == 422


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, identity"])
def test_an_encoded_body_is_refused(service: Service, bob: Wire, encoding: str) -> None:
    answer = bob.post("submission", WORK, {"Content-Encoding": encoding}, **PS1)

    assert answer.status_code == 415
    assert_nothing_stored(service)


@pytest.mark.parametrize("body", [b"", None])
def test_an_empty_body_is_refused(service: Service, bob: Wire, body: bytes | None) -> None:
    answer = bob.post("submission", body, **PS1)

    assert answer.status_code == 400
    assert_nothing_stored(service)


def test_an_empty_chunked_body_is_refused(service: Service, bob: Wire) -> None:
    with raw(service) as connection:
        headers = {"Transfer-Encoding": "chunked"}
        connection.send(connection.head("POST", "submission", headers, **PS1), LAST_CHUNK)
        assert connection.answer().status == 400
    assert_nothing_stored(service)


BROKEN_FORMS = {
    "no file": b'--b\r\nContent-Disposition: form-data; name="other"\r\n\r\nx\r\n--b--\r\n',
    "two files": (
        b'--b\r\nContent-Disposition: form-data; name="assignment"; filename="a"\r\n\r\nx\r\n' * 2
        + b"--b--\r\n"
    ),
    "cut": b'--b\r\nContent-Disposition: form-data; name="assignment"; filename="a"\r\n\r\nx',
    "cut before its end mark": (
        b'--b\r\nContent-Disposition: form-data; name="assignment"; filename="a"\r\n\r\n'
        + WORK
        + b"\r\n"
    ),
    "no form at all": b"hello",
    "a field without an end": (
        b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n' + bytes(100_000)
    ),
}


@pytest.mark.parametrize("form", BROKEN_FORMS.values(), ids=BROKEN_FORMS)
def test_a_broken_form_is_refused(service: Service, bob: Wire, form: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = bob.post("submission", form, headers, **PS1)

    assert answer.status_code == 400
    assert answer.json()["note"]
    assert_nothing_stored(service)


def test_a_form_without_a_boundary_is_refused(service: Service, bob: Wire) -> None:
    headers = {"Content-Type": "multipart/form-data"}

    assert bob.post("submission", b"x", headers, **PS1).status_code == 400
    assert_nothing_stored(service)


# -- too large


def test_a_length_beyond_the_limit_is_refused_before_the_body(small: Service) -> None:
    for length in (LIMIT + 1, 10**12, 10**18):
        with raw(small) as connection:
            headers = {"Content-Length": str(length)}
            connection.send(connection.head("POST", "submission", headers, **PS1))
            answer = connection.answer()
        assert answer.status == 413
        assert f"{LIMIT:,}" in answer.json()["note"]
    assert_nothing_stored(small)


@pytest.mark.parametrize("length", [len(WORK), LIMIT + 1])
def test_a_refusal_comes_instead_of_100_continue(small: Service, length: int) -> None:
    headers = {"Content-Length": str(length), "Expect": "100-continue"}
    wrong = {**PS1, "course_id": "chemistry"} if length < LIMIT else PS1
    with raw(small) as connection:
        connection.send(connection.head("POST", "submission", headers, **wrong))
        line = connection.first_line()

    assert line.split()[1] == (b"413" if length > LIMIT else b"404")


def test_a_chunked_body_beyond_the_limit_is_refused(small: Service) -> None:
    with raw(small) as connection:
        headers = {"Transfer-Encoding": "chunked"}
        connection.send(connection.head("POST", "submission", headers, **PS1))
        for _ in range(LIMIT // 100_000 + 2):
            connection.send(chunk(bytes(100_000)))
        connection.send(LAST_CHUNK)
        answer = connection.answer()

    assert answer.status == 413
    assert_nothing_stored(small)


def test_a_form_whose_file_is_beyond_the_limit_is_refused(small: Service) -> None:
    """The form around it may make the body a little longer; the file may not."""
    form = {"assignment": ("a.tar.gz", tar_of_size(LIMIT + 1))}

    answer = small.student().request("POST", "submission", params=PS1, files=form)

    assert answer.status_code == 413
    assert_nothing_stored(small)


def test_a_form_whose_file_is_exactly_as_large_as_is_allowed_is_taken(small: Service) -> None:
    form = {"assignment": ("a.tar.gz", tar_of_size(LIMIT))}

    answer = small.student().request("POST", "submission", params=PS1, files=form)

    assert receipt(answer)["size"] == LIMIT


@pytest.mark.parametrize(
    ("token", "status"), [("nobody", 401), ("token-1-bob", 404)], ids=["nobody", "nowhere"]
)
@pytest.mark.usefixtures("bob")
def test_a_refused_body_without_end_is_cut_off_with_its_answer(
    service: Service, token: str, status: int
) -> None:
    """Some of it is taken in patience, so that usual clients read why; then it ends."""
    params = {**PS1, "assignment_id": "ps9"}
    with RawConnection(service.url, token) as connection:
        headers = {"Transfer-Encoding": "chunked"}
        connection.send(connection.head("POST", "submission", headers, **params))
        sent = send_until_cut(connection, chunk(bytes(MEGABYTE)))
        answer = connection.answer()

    # What the system buffers comes on top of what is dropped.
    assert 60 < sent < 120
    assert answer.status == status
    assert answer.json()["success"] is False
    assert_nothing_stored(service)


def send_until_cut(connection: RawConnection, piece: bytes) -> int:
    """How many pieces went through before the other side had enough."""
    for sent in range(200):
        try:
            connection.send(piece)
        except ConnectionError:
            return sent
    raise AssertionError("all of it was taken")


def test_an_enormous_refused_body_is_answered_at_once(service: Service, bob: Wire) -> None:
    with RawConnection(service.url, "nobody") as connection:
        headers = {"Content-Length": "4000000000"}
        connection.send(connection.head("POST", "submission", headers, **PS1))
        answer = connection.answer()

    assert answer.status == 401
    assert answer.json()["success"] is False


# -- refused, and the client learns why


def as_nobody(service: Service) -> requests.Response:
    return submit(service.wire("nobody"), MEGABYTES)


def as_a_student(service: Service) -> requests.Response:
    return release(service.student(), MEGABYTES)


def to_no_assignment(service: Service) -> requests.Response:
    params = {**PS1, "assignment_id": "ps9"}
    return service.student().post("submission", MEGABYTES, upload_headers(MEGABYTES), **params)


def without_parameters(service: Service) -> requests.Response:
    return service.student().post("submission", MEGABYTES, upload_headers(MEGABYTES))


def for_the_first_time_again(service: Service) -> requests.Response:
    return release(service.instructor(), MEGABYTES, **{"If-None-Match": "*"})


def with_another_digest(service: Service) -> requests.Response:
    headers = {"Content-Digest": content_digest(b"other")}
    return service.student().post("submission", MEGABYTES, headers, **PS1)


def as_no_archive(service: Service) -> requests.Response:
    return submit(service.student(), MEGABYTES)


def encoded(service: Service) -> requests.Response:
    return service.student().post("submission", MEGABYTES, {"Content-Encoding": "gzip"}, **PS1)


REFUSALS: dict[int | str, tuple[int, Callable[[Service], requests.Response]]] = {
    "nobody": (401, as_nobody),
    "a student releases": (403, as_a_student),
    "no such assignment": (404, to_no_assignment),
    "no parameters": (400, without_parameters),
    "released already": (412, for_the_first_time_again),
    "another digest": (422, with_another_digest),
    "no archive": (422, as_no_archive),
    "encoded": (415, encoded),
}


@pytest.mark.usefixtures("ada")
@pytest.mark.parametrize(("status", "send"), REFUSALS.values(), ids=REFUSALS)
def test_a_refused_body_of_megabytes_still_gets_its_answer(
    service: Service, status: int, send: Callable[[Service], requests.Response]
) -> None:
    answer = send(service)

    assert answer.status_code == status
    said = answer.json()
    assert (said["success"], said["value"]) == (False, [])
    assert said["note"]
    assert answer.headers["X-Request-Id"] == said["request_id"]
    assert_nothing_stored(service)


# -- cut


CUTS = sorted({0, 1, 2, 9, 10, 17, *range(0, len(WORK), max(1, len(WORK) // 40)), len(WORK) - 1})


def test_an_upload_cut_anywhere_leaves_nothing(service: Service, bob: Wire) -> None:
    assert len(CUTS) > 40
    for cut in CUTS:
        begin(service, WORK, cut).reset()
        wait_until(lambda: course.uploads_in_flight(bob) == 0)

    assert_nothing_stored(service)
    assert course.submissions(bob) == []
    assert run_for(service, "check") == 0
    report(fault="upload cut at every boundary", trials=len(CUTS), acknowledged=0)


def test_an_upload_cut_while_its_head_is_judged_leaves_nothing(service: Service, bob: Wire) -> None:
    for cut in CUTS:
        send_part(service, WORK, cut).reset()

    # Requests are judged in turn, so when this one is through the others are.
    receipt(submit(bob, key="last"))
    wait_until(lambda: course.uploads_in_flight(bob) == 0)
    assert len(rows(service, "submission")) == 1
    wait_until(lambda: len(service.files()) == 2)


@pytest.mark.disk
def test_a_large_upload_cut_after_bytes_reached_the_disk_leaves_nothing(
    service: Service, bob: Wire
) -> None:
    body = bytes(5_000_000)
    cut = begin(service, body, 4_000_000)
    wait_until(lambda: list((service.data / "uploads").iterdir()))
    cut.reset()

    assert_nothing_stored(service)


def test_a_chunked_upload_cut_before_its_end_mark_leaves_nothing(
    service: Service, bob: Wire
) -> None:
    """All bytes of the archive are there, but nobody said that these are all."""
    connection = raw(service)
    headers = upload_headers(WORK, **{"Transfer-Encoding": "chunked"})
    connection.send(connection.head("POST", "submission", headers, **PS1), chunk(WORK))
    wait_until(lambda: course.uploads_in_flight(bob) == 1)
    connection.reset()

    assert_nothing_stored(service)


def test_an_upload_that_ends_politely_but_too_early_leaves_nothing(
    service: Service, bob: Wire
) -> None:
    connection = begin(service, WORK, len(WORK) - 1)
    connection.socket.close()

    assert_nothing_stored(service)


def test_a_length_shorter_than_the_body_is_refused(service: Service, bob: Wire) -> None:
    with raw(service) as connection:
        headers = upload_headers(WORK, **{"Content-Length": str(len(WORK) - 5)})
        connection.send(connection.head("POST", "submission", headers, **PS1), WORK)
        answer = connection.answer()

    assert answer.status == 422
    assert_nothing_stored(service)


MALFORMED_LENGTHS = {
    "negative": [("Content-Length", "-1")],
    "not a number": [("Content-Length", "many")],
    "two of them": [("Content-Length", "5"), ("Content-Length", "6")],
    "both ways": [("Content-Length", "5"), ("Transfer-Encoding", "chunked")],
    "unknown coding": [("Transfer-Encoding", "gzip, chunked")],
}


@pytest.mark.parametrize("headers", MALFORMED_LENGTHS.values(), ids=MALFORMED_LENGTHS)
def test_a_length_that_makes_no_sense_is_refused_and_leaves_nothing(
    service: Service, bob: Wire, headers: list[tuple[str, str]]
) -> None:
    with raw(service) as connection:
        connection.send(connection.head("POST", "submission", headers, **PS1), WORK)
        assert connection.first_line().split()[1] == b"400"
        assert connection.is_closed()
    assert_nothing_stored(service)


def test_after_cuts_the_same_key_can_be_used_again(service: Service, bob: Wire) -> None:
    for cut in (0, 50):
        begin(service, WORK, cut, key="k").reset()
        wait_until(lambda: course.uploads_in_flight(bob) == 0)

    given = receipt(submit(bob, key="k"))
    assert course.collect(bob, given["submission_id"]).content == WORK


def begin(service: Service, body: bytes, cut: int, key: str | None = None) -> RawConnection:
    """The only upload: `cut` bytes of it have been sent, and the head was judged."""
    connection = send_part(service, body, cut, key)
    watcher = service.wire(None)
    wait_until(lambda: course.uploads_in_flight(watcher) == 1)
    return connection


def send_part(service: Service, body: bytes, cut: int, key: str | None = None) -> RawConnection:
    connection = raw(service)
    headers = upload_headers(body, key, **{"Content-Length": str(len(body))})
    connection.send(connection.head("POST", "submission", headers, **PS1), body[:cut])
    return connection


# -- hostile archives


def archive_with(**member: object) -> bytes:
    """A tar.gz with one odd member, made by the standard library."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        entry = tarfile.TarInfo("p1.ipynb")
        for name, value in member.items():
            setattr(entry, name, value)
        content = bytes(entry.size)
        archive.addfile(entry, io.BytesIO(content))
    return target.getvalue()


def many_entries(number: int) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz", compresslevel=1) as archive:
        for name in range(number):
            archive.addfile(tarfile.TarInfo(str(name)))
    return target.getvalue()


HOSTILE = {
    "a symbolic link": archive_with(type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "a hard link": archive_with(type=tarfile.LNKTYPE, linkname="p2.ipynb"),
    "a character device": archive_with(type=tarfile.CHRTYPE),
    "a block device": archive_with(type=tarfile.BLKTYPE),
    "a named pipe": archive_with(type=tarfile.FIFOTYPE),
    "an absolute name": archive_with(name="/etc/passwd"),
    "a name out of the folder": archive_with(name="../p1.ipynb"),
    "a name that comes back in": archive_with(name="a/../../p1.ipynb"),
    "a bomb": bombs.zeros(200_000_000),
    "too many entries": many_entries(10_001),
    "cut": WORK[:-5],
    "altered": WORK[:40] + bytes([WORK[40] ^ 1]) + WORK[41:],
    "not gzip": b"PK\x03\x04" + bytes(100),
    "gzip of no tar": gzip.compress(b"hello" * 1000),
    "html": b"<!doctype html><p>hello",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_is_refused_with_its_reason(
    service: Service, ada: Wire, bob: Wire, body: bytes
) -> None:
    for answer in (submit(bob, body), release(ada, body)):
        assert answer.status_code == 422
        assert len(answer.json()["note"]) > 10
        assert str(service.data) not in answer.text
    assert_nothing_stored(service)


def test_hostile_feedback_is_just_bytes(ada: Wire, bob: Wire) -> None:
    """It is never unpacked and never rendered."""
    submission_id = receipt(submit(bob))["submission_id"]
    for body in (*HOSTILE.values(), b"<script>alert(1)</script>"):
        assert receipt(give_feedback(ada, submission_id, body))["sha256"] == sha256(body)


@pytest.mark.parametrize(("count", "status"), [(250, 201), (251, 422)])
def test_a_submission_lists_a_bounded_number_of_notebooks(service, count, status) -> None:
    receipt(release(service.instructor()))
    body = tar_gz_of({f"n{number}.ipynb": b"" for number in range(count)})

    answer = service.student().post("submission", body, **PS1)

    assert answer.status_code == status
    assert len(service.files()) == (2 if status == 201 else 1)


def test_notebooks_in_folders_are_not_listed_for_grading(service: Service) -> None:
    """nbgrader grades those at the top, so any number may lie below."""
    ada, bob = service.instructor(), service.student()
    below = {f"extra/n{number}.ipynb": b"" for number in range(300)}
    body = tar_gz_of({"p1.ipynb": b"{}", **below})

    given = receipt(release(ada, body))
    receipt(submit(bob, body))

    assert given["notebooks"] == ["p1"]
    listed = bob.get("assignments", course_id="physics").json()["value"]
    listed += course.submissions(ada)
    assert [record["status"] for record in listed] == ["released", "submitted", "submitted"]
    for record in listed:
        assert [notebook["notebook_id"] for notebook in record["notebooks"]] == ["p1"]
