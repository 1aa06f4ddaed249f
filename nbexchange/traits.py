"""Option types that several parts use."""

from __future__ import annotations

from typing import Any, Never

from traitlets import Dict, TraitError, TraitType

from nbexchange.identity import DEFAULT_ORGANISATION, LARGEST_ORGANISATION, parse_organisation


class OrganisationNumber(TraitType[int, int]):
    """A number that `parse_organisation` accepts; text on a command line and as a key of JSON."""

    default_value = DEFAULT_ORGANISATION
    info_text = f"the number of an organisation, from 1 to {LARGEST_ORGANISATION}"

    def validate(self, obj: Any, value: Any) -> int:
        number = parse_organisation(value)
        if number is None:
            self.error(obj, value)
        return number


class SecretDict(Dict):
    """A mapping. An error about another type does not quote the value, which may be a secret."""

    def error(self, obj: Any, value: Any, error: Any = None, info: Any = None) -> Never:
        raise TraitError(f"{self.name} has to be a mapping: {{'name': value, ...}}")
