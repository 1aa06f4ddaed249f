"""Compare the output with that of nbgrader's own exchange, from which golden/ was recorded."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.plugin.conftest import Machine
from tests.support.nbgrader import Home, Ran, write_notebook

GOLDEN = Path(__file__).parent / "golden"
PS1 = "Problem Set 1"

# The warning that the owner of a folder is not the student. Here nothing has an owner.
CHEATING = re.compile(r"\[CollectApp \| WARNING\] \n.*?cheating attempt\?\n.*?\n    \n", re.DOTALL)
UNORDERED = {f"release_feedback {PS1} --course abc101", f"fetch_feedback {PS1} --course abc101"}
"""nbgrader lists these in the order of the disk; ours are sorted."""


HINT = "[FetchAssignmentApp | INFO] Nothing in it was changed. "
HINTED = f"alice: fetch_assignment {PS1} --course abc101"
"""Here our output has one more line: what to do if there is a copy already."""


def recorded() -> dict[str, tuple[int, list[str]]]:
    """Exit status and lines by command."""
    commands = {}
    text = CHEATING.sub("", (GOLDEN / "cli.txt").read_text())
    for block in text.strip().split("\n\n"):
        head, *lines = block.splitlines()
        match = re.fullmatch(r"\$ nbgrader (.*?)      # as (\w+), exit status (\d)", head)
        assert match, head
        commands[f"{match[2]}: {match[1]}"] = (int(match[3]), lines)
    return commands


@dataclass
class Course:
    teacher: Home
    alice: Home

    @property
    def timestamps(self) -> list[str]:
        """Of alice's submissions, oldest first."""
        lines = self.alice.nbgrader("list", "--cached", "--course", "abc101").lines[1:]
        return [match[0] for line in lines if (match := re.search(r"\d{4}-.* UTC", line))]

    def plain(self, text: str, home: Home) -> str:
        for number, timestamp in enumerate(self.timestamps, start=1):
            text = text.replace(timestamp, f"<TS{number}>")
        text = text.replace(str(home.work), "<ROOT>").replace(str(home.home), "<HOME>")
        text = text.replace(home.url, "<EXCHANGE>")
        # Where feedback is was a hash, and is the submission and the notebook.
        text = re.sub(r"(<EXCHANGE>/abc101/feedback)/.*\.html", r"\1/<FEEDBACK>", text)
        return re.sub(r"([>\"]\+)[0-9a-f]{32}", r"\1<RANDOM>", text)

    def value(self, home: Home, **traits: bool) -> Any:
        options = "".join(f", {key}={value}" for key, value in traits.items())
        value = home.value(
            "exchange.List(coursedir=coursedir, authenticator=authenticator, "
            f"config=config{options}).start()"
        )
        return json.loads(self.plain(json.dumps(value, ensure_ascii=False), home))

    def give_feedback(self) -> None:
        """Collect, and write what autograde and generate_feedback leave."""
        assert self.teacher.nbgrader("collect", PS1, "--update").status == 0
        submitted = self.teacher.work / "submitted" / "alice" / PS1
        feedback = self.teacher.work / "feedback" / "alice" / PS1
        feedback.mkdir(parents=True)
        for notebook in ("Problem 1", "Problem 2"):
            (feedback / f"{notebook}.html").write_text(f"<p>Well done, {notebook}</p>")
        for mark in ("timestamp.txt", "submission_receipt.json"):
            shutil.copy(submitted / mark, feedback)


def run(home: Home, *arguments: str) -> Ran:
    ran = home.nbgrader(*arguments)
    assert ran.status == 0, ran.output
    return ran


@pytest.fixture
def course(machine: Machine) -> Course:
    """Alice has submitted three times, and has the feedback on the last one."""
    teacher = machine("teacher", "Instructor", "abc101")
    alice = machine("alice", "Student", "abc101")
    course = Course(teacher, alice)
    for notebook in ("Problem 1", "Problem 2"):
        write_notebook(teacher.work / "release" / PS1 / f"{notebook}.ipynb")
    run(teacher, "release_assignment", PS1)
    run(alice, "fetch_assignment", PS1)
    for _ in range(3):
        run(alice, "submit", PS1)
    course.give_feedback()
    run(teacher, "release_feedback", PS1)
    run(alice, "fetch_feedback", PS1)
    return course


def test_every_command_prints_what_it_prints_with_nbgraders_own_exchange(course: Course):
    commands = recorded()

    shown = {}
    for key in commands:  # in the order of the recording
        who, _, command = key.partition(": ")
        home = course.alice if who == "alice" else course.teacher
        ran = home.nbgrader(*_split(command))
        shown[key] = (ran.status, course.plain(ran.output, home).splitlines())

    (hint,) = (line for line in shown[HINTED][1] if line.startswith(HINT))
    shown[HINTED][1].remove(hint)
    for key, (status, lines) in commands.items():
        expected = [re.sub(r"[0-9a-f]{32}-tmp.html", "<FEEDBACK>", line) for line in lines]
        if key.partition(": ")[2] in UNORDERED:
            assert (shown[key][0], sorted(shown[key][1])) == (status, sorted(expected)), key
        else:
            assert shown[key] == (status, expected), key


def _split(command: str) -> list[str]:
    """The recording has no quotes around names with spaces."""
    return [
        word.replace("_", " ") if word.startswith("Problem") else word
        for word in re.sub(r"Problem Set (\d)", r"Problem_Set_\1", command).split()
    ]


@pytest.mark.parametrize(
    ("name", "who", "traits"),
    [
        pytest.param("cached", "alice", {"cached": True}, id="cached"),
        pytest.param("inbound", "teacher", {"inbound": True}, id="inbound"),
    ],
)
def test_the_list_of_submissions_is_what_nbgraders_own_gives(course, name, who, traits):
    expected = json.loads((GOLDEN / f"python-list-{name}.json").read_text())

    assert course.value(getattr(course, who), **traits) == expected


def test_the_lists_of_releases_and_removals_are_what_nbgraders_own_gives(course: Course):
    write_notebook(course.teacher.work / "release" / "ps2" / "p1.ipynb")
    run(course.teacher, "release_assignment", "ps2")

    released = course.value(course.alice)
    course.teacher.configure("c.CourseDirectory.assignment_id = 'ps2'")
    removed = course.value(course.teacher, remove=True)

    assert released == json.loads((GOLDEN / "python-list-outbound.json").read_text())
    assert removed == json.loads((GOLDEN / "python-list-remove.json").read_text())
