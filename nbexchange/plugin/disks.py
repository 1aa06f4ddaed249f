"""What a person is told of an error of the disk: which file, and which disk."""

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
    """Inside, an error that names no file, or one in a temporary folder of ours, is about this file
    or folder. Errors of writing name none."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or _is_temporary(error.filename)):
            error.filename = str(path)
        raise


def _is_temporary(path: str | bytes) -> bool:
    return f"{os.sep}{PREFIX}" in os.fsdecode(path)


def naming_temporary() -> contextlib.AbstractContextManager[None]:
    """The same for temporary files, which have no name."""
    return naming(_temporary() or "temporary files")


def _temporary() -> str | None:
    try:
        return tempfile.gettempdir()
    except OSError:  # no folder for temporary files can be used; its message names them
        return None


def problem(error: OSError) -> str:
    """A sentence about an error: what, where, and for a full disk which one."""
    what = error.strerror or str(error) or type(error).__name__
    if error.filename is None:
        return what
    path = os.fsdecode(error.filename)
    text = f"{what}: {path}"
    if path == _temporary():
        text += " (temporary files; the variable TMPDIR names another folder)"
    return f"{text}.{_disk(Path(path))}" if error.errno in _FULL else text


def _disk(path: Path) -> str:
    """About the disk of a file that may be gone; empty where it cannot be asked."""
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
