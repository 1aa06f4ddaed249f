"""nbexchange demo, as a person types it. `make demo` runs it with a service of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nbexchange.commands.demo import DemoFailed, _compare


def demo(place: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nbexchange", "demo", f"--directory={place}", *options],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_course_goes_through_a_running_service(service, tmp_path):
    service.enrol("ada", {"art": "Instructor"})
    service.enrol("bob", {"art": "Student"})
    service.enrol("eve", {"art": {"role": "Student", "title": "Art"}})

    done = demo(
        tmp_path / "demo", f"--url={service.url}", f"--people={service.people}", "--course=art"
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("Every byte and all feedback arrived.")
    assert "2.0 of 2.0" in done.stdout
    assert "0.0 of 2.0" in done.stdout
    (place,) = (tmp_path / "demo").iterdir()
    assert sorted(path.name for path in (place / "homes").iterdir()) == ["ada", "bob", "eve"]
    assert len(list(place.glob("homes/*/demo-*/feedback/*/sums.html"))) == 2


@pytest.mark.slow
def test_a_command_that_fails_ends_the_demo_and_shows_why(service, tmp_path):
    service.enrol("ada", {"art": "Instructor"})
    service.enrol("bob", {"art": "Student"})

    done = demo(
        tmp_path, "--url=http://127.0.0.1:9/nowhere", f"--people={service.people}", "--course=art"
    )

    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "`nbgrader release_assignment" in done.stderr


def test_a_service_without_such_people_is_told_apart(service, tmp_path):
    service.enrol("ada", {"art": "Instructor"})

    done = demo(tmp_path, f"--url={service.url}", f"--people={service.people}", "--course=art")

    assert done.returncode == 1
    assert "no student" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_token_file_is_said_in_one_sentence(service, tmp_path):
    done = demo(tmp_path, f"--url={service.url}")

    assert done.returncode == 1
    assert "--people" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arrived", [None, b"", b"other"], ids=["nothing", "empty", "changed"])
def test_work_that_did_not_arrive_as_it_was_sent_fails_the_demo(tmp_path, arrived):
    (tmp_path / "sent").write_bytes(b"work")
    if arrived is not None:
        (tmp_path / "arrived").write_bytes(arrived)

    with pytest.raises(DemoFailed):
        _compare(tmp_path / "sent", tmp_path / "arrived")
