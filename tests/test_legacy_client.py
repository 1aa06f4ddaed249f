"""Old notebook images work with this service: the wire protocol that clients in the field speak."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.archives import tar_gz as new_tar_gz
from tests.support.archives import upload_headers
from tests.support.legacy import ExchangeError, Generation, LegacyClient, tar_gz
from tests.support.service import Service

COURSE, PS1 = "physics 101+lab", "ps 1&2"
"""Names that break a client or a server that quotes carelessly."""

FILES = {"p1.ipynb": b"{}", "p 2.ipynb": b"{}", "data/x.csv": b"1,2"}
PLACE = {"course_id": COURSE, "assignment_id": PS1}
NORMAL_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} UTC")


@pytest.fixture
def ada(service: Service) -> LegacyClient:
    """The instructor, on an old image."""
    return LegacyClient(service.url, service.enrol("ada", {COURSE: "Instructor"}))


def student(
    service: Service, name: str = "bob", generation: Generation = Generation.V2
) -> LegacyClient:
    return LegacyClient(service.url, service.enrol(name, {COURSE: "Student"}), generation)


@pytest.fixture
def bob(service: Service) -> LegacyClient:
    """A student on an old image of the newest kind."""
    return student(service)


@pytest.fixture
def released(ada: LegacyClient) -> LegacyClient:
    """The instructor, after releasing."""
    ada.release(COURSE, PS1, FILES)
    return ada


def of_status(client: LegacyClient, status: str) -> list[Any]:
    return [record for record in client.assignments(COURSE) if record["status"] == status]


# -- the whole cycle


@pytest.mark.parametrize("generation", Generation)
def test_a_whole_cycle(service, generation):
    ada = LegacyClient(service.url, service.enrol("ada", {COURSE: "Instructor"}), generation)
    bob = student(service, generation=generation)

    assert ada.release(COURSE, PS1, FILES)["note"] == "Released"
    (released,) = of_status(bob, "released")
    assert released["assignment_id"] == PS1
    assert bob.fetch(COURSE, PS1) == FILES
    claimed = bob.submit(COURSE, PS1, FILES)
    (record,) = ada.collections(COURSE, PS1)
    assert (record["student_id"], record["assignment_id"]) == ("bob", PS1)
    collected = ada.collect(record)
    assert collected.pop("timestamp.txt", b"").decode() == claimed
    assert collected == FILES
    # As nbgrader does: the time is what timestamp.txt says, else what the exchange does.
    timestamp = claimed or record["timestamp"]
    given = ada.release_feedback(COURSE, PS1, "p1", "bob", timestamp, "<html>fine</html>")
    assert given["note"] == "Feedback released"
    (item,) = bob.feedback(COURSE, PS1)
    assert (item["content"], item["filename"]) == ("<html>fine</html>", "p1.html")
    assert item["checksum"] == "cafe"
    assert feedback_by_time(bob) == {item["timestamp"]: ["p1"]}
    statuses = [record["status"] for record in bob.assignments(COURSE)]
    assert sorted(statuses) == ["feedback_fetched", "fetched", "released", "submitted"]


def feedback_by_time(client: LegacyClient) -> dict[str, list[str]]:
    """What the list says there is feedback for, by the name that it gives the feedback."""
    found: dict[str, list[str]] = {}
    for record in of_status(client, "submitted"):
        for notebook in record["notebooks"]:
            if notebook["has_exchange_feedback"]:
                found.setdefault(notebook["feedback_timestamp"], []).append(notebook["notebook_id"])
    return found


# -- feedback finds its submission


@pytest.mark.parametrize("generation", [Generation.V2, Generation.V1])
def test_feedback_on_an_older_submission_belongs_to_that_one(service, released, generation):
    bob = student(service, generation=generation)
    claims = [f"2026-11-21 10:00:0{second}.000001 UTC" for second in range(3)]
    for claim in claims:
        bob.submit(COURSE, PS1, FILES, claim)

    released.release_feedback(COURSE, PS1, "p1", "bob", claims[1], "<html>")

    (item,) = bob.feedback(COURSE, PS1)
    submissions = of_status(bob, "submitted")
    assert item["timestamp"] == claims[1]
    assert item["submission_id"] == submissions[1]["submission_id"]
    assert feedback_by_time(bob) == {claims[1]: ["p1"]}
    with_feedback = [
        any(notebook["has_exchange_feedback"] for notebook in record["notebooks"])
        for record in submissions
    ]
    assert with_feedback == [False, True, False]


def test_a_client_without_any_time_gets_feedback_by_the_official_one(service, released):
    bob = student(service, generation=Generation.NEITHER)
    for _ in range(3):
        bob.submit(COURSE, PS1, FILES)
    _newest, middle, _oldest = released.collections(COURSE, PS1)

    released.release_feedback(COURSE, PS1, "p1", "bob", middle["timestamp"], "<html>")

    (item,) = bob.feedback(COURSE, PS1)
    assert item["submission_id"] == middle["submission_id"]
    assert item["timestamp"] == item["submission_timestamp"] == middle["timestamp"]


def test_a_local_time_without_a_zone_is_found_as_the_client_wrote_it(service, released):
    bob = student(service, generation=Generation.V1)
    naive = "2026-11-21 19:00:00.123456 "
    bob.submit(COURSE, PS1, FILES, naive)

    released.release_feedback(COURSE, PS1, "p1", "bob", naive, "<html>")

    assert list(feedback_by_time(bob)) == ["2026-11-21 19:00:00.123456 UTC"]
    assert bob.feedback(COURSE, PS1)[0]["timestamp"] == "2026-11-21 19:00:00.123456 UTC"


def test_what_a_client_says_of_the_time_is_not_its_official_time(bob, released):
    bob.submit(COURSE, PS1, FILES, "1999-01-01 00:00:00.000000 UTC")

    (record,) = released.collections(COURSE, PS1)

    assert record["timestamp"] > "2020"
    assert of_status(bob, "submitted")[0]["timestamp"] == record["timestamp"]


@pytest.mark.parametrize(
    "claim", ["12", "yesterday", "x" * 500, "2026-11-21 10:00:00 +0900", "a\tb"]
)
def test_a_time_that_cannot_be_read_does_not_stop_a_submission(bob, released, claim):
    bob.submit(COURSE, PS1, FILES, claim)

    assert len(released.collections(COURSE, PS1)) == 1


def test_a_claim_that_fits_two_submissions_is_refused_and_stores_nothing(bob, released):
    claim = "2026-11-21 10:00:00.000000 UTC"
    for _ in range(2):
        bob.submit(COURSE, PS1, FILES, claim)

    with pytest.raises(ExchangeError, match="several submissions"):
        released.release_feedback(COURSE, PS1, "p1", "bob", claim, "<html>")

    params = {**PLACE, "notebook": "p1", "student": "bob", "timestamp": claim}
    answer = released.post("feedback", params, files={"feedback": ("feedback.html", "<html>")})
    assert answer.status_code == 409
    assert bob.feedback(COURSE, PS1) == []


def test_an_official_time_is_believed_before_a_claim(bob, released):
    bob.submit(COURSE, PS1, FILES)
    (first,) = released.collections(COURSE, PS1)
    bob.submit(COURSE, PS1, FILES, first["timestamp"])

    released.release_feedback(COURSE, PS1, "p1", "bob", first["timestamp"], "<html>")

    (item,) = bob.feedback(COURSE, PS1)
    assert item["submission_id"] == first["submission_id"]


@pytest.mark.parametrize(
    ("name", "timestamp"), [("bob", "2001-01-01 00:00:00.000000 UTC"), ("nobody", None)]
)
def test_feedback_on_a_submission_that_is_not_there_is_refused(bob, released, name, timestamp):
    claim = bob.submit(COURSE, PS1, FILES)

    with pytest.raises(ExchangeError, match="has no submission"):
        released.release_feedback(COURSE, PS1, "p1", name, timestamp or claim, "<html>")


def test_the_newest_version_of_feedback_replaces_the_one_before(bob, released):
    claim = bob.submit(COURSE, PS1, FILES)
    for html in ("<html>first", "<html>second"):
        released.release_feedback(COURSE, PS1, "p1", "bob", claim, html)

    (item,) = bob.feedback(COURSE, PS1)

    assert item["content"] == "<html>second"


# -- old and new together


def test_an_old_student_and_a_new_instructor(service, released, bob):
    wire = service.wire(service.enrol("ada", {COURSE: "Instructor"}))
    claim = bob.submit(COURSE, PS1, FILES)
    (record,) = wire.get("collections", **PLACE).json()["value"]

    target = {"submission_id": record["submission_id"], "notebook": "p1"}
    answer = wire.post("feedback", b"<html>", upload_headers(b"<html>"), **PLACE, **target)

    assert answer.status_code == 201
    assert [item["timestamp"] for item in bob.feedback(COURSE, PS1)] == [claim]
    assert feedback_by_time(bob) == {claim: ["p1"]}


def test_a_new_student_and_an_old_instructor(service, released):
    wire = service.wire(service.enrol("bob", {COURSE: "Student"}))
    body = new_tar_gz(p1=b"{}")
    receipts = [wire.post("submission", body, upload_headers(body), **PLACE) for _ in range(2)]
    first = receipts[0].json()

    released.release_feedback(COURSE, PS1, "p1", "bob", first["timestamp"], "<html>")

    (item,) = wire.get("feedback", **PLACE).json()["feedback"]
    assert item["submission_id"] == first["submission_id"]
    assert item["submission_timestamp"] == first["timestamp"]


# -- what lies in people's folders


@pytest.mark.parametrize("generation", [Generation.V2, Generation.V1])
def test_a_release_with_a_timestamp_stops_nobody_and_the_clients_own_one_counts(
    service, ada, generation
):
    files = {"timestamp.txt": b"2020-01-01 00:00:00.000000 UTC", **FILES}
    ada.release(COURSE, PS1, files)
    bob = student(service, generation=generation)

    claimed = bob.submit(COURSE, PS1, bob.fetch(COURSE, PS1))

    (record,) = ada.collections(COURSE, PS1)
    assert ada.collect(record)["timestamp.txt"].decode() == claimed
    ada.release_feedback(COURSE, PS1, "p1", "bob", claimed, "<html>")
    assert list(feedback_by_time(bob)) == [bob.feedback(COURSE, PS1)[0]["timestamp"]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def test_a_file_with_two_names_in_a_folder_is_sent_as_two_files(bob, ada, folder):
    (folder / "p3.ipynb").hardlink_to(folder / "p1.ipynb")
    ada.release(COURSE, PS1, folder)

    bob.submit(COURSE, PS1, folder)

    (released,) = of_status(bob, "released")
    assert [notebook["notebook_id"] for notebook in released["notebooks"]] == ["p 2", "p1", "p3"]
    (record,) = ada.collections(COURSE, PS1)
    for files in (bob.fetch(COURSE, PS1), ada.collect(record)):
        assert files.items() >= {**FILES, "p3.ipynb": FILES["p1.ipynb"]}.items()


@pytest.mark.parametrize("target", ["x.csv", "/etc/hostname"], ids=["inside", "outside"])
def test_a_symbolic_link_is_refused_in_words_that_the_client_shows(
    service, bob, released, folder, target
):
    (folder / "data" / "y.csv").symlink_to(target)
    before = stored(service)

    for act in (bob.submit, released.release):
        with pytest.raises(ExchangeError, match=r"link: 'data/y.csv'; .* put a copy of the file"):
            act(COURSE, PS1, folder)
    assert stored(service) == before


# -- releases


def test_a_release_with_five_thousand_notebooks_in_its_form_is_taken(ada, bob):
    names = [f"n{number}" for number in range(5000)]

    ada.release(COURSE, PS1, FILES, names)

    (released,) = of_status(bob, "released")
    assert [notebook["notebook_id"] for notebook in released["notebooks"]] == ["p 2", "p1"]


def test_a_release_again_replaces_the_one_before(bob, released):
    released.release(COURSE, PS1, {"p1.ipynb": b"new"})

    assert bob.fetch(COURSE, PS1) == {"p1.ipynb": b"new"}
    assert len(of_status(bob, "released")) == 1


def test_after_unreleasing_nothing_is_lost_and_a_release_brings_it_back(bob, released):
    claim = bob.submit(COURSE, PS1, FILES)
    released.release_feedback(COURSE, PS1, "p1", "bob", claim, "<html>")

    assert "marked as unreleased" in released.unrelease(COURSE, PS1)
    assert of_status(bob, "released") == []
    with pytest.raises(ExchangeError, match="404"):
        bob.fetch(COURSE, PS1)
    with pytest.raises(ExchangeError, match="not released"):
        bob.submit(COURSE, PS1, FILES)
    with pytest.raises(ExchangeError, match="not released"):
        released.unrelease(COURSE, PS1)
    released.release(COURSE, PS1, FILES)
    assert feedback_by_time(bob) == {claim: ["p1"]}
    assert len(released.collections(COURSE, PS1)) == 1


def test_a_purge_hides_everything_and_erases_nothing_yet(service, bob, released):
    claim = bob.submit(COURSE, PS1, FILES)
    released.release_feedback(COURSE, PS1, "p1", "bob", claim, "<html>")

    assert "purged" in released.unrelease(COURSE, PS1, purge=True)

    assert bob.assignments(COURSE) == []
    assert released.collections(COURSE, PS1) == []
    assert len(service.files()) == 3


# -- the checklist


@pytest.mark.parametrize("path", ["assignment", "collection"])
def test_a_download_has_exactly_the_type_that_clients_compare_with(bob, released, path):
    bob.submit(COURSE, PS1, FILES)
    token = released.collections(COURSE, PS1)[0]["path"]

    answer = released.get(path, {**PLACE, "path": token})

    assert answer.headers["Content-Type"] == "application/gzip"
    assert "Content-Encoding" not in answer.headers
    assert int(answer.headers["Content-Length"]) == len(answer.content)


ARCHIVE = {"assignment": ("assignment.tar.gz", tar_gz(FILES))}
NOWHERE = {"course_id": "chemistry", "assignment_id": "ps1"}
FEEDBACK = {"feedback": ("feedback.html", "<html>")}
TARGET = {"notebook": "p1", "student": "bob", "timestamp": "2026-11-21 10:00:00.000000 UTC"}

REFUSALS = {
    "no parameters to fetch": (400, "GET", "assignment", {}, {}),
    "no parameters to release": (400, "POST", "assignment", {}, {"files": ARCHIVE}),
    "no parameters to unrelease": (400, "DELETE", "assignment", {}, {}),
    "no parameters to submit": (400, "POST", "submission", {}, {"files": ARCHIVE}),
    "no parameters to list submissions": (400, "GET", "collections", {}, {}),
    "no parameters to collect": (400, "GET", "collection", {}, {}),
    "no parameters to give feedback": (400, "POST", "feedback", {}, {"files": FEEDBACK}),
    "no parameters to fetch feedback": (400, "GET", "feedback", {}, {}),
    "another course's list": (404, "GET", "assignments", NOWHERE, {}),
    "another course's assignment": (404, "GET", "assignment", NOWHERE, {}),
    "another course's submissions": (404, "GET", "collections", NOWHERE, {}),
    "a submission to another course": (404, "POST", "submission", NOWHERE, {"files": ARCHIVE}),
    "no such assignment": (404, "GET", "assignment", PLACE | {"assignment_id": "x"}, {}),
    "no such submission": (404, "GET", "collection", PLACE | {"path": "/srv/x.gz"}, {}),
    "a student who releases": (403, "POST", "assignment", PLACE, {"files": ARCHIVE}),
    "a student who unreleases": (403, "DELETE", "assignment", PLACE, {}),
    "a student who gives feedback": (403, "POST", "feedback", PLACE | TARGET, {"files": FEEDBACK}),
    "no file": (400, "POST", "submission", PLACE, {}),
    "another field's name": (400, "POST", "submission", PLACE, {"files": {"file": ("a", b"x")}}),
    "an empty file": (422, "POST", "submission", PLACE, {"files": {"assignment": ("a", b"")}}),
    "no archive": (422, "POST", "submission", PLACE, {"files": {"assignment": ("a", b"hello")}}),
    "no such act in the history": (400, "GET", "history", {"action": "eaten"}, {}),
    "no submissions page": (405, "POST", "collections", PLACE, {}),
    "no such address": (404, "GET", "courses", {}, {}),
}


@pytest.mark.parametrize(
    ("status", "method", "path", "params", "form"), REFUSALS.values(), ids=REFUSALS.keys()
)
def test_a_refusal_is_a_status_and_json_that_old_clients_can_read(
    service, bob, released, status, method, path, params, form
):
    before = stored(service)

    answer = bob.call(method, path, params, **form)

    told = answer.json()
    assert answer.status_code == status
    assert told["success"] is False
    assert told["note"]
    assert told["value"] == []
    with pytest.raises(ExchangeError, match=re.escape(told["note"])):
        bob.said(answer)
    assert stored(service) == before


def stored(service: Service) -> list[Path]:
    """Whole files; what is left of an upload goes a moment after the answer."""
    return [file for file in service.files() if "blobs" in file.parts]


def test_a_token_that_is_not_known_is_refused_in_json(service):
    stranger = LegacyClient(service.url, "unknown")

    with pytest.raises(ExchangeError, match="does not know you"):
        stranger.assignments(COURSE)


def test_a_list_has_all_that_old_clients_read(bob, released):
    bob.fetch(COURSE, PS1)
    bob.submit(COURSE, PS1, FILES)

    for record in bob.assignments(COURSE):
        assert record["status"] in {"released", "fetched", "submitted"}
        assert record["assignment_id"] == PS1
        assert record["course_id"] == COURSE
        assert isinstance(record["student_id"], int)
        assert isinstance(record["path"], str)
        assert NORMAL_TIME.fullmatch(record["timestamp"])
        for notebook in record["notebooks"]:
            known = {"has_exchange_feedback", "feedback_updated", "feedback_timestamp"}
            assert notebook.keys() >= known | {"notebook_id"}


def test_a_list_for_nobody_in_particular_is_that_of_all_courses(bob, released):
    answer = bob.get("assignments", {})

    assert [record["course_id"] for record in answer.json()["value"]] == [COURSE]


def test_collections_have_all_that_old_clients_read_newest_first_for_each_student(
    service, released
):
    carol, bob = student(service, "carol", Generation.V1), student(service, "bob")
    for client in (carol, bob, carol, bob, bob):
        client.submit(COURSE, PS1, FILES)

    records = released.collections(COURSE, PS1)

    for name, count in (("bob", 3), ("carol", 2)):
        times = [record["timestamp"] for record in records if record["student_id"] == name]
        assert len(times) == count
        assert times == sorted(times, reverse=True)
        assert len(released.collections(COURSE, PS1, name)) == count
    for record in records:
        assert {"full_name", "email", "lms_user_id"} <= record.keys()
        assert record["status"] == "submitted"
        assert NORMAL_TIME.fullmatch(record["timestamp"])
    assert released.collections(COURSE, PS1, "nobody") == []
    assert released.collections(COURSE, "unknown") == []


def test_a_path_is_short_and_survives_quoting(bob, released):
    bob.submit(COURSE, PS1, FILES)

    (record,) = released.collections(COURSE, PS1)

    assert re.fullmatch("[0-9a-f]{32}", record["path"])
    assert "p1.ipynb" in released.collect(record)


def test_the_history_has_the_shape_that_old_clients_insist_on(bob, released):
    bob.fetch(COURSE, PS1)
    bob.submit(COURSE, PS1, FILES)

    (course,) = bob.history()

    assert course["course_code"] == COURSE
    assert course["role"] == {"Student": 1}
    assert list(course["user_id"].values()) == [1]
    assert course["isInstructor"] is False
    assert isinstance(course["course_id"], int)
    (assignment,) = course["assignments"]
    assert assignment["assignment_code"] == PS1
    assert assignment["action_summary"] == {"released": 1, "fetched": 1, "submitted": 1}
    assert {action["action"] for action in assignment["actions"]} == {
        "AssignmentActions.released",
        "AssignmentActions.fetched",
        "AssignmentActions.submitted",
    }
    assert {action["user"] for action in assignment["actions"]} == {"ada", "bob"}


@pytest.mark.parametrize("key", ["course_id", "course_code"])
def test_the_history_is_filtered_by_act_and_by_course_under_both_names(bob, released, key):
    bob.submit(COURSE, PS1, FILES)

    (course,) = released.history(action="submitted", **{key: COURSE})

    (assignment,) = course["assignments"]
    assert course["isInstructor"] is True
    assert assignment["action_summary"] == {"submitted": 1}
    assert [action["user"] for action in assignment["actions"]] == ["bob"]


def test_the_home_page_says_the_words_that_probes_look_for(service):
    answer = service.wire(None).get("")

    assert answer.text.startswith("NbExchange ")
