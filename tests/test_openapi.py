"""docs/openapi.yaml says what the service does: all of it, and nothing else.

`NBEXCHANGE_FUZZ_CASES` is how many requests each operation gets from each kind of caller.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012
from schemathesis.checks import (
    not_a_server_error,
)
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tornado.web import RequestHandler
from traitlets.config import Config

from nbexchange.errors import Forbidden
from nbexchange.handlers import ROUTES
from nbexchange.handlers.auth.token_file import TokenFileUserHandler, bearer_token
from nbexchange.handlers.auth.user_handler import Answer
from nbexchange.handlers.base import PUBLIC
from tests.support.archives import NOTEBOOK, tar_gz, tar_gz_of, upload_headers
from tests.support.service import PATIENCE, Service, Wire

FILE = Path(__file__).parent.parent / "docs" / "openapi.yaml"
DOCUMENT: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
METHODS = ("get", "head", "post", "put", "patch", "delete", "options")
OPERATIONS = [
    (method, path)
    for path, item in DOCUMENT["paths"].items()
    for method in item
    if method in METHODS
]
UPLOADS = [operation for operation in OPERATIONS if operation[0] == "post"]
PRIVATE = [
    (method, path)
    for method, path in OPERATIONS
    if DOCUMENT["paths"][path][method].get("security") != []
]

FUZZ_CASES = int(os.environ.get("NBEXCHANGE_FUZZ_CASES", "15"))
LARGEST = 64 * 1024
"""Bytes that the service under test takes at once."""

BROKEN = {"429", "500", "503", "507"}
"""Answers that need a part that is broken; the tests of those parts see them."""


# -- the document


def test_the_document_is_valid_openapi_3_1():
    schema = schemathesis.openapi.from_dict(DOCUMENT)

    schema.validate()

    assert DOCUMENT["openapi"].startswith("3.1.")


@pytest.mark.parametrize("name", DOCUMENT["components"]["schemas"])
def test_each_schema_is_valid_json_schema(name):
    Draft202012Validator.check_schema(DOCUMENT["components"]["schemas"][name])


def test_each_schema_of_an_object_is_strict():
    lax = [
        pointer
        for pointer, schema in objects(DOCUMENT)
        if "additionalProperties" not in schema or ("properties" in schema and not required(schema))
    ]

    assert lax == []


def test_each_reference_leads_somewhere_and_each_component_is_used():
    text = FILE.read_text(encoding="utf-8")
    used = set(re.findall(r'"#/components/(\w+)/(\w+)"', text))
    there = {
        (kind, name)
        for kind, components in DOCUMENT["components"].items()
        if kind != "securitySchemes"
        for name in components
    }

    # Answers to what is not described are not referred to.
    assert there - used == {("responses", "NotAllowed")}
    assert used - there == set()


def test_the_document_and_the_routes_describe_the_same_operations():
    routed = {(method.lower(), f"/{path}") for path, handler in ROUTES for method in handler.verbs}

    assert set(OPERATIONS) == routed


def test_the_document_and_the_policy_agree_on_what_needs_a_token():
    private = {
        (method.lower(), f"/{path}")
        for path, handler in ROUTES
        for method, verb in handler.verbs.items()
        if verb is not PUBLIC
    }

    assert set(PRIVATE) == private


def test_each_operation_says_what_it_does_under_a_name_of_its_own():
    operations = [DOCUMENT["paths"][path][method] for method, path in OPERATIONS]

    assert all(operation["summary"] for operation in operations)
    assert len({operation["operationId"] for operation in operations}) == len(operations)


def test_the_document_is_served_as_it_is(service):
    answer = service.wire(None).get("openapi.yaml")

    assert answer.content == FILE.read_bytes()
    assert answer.headers["Content-Type"] == "application/yaml"


def objects(node: Any, pointer: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema of an object in an answer; forms are other people's shape."""
    if isinstance(node, dict):
        if node.get("type") == "object" and "requestBody" not in pointer:
            yield pointer, node
        for key, value in node.items():
            yield from objects(value, f"{pointer}/{key}")


def required(schema: dict[str, Any]) -> bool:
    optional = {"next"} if "value" in schema["properties"] else set()
    return set(schema["properties"]) - optional <= set(schema.get("required", ()))


# -- answers against the document


