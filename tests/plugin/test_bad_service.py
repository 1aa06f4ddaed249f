"""With any answer or none: one helpful sentence, never a traceback, never a secret."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbexchange.text import is_safe
from tests.plugin.conftest import ran_well
from tests.plugin.middleman import Answer, Middleman, change, cut, drop, hang, running, say
from tests.support.nbgrader import Home, write_notebook
from tests.support.parts import needs

TOKEN = "token-1-alice"


@pytest.fixture
def impatient(alice: Home) -> Home:
    """Alice's machine, without retries and with a folder for every command."""
    alice.configure("c.Exchange.retries = 0")
    write_notebook(alice.work / "mine" / "p1.ipynb")
    write_notebook(alice.work / "release" / "ps1" / "p1.ipynb")
    folder = alice.work / "feedback" / "alice" / "ps1"
    folder.mkdir(parents=True)
    (folder / "p1.html").write_text("<p>")
    (folder / "timestamp.txt").write_text("2026-01-01 00:00:00.000000 UTC")
    return alice


COMMANDS = [
    pytest.param(["list"], id="list"),
    pytest.param(["list", "--inbound"], id="list inbound"),
    pytest.param(["list", "--cached"], id="list cached"),
    pytest.param(["list", "--remove"], id="remove"),
    pytest.param(["release_assignment", "ps1"], id="release"),
    pytest.param(["fetch_assignment", "ps1"], id="fetch"),
    pytest.param(["submit", "mine"], id="submit"),
    pytest.param(["collect", "ps1"], id="collect"),
    pytest.param(["release_feedback", "ps1"], id="release feedback"),
    pytest.param(["fetch_feedback", "ps1"], id="fetch feedback"),
]


def complaint(home: Home, *arguments: str) -> str:
    """The one sentence of a command that fails properly."""
    ran = home.nbgrader(*arguments)
    assert ran.status == 1, ran.output
    assert "Traceback" not in ran.output
    assert TOKEN not in ran.output
    (line,) = [line for line in ran.lines if "CRITICAL" in line]
    assert ran.lines[-1].endswith("failed")
    return line.partition("CRITICAL] ")[2]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_that_the_service_is_down(impatient, command):
    impatient.url = "http://127.0.0.1:9/services/nbexchange"

    assert (
        "The exchange service at http://127.0.0.1:9/services/nbexchange cannot be reached. "
        "Try again in a few minutes. If it happens again, contact your administrator."
    ) in complaint(impatient, *command)


