"""Packing without a service: files that change meanwhile, and folders with too many files."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nbexchange import archive
from nbexchange.archive import ArchiveLimits, Member
from nbexchange.archive.packing import _Whole
from nbexchange.plugin import packing
from nbexchange.plugin.client import ServiceError
from nbexchange.plugin.packing import LeftOut, PackingRules, Selection, select, warning

RULES = PackingRules((".ipynb_checkpoints",), (), 10**8, 10**8)
NOTEBOOK = "p1.ipynb"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "ps1"
    (folder / "data").mkdir(parents=True)
    (folder / NOTEBOOK).write_text("{}")
    (folder / "data" / "a.csv").write_text("1,2\n")
    return folder


def names(selection: Selection) -> set[str]:
    return {one.name for one in selection.members}


def packed(selection: Selection, tmp_path: Path, rules: PackingRules = RULES) -> set[str]:
    """The contents of the archive."""
    with selection.packed((), 10**9) as parcel:
        parcel.file.seek(0)
        archive.unpack(parcel.file, tmp_path / "unpacked", rules.limits)
    return {
        str(path.relative_to(tmp_path / "unpacked")) for path in (tmp_path / "unpacked").rglob("*")
    }


def test_all_is_selected_and_measured(folder: Path) -> None:
    selection = select(folder, RULES)

    assert names(selection) == {NOTEBOOK, "data", "data/a.csv"}
    assert selection.sizes == {NOTEBOOK: 2, "data/a.csv": 4}
    assert selection.left_out == selection.too_large == []


def test_the_choice_does_not_depend_on_the_order_of_the_disk(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("Data.csv", "data.csv", "DATA.csv", "P1.ipynb"):
        (folder / name).touch()
    usual = select(folder, RULES, notebooks=[NOTEBOOK])
    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: sorted(iterdir(path), reverse=True))

    other_way = select(folder, RULES, notebooks=[NOTEBOOK])

    assert usual == other_way
    assert {"DATA.csv", NOTEBOOK} <= names(usual)
    assert {one.path for one in usual.left_out} == {"Data.csv", "data.csv", "P1.ipynb"}


def test_a_file_that_vanishes_before_it_is_packed_is_left_out(folder: Path, tmp_path: Path) -> None:
    selection = select(folder, RULES)
    (folder / "data" / "a.csv").unlink()

    assert packed(selection, tmp_path) == {NOTEBOOK, "data"}
    assert selection.left_out == [LeftOut("data/a.csv", "it was removed meanwhile")]
    assert selection.size == 2


def test_a_file_that_becomes_something_else_is_left_out(folder: Path, tmp_path: Path) -> None:
    selection = select(folder, RULES)
    (folder / "data" / "a.csv").unlink()
    os.mkfifo(folder / "data" / "a.csv")

    assert packed(selection, tmp_path) == {NOTEBOOK, "data"}
    assert selection.left_out == [LeftOut("data/a.csv", "it is a named pipe")]


def unreadable(monkeypatch: pytest.MonkeyPatch, name: str, error: int, times: int = 99) -> None:
    """As on a disk of the network: it can be opened, and reading it fails so many times."""
    read = _Whole.read
    left = [times]

    def fail(self: _Whole, size: int = -1) -> bytes:
        if self._name == name and left[0]:
            left[0] -= 1
            if not error:
                raise archive.BrokenOff(name, "became shorter")
            monkeypatch.setattr(self, "_file", Failing(error))
        return read(self, size)

    monkeypatch.setattr(_Whole, "read", fail)


class Failing:
    def __init__(self, error: int) -> None:
        self.error = error

    def read(self, _size: int) -> bytes:
        raise OSError(self.error, os.strerror(self.error))


@pytest.mark.parametrize("error", [0, errno.EIO, errno.ESTALE])
def test_a_file_that_cannot_be_read_to_its_end_is_left_out(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    unreadable(monkeypatch, "data/a.csv", error)
    selection = select(folder, RULES)

    assert packed(selection, tmp_path) == {NOTEBOOK, "data"}
    (left,) = selection.left_out
    assert left.path == "data/a.csv"
    assert (os.strerror(error) if error else "became shorter") in left.reason


def test_a_file_that_changed_once_is_packed_as_it_is_then(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was saved at just that moment."""
    unreadable(monkeypatch, NOTEBOOK, 0, times=1)
    selection = select(folder, RULES)

    assert NOTEBOOK in packed(selection, tmp_path)
    assert selection.left_out == []