@dataclass
class Description:
    """Says whether an answer is one that the document describes."""

    seen: set[tuple[str, str, str]] = field(default_factory=set)

    @cached_property
    def registry(self) -> Registry[Any]:
        resource = DRAFT202012.create_resource(DOCUMENT)
        return Registry().with_resource("urn:openapi", resource)

    def check(self, method: str, path: str, answer: requests.Response) -> None:
        method, status = method.lower(), str(answer.status_code)
        pointer = self._response(method, path, status)
        self.seen.add((method, path, status))
        pointer, response = self.resolve(pointer)
        self._check_headers(pointer, response, answer)
        self._check_content(pointer, response, answer)

    def _response(self, method: str, path: str, status: str) -> str:
        item = DOCUMENT["paths"].get(path)
        if item is None and status == "404":
            return "/components/responses/NotFound"
        assert item is not None, f"{path} is not described"
        if method not in item and status == "405":
            return "/components/responses/NotAllowed"
        assert status in item[method]["responses"], f"{method} {path}: {status} is not described"
        return f"/paths/{escaped(path)}/{method}/responses/{status}"

    def resolve(self, pointer: str) -> tuple[str, dict[str, Any]]:
        node: Any = DOCUMENT
        for part in pointer.split("/")[1:]:
            node = node[part.replace("~1", "/").replace("~0", "~")]
        return self.resolve(node["$ref"][1:]) if set(node) == {"$ref"} else (pointer, node)

    def _check_headers(
        self, pointer: str, response: dict[str, Any], answer: requests.Response
    ) -> None:
        for name in response["headers"]:
            place, header = self.resolve(f"{pointer}/headers/{name}")
            assert name in answer.headers or not header["required"], f"{name} is missing"
            self._check_schema(f"{place}/schema", answer.headers[name])

    def _check_content(
        self, pointer: str, response: dict[str, Any], answer: requests.Response
    ) -> None:
        content = response.get("content")
        if content is None:
            assert answer.content == b""
            return
        (media_type,) = content
        said = answer.headers["Content-Type"]
        assert said.partition(";")[0] == media_type
        if media_type == "application/gzip":
            assert said == media_type  # old clients compare the whole
        if "schema" in content[media_type]:
            body = answer.json() if media_type == "application/json" else answer.text
            self._check_schema(f"{pointer}/content/{escaped(media_type)}/schema", body)
            if "request_id" in body:
                assert body["request_id"] == answer.headers["X-Request-Id"]

    def _check_schema(self, pointer: str, instance: Any) -> None:
        schema = {"$ref": f"urn:openapi#{pointer}"}
        Draft202012Validator(schema, registry=self.registry).validate(instance)


def escaped(text: str) -> str:
    return text.replace("~", "~0").replace("/", "~1")


@dataclass
class Reader:
    """Somebody who compares every answer with the document."""

    wire: Wire
    description: Description

    def __call__(
        self, status: int, method: str, path: str, body: bytes | None = None, /, **kwargs: Any
    ) -> requests.Response:
        headers = kwargs.pop("headers", None)
        files = kwargs.pop("files", None)
        answer = self.wire.request(
            method, path, data=body, headers=headers, files=files, params=kwargs
        )
        self.description.check(method, f"/{path}", answer)
        assert answer.status_code == status, answer.text
        return answer


ELSEWHERE = "a-token-that-was-made-for-another-service"


class Choosy(TokenFileUserHandler):
    """Knows tokens that are not for here, as a hub does."""

    async def get_current_user(self, request: RequestHandler) -> Answer:
        if bearer_token(request) == ELSEWHERE:
            raise Forbidden("your token was not made for the exchange")
        return await super().get_current_user(request)


@pytest.fixture
def narrow(data: Path) -> Iterator[Service]:
    """A service that takes little at once."""
    config = Config()
    config.NbExchange.max_buffer_size = LARGEST
    config.NbExchange.user_plugin_class = Choosy
    with Service(data, config) as running:
        yield running


@pytest.fixture
def description() -> Description:
    return Description()


@pytest.fixture
def ada(narrow: Service, description: Description) -> Reader:
    """The instructor of physics."""
    return Reader(narrow.instructor("physics", "ada"), description)


@pytest.fixture
def bob(narrow: Service, description: Description) -> Reader:
    """A student of physics."""
    return Reader(narrow.student("physics", "bob"), description)


@pytest.fixture
def nobody(narrow: Service, description: Description) -> Reader:
    return Reader(narrow.wire("not-a-token"), description)


