"""OpenAPI 3.1 of a dialect, generated from its declarations; served, committed, and compared by a test."""

import ast
import inspect
import re
import textwrap
from http import HTTPStatus
from typing import Any

import msgspec

from comptoir.kit.errors import InvalidField, NotAllowed, NotAuthenticated, TooManyRequests, Unavailable
from comptoir.kit.http.browsers import ForeignPage, NotDeclaredJson, RepeatedHeader, WrongName
from comptoir.kit.http.encodings import TAKEN, UnsupportedEncoding
from comptoir.kit.http.endpoint import Access, Dialect, Endpoint
from comptoir.kit.http.errors import PayloadTooLarge, TooSlow, UnsupportedBody

_PARAM = re.compile(r"\{(\w+)(?::\w+)?\}")
REF = "#/components/schemas/{name}"

SECURITY = {
    "basic": {"type": "http", "scheme": "basic", "description": "Username and password of a user."},
    "bearer": {"type": "http", "scheme": "bearer", "description": "A user's key `ck_…` or a host's key `hk_live_…`."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same keys."},
}

SCHEMES: dict[Access, tuple[str, ...]] = {
    Access.PUBLIC: (),
    Access.OPTIONAL: ("bearer", "basic", "header"),
    Access.BUYER: ("bearer", "basic", "header"),
    Access.HOST: ("bearer", "header"),
    Access.OPERATOR: ("bearer", "basic", "header"),
    Access.ANY: ("bearer", "basic", "header"),
}

NEEDED = {
    Access.PUBLIC: "No credential.",
    Access.OPTIONAL: "Credential optional.",
    Access.BUYER: "Needs a user's credential.",
    Access.HOST: "Needs a host's key.",
    Access.OPERATOR: "Needs an operator's credential.",
    Access.ANY: "Needs a user's or a host's credential.",
}

ERRORS_BEFORE: tuple[type[Exception], ...] = (RepeatedHeader, WrongName, ForeignPage)
ERRORS_ALWAYS: tuple[type[Exception], ...] = (TooManyRequests, Unavailable)
ERRORS_WITHOUT_KEY: tuple[type[Exception], ...] = (NotDeclaredJson,)
ERRORS_WITH_BODY: tuple[type[Exception], ...] = (UnsupportedEncoding, PayloadTooLarge, UnsupportedBody)
ERRORS_WITH_STREAM: tuple[type[Exception], ...] = (UnsupportedEncoding, PayloadTooLarge, TooSlow)
ERRORS_WITH_INPUT: tuple[type[Exception], ...] = (InvalidField,)
ERRORS_BY_ACCESS: dict[Access, tuple[type[Exception], ...]] = {
    Access.PUBLIC: (),
    # A credential that is sent has to be valid.
    Access.OPTIONAL: (NotAuthenticated,),
    Access.BUYER: (NotAuthenticated, NotAllowed),
    Access.HOST: (NotAuthenticated, NotAllowed),
    Access.OPERATOR: (NotAuthenticated, NotAllowed),
    Access.ANY: (NotAuthenticated,),
}

IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Makes a repeat of this request answer as the first one did, and create or spend nothing more.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}

RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait before asking again.", "schema": {"type": "integer"}}}

ACCEPT_ENCODING = {
    "Accept-Encoding": {
        "description": f"What a body may be compressed with ({TAKEN}); absent where it is refused for its type.",
        "schema": {"type": "string"},
    }
}


def openapi_document(dialect: Dialect, *, version: str) -> dict[str, Any]:
    """Return the document for *dialect* with root paths as published; `servers` names the prefix as well.

    Consists of plain values in a fixed order, so that the same declarations give the same bytes.
    """
    declared = [t for e in dialect.endpoints for t in (e.request, e.response, e.query, dialect.error_body)]
    types = list({id(t): t for t in declared if t is not None}.values())
    schemas, components = msgspec.json.schema_components(types, ref_template=REF)
    _decimals_are_numbers(components)
    by_type = {id(t): _plain(schema) for t, schema in zip(types, schemas, strict=True)}
    components = {name: _plain(schema) for name, schema in components.items()}
    _describe(types, components)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in dialect.endpoints:
        plain = _PARAM.sub(r"{\1}", endpoint.path)
        paths.setdefault(plain, {})[endpoint.method.lower()] = _operation(endpoint, dialect, by_type, components)
    asked = {reference.rsplit("/", 1)[1] for reference in _references(paths, components)}
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": dialect.title, "version": version, "description": _description(dialect)},
        "servers": [{"url": url} for url in _servers(dialect)],
        "paths": paths,
        "components": {
            "schemas": {name: schema for name, schema in components.items() if name in asked},
            "securitySchemes": SECURITY,
        },
    }
    if dialect.sockets:
        # OpenAPI can't describe WebSockets: programs find them in an extension, people in the description.
        document["x-websockets"] = {
            socket.path: {"summary": socket.summary, "description": NEEDED[socket.access]} for socket in dialect.sockets
        }
    return _in_order(document)  # type: ignore[no-any-return]


