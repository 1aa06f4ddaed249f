"""An nbgrader exchange that stores everything in an nbexchange service.

In `nbgrader_config.py`:

    from nbexchange.plugin import configure
    c = get_config()
    configure(c)

Its results, messages and exit codes are those of nbgrader's own exchange. It guarantees:

* The only exception that it raises is `ExchangeError`, with a message that says what to do.
* It prints "Submitted as" only after the service has confirmed exactly the bytes that were sent.
* It deletes or overwrites a local copy only after the new one is complete.
* Names and files from the service cannot leave the folder that they belong to.
* Constructors send no requests.
"""

from typing import Any

from nbexchange.plugin import courses
from nbexchange.plugin.assignments import ExchangeFetchAssignment, ExchangeReleaseAssignment
from nbexchange.plugin.exchange import Exchange
from nbexchange.plugin.feedback import ExchangeFetchFeedback, ExchangeReleaseFeedback
from nbexchange.plugin.list import ExchangeList
from nbexchange.plugin.submissions import ExchangeCollect, ExchangeSubmit

__all__ = [
    "Exchange",
    "ExchangeCollect",
    "ExchangeFetchAssignment",
    "ExchangeFetchFeedback",
    "ExchangeList",
    "ExchangeReleaseAssignment",
    "ExchangeReleaseFeedback",
    "ExchangeSubmit",
    "configure",
]


def configure(c: Any) -> None:
    """Make nbgrader use the exchange service; `c` is the result of `get_config()`.

    If a hub provides the user's courses, each assignment is in a folder of its course, because two
    courses may both have a ps1.
    """
    c.ExchangeFactory.exchange = Exchange
    c.ExchangeFactory.list = ExchangeList
    c.ExchangeFactory.release_assignment = ExchangeReleaseAssignment
    c.ExchangeFactory.fetch_assignment = ExchangeFetchAssignment
    c.ExchangeFactory.submit = ExchangeSubmit
    c.ExchangeFactory.collect = ExchangeCollect
    c.ExchangeFactory.release_feedback = ExchangeReleaseFeedback
    c.ExchangeFactory.fetch_feedback = ExchangeFetchFeedback
    if courses.courses_from_env() is not None:
        c.Exchange.path_includes_course = True
