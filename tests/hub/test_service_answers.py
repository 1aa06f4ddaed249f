"""How the service handles a hub's answers, valid and invalid, and how often it asks."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gzip
import json
import logging
import threading
import time
import uuid

import pytest

from nbexchange.handlers.auth.hub_api import AT_A_TIME
from nbexchange.handlers.auth.jupyterhub import (
    ODD_STRANGERS,
    OWN,
    STRANGERS,
    JupyterHubUserHandler,
)
from nbexchange.handlers.auth.lookups import ExpiringCache
from tests.hub.exchange import Clock, exchange
from tests.hub.fake_hub import ADA, FakeHub, http
from tests.support.course import PS1, receipt, release, rows, submissions, submit
from tests.support.process import wait_until
from tests.support.raw import RawConnection

TOKEN = "s3cret-of-ada"
GROUP = "groups/formgrade-physics"
AWAY = "try again soon"


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def hub():
    with FakeHub(user=http(200, ADA)) as hub:
        yield hub


@pytest.fixture
def serve(hub, data, clock):
    """The service that asks this hub; `options` are those of its user handler."""

    def serve(**options):
        return exchange(data, clock, **({"api_url": hub.api_url} | options))

    return serve


def listed(wire, course_id="physics"):
    return wire.get("assignments", course_id=course_id).status_code


# -- no sense

NO_SENSE = {
    "a page": http(200, b"<html>Welcome</html>"),
    "a list": http(200, [ADA]),
    "not UTF-8": http(200, b'{"name": "\xff"}'),
    "deeper than anything": http(200, b"[" * 100_000),
    "larger than anything": http(200, json.dumps(ADA).encode() + b" " * 3_000_000),
    "compressed without a request for it": http(
        200, gzip.compress(json.dumps(ADA).encode()), "Content-Encoding: gzip"
    ),
    "nothing": http(204, b""),
    "a redirect": http(302, b"", "Location: /hub/api/elsewhere"),
    "a redirect for good": http(308, b"", "Location: http://127.0.0.1:1/"),
    "its own failure": http(500, {"status": 500}),
    "a proxy's failure": http(502, b"Bad gateway", hub=False),
    "that it is busy": http(429, b""),
    "a refusal of something else": http(403, b"Forbidden", hub=False),
    "another's not found": http(404, b"Nothing here", hub=False),
    "that it has no such address": http(404, {"status": 404}),
    "no HTTP": b"220 mail.example.org ESMTP\r\n\r\n",
    "half an answer": http(200, ADA)[:-9],
    "a header without end": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
    "no name": http(200, {**ADA, "name": None}),
    "no scopes": http(200, {key: ADA[key] for key in ("kind", "name", "groups")}),
    "scopes that are text": http(200, {**ADA, "scopes": "access:services"}),
    "no groups": http(200, {**ADA, "groups": None}),
    "groups that are not text": http(200, {**ADA, "groups": [{"name": "formgrade-physics"}]}),
    "neither user nor service": http(200, {**ADA, "kind": "group"}),
}


@pytest.mark.parametrize("answer", NO_SENSE.values(), ids=NO_SENSE)
def test_an_invalid_answer_is_a_503_and_never_a_guess(hub, serve, answer, caplog):
    hub.answers = {"user": answer, "elsewhere": http(200, ADA)}
    with serve() as service:
        said = service.wire(TOKEN).get("assignments")

    assert said.status_code == 503
    assert int(said.headers["Retry-After"]) > 0
    assert AWAY in said.json()["note"]
    assert hub.asked == ["user"]
    assert f"the hub at {hub.api_url} is of no help" in caplog.text
    assert TOKEN not in caplog.text + said.text


def test_a_hub_that_is_not_there_is_a_503(serve, caplog):
    with serve(api_url="http://127.0.0.1:1/hub/api") as service:
        assert service.wire(TOKEN).get("assignments").status_code == 503

    assert "ConnectionRefusedError" in caplog.text


def test_other_requests_do_not_wait_for_a_slow_hub(hub, serve):
    hub.hold("user")
    with serve() as service, concurrent.futures.ThreadPoolExecutor() as people:
        answer = people.submit(service.wire(TOKEN).get, "assignments")
        wait_until(lambda: hub.open, "the question")
        assert service.wire(None).get("healthz").status_code == 200
        assert not answer.done()
        hub.let_go()
        assert answer.result().status_code == 200


def test_a_hub_that_never_answers_is_a_503_and_the_question_ends_in_silence(hub, serve, caplog):
    hub.answers = {"user": b""}
    with serve(hub_timeout=1) as service:
        for _ in range(2):  # at the end of the second, the first one's has surely come
            assert service.wire(TOKEN).get("assignments").status_code == 503

    assert [line for line in caplog.records if line.levelno >= logging.ERROR] == []


@pytest.mark.slow
def test_a_request_waits_at_most_five_seconds_for_the_hub(hub, serve):
    hub.answers[GROUP] = b""
    hub.hold("user")
    with serve(api_token="0f-the-service", hub_timeout=9) as service:
        threading.Timer(4, hub.let_go).start()
        start = time.monotonic()
        assert service.wire(TOKEN).get("assignments").status_code == 503
        assert time.monotonic() - start < 4 + 9
        assert JupyterHubUserHandler.hub_timeout.default_value < 5
        wait_until(lambda: not hub.open, "the end of the question")
    assert hub.asked == ["user", GROUP]


@pytest.mark.parametrize("token", ["two words", "tökén", "x" * 501])
def test_an_invalid_token_does_not_reach_the_hub(hub, serve, token):
    with serve() as service:
        assert service.wire(token).get("assignments").status_code == 401

    assert hub.asked == []


def test_trouble_is_logged_once_a_minute(hub, serve, clock, caplog):
    hub.answers = {"user": http(500)}
    with serve() as service:
        wire = service.wire(TOKEN)
        for _ in range(3):
            assert listed(wire) == 503
        assert caplog.text.count("of no help") == 1
        clock.forward(60)
        assert listed(wire) == 503

    assert caplog.text.count("of no help") == 2


# -- sense

TOLD = {
    "nothing": None,
    "nothing in it": {},
    "a list": ["Ada"],
    "text": "Ada",
    "numbers": {"full_name": 1, "email": 2.5, "lms_user_id": 3},
    "more of it": {"full_name": ["A"], "email": {}, "lms_user_id": True, "name": None},
    "no characters": {"full_name": "A\0", "email": "\ud800", "lms_user_id": ""},
    "long": {"full_name": "A" * 100_000},
}


@pytest.mark.parametrize("told", TOLD.values(), ids=TOLD)
def test_odd_user_info_does_not_keep_a_user_out(hub, serve, told):
    hub.answers = {"user": http(200, {**ADA, "user_info": told})}
    with serve() as service:
        assert release(service.wire(TOKEN)).status_code == 201


@pytest.mark.parametrize(
    ("told", "full_name"),
    [
        ({"full_name": "Ada L.", "name": "A"}, "Ada L."),
        ({"name": "Ada\u3000L."}, "Ada\u3000L."),
    ],
)
def test_the_full_name_may_be_called_name_as_well(hub, serve, told, full_name):
    hub.answers = {"user": http(200, {**ADA, "user_info": told})}
    with serve() as service:
        wire = service.wire(TOKEN)
        release(wire)
        receipt(submit(wire))

        assert submissions(wire)[0]["full_name"] == full_name


@pytest.mark.parametrize("name", ["", "a\nb", "a" * 201])
def test_a_name_that_no_row_can_hold_is_a_403(hub, serve, name):
    hub.answers = {"user": http(200, {**ADA, "name": name})}
    with serve() as service:
        answer = service.wire(TOKEN).get("assignments")

    assert answer.status_code == 403
    assert "your name" in answer.json()["note"]


# -- how often it is asked


def test_reads_ask_once_in_30_seconds_and_writes_each_time(hub, serve, clock):
    with serve() as service:
        wire = service.wire(TOKEN)
        assert [listed(wire) for _ in range(3)] == [200] * 3
        assert len(hub.asked) == 1
        assert release(wire).status_code == submit(wire).status_code == 201
        assert len(hub.asked) == 3
        clock.forward(29)
        assert listed(wire) == 200  # it knows from the last write
        assert len(hub.asked) == 3
        clock.forward(1)
        assert listed(wire) == 200
        assert len(hub.asked) == 4


def test_the_answer_for_one_token_is_never_used_for_another(hub, serve):
    with serve() as service:
        assert listed(service.wire(TOKEN)) == 200
        hub.answers = {"user": http(403)}

        assert listed(service.wire(TOKEN + "s")) == 401
        assert listed(service.wire(TOKEN)) == 200


def test_an_unknown_token_stays_so_for_three_seconds_and_no_other_refusal_is_kept(
    hub, serve, clock
):
    hub.answers = {"user": http(403)}
    with serve() as service:
        wire = service.wire(TOKEN)
        assert listed(wire) == 401
        hub.answers = {"user": http(200, {**ADA, "scopes": []})}
        clock.forward(2.9)
        assert listed(wire) == 401
        clock.forward(0.1)
        assert listed(wire) == 403
        hub.answers = {"user": http(200, ADA)}
        assert listed(wire) == 200


@pytest.mark.parametrize("refusal", [http(403), http(200, {**ADA, "scopes": []})])
def test_a_refused_write_ends_the_reads_as_well(hub, serve, refusal):
    with serve() as service:
        wire = service.wire(TOKEN)
        assert listed(wire) == 200
        hub.answers = {"user": refusal}

        assert submit(wire).status_code == listed(wire) != 200


def test_an_answer_is_as_old_as_the_question(hub, serve, clock):
    def slowly(token):
        clock.forward(30)
        return http(200, ADA)

    hub.answers = {"user": slowly}
    with serve() as service:
        wire = service.wire(TOKEN)
        assert listed(wire) == listed(wire) == 200

    assert len(hub.asked) == 2


def test_without_a_cache_every_request_asks(hub, serve):
    with serve(cache_seconds=0) as service:
        wire = service.wire(TOKEN)
        assert listed(wire) == listed(wire) == 200

    assert len(hub.asked) == 2


def test_the_cache_is_bounded():
    kept = ExpiringCache(30, Clock())
    for number in range(10_001):
        kept.keep(str(number), number, asked=1000.0)

    assert kept.get("0") is None
    assert kept.get("1") == 1
    assert kept.get("10000") == 10_000


# -- many who ask


def somebody(token):
    """Each user's name is the beginning of the token."""
    return http(200, {**ADA, "name": token.partition("-")[0]})


