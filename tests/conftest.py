from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from nbexchange.database import Database
from tests.support import databases, places
from tests.support.service import Service

# How long an example takes is a property of the machine.
settings.register_profile("ours", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ours")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is true of SQLite or of a disk alone is no question for a run with others."""
    others = [kind for kind in ("sqlite", "disk") if kind not in (databases.KIND, places.KIND)]
    gone = [item for item in items if any(item.get_closest_marker(name) for name in others)]
    config.hook.pytest_deselected(items=gone)
    items[:] = [item for item in items if item not in gone]


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with the schema and nothing in it; making one takes a quarter of a second."""
    file = tmp_path_factory.mktemp("template") / "nbexchange.sqlite"
    database = Database(f"sqlite:///{file}")
    database.prepare()
    database.close()
    return file


@pytest.fixture
def data(tmp_path: Path, empty_database: Path) -> Iterator[Path]:
    """The data directory of a service that has not started yet."""
    directory = tmp_path / "data"
    directory.mkdir()
    if databases.KIND == "sqlite":
        shutil.copy(empty_database, directory)
    yield directory
    databases.give_back(directory)


@pytest.fixture
def service(data: Path) -> Iterator[Service]:
    """A running service that nobody has used yet."""
    with Service(data) as running:
        yield running
