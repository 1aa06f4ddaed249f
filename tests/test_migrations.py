"""The schema: what the migrations make is what the models say, on every database."""

from __future__ import annotations

import datetime
import itertools
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    Connection,
    Engine,
    MetaData,
    event,
    exc,
    inspect,
    make_url,
    select,
    text,
)

from nbexchange.database import Database
from nbexchange.database import schema as schema_module
from nbexchange.errors import Misconfigured, Unavailable
from nbexchange.models import Base
from tests.support import course, databases
from tests.support.course import receipt, release, submit
from tests.support.databases import SERVERS
from tests.support.process import FaultyService, forked, run_program
from tests.support.service import PATIENCE


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
    # SQLite's PRAGMAs go by the schema that a connection has read before.
    database.engine.dispose()
    inspector = inspect(database.engine)

    for table in Base.metadata.tables.values():
        said = {str(constraint.name) for constraint in table.constraints} - {f"pk_{table.name}"}
        found = {found["name"] for found in inspector.get_unique_constraints(table.name)}
        found |= {found["name"] for found in inspector.get_foreign_keys(table.name)}
        assert said <= found, table.name


@pytest.fixture(params=["postgresql", "mariadb"])
def poor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Engine]]:
    """The URL of an account that may read a new database and create nothing; its administrator."""
    kind, name = request.param, f"poor_{secrets.token_hex(4)}"
    url = databases.create(kind, tmp_path)
    administrator = databases.administrator_of(url)
    database = make_url(url).database
    begin = {
        "postgresql": [
            f"CREATE ROLE {name} LOGIN PASSWORD 'p'",
            "REVOKE CREATE ON SCHEMA public FROM PUBLIC",  # as new servers have it since 15
        ],
        "mariadb": [
            f"CREATE USER '{name}'@'%' IDENTIFIED BY 'p'",
            f"GRANT SELECT ON {database}.* TO '{name}'@'%'",
        ],
    }
    end = {"postgresql": f"DROP ROLE {name}", "mariadb": f"DROP USER '{name}'@'%'"}
    with administrator.connect() as connection:
        for statement in begin[kind]:
            connection.execute(text(statement))
    poor = make_url(url).set(username=name, password="p")
    yield poor.render_as_string(hide_password=False), administrator
    administrator.dispose()
    databases.drop(url)
    with databases.server(kind).connect() as connection:
        connection.execute(text(end[kind]))


def test_an_account_that_may_not_create_gets_the_statement_that_lets_it(
    poor: tuple[str, Engine],
) -> None:
    url, administrator = poor

    refused = run_program("upgrade-db", f"--NbExchange.db_url={url}")
    (line,) = refused.stderr.splitlines()[-1:]
    statement = line[line.index("GRANT ") :]
    with administrator.connect() as connection:
        connection.execute(text(statement))
    accepted = run_program("upgrade-db", f"--NbExchange.db_url={url}")

    assert refused.returncode == 1
    assert line.startswith("nbexchange: The database refuses to change the schema (")
    assert "Traceback" not in refused.stderr
    assert accepted.returncode == 0, accepted.stderr


# -- up and down, with rows in it


def revisions() -> list[str]:
    """From the oldest on."""
    script = ScriptDirectory.from_config(schema_module.alembic_config())
    return [revision.revision for revision in script.walk_revisions()][::-1]


NOW = datetime.datetime(2026, 11, 20, 12, 0, 0, 123456)
TEXT = '"Zoë 😀"'  # JSON too, which is text in MariaDB
SAMPLE = {
    str: TEXT,
    bytes: TEXT.encode(),
    int: 1,
    bool: True,
    datetime.datetime: NOW,
    object: ["p1", "é"],
}


def fill(database: Database) -> None:
    """One row in every table there is, whatever its columns."""
    with database.engine.begin() as connection:
        for table in tables(connection).sorted_tables:
            columns = [column for column in table.columns if column.name != "id"]
            row = {column.name: SAMPLE[column.type.python_type] for column in columns}
            connection.execute(table.insert().values(row))


def tables(connection: Connection) -> MetaData:
    found = MetaData()
    found.reflect(connection)
    for name in {"alembic_version", *databases.WRITTEN_BY_MIGRATIONS} & found.tables.keys():
        found.remove(found.tables[name])
    return found


def contents(database: Database) -> dict[str, list[Any]]:
    with database.engine.connect() as connection:
        return {
            table.name: [dict(row) for row in connection.execute(select(table)).mappings()]
            for table in tables(connection).sorted_tables
        }


def test_a_schema_goes_down_and_up_again_and_keeps_its_rows(database: Database) -> None:
    oldest = revisions()[0]
    database.schema.upgrade(oldest)
    fill(database)
    before = contents(database)

    database.schema.upgrade()
    up = contents(database)
    database.schema.downgrade(oldest)
    down = contents(database)
    database.schema.upgrade()

    assert all(before.values())
    assert {name: up[name] for name in before} == before
    assert down == before
    assert database.schema.state() == "current"
    database.schema.downgrade("base")
    assert database.schema.state() == "empty"


@pytest.mark.slow
def test_a_migration_that_is_killed_at_any_statement_is_run_again(
    url: str, database: Database
) -> None:
    kills = killed_at_every_statement(url, "upgrade", "head")
    assert database.schema.state() == "current"
    fill(database)
    before = contents(database)
    kills += killed_at_every_statement(url, "downgrade", revisions()[0])
    kills += killed_at_every_statement(url, "upgrade", "head")

    after = contents(database)
    assert kills > 20, "the fail points do not work"
    assert {name: after[name] for name in FIRST_TABLES} == {n: before[n] for n in FIRST_TABLES}
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