def test_files_that_change_all_the_time_end_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: _Whole, _size: int = -1) -> bytes:
        raise archive.BrokenOff(self._name, "became shorter")

    monkeypatch.setattr(_Whole, "read", fail)
    for number in range(20):
        (folder / f"{number}.log").write_text("x")

    with (
        pytest.raises(ServiceError, match="keep changing"),
        select(folder, RULES).packed((), 10**9),
    ):
        pass


def test_a_folder_that_cannot_be_read_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a user other than root."""
    iterdir = Path.iterdir

    def refuse(path: Path) -> object:
        if path.name == "data":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path).name != "secret")
    (folder / "secret").write_text("of another user")

    selection = select(folder, RULES)

    assert names(selection) == {NOTEBOOK}
    assert selection.left_out == [
        LeftOut("data", "it cannot be read (Permission denied)"),
        LeftOut("secret", "it cannot be read (Permission denied)"),
    ]


def test_files_that_grow_while_they_are_packed_are_measured_again(folder: Path) -> None:
    """Otherwise collect would never accept a submission that submit has accepted."""
    selection = select(folder, PackingRules((), (), 0, 100))
    selection.check_size("")
    (folder / "data" / "a.csv").write_bytes(bytes(98))
    with selection.packed([Member("timestamp.txt", b"ours does not count")], 10**9):
        pass
    (folder / "data" / "a.csv").write_bytes(bytes(99))

    with (
        pytest.raises(
            ServiceError, match=r"grew while it was packed\. All files together now have 101 bytes"
        ),
        selection.packed([Member("timestamp.txt", b"ours")], 10**9),
    ):
        pass


def test_links_between_folders_do_not_make_a_tree_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten folders that all link to each other have 10! paths."""
    monkeypatch.setattr(packing, "_MOST_WALKED", 1000)
    for name in "abcdefghij":
        (tmp_path / name).mkdir()
        for other in "abcdefghij":
            (tmp_path / name / other).symlink_to(tmp_path / other)

    with pytest.raises(ServiceError, match=r"more than 1,000 files and folders.*largest folders"):
        select(tmp_path, RULES)


# Too many files


