"""history: all recorded actions, in the shape that old clients filter."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sqlalchemy.orm import Session

from nbexchange.errors import Malformed
from nbexchange.exchange import history
from nbexchange.exchange.history import HistoryPage
from nbexchange.exchange.policy import Verb
from nbexchange.exchange.records import ActionRecord
from nbexchange.handlers.base import LARGEST_PAGE
from nbexchange.handlers.lists import ListHandler, Piece, Pieces, Whole, encode
from nbexchange.handlers.shapes import number
from nbexchange.identity import Role, User
from nbexchange.models import Action
from nbexchange.timestamps import to_text


class HistoryHandler(ListHandler):
    verbs = {"GET": Verb.HISTORY}

    async def get(self) -> None:
        """history: everything for an instructor; releases and their own actions for a student."""
        course_id = self.parameter("course_id") or self.parameter("course_code")
        action = self._action()
        limit, page = self.number("limit", LARGEST_PAGE), self.parameter("page")
        if page is not None and limit is None:
            raise Malformed("A `page` needs a `limit`. Add it, or leave both out for everything.")

        def begin(session: Session) -> Pieces:
            if limit is None:
                return Tree(
                    self.user, history.History(session, self.user, course_id, action=action)
                )
            found = history.history_page(
                session, self.user, course_id, action=action, limit=limit, page=page
            )
            return Whole(self._shape(found))

        await self.answer(begin)

    def _action(self) -> Action | None:
        text = self.parameter("action")
        try:
            return Action(text) if text else None
        except ValueError as error:
            raise Malformed(f"{text!r} is not a valid assignment action.") from error

    def _shape(self, page: HistoryPage) -> dict[str, Any]:
        courses: dict[int, dict[str, Any]] = {}
        assignments: dict[int, dict[str, Any]] = {}
        for record in page.records:
            course = courses.setdefault(record.course_pk, _course(self.user, record))
            if record.assignment_pk not in assignments:
                assignments[record.assignment_pk] = _assignment(record)
                course["assignments"].append(assignments[record.assignment_pk])
            assignments[record.assignment_pk]["actions"].append(_action(record))
            assignments[record.assignment_pk]["action_summary"][record.action] += 1
            if record.user_name == self.user.name:
                course["user_id"] = {str(number(self.user.name)): 1}
        # Old clients insist on exactly two keys, and never ask for a page.
        return {"success": True, "value": list(courses.values()), "next": page.next}


class Tree:
    """All of a history: courses, with assignments, with actions."""

    def __init__(self, user: User, walk: history.History) -> None:
        self._user = user
        self._walk = walk
        self._course: int | None = None
        self._assignment: int | None = None
        self._summary: Counter[str] = Counter()
        self._text = ['{"success":true,"value":[']

    def next(self, session: Session) -> Piece:
        for record in self._walk.take(session):
            self._add(record)
        if self._walk.is_over:
            self._close_course()
            self._text.append("]}")
        text, self._text = "".join(self._text), []
        return Piece(text.encode(), is_last=self._walk.is_over)

    def _add(self, record: ActionRecord) -> None:
        if record.course_pk != self._course:
            self._open_course(record)
        if record.assignment_pk != self._assignment:
            self._open_assignment(record)
        elif self._summary:
            self._text.append(",")
        self._text.append(encode(_action(record)))
        self._summary[record.action] += 1

    def _open_course(self, record: ActionRecord) -> None:
        if self._course is not None:
            self._close_course()
            self._text.append(",")
        self._course = record.course_pk
        course = _course(self._user, record)
        if record.course_pk in self._walk.own_courses:
            course["user_id"] = {str(number(self._user.name)): 1}
        self._text.append(encode(course).removesuffix("]}"))

    def _close_course(self) -> None:
        self._close_assignment()
        if self._course is not None:
            self._text.append("]}")

    def _open_assignment(self, record: ActionRecord) -> None:
        if self._assignment is not None:
            self._close_assignment()
            self._text.append(",")
        self._assignment = record.assignment_pk
        self._text.append(encode(_assignment(record)).removesuffix('],"action_summary":{}}'))

    def _close_assignment(self) -> None:
        if self._assignment is not None:
            self._text.append(f'],"action_summary":{encode(self._summary)}}}')
        self._assignment, self._summary = None, Counter()


def _course(user: User, record: ActionRecord) -> dict[str, Any]:
    role = user.role_in(record.course_id) or Role.STUDENT
    return {
        "role": {role.value: 1},
        "user_id": {},
        "isInstructor": role is Role.INSTRUCTOR,
        "course_id": number(record.course_id),
        "course_code": record.course_id,
        "course_title": record.course_title or "no_title",
        "assignments": [],
    }


def _assignment(record: ActionRecord) -> dict[str, Any]:
    return {
        "assignment_id": number(record.course_id, record.assignment_id),
        "assignment_code": record.assignment_id,
        "actions": [],
        "action_summary": Counter(),
    }


def _action(record: ActionRecord) -> dict[str, Any]:
    return {
        "action": f"AssignmentActions.{record.action}",
        "timestamp": to_text(record.at),
        "path": record.token or "",
        "user": record.user_name,
    }
