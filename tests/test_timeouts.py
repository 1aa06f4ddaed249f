"""The plugin waits longer than the service allows itself to be silent."""

from __future__ import annotations

from pathlib import Path

import pytest
from traitlets import TraitType
from traitlets.config import Configurable

from nbexchange import timeouts
from nbexchange.app import NbExchange
from nbexchange.database import ANSWER_SECONDS
from nbexchange.database.engines import SQLITE_BUSY_SECONDS
from nbexchange.handlers.auth.jupyterhub import JupyterHubUserHandler
from nbexchange.plugin.client import Client
from nbexchange.plugin.exchange import Exchange
from nbexchange.server.connections import ConnectionLimits
from nbexchange.server.rate_limits import LONGEST_REST, RequestLimits
from nbexchange.storage import objects

LONGER = {
    "sending, than until a body is read": (timeouts.SEND, timeouts.BEFORE_BODY),
    "sending, than the service waits for a byte": (timeouts.SEND, timeouts.SILENCE),
    "for an answer, than a list takes": (timeouts.ANSWER, timeouts.BEFORE_LIST),
    "for an answer's pieces, than the store's": (timeouts.ANSWER, timeouts.STORE_ANSWER),
    "for a receipt, than storing takes": (timeouts.TRANSFER, timeouts.BEFORE_RECEIPT),
    "for a file, than finding it takes": (timeouts.TRANSFER, timeouts.BEFORE_FILE),
}


@pytest.mark.parametrize("name", LONGER)
def test_the_plugin_waits_longer(name: str) -> None:
    plugins, services = LONGER[name]

    assert plugins > 1.1 * services


OPTIONS = {
    (NbExchange, "turn_timeout"): timeouts.TURN,
    (NbExchange, "header_timeout"): timeouts.HEADER,
    (NbExchange, "silence_timeout"): timeouts.SILENCE,
    (JupyterHubUserHandler, "hub_timeout"): timeouts.HUB,
    (Exchange, "connect_timeout"): timeouts.CONNECT,
    (Exchange, "send_timeout"): timeouts.SEND,
    (Exchange, "api_timeout"): timeouts.ANSWER,
    (Exchange, "transfer_timeout"): timeouts.TRANSFER,
}


@pytest.mark.parametrize(
    "owner", dict.fromkeys(owner for owner, _ in OPTIONS), ids=lambda owner: owner.__name__
)
def test_every_timeout_that_can_be_configured_is_the_tables(owner: type[Configurable]) -> None:
    found: dict[str, TraitType[float, float]] = {
        name: trait
        for name, trait in owner.class_traits(config=True).items()
        if name.endswith("_timeout")
    }

    assert {name: trait.default_value for name, trait in found.items()} == {
        name: seconds for (of, name), seconds in OPTIONS.items() if of is owner
    }


def test_what_cannot_be_configured_is_the_tables_too() -> None:
    assert (ANSWER_SECONDS, SQLITE_BUSY_SECONDS) == (timeouts.DATABASE, timeouts.SQLITE)
    assert (objects.TURN_SECONDS, LONGEST_REST) == (timeouts.STORE_TURN, timeouts.REST)
    assert objects.CLIENT["read_timeout"] == f"{timeouts.STORE_ANSWER:g}s"
    assert objects.RETRY["retry_timeout"].total_seconds() == timeouts.STORE_RETRIES
    assert (ConnectionLimits().silence, RequestLimits().patience) == (
        timeouts.SILENCE,
        timeouts.TURN,
    )
    fields = Client.__dataclass_fields__
    assert fields["send_timeout"].default == timeouts.SEND
    assert fields["transfer_timeout"].default == timeouts.TRANSFER


def test_the_service_bears_three_stalls_of_twenty_seconds() -> None:
    """And the plugin's sender does, and an answer of 300 bytes a second for a minute between."""
    assert 20 < timeouts.SILENCE < timeouts.SEND
    assert ConnectionLimits().longest_lead >= 3 * 20


@pytest.mark.parametrize("name", ["BEFORE_BODY", "BEFORE_LIST", "BEFORE_RECEIPT", "BEFORE_FILE"])
def test_the_sums_are_documented(name: str) -> None:
    page = Path("docs/plugin.md").read_text()

    assert f" {getattr(timeouts, name):g} s" in page
