"""OpenAPI 3.1 of a dialect, generated from its declarations; served, checked in and compared by a test."""

import re
from typing import Any

import msgspec

from comptoir.kit.errors import InvalidField, NotAllowed, NotAuthenticated, TooManyRequests, Unavailable
from comptoir.kit.http.endpoint import Access, Dialect, Endpoint
from comptoir.kit.http.errors import PayloadTooLarge, UnsupportedBody

_PARAM = re.compile(r"\{(\w+)(?::\w+)?\}")
REF = "#/components/schemas/{name}"

SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A user's key `ck_…` or a host's key `hk_live_…`."},
    "basic": {"type": "http", "scheme": "basic", "description": "Username and password."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}

NEEDED = {
    Access.PUBLIC: "No credential.",
    Access.OPTIONAL: "Credential optional.",
    Access.BUYER: "Needs a user's credential.",
    Access.HOST: "Needs a host's key.",
    Access.OPERATOR: "Needs an operator's credential.",
    Access.ANY: "Needs a user's or a host's credential.",
}

ERRORS_ALWAYS: tuple[type[Exception], ...] = (TooManyRequests, Unavailable)
ERRORS_WITH_BODY: tuple[type[Exception], ...] = (PayloadTooLarge, UnsupportedBody)
ERRORS_WITH_INPUT: tuple[type[Exception], ...] = (InvalidField,)
ERRORS_BY_ACCESS: dict[Access, tuple[type[Exception], ...]] = {
    Access.PUBLIC: (),
    Access.OPTIONAL: (NotAuthenticated,),
    Access.BUYER: (NotAuthenticated, NotAllowed),
    Access.HOST: (NotAuthenticated, NotAllowed),
    Access.OPERATOR: (NotAuthenticated, NotAllowed),
    Access.ANY: (NotAuthenticated, NotAllowed),
}


def openapi_document(dialect: Dialect, *, version: str) -> dict[str, Any]:
    """Return the document for *dialect* with root paths as published; `servers` names the prefix as well."""
    types = [t for e in dialect.endpoints for t in (e.request, e.response, e.query) if t is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template=REF)
    _decimals_are_numbers(components)
    by_type = dict(zip([id(t) for t in types], schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in dialect.endpoints:
        plain = _PARAM.sub(r"{\1}", endpoint.path)
        paths.setdefault(plain, {})[endpoint.method.lower()] = _operation(endpoint, dialect, by_type, components)
    servers = [{"url": "/"}, {"url": dialect.prefix}] if dialect.at_root else [{"url": dialect.prefix}]
    return {
        "openapi": "3.1.0",
        "info": {"title": dialect.title, "version": version, "description": dialect.description},
        "servers": servers,
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": SECURITY},
    }


def _decimals_are_numbers(schema: Any) -> None:
    """Correct what msgspec says of `Decimal`: our encoder writes numbers, exactly (`server.encode_json`)."""
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
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAM.findall(endpoint.path)
    ]
    if endpoint.query is not None:
        parameters += _query(by_type[id(endpoint.query)], components)
    if endpoint.idempotent:
        parameters.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
            }
        )
    if parameters:
        made["parameters"] = parameters
    if endpoint.request is not None:
        content: dict[str, Any] = {"schema": by_type[id(endpoint.request)]}
        if endpoint.example is not None:
            content["example"] = endpoint.example
        made["requestBody"] = {"required": True, "content": {"application/json": content}}
    if endpoint.access is not Access.PUBLIC:
        made["security"] = [{"bearer": []}, {"basic": []}, {"header": []}]
        if endpoint.access is Access.OPTIONAL:
            made["security"].append({})
    return made


def _responses(endpoint: Endpoint, dialect: Dialect, by_type: dict[int, Any]) -> dict[str, Any]:
    ok: dict[str, Any] = {"description": "OK"}
    if endpoint.response is not None:
        ok["content"] = {"application/json": {"schema": by_type[id(endpoint.response)]}}
    elif endpoint.status != 204:
        ok["content"] = {endpoint.media: {"schema": {"type": "string"} if endpoint.media != "application/json" else {}}}
    made = {str(endpoint.status): ok}
    for status in endpoint.also:
        made[str(status)] = {"description": "OK"}
    for status in sorted({dialect.error_statuses(error) for error in endpoint_errors(endpoint)}):
        made[str(status)] = {"description": "Refused", "content": {"application/json": {"schema": {}}}}
    return made


def endpoint_errors(endpoint: Endpoint) -> tuple[type[Exception], ...]:
    """Return every error class that *endpoint* may answer with, in the order they are checked."""
    from_gate = ERRORS_BY_ACCESS[endpoint.access] + ERRORS_ALWAYS
    from_body = ERRORS_WITH_BODY if endpoint.request is not None or endpoint.raw else ()
    from_input = ERRORS_WITH_INPUT if endpoint.request is not None or endpoint.query is not None else ()
    return from_gate + from_body + from_input + endpoint.errors


def _query(schema: dict[str, Any], components: dict[str, Any]) -> list[dict[str, Any]]:
    struct = components[schema["$ref"].rsplit("/", 1)[1]]
    required = set(struct.get("required", ()))
    return [
        {"name": name, "in": "query", "required": name in required, "schema": shape}
        for name, shape in struct["properties"].items()
    ]
