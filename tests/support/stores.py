"""Stores to test with, and what tests do with them.

`NBEXCHANGE_TEST_S3` is the address of an S3 server, NBEXCHANGE_TEST_S3_KEY and
NBEXCHANGE_TEST_S3_SECRET what it lets in; `tests.support.ceph` sets them. Otherwise moto runs, once
for each process of the tests; it looks at no signature.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import os
import re
import secrets
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

from traitlets.config import Config

from nbexchange.storage import Blob, Entry, Storage, Upload, unchecked
from tests.support.output import Output
from tests.support.parts import missing

ENDPOINT = "NBEXCHANGE_TEST_S3"
KEY = "NBEXCHANGE_TEST_S3_KEY"
SECRET = "NBEXCHANGE_TEST_S3_SECRET"

_RUNNING = re.compile(r"Running on (http://\S+)")


@dataclass
class S3Server:
    endpoint: str
    key: str
    secret: str = field(repr=False)
    checks_signatures: bool
    _buckets: list[str] = field(default_factory=list)

    def new_place(self) -> str:
        """A `storage_url` below which there is nothing yet."""
        return f"s3://{self._shared_bucket}/{secrets.token_hex(8)}"

    @functools.cached_property
    def _shared_bucket(self) -> str:
        return self.new_bucket()

    def new_bucket(self) -> str:
        name = f"nbexchange-{secrets.token_hex(8)}"
        self.client.create_bucket(Bucket=name)
        self._buckets.append(name)
        return name

    def options(self, endpoint: str = "", **more: Any) -> dict[str, Any]:
        """`storage_options` that let somebody in; `endpoint` is for a way round."""
        return {
            "endpoint": endpoint or self.endpoint,
            "access_key_id": self.key,
            "secret_access_key": self.secret,
            "region": "us-east-1",
            **more,
        }

    def config(self, url: str) -> Config:
        """The options of a service that keeps its files there."""
        config = Config()
        config.NbExchange.storage_url = url
        config.NbExchange.storage_options = self.options()
        return config

    @functools.cached_property
    def client(self) -> Any:
        """Another program that looks into the buckets."""
        import boto3
        from botocore.config import Config as Options

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name="us-east-1",
            # Ceph 16 does not know the checksums that newer clients add.
            config=Options(
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                proxies={},
            ),
        )

    def keys(self, bucket: str) -> list[str]:
        found = self.client.list_objects_v2(Bucket=bucket).get("Contents", [])
        return [entry["Key"] for entry in found]

    def unfinished(self, bucket: str) -> list[str]:
        """The keys of multipart uploads that nobody has ended."""
        found = self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
        return [upload["Key"] for upload in found]

    def clear(self) -> None:
        """Remove every bucket that was made here."""
        while self._buckets:
            bucket = self._buckets.pop()
            while keys := self.keys(bucket):
                for key in keys:
                    self.client.delete_object(Bucket=bucket, Key=key)
            self.client.delete_bucket(Bucket=bucket)


@functools.cache
def s3_server() -> S3Server:
    """The server of this run. Skips the test, or fails it where changes are judged, without one."""
    for needed in ("obstore", "boto3"):
        if importlib.util.find_spec(needed) is None:
            missing(f"{needed} is not installed")
    if ENDPOINT in os.environ:
        server = S3Server(os.environ[ENDPOINT], os.environ[KEY], os.environ[SECRET], True)
        atexit.register(server.clear)
        return server
    if importlib.util.find_spec("moto") is None:
        missing(f"moto is not installed; {ENDPOINT} may name another S3 server")
    return S3Server(_start_moto(), "key", "secret", False)


# -- what everybody does with a storage


async def sealed(storage: Storage, *pieces: bytes) -> tuple[Upload, Blob]:
    upload = storage.open_upload()
    for piece in pieces:
        await upload.write(piece)
    return upload, await upload.seal(unchecked)


async def stored(storage: Storage, *pieces: bytes) -> Blob:
    upload, blob = await sealed(storage, *pieces)
    await upload.commit()
    return blob


async def read(storage: Storage, blob: Blob, start: int = 0, stop: int | None = None) -> bytes:
    return b"".join([chunk async for chunk in storage.read(blob, start, stop)])


async def entries(storage: Storage) -> list[Entry]:
    return [entry async for entry in storage.entries()]


# -- moto


def _start_moto() -> str:
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr
    output = Output(os.dup(process.stderr.fileno()))
    process.stderr.close()
    atexit.register(_stop, process)
    found = output.wait_for(_RUNNING)
    assert found, f"moto does not start: {output}"
    return found[1]


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
