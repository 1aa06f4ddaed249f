"""Where services under test keep their files.

`NBEXCHANGE_TEST_STORE` is `disk` (usual) or `s3`: a bucket, for each data directory a prefix of its
own.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.archives import sha256
from tests.support.stores import s3_server

KIND = os.environ.get("NBEXCHANGE_TEST_STORE", "disk")


@functools.cache
def _bucket() -> str:
    return s3_server().new_bucket()


def _prefix(data: Path) -> str:
    return hashlib.sha256(bytes(data)).hexdigest()[:16]


def options(data: Path) -> list[tuple[str, Any]]:
    if KIND == "disk":
        return []
    url = f"s3://{_bucket()}/{_prefix(data)}"
    return [("storage_url", url), ("storage_options", s3_server().options())]


def files(data: Path) -> list[Path]:
    """Their names are keys."""
    if KIND == "disk":
        folders = (data / "blobs", data / "uploads")
        return [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [Path(entry["Key"]) for entry in _objects(data)]


def fingerprints(data: Path) -> dict[str, str]:
    """Of each file, by its name: another one where a byte has changed."""
    if KIND == "disk":
        return {path.name: sha256(path.read_bytes()) for path in files(data)}
    return {entry["Key"]: entry["ETag"] for entry in _objects(data)}


def content(data: Path, key: str) -> bytes:
    if KIND == "disk":
        return _file(data, key).read_bytes()
    body: bytes = s3_server().client.get_object(**_object(data, key))["Body"].read()
    return body


def harm(data: Path, key: str, how: Callable[[Path], Any]) -> None:
    """Do something to a stored file, behind the service's back."""
    if KIND == "disk":
        how(_file(data, key))
        return
    copy = data / key
    copy.write_bytes(content(data, key))
    how(copy)
    if copy.exists():
        s3_server().client.put_object(**_object(data, key), Body=copy.read_bytes())
    else:
        s3_server().client.delete_object(**_object(data, key))
    copy.unlink(missing_ok=True)


def _file(data: Path, key: str) -> Path:
    return data / "blobs" / key[:2] / key


def _object(data: Path, key: str) -> dict[str, str]:
    return {"Bucket": _bucket(), "Key": f"{_prefix(data)}/blobs/{key}"}


def _objects(data: Path) -> list[dict[str, Any]]:
    pages = s3_server().client.get_paginator("list_objects_v2")
    found = pages.paginate(Bucket=_bucket(), Prefix=f"{_prefix(data)}/blobs/")
    return [entry for page in found for entry in page.get("Contents", ())]
