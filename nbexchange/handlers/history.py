"""history: what was done, in the shape that old clients filter."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

from nbexchange.errors import Malformed
from nbexchange.exchange import history
from nbexchange.exchange.history import Page
from nbexchange.exchange.policy import Verb
from nbexchange.exchange.records import ActionRecord
from nbexchange.handlers.base import LARGEST_PAGE, BaseHandler, tree_to_json
from nbexchange.identity import Role, User
from nbexchange.models import Action
from nbexchange.timestamps import to_text

ROWS = 2**62


class History(BaseHandler):
    verbs = {"GET": Verb.HISTORY}

    async def get(self) -> None:
        """history: everything for an instructor; releases and the own acts for a student."""
        query = functools.partial(
            history.history,
            action=self._action(),
            limit=self.number("limit", LARGEST_PAGE),
            page=self.number("page", ROWS),
        )
        course_id = self.parameter("course_id") or self.parameter("course_code")
        await self.answer(self._shape, query, course_id)

    def encode(self, answer: dict[str, Any]) -> bytes:
        return tree_to_json(answer).encode()

    def _action(self) -> Action | None:
        text = self.parameter("action")
        try:
            return Action(text) if text else None
        except ValueError as error:
            raise Malformed(f"{text!r} is not a valid assignment action.") from error

    def _shape(self, page: Page) -> dict[str, Any]:
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
                course["user_id"] = {str(record.user_pk): 1}
        answer: dict[str, Any] = {"value": list(courses.values())}
        # Old clients insist on exactly two keys, and never ask for a page.
        if self.parameter("limit") is not None:
            answer["next"] = page.next
        return answer


def _course(user: User, record: ActionRecord) -> dict[str, Any]:
    role = user.role_in(record.course_id) or Role.STUDENT
    return {
        "role": {role.value: 1},
        "user_id": {},
        "isInstructor": role is Role.INSTRUCTOR,
        "course_id": record.course_pk,
        "course_code": record.course_id,
        "course_title": record.course_title or "no_title",
        "assignments": [],
    }


def _assignment(record: ActionRecord) -> dict[str, Any]:
    return {
        "assignment_id": record.assignment_pk,
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
