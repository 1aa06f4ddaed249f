"""The HTTP of clients that are out there in old notebook images, to the letter.

A form for each upload, a new connection for each call, no digest, no key for retries; success is
what the JSON says, whatever the status.
"""

from __future__ import annotations

import base64
import datetime
import enum
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urljoin

import requests

TIMEOUT = 30
FORMAT = "%Y-%m-%d %H:%M:%S.%f %Z"


class Generation(enum.Enum):
    """How a client tells the time of a submission."""

    V2 = "timestamp= and timestamp.txt, in UTC"
    V1 = "timestamp.txt alone, in local time without a zone"
    NEITHER = "not at all"


class ExchangeError(Exception):
    pass


class LegacyClient:
    def __init__(self, url: str, token: str, generation: Generation = Generation.V2) -> None:
        self.url = url + "/"
        self.headers = {"Authorization": f"Bearer {token}"}
        self.generation = generation

    # -- instructors

    def release(
        self,
        course_id: str,
        assignment_id: str,
        files: Mapping[str, bytes] | Path,
        notebooks: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        if notebooks is None:
            names = [path.name for path in files.glob("*")] if isinstance(files, Path) else files
            notebooks = [name[:-6] for name in names if name.endswith(".ipynb")]
        return self.said(
            self.post(
                "assignment",
                {"course_id": course_id, "assignment_id": assignment_id},
                files={"assignment": ("assignment.tar.gz", tar_gz(files))},
                data={"notebooks": list(notebooks)},
            )
        )

    def unrelease(self, course_id: str, assignment_id: str, *, purge: bool = False) -> str:
        params = {"course_id": course_id, "assignment_id": assignment_id}
        if purge:
            params["purge"] = "True"
        return str(self.said(self.call("DELETE", "assignment", params))["note"])

    def collections(self, course_id: str, assignment_id: str, user_id: str = "") -> list[Any]:
        params = {"course_id": course_id, "assignment_id": assignment_id}
        if user_id:
            params["user_id"] = user_id
        return list(self.said(self.get("collections", params))["value"])

    def collect(self, record: Mapping[str, Any]) -> dict[str, bytes]:
        params = {key: record[key] for key in ("course_id", "assignment_id", "path")}
        return unpacked(self.download("collection", params))

    def release_feedback(
        self,
        course_id: str,
        assignment_id: str,
        notebook: str,
        student: str,
        timestamp: str,
        html: str,
        checksum: str = "cafe",
    ) -> dict[str, Any]:
        params = {
            "course_id": course_id,
            "assignment_id": assignment_id,
            "notebook": notebook,
            "student": student,
            "timestamp": timestamp,
            "checksum": checksum,
        }
        files = {"feedback": ("feedback.html", html)}
        return self.said(self.post("feedback", params, files=files))

    # -- students

    def assignments(self, course_id: str) -> list[Any]:
        return list(self.said(self.get("assignments", {"course_id": course_id}))["value"])

    def fetch(self, course_id: str, assignment_id: str) -> dict[str, bytes]:
        params = {"course_id": course_id, "assignment_id": assignment_id}
        return unpacked(self.download("assignment", params))

    def submit(
        self,
        course_id: str,
        assignment_id: str,
        files: Mapping[str, bytes] | Path,
        timestamp: str | None = None,
    ) -> str:
        """The time in this client's words; empty when it has none."""
        timestamp = self._now() if timestamp is None else timestamp
        params = {"course_id": course_id, "assignment_id": assignment_id}
        if self.generation is Generation.V2:
            params["timestamp"] = timestamp
        if self.generation is Generation.NEITHER:
            body = tar_gz(files)
        else:
            body = tar_gz(files, ("timestamp.txt", timestamp.encode()))
        form = {"assignment": ("assignment.tar.gz", body)}
        self.said(self.post("submission", params, files=form))
        return timestamp

    def feedback(self, course_id: str, assignment_id: str) -> list[dict[str, Any]]:
        """The items, with the HTML where they had base64."""
        params = {"course_id": course_id, "assignment_id": assignment_id}
        items = self.said(self.get("feedback", params))["feedback"]
        return [{**item, "content": base64.b64decode(item["content"]).decode()} for item in items]

    def history(self, **params: str) -> list[Any]:
        answer = self.said(self.get("history", params))
        if set(answer) != {"success", "value"}:
            raise ExchangeError(f"the answer has other keys: {list(answer)}")
        return list(answer["value"])

    # -- HTTP

    def get(self, path: str, params: Mapping[str, str]) -> requests.Response:
        return self.call("GET", path, params)

    def post(self, path: str, params: Mapping[str, str], **form: Any) -> requests.Response:
        return self.call("POST", path, params, **form)

    def call(
        self, method: str, path: str, params: Mapping[str, str], **form: Any
    ) -> requests.Response:
        query = "&".join(f"{key}={quote_plus(value)}" for key, value in params.items())
        url = urljoin(self.url, f"{path}?{query}" if query else path)
        return requests.request(method, url, headers=self.headers, timeout=TIMEOUT, **form)

    def download(self, path: str, params: Mapping[str, str]) -> bytes:
        answer = self.get(path, params)
        if answer.status_code > 399:
            raise ExchangeError(f"status {answer.status_code}")
        if answer.headers["Content-Type"] == "application/gzip":
            return answer.content
        raise ExchangeError(self.said(answer)["note"])

    def said(self, answer: requests.Response) -> dict[str, Any]:
        try:
            told = dict(answer.json())
        except ValueError as error:
            raise ExchangeError(answer.text) from error
        if not told["success"]:
            raise ExchangeError(told["note"])
        return told

    def _now(self) -> str:
        if self.generation is Generation.V2:
            return datetime.datetime.now(datetime.UTC).strftime(FORMAT)
        if self.generation is Generation.V1:
            return datetime.datetime.now().strftime(FORMAT)
        return ""


def tar_gz(files: Mapping[str, bytes] | Path, *more: tuple[str, bytes]) -> bytes:
    """Files only, by relative names, in the order given; as `tarfile` writes them.

    Of a folder it makes whatever `tarfile` makes of links, and `more` comes last, whether a file
    of that name is there or not.
    """
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        if isinstance(files, Path):
            for path in sorted(path for path in files.rglob("*") if not path.is_dir()):
                archive.add(path, arcname=str(path.relative_to(files)))
        else:
            more = (*files.items(), *more)
        for name, content in more:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return target.getvalue()


def unpacked(body: bytes) -> dict[str, bytes]:
    if not body:
        raise ExchangeError("zero data returned")
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        return {
            member.name: file.read()
            for member in archive
            if (file := archive.extractfile(member)) is not None
        }
