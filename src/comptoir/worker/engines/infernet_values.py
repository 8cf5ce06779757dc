"""Values of a Ritual configuration, as strict as its node: digits in quotes are a number, the rest is what it is."""

from collections.abc import Mapping, Sequence
from typing import Any


class BadValue(ValueError):
    """A value that is not what its key asks for. Never repeats the value, which may be a secret."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}" if path else why)
        self.path = path
        self.why = why


def kind(value: object) -> str:
    """Name the JSON type of *value* for a person."""
    if value is None:
        return "null"
    names = {
        bool: "true or false",
        int: "a number",
        float: "a fraction",
        str: "a text",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), "something else")


def mapping(value: object, path: str) -> Mapping[str, Any]:
    """Return *value* if it is an object."""
    if not isinstance(value, Mapping):
        raise BadValue(path, f"must be an object, is {kind(value)}")
    return value


def sequence(value: object, path: str) -> Sequence[Any]:
    """Return *value* if it is a list."""
    if not isinstance(value, list | tuple):
        raise BadValue(path, f"must be a list, is {kind(value)}")
    return value


def text(fields: Mapping[str, Any], key: str, path: str) -> str:
    """Return the text at *key*; empty when it is not there."""
    value = fields.get(key, "")
    if not isinstance(value, str):
        raise BadValue(path, f"must be a text, is {kind(value)}")
    return value


def texts(fields: Mapping[str, Any], key: str, path: str) -> tuple[str, ...]:
    """Return the list of texts at *key*; empty when it is not there."""
    values = sequence(fields.get(key, ()), path)
    for place, value in enumerate(values):
        if not isinstance(value, str):
            raise BadValue(f"{path}[{place}]", f"must be a text, is {kind(value)}")
    return tuple(values)


def flag(fields: Mapping[str, Any], key: str, path: str, *, default: bool) -> bool:
    """Return the truth at *key*, also written ``"true"`` or ``"false"``."""
    value = fields.get(key, default)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise BadValue(path, f"must be true or false, is {kind(value)}")
    return value


def whole(fields: Mapping[str, Any], key: str, path: str, *, default: int = 0) -> int:
    """Return the whole number at *key*, also written as digits in quotes."""
    return integer(fields.get(key, default), path)


def integer(value: object, path: str) -> int:
    """Return *value* if it is a whole number or the digits of one."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 100:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadValue(path, f"must be a whole number, is {kind(value)}")
    return value