def like_a_hubs(number):
    """A token as JupyterHub makes them."""
    return uuid.UUID(int=number, version=4).hex


@pytest.fixture
def crowd():
    with concurrent.futures.ThreadPoolExecutor(60) as crowd:
        yield crowd


def all_open(crowd, hub, wires, number):
    """Writes of all of them, of which so many questions reach the hub."""
    before = hub.open
    answers = [crowd.submit(submit, wire) for wire in wires]
    wait_until(lambda: hub.open == before + number, "as many as may be")
    return answers


def statuses(answers):
    return {answer.result().status_code for answer in answers}


def test_few_questions_are_open_at_a_time_and_the_others_get_their_turn(hub, serve, crowd):
    hub.answers = {"user": somebody}
    with serve() as service:
        wires = [service.wire(f"p{number}-") for number in range(40)]
        assert release(wires[0]).status_code == 201
        assert [*map(listed, wires)] == [200] * 40
        hub.hold("user")
        answers = all_open(crowd, hub, wires, AT_A_TIME)
        hub.let_go()

        assert statuses(answers) == {201}
    assert hub.most_open == AT_A_TIME


@pytest.mark.parametrize(
    ("tokens", "share"),
    [
        ([f"made-up-{number}" for number in range(40)], ODD_STRANGERS),
        ([*map(like_a_hubs, range(40))], STRANGERS),
        ([f"eve-{number}" for number in range(40)], OWN),
    ],
    ids=["odd strangers", "strangers", "one person"],
)
def test_a_user_with_many_tokens_leaves_the_hub_to_others(hub, serve, crowd, tokens, share):
    hub.answers = {"user": somebody}
    with serve() as service:
        ada = service.wire("ada-")
        assert release(ada).status_code == 201
        many = [*map(service.wire, tokens)]
        if share == OWN:
            assert [*map(listed, many)] == [200] * 40
        hub.hold("user")
        answers = all_open(crowd, hub, many, share)
        answers += all_open(crowd, hub, [ada], 1)
        hub.let_go()

        assert statuses(answers) == {201}
    assert hub.most_open == share + 1


