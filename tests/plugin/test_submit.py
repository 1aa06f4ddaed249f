from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re

import pytest
from traitlets.config import Config

from nbexchange import archive
from tests.plugin.conftest import ran_well
from tests.plugin.middleman import Answer, change, cut, drop, lose, say
from tests.support.nbgrader import Home, write_notebook
from tests.support.service import Service

OFFICIAL = re.compile(r"Submitted as: physics ps1 (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} UTC)")


@pytest.fixture
def mine(alice, released):
    """Alice's folder, fetched."""
    ran_well(alice, "fetch_assignment", released)
    return alice.work / "ps1"


def stored(service, teacher, tmp_path):
    """The unchanged archive of alice's last submission, as an instructor gets it."""
    wire = service.wire(teacher.token)
    record = wire.get("collections", course_id="physics", latest="true").json()["value"][0]
    blob = wire.get(
        "collection", course_id="physics", assignment_id="ps1", path=record["path"]
    ).content
    archive.unpack(io.BytesIO(blob), tmp_path / "stored")
    return tmp_path / "stored"


def test_the_official_time_is_printed_and_kept_with_the_receipt(service, teacher, alice, mine):
    (mine / "p1.ipynb").write_text("my work")

    ran = ran_well(alice, "submit", "ps1")

    timestamp = OFFICIAL.search(ran.output)[1]
    copy = alice.cache / "physics" / f"alice+ps1+{timestamp}"
    receipt = json.loads((copy / "submission_receipt.json").read_text())
    record = service.wire(teacher.token).get("collections", course_id="physics").json()["value"][0]
    assert (copy / "timestamp.txt").read_text() == timestamp == record["timestamp"]
    assert (copy / "p1.ipynb").read_text() == "my work"
    assert receipt == {
        "course_id": "physics",
        "assignment_id": "ps1",
        "student": "alice",
        **{key: record[key] for key in ("submission_id", "timestamp", "sha256", "size")},
    }


def test_nothing_is_written_into_the_students_own_folder(alice, mine):
    before = {path: path.stat().st_mtime_ns for path in mine.rglob("*")}

    ran_well(alice, "submit", "ps1")

    assert {path: path.stat().st_mtime_ns for path in mine.rglob("*")} == before


def test_nbgraders_marks_replace_the_students_files_of_these_names(
    service, teacher, alice, mine, tmp_path
):
    (mine / "timestamp.txt").write_text("1970-01-01 00:00:00.000000 UTC")
    (mine / "submission_secret.txt").write_text("guess")
    (mine / "submission_receipt.json").write_text('{"submission_id": 1}')
    (mine / "sub").mkdir()
    (mine / "sub/timestamp.txt").write_text("mine")

    ran_well(alice, "submit", "ps1")

    sent = stored(service, teacher, tmp_path)
    assert re.fullmatch(r"[\d-]{10} [\d:]{8}\.\d{6} UTC", (sent / "timestamp.txt").read_text())
    assert not (sent / "timestamp.txt").read_text().startswith("1970")
    assert re.fullmatch("[0-9a-f]{128}", (sent / "submission_secret.txt").read_text())
    assert not (sent / "submission_receipt.json").exists()
    assert (sent / "sub/timestamp.txt").read_text() == "mine"


def test_a_folder_in_the_place_of_a_mark_does_not_matter(service, teacher, alice, mine, tmp_path):
    (mine / "timestamp.txt").mkdir()
    (mine / "timestamp.txt" / "file").touch()

    ran_well(alice, "submit", "ps1")

    assert (stored(service, teacher, tmp_path) / "timestamp.txt").is_file()


@pytest.mark.parametrize("name", ["ps1/", "./ps1", "../work/ps1"])
def test_the_name_may_be_a_path(alice, mine, name):
    ran = ran_well(alice, "submit", name)

    assert OFFICIAL.search(ran.output)


def test_the_folder_itself_may_be_submitted_from_within(alice, mine):
    ran = alice.nbgrader("submit", ".", cwd=mine)

    assert ran.status == 0, ran.output
    assert OFFICIAL.search(ran.output)


def test_the_folder_of_the_course_is_honoured(alice, mine):
    (alice.work / "physics").mkdir()
    mine.rename(alice.work / "physics/ps1")
    alice.configure("c.Exchange.path_includes_course = True")

    ran = ran_well(alice, "submit", "ps1")

    assert f"Source: {alice.work}/physics/ps1" in ran.output


def test_an_assignment_that_is_not_released_cannot_be_submitted(teacher, alice, mine):
    ran_well(teacher, "list", "--remove", "ps1")

    ran = alice.nbgrader("submit", "ps1")

    assert ran.status == 1
    assert "Assignment not found: " in ran.output
    assert "Submitted" not in ran.output


