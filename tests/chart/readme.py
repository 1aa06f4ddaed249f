"""The table of values in chart/README.md, made from the schema and the defaults.

python -m tests.chart.readme    # writes it
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "chart"
README = CHART / "README.md"
BEGIN = "<!-- values: made by python -m tests.chart.readme -->\n"
END = "<!-- end of values -->\n"


def schema() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return read


def defaults() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    return read


def rows(of: dict[str, Any], given: Any, path: str = "") -> Iterator[str]:
    for name, value in of.get("properties", {}).items():
        here = f"{path}{name}"
        default = given[name]
        inner = "properties" in value
        shown = "" if inner else f"`{json.dumps(default, ensure_ascii=False)}`"
        words = value["description"].replace("|", "\\|")
        if "enum" in value:
            words += " One of " + ", ".join(f"`{choice}`" for choice in value["enum"]) + "."
        yield f"| `{here}` | {shown} | {words} |"
        yield from rows(value, default, f"{here}.")


def table() -> str:
    head = ["| value | default | |", "|---|---|---|"]
    return "\n".join([*head, *rows(schema(), defaults())]) + "\n"


def parts() -> tuple[str, str, str]:
    """What is before the table, the table, and what follows."""
    before, _, rest = README.read_text().partition(BEGIN)
    between, _, after = rest.partition(END)
    return before, between, after


if __name__ == "__main__":
    before, _, after = parts()
    README.write_text(before + BEGIN + table() + END + after)