def test_a_token_that_was_good_when_it_came_last_is_no_stranger_however_long_ago(
    hub, serve, clock, crowd
):
    hub.answers = {"user": somebody}
    with serve() as service:
        ada = service.wire("ada-")
        assert release(ada).status_code == 201
        clock.forward(100_000)
        hub.hold("user")
        answers = all_open(
            crowd, hub, [service.wire(like_a_hubs(number)) for number in range(9)], STRANGERS
        )
        answers.append(crowd.submit(ada.get, "assignments"))
        wait_until(lambda: hub.open == STRANGERS + 1, "the question about ada")
        hub.let_go()

        assert statuses(answers) == {200, 201}


def test_whose_turn_does_not_come_is_told_to_come_again(hub, serve, crowd):
    hub.answers = {"user": b""}
    with serve(hub_timeout=4) as service:
        wires = [service.wire(f"token-{number}") for number in range(40)]
        answers = [crowd.submit(wire.get, "assignments") for wire in wires]
        refused = [answer.result() for answer in answers if answer.result().status_code == 429]
        assert statuses(answers) == {429, 503}
        hub.answers = {"user": somebody}
        # The questions that were given up keep their places until they end.
        wait_until(lambda: service.wire("ada-").get("assignments").ok)

    assert 3 <= int(refused[0].headers["Retry-After"]) <= 12
    assert "try again soon" in refused[0].json()["note"]


