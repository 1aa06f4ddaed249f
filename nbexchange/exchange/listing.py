"""list: what a member of a course sees of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy.orm import Session

from nbexchange.exchange.events import newest_own
from nbexchange.exchange.lookup import newest_releases
from nbexchange.exchange.policy import Verb, permit
from nbexchange.exchange.records import ActionRecord, ReleaseRecord, SubmissionRecord
from nbexchange.exchange.submissions import own_submissions
from nbexchange.identity import User


class Listing(NamedTuple):
    """What a member sees: the newest releases, and what they did themselves."""

    releases: Sequence[ReleaseRecord]
    submissions: Sequence[SubmissionRecord]
    actions: Sequence[ActionRecord]


def list_assignments(session: Session, user: User, course_id: str | None) -> Listing:
    """Of one course, or of all the caller's courses; the number of queries is constant."""
    courses = [course_id] if course_id is not None else list(user.courses)
    for course in courses:
        permit(user, Verb.LIST, course)
    return Listing(
        newest_releases(session, user.org_id, courses),
        own_submissions(session, user, courses),
        newest_own(session, user, courses),
    )
