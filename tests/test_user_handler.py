"""Who a request comes from: the plug, and what it may answer."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from traitlets.config import Config

from nbexchange.app import NbExchange
from nbexchange.errors import MalformedIdentity, Misconfigured, Unavailable
from nbexchange.handlers.auth.token_file import TokenFileUserHandler
from nbexchange.handlers.auth.user_handler import BaseUserHandler
from nbexchange.identity import Role, User
from tests.support.course import release
from tests.support.numbers import Numbers
from tests.support.process import wait_until
from tests.support.service import Service

# Who a request comes from is known before a database or a store is asked.
pytestmark = [pytest.mark.sqlite, pytest.mark.disk]

ADA = {"name": "ada", "course_id": "physics", "course_role": "Instructor"}


class Fixed(BaseUserHandler):
    """Answers the same to everybody; a test sets what."""

    answer: object = None

    def get_current_user(self, request):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Slow(Fixed):
    async def get_current_user(self, request):
        return super().get_current_user(request)


@pytest.fixture
def ask(data):
    """What the service answers somebody whom its user handler knows as `answer`."""

    def ask(answer, plugin=Fixed):
        plugin = type("Plugin", (plugin,), {"answer": answer})
        with Service(data, Config(NbExchange={"user_plugin_class": plugin})) as service:
            return service.wire(None).get("assignments")

    return ask


@pytest.mark.parametrize("plugin", [Fixed, Slow])
def test_a_plain_and_an_async_handler_are_asked_alike(ask, plugin):
    assert ask(ADA, plugin).json() == {"success": True, "value": []}


def test_a_quick_upload_asks_once(data):
    asked = []

    class Counting(Fixed):
        answer = ADA

        def get_current_user(self, request):
            asked.append(request)
            return super().get_current_user(request)

    with Service(data, Config(NbExchange={"user_plugin_class": Counting})) as service:
        answer = release(service.wire(None))

    assert answer.status_code == 201
    assert len(asked) == 1


def test_the_default_handler_lets_nobody_in_and_says_how_to_choose_one(data):
    with Service(data, Config(NbExchange={"user_plugin_class": BaseUserHandler})) as service:
        answer = service.wire("any").get("assignments")

    assert answer.status_code == 401
    assert "user_plugin_class" in answer.json()["note"]


def test_somebody_unknown_is_a_401_that_says_what_to_do(ask):
    answer = ask(None)

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert "token" in answer.json()["note"]


MALFORMED = {
    "not a dict": ["ada"],
    "no name": {"course_id": "physics", "course_role": "Student"},
    "empty name": ADA | {"name": ""},
    "number for a name": ADA | {"name": 7},
    "name with NUL": ADA | {"name": "a\0"},
    "name with a C1 control": ADA | {"name": "a\x9b2J"},
    "name with a line separator": ADA | {"name": "a\u2028b"},
    "name that turns text round": ADA | {"name": "\u202ea"},
    "course id that turns text round": ADA | {"course_id": "physics\u2067"},
    "name with a lone surrogate": ADA | {"name": "a\ud800"},
    "very long name": ADA | {"name": "a" * 201},
    "organisation 0": ADA | {"org_id": 0},
    "no organisation at all": ADA | {"org_id": None},
    "organisation that no column can hold": ADA | {"org_id": 2**31},
    "organisation that is a word": ADA | {"org_id": "one"},
    "organisation that is true": ADA | {"org_id": True},
    "organisation that is a fraction": ADA | {"org_id": 1.5},
    "course without a role": {"name": "ada", "course_id": "physics"},
    "role that is not text": ADA | {"course_role": 1},
    "courses that are a list": {"name": "ada", "courses": ["physics"]},
    "course id that is not text": {"name": "ada", "courses": {7: "Student"}},
    "role in a dict missing": {"name": "ada", "courses": {"physics": {"title": "Physics"}}},
    "e-mail that is a list": ADA | {"email": ["a@b"]},
}


@pytest.mark.parametrize("answer", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_answer_is_a_fault_and_never_a_guess(answer):
    with pytest.raises(MalformedIdentity):
        User.from_answer(answer)


def test_text_that_is_only_shown_is_cleaned_and_keeps_nobody_out():
    user = User.from_answer(
        ADA
        | {"full_name": "\u202eAda\x9b L.\0\ud800", "email": "\u2028", "lms_user_id": "7\n"}
        | {"course_id": "chemistry", "course_title": "Chem\u2066istry\r\nI"}
    )

    assert (user.full_name, user.email, user.lms_user_id) == ("Ada  L.", None, "7")
    assert user.courses["chemistry"].title == "Chemistry  I"


def test_a_malformed_answer_is_logged_for_the_operator_and_hidden_from_the_user(ask, caplog):
    answer = ask(ADA | {"org_id": "s3cret"})

    assert answer.status_code == 500
    assert "Contact your administrator" in answer.json()["note"]
    assert "org_id" in caplog.text
    assert "s3cret" not in caplog.text + answer.text


def test_a_handler_that_raises_is_a_logged_500(ask, caplog):
    answer = ask(KeyError("whatever"))

    assert answer.status_code == 500
    assert answer.json()["success"] is False
    assert "whatever" in caplog.text


def test_a_handler_whose_source_is_away_is_a_503(ask):
    answer = ask(Unavailable("the hub is away"))

    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0


def test_the_field_s_answer_gives_one_course():
    user = User.from_answer(ADA | {"course_title": "Physics I", "org_id": "3"})

    assert user.org_id == 3
    assert user.role_in("physics") is Role.INSTRUCTOR
    assert user.courses["physics"].title == "Physics I"
    assert user.role_in("chemistry") is None


def test_the_largest_organisation_is_the_largest_that_a_column_holds():
    assert User.from_answer(ADA | {"org_id": 2**31 - 1}).org_id == 2147483647


def test_of_a_very_long_text_the_first_1000_characters_are_kept():
    assert User.from_answer(ADA | {"full_name": "x" * 1001}).full_name == "x" * 1000


def test_courses_come_as_roles_or_with_titles_and_win_over_the_default():
    user = User.from_answer(
        ADA | {"courses": {"physics": "Student", "art": {"role": "instructor", "title": "Art"}}}
    )

    assert user.role_in("physics") is Role.STUDENT
    assert user.role_in("art") is Role.INSTRUCTOR
    assert user.courses["art"].title == "Art"


# -- the token file


def test_the_token_file_is_read_again_when_it_changes(service):
    token = service.enrol("bob", {"physics": "Student"})
    bob = service.wire(token)
    assert bob.get("assignments", course_id="physics").ok

    service.expel(token)

    assert bob.get("assignments", course_id="physics").status_code == 401


INVALID: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "line 1, column 1: Expecting value"),
    "half written": (b'{"s3cret": {\n "name": "b', "line 2, column 10: Unterminated string"),
    "half written, with a BOM": (b'\xef\xbb\xbf{"s3cret": {', "line 1, column 13: Expecting"),
    "a quote forgotten": (b'{"s3cret": {},\n x": {}}', "line 2, column 2: Expecting property name"),
    "a list": (b'["s3cret"]', "line 1, column 1: not an object"),
    "Latin-1": (b'{"s3cret":\n {"name": "J\xfcrgen"}}', "line 2, column 13: not text in UTF-8"),
    "brackets without end": (b"[" * 100_000, "values nest too deep"),
    "a number without end": (
        b'{"s3cret": ' + b"1" * 5_000 + b"}",
        "values nest too deep, or a number is too long",
    ),
}
"""And where."""


@pytest.mark.parametrize(("content", "place"), INVALID.values(), ids=INVALID)
def test_while_a_token_file_is_not_valid_its_last_valid_content_counts(
    service, content, place, caplog
):
    bob = service.wire(service.enrol("bob", {"physics": "Student"}, token="s3cret"))
    whole = service.people.read_text()
    assert bob.get("assignments").ok

    service.people.write_bytes(content)

    assert bob.get("assignments").ok
    assert service.wire("other").get("assignments").status_code == 401
    (error,) = (record.message for record in caplog.records if record.levelname == "ERROR")
    assert f"The token file {service.people} is not valid: {place}" in error
    assert "Correct the file." in error
    assert "s3cret" not in caplog.text
    # What is known of chloe is from the corrected file.
    service.people.write_text(whole[:-1] + ', "hers": {"name": "chloe", "courses": {}}}')
    assert service.wire("hers").get("assignments").ok
    assert f"The token file {service.people} is valid again" in caplog.text


def test_a_token_file_that_is_gone_still_counts_until_it_is_back(service, caplog):
    bob = service.student()
    assert bob.get("assignments").ok

    service.people.unlink()

    assert bob.get("assignments").ok
    assert "cannot be read: No such file or directory" in caplog.text
    service.people.write_text("{}")
    assert bob.get("assignments").status_code == 401


FINE = {"success": True, "warnings": []}


def test_readyz_stays_ready_and_reports_a_token_file_that_is_not_valid(service):
    wire = service.wire(None)
    assert wire.get("readyz").json() == FINE
    assert Numbers(service).get("nbexchange_people_outdated") == 0
    whole = service.people.read_text()

    service.people.write_text('{"s3cret": ')

    said = wait_until(lambda: wire.get("readyz").json()["warnings"])
    assert " ".join(said) == (
        "The token file is not valid: line 1, column 12: Expecting value. "
        "Its last valid content stays in use."
    )
    assert wire.get("readyz").status_code == 200
    assert Numbers(service).get("nbexchange_people_outdated") == 1
    service.people.write_text(whole + " ")
    wait_until(lambda: wire.get("readyz").json() == FINE)
    assert Numbers(service).get("nbexchange_people_outdated") == 0


def test_the_log_repeats_from_time_to_time_that_the_token_file_is_not_valid(
    service, caplog, monkeypatch
):
    monkeypatch.setattr("nbexchange.handlers.auth.token_file.REMINDER_SECONDS", 0)
    bob = service.student()
    service.people.write_text("{")

    for _ in range(3):
        bob.get("assignments")

    assert caplog.text.count("is not valid: line 1, column 2") == 3


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_token_file_may_begin_with_a_byte_order_mark(service, encoding):
    people = {"hers": {"name": "zoë", "courses": {"physics": "Student"}}}

    service.people.write_bytes(json.dumps(people, ensure_ascii=False).encode(encoding))

    assert service.wire("hers").get("assignments", course_id="physics").ok


@pytest.mark.parametrize(("content", "place"), INVALID.values(), ids=INVALID)
def test_a_service_does_not_start_with_a_token_file_that_is_not_valid(data, content, place):
    people = data.parent / "staff.json"
    people.write_bytes(content)

    with pytest.raises(Misconfigured) as refused, started_on(data, people):
        pass

    assert f"The token file '{people}' is not valid: {place}" in str(refused.value)
    assert "Correct it" in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_a_service_does_not_start_without_its_token_file(data):
    people = data.parent / "nowhere.json"

    with pytest.raises(Misconfigured) as refused, started_on(data, people):
        pass

    assert f"'{people}' cannot be read: No such file or directory" in str(refused.value)


def started_on(data, people):
    return Service(data, Config(TokenFileUserHandler={"path": str(people)}))


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic dG9rZW4=", "token-1-bob", "Bearer token-1-bo", "Bearer ÿ"],
)
def test_no_or_a_wrong_token_is_a_401(service, header):
    service.student()
    wire = service.wire(None)
    wire.session.headers["Authorization"] = header.encode("latin-1")

    answer = wire.get("assignments")

    assert answer.status_code == 401
    assert answer.json()["value"] == []


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "token"])
def test_the_schemes_of_http_and_of_the_hub_are_known(service, scheme):
    service.student()
    wire = service.wire(None)
    wire.session.headers["Authorization"] = f"{scheme} token-1-bob"

    assert wire.get("assignments").ok


def test_a_token_in_the_query_or_a_cookie_counts_for_nothing(service):
    service.student()
    wire = service.wire(None)
    wire.session.cookies.set("token", "token-1-bob")

    assert wire.get("assignments", token="token-1-bob").status_code == 401


# -- choosing one

CONFIG_WITH_A_CLASS = """
from nbexchange.handlers.auth.user_handler import BaseUserHandler

