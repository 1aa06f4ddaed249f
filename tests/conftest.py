from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbexchange.database import Database
from tests.support.service import Service


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with the schema and nothing in it; making one takes a quarter of a second."""
    file = tmp_path_factory.mktemp("template") / "nbexchange.sqlite"
    database = Database(f"sqlite:///{file}")
    database.prepare()
    database.close()
    return file


@pytest.fixture
def data(tmp_path: Path, empty_database: Path) -> Path:
    """The data directory of a service that has not started yet."""
    directory = tmp_path / "data"
    directory.mkdir()
    shutil.copy(empty_database, directory)
    return directory


@pytest.fixture
def service(data: Path) -> Iterator[Service]:
    """A running service that nobody has used yet."""
    with Service(data) as running:
        yield running
