"""What would lose coursework, let nobody in, or show a secret is refused, with what mends it."""

from __future__ import annotations

from typing import Any

import pytest
from helm_python import HelmError

from tests.chart import helm
from tests.chart.cases import ALONE, MARIADB, POSTGRESQL_AND_S3

S3 = {"url": "s3://bucket"}


def service(**options: Any) -> dict[str, Any]:
    return {"config": {"NbExchange": options}}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "replicas on SQLite": (
        {"replicas": 2},
        "replicas is 2, but the database is SQLite, which supports only one process. Set",
    ),
    "replicas on SQLite with an object store": (
        {"replicas": 2, "storage": S3},
        "replicas is 2, but the database is SQLite",
    ),
    "replicas on SQLite on a shared disk": (
        {"replicas": 2, "persistence": {"accessMode": "ReadWriteMany"}},
        "replicas is 2, but the database is SQLite",
    ),
    "autoscaling on SQLite": (
        {"autoscaling": {"enabled": True}},
        "autoscaling.enabled is true, but the database is SQLite",
    ),
    "replicas on one node's disk": (
        {**MARIADB, "replicas": 2},
        "on a disk that is ReadWriteOnce, which only one node can mount. Set storage.url",
    ),
    "replicas on one pod's disk": (
        {**MARIADB, "replicas": 2, "persistence": {"accessMode": "ReadWriteOncePod"}},
        "on a disk that is ReadWriteOncePod",
    ),
    "autoscaling on one node's disk": (
        {**MARIADB, "autoscaling": {"enabled": True}},
        "autoscaling.enabled is true, but files are on a disk that is ReadWriteOnce",
    ),
    "autoscaling backwards": (
        helm.changed(POSTGRESQL_AND_S3, autoscaling={"enabled": True, "minReplicas": 9}),
        "autoscaling.minReplicas is larger than autoscaling.maxReplicas",
    ),
    "nobody let in": (
        {"hub": {"enabled": False}},
        "so no user could sign in. Set tokenFile.inline",
    ),
    "hub and token file": (
        helm.changed(ALONE, hub__enabled=True),
        "hub.enabled and tokenFile are two sources of users",
    ),
    "two token files": (
        helm.changed(ALONE, tokenFile__existingSecret="people"),
        "tokenFile.inline and tokenFile.existingSecret are both set",
    ),
    "a token file that is none": (
        helm.changed(ALONE, tokenFile__inline="ada"),
        "tokenFile.inline is not a JSON object",
    ),
    "a hub that looks elsewhere": (
        {"hub": {"serviceName": "exchange"}},
        "below /services/exchange/, but baseUrl is /services/nbexchange/. Change",
    ),
    "a name that a Service cannot have": (
        {"fullnameOverride": "2026"},
        "Objects would be called 2026, but the name of a Service has to begin with a letter",
    ),
    "two databases": (
        helm.changed(MARIADB, db__existingSecret="database"),
        "db.url and db.existingSecret are both set",
    ),
    "an SQLite by URL": ({"db": {"url": "sqlite:////tmp/a"}}, "Leave db.url empty"),
    "two keys of a store": (
        {"storage": {**S3, "credentials": {"AWS_REGION": "x"}, "existingSecret": "bucket"}},
        "storage.credentials and storage.existingSecret are both set",
    ),
    "keys of no store": ({"storage": {"existingSecret": "bucket"}}, "Set storage.url"),
    "a route from nowhere": ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs names no"),
    "alerts of nothing": (
        {"metrics": {"prometheusRule": {"enabled": True}}},
        "Set metrics.serviceMonitor.enabled=true",
    ),
    # what the chart itself has to know
    "db_url in config": (
        service(db_url="mysql://n:c4n4ry@db/n"),
        "config.NbExchange.db_url is set by the chart. Use db.existingSecret or db.url",
    ),
    "db_url in extraConfig": (
        {"extraConfig": {"a": "c.NbExchange.db_url = 'mysql://db/n'"}},
        "extraConfig sets c.NbExchange.db_url",
    ),
    "storage_url in config": (service(storage_url="s3://b"), "Use storage.url"),
    "storage_options in config": (
        service(storage_options={"secret_access_key": "c4n4ry"}),
        "Use storage.options, and storage.existingSecret for its keys",
    ),
    "base_url in config": (service(base_url="/"), "Use baseUrl"),
    "port in config": (service(port=80), "Use service.port"),
    "data directory in config": (service(base_storage_location="/data"), "Use persistence"),
    "reset_db in config": (service(reset_db=True), "every start would erase all rows"),
    "reset_db of all programs": (
        {"config": {"Application": {"reset_db": True}}},
        "config.Application.reset_db is set by the chart",
    ),
    "reset_db with other words": (
        {"extraConfig": {"a": 'c["NbExchange"]["reset_db"] = True'}},
        "extraConfig sets c.NbExchange.reset_db",
    ),
    "stop_grace in extraConfig": (
        {"extraConfig": {"a": "c.NbExchange.stop_grace = 900"}},
        "config.NbExchange, because the chart computes terminationGracePeriodSeconds from them",
    ),
    "NBEX_DB_URL in extraEnv": (
        {"extraEnv": {"NBEX_DB_URL": "sqlite:////tmp/a"}},
        "extraEnv.NBEX_DB_URL is set by the chart. Use db.existingSecret or db.url",
    ),
    # secrets where everybody who sees a pod can read them
    "the scraper's token": (
        service(metrics_token="c4n4ry"),
        "config.NbExchange.metrics_token is set by the chart. Use metrics.existingSecret",
    ),
    "the scraper's token in extraEnv": (
        {"extraEnv": {"NBEXCHANGE_METRICS_TOKEN": "c4n4ry"}},
        "extraEnv.NBEXCHANGE_METRICS_TOKEN is set by the chart. Use metrics.existingSecret",
    ),
    "a secret in extraEnv": (
        {"extraEnv": {"AWS_SECRET_ACCESS_KEY": "c4n4ry"}},
        "extraEnv.AWS_SECRET_ACCESS_KEY looks like a secret in plain text",
    ),
    "a secret of many parts in extraEnv": (
        {"extraEnv": {"AZURE_STORAGE_CONNECTION_STRING": "AccountKey=c4n4ry"}},
        "extraEnv.AZURE_STORAGE_CONNECTION_STRING looks like a secret in plain text",
    ),
    "a short name of a secret in extraEnv": (
        {"extraEnv": {"LDAP_PASS": "c4n4ry"}},
        "extraEnv.LDAP_PASS looks like a secret in plain text",
    ),
    "an address with a password in extraEnv": (
        {"extraEnv": {"LDAP": "ldap://n:c4n4ry@ldap"}},
        "extraEnv.LDAP looks like a secret in plain text",
    ),
}


