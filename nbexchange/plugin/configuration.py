"""Load nbgrader's configuration, in any thread.

To find the configuration of a folder, nbgrader's pages change the working directory of the
process. All threads share it, so this module loads the files by their paths instead.
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
"""The working directory at the start. nbgrader reads the configuration in it, too."""


class _ConfigFiles(NbGrader):  # type: ignore[misc]  # nbgrader is not typed
    """nbgrader's own loader, which translates outdated options."""

    load_cwd_config = False
    folders: Iterable[str | os.PathLike[str]] = ()

    def _configure_logging(self) -> None:
        """Does nothing, because logging's dictConfig would close all handlers of the process."""

    def load_config_file(self, **kwargs: Any) -> None:
        # Skips nbgrader's own method, which would warn about a missing file at each request.
        super(NbGrader, self).load_config_file(**kwargs)
        for folder in self.folders:
            Application.load_config_file(self, self.config_file_name, str(folder))


def load(log: Any, *folders: str | os.PathLike[str], config_dir: str | None = None) -> Config:
    """The user's configuration, overridden by that of these folders in their order."""
    options = {} if config_dir is None else {"config_dir": config_dir}
    files = _ConfigFiles(log=log, **options)
    files.folders = folders
    files.load_config_file()
    config: Config = files.config
    return config


def uses_the_service(config: Config) -> bool:
    """Whether nbgrader is configured to use this package's exchange."""
    return issubclass(ExchangeFactory(config=config).list, Exchange)