NOTEBOOKS = "Possible missing notebooks and/or extra notebooks submitted for assignment ps1:"


def test_missing_and_extra_notebooks_are_one_warning(alice, mine):
    (mine / "extra/p3.ipynb").unlink()
    write_notebook(mine / "mine.ipynb")
    write_notebook(mine / ".ipynb_checkpoints" / "p1-checkpoint.ipynb")

    ran = ran_well(alice, "submit", "ps1")

    warning = ran.output.partition("[SubmitApp | WARNING] ")[2].partition("\n[")[0]
    assert warning.splitlines() == [
        NOTEBOOKS,
        "    Expected:",
        "    \textra/p3.ipynb: MISSING",
        "    \tp1.ipynb: FOUND",
        "    \tp2.ipynb: FOUND",
        "    Submitted:",
        "    \tmine.ipynb: EXTRA",
        "    \tp1.ipynb: OK",
        "    \tp2.ipynb: OK",
    ]
    assert OFFICIAL.search(ran.output)


def test_strict_refuses_missing_notebooks_before_anything_is_stored(service, teacher, alice, mine):
    alice.configure("c.ExchangeSubmit.strict = True")
    (mine / "p2.ipynb").unlink()

    ran = alice.nbgrader("submit", "ps1")

    assert ran.status == 1
    assert "Assignment ps1 not submitted. There are missing notebooks" in ran.output
    assert "p2.ipynb: MISSING" in ran.output
    assert service.wire(teacher.token).get("collections", course_id="physics").json()["value"] == []


def test_strictness_does_not_mind_extra_notebooks(alice, mine):
    write_notebook(mine / "mine.ipynb")

    ran = ran_well(alice, "submit", "ps1", "--strict")

    assert NOTEBOOKS in ran.output
    assert OFFICIAL.search(ran.output)


@pytest.mark.parametrize(
    ("student", "words"),
    [
        ("bob", "You cannot submit as bob"),
        ("a+b", "The student ID should contain no '*' nor '+'; got a+b"),
        ("a*", "The student ID should contain no '*' nor '+'; got a*"),
    ],
)
def test_a_student_cannot_submit_as_another(service, teacher, alice, mine, student, words):
    ran = alice.nbgrader("submit", "ps1", f"--student={student}")

    assert ran.status == 1
    assert words in ran.output
    assert service.wire(teacher.token).get("collections", course_id="physics").json()["value"] == []


def test_naming_oneself_is_allowed(alice, mine):
    ran_well(alice, "submit", "ps1")

    ran_well(alice, "submit", "ps1", "--student=alice")


def test_an_invalid_timezone_is_an_error_before_anything_is_sent(alice, mine):
    ran = alice.nbgrader("submit", "ps1", "--timezone=Mars/Olympus")

    assert ran.status == 1
    assert "Invalid timezone: Mars/Olympus" in ran.output


def test_a_timezone_changes_no_timestamp(alice, mine):
    ran = ran_well(alice, "submit", "ps1", "--timezone=Asia/Kathmandu")

    assert OFFICIAL.search(ran.output)


def test_without_a_cache_the_work_is_submitted_all_the_same(alice, mine):
    alice.cache.parent.mkdir(parents=True, exist_ok=True)
    alice.cache.write_text("in the way")

    ran = ran_well(alice, "submit", "ps1")

    assert "WARNING] Your work is submitted, but no copy of it is kept here" in ran.output
    assert OFFICIAL.search(ran.output)


# When the way to the service is bad


@pytest.mark.parametrize(
    "mishap",
    [
        pytest.param(say(Answer.refusal(503, "Later, please.", **{"Retry-After": "0"})), id="503"),
        pytest.param(say(Answer.refusal(429, "Later, please.", **{"Retry-After": "0"})), id="429"),
        pytest.param(say(Answer.html(502)), id="502 of a proxy"),
        pytest.param(drop, id="hung up before"),
        pytest.param(lose, id="hung up after it was stored"),
        pytest.param(cut(10), id="answer cut"),
    ],
)
def test_a_second_try_is_the_same_submission(service, teacher, alice, mine, trouble, mishap):
    alice.url = trouble.url
    trouble.next("POST submission", mishap)

    ran = ran_well(alice, "submit", "ps1")

    assert re.search(r"WARNING\] The request failed; trying again in [01]\.\d seconds", ran.output)
    tries = trouble.requests("POST submission")
    assert len(tries) == 2
    assert len({seen.headers["idempotency-key"] for seen in tries}) == 1
    assert len({seen.body for seen in tries}) == 1
    records = service.wire(teacher.token).get("collections", course_id="physics").json()["value"]
    assert [record["timestamp"] for record in records] == [OFFICIAL.search(ran.output)[1]]


