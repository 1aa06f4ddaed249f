"""How long others wait while somebody does harm, against what they wait when nobody does."""

from __future__ import annotations

import time
from urllib.parse import urlencode

from benchmarks import bodies
from benchmarks.attackers import Attackers
from benchmarks.cycle import release
from benchmarks.ground import Ground
from benchmarks.meters import Readings, Runs, Waiting
from benchmarks.service import Service
from benchmarks.sizes import KB


def slow_clients(ground: Ground) -> Runs:
    """how long others wait while 500 clients move a byte a second, or a little at a time"""
    while True:
        with ground.service() as service:
            where = urlencode(release(service, bodies.archive(20 * KB)))
            readings = Readings()
            for kind in ("header", "body"):
                tokens = service.people.students[:50]
                attackers = Attackers(service.url, kind, ground.sizes.slow_clients, tokens, where)
                _attack(readings, f"slow.{kind}", service, attackers, ground.sizes.attack_seconds)
            for kind, known in (("chunks", True), ("crumbs", False), ("pipelined", False)):
                tokens = service.people.students[:50] if known else []
                attackers = Attackers(service.url, kind, ground.sizes.flooders, tokens, where)
                _attack(readings, f"slow.{kind}", service, attackers, ground.sizes.attack_seconds)
            count = ground.sizes.refused_bodies
            attackers = Attackers(service.url, "refused", count, (), where)
            _attack(readings, "slow.refused", service, attackers, ground.sizes.attack_seconds)
        yield readings


def flood(ground: Ground) -> Runs:
    """how long others wait during a flood of bad requests"""
    while True:
        with ground.service() as service:
            release(service, bodies.archive(20 * KB))
            readings = Readings()
            for name, kind, tokens, query in (
                ("unknown", "flood", (), ""),
                ("known", "flood", service.people.students[-1:], ""),
                ("malformed", "malformed", (), ""),
                ("strangers", "strangers", (), "hub"),
            ):
                attackers = Attackers(service.url, kind, ground.sizes.flooders, tokens, query)
                _attack(readings, f"flood.{name}", service, attackers, ground.sizes.attack_seconds)
                answered = attackers.answers.total() - attackers.answers["connections"]
                readings.numbers[f"flood.{name}.per_second"] = answered / attackers.seconds
        yield readings


def _attack(
    readings: Readings, key: str, service: Service, attackers: Attackers, seconds: float
) -> None:
    numbers = readings.numbers
    with Waiting(service) as before:
        time.sleep(seconds)
    with attackers, Waiting(service) as others:
        time.sleep(seconds)
    numbers[f"{key}.idle.p95_ms"] = before.p95_ms
    numbers[f"{key}.p95_ms"] = others.p95_ms
    numbers[f"{key}.ratio"] = others.p95_ms / before.p95_ms
