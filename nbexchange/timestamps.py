"""The text form of all times: `2026-11-21 10:00:00.000000 UTC`.

The width is fixed and the zone is always UTC, so sorting the text sorts the times. nbgrader relies
on that.
"""

import datetime

LONGEST_CLAIM = 100
"""The maximum length of a client's own timestamp; a longer one is not stored."""


def to_text(moment: datetime.datetime) -> str:
    # Not strftime, which writes the year 999 with three digits.
    bare = moment.astimezone(datetime.UTC).replace(tzinfo=None)
    return f"{bare.isoformat(' ', 'microseconds')} UTC"


def normal_claim(claim: str | None) -> str | None:
    """A client's timestamp in our text form if it can be parsed, otherwise unchanged.

    A time without a zone counts as UTC. None for an empty text and for one that is too long.
    """
    claim = (claim or "").strip()
    if not 0 < len(claim) <= LONGEST_CLAIM or not claim.isprintable():
        return None
    try:
        moment = datetime.datetime.fromisoformat(claim.removesuffix("UTC").strip())
    except ValueError:
        return claim
    try:
        return to_text(moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC))
    except OverflowError:
        return claim


def minute(moment: datetime.datetime) -> str:
    """The form for messages: `2026-11-21 10:00 UTC`."""
    return f"{moment.astimezone(datetime.UTC):%Y-%m-%d %H:%M} UTC"