def test_each_submission_has_a_key_of_its_own(alice, mine, trouble):
    alice.url = trouble.url

    ran_well(alice, "submit", "ps1")
    ran_well(alice, "submit", "ps1")

    keys = {seen.headers["idempotency-key"] for seen in trouble.requests("POST submission")}
    assert len(keys) == 2


def test_it_is_sent_with_its_length_and_digest(alice, mine, trouble):
    alice.url = trouble.url

    ran_well(alice, "submit", "ps1")

    (seen,) = trouble.requests("POST submission")
    digest = base64.b64encode(hashlib.sha256(seen.body).digest()).decode()
    assert seen.headers["content-digest"] == f"sha-256=:{digest}:"
    assert seen.headers["content-length"] == str(len(seen.body))
    assert "transfer-encoding" not in seen.headers


def altered(**values):
    return change(lambda said: said | values)


@pytest.mark.parametrize(
    "receipt",
    [
        pytest.param(altered(sha256="0" * 64), id="other bytes"),
        pytest.param(altered(size=1), id="other size"),
        pytest.param(altered(course_id="chemistry"), id="other course"),
        pytest.param(altered(assignment_id="ps2"), id="other assignment"),
        pytest.param(altered(timestamp="today"), id="no time"),
        pytest.param(altered(timestamp="../../2026"), id="a path for a time"),
        pytest.param(altered(success=False), id="no success"),
        pytest.param(change(lambda said: {"success": True}), id="nothing in it"),
        pytest.param(change(lambda said: []), id="a list"),
        pytest.param(say(Answer.html()), id="a page"),
        pytest.param(say(Answer(201, {"Content-Type": "application/json"}, b'{"succ')), id="cut"),
    ],
)
def test_without_a_valid_receipt_submitted_is_not_printed(alice, mine, trouble, receipt):
    alice.url = trouble.url
    trouble.always("POST submission", receipt)

    ran = alice.nbgrader("submit", "ps1")

    assert ran.status == 1
    assert "Submitted" not in ran.output
    assert "[SubmitApp | CRITICAL]" in ran.output
    assert "Traceback" not in ran.output
    assert not alice.cache.exists()


def test_a_name_that_leads_elsewhere_is_not_followed_into_the_cache(alice, mine, trouble):
    alice.url = trouble.url
    trouble.always("POST submission", altered(student="../../../alice"))

    ran = ran_well(alice, "submit", "ps1")

    assert "no copy of it is kept here" in ran.output
    assert not list(alice.home.parent.rglob("*alice+ps1*"))


def test_the_student_reads_the_note_of_the_service(alice, mine, trouble):
    alice.url = trouble.url
    trouble.always("POST submission", say(Answer.refusal(413, "At most 5 MB, please.")))

    ran = alice.nbgrader("submit", "ps1")

    assert ran.lines[-2:] == [
        "[SubmitApp | CRITICAL] At most 5 MB, please.",
        "[SubmitApp | ERROR] nbgrader submit failed",
    ]


def test_the_students_dialog_ends_with_the_reason(alice, mine, trouble):
    """The page shows the whole traceback, so it has to be of this one error alone."""
    alice.url = trouble.url
    trouble.always("POST submission", say(Answer.refusal(413, "At most 5 MB, please.")))

    ran = alice.python(
        "from nbgrader.server_extensions.assignment_list.handlers import AssignmentList\n"
        "import os\n"
        "manager = AssignmentList()\n"
        "manager.root_dir = os.getcwd()\n"
        "print(manager.submit_assignment('physics', 'ps1')['value'])"
    )

    assert ran.output.rstrip().endswith("ExchangeError: At most 5 MB, please.")
    assert "During handling" not in ran.output
    assert "direct cause" not in ran.output


def test_a_large_file_that_the_service_refuses_is_refused_in_its_words(data, zygote, tmp_path):
    """It answers before it has read everything, and then it hangs up."""
    config = Config()
    config.NbExchange.max_buffer_size = 1_000_000
    with Service(data, config) as service:
        teacher = Home(
            tmp_path / "t", service.url, service.enrol("ada", {"physics": "Instructor"}), zygote,
            "physics",
        )  # fmt: skip
        write_notebook(teacher.work / "release/ps1/p1.ipynb")
        (teacher.work / "release/ps1/large.bin").write_bytes(os.urandom(30_000_000))

        ran = teacher.nbgrader("release_assignment", "ps1")

    assert ran.status == 1
    assert "Traceback" not in ran.output
    assert "trying again" not in ran.output
    assert "more than the 1,000,000 bytes" in ran.output