@pytest.fixture
def stranger(narrow: Service, description: Description) -> Reader:
    """Somebody known, with a token that is not for here."""
    return Reader(narrow.wire(ELSEWHERE), description)


PS1 = {"course_id": "physics", "assignment_id": "ps1"}
NESTED = tar_gz_of({"p1.ipynb": NOTEBOOK, "sub/p2.ipynb": NOTEBOOK})


def test_every_answer_of_a_whole_cycle_is_described(ada, bob, nobody, stranger, description):
    release_and_fetch(ada, bob)
    submission_id = submit_and_collect(ada, bob)
    give_feedback(ada, bob, submission_id)
    read_histories(ada, bob)
    refuse_uploads(ada, bob, submission_id)
    refuse_the_rest(ada, bob, nobody, stranger)
    take_back(ada, bob)
    for path in ("", "openapi.yaml", "healthz", "readyz"):
        nobody(200, "GET", path)

    described = {
        (method, path, status)
        for method, path in OPERATIONS
        for status in DOCUMENT["paths"][path][method]["responses"]
        if status not in BROKEN
    }
    assert described - description.seen == set()


def release_and_fetch(ada: Reader, bob: Reader) -> None:
    for key in ("first", "second"):
        ada(201, "POST", "assignment", NESTED, headers=upload_headers(NESTED, key), **PS1)
    form = {"assignment": ("assignment.tar.gz", NESTED), "notebooks": (None, "p1")}
    ada(201, "POST", "assignment", files=form, **PS1)
    bob(200, "GET", "assignments", course_id="physics")
    whole = bob(200, "GET", "assignment", **PS1)
    part = {"Range": "bytes=10-", "If-Range": whole.headers["ETag"]}
    assert bob(206, "GET", "assignment", headers=part, **PS1).content == NESTED[10:]
    bob(304, "GET", "assignment", headers={"If-None-Match": whole.headers["ETag"]}, **PS1)
    bob(416, "GET", "assignment", headers={"Range": "bytes=999999-"}, **PS1)


def submit_and_collect(ada: Reader, bob: Reader) -> str:
    for content in (b"{}", b"[]", b"[1]"):
        body = tar_gz(p1=content)
        receipt = bob(201, "POST", "submission", body, headers=upload_headers(body), **PS1)
    bob(201, "POST", "submission", files={"assignment": ("assignment.tar.gz", NESTED)}, **PS1)
    ada(200, "GET", "collections", course_id="physics")
    page = ada(200, "GET", "collections", limit=3, **PS1).json()
    rest = ada(200, "GET", "collections", limit=3, page=page["next"], **PS1).json()
    assert (len(page["value"]), len(rest["value"]), rest["next"]) == (3, 1, None)
    latest = bob(200, "GET", "collections", latest="true", user_id="bob", **PS1).json()["value"]
    token = latest[0]["path"]
    whole = ada(200, "GET", "collection", path=token, **PS1)
    ada(206, "GET", "collection", headers={"Range": "bytes=-5"}, path=token, **PS1)
    etag = whole.headers["ETag"]
    bob(304, "GET", "collection", headers={"If-None-Match": etag}, path=token, **PS1)
    ada(416, "GET", "collection", headers={"Range": "bytes=999999-"}, path=token, **PS1)
    return str(receipt.json()["submission_id"])


def give_feedback(ada: Reader, bob: Reader, submission_id: str) -> None:
    bob(200, "GET", "feedback", **PS1)
    html = b"<html>well done</html>"
    by_id = {"submission_id": submission_id, "notebook": "p1", **PS1}
    ada(201, "POST", "feedback", html, headers=upload_headers(html), **by_id)
    ada(201, "POST", "feedback", files={"feedback": ("feedback.html", html)}, checksum="x", **by_id)
    (found,) = bob(200, "GET", "feedback", submission_id=submission_id, **PS1).json()["feedback"]
    assert found["version"] == 2
    bob(200, "GET", "assignments")
    ada(200, "GET", "assignments")


def read_histories(ada: Reader, bob: Reader) -> None:
    for reader in (ada, bob):
        reader(200, "GET", "history")
        reader(200, "GET", "history", course_id="physics", action="submitted")
        page = reader(200, "GET", "history", limit=2).json()
        reader(200, "GET", "history", limit=2, page=page["next"])


