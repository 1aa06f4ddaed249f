"""What every storage back-end promises. A new one is a line in `PLACES`."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

import pytest

from nbexchange.errors import BadArchive, Damaged, Misconfigured, Unavailable
from nbexchange.storage import CHUNK, Blob, Steps, Storage, spool, unchecked
from nbexchange.storage.disk import DiskStorage
from nbexchange.storage.spool import LARGE, SLICE_SECONDS, THREADS
from tests.support.parts import PATIENCE
from tests.support.stores import entries, read, s3_server, sealed, stored

T = TypeVar("T")
Run = Callable[[Awaitable[T]], T]

SIZES = {
    "nothing": 0,
    "one byte": 1,
    "less than a chunk": 1000,
    "a byte less than a chunk": CHUNK - 1,
    "a chunk": CHUNK,
    "a byte more than a chunk": CHUNK + 1,
    "several chunks": 3 * CHUNK + 17,
}


def on_disk(directory: Path) -> Callable[[], Storage]:
    return lambda: DiskStorage(directory)


def in_memory(directory: Path) -> Callable[[], Storage]:
    objects = pytest.importorskip("nbexchange.storage.objects")
    store = pytest.importorskip("obstore.store").MemoryStore()
    return lambda: objects.ObjectStorage(store, directory / "spool")


def on_s3(directory: Path) -> Callable[[], Storage]:
    server = s3_server()
    from nbexchange.storage.objects import ObjectStorage

    url = server.new_place()
    return lambda: ObjectStorage.from_url(url, server.options(), directory / "spool")


PLACES = {"disk": on_disk, "memory": in_memory, "s3": on_s3}


@pytest.fixture(params=PLACES.values(), ids=PLACES)
def make_storage(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Storage]:
    """Another process's view of one and the same store."""
    make: Callable[[], Storage] = request.param(tmp_path)
    return make


@pytest.fixture
def storage(make_storage: Callable[[], Storage]) -> Iterator[Storage]:
    storage = make_storage()
    yield storage
    storage.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[DiskStorage]:
    storage = DiskStorage(tmp_path)
    yield storage
    storage.close()


@pytest.fixture
def run() -> Iterator[Run]:
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_what_was_stored_is_read(storage: Storage, run: Run, size: int) -> None:
    body = os.urandom(size)

    blob = run(stored(storage, body))

    assert (blob.size, blob.sha256) == (size, hashlib.sha256(body).hexdigest())
    assert run(read(storage, blob)) == body


@pytest.mark.parametrize("piece", [1, 1000, CHUNK - 1, CHUNK + 1])
def test_in_which_pieces_it_was_written_does_not_matter(
    storage: Storage, run: Run, piece: int
) -> None:
    body = os.urandom(5000 if piece == 1 else 2 * CHUNK + 5)
    pieces = [body[start : start + piece] for start in range(0, len(body), piece)]

    blob = run(stored(storage, *pieces))

    assert blob.sha256 == hashlib.sha256(body).hexdigest()
    assert run(read(storage, blob)) == body


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        (0, 1),
        (0, CHUNK),
        (1, CHUNK + 1),
        (CHUNK - 1, CHUNK + 1),
        (CHUNK, None),
        (2 * CHUNK + 4, None),
        (5, 5),
    ],
)
def test_a_range_is_read(storage: Storage, run: Run, start: int, stop: int | None) -> None:
    body = os.urandom(2 * CHUNK + 5)
    blob = run(stored(storage, body))

    assert run(read(storage, blob, start, stop)) == body[start:stop]


def test_the_check_sees_the_whole_before_it_counts(storage: Storage, run: Run) -> None:
    seen = []

    def check(blob: Blob, file: BinaryIO) -> Steps[str]:
        yield 1
        seen.append((blob.size, file.read()))
        return "found"

    async def scenario() -> str:
        upload = storage.open_upload()
        await upload.write(b"whole")
        found = await upload.seal(check)
        await upload.abort()
        return found

    assert run(scenario()) == "found"
    assert seen == [(5, b"whole")]


def test_what_the_check_raises_comes_back(storage: Storage, run: Run) -> None:
    def check(blob: Blob, file: BinaryIO) -> Steps[None]:
        yield 1
        raise LookupError("not this one")

    async def scenario() -> None:
        upload = storage.open_upload()
        await upload.write(b"x")
        with pytest.raises(LookupError):
            await upload.seal(check)
        await upload.abort()

    run(scenario())
    assert run(entries(storage)) == []


