"""The plug that tells who a request comes from."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any

from tornado.web import RequestHandler

from nbexchange.errors import Unauthenticated

Answer = Mapping[str, Any] | None


class BaseUserHandler:
    """Subclass it, and name the subclass in `c.NbExchange.user_plugin_class`.

    There is one instance for the life of the service, and it is asked once for each request,
    and again when a body took longer than a minute. A
    subclass may also be a traitlets `Configurable`; then it gets the application as its parent
    and can be configured like the rest.
    """

    def check_start(self) -> None:
        """Raise `nbexchange.errors.Misconfigured` where the service must not start.

        Called once, before the service listens.
        """

    def find_problem(self) -> str | None:
        """What an administrator should correct although people can still sign in, or None.

        Called in a thread, by readyz, which shows it to every client and stays ready. It must not
        raise, and must not name a secret.
        """
        return None

    def get_current_user(self, request: RequestHandler) -> Answer | Awaitable[Answer]:
        """The identity of the sender; plain or async.

        `request` is Tornado's handler of the request: look at `request.request.headers`. Answer
        None for an unknown sender, or a dict with:

        * `name`: unique in the organisation;
        * `course_id` and `course_role` (and perhaps `course_title`) for a person in one course,
          or `courses`, a mapping of course_id to a role or to {"role": ..., "title": ...};
        * optionally `org_id` (a whole number, default 1), `full_name`, `email`, `lms_user_id`.

        The role `Instructor`, in any case, may release and collect; every other role is a
        student's. Raise a `nbexchange.errors.Unavailable` when the source of this knowledge is
        away; never guess.
        """
        raise Unauthenticated(
            "The exchange has no user handler, so nobody can sign in yet. Contact your "
            "administrator, who has to set c.NbExchange.user_plugin_class."
        )
