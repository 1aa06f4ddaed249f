"""The program and its subcommands, with the text of their --help."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

from traitlets.config import Application

from nbexchange.app import NbExchange
from nbexchange_docs.options import Class, cell, default_of, prose


def commands() -> str:
    parts = [_program(NbExchange, "nbexchange", NbExchange.__doc__ or "")]
    for name, (of, _) in NbExchange.subcommands.items():
        parts.append(_program(of, f"nbexchange {name}", of.__doc__ or ""))
    return "\n".join(parts)


def _program(of: type[Application], call: str, doc: str) -> str:
    examples = inspect.cleandoc(str(of.examples)).strip()
    shown = f"\n```\n{textwrap.dedent(examples)}\n```\n" if examples else ""
    rows = ["| option | default | |", "|---|---|---|", *_flags(of), *_aliases(of)]
    return f"## `{call}`\n\n{prose(doc)}\n{shown}\n" + "\n".join(rows) + "\n"


def _flags(of: type[Application]) -> Iterator[str]:
    for names, (_, words) in of.flags.items():
        yield f"| {_options(names)} | | {cell(prose(words))} |"


def _aliases(of: type[Application]) -> Iterator[str]:
    for names, target in of.aliases.items():
        place = target[0] if isinstance(target, tuple) else target
        section, _, name = place.partition(".")
        owner = _owner(of, section)
        trait = owner.class_traits()[name]
        default = default_of(NbExchange if owner is Application else owner, trait)
        shown = f"`{default}`" if default not in ("", "''", "None") else ""
        yield f"| {_options(names, '=')} | {cell(shown)} | {cell(prose(trait.help))} |"


def _options(names: Any, ending: str = "") -> str:
    words = names if isinstance(names, tuple) else (names,)
    dashed = [f"-{word}" if len(word) == 1 else f"--{word}{ending}" for word in words]
    return ", ".join(f"`{word}`" for word in dashed)


def _owner(of: type[Application], section: str) -> Class:
    known = [*of.__mro__, NbExchange, *NbExchange.classes, Application]
    return next(one for one in known if one.__name__ == section)
