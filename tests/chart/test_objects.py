"""What Kubernetes gets: valid in each version that the chart names, and safe by default."""

from __future__ import annotations

import base64
import functools
import re
from typing import Any

import kubernetes_validate
import kubernetes_validate.utils
import pytest
import yaml
from helm_python import lint

from nbexchange import __version__
from nbexchange.app import NbExchange
from tests.chart import helm
from tests.chart.cases import ALONE, CASES, MARIADB, POSTGRESQL_AND_S3

KUBERNETES = ("1.30", "1.34", kubernetes_validate.latest_version())

NOT_KUBERNETES_OWN = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
}

SELECTOR = {
    "app.kubernetes.io/name": "nbexchange",
    "app.kubernetes.io/instance": "nbexchange",
    "app.kubernetes.io/component": "service",
}

WARNING = 2

each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def fullname(values: dict[str, Any]) -> str:
    return values.get("fullnameOverride") or "nbexchange"


@each_case
def test_helm_lints_it_strictly(case):
    report = lint(helm.CHART, case, strict=True)

    assert report["total_charts_linted"] == 1
    assert report["errors"] == []
    assert [found for found in report["messages"] if found["severity"] >= WARNING] == []


# It reads all definitions again for every object: megabytes.
kubernetes_validate.utils.schema_contents = functools.cache(
    kubernetes_validate.utils.schema_contents
)


