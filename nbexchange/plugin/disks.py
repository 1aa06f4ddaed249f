"""Messages about disk errors: which file, and which disk."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nbexchange.temporary import PREFIX

_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """In this context, errors name `path` if they name no file (as errors of writing) or a file in
    a temporary folder of ours."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or _is_temporary(error.filename)):
            error.filename = str(path)
        raise


def _is_temporary(path: str | bytes) -> bool:
    return f"{os.sep}{PREFIX}" in os.fsdecode(path)


def naming_temporary() -> contextlib.AbstractContextManager[None]:
    """The same for temporary files, which have no path."""
    return naming(_temporary() or "temporary files")


def _temporary() -> str | None:
    try:
        return tempfile.gettempdir()
    except OSError:  # no folder for temporary files can be used; the message lists the candidates
        return None


def problem(error: OSError) -> str:
    """A message about an error: the reason, the path, and the disk if it is full."""
    what = error.strerror or str(error) or type(error).__name__
    if error.filename is None:
        return what
    path = os.fsdecode(error.filename)
    text = f"{what}: {path}"
    if path == _temporary():
        text += " (the folder for temporary files; set TMPDIR to use another)"
    return f"{text}.{_disk(Path(path))}" if error.errno in _FULL else text


def _disk(path: Path) -> str:
    """About the disk of a file, which may be gone. Empty if the disk cannot be determined."""
    try:
        there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        usage = shutil.disk_usage(there)
        mount = next(folder for folder in (there, *there.absolute().parents) if folder.is_mount())
    except (OSError, StopIteration):
        return ""
    return (
        f" The disk at {mount} has {usage.free / 1e6:,.1f} MB left of {usage.total / 1e6:,.1f} MB, "
        "or a quota has been reached. Delete what you do not need there and try again."
    )
