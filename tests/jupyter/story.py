"""Alice and her teacher, each at a Jupyter server, from an empty exchange to feedback and beyond.

The story that golden/ was recorded from, told again. Its files say what was asked; what happened
in between had to be found out from the answers, and is in `BEFORE`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.jupyter import Jupyter
from tests.support.nbgrader import Home, write_notebook

GOLDEN = Path(__file__).parent / "golden"
LISTED = Path(__file__).parents[1] / "plugin" / "golden"
COURSE = "abc101"
PS1 = "Problem Set 1"


@dataclass(frozen=True)
class Golden:
    """A question and its answer with nbgrader's own exchange."""

    name: str
    who: str
    method: str
    path: str
    query: dict[str, str] | None
    json: Any
    status: int
    response: Any


def read_golden(file: Path) -> Golden:
    said = json.loads(file.read_text())
    return Golden(
        file.stem, said["who"], **said["request"], status=said["status"], response=said["response"]
    )


RECORDED = [read_golden(file) for file in sorted(GOLDEN.glob("[0-9]*.json"))]


@dataclass(frozen=True)
class Heard:
    status: int
    response: Any


@dataclass
class Story:
    """`exchange` is where the exchange is, as people see it; `config` chooses it."""

    teacher: Home
    alice: Home
    exchange: str
    vanish: Callable[[], None]
    config: str = ""
    servers: dict[str, Jupyter] = field(default_factory=dict)
    heard: dict[str, Heard] = field(default_factory=dict)
    listed: dict[str, Any] = field(default_factory=dict)

    def tell(self) -> None:
        for name in ("teacher", "alice"):
            home: Home = getattr(self, name)
            home.env["JUPYTERHUB_USER"] = name
            self.configure(home)
        with ExitStack() as self._running:
            self.open_jupyter()
            for golden in RECORDED:
                if golden.name in BEFORE:
                    BEFORE[golden.name](self)
                self.heard[golden.name] = self.ask(golden)

    def ask(self, golden: Golden) -> Heard:
        answer = self.servers[golden.who].ask(golden.method, golden.path, golden.query, golden.json)
        try:
            return Heard(answer.status_code, answer.json())
        except json.JSONDecodeError:
            return Heard(answer.status_code, {"__not_json__": answer.text})

    # -- what happens in between

    def open_jupyter(self) -> None:
        for name in ("teacher", "alice"):
            self.servers[name] = Jupyter(getattr(self, name))
            self.servers[name].start()
            self._running.callback(self.servers[name].stop)

    def configure(self, home: Home, more: str = "") -> None:
        home.configure(f"{self.config}\n{more}")

    def release_in_two_courses(self) -> None:
        write_course(self.teacher.work)
        self.run("generate_assignment", PS1)
        self.run("release_assignment", PS1)
        self.run("release_assignment", "ps2")
        self.run("release_assignment", "essay", "--course", "xyz 200")

    def lose_a_notebook_and_be_strict(self) -> None:
        self._lost.rename(self.alice.folder / "lost")
        self.configure(self.alice, "c.ExchangeSubmit.strict = True")

    def find_it_again(self) -> None:
        (self.alice.folder / "lost").rename(self._lost)
        self.configure(self.alice)

    @property
    def _lost(self) -> Path:
        return self.alice.work / PS1 / "Problem 1.ipynb"

    def submit_a_third_time(self) -> None:
        body = {"course_id": COURSE, "assignment_id": PS1}
        assert self.servers["alice"].post("/assignments/submit", **body)["success"]

    def improve_the_feedback_on_problem_1(self) -> None:
        feedback = self.teacher.work / "feedback" / "alice" / PS1 / "Problem 1.html"
        feedback.write_text(feedback.read_text() + "<p>Better than I thought.</p>")
        path = f"/formgrader/api/assignment/{PS1}/release_feedback"
        assert self.servers["teacher"].post(path)["success"]

    def leave_the_hub(self) -> None:
        """Until here, half of what JupyterHub says was there: the name, and no token."""
        self._running.close()
        for home in (self.teacher, self.alice):
            del home.env["JUPYTERHUB_USER"]
        self.open_jupyter()

    def list_in_python_and_leave_the_hub(self) -> None:
        self.listed = {name: self.listed_in_python(*asked) for name, asked in LISTS.items()}
        self.leave_the_hub()

    def listed_in_python(self, who: str, traits: str, assignment_id: str) -> Any:
        """What nbgrader's Python interface gives, and the pages pass on."""
        home: Home = getattr(self, who)
        names = {"course_id": COURSE, "assignment_id": assignment_id}
        self.configure(home, f"c.CourseDirectory.update({names})")
        listed = home.value(
            "exchange.List(coursedir=coursedir, authenticator=authenticator, config=config"
            f"{traits}).start()"
        )
        self.configure(home)
        return listed

    def take_the_exchange_away(self) -> None:
        self.vanish()

    def run(self, *arguments: str) -> None:
        ran = self.teacher.nbgrader(*arguments)
        assert ran.status == 0, ran.output


LISTS = {
    "python-list-outbound": ("alice", "", ""),
    "python-list-cached": ("alice", ", cached=True", ""),
    "python-list-inbound": ("teacher", ", inbound=True", ""),
    "python-list-remove": ("teacher", ", remove=True", "ps2"),
}
"""Who lists what: traits, and an assignment where only one is meant."""

BEFORE = {
    "06-courses-two": Story.release_in_two_courses,
    "14-submit-strict-missing": Story.lose_a_notebook_and_be_strict,
    "15-fetch-feedback-none-yet": Story.find_it_again,
    "29-fg-collect-update": Story.submit_a_third_time,
    "46-assignments-feedback-updated": Story.improve_the_feedback_on_problem_1,
    "49-formgraders-instructor-no-hub": Story.list_in_python_and_leave_the_hub,
    "51-courses-exchange-missing": Story.take_the_exchange_away,
}


def write_course(folder: Path) -> None:
    """One assignment as its author writes it, and two that are ready to be released."""
    source = folder / "source" / PS1
    write_notebook(source / "Problem 1.ipynb", cells=question_and_test())
    write_notebook(source / "Problem 2.ipynb", cells=[some_text()])
    (source / "data").mkdir()
    (source / "data" / "values.csv").write_text("1,2\n")
    write_notebook(folder / "release" / "ps2" / "p1.ipynb")
    write_notebook(folder / "release" / "essay" / "essay.ipynb")


def question_and_test() -> list[dict[str, Any]]:
    answer = "def f():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION"
    return [
        code("f", answer, solution=True),
        code("t", "assert f() == 1", grade=True, locked=True, points=2),
    ]


def code(name: str, source: str, **nbgrader: Any) -> dict[str, Any]:
    marks = {"grade": False, "solution": False, "locked": False, "task": False}
    return {
        "cell_type": "code",
        "id": name,
        "metadata": {"nbgrader": {**marks, **nbgrader, "grade_id": name, "schema_version": 3}},
        "execution_count": None,
        "outputs": [],
        "source": source,
    }


def some_text() -> dict[str, Any]:
    return {"cell_type": "markdown", "id": "text", "metadata": {}, "source": "Read chapter 1."}
