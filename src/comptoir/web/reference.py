"""Readable references, rendered on the server from the OpenAPI documents: one page a dialect, and the list of them."""

import re
from typing import Any

import msgspec

from comptoir import __version__
from comptoir.kit.http import Dialect
from comptoir.web.assets import address
from comptoir.web.markup import Html, fill, markup, template

METHODS = ("get", "post", "put", "delete")
_MARKS = re.compile(r"[`*]+([^`*]+)[`*]+")
"""What docstrings put around names; a page sets words as they are."""

DEPTH_MAX = 4
"""How deep nested objects are spelled out; below that their name has to do."""


def page(dialect: Dialect, document: dict[str, Any]) -> bytes:
    """Return the reference of *dialect*, whose OpenAPI document is *document*."""
    operations = [
        (method, path, document["paths"][path][method])
        for path in _paths(dialect)
        for method in METHODS
        if method in document["paths"][path]
    ]
    toc = [
        fill(
            '<li><a href="#{{id}}"><span class="method">{{method}}</span> <span class="path">{{path}}</span></a></li>',
            id=operation["operationId"], method=method.upper(), path=path,
        )
        for method, path, operation in operations
    ]  # fmt: skip
    served = " and ".join(("at the root",) * dialect.at_root + ((f"under {dialect.prefix}",) if dialect.prefix else ()))
    sockets = [
        fill(
            template("operation.html"), id=f"socket{number}", method="WS", path=path, summary=socket["summary"],
            description=socket["description"], parts=Html(""),
        )
        for number, (path, socket) in enumerate(document.get("x-websockets", {}).items())
    ]  # fmt: skip
    inside = fill(
        template("reference.html"), title=dialect.title, description=dialect.description, served=served, name=dialect.name,
        toc=toc, operations=[_operation(method, path, one, document) for method, path, one in operations], sockets=sockets,
    )  # fmt: skip
    return _whole(f"{dialect.title} · Comptoir", inside)


def index(dialects: tuple[Dialect, ...]) -> bytes:
    """Return the list of *dialects*."""
    rows = [
        fill(
            template("dialect.html"), name=one.name, title=one.title, description=one.description,
            where=", ".join((("/",) if one.at_root else ()) + ((one.prefix,) if one.prefix else ())),
            count=len(one.endpoints),
        )
        for one in dialects
    ]  # fmt: skip
    return _whole("Reference · Comptoir", fill(template("dialects.html"), dialects=rows))


def _whole(title: str, inside: Html) -> bytes:
    return fill(
        template("frame.html"), title=title, css=address("page.css"), icon=address("icon.svg"), inside=inside,
        version=__version__,
    ).encode()  # fmt: skip


def _paths(dialect: Dialect) -> list[str]:
    """Return the paths in the order that the dialect declares them in."""
    return list(dict.fromkeys(one.path.replace(":path}", "}") for one in dialect.endpoints))


def _operation(method: str, path: str, operation: dict[str, Any], document: dict[str, Any]) -> Html:
    parts: list[Html] = []
    parameters = operation.get("parameters", ())
    if parameters:
        rows = [
            _row(
                f"{one['name']} ({one['in']})",
                one["schema"],
                required=one["required"],
                words=one.get("description", ""),
            )
            for one in parameters
        ]
        parts.append(_table("Parameters", rows))
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body is not None:
        parts += _body("Request", body, document, asked=True)
    for status, answer in operation["responses"].items():
        content = answer.get("content", {})
        if int(status) < 400:
            parts += _body(f"Answer {status}", content.get("application/json", {}), document, asked=False)
            media = [one for one in content if one != "application/json"]
            if media:
                parts.append(fill("<h3>Answer {{status}}</h3><p>{{media}}</p>", status=status, media=", ".join(media)))
    refusals = [
        fill("<tr><td>{{status}}</td><td>{{words}}</td></tr>", status=status, words=_sentences(answer["description"]))
        for status, answer in operation["responses"].items()
        if int(status) >= 400
    ]
    parts.append(
        fill('<h3>Refusals</h3><div class="scroll"><table><tbody>{{rows}}</tbody></table></div>', rows=refusals)
    )
    return fill(
        template("operation.html"), id=operation["operationId"], method=method.upper(), path=path,
        summary=operation["summary"], description=operation["description"], parts=parts,
    )  # fmt: skip


