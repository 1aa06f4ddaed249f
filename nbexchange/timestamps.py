"""The one form in which a time travels: `2026-11-21 10:00:00.000000 UTC`.

Fixed width and one zone, so that sorting the text sorts the times; nbgrader relies on that.
"""

import datetime

LONGEST_CLAIM = 100
"""Characters of a client's own timestamp that are kept."""


def to_text(moment: datetime.datetime) -> str:
    # Not strftime, which gives the year 999 three figures.
    bare = moment.astimezone(datetime.UTC).replace(tzinfo=None)
    return f"{bare.isoformat(' ', 'microseconds')} UTC"


def normal_claim(claim: str | None) -> str | None:
    """What a client says about time, in our form where it can be read, else as it is.

    A time without a zone is taken as UTC. None for what is empty or too long to be a time.
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
    """For a sentence: `2026-11-21 10:00 UTC`."""
    return f"{moment.astimezone(datetime.UTC):%Y-%m-%d %H:%M} UTC"
