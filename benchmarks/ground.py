"""What a scenario stands on."""

from __future__ import annotations

import contextlib
import functools
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import bodies, service
from benchmarks.backing import Backing
from benchmarks.bodies import Body
from benchmarks.people import People
from benchmarks.service import Service
from benchmarks.sizes import Sizes


@dataclass(frozen=True)
class Ground:
    sizes: Sizes
    directory: Path
    """Empty, on the disk that is measured."""
    tokens: Path
    people: People
    url: str | None = None
    """Of a service that runs elsewhere."""
    options: tuple[str, ...] = ()
    """For the service that is started here."""
    backing: Backing = field(default_factory=Backing)

    @contextlib.contextmanager
    def service(self) -> Iterator[Service]:
        """A fresh one, whose files are gone afterwards; or the one that runs elsewhere."""
        with self.replicas(1) as (running,):
            yield running

    @contextlib.contextmanager
    def replicas(self, number: int) -> Iterator[list[Service]]:
        """Fresh ones that share a database and a store."""
        if self.url is not None:
            yield number * [Service(self.url, self.people)]
            return
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(self.empty_directory())
            options = [*stack.enter_context(self.backing.options()), *self.options]
            yield [
                stack.enter_context(
                    service.started(directory, self.tokens, self.people, options, f"log-{replica}")
                )
                for replica in range(number)
            ]

    @contextlib.contextmanager
    def empty_directory(self) -> Iterator[Path]:
        directory = Path(tempfile.mkdtemp(dir=self.directory))
        try:
            yield directory
        finally:
            shutil.rmtree(directory)

    def archive_file(self, size: int) -> Body:
        """A large archive, made once."""
        return _archive_file(size, self.directory / f"archive-{size}.tar.gz")


@functools.cache
def _archive_file(size: int, file: Path) -> Body:
    return bodies.archive_file(size, file)


def new_assignment() -> str:
    """A name that no run before has used: a service elsewhere keeps what it was given."""
    return f"ps-{secrets.token_hex(4)}"
