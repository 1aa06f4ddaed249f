"""Content-Digest and Repr-Digest (RFC 9530), of which we speak sha-256."""

from __future__ import annotations

import base64
import binascii
import re

from nbexchange.errors import Malformed

_SHA256 = re.compile(r"(?:^|,)\s*sha-256\s*=\s*:([A-Za-z0-9+/=]*):\s*(?=;|,|$)")


def parse_digest(field: str | None) -> str | None:
    """The sha256, in lower-case hex, that a header names; None where there is no header.

    Raises Malformed for a header without a readable sha-256: a client that sends a digest wants it
    checked.
    """
    if field is None:
        return None
    found = _SHA256.search(field)
    try:
        digest = base64.b64decode(found[1], validate=True) if found else b""
    except binascii.Error:
        digest = b""
    if len(digest) != 32:
        raise Malformed("Content-Digest has to be sha-256=:<base64 of 32 bytes>:")
    return digest.hex()


def digest_field(sha256: str) -> str:
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"
