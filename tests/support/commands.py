"""The program's subcommands, in this process."""

from __future__ import annotations

import logging

from nbexchange.app import NbExchange, main
from tests.support.service import Service, parts_of


def run(*arguments: str) -> int | str | None:
    """The program in this process: its exit status, or the words that it leaves with."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    try:
        main(list(arguments))
    except SystemExit as end:
        return end.code
    finally:
        # traitlets keeps one subcommand for a whole process, and its log handlers.
        for command, _ in NbExchange.subcommands.values():
            command.clear_instance()
        root.handlers, root.level = handlers, level
    return 0


def run_for(service: Service, name: str, *arguments: str, config: str = "") -> int | str | None:
    """A subcommand on the data of a service, which may run meanwhile.

    `config` is more lines of the configuration file.
    """
    return run(name, here(service, config), *arguments)


def here(service: Service, config: str = "") -> str:
    """The option that names a service's data."""
    options = [("base_storage_location", str(service.data)), *parts_of(service.data)]
    lines = [f"c.NbExchange.{option} = {value!r}\n" for option, value in options]
    file = service.data.parent / "command_config.py"
    file.write_text("".join(lines) + config)
    return f"--config-file={file}"
