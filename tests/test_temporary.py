"""Temporary folders: those that killed commands left go, and no others."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbexchange.temporary import remove_abandoned, temporary_folder

DAY = 24 * 60 * 60
HOLD = """
import sys
from pathlib import Path
from nbexchange.temporary import temporary_folder
with temporary_folder(Path(sys.argv[1])) as folder:
    (folder / "p1.ipynb").write_text("a whole copy")
    print(folder, flush=True)
    sys.stdin.read()
"""


def age(folder: Path, seconds: float = 2 * DAY) -> Path:
    then = time.time() - seconds
    os.utime(folder, (then, then), follow_symlinks=False)
    return folder


def left_behind(parent: Path, name: str = ".nbexchange-abc_1234") -> Path:
    folder = parent / name
    (folder / "new" / "data").mkdir(parents=True)
    (folder / "new" / "data" / "p1.ipynb").write_text("a whole copy")
    return age(folder)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A command that is at work, and its folder."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def test_a_temporary_folder_is_gone_in_the_end(tmp_path: Path) -> None:
    with temporary_folder(tmp_path) as folder:
        (folder / "file").touch()
        assert folder.parent == tmp_path

    assert list(tmp_path.iterdir()) == []


def test_the_next_one_removes_what_was_left_behind(tmp_path: Path) -> None:
    left_behind(tmp_path)

    with temporary_folder(tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder]


def test_what_is_younger_than_a_day_stays(tmp_path: Path) -> None:
    folder = age(left_behind(tmp_path), DAY - 600)

    remove_abandoned(tmp_path)

    assert (folder / "new/data/p1.ipynb").exists()


def test_a_command_that_is_still_at_work_keeps_its_folder(
    tmp_path: Path, running: tuple[subprocess.Popen[str], Path]
) -> None:
    process, folder = running
    age(folder)

    remove_abandoned(tmp_path)
    assert (folder / "p1.ipynb").exists()

    process.kill()
    process.wait()
    assert folder.exists(), "a killed command cannot remove it itself"
    remove_abandoned(tmp_path)
    assert not folder.exists()


@pytest.mark.parametrize(
    "name",
    [".nbexchange-", ".nbexchange-abc", ".nbexchange-my notes", "nbexchange-abc_1234", "ps1"],
)
def test_folders_with_other_names_stay(tmp_path: Path, name: str) -> None:
    folder = left_behind(tmp_path, name)

    remove_abandoned(tmp_path)

    assert (folder / "new/data/p1.ipynb").exists()


def test_files_and_links_of_such_names_stay(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    left_behind(elsewhere, "mine")
    file, link = tmp_path / ".nbexchange-aaaaaaaa", tmp_path / ".nbexchange-bbbbbbbb"
    file.write_text("mine")
    link.symlink_to(elsewhere / "mine")

    for path in (file, link):
        age(path)
    remove_abandoned(tmp_path)

    assert file.read_text() == "mine"
    assert link.is_symlink()
    assert (elsewhere / "mine/new/data/p1.ipynb").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_folders_of_other_users_stay(tmp_path: Path) -> None:
    folder = left_behind(tmp_path)
    os.chown(folder, 65534, 65534)

    remove_abandoned(tmp_path)

    assert (folder / "new/data/p1.ipynb").exists()


def test_a_place_that_is_not_there_has_nothing_to_remove(tmp_path: Path) -> None:
    remove_abandoned(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    remove_abandoned(tmp_path / "file")
