"""Why an archive is refused, in sentences for the person who sent it."""

from nbexchange.archive.limits import MIB, ArchiveLimits
from nbexchange.errors import BadArchive

_LONGEST_QUOTE = 80


class Unsendable(BadArchive):
    """One file or folder cannot be in an archive; the others can."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{quoted(name)} cannot be sent: {reason}")
        self.reason = reason


class BrokenOff(BadArchive):
    """A file could not be read to its end, so the bytes packed so far are not an archive."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{quoted(name)} {reason} while it was read; save it and try again")
        self.name = name
        self.reason = f"it {reason} while it was read"


def damaged(detail: str) -> BadArchive:
    return BadArchive(f"the archive is damaged: {detail}")


def cut() -> BadArchive:
    return BadArchive("the archive is incomplete: it ends too early")


def too_big(limits: ArchiveLimits) -> BadArchive:
    return BadArchive(f"the archive holds more than {limits.expanded_size // MIB} MiB")


def unwanted(what: str, name: str) -> BadArchive:
    advice = "; put a copy of the file in its place" if what.endswith("link") else ""
    return BadArchive(
        f"the archive holds {what}: {quoted(name)}; only files and folders can be sent{advice}"
    )


def quoted(name: str) -> str:
    """A name in a message: escaped, on one line, and not longer than one."""
    quoted = repr(name[:_LONGEST_QUOTE])
    return quoted if len(quoted) <= _LONGEST_QUOTE else quoted[: _LONGEST_QUOTE - 3] + "..."
