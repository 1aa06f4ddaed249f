"""values.yaml, its schema, its table in the README and the file that sets everything agree."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from helm_python import Chart, HelmValuesError, package, values_from_yaml

from tests.chart import helm, readme

KUBERNETES_OWN_WORDS = {
    "affinity",
    "global",
    "lifecycle",
    "storage.options",  # obstore's
}
"""Objects whose keys are not ours to know."""

Path = tuple[str, ...]


def objects(of: dict[str, Any], path: Path = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every object that the schema describes, with its place among the values."""
    if of.get("type") == "object":
        yield path, of
        for name, inner in of.get("properties", {}).items():
            yield from objects(inner, (*path, name))


def leaves(of: dict[str, Any], path: Path = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    for name, inner in of.get("properties", {}).items():
        yield (*path, name), inner
        yield from leaves(inner, (*path, name))


def at(values: Any, path: Path) -> Any:
    for name in path:
        values = values[name]
    return values


def with_properties() -> list[Path]:
    return [path for path, of in objects(readme.schema()) if of.get("properties")]


@pytest.mark.parametrize("path", with_properties(), ids=lambda path: ".".join(path) or "top")
def test_a_value_that_nobody_knows_is_refused(path):
    values = copy.deepcopy(helm.read("everything.yaml"))
    at(values, path)["Unknown!"] = "x"

    with pytest.raises(HelmValuesError, match="Unknown!"):
        helm.check_values(values)


def test_every_object_refuses_what_it_does_not_know():
    for path, of in objects(readme.schema()):
        name = ".".join(path)
        if name not in KUBERNETES_OWN_WORDS:
            assert of["additionalProperties"] is not True, name
        if of.get("properties"):
            assert of["additionalProperties"] is False, name


def test_every_value_is_described_and_has_a_default():
    defaults = readme.defaults()
    for path, of in leaves(readme.schema()):
        assert of["description"].endswith("."), path
        assert at(defaults, path) is not None, path


def test_everything_is_set_in_the_file_that_says_so():
    everything = helm.read("everything.yaml")
    for path, _ in leaves(readme.schema()):
        assert at(everything, path) is not None, path


@pytest.mark.parametrize(
    "values",
    [
        {"replicas": "3"},
        {"replicas": -1},
        {"image": {"digest": "latest"}},
        {"baseUrl": "exchange"},
        {"persistence": {"accessMode": "ReadWriteOften"}},
        {"securityContext": {"runAsUser": 0}},
        {"config": {"nbexchange": {}}},
        {"config": {"NbExchange": {"a b": 1}}},
        {"config": {"NbExchange": {"__class__": 1}}},
        {"config": {"NbExchange": {"stop_grace": "20"}}},
        {"extraConfig": {"a\nimport os": ""}},
        {"extraEnv": {"A": 1}},
        {"extraEnv": {"A": {"value": "x"}}},
        {"storage": {"url": "file:///tmp"}},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(values):
    with pytest.raises(HelmValuesError):
        helm.check_values(values)


def test_yaml_and_json_mean_the_same():
    text = (helm.HERE / "everything.yaml").read_text()

    assert helm.render(values_from_yaml(text)) == helm.render(helm.read("everything.yaml"))


def test_the_readme_has_the_table_that_the_schema_makes():
    _, between, _ = readme.parts()

    assert between == readme.table(), "run python -m tests.chart.readme"


def test_a_packaged_chart_renders_the_same(tmp_path):
    with Chart.load(package(helm.CHART, destination=tmp_path)) as chart:
        rendered = chart.render({}, name="nbexchange", namespace="jhub")
        files = {file["name"] for file in chart.files}

    assert {name.rpartition("/")[2]: text for name, text in rendered.items()} == helm.texts({})
    assert {"README.md", "dashboards/nbexchange.json"} <= files
