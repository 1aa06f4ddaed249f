"""A real JupyterHub says who people are and what they may, to a service that it does not start
and to one that it starts."""

from __future__ import annotations

import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from tests.hub.exchange import Clock, exchange
from tests.support.archives import tar_gz, upload_headers
from tests.support.course import WORK, receipt, release, rows, submissions, submit
from tests.support.hub import LIGHT, Hub
from tests.support.organisations import NO_NUMBERS, NUMBERS
from tests.support.parts import PATIENCE, free_port
from tests.support.process import PROGRAM, wait_until
from tests.support.service import Service, Wire

ACCESS = "access:services!service=nbexchange"
READER = "t0ken-that-may-read-groups"
GRADER = "t0ken-of-a-grader"
STRANGER = "t0ken-of-a-stranger"
POWERLESS = "t0ken-without-a-role"
OTHER = "t0ken-of-another-service"
OTHER_PAGE = "http://127.0.0.1:1/oauth_callback"

CONFIG = """
c.Spawner.server_token_scopes = ["users:activity!user", "access:servers!server", {access!r}]
c.JupyterHub.services = [
    {{
        "name": "nbexchange",
        "url": "http://127.0.0.1:{port}",
        "command": {command!r},
        "api_token": {reader!r},
    }},
    {{"name": "grader-of-physics", "api_token": {grader!r}}},
    {{"name": "stranger", "api_token": {stranger!r}}},
    {{"name": "powerless", "api_token": {powerless!r}}},
    {{
        "name": "other",
        "api_token": {other!r},
        "oauth_redirect_uri": {other_page!r},
        "oauth_no_confirm": True,
    }},
]
c.JupyterHub.load_roles = [
    {{
        "name": "user",
        "scopes": ["self", {access!r}, {access!r} + "-too", "access:services!service=other"],
    }},
    {{"name": "readers", "services": ["nbexchange"], "scopes": ["read:groups"]}},
    {{"name": "graders", "services": ["grader-of-physics", "stranger"], "scopes": [{access!r}]}},
    {{"name": "everywhere", "users": ["roamer"], "scopes": ["access:services"]}},
    {{"name": "guests", "users": ["guest"], "scopes": ["access:servers!user=host"]}},
]
c.JupyterHub.services.append({{"name": "nbexchange-too"}})
c.Authenticator.admin_users = {{"root"}}

def tell(authenticator, handler, auth_model):
    if auth_model["name"] == "mia":
        known = {{"full_name": "Mia M.", "email": "mia@example.org", "lms_user_id": 17}}
        auth_model["user_info"] = known
    return auth_model

c.Authenticator.post_auth_hook = tell
"""

CONFIG_ALONE = f"""
c.JupyterHub.services = [{{"name": "nbexchange"}}]
c.JupyterHub.load_roles = [{{"name": "user", "scopes": ["self", {ACCESS!r}]}}]
"""

OPTIONS = """\
from nbexchange.handlers.auth.jupyterhub import JupyterHubUserHandler

c.NbExchange.user_plugin_class = JupyterHubUserHandler
c.NbExchange.base_storage_location = {data!r}
c.JupyterHubUserHandler.hub_timeout = 30
"""


