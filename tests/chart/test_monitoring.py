"""Alerts and the dashboard: they ask for what the service tells, and alerts fire when they should.

`promtool` of Prometheus reads every expression, and plays through what each alert waits for.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nbexchange.handlers import MACHINES, ROUTES
from tests.chart import helm
from tests.support.canaries import every_verb
from tests.support.numbers import Numbers
from tests.support.parts import PATIENCE, needs
from tests.support.service import Service

MONITORED: dict[str, Any] = {
    "metrics": {
        "serviceMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "dashboard": {"enabled": True},
    }
}

DOCUMENT = helm.CHART.parent / "docs" / "monitoring.md"

OF_PROMETHEUS = {"namespace", "job", "pod", "instance"}
"""Labels that are not the service's own."""

WORDS = {
    *("abs", "absent", "changes", "count", "histogram_quantile", "increase", "max", "min"),
    *("min_over_time", "or", "rate", "sum", "vector"),
}
"""All of the language that our expressions use; what is left in one are names of metrics."""


def groups() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = helm.one(helm.render(MONITORED), "PrometheusRule")["spec"][
        "groups"
    ]
    return found


def rules() -> list[dict[str, Any]]:
    (group,) = groups()
    found: list[dict[str, Any]] = group["rules"]
    return found


def dashboard() -> dict[str, Any]:
    config = helm.one(helm.render(MONITORED), "ConfigMap", "nbexchange-dashboard")
    board: dict[str, Any] = json.loads(config["data"]["nbexchange.json"])
    return board


