"""Names are values: none is a path, none is a query, and no two are one.

Every parameter of every operation gets every hostile value; people, courses and assignments whose
names look alike stay apart.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from traitlets.config import Config

from tests.support.archives import tar_gz
from tests.support.service import Service, Wire

DOCUMENT = yaml.safe_load((Path(__file__).parent.parent / "docs" / "openapi.yaml").read_text())
BODY = tar_gz(p1=b"{}")

NFC, NFD = (unicodedata.normalize(form, "bób") for form in ("NFC", "NFD"))

ALIKE = [
    "Bob", "bob", "BOB", "bob ", " bob", "bob\u00a0", "bob\u200b", NFC, NFD, "b\u043eb",
    "\ufb01n", "fin", "ß", "ss", "ı", "i", "\u03a9", "\u2126", "bob.", "bob%", "b_b", "b%62b",
    "'; DROP TABLE submission; --", '" OR ""="', "bob'--", "${HOME}", "`id`", "$(id)", "{0}", "%s",
    "null", "None", "0", "00", "-1", "true", "*", "?", "#", "&course_id=x", "a+b", "a b", "a%20b",
    "💥", "👩‍🎓", "bob\u200f", "علی\u200cرضا", "דוד",
    "x" * 200, "x" * 199 + "y", "é" * 200, "💥" * 200,
]  # fmt: skip
"""Two hundred characters at most, and each its own."""

PATHS = [
    ".", "..", "/", "\\", "./x", "../x", "../../x", "..\\..\\x", "/etc/passwd", "//x", "x/", "x/..",
    "/tmp/nbexchange-escaped", "../" * 50 + "tmp/nbexchange-escaped", "C:\\x", "file:///etc/passwd",
    "~", "~root", "blobs", "uploads", "nbexchange.sqlite", "../people.json", "CON", "x:y", "x\x7f",
]  # fmt: skip

NO_FOLDERS = [name for name in PATHS if name in (".", "..") or "/" in name or "\\" in name]
FOLDERS = [name for name in PATHS if name not in NO_FOLDERS and name[0] != "."]
"""A disk of another system may think otherwise of some."""

NO_NAMES = [
    "\0", "x\0", "\0x.ipynb", "x\ny", "x\r\nX-Injected: yes", "\x1b[31m", "\t", "\x85", "\u2028",
    "\x9b2J", "\u202ebob", "bob\u2066",
    "é" * 300, "x" * 201, "x" * 300, "x" * 10_000, "💥" * 300,
]  # fmt: skip

UNSAFE = ["x\x9b2J", "x\x85y", "x\u2028y", "\u202ebob", "bob\u2066"]
"""A terminal obeys them, or they reorder what comes after them."""

NO_TEXT = [b"\xff", b"x\xfe", b"\xc0\xaf", b"..\xc0\xafx", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"]

RAW = [
    "", "%", "%zz", "%2", "%2f", "%2F..%2f", "%252f", "..%2f..%2fx", "%00", "%c0%ae%c0%ae%2f",
    "+", "%2b", "a;b", "a=b=c", "%u002e", "0" * 19 + "1" + "9" * 5000, "1" * 5000, "1e9", "0x10",
    "١٢", "1.0", "+1", "%201",
]  # fmt: skip
"""As they stand in the address."""

HOSTILE = [
    *(quote(text, safe="") for text in ALIKE + PATHS + NO_NAMES),
    *(quote(value, safe="") for value in NO_TEXT),
    *(quote(text, safe="%+;=") for text in RAW),
]

GOOD = {"course_id": "physics", "assignment_id": "ps1", "notebook": "p1", "student": "bob"}
BODIES = {"/assignment": BODY, "/submission": BODY, "/feedback": b"<html>"}


def parameters() -> Iterator[tuple[str, str, str]]:
    """Each query parameter of each operation."""
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            for said in operation.get("parameters", ()):
                name = said.get("name") or component(said["$ref"])
                if name is not None:
                    yield method, path, name


def component(reference: str) -> str | None:
    said = DOCUMENT["components"]["parameters"][reference.rpartition("/")[2]]
    return str(said["name"]) if said["in"] == "query" else None


PARAMETERS = [
    (method, path, name)
    for method, path, name in parameters()
    if name not in ("Range", "If-None-Match")
]


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Service]:
    """A service with one release, one submission and one feedback, in a folder of its own."""
    data = tmp_path_factory.mktemp("names") / "data"
    data.mkdir()
    (data / "nbexchange.sqlite").write_bytes(empty_database.read_bytes())
    with Service(data) as running:
        ada, bob = running.instructor(), running.student()
        place = {"course_id": "physics", "assignment_id": "ps1"}
        assert ada.post("assignment", BODY, **place).status_code == 201
        receipt = bob.post("submission", BODY, **place).json()
        target = {"submission_id": receipt["submission_id"], "notebook": "p1"}
        assert ada.post("feedback", b"<html>", **place, **target).status_code == 201
        yield running


OURS = re.compile(
    r"data|people\.json|data/nbexchange\.sqlite(-wal|-shm)?|data/blobs(/[0-9a-f]{2}"
    r"(/[0-9a-f]{32})?)?|data/uploads(/[0-9a-f]{32})?|data/spool"
)


def strange_files(service: Service) -> list[str]:
    """What is on the disk under a name that is not made by the service."""
    root = service.data.parent
    names = (str(path.relative_to(root)) for path in root.rglob("*"))
    return [name for name in names if not OURS.fullmatch(name)]


@pytest.mark.parametrize(("method", "path", "name"), PARAMETERS)
def test_no_value_of_a_parameter_breaks_the_service_or_names_a_file(
    used, method, path, name, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    ada = used.instructor()

    for value in HOSTILE:
        answer = request(ada, method, path, name, value)

        assert answer.status_code < 500, (value[:100], answer.text)
        assert answer.headers["X-Request-Id"]
        assert "X-Injected" not in answer.headers
        if answer.headers["Content-Type"].startswith("application/json"):
            assert answer.json()["success"] is (answer.status_code < 400)

    assert strange_files(used) == []
    assert list(tmp_path.iterdir()) == []
    assert not Path("/tmp/nbexchange-escaped").exists()


def request(wire: Wire, method: str, path: str, name: str, value: str) -> Any:
    others = {key: text for key, text in GOOD.items() if key != name}
    query = "&".join([*(f"{key}={text}" for key, text in others.items()), f"{name}={value}"])
    # Never purge what the other cases need.
    if method == "delete":
        query = query.replace("assignment_id=ps1", "assignment_id=ps2")
    body = BODIES.get(path) if method == "post" else None
    return wire.request(method.upper(), f"{path[1:]}?{query}", data=body)


@pytest.mark.parametrize("hostile", [*PATHS, "x\r\ny", "x" * 10_000, "💥", "\0", '"', "a;b", ""])
@pytest.mark.parametrize("place", ["filename", "name"])
def test_what_a_form_calls_its_file_names_no_file(used, hostile, place):
    names = {"name": "assignment", "filename": "assignment.tar.gz"} | {place: hostile}
    head = f'Content-Disposition: form-data; name="{names["name"]}"; filename="{names["filename"]}"'
    body = b"--x\r\n" + head.encode() + b"\r\n\r\n" + BODY + b"\r\n--x--\r\n"

    answer = used.student().post(
        "submission",
        body,
        {"Content-Type": "multipart/form-data; boundary=x"},
        course_id="physics",
        assignment_id="ps1",
    )

    assert answer.status_code in (201, 400)
    assert strange_files(used) == []


@pytest.mark.parametrize("header", ["Idempotency-Key", "Content-Digest", "Range", "If-None-Match"])
def test_no_value_of_a_header_breaks_the_service(used, header):
    ada, place = used.instructor(), {"course_id": "physics", "assignment_id": "ps1"}
    for value in [
        "..",
        "/",
        "'; --",
        "\xff",
        "x" * 10_000,
        "bytes=" + "9" * 400,
        "",
        ":",
        "=:",
        "*",
    ]:
        headers = {header: value.encode("latin1")}

        for answer in (
            ada.get("assignment", headers, **place),
            ada.post("submission", BODY, headers, **place),
        ):
            assert answer.status_code < 500, (value, answer.text)

    assert strange_files(used) == []


def test_addresses_lead_nowhere_but_to_routes(used):
    for path in (
        "../../etc/passwd",
        "%2e%2e/people.json",
        "assignment/../x",
        "data",
        "assignment/",
    ):
        answer = used.instructor().get(path)

        assert answer.status_code == 404
        assert answer.json()["success"] is False


# -- no two are one


def member(service: Service, name: str, course_id: str = "physics") -> Wire:
    """A student. The token is in ASCII, whatever the name: it goes into a header."""
    token = f"token-{name.encode().hex()}"
    return service.wire(service.enrol(name, {course_id: "Student"}, token=token))


def test_no_two_of_the_names_here_are_the_same():
    assert len(set(ALIKE)) == len(ALIKE)


@pytest.mark.slow
def test_people_whose_names_look_alike_stay_apart(service):
    ada, place = service.instructor(), {"course_id": "physics", "assignment_id": "ps1"}
    ada.post("assignment", BODY, **place)
    wires = {name: member(service, name) for name in [*ALIKE, *FOLDERS[:-1], "a\\b", ".x"]}

    bodies = {name: tar_gz(p1=name.encode()) for name in wires}
    receipts = {
        name: wire.post("submission", bodies[name], {"Idempotency-Key": "same"}, **place).json()
        for name, wire in wires.items()
    }

    every = ada.get("collections", **place).json()["value"]
    assert sorted(record["student_id"] for record in every) == sorted(wires)
    for name, wire in wires.items():
        (record,) = ada.get("collections", user_id=name, **place).json()["value"]
        assert record["student_id"] == receipts[name]["student"] == name
        assert ada.get("collection", path=record["path"], **place).content == bodies[name]
        own = [
            row for row in wire.get("assignments").json()["value"] if row["status"] == "submitted"
        ]
        assert [row["submission_id"] for row in own] == [record["submission_id"]]
        claim = {"student": name, "timestamp": record["timestamp"], "notebook": "p1"}
        given = ada.post("feedback", name.encode(), **claim, **place).json()
        assert given["submission_id"] == record["submission_id"]
    for wire in wires.values():
        (item,) = wire.get("feedback", **place).json()["feedback"]
        assert item["submission_id"] in {row["submission_id"] for row in own_rows(wire)}


def own_rows(wire: Wire) -> list[Any]:
    rows = wire.get("assignments").json()["value"]
    return [row for row in rows if row["status"] == "submitted"]


def test_somebody_does_not_get_what_belongs_to_a_name_that_looks_alike(service):
    ada, place = service.instructor(), {"course_id": "physics", "assignment_id": "ps1"}
    ada.post("assignment", BODY, **place)
    owner = service.student(name="bob")
    token = owner.post("submission", BODY, **place).json()["submission_id"]

    for name in ALIKE:
        if name != "bob":
            wire = member(service, name)
            assert wire.get("collection", path=token, **place).status_code == 404
            assert wire.get("collections", user_id="bob", **place).json()["value"] == []

    assert owner.get("collection", path=token, **place).content == BODY


def test_courses_whose_names_look_alike_stay_apart(service):
    courses = [*ALIKE, *FOLDERS[:-1]]
    ada = service.wire(service.enrol("ada", dict.fromkeys(courses, "Instructor")))
    for number, course_id in enumerate(courses):
        body = tar_gz(p1=str(number).encode())
        released = ada.post("assignment", body, course_id=course_id, assignment_id="ps1").json()
        assert released["version"] == 1

    for number, course_id in enumerate(courses):
        place = {"course_id": course_id, "assignment_id": "ps1"}
        rows = ada.get("assignments", course_id=course_id).json()["value"]
        assert [row["course_id"] for row in rows if row["status"] == "released"] == [course_id]
        assert ada.get("assignment", **place).content == tar_gz(p1=str(number).encode())
    whole = [row for row in ada.get("assignments").json()["value"] if row["status"] == "released"]
    assert sorted(row["course_id"] for row in whole) == sorted(courses)


def test_a_member_of_a_course_is_a_stranger_to_one_that_looks_alike(service):
    ada = service.wire(service.enrol("ada", dict.fromkeys(ALIKE, "Instructor")))
    for course_id in ALIKE:
        ada.post("assignment", BODY, course_id=course_id, assignment_id="ps1")

    member = service.student("bob", name="carol")

    for course_id in ALIKE:
        answer = member.get("assignment", course_id=course_id, assignment_id="ps1")
        assert answer.status_code == (200 if course_id == "bob" else 404), course_id


def test_assignments_whose_names_look_alike_stay_apart(service):
    ada = service.instructor()
    for number, assignment_id in enumerate(ALIKE):
        body = tar_gz(p1=str(number).encode())
        place = {"course_id": "physics", "assignment_id": assignment_id}
        assert ada.post("assignment", body, **place).json()["version"] == 1

    rows = ada.get("assignments", course_id="physics").json()["value"]
    assert sorted(row["assignment_id"] for row in rows) == sorted(ALIKE)
    for number, assignment_id in enumerate(ALIKE):
        place = {"course_id": "physics", "assignment_id": assignment_id}
        assert ada.get("assignment", **place).content == tar_gz(p1=str(number).encode())
    ada.delete("assignment", course_id="physics", assignment_id="bob", purge="yes")
    left = ada.get("collections", course_id="physics").json()
    assert left["success"] is True
    assert ada.get("assignment", course_id="physics", assignment_id="Bob").status_code == 200


@pytest.mark.parametrize("name", [*NO_FOLDERS, "x/y", ".x", "x\ny", "x" * 201, *UNSAFE])
def test_a_name_that_could_not_be_a_folder_is_not_released(service, name):
    answer = service.instructor().post("assignment", BODY, course_id="physics", assignment_id=name)

    assert answer.status_code == 400
    assert len(answer.json()["note"]) < 500
    assert answer.json()["note"].isprintable()
    assert service.files() == []


@pytest.mark.parametrize("name", [*NO_FOLDERS, "x/y", ".x"])
def test_nothing_is_released_in_a_course_that_could_not_be_a_folder(service, name):
    ada = service.wire(service.enrol("ada", {name: "Instructor"}))

    answer = ada.post("assignment", BODY, course_id=name, assignment_id="ps1")

    assert answer.status_code == 400
    assert answer.json()["note"].startswith("A course id becomes the name of a folder")
    assert service.files() == []


@pytest.mark.parametrize("name", [".", "..", "x/y", "/", "../x"])
def test_a_student_whose_name_could_not_be_a_folder_is_told_at_submit(service, name):
    place = {"course_id": "physics", "assignment_id": "ps1"}
    assert service.instructor().post("assignment", BODY, **place).status_code == 201
    released = service.files()

    answer = member(service, name).post("submission", BODY, **place)

    assert answer.status_code == 400
    assert "Ask your administrator for another user name" in answer.json()["note"]
    assert service.files() == released


@pytest.mark.parametrize("name", [".", "..", "/", "../x", "x\\y", "x\ny", "x" * 201, *UNSAFE])
def test_feedback_on_a_notebook_that_could_not_be_a_file_is_refused(used, name):
    place = {"course_id": "physics", "assignment_id": "ps1"}
    ada = used.instructor()
    token = ada.get("collections", **place).json()["value"][0]["submission_id"]

    answer = ada.post("feedback", b"<html>", notebook=name, submission_id=token, **place)

    assert answer.status_code == 400


def test_the_base_url_may_hold_what_means_something_in_a_pattern(data: Path) -> None:
    config = Config()
    config.NbExchange.base_url = "/c++/(x)*/"
    with Service(data, config) as service:
        assert service.instructor().get("assignments").status_code == 200