@pytest.mark.parametrize("size", [0, 1], ids=["nowhere", "hardly anywhere"])
def test_a_check_that_gets_nowhere_is_ended(
    storage: Storage, run: Run, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(spool, "CHECK_SECONDS", 0.2)

    def check(blob: Blob, file: BinaryIO) -> Steps[None]:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            yield size

    async def scenario() -> None:
        upload = storage.open_upload()
        await upload.write(b"x")
        with pytest.raises(BadArchive):
            await upload.seal(check)
        await upload.abort()

    run(scenario())


def test_checks_that_take_long_leave_threads_for_others(storage: Storage, run: Run) -> None:
    """More of them than there are threads, and none ends before all others have."""
    over = False

    def long_check(blob: Blob, file: BinaryIO) -> Steps[None]:
        while not over:
            time.sleep(0.001)
            yield 1000

    def check_of_two_slices(blob: Blob, file: BinaryIO) -> Steps[None]:
        end = time.monotonic() + 1.5 * SLICE_SECONDS
        while time.monotonic() < end:
            time.sleep(0.001)
            yield 1000

    async def scenario() -> None:
        nonlocal over
        uploads = [storage.open_upload() for _ in range(2 * THREADS + 1)]
        for upload in uploads:
            await upload.write(b"x")
        *many, other = uploads
        checks = [asyncio.create_task(upload.seal(long_check)) for upload in many]
        try:
            async with asyncio.timeout(PATIENCE):
                await stored(storage, b"small")
                await other.seal(check_of_two_slices)
            assert not any(check.done() for check in checks)
        finally:
            over = True
        await asyncio.gather(*checks)
        for upload in uploads:
            await upload.abort()

    run(scenario())


def test_large_files_that_wait_for_the_disk_leave_threads_for_others(
    disk: DiskStorage, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    durable, fsync = threading.Event(), os.fsync

    def slow_fsync(descriptor: int) -> None:
        if os.fstat(descriptor).st_size >= LARGE:
            assert durable.wait(PATIENCE)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow_fsync)

    async def scenario() -> None:
        uploads = [(await sealed(disk, *(LARGE // CHUNK * [bytes(CHUNK)])))[0] for _ in range(9)]
        commits = [asyncio.create_task(upload.commit()) for upload in uploads]
        try:
            async with asyncio.timeout(PATIENCE):
                blob = await stored(disk, b"small")
                assert await read(disk, blob) == b"small"
            assert not any(commit.done() for commit in commits)
        finally:
            durable.set()
        await asyncio.gather(*commits)

    run(scenario())


def test_nothing_is_visible_before_commit(storage: Storage, run: Run) -> None:
    upload, blob = run(sealed(storage, b"half"))

    with pytest.raises(Damaged):
        run(read(storage, blob))
    assert all(entry.unfinished for entry in run(entries(storage)))
    run(upload.abort())


def test_an_aborted_upload_leaves_nothing(storage: Storage, run: Run) -> None:
    async def scenario(size: int) -> None:
        upload = storage.open_upload()
        await upload.write(bytes(size))
        await upload.abort()

    run(scenario(0))
    run(scenario(5))
    run(scenario(CHUNK + 1))
    assert run(entries(storage)) == []


def test_an_abort_after_seal_leaves_nothing(storage: Storage, run: Run) -> None:
    upload, _ = run(sealed(storage, b"x"))
    run(upload.abort())

    assert run(entries(storage)) == []


def test_abort_is_harmless_after_commit_and_after_itself(storage: Storage, run: Run) -> None:
    upload, blob = run(sealed(storage, b"x"))
    run(upload.commit())
    run(upload.abort())
    run(upload.abort())

    assert run(read(storage, blob)) == b"x"


def test_an_aborted_upload_cannot_be_committed(storage: Storage, run: Run) -> None:
    upload, blob = run(sealed(storage, b"x"))
    run(upload.abort())

    with pytest.raises(Unavailable):
        run(upload.commit())
    with pytest.raises(Damaged):
        run(read(storage, blob))


def test_an_upload_that_was_not_sealed_cannot_be_committed(storage: Storage, run: Run) -> None:
    """Its content was not checked."""

    async def scenario() -> None:
        upload = storage.open_upload()
        await upload.write(b"unchecked")
        with pytest.raises(Unavailable):
            await upload.commit()
        assert all(entry.unfinished for entry in await entries(storage))
        await upload.abort()

    run(scenario())
    assert run(entries(storage)) == []


def test_a_blob_is_committed_once(storage: Storage, run: Run) -> None:
    upload, blob = run(sealed(storage, b"x"))
    run(upload.commit())

    with pytest.raises(Unavailable):
        run(upload.commit())
    assert run(read(storage, blob)) == b"x"


def test_an_abort_in_the_middle_of_a_write_leaves_nothing(storage: Storage, run: Run) -> None:
    """A connection breaks while a thread still writes."""

    async def scenario() -> None:
        upload = storage.open_upload()
        writing = asyncio.ensure_future(upload.write(bytes(8 * CHUNK)))
        await asyncio.sleep(0)
        await upload.abort()
        await writing
        await upload.abort()

    run(scenario())
    assert run(entries(storage)) == []


def test_uploads_do_not_meet(storage: Storage, run: Run) -> None:
    async def scenario() -> list[tuple[bytes, Blob]]:
        bodies = [os.urandom(100_000) for _ in range(40)]
        blobs = await asyncio.gather(*[stored(storage, body) for body in bodies])
        return list(zip(bodies, blobs, strict=True))

    found = run(scenario())
    assert len({blob.key for _, blob in found}) == 40
    for body, blob in found:
        assert run(read(storage, blob)) == body


def test_the_same_bytes_twice_are_two_blobs(storage: Storage, run: Run) -> None:
    one, two = run(stored(storage, b"x")), run(stored(storage, b"x"))
    run(storage.delete(one.key))

    assert run(read(storage, two)) == b"x"


def test_a_deleted_blob_is_gone_and_deleting_it_again_is_harmless(
    storage: Storage, run: Run
) -> None:
    blob = run(stored(storage, b"x"))
    run(storage.delete(blob.key))
    run(storage.delete(blob.key))

    assert run(entries(storage)) == []
    with pytest.raises(Damaged):
        run(read(storage, blob))


def test_entries_tell_key_size_and_age(storage: Storage, run: Run) -> None:
    begun = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=2)
    blob = run(stored(storage, b"12345"))

    (entry,) = run(entries(storage))

    assert (entry.key, entry.size, entry.unfinished) == (blob.key, 5, False)
    assert begun <= entry.modified <= datetime.datetime.now(datetime.UTC)


def test_a_blob_outlives_the_process(
    make_storage: Callable[[], Storage], storage: Storage, run: Run
) -> None:
    blob = run(stored(storage, b"x"))
    later = make_storage()

    assert run(read(later, blob)) == b"x"
    later.close()


@pytest.mark.parametrize("size", [10, 2 * CHUNK])
def test_bytes_other_than_those_stored_never_arrive_complete(
    storage: Storage, run: Run, size: int
) -> None:
    body = bytes(size)
    blob = run(stored(storage, body))
    expected = Blob(blob.key, hashlib.sha256(b"other").hexdigest(), size)
    arrived = bytearray()

    async def take() -> None:
        async for chunk in storage.read(expected):
            arrived.extend(chunk)

    with pytest.raises(Damaged):
        run(take())
    assert len(arrived) < size


@pytest.mark.parametrize("wrong", [-1, 1])
def test_a_blob_of_another_size_is_damaged(storage: Storage, run: Run, wrong: int) -> None:
    blob = run(stored(storage, b"12345"))

    with pytest.raises(Damaged):
        run(read(storage, Blob(blob.key, blob.sha256, blob.size + wrong), 0, 1))


def test_a_blob_that_shrinks_while_it_is_read_is_damaged(disk: DiskStorage, run: Run) -> None:
    """Also in a range of it, whose digest nobody knows."""
    blob = run(stored(disk, bytes(2 * CHUNK)))
    chunks = disk.read(blob, 1)

    run(anext(chunks))
    os.truncate(disk.path(blob.key), CHUNK)

    with pytest.raises(Damaged):
        run(anext(chunks))


def test_a_missing_blob_is_damaged_even_when_nothing_of_it_is_read(
    storage: Storage, run: Run
) -> None:
    with pytest.raises(Damaged):
        run(read(storage, Blob("0" * 32, "0" * 64, 5), 0, 0))


def test_a_store_that_works_says_so_and_leaves_no_trace(storage: Storage, run: Run) -> None:
    run(storage.check())

    assert run(entries(storage)) == []


def test_what_was_listed_can_be_swept(storage: Storage, run: Run) -> None:
    kept, swept = run(stored(storage, b"kept")), run(stored(storage, b"swept"))
    (entry,) = [entry for entry in run(entries(storage)) if entry.key == swept.key]

    run(storage.delete_entry(entry))
    run(storage.delete_entry(entry))

    assert [entry.key for entry in run(entries(storage))] == [kept.key]


# -- the disk alone


def test_a_blob_is_as_old_as_its_commit(disk: DiskStorage, run: Run) -> None:
    """gc leaves young blobs alone, whose rows may still come; a check may have taken hours."""
    upload, _ = run(sealed(disk, b"12345"))
    (part,) = disk.uploads.iterdir()
    os.utime(part, (0, 0))
    begun = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=2)

    run(upload.commit())

    (entry,) = run(entries(disk))
    assert begun <= entry.modified <= datetime.datetime.now(datetime.UTC)


def test_an_unfinished_upload_can_be_found_and_deleted(disk: DiskStorage, run: Run) -> None:
    """Its process died; another one sweeps."""
    upload, blob = run(sealed(disk, bytes(2 * CHUNK)))

    (entry,) = run(entries(disk))
    run(disk.delete(entry.key))

    assert entry.unfinished
    assert run(entries(disk)) == []
    with pytest.raises(Unavailable):
        run(upload.commit())
    run(upload.abort())
    with pytest.raises(Damaged):
        run(read(disk, blob))


def test_a_sweep_spares_an_upload_that_was_committed_since_it_was_listed(
    disk: DiskStorage, run: Run
) -> None:
    async def scenario() -> Blob:
        upload = disk.open_upload()
        await upload.write(bytes(CHUNK))
        blob = await upload.seal(unchecked)
        (listed,) = [entry async for entry in disk.entries()]
        await upload.commit()
        await disk.delete_entry(listed)
        return blob

    blob = run(scenario())

    assert run(read(disk, blob)) == bytes(CHUNK)


@pytest.mark.parametrize("gone", [".", "blobs"])
def test_a_store_whose_directory_is_missing_is_not_ready(
    tmp_path: Path, run: Run, gone: str
) -> None:
    storage = DiskStorage(tmp_path / "store")
    (tmp_path / "store" / gone).rename(tmp_path / "elsewhere")

    with pytest.raises(Unavailable):
        run(storage.check())
    storage.close()


@pytest.mark.parametrize("gone", ["store", "blobs", "its part of blobs"])
def test_a_directory_that_is_missing_is_a_store_that_is_away_and_no_damage(
    tmp_path: Path, run: Run, gone: str
) -> None:
    storage = DiskStorage(tmp_path / "store")
    blob = run(stored(storage, b"x"))
    place = storage.path(blob.key).parent
    part = {"store": tmp_path / "store", "blobs": storage.blobs, "its part of blobs": place}[gone]
    part.rename(tmp_path / "elsewhere")

    with pytest.raises(Unavailable):
        run(read(storage, blob))
    with pytest.raises(Unavailable):
        run(storage.delete(blob.key))
    (tmp_path / "elsewhere").rename(part)
    assert run(read(storage, blob)) == b"x"
    storage.path(blob.key).unlink()
    with pytest.raises(Damaged):
        run(read(storage, blob))
    storage.close()


def test_only_the_service_may_read_the_store_and_needs_no_root_for_it(
    tmp_path: Path, run: Run
) -> None:
    storage = DiskStorage(tmp_path)
    run(stored(storage, b"x"))
    upload, _ = run(sealed(storage, b"half"))
    run(storage.write_state("last-check", b"note"))

    directories = [tmp_path / "blobs", tmp_path / "uploads"]
    found = [path for top in directories for path in [top, *top.rglob("*")]]
    modes = [(path.is_dir(), path.stat().st_mode & 0o777) for path in found]
    note = (tmp_path / "last-check").stat().st_mode & 0o777
    run(upload.abort())
    storage.close()

    assert {mode for is_dir, mode in modes if is_dir} == {0o700}
    assert [mode for is_dir, mode in modes if not is_dir] == [0o600, 0o600]
    assert note == 0o600


def test_a_directory_that_cannot_be_made_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(Misconfigured, match="base_storage_location"):
        DiskStorage(tmp_path / "file")


# -- notes


def test_a_note_is_kept_beside_the_blobs_and_replaced(
    run: Run, make_storage: Callable[[], Storage]
) -> None:
    first, second = make_storage(), make_storage()
    try:
        assert run(first.read_state("last-check")) is None
        run(first.write_state("last-check", b"old" * 1000))
        run(first.write_state("last-check", b"new"))

        assert run(second.read_state("last-check")) == b"new"
        assert run(entries(second)) == []
    finally:
        first.close()
        second.close()
