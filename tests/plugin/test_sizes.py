"""How much a submission may hold, and how repetitive it may be, is the same on both ends."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from traitlets.config import Config

from nbexchange.archive import ArchiveLimits
from nbexchange.plugin.packing import PackingRules
from tests.plugin.conftest import fetched, ran_well
from tests.support.nbgrader import Home, write_notebook
from tests.support.service import Service


def test_one_line_that_was_printed_too_often_arrives(teacher, alice, released):
    """14 MB of it, and a file of zeros: a course may hold both, and both shrink to a thousandth."""
    ran_well(alice, "fetch_assignment", "ps1")
    notebook = alice.work / "ps1" / "p1.ipynb"
    content = json.loads(notebook.read_text())
    output = {"output_type": "stream", "name": "stdout", "text": "hello\n" * 2_000_000}
    content["cells"][0]["outputs"] = [output]
    notebook.write_text(json.dumps(content))
    (alice.work / "ps1" / "zeros.bin").write_bytes(bytes(30_000_000))

    ran_well(alice, "submit", "ps1")
    ran_well(teacher, "collect", "ps1")

    collected = teacher.work / "submitted/alice/ps1"
    (copy,) = (alice.cache / "physics").iterdir()
    for folder in (collected, copy):
        assert (folder / "p1.ipynb").read_bytes() == notebook.read_bytes()
        assert (folder / "zeros.bin").read_bytes() == bytes(30_000_000)


def test_beyond_that_the_file_is_named_whose_output_has_to_be_cleared(data, zygote, tmp_path):
    config = Config()
    config.NbExchange.ratio_floor = 1_000_000
    with Service(data, config) as service:
        token = service.enrol("ada", {"physics": "Instructor"})
        teacher = Home(tmp_path / "machine", service.url, token, zygote, "physics")
        write_notebook(teacher.work / "release/ps1/p1.ipynb")
        write_notebook(teacher.work / "release/ps1/p2.ipynb", "x = 1\n" * 1_000_000)

        ran = teacher.nbgrader("release_assignment", "ps1")

    assert ran.status == 1
    assert "'p2.ipynb' repeats itself; clear its output or leave it out" in ran.output


def rules(**options: object) -> PackingRules:
    usual = {"ignore": [], "include": [], "max_file_size": 100_000, "max_dir_size": 100_000}
    return PackingRules.of(SimpleNamespace(**usual | options))


def test_any_size_that_a_course_allows_can_be_unpacked():
    usual, more = rules(max_dir_size=1000).limits, rules(max_dir_size=20_000_000).limits

    assert usual == ArchiveLimits()
    assert more.ratio_floor == 20_000_000_000
    assert more.expanded_size > 20_000_000_000 + 10_000 * 3 * 512


SIZES = "c.CourseDirectory.max_dir_size = {}\nc.CourseDirectory.max_file_size = {}"


def filled(folder: Path, size: int) -> int:
    """Put files behind links and ignored ones there; how many bytes are left of `size`."""
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "linked.bin").write_bytes(os.urandom(1000))
    (folder / "linked.bin").symlink_to(outside / "linked.bin")
    (folder / "linked").symlink_to(outside)
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints" / "ignored").write_bytes(os.urandom(5000))
    (folder / "timestamp.txt").write_text("replaced, so it does not count")
    notebooks = sum(path.stat().st_size for path in folder.rglob("*.ipynb"))
    return size - 2000 - notebooks - (folder / "data.csv").stat().st_size


@pytest.mark.parametrize("too_much", [0, 1], ids=["just fits", "a byte too many"])
def test_collect_accepts_every_submission_that_submit_accepts(teacher, alice, released, too_much):
    """To the byte, with the same options: the size of the sent bytes counts, not the folder's."""
    for home in (alice, teacher):
        home.configure(SIZES.format(20, 18))
    ran_well(alice, "fetch_assignment", "ps1")
    folder = alice.work / "ps1"
    left = filled(folder, 20_000)
    (folder / "large.bin").write_bytes(os.urandom(left + too_much))

    ran = alice.nbgrader("submit", "ps1")

    if too_much:
        assert ran.status == 1
        assert "Size is 20,001, maximum size is 20,000 bytes (CourseDirectory.max_dir_size)" in (
            ran.output
        )
        assert "The largest files are 'large.bin' (0.0 MB), " in ran.output
        assert "Traceback" not in ran.output
    else:
        assert ran.status == 0, ran.output
        ran_well(teacher, "collect", "ps1")
        collected = teacher.work / "submitted/alice/ps1"
        for name in ("large.bin", "linked.bin", "linked/linked.bin"):
            assert (collected / name).read_bytes() == (folder / name).read_bytes()


