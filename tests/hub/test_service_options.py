"""The service's options, the hub's environment variables, and the values that it refuses."""

from __future__ import annotations

import subprocess
import sys

import pytest
from traitlets.config import Config

from nbexchange.app import NbExchange
from nbexchange.errors import Misconfigured
from nbexchange.handlers.auth.jupyterhub import JupyterHubUserHandler
from tests.support.process import run_program

NAME = "JUPYTERHUB_SERVICE_NAME"
SCOPES = "JUPYTERHUB_OAUTH_ACCESS_SCOPES"
API = "JUPYTERHUB_API_URL"
HUB = "http://127.0.0.1:8081/hub/api"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Where the tests themselves run in a hub's notebook, theirs is none of a service."""
    for name in (NAME, SCOPES, API, "JUPYTERHUB_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def handler(**options):
    return JupyterHubUserHandler(config=Config(JupyterHubUserHandler=options))


# -- which tokens are meant for it


def test_the_hubs_environment_is_all_that_a_service_of_the_hub_needs(environment):
    environment.setenv(API, HUB)
    environment.setenv(NAME, "nbexchange")
    environment.setenv("JUPYTERHUB_API_TOKEN", "0f-the-service")

    made = handler()
    assert (made.api_url, made.api_token) == (HUB, "0f-the-service")
    assert made.access_scopes == ["access:services", "access:services!service=nbexchange"]


def test_the_hubs_own_list_of_scopes_comes_before_the_name(environment):
    environment.setenv(NAME, "nbexchange")
    environment.setenv(SCOPES, '["access:services!service=other"]')

    assert handler(api_url=HUB).access_scopes == ["access:services!service=other"]


def test_options_come_before_the_environment(environment):
    environment.setenv(NAME, "nbexchange")
    environment.setenv(SCOPES, '["access:services!service=nbexchange"]')

    assert handler(api_url=HUB, access_scopes=["access:services"]).access_scopes == [
        "access:services"
    ]


OPEN = {
    "nothing": {},
    "an empty name": {NAME: ""},
    "an empty list": {SCOPES: "[]"},
    "an empty list and an empty name": {NAME: "", SCOPES: "[]"},
}


@pytest.mark.parametrize("given", OPEN.values(), ids=OPEN)
def test_without_a_scope_to_check_it_does_not_start(environment, given):
    for name, value in given.items():
        environment.setenv(name, value)

    with pytest.raises(Misconfigured, match=NAME):
        handler(api_url=HUB)


def test_a_service_that_would_let_all_users_in_ends_with_one_line(tmp_path):
    plugin = "nbexchange.handlers.auth.jupyterhub.JupyterHubUserHandler"
    done = run_program(
        f"--user-plugin-class={plugin}",
        "--port=0",
        f"--base-storage-location={tmp_path}",
        **{API: HUB, NAME: "", SCOPES: "[]"},
    )

    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("nbexchange: JupyterHubUserHandler cannot tell which tokens")
    assert "Traceback" not in done.stderr


NOT_USABLE = {
    "no address": {"api_url": ""},
    "an address without a scheme": {"api_url": "hub:8081/hub/api"},
    "half an address": {"api_url": "http://[::1"},
    "an address with a password": {"api_url": "http://ada:s3cret@hub/hub/api"},
    "a scope that all users have": {"access_scopes": ["read:users:name!user"]},
    "a scope for servers": {"access_scopes": ["access:servers"]},
    "a scope that begins like one": {"access_scopes": ["access:services-too"]},
    "an empty filter": {"access_scopes": ["access:services!service="]},
    "one good scope and one bad": {"access_scopes": ["access:services", ""]},
    "courses that are a list": {"services": {"grader": ["physics"]}},
    "a role that is none": {"services": {"grader": {"physics": "Teacher"}}},
    "a course without a name": {"services": {"grader": {"": "Instructor"}}},
    "a longer cache": {"cache_seconds": 31},
    "organisation 0": {"org_id": 0},
    "a token that is not text": {"api_token": 5318008},
}


@pytest.mark.parametrize("options", NOT_USABLE.values(), ids=NOT_USABLE)
def test_an_invalid_option_is_refused_at_the_start_and_quotes_no_secret(options):
    usual = {"api_url": HUB, "service_name": "nbexchange"}
    app = NbExchange(
        config=Config(
            NbExchange={"user_plugin_class": JupyterHubUserHandler},
            JupyterHubUserHandler=usual | options,
        )
    )

    with pytest.raises(Misconfigured) as refused:
        app.make_user_handler()
    assert "s3cret" not in str(refused.value)
    assert "5318008" not in str(refused.value)


@pytest.mark.parametrize("said", ["access:services", "{", "[1]", "{}"])
def test_an_invalid_list_of_scopes_is_refused(environment, said):
    environment.setenv(NAME, "nbexchange")
    environment.setenv(SCOPES, said)

    with pytest.raises(Misconfigured, match=SCOPES):
        handler(api_url=HUB)


# -- where it listens


def test_a_service_of_the_hub_listens_where_the_hub_expects_it(environment):
    environment.setenv(NAME, "nbexchange")
    environment.setenv("JUPYTERHUB_SERVICE_PREFIX", "/jupyter/services/nbexchange/")
    environment.setenv("JUPYTERHUB_SERVICE_URL", "http://127.0.0.2:9123")

    app = NbExchange()
    assert (app.base_url, app.ip, app.port) == (
        "/jupyter/services/nbexchange/",
        "127.0.0.2",
        9123,
    )
    assert NbExchange(config=Config(NbExchange={"port": 1})).port == 1


def test_in_somebodys_notebook_the_place_of_their_server_is_left_to_it(environment):
    environment.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ada/")
    environment.setenv("JUPYTERHUB_SERVICE_URL", "http://127.0.0.2:9123/user/ada/")

    app = NbExchange()
    assert (app.base_url, app.ip, app.port) == ("/services/nbexchange/", "0.0.0.0", 9000)


def test_a_service_without_an_address_in_the_hub_listens_as_usual(environment):
    environment.setenv(NAME, "nbexchange")

    app = NbExchange()
    assert (app.base_url, app.ip, app.port) == ("/services/nbexchange/", "0.0.0.0", 9000)


@pytest.mark.parametrize("url", ["http://127.0.0.1:x", "http://[::1", "http://127.0.0.1:99999"])
def test_an_invalid_address_is_refused(environment, url):
    environment.setenv(NAME, "nbexchange")
    environment.setenv("JUPYTERHUB_SERVICE_URL", url)

    with pytest.raises(Misconfigured, match="JUPYTERHUB_SERVICE_URL"):
        _ = NbExchange().port


# -- what it needs


def test_the_service_needs_no_jupyterhub():
    code = (
        "import sys; sys.modules['jupyterhub'] = None; import nbexchange.handlers.auth.jupyterhub"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_option_is_in_a_generated_configuration():
    assert "# c.JupyterHubUserHandler.service_name = ''" in NbExchange().generate_config_file()
