"""nbgrader's pages, against what they showed with nbgrader's own exchange: golden/ says it all.

The story is told once to a running service, and each answer is a test. It may also be told to a
shared folder, which is nbgrader's own exchange and shows that the comparison is a fair one.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.jupyter.plain import Plain, times_of
from tests.jupyter.story import COURSE, LISTED, LISTS, PS1, RECORDED, Golden, Story
from tests.support.nbgrader import Home, Zygote
from tests.support.service import Service

pytestmark = pytest.mark.slow  # a story takes most of a minute

COURSES = (COURSE, "xyz 200")

RECORDED_TIMES = {"2026-11-21 00:40:09.178138": "<TS3>"}
"""The one that the recording itself has left as it was, in formgrader's tables."""


Change = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Difference:
    """What the pages show with our exchange where they show something else with nbgrader's own."""

    where: str
    change: Change
    reason: str

    def apply(self, golden: Golden, value: Any) -> Any:
        if not re.search(self.where, golden.name):
            return value
        changed = self.change(value)
        assert changed != value, f"no such difference in {golden.name}: {self.reason}"
        return changed


def in_log(theirs: str, ours: str) -> Change:
    return lambda value: {**value, "log": re.sub(theirs, ours, value["log"])}


def says(sentence: str) -> Change:
    """A failure, with this text instead of theirs, or of a list as if nothing had failed."""
    return lambda _value: {"success": False, "value": sentence}


def raised(text: str) -> str:
    """What is at the end of a traceback."""
    return text.rpartition(".ExchangeError: ")[2].rstrip("\n")


def only_what_was_raised(value: dict[str, Any]) -> dict[str, Any]:
    return {**value, "value": raised(value["value"])}


def reason_first(value: dict[str, Any]) -> dict[str, Any]:
    reason = raised(value["error"])
    assert value["log"] == f"[CRITICAL] {reason}\n"
    return {**value, "error": "", "log": reason}


DIFFERENCES = (
    Difference(
        r"-fg-collect(-update|-no-newer)?$",
        in_log(r"\[WARNING\] \n    <EXCHANGE>.* cheating attempt\?\n.*\n    \n", ""),
        "The service names the owner of a submission; no file has another owner.",
    ),
    Difference(
        r"-fg-(autograde|generate-feedback(-one)?)$",
        in_log(
            r"(\[INFO\] Copying .*/submission_)secret\.txt( -> .*/submission_)secret\.txt\n",
            r"\1receipt.json\2receipt.json\n\g<0>",
        ),
        "A collected submission has its receipt with it, by which its feedback finds back to it.",
    ),
    Difference(
        r"-fg-release-feedback(-one)?$",
        in_log(
            r"/(Problem \d)(' \(<TS3>\)\n.*/feedback/)<HASH>\.html", r"/\1\2<SUBMISSION>/\1.html"
        ),
        "Feedback belongs to a submission, not to a hash.",
    ),
    Difference(
        r"-fetch-again$",
        says("You already have a copy of the assignment in this directory: Problem Set 1"),
        "A fetch that failed says why.",
    ),
    Difference(
        r"-fetch-unknown$",
        says(
            "Assignment not found at: <EXCHANGE>/abc101/outbound/nope. "
            "Did you mean: <EXCHANGE>/abc101/outbound/ps2"
        ),
        "A fetch that failed says why.",
    ),
    Difference(
        r"-submit-unknown$",
        says("Assignment not found at: <ROOT>/nope\nDid you mean: <ROOT>/Problem Set 1"),
        "A student reads a sentence, not a traceback.",
    ),
    Difference(
        r"-submit-strict-missing$",
        only_what_was_raised,
        "A student reads a sentence, not a traceback.",
    ),
    Difference(
        r"-fg-release-already-released$",
        reason_first,
        "An instructor reads a sentence, not a traceback.",
    ),
    Difference(
        r"-fetch-exchange-missing$",
        says("You already have a copy of the assignment in this directory: Problem Set 1"),
        "A fetch that failed says why; this one does not get as far as the exchange.",
    ),
    Difference(
        r"-(courses|assignments)-exchange-missing$",
        says("The exchange service at <EXCHANGE> cannot be reached."),
        "It is not a directory, and a student can do nothing about its setup.",
    ),
)


def unwrapped(value: Any) -> Any:
    """Where the lines of a failure end depends on the length of this machine's paths."""
    if not isinstance(value, dict) or value.get("success") is not False:
        return value
    return {
        key: " ".join(text.split()) if isinstance(text, str) else text
        for key, text in value.items()
    }


