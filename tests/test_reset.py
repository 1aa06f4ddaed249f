"""--reset-db: never by one word, never beside another process; an empty database is fine."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

from nbexchange.app import NbExchange
from nbexchange.database import Database
from nbexchange.errors import Misconfigured
from tests.support import databases
from tests.support.course import receipt, release, submit
from tests.support.databases import SERVERS
from tests.support.service import Service, configured

pytestmark = [pytest.mark.sqlite, pytest.mark.disk]  # each test names its databases

WOULD_BE_LOST = "1 courses, 1 releases, 3 submissions, 0 feedback"


@pytest.fixture(params=["sqlite", *SERVERS])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of nobody else, with nothing in it."""
    url = databases.create(request.param, tmp_path)
    yield url
    databases.drop(url)


@pytest.fixture
def used(url: str, data: Path) -> str:
    """The same after one assignment and three submissions; no process uses it any more."""
    with service_on(url, data) as service:
        receipt(release(service.instructor()))
        for number in range(3):
            receipt(submit(service.student(name=f"student-{number}")))
    return url


def service_on(url: str, data: Path) -> Service:
    return configured(data, db_url=url, upgrade_db=True)


def start(url: str, data: Path, *words: str, config: str = "") -> None:
    """Start the service as the command line says, and stop it."""
    file = data.parent / "config.py"
    file.write_text(config)
    app = NbExchange()
    where = [f"--config-file={file}", f"--db-url={url}", f"--base-storage-location={data}"]
    app.initialize([*where, "--ip=127.0.0.1", "--port=0", *words])
    asyncio.run(start_and_stop(app))


async def start_and_stop(app: NbExchange) -> None:
    async with app.running():
        pass


def refusal(url: str, data: Path, *words: str, config: str = "") -> str:
    with pytest.raises(Misconfigured) as refused:
        start(url, data, *words, config=config)
    return str(refused.value)


def code_for(url: str, data: Path) -> str:
    found = re.search("--confirm-reset=([0-9a-f]{12})", refusal(url, data, "--reset-db"))
    assert found
    return found[1]


def submissions(url: str) -> int:
    database = Database(url)
    try:
        with database.engine.connect() as connection:
            count: int = connection.execute(text("SELECT count(*) FROM submission")).scalar_one()
            return count
    finally:
        database.close()


@pytest.mark.parametrize("words", [["--reset-db"], []], ids=["command line", "configuration file"])
def test_a_database_with_rows_is_not_erased_but_told_what_would_be_lost(
    used: str, data: Path, words: list[str]
) -> None:
    said = refusal(used, data, *words, config="" if words else "c.NbExchange.reset_db = True")

    assert said.startswith("Nothing was erased: ")
    assert WOULD_BE_LOST in said
    assert re.search("--reset-db --confirm-reset=[0-9a-f]{12}", said)
    assert submissions(used) == 3


def test_the_code_on_the_command_line_erases_every_row_and_the_service_starts(
    used: str, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start(used, data, "--reset-db", f"--confirm-reset={code_for(used, data)}")

    assert submissions(used) == 0
    assert f"--reset-db erased {WOULD_BE_LOST} of the database" in caplog.text
    start(used, data)


def test_the_code_does_not_count_in_the_configuration_file(used: str, data: Path) -> None:
    code = code_for(used, data)
    config = f"c.NbExchange.reset_db = True\nc.NbExchange.reset_code = {code!r}"

    said = refusal(used, data, config=config)

    assert "c.NbExchange.reset_code does not count in a configuration file" in said
    assert submissions(used) == 3


@pytest.mark.parametrize("code", ["", "yes", "0" * 12])
def test_another_code_erases_nothing(used: str, data: Path, code: str) -> None:
    refusal(used, data, "--reset-db", f"--confirm-reset={code}")

    assert submissions(used) == 3


def test_a_code_is_for_the_rows_that_were_there_and_a_submission_makes_it_void(
    used: str, data: Path
) -> None:
    code = code_for(used, data)
    with service_on(used, data) as service:
        receipt(submit(service.student(name="late")))

    said = refusal(used, data, "--reset-db", f"--confirm-reset={code}")

    assert f"the code {code} does not match the rows" in said
    assert submissions(used) == 4


def test_a_code_is_void_for_the_same_number_of_rows_after_the_reset(used: str, data: Path) -> None:
    code = code_for(used, data)
    start(used, data, "--reset-db", f"--confirm-reset={code}")
    with service_on(used, data) as service:
        receipt(release(service.instructor()))
        for number in range(3):
            receipt(submit(service.student(name=f"student-{number}")))

    refusal(used, data, "--reset-db", f"--confirm-reset={code}")

    assert submissions(used) == 3


def test_nothing_is_erased_while_another_process_serves_the_rows(used: str, data: Path) -> None:
    code = code_for(used, data)
    with service_on(used, data) as service:
        said = refusal(used, data, "--reset-db", f"--confirm-reset={code}")

        assert "Stop every service" in said
        assert submissions(used) == 3
        receipt(submit(service.student(name="student-0")))
    assert submissions(used) == 4


def test_an_empty_database_is_reset_at_every_start_and_loses_nothing(url: str, data: Path) -> None:
    for _ in range(2):
        start(url, data, config="c.NbExchange.reset_db = True")

    assert submissions(url) == 0


def test_a_replica_that_resets_an_empty_database_does_not_disturb_the_others(
    url: str, data: Path
) -> None:
    with service_on(url, data) as service:
        start(url, data, "--reset-db")
        receipt(release(service.instructor()))


def test_a_code_without_reset_db_is_refused(used: str, data: Path) -> None:
    assert "--confirm-reset belongs to --reset-db" in refusal(used, data, "--confirm-reset=0123")
    assert submissions(used) == 3


def test_what_is_said_of_a_reset_does_not_name_the_options_of_the_address(
    tmp_path: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A password may be among them."""
    url = f"sqlite:///{tmp_path}/other.sqlite?timeout=5&cached_statements=1"
    with service_on(url, data) as service:
        receipt(release(service.instructor()))

    said = refusal(url, data, "--reset-db")
    start(url, data, "--reset-db", f"--confirm-reset={code_for(url, data)}")

    assert "--reset-db erased" in caplog.text
    assert "cached_statements" not in said + caplog.text


def test_an_account_that_cannot_see_the_sessions_of_others_is_told_so(
    tmp_path: Path, data: Path
) -> None:
    url = databases.create("mariadb", tmp_path)
    name = make_url(url).database
    account = f"`{name}`@`%`"
    own = make_url(url).set(username=name, password="secret").render_as_string(hide_password=False)
    with databases.server("mariadb").connect() as connection:
        connection.execute(text(f"CREATE USER {account} IDENTIFIED BY 'secret'"))
        connection.execute(text(f"GRANT ALL PRIVILEGES ON {name}.* TO {account}"))
    try:
        with service_on(own, data) as service:
            receipt(release(service.instructor()))

        assert "lacks the right PROCESS" in refusal(own, data, "--reset-db")
        assert "PROCESS" not in refusal(url, data, "--reset-db")
        with databases.server("mariadb").connect() as connection:
            connection.execute(text(f"REVOKE LOCK TABLES ON {name}.* FROM {account}"))
        code = code_for(own, data)
        said = refusal(own, data, "--reset-db", f"--confirm-reset={code}")
        assert f"GRANT LOCK TABLES ON `{name}`.* TO '{name}'@'%'" in said
    finally:
        with databases.server("mariadb").connect() as connection:
            connection.execute(text(f"DROP USER {account}"))
        databases.drop(url)
