"""The plugin as nbgrader's Python interface and its pages use it."""

from __future__ import annotations

import warnings

import pytest
from nbgrader.auth import Authenticator
from nbgrader.coursedir import CourseDirectory
from nbgrader.exchange import ExchangeError, ExchangeFactory, abc
from traitlets.config import Config

from nbexchange import plugin
from tests.plugin.conftest import ran_well, submit

ROLES = {
    "list": "List",
    "release_assignment": "ReleaseAssignment",
    "fetch_assignment": "FetchAssignment",
    "submit": "Submit",
    "collect": "Collect",
    "release_feedback": "ReleaseFeedback",
    "fetch_feedback": "FetchFeedback",
}


@pytest.fixture
def config() -> Config:
    config = Config()
    plugin.configure(config)
    return config


def test_configure_sets_all_eight(config):
    factory = ExchangeFactory(config=config)

    assert set(config.ExchangeFactory) == {"exchange", *ROLES}
    for name in config.ExchangeFactory:
        chosen = getattr(factory, name)
        assert chosen.__module__.startswith("nbexchange.plugin")
        assert issubclass(chosen, getattr(abc, chosen.__name__))
    assert sorted(plugin.__all__) == plugin.__all__
    assert len(plugin.__all__) == 9


@pytest.mark.parametrize("method", ROLES.values())
def test_constructors_send_no_request(config, monkeypatch, method):
    monkeypatch.setenv("NBEXCHANGE_URL", "http://127.0.0.1:9")
    factory = ExchangeFactory(config=config)
    coursedir, authenticator = CourseDirectory(config=config), Authenticator(config=config)

    bare = getattr(factory, method)(config=config)
    with_parent = getattr(factory, method)(
        coursedir=coursedir, authenticator=authenticator, parent=factory
    )

    assert bare.assignment_dir == with_parent.assignment_dir == "."
    assert with_parent.coursedir is coursedir


class Mistaken(CourseDirectory):
    """A site's subclass that has a mistake."""

    @property
    def course_id(self) -> str:
        raise LookupError("no such course")

    def format_path(self, *_: object, **__: object) -> str:
        raise LookupError("no such course")


@pytest.mark.parametrize("method", ROLES.values())
def test_a_mistake_anywhere_is_an_exchange_error(config, method):
    """Any other exception breaks formgrader's pages and shows a traceback to a student."""
    one = getattr(ExchangeFactory(config=config), method)(coursedir=Mistaken(), config=config)

    with pytest.raises(ExchangeError, match=r"^Unexpected LookupError: no such course\."):
        one.start()


@pytest.mark.parametrize("method", ["ReleaseFeedback", "FetchFeedback"])
def test_nbgraders_misspelling_is_accepted(config, method):
    """NbGraderAPI says `authentictor`, and traitlets complains about it, as it does of nbgrader."""
    with pytest.warns(DeprecationWarning, match="authentictor"):
        one = getattr(ExchangeFactory(config=config), method)(
            coursedir=CourseDirectory(), authentictor=Authenticator(), config=config
        )

    assert one.authenticator is None


def test_traits_are_read_from_nbgraders_sections_and_our_own(config):
    config.Exchange.assignment_dir = "/coursework"
    config.Exchange.path_includes_course = True
    config.Exchange.cache = "/cache"
    config.ExchangeSubmit.strict = True
    config.ExchangeCollect.collect_workers = 2

    factory = ExchangeFactory(config=config)

    with warnings.catch_warnings(record=True) as complaints:
        submit, collect = factory.Submit(config=config), factory.Collect(config=config)
    assert (submit.assignment_dir, submit.path_includes_course) == ("/coursework", True)
    assert (submit.cache, submit.strict) == ("/cache", True)
    assert (collect.collect_workers, collect.check_owner, collect.update) == (2, True, False)
    assert not complaints


def test_formgrader_shows_the_address_of_the_exchange(config, monkeypatch):
    monkeypatch.delenv("NBEXCHANGE_URL", raising=False)
    config.Exchange.base_service_url = "https://hub.example.org/"
    config.Exchange.base_path = "services/exchange"

    shown = ExchangeFactory(config=config).List(config=config).root

    assert shown == "https://hub.example.org/services/exchange"


