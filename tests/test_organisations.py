"""The number of an organisation is read by one rule, wherever it comes from."""

from __future__ import annotations

from typing import Any

import pytest
from traitlets import TraitError
from traitlets.config import Config

from nbexchange.app import NbExchange
from nbexchange.commands.export import Export
from nbexchange.commands.import_folder import ImportFolder
from nbexchange.commands.purge import Purge
from nbexchange.errors import MalformedIdentity
from nbexchange.handlers.auth.jupyterhub import JupyterHubUserHandler
from nbexchange.hub.config import configure
from nbexchange.identity import User
from tests.support.organisations import NO_NUMBERS, NUMBERS

# No database and no store is asked.
pytestmark = [pytest.mark.sqlite, pytest.mark.disk]

COMMANDS = {"export": Export, "import-folder": ImportFolder, "purge": Purge}


def said_by_a_user_handler(value: Any) -> int:
    return User.from_answer({"name": "ada", "org_id": value}).org_id


def said_for_courses_of_the_hub(value: Any) -> int:
    number: int = JupyterHubUserHandler(
        org_id=value, api_url="http://127.0.0.1:1", service_name="nbexchange", api_token=""
    ).org_id
    return number


def said_for_quotas(value: Any) -> int:
    key = tuple(value) if isinstance(value, list) else value
    (number,) = NbExchange(config=Config(NbExchange={"quotas": {key: {"student": 1}}})).quotas
    assert isinstance(number, int)
    return number


def said_to_the_hub(value: Any) -> int:
    """A number alone: it is in a file of Python."""
    c = Config()
    c.JupyterHub.authenticator_class = "ltiauthenticator.lti13.auth.LTI13Authenticator"
    c.LTI13Authenticator.issuer = "https://lms.example.org"
    organisations = {"https://lms.example.org": value}
    configure(
        c,
        "http://127.0.0.1:1",
        api_token="the-token-of-the-service-0123456789",
        lti=True,
        organisations=organisations,
        prefix_names=True,
    )
    number: int = value
    return number


DOORS = [said_by_a_user_handler, said_for_courses_of_the_hub, said_for_quotas, said_to_the_hub]

each_door = pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)


@pytest.mark.parametrize(
    ("door", "value", "number"),
    [
        pytest.param(door, value, number, id=f"{door.__name__}-{value!r}")
        for door in DOORS
        for value, number in NUMBERS.items()
        if door is not said_to_the_hub or isinstance(value, int)
    ],
)
def test_a_whole_number_or_its_digits_are_an_organisation(door, value, number):
    found = door(value)

    assert found == number
    assert type(found) is int


@each_door
@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: repr(value)[:20])
def test_all_else_is_refused_and_never_read_as_another_organisation(door, value):
    with pytest.raises((MalformedIdentity, TraitError, ValueError), match=r"org|2147483647"):
        door(value)


@pytest.fixture(autouse=True)
def no_command_before():
    """Programs of traitlets are one for each process."""
    yield
    for command in COMMANDS.values():
        command.clear_instance()


def on_the_command_line(command: str, value: str) -> int:
    app = NbExchange()
    app.initialize([command, f"--org={value}"])
    number: int = app.subapp.org_id
    return number


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_takes_the_digits_of_a_number(command):
    for value, number in NUMBERS.items():
        assert on_the_command_line(command, str(value)) == number


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_refuses_all_else_and_says_what_it_takes(command, capfd):
    for value in (value for value in NO_NUMBERS if isinstance(value, str)):
        with pytest.raises(SystemExit):
            on_the_command_line(command, value)

        assert "from 1 to 2147483647" in "".join(capfd.readouterr())
