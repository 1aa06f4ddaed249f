"""docs/first-steps.md, typed into terminals as it is written there, in a fresh home.

Two things are other than on a reader's machine. The port 9000 becomes one that is free. And what
`pip install` would fetch is in the new environment already, as it is in the one that runs the
tests, so that nothing comes from the network; pip builds and installs this checkout all the same.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.output import Output
from tests.support.parts import free_port, needs

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "first-steps.md"

PATIENCE = 300
"""Seconds until a block of commands is given up; the installation is one."""

DONE = "=====done====="

_FENCE = re.compile(r"^```(\w+) (\w+)( stays)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Step:
    """Commands for one terminal, and the lines that the page shows of what they say."""

    terminal: str
    commands: str
    stays: bool
    """The last of the commands does not end."""
    says: str = ""


def steps(text: str) -> Iterator[Step]:
    found = [match.groups() for match in _FENCE.finditer(text)]
    for (language, word, stays, body), follows in itertools.pairwise([*found, ("", "", "", "")]):
        if language == "sh":
            says = follows[3] if follows[:2] == ("text", "says") else ""
            yield Step(word, body, bool(stays), says)


class Terminal:
    """A shell that goes on; it ends with the first command that fails."""

    def __init__(self, home: Path) -> None:
        self._shell = subprocess.Popen(
            ["bash", "-e"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=environment(home),
            start_new_session=True,
        )
        assert self._shell.stdout
        self.output = Output(os.dup(self._shell.stdout.fileno()), PATIENCE)
        self._shell.stdout.close()

    def type(self, step: Step) -> None:
        """Wait until the commands have ended, or have said what they should."""
        assert self._shell.stdin
        start = len(self.output.lines)
        self._shell.stdin.write(f"{step.commands}echo; echo {DONE}\n".encode())
        self._shell.stdin.flush()
        awaited = pattern(step.says.splitlines()[0]) if step.stays else DONE
        assert self.output.wait_for(awaited, start), f"{step.commands}\n{self.output}"
        said = self.output.lines[start:]
        for line in step.says.splitlines():
            wanted = re.compile(pattern(line))
            place = next((n for n, one in enumerate(said) if wanted.search(one)), None)
            assert place is not None, f"nobody says {line!r}:\n" + "\n".join(said)
            said = said[place + 1 :]

    def close(self) -> int:
        """Ctrl-C; the exit status of the shell."""
        assert self._shell.stdin
        os.killpg(self._shell.pid, 2)
        self._shell.stdin.close()
        return self._shell.wait(PATIENCE)


def pattern(line: str) -> str:
    """What matches a line of the page, in which an ellipsis stands for anything."""
    return ".*".join(map(re.escape, line.split("…")))


def environment(home: Path) -> dict[str, str]:
    return {
        "HOME": str(home),
        "PATH": f"{home}/bin:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "TMPDIR": os.environ.get("TMPDIR", "/tmp"),
        # The packages that are here count as installed, with the data that belongs to them.
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "JUPYTER_PATH": f"{sys.prefix}/share/jupyter",
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        # Says no: the words of this option are the other way round.
        "PIP_NO_BUILD_ISOLATION": "0",
    }


def prepare(home: Path) -> None:
    """The programs that a reader has, and those that pip would have made for those packages."""
    programs = home / "bin"
    programs.mkdir()
    _program(programs / "python3", sys.executable)
    for name in ("alembic", "nbgrader"):
        _program(programs / name, f"python -m {name}")


def _program(place: Path, command: str) -> None:
    place.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    place.chmod(0o755)


def test_the_page_has_three_people_and_shows_what_each_step_says():
    found = list(steps(PAGE.read_text()))

    assert {step.terminal for step in found} == {"operator", "ada", "ben"}
    assert len([step for step in found if step.says]) >= 10


@pytest.mark.slow
def test_what_the_page_says_to_type_works_and_says_what_the_page_shows(tmp_path):
    for program in ("bash", "curl", "perl"):
        needs(program)
    prepare(tmp_path)
    port = str(free_port())
    text = PAGE.read_text().replace("9000", port)
    terminals: dict[str, Terminal] = {}

    try:
        for step in steps(text):
            if step.terminal not in terminals:
                terminals[step.terminal] = Terminal(tmp_path)
            terminals[step.terminal].type(step)
    finally:
        for terminal in terminals.values():
            terminal.close()

    assert (tmp_path / "nbexchange-first" / "data" / "nbexchange.sqlite").is_file()