@pytest.fixture
def self_signed(tmp_path: Path) -> Iterator[Middleman]:
    """A server whose certificate no authority has signed."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    options = "-x509 -newkey rsa:2048 -nodes -subj /CN=localhost"
    subprocess.run(
        [needs("openssl"), "req", *options.split(), "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = Middleman("http://127.0.0.1:9")
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    server.url = server.url.replace("http:", "https:")
    with running(server):
        yield server


def test_a_certificate_that_is_not_trusted_is_a_sentence_at_the_first_try(alice, self_signed):
    alice.url = self_signed.url

    assert "is not trusted here" in complaint(alice, "list")
    assert self_signed.connections == 1


BAD = [
    pytest.param(hang, "does not answer in time", id="slow"),
    pytest.param(drop, "closed the connection without an answer", id="hangs up"),
    pytest.param(cut(4), "sent an incomplete answer", id="cut"),
    pytest.param(say(Answer.html()), "a web page, perhaps the login page of a proxy", id="page"),
    pytest.param(
        say(Answer.html(302, Location="/hub/login")), "redirects to another page", id="login page"
    ),
    pytest.param(
        say(Answer(200, {"Content-Type": "application/json"}, b'{"success": tr')),
        "it sends broken JSON",
        id="broken JSON",
    ),
    pytest.param(
        say(Answer(200, {"Content-Type": "application/json"}, b"\xff\xfe\x00")),
        "it sends broken JSON",
        id="no text",
    ),
    pytest.param(say(Answer.json([1, 2])), "'success' is missing", id="a list"),
    pytest.param(say(Answer.json({"success": True})), "'value' is missing", id="no value"),
    pytest.param(
        say(Answer.json({"success": True, "value": {}})), "'value' is not a list", id="no list"
    ),
    pytest.param(say(Answer.html(404)), "it answers 404 with a page of its own", id="404 page"),
    pytest.param(say(Answer.html(500)), "it answers 500 with a page of its own", id="500 page"),
    pytest.param(say(Answer.refusal(503, "Back at noon.")), "Back at noon.", id="503"),
    pytest.param(
        say(Answer.refusal(401, "Who are you?")),
        "Who are you? (The plugin sends NBEXCHANGE_TOKEN",
        id="401",
    ),
]


@pytest.mark.parametrize(("mishap", "words"), BAD)
def test_a_bad_answer_is_a_sentence(impatient, trouble, mishap, words):
    impatient.url = trouble.url
    if mishap is hang:
        impatient.configure("c.Exchange.retries = 0\nc.Exchange.api_timeout = 0.3")
    trouble.always("GET assignments", mishap)

    assert words in complaint(impatient, "list")


@pytest.mark.parametrize(("mishap", "words"), BAD[:5])
def test_a_bad_archive_is_a_sentence(impatient, trouble, released, mishap, words):
    impatient.url = trouble.url
    if mishap is hang:
        impatient.configure("c.Exchange.retries = 0\nc.Exchange.transfer_timeout = 0.3")
    trouble.always("GET assignment", mishap)

    assert words in complaint(impatient, "fetch_assignment", "ps1")
    assert not (impatient.work / "ps1").exists()


RECORD = {
    "status": "released", "course_id": "physics", "assignment_id": "ps1", "notebooks": [],
    "notebook_files": [],
}  # fmt: skip


@pytest.mark.parametrize(
    "record",
    [
        pytest.param({**RECORD, "assignment_id": 7}, id="number for a name"),
        pytest.param({**RECORD, "assignment_id": ""}, id="no name"),
        pytest.param({**RECORD, "assignment_id": "\ud800"}, id="half a character"),
        pytest.param({**RECORD, "notebooks": None}, id="no list"),
        pytest.param({**RECORD, "notebooks": ["p1"]}, id="text for a notebook"),
        pytest.param({**RECORD, "notebook_files": [7]}, id="number for a file"),
        pytest.param({"status": "released"}, id="nothing in it"),
        pytest.param({**RECORD, "status": "submitted"}, id="no submission"),
    ],
)
def test_an_invalid_record_is_an_error_message(impatient, trouble, record):
    impatient.url = trouble.url
    trouble.always("GET assignments", say(Answer.json({"success": True, "value": [record]})))

    assert "is not an exchange service of this version" in complaint(impatient, "list")


HOSTILE = "x\nSubmitted as: physics ps1 2026\r\u2028\x85\x1b[2J\x9b2J\u202e\u2066y"
SUBMISSION = {
    "status": "submitted", "course_id": "physics", "assignment_id": "ps1", "student": "alice",
    "student_id": "alice", "submission_id": 1, "timestamp": "2026-01-01 00:00:00.000000 UTC",
    "path": "x", "sha256": "0" * 64, "size": 1, "notebooks": [],
}  # fmt: skip


def listed(record, **hostile):
    return Answer.json({"success": True, "value": [{**record, **hostile}], "next": None})


@pytest.mark.parametrize(
    ("command", "request_", "answer"),
    [
        pytest.param("submit", "POST submission", Answer.refusal(403, HOSTILE), id="note"),
        pytest.param("submit", "POST submission", Answer.refusal(403, "x" * 10**5), id="long note"),
        pytest.param(
            "list",
            "GET assignments",
            Answer(200, {"Content-Type": "a/\x1b[2J\x9b"}, b""),
            id="type",
        ),
        pytest.param(
            "list", "GET assignments", listed(RECORD, assignment_id=HOSTILE), id="assignment"
        ),
        pytest.param(
            "list --inbound",
            "GET collections",
            listed(SUBMISSION, student_id=HOSTILE),
            id="student",
        ),
        pytest.param(
            "submit", "GET assignments", listed(RECORD, notebook_files=[HOSTILE]), id="notebook"
        ),
    ],
)
def test_no_text_of_a_service_forges_a_line_obeys_a_terminal_or_fills_it(
    impatient, trouble, released, command, request_, answer
):
    write_notebook(impatient.work / "ps1" / "p1.ipynb")
    impatient.url = trouble.url
    trouble.always(request_, say(answer))

    ran = impatient.nbgrader(*command.split(), "ps1")

    lines = ran.output.split("\n")
    assert "Traceback" not in ran.output
    assert [line for line in lines if not is_safe(line.replace("\t", ""))] == []
    assert [line for line in lines if line.startswith("Submitted as")] == []
    assert len(ran.output) < 5_000


def test_keys_and_states_of_a_newer_service_do_no_harm(impatient, trouble, released):
    impatient.url = trouble.url

    def newer(said):
        said["value"][0]["colour"] = "blue"
        said["value"] += [{"status": "invented"}, {"status": "fetched"}]

    trouble.always("GET assignments", change(newer))

    assert "physics ps1" in ran_well(impatient, "list").output


@pytest.mark.parametrize(
    ("url", "words"),
    [
        pytest.param("ftp://example.org/x", "to one like http://host:9000/", id="ftp"),
        pytest.param("nonsense", "to one like http://host:9000/", id="word"),
        pytest.param("http://", "to one like http://host:9000/", id="no host"),
        pytest.param("http://[::1", "to one like http://host:9000/", id="half a bracket"),
        pytest.param("http://127.0.0.1:99999/x", "cannot be used", id="port"),
        pytest.param("http://a b/x", "cannot be", id="space"),
        pytest.param("http://no-such-host.invalid/x", "cannot be reached", id="host"),
        pytest.param("http://mallory:hunter2@127.0.0.1:9/x", "127.0.0.1:9/x cannot", id="password"),
    ],
)
def test_a_bad_address_is_a_sentence_without_passwords(impatient, url, words):
    impatient.url = url

    said = complaint(impatient, "list")

    assert words in said
    assert "hunter2" not in said


@pytest.mark.parametrize("token", ["a\nb", "tök€n", "a\x7fb"], ids=["line", "not ASCII", "control"])
def test_a_token_that_cannot_be_sent_is_not_shown(impatient, token):
    impatient.token = token

    said = complaint(impatient, "list")

    assert "contains characters that cannot be sent" in said
    assert token not in said
    assert repr(token)[1:-1] not in said


def test_no_token_is_a_refusal_that_says_where_tokens_come_from(impatient):
    impatient.token = None

    assert "NBEXCHANGE_TOKEN, else JUPYTERHUB_API_TOKEN" in complaint(impatient, "list")


def test_nothing_secret_is_logged_at_any_level(alice, released):
    for arguments in (["list"], ["fetch_assignment", "ps1"], ["submit", "ps1"]):
        assert TOKEN not in ran_well(alice, *arguments, "--debug").output


def test_the_hubs_token_is_used_where_there_is_no_other(alice, released):
    alice.env = {"JUPYTERHUB_API_TOKEN": alice.token}
    alice.token = None

    assert "physics ps1" in ran_well(alice, "list").output


def test_the_address_may_come_from_the_configuration(alice, released):
    base, path = alice.url.split("/services")
    alice.configure(
        f"c.Exchange.base_service_url = '{base}/'\nc.Exchange.base_path = '/services{path}/'"
    )
    alice.env = {"NBEXCHANGE_URL": ""}

    assert "physics ps1" in ran_well(alice, "list").output


def test_another_way_to_log_in_may_be_configured(alice, released):
    alice.configure(
        "from requests.auth import AuthBase\n"
        "class Other(AuthBase):\n"
        "    def __call__(self, request):\n"
        f"        request.headers['Authorization'] = 'Bearer {TOKEN}'\n"
        "        return request\n"
        "c.Exchange.auth_class = Other"
    )
    alice.token = "useless"

    assert "physics ps1" in ran_well(alice, "list").output


@pytest.mark.parametrize("where", ["__init__(self)", "__call__(self, request)"])
def test_a_way_to_log_in_that_fails_is_a_sentence(impatient, where):
    impatient.configure(
        "from requests.auth import AuthBase\n"
        "class Broken(AuthBase):\n"
        f"    def {where}:\n"
        "        raise KeyError('hunter2')\n"
        "c.Exchange.auth_class = Broken"
    )

    said = complaint(impatient, "list")

    assert "Broken (c.Exchange.auth_class) cannot log in: KeyError" in said
    assert "hunter2" not in said


def test_a_list_is_asked_for_again_in_silence(alice, trouble, released):
    alice.url = trouble.url
    trouble.next(
        "GET assignments", drop, say(Answer.refusal(503, "Later.", **{"Retry-After": "0"}))
    )

    ran = ran_well(alice, "list")

    assert ran.lines == [
        "[ListApp | INFO] Released assignments:",
        "[ListApp | INFO] physics ps1",
    ]
    assert len(trouble.requests("GET assignments")) == 3


def test_a_long_pause_is_not_waited_for_by_a_list(alice, trouble, released):
    """The whole Jupyter server would wait with it."""
    alice.url = trouble.url
    trouble.always(
        "GET assignments", say(Answer.refusal(503, "In an hour.", **{"Retry-After": "3600"}))
    )

    assert complaint(alice, "list") == "In an hour."
    assert len(trouble.requests("GET assignments")) == 1


def test_a_permanent_refusal_is_not_retried(alice, trouble):
    alice.url = trouble.url
    trouble.always("GET assignments", say(Answer.refusal(403, "You may not.")))

    assert complaint(alice, "list") == "You may not."
    assert len(trouble.requests("GET assignments")) == 1


def test_the_connection_is_kept(alice, trouble, released):
    """formgrader asks 22 times for one page."""
    alice.url = trouble.url

    alice.value(
        "[exchange.List(coursedir=coursedir, authenticator=authenticator, config=config)"
        ".start() for _ in range(5)] and None"
    )

    assert len(trouble.requests("GET assignments")) == 5
    assert trouble.connections == 1


def test_a_disk_that_takes_nothing_is_a_sentence(alice, released):
    alice.configure("c.Exchange.assignment_dir = '/proc/nowhere'")

    said = complaint(alice, "fetch_assignment", "ps1")

    assert "/proc/nowhere" in said
