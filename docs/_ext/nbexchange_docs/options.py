"""Options of the code as Markdown: name, type, default, help, short options and variables."""

from __future__ import annotations

import inspect
import math
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from unittest.mock import patch

from traitlets import (
    Bool,
    Dict,
    Enum,
    Float,
    HasTraits,
    Instance,
    Integer,
    List,
    TraitType,
    Type,
    Undefined,
    Unicode,
)
from traitlets.config import Application

Class = type[HasTraits]

_KINDS: tuple[tuple[type[TraitType[Any, Any]], str], ...] = (
    (Bool, "`True` or `False`"),
    (Integer, "whole number"),
    (Float, "number"),
    (Unicode, "text"),
    (List, "list"),
    (Dict, "mapping"),
    (Instance, "object"),
)

_VARIABLE = re.compile(r"\$?\b((?:NBEX|NBEXCHANGE|JUPYTERHUB|JUPYTER|XDG|AWS)_\w+)")
_HOME = "/home/somebody"


def kind_of(trait: TraitType[Any, Any]) -> str:
    if isinstance(trait, Enum):
        return "one of " + ", ".join(f"`{value!r}`" for value in trait.values or ())
    if isinstance(trait, Type):
        return f"a class, or its name as text: a `{_name(trait.klass)}`"
    kind = next((words for of, words in _KINDS if isinstance(trait, of)), trait.info())
    least, most = getattr(trait, "min", None), getattr(trait, "max", None)
    if least not in (None, -math.inf):
        kind += f" from {least}"
    if most not in (None, math.inf):
        kind += f" to {most}"
    return f"{kind}, or `None`" if trait.allow_none else kind


def _name(of: Any) -> str:
    return of if isinstance(of, str) else f"{of.__module__}.{of.__qualname__}"


def default_of(of: Class, trait: TraitType[Any, Any]) -> str:
    """As Python; empty if it depends on the machine, which the help then explains."""
    static = trait.default_value_repr()
    assert trait.name is not None
    if trait.name not in _dynamic(of):
        return "" if static == repr(Undefined) else static
    if issubclass(of, Application):
        with patch.dict(os.environ, {"HOME": _HOME}, clear=True):
            made = repr(getattr(of(), trait.name))
        return "" if _HOME in made else made
    return "" if static in ("''", "[]", "None") else static


def _dynamic(of: Class) -> set[str]:
    """Names of traits whose default is computed for each object, in either way of traitlets."""
    names: set[str] = set()
    for one in of.__mro__:
        names |= set(getattr(one, "_trait_default_generators", {}))
        names |= {n[1:-8] for n in vars(one) if n.startswith("_") and n.endswith("_default")}
    return names


def variables_of(text: str) -> list[str]:
    """The environment variables that a help names."""
    return sorted(set(_VARIABLE.findall(text)))


def shortcuts(of: type[Application]) -> Mapping[str, list[str]]:
    """`Class.trait` -> the short options of a program that set it."""
    found: dict[str, list[str]] = {}
    for names, target in of.aliases.items():
        words = names if isinstance(names, tuple) else (names,)
        place = target[0] if isinstance(target, tuple) else target
        found.setdefault(place, []).extend(_dashed(word, "=") for word in words)
    for names, (settings, _) in of.flags.items():
        words = names if isinstance(names, tuple) else (names,)
        for section, values in settings.items():
            for name in values:
                found.setdefault(f"{section}.{name}", []).extend(map(_dashed, words))
    return found


def _dashed(word: str, ending: str = "") -> str:
    return f"-{word}" if len(word) == 1 else f"--{word}{ending}"


def prose(text: str | None) -> str:
    """A help text as a Markdown paragraph: every character literally, and `code` as code."""
    lines = inspect.cleandoc(text or "").strip()
    parts = re.split(r"(`+[^`]+`+)", lines)
    shown = [re.sub(r"([\\*_<>\[\]|#])", r"\\\1", part) for part in parts[::2]]
    code = [f"`{part.strip('`')}`" for part in parts[1::2]]
    return "".join(words + mark for words, mark in zip(shown, [*code, ""], strict=True))


def cell(text: str) -> str:
    """For a table: one line; a bar in code has to be hidden as well."""
    return " ".join(text.split()).replace("\\|", "|").replace("|", "\\|")


def described(
    of: Class, trait: TraitType[Any, Any], short: Mapping[str, list[str]], level: str = "###"
) -> str:
    """A trait with its facts, below its own heading."""
    assert trait.this_class is not None
    place = f"{of.__name__}.{trait.name}"
    facts = [("what", kind_of(trait))]
    default = default_of(of, trait)
    if default:
        facts.append(("default", f"`{default}`"))
    names = short.get(place, []) or short.get(f"{trait.this_class.__name__}.{trait.name}", [])
    if names:
        facts.append(("command line", ", ".join(f"`{name}`" for name in names)))
    variables = variables_of(trait.help)
    if variables:
        facts.append(("environment", ", ".join(f"`{name}`" for name in variables)))
    rows = "\n".join(f"| {name} | {cell(words)} |" for name, words in facts)
    return f"({place})=\n{level} `{place}`\n\n{prose(trait.help)}\n\n| | |\n|---|---|\n{rows}\n"


def traits_of(of: Class, *, without: tuple[Class, ...] = ()) -> Iterator[TraitType[Any, Any]]:
    """By name; not those that one of the other classes has already."""
    known = {name for other in without for name in other.class_traits(config=True)}
    for name, trait in sorted(of.class_traits(config=True).items()):
        if name not in known:
            yield trait
