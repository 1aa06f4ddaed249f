"""What verbs ask of their database with a term's data in it (`support/term.py`).

Each question is asked of a term and of one that is a hundred times smaller, on every database: it
may read no large table whole, and neither read three times as many rows nor take three times as
long. A verb that is new fails until it has a question here.
"""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from nbexchange import models
from nbexchange.archive import Contents
from nbexchange.database import Database, clock
from nbexchange.database.schema import Schema
from nbexchange.exchange import assignments, feedback, hiding, submissions
from nbexchange.exchange.feedback import Target
from nbexchange.exchange.history import History, history_page
from nbexchange.exchange.keys import known_keys
from nbexchange.exchange.listing import list_assignments
from nbexchange.exchange.policy import POLICY, Verb
from nbexchange.exchange.purge_records import Scope
from nbexchange.exchange.quotas import Quota, Quotas
from nbexchange.exchange.retries import is_stored
from nbexchange.exchange.upkeep import inventory, purging
from nbexchange.identity import User
from nbexchange.models import Action
from nbexchange.storage import Blob
from nbexchange.timestamps import to_text
from tests.support import databases, term
from tests.support.databases import SERVERS
from tests.support.plans import explain, statements_of, tables_read_whole
from tests.support.term import FOREIGN_PHYSICS, PHYSICS
from tests.support.work import rolled_back, work_of

# It asks every server itself, so it runs once.
pytestmark = [pytest.mark.sqlite, pytest.mark.disk]

FEW, MANY = 0.01, 1.0
MOST = 3
"""Times as much, or as long."""
LEAST_WORK = {"sqlite": 4_000, "mysql": 200, "postgresql": 1_000}
LEAST_SECONDS = 0.01
"""Less than these is noise, or a plan for a small table."""
ROUNDS = 10
"""The best of so many counts; one is enough where it is good."""

HUGE = {"event", "submission", "feedback"}
LARGE = {
    "sqlite": HUGE | {"release", "user", "subscription"},
    "mysql": HUGE | {"release", "user", "subscription"},
    # It reads the thousand rows of the others whole where it joins some hundred: that is cheaper.
    "postgresql": HUGE,
}


@pytest.fixture(scope="module", params=["sqlite", *SERVERS])
def terms(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[float, Database]]:
    """By scale."""
    made = {scale: tmp_path_factory.mktemp("term") for scale in (FEW, MANY)}
    urls = {scale: databases.create(request.param, member) for scale, member in made.items()}
    opened = {scale: Database(url) for scale, url in urls.items()}
    for scale, database in opened.items():
        database.schema.upgrade()
        term.fill(database.engine, scale)
    if request.param == "postgresql":
        _use_indexes(opened[FEW].engine)
    yield opened
    for scale, database in opened.items():
        database.close()
        databases.drop(urls[scale])


def _use_indexes(engine: Engine) -> None:
    """PostgreSQL reads small tables whole, which is no measure for large ones."""
    with engine.begin() as connection:
        name = engine.url.database
        connection.execute(text(f"ALTER DATABASE {name} SET enable_seqscan = off"))
    engine.dispose()


# -- the questions


@dataclass(frozen=True)
class Question:
    verb: Verb | None
    name: str
    ask: Callable[[Session], Any]
    grows: str = ""
    """Why its rows may grow with the term."""
    scans: str = ""
    """Why it may read a table whole."""
    scans_on_postgresql: str = ""
    """The same, where only PostgreSQL does: it reads whole what it needs a twentieth of."""


ADA, BOB, EVE = (
    make(PHYSICS)
    for make in (term.instructor, term.usual_student, term.student_with_a_long_history)
)
FOREIGN = term.usual_student(FOREIGN_PHYSICS)
PS1 = ("physics", term.assignment_id(0))
KEY = "a-key-of-nobody"
NO_TIME = datetime.timedelta
PAGE, SHORT_PAGE = 50, 5
"""Rows that a small term has too, of a course and of an assignment."""


def blob() -> Blob:
    return Blob("a-key", "0" * 64, 20_000)