def shown() -> Iterator[tuple[str, str]]:
    """Each panel's title and what it asks for, with Grafana's variables filled in."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], filled(target["expr"])


def filled(expression: str) -> str:
    for name, value in (
        ("__rate_interval", "5m"),
        ("namespace", "jhub"),
        ("job", "nbexchange"),
        ("organisation", ".*"),
    ):
        expression = expression.replace(f"${name}", value)
    return expression


def asked() -> dict[str, str]:
    """Everything that is asked for, by where."""
    of_alerts = {rule["alert"]: rule["expr"] for rule in rules()}
    return of_alerts | dict(shown())


# -- what is asked for is there


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Numbers:
    """Of a service that has done everything, and has refused something."""
    data = tmp_path_factory.mktemp("monitored") / "data"
    with Service(data) as service:
        every_verb(service)
        service.wire("nobody").get("assignments")
        for path in ("readyz", "collections"):
            service.student().get(path)
        return Numbers(service)


def metrics_in(expression: str) -> set[str]:
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(by|without)\s*\([^)]*\)", "", bare)
    return set(re.findall(r"[a-z_]\w*", bare)) - WORDS


def labels_in(expression: str) -> set[str]:
    matched = re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', expression)
    grouped = re.findall(r"\bby\s*\(([^)]*)\)", expression)
    return {*matched, *(name.strip() for names in grouped for name in names.split(","))}


def test_expressions_are_taken_apart():
    expression = 'sum by (le, pod) (rate(a_total{b="x", c!~"y{"}[5m])) / max(d_bytes) > 0.05'

    assert metrics_in(expression) == {"a_total", "d_bytes"}
    assert labels_in(expression) == {"le", "pod", "b", "c"}


def test_every_number_that_is_asked_for_is_told_with_its_labels(numbers: Numbers):
    labels = {name: set[str]() for name in {sample.name for sample in numbers.samples}}
    for sample in numbers.samples:
        labels[sample.name] |= set(sample.labels)
    assert len(asked()) > 25

    for place, expression in asked().items():
        names = metrics_in(expression)
        assert names, place
        assert names <= labels.keys(), place
        known = set.union(*(labels[name] for name in names)) | OF_PROMETHEUS
        assert labels_in(expression) <= known, place


def test_values_of_labels_that_are_asked_for_exist(numbers: Numbers):
    known = {
        name: {sample.labels[name] for sample in numbers.samples if name in sample.labels}
        for name in ("reason", "state", "verb")
    }
    routes = (*ROUTES, *MACHINES)
    known["handler"] = {handler.__name__.removesuffix("Handler") for _, handler in routes}

    seen = set()
    for place, expression in asked().items():
        for name, values in re.findall(r'\b(handler|reason|state|verb)[=!~]+"([^"]*)"', expression):
            seen.add(name)
            assert set(values.split("|")) <= known[name], place
    assert seen == set(known)


def test_everything_asks_for_this_release_alone():
    for place, expression in asked().items():
        of = re.findall(r"\{([^}]*)\}", expression)
        assert of, place
        for matchers in of:
            assert 'namespace="jhub"' in matchers, place
            assert 'job="nbexchange"' in matchers, place


# -- Prometheus reads it


def promtool(*arguments: object) -> None:
    done = subprocess.run(
        [needs("promtool"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def write(file: Path, content: Any) -> Path:
    file.write_text(yaml.safe_dump(content))
    return file


def test_prometheus_reads_every_alert(tmp_path: Path):
    promtool("check", "rules", write(tmp_path / "rules.yaml", {"groups": groups()}))


def test_prometheus_reads_every_panel(tmp_path: Path):
    records = [
        {"record": f"panel:{number}", "expr": expression}
        for number, (_, expression) in enumerate(shown())
    ]
    assert len(records) > 20

    group = {"name": "panels", "rules": records}
    promtool("check", "rules", write(tmp_path / "rules.yaml", {"groups": [group]}))


def test_what_prometheus_cannot_read_fails_here(tmp_path: Path):
    rule = {"record": "a", "expr": "sum(rate(b[5m])"}
    file = write(tmp_path / "rules.yaml", {"groups": [{"name": "a", "rules": [rule]}]})

    with pytest.raises(AssertionError, match="unclosed left parenthesis"):
        promtool("check", "rules", file)


def test_the_operator_is_told_when_the_policy_keeps_prometheus_out():
    words = "lets no scraper in yet"
    open_to_all = helm.changed(MONITORED, ingress__enabled=True)
    named = helm.changed(MONITORED, networkPolicy__ingressFrom=[{"podSelector": {}}])

    assert words in helm.texts(MONITORED)["NOTES.txt"]
    for values in (open_to_all, named):
        assert words not in helm.texts(values)["NOTES.txt"]


# -- alerts


def bucket(handler: str, method: str, le: str) -> str:
    labels = f'handler="{handler}",method="{method}",le="{le}"'
    return f"nbexchange_request_seconds_bucket{{{labels}}}"


# A value for each minute; `a+bxn` is promtool's for n more steps of b. Firing, and calm.
ALERTS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "NbExchangeAway": (
        {'nbexchange_ready{pod="a"}': "1 1 1 0x30", 'nbexchange_ready{pod="b"}': "0x30"},
        {'nbexchange_ready{pod="a"}': "0x30", 'nbexchange_ready{pod="b"}': "1x30"},
    ),
    "NbExchangeDamaged": (
        {'nbexchange_refusals_total{reason="Damaged"}': "0 0 0 0 0 1x25"},
        {'nbexchange_refusals_total{reason="Damaged"}': "3x30"},
    ),
    "NbExchangeStoreFull": (
        {'nbexchange_refusals_total{reason="StoreFull"}': "0x22 1x8"},
        {
            'nbexchange_refusals_total{reason="TooLarge"}': "0+5x30",
            'nbexchange_storage_full{pod="a"}': "1 1 0x30",
        },
    ),
    "NbExchangeStoreNearlyFull": (
        {
            'nbexchange_storage_free_bytes{place="files"}': "9x90",
            'nbexchange_storage_size_bytes{place="files"}': "100x90",
        },
        {
            'nbexchange_storage_free_bytes{place="files"}': "11x90",
            'nbexchange_storage_size_bytes{place="files"}': "100x90",
        },
    ),
    "NbExchangePeopleOutdated": (
        {
            'nbexchange_people_outdated{pod="a"}': "1x30",
            'nbexchange_people_outdated{pod="b"}': "0x30",
        },
        {'nbexchange_people_outdated{pod="a"}': "1 1 1 0x30"},
    ),
    "NbExchangeFails": (
        {
            'nbexchange_requests_total{handler="Submission",status="201"}': "0+90x60",
            'nbexchange_requests_total{handler="Submission",status="503"}': "0+10x60",
        },
        {
            'nbexchange_requests_total{handler="Submission",status="201"}': "0+98x60",
            'nbexchange_requests_total{handler="Submission",status="503"}': "0+2x60",
            'nbexchange_requests_total{handler="Submission",status="429"}': "0+90x60",
            'nbexchange_requests_total{handler="Readyz",status="503"}': "0+90x60",
        },
    ),
    "NbExchangeCrowded": (
        {'nbexchange_connections_closed_total{reason="full"}': "0x22 3x8"},
        {
            'nbexchange_connections_closed_total{reason="slow"}': "0+5x30",
            'nbexchange_connections_closed_total{reason="idle"}': "0+5x30",
        },
    ),
    "NbExchangeSlow": (
        {
            bucket("Collections", "GET", "2.5"): "0+10x60",
            bucket("Collections", "GET", "5"): "0+100x60",
            bucket("Collections", "GET", "+Inf"): "0+100x60",
        },
        {
            bucket("Collections", "GET", "0.1"): "0+100x60",
            bucket("Collections", "GET", "5"): "0+100x60",
            bucket("Collections", "GET", "+Inf"): "0+100x60",
            bucket("Submission", "POST", "0.1"): "0x60",
            bucket("Submission", "POST", "+Inf"): "0+900x60",
        },
    ),
    "NbExchangeDatabaseBusy": (
        {'nbexchange_database_waiting{kind="write"}': "3x60"},
        {'nbexchange_database_waiting{kind="write"}': "9 9 0 9 9 9 0 9 9 0 9 9 9 0x9"},
    ),
    "NbExchangeClocksDiffer": (
        {'nbexchange_database_clock_skew_seconds{pod="a"}': "-3x30"},
        {
            'nbexchange_database_clock_skew_seconds{pod="a"}': "9 9 9 0x30",
            'nbexchange_database_clock_skew_seconds{pod="b"}': "-1.9x30",
        },
    ),
    "NbExchangeOldLitter": (
        {"nbexchange_litter_oldest_seconds": "172860+60x120"},
        {"nbexchange_litter_oldest_seconds": "100000+60x120"},
    ),
    "NbExchangeRestarts": (
        {'process_start_time_seconds{pod="a"}': "1x9 2x9 3x9 4x30"},
        {
            'process_start_time_seconds{pod="a"}': "1x20 2x90",
            'process_start_time_seconds{pod="b"}': "3x90",
        },
    ),
    "NbExchangeOldSchema": (
        {
            'nbexchange_database_schema{state="ahead"}': "1x90",
            'nbexchange_database_schema{state="current"}': "0x90",
        },
        {
            'nbexchange_database_schema{state="ahead"}': "0x90",
            'nbexchange_database_schema{state="current"}': "1x90",
        },
    ),
}


def played(folder: Path, series: dict[str, str], minutes: int) -> dict[str, Any]:
    """A file for `promtool test rules`, without its question."""
    of = 'namespace="jhub",job="nbexchange"'
    named = {
        (name.replace("{", f"{{{of},") if "{" in name else f"{name}{{{of}}}"): values
        for name, values in series.items()
    }
    write(folder / "rules.yaml", {"groups": groups()})
    return {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": name, "values": values} for name, values in named.items()
                ],
                "promql_expr_test": [
                    {
                        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                        "eval_time": f"{minutes}m",
                        "exp_samples": [],
                    }
                ],
            }
        ],
    }


def ready(series: dict[str, str]) -> dict[str, str]:
    """With a replica that is ready, where it is not the question."""
    if any(name.startswith("nbexchange_ready") for name in series):
        return series
    return series | {'nbexchange_ready{pod="ready"}': "1x200"}


def minutes_of(series: dict[str, str]) -> int:
    """The last minute that is told of."""
    return (
        min(
            sum(1 + int(step.partition("x")[2] or 0) for step in values.split())
            for values in series.values()
        )
        - 1
    )


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_fires_when_it_should(alert: str, tmp_path: Path):
    series, _ = ALERTS[alert]
    play = played(tmp_path, ready(series), minutes_of(series))
    play["tests"][0]["promql_expr_test"][0]["exp_samples"] = [
        {"labels": f'{{alertname="{alert}"}}', "value": 1}
    ]

    promtool("test", "rules", write(tmp_path / "test.yaml", play))


@pytest.mark.parametrize("alert", ALERTS)
def test_no_alert_fires_when_nothing_is_wrong(alert: str, tmp_path: Path):
    _, series = ALERTS[alert]
    play = played(tmp_path, ready(series), minutes_of(series))

    promtool("test", "rules", write(tmp_path / "test.yaml", play))


def test_an_exchange_of_which_nothing_is_told_is_away(tmp_path: Path):
    play = played(tmp_path, {"process_start_time_seconds": "1x30"}, 30)
    play["tests"][0]["promql_expr_test"][0]["exp_samples"] = [
        {"labels": '{alertname="NbExchangeAway"}', "value": 1}
    ]

    promtool("test", "rules", write(tmp_path / "test.yaml", play))


def test_every_alert_is_played_and_says_what_it_is_and_what_to_do():
    assert {rule["alert"] for rule in rules()} == set(ALERTS)
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert set(rule["annotations"]) == {"summary", "description", "action"}
        assert all(len(text) > 20 for text in rule["annotations"].values()), rule["alert"]
        assert not any("\n" in text.strip() for text in rule["annotations"].values())


def test_the_operators_page_tells_of_every_alert():
    told = re.findall(r"^### (NbExchange\w+)", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)

    assert sorted(told) == sorted(ALERTS)


# -- the dashboard, and the token


def test_the_dashboard_is_off_until_it_is_asked_for():
    names = {item["metadata"]["name"] for item in helm.render({})}

    assert "nbexchange-dashboard" not in names


def test_grafana_finds_the_dashboard_by_its_label():
    values = helm.changed(
        MONITORED,
        metrics__dashboard__namespace="monitoring",
        metrics__dashboard__annotations={"grafana_folder": "Teaching"},
    )
    usual = helm.one(helm.render(MONITORED), "ConfigMap", "nbexchange-dashboard")["metadata"]
    moved = helm.one(helm.render(values), "ConfigMap", "nbexchange-dashboard")["metadata"]

    assert usual["labels"]["grafana_dashboard"] == "1"
    assert "namespace" not in usual
    assert moved["namespace"] == "monitoring"
    assert moved["annotations"] == {"grafana_folder": "Teaching"}


def test_the_dashboard_is_the_file_of_the_chart():
    assert dashboard() == json.loads((helm.CHART / "dashboards" / "nbexchange.json").read_text())


def test_panels_do_not_cover_each_other_and_say_what_they_show():
    taken: dict[tuple[int, int], str] = {}
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["type"] == "row" or panel["description"].endswith("."), panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, (panel["title"], taken.get((x, y)))
                taken[x, y] = panel["title"]


def test_every_variable_of_the_dashboard_is_one_that_it_has():
    text = json.dumps(dashboard())
    used = set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval", "__all"}

    assert used == {variable["name"] for variable in dashboard()["templating"]["list"]}


def test_the_scrapers_token_comes_from_its_secret_and_the_monitor_shows_it():
    values = helm.changed(
        MONITORED, metrics__existingSecret="scraper", metrics__existingSecretKey="token"
    )
    guarded, open_to_all = helm.render(values), helm.render(MONITORED)

    def endpoint(objects: list[helm.Object]) -> dict[str, Any]:
        (found,) = helm.one(objects, "ServiceMonitor")["spec"]["endpoints"]
        return dict(found)

    variables = helm.environment(helm.pod(guarded)["containers"][0])
    assert variables["NBEXCHANGE_METRICS_TOKEN"] == ("scraper", "token")
    assert endpoint(guarded)["authorization"] == {
        "credentials": {"name": "scraper", "key": "token"}
    }
    assert "authorization" not in endpoint(open_to_all)
    assert "NBEXCHANGE_METRICS_TOKEN" not in helm.environment(
        helm.pod(open_to_all)["containers"][0]
    )
    assert endpoint(open_to_all)["path"] in dict(MACHINES)
