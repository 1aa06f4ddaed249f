"""What the values say is what the service reads: nbexchange_config.py, loaded by NbExchange."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbexchange.app import NbExchange
from nbexchange.handlers.auth.jupyterhub import JupyterHubUserHandler
from nbexchange.handlers.auth.token_file import TokenFileUserHandler
from tests.chart import helm
from tests.chart.cases import ALONE, MARIADB, POSTGRESQL_AND_S3
from tests.chart.config import load
from tests.support.service import Service


def test_the_file_is_where_the_service_looks_for_it():
    objects = helm.render({})
    pod = helm.pod(objects)
    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    volume = next(item["secret"] for item in pod["volumes"] if item["name"] == "config")

    expected = Path(NbExchange.config_file.default_value)
    assert mounts["config"]["mountPath"] == str(expected.parent)
    assert volume["items"] == [{"key": expected.name, "path": expected.name}]
    assert expected.name in helm.secret(objects, volume["secretName"])


def test_options_are_what_the_values_say(config_file):
    values = {
        "baseUrl": "/jupyter/services/exchange/",
        "hub": {"serviceName": "exchange"},
        "config": {
            "NbExchange": {
                "max_buffer_size": 5253530001,
                "stop_grace": 1.5,
                "debug_db": True,
                "quotas": {"7": {"student": 2000000000}},
                "db_kwargs": {"connect_args": {"ssl": {"ca": "/etc/ca.pem"}}, "pool_size": 3},
            }
        },
        "extraConfig": {
            "20-second": "c.NbExchange.max_ratio = c.NbExchange.max_entries + 1",
            "10-first": "c.NbExchange.max_entries = 41",
        },
    }

    app = load(values, config_file)

    assert app.base_url == "/jupyter/services/exchange/"
    assert (app.ip, app.port) == ("", 9000)
    assert app.max_buffer_size == 5253530001
    assert (app.stop_delay, app.stop_grace) == (5, 1.5)
    assert app.debug_db is True
    assert app.quotas == {7: {"student": 2000000000}}
    assert app.db_kwargs == {"connect_args": {"ssl": {"ca": "/etc/ca.pem"}}, "pool_size": 3}
    assert (app.max_entries, app.max_ratio) == (41, 42)


def test_the_data_directory_is_the_disk(config_file):
    container = helm.pod(helm.render({}))["containers"][0]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}

    app = load({}, config_file)

    assert mounts["data"] == app.base_storage_location
    assert app.db_url == f"sqlite:///{app.base_storage_location}/nbexchange.sqlite"
    assert app.upgrade_db is True


def test_a_server_and_an_object_store(config_file, monkeypatch):
    monkeypatch.setenv("NBEX_DB_URL", "postgresql://db.example.org/nbexchange")

    app = load(POSTGRESQL_AND_S3, config_file)

    assert app.db_url == "postgresql://db.example.org/nbexchange"
    assert app.upgrade_db is False
    assert app.storage_url == "s3://bucket/prefix"
    assert app.storage_options == {"endpoint": "https://s3.example.org", "region": "eu-1"}


def test_the_hub_is_asked_who_people_are(config_file, monkeypatch):
    container = helm.pod(helm.render({}))["containers"][0]
    for name, value in helm.environment(container).items():
        if name.startswith("JUPYTERHUB_"):
            monkeypatch.setenv(name, value if isinstance(value, str) else ":".join(value))

    handler = load({}, config_file).make_user_handler()

    assert isinstance(handler, JupyterHubUserHandler)
    assert handler.api_url == "http://hub:8081/hub/api"
    assert handler.api_token == "hub:hub.services.nbexchange.apiToken"
    assert "access:services!service=nbexchange" in handler.access_scopes


def test_a_token_file_is_read_where_it_is_mounted(config_file):
    container = helm.pod(helm.render(ALONE))["containers"][0]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}

    handler = load(ALONE, config_file).make_user_handler()

    assert isinstance(handler, TokenFileUserHandler)
    assert handler.path == f"{mounts['people']}/people.json"


def test_a_class_of_ones_own_wins(config_file):
    values = {"config": {"NbExchange": {"user_plugin_class": TokenFileUserHandler.__module__}}}
    values["config"]["NbExchange"]["user_plugin_class"] += ".TokenFileUserHandler"

    assert load(values, config_file).user_plugin_class is TokenFileUserHandler


HOSTILE = [
    "\"'`",
    "'''\"\"\"",
    "\\",
    "\\n\\u0041\\",
    "a\nb\r\nc\n",
    "\n\n  import os\n---\n",
    "{{ .Values.db.url }} {% x %} ${HOME} $(HOME) %s {}",
    "# no: comment",
    "yes",
    "null",
    "012",
    "1e3",
    "<script>&amp;</script>",
    "žluťoučký 学生 😀",
    "\u0085\u2028\u2029\ufeff\u00a0",
    "\x00\x01\x07\x1b\x7f\x80\x9f\ufffe\uffff",
    "\t \f\v ",
    "",
]
NESTED = [True, False, None, 0, -1, 1.5, 2**40, [], {}, [[1, [True]], {"a": {"b": [None]}}]]


@pytest.mark.parametrize("value", [*HOSTILE, *NESTED], ids=repr)
def test_a_value_arrives_as_it_was(value, config_file):
    values = {"config": {"Mine": {"alone": value, "within": {"ключ '\"": [value]}}}}

    config = load(values, config_file).config.Mine

    # A null at the top of a class takes the option away, as Helm has it, or is None.
    assert config.get("alone") == value
    assert type(config.get("alone")) is type(value)
    assert config["within"] == {"ключ '\"": [value]}


@settings(max_examples=15)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=6,
    )
)
def test_any_value_arrives_as_it_was(tmp_path_factory, value):
    file = tmp_path_factory.mktemp("any") / "nbexchange_config.py"

    assert load({"config": {"Mine": {"value": [value]}}}, file).config.Mine.value == [value]


@pytest.mark.parametrize("text", [text for text in HOSTILE if text], ids=repr)
def test_where_files_are_arrives_as_it_was(text, config_file):
    url = f"s3://bucket/{text}".replace("\n", "")  # which the schema refuses
    values = {
        "storage": {
            "url": url,
            "options": {"region": text, "virtual_hosted_style_request": True, "retries": 3},
        }
    }

    app = load(values, config_file)

    assert app.storage_url == url
    assert app.storage_options == values["storage"]["options"]


def test_pieces_of_python_stay_as_they_are(config_file):
    piece = 'TEXT = """\n  a: {{ b }}\n\n\tž\\n\x7f\u2028"""\nc.Mine.text = TEXT'

    assert load({"extraConfig": {"a": piece}}, config_file).config.Mine.text == (
        "\n  a: {{ b }}\n\n\tž\n\x7f\u2028"
    )


def test_the_job_reads_the_same_file(config_file):
    load(MARIADB, config_file)

    job = helm.one(helm.render(MARIADB), "Job", "nbexchange-upgrade-db")
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "config", "mountPath": "/etc/config", "readOnly": True} in container[
        "volumeMounts"
    ]


def test_the_helm_test_finds_a_service_ready(service: Service):
    *_, code, address = helm.one(helm.render({}), "Pod", "nbexchange-test")["spec"]["containers"][
        0
    ]["command"]
    here = address.replace("http://nbexchange:9000/services/nbexchange/", f"{service.url}/")

    ready = subprocess.run([sys.executable, "-c", code, here], capture_output=True, check=False)
    away = subprocess.run(
        [sys.executable, "-c", code, f"{here}/not-there"], capture_output=True, check=False
    )

    assert here != address
    assert ready.returncode == 0
    assert b"success" in ready.stdout
    assert away.returncode != 0