def own_submission(session: Session, user: User) -> models.Submission:
    """The first one for PS1."""
    return (
        session.query(models.Submission)
        .join(models.UserRow)
        .join(models.Assignment)
        .join(models.Course)
        .filter(models.UserRow.org_id == user.org_id, models.UserRow.name == user.name)
        .filter(models.Course.course_id == PS1[0], models.Assignment.assignment_id == PS1[1])
        .order_by(models.Submission.timestamp)
        .limit(1)
        .one()
    )


def submit(user: User, idempotency_key: str | None = None) -> Callable[[Session], Any]:
    def ask(session: Session) -> Any:
        admission = submissions.admit_submission(
            session, user, *PS1, idempotency_key=idempotency_key, waited=NO_TIME
        )
        return submissions.submit(
            session,
            user,
            *PS1,
            submissions.SubmissionUpload(
                blob(),
                Contents(1, 1, ("p1.ipynb",), None),
                admission,
                committed=True,
                since=NO_TIME,
                client_timestamp=None,
                idempotency_key=idempotency_key,
            ),
            quota=2**60,
        )

    return ask


def release(session: Session) -> Any:
    assignments.admit_release(session, ADA, *PS1, first_only=False, idempotency_key=KEY)
    return assignments.release(
        session, ADA, *PS1, blob(), ["p1.ipynb"], first_only=False, idempotency_key=KEY
    )


def release_feedback(target_of: Callable[[models.Submission], Target]) -> Callable[[Session], Any]:
    def ask(session: Session) -> Any:
        target = target_of(own_submission(session, BOB))
        feedback.admit_feedback(session, ADA, *PS1, "p1", target, idempotency_key=KEY)
        return feedback.release_feedback(
            session,
            ADA,
            *PS1,
            "p1",
            target,
            blob(),
            shared=None,
            checksum=None,
            idempotency_key=KEY,
        )

    return ask


def fetch_feedback(user: User) -> Callable[[Session], Any]:
    def ask(session: Session) -> Any:
        assert feedback.fetch_feedback(session, user, *PS1)
        feedback.record_fetch(session, user, *PS1)

    return ask


def collect(user: User) -> Callable[[Session], Any]:
    return lambda session: submissions.collect(
        session, user, *PS1, own_submission(session, BOB).token
    )


def taken(session: Session, *walks: Any, batches: int | None = None) -> None:
    """Batch after batch, as the answer is written; of each the first ones only."""
    for walk in walks:
        taken = 0
        while not walk.is_over and taken != batches:
            walk.take(session)
            taken += 1


def listed(user: User, course_id: str | None = None) -> Callable[[Session], Any]:
    return lambda session: taken(session, *list_assignments(session, user, course_id))


def page_of(session: Session, user: User, **how: Any) -> str | None:
    """What the next one is called."""
    page = submissions.list_submissions(session, user, "physics", **how)
    taken(session, page.records)
    return page.next


def first_page(user: User, **how: Any) -> Callable[[Session], Any]:
    limit = SHORT_PAGE if how else PAGE
    return lambda session: page_of(session, user, limit=limit, **how)


def second_page(session: Session) -> Any:
    return page_of(session, ADA, limit=PAGE, page=page_of(session, ADA, limit=PAGE))


def page_of_history(user: User, course_id: str | None, **how: Any) -> Callable[[Session], Any]:
    return lambda session: history_page(session, user, course_id, limit=PAGE, **how)


def second_page_of_history(session: Session) -> Any:
    first = page_of_history(ADA, None)(session)
    return page_of_history(ADA, None, page=first.next)(session)


def ready(session: Session) -> Any:
    engine = session.connection().engine.execution_options(nbexchange_writes=False)
    return Schema(engine, lambda: engine).state(), clock(session)


def purge_as_operator(session: Session) -> Any:
    request = purging.request_purge(session, Scope(1, "physics", student_id=BOB.name), "root")
    return purging.confirm_purge(session, request.code, "root")


GRACE = datetime.timedelta(days=14)


def restore(session: Session) -> Any:
    code = hiding.purge(session, ADA, *PS1, GRACE).code
    return hiding.restore(session, ADA, PS1[0], code)


def look(user: User, quota: Quota) -> Callable[[Session], Any]:
    return lambda session: Quotas(quota).look(session, user, personal=True)