def _sentences(description: str) -> Html:
    lines = [line.removeprefix("- ") for line in description.split("\n")]
    return Html("<br>".join(markup(_MARKS.sub(r"\1", line)) for line in lines))


def _body(title: str, content: dict[str, Any], document: dict[str, Any], *, asked: bool) -> list[Html]:
    """Return the fields and the example of a body; that a field is required is worth saying of what is asked."""
    parts = []
    rows = list(_fields(content.get("schema", {}), document)) if content.get("schema") else []
    if rows:
        parts.append(
            _table(
                title,
                [_row(name, shape, required=needed and asked, words=words) for name, shape, needed, words in rows],
            )
        )
    if "example" in content:
        shown = msgspec.json.format(msgspec.json.encode(content["example"]), indent=2).decode()
        parts.append(fill('<h3>{{title}}, for example</h3><pre tabindex="0">{{shown}}</pre>', title=title, shown=shown))
    return parts


def _fields(
    schema: dict[str, Any], document: dict[str, Any], *, prefix: str = "", depth: int = 0
) -> list[tuple[str, dict[str, Any], bool, str]]:
    """Return (name, schema, required, description) of every field, nested ones under dotted names."""
    schema = _resolved(schema, document)
    if schema.get("type") == "array":
        return _fields(schema.get("items", {}), document, prefix=f"{prefix}[]", depth=depth)
    found: list[tuple[str, dict[str, Any], bool, str]] = []
    if depth >= DEPTH_MAX:
        return found
    for name, shape in schema.get("properties", {}).items():
        full = f"{prefix}.{name}" if prefix else name
        found.append((full, shape, name in schema.get("required", ()), str(shape.get("description", ""))))
        found += _fields(_not_null(shape), document, prefix=full, depth=depth + 1)
    return found


def _not_null(shape: dict[str, Any]) -> dict[str, Any]:
    choices = [one for one in shape.get("anyOf", ()) if one != {"type": "null"}]
    return choices[0] if len(choices) == 1 else shape


def _resolved(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref", "")
    if not reference:
        return schema
    found: dict[str, Any] = document["components"]["schemas"][reference.rsplit("/", 1)[1]]
    return found


def _table(title: str, rows: list[Html]) -> Html:
    return fill(template("fields.html"), title=title, rows=rows)


def _row(name: str, schema: dict[str, Any], *, required: bool, words: str) -> Html:
    return fill(
        "<tr><td><code>{{name}}</code></td><td>{{kind}}{{needed}}</td><td>{{words}}</td></tr>",
        name=name, kind=kind_of(schema), needed=", required" if required else "", words=_MARKS.sub(r"\1", words),
    )  # fmt: skip


LIMITS = {
    "minimum": "at least {}", "maximum": "at most {}", "exclusiveMinimum": "above {}", "minLength": "at least {} characters",
    "maxLength": "at most {} characters", "minItems": "{} or more", "maxItems": "at most {}",
}  # fmt: skip


def kind_of(schema: dict[str, Any]) -> str:
    """Say in words what a value may be."""
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[1]
    if "anyOf" in schema:
        return " or ".join(kind_of(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(msgspec.json.encode(one).decode() for one in schema["enum"])
    if schema.get("type") == "array":
        kind = f"list of {kind_of(schema.get('items', {}))}"
    else:
        kind = {"integer": "whole number", "null": "null"}.get(schema.get("type", ""), schema.get("type", "anything"))
    limits = [
        "not empty" if name in ("minLength", "minItems") and schema[name] == 1 else words.format(f"{schema[name]:,}")
        for name, words in LIMITS.items()
        if name in schema
    ]
    if schema.get("default") is not None:
        limits.append(f"default {msgspec.json.encode(schema['default']).decode()}")
    return ", ".join([kind, *limits])