VERSIONS = ["6 below /jupyter/", pytest.param("5", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=VERSIONS)
def hub(request, tmp_path_factory, empty_database) -> Iterator[Hub]:
    """All users may use the exchange; each test has its own people."""
    version, _, base_url = request.param.partition(" below ")
    folder = tmp_path_factory.mktemp("hub")
    data = folder / "data"
    data.mkdir()
    shutil.copy(empty_database, data)  # hub 5 gives a service ten seconds to start
    options = folder / "nbexchange_config.py"
    options.write_text(OPTIONS.format(data=str(data)))
    config = CONFIG.format(
        access=ACCESS,
        port=free_port(),
        command=[*PROGRAM, f"--config-file={options}"],
        reader=READER,
        grader=GRADER,
        stranger=STRANGER,
        powerless=POWERLESS,
        other=OTHER,
        other_page=OTHER_PAGE,
    )
    with Hub(folder, config + LIGHT, version=int(version), base_url=base_url) as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(hub: Hub, data: Path, clock: Clock) -> Iterator[Service]:
    """A service that runs on its own and has no token of its own."""
    with exchange(data, clock, api_url=hub.api_url) as running:
        yield running


@pytest.fixture
def reader(hub: Hub, data: Path, clock: Clock) -> Iterator[Service]:
    """A service that runs on its own and may read the properties of groups."""
    with exchange(data, clock, api_url=hub.api_url, api_token=READER) as running:
        yield running


def member(hub: Hub, service: Service, name: str, *groups: str) -> Wire:
    hub.add_user(name, *groups)
    return service.wire(hub.token(name, [ACCESS]))


def listed(wire: Wire, course_id: str = "physics") -> int:
    """The status of a user's request for a course."""
    return wire.get("assignments", course_id=course_id).status_code


# -- roles


def test_groups_are_the_roles_in_all_courses_of_a_person(hub, service):
    ada = member(hub, service, "ada", "formgrade-physics", "nbgrader-chemistry", "choir")

    assert release(ada).status_code == 201
    assert listed(ada, "chemistry") == 200
    refused = ada.post("assignment", tar_gz(p1=b"1"), course_id="chemistry", assignment_id="ps1")
    assert refused.status_code == 403
    assert listed(ada, "choir") == 404


def test_a_user_in_both_groups_of_a_course_is_its_instructor(hub, service):
    tom = member(hub, service, "tom", "nbgrader-physics", "formgrade-physics")

    assert release(tom).status_code == 201


def test_a_course_id_may_hold_hyphens_and_letters_of_any_alphabet(hub, service):
    zoe = member(hub, service, "zoe", "nbgrader-год-1-b")

    assert listed(zoe, "год-1-b") == 200


def test_a_group_that_names_no_usable_course_is_left_out_and_logged_once(hub, service, caplog):
    long = "nbgrader-" + "x" * 201
    ida = member(hub, service, "ida", "nbgrader-physics", "formgrade-", long)

    assert listed(ida) == listed(ida) == 200
    assert caplog.text.count("'formgrade-' names no usable course id") == 1


def test_an_administrator_of_the_hub_has_no_special_rights(hub, service):
    root = member(hub, service, "root")

    assert hub.do("GET", "/users/root")["admin"]
    assert listed(root) == 404


def test_the_token_that_the_hub_gives_to_a_server_will_do(hub, service):
    hub.add_user("sue", "nbgrader-physics")
    hub.spawn("sue")

    assert listed(service.wire(hub.server_token("sue"))) == 200
    assert listed(service.wire(hub.token("sue"))) == 200
    hub.stop_server("sue")


def test_the_scope_for_all_services_will_do(hub, service):
    hub.add_user("roamer", "nbgrader-physics")

    assert listed(service.wire(hub.token("roamer", ["access:services"]))) == 200


# -- tokens that are refused


def expired(hub: Hub, name: str) -> str:
    token = hub.token(name, [ACCESS], expires_in=1)
    wait_until(lambda: hub.api("GET", "/user", token=token).status_code == 403, "the end of it")
    return token


def revoked(hub: Hub, name: str) -> str:
    token = hub.token(name, [ACCESS])
    token_id = hub.do("GET", "/user", token=token)["token_id"]
    hub.do("DELETE", f"/users/{name}/tokens/{token_id}")
    return token


def of_a_removed_user(hub: Hub, name: str) -> str:
    token = hub.token(name, [ACCESS])
    hub.do("DELETE", f"/users/{name}")
    return token


def of_nobody(hub: Hub, name: str) -> str:
    return secrets.token_hex(16)


@pytest.mark.parametrize("made", [expired, revoked, of_a_removed_user, of_nobody])
def test_a_token_that_the_hub_does_not_know_is_a_401_that_says_what_to_do(hub, service, made):
    hub.add_user("eve", "formgrade-physics")
    answer = service.wire(made(hub, "eve")).get("assignments")

    assert answer.status_code == 401
    assert "stopping and starting your server" in answer.json()["note"]


def visited(hub: Hub, name: str, client: str, secret: str, page: str) -> str:
    """The token that a service or another user's server holds after this user visited it."""
    oauth = f"{hub.url}/hub/api/oauth2"
    asked = {"client_id": client, "redirect_uri": page, "response_type": "code", "state": "any"}
    with hub.browser(name) as session:
        answer = session.get(
            f"{oauth}/authorize", params=asked, allow_redirects=False, timeout=PATIENCE
        )
        if answer.status_code == 200:  # "Authorize access"
            fields = re.findall(r'name="(_xsrf|scopes)" value="([^"]+)"', answer.text)
            answer = session.post(answer.url, data=fields, allow_redirects=False, timeout=PATIENCE)
        assert answer.status_code == 302, answer.text
    fields = {
        "client_id": client,
        "client_secret": secret,
        "grant_type": "authorization_code",
        "code": parse_qs(urlsplit(answer.headers["Location"]).query)["code"][0],
        "redirect_uri": page,
    }
    return requests.post(f"{oauth}/token", data=fields, timeout=PATIENCE).json()["access_token"]


def of_another_service(hub: Hub, name: str) -> str:
    return visited(hub, name, "service-other", OTHER, OTHER_PAGE)


def of_somebodys_server(hub: Hub, name: str) -> str:
    hub.spawn("host")  # its tokens end with it
    given = hub.environment("host")
    page = given["JUPYTERHUB_OAUTH_CALLBACK_URL"]
    return visited(hub, name, given["JUPYTERHUB_CLIENT_ID"], given["JUPYTERHUB_API_TOKEN"], page)


def with_scopes(*scopes: str) -> Callable[[Hub, str], str]:
    return lambda hub, name: hub.token(name, list(scopes))


WITHOUT_THE_SCOPE = {
    "of another service that the person visited": of_another_service,
    "of the server of another user whom the person visited": of_somebodys_server,
    "with no more than the name": with_scopes("read:users:name!user"),
    "for all but services": with_scopes("self"),
    "for a service with a longer name": with_scopes(f"{ACCESS}-too"),
}


@pytest.mark.parametrize("made", WITHOUT_THE_SCOPE.values(), ids=WITHOUT_THE_SCOPE)
def test_a_token_without_the_scope_is_a_403_that_names_it(hub, service, made):
    hub.add_user("guest", "formgrade-physics")
    token = made(hub, "guest")
    answer = service.wire(token).get("assignments")

    assert hub.do("GET", "/user", token=token)["groups"] == ["formgrade-physics"]
    assert answer.status_code == 403
    assert ACCESS in answer.json()["note"]
    assert "restart your server" in answer.json()["note"]


def test_no_token_is_a_401(service):
    assert service.wire(None).get("assignments").status_code == 401


# -- services of the hub


def test_a_service_that_has_courses_here_is_let_in_as_somebody_no_user_can_be(hub, data, clock):
    courses = {"grader-of-physics": {"physics": "Instructor"}}
    with exchange(data, clock, api_url=hub.api_url, api_token=READER, services=courses) as service:
        said = release(service.wire(GRADER))
        submitted = submit(service.wire(GRADER))
        names = {row["name"] for row in rows(service, "user")}

    assert said.status_code == 201
    assert names == {"services/grader-of-physics"}
    assert submitted.status_code == 400
    assert "services/grader-of-physics" in submitted.json()["note"]


def test_a_service_without_courses_here_is_a_403_that_says_where_to_name_them(hub, service):
    answer = service.wire(STRANGER).get("assignments")

    assert answer.status_code == 403
    assert "c.JupyterHubUserHandler.services" in answer.json()["note"]


def test_a_service_without_the_scope_is_refused_whatever_its_courses(hub, data, clock):
    courses = {"powerless": {"physics": "Instructor"}}
    with exchange(data, clock, api_url=hub.api_url, services=courses) as service:
        answer = service.wire(POWERLESS).get("assignments")

    assert answer.status_code == 403
    assert ACCESS in answer.json()["note"]


# -- what is no longer true


def test_a_user_removed_from_a_group_cannot_write_at_once(hub, service):
    una = member(hub, service, "una", "formgrade-physics")
    assert release(una).status_code == 201
    hub.remove_from("formgrade-physics", "una")

    assert submit(una).status_code == 404
    assert listed(una) == 404  # what the write has learned holds for reads


def test_a_user_removed_from_a_group_cannot_read_after_30_seconds(hub, service, clock):
    uri = member(hub, service, "uri", "nbgrader-physics")
    assert listed(uri) == 200
    hub.remove_from("nbgrader-physics", "uri")

    clock.forward(29.9)
    assert listed(uri) == 200
    clock.forward(0.1)
    assert listed(uri) == 404


def test_a_user_added_to_a_group_can_write_at_once(hub, service):
    kim = member(hub, service, "kim")
    assert listed(kim) == 404
    hub.add_user("kim", "formgrade-physics")

    assert release(kim).status_code == 201
    assert listed(kim) == 200


def test_a_removed_user_can_write_no_more_at_once_and_read_no_more_then(hub, service):
    gil = member(hub, service, "gil", "formgrade-physics")
    assert release(gil).status_code == 201
    hub.do("DELETE", "/users/gil")

    assert submit(gil).status_code == 401
    assert listed(gil) == 401


def test_a_course_whose_group_vanished_is_gone(hub, reader, clock):
    lea = member(hub, reader, "lea", "nbgrader-short", "nbgrader-physics")
    later = reader.wire(hub.token("lea", [ACCESS]))
    assert listed(lea, "short") == 200
    clock.forward(20)
    assert listed(later, "short") == 200
    hub.do("DELETE", "/groups/nbgrader-short")

    clock.forward(10)  # the person is known still, the group is not
    assert listed(later, "short") == 404
    assert listed(later) == 200


# -- what is known of a person and of a course


def test_name_e_mail_and_id_of_the_learning_platform_come_from_user_info(hub, service):
    mia = member(hub, service, "mia", "formgrade-physics")
    hub.browser("mia").close()
    release(mia)
    receipt(submit(mia))

    [found] = submissions(mia)
    said = found["full_name"], found["email"], found["lms_user_id"]
    assert said == (("Mia M.", "mia@example.org", "17") if hub.version == 6 else (None, None, None))


def properties(hub: Hub, course_id: str, **said: object) -> None:
    for group in (f"formgrade-{course_id}", f"nbgrader-{course_id}"):
        hub.add_user("nobody", group)
        hub.do("PUT", f"/groups/{group}/properties", said)


def test_title_and_organisation_come_from_the_properties_of_the_group(hub, reader):
    properties(hub, "optics", title="Optics {2}", org_id=2)
    new = {"course_id": "optics", "assignment_id": "ps1"}
    amy = member(hub, reader, "amy", "formgrade-optics")
    assert amy.post("assignment", WORK, upload_headers(WORK), **new).status_code == 201

    [course] = rows(reader, "course")
    assert (course["course_id"], course["title"], course["org_id"]) == ("optics", "Optics {2}", 2)


def test_a_group_without_properties_is_in_the_default_organisation(hub, data, clock):
    options = {"api_url": hub.api_url, "api_token": READER, "org_id": 7}
    with exchange(data, clock, **options) as service:
        release(member(hub, service, "ada", "formgrade-physics"))

        [course] = rows(service, "course")
        assert (course["title"], course["org_id"]) == (None, 7)


def test_a_user_in_two_organisations_is_refused_with_an_explanation(hub, reader):
    properties(hub, "latin", org_id="3")
    two = member(hub, reader, "two", "nbgrader-latin", "formgrade-physics")
    answer = two.get("assignments")

    assert answer.status_code == 403
    assert "physics in 1, latin in 3" in answer.json()["note"]


def test_a_course_whose_organisation_is_not_a_number_is_left_out(hub, reader, caplog):
    courses = [f"riddle{number}" for number in range(len(NO_NUMBERS))]
    for course_id, said in zip(courses, NO_NUMBERS, strict=True):
        properties(hub, course_id, org_id=said)
    groups = [f"nbgrader-{course_id}" for course_id in courses]
    joe = member(hub, reader, "joe", "nbgrader-physics", *groups)

    assert {course_id: listed(joe, course_id) for course_id in courses} == dict.fromkeys(
        courses, 404
    )
    assert listed(joe) == 200
    assert "'riddle0' is left out" in caplog.text


@pytest.mark.parametrize("said", NUMBERS, ids=repr)
def test_an_organisation_is_a_number_or_its_digits(hub, reader, said):
    course_id = f"of-{said!r}".replace("'", "q")
    properties(hub, course_id, org_id=said)
    teacher = member(hub, reader, f"teacher-{course_id}", f"formgrade-{course_id}")
    new = {"course_id": course_id, "assignment_id": "ps1"}
    assert teacher.post("assignment", WORK, upload_headers(WORK), **new).status_code == 201

    assert [
        course["org_id"] for course in rows(reader, "course") if course["course_id"] == course_id
    ] == [NUMBERS[said]]


def test_without_the_right_to_read_groups_it_works_and_says_so_once(hub, data, clock, caplog):
    properties(hub, "greek", title="Greek", org_id=4)
    with exchange(data, clock, api_url=hub.api_url, api_token=POWERLESS) as service:
        ben = member(hub, service, "ben", "nbgrader-greek")
        assert listed(ben, "greek") == 200
        clock.forward(60)
        assert listed(ben, "greek") == 200

    assert caplog.text.count("a role with the scope read:groups") == 1


# -- a hub in trouble


@pytest.mark.slow
def test_a_hub_that_says_nothing_is_a_503_but_for_what_was_just_read(hub, data, clock, caplog):
    with exchange(data, clock, api_url=hub.api_url, api_token=READER, hub_timeout=2) as service:
        ned = member(hub, service, "ned", "formgrade-physics")
        wait_until(lambda: listed(ned) == 200)
        hub.freeze()
        try:
            assert listed(ned) == 200
            refused = release(ned)
            assert refused.status_code == 503
            assert int(refused.headers["Retry-After"]) > 0
            assert "try again soon" in refused.json()["note"]
            assert listed(ned) == 200
            clock.forward(30)
            assert listed(ned) == 503
        finally:
            hub.thaw()
        wait_until(lambda: hub.api("GET", "/").ok, "the hub")

        wait_until(lambda: release(ned).status_code == 201)
    assert hub.api_url in caplog.text


# -- a service that the hub starts


def test_a_service_that_the_hub_starts_is_ready_behind_the_proxy_and_directly(hub):
    url = hub.wait_for_service("nbexchange")
    hub.add_user("max", "formgrade-managed", "nbgrader-managed")
    properties(hub, "managed", title="By the hub")
    port = hub.do("GET", "/services/nbexchange")["url"].rpartition(":")[2]
    directly = f"http://127.0.0.1:{port}{urlsplit(url).path}"
    asked = {"course_id": "managed", "assignment_id": secrets.token_hex(4)}
    wires = [Wire(address, hub.token("max", [ACCESS])) for address in (url, directly)]

    assert wires[0].post("assignment", WORK, upload_headers(WORK), **asked).status_code == 201
    for wire in wires:
        assert wire.get("assignment", **asked).content == WORK
        assert "By the hub" in wire.get("history").text


@pytest.mark.parametrize("token", [None, "0123"])
def test_behind_the_proxy_a_refusal_is_json_and_never_a_redirect(hub, token):
    wire = Wire(hub.wait_for_service("nbexchange"), token)
    answer = wire.request("GET", "assignments", allow_redirects=False)

    assert answer.status_code == 401
    assert answer.json()["success"] is False


# -- from one start of the hub to the next


@pytest.mark.slow
def test_a_hub_that_is_down_is_a_503_until_it_is_back(tmp_path, data, clock):
    with (
        Hub(tmp_path / "hub", CONFIG_ALONE) as hub,
        exchange(data, clock, api_url=hub.api_url) as service,
    ):
        liv = member(hub, service, "liv", "formgrade-physics")
        assert release(liv).status_code == 201
        hub.stop()
        start = time.monotonic()
        assert submit(liv).status_code == 503
        assert time.monotonic() - start < 20
        clock.forward(30)
        assert listed(liv) == 503
        hub.start()

        assert submit(liv).status_code == 201
        assert listed(liv) == 200
