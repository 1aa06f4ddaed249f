"""A course with one assignment, and what people do in it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urljoin

import requests

from tests.support import databases
from tests.support.archives import sha256, tar_gz, upload_headers
from tests.support.parts import PATIENCE
from tests.support.service import Service, Wire

PS1 = {"course_id": "physics", "assignment_id": "ps1"}
WORK = tar_gz(p1=b'{"cells": []}')


def release(wire: Wire, body: bytes = WORK, key: str | None = None, **headers: str):
    return wire.post("assignment", body, upload_headers(body, key, **headers), **PS1)


def submit(wire: Wire, body: bytes = WORK, key: str | None = None, **headers: str):
    return wire.post("submission", body, upload_headers(body, key, **headers), **PS1)


def give_feedback(
    wire: Wire, submission_id: str, body: bytes, key: str | None = None, **headers: str
):
    return wire.post(
        "feedback",
        body,
        upload_headers(body, key, **{"Content-Type": "text/html"}, **headers),
        **PS1,
        notebook="p1",
        submission_id=submission_id,
    )


def receipt(response: requests.Response) -> dict[str, Any]:
    """What a 201 says."""
    assert response.status_code == 201, response.text
    return response.json()


def submissions(wire: Wire) -> list[dict[str, Any]]:
    """As listed: newest first for each student."""
    return wire.get("collections", **PS1).json()["value"]


def collect(wire: Wire, submission_id: str) -> requests.Response:
    return wire.get("collection", **PS1, path=submission_id)


def purge(wire: Wire, **where: str) -> str:
    """Hide an assignment until it is erased; returns what the purge is called."""
    where = where or PS1
    answer = wire.delete("assignment", **where, purge="true")
    assert answer.status_code == 200, answer.text
    listed = wire.get("purges", course_id=where["course_id"]).json()["value"]
    return str(listed[0]["purge_id"])


def rows(service: Service, table: str) -> list[dict[str, Any]]:
    """A table of the database, behind the service's back."""
    return databases.rows(service.data, table)


def blobs(service: Service) -> dict[str, str]:
    """key -> sha256, as the rows say."""
    stored = [
        row for table in ("release", "submission", "feedback") for row in rows(service, table)
    ]
    return {row["key"]: row["sha256"] for row in stored}


def assert_every_row_has_its_bytes(service: Service) -> None:
    for key, digest in blobs(service).items():
        assert sha256(service.content(key)) == digest


def uploads_in_flight(wire: Wire) -> float:
    (line,) = (
        line
        for line in metrics(wire).splitlines()
        if line.startswith("nbexchange_uploads_in_flight ")
    )
    return float(line.split()[1])


def metrics(wire: Wire) -> str:
    """The page of a service's numbers, at the root of its port. Raises where it is refused."""
    answer = wire.session.get(urljoin(wire.url, "/metrics"), timeout=PATIENCE)
    answer.raise_for_status()
    return answer.text
