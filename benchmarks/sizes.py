"""How much of everything a run takes."""

from __future__ import annotations

from dataclasses import dataclass

KB = 1000
MB = 1000 * KB


@dataclass(frozen=True)
class Sizes:
    students: int = 250
    at_a_time: int = 16
    small_archive: int = 20 * KB
    large_archive: int = 4300 * KB
    feedback: int = 20 * KB
    attempts: int = 4
    """Submissions of each student in the two courses whose lists are compared."""
    few: int = 100
    many: int = 5000
    page: int = 250
    lists: int = 30
    """Times that each list is asked for in a run."""
    transfer: int = 500 * MB
    """What moves while others wait, and against nginx."""
    heavy_transfer: int = 1000 * MB
    """What moves while memory is watched."""
    warm_up: int = 20 * MB
    """What moves before memory is watched."""
    crowd: int = 20
    crowd_transfer: int = 100 * MB
    """What each of a crowd moves at the same time, while memory is watched."""
    slow_clients: int = 500
    flooders: int = 200
    refused_bodies: int = 4500
    """More than there may be connections."""
    attack_seconds: float = 20
    """How long others are watched, before and during each attack."""
    burst_students: int = 300
    burst_archive: int = MB
    burst_seconds: float = 10
    hour_students: int = 1350
    hour_archive: int = MB
    hour_seconds: float = 300
    hour_replicas: int = 2

    @property
    def people(self) -> int:
        """Students that have to exist."""
        return max(
            self.students, self.burst_students, self.hour_students, self.many // self.attempts
        )


FULL = Sizes()

QUICK = Sizes(
    students=4,
    at_a_time=4,
    large_archive=100 * KB,
    few=8,
    many=24,
    page=5,
    lists=3,
    transfer=4 * MB,
    heavy_transfer=8 * MB,
    warm_up=MB,
    crowd=2,
    crowd_transfer=2 * MB,
    slow_clients=10,
    flooders=4,
    refused_bodies=10,
    attack_seconds=0.3,
    burst_students=4,
    burst_archive=50 * KB,
    burst_seconds=0.2,
    hour_students=6,
    hour_archive=50 * KB,
    hour_seconds=0.3,
)
"""Shows that every scenario works; its numbers mean nothing."""