@pytest.fixture
def most(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if an archive could hold a hundred."""
    monkeypatch.setattr(packing, "_USUAL", ArchiveLimits(entries=100))


def filled(folder: Path, **counts: int) -> None:
    for name, count in counts.items():
        (folder / name).mkdir(exist_ok=True)
        for number in range(count):
            (folder / name / f"{number}").touch()


@pytest.mark.usefixtures("most")
@pytest.mark.parametrize(
    ("counts", "left"),
    [
        pytest.param({"a": 84, "b": 11}, set(), id="few enough"),
        pytest.param({"a": 85, "b": 11}, {"data"}, id="one too many"),
        pytest.param({"a": 105, "b": 3}, {"a"}, id="the one that is enough"),
        pytest.param({"a": 60, "b": 30, "c": 20}, {"c"}, id="the smallest that is enough"),
        pytest.param({"a": 94, "b": 90, "c": 1}, {"b"}, id="not more than needed"),
        pytest.param({"a": 110, "b": 105, "c": 1}, {"a", "b"}, id="two"),
    ],
)
def test_of_too_many_files_as_few_as_possible_are_left_out(
    folder: Path, counts: dict[str, int], left: set[str]
) -> None:
    filled(folder, **counts)

    selection = select(folder, RULES, notebooks=[NOTEBOOK])

    assert {one.path for one in selection.left_out} == left
    tops = {one for one in names(selection) if "/" not in one}
    assert tops == {NOTEBOOK, "data", *counts} - left
    assert len(selection.members) <= 100


@pytest.mark.usefixtures("most")
def test_a_folder_with_a_notebook_of_the_release_keeps_it(folder: Path) -> None:
    filled(folder, notebooks=105)
    (folder / "notebooks" / "p2.ipynb").touch()

    selection = select(folder, RULES, notebooks=[NOTEBOOK, "notebooks/p2.ipynb"])

    assert {NOTEBOOK, "notebooks/p2.ipynb", "data/a.csv"} <= names(selection)
    assert len(selection.members) == 100
    (left,) = selection.left_out
    assert left.path == "notebooks"
    assert left.reason == (
        "10 of the 105 files in it, from 'notebooks/90' on, because at most 100 files and folders "
        "can be sent"
    )


def test_names_that_are_too_long_altogether_are_too_many(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_USUAL", ArchiveLimits(all_paths_length=20_000))
    filled(folder, long=0)
    for number in range(90):
        (folder / "long" / (f"{number:05}" + 245 * "x")).touch()

    selection = select(folder, RULES, notebooks=[NOTEBOOK])

    assert names(selection) == {NOTEBOOK, "data", "data/a.csv"}
    (left,) = selection.left_out
    assert "all names together are too long" in left.reason


@pytest.mark.usefixtures("most")
def test_the_largest_folders_are_named_when_nothing_else_helps(folder: Path) -> None:
    filled(folder, many=101)

    with pytest.raises(ServiceError, match=r"largest folders are 'many' \(101\), '.' \(2\)"):
        select(folder, RULES, notebooks=[NOTEBOOK, *(f"many/{number}" for number in range(101))])


# What students read


NO_NOTEBOOK = [
    (
        "other-case",
        lambda folder: (folder / "P1.ipynb").touch(),
        r"'P1.ipynb' cannot be submitted, so nothing was: there is 'p1.ipynb' too",
        r"Keep your work in 'p1.ipynb', which belongs to the assignment, rename or remove 'P1.ipy",
    ),
    (
        "other-case-of-its-folder",
        lambda folder: (folder / "Extra").mkdir(),
        r"'Extra' cannot be submitted, so nothing was: there is 'extra' too",
        r"Keep your work in 'extra', which belongs to the assignment",
    ),
    (
        "renamed",
        lambda folder: (folder / "p1.ipynb").rename(folder / "p1.ipynb\r"),
        r"'p1.ipynb\r' cannot be submitted, so nothing was: a control character",
        r"Rename it to 'p1.ipynb', which is missing",
    ),
    (
        "unpacked-on-the-wrong-system",
        lambda folder: (folder / "extra/p3.ipynb").rename(folder / r"extra\p3.ipynb"),
        r"'extra\\p3.ipynb' cannot be submitted, so nothing was: there is a backslash",
        r"Rename it to 'extra/p3.ipynb', which is missing",
    ),
    (
        "folder-renamed",
        lambda folder: (folder / "extra").rename(folder / "extra\x7f"),
        r"'extra\x7f' cannot be submitted, so nothing was: a control character",
        r"Rename it to 'extra', which is missing",
    ),
    (
        "link-to-nothing",
        lambda folder: (folder / "p1.ipynb").unlink() or (folder / "p1.ipynb").symlink_to("gone"),
        r"'p1.ipynb' cannot be submitted, so nothing was: it is a link to nothing",
        r"It belongs to the assignment: rename what is there, save your work under this name",
    ),
]


@pytest.mark.parametrize(
    ("make", "words", "advice"), [pytest.param(*case, id=name) for name, *case in NO_NOTEBOOK]
)
def test_a_notebook_of_the_release_that_cannot_be_sent_is_an_error_with_advice(
    folder: Path, make: Callable[[Path], object], words: str, advice: str
) -> None:
    (folder / "extra").mkdir()
    (folder / "extra" / "p3.ipynb").touch()
    notebooks = [NOTEBOOK, "extra/p3.ipynb"]
    packing.check_notebooks(select(folder, RULES, notebooks=notebooks), notebooks)
    make(folder)
    selection = select(folder, RULES, notebooks=notebooks)

    with pytest.raises(ServiceError) as error:
        packing.check_notebooks(selection, notebooks)

    assert str(error.value).startswith(words)
    assert advice in str(error.value)


def test_other_notebooks_that_cannot_be_sent_do_not_stop_a_submission(folder: Path) -> None:
    for name in ("notes\\1.ipynb", "p1\\copy.ipynb"):
        (folder / name).touch()
    selection = select(folder, RULES, notebooks=[NOTEBOOK])

    packing.check_notebooks(selection, [NOTEBOOK])

    assert len(selection.left_out) == 2


def test_one_and_many_read_well() -> None:
    one = warning([LeftOut("Icon\r", "a control character is in its name")], "receipt.json")
    many = warning([LeftOut(f"{number}\n", "why") for number in range(500)], "receipt.json")

    assert one.splitlines() == [
        "A file or folder cannot be sent, so it is left out:",
        "\t'Icon\\r': a control character is in its name",
        "If it is needed, rename it or put a copy in its place, and submit again.",
    ]
    assert many.splitlines() == [
        "500 files or folders cannot be sent, so they are left out:",
        *(f"\t'{number}\\n': why" for number in range(10)),
        "\tand 490 more, which are all in receipt.json in the copy that is kept",
        "If they are needed, rename them or put copies in their place, and submit again.",
    ]


def test_ten_thousand_left_out_files_are_sorted_quickly(folder: Path) -> None:
    """Each is compared with each notebook of the release, so the way to compare matters."""
    selection = select(folder, RULES)
    selection.left_out = [LeftOut(f"data\\{number}.ipynb", "why") for number in range(10_000)]

    packing.check_notebooks(selection, [f"{number}.ipynb" for number in range(10_000, 10_250)])
