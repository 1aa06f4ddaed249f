"""Measure the service: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sqlalchemy import make_url

from benchmarks import attacks, burst, cycle, lists, report, transfers
from benchmarks.backing import Backing
from benchmarks.ground import Ground
from benchmarks.meters import Readings, Runs
from benchmarks.people import make_tokens, read_tokens
from benchmarks.sizes import FULL, QUICK, Sizes

Scenario = Callable[[Ground], Runs]
SCENARIOS: Mapping[str, Scenario] = MappingProxyType(
    {
        "cycle-small": cycle.small,
        "cycle-large": cycle.large,
        "lists": lists.lists,
        "waiting": transfers.waiting,
        "memory": transfers.heavy,
        "memory-crowd": transfers.crowded,
        "nginx": transfers.against_nginx,
        "slow-clients": attacks.slow_clients,
        "flood": attacks.flood,
        "burst": burst.burst,
        "hour": burst.hour,
    }
)


def main() -> None:
    arguments = _parser().parse_args()
    sizes = QUICK if arguments.quick else FULL
    if arguments.make_tokens:
        make_tokens(arguments.make_tokens, sizes.people)
        return
    with tempfile.TemporaryDirectory(dir=arguments.directory, prefix="benchmarks-") as directory:
        found = _measure(_ground(arguments, sizes, Path(directory)), arguments)
    print(report.tables(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


def _ground(arguments: argparse.Namespace, sizes: Sizes, directory: Path) -> Ground:
    tokens = arguments.tokens
    if tokens is None:
        tokens = directory / "tokens.json"
        make_tokens(tokens, sizes.people)
    people = read_tokens(tokens)
    if len(people.students) < sizes.people:
        sys.exit(f"the token file needs {sizes.people} students; make one with --make-tokens")
    backing = Backing(arguments.server, arguments.bucket)
    return Ground(
        sizes, directory, tokens, people, arguments.url, tuple(arguments.options), backing
    )


def _measure(ground: Ground, arguments: argparse.Namespace) -> dict[str, Any]:
    began = report.now()
    scenarios = {}
    for name in arguments.only or SCENARIOS:
        _say(f"{name}: {SCENARIOS[name].__doc__}")
        runs = list(_runs(SCENARIOS[name], ground, arguments.repeat))
        scenarios[name] = report.scenario_summary(runs) | {"ended": report.now()}
    return {
        "began": began,
        "machine": report.machine(ground.directory),
        "service": ground.url or "started here",
        "options": ground.options,
        "database": make_url(ground.backing.server or "sqlite:///").get_backend_name(),
        "store": ground.backing.bucket or "directory",
        "repeat": arguments.repeat,
        "quick": arguments.quick,
        "scenarios": scenarios,
    }


def _runs(scenario: Scenario, ground: Ground, repeat: int) -> Iterator[Readings]:
    with contextlib.closing(scenario(ground)) as runs:
        for number, readings in enumerate(itertools.islice(runs, repeat), start=1):
            _say(f"  run {number} of {repeat}: {_brief(readings)}")
            yield readings


def _brief(readings: Readings) -> str:
    return ", ".join(f"{key} {value:.4g}" for key, value in readings.numbers.items())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="What follows a -- goes to the service that is started here, such as --db-url=...",
    )
    add = parser.add_argument
    add("--repeat", type=int, default=3, help="runs of each scenario; medians are told")
    add("--only", action="append", choices=SCENARIOS, help="this scenario; may be repeated")
    add("--quick", action="store_true", help="tiny sizes: shows that all works, measures nothing")
    add("--json", type=Path, metavar="FILE", help="write the results here")
    add("--directory", type=Path, help="where data is kept meanwhile, on the disk to measure")
    add("--url", help="measure a service that runs already, with --tokens")
    add("--tokens", type=Path, metavar="FILE", help="the token file that it uses")
    add("--make-tokens", type=Path, metavar="FILE", help="make one, and leave")
    add("--server", metavar="URL", help="a database server; each service gets a database there")
    add("--bucket", metavar="URL", help="an object store; each service gets a prefix there")
    add("options", nargs="*", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
