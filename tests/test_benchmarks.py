"""`python -m benchmarks` works: every scenario runs, and every goal gets a value or a reason."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from benchmarks.__main__ import SCENARIOS
from benchmarks.goals import GOALS
from benchmarks.meters import percentile
from benchmarks.people import make_tokens, read_tokens
from benchmarks.sizes import QUICK
from tests.support import databases
from tests.support.service import Service

TOP = Path(__file__).parent.parent


def run(file: Path, *arguments: str) -> dict[str, Any]:
    """What is written into `file`, and under `table` what is printed."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--repeat=1", f"--json={file}", *arguments],
        cwd=TOP,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(file.read_text()) | {"table": done.stdout}


def told(found: dict[str, Any], kind: str) -> set[str]:
    return {key for scenario in found["scenarios"].values() for key in scenario[kind]}


@pytest.mark.slow
def test_every_scenario_runs_and_every_goal_has_a_value_or_a_reason(tmp_path: Path) -> None:
    found = run(tmp_path / "found.json", f"--directory={tmp_path}")

    assert list(found["scenarios"]) == list(SCENARIOS)
    assert told(found, "numbers") | told(found, "skipped") >= {
        key for key, goal in GOALS.items() if goal.target
    }
    assert told(found, "numbers") <= set(GOALS)
    assert all(scenario["runs"] == 1 for scenario in found["scenarios"].values())
    assert {"cores", "cpu", "memory_mb", "kernel", "python", "disk"} <= set(found["machine"])
    for goal in GOALS.values():
        assert goal.what in found["table"] or not goal.target
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]


def test_a_service_elsewhere_is_measured_but_for_its_process(tmp_path: Path, data: Path) -> None:
    """What needs its process or its disk is left out, and the reason is told."""
    tokens = data.parent / "people.json"
    make_tokens(tokens, QUICK.people)
    with Service(data) as service:
        only = ("--only=lists", "--only=memory", "--only=nginx")
        elsewhere = (f"--url={service.url}", f"--tokens={tokens}")
        found = run(tmp_path / "found.json", *elsewhere, *only)

    assert "list.student.ratio" in told(found, "numbers")
    assert told(found, "skipped") == {
        "memory.one.in.mb",
        "memory.one.out.mb",
        "nginx.in.ratio",
        "nginx.out.ratio",
    }
    assert "skipped: the service's process is not on this machine" in found["table"]


def test_a_token_file_names_everybody_who_takes_part(tmp_path: Path) -> None:
    make_tokens(tmp_path / "tokens.json", 3)

    people = read_tokens(tmp_path / "tokens.json")

    assert len({people.instructor, *people.students}) == 4


@pytest.mark.parametrize(
    ("values", "percent", "value"),
    [
        ([1], 50, 1),
        ([1], 99, 1),
        ([4, 3, 2, 1], 50, 2),
        (range(1, 101), 95, 95),
        (range(1, 101), 99, 99),
        (range(1, 11), 99, 10),
    ],
)
def test_so_many_percent_do_not_exceed_a_percentile(
    values: Sequence[float], percent: int, value: float
) -> None:
    assert percentile(values, percent) == value


def test_each_service_gets_a_database_of_its_own_on_a_server(tmp_path: Path) -> None:
    server = databases.server("postgresql")
    url = server.url.render_as_string(hide_password=False)

    def made() -> set[str]:
        with server.connect() as connection:
            names = connection.execute(text("SELECT datname FROM pg_database")).scalars()
            return {name for name in names if name.startswith("nbexchange_benchmark")}

    before = made()
    found = run(tmp_path / "found.json", "--only=hour", f"--server={url}")

    assert found["database"] == "postgresql"
    assert found["scenarios"]["hour"]["numbers"]["hour.lost"] == 0
    assert made() <= before, "the benchmark left its database behind"
