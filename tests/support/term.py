"""The data of a term: what courses of several organisations leave in the tables of one service.

`fill(engine)` writes four courses with 1,000 people, 40 assignments, 1,000 versions of releases,
300,000 events, 20,000 submissions and 20,000 versions of feedback, always the same. A `scale` of
0.01 writes one hundredth of all but courses and assignments. The schema has to be there, and empty.

What queries stumble over is in it: people and courses of the same name in two organisations, tables
whose rows of one course lie between those of the others, an instructor with half of all events of
the course, a student with a long history, and a course that ended long before the others.
"""

from __future__ import annotations

import datetime
import heapq
import itertools
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, func, insert, select, text

from nbexchange.database import Database
from nbexchange.identity import Membership, Role, User
from nbexchange.models import (
    Action,
    Assignment,
    Base,
    Course,
    Event,
    Feedback,
    Release,
    Submission,
    Subscription,
)
from nbexchange.models import UserRow as Person

ASSIGNMENTS = 10
"""In each course."""
PEOPLE, RELEASES, EVENTS, SUBMISSIONS = 1_000, 1_000, 300_000, 20_000
"""In all courses together, at scale 1. Feedback has as many versions as there are submissions."""

COPIES = 10
"""Only so much of what was done is told to the database, which copies it."""

START = datetime.datetime(2026, 9, 1, tzinfo=datetime.UTC)
TERM = datetime.timedelta(days=120)
BATCH = 10_000
Row = dict[str, Any]


@dataclass(frozen=True)
class CourseOfTerm:
    org_id: int
    course_id: str
    share: float
    """Of all people, events and submissions."""
    end: float = 1.0
    """When its last event was: 1 is the end of the term."""


PHYSICS, FOREIGN_PHYSICS, HISTORY, CHEMISTRY = COURSES = (
    CourseOfTerm(1, "physics", 0.4),
    CourseOfTerm(2, "physics", 0.3),
    CourseOfTerm(3, "history", 0.2),
    CourseOfTerm(1, "chemistry", 0.1, end=0.1),
)

INSTRUCTOR = "ada"
"""Of each course; half of its events are hers."""
USUAL, LONG = "bob", "eve"
"""Students of each course: one handed in each assignment once, at any scale; one did a tenth of all
that was done."""


def instructor(course: CourseOfTerm) -> User:
    return _user(INSTRUCTOR, course, Role.INSTRUCTOR)


def usual_student(course: CourseOfTerm) -> User:
    return _user(USUAL, course, Role.STUDENT)


def student_with_a_long_history(course: CourseOfTerm) -> User:
    return _user(LONG, course, Role.STUDENT)


def _user(name: str, course: CourseOfTerm, role: Role) -> User:
    """With all their courses in the organisation."""
    courses = [one.course_id for one in COURSES if one.org_id == course.org_id]
    return User(name, course.org_id, {course_id: Membership(role) for course_id in courses})


def assignment_id(number: int) -> str:
    return f"ps{number + 1}"


def fill(engine: Engine, scale: float = 1.0) -> None:
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            # A check of each foreign key would take longer than all else.
            connection.execute(text("SET session_replication_role = replica"))
        elif engine.dialect.name != "sqlite":
            connection.execute(
                text("SET SESSION tmp_table_size = 1 << 30, max_heap_table_size = 1 << 30")
            )
        for table, rows in _Term(scale).tables():
            while batch := list(itertools.islice(rows, BATCH)):
                connection.execute(insert(table), batch)
        _copy_events(connection)
        if engine.dialect.name == "postgresql":
            connection.execute(text("SET session_replication_role = DEFAULT"))
            _set_sequences(connection)
    _analyze(engine)


def _copy_events(connection: Connection) -> None:
    """Of the courses that go on, but not those of the usual students."""
    # Without the texts, which MariaDB would not copy in memory.
    columns = [column for column in Event.__table__.columns if column.name not in ("id", "detail")]
    going_on = [pk for pk, course in enumerate(COURSES, 1) if course.end == 1.0]
    newest = connection.execute(select(func.max(Event.id))).scalar_one()
    copied = (
        select(*columns)
        .join(Person, Person.id == Event.user_pk)
        .where(Event.id <= newest, Event.course_pk.in_(going_on), Person.name != USUAL)
        .order_by(Event.id)
    )
    for _ in range(COPIES - 1):
        connection.execute(insert(Event).from_select(columns, copied))


