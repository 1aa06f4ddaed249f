"""The Dockerfiles and docker-compose.yml, as far as they can be tried without an engine."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
import yaml

from tests.image.recipes import (
    CHART,
    DOCKERFILES,
    PARTS,
    PEOPLE,
    PROGRAMS,
    PROJECT,
    TOP,
    compose_file,
    env_file,
)

OURS = ("nbexchange", "upgrade-db")
SERVERS = {"mariadb": "mariadb", "postgresql": "postgresql", "s3": "store"}


@pytest.fixture(scope="module", params=PARTS.values(), ids=PARTS)
def parts(request) -> list[str]:
    return request.param


@pytest.fixture(scope="module")
def services(tmp_path_factory, parts):
    return compose_file(tmp_path_factory.mktemp("compose"), parts)["services"]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_has_nothing_to_say(name):
    said = subprocess.run(
        [PROGRAMS / "hadolint", TOP / name], capture_output=True, text=True, check=False
    )

    assert said.returncode == 0, said.stdout


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.notebook"])
def test_nothing_of_a_machine_is_in_a_dockerfile(name):
    content = (TOP / name).read_text()

    assert not re.search(r"index-url|find-links|trusted-host|\.crt|\.pem|http_proxy", content, re.I)


def test_a_part_is_there_only_if_somebody_asks_for_it(services, parts):
    asked = {server for part, server in SERVERS.items() if part in parts}
    if "s3" in parts:
        asked.add("bucket")

    assert set(services) == {*OURS, *asked}


def test_our_containers_may_do_nothing_but_serve(services):
    for name in OURS:
        service = services[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not service.get("privileged")
        assert [mount for mount in service["volumes"] if not mount.endswith(":ro")] == [
            "data:/srv/nbexchange"
        ]


def test_no_part_gets_new_privileges(services):
    assert all("no-new-privileges:true" in one["security_opt"] for one in services.values())


def test_a_port_is_open_to_this_machine_alone(services):
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}

    assert ports == {"nbexchange": ["127.0.0.1:9000:9000"]}


def test_the_schema_is_made_before_the_first_replica_and_after_the_database(services, parts):
    waits = services["nbexchange"]["depends_on"]
    assert waits["upgrade-db"]["condition"] == "service_completed_successfully"
    assert services["upgrade-db"]["command"] == ["upgrade-db"]
    for database in {"mariadb", "postgresql"} & set(parts):
        before = services["upgrade-db"]["depends_on"][database]
        assert before["condition"] == "service_healthy"
        assert services[database]["healthcheck"]["test"]
    if "s3" in parts:
        assert waits["bucket"]["condition"] == "service_completed_successfully"
        assert services["bucket"]["depends_on"]["store"]["condition"] == "service_healthy"


def test_service_and_servers_have_the_same_secrets(services, parts):
    for database in {"mariadb", "postgresql"} & set(parts):
        theirs = services[database]["environment"]
        (password,) = {value for name, value in theirs.items() if name.endswith("_PASSWORD")} - {
            "yes"
        }
        for name in OURS:
            url = services[name]["environment"]["NBEX_DB_URL"]
            assert url.endswith(f"nbexchange:{password}@{database}/nbexchange")
    if "s3" in parts:
        ours, theirs = services["nbexchange"]["environment"], services["store"]["environment"]
        assert ours["AWS_SECRET_ACCESS_KEY"] == theirs["ROOT_SECRET_KEY"]
        assert ours["AWS_ACCESS_KEY_ID"] == theirs["ROOT_ACCESS_KEY"]
        assert len(theirs["ROOT_SECRET_KEY"]) >= 32


def test_no_secret_is_in_the_file_itself():
    content = (TOP / "docker-compose.yml").read_text()

    for name, value in re.findall(r"(\w*(?:PASSWORD|SECRET_\w+|KEYS)): (\S+)", content):
        assert value.startswith("${") or name == "MARIADB_RANDOM_ROOT_PASSWORD", name


def test_nobody_gets_the_same_passwords(tmp_path):
    first = env_file(tmp_path, ["mariadb", "s3"]).read_text()
    second = env_file(tmp_path, ["mariadb", "s3"]).read_text()

    secrets = [set(re.findall(r"=(?:\S*:)?([0-9a-f]{48})", made)) for made in (first, second)]
    assert len(secrets[0]) == 2
    assert not secrets[0] & secrets[1]


@pytest.mark.parametrize("parts", [["oracle"], ["mariadb", "postgresql"]], ids=" ".join)
def test_parts_that_make_no_sense_are_refused_in_words(parts):
    said = subprocess.run(
        [TOP / "scripts" / "compose-env", *parts], capture_output=True, text=True, check=False
    )

    assert said.returncode == 2
    assert "mariadb or postgresql" in said.stderr
    assert not said.stdout


def test_the_sample_people_are_an_instructor_and_a_student_and_look_like_samples():
    people = json.loads(PEOPLE.read_text())

    assert len(people) == 2
    assert all(token.startswith("sample-") and "replace-me" in token for token in people)
    assert [person["courses"] for person in people.values()] == [
        {"demo": "Instructor"},
        {"demo": "Student"},
    ]


def test_compose_and_the_chart_run_this_version(tmp_path):
    version = PROJECT["version"]

    assert compose_file(tmp_path, [])["services"]["nbexchange"]["image"] == f"nbexchange:{version}"
    assert yaml.safe_load((TOP / "chart" / "Chart.yaml").read_text())["appVersion"] == version
    assert CHART["image"]["repository"] == "nbexchange"
