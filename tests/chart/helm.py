"""The chart as the real Helm engine renders it."""

from __future__ import annotations

import base64
import copy
from pathlib import Path
from typing import Any

import yaml
from helm_python import Chart

CHART = Path(__file__).parents[2] / "chart"
HERE = Path(__file__).parent

Object = dict[str, Any]

_chart = Chart.load(CHART)


class Strict(yaml.SafeLoader):
    """YAML in which a key that is said twice is an error, as it is for Kubernetes."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        assert not twice, f"said twice: {twice}"
        return super().construct_mapping(node, deep)


def read(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.load((HERE / name).read_text(), Strict)
    return values


def texts(values: dict[str, Any], release: str = "nbexchange") -> dict[str, str]:
    """Each template and what became of it; NOTES.txt too."""
    rendered = _chart.render(values=values, name=release, namespace="jhub")
    return {Path(name).name: text for name, text in rendered.items()}


def render(values: dict[str, Any], release: str = "nbexchange") -> list[Object]:
    """The objects that Kubernetes gets."""
    objects = []
    for name, text in texts(values, release).items():
        if not name.endswith(".txt"):
            objects += [found for found in yaml.load_all(text, Strict) if found]
    return objects


def one(objects: list[Object], kind: str, name: str = "nbexchange") -> Object:
    found = [item for item in objects if item["kind"] == kind and item["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} times {kind} {name}"
    return found[0]


def secret(objects: list[Object], name: str = "nbexchange-config") -> dict[str, str]:
    """What is in a Secret, as a pod reads it."""
    data = one(objects, "Secret", name)["data"]
    return {key: base64.b64decode(text, validate=True).decode() for key, text in data.items()}


def kinds(objects: list[Object]) -> set[str]:
    return {item["kind"] for item in objects}


def pod(objects: list[Object], name: str = "nbexchange") -> Object:
    """The pod of the service."""
    spec: Object = one(objects, "Deployment", name)["spec"]["template"]["spec"]
    return spec


def environment(container: Object) -> dict[str, Any]:
    """Variables and their values; for a Secret its name and key."""
    given = {}
    for variable in container.get("env", []):
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        given[variable["name"]] = (
            (reference["name"], reference["key"]) if reference else variable["value"]
        )
    return given


def check_values(values: dict[str, Any]) -> None:
    """Raises HelmValuesError for what the schema refuses."""
    _chart.validate_schema(values)


def changed(values: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A copy with other values; `a__b=1` is `{"a": {"b": 1}}`."""
    result = copy.deepcopy(values)
    for path, value in more.items():
        *outer, last = path.split("__")
        place = result
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = value
    return result
