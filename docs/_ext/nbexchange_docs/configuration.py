"""The options of the service, the plugin and the hub's side, each from its own code."""

from __future__ import annotations

import inspect
import re

from traitlets.config import Application

from nbexchange import hub as hub_side
from nbexchange import plugin as plugin_side
from nbexchange.app import NbExchange
from nbexchange_docs.options import Class, cell, described, prose, shortcuts, traits_of


def service() -> str:
    short = shortcuts(NbExchange)
    own = traits_of(NbExchange, without=(Application,))
    parts = ["## NbExchange\n", *(described(NbExchange, one, short) for one in own)]
    for of in NbExchange.classes:
        parts.append(f"## {of.__name__}\n\n{prose(_summary(of))}\n")
        parts += [described(of, one, short) for one in traits_of(of)]
    parts.append("## What every program of Jupyter has\n")
    shared = (one for one in traits_of(NbExchange) if one.this_class is Application)
    parts += [described(NbExchange, one, short) for one in shared]
    return "\n".join(parts)


def plugin() -> str:
    of = plugin_side.Exchange
    parts = ["## Exchange\n", *(described(of, one, {}) for one in traits_of(of))]
    for one in _others():
        parts.append(f"## {one.__name__}\n")
        own = [described(one, trait, {}) for trait in traits_of(one, without=(of,))]
        parts += own or ["Nothing of its own.\n"]
    return "\n".join(parts)


def _others() -> list[Class]:
    found = [getattr(plugin_side, name) for name in plugin_side.__all__]
    return [one for one in found if isinstance(one, type) and one is not plugin_side.Exchange]


def hub() -> str:
    """The arguments of `configure`, and its docstring."""
    doc = inspect.cleandoc(hub_side.configure.__doc__ or "")
    rows = ["| argument | may be | default |", "|---|---|---|"]
    for name, one in inspect.signature(hub_side.configure).parameters.items():
        if name == "c":
            continue
        if not re.search(rf"`{name}\b", doc):
            raise ValueError(f"the docstring of configure() does not say what {name} is")
        default = "`INSTRUCTORS`" if isinstance(one.default, frozenset) else f"`{one.default!r}`"
        rows.append(f"| `{name}` | {cell(f'`{one.annotation}`')} | {default} |")
    return "\n".join([*rows, "", doc])


def _summary(of: Class) -> str:
    """The first paragraph of the docstring; without one, of the module's docstring."""
    doc = of.__doc__ if "__doc__" in vars(of) and of.__doc__ else inspect.getmodule(of).__doc__
    return inspect.cleandoc(doc or "").partition("\n\n")[0]