def validate(item: helm.Object, version: str) -> None:
    try:
        kubernetes_validate.validate(item, version, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        assert (item["apiVersion"], item["kind"]) in NOT_KUBERNETES_OWN


@pytest.mark.parametrize("version", KUBERNETES)
@each_case
def test_every_object_is_one_of_kubernetes(case, version):
    for item in helm.render(case):
        validate(item, version)


def test_an_object_that_kubernetes_does_not_know_fails_here():
    unknown = {"apiVersion": "extensions/v1beta1", "kind": "Ingress", "metadata": {"name": "a"}}
    with pytest.raises(AssertionError):
        validate(unknown, "1.30")

    deployment = helm.one(helm.render({}), "Deployment")
    deployment["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(deployment, "1.30")


def test_the_oldest_version_is_the_one_that_the_chart_names():
    chart = yaml.safe_load((helm.CHART / "Chart.yaml").read_text())

    assert chart["kubeVersion"] == f">={KUBERNETES[0]}.0-0"
    assert chart["appVersion"] == __version__


# -- the pods


def containers(objects: list[helm.Object]) -> list[tuple[helm.Object, helm.Object]]:
    """Our own containers, each with its pod."""
    pods = []
    for item in objects:
        if item["kind"] in ("Deployment", "Job"):
            pods.append(item["spec"]["template"]["spec"])
        elif item["kind"] == "Pod":
            pods.append(item["spec"])
    return [(pod, pod["containers"][0]) for pod in pods]


@each_case
def test_no_container_can_do_more_than_it_needs(case):
    found = containers(helm.render(case))

    assert len(found) >= 2
    for pod, container in found:
        assert pod["automountServiceAccountToken"] is False
        # A service called nbexchange would give us NBEXCHANGE_PORT and the like.
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"]


@each_case
def test_probes_ask_the_port_and_know_no_base_url(case):
    container = helm.pod(helm.render(case), fullname(case))["containers"][0]

    asked = {
        probe: container[probe]["httpGet"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert asked == {
        "startupProbe": {"path": "/healthz", "port": "http"},
        "livenessProbe": {"path": "/healthz", "port": "http"},
        "readinessProbe": {"path": "/readyz", "port": "http"},
    }


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({}, 30),
        ({"stop_delay": 0, "stop_grace": 0}, 5),
        ({"stop_delay": 10, "stop_grace": 300}, 315),
        ({"stop_delay": 0.5, "stop_grace": 1.2}, 8),
        ({"stop_delay": None, "stop_grace": None}, 25),
    ],
)
def test_kubernetes_waits_for_the_whole_end(options, seconds):
    pod = helm.pod(helm.render({"config": {"NbExchange": options}}))

    assert pod["terminationGracePeriodSeconds"] == seconds


@pytest.mark.parametrize(
    ("case", "strategy"),
    [
        ("defaults", "Recreate"),
        ("mariadb", "Recreate"),  # the disk is ReadWriteOnce
        ("without-a-hub", "Recreate"),
        ("postgresql-s3-3-replicas", "RollingUpdate"),
        ("postgresql-shared-disk", "RollingUpdate"),
        ("autoscaling", "RollingUpdate"),
    ],
)
def test_two_processes_meet_only_where_they_may(case, strategy):
    spec = helm.one(helm.render(CASES[case]), "Deployment")["spec"]

    assert spec["strategy"]["type"] == strategy
    if strategy == "RollingUpdate":
        assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert ("replicas" in spec) == (case != "autoscaling")


def test_an_sqlite_on_a_shared_disk_is_still_for_one_process():
    values = {"persistence": {"accessMode": "ReadWriteMany"}}

    assert helm.one(helm.render(values), "Deployment")["spec"]["strategy"]["type"] == "Recreate"


@each_case
def test_selectors_never_change_and_fit_the_pods(case):
    objects = helm.render(case)
    deployment = helm.one(objects, "Deployment", fullname(case))

    assert deployment["spec"]["selector"]["matchLabels"] == SELECTOR
    assert helm.one(objects, "Service", fullname(case))["spec"]["selector"] == SELECTOR
    assert deployment["spec"]["template"]["metadata"]["labels"].items() >= SELECTOR.items()
    for item in objects:
        if item["kind"] in ("Job", "Pod"):
            template = item["spec"].get("template", item)
            assert not template["metadata"]["labels"].items() >= SELECTOR.items()


@pytest.mark.parametrize("release", ["r", "nbexchange", "n" * 53, "exchange-of-the-faculty-" * 2])
@pytest.mark.parametrize("override", ["", "f" * 63])
def test_names_are_short_enough(release, override):
    case = helm.changed(CASES["everything"], fullnameOverride=override)
    for item in helm.render(case, release.strip("-")):
        metadata = item["metadata"]
        assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", metadata["name"])
        assert max(map(len, metadata["labels"].values())) <= 63


def test_names_that_look_like_numbers_are_text():
    """YAML takes 2026 for a number and "on" for a truth; Kubernetes takes neither."""
    number = "2026"
    values = helm.changed(
        CASES["everything"],
        fullnameOverride="exchange",
        hub__existingSecret=number,
        hub__existingSecretKey=number,
        metrics__existingSecret=number,
        metrics__existingSecretKey=number,
        metrics__dashboard__namespace=number,
        serviceAccount__name=number,
        imagePullSecrets=["on"],
        priorityClassName=number,
    )
    for item in helm.render(values, release=number):
        validate(item, KUBERNETES[-1])
    for item in helm.render({"fullnameOverride": "on"}):
        validate(item, KUBERNETES[-1])


def test_a_digest_counts_more_than_a_tag():
    digest = "sha256:" + "a" * 64

    def image(**values):
        return helm.pod(helm.render({"image": values}))["containers"][0]["image"]

    assert image() == f"nbexchange:{__version__}"
    assert image(repository="example.org/x", tag="7") == "example.org/x:7"
    assert image(repository="example.org/x", tag="7", digest=digest) == f"example.org/x@{digest}"


def test_a_container_may_have_hooks_of_its_own():
    hooks = {"preStop": {"sleep": {"seconds": 3}}}

    assert "lifecycle" not in helm.pod(helm.render({}))["containers"][0]
    assert helm.pod(helm.render({"lifecycle": hooks}))["containers"][0]["lifecycle"] == hooks


@pytest.mark.parametrize("number", [0, 3, 50])
def test_so_many_earlier_versions_are_kept(number):
    objects = helm.render({"revisionHistoryLimit": number})

    assert helm.one(objects, "Deployment")["spec"]["revisionHistoryLimit"] == number


@pytest.mark.parametrize(
    ("values", "bound"),
    [
        ({}, {"maxUnavailable": 1}),
        ({"maxUnavailable": "25%"}, {"maxUnavailable": "25%"}),
        ({"minAvailable": 2}, {"minAvailable": 2}),
        ({"minAvailable": 0}, {"minAvailable": 0}),
        ({"minAvailable": "50%"}, {"minAvailable": "50%"}),
    ],
    ids=str,
)
def test_a_disruption_budget_has_one_bound(values, bound):
    spec = helm.one(helm.render({"pdb": values}), "PodDisruptionBudget")["spec"]

    assert {name: spec[name] for name in spec if name.endswith("vailable")} == bound


# -- configuration and secrets


def checksums(values: dict[str, Any]) -> tuple[str, str]:
    template = helm.one(helm.render(values), "Deployment")["spec"]["template"]
    annotations = template["metadata"]["annotations"]
    return annotations["checksum/config"], annotations["checksum/secret"]


@pytest.mark.parametrize(
    ("values", "config", "secret"),
    [
        ({"config": {"NbExchange": {"max_entries": 7}}}, True, False),
        ({"extraConfig": {"a": "x = 1"}}, True, False),
        ({"baseUrl": "/x/services/nbexchange/"}, True, False),
        ({"db": {"url": "mysql://n:other@db.example.org/nbexchange"}}, False, True),
        ({"resources": {"requests": {"cpu": 2}}}, False, False),
        ({"resources": {"limits": {"memory": "3Gi"}}}, True, False),
    ],
    ids=["config", "extraConfig", "baseUrl", "db.url", "cpu", "memory"],
)
def test_pods_are_made_anew_when_what_they_read_changes(values, config, secret):
    before, after = checksums(MARIADB), checksums({**MARIADB, **values})

    assert (before[0] != after[0], before[1] != after[1]) == (config, secret)


@pytest.mark.parametrize(
    "values",
    [
        {
            **MARIADB,
            "storage": {
                "url": "s3://bucket",
                "credentials": {"AWS_SECRET_ACCESS_KEY": "c4n4ry-key"},
            },
        },
        ALONE,
        {
            "config": {"Mine": {"servers": [{"headers": {"Authorization": "c4n4ry"}}]}},
            "extraConfig": {"a": "c.Mine.key = ('c4n4ry')"},
            "storage": {
                "url": "s3://bucket?token=c4n4ry",
                "options": {"secret_access_key": "c4n4ry"},
            },
        },
        helm.changed(MARIADB, config={"Mine": {"bind": "ldap://n:c4n4ry@ldap"}}),
    ],
    ids=["database and store", "token file", "configuration", "configuration of the job"],
)
def test_secrets_are_in_secrets_only(values):
    objects = helm.render(values)
    secrets = [item["metadata"]["name"] for item in objects if item["kind"] == "Secret"]
    texts = [text for name in secrets for text in helm.secret(objects, name).values()]
    kept = [text for text in texts if "c4n4ry" in text]

    assert kept
    # A Secret has no other field for it, and nothing else has it in any form.
    for text in kept:
        encoded = base64.b64encode(text.encode()).decode()
        for item in objects:
            others = {**item, "data": {}} if item["kind"] == "Secret" else item
            assert "c4n4ry" not in str(others)
            assert encoded not in str(others)
    assert "c4n4ry" not in helm.texts(values)["NOTES.txt"]


def test_who_has_secrets_of_their_own_gets_none_of_ours():
    objects = helm.render(POSTGRESQL_AND_S3)
    container = helm.pod(objects)["containers"][0]

    assert {item["metadata"]["name"] for item in objects if item["kind"] == "Secret"} == {
        "nbexchange-config",
        "nbexchange-upgrade-db",
    }
    assert set(helm.secret(objects, "nbexchange-upgrade-db")) == {"nbexchange_config.py"}
    assert helm.environment(container)["NBEX_DB_URL"] == ("database", "url")
    assert container["envFrom"] == [{"secretRef": {"name": "bucket"}}]


def test_the_token_file_comes_from_its_secret():
    values = {
        "hub": {"enabled": False},
        "tokenFile": {"existingSecret": "people", "existingSecretKey": "all"},
    }
    pod = helm.pod(helm.render(values))

    volume = next(item for item in pod["volumes"] if item["name"] == "people")
    assert volume["secret"]["secretName"] == "people"
    assert volume["secret"]["items"] == [{"key": "all", "path": "people.json"}]
    assert not any("JUPYTERHUB" in name for name in helm.environment(pod["containers"][0]))


# -- the migration


def test_a_database_server_is_migrated_before_the_pods_change():
    objects = helm.render(MARIADB)
    hooks = [item for item in objects if item["metadata"]["name"] == "nbexchange-upgrade-db"]
    job = helm.one(objects, "Job", "nbexchange-upgrade-db")
    pod = job["spec"]["template"]["spec"]
    program, subcommand = pod["containers"][0]["command"]

    assert {item["kind"] for item in hooks} == {"Job", "Secret"}
    for item in hooks:
        assert item["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert program == "nbexchange"
    assert subcommand in NbExchange.subcommands
    # Nothing of the release is there yet: what the Job needs comes with it.
    ours = {item["metadata"]["name"] for item in objects} - {"nbexchange-upgrade-db"}
    assert pod["serviceAccountName"] not in ours
    assert helm.environment(pod["containers"][0])["NBEX_DB_URL"] == (
        "nbexchange-upgrade-db",
        "db-url",
    )
    both = {**helm.secret(objects), **helm.secret(objects, "nbexchange")}
    assert helm.secret(objects, "nbexchange-upgrade-db") == both
    (config,) = [volume for volume in pod["volumes"] if volume["name"] == "config"]
    assert config["secret"]["secretName"] == "nbexchange-upgrade-db"


def test_what_the_job_needs_is_there_before_it():
    weights = {
        item["kind"]: int(item["metadata"]["annotations"]["helm.sh/hook-weight"])
        for item in helm.render(MARIADB)
        if item["metadata"]["name"] == "nbexchange-upgrade-db"
    }

    assert weights["Job"] > weights["Secret"]


def test_sqlite_is_migrated_by_its_only_process():
    objects = helm.render({})

    assert "Job" not in helm.kinds(objects)
    assert "c.NbExchange.upgrade_db = True" in helm.secret(objects)["nbexchange_config.py"]


def test_a_migration_can_be_left_to_others():
    assert "Job" not in helm.kinds(helm.render(helm.changed(MARIADB, migration__enabled=False)))


# -- disk and network


WITH_A_CLAIM = ["defaults", "mariadb", "postgresql-shared-disk", "many-more-labels"]


@pytest.mark.parametrize("case", WITH_A_CLAIM)
def test_coursework_outlives_the_release(case):
    claim = helm.one(helm.render(CASES[case]), "PersistentVolumeClaim")

    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_annotations_of_the_claim_are_there_beside_that_it_stays():
    values = {"persistence": {"annotations": {"example.org/backup": "daily"}}}

    assert helm.one(helm.render(values), "PersistentVolumeClaim")["metadata"]["annotations"] == {
        "helm.sh/resource-policy": "keep",
        "example.org/backup": "daily",
    }


@pytest.mark.parametrize(
    ("case", "claims", "mounted"),
    [
        ("defaults", True, "nbexchange"),
        ("mariadb", True, "nbexchange"),
        ("bare", False, "claim"),
        ("postgresql-s3-3-replicas", False, None),
    ],
)
def test_there_is_a_disk_where_something_has_to_last(case, claims, mounted):
    objects = helm.render(CASES[case])
    data = next(item for item in helm.pod(objects)["volumes"] if item["name"] == "data")

    assert ("PersistentVolumeClaim" in helm.kinds(objects)) == claims
    assert data.get("persistentVolumeClaim", {}).get("claimName") == mounted
    assert ("emptyDir" in data) == (mounted is None)


def policy(values: dict[str, Any]) -> helm.Object:
    spec: helm.Object = helm.one(helm.render(values), "NetworkPolicy")["spec"]
    return spec


def test_below_a_hub_only_the_hub_comes_in():
    (rule,) = policy({})["ingress"]

    assert [peer["podSelector"]["matchLabels"] for peer in rule["from"]] == [
        {"app": "jupyterhub"},
        {**SELECTOR, "app.kubernetes.io/component": "test"},
    ]


def test_more_may_come_in_by_name():
    scrapers = {"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}
    (rule,) = policy({"networkPolicy": {"ingressFrom": [scrapers]}})["ingress"]

    assert rule["from"][-1] == scrapers


@pytest.mark.parametrize(
    "values", [ALONE, {"ingress": {"enabled": True}}, {"service": {"type": "NodePort"}}]
)
def test_who_comes_from_outside_is_not_kept_out(values):
    (rule,) = policy(values)["ingress"]

    assert "from" not in rule


def test_the_service_goes_nowhere_but_to_the_hub_until_it_needs_to():
    somewhere = {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}
    named = helm.changed(MARIADB, networkPolicy={"egress": [somewhere]})

    assert len(policy({})["egress"]) == 2
    assert {} not in policy({})["egress"]
    assert policy(MARIADB)["egress"][-1] == {}
    assert {} not in policy(ALONE)["egress"]
    asks = {"hub": {"enabled": False}, "config": {"NbExchange": {"user_plugin_class": "ours.Mine"}}}
    assert policy(asks)["egress"][-1] == {}
    assert policy(named)["egress"][-1] == somewhere
    assert {} not in policy(named)["egress"]


@pytest.mark.parametrize("enabled", [True, False])
def test_the_hub_lets_in_who_has_its_label(enabled):
    values = {} if enabled else ALONE
    template = helm.one(helm.render(values), "Deployment")["spec"]["template"]

    label = template["metadata"]["labels"].get("hub.jupyter.org/network-access-hub")
    assert label == ("true" if enabled else None)
