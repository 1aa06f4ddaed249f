"""JupyterLab's page below a real hub, whose own settings of the page must stay."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.hub import Hub

CONFIG = """
import json

roles = {"alice": "Student", "ada": "Instructor"}
c.Spawner.environment = {
    "NBEXCHANGE_COURSES": lambda spawner: json.dumps({"physics": roles[spawner.user.name]})
}
"""


def page_config(hub: Hub, name: str, page: str) -> dict[str, Any]:
    url = hub.spawn(name)
    token = hub.token(name, [f"access:servers!user={name}"])
    text = requests.get(f"{url}/{page}", headers={"Authorization": f"token {token}"}).text
    (config,) = re.findall(r'id="jupyter-config-data"[^>]*>(.*?)</script>', text, re.DOTALL)
    return json.loads(config)


@pytest.mark.slow
def test_users_see_only_the_pages_that_they_can_use(tmp_path: Path):
    with Hub(tmp_path / "hub", CONFIG) as hub:
        alices = page_config(hub, "alice", "lab")
        adas = page_config(hub, "ada", "lab")

    assert alices["disabledExtensions"] == [
        f"@jupyter/nbgrader:{one}" for one in ("formgrader", "create-assignment", "course-list")
    ]
    # Below a hub it would be an empty frame; Course List opens it in a tab.
    assert adas["disabledExtensions"] == ["@jupyter/nbgrader:formgrader"]
    assert (alices["hubServerUser"], adas["hubServerUser"]) == ("alice", "ada")
