from __future__ import annotations

import pytest

from nbexchange.plugin import files
from nbexchange.plugin.client import ServiceError


@pytest.fixture
def place(tmp_path):
    """A folder with something in it, and a workshop beside it."""
    (tmp_path / "workshop").mkdir()
    folder = tmp_path / "place"
    folder.mkdir()
    (folder / "old").touch()
    return folder


def test_the_old_folder_is_restored_when_the_new_one_cannot_come(place):
    with pytest.raises(FileNotFoundError):
        files.move_into_place(place.parent / "workshop" / "not there", place)

    assert (place / "old").exists()


def test_a_link_to_a_folder_is_replaced_and_its_target_stays(place, tmp_path):
    new = tmp_path / "workshop" / "new"
    new.mkdir()
    link = tmp_path / "link"
    link.symlink_to(place)

    files.move_into_place(new, link)

    assert not link.is_symlink()
    assert (place / "old").exists()


@pytest.mark.parametrize("kind", ["file", "broken link"])
def test_a_file_in_place_of_a_folder_is_not_replaced(tmp_path, kind):
    new, place = tmp_path / "new", tmp_path / "place"
    new.mkdir()
    if kind == "file":
        place.write_text("mine")
    else:
        place.symlink_to("nowhere")

    with pytest.raises(ServiceError, match="exists and is not a folder"):
        files.move_into_place(new, place)

    assert place.is_symlink() or place.read_text() == "mine"
    assert new.is_dir()


def test_a_file_is_replaced_at_once_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "new" / "page.html"

    files.write_whole(path, b"one")
    files.write_whole(path, b"two")

    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]