def test_a_link_has_the_size_of_its_target(teacher, alice, released):
    for home in (alice, teacher):
        home.configure(SIZES.format(100, 10))
    ran_well(alice, "fetch_assignment", "ps1")
    for name, size in (("fits.bin", 10_000), ("large.bin", 10_001)):
        (alice.work / name).write_bytes(bytes(size))
        (alice.work / "ps1" / name).symlink_to(alice.work / name)

    ran = ran_well(alice, "submit", "ps1")
    collected = ran_well(teacher, "collect", "ps1")

    assert (teacher.work / "submitted/alice/ps1/fits.bin").stat().st_size == 10_000
    assert "'large.bin': it has 10,001 bytes, and a file may have 10,000 (Cou" in ran.output
    assert "too large" not in collected.output


def test_a_notebook_of_the_release_that_is_too_large_is_an_error(alice, released):
    ran_well(alice, "fetch_assignment", "ps1")
    alice.configure("c.CourseDirectory.max_file_size = 10")
    (alice.work / "ps1" / "p1.ipynb").write_bytes(bytes(10_001))

    ran = alice.nbgrader("submit", "ps1")

    assert ran.status == 1
    assert (
        "'p1.ipynb' cannot be submitted, so nothing was: it has 10,001 bytes, and a file"
        in ran.output
    )
    assert "(CourseDirectory.max_file_size). Clear its output, save it, and submit" in ran.output


def test_collect_names_the_students_file_and_the_option(teacher, alice, machine, released):
    """Never the temporary folder, which is deleted before a user reads the message."""
    for student in (alice, machine("bob")):
        ran_well(student, "fetch_assignment", "ps1")
        (student.work / "ps1" / "data").mkdir()
        (student.work / "ps1" / "data" / "large.bin").write_bytes(os.urandom(20_000))
        ran_well(student, "submit", "ps1")
    teacher.configure("c.CourseDirectory.max_dir_size = 10")

    refused = teacher.nbgrader("collect", "ps1")
    teacher.configure("c.CourseDirectory.max_file_size = 10")
    without = ran_well(teacher, "collect", "ps1")
    shutil.rmtree(teacher.work / "submitted")
    needed = re.search(r"c.CourseDirectory.max_dir_size = (\d+)", refused.output)
    assert needed
    teacher.configure(needed[0])
    ran_well(teacher, "collect", "ps1")

    assert refused.status == 1
    assert "Could not collect alice ps1: Directory size is too big." in refused.output
    assert "The largest files are 'data/large.bin' (0.0 MB)" in refused.output
    assert 20 < int(needed[1]) < 25
    assert "Ignoring files too large in the submission of bob:" in without.output
    assert "'data/large.bin': it has 20,000 bytes, and a file may have 10,000" in without.output
    assert "raise c.CourseDirectory.max_file_size" in without.output
    assert ".nbexchange-" not in refused.output + without.output
    assert len(list(teacher.work.glob("submitted/*/ps1/data/large.bin"))) == 2


def test_the_size_of_a_release_is_that_of_the_sent_bytes(teacher, alice):
    source = teacher.work / "release" / "ps1"
    write_notebook(source / "p1.ipynb")
    (teacher.work / "data.csv").write_bytes(bytes(10_000))
    (source / "data.csv").symlink_to(teacher.work / "data.csv")
    teacher.configure("c.CourseDirectory.max_dir_size = 10")

    refused = teacher.nbgrader("release_assignment", "ps1")
    teacher.configure("c.CourseDirectory.max_dir_size = 10\nc.CourseDirectory.ignore = ['*.csv']")
    ran_well(teacher, "release_assignment", "ps1")

    assert refused.status == 1
    assert "Directory size is too big" in refused.output
    assert fetched(alice, "ps1") == {"p1.ipynb"}
