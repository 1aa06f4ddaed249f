"""docs/openapi.yaml as pages: every request with its parameters and answers, and the schemas.

`sphinxcontrib-openapi` is kept and reads 3.1, but shows neither the schemas of answers nor which
header belongs to which status.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

import yaml

from nbexchange.handlers.pages import openapi
from nbexchange_docs.options import cell

METHODS = ("get", "post", "delete", "put", "patch", "head", "options")

Node = Mapping[str, Any]


def document() -> Node:
    read: Node = yaml.safe_load(openapi())
    return read


def about() -> str:
    return str(document()["info"]["description"])


def operations() -> str:
    doc = document()
    return "\n".join(
        _operation(doc, path, method, item[method])
        for path, item in doc["paths"].items()
        for method in METHODS
        if method in item
    )


def _operation(doc: Node, path: str, method: str, one: Node) -> str:
    place = f"`{path[1:]}` below the base URL" if path[1:] else "the base URL itself"
    free = "; no token is needed" if one.get("security") == [] else ""
    parts = [
        f"(operation-{one['operationId']})=\n## {method.upper()} `{path}`\n",
        f"{one['summary']}. The operation `{one['operationId']}`, at {place}{free}.\n",
        one.get("description", ""),
        *_parameters(doc, one.get("parameters", [])),
        *_body(doc, one.get("requestBody")),
        *_responses(doc, one["responses"]),
    ]
    return "\n".join(parts)


def _parameters(doc: Node, given: list[Node]) -> Iterator[str]:
    if not given:
        return
    yield "**Parameters**\n\n| name | in | has to be | |\n|---|---|---|---|"
    for one in (_found(doc, each) for each in given):
        notes = [
            "Required." if one.get("required") else "",
            "Deprecated." if one.get("deprecated") else "",
            one.get("description", ""),
        ]
        words, kind = cell(" ".join(filter(None, notes))), cell(_type(doc, one["schema"]))
        yield f"| `{one['name']}` | {one['in']} | {kind} | {words} |"
    yield ""


def _body(doc: Node, body: Node | None) -> Iterator[str]:
    if body is None:
        return
    yield f"**Body**\n\n{body.get('description', '')}\n"
    for media, one in body["content"].items():
        yield f"- `{media}`"
        required = one.get("schema", {}).get("required", [])
        for name, field in one.get("schema", {}).get("properties", {}).items():
            need = "required" if name in required else "optional"
            yield f"  - `{name}` ({need}): {field.get('description', '')}"
    yield ""


def _responses(doc: Node, given: Node) -> Iterator[str]:
    yield "**Answers**\n\n| status | | body | headers |\n|---|---|---|---|"
    for status, each in sorted(given.items()):
        one = _found(doc, each)
        body = "<br>".join(
            f"`{media}` {_type(doc, said.get('schema', {}))}".strip()
            for media, said in one.get("content", {}).items()
        )
        headers = ", ".join(f"`{name}`" for name in one.get("headers", {}))
        words = one["description"]
        phrase = HTTPStatus(int(status)).phrase
        yield f"| {status} {phrase} | {cell(words)} | {cell(body)} | {cell(headers)} |"
    yield ""


def schemas() -> str:
    doc = document()
    found = doc["components"]["schemas"]
    parts = [_schema(doc, name, one) for name, one in found.items()]
    parts.append("### Headers of answers\n\n| header | has to be | |\n|---|---|---|")
    parts += _headers(doc)
    return "\n".join(parts)


def _schema(doc: Node, name: str, one: Node) -> str:
    parts = [f"(schema-{name})=\n### {name}\n", one.get("description", "")]
    if "properties" not in one:
        parts.append(f"\n{_type(doc, one)}\n")
        return "\n".join(parts)
    parts.append("\n| key | is | |\n|---|---|---|")
    required = one.get("required", [])
    for key, value in one["properties"].items():
        words = value.get("description", "")
        words = words if key in required else f"Not always there. {words}"
        parts.append(f"| `{key}` | {cell(_type(doc, value))} | {cell(words)} |")
    return "\n".join([*parts, ""])


def _headers(doc: Node) -> Iterator[str]:
    names = {
        each["$ref"].rpartition("/")[2]: name
        for item in doc["paths"].values()
        for method in METHODS
        if method in item
        for answer in item[method]["responses"].values()
        for name, each in _found(doc, answer).get("headers", {}).items()
    }
    names |= {"Allow": "Allow"}
    for key, one in doc["components"]["headers"].items():
        words = cell(one.get("description", ""))
        yield f"| `{names[key]}` | {cell(_type(doc, one['schema']))} | {words} |"


def _found(doc: Node, node: Node) -> Node:
    while "$ref" in node:
        place: Any = doc
        for step in node["$ref"].removeprefix("#/").split("/"):
            place = place[step]
        node = place
    return node


def _type(doc: Node, schema: Node) -> str:
    """In a few words; a schema with a name is its link."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#schema-{name})"
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return "one of " + ", ".join(f"`{json.dumps(one)}`" for one in schema["enum"])
    if "oneOf" in schema:
        return " or ".join(_type(doc, one) for one in schema["oneOf"])
    said = schema.get("type", "")
    names = said if isinstance(said, list) else [said]
    words = " or ".join(_WORDS.get(str(name), str(name)) for name in names)
    if "array" in names:
        items = schema.get("items")
        words = f"list of {_type(doc, items)}" if items else "empty list"
    if said == "object" and "properties" in schema:
        keys = [f"`{key}`: {_type(doc, one)}" for key, one in schema["properties"].items()]
        words = "object of " + ", ".join(keys)
    return words + _bounds(schema)


def _bounds(schema: Node) -> str:
    notes = []
    if "minimum" in schema:
        notes.append(f"from {schema['minimum']}")
    if "maximum" in schema:
        notes.append(f"to {schema['maximum']}")
    if "maxLength" in schema:
        least = schema.get("minLength", 0)
        notes.append(f"of {least} to {schema['maxLength']} characters")
    if "contentEncoding" in schema:
        notes.append(f"in {schema['contentEncoding']}")
    if "pattern" in schema:
        notes.append(f"like `{schema['pattern']}`")
    if "not" in schema:
        notes.append("but none of " + ", ".join(f"`{one}`" for one in schema["not"]["enum"]))
    return "".join(f" {note}" for note in notes)


_WORDS = {
    "string": "text",
    "integer": "whole number",
    "boolean": "`true` or `false`",
    "null": "null",
    "object": "object",
}
