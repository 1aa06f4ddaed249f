"""The nbgrader exchange that keeps everything in an nbexchange service.

In `nbgrader_config.py`:

    from nbexchange.plugin import configure
    c = get_config()
    configure(c)

It behaves as nbgrader's own exchange does, in results, messages and exit codes, and these hold:

* Only `ExchangeError` leaves it, with a sentence that says what to do.
* "Submitted as" is said only when the service has confirmed the very bytes that were sent.
* No local copy is deleted or overwritten before the new one is there whole.
* Names and files that come from the service cannot get out of the folder they belong into.
* Constructors talk to nobody.
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
    """Make nbgrader use the exchange service; `c` is what `get_config()` gave.

    Where a hub says which courses somebody has, assignments lie in a folder of their course: two
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