def _set_sequences(connection: Connection) -> None:
    """Our rows brought their numbers along."""
    for table in Base.metadata.sorted_tables:
        connection.execute(
            text(
                f"SELECT setval(pg_get_serial_sequence('\"{table.name}\"', 'id'), max(id)) "
                f'FROM "{table.name}"'
            )
        )


def _analyze(engine: Engine) -> None:
    """As a server does by itself after a while; an SQLite file of the service has no statistics."""
    tables = [table.name for table in Base.metadata.sorted_tables]
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(
                text("VACUUM ANALYZE")
            )
        elif engine.dialect.name != "sqlite":
            connection.execute(text(f"ANALYZE TABLE {', '.join(f'`{name}`' for name in tables)}"))


class _Term:
    """Rows, parents first. Every number follows from the scale alone."""

    def __init__(self, scale: float) -> None:
        self._scale = scale
        self._people = {course: self._names(course) for course in COURSES}
        names = {(course.org_id, name) for course in COURSES for name in self._people[course]}
        self._user_pks = {person: pk for pk, person in enumerate(sorted(names), 1)}
        self._submissions: list[Row] = []
        """Kept for the feedback."""

    def tables(self) -> Iterator[tuple[type[Base], Iterator[Row]]]:
        yield Course, self._courses()
        yield Person, self._users()
        yield Subscription, self._subscriptions()
        yield Assignment, self._assignments()
        yield Release, self._releases()
        self._submissions = list(self._all_submissions())
        yield Submission, iter(self._submissions)
        yield Feedback, self._feedback()
        yield Event, heapq.merge(*map(self._events, COURSES), key=lambda row: row["at"])

    def _share(self, of: int, course: CourseOfTerm) -> int:
        return round(of * self._scale * course.share)

    def _names(self, course: CourseOfTerm) -> list[str]:
        cast = [INSTRUCTOR, USUAL, LONG]
        others = max(1, self._share(PEOPLE, course) - len(cast))
        return cast + [f"student-{number:04}" for number in range(others)]

    # -- numbers of rows

    def _course_pk(self, course: CourseOfTerm) -> int:
        return COURSES.index(course) + 1

    def _assignment_pk(self, course: CourseOfTerm, number: int) -> int:
        # Shifted after each round, or whoever comes at each tenth turn would always meet the same.
        of_course = (number + number // ASSIGNMENTS) % ASSIGNMENTS
        return COURSES.index(course) * ASSIGNMENTS + of_course + 1

    def _user_pk(self, course: CourseOfTerm, name: str) -> int:
        return self._user_pks[course.org_id, name]

    def _newest_release_pk(self, assignment_pk: int) -> int:
        return assignment_pk * self._versions

    @property
    def _versions(self) -> int:
        return max(1, round(RELEASES * self._scale / ASSIGNMENTS / len(COURSES)))

    # -- rows

    def _courses(self) -> Iterator[Row]:
        for course in COURSES:
            yield {
                "id": self._course_pk(course),
                "org_id": course.org_id,
                "course_id": course.course_id,
            }

    def _users(self) -> Iterator[Row]:
        for (org_id, name), pk in self._user_pks.items():
            yield {"id": pk, "org_id": org_id, "name": name, "full_name": name.title()}

    def _subscriptions(self) -> Iterator[Row]:
        members = ((course, name) for course in COURSES for name in self._people[course])
        for pk, (course, name) in enumerate(members, 1):
            role = Role.INSTRUCTOR if name == INSTRUCTOR else Role.STUDENT
            yield {
                "id": pk,
                "course_pk": self._course_pk(course),
                "user_pk": self._user_pk(course, name),
                "role": role.value,
                "last_seen": START + TERM,
            }

    def _assignments(self) -> Iterator[Row]:
        for course, number in itertools.product(COURSES, range(ASSIGNMENTS)):
            yield {
                "id": self._assignment_pk(course, number),
                "course_pk": self._course_pk(course),
                "assignment_id": assignment_id(number),
                "released": True,
            }

    def _releases(self) -> Iterator[Row]:
        every = itertools.product(COURSES, range(ASSIGNMENTS), range(1, self._versions + 1))
        for pk, (course, number, version) in enumerate(every, 1):
            yield _stored("release", pk, START) | {
                "token": f"release-{pk:08}",
                "assignment_pk": self._assignment_pk(course, number),
                "user_pk": self._user_pk(course, INSTRUCTOR),
                "version": version,
                "notebooks": ["p1.ipynb", "p2.ipynb"],
            }

    def _all_submissions(self) -> Iterator[Row]:
        rows = heapq.merge(*map(self._submissions_of, COURSES), key=lambda row: row["timestamp"])
        for pk, row in enumerate(rows, 1):
            yield (
                _stored("submission", pk, row["timestamp"])
                | row
                | {
                    "token": submission_token(pk),
                    "arrived_at": row["timestamp"],
                    "stored_at": row["timestamp"],
                    "client_timestamp": None,
                    "notebooks": ["p1.ipynb", "p2.ipynb"],
                }
            )

    def _submissions_of(self, course: CourseOfTerm) -> Iterator[Row]:
        count = self._share(SUBMISSIONS, course)
        for number, name in enumerate(self._turns(course, count, Counter({LONG: count // 10}))):
            assignment_pk = self._assignment_pk(course, number)
            yield {
                "assignment_pk": assignment_pk,
                "user_pk": self._user_pk(course, name),
                "release_pk": self._newest_release_pk(assignment_pk),
                "timestamp": _time(course, number, count),
            }

    def _feedback(self) -> Iterator[Row]:
        instructors = {
            pk: self._instructor_pk(pk) for pk in range(1, 1 + len(COURSES) * ASSIGNMENTS)
        }
        versions = (
            (submission, version)
            for submission in self._submissions
            for version in range(1, 1 + _versions_of_feedback(submission["id"]))
        )
        for pk, (submission, version) in enumerate(versions, 1):
            yield _stored("feedback", pk, submission["timestamp"]) | {
                "submission_pk": submission["id"],
                "user_pk": instructors[submission["assignment_pk"]],
                "notebook_id": "p1",
                "version": version,
            }

    def _instructor_pk(self, assignment_pk: int) -> int:
        return self._user_pk(COURSES[(assignment_pk - 1) // ASSIGNMENTS], INSTRUCTOR)

    def _events(self, course: CourseOfTerm) -> Iterator[Row]:
        count = self._share(EVENTS, course) // (COPIES if course.end == 1.0 else 1)
        most = Counter({INSTRUCTOR: count // 2, LONG: count // 10})
        for number, name in enumerate(self._turns(course, count, most)):
            actions = _OF_INSTRUCTORS if name == INSTRUCTOR else _OF_STUDENTS
            yield {
                "at": _time(course, number, count),
                "action": actions[number // ASSIGNMENTS**2 % len(actions)],
                "course_pk": self._course_pk(course),
                "user_pk": self._user_pk(course, name),
                # One assignment was purged.
                "assignment_pk": self._assignment_pk(course, number) if number % 100 else None,
                "token": f"token-{number:08}",
            }

    def _turns(self, course: CourseOfTerm, count: int, most: Counter[str]) -> Iterator[str]:
        """Who does each of so many things: the usual student one for each assignment, those with
        most so many, evenly spread, and the others the rest in turn."""
        others = itertools.cycle(self._people[course][3:])
        yield from itertools.repeat(USUAL, ASSIGNMENTS)
        for number in range(count - ASSIGNMENTS):
            done = {name: number * most[name] // count for name in most}
            upcoming = [n for n in most if (number + 1) * most[n] // count > done[n]]
            yield upcoming[0] if upcoming else next(others)


_OF_INSTRUCTORS = (
    Action.COLLECTED,
    Action.COLLECTED,
    Action.COLLECTED,
    Action.FEEDBACK_RELEASED,
    Action.FETCHED,
    Action.RELEASED,
)
_OF_STUDENTS = (Action.FETCHED, Action.SUBMITTED, Action.FEEDBACK_FETCHED, Action.FETCHED)


def submission_token(pk: int) -> str:
    return f"submission-{pk:08}"


def _stored(kind: str, pk: int, timestamp: datetime.datetime) -> Row:
    return {
        "id": pk,
        "key": f"{kind}-{pk:08}",
        "sha256": f"{pk:064x}",
        "size": 20_000,
        "timestamp": timestamp,
        "idempotency_key": f"key-{pk}",
    }


def _versions_of_feedback(submission_pk: int) -> int:
    """None, one or two; one on average."""
    return (0, 1, 1, 2)[submission_pk % 4]


def _time(course: CourseOfTerm, number: int, count: int) -> datetime.datetime:
    return START + TERM * (course.end * (number + 1) / count)


if __name__ == "__main__":  # python -m tests.support.term URL [SCALE]
    database = Database(sys.argv[1])
    database.schema.upgrade()
    fill(database.engine, *map(float, sys.argv[2:]))
    database.close()