@pytest.mark.parametrize(("values", "words"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_with_what_mends_it(values, words):
    with pytest.raises(HelmError) as refusal:
        helm.render(values)

    assert words in str(refusal.value)
    assert "c4n4ry" not in str(refusal.value)


ACCEPTED: dict[str, dict[str, Any]] = {
    "replicas on a server and an object store": {**MARIADB, "replicas": 2, "storage": S3},
    "none, while a backup is restored": {"replicas": 0},
    "a class of one's own": {
        "hub": {"enabled": False},
        **service(user_plugin_class="ours.UserHandler"),
    },
    "a hub that knows people and is not the way in": {
        "baseUrl": "/exchange/",
        "ingress": {"enabled": True},
    },
    "a class in extraConfig": {
        "hub": {"enabled": False},
        "extraConfig": {"a": "c.NbExchange.user_plugin_class = Ours"},
    },
    "secrets from the environment": {
        "extraEnv": {"A_TOKEN": {"valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}},
        "extraConfig": {"a": "import os\nc.Mine.token = os.environ['A_TOKEN']"},
    },
    "what is called like a secret": {"extraEnv": {"COMPASS": "north", "TOKENS_AT_A_TIME": "3"}},
    "an address with a port": {"extraEnv": {"LDAP": "http://ldap:389/a?b=c"}},
}


@pytest.mark.parametrize("values", ACCEPTED.values(), ids=ACCEPTED)
def test_what_is_mended_is_taken(values):
    assert helm.render(values)