OWN = "all that the caller ever handed in is listed"
ALL = "a whole list"

QUESTIONS = [
    Question(Verb.LIST, "list", listed(BOB, "physics")),
    Question(Verb.LIST, "list all courses", listed(BOB)),
    Question(Verb.LIST, "list elsewhere", listed(FOREIGN)),
    Question(Verb.LIST, "instructor's list", listed(ADA)),
    Question(Verb.LIST, "long list", listed(EVE), grows=OWN, scans_on_postgresql=OWN),
    Question(Verb.FETCH, "fetch", lambda s: assignments.fetch(s, BOB, *PS1)),
    Question(Verb.RELEASE, "release", release),
    Question(Verb.REMOVE, "remove", lambda s: assignments.remove(s, ADA, *PS1)),
    Question(
        Verb.PURGE,
        "purge",
        lambda s: hiding.purge(s, ADA, *PS1, GRACE),
        grows="all that was handed in for the assignment is counted",
        scans_on_postgresql="all feedback, for that of one assignment",
    ),
    Question(Verb.LIST_PURGES, "list_purges", lambda s: hiding.list_purges(s, ADA, "physics")),
    Question(
        Verb.RESTORE,
        "restore",
        restore,
        grows="all that was handed in for the assignment is counted when it is hidden",
        scans_on_postgresql="all feedback, for that of one assignment",
    ),
    Question(
        None,
        "erase what is due",
        lambda s: (hiding.purge(s, ADA, *PS1, -GRACE), hiding.erase_due(s, "test")),
        grows="all that was handed in for the assignment is erased",
        scans_on_postgresql="all feedback, for that of one assignment",
    ),
    Question(Verb.SUBMIT, "submit", submit(BOB, KEY)),
    Question(Verb.SUBMIT, "submit without a key", submit(BOB)),
    Question(
        Verb.SUBMIT, "submit after many", submit(EVE, KEY), grows="the caller's own are summed up"
    ),
    Question(Verb.SUBMIT, "retry", lambda s: is_stored(s, BOB, Verb.SUBMIT, "key-1")),
    Question(Verb.RELEASE, "retry a release", lambda s: is_stored(s, ADA, Verb.RELEASE, KEY)),
    Question(
        Verb.RELEASE_FEEDBACK,
        "retry feedback",
        lambda s: is_stored(s, ADA, Verb.RELEASE_FEEDBACK, KEY),
    ),
    Question(Verb.SUBMIT, "student's quota", look(BOB, Quota(student=1))),
    Question(
        Verb.SUBMIT,
        "organisation's quota",
        look(BOB, Quota(organisation=1)),
        grows="all that an organisation has is summed up, but remembered",
        scans="all that an organisation has may be most of what there is",
    ),
    Question(Verb.LIST_SUBMISSIONS, "page", first_page(ADA)),
    Question(Verb.LIST_SUBMISSIONS, "page of one assignment", first_page(ADA, assignment_id="ps9")),
    Question(Verb.LIST_SUBMISSIONS, "page of latest", first_page(ADA, latest=True)),
    Question(
        Verb.LIST_SUBMISSIONS,
        "page of latest of one assignment",
        first_page(ADA, assignment_id="ps9", latest=True),
    ),
    Question(Verb.LIST_SUBMISSIONS, "second page", second_page),
    Question(Verb.LIST_SUBMISSIONS, "page of one student", first_page(ADA, student_id="bob")),
    Question(Verb.LIST_SUBMISSIONS, "student's page", first_page(BOB)),
    Question(
        Verb.LIST_SUBMISSIONS,
        "whole list",
        lambda s: page_of(s, ADA),
        grows=ALL,
        scans_on_postgresql=ALL,
    ),
    Question(Verb.COLLECT, "collect", collect(ADA)),
    Question(Verb.COLLECT, "student's collect", collect(BOB)),
    Question(
        Verb.RELEASE_FEEDBACK,
        "release_feedback",
        release_feedback(lambda submission: Target(submission_id=submission.token)),
    ),
    Question(
        Verb.RELEASE_FEEDBACK,
        "old client's release_feedback",
        release_feedback(
            lambda submission: Target(student_id=BOB.name, timestamp=to_text(submission.timestamp))
        ),
    ),
    Question(Verb.FETCH_FEEDBACK, "fetch_feedback", fetch_feedback(BOB)),
    Question(Verb.FETCH_FEEDBACK, "long fetch_feedback", fetch_feedback(EVE), grows=OWN),
    Question(
        Verb.FETCH_FEEDBACK,
        "what a long fetch_feedback writes",
        lambda s: feedback.record_fetch(s, EVE, *PS1),
    ),
    Question(Verb.HISTORY, "history", page_of_history(ADA, "physics")),
    Question(Verb.HISTORY, "history of all courses", page_of_history(ADA, None)),
    Question(Verb.HISTORY, "history of a course that ended", page_of_history(ADA, "chemistry")),
    Question(Verb.HISTORY, "second page of history", second_page_of_history),
    Question(
        Verb.HISTORY, "history of something rare", page_of_history(ADA, None, action=Action.PURGED)
    ),
    Question(Verb.HISTORY, "student's history", page_of_history(BOB, None)),
    Question(Verb.HISTORY, "long student's history", page_of_history(EVE, None)),
    Question(
        Verb.HISTORY,
        "whole history",
        lambda s: taken(s, History(s, ADA, None), batches=3),
        grows=ALL,
        scans_on_postgresql=ALL,
    ),
    Question(
        None,
        "operator's purge of a student",
        purge_as_operator,
    ),
    Question(None, "readiness", ready),
    Question(
        None, "check that anything is stored", inventory.owns_any, scans="it stops at the first row"
    ),
    Question(None, "gc", lambda s: known_keys(s, [f"release-{n:08}" for n in range(9)])),
    Question(
        None,
        "batch of a check",
        lambda s: inventory.owned_blobs(s, inventory.Position(1)),
        grows="the batch of a small term is not full",
    ),
]


