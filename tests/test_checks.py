"""What it costs to look into archives: a large one, or a bad one, keeps no small one waiting."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support import course
from tests.support.archives import upload_headers
from tests.support.bombs import MB, damaged_bomb, large
from tests.support.course import PS1, receipt, release, rows, submit
from tests.support.others import Waits, submitters
from tests.support.process import ServiceProcess, highest_memory, wait_until
from tests.support.raw import RawConnection
from tests.support.service import Service

MOST_MEMORY = 300 * MB


@contextlib.contextmanager
def sent(service: Service, tokens: Sequence[str], body: bytes) -> Iterator[None]:
    """Each has sent it, and waits for the answer."""
    watcher = service.wire(None)
    before = bytes_in(service)
    with contextlib.ExitStack() as stack:
        for token in tokens:
            connection = stack.enter_context(RawConnection(service.url, token))
            headers = upload_headers(body, **{"Content-Length": str(len(body))})
            connection.send(connection.head("POST", "submission", headers, **PS1), body)
        wait_until(lambda: bytes_in(service) >= before + len(tokens) * len(body), pause=0.1)
        assert course.uploads_in_flight(watcher) >= len(tokens)
        yield


def bytes_in(service: Service) -> float:
    page = course.metrics(service.wire(None))
    found = re.search(r"^nbexchange_upload_bytes_total (\S+)$", page, re.MULTILINE)
    assert found, page
    return float(found[1])


@pytest.mark.slow
def test_nine_people_whose_archives_expand_to_10_gb_keep_nobody_waiting(data: Path) -> None:
    waits = Waits(submitters)
    with ServiceProcess(data) as service:
        receipt(release(service.instructor()))
        tokens = [service.enrol(f"mallory{one}", {"physics": "Student"}) for one in range(9)]
        bomb = damaged_bomb(10_000 * MB)
        waits.watch_after(service, lambda: sent(service, tokens, bomb), seconds=3)
        memory = highest_memory(service.pid)

    print(f"nine times 10 GB: {waits}; {memory / MB:.0f} MB")
    assert memory <= MOST_MEMORY


def test_what_takes_long_to_check_has_its_turn_among_others_that_do(data: Path) -> None:
    """Both bombs came first, and take minutes."""
    with ServiceProcess(data) as service:
        receipt(release(service.instructor()))
        tokens = [service.enrol(f"mallory{one}", {"physics": "Student"}) for one in range(2)]
        with sent(service, tokens, damaged_bomb(10_000 * MB)):
            given = receipt(submit(service.student(), body := large(100 * MB)))
            assert course.uploads_in_flight(service.wire(None)) == len(tokens)

    assert given["size"] == len(body)


def test_after_a_refused_archive_the_next_waits_and_keeps_its_time(data: Path) -> None:
    with ServiceProcess(data) as service:
        receipt(release(service.instructor()))
        bob, eve = service.student(), service.student(name="eve")
        refused = submit(bob, damaged_bomb(200 * MB))
        took = refused.elapsed.total_seconds()
        after = submit(bob)
        others = min(submit(eve).elapsed.total_seconds() for _ in range(3))
        (stored, *_) = rows(service, "submission")

    assert refused.status_code == 422
    assert after.status_code == 201
    assert (stored["stored_at"] - stored["timestamp"]).total_seconds() >= took
    assert others < after.elapsed.total_seconds() / 2
