"""Jobs: one for each key, in lanes, without a wait in the event loop."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading

import pytest

from nbexchange.plugin.jobs import Jobs, Lane, logger_of_job
from tests.support.parts import PATIENCE


def test_a_key_that_runs_is_joined_and_one_that_has_ended_is_started_again():
    jobs, lane, gate = Jobs(), Lane("test", 2), threading.Event()
    starts: list[str] = []

    def work() -> str:
        starts.append("started")
        gate.wait()
        return "done"

    first, is_first_joined = jobs.start("submit ps1", lane, work)
    second, is_second_joined = jobs.start("submit ps1", lane, work)
    gate.set()
    assert second.wait() == "done"
    third, is_third_joined = jobs.start("submit ps1", lane, work)
    third.wait()

    assert first is second is not third
    assert (is_first_joined, is_second_joined, is_third_joined) == (False, True, False)
    assert len(starts) == 2


def test_one_who_stops_waiting_does_not_stop_the_job():
    gate = threading.Event()
    job = Lane("test", 1).start(lambda: gate.wait() and "done")

    assert not asyncio.run(job.ended_within(0))
    gate.set()

    assert job.wait() == "done"


def test_a_failure_belongs_to_those_who_wait():
    def fail() -> str:
        raise ValueError("no")

    job = Lane("test", 1).start(fail)

    assert asyncio.run(job.ended_within(60))
    with pytest.raises(ValueError, match="no"):
        job.result()


def test_a_lane_runs_one_after_the_other_in_order():
    lane, order, running = Lane("test", 1), [], []

    def work(name: str) -> str:
        running.append(name)
        order.append((name, len(running)))
        running.remove(name)
        return name

    jobs = [lane.start(lambda name=name: work(name)) for name in "abcdef"]
    for job in jobs:
        job.wait()

    assert order == [(name, 1) for name in "abcdef"]


def test_the_event_loop_goes_on_while_all_threads_of_a_lane_wait():
    gate, lane = threading.Event(), Lane("test", 2)

    async def ask() -> list[bool]:
        jobs = [lane.start(gate.wait) for _ in range(4)]
        waiting = asyncio.gather(*(job.ended_within(60) for job in jobs))
        await asyncio.sleep(0)  # the loop turns, or this never comes back
        gate.set()
        return await waiting

    assert asyncio.run(ask()) == [True] * 4


def test_a_process_ends_while_a_job_still_waits():
    """A pool of threads would hold it up until they are done."""
    program = (
        "import threading\n"
        "from nbexchange.plugin.jobs import Lane\n"
        "Lane('test', 1).start(threading.Event().wait)"
    )

    ran = subprocess.run([sys.executable, "-c", program], timeout=PATIENCE)

    assert ran.returncode == 0


def test_a_logger_of_a_job_keeps_its_own_lines_and_passes_them_on(
    caplog: pytest.LogCaptureFixture,
):
    server = logging.getLogger("server")
    log, messages = logger_of_job(server)
    _, others = logger_of_job(server)

    server.warning("a request")
    log.warning("my warning")
    log.critical("my failure")

    assert messages.texts(logging.WARNING, logging.CRITICAL) == ["my warning", "my failure"]
    assert others.texts(logging.WARNING) == []
    assert [record.getMessage() for record in caplog.records] == [
        "a request",
        "my warning",
        "my failure",
    ]
