"""nbgrader's configuration, loaded in any thread.

nbgrader's pages change the process's folder to find the configuration of a folder. All threads
share that folder, so here it stays, and the files are loaded by their paths.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nbgrader.apps import NbGrader
from nbgrader.exchange import ExchangeFactory
from traitlets.config import Application, Config

from nbexchange.plugin.exchange import Exchange

STARTED_IN = Path.cwd()
"""nbgrader reads the configuration in this folder too, as long as the process stays in it."""


class _ConfigFiles(NbGrader):  # type: ignore[misc]  # nbgrader is not typed
    """nbgrader's own reader, which translates outdated options."""

    load_cwd_config = False
    folders: Iterable[str | os.PathLike[str]] = ()

    def _configure_logging(self) -> None:
        """Not: logging's dictConfig closes all handlers of the process."""

    def load_config_file(self, **kwargs: Any) -> None:
        # Without nbgrader's own method, which warns about a missing file at each request.
        super(NbGrader, self).load_config_file(**kwargs)
        for folder in self.folders:
            Application.load_config_file(self, self.config_file_name, str(folder))


def load(log: Any, *folders: str | os.PathLike[str], config_dir: str | None = None) -> Config:
    """The configuration of the person, and above it that of these folders, the last one on top."""
    options = {} if config_dir is None else {"config_dir": config_dir}
    files = _ConfigFiles(log=log, **options)
    files.folders = folders
    files.load_config_file()
    config: Config = files.config
    return config


def uses_the_service(config: Config) -> bool:
    """Whether nbgrader's exchange is this package's."""
    return issubclass(ExchangeFactory(config=config).list, Exchange)