def test_a_write_never_believes_what_was_asked_before_it_came(hub, serve, crowd):
    """A user was removed in between."""
    said = iter([http(200, ADA), http(200, ADA), http(403)])
    hub.answers = {"user": lambda token: next(said)}
    with serve() as service:
        assert release(service.wire(TOKEN)).status_code == 201
        hub.hold("user")
        first = all_open(crowd, hub, [service.wire(TOKEN)], 1)
        with _writing(service, 1) as (second,):
            hub.let_go()
            assert statuses(first) == {201}
            assert second.answer().status == 401


def test_all_writes_that_came_before_a_question_share_its_answer(hub, serve, crowd):
    with serve() as service:
        assert release(service.wire(TOKEN)).status_code == 201
        hub.hold("user")
        first = all_open(crowd, hub, [service.wire(TOKEN)], 1)
        with _writing(service, 30) as more:
            hub.let_go()
            assert statuses(first) == {201}
            assert {one.answer().status for one in more} == {404}
    assert len(hub.asked) < 10


@contextlib.contextmanager
def _writing(service, number):
    """So many more writes with the token, which have come but cannot be answered yet."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(RawConnection(service.url, TOKEN)) for _ in range(number)]
        for connection in found:
            connection.send(
                connection.head("DELETE", "assignment", {}, **{**PS1, "assignment_id": "none"})
            )
        # Who came later has an answer.
        assert all(service.wire(None).get("healthz").ok for _ in range(20))
        yield found


# -- properties of groups


def tell(hub, code=200, **properties):
    hub.answers[GROUP] = http(code, {"name": "formgrade-physics", "properties": properties})


def test_a_group_is_asked_for_with_the_services_own_token_and_its_name_is_no_path(hub, serve):
    groups = ["nbgrader-a/../user?x#", "nbgrader-é"]
    hub.answers = {"user": http(200, {**ADA, "groups": groups})}
    with serve(api_token="0f-the-service") as service:
        service.wire(TOKEN).get("assignments")

    assert sorted(hub.asked[1:]) == [
        "groups/nbgrader-%C3%A9",
        "groups/nbgrader-a%2F..%2Fuser%3Fx%23",
    ]


def test_a_group_is_asked_for_once_in_30_seconds_whoever_asks_and_whatever_for(hub, serve, clock):
    tell(hub)
    with serve(api_token="0f-the-service") as service:
        ada, eve = service.wire(TOKEN), service.wire("s3cret-of-eve")
        assert listed(ada) == listed(eve) == listed(ada) == 200
        assert release(ada).status_code == 201
        assert hub.asked.count(GROUP) == 1
        clock.forward(30)
        assert release(ada).status_code == 201

    assert hub.asked.count(GROUP) == 2


def test_many_who_want_the_same_group_at_a_time_ask_once(hub, serve):
    tell(hub)
    with serve(api_token="0f-the-service") as service:
        wires = [service.wire(f"token-{number}") for number in range(8)]
        hub.hold(GROUP)
        with concurrent.futures.ThreadPoolExecutor(8) as people:
            answers = [people.submit(release, wire) for wire in wires]
            wait_until(lambda: hub.answered == 8, "who they all are")
            hub.let_go()

            assert {answer.result().status_code for answer in answers} == {201}
    assert hub.asked.count(GROUP) == 1


ORGANISATIONS = {
    "a number": (2, 2),
    "digits": ("3", 3),
    "the largest": (2**31 - 1, 2**31 - 1),
    "too large": (2**31, None),
    "zero": (0, None),
    "negative": (-1, None),
    "a word": ("one", None),
    "digits of another alphabet": ("٣", None),
    "true": (True, None),
    "a fraction": (1.5, None),
    "null": (None, None),
    "a list": ([1], None),
    "very many digits": ("9" * 5000, None),
}


@pytest.mark.parametrize(("said", "org_id"), ORGANISATIONS.values(), ids=ORGANISATIONS)
def test_an_organisation_is_a_number_or_the_course_is_left_out(hub, serve, said, org_id, caplog):
    tell(hub, org_id=said)
    with serve(api_token="0f-the-service") as service:
        answer = release(service.wire(TOKEN))

        assert answer.status_code == (201 if org_id else 404)
        assert [row["org_id"] for row in rows(service, "course")] == ([org_id] if org_id else [])
    assert ("'physics' is left out" in caplog.text) == (org_id is None)


@pytest.mark.parametrize("title", ["", None, 7, ["P"], "P\0", "\ud800", "P" * 5000])
def test_a_title_may_be_anything(hub, serve, title):
    tell(hub, title=title)
    with serve(api_token="0f-the-service") as service:
        assert release(service.wire(TOKEN)).status_code == 201


TROUBLE = {
    "a failure": http(500),
    "a page": http(200, b"<html>"),
    "no refusal of the hub": http(403, hub=False),
}


@pytest.mark.parametrize("answer", TROUBLE.values(), ids=TROUBLE)
def test_an_unreadable_group_moves_no_user_to_another_organisation(hub, serve, answer):
    hub.answers[GROUP] = answer
    with serve(api_token="0f-the-service") as service:
        assert listed(service.wire(TOKEN)) == 503


WITHOUT = {
    "a refusal": http(403, {"status": 403}),
    "a token that is none": http(401, {"status": 401}),
    "no more than the name": http(200, {"kind": "group", "name": "formgrade-physics"}),
}


@pytest.mark.parametrize("answer", WITHOUT.values(), ids=WITHOUT)
def test_a_service_that_may_not_read_groups_says_so_once_and_asks_no_more(
    hub, serve, clock, answer, caplog
):
    hub.answers[GROUP] = answer
    with serve(api_token="0f-the-service") as service:
        wire = service.wire(TOKEN)
        assert listed(wire) == 200
        assert release(wire).status_code == 201
        assert hub.asked.count(GROUP) == 1
        clock.forward(30)
        assert listed(wire) == 200
        assert hub.asked.count(GROUP) == 2

    assert caplog.text.count("read:groups") == 1


@pytest.mark.parametrize("answer", WITHOUT.values(), ids=WITHOUT)
def test_a_right_to_read_groups_that_is_lost_is_a_503(hub, serve, clock, answer):
    tell(hub, org_id=2)
    with serve(api_token="0f-the-service") as service:
        wire = service.wire(TOKEN)
        assert listed(wire) == 200
        hub.answers[GROUP] = answer
        clock.forward(30)
        assert release(wire).status_code == 503
        assert listed(wire) == 503


def test_a_group_that_is_gone_takes_its_course_with_it(hub, serve, caplog):
    hub.answers[GROUP] = http(404, {"status": 404})
    with serve(api_token="0f-the-service") as service:
        assert listed(service.wire(TOKEN)) == 404

    assert "'physics' is left out" in caplog.text


def test_a_service_with_courses_here_needs_no_group_for_them(hub, serve):
    hub.answers = {"user": http(200, {**ADA, "kind": "service", "name": "grader"})}
    with serve(
        api_token="0f-the-service", services={"grader": {"physics": "Instructor"}}
    ) as service:
        assert release(service.wire(TOKEN)).status_code == 201