def document_bytes(dialect: Dialect, *, version: str) -> bytes:
    """Return the document as served and committed: indented JSON with a final newline."""
    return msgspec.json.format(msgspec.json.encode(openapi_document(dialect, version=version)), indent=2) + b"\n"


def _describe(types: list[Any], components: dict[str, Any]) -> None:
    """Copy the docstrings below structs' fields into the components."""
    waiting: list[Any] = list(msgspec.inspect.multi_type_info(types))
    seen: set[int] = set()
    while waiting:
        part = waiting.pop()
        if isinstance(part, msgspec.inspect.StructType):
            component = components.get(part.cls.__name__)
            if id(part.cls) in seen or component is None:
                continue
            seen.add(id(part.cls))
            words = field_words(part.cls)
            for field in part.fields:
                if field.name in words:
                    component["properties"][field.encode_name].setdefault("description", words[field.name])
                waiting.append(field.type)
        elif isinstance(part, msgspec.inspect.Type):
            waiting += [getattr(part, name) for name in part.__struct_fields__]
        elif isinstance(part, list | tuple):
            waiting += part


def field_words(struct: type) -> dict[str, str]:
    """Return the docstrings below the fields of *struct* and its parents, by field name."""
    found: dict[str, str] = {}
    for parent in reversed(struct.__mro__):
        if parent is msgspec.Struct or not issubclass(parent, msgspec.Struct):
            continue
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(parent))).body
        name = ""
        for line in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                name = line.target.id
            elif isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and name:
                found[name] = " ".join(str(line.value.value).split())
                name = ""
            else:
                name = ""
    return found


def _description(dialect: Dialect) -> str:
    """Return what the dialect is, and its WebSockets, as Markdown."""
    sockets = [f"- WebSocket `{one.path}`: {one.summary} {NEEDED[one.access]}" for one in dialect.sockets]
    return "\n\n".join(part for part in (dialect.description, "\n".join(sockets)) if part)


def _servers(dialect: Dialect) -> list[str]:
    at_root = ["/"] if dialect.at_root else []
    return at_root + ([dialect.prefix] if dialect.prefix else [])


def _decimals_are_numbers(schema: Any) -> None:
    """Correct msgspec's schema of `Decimal`: our encoder writes numbers, exactly (`server.encode_json`)."""
    if isinstance(schema, dict):
        if schema.get("format") == "decimal":
            schema["type"] = "number"
        for each in schema.values():
            _decimals_are_numbers(each)
    elif isinstance(schema, list):
        for each in schema:
            _decimals_are_numbers(each)


def _operation(
    endpoint: Endpoint, dialect: Dialect, by_type: dict[int, Any], components: dict[str, Any]
) -> dict[str, Any]:
    made: dict[str, Any] = {
        "summary": endpoint.summary,
        "description": " ".join(part for part in (endpoint.description, NEEDED[endpoint.access]) if part),
        "operationId": f"{dialect.name}_{endpoint.method.lower()}_" + re.sub(r"\W+", "_", endpoint.path).strip("_"),
        "responses": _responses(endpoint, dialect, by_type),
    }
    if endpoint.tags:
        made["tags"] = list(endpoint.tags)
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _PARAM.findall(endpoint.path)
    ]
    if endpoint.query is not None:
        parameters += _query(by_type[id(endpoint.query)], components)
    if endpoint.idempotent:
        parameters.append(IDEMPOTENCY_KEY)
    if parameters:
        made["parameters"] = parameters
    if endpoint.request is not None:
        content: dict[str, Any] = {"schema": by_type[id(endpoint.request)]}
        if endpoint.example is not None:
            content["example"] = endpoint.example
        made["requestBody"] = {"required": True, "content": {"application/json": content}}
    if endpoint.streams:
        binary = {"schema": {"type": "string", "format": "binary"}}
        made["requestBody"] = {"required": False, "content": dict.fromkeys(endpoint.streams, binary)}
    schemes = SCHEMES[endpoint.access]
    if schemes:
        made["security"] = [{name: []} for name in schemes]
        if endpoint.access is Access.OPTIONAL:
            made["security"].append({})
    return made


