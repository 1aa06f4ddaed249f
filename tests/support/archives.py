"""Archives as a client sends them."""

from __future__ import annotations

import base64
import hashlib
import io
from typing import Any

from nbexchange.archive import Member, pack

NOTEBOOK = b'{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'


def tar_gz(**files: bytes) -> bytes:
    """An archive of files; `p1=b"..."` becomes p1.ipynb."""
    return tar_gz_of({f"{name}.ipynb": content for name, content in files.items()})


def tar_gz_of(files: dict[str, bytes | None]) -> bytes:
    target = io.BytesIO()
    pack([Member(name, content) for name, content in files.items()], target)
    return target.getvalue()


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def content_digest(body: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def upload_headers(body: bytes, key: str | None = None, **more: Any) -> dict[str, str]:
    headers = {"Content-Digest": content_digest(body), "Content-Type": "application/gzip"}
    if key is not None:
        headers["Idempotency-Key"] = key
    return headers | more
