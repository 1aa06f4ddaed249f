"""Types of options that several parts have."""

from __future__ import annotations

from typing import Any, Never

from traitlets import Dict, TraitError, TraitType

from nbexchange.identity import DEFAULT_ORGANISATION, LARGEST_ORGANISATION, parse_organisation


class OrganisationNumber(TraitType[int, int]):
    """What `parse_organisation` takes: on a command line and as a key of JSON it is text."""

    default_value = DEFAULT_ORGANISATION
    info_text = f"the number of an organisation, from 1 to {LARGEST_ORGANISATION}"

    def validate(self, obj: Any, value: Any) -> int:
        number = parse_organisation(value)
        if number is None:
            self.error(obj, value)
        return number


class SecretDict(Dict):
    """A mapping whose values are not quoted when it is none."""

    def error(self, obj: Any, value: Any, error: Any = None, info: Any = None) -> Never:
        raise TraitError(f"{self.name} has to be a mapping: {{'name': value, ...}}")