def _responses(endpoint: Endpoint, dialect: Dialect, by_type: dict[int, Any]) -> dict[str, Any]:
    ok: dict[str, Any] = {"description": HTTPStatus(endpoint.status).phrase}
    if endpoint.response is not None:
        ok["content"] = {"application/json": {"schema": by_type[id(endpoint.response)]}}
        if endpoint.answer_example is not None:
            ok["content"]["application/json"]["example"] = endpoint.answer_example
    elif endpoint.status != 204:
        ok["content"] = {endpoint.media: _unstructured(endpoint.media)}
    for media in endpoint.media_also:
        ok.setdefault("content", {})[media] = _unstructured(media)
    made = {str(endpoint.status): ok}
    for status in endpoint.also:
        made[str(status)] = {"description": HTTPStatus(status).phrase}
        if status != 204 and "content" in ok:
            made[str(status)]["content"] = ok["content"]
    for status, lines in _refusals(endpoint, dialect).items():
        body = by_type[id(dialect.error_body)] if dialect.error_body is not None else {}
        refused = {
            "description": "\n".join(f"- {line}" for line in lines),
            "content": {"application/json": {"schema": body}},
        }
        if status in (429, 503):
            refused["headers"] = RETRY_AFTER
        elif status == 415:
            refused["headers"] = ACCEPT_ENCODING
        earlier = made.get(str(status))
        if earlier is not None:  # A status that is also a regular answer, as 503 of an unhealthy coordinator.
            earlier["description"] += "\n" + str(refused["description"])
            continue
        made[str(status)] = refused
    return made


def _unstructured(media: str) -> dict[str, Any]:
    """Return the schema of a text answer; untyped JSON and event streams have none."""
    is_text = media.startswith("text/") and media != "text/event-stream"
    return {"schema": {"type": "string"}} if is_text else {}


def _refusals(endpoint: Endpoint, dialect: Dialect) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for error in dict.fromkeys(endpoint_errors(endpoint)):
        found.setdefault(dialect.error_statuses(error), []).append(f"`{error.__name__}`: {first_line(error)}")
    for status, words in endpoint.more:
        found.setdefault(status, []).append(words)
    return dict(sorted(found.items()))


def endpoint_errors(endpoint: Endpoint) -> tuple[type[Exception], ...]:
    """Return every error class that *endpoint* may answer with, in the order they are checked."""
    from_gate = ERRORS_BEFORE + ERRORS_BY_ACCESS[endpoint.access] + ERRORS_ALWAYS
    from_body = ERRORS_WITH_BODY if endpoint.request is not None or endpoint.raw else ()
    if endpoint.streams:
        from_body = ERRORS_WITH_STREAM
    if from_body and endpoint.access in (Access.PUBLIC, Access.OPTIONAL):
        from_body = ERRORS_WITHOUT_KEY + from_body
    takes_input = endpoint.request is not None or endpoint.query is not None or endpoint.idempotent
    return from_gate + from_body + (ERRORS_WITH_INPUT if takes_input else ()) + endpoint.errors


def first_line(thing: object) -> str:
    """Return the first sentence of a class's or function's docstring, in one line."""
    return " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())


def _query(schema: dict[str, Any], components: dict[str, Any]) -> list[dict[str, Any]]:
    struct = components[schema["$ref"].rsplit("/", 1)[1]]
    required = set(struct.get("required", ()))
    made = []
    for name, shape in struct["properties"].items():
        parameter: dict[str, Any] = {"name": name, "in": "query", "required": name in required}
        shape = _without_null(shape)
        if "description" in shape:
            parameter["description"] = shape.pop("description")
        made.append({**parameter, "schema": shape})
    return made


def _without_null(shape: dict[str, Any]) -> dict[str, Any]:
    """Remove null from a query parameter's schema: a query string has no null, the parameter is left out."""
    shape = {key: value for key, value in shape.items() if not (key == "default" and value is None)}
    choices = [one for one in shape.get("anyOf", ()) if one != {"type": "null"}]
    if choices and len(choices) == 1:
        del shape["anyOf"]
        shape.update(choices[0])
    if isinstance(shape.get("enum"), list):
        shape["enum"] = [one for one in shape["enum"] if one is not None]
    return shape


def _plain(schema: Any) -> Any:
    """Declare decimals as JSON numbers, which they are on our wire; msgspec takes them for strings."""
    if isinstance(schema, dict):
        if schema.get("type") == "string" and schema.get("format") == "decimal":
            return {**{key: value for key, value in schema.items() if key != "format"}, "type": "number"}
        return {key: _plain(value) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_plain(value) for value in schema]
    return schema


def _references(*parts: Any) -> set[str]:
    """Return every ``$ref`` in *parts*."""
    found: set[str] = set()
    waiting = list(parts)
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if isinstance(part.get("$ref"), str):
                found.add(part["$ref"])
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    return found


TOP = ("openapi", "info", "servers", "paths", "components")
"""Keys that come first, in this order; the rest is alphabetical."""


def _in_order(value: Any, *, top: bool = True) -> Any:
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: (TOP.index(name) if top and name in TOP else len(TOP), name))
        # Fields and examples stay in declaration order, which puts what matters first.
        return {
            name: value[name] if name in ("properties", "example") else _in_order(value[name], top=False)
            for name in names
        }
    if isinstance(value, list):
        return [_in_order(one, top=False) for one in value]
    return value
