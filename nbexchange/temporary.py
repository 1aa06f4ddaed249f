"""Temporary folders beside their target, and the removal of abandoned ones.

A killed command leaves its temporary folder, often with a whole copy of an assignment. The next
command that works beside the same target removes it, if all of these conditions hold:

* It has a name of the form that `tempfile` creates here, is a real folder, and belongs to this
  user.
* It is more than a day old.
* No process of this machine has locked it. Each process locks its own folder, and the system
  releases the lock when the process dies. Machines that share a disk do not see each other's locks;
  for them, the age is the only protection.
"""

import contextlib
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there, so nothing is removed
    fcntl = None  # type: ignore[assignment]

PREFIX = ".nbexchange-"
_NAME = re.compile(re.escape(PREFIX) + "[a-z0-9_]{8}")
_OLD = 24 * 60 * 60  # seconds
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)


@contextlib.contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """A new folder (0700) in `parent` that is deleted at the end, with its contents."""
    remove_abandoned(parent)
    with (
        tempfile.TemporaryDirectory(
            prefix=PREFIX, dir=parent, ignore_cleanup_errors=True
        ) as folder,
        _locked(Path(folder)),
    ):
        yield Path(folder)


def remove_abandoned(parent: Path) -> None:
    """Remove the folders in `parent` that killed commands left, and ignore errors."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name):
                _remove_if_abandoned(Path(entry.path))


def _remove_if_abandoned(folder: Path) -> None:
    # The conditions are checked on the open folder: its name may soon belong to another folder.
    with contextlib.suppress(OSError), _opened(folder) as descriptor:
        status = os.fstat(descriptor)
        is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
        if is_ours and time.time() - status.st_mtime > _OLD:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a disk without locks
                descriptor = stack.enter_context(_opened(folder))
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, _FOLDER)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
