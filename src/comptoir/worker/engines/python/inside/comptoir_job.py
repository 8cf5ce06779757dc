"""What a program that was bought can say and ask: ``import comptoir_job``. Standard library only; it runs in the job.

``progress(0.5, "epoch 3")`` shows how far the program is; ``result(value)`` gives the result of a script, which a
function simply returns; ``inputs`` are the paths of the inputs by name.

A result is any JSON. Beyond that: tuples and sets become lists (sets sorted where they can be), bytes
``{"base64": …}``, dates and times ISO 8601, ``Path``, ``UUID`` and ``Decimal`` text, enumerations their values, data
classes objects, arrays and tensors lists (their ``tolist``). ``nan`` and the infinities become null and half a
surrogate pair U+FFFD, and a line on standard error says so. Anything else is refused with `NoJson`.
"""

import base64
import dataclasses
import datetime
import decimal
import enum
import json
import math
import os
import pathlib
import re
import sys
import threading
import uuid
from typing import Any

DEPTH_MAX = 100
"""Deepest nesting of a result."""
BITS_MAX = 1023
"""Longest integer of a result: JavaScript reads a longer one as infinity. Those beyond 53 bits stay exact here."""
NOTE_CHARS_MAX = 500

inputs: dict[str, str] = {}
"""Paths of the inputs, by name."""


class _Channel:
    """The way to the host; opened by the runner, closed in every other process."""

    def __init__(self) -> None:
        self.descriptor = -1
        self.given = False
        """Whether there is a result."""
        self._lock = threading.Lock()

    def write(self, line: bytes) -> None:
        """Write a line whole; those of several threads do not mix."""
        if self.descriptor < 0:
            raise OSError("this process has no channel to the host")
        with self._lock:
            while line:
                line = line[os.write(self.descriptor, line) :]

    def say(self, message: dict[str, Any]) -> None:
        """Write a message of no consequence; a channel that the program closed takes none."""
        try:
            self.write(json.dumps(message).encode() + b"\n")
        except OSError:
            return


_channel = _Channel()
_HALF = re.compile(r"[\ud800-\udfff]")


class NoJson(ValueError):
    """A value has no form in JSON; the message says which and where."""


def progress(done: float | None = None, note: str = "") -> None:
    """Show how far the program is; costs nothing and changes nothing else.

    Args:
        done: part of the whole, 0 to 1; None: not known.
        note: what it is doing.
    """
    said: dict[str, Any] = {"note": str(note)[:NOTE_CHARS_MAX]}
    if done is not None and math.isfinite(done):
        said["done"] = min(1.0, max(0.0, float(done)))
    _channel.say({"progress": said})


def result(value: Any) -> None:
    """Give the result, once.

    Raises:
        NoJson: it has no form in JSON; nothing was given, and another can be. RuntimeError: one was given before.
    """
    text = to_json(value)
    if _channel.given:
        raise RuntimeError("a result was given before")
    _channel.given = True
    _channel.write(b'{"result":' + text + b"}\n")


def to_json(value: Any) -> bytes:
    """Return *value* as JSON, converted as this module says.

    Raises:
        NoJson: it can't be.
    """
    notes: dict[str, int] = {}
    try:
        plain = _plain(value, "$", 0, notes)
        text = json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except RecursionError as error:
        raise NoJson("it is nested too deep") from error
    for note, count in notes.items():
        print(f"comptoir: {count} {note}", file=sys.stderr)
    return text


def _plain(value: Any, at: str, depth: int, notes: dict[str, int]) -> Any:
    """Return what stands for *value*, found at the path *at*, in JSON."""
    if depth > DEPTH_MAX:
        raise NoJson(f"it is nested deeper than {DEPTH_MAX}, or contains itself")
    if isinstance(value, enum.Enum):
        return _plain(value.value, at, depth + 1, notes)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if value.bit_length() > BITS_MAX:
            raise NoJson(f"{at} is an integer of more than {BITS_MAX} bits")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            _note(notes, "values of the result were no finite numbers, and are null in it")
            return None
        return float(value)
    if isinstance(value, str):
        text, halves = _HALF.subn("\N{REPLACEMENT CHARACTER}", value)
        if halves:
            _note(notes, "texts of the result had half a surrogate pair, and have U+FFFD in its place")
        return str(text)
    if isinstance(value, dict):
        return _object(value, at, depth, notes)
    if isinstance(value, (list, tuple)):
        return [_plain(each, f"{at}[{number}]", depth + 1, notes) for number, each in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        return _plain(_in_order(value), at, depth + 1, notes)
    return _other(value, at, depth, notes)


def _other(value: Any, at: str, depth: int, notes: dict[str, int]) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (pathlib.PurePath, uuid.UUID, decimal.Decimal)):
        return _plain(str(value), at, depth + 1, notes)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _plain(fields, at, depth + 1, notes)
    if callable(getattr(value, "tolist", None)):
        return _plain(value.tolist(), at, depth + 1, notes)
    raise NoJson(f"{at} is a {type(value).__name__}, which has no form in JSON")


def _object(value: dict[Any, Any], at: str, depth: int, notes: dict[str, int]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, each in value.items():
        name = _plain(key, f"{at} (a key)", depth + 1, notes)
        if name is None or isinstance(name, (bool, int, float)):
            name = json.dumps(name)
        if not isinstance(name, str):
            raise NoJson(f"{at} has a {type(key).__name__} as a key")
        if name in made:
            raise NoJson(f"{at} has two keys that are {name!r} in JSON")
        made[name] = _plain(each, f"{at}.{name[:50]}", depth + 1, notes)
    return made


def _in_order(values: Any) -> list[Any]:
    try:
        return sorted(values)
    except TypeError:
        return list(values)


def _note(notes: dict[str, int], what: str) -> None:
    notes[what] = notes.get(what, 0) + 1
