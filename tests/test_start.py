"""What an administrator reads who starts the service for the first time."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.output import Output
from tests.support.parts import PATIENCE
from tests.support.process import PROGRAM


def started(home: Path, *arguments: str, until: str) -> str:
    """What `nbexchange` says until it says this, and is stopped."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("NBEX", "XDG", "JUPYTER"))
    }
    process = subprocess.Popen(
        [*PROGRAM, "--port=0", *arguments],
        env={**environment, "HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout
    output = Output(os.dup(process.stdout.fileno()))
    process.stdout.close()
    try:
        assert output.wait_for(until), str(output)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
    return str(output)


def test_without_arguments_it_says_where_everything_is_and_what_to_do_next(tmp_path: Path):
    said = started(tmp_path, until="nbexchange demo")

    data = tmp_path / ".local" / "share" / "nbexchange"
    assert f"Its data are in {data}, and in the database {data}/nbexchange.sqlite\n" in said
    assert re.search(r"It answers at http://127\.0\.0\.1:\d+/services/nbexchange/\n", said)
    assert (
        "Its configuration file is /etc/config/nbexchange_config.py, which does not exist "
        "(--config-file names another)" in said
    )
    assert "No user handler is configured, so nobody can sign in yet." in said
    assert "c.NbExchange.user_plugin_class" in said


def test_with_a_user_handler_nothing_is_left_to_do(tmp_path: Path):
    (tmp_path / "people.json").write_text("{}")
    file = tmp_path / "config.py"
    file.write_text(
        "c.NbExchange.user_plugin_class = "
        "'nbexchange.handlers.auth.token_file.TokenFileUserHandler'\n"
        f"c.TokenFileUserHandler.path = {str(tmp_path / 'people.json')!r}\n"
    )

    said = started(tmp_path, f"--config-file={file}", until="Its configuration file is")

    assert f"Its configuration file is {file}\n" in said
    assert "No user handler" not in said


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
def test_the_address_is_the_one_to_open(tmp_path: Path, ip: str):
    said = started(tmp_path, f"--ip={ip}", until="Its data are")

    shown = f"[{ip}]" if ":" in ip else ip
    assert f"It answers at http://{shown}:" in said