class Ours(BaseUserHandler):
    def get_current_user(self, request):
        return {"name": "ada", "course_id": "physics", "course_role": "Instructor"}

c.NbExchange.user_plugin_class = Ours
c.NbExchange.base_url = "/here"
c.NbExchange.port = 1234
"""

CONFIG_WITH_A_NAME = """
c.NbExchange.user_plugin_class = "nbexchange.handlers.auth.token_file.TokenFileUserHandler"
c.TokenFileUserHandler.path = "/people.json"
"""


def configured(tmp_path: Path, text: str, *more: str) -> NbExchange:
    file = tmp_path / "nbexchange_config.py"
    file.write_text(text)
    app = NbExchange()
    app.initialize([f"--NbExchange.config_file={file}", *more])
    return app


def test_a_class_defined_in_the_configuration_file_works(tmp_path):
    app = configured(tmp_path, CONFIG_WITH_A_CLASS)

    assert app.make_user_handler().get_current_user(None)["name"] == "ada"
    assert app.base_url == "/here/"


def test_the_command_line_wins_over_the_configuration_file(tmp_path):
    assert configured(tmp_path, CONFIG_WITH_A_CLASS).port == 1234
    assert configured(tmp_path, CONFIG_WITH_A_CLASS, "--port=4321").port == 4321


def test_a_configurable_handler_gets_the_application_as_its_parent(tmp_path):
    app = configured(tmp_path, CONFIG_WITH_A_NAME)

    handler = app.make_user_handler()

    assert isinstance(handler, TokenFileUserHandler)
    assert handler.path == "/people.json"
    assert handler.parent is app


def test_an_absent_configuration_file_is_fine_only_where_it_is_the_default(tmp_path):
    NbExchange().initialize([])

    with pytest.raises(Misconfigured, match=r"nowhere\.py"):
        NbExchange().initialize([f"--NbExchange.config_file={tmp_path}/nowhere.py"])


def test_the_defaults_keep_data(tmp_path, monkeypatch):
    monkeypatch.delenv("NBEXCHANGE_DATA", raising=False)
    monkeypatch.delenv("NBEX_DB_URL", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))

    app = NbExchange()

    assert app.base_storage_location == str(tmp_path / "nbexchange")
    assert app.db_url == f"sqlite:///{tmp_path}/nbexchange/nbexchange.sqlite"
    assert app.base_url == "/services/nbexchange/"
    assert app.port == 9000
    assert app.max_buffer_size == 5253530000


@pytest.mark.sqlite
def test_everything_lies_in_the_data_directory_readable_by_the_service_alone(tmp_path):
    data = tmp_path / "data"
    with Service(data) as service:
        service.instructor().post(
            "feedback", b"x", course_id="physics", assignment_id="a", notebook="n"
        )

    assert sorted(os.listdir(data)) == ["blobs", "nbexchange.sqlite", "uploads"]
    assert data.stat().st_mode & 0o077 == 0
    assert json.loads(service.people.read_text())