def refuse_uploads(ada: Reader, bob: Reader, submission_id: str) -> None:
    html, other = b"<html>", b"<html>!"
    good = {
        "assignment": (ada, NESTED, PS1),
        "submission": (bob, NESTED, PS1),
        "feedback": (ada, html, {"submission_id": submission_id, "notebook": "p1", **PS1}),
    }
    for path, (reader, body, params) in good.items():
        headers = upload_headers(body, "key")
        reader(400, "POST", path, b"", **params)
        reader(404, "POST", path, body, **params | {"course_id": "chemistry"})
        reader(413, "POST", path, bytes(LARGEST + 1), **params)
        reader(415, "POST", path, body, headers={"Content-Encoding": "gzip"}, **params)
        reader(422, "POST", path, other, headers=headers, **params)
        reader(201, "POST", path, body, headers=headers, **params)
        changed = other if path == "feedback" else tar_gz(p1=b"other")
        reader(409, "POST", path, changed, headers=upload_headers(changed, "key"), **params)
    bob(403, "POST", "assignment", NESTED, **PS1)
    ada(412, "POST", "assignment", NESTED, headers={"If-None-Match": "*"}, **PS1)
    bob(403, "POST", "feedback", html, **good["feedback"][2])


def refuse_the_rest(ada: Reader, bob: Reader, nobody: Reader, stranger: Reader) -> None:
    for method, path in PRIVATE:
        nobody(401, method.upper(), path[1:], **PS1)
        stranger(403, method.upper(), path[1:], **PS1)
        reader = ada if method in ("post", "delete") else bob
        foreign = {"course_id": "chemistry", "assignment_id": "ps1", "path": "x"}
        more = {"notebook": "p1", "submission_id": "x", "purge_id": "x"}
        reader(404, method.upper(), path[1:], b"x" * (method == "post"), **foreign | more)
        reader(400, method.upper(), path[1:], course_id=b"\xff", assignment_id="x", path="x")
    for path in DOCUMENT["paths"]:
        for method in set(METHODS) - {"head"} - set(DOCUMENT["paths"][path]):
            bob(405, method.upper(), path[1:])
    bob(404, "GET", "elsewhere")


def take_back(ada: Reader, bob: Reader) -> None:
    bob(403, "DELETE", "assignment", **PS1)
    ada(200, "DELETE", "assignment", **PS1)
    ada(404, "DELETE", "assignment", **PS1)
    bob(404, "GET", "assignment", **PS1)
    ada(200, "DELETE", "assignment", purge="true", **PS1)
    bob(403, "GET", "purges", course_id="physics")
    (hidden,) = ada(200, "GET", "purges", course_id="physics").json()["value"]
    it = {"course_id": "physics", "purge_id": hidden["purge_id"]}
    bob(403, "DELETE", "purges", **it)
    ada(200, "DELETE", "purges", **it)
    ada(409, "DELETE", "purges", **it)
    ada(400, "DELETE", "purges", course_id="physics")
    ada(200, "GET", "history")
    ada(200, "DELETE", "assignment", purge="true", **PS1)
    assert bob(200, "GET", "assignments").json()["value"] == []


def test_an_answer_to_head_is_a_405_without_a_body(service):
    answer = service.student().request("HEAD", "assignments")

    assert (answer.status_code, answer.headers["Allow"], answer.content) == (405, "GET", b"")


def test_a_method_that_nobody_knows_is_a_405_that_names_those_that_are_taken(service):
    answer = service.student().request("BREW", "assignment")

    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "POST", "DELETE"}


@pytest.mark.parametrize("size", [0, 1, 1_000_000])
def test_a_refusal_reaches_a_client_that_still_sends_and_keeps_its_connection(service, size):
    bob, stranger = service.student(), service.wire("not-a-token")
    foreign = {"course_id": "chemistry", "assignment_id": "ps1"}

    for _ in range(10):
        for status, answer in (
            (405, bob.request("PUT", "assignment", data=bytes(size))),
            (404, bob.post("submission", bytes(size), **foreign)),
            (404, bob.post("elsewhere", bytes(size))),
            (401, stranger.post("submission", bytes(size), **foreign)),
        ):
            assert answer.status_code == status
            assert answer.headers.get("Connection") != "close"


def test_a_client_that_waits_is_refused_before_it_sends_and_told_to_connect_anew(service):
    service.enrol("bob", {"physics": "Student"}, token="bob")
    header = (
        "POST /services/nbexchange/submission?course_id=chemistry&assignment_id=x HTTP/1.1\r\n"
        "Host: x\r\nAuthorization: Bearer bob\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", service.port), PATIENCE) as connection:
        connection.sendall(header.encode())

        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    assert answer.startswith("HTTP/1.1 404")
    assert "\r\nConnection: close\r\n" in answer


