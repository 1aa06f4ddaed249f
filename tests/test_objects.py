"""What only a store behind a network can do: be away, refuse, break off, lose an answer, tell."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
import socketserver
import subprocess
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from traitlets.config import Config

from nbexchange.app import NbExchange
from nbexchange.errors import Damaged, Misconfigured, NbExchangeError, StoreFull, Unavailable
from nbexchange.storage import CHUNK, Blob, Storage, unchecked
from tests.support import course
from tests.support.commands import run_for
from tests.support.course import PS1, collect, give_feedback, receipt, release, rows, submit
from tests.support.process import small_disk
from tests.support.service import Service
from tests.support.stores import ENDPOINT, S3Server, entries, read, s3_server, sealed, stored

pytest.importorskip("obstore")
from nbexchange.storage.objects import LARGE_AT_A_TIME, PART, ObjectStorage, ObjectUpload

T = TypeVar("T")
Run = Callable[[Awaitable[T]], T]

CANARY = "canary-s3cret-77aa"
NOBODY = "http://127.0.0.1:1"
SOMEBODY = {"access_key_id": "x", "secret_access_key": "x", "region": "x"}
BLOB = Blob("0" * 32, "0" * 64, 5)


@pytest.fixture
def run() -> Iterator[Run]:
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture
def server() -> S3Server:
    return s3_server()


@pytest.fixture
def bucket(server: S3Server) -> str:
    return server.new_bucket()


@pytest.fixture
def open_storage(tmp_path: Path) -> Iterator[Callable[..., ObjectStorage]]:
    """Makes a storage of a URL and options; closed at the end."""
    with contextlib.ExitStack() as stack:

        def make(url: str, **options: Any) -> ObjectStorage:
            storage = ObjectStorage.from_url(url, options, tmp_path / "spool")
            stack.callback(storage.close)
            return storage

        yield make


@pytest.fixture
def storage(
    server: S3Server, bucket: str, open_storage: Callable[..., ObjectStorage]
) -> ObjectStorage:
    return open_storage(f"s3://{bucket}/p", **server.options())


# -- the way of the bytes


@pytest.mark.parametrize(
    ("size", "parts"),
    [(PART, ""), (PART + 1, "-2"), (2 * PART + 5, "-3")],
    ids=["one request", "two parts", "three parts"],
)
def test_what_is_large_goes_in_parts(
    server: S3Server, bucket: str, storage: ObjectStorage, run: Run, size: int, parts: str
) -> None:
    body = os.urandom(size)

    blob = run(stored(storage, body))

    (found,) = server.client.list_objects_v2(Bucket=bucket)["Contents"]
    assert found["Key"] == f"p/blobs/{blob.key}"
    assert found["ETag"].strip('"')[32:] == parts
    assert run(read(storage, blob)) == body
    assert run(read(storage, blob, PART - 3, size)) == body[PART - 3 :]
    assert server.unfinished(bucket) == []


@pytest.mark.slow
def test_memory_does_not_grow_with_a_file(server: S3Server, bucket: str, tmp_path: Path) -> None:
    code = f"""if True:
        import asyncio
        from pathlib import Path
        from nbexchange.storage import CHUNK, unchecked
        from nbexchange.storage.objects import PART, ObjectStorage
        from tests.support.process import highest_memory
        import os

        async def there_and_back(parts):
            upload = storage.open_upload()
            for _ in range(parts * PART // CHUNK):
                await upload.write(bytes(CHUNK))
            blob = await upload.seal(unchecked)
            await upload.commit()
            async for _ in storage.read(blob):
                pass

        storage = ObjectStorage.from_url(
            "s3://{bucket}", {server.options()!r}, Path({str(tmp_path)!r})
        )
        asyncio.run(there_and_back(10))  # as many parts under way as there ever are
        before = highest_memory(os.getpid())
        asyncio.run(there_and_back(30))
        print(highest_memory(os.getpid()) - before)
        storage.close()
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 32 * CHUNK


def test_small_files_do_not_wait_for_large_ones(
    storage: ObjectStorage, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Eight videos at once would keep a whole class from handing in."""
    monkeypatch.setattr("nbexchange.storage.objects.TURN_SECONDS", 0.2)

    async def scenario() -> Blob:
        async with contextlib.AsyncExitStack() as videos:
            for _ in range(LARGE_AT_A_TIME):
                await videos.enter_async_context(storage.turn(PART + 1))
            with pytest.raises(Unavailable, match="as many files as it can"):
                await stored(storage, bytes(PART), b"!")
            return await stored(storage, b"small")

    blob = run(scenario())

    assert run(read(storage, blob)) == b"small"
    assert f"{PART + 1} bytes waited" in caplog.text


def test_an_upload_under_way_has_no_name_that_a_killed_process_could_leave(
    storage: ObjectStorage, run: Run
) -> None:
    upload, _ = run(sealed(storage, bytes(3 * CHUNK)))

    assert list(storage.spool.iterdir()) == []
    run(upload.abort())


@pytest.mark.parametrize(("size", "files"), [(CHUNK - 1, 0), (CHUNK + 1, 1)])
def test_only_an_upload_of_more_than_a_chunk_needs_a_file(
    storage: ObjectStorage, run: Run, size: int, files: int
) -> None:
    upload, _ = run(sealed(storage, bytes(size)))

    assert sum(target.startswith(f"{storage.spool}/") for target in open_files()) == files
    run(upload.abort())


def open_files() -> list[str]:
    """What this process has open; files of the spool have no names that a folder would list."""
    targets = []
    for link in Path("/proc/self/fd").iterdir():
        # Another thread may close it meanwhile.
        with contextlib.suppress(FileNotFoundError):
            targets.append(os.readlink(link))
    return targets


def test_a_full_spool_says_that_the_store_is_full(tmp_path: Path, run: Run) -> None:
    from obstore.store import MemoryStore

    async def scenario(storage: Storage) -> None:
        upload = storage.open_upload()
        await upload.write(bytes(CHUNK))
        await upload.write(bytes(CHUNK))
        with pytest.raises(StoreFull):
            await upload.write(bytes(CHUNK))
        await upload.abort()

    with small_disk(tmp_path / "disk", "1m") as disk:
        storage = ObjectStorage(MemoryStore(), disk)
        run(scenario(storage))
        storage.close()


def test_an_object_that_is_there_is_never_overwritten(
    server: S3Server, bucket: str, storage: ObjectStorage, run: Run
) -> None:
    first = run(stored(storage, b"first"))

    async def scenario() -> None:
        upload = ObjectUpload(storage, first.key)
        await upload.write(b"other")
        await upload.seal(unchecked)
        with pytest.raises(Unavailable):
            await upload.commit()
        await upload.abort()
        assert not storage._forgetting

    run(scenario())
    assert run(read(storage, first)) == b"first"


def test_the_check_leaves_nothing_in_the_bucket(
    server: S3Server, bucket: str, storage: ObjectStorage, run: Run
) -> None:
    run(storage.check())

    assert server.keys(bucket) == []


def test_a_store_whose_spool_is_missing_is_not_ready(storage: ObjectStorage, run: Run) -> None:
    storage.spool.rmdir()

    with pytest.raises(Unavailable):
        run(storage.check())


# -- a way that breaks


class Way:
    """A way to the server that breaks, or changes what travels. Open from `with` to its end."""

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.rpartition("://")[2].partition(":")
        self._target = (host, int(port))
        self.passed = 0
        self.cut_after: int | None = None
        """Bytes of clients after which their connections break, whenever a body comes."""
        self.held_after: int | None = None
        self.held, self.go_on = threading.Event(), threading.Event()
        self.answers_to_lose = 0
        self.change: Callable[[bytes], bytes] = lambda piece: piece
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Way:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        # Closing alone would not wake the thread that waits in accept.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for end in self._ends:
            _cut(end)
        for thread in self._threads:
            thread.join()
        for end in [self._listener, *self._ends]:
            end.close()

    def _start(self, function: Callable[..., None], *args: socket.socket) -> None:
        self._threads.append(threading.Thread(target=function, args=args, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._ends += [client, server]
                self._start(self._carry, client, server)
                self._start(self._carry_back, server, client)

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while (piece := client.recv(65536)) and self._may_pass(piece):
                server.sendall(self.change(piece))
        _cut(client)
        _cut(server)

    def _may_pass(self, piece: bytes) -> bool:
        self.passed += len(piece)
        if self.held_after is not None and self.passed > self.held_after:
            self.held.set()
            self.go_on.wait()
        # What comes without a body is let through: it is how a client tidies up.
        is_body = not piece.startswith((b"GET ", b"POST ", b"DELETE ", b"HEAD "))
        return self.cut_after is None or self.passed <= self.cut_after or not is_body

    def _carry_back(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := server.recv(65536):
                if self.answers_to_lose:
                    self.answers_to_lose -= 1
                    break
                client.sendall(piece)
        _cut(client)
        _cut(server)


def _cut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


@contextlib.asynccontextmanager
async def on_the_way(
    server: S3Server, bucket: str, spool: Path
) -> AsyncIterator[tuple[Way, ObjectStorage]]:
    with Way(server.endpoint) as way:
        options = server.options(way.endpoint)
        storage = ObjectStorage.from_url(f"s3://{bucket}/p", options, spool)
        yield way, storage
        await asyncio.gather(*storage._forgetting)
        storage.close()


@pytest.mark.parametrize(
    ("size", "cut_after"),
    [(20_000, 10_000), (4 * CHUNK, 2 * CHUNK), (3 * PART, PART + CHUNK), (3 * PART, 3 * PART)],
    ids=["small", "in one request", "in an early part", "in the last part"],
)
def test_nothing_is_left_of_a_commit_that_broke_off(
    server: S3Server, bucket: str, tmp_path: Path, run: Run, size: int, cut_after: int
) -> None:
    async def scenario() -> None:
        async with on_the_way(server, bucket, tmp_path) as (way, storage):
            upload, blob = await sealed(storage, bytes(size))
            way.cut_after = cut_after
            with pytest.raises(Unavailable):
                await upload.commit()
            assert way.passed > cut_after
            await upload.abort()
            with pytest.raises(Unavailable):
                await upload.commit()
            way.cut_after = None
            with pytest.raises(Damaged):
                await read(storage, blob)

    run(scenario())
    assert server.keys(bucket) == []
    assert server.unfinished(bucket) == []


def test_an_answer_that_was_lost_is_asked_for_again(
    server: S3Server, bucket: str, tmp_path: Path, run: Run
) -> None:
    """The first try did store it, so the second hears that there is something already."""

    async def scenario() -> None:
        async with on_the_way(server, bucket, tmp_path) as (way, storage):
            upload, blob = await sealed(storage, b"work")
            way.answers_to_lose = 1
            await upload.commit()
            assert way.answers_to_lose == 0
            assert await read(storage, blob) == b"work"

    run(scenario())
    assert len(server.keys(bucket)) == 1


def test_what_arrived_without_an_answer_is_deleted(
    server: S3Server, bucket: str, tmp_path: Path, run: Run
) -> None:
    async def scenario() -> None:
        async with on_the_way(server, bucket, tmp_path) as (way, storage):
            upload, _ = await sealed(storage, b"work")
            way.answers_to_lose = 1000
            with pytest.raises(Unavailable):
                await upload.commit()
            assert way.answers_to_lose < 1000

    run(scenario())
    assert server.keys(bucket) == []


def test_parts_that_were_put_together_short_are_no_success(
    server: S3Server, bucket: str, tmp_path: Path, run: Run
) -> None:
    second = re.compile(rb"<Part>(?:(?!</Part>).)*<PartNumber>2<.*?</Part>", re.DOTALL)

    async def scenario() -> None:
        async with on_the_way(server, bucket, tmp_path) as (way, storage):
            upload, _ = await sealed(storage, bytes(3 * PART))
            way.change = lambda piece: second.sub(lambda part: b" " * len(part[0]), piece)
            with pytest.raises(Unavailable):
                await upload.commit()

    run(scenario())
    assert server.keys(bucket) == []


def test_nothing_is_left_of_a_commit_that_was_cancelled(
    server: S3Server, bucket: str, tmp_path: Path, run: Run
) -> None:
    async def scenario() -> None:
        async with on_the_way(server, bucket, tmp_path) as (way, storage):
            upload, _ = await sealed(storage, bytes(8 * PART))
            way.held_after = PART
            committing = asyncio.ensure_future(upload.commit())
            await asyncio.to_thread(way.held.wait)
            committing.cancel()
            way.go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await committing
            assert way.passed < 6 * PART
            await upload.abort()

    run(scenario())
    assert server.keys(bucket) == []
    assert server.unfinished(bucket) == []


def test_a_download_that_breaks_is_no_damage(
    server: S3Server, bucket: str, storage: ObjectStorage, tmp_path: Path, run: Run
) -> None:
    blob = run(stored(storage, os.urandom(3 * CHUNK)))

    async def scenario() -> None:
        async with on_the_way(server, bucket, tmp_path) as (way, away):
            way.answers_to_lose = 1000
            with pytest.raises(Unavailable):
                await read(away, blob)

    run(scenario())


# -- a store that is away, or says no


async def every_operation(storage: ObjectStorage) -> list[BaseException | None]:
    return await asyncio.gather(
        stored(storage, b"small"),
        stored(storage, bytes(CHUNK + 1)),
        stored(storage, bytes(PART + 1)),
        read(storage, BLOB),
        read(storage, BLOB, 0, 0),
        storage.delete(BLOB.key),
        entries(storage),
        storage.check(),
        return_exceptions=True,
    )  # type: ignore[return-value]


def test_a_store_that_is_away_says_so_within_ten_seconds(
    open_storage: Callable[..., ObjectStorage], run: Run
) -> None:
    storage = open_storage("s3://bucket/p", endpoint=NOBODY, **SOMEBODY)

    found = run(asyncio.wait_for(every_operation(storage), 10))

    assert {type(error) for error in found} == {Unavailable}


class Answering(socketserver.ThreadingTCPServer):
    """A server that gives everybody the same answer, with what it was asked in it, or none."""

    def __init__(self, answer: bytes | None) -> None:
        super().__init__(("127.0.0.1", 0), _Reply)
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        self.answer = answer
        self.asked = 0
        self._thread = threading.Thread(target=self.serve_forever, args=[0.01], daemon=True)

    def __enter__(self) -> Answering:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Reply(socketserver.StreamRequestHandler):
    server: Answering

    def handle(self) -> None:
        head = b"".join(iter(self.rfile.readline, b"\r\n"))
        self.server.asked += 1
        if self.server.answer is not None:
            status, _, body = self.server.answer.partition(b"\n")
            body = body.replace(b"ASKED", head.replace(b"<", b"&lt;"))
            self.wfile.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n" % (status, len(body)))
            self.wfile.write(b"Connection: close\r\n\r\n" + body)
            self.connection.shutdown(socket.SHUT_WR)
        # Closed while a body still comes, the answer might get lost.
        with contextlib.suppress(ConnectionError):
            while self.connection.recv(65536):
                pass


def says(status: str, code: str = "") -> bytes:
    body = f"<Error><Code>{code}</Code><Asked>ASKED</Asked></Error>" if code else ""
    return f"{status}\n{body}".encode()


ANSWERS = {
    "wrong secret": (says("403 Forbidden", "SignatureDoesNotMatch"), Unavailable, "credentials"),
    "no such user": (says("403 Forbidden", "InvalidAccessKeyId"), Unavailable, "credentials"),
    "expired": (says("400 Bad Request", "ExpiredToken"), Unavailable, "ExpiredToken"),
    "over quota": (says("403 Forbidden", "QuotaExceeded"), StoreFull, "store is full"),
    "disk full": (says("507 Insufficient Storage"), StoreFull, "store is full"),
    "no bucket": (says("404 Not Found", "NoSuchBucket"), Unavailable, "NoSuchBucket"),
    "a proxy": (says("404 Not Found"), Unavailable, "404 Not Found"),
    "elsewhere": (says("301 Moved Permanently", "PermanentRedirect"), Unavailable, "failed"),
}


@pytest.mark.parametrize(("answer", "kind", "hint"), ANSWERS.values(), ids=ANSWERS)
def test_what_a_store_refuses_is_explained_to_the_operator_alone(
    open_storage: Callable[..., ObjectStorage],
    run: Run,
    caplog: pytest.LogCaptureFixture,
    answer: bytes,
    kind: type[NbExchangeError],
    hint: str,
) -> None:
    async def scenario() -> list[BaseException | None]:
        with Answering(answer) as there:
            storage = open_storage("s3://bucket", endpoint=there.endpoint, **SOMEBODY)
            return await every_operation(storage)

    found = run(scenario())

    assert {type(error) for error in found} == {kind}
    assert hint in caplog.text
    assert not any(hint in str(error) for error in found)


def test_a_page_that_a_proxy_answers_for_a_file_is_no_damage(
    open_storage: Callable[..., ObjectStorage], run: Run
) -> None:
    with Answering(b"200 OK\n<h1>Log in</h1>") as there:
        storage = open_storage("s3://bucket", endpoint=there.endpoint, **SOMEBODY)
        with pytest.raises(Unavailable):
            run(read(storage, BLOB))


def test_a_store_that_stays_in_trouble_is_not_asked_for_ever(
    open_storage: Callable[..., ObjectStorage], run: Run
) -> None:
    with Answering(says("503 Service Unavailable", "SlowDown")) as there:
        storage = open_storage("s3://bucket", endpoint=there.endpoint, **SOMEBODY)
        with pytest.raises(Unavailable):
            run(read(storage, BLOB))

    assert 1 < there.asked <= 5


def test_a_store_that_never_answers_is_away(
    open_storage: Callable[..., ObjectStorage], run: Run
) -> None:
    impatient = {"read_timeout": "100ms"}

    async def scenario() -> list[BaseException | None]:
        with Answering(None) as there:
            storage = open_storage(
                "s3://bucket",
                endpoint=there.endpoint,
                client_options=impatient,
                **SOMEBODY,
            )
            return await asyncio.wait_for(every_operation(storage), 10)

    assert {type(error) for error in run(scenario())} == {Unavailable}


def test_a_bucket_that_is_missing_makes_readyz_fail_and_damages_nothing(
    server: S3Server, data: Path
) -> None:
    with Service(data, server.config("s3://nbexchange-that-nobody-made/p")) as service:
        ready = service.wire(None).get("readyz")
        alive = service.wire(None).get("healthz")

    assert ready.status_code == 503
    assert alive.status_code == 200


# -- secrets


AWS = ("access_key_id", "secret_access_key", "session_token")


@pytest.mark.parametrize("place", ["options", "environment"])
def test_credentials_reach_no_log_and_no_error(
    open_storage: Callable[..., ObjectStorage],
    run: Run,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    credentials = {name: f"{CANARY}-{name}" for name in AWS}
    if place == "environment":
        for name, value in credentials.items():
            monkeypatch.setenv(f"AWS_{name.upper()}", value)
        credentials = {}

    async def scenario() -> list[BaseException | None]:
        with Answering(says("403 Forbidden", "SignatureDoesNotMatch")) as there:
            found = []
            for endpoint in (there.endpoint, NOBODY):
                storage = open_storage("s3://b/p", endpoint=endpoint, region="x", **credentials)
                found += await every_operation(storage)
            return [*found, Exception(repr(storage), repr(storage.store))]

    told = "".join("".join(traceback.format_exception(error)) for error in run(scenario()) if error)

    assert "SignatureDoesNotMatch" in caplog.text
    assert CANARY not in told
    assert CANARY not in caplog.text


UNUSABLE = {
    "no scheme": ("bucket", {}),
    "not ours": (f"ftp://{CANARY}/x", {}),
    "in memory": ("memory://", {}),
    "on disk": ("file:///srv", {}),
    "no bucket": ("s3:///x", {}),
    "credentials in the URL": (f"s3://key:{CANARY}@bucket/x", {}),
    "options in the URL": (f"s3://bucket/x?secret={CANARY}", {}),
    "no such option": ("s3://bucket", {"secret_acess_key": CANARY}),
    "half of the credentials": ("s3://bucket", {"secret_access_key": CANARY}),
    "no account": ("az://container", {"account_key": CANARY}),
    "no such client option": ("s3://bucket", {"client_options": {"timout": CANARY}}),
    "a value of the wrong kind": ("s3://bucket", {"secret_access_key": [CANARY]}),
    "a value that is not understood": ("s3://bucket", {"checksum_algorithm": CANARY}),
    "a key that is not one": ("az://c/x", {"account_name": "a", "account_key": f"{CANARY}!"}),
    "an account that is not one": ("gs://bucket", {"service_account_key": f"{{{CANARY}"}),
}


@pytest.mark.parametrize(("url", "options"), UNUSABLE.values(), ids=UNUSABLE)
def test_what_makes_no_store_is_said_without_its_secrets(
    tmp_path: Path, url: str, options: dict[str, Any]
) -> None:
    with pytest.raises(Misconfigured, match="storage_") as refused:
        ObjectStorage.from_url(url, options, tmp_path)

    assert CANARY not in "".join(traceback.format_exception(refused.value))


def test_an_unknown_option_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="secret_acess_key"):
        ObjectStorage.from_url("s3://bucket", {"secret_acess_key": CANARY}, tmp_path)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("gs://bucket/pre/fix", {"skip_signature": True}),
        ("az://container/pre/fix", {"skip_signature": True, "account_name": "account"}),
        ("s3://bucket/pre/fix", {"skip_signature": True}),
    ],
)
def test_googles_and_azures_stores_are_made_by_their_urls(
    tmp_path: Path, url: str, options: dict[str, Any]
) -> None:
    storage = ObjectStorage.from_url(url, options, tmp_path)
    storage.close()

    assert getattr(storage.store, "prefix", None) == "pre/fix"


def test_without_the_library_it_says_which_extra_is_missing(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "nbexchange.storage.objects")
    monkeypatch.setitem(sys.modules, "obstore", None)
    config = Config()
    config.NbExchange.storage_url = "s3://bucket"
    config.NbExchange.base_storage_location = str(data)

    with pytest.raises(Misconfigured, match=re.escape("with its extra [objects]")):
        NbExchange(config=config).make_storage()


def test_the_environment_may_name_the_store(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBEX_STORAGE_URL", "s3://bucket/from-the-environment")
    config = Config()
    config.NbExchange.base_storage_location = str(data)

    storage = NbExchange(config=config).make_storage()
    storage.close()

    assert isinstance(storage, ObjectStorage)
    assert storage.store.prefix == "from-the-environment"


def test_the_environment_may_say_all_there_is_to_say(
    server: S3Server, bucket: str, data: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    said = {
        "NBEX_STORAGE_URL": f"s3://{bucket}",
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_ACCESS_KEY_ID": server.key,
        "AWS_SECRET_ACCESS_KEY": server.secret,
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    config = Config()
    config.NbExchange.base_storage_location = str(data)

    storage = NbExchange(config=config).make_storage()

    run(storage.check())
    storage.close()


# -- a whole course


def test_a_course_goes_through_a_bucket(server: S3Server, bucket: str, data: Path) -> None:
    work = course.WORK
    with Service(data, server.config(f"s3://{bucket}/exchange")) as service:
        ada, bob = service.instructor(), service.student()
        receipt(release(ada, work))
        fetched = bob.get("assignment", **PS1)
        given = receipt(submit(bob, work))
        collected = collect(ada, given["submission_id"])
        resumed = ada.get(
            "collection", headers={"Range": "bytes=5-"}, **PS1, path=given["submission_id"]
        )
        receipt(give_feedback(ada, given["submission_id"], b"<p>good</p>"))
        feedback = bob.get("feedback", **PS1, timestamp=given["timestamp"])
        ready = bob.get("readyz")

    assert fetched.content == collected.content == work
    assert (resumed.status_code, resumed.content) == (206, work[5:])
    assert feedback.json()["success"] is True
    assert ready.status_code == 200
    assert len(server.keys(bucket)) == 3
    assert all(key.startswith("exchange/blobs/") for key in server.keys(bucket))
    assert not (data / "blobs").exists()


def test_commands_look_into_the_bucket(
    server: S3Server,
    bucket: str,
    data: Path,
    storage: ObjectStorage,
    run: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = server.config(f"s3://{bucket}/p")
    lines = "".join(
        f"c.NbExchange.{name} = {value!r}\n" for name, value in config.NbExchange.items()
    )
    with Service(data, config) as service:
        receipt(release(service.instructor()))
        known = rows(service, "release")[0]["key"]
    orphan = run(stored(storage, b"nobody's"))
    swept = run_for(service, "gc", "--older-than=0", "--delete", config=lines)
    said = capsys.readouterr().out
    checked = run_for(service, "check", config=lines)
    (kept,) = (key for key in server.keys(bucket) if key.endswith(known))
    server.client.delete_object(Bucket=bucket, Key=kept)
    corrupt = run_for(service, "check", config=lines)

    assert (swept, checked, corrupt) == (0, 0, 1)
    assert orphan.key in said


# -- what moto does not look at


if ENDPOINT in os.environ:

    @pytest.mark.parametrize("wrong", ["access_key_id", "secret_access_key"])
    def test_wrong_credentials_get_nowhere(
        server: S3Server,
        bucket: str,
        open_storage: Callable[..., ObjectStorage],
        run: Run,
        caplog: pytest.LogCaptureFixture,
        wrong: str,
    ) -> None:
        storage = open_storage(f"s3://{bucket}", **{**server.options(), wrong: CANARY})

        found = run(every_operation(storage))

        assert {type(error) for error in found} == {Unavailable}
        assert "check its credentials" in caplog.text
        assert CANARY not in caplog.text
        assert server.secret not in caplog.text

    @pytest.mark.parametrize("size", [20_000, 2 * PART])
    def test_bytes_that_change_on_the_way_are_not_stored(
        server: S3Server, bucket: str, tmp_path: Path, run: Run, size: int
    ) -> None:
        async def scenario() -> None:
            async with on_the_way(server, bucket, tmp_path) as (way, storage):
                upload, _ = await sealed(storage, bytes(size))
                way.change = lambda piece: piece.replace(bytes(1000), bytes(999) + b"\1")
                with pytest.raises(Unavailable):
                    await upload.commit()

        run(scenario())
        assert server.keys(bucket) == []
        assert server.unfinished(bucket) == []
