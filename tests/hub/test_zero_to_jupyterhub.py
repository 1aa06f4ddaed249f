"""The values in examples/zero-to-jupyterhub, as far as they can be tried without a cluster."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

TOP = Path(__file__).parents[2]
EXAMPLE = TOP / "examples" / "zero-to-jupyterhub"
HUB = TOP / "nbexchange" / "hub"
README = (EXAMPLE / "README.md").read_text()
MOUNTED = "/usr/local/etc/jupyterhub"

RUN = """
import json, sys
from types import SimpleNamespace
from traitlets.config import Config

c = Config()
for name, section in {config!r}.items():
    c[name].update(section)
# As the chart does, before it runs extraConfig.
c.JupyterHub.services = [{service!r}]
c.JupyterHub.load_roles = []
c.KubeSpawner.environment = {{"FROM_THE_CHART": "kept"}}
for name, code in sorted({extra!r}.items()):
    exec(compile(code, name, "exec"))


def person(name, *groups):
    groups = [SimpleNamespace(name=group) for group in groups]
    return SimpleNamespace(user=SimpleNamespace(name=name, groups=groups))


teacher = person("t", "formgrade-physics", "nbgrader-art")
student = person("s", "nbgrader-physics")
environment = c.KubeSpawner.environment
print(json.dumps({{
    "module": sys.modules["nbexchange_hub"].__file__,
    "services": c.JupyterHub.services,
    "scopes": list(c.Spawner.server_token_scopes),
    "courses": environment["NBEXCHANGE_COURSES"](teacher),
    "kept": environment["FROM_THE_CHART"],
    "hook": callable(c.Authenticator.post_auth_hook),
    "images": {{
        one.user.name: [
            profile["kubespawner_override"]["image"] for profile in c.KubeSpawner.profile_list(one)
        ]
        for one in (teacher, student)
    }},
}}))
"""


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    return yaml.safe_load((EXAMPLE / "values.yaml").read_text())


def test_every_file_of_the_hub_side_is_mounted(values: dict[str, Any]) -> None:
    mounted = {file["mountPath"] for file in values["hub"]["extraFiles"].values()}

    files = [*HUB.glob("*.py"), *HUB.glob("templates/*")]
    assert mounted == {f"{MOUNTED}/nbexchange_hub/{file.relative_to(HUB)}" for file in files}


def test_the_command_in_the_readme_fills_in_each_of_them(values: dict[str, Any]) -> None:
    command = re.search(r"^(files=.*?done\))$", README, re.DOTALL | re.MULTILINE)
    assert command

    said = subprocess.run(
        ["bash", "-euc", f'{command[1]}; printf %s "$files"'],
        cwd=EXAMPLE,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    filled = dict(re.findall(r"--set-file hub\.extraFiles\.(\S+?)\.stringData=(\S+)", said))
    assert {key: Path(file).name for key, file in filled.items()} == {
        key: Path(file["mountPath"]).name for key, file in values["hub"]["extraFiles"].items()
    }


def test_the_values_configure_a_hub(values: dict[str, Any], tmp_path: Path) -> None:
    package = tmp_path / "nbexchange_hub"
    package.mkdir()
    for file in HUB.glob("*.py"):
        (package / file.name).write_bytes(file.read_bytes())
    extra = {
        name: code.replace(MOUNTED, str(tmp_path))
        for name, code in values["hub"]["extraConfig"].items()
    }
    service = {"name": "nbexchange", "api_token": "made by the chart"}
    program = RUN.format(
        config=values["hub"]["config"],
        service=service | values["hub"]["services"]["nbexchange"],
        extra=extra,
    )

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["module"].startswith(str(tmp_path))
    assert told["services"] == [service | values["hub"]["services"]["nbexchange"]]
    assert "access:services!service=nbexchange" in told["scopes"]
    assert json.loads(told["courses"]) == {"physics": "Instructor", "art": "Student"}
    assert told["kept"] == "kept"
    assert told["hook"]
    assert {image.partition(":")[0] for image in told["images"]["t"]} == {
        "REGISTRY/notebook-teaching"
    }
    assert {image.partition(":")[0] for image in told["images"]["s"]} == {"REGISTRY/notebook"}