def test_an_answer_that_is_not_described_is_noticed(service, description):
    answer = service.student().get("assignments", course_id="physics")
    answer._content = answer.content.replace(b'"success":true', b'"success":true,"more":1')

    with pytest.raises(Exception, match="more"):
        description.check("get", "/assignments", answer)


# -- requests that are made from the document


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Service]:
    """A service in use, for all cases: physics with one assignment, submission and feedback."""
    data = tmp_path_factory.mktemp("fuzzed") / "data"
    data.mkdir()
    (data / "nbexchange.sqlite").write_bytes(empty_database.read_bytes())
    with Service(data) as running:
        populate(running)
        yield running


def populate(service: Service) -> None:
    ada, bob = service.instructor(), service.student()
    for assignment_id in ("ps1", "ps2"):
        place = {"course_id": "physics", "assignment_id": assignment_id}
        assert ada.post("assignment", NESTED, **place).status_code == 201
        receipt = bob.post("submission", NESTED, **place).json()
        target = {"submission_id": receipt["submission_id"], "notebook": "p1"}
        assert ada.post("feedback", b"<html>", **place, **target).status_code == 201


def known(service: Service) -> dict[str, list[str]]:
    """Values that lead somewhere, which no generator would guess."""
    rows = service.instructor().get("collections", course_id="physics").json()["value"]
    tokens = [row["path"] for row in rows]
    return {
        "course_id": ["physics"],
        "assignment_id": ["ps1", "ps2"],
        "path": tokens,
        "submission_id": tokens,
        "page": tokens,
        "student": ["bob"],
        "user_id": ["bob"],
        "timestamp": [row["timestamp"] for row in rows],
        "notebook": ["p1"],
    }


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]

for media_type in ("application/gzip", "text/html"):
    schemathesis.openapi.media_type(
        media_type, st.sampled_from([NESTED, NESTED[:-9], b"<html>"]) | st.binary(max_size=200)
    )


def cases(operation: Any, values: dict[str, list[str]]) -> st.SearchStrategy[Any]:
    """Well-made and ill-made requests, some of which hit what is there."""

    def aimed(mode: GenerationMode, names: frozenset[str]) -> st.SearchStrategy[Any]:
        return st.fixed_dictionaries(
            {name: st.sampled_from(values[name]) for name in sorted(names)}
        ).flatmap(lambda query: with_query(operation.as_strategy(generation_mode=mode), query))

    taken = {parameter.name for parameter in operation.query} & values.keys()
    if not taken:
        return operation.as_strategy() | operation.as_strategy(
            generation_mode=GenerationMode.NEGATIVE
        )
    modes = st.sampled_from([GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
    names = st.just(frozenset(taken)) | st.frozensets(st.sampled_from(sorted(taken)))
    return st.tuples(modes, names).flatmap(lambda chosen: aimed(*chosen))


def with_query(strategy: st.SearchStrategy[Any], query: dict[str, str]) -> st.SearchStrategy[Any]:
    def add(case: Any) -> Any:
        if isinstance(case.query, dict):
            case.query = case.query | query
        return case

    return strategy.map(add)


@pytest.mark.parametrize("caller", ["instructor", "student"])
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_answer_to_a_made_up_request_is_described(course, method, path, caller):
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    operation = schema[path][method]
    wire: Wire = getattr(course, caller)()
    headers = {"Authorization": wire.session.headers["Authorization"]}

    @settings(
        max_examples=FUZZ_CASES,
        deadline=None,
        database=None,
        derandomize="NBEXCHANGE_FUZZ_CASES" not in os.environ,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases(operation, known(course)))
    def every_case(case: Any) -> None:
        case.call_and_validate(
            base_url=course.url, session=wire.session, headers=headers, checks=CHECKS
        )

    every_case()
    restore(course)


def restore(service: Service) -> None:
    """What a made-up request may have removed."""
    if not service.student().get("collections", course_id="physics").json()["value"]:
        populate(service)


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer unknown", "Basic YWRhOmFkYQ==", "token-1-ada"],
)
@pytest.mark.parametrize(("method", "path"), PRIVATE)
def test_an_unknown_token_is_a_401_everywhere(course, method, path, authorization):
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = course.wire(None).request(method.upper(), path[1:], headers=headers, params=PS1)

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    Description().check(method, path, answer)
