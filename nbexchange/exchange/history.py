"""history: the events of a course, newest first.

Events are found by branches: conditions on the leading columns of an index whose last column is the
event's id. So the newest events of a branch are one short range of that index, however many events
other people have. (A database does not split an OR into such ranges by itself.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from nbexchange import models
from nbexchange.exchange.cursors import Cursors
from nbexchange.exchange.events import ACTIONS, PURGES
from nbexchange.exchange.policy import Reach, Verb, permit
from nbexchange.exchange.records import ActionRecord
from nbexchange.exchange.walks import unindexed
from nbexchange.identity import User
from nbexchange.models import Action, Assignment, Event

BATCH = 500
"""Events read at a time."""

Branch = ColumnElement[bool]


class HistoryPage(NamedTuple):
    records: Sequence[ActionRecord]
    next: str | None
    """The value of `page` for the next page; None at the end."""


def history_page(
    session: Session,
    user: User,
    course_id: str | None = None,
    *,
    action: Action | None = None,
    limit: int,
    page: str | None = None,
) -> HistoryPage:
    """The newest events of one course, or of all the caller's courses.

    Students see releases and their own actions.
    """
    view = _view(session, user, course_id, action)
    cursors = Cursors(session, user.org_id, user.name, course_id, action)
    before = None if page is None else cursors.to_number(page)
    keys = _newest(session, view.in_courses(), before, limit + 1)
    rest = cursors.to_text(keys[limit - 1]) if len(keys) > limit else None
    return HistoryPage(_records(session, view, keys[:limit]), rest)


class History:
    """The whole history in batches: one assignment after the other, its newest events first."""

    def __init__(
        self,
        session: Session,
        user: User,
        course_id: str | None = None,
        *,
        action: Action | None = None,
    ) -> None:
        self._view = view = _view(session, user, course_id, action)
        parts = [
            *(_Part.of_assignment(view, *keys) for keys in _assignments(session, view)),
            *(_Part.of_purges(view, course_pk) for course_pk in view.all_of),
        ]
        sections = [section for part in parts if (section := _section(session, part)) is not None]
        self.own_courses = {section.course_pk for section in sections if section.has_own}
        """Keys of the courses in which the caller has events."""
        self._sections = deque(_in_order(sections))
        self._before: int | None = None

    @property
    def is_over(self) -> bool:
        return not self._sections

    def take(self, session: Session) -> list[ActionRecord]:
        """The next batch."""
        keys: list[int] = []
        while self._sections and len(keys) < BATCH:
            wanted = BATCH - len(keys)
            newest = _newest(session, self._sections[0].branches, self._before, wanted)
            keys += newest
            if len(newest) < wanted:
                self._sections.popleft()
                self._before = None
            else:
                self._before = newest[-1]
        return _records(session, self._view, keys)


# -- what a caller may see


@dataclass(frozen=True)
class View:
    """What a caller may see: everything in some courses; releases and own actions in others."""

    all_of: Sequence[int]
    own_of: Sequence[int]
    """Keys of courses."""
    user_pk: int | None
    """None for a user without any event."""
    actions: frozenset[Action]
    visible: Branch
    """The same condition by names. It is checked again for each batch, because SQLite gives the
    keys of erased rows to new rows."""

    def in_courses(self) -> list[Branch]:
        own = and_(Event.course_pk.in_(self.own_of), Event.action.in_(self.actions))
        return [
            *_each(Event.course_pk, self.all_of, self.actions),
            *_each(Event.course_pk, self.own_of, self.actions & {Action.RELEASED}),
            # Without this, the many events of an instructor in other courses would be read in vain.
            *(self.own(own) if self.own_of and self.actions else []),
        ]

    def in_assignment(self, course_pk: int, assignment_pk: int) -> list[Branch]:
        if course_pk in self.all_of:
            return _each(Event.assignment_pk, [assignment_pk], self.actions)
        released = self.actions & {Action.RELEASED}
        return [*_each(Event.assignment_pk, [assignment_pk], released), *self.own_in(assignment_pk)]

    def own_in(self, assignment_pk: int) -> list[Branch]:
        of = _each(Event.assignment_pk, [assignment_pk], self.actions)
        return [branch for each in of for branch in self.own(each)]

    def own(self, where: Branch) -> list[Branch]:
        return [] if self.user_pk is None else [and_(Event.user_pk == self.user_pk, where)]


def _each(column: Any, keys: Sequence[int], actions: Collection[Action]) -> list[Branch]:
    return [and_(column == key, Event.action == action) for key in keys for action in actions]


def _view(session: Session, user: User, course_id: str | None, action: Action | None) -> View:
    courses = [course_id] if course_id is not None else list(user.courses)
    reach = {course: permit(user, Verb.HISTORY, course) for course in courses}
    rows = session.execute(
        select(models.Course.id, models.Course.course_id).where(
            models.Course.org_id == user.org_id, models.Course.course_id.in_(courses)
        )
    ).all()
    user_pk = session.execute(
        select(models.UserRow.id).where(
            models.UserRow.org_id == user.org_id, models.UserRow.name == user.name
        )
    ).scalar_one_or_none()
    unrestricted = [course for course in courses if reach[course] is Reach.ALL]
    return View(
        [key for key, course in rows if course in unrestricted],
        [key for key, course in rows if course not in unrestricted],
        user_pk,
        frozenset(Action if action is None else {action}),
        _visible(user, unrestricted, courses),
    )


def _visible(user: User, unrestricted: Sequence[str], courses: Sequence[str]) -> Branch:
    own = or_(Event.action == Action.RELEASED, models.UserRow.name == user.name)
    return and_(
        unindexed(models.Course.org_id) == user.org_id,
        or_(
            models.Course.course_id.in_(unrestricted),
            and_(models.Course.course_id.in_(courses), own),
        ),
    )


# -- reading


class Section(NamedTuple):
    """The visible events of one assignment, or of the purges of one course."""

    course_pk: int
    newest: int
    has_own: bool
    branches: Sequence[Branch]
    """Those with events."""


def _assignments(session: Session, view: View) -> Sequence[tuple[int, int]]:
    courses = [*view.all_of, *view.own_of]
    query = select(Assignment.course_pk, Assignment.id).where(Assignment.course_pk.in_(courses))
    return [(course_pk, key) for course_pk, key in session.execute(query)]


class _Part(NamedTuple):
    """What may become a section."""

    course_pk: int
    branches: Sequence[Branch]
    own: Sequence[Branch]

    @classmethod
    def of_assignment(cls, view: View, course_pk: int, assignment_pk: int) -> _Part:
        branches = view.in_assignment(course_pk, assignment_pk)
        return cls(course_pk, branches, view.own_in(assignment_pk))

    @classmethod
    def of_purges(cls, view: View, course_pk: int) -> _Part:
        """Purges have a part of their own, because their assignments may not exist any more."""
        branches = _each(Event.course_pk, [course_pk], view.actions & {Action.PURGED})
        return cls(course_pk, branches, [own for each in branches for own in view.own(each)])


def _section(session: Session, part: _Part) -> Section | None:
    """None for a part without visible events."""
    course_pk, branches, own = part
    columns = [_newest_of(branch) for branch in [*branches, *own]]
    if not columns:
        return None
    newest = session.execute(select(*columns)).one()
    visible = [
        (key, branch) for key, branch in zip(newest, branches, strict=False) if key is not None
    ]
    if not visible:
        return None
    return Section(
        course_pk,
        max(key for key, _ in visible),
        any(key is not None for key in newest[len(branches) :]),
        [branch for _, branch in visible],
    )


def _newest_of(branch: Branch) -> Any:
    # Not max(id): MariaDB would read all of them for it.
    return select(Event.id).where(branch).order_by(Event.id.desc()).limit(1).scalar_subquery()


def _in_order(sections: Sequence[Section]) -> list[Section]:
    """Courses, and the assignments in each, by their newest event."""
    newest: dict[int, int] = {}
    for section in sections:
        newest[section.course_pk] = max(newest.get(section.course_pk, 0), section.newest)
    return sorted(
        sections, key=lambda section: (newest[section.course_pk], section.newest), reverse=True
    )


def _newest(
    session: Session, branches: Sequence[Branch], before: int | None, number: int
) -> list[int]:
    """Keys of the newest events, newest first."""
    keys: set[int] = set()
    for branch in branches:
        query = select(Event.id).where(branch).order_by(Event.id.desc()).limit(number)
        if before is not None:
            query = query.where(Event.id < before)
        keys.update(session.execute(query).scalars())
    return sorted(keys, reverse=True)[:number]


def _records(session: Session, view: View, keys: Sequence[int]) -> list[ActionRecord]:
    """In the order of the keys, without events that were erased meanwhile."""
    records: dict[int, ActionRecord] = {}
    for query in (ACTIONS, PURGES):
        missing = [key for key in keys if key not in records]
        if missing:
            rows: Any = session.execute(query.where(view.visible, Event.id.in_(missing)))
            records |= {row[0]: ActionRecord(*row) for row in rows}
    return [records[key] for key in keys if key in records]