def test_the_folder_of_nbgraders_own_exchange_may_stay_in_the_configuration(alice, released):
    alice.configure("c.Exchange.root = '/srv/nbgrader/exchange'")

    ran = ran_well(alice, "list")

    assert ran.lines == ["[ListApp | INFO] Released assignments:", "[ListApp | INFO] physics ps1"]
    show = "exchange.List(coursedir=coursedir, authenticator=authenticator, config=config).root"
    assert alice.value(show) == alice.url


def test_inbound_and_cached_together_are_an_error(config):
    lister = ExchangeFactory(config=config).List(
        inbound=True, cached=True, coursedir=CourseDirectory(), config=config
    )

    with pytest.raises(ExchangeError, match="incompatible"):
        lister.start()


def test_a_service_that_is_down_costs_formgrader_its_exchange_and_no_more(teacher):
    teacher.url = "http://127.0.0.1:9"
    teacher.configure("c.Exchange.retries = 0")

    assert teacher.value("[api.exchange_missing, *api.get_released_assignments()]") == [True]


def test_a_new_course_is_not_a_missing_exchange(teacher):
    assert teacher.value("[api.exchange_missing, *api.get_released_assignments()]") == [False]


def test_formgraders_buttons_do_what_they_say(teacher, alice, released):
    again = teacher.value("api.release_assignment('ps1')")
    taken_back = teacher.value("api.unrelease('ps1')")
    released_once_more = teacher.value("api.release_assignment('ps1')")
    nothing = teacher.value("api.collect('ps1')")
    timestamp = submit(alice)
    collected = teacher.value("api.collect('ps1')")

    assert again["success"] is False
    assert again["log"] == (
        "[CRITICAL] Destination already exists, add --force to overwrite: physics ps1\n"
    )
    assert again["error"].rstrip().endswith("add --force to overwrite: physics ps1")
    assert taken_back["success"]
    assert released_once_more["success"]
    assert nothing == {
        "success": True,
        "log": "[WARNING] No submissions of 'ps1' for course 'physics' to collect\n",
    }
    assert collected["log"] == (
        "[INFO] Processing 1 submissions of 'ps1' for course 'physics'\n"
        "[INFO] Collecting submission: alice ps1\n"
    )
    feedback = teacher.work / "feedback/alice/ps1"
    feedback.parent.mkdir(parents=True)
    (teacher.work / "submitted/alice/ps1").rename(feedback)
    for name in ("p1", "p2"):
        (feedback / f"{name}.html").write_text("<p>")
    assert teacher.value("api.release_feedback('ps1')")["success"]
    assert teacher.value("api.release_feedback('ps1', 'alice')")["success"]
    fetched = alice.value("api.fetch_feedback('ps1', 'alice')")
    assert fetched["success"]
    assert [one["timestamp"] for one in fetched["value"][0]["submissions"]] == [timestamp]


def test_collecting_twice_updates_when_formgrader_does_it(teacher, alice, released):
    submit(alice, "old")
    teacher.value("api.collect('ps1')")
    submit(alice, "new")

    again = teacher.value("api.collect('ps1')")

    assert "Updating submission: alice ps1" in again["log"]


def test_the_same_process_may_serve_two_people(alice, machine, released):
    """Connections are shared; each request carries its own login."""
    bob = machine("bob")
    submit(alice)

    def list_as(home):
        return (
            f"(os.environ.update(NBEXCHANGE_TOKEN={home.token!r}), [one['student_id'] for one in "
            "exchange.List(coursedir=coursedir, authenticator=authenticator, config=config, "
            "cached=True).start()])[1]"
        )

    assert alice.value(f"[{list_as(alice)}, {list_as(bob)}]") == [["alice"], []]


def test_several_assignments_may_be_fetched_by_one_command(teacher, alice, released):
    (teacher.work / "release/ps1").rename(teacher.work / "release/ps2")
    ran_well(teacher, "release_assignment", "ps2")

    ran = ran_well(alice, "fetch_assignment", "ps1", "ps2")

    assert [line for line in ran.lines if "Fetched" in line] == [
        "[FetchAssignmentApp | INFO] Fetched as: physics ps1",
        "[FetchAssignmentApp | INFO] Fetched as: physics ps2",
    ]
