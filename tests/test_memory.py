"""Memory that the service no longer uses goes back to the system."""

from __future__ import annotations

from pathlib import Path

from tests.support.process import ServiceProcess, resident_memory, wait_until

MB = 1024 * 1024

FRAGMENTED = """
from nbexchange.server import memory
memory.TRIM_SECONDS = 0.2

# 80 MB of buffers, of which every fortieth stays: no heap has a free top.
buffers = [bytearray(4096) for _ in range(20 * 1024)]
kept = buffers[::40]
memory.kept = [*kept, bytearray(4096)]
del buffers
"""


def test_free_pages_between_buffers_that_are_used_are_returned(data: Path) -> None:
    with ServiceProcess(data, FRAGMENTED) as service:
        assert wait_until(lambda: resident_memory(service.pid) < 115 * MB)
