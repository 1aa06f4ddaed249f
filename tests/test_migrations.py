"""The schema: what the migrations make is what the models say, on every database."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect

from nbexchange.database import Database
from nbexchange.database import schema as schema_module
from nbexchange.errors import Misconfigured
from nbexchange.models import Base
from tests.support import course, databases
from tests.support.course import receipt, release, submit
from tests.support.databases import SERVERS
from tests.support.process import FaultyService


@pytest.fixture(params=["sqlite", *SERVERS])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of nobody else, with nothing in it."""
    url = databases.create(request.param, tmp_path)
    yield url
    databases.drop(url)


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.close()


def test_the_migrations_make_what_the_models_say(database: Database) -> None:
    database.schema.upgrade()

    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, Base.metadata)
    assert differences == []


def test_every_constraint_has_the_name_that_the_models_give_it(database: Database) -> None:
    database.schema.upgrade()
    inspector = inspect(database.engine)

    for table in Base.metadata.tables.values():
        said = {str(constraint.name) for constraint in table.constraints} - {f"pk_{table.name}"}
        found = {found["name"] for found in inspector.get_unique_constraints(table.name)}
        found |= {found["name"] for found in inspector.get_foreign_keys(table.name)}
        assert said <= found, table.name


def test_a_schema_goes_down_and_up_again(database: Database) -> None:
    database.schema.upgrade()
    config = schema_module.alembic_config()
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert database.schema.state() == "empty"

    database.schema.upgrade()
    assert database.schema.state() == "current"


def test_upgrading_twice_changes_nothing(database: Database) -> None:
    database.schema.upgrade()
    database.schema.upgrade()

    assert database.schema.state() == "current"


# -- what a start makes of a schema


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "nbexchange.sqlite"


def prepared(file: Path, **how: bool) -> str:
    database = Database(f"sqlite:///{file}")
    try:
        database.prepare(**how)
        return database.schema.state()
    finally:
        database.close()


def set_revision(file: Path, revision: str) -> None:
    connection = sqlite3.connect(file)
    with connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    connection.close()


@pytest.fixture
def newer_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version of the program that has one more migration than is there today."""
    original = schema_module.migrations()
    copy = tmp_path / "migrations"
    (copy / "versions").mkdir(parents=True)
    for script in [original / "env.py", *(original / "versions").glob("*.py")]:
        (copy / script.relative_to(original)).write_text(script.read_text())
    (head,) = prepared_heads()
    (copy / "versions" / "9999_one_more.py").write_text(
        f'revision = "9999"\ndown_revision = "{head}"\n'
        "from alembic import op\nimport sqlalchemy as sa\n"
        'def upgrade(): op.create_table("one_more", sa.Column("id", sa.Integer()))\n'
        'def downgrade(): op.drop_table("one_more")\n'
    )
    monkeypatch.setattr(schema_module, "migrations", lambda: copy)


def prepared_heads() -> list[str]:
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(schema_module.alembic_config()).get_heads()


def test_a_new_sqlite_file_gets_its_schema(file: Path) -> None:
    assert prepared(file) == "current"


@pytest.mark.usefixtures("newer_code")
def test_an_old_schema_is_refused_with_the_words_that_mend_it(data: Path, file: Path) -> None:
    file.write_bytes((data / "nbexchange.sqlite").read_bytes())

    with pytest.raises(Misconfigured, match=r"back it up.*nbexchange upgrade-db.*--upgrade-db"):
        prepared(file)
    with pytest.raises(Misconfigured):
        prepared(file)


@pytest.mark.usefixtures("newer_code")
def test_upgrade_db_mends_an_old_schema_and_keeps_the_rows(data: Path, file: Path) -> None:
    file.write_bytes((data / "nbexchange.sqlite").read_bytes())
    connection = sqlite3.connect(file)
    with connection:
        connection.execute("INSERT INTO course (org_id, course_id) VALUES (1, 'physics')")

    assert prepared(file, upgrade=True) == "current"
    assert connection.execute("SELECT course_id FROM course").fetchall() == [("physics",)]
    assert connection.execute("SELECT count(*) FROM one_more").fetchone() == (0,)
    connection.close()


def test_a_schema_of_a_newer_version_is_refused_and_not_touched(file: Path) -> None:
    prepared(file)
    set_revision(file, "f00d")
    before = file.read_bytes()

    with pytest.raises(Misconfigured, match="newer"):
        prepared(file)
    assert file.read_bytes() == before


def test_only_an_sqlite_file_gets_its_tables_without_being_asked(
    url: str, database: Database
) -> None:
    if database.is_sqlite:
        database.prepare()
    else:
        with pytest.raises(Misconfigured, match="nbexchange upgrade-db"):
            database.prepare()
        database.prepare(upgrade=True)

    assert database.schema.state() == "current"


def test_many_that_start_on_one_new_file_at_once_all_start(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    services = [FaultyService(data) for _ in range(4)]
    starting = [threading.Thread(target=service.start) for service in services]

    for thread in starting:
        thread.start()
    for thread in starting:
        thread.join()

    try:
        first, *_, last = services
        receipt(release(first.instructor()))
        assert receipt(submit(last.student()))["version"] == 1
        for service in services:
            assert service.student().get("readyz").status_code == 200
        assert len(course.rows(first, "submission")) == 1
    finally:
        for service in services:
            service.kill()


def test_many_upgrades_of_one_new_file_at_once_make_one_schema(file: Path) -> None:
    failures: list[BaseException] = []

    def upgrade() -> None:
        try:
            assert prepared(file) == "current"
        except Exception as error:  # noqa: BLE001 (whatever it is, the test shows it)
            failures.append(error)

    threads = [threading.Thread(target=upgrade) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