FIRST_TABLES = ("course", "user", "assignment", "subscription", "event", "release", "submission")


def killed_at_every_statement(url: str, direction: str, revision: str) -> int:
    """Migrate, with a kill at the first statement that changes something, then at the second..."""
    for number in itertools.count(1):
        process = forked.Process(target=migrate_and_die, args=(url, direction, revision, number))
        process.start()
        process.join(PATIENCE)
        if process.exitcode == 0:
            return number - 1
        assert process.exitcode == 9, process.exitcode
    raise AssertionError


def migrate_and_die(url: str, direction: str, revision: str, number: int) -> None:
    left = itertools.count(number, -1)

    def step(*said: Any) -> None:
        if not said[2].lstrip().startswith(("SELECT", "SHOW", "PRAGMA")) and next(left) == 1:
            os._exit(9)

    event.listen(Engine, "before_cursor_execute", step)
    getattr(Database(url).schema, direction)(revision)


def test_tables_of_somebody_else_are_not_taken_for_ours(url: str, database: Database) -> None:
    with database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE course (id INTEGER)"))

    with pytest.raises((exc.DBAPIError, Unavailable)):
        database.schema.upgrade()
    assert database.schema.state() == "empty"


def test_many_that_upgrade_at_once_make_one_schema(url: str, database: Database) -> None:
    upgrades = [
        forked.Process(target=migrate_and_die, args=(url, "upgrade", "head", 0)) for _ in range(4)
    ]
    for process in upgrades:
        process.start()
    for process in upgrades:
        process.join(PATIENCE)

    assert [process.exitcode for process in upgrades] == [0] * 4
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


NEWER = """\
revision = "9999"
down_revision = {head!r}
import sqlalchemy as sa
from alembic import op

def upgrade():
    op.create_table("one_more", sa.Column("id", sa.Integer()))
    op.add_column("submission", sa.Column("one_more", sa.Text()))
    {rest}

def downgrade():
    op.drop_table("one_more")
    op.drop_column("submission", "one_more")
"""


@pytest.fixture(params=["pass"])
def newer_code(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version of the program that has one more migration than is there today."""
    original = schema_module.migrations()
    copy = tmp_path / "migrations"
    (copy / "versions").mkdir(parents=True)
    for script in [original / "env.py", *(original / "versions").glob("*.py")]:
        (copy / script.relative_to(original)).write_text(script.read_text())
    script = NEWER.format(head=revisions()[-1], rest=request.param)
    (copy / "versions" / "9999_one_more.py").write_text(script)
    monkeypatch.setattr(schema_module, "migrations", lambda: copy)


def test_a_new_sqlite_file_gets_its_schema(file: Path) -> None:
    assert prepared(file) == "current"


@pytest.mark.usefixtures("newer_code")
def test_an_old_schema_is_refused_with_the_words_that_mend_it(data: Path, file: Path) -> None:
    file.write_bytes((data / "nbexchange.sqlite").read_bytes())

    with pytest.raises(Misconfigured, match=r"Back it up.*nbexchange upgrade-db.*--upgrade-db"):
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


def test_a_schema_that_is_not_known_is_refused_and_not_touched(file: Path) -> None:
    prepared(file)
    set_revision(file, "f00d")
    connection = sqlite3.connect(file)
    with connection:
        connection.execute("UPDATE compatibility SET oldest = 'f00d'")
    connection.close()
    before = file.read_bytes()

    for how in ({}, {"upgrade": True}):
        with pytest.raises(Misconfigured, match="newer"):
            prepared(file, **how)
    assert file.read_bytes() == before


# -- an old version beside a new one

EXPANDS = "pass"
CONTRACTS = "op.execute(\"UPDATE compatibility SET oldest = '9999'\")"


@pytest.fixture
def old_service(data: Path) -> Iterator[FaultyService]:
    """A service of today's version, in a process of its own."""
    with FaultyService(data) as service:
        receipt(release(service.instructor()))
        yield service


def upgraded(service: FaultyService) -> None:
    """The database, by a newer version, while the service runs."""
    database = Database(databases.database_of(service.data))
    database.schema.upgrade()
    database.close()


def put_back(service: FaultyService) -> None:
    database = Database(databases.database_of(service.data))
    database.schema.downgrade(revisions()[-2])
    database.close()


@pytest.mark.parametrize("newer_code", [EXPANDS], indirect=True)
def test_an_old_version_goes_on_and_starts_again_beside_a_newer_one_that_allows_it(
    old_service: FaultyService, newer_code: None
) -> None:
    before = receipt(submit(old_service.student()))
    upgraded(old_service)

    assert old_service.student().get("readyz").status_code == 200
    between = receipt(submit(old_service.student()))
    old_service.kill()
    old_service.start()
    after = receipt(submit(old_service.student()))
    listed = [record["submission_id"] for record in course.submissions(old_service.student())]
    ran_again = old_service.run_command("upgrade-db")
    put_back(old_service)

    given = [receipt["submission_id"] for receipt in (after, between, before)]
    assert ran_again[0] == 0, ran_again
    assert listed == given
    assert "newer version" in str(old_service.output)


@pytest.mark.parametrize("newer_code", [CONTRACTS], indirect=True)
def test_an_old_version_stops_being_ready_where_a_newer_one_does_not_allow_it(
    old_service: FaultyService, newer_code: None
) -> None:
    upgraded(old_service)

    assert old_service.student().get("readyz").status_code == 503
    old_service.kill()
    code, said = old_service.run_command("check")
    put_back(old_service)

    assert code != 0
    assert "Run the version that made it" in said


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