# -- facts


def test_every_verb_is_asked() -> None:
    assert {question.verb for question in QUESTIONS} == {*POLICY, None}
    assert len({question.name for question in QUESTIONS}) == len(QUESTIONS)


def asked(questions: Iterable[Question]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "question", [pytest.param(question, id=question.name) for question in questions]
    )


of_each = asked(QUESTIONS)
of_those_that_do_not_grow = asked(question for question in QUESTIONS if not question.grows)


@pytest.mark.slow
@of_each
def test_no_large_table_is_read_whole(terms: dict[float, Database], question: Question) -> None:
    engine = terms[MANY].engine
    large = LARGE[engine.dialect.name]
    is_postgresql = engine.dialect.name == "postgresql"
    with rolled_back(engine) as connection, Session(connection) as session:
        with statements_of(engine) as statements:
            question.ask(session)
            session.flush()
        plans = [
            (sql, explain(connection, (sql, values))) for sql, values in dict(statements).items()
        ]
    assert plans

    whole = [(sql, found) for sql, plan in plans if (found := tables_read_whole(plan) & large)]
    excuse = question.scans or (is_postgresql and question.scans_on_postgresql)
    assert whole == [] or excuse


@pytest.mark.slow
@of_those_that_do_not_grow
def test_no_more_rows_are_read(terms: dict[float, Database], question: Question) -> None:
    few, many = (work_of(terms[scale].engine, question.ask) for scale in (FEW, MANY))

    assert many <= MOST * max(few, LEAST_WORK[terms[MANY].engine.dialect.name])


@pytest.mark.slow
@of_those_that_do_not_grow
def test_it_takes_no_longer(terms: dict[float, Database], question: Question) -> None:
    seconds = dict.fromkeys((FEW, MANY), math.inf)
    for _ in range(ROUNDS):
        for scale in seconds:
            seconds[scale] = min(seconds[scale], seconds_of(terms[scale].engine, question))
        if seconds[MANY] <= MOST * max(seconds[FEW], LEAST_SECONDS):
            return
    pytest.fail(f"{seconds}")


def seconds_of(engine: Engine, question: Question) -> float:
    with rolled_back(engine) as connection, Session(connection) as session:
        begun = time.perf_counter()
        question.ask(session)
        session.flush()
        return time.perf_counter() - begun