# -- the two exchanges


def own_story(folder: Path, zygote: Zygote, stack: ExitStack, template: Path) -> Story:
    data = folder / "data"
    data.mkdir()
    shutil.copy(template, data)
    service = stack.enter_context(Service(data))
    teacher = service.enrol("teacher", dict.fromkeys(COURSES, "Instructor"))
    alice = service.enrol("alice", dict.fromkeys(COURSES, "Student"))
    return Story(
        Home(folder / "teacher", service.url, teacher, zygote, COURSE),
        Home(folder / "alice", service.url, alice, zygote, course_id=None),
        exchange=service.url,
        vanish=stack.close,
    )


SHARED_FOLDER = """
c.pop("ExchangeFactory")
c.Exchange.root = {root!r}

# The recording was made by a user of this name, whom nbgrader calls as JupyterHub does.
import nbgrader.utils
nbgrader.utils.get_osusername = lambda: "jovyan"
nbgrader.utils.find_owner = lambda path: "jovyan"
"""


def nbgraders_story(folder: Path, zygote: Zygote, _stack: ExitStack, _template: Path) -> Story:
    root = folder / "exchange"
    root.mkdir()
    root.chmod(0o777)
    return Story(
        Home(folder / "teacher", "", None, zygote, COURSE),
        Home(folder / "alice", "", None, zygote, course_id=None),
        exchange=str(root),
        vanish=lambda: shutil.rmtree(root),
        config=SHARED_FOLDER.format(root=str(root)),
    )


@dataclass
class Told:
    """A story that is over, and how its answers look once they are plain."""

    story: Story
    differences: tuple[Difference, ...]

    def __post_init__(self) -> None:
        (alices,) = self.story.listed["python-list-cached"]
        times = times_of(alices["submissions"])
        self._plain = {
            name: Plain(self._places(getattr(self.story, name)), times)
            for name in ("teacher", "alice")
        }
        self._recorded = {name: Plain({}, RECORDED_TIMES) for name in ("teacher", "alice")}

    def _places(self, home: Home) -> dict[str, str]:
        return {
            self.story.exchange: "<EXCHANGE>",
            str(home.work): "<ROOT>",
            str(home.home): "<HOME>",
            sys.prefix: "<VENV>",
        }

    def shown(self, golden: Golden) -> Any:
        heard = self.story.heard[golden.name]
        value = self._plain[golden.who].answer(golden.path, heard.response)
        return heard.status, unwrapped(value)

    def expected(self, golden: Golden) -> Any:
        value = self._recorded[golden.who].answer(golden.path, golden.response)
        for difference in self.differences:
            value = difference.apply(golden, value)
        return golden.status, unwrapped(value)

    def listed(self, name: str) -> Any:
        return self._plain[LISTS[name][0]].value(self.story.listed[name])


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((own_story, DIFFERENCES), id="service"),
        pytest.param((nbgraders_story, ()), id="shared-folder"),
    ],
)
def told(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    zygote: Zygote,
    empty_database: Path,
) -> Iterator[Told]:
    make: Callable[..., Story]
    make, differences = request.param
    with ExitStack() as stack:
        story = make(tmp_path_factory.mktemp("story"), zygote, stack, empty_database)
        story.tell()
        yield Told(story, differences)


@pytest.mark.parametrize("golden", RECORDED, ids=lambda golden: golden.name)
def test_a_page_shows_what_it_shows_with_nbgraders_own_exchange(told: Told, golden: Golden):
    assert told.shown(golden) == told.expected(golden)


@pytest.mark.parametrize("name", LISTS)
def test_a_list_is_what_nbgraders_own_exchange_gives(told: Told, name: str):
    assert told.listed(name) == json.loads((LISTED / f"{name}.json").read_text())


def test_what_alice_has_in_the_end_is_what_the_teacher_wrote_last(told: Told):
    teacher, alice = told.story.teacher.work, told.story.alice.work
    written = teacher / "feedback" / "alice" / PS1
    (fetched,) = (alice / PS1 / "feedback").iterdir()

    for notebook in ("Problem 1.html", "Problem 2.html"):
        assert (fetched / notebook).read_bytes() == (written / notebook).read_bytes()
    assert "Better than I thought" in (fetched / "Problem 1.html").read_text()


def test_the_recording_is_whole():
    assert [int(golden.name[:2]) for golden in RECORDED] == list(range(1, 54))
