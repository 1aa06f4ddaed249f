"""The numbers that a service tells Prometheus."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.support.course import metrics
from tests.support.service import Service


class Numbers:
    """One reading of `metrics`."""

    def __init__(self, service: Service) -> None:
        self.page = metrics(service.wire(None))
        self.families = list(text_string_to_metric_families(self.page))
        self.samples: list[Sample] = [
            sample for family in self.families for sample in family.samples
        ]

    def all(self, name: str, **labels: str) -> dict[tuple[str, ...], float]:
        """The series with these labels: the values of their other labels -> the number."""
        return {
            tuple(value for label, value in sample.labels.items() if label not in labels): (
                sample.value
            )
            for sample in self.samples
            if sample.name == name and sample.labels.items() >= labels.items()
        }

    def get(self, name: str, **labels: str) -> float:
        """The sum of the series with these labels; 0 where there is none."""
        return sum(self.all(name, **labels).values())
