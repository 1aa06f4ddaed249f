"""Files that cannot be sent cost nothing but themselves, and students read which they are."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.plugin.conftest import ran_well
from tests.support.nbgrader import Home, write_notebook

Make = Callable[[Path], object]


def touch(name: str) -> Make:
    return lambda folder: (folder / name).write_text("stray")


def in_latin_1(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/r\xe9sultat.csv")).write_text("stray")


def both(*names: str) -> Make:
    def make(folder: Path) -> None:
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(name)

    return make


def deep(folder: Path) -> None:
    for _ in range(70):
        folder /= "n"
    folder.mkdir(parents=True)
    (folder / "file").touch()


def long(folder: Path) -> None:
    for letter in "abcdefghijk":
        folder /= 200 * letter
    folder.mkdir(parents=True)
    (folder / "file").touch()


def a_socket(folder: Path) -> None:
    """By a relative name: the path of a socket has at most 108 bytes."""
    here = Path.cwd()
    os.chdir(folder)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("stray.sock")
    finally:
        os.chdir(here)


def link(name: str, target: str) -> Make:
    return lambda folder: (folder / name).symlink_to(target)


def circle(folder: Path) -> None:
    (folder / "one").symlink_to("two")
    (folder / "two").symlink_to("one")


SLASHED = r"data\\in.csv"
STRAYS: list[tuple[Make, dict[str, str]]] = [
    (touch("Icon\r"), {r"Icon\r": "control character"}),
    (touch(r"data\in.csv"), {r"data\in.csv": "backslash"}),
    (touch("\u202egpj.txt"), {r"\u202egpj.txt": "direction of text"}),
    (in_latin_1, {r"r\udce9sultat.csv": "not UTF-8"}),
    (both("D.csv", "d.csv"), {"d.csv": "there is 'D.csv' too"}),
    (both("Own/a", "own/b"), {"own": "there is 'Own' too"}),
    (both("\u00fc.csv", "u\u0308.csv"), {"\u00fc.csv": "there is 'u\u0308.csv' too"}),
    (touch("Timestamp.txt"), {"Timestamp.txt": "there is 'timestamp.txt' too"}),
    (deep, {"/".join(65 * "n"): "64 folders deep"}),
    (long, {"/".join(200 * letter for letter in "abcdefghijk"): "2048 bytes"}),
    (a_socket, {"stray.sock": "a socket"}),
    (lambda folder: os.mkfifo(folder / "pipe"), {"pipe": "a named pipe"}),
    (link(".#p1.ipynb", "bob@host.1:2"), {".#p1.ipynb": "a link to nothing"}),
    (link("x", "p1.ipynb/x"), {"x": "a link to nothing"}),
    (link("null", "/dev/null"), {"null": "a device"}),
    (circle, {"one": "in a circle", "two": "in a circle"}),
    (link("loop", "."), {"loop": "a folder that it is in"}),
]


@pytest.fixture
def mine(alice: Home, released: str) -> Path:
    ran_well(alice, "fetch_assignment", released)
    return alice.work / "ps1"


def kept(home: Home) -> Path:
    (copy,) = (home.cache / "physics").iterdir()
    return copy


def test_stray_files_are_left_out_and_named_and_the_rest_arrives(
    teacher: Home, alice: Home, mine: Path
) -> None:
    """All kinds at once: each would have cost the whole submission."""
    for make, _ in STRAYS:
        make(mine)
    expected = {path: reason for _, some in STRAYS for path, reason in some.items()}

    ran = ran_well(alice, "submit", "ps1")
    ran_well(teacher, "collect", "ps1")

    receipt = json.loads((kept(alice) / "submission_receipt.json").read_text())
    reasons = {each["path"]: each["reason"] for each in receipt["left_out"]}
    assert reasons.keys() == expected.keys()
    for path, reason in expected.items():
        assert reason in reasons[path]
    assert f"{len(expected)} files or folders cannot be sent, so they are left out:" in ran.output
    assert r"'.#p1.ipynb': it is a link to nothing" in ran.output
    assert r"'Icon\r': a control character" in ran.output
    assert f"and {len(expected) - 10} more, which are all in submission_receipt.json" in ran.output
    collected = teacher.work / "submitted/alice/ps1"
    for name in ("p1.ipynb", "p2.ipynb", "extra/p3.ipynb", "data.csv", "D.csv", "Own/a"):
        assert (collected / name).read_bytes() == (mine / name).read_bytes()


def test_without_left_out_files_there_is_no_warning_and_no_entry(alice: Home, mine: Path) -> None:
    ran = ran_well(alice, "submit", "ps1")

    assert "left out" not in ran.output
    assert "left_out" not in (kept(alice) / "submission_receipt.json").read_text()


def test_loose_files_that_are_too_many_are_left_out_from_the_last_on(
    alice: Home, mine: Path
) -> None:
    for number in range(10_500):
        (mine / f"z{number:05}.txt").touch()

    ran = ran_well(alice, "submit", "ps1")

    assert "'.': 508 of the 10,501 files in it, from 'z09992.txt' on" in ran.output
    assert (kept(alice) / "z09991.txt").exists()
    assert (kept(alice) / "data.csv").exists()
    assert not (kept(alice) / "z09992.txt").exists()


def test_where_a_notebook_of_the_release_would_be_left_out_nothing_is_submitted(
    alice: Home, mine: Path
) -> None:
    (mine / "p1.ipynb").rename(mine / "p1.ipynb\r")

    ran = alice.nbgrader("submit", "ps1")

    assert ran.status == 1
    assert r"'p1.ipynb\r' cannot be submitted, so nothing was: a control character" in ran.output
    assert "Rename it to 'p1.ipynb', which is missing, and submit again." in ran.output
    assert "Traceback" not in ran.output
    assert not alice.cache.exists()


def test_one_that_is_left_out_reads_well_and_ignored_ones_are_not_named(
    alice: Home, mine: Path
) -> None:
    alice.configure(
        "c.CourseDirectory.include = ['*.ipynb', '*.csv']\n"
        "c.CourseDirectory.ignore = ['.ipynb_checkpoints', '*data*']"
    )
    write_notebook(mine / "notes\\1.ipynb")
    (mine / "data\\in.csv").touch()
    (mine / "Icon\r").touch()
    (mine / "lock").symlink_to("nowhere")

    ran = ran_well(alice, "submit", "ps1")

    warning = ran.output.partition("A file or folder cannot be sent")[2].splitlines()
    assert [line.strip() for line in warning[:3]] == [
        ", so it is left out:",
        r"'notes\\1.ipynb': there is a backslash in its name",
        "If it is needed, rename it or put a copy in its place, and submit again.",
    ]
