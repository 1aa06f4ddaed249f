"""A real Prometheus reads a real service as the ServiceMonitor says, with the chart's rules."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from traitlets.config import Config

from tests.chart import helm
from tests.chart.test_monitoring import ALERTS, MONITORED, groups, shown
from tests.support.archives import tar_gz
from tests.support.course import PS1, receipt, release, submit
from tests.support.parts import PATIENCE, free_port, needs
from tests.support.process import wait_until
from tests.support.service import Service

TOKEN = "sesame"


class Prometheus:
    """Asks a service every second, and answers questions."""

    def __init__(self, folder: Path, service: Service) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{free_port()}"
        (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups()}))
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(self._config(service)))

    def _config(self, service: Service) -> dict[str, Any]:
        """What the operator of Prometheus makes of our objects."""
        values = helm.changed(MONITORED, metrics__existingSecret="scraper")
        (endpoint,) = helm.one(helm.render(values), "ServiceMonitor")["spec"]["endpoints"]
        assert endpoint["authorization"]["credentials"]["name"] == "scraper"
        target = {
            "targets": [f"127.0.0.1:{service.port}"],
            "labels": {"namespace": "jhub", "pod": "nbexchange-0"},
        }
        return {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [
                {
                    "job_name": "nbexchange",
                    "metrics_path": endpoint["path"],
                    "authorization": {"credentials": TOKEN},
                    "static_configs": [target],
                }
            ],
        }

    def __enter__(self) -> Prometheus:
        self._log = (self.folder / "log").open("wb")
        self._process = subprocess.Popen(
            [
                needs("prometheus"),
                f"--config.file={self.folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={self.folder / 'tsdb'}",
                f"--web.listen-address={self.address}",
            ],
            stdout=self._log,
            stderr=self._log,
        )
        try:
            wait_until(self._is_ready, "Prometheus")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)
        self._log.close()

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, (self.folder / "log").read_text()
        try:
            return requests.get(f"http://{self.address}/-/ready", timeout=PATIENCE).ok
        except requests.ConnectionError:
            return False

    def ask(self, path: str, **params: str) -> Any:
        answer = requests.get(
            f"http://{self.address}/api/v1/{path}", params=params, timeout=PATIENCE
        ).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def value(self, expression: str) -> list[Any]:
        found: list[Any] = self.ask("query", query=expression)["result"]
        return found


@pytest.fixture
def service(data: Path) -> Iterator[Service]:
    config = Config()
    config.NbExchange.metrics_token = TOKEN
    with Service(data, config) as running:
        yield running


@pytest.mark.slow
def test_every_panel_shows_something_and_every_rule_is_asked(service: Service, tmp_path: Path):
    panels = list(shown())
    ada, bob = service.instructor(), service.student()
    receipt(release(ada))

    def something_happens() -> None:
        receipt(submit(bob, tar_gz(p1=b"{}")))
        for path in ("assignments", "collections", "feedback", "history", "readyz"):
            bob.get(path, **PS1)
        release(bob)

    def panels_without_anything() -> set[str]:
        something_happens()
        return {title for title, expression in panels if not prometheus.value(expression)}

    with Prometheus(tmp_path, service) as prometheus:
        wait_until(lambda: not panels_without_anything(), "something in every panel")
        wait_until(lambda: all(rule["health"] == "ok" for rule in rules_of(prometheus)), "rules")
        rules = rules_of(prometheus)

    assert {rule["name"] for rule in rules} == set(ALERTS)
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []


def rules_of(prometheus: Prometheus) -> list[dict[str, Any]]:
    (group,) = prometheus.ask("rules")["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found
